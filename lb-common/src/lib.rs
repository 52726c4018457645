//! What both sides of xdirector agree on: the layout of every map, the flow hash, the scheduler formulas,
//! checksum arithmetic and the names of the counters.
//!
//! Nothing here is defined anywhere else. All map types are `repr(C)` without implicit padding; a `const`
//! assertion beside each states its size. Addresses and ports are network-order bytes as they stand in a packet.
#![cfg_attr(not(test), no_std)]

pub mod addr;
pub mod checksum;
pub mod conn;
pub mod filter;
pub mod flow;
pub mod fragment;
pub mod map_name;
pub mod schedule;
pub mod server;
pub mod service;
pub mod settings;
pub mod verdict;

pub use addr::{Addr, Port};
pub use flow::{FlowHash, FlowKey, HashKeys};
pub use verdict::{Class, Event, Verdict};

/// Changes whenever the layout or meaning of any map changes; part of the path under which maps are pinned.
pub const ABI_VERSION: u32 = 3;

/// IP protocol numbers that the data plane knows (IANA protocol-numbers registry).
pub mod ip_proto {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003).
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 2473, RFC 4213).
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header.
    pub const AH: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DEST_OPTS: u8 = 60;
}

/// Marks a type as map content that user space may copy to and from the kernel as bytes.
#[cfg(feature = "user")]
macro_rules! pod {
    ($($t:ty),+ $(,)?) => {$(
        // SAFETY: repr(C), Copy, made of integers and integer arrays only, no padding (asserted by size).
        unsafe impl aya::Pod for $t {}
    )+};
}

#[cfg(feature = "user")]
pod!(
    conn::Connection,
    conn::TagBucket,
    fragment::FragmentKey,
    fragment::Fragment,
    server::Load,
    server::Server,
    server::ServerStats,
    service::Cursor,
    service::Service,
    service::ServiceKey,
    service::Slot,
    settings::Identity,
    settings::Settings,
    verdict::Counters,
);
