//! Builds packets for fixtures, outermost layer first. Lengths, types and checksums are filled in; each can be
//! made wrong on purpose. The checksums are pnet's, computed over the whole packet, so that they prove xdirector's
//! incremental ones.
//!
//! ```
//! use lab::Packet;
//!
//! let syn = Packet::eth([2; 6], [4; 6])
//!     .vlan(10)
//!     .ipv4([192, 168, 10, 11], [192, 168, 10, 50])
//!     .ttl(64)
//!     .tcp(40_000, 80)
//!     .syn();
//! assert_eq!(syn.build().len(), 14 + 4 + 20 + 20);
//!
//! // A router's answer that quotes the header and 8 bytes of what it could not deliver.
//! let quote = syn.without_link().build();
//! let error = Packet::eth([6; 6], [2; 6])
//!     .ipv4([10, 0, 0, 1], [192, 168, 10, 11])
//!     .icmp_error(3, 4, 1400, &quote[..28]);
//! assert_eq!(error.build().len(), 14 + 20 + 8 + 28);
//! ```

mod encode;
mod layer;

pub use layer::tcp_flags;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use layer::{Icmp, Ipv4, Ipv6, Layer, Tcp, Udp};

/// IPv6 extension headers, by their protocol numbers.
pub mod extension {
    /// Hop-by-hop options (RFC 8200, section 4.3).
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing (RFC 8200, section 4.4).
    pub const ROUTING: u8 = 43;
    /// Fragment (RFC 8200, section 4.5).
    pub const FRAGMENT: u8 = 44;
    /// Destination options (RFC 8200, section 4.6).
    pub const DESTINATION: u8 = 60;
}

/// A packet under construction. Methods that add a layer put it inside the one before; methods that set a field
/// change the last layer and panic when that has no such field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Packet {
    layers: Vec<Layer>,
}

/// The first layer.
impl Packet {
    /// An Ethernet frame from `source` to `destination`.
    pub fn eth(source: [u8; 6], destination: [u8; 6]) -> Self {
        Self { layers: vec![Layer::Ethernet { source, destination, ethertype: None }] }
    }

    /// An IPv4 packet without a frame; see [`Packet::ipv4`].
    pub fn bare_ipv4(source: impl Into<Ipv4Addr>, destination: impl Into<Ipv4Addr>) -> Self {
        Self { layers: Vec::new() }.ipv4(source, destination)
    }

    /// An IPv6 packet without a frame; see [`Packet::ipv6`].
    pub fn bare_ipv6(source: impl Into<Ipv6Addr>, destination: impl Into<Ipv6Addr>) -> Self {
        Self { layers: Vec::new() }.ipv6(source, destination)
    }

    /// An IP packet of the addresses' version without a frame; see [`Packet::ip`].
    pub fn bare_ip(source: IpAddr, destination: IpAddr) -> Self {
        Self { layers: Vec::new() }.ip(source, destination)
    }

    /// The same packet without Ethernet and VLAN headers, as an ICMP error quotes it.
    pub fn without_link(&self) -> Self {
        let link = |layer: &Layer| matches!(layer, Layer::Ethernet { .. } | Layer::Vlan { .. });
        Self { layers: self.layers.iter().filter(|layer| !link(layer)).cloned().collect() }
    }

    /// The bytes, with every length, type and checksum filled in.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        encode::packet(&self.layers)
    }
}

/// Further layers.
impl Packet {
    /// An 802.1Q tag, VLAN `id` (0 to 4095).
    pub fn vlan(self, id: u16) -> Self {
        self.tag(0x8100, id)
    }

    /// An 802.1ad service tag, the outer one of two.
    pub fn service_vlan(self, id: u16) -> Self {
        self.tag(0x88a8, id)
    }

    /// A VLAN tag with another tag protocol identifier.
    pub fn tag(self, protocol: u16, tci: u16) -> Self {
        self.push(Layer::Vlan { protocol, tci, ethertype: None })
    }

    /// IPv4: TTL 64, identification 0, don't fragment. Inside another IP header it makes IPIP or 4-in-6.
    pub fn ipv4(self, source: impl Into<Ipv4Addr>, destination: impl Into<Ipv4Addr>) -> Self {
        self.push(Layer::Ipv4(Ipv4::new(source.into(), destination.into())))
    }

    /// IPv6: hop limit 64. Inside another IP header it makes IP6IP6 or 6-in-4.
    pub fn ipv6(self, source: impl Into<Ipv6Addr>, destination: impl Into<Ipv6Addr>) -> Self {
        self.push(Layer::Ipv6(Ipv6::new(source.into(), destination.into())))
    }

