//! Connections that the director itself opens to its virtual servers.
//!
//! XDP sees only what interfaces receive, and such a packet never leaves the machine. So the choice is made earlier, when a
//! socket connects: the virtual server's address is exchanged for a real server's before there is any packet. The
//! connection then is an ordinary one of the director's; it is counted, but stands in no table.

use aya_ebpf::{
    EbpfContext as _, bindings::bpf_sock_addr, helpers::generated::bpf_get_netns_cookie,
    programs::SockAddrContext,
};
use lb_common::{Addr, Event, FlowHash, Port, conn::NONE, ip_proto, server::server_flag};

use crate::{maps, schedule, service, settings, stats};

/// What the kernel is told about a `connect`: it goes on, to whatever address is set now.
pub const GO_ON: i32 = 1;

/// A socket of the family that `v6` says connects.
#[inline(always)]
pub fn connect(ctx: &SockAddrContext, v6: bool) -> i32 {
    // SAFETY: the program's own context.
    if unsafe { bpf_get_netns_cookie(ctx.as_ptr()) } == settings::netns_cookie() {
        // Whatever finds no real server goes on to this machine's own stack, which refuses it.
        let _ = redirect(ctx.sock_addr, v6);
    }
    GO_ON
}

macro_rules! field {
    ($addr:ident . $($name:tt)+) => {{
        // SAFETY: the program's own context; volatile, because the kernel takes whole fields at fixed offsets only.
        unsafe { (&raw mut (*$addr).$($name)+) }
    }};
}

#[inline(always)]
fn redirect(sock: *mut bpf_sock_addr, v6: bool) -> Option<()> {
    // SAFETY: pointers to fields of the context, as `field` gives them.
    let get = |field: *mut u32| unsafe { field.read_volatile() };
    let proto = get(field!(sock.protocol)) as u8;
    if proto != ip_proto::TCP && proto != ip_proto::UDP {
        return None;
    }
    let target = if v6 {
        Addr::v6([
            get(field!(sock.user_ip6[0])),
            get(field!(sock.user_ip6[1])),
            get(field!(sock.user_ip6[2])),
            get(field!(sock.user_ip6[3])),
        ])
    } else {
        Addr::v4(get(field!(sock.user_ip4)))
    };
    if !service::is_virtual(target) {
        return None;
    }
    let port = Port::from_wire(get(field!(sock.user_port)) as u16);
    let service = service::find(target, port, proto)?;
    if service::is_on_standby(service.role) {
        // It goes to the master, like anybody's.
        return None;
    }
    // The packet's source would be the virtual server's own address, as with IPVS.
    let number = schedule::choose(&service, FlowHash::default(), target, Port::ANY, false);
    if number == NONE {
        return None;
    }
    let server = maps::server(number)?;
    if server.forwarding == 0
        || server.flags & server_flag::GONE != 0
        || server.addr.is_v4() != target.is_v4()
    {
        return None;
    }
    // SAFETY: as above.
    let set = |field: *mut u32, value: u32| unsafe { field.write_volatile(value) };
    if v6 {
        let [a, b, c, d] = server.addr.words();
        set(field!(sock.user_ip6[0]), a);
        set(field!(sock.user_ip6[1]), b);
        set(field!(sock.user_ip6[2]), c);
        set(field!(sock.user_ip6[3]), d);
    } else {
        set(field!(sock.user_ip4), server.addr.v4_word());
    }
    if !server.port.is_any() {
        set(field!(sock.user_port), server.port.wire().into());
    }
    stats::count_connection(number);
    stats::count_event(Event::ConnectionLocal);
    Some(())
}
