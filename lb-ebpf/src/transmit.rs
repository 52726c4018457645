//! The frame's header for the next hop, and the way out.

use aya_ebpf::{
    bindings::{bpf_fib_lookup as FibParams, xdp_action::XDP_ABORTED, xdp_md},
    helpers::generated::{bpf_check_mtu, bpf_fib_lookup, bpf_redirect},
    macros::map,
    maps::PerCpuArray,
};
use lb_common::{
    Event, Verdict,
    conn::Direction,
    server::{Macs, NextHop, Server, next_hop_flag},
};

use crate::{
    connection::Route,
    maps,
    packet::{Packet, Window},
    parse::{self, ETHERNET, VLAN_TAG},
    stats,
};

/// Hands the packet to another interface.
#[inline(always)]
pub fn redirect(ifindex: u32) -> u32 {
    // SAFETY: a helper with plain arguments.
    u32::try_from(unsafe { bpf_redirect(ifindex, 0) }).unwrap_or(XDP_ABORTED)
}

/// This CPU's answer of the kernel's tables; here because the stack has no room for it.
#[map]
static KERNEL_HOP: PerCpuArray<NextHop> = PerCpuArray::with_max_entries(1, 0);

/// The next hop to a real server: what the agent keeps in the server's entry, else what the kernel knows.
#[inline(always)]
pub fn hop_to_server<'a>(packet: Packet, route: &Route, server: &'a Server) -> Result<&'a NextHop, Verdict> {
    if server.next_hop.flags & next_hop_flag::RESOLVED != 0 {
        return Ok(&server.next_hop);
    }
    hop_by_kernel(packet, route)
}

/// The next hop of a route by the kernel's routing and neighbour tables.
#[inline(always)]
pub fn hop_by_kernel(packet: Packet, route: &Route) -> Result<&'static NextHop, Verdict> {
    // SAFETY: the program's own context.
    if unsafe { transmit_ask_kernel(packet.raw(), Route::pack(Some(*route))) } == 0 {
        return Err(Verdict::DropNoNextHop);
    }
    KERNEL_HOP.get(0).ok_or(Verdict::DropNoNextHop)
}

#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn transmit_ask_kernel(ctx: *mut xdp_md, route: u64) -> u32 {
    // SAFETY: the program's own context, by the contract of this function.
    let packet = unsafe { Packet::from_raw(ctx) };
    let hop = Route::unpack(route).and_then(|route| ask_kernel(packet, &route));
    // SAFETY: this CPU's own value.
    match (hop, KERNEL_HOP.get_ptr_mut(0).map(|answer| unsafe { &mut *answer })) {
        (Some(hop), Some(answer)) => {
            *answer = hop;
            1
        }
        _ => 0,
    }
}

#[inline(always)]
fn ask_kernel(packet: Packet, route: &Route) -> Option<NextHop> {
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    stats::count_event(Event::FibLookup);
    let server = maps::server(route.server)?;
    // The source is left open: what the packet has, or a tunnel would get, matters to policy rules only.
    let target = match route.direction {
        Direction::Forward => server.addr,
        Direction::Reverse => parse::headers(packet).ok()?.2.dst,
    };
    // SAFETY: plain integers and unions of them; all bits zero is a value.
    let mut params: FibParams = unsafe { core::mem::zeroed() };
    params.ifindex = packet.ingress();
    if target.is_v4() {
        params.family = AF_INET;
        params.__bindgen_anon_4.ipv4_dst = target.v4_word();
    } else {
        params.family = AF_INET6;
        params.__bindgen_anon_4.ipv6_dst = target.words();
    }
    let size = size_of::<FibParams>() as i32;
    // SAFETY: the program's own context and parameters of the size that is told.
    if unsafe { bpf_fib_lookup(packet.raw().cast(), &raw mut params, size, 0) } != 0 {
        return None;
    }
    // The stack is read in aligned words only: `smac` and `dmac` fill the last three of them.
    const _: () = assert!(size_of::<FibParams>() == 64 && core::mem::offset_of!(FibParams, smac) == 52);
    // SAFETY: all of the parameters.
    let words = unsafe { (&raw const params).cast::<[u32; 16]>().read_volatile() };
    // No packet is as long as this, so the answer is the interface's MTU.
    let mtu = exceeded_mtu_of(packet.raw(), params.ifindex, u16::MAX.into());
    Some(NextHop {
        ifindex: params.ifindex,
        mtu: if mtu == 0 { u16::MAX } else { mtu as u16 },
        flags: next_hop_flag::RESOLVED | next_hop_flag::KEEP_TAGS,
        // Source before destination: a frame's first twelve bytes, turned round.
        macs: Macs::from_words([words[13], words[14], words[15]]).turned(),
        ..NextHop::default()
    })
}