    /// [`Packet::ipv4`] or [`Packet::ipv6`], as the addresses are.
    ///
    /// # Panics
    /// When they are not of one version.
    pub fn ip(self, source: IpAddr, destination: IpAddr) -> Self {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.ipv4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.ipv6(source, destination),
            _ => panic!("{source} and {destination} are of different versions"),
        }
    }

    /// An IPv6 extension header of options or routing: `body` is what follows next header and length, and is padded
    /// with zeroes (Pad1) to a multiple of 8 bytes in all.
    pub fn ipv6_extension(self, kind: u8, body: &[u8]) -> Self {
        self.push(Layer::Extension { kind, body: body.to_vec(), next: None })
    }

    /// An IPv6 fragment header: `offset` in units of 8 bytes.
    pub fn ipv6_fragment(self, offset: u16, more: bool, identification: u32) -> Self {
        self.push(Layer::Fragment { offset, more, identification, next: None })
    }

    /// TCP: ACK flag, sequence numbers 1000 and 2000, window 64,000, no options.
    pub fn tcp(self, source: u16, destination: u16) -> Self {
        self.push(Layer::Tcp(Tcp::new(source, destination)))
    }

    /// UDP.
    pub fn udp(self, source: u16, destination: u16) -> Self {
        self.push(Layer::Udp(Udp::new(source, destination)))
    }

    /// ICMP within IPv4, ICMPv6 within IPv6: type, code, and the four bytes after the checksum.
    pub fn icmp(self, kind: u8, code: u8, rest: [u8; 4]) -> Self {
        self.push(Layer::Icmp(Icmp { kind, code, rest, checksum: None }))
    }

    /// An ICMP or ICMPv6 error about the packet that begins with `quote`; `rest` is the MTU, or 0.
    pub fn icmp_error(self, kind: u8, code: u8, rest: u32, quote: &[u8]) -> Self {
        self.icmp(kind, code, rest.to_be_bytes()).payload(quote)
    }

    /// An echo request with the type that the IP version needs.
    pub fn echo_request(self, identifier: u16, sequence: u16) -> Self {
        let kind = if self.in_ipv6() { 128 } else { 8 };
        self.echo(kind, identifier, sequence)
    }

    /// An echo reply with the type that the IP version needs.
    pub fn echo_reply(self, identifier: u16, sequence: u16) -> Self {
        let kind = if self.in_ipv6() { 129 } else { 0 };
        self.echo(kind, identifier, sequence)
    }

    /// Data. After an IP header: set its [`Packet::protocol`] too.
    pub fn payload(self, data: &[u8]) -> Self {
        self.push(Layer::Payload(data.to_vec()))
    }

    fn echo(self, kind: u8, identifier: u16, sequence: u16) -> Self {
        let [a, b] = identifier.to_be_bytes();
        let [c, d] = sequence.to_be_bytes();
        self.icmp(kind, 0, [a, b, c, d])
    }

    fn in_ipv6(&self) -> bool {
        let ip = |layer: &&Layer| matches!(layer, Layer::Ipv4(_) | Layer::Ipv6(_));
        matches!(self.layers.iter().rev().find(ip), Some(Layer::Ipv6(_)))
    }

    fn push(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }
}

/// Fields of the last layer.
impl Packet {
    /// Ethernet, VLAN: a type other than the next layer's.
    pub fn ethertype(self, value: u16) -> Self {
        self.set("ethertype", |layer| match layer {
            Layer::Ethernet { ethertype, .. } | Layer::Vlan { ethertype, .. } => put(ethertype, Some(value)),
            _ => None,
        })
    }

    /// IPv4: TTL. IPv6: hop limit.
    pub fn ttl(self, value: u8) -> Self {
        self.set("ttl", |layer| match layer {
            Layer::Ipv4(ip) => put(&mut ip.ttl, value),
            Layer::Ipv6(ip) => put(&mut ip.hop_limit, value),
            _ => None,
        })
    }

    /// IPv4: type of service. IPv6: traffic class.
    pub fn tos(self, value: u8) -> Self {
        self.set("tos", |layer| match layer {
            Layer::Ipv4(ip) => put(&mut ip.tos, value),
            Layer::Ipv6(ip) => put(&mut ip.traffic_class, value),
            _ => None,
        })
    }

    /// IPv6: flow label, 20 bits.
    pub fn flow_label(self, value: u32) -> Self {
        self.set("flow_label", |layer| match layer {
            Layer::Ipv6(ip) => put(&mut ip.flow_label, value),
            _ => None,
        })
    }

    /// IPv4, IPv6, extension header: a protocol (next header) other than the next layer's.
    pub fn protocol(self, value: u8) -> Self {
        self.set("protocol", |layer| match layer {
            Layer::Ipv4(Ipv4 { protocol: field, .. })
            | Layer::Ipv6(Ipv6 { next: field, .. })
            | Layer::Extension { next: field, .. }
            | Layer::Fragment { next: field, .. } => put(field, Some(value)),
            _ => None,
        })
    }

