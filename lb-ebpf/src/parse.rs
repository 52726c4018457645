//! From bytes to what the pipeline decides by.

mod eth;
mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod l4;

use lb_common::{Addr, Port, Verdict};

pub use eth::{ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, VLAN_TAG, frame};
use ip::ip;

use crate::packet::{Packet, Window};

/// The bytes of a packet, its frame's header and its IP header.
#[inline(always)]
pub fn headers(packet: Packet) -> Result<(Window, Frame, Ip), Verdict> {
    let window = packet.window();
    let frame = frame(window)?;
    let ip = ip(packet, window, frame)?;
    Ok((window, frame, ip))
}

/// Which part of a packet this is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment: it has the ports.
    First,
    /// A later fragment: it has none.
    Later,
}

/// The IP header, of either version.
#[derive(Clone, Copy)]
pub struct Ip {
    /// IPv6?
    pub v6: bool,
    /// Protocol of the payload, after extension headers.
    pub proto: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Fragment?
    pub part: Part,
    /// Offset of the IP header in the frame.
    pub l3: usize,
    /// Offset of the payload in the frame.
    pub l4: usize,
    /// Length of the packet from the IP header on, as the header tells it.
    pub len: u32,
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
}

/// What the pipeline needs of a TCP or UDP header.
#[derive(Clone, Copy)]
pub struct Transport {
    /// Source port.
    pub sport: Port,
    /// Destination port.
    pub dport: Port,
    /// TCP's flags; 0 for UDP.
    pub flags: u8,
}
