//! Tunnels: the packet travels to its real server inside another one (RFC 2003 IPIP, RFC 2473 IPv6 and IPv4 in
//! IPv6, RFC 4213 IPv6 in IPv4).

use lb_common::{
    Verdict,
    checksum::{Delta, finish},
    ip_proto,
    server::{Forwarding, NextHop, Server},
};

use crate::{
    packet::{Packet, Window},
    parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ip, ipv4, ipv6},
    transmit,
};

/// Hops that the outer packet may take: the kernel's default, since the inner packet's is no measure of this way.
const TTL: u8 = 64;

/// Bytes that the tunnel to this server adds; 0 for other kinds of forwarding.
#[inline(always)]
pub fn outer_len(server: &Server) -> u32 {
    match server.forwarding == Forwarding::Tun as u8 {
        false => 0,
        true if server.addr.is_v4() => ipv4::LENGTH as u32,
        true => ipv6::LENGTH as u32,
    }
}

/// Puts the outer header before the packet and the frame's header before that.
#[inline(always)]
pub fn wrap(
    packet: Packet,
    window: Window,
    ip: &Ip,
    tags: u32,
    server: &Server,
    hop: &NextHop,
) -> Result<(), Verdict> {
    const ROOM: Verdict = Verdict::DropNoRoom;
    let (traffic_class, id, fragment) = inner_marks(window, ip).ok_or(Verdict::DropBadLength)?;
    let proto = if ip.v6 { ip_proto::IPV6 } else { ip_proto::IPIP };
    if server.addr.is_v4() {
        let (window, l3) =
            transmit::relay_grown(packet, window, ip.l3, tags, hop, ETHERTYPE_IPV4, ipv4::LENGTH)?;
        let mut header = ipv4::Header {
            version_ihl: 0x45,
            tos: traffic_class,
            total_len: ((ip.len + ipv4::LENGTH as u32) as u16).to_be(),
            id,
            fragment,
            ttl: TTL,
            proto,
            checksum: 0,
            src: server.tunnel_source.v4_word(),
            dst: server.addr.v4_word(),
        };
        let first =
            u32::from_ne_bytes([0x45, header.tos, header.total_len as u8, (header.total_len >> 8) as u8]);
        let sum = Delta::ZERO
            .add_word(first)
            .add_word(header.id as u32)
            .add_word(header.fragment as u32)
            .add_word(u16::from_ne_bytes([header.ttl, header.proto]) as u32)
            .add_word(header.src)
            .add_word(header.dst);
        header.checksum = finish(sum);
        window.from(l3).write(0, header).ok_or(ROOM)
    } else {
        let (window, l3) =
            transmit::relay_grown(packet, window, ip.l3, tags, hop, ETHERTYPE_IPV6, ipv6::LENGTH)?;
        let header = ipv6::Header {
            version_class_flow: (6 << 28 | (traffic_class as u32) << 20).to_be(),
            payload_len: (ip.len as u16).to_be(),
            next_header: proto,
            hop_limit: TTL,
            src: server.tunnel_source.words(),
            dst: server.addr.words(),
        };
        window.from(l3).write(0, header).ok_or(ROOM)
    }
}

/// Traffic class, identification and fragment flags for the outer header: the inner packet's class (RFC 6040, normal
/// mode), and its permission to be fragmented together with the identification that this needs.
#[inline(always)]
fn inner_marks(window: Window, ip: &Ip) -> Option<(u8, u16, u16)> {
    if ip.v6 {
        let header = window.from(ip.l3).read::<ipv6::Header>(0)?;
        return Some(((u32::from_be(header.version_class_flow) >> 20) as u8, 0, ipv4::DONT_FRAGMENT));
    }
    let header = window.from(ip.l3).read::<ipv4::Header>(0)?;
    Some((header.tos, header.id, header.fragment & ipv4::DONT_FRAGMENT))
}
