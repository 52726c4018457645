//! Either version of IP.

use lb_common::{Verdict, ip_proto};

use super::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, Ip, ipv4, ipv6};
use crate::packet::{Packet, Window};

/// Reads the IP header of a frame.
#[inline(always)]
pub fn ip(packet: Packet, window: Window, frame: Frame) -> Result<Ip, Verdict> {
    match frame.ethertype {
        ETHERTYPE_IPV4 => ipv4::read(window, frame.payload).ok_or(Verdict::PassMalformed),
        ETHERTYPE_IPV6 => ipv6::read(packet, window, frame.payload),
        _ => Err(Verdict::PassNotIp),
    }
}

impl Ip {
    /// Whether the payload is the ICMP of this version.
    #[inline(always)]
    pub fn is_icmp(&self) -> bool {
        self.proto == if self.v6 { ip_proto::ICMPV6 } else { ip_proto::ICMP }
    }

    /// Whether the packet is as long as it says and no longer than the frame (padding may follow it).
    #[inline(always)]
    pub fn is_complete(&self, window: Window) -> bool {
        self.l3 + self.len as usize <= window.len() && self.l4 <= self.l3 + self.len as usize
    }
}
