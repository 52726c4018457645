//! Addresses and ports as network-order bytes.

/// An IPv4 or IPv6 address: 16 network-order bytes, IPv4 as `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2), so
/// that one key type serves both families and none can be mistaken for the other.
///
/// Aligned to eight bytes because copies of it lie on the program's stack, where the verifier takes aligned accesses only
/// and the compiler joins neighbouring words.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(C, align(8))]
pub struct Addr {
    words: [u32; 4],
}

const _: () = assert!(size_of::<Addr>() == 16);

/// `0000:ffff` of a mapped address as it stands in memory.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Addr {
    /// The four network-order bytes of an IPv4 address, read from a packet as one native word.
    #[inline(always)]
    pub const fn v4(word: u32) -> Self {
        Self { words: [0, 0, MAPPED, word] }
    }

    /// The sixteen network-order bytes of an IPv6 address, read from a packet as four native words.
    #[inline(always)]
    pub const fn v6(words: [u32; 4]) -> Self {
        Self { words }
    }

    /// From the sixteen bytes of an IPv6 (or IPv4-mapped) address.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let mut words = [0; 4];
        let mut i = 0;
        while i < 4 {
            let at = i * 4;
            words[i] = u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            i += 1;
        }
        Self { words }
    }

    /// From a standard library address.
    pub fn from_ip(ip: core::net::IpAddr) -> Self {
        match ip {
            core::net::IpAddr::V4(v4) => Self::v4(u32::from_ne_bytes(v4.octets())),
            core::net::IpAddr::V6(v6) => Self::from_bytes(v6.octets()),
        }
    }

    /// As a standard library address; a mapped address becomes IPv4 again.
    pub fn to_ip(self) -> core::net::IpAddr {
        if self.is_v4() {
            core::net::IpAddr::V4(self.words[3].to_ne_bytes().into())
        } else {
            let mut bytes = [0; 16];
            for (chunk, word) in bytes.chunks_exact_mut(4).zip(self.words) {
                chunk.copy_from_slice(&word.to_ne_bytes());
            }
            core::net::IpAddr::V6(bytes.into())
        }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    /// The native words, network-order bytes inside: what is written to and read from packets.
    #[inline(always)]
    pub const fn words(self) -> [u32; 4] {
        self.words
    }

    /// The same as two 64-bit words.
    #[inline(always)]
    pub const fn halves(self) -> [u64; 2] {
        let w = self.words;
        [w[0] as u64 | (w[1] as u64) << 32, w[2] as u64 | (w[3] as u64) << 32]
    }

    /// The IPv4 address as the native word that stands in a packet.
    #[inline(always)]
    pub const fn v4_word(self) -> u32 {
        self.words[3]
    }
}

/// A port as its two network-order bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Port(u16);

impl Port {
    /// No port: every port of a virtual server, or the port of the packet for a real server.
    pub const ANY: Self = Self(0);

    /// From the number that people write.
    pub const fn from_number(number: u16) -> Self {
        Self(number.to_be())
    }

    /// From the native half-word that stands in a packet.
    #[inline(always)]
    pub const fn from_wire(word: u16) -> Self {
        Self(word)
    }

    /// The native half-word that stands in a packet.
    #[inline(always)]
    pub const fn wire(self) -> u16 {
        self.0
    }

    /// The number that people write.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        u16::from_be(self.0)
    }

    /// Whether this is [`Port::ANY`].
    #[inline(always)]
    pub const fn is_any(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn addresses_come_back_as_they_went_in() {
        for text in ["192.168.10.50", "2001:db8::50", "::", "10:11::ffff:1", "255.255.255.255"] {
            let ip: IpAddr = text.parse().expect("an address");
            assert_eq!(Addr::from_ip(ip).to_ip(), ip);
        }
    }

    #[test]
    fn no_ipv6_address_equals_an_ipv4_one_by_accident() {
        let v4 = Addr::from_ip("10.0.0.1".parse().expect("v4"));
        for text in ["::a00:1", "a00:1::", "::ffff:0:a00:1"] {
            assert_ne!(v4, Addr::from_ip(text.parse().expect("v6")));
        }
    }

    #[test]
    fn ports_are_network_order() {
        assert_eq!(Port::from_number(80).wire().to_ne_bytes(), [0, 80]);
        assert_eq!(Port::from_number(8080).number(), 8080);
    }
}
