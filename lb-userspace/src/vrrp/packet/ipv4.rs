//! The IPv4 header around a message. Over IPv6 the kernel keeps the header to itself.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   4   |   5   |  TOS  0xc0    |          Total length         |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |         Identification        |0 0 0|            0            |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   TTL  255    | Protocol  112 |        Header checksum        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                       Source address                          |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                    Destination address                        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use std::net::Ipv4Addr;

use pnet_packet::{
    ip::IpNextHeaderProtocols::Vrrp,
    ipv4::{self, Ipv4Flags, Ipv4Packet, MutableIpv4Packet},
};

use super::{Endpoints, TTL};

/// Without options, in bytes.
const LENGTH: usize = 20;
/// Internetwork control (RFC 791): the upper six bits of TOS 0xc0.
const DSCP: u8 = 0xc0 >> 2;

/// Puts keepalived's IPv4 header (TOS 0xc0, TTL 255, no DF, `id`) before a message.
pub fn with_ipv4_header(message: &[u8], source: Ipv4Addr, destination: Ipv4Addr, id: u16) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH];
    bytes.extend_from_slice(message);
    // The longest message has 8 + 255 * 4 + 8 + 28 bytes.
    let total = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let mut packet = MutableIpv4Packet::new(&mut bytes).expect("there is room for a header");
    packet.set_version(4);
    packet.set_header_length((LENGTH / 4) as u8);
    packet.set_dscp(DSCP);
    packet.set_total_length(total);
    packet.set_identification(id);
    packet.set_ttl(TTL);
    packet.set_next_level_protocol(Vrrp);
    packet.set_source(source);
    packet.set_destination(destination);
    let checksum = ipv4::checksum(&packet.to_immutable());
    packet.set_checksum(checksum);
    bytes
}

/// Takes the IPv4 header off what a raw socket received: TTL, endpoints and the message.
///
/// The header's checksum is the kernel's business; `None` for what is no whole VRRP packet. What follows it, the padding of
/// a short Ethernet frame, is cut off.
pub fn without_ipv4_header(packet: &[u8]) -> Option<(u8, Endpoints, &[u8])> {
    let header = Ipv4Packet::new(packet)?;
    let length = usize::from(header.get_header_length()) * 4;
    let is_fragment = header.get_fragment_offset() != 0 || header.get_flags() & Ipv4Flags::MoreFragments != 0;
    if header.get_version() != 4 || length < LENGTH || is_fragment || header.get_next_level_protocol() != Vrrp
    {
        return None;
    }
    let message = packet.get(length..usize::from(header.get_total_length()))?;
    let endpoints =
        Endpoints { source: header.get_source().into(), destination: header.get_destination().into() };
    Some((header.get_ttl(), endpoints, message))
}
