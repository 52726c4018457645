//! ICMP errors: each goes to whom it is about.
//!
//! An error quotes the packet that caused it. One about a packet from a virtual server to a client belongs to the
//! real server that sent it; one about a packet that NAT sent to a real server belongs to the client. Eight quoted
//! bytes of the transport header are enough: they hold the ports.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    Addr, FlowKey, Port, Verdict,
    checksum::Delta,
    conn::{Direction, NONE},
    ip_proto,
    server::Forwarding,
};

use crate::{
    connection::{Route, living_server_of, pack_opened, unpack_opened},
    forward::nat::End,
    maps,
    packet::{Packet, Window},
    parse::{self, Ip, Part, ipv4, ipv6, l4},
    schedule, service, settings,
    table::{self, Place},
};

/// ICMP header: type, code, checksum, four bytes that depend on the type.
const ICMP: usize = 8;
/// Outer headers longer than this are left to the kernel; it keeps the verifier's sums bounded.
const FARTHEST: usize = 128;
/// Masks for the offsets of the quoted IP header and of what is behind it, which lie within them (the latter for IPv6 by
/// [`ipv6::FARTHEST`]).
const FARTHEST_QUOTE: usize = 0xff;
const FARTHEST_PORTS: usize = ipv6::FARTHEST;
const _: () = assert!(FARTHEST + ICMP <= FARTHEST_QUOTE && FARTHEST_QUOTE + 60 <= FARTHEST_PORTS);

/// Finds whom an ICMP error is about, and for NAT translates what it quotes. The error itself is then forwarded like any
/// packet of that route.
#[inline(always)]
pub fn resolve(packet: Packet) -> Result<Route, Verdict> {
    // SAFETY: the program's own context.
    let route = unpack_opened(packet.forget(unsafe { icmp_owner(packet.raw()) }))?;
    let server = maps::server(route.server).ok_or(Verdict::DropServerGone)?;
    if server.forwarding == Forwarding::Nat as u8 {
        // SAFETY: as above.
        let translated = unsafe { icmp_translate(packet.raw(), Route::pack(Some(route))) };
        if translated == 0 {
            return Err(Verdict::DropIcmpMalformed);
        }
    }
    Ok(route)
}

#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn icmp_owner(ctx: *mut xdp_md) -> u64 {
    // SAFETY: the program's own context, by the contract of this function.
    pack_opened(find_owner(unsafe { Packet::from_raw(ctx) }))
}

#[inline(always)]
fn find_owner(packet: Packet) -> Result<Route, Verdict> {
    let (window, _, ip) = parse::headers(packet)?;
    if ip.part != Part::Whole || ip.l4 > FARTHEST {
        return Err(Verdict::PassIcmp);
    }
    let [kind, _code] = window.from(ip.l4).read::<[u8; 2]>(0).ok_or(Verdict::PassMalformed)?;
    if !is_error(kind, ip.v6) {
        return Err(Verdict::PassIcmp);
    }
    let inner = quoted_ip(packet, window, &ip)?;
    if inner.part == Part::Later || (inner.proto != ip_proto::TCP && inner.proto != ip_proto::UDP) {
        return Err(Verdict::PassIcmpUnrelated);
    }
    // An error goes to whoever sent what it quotes.
    if inner.src != ip.dst {
        return Err(Verdict::PassIcmpUnrelated);
    }
    let quoted = quoted_flow(window, &inner).ok_or(Verdict::DropIcmpMalformed)?;
    let route = owner(&quoted).ok_or(Verdict::PassIcmpUnrelated)?;
    living_server_of(&route)?;
    if ip.is_complete(window) { Ok(route) } else { Err(Verdict::DropIcmpMalformed) }
}

#[inline(always)]
fn quoted_flow(window: Window, inner: &Ip) -> Option<FlowKey> {
    let [sport, dport] = l4::ports(window, inner.l4)?;
    Some(FlowKey { src: inner.src, dst: inner.dst, sport, dport, proto: inner.proto as u32 })
}

/// Types that quote a packet: unreachable, source quench, time exceeded, parameter problem (RFC 792); all below 128
/// (RFC 4443 section 2.1). Redirects concern the machine that gets them.
#[inline(always)]
fn is_error(kind: u8, v6: bool) -> bool {
    if v6 { kind < 128 && kind != 0 } else { matches!(kind, 3 | 4 | 11 | 12) }
}

#[inline(always)]
fn quoted_ip(packet: Packet, window: Window, ip: &Ip) -> Result<Ip, Verdict> {
    // Of both offsets the verifier forgets how they came about, or it would follow what is behind the quoted header once for
    // each kind of outer header, and once for each kind of both.
    let at = packet.forget((ip.l4 + ICMP) as u64) as usize & FARTHEST_QUOTE;
    let mut inner = if ip.v6 {
        ipv6::read(packet, window, at).map_err(|_| Verdict::DropIcmpMalformed)?
    } else {
        ipv4::read(window, at).ok_or(Verdict::DropIcmpMalformed)?
    };
    inner.l4 = packet.forget(inner.l4 as u64) as usize & FARTHEST_PORTS;
    Ok(inner)
}

