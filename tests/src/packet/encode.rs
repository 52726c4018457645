//! Layers to bytes, from the innermost outwards: each header needs to know what it holds.

use std::net::{Ipv4Addr, Ipv6Addr};

use pnet_packet::{
    ip::{IpNextHeaderProtocol, IpNextHeaderProtocols},
    ipv4::MutableIpv4Packet,
    ipv6::MutableIpv6Packet,
    tcp::MutableTcpPacket,
    udp::MutableUdpPacket,
    util,
};

use super::{
    extension,
    layer::{Icmp, Ipv4, Ipv6, Layer, Tcp, Udp},
};

const WINDOW: u16 = 64_000;
/// What a header names when nothing follows it: an experimental Ethernet type and IP's "no next header".
const NOTHING: Next = Next { ethertype: 0x88b5, protocol: 59 };

pub(super) fn packet(layers: &[Layer]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut next = NOTHING;
    for (index, layer) in layers.iter().enumerate().rev() {
        let addresses = layers[..index].iter().rev().find_map(Addresses::of);
        bytes = encode(layer, &bytes, next, addresses);
        next = Next::of(layer, addresses);
    }
    bytes
}

/// What the enclosing header says about the layer.
#[derive(Clone, Copy)]
struct Next {
    ethertype: u16,
    protocol: u8,
}

impl Next {
    fn of(layer: &Layer, addresses: Option<Addresses>) -> Self {
        let protocol = |protocol| Self { ethertype: NOTHING.ethertype, protocol };
        match layer {
            Layer::Vlan { protocol, .. } => Self { ethertype: *protocol, ..NOTHING },
            Layer::Ipv4(_) => Self { ethertype: 0x0800, protocol: 4 },
            Layer::Ipv6(_) => Self { ethertype: 0x86dd, protocol: 41 },
            Layer::Extension { kind, .. } => protocol(*kind),
            Layer::Fragment { .. } => protocol(extension::FRAGMENT),
            Layer::Tcp(_) => protocol(6),
            Layer::Udp(_) => protocol(17),
            Layer::Icmp(_) if matches!(addresses, Some(Addresses::V6(..))) => protocol(58),
            Layer::Icmp(_) => protocol(1),
            Layer::Ethernet { .. } | Layer::Payload(_) => NOTHING,
        }
    }
}

/// The addresses of the pseudo-header.
#[derive(Clone, Copy)]
enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Addresses {
    fn of(layer: &Layer) -> Option<Self> {
        match layer {
            Layer::Ipv4(ip) => Some(Self::V4(ip.source, ip.destination)),
            Layer::Ipv6(ip) => Some(Self::V6(ip.source, ip.destination)),
            _ => None,
        }
    }

    /// The checksum of a whole segment whose own checksum is the 16-bit word number `word`.
    fn checksum(addresses: Option<Self>, segment: &[u8], word: usize, protocol: IpNextHeaderProtocol) -> u16 {
        match addresses {
            Some(Self::V4(source, destination)) => {
                util::ipv4_checksum(segment, word, &[], &source, &destination, protocol)
            }
            Some(Self::V6(source, destination)) => {
                util::ipv6_checksum(segment, word, &[], &source, &destination, protocol)
            }
            None => util::checksum(segment, word),
        }
    }
}

fn encode(layer: &Layer, inner: &[u8], next: Next, addresses: Option<Addresses>) -> Vec<u8> {
    match layer {
        Layer::Ethernet { source, destination, ethertype } => {
            let kind = ethertype.unwrap_or(next.ethertype).to_be_bytes();
            [destination.as_slice(), source, &kind, inner].concat()
        }
        Layer::Vlan { tci, ethertype, .. } => {
            let kind = ethertype.unwrap_or(next.ethertype).to_be_bytes();
            [tci.to_be_bytes().as_slice(), &kind, inner].concat()
        }
        Layer::Ipv4(ip) => ipv4(ip, inner, next),
        Layer::Ipv6(ip) => ipv6(ip, inner, next),
        Layer::Extension { body, next: field, .. } => {
            let mut header = vec![field.unwrap_or(next.protocol), 0];
            header.extend_from_slice(body);
            header.resize(header.len().next_multiple_of(8), 0);
            header[1] =
                u8::try_from(header.len() / 8 - 1).expect("an extension header has at most 2048 bytes");
            [&header, inner].concat()
        }
        Layer::Fragment { offset, more, identification, next: field } => {
            let place = (offset << 3 | u16::from(*more)).to_be_bytes();
            let start = [field.unwrap_or(next.protocol), 0];
            [start.as_slice(), &place, &identification.to_be_bytes(), inner].concat()
        }
        Layer::Tcp(tcp) => tcp_segment(tcp, inner, addresses),
        Layer::Udp(udp) => udp_datagram(udp, inner, addresses),
        Layer::Icmp(icmp) => icmp_message(icmp, inner, addresses),
        Layer::Payload(data) => [data, inner].concat(),
    }
}

