//! Which addresses concern the data plane at all: bitmaps that let every other packet pass at once.
//!
//! A bit that is set says "perhaps", one that is clear says "certainly not". Bits are set before the services
//! and servers that need them and cleared after.

use crate::Addr;

/// 64-bit words of one bitmap.
pub const WORDS: u32 = 1024;
/// Words of the map: a bitmap of virtual servers' addresses, one of NAT real servers' addresses, one of this machine's MAC
/// addresses.
pub const MAP_WORDS: u32 = 3 * WORDS;
/// First word of the MAC addresses.
pub const MAC_BASE: u32 = 2 * WORDS;

/// Which of the two bitmaps of IP addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The packet's destination is looked up: addresses of virtual servers.
    Virtual,
    /// The packet's source is looked up: addresses of real servers whose answers come back through NAT.
    NatServer,
}

/// The word of the map and the bit in it that stand for `addr`.
#[inline(always)]
pub fn position(addr: Addr, role: Role) -> (u32, u64) {
    let w = addr.words();
    let folded = ((w[0] ^ w[2]) as u64) << 32 ^ ((w[1] as u64) << 16) ^ w[3] as u64;
    place(
        folded,
        match role {
            Role::Virtual => 0,
            Role::NatServer => WORDS,
        },
    )
}

/// The word of the map and the bit in it that stand for a MAC address: its first four bytes and its last two as native
/// words. A frame for another machine reaches an interface that is promiscuous or stands on a flooding bridge; the kernel
/// drops it (`PACKET_OTHERHOST`), and so it may not be balanced.
#[inline(always)]
pub const fn mac_position(head: u32, tail: u16) -> (u32, u64) {
    place((tail as u64) << 32 | head as u64, MAC_BASE)
}

#[inline(always)]
const fn place(folded: u64, base: u32) -> (u32, u64) {
    // The last byte of an IPv4 address stands high in its word, where the product alone would not spread it.
    let product = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = (product ^ product >> 29) >> 16 & 0xffff;
    (base + (hash >> 6) as u32, 1 << (hash & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_stay_inside_their_bitmap_and_spread() {
        let mut seen = std::collections::BTreeSet::new();
        for i in 0..4096u32 {
            let (word, bit) = position(Addr::v4(i.to_be()), Role::Virtual);
            assert!(word < WORDS && bit.count_ones() == 1);
            assert!((WORDS..MAC_BASE).contains(&position(Addr::v4(i), Role::NatServer).0));
            assert!((MAC_BASE..MAP_WORDS).contains(&mac_position(i, i as u16).0));
            seen.insert((word, bit));
        }
        // 4096 addresses on 65536 bits: about 3970 different ones with a fair hash.
        assert!(seen.len() > 3700, "only {} different positions", seen.len());
    }
}