    /// IPv4: identification.
    pub fn identification(self, value: u16) -> Self {
        self.set_ipv4("identification", |ip| ip.identification = value)
    }

    /// IPv4: the don't-fragment flag.
    pub fn dont_fragment(self, value: bool) -> Self {
        self.set_ipv4("dont_fragment", |ip| ip.dont_fragment = value)
    }

    /// IPv4: a fragment at `offset`, in units of 8 bytes; clears don't-fragment.
    pub fn fragment(self, offset: u16, more: bool) -> Self {
        self.set_ipv4("fragment", |ip| {
            (ip.fragment_offset, ip.more_fragments, ip.dont_fragment) = (offset, more, false);
        })
    }

    /// IPv4: options, padded with zeroes (end of options) to a multiple of 4 bytes. TCP: the same.
    pub fn options(self, value: &[u8]) -> Self {
        self.set("options", |layer| match layer {
            Layer::Ipv4(ip) => put(&mut ip.options, value.to_vec()),
            Layer::Tcp(tcp) => put(&mut tcp.options, value.to_vec()),
            _ => None,
        })
    }

    /// IPv4: IHL. TCP: data offset. In units of 4 bytes, whatever the options are.
    pub fn header_length(self, words: u8) -> Self {
        self.set("header_length", |layer| match layer {
            Layer::Ipv4(ip) => put(&mut ip.header_words, Some(words)),
            Layer::Tcp(tcp) => put(&mut tcp.header_words, Some(words)),
            _ => None,
        })
    }

    /// IPv4: total length. IPv6: payload length. UDP: length. Whatever the packet's is.
    pub fn length(self, bytes: u16) -> Self {
        self.set("length", |layer| match layer {
            Layer::Ipv4(Ipv4 { length, .. })
            | Layer::Ipv6(Ipv6 { length, .. })
            | Layer::Udp(Udp { length, .. }) => put(length, Some(bytes)),
            _ => None,
        })
    }

    /// IPv4, TCP, UDP, ICMP: a checksum that need not be right. UDP's 0 means that there is none.
    pub fn checksum(self, value: u16) -> Self {
        self.set("checksum", |layer| match layer {
            Layer::Ipv4(Ipv4 { checksum, .. })
            | Layer::Tcp(Tcp { checksum, .. })
            | Layer::Udp(Udp { checksum, .. })
            | Layer::Icmp(Icmp { checksum, .. }) => put(checksum, Some(value)),
            _ => None,
        })
    }

    /// TCP: exactly these [`tcp_flags`].
    pub fn flags(self, value: u8) -> Self {
        self.set_tcp("flags", |tcp| tcp.flags = value)
    }

    /// TCP: SYN alone.
    pub fn syn(self) -> Self {
        self.flags(tcp_flags::SYN)
    }

    /// TCP: SYN and ACK.
    pub fn syn_ack(self) -> Self {
        self.flags(tcp_flags::SYN | tcp_flags::ACK)
    }

    /// TCP: FIN and ACK.
    pub fn fin(self) -> Self {
        self.flags(tcp_flags::FIN | tcp_flags::ACK)
    }

    /// TCP: RST alone.
    pub fn rst(self) -> Self {
        self.flags(tcp_flags::RST)
    }

    /// TCP: sequence and acknowledgement numbers.
    pub fn sequence(self, sequence: u32, acknowledgement: u32) -> Self {
        self.set_tcp("sequence", |tcp| {
            (tcp.sequence, tcp.acknowledgement) = (sequence, acknowledgement);
        })
    }

    fn set_ipv4(self, field: &str, change: impl FnOnce(&mut Ipv4)) -> Self {
        self.set(field, |layer| match layer {
            Layer::Ipv4(ip) => {
                change(ip);
                Some(())
            }
            _ => None,
        })
    }

    fn set_tcp(self, field: &str, change: impl FnOnce(&mut Tcp)) -> Self {
        self.set(field, |layer| match layer {
            Layer::Tcp(tcp) => {
                change(tcp);
                Some(())
            }
            _ => None,
        })
    }

    fn set(mut self, field: &str, change: impl FnOnce(&mut Layer) -> Option<()>) -> Self {
        let changed = self.layers.last_mut().and_then(change);
        assert!(changed.is_some(), "{field}: the last layer has none: {:?}", self.layers.last());
        self
    }
}

impl From<Packet> for Vec<u8> {
    fn from(packet: Packet) -> Self {
        packet.build()
    }
}

/// Sets a field that the layer has.
fn put<T>(field: &mut T, value: T) -> Option<()> {
    *field = value;
    Some(())
}

#[cfg(test)]
mod tests;
