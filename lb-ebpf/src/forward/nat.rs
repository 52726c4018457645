//! Network address translation: addresses, ports, time to live and every checksum over them.

use lb_common::{Addr, Port, checksum::Delta, ip_proto, server::Server};

use crate::{
    packet::Window,
    parse::{Ip, Part, ipv4, ipv6, l4},
};

/// Which end of the packet is translated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The source: answers on their way to the client.
    Source,
    /// The destination: packets on their way to the real server.
    Destination,
}

/// Client -> virtual server becomes client -> real server.
#[inline(always)]
pub fn to_server(window: Window, ip: &Ip, server: &Server) -> Option<()> {
    let delta = Delta::from_folded(server.nat_delta);
    translate(window, ip, End::Destination, server.addr, server.port, delta)
}

/// Real server -> client becomes virtual server -> client.
#[inline(always)]
pub fn to_client(window: Window, ip: &Ip, server: &Server) -> Option<()> {
    // An ICMP error may have another source than the real server.
    let delta = if ip.is_icmp() {
        Delta::from_folded(Delta::ZERO.addr(ip.src, server.vip).folded())
    } else {
        Delta::from_folded(server.nat_delta).inverse()
    };
    translate(window, ip, End::Source, server.vip, server.vport, delta)
}

/// `delta` is what the change of the address adds to a checksum.
#[inline(always)]
fn translate(window: Window, ip: &Ip, end: End, addr: Addr, port: Port, delta: Delta) -> Option<()> {
    // The checksum of an ICMP error was translated together with what it quotes.
    if ip.part != Part::Later && !ip.is_icmp() {
        transport(window, ip, end, port, delta)?;
    }
    header(window, ip, end, addr, delta)
}

/// Translates the IP header and takes one from its time to live.
#[inline(always)]
fn header(window: Window, ip: &Ip, end: End, addr: Addr, delta: Delta) -> Option<()> {
    if ip.v6 {
        let at = ip.l3 + if end == End::Source { 8 } else { 24 };
        window.from(at).write(0, addr.words())?;
        return age(window, ip);
    }
    let mut header = window.from(ip.l3).read::<ipv4::Header>(0)?;
    header.checksum = delta.and(older(&header)).apply_halves(header.checksum);
    header.ttl = header.ttl.wrapping_sub(1);
    match end {
        End::Source => header.src = addr.v4_word(),
        End::Destination => header.dst = addr.v4_word(),
    }
    window.from(ip.l3).write(0, header)
}

/// Takes one from the time to live or hop limit.
#[inline(always)]
pub fn age(window: Window, ip: &Ip) -> Option<()> {
    if ip.v6 {
        const NEXT_HEADER: usize = core::mem::offset_of!(ipv6::Header, next_header);
        let [next_header, hop_limit] = window.from(ip.l3).read::<[u8; 2]>(NEXT_HEADER)?;
        return window.from(ip.l3).write(NEXT_HEADER, [next_header, hop_limit.wrapping_sub(1)]);
    }
    let mut header = window.from(ip.l3).read::<ipv4::Header>(0)?;
    header.checksum = older(&header).apply_halves(header.checksum);
    header.ttl = header.ttl.wrapping_sub(1);
    window.from(ip.l3).write(0, header)
}

/// What one hop changes in the sum of an IPv4 header: time to live and protocol share a half-word.
#[inline(always)]
fn older(header: &ipv4::Header) -> Delta {
    let old = u16::from_ne_bytes([header.ttl, header.proto]);
    let new = u16::from_ne_bytes([header.ttl.wrapping_sub(1), header.proto]);
    Delta::ZERO.half(old, new)
}

/// Translates the port and the checksum, which covers the addresses too (the pseudo-header).
#[inline(always)]
fn transport(window: Window, ip: &Ip, end: End, port: Port, delta: Delta) -> Option<()> {
    let at = ip.l4 + if end == End::Source { 0 } else { 2 };
    let old = window.from(at).read::<u16>(0)?;
    let new = if port.is_any() { old } else { port.wire() };
    window.from(at).write(0, new)?;
    let delta = delta.half(old, new);
    if ip.proto == ip_proto::TCP {
        let checksum = window.from(ip.l4).read::<u16>(l4::TCP_CHECKSUM)?;
        window.from(ip.l4).write(l4::TCP_CHECKSUM, delta.apply_halves(checksum))
    } else {
        let checksum = window.from(ip.l4).read::<u16>(l4::UDP_CHECKSUM)?;
        window.from(ip.l4).write(l4::UDP_CHECKSUM, delta.apply_udp(checksum))
    }
}