/// The MTU of the interface if `len` bytes of layer 3 exceed it.
#[inline(always)]
pub fn exceeded_mtu(packet: Packet, ifindex: u32, len: u32) -> Option<u32> {
    /// No interface that carries IPv6 takes less, and few that carry IPv4: below it nobody is asked.
    const EVERYWHERE: u32 = 1280;
    if len <= EVERYWHERE {
        return None;
    }
    match exceeded_mtu_of(packet.raw(), ifindex, len) {
        0 => None,
        mtu => Some(mtu),
    }
}

/// The MTU if it is exceeded, else 0.
#[inline(never)]
fn exceeded_mtu_of(ctx: *mut xdp_md, ifindex: u32, len: u32) -> u32 {
    const BPF_MTU_CHK_RET_FRAG_NEEDED: i64 = 1;
    // In: the packet's length on layer 3; out: the interface's MTU.
    let mut mtu = len;
    // SAFETY: the program's own context and a word on the stack.
    let result = unsafe { bpf_check_mtu(ctx.cast(), ifindex, &raw mut mtu, 0, 0) };
    if result == BPF_MTU_CHK_RET_FRAG_NEEDED { mtu & 0xffff } else { 0 }
}

/// Writes the frame's header for the next hop; the packet behind it keeps its length.
#[inline(always)]
pub fn relay(packet: Packet, window: Window, l3: usize, tags: u32, hop: &NextHop) -> Result<(), Verdict> {
    if keeps_tags(packet, hop) || (tags == 0 && hop.tags == 0) {
        return window.write(0, macs(hop)).ok_or(Verdict::DropNoRoom);
    }
    let ethertype = window.from(ethertype_at(tags)).read::<u16>(0).ok_or(Verdict::DropNoRoom)?;
    relay_grown(packet, window, l3, tags, hop, ethertype, 0).map(|_| ())
}

/// Makes room for `grown` bytes before the packet and writes the frame's header before them. Gives the new window
/// and the offset at which the room begins.
#[inline(always)]
pub fn relay_grown(
    packet: Packet,
    window: Window,
    l3: usize,
    tags: u32,
    hop: &NextHop,
    ethertype: u16,
    grown: usize,
) -> Result<(Window, usize), Verdict> {
    const ROOM: Verdict = Verdict::DropNoRoom;
    let (tags, vlan) = match keeps_tags(packet, hop) {
        true if tags > 0 => (tags, read_tags(window, tags).ok_or(ROOM)?),
        true => (0, [0; 2]),
        false => (hop.tags as u32, hop.vlan),
    };
    let new_l3 = ETHERNET + VLAN_TAG * (tags as usize & 3);
    let window = packet.grow_front((new_l3 + grown) as i32 - l3 as i32).ok_or(ROOM)?;
    window.write(0, macs(hop)).ok_or(ROOM)?;
    if tags > 0 {
        let [outer, inner] = vlan;
        window.write(12, outer).ok_or(ROOM)?;
        if tags > 1 {
            window.write(16, inner).ok_or(ROOM)?;
        }
    }
    window.from(ethertype_at(tags)).write(0, ethertype).ok_or(ROOM)?;
    Ok((window, new_l3))
}

/// The MAC addresses of a hop. Word by word: the compiler makes a call of `memmove` of a whole copy into the packet, since that
/// could overlap the hop for all it knows, and `memmove` goes byte by byte.
#[inline(always)]
fn macs(hop: &NextHop) -> [u32; 3] {
    let words = (&raw const hop.macs).cast::<u32>();
    // SAFETY: `Macs` is three words, and a reference is a valid pointer to all of them.
    unsafe { [words.read_volatile(), words.add(1).read_volatile(), words.add(2).read_volatile()] }
}

/// Offset of the EtherType behind this many tags.
#[inline(always)]
fn ethertype_at(tags: u32) -> usize {
    ETHERNET - 2 + VLAN_TAG * (tags as usize & 3)
}

/// A frame that leaves on the interface where it came keeps its tags, unless VLAN devices there say otherwise.
#[inline(always)]
fn keeps_tags(packet: Packet, hop: &NextHop) -> bool {
    hop.flags & next_hop_flag::KEEP_TAGS != 0 && hop.ifindex == packet.ingress()
}

/// The tags of a frame; the second is zero where there is none.
#[inline(always)]
pub fn read_tags(window: Window, tags: u32) -> Option<[u32; 2]> {
    let outer = window.read::<u32>(12)?;
    let inner = if tags > 1 { window.read::<u32>(16)? } else { 0 };
    Some([outer, inner])
}
