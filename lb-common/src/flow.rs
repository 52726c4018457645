//! A flow and its hash: one definition for both sides.

use crate::{Addr, Port};

/// One direction of a connection, as its packets show it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct FlowKey {
    /// Where the packet comes from.
    pub src: Addr,
    /// Where it goes.
    pub dst: Addr,
    /// Source port.
    pub sport: Port,
    /// Destination port.
    pub dport: Port,
    /// IP protocol number (TCP or UDP).
    pub proto: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 40);

impl FlowKey {
    /// The flow of the answers.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, proto: self.proto }
    }

    #[inline(always)]
    const fn port_word(&self) -> u32 {
        self.sport.wire() as u32 | (self.dport.wire() as u32) << 16
    }

    /// The keyed hash of this flow.
    ///
    /// NH of UMAC (RFC 4418 section 5.2): the sum of products of pairs of words, each added to a secret word.
    /// Two flows collide with probability 2^-32 for anyone who does not know the keys, the products are
    /// independent of each other, so that the processor does them side by side, and eBPF has no wider multiply.
    #[inline(always)]
    pub fn hash(&self, keys: &HashKeys) -> FlowHash {
        #[inline(always)]
        fn nh(a: u32, ka: u32, b: u32, kb: u32) -> u64 {
            (a.wrapping_add(ka) as u64).wrapping_mul(b.wrapping_add(kb) as u64)
        }
        let (s, d, k) = (self.src.words(), self.dst.words(), &keys.0);
        let mut h = nh(s[3], k[6], d[3], k[7]).wrapping_add(nh(self.port_word(), k[8], self.proto, k[9]));
        // The other words of two IPv4 addresses are the same for all.
        if !(self.src.is_v4() && self.dst.is_v4()) {
            h = h
                .wrapping_add(nh(s[0], k[0], d[0], k[1]))
                .wrapping_add(nh(s[1], k[2], d[1], k[3]))
                .wrapping_add(nh(s[2], k[4], d[2], k[5]));
        }
        // NH's sum is universal but not evenly spread over its bits; both halves are used below.
        h ^= h >> 32;
        h = h.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        h ^= h >> 29;
        FlowHash(h)
    }
}

/// The secret of the flow hash, random at every first start, so that nobody outside can make flows collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HashKeys(pub [u32; 10]);

/// A flow's hash: says in which two buckets a connection may stand and by which tag it is known there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct FlowHash(u64);

impl FlowHash {
    /// As a plain number.
    #[inline(always)]
    pub const fn to_raw(self) -> u64 {
        self.0
    }

    /// From [`Self::to_raw`].
    #[inline(always)]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The first of the two buckets, of `buckets` in all.
    #[inline(always)]
    pub const fn primary(self, buckets: u32) -> u32 {
        (((self.0 & 0xffff_ffff) * buckets as u64) >> 32) as u32
    }

    /// The second bucket; may be the first one again.
    #[inline(always)]
    pub const fn secondary(self, buckets: u32) -> u32 {
        let other = (self.0 as u32).wrapping_mul(0x85eb_ca6b) ^ self.tag().rotate_left(13);
        ((other as u64 * buckets as u64) >> 32) as u32
    }

    /// The tag in a bucket: never 0 (a free place) or 1 (a place being filled).
    #[inline(always)]
    pub const fn tag(self) -> u32 {
        (self.0 >> 32) as u32 | 2
    }

    /// A number below `len` for choices that need no state.
    #[inline(always)]
    pub const fn pick(self, len: u32) -> u32 {
        (((self.0 >> 32) * len as u64) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: HashKeys = HashKeys([
        0x9a3c_51d7,
        0x1f7b_e4a9,
        0x6d02_83cb,
        0xe85f_2716,
        0x3b94_0fd3,
        0xc6a1_7e58,
        0x52e8_b90d,
        0x8d47_36f1,
        0x27f0_5c8b,
        0xf1d9_a264,
    ]);

    fn flow(client: u32, sport: u16) -> FlowKey {
        FlowKey {
            src: Addr::v4(client.to_be()),
            dst: Addr::v4(0xc0a8_0a32u32.to_be()),
            sport: Port::from_number(sport),
            dport: Port::from_number(80),
            proto: 6,
        }
    }

    #[test]
    fn flows_spread_over_buckets() {
        // 64k flows that differ in few bits over 4096 buckets: 16 each; a fair hash stays within 6 sigma.
        let mut fill = vec![0u32; 4096];
        for client in 0..256u32 {
            for port in 0..256u16 {
                fill[flow(0x0a00_0000 + client, 40_000 + port).hash(&KEYS).primary(4096) as usize] += 1;
            }
        }
        let max = fill.iter().max().copied().unwrap_or(0);
        assert!(max <= 16 + 6 * 4 + 4, "fullest bucket holds {max}");
        let empty = fill.iter().filter(|&&n| n == 0).count();
        assert!(empty < 8, "{empty} buckets stayed empty");
    }

    #[test]
    fn the_second_bucket_is_independent_of_the_first() {
        let same = (0..10_000u16)
            .filter(|&port| {
                let hash = flow(0x0a00_0001, port).hash(&KEYS);
                hash.primary(1000) == hash.secondary(1000)
            })
            .count();
        assert!(same < 40, "{same} of 10000 flows have one bucket only");
    }

    #[test]
    fn tags_are_never_the_reserved_ones() {
        assert!((0..u16::MAX).all(|port| flow(1, port).hash(&KEYS).tag() > 1));
    }

    #[test]
    fn a_reversed_flow_reversed_is_the_flow() {
        let key = flow(7, 7);
        assert_eq!(key.reversed().reversed(), key);
        assert_ne!(key.reversed().hash(&KEYS), key.hash(&KEYS));
    }
}