fn ipv4(ip: &Ipv4, inner: &[u8], next: Next) -> Vec<u8> {
    let header_len = 20 + ip.options.len().next_multiple_of(4);
    let mut bytes = vec![0; header_len];
    bytes[20..20 + ip.options.len()].copy_from_slice(&ip.options);
    bytes.extend_from_slice(inner);
    let total = bytes.len();
    let mut header = MutableIpv4Packet::new(&mut bytes).expect("20 bytes at least");
    header.set_version(4);
    header.set_header_length(ip.header_words.unwrap_or_else(|| words(header_len)));
    header.set_dscp(ip.tos >> 2);
    header.set_ecn(ip.tos & 3);
    header.set_total_length(ip.length.unwrap_or_else(|| length(total)));
    header.set_identification(ip.identification);
    header.set_flags(u8::from(ip.dont_fragment) << 1 | u8::from(ip.more_fragments));
    header.set_fragment_offset(ip.fragment_offset);
    header.set_ttl(ip.ttl);
    header.set_next_level_protocol(IpNextHeaderProtocol(ip.protocol.unwrap_or(next.protocol)));
    header.set_source(ip.source);
    header.set_destination(ip.destination);
    let checksum = ip.checksum.unwrap_or_else(|| util::checksum(&bytes[..header_len], 5));
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn ipv6(ip: &Ipv6, inner: &[u8], next: Next) -> Vec<u8> {
    let mut bytes = vec![0; 40];
    let mut header = MutableIpv6Packet::new(&mut bytes).expect("40 bytes");
    header.set_version(6);
    header.set_traffic_class(ip.traffic_class);
    header.set_flow_label(ip.flow_label);
    header.set_payload_length(ip.length.unwrap_or_else(|| length(inner.len())));
    header.set_next_header(IpNextHeaderProtocol(ip.next.unwrap_or(next.protocol)));
    header.set_hop_limit(ip.hop_limit);
    header.set_source(ip.source);
    header.set_destination(ip.destination);
    bytes.extend_from_slice(inner);
    bytes
}

fn tcp_segment(tcp: &Tcp, inner: &[u8], addresses: Option<Addresses>) -> Vec<u8> {
    let header_len = 20 + tcp.options.len().next_multiple_of(4);
    let mut bytes = vec![0; header_len];
    bytes[20..20 + tcp.options.len()].copy_from_slice(&tcp.options);
    bytes.extend_from_slice(inner);
    let mut header = MutableTcpPacket::new(&mut bytes).expect("20 bytes at least");
    header.set_source(tcp.source);
    header.set_destination(tcp.destination);
    header.set_sequence(tcp.sequence);
    header.set_acknowledgement(tcp.acknowledgement);
    header.set_data_offset(tcp.header_words.unwrap_or_else(|| words(header_len)));
    header.set_flags(tcp.flags);
    header.set_window(WINDOW);
    let whole = || Addresses::checksum(addresses, &bytes, 8, IpNextHeaderProtocols::Tcp);
    let checksum = tcp.checksum.unwrap_or_else(whole);
    bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn udp_datagram(udp: &Udp, inner: &[u8], addresses: Option<Addresses>) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes.extend_from_slice(inner);
    let total = bytes.len();
    let mut header = MutableUdpPacket::new(&mut bytes).expect("8 bytes at least");
    header.set_source(udp.source);
    header.set_destination(udp.destination);
    header.set_length(udp.length.unwrap_or_else(|| length(total)));
    let checksum = udp.checksum.unwrap_or_else(|| {
        // RFC 768: a sum of zero is sent as all ones, because zero means "none".
        match Addresses::checksum(addresses, &bytes, 3, IpNextHeaderProtocols::Udp) {
            0 => 0xffff,
            sum => sum,
        }
    });
    bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn icmp_message(icmp: &Icmp, inner: &[u8], addresses: Option<Addresses>) -> Vec<u8> {
    let mut bytes = vec![icmp.kind, icmp.code, 0, 0];
    bytes.extend_from_slice(&icmp.rest);
    bytes.extend_from_slice(inner);
    // Only ICMPv6 has a pseudo-header (RFC 4443, section 2.3).
    let pseudo = addresses.filter(|addresses| matches!(addresses, Addresses::V6(..)));
    let checksum = icmp
        .checksum
        .unwrap_or_else(|| Addresses::checksum(pseudo, &bytes, 1, IpNextHeaderProtocols::Icmpv6));
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn words(header_len: usize) -> u8 {
    u8::try_from(header_len / 4).expect("a header has at most 60 bytes")
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("a packet has at most 65,535 bytes")
}
