//! The Internet checksum and its incremental update (RFC 1071, RFC 1624).
//!
//! All values are native half-words of network-order bytes: one's complement addition does not care about byte
//! order (RFC 1071 section 2 B), so nothing is swapped.

use crate::Addr;

/// An amount by which the sum of some 16-bit words changed: the running total of RFC 1624's `~m + m'`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// Nothing changed.
    pub const ZERO: Self = Self(0);

    /// A delta from its folded form, as [`Delta::folded`] gave it.
    #[inline(always)]
    pub const fn from_folded(folded: u16) -> Self {
        Self(folded as u64)
    }

    /// One 16-bit word changed from `old` to `new`.
    #[inline(always)]
    pub const fn half(self, old: u16, new: u16) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// One 32-bit word changed from `old` to `new`.
    #[inline(always)]
    pub const fn word(self, old: u32, new: u32) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// Words were added to what the checksum covers.
    #[inline(always)]
    pub const fn add_word(self, word: u32) -> Self {
        Self(self.0 + word as u64)
    }

    /// An address changed. For IPv4 only its four bytes count: the mapped prefix is no part of any packet.
    #[inline(always)]
    pub const fn addr(self, old: Addr, new: Addr) -> Self {
        if old.is_v4() && new.is_v4() {
            return self.word(old.v4_word(), new.v4_word());
        }
        let (o, n) = (old.words(), new.words());
        self.word(o[0], n[0]).word(o[1], n[1]).word(o[2], n[2]).word(o[3], n[3])
    }

    /// Both changes.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The change undone: what the way back applies.
    #[inline(always)]
    pub const fn inverse(self) -> Self {
        Self(!self.folded() as u64)
    }

    /// Folded to 16 bits.
    #[inline(always)]
    pub const fn folded(self) -> u16 {
        // Four words of 32 bits and a few halves stay far below 2^36: the first fold leaves at most 2^33,
        // the second at most 2^17 + 2^16, the third and fourth finish.
        let mut sum = self.0;
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum as u16
    }

    /// A checksum field after the change (RFC 1624 equation 3: `HC' = ~(~HC + ~m + m')`).
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        !Self(self.0 + (!checksum) as u64).folded()
    }

    /// [`Self::apply`] for a change made of a few folded deltas and halves only, with half of the work.
    #[inline(always)]
    pub const fn apply_halves(self, checksum: u16) -> u16 {
        let mut sum = self.0 as u32 + (!checksum) as u32;
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        !(sum as u16)
    }

    /// A UDP checksum field after the change: 0 means "none" and stays 0, a sum that comes out as 0 is sent as
    /// 0xffff (RFC 768).
    #[inline(always)]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.apply(checksum) {
            0 => 0xffff,
            sum => sum,
        }
    }
}

/// The checksum over the words gathered so far, for a field that held zero: a header built from scratch.
#[inline(always)]
pub const fn finish(sum: Delta) -> u16 {
    !sum.folded()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 section 4.1, byte by byte, independent of the code above.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u64;
        for pair in bytes.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn equal_sums(a: u16, b: u16) -> bool {
        // 0x0000 and 0xffff are the same number in one's complement.
        a == b || (a == 0 && b == 0xffff) || (a == 0xffff && b == 0)
    }

    proptest! {
        #[test]
        fn an_incremental_update_equals_full_recomputation(
            mut data in proptest::collection::vec(any::<u8>(), 64..65),
            new_word: u32, new_half: u16, at in 0usize..12,
        ) {
            let before = u16::from_be_bytes(reference(&data).to_be_bytes()).to_be();
            let w = at * 4;
            let h = 60;
            let old_word = u32::from_ne_bytes(data[w..w + 4].try_into().expect("4 bytes"));
            let old_half = u16::from_ne_bytes(data[h..h + 2].try_into().expect("2 bytes"));
            data[w..w + 4].copy_from_slice(&new_word.to_ne_bytes());
            data[h..h + 2].copy_from_slice(&new_half.to_ne_bytes());
            let delta = Delta::ZERO.word(old_word, new_word).half(old_half, new_half);
            let after = delta.apply(before);
            prop_assert!(equal_sums(after, reference(&data).to_be()));
            prop_assert!(equal_sums(Delta::from_folded(delta.folded()).apply(before), after));
            prop_assert!(equal_sums(delta.inverse().apply(after), before));
        }

        #[test]
        fn an_address_change_counts_what_the_packet_holds(a: [u8; 16], b: [u8; 16]) {
            let (old, new) = (Addr::from_bytes(a), Addr::from_bytes(b));
            let before = reference(&a).to_be();
            prop_assert!(equal_sums(Delta::ZERO.addr(old, new).apply(before), reference(&b).to_be()));
        }

        #[test]
        fn a_udp_checksum_never_becomes_none(sum in 1u16.., old: u32, new: u32) {
            prop_assert_ne!(Delta::ZERO.word(old, new).apply_udp(sum), 0);
        }
    }

    proptest! {
        #[test]
        fn changes_of_halves_need_half_of_the_work(checksum: u16, folded: u16, halves: [(u16, u16); 3]) {
            let delta = halves.iter().fold(Delta::from_folded(folded), |delta, &(old, new)| delta.half(old, new));
            prop_assert!(equal_sums(delta.apply_halves(checksum), delta.apply(checksum)));
        }
    }

    #[test]
    fn udp_without_checksum_stays_without() {
        assert_eq!(Delta::ZERO.word(1, 2).apply_udp(0), 0);
    }
}
