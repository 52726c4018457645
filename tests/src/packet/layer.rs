//! What a layer knows about itself. `None` means: as the rest of the packet has it.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The bits of TCP's flag byte.
pub mod tcp_flags {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends a connection at once.
    pub const RST: u8 = 0x04;
    /// Deliver at once.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Ethernet { source: [u8; 6], destination: [u8; 6], ethertype: Option<u16> },
    Vlan { protocol: u16, tci: u16, ethertype: Option<u16> },
    Ipv4(Ipv4),
    Ipv6(Ipv6),
    Extension { kind: u8, body: Vec<u8>, next: Option<u8> },
    Fragment { offset: u16, more: bool, identification: u32, next: Option<u8> },
    Tcp(Tcp),
    Udp(Udp),
    Icmp(Icmp),
    Payload(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ipv4 {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) ttl: u8,
    pub(super) tos: u8,
    pub(super) identification: u16,
    pub(super) dont_fragment: bool,
    pub(super) more_fragments: bool,
    pub(super) fragment_offset: u16,
    pub(super) options: Vec<u8>,
    pub(super) protocol: Option<u8>,
    pub(super) header_words: Option<u8>,
    pub(super) length: Option<u16>,
    pub(super) checksum: Option<u16>,
}

impl Ipv4 {
    pub(super) const fn new(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Self {
            source,
            destination,
            ttl: 64,
            tos: 0,
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            options: Vec::new(),
            protocol: None,
            header_words: None,
            length: None,
            checksum: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ipv6 {
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    pub(super) hop_limit: u8,
    pub(super) traffic_class: u8,
    pub(super) flow_label: u32,
    pub(super) next: Option<u8>,
    pub(super) length: Option<u16>,
}

impl Ipv6 {
    pub(super) const fn new(source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        Self { source, destination, hop_limit: 64, traffic_class: 0, flow_label: 0, next: None, length: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tcp {
    pub(super) source: u16,
    pub(super) destination: u16,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) flags: u8,
    pub(super) options: Vec<u8>,
    pub(super) header_words: Option<u8>,
    pub(super) checksum: Option<u16>,
}

impl Tcp {
    pub(super) const fn new(source: u16, destination: u16) -> Self {
        Self {
            source,
            destination,
            sequence: 1000,
            acknowledgement: 2000,
            flags: tcp_flags::ACK,
            options: Vec::new(),
            header_words: None,
            checksum: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Udp {
    pub(super) source: u16,
    pub(super) destination: u16,
    pub(super) length: Option<u16>,
    pub(super) checksum: Option<u16>,
}

impl Udp {
    pub(super) const fn new(source: u16, destination: u16) -> Self {
        Self { source, destination, length: None, checksum: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Icmp {
    pub(super) kind: u8,
    pub(super) code: u8,
    pub(super) rest: [u8; 4],
    pub(super) checksum: Option<u16>,
}