/// Whose packet is quoted: the connection of the opposite direction, or what a choice by the client's address says.
#[inline(always)]
fn owner(quoted: &FlowKey) -> Option<Route> {
    let key = quoted.reversed();
    if let Some(place) = Place::at(table::find_index(&key)) {
        return Some(Route {
            server: place.server(),
            direction: place.meta().direction(),
            place: place.index,
        });
    }
    let service = service::find(key.dst, key.dport, key.proto as u8)?;
    if !schedule::is_by_client(&service) {
        return None;
    }
    // Without a place: an error does not begin a connection, so no threshold keeps it out.
    match schedule::choose(&service, settings::hash_slowly(&key), key.src, key.sport, true) {
        NONE => None,
        server => Some(Route { server, direction: Direction::Forward, place: NONE }),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn icmp_translate(ctx: *mut xdp_md, route: u64) -> u32 {
    // SAFETY: the program's own context, by the contract of this function.
    let packet = unsafe { Packet::from_raw(ctx) };
    match Route::unpack(route).and_then(|route| translate(packet, &route)) {
        Some(()) => 1,
        None => 0,
    }
}

#[inline(always)]
fn translate(packet: Packet, route: &Route) -> Option<()> {
    let (window, _, ip) = parse::headers(packet).ok()?;
    if ip.l4 > FARTHEST {
        return None;
    }
    let inner = quoted_ip(packet, window, &ip).ok()?;
    let [sport, dport] = l4::ports(window, inner.l4)?;
    let server = maps::server(route.server)?;
    let or = |port: Port, old: Port| if port.is_any() { old } else { port };
    let (change, outer_old) = match route.direction {
        // The virtual server's packet is quoted to the real server as its own.
        Direction::Forward => {
            let (addr, port) = (server.addr, or(server.port, sport));
            (Change { end: End::Source, addr, port, old_port: sport }, ip.dst)
        }
        // What NAT sent to the real server is quoted to the client as what it had sent. The client knows nobody behind
        // the virtual server, so the error comes from there, whoever sent it.
        Direction::Reverse => {
            let (addr, port) = (server.vip, or(server.vport, dport));
            (Change { end: End::Destination, addr, port, old_port: dport }, ip.src)
        }
    };
    // The outer address that forwarding changes becomes the same as the quoted one.
    translate_quoted(window, &ip, &inner, outer_old, change.addr, &change)
}

/// What is translated in the quoted packet.
struct Change {
    end: End,
    addr: Addr,
    port: Port,
    old_port: Port,
}

/// Translates the quoted packet back to what its sender had sent, and the checksums inside and around it. ICMP's
/// own covers the quoted packet and, in IPv6, the addresses of the outer one (`outer_old` becomes `outer_new`).
#[inline(always)]
fn translate_quoted(
    window: Window,
    ip: &Ip,
    inner: &Ip,
    outer_old: Addr,
    outer_new: Addr,
    change: &Change,
) -> Option<()> {
    let at_source = change.end == End::Source;
    let old = if at_source { inner.src } else { inner.dst };
    let addr = Delta::ZERO.addr(old, change.addr);
    let port = Delta::ZERO.half(change.old_port.wire(), change.port.wire());
    // Everything that changes under ICMP's checksum.
    let mut covered = addr.and(port);
    if inner.v6 {
        covered = covered.addr(outer_old, outer_new);
        window.from(inner.l3 + if at_source { 8 } else { 24 }).write(0, change.addr.words())?;
    } else {
        let checksum = window.from(inner.l3).read::<u16>(10)?;
        let translated = addr.apply(checksum);
        window.from(inner.l3).write(10, translated)?;
        covered = covered.half(checksum, translated);
        window.from(inner.l3 + if at_source { 12 } else { 16 }).write(0, change.addr.v4_word())?;
    }
    window.from(inner.l4 + if at_source { 0 } else { 2 }).write(0, change.port.wire())?;
    // The transport checksum lies inside the eight bytes for UDP, behind them for TCP: it is translated if it is there, and
    // padding of the frame is not taken for it.
    let transport = addr.and(port);
    let end = ip.l3 + ip.len as usize;
    if inner.proto == ip_proto::UDP {
        if inner.l4 + l4::UDP_CHECKSUM + 2 <= end
            && let Some(checksum) = window.from(inner.l4).read::<u16>(l4::UDP_CHECKSUM)
        {
            let translated = transport.apply_udp(checksum);
            window.from(inner.l4).write(l4::UDP_CHECKSUM, translated)?;
            covered = covered.half(checksum, translated);
        }
    } else if inner.l4 + l4::TCP_CHECKSUM + 2 <= end
        && let Some(checksum) = window.from(inner.l4).read::<u16>(l4::TCP_CHECKSUM)
    {
        let translated = transport.apply(checksum);
        window.from(inner.l4).write(l4::TCP_CHECKSUM, translated)?;
        covered = covered.half(checksum, translated);
    }
    let checksum = window.from(ip.l4).read::<u16>(2)?;
    window.from(ip.l4).write(2, covered.apply(checksum))
}
