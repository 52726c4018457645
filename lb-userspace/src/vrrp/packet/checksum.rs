//! The checksum over a message: the Internet's (RFC 1071), with or without a pseudo-header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet_packet::{ip::IpNextHeaderProtocols::Vrrp, util};

use super::{CHECKSUM_AT, Endpoints};
use crate::config::vrrp::{Checksum, Version};

/// What the checksum covers beside the message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Nothing: version 2 (RFC 3768 5.3.8), and version 3 over IPv4 as RFC 9568 5.2.8 has it.
    Message,
    /// Version 3 over IPv4 as keepalived and FRR have it.
    Ipv4(Ipv4Addr, Ipv4Addr),
    /// RFC 8200 8.1.
    Ipv6(Ipv6Addr, Ipv6Addr),
}

impl Kind {
    pub(super) fn of(version: Version, checksum: Checksum, endpoints: Endpoints) -> Self {
        match (version, checksum, endpoints.source, endpoints.destination) {
            (_, _, IpAddr::V6(source), IpAddr::V6(destination)) => Self::Ipv6(source, destination),
            (Version::V3, Checksum::PseudoHeader, IpAddr::V4(source), IpAddr::V4(destination)) => {
                Self::Ipv4(source, destination)
            }
            _ => Self::Message,
        }
    }
}

/// What has to be in the message's field.
pub(super) fn sum(message: &[u8], kind: Kind) -> u16 {
    sum_without(message, CHECKSUM_AT / 2, kind)
}

/// Whether what is in the message's field is right: everything together adds up to nothing, whichever of its two zeros
/// the sender has used.
pub(super) fn is_right(message: &[u8], kind: Kind) -> bool {
    sum_without(message, usize::MAX, kind) == 0
}

fn sum_without(message: &[u8], word: usize, kind: Kind) -> u16 {
    match kind {
        Kind::Message => util::checksum(message, word),
        Kind::Ipv4(source, destination) => {
            util::ipv4_checksum(message, word, &[], &source, &destination, Vrrp)
        }
        Kind::Ipv6(source, destination) => {
            util::ipv6_checksum(message, word, &[], &source, &destination, Vrrp)
        }
    }
}
