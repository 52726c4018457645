//! `mh`: Maglev hashing (net/netfilter/ipvs/ip_vs_mh.c), after section 3.4 of Eisenbud and others,
//! "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016.
//!
//! Each server prefers the slots of a table of prime size in an order of its own. The servers take
//! their best free slot in turn, as many as their weight, until the table is full. When a server
//! leaves, few slots of the others change hands.

use super::{NONE, gcd_of};

/// The table sizes that a kernel can be built with: `CONFIG_IP_VS_MH_TAB_INDEX` 8 to 17.
pub const MH_SIZES: [u32; 10] = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131_071];

/// The table size of a kernel built with the default `CONFIG_IP_VS_MH_TAB_INDEX`, 12.
pub const MH_DEFAULT_SIZE: usize = 4093;

/// Both words of the key that hashes clients, and servers to their first slot.
const KEY_FIRST: u64 = 2_654_435_761;
/// Both words of the key that hashes servers to the step between their slots.
const KEY_STEP: u64 = 2_654_446_892;

/// The hash of a client.
///
/// `addr_fold` is [`super::addr_fold`] of the client's address. `port` is the
/// client's port in host order with the flag `mh-port` (TCP, UDP and SCTP only), else 0. `offset` is 0
/// for the first choice.
#[inline(always)]
#[must_use]
pub const fn mh_hash(addr_fold: u32, port: u16, offset: u32) -> u32 {
    hsiphash_u32(addr_fold.wrapping_add(port as u32).wrapping_add(offset), KEY_FIRST, KEY_FIRST)
}

/// The slot of a hash in a table of `size` slots; 0 if `size` is 0.
#[inline(always)]
#[must_use]
pub const fn mh_slot(hash: u32, size: u32) -> u32 {
    if size == 0 { 0 } else { hash % size }
}

/// The slot that the flag `mh-fallback` tries as `attempt`-th (from 0, below `size`) when the server
/// in the slot `first` is not available.
///
/// Unlike with `sh` it depends on the client's address, not only on the first slot, so it cannot be
/// computed in advance. The kernel tries up to `size` times. With a part `u` of the table unavailable,
/// `n` attempts miss with a chance of `u` to the power `n`.
#[inline(always)]
#[must_use]
pub const fn mh_probe(addr_fold: u32, port: u16, first: u32, attempt: u32, size: u32) -> u32 {
    mh_slot(mh_hash(addr_fold, port, mh_slot(attempt.wrapping_add(first), size)), size)
}

/// The kernel's `hsiphash` of four bytes, on 64-bit machines: SipHash-1-3 with a 128-bit key, of which
/// the lower 32 bits are kept (lib/siphash.c).
#[inline(always)]
#[must_use]
pub const fn hsiphash_u32(value: u32, key_low: u64, key_high: u64) -> u32 {
    // The last block holds what is left of the input, and its length in the top byte.
    let block = (4 << 56) | value as u64;
    let mut state = [
        key_low ^ 0x736f_6d65_7073_6575,
        key_high ^ 0x646f_7261_6e64_6f6d,
        key_low ^ 0x6c79_6765_6e65_7261,
        key_high ^ 0x7465_6462_7974_6573 ^ block,
    ];
    state = sip_round(state);
    state[0] ^= block;
    state[2] ^= 0xff;
    state = sip_round(sip_round(sip_round(state)));
    (state[0] ^ state[1] ^ state[2] ^ state[3]) as u32
}

#[inline(always)]
const fn sip_round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    c = c.wrapping_add(d);
    b = b.rotate_left(13) ^ a;
    d = d.rotate_left(16) ^ c;
    a = a.rotate_left(32).wrapping_add(d);
    c = c.wrapping_add(b);
    d = d.rotate_left(21) ^ a;
    b = b.rotate_left(17) ^ c;
    [a, b, c.rotate_left(32), d]
}

/// A real server as [`mh_table`] sees it.
#[derive(Clone, Copy, Debug)]
pub struct MhServer {
    key: u32,
    last_weight: u32,
    /// The next slot that this server prefers.
    slot: u32,
    step: u32,
    turns: u32,
}

impl MhServer {
    /// A server by its address, folded by [`super::addr_fold`], and its port in host order. (ipvsadm gives a server of direct routing or a tunnel the port of its service.)
    ///
    /// `last_weight` is the last weight that was not 0: a server that is set to weight 0 keeps its
    /// slots, see [`mh_mask`]. It is 0 for a server that was added with weight 0 and never changed.
    #[must_use]
    pub const fn new(addr_fold: u32, port: u16, last_weight: u32) -> Self {
        Self { key: addr_fold.wrapping_add(port as u32), last_weight, slot: 0, step: 0, turns: 0 }
    }

    fn prepare(&mut self, size: u32, gcd: u32, shift: u32) {
        self.slot = hsiphash_u32(self.key, KEY_FIRST, KEY_FIRST) % size;
        self.step = hsiphash_u32(self.key, KEY_STEP, KEY_STEP) % (size - 1) + 1;
        self.turns = ((self.last_weight / gcd) >> shift).max(u32::from(self.last_weight != 0));
    }

    /// The first free slot in this server's order. There must be one: the size is prime and the step
    /// smaller, so the order visits every slot.
    fn take_free(&mut self, table: &[u16]) -> usize {
        while table[self.slot as usize] != NONE {
            self.slot = (self.slot + self.step) % table.len() as u32;
        }
        self.slot as usize
    }
}

/// Why [`mh_table`] cannot fill a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MhError {
    /// The length of the table is not one of [`MH_SIZES`].
    Size,
    /// There are more servers than slots, or than positions below [`NONE`].
    Servers,
}

impl core::fmt::Display for MhError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Size => "the Maglev table's length is not one of the kernel's primes",
            Self::Servers => "more real servers than the Maglev table has room for",
        })
    }
}

impl core::error::Error for MhError {}

/// Fills the table of positions. It has no [`NONE`] unless every `last_weight` is 0.
///
/// `servers` also holds the state of the filling, which starts anew at each call.
///
/// # Errors
/// When the table's length or the number of servers does not fit; the table is then untouched.
pub fn mh_table(servers: &mut [MhServer], table: &mut [u16]) -> Result<(), MhError> {
    let index = MH_SIZES.iter().position(|&size| size as usize == table.len()).ok_or(MhError::Size)?;
    if servers.len() > table.len().min(usize::from(NONE)) {
        return Err(MhError::Servers);
    }
    table.fill(NONE);
    let gcd = gcd_of(servers.iter().map(|server| server.last_weight));
    if gcd == 0 {
        return Ok(());
    }
    let greatest = servers.iter().map(|server| server.last_weight).max().unwrap_or(0) / gcd;
    // Keeps the turns below 2 to the power CONFIG_IP_VS_MH_TAB_INDEX / 2, where the index of the
    // smallest size is 8.
    let bits = (index as u32 + 8) / 2;
    let shift = (u32::BITS - greatest.leading_zeros()).saturating_sub(bits);
    let size = table.len() as u32;
    servers.iter_mut().for_each(|server| server.prepare(size, gcd, shift));

    let mut free = table.len();
    loop {
        for (position, server) in servers.iter_mut().enumerate() {
            for _ in 0..server.turns {
                let slot = server.take_free(table);
                table[slot] = position as u16;
                free -= 1;
                if free == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// Empties the slots of servers that may not be picked now: weight 0 or overloaded.
///
/// Without `mh-fallback` the data plane refuses a client whose slot is [`NONE`]; with it, it goes on
/// with [`mh_probe`].
pub fn mh_mask(table: &mut [u16], available: impl Fn(usize) -> bool) {
    for slot in table {
        if *slot != NONE && !available(usize::from(*slot)) {
            *slot = NONE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// SipHash-1-3 over bytes as its paper describes it, to check the short form.
    fn siphash_1_3(bytes: &[u8], key: [u64; 2]) -> u64 {
        let mut v = [
            0x736f6d6570736575 ^ key[0],
            0x646f72616e646f6d ^ key[1],
            0x6c7967656e657261 ^ key[0],
            0x7465646279746573 ^ key[1],
        ];
        fn round(v: &mut [u64; 4]) {
            for (a, b, left, half) in [(0, 1, 13, true), (2, 3, 16, false)] {
                v[a] = v[a].wrapping_add(v[b]);
                v[b] = v[b].rotate_left(left) ^ v[a];
                if half {
                    v[a] = v[a].rotate_left(32);
                }
            }
            for (a, b, left, half) in [(0, 3, 21, false), (2, 1, 17, true)] {
                v[a] = v[a].wrapping_add(v[b]);
                v[b] = v[b].rotate_left(left) ^ v[a];
                if half {
                    v[a] = v[a].rotate_left(32);
                }
            }
        }
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len() / 8 * 8 + 7, 0);
        padded.push(bytes.len() as u8);
        for block in padded.chunks(8) {
            let block = u64::from_le_bytes(block.try_into().unwrap());
            v[3] ^= block;
            round(&mut v);
            v[0] ^= block;
        }
        v[2] ^= 0xff;
        for _ in 0..3 {
            round(&mut v);
        }
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }

    #[test]
    fn hsiphash_gives_the_kernels_test_vectors() {
        // lib/siphash_kunit.c, 64-bit: the input is the bytes 0, 1, 2 ... of growing length.
        const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        const VECTORS: [u32; 18] = [
            0x050f_c4dc,
            0x7d57_ca93,
            0x4dc7_d44d,
            0xe7dd_f7fb,
            0x88d3_8328,
            0x4953_3b67,
            0xc59f_22a7,
            0x9bb1_1140,
            0x8d29_9a8e,
            0x6c06_3de4,
            0x92ff_097f,
            0xf94d_c352,
            0x57b4_d9a2,
            0x1229_ffa7,
            0xc0f9_5d34,
            0x2a51_9956,
            0x7d90_8b66,
            0x63db_d80c,
        ];
        let input: Vec<u8> = (0..18).collect();
        for (length, vector) in VECTORS.iter().enumerate() {
            assert_eq!(siphash_1_3(&input[..length], KEY) as u32, *vector, "length {length}");
        }
        assert_eq!(hsiphash_u32(0x0302_0100, KEY[0], KEY[1]), VECTORS[4]);
    }

    /// The table by Maglev's own pseudocode: whole permutations first, then turns.
    fn populate(servers: &[(u32, u32)], size: usize, bits: u32) -> Vec<Option<usize>> {
        let weights: Vec<u32> = servers.iter().map(|server| server.1).collect();
        let mut table = vec![None; size];
        let greatest = weights.iter().copied().max().unwrap_or(0);
        let Some(gcd) = (1..=greatest).rev().find(|d| weights.iter().all(|w| w % d == 0)) else {
            return table;
        };
        let mut shift = 0;
        while (greatest / gcd) >> shift >= 1 << bits {
            shift += 1;
        }
        let permutations: Vec<Vec<usize>> = servers
            .iter()
            .map(|(key, _)| {
                let hash = |k: u64| siphash_1_3(&key.to_le_bytes(), [k, k]) as u32 as usize;
                let (offset, skip) = (hash(2_654_435_761) % size, hash(2_654_446_892) % (size - 1) + 1);
                (0..size).map(|j| (offset + j * skip) % size).collect()
            })
            .collect();
        let mut next = vec![0; servers.len()];
        let mut filled = 0;
        loop {
            for (i, permutation) in permutations.iter().enumerate() {
                let mut turns = (weights[i] / gcd) >> shift;
                if turns == 0 && weights[i] > 0 {
                    turns = 1;
                }
                for _ in 0..turns {
                    while table[permutation[next[i]]].is_some() {
                        next[i] += 1;
                    }
                    table[permutation[next[i]]] = Some(i);
                    filled += 1;
                    if filled == size {
                        return table;
                    }
                }
            }
        }
    }

    fn table(servers: &[(u32, u32)], size: usize) -> Vec<u16> {
        let mut table = vec![7; size];
        let mut servers: Vec<_> =
            servers.iter().map(|&(key, weight)| MhServer::new(key, 0, weight)).collect();
        mh_table(&mut servers, &mut table).unwrap();
        table
    }

    fn positions(table: &[u16]) -> Vec<Option<usize>> {
        table.iter().map(|&slot| (slot != NONE).then_some(usize::from(slot))).collect()
    }

    #[test]
    fn every_size_is_prime_and_fills() {
        for (index, size) in MH_SIZES.into_iter().enumerate() {
            assert!((2..size).take_while(|d| d * d <= size).all(|d| size % d != 0), "{size}");
            if size <= 8191 {
                let servers = [(1, 3), (2, 1000), (3, 0), (4, 70)];
                let expected = populate(&servers, size as usize, (index as u32 + 8) / 2);
                assert_eq!(positions(&table(&servers, size as usize)), expected, "{size}");
            }
        }
        assert!(table(&[(1, 1), (2, 2)], 131_071).iter().all(|&slot| slot < 2));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut slots = [9; 251];
        assert_eq!(mh_table(&mut [MhServer::new(1, 1, 1)], &mut slots[..250]), Err(MhError::Size));
        assert_eq!(mh_table(&mut [MhServer::new(1, 1, 1); 252], &mut slots), Err(MhError::Servers));
        assert_eq!(slots, [9; 251]);
        assert_eq!(mh_table(&mut [], &mut slots), Ok(()));
        assert_eq!(slots, [NONE; 251]);
    }

    #[test]
    fn removing_a_server_moves_few_slots_of_the_others() {
        let servers: Vec<(u32, u32)> = (0..10).map(|i| (0x0a00_0001 + 97 * i, 1)).collect();
        let before = table(&servers, MH_DEFAULT_SIZE);
        for removed in 0..servers.len() {
            let mut rest = servers.clone();
            rest.remove(removed);
            let after = table(&rest, MH_DEFAULT_SIZE);
            let mut moved = 0;
            for (&old, &new) in before.iter().zip(&after) {
                let new = usize::from(new) + usize::from(usize::from(new) >= removed);
                moved += usize::from(usize::from(old) != removed && usize::from(old) != new);
            }
            // A table that is not consistent would move about nine tenths.
            assert!(moved * 10 < MH_DEFAULT_SIZE, "removing {removed} moved {moved}");
        }
    }

    #[test]
    fn the_mask_empties_the_slots_of_one_server() {
        let before = table(&[(1, 1), (2, 1)], 251);
        let mut masked = before.clone();
        mh_mask(&mut masked, |position| position != 0);
        for (old, new) in before.into_iter().zip(masked) {
            assert_eq!(new, if old == 0 { NONE } else { old });
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_table_is_maglevs(
            servers in proptest::collection::vec((any::<u32>(), prop_oneof![0u32..6, 0u32..3000]), 0..20),
        ) {
            prop_assert_eq!(positions(&table(&servers, 509)), populate(&servers, 509, 4));
        }

        #[test]
        fn equal_weights_get_equal_shares(keys in proptest::collection::vec(any::<u32>(), 1..40), weight in 1u32..99) {
            let servers: Vec<_> = keys.iter().map(|&key| (key, weight)).collect();
            let slots = table(&servers, 1021);
            for position in 0..keys.len() {
                let share = slots.iter().filter(|&&slot| usize::from(slot) == position).count();
                prop_assert!(share == 1021 / keys.len() || share == 1021 / keys.len() + 1);
            }
        }

        #[test]
        fn the_short_siphash_is_the_long_one(value: u32, low: u64, high: u64) {
            let long = siphash_1_3(&value.to_le_bytes(), [low, high]) as u32;
            prop_assert_eq!(hsiphash_u32(value, low, high), long);
        }

        #[test]
        fn a_probe_hashes_the_client_with_its_offset(fold: u32, port: u16, first in 0u32..4093, attempt in 0u32..4093) {
            let offset = (first + attempt) % 4093;
            let sum = (u64::from(fold) + u64::from(port) + u64::from(offset)) as u32;
            let expected = siphash_1_3(&sum.to_le_bytes(), [2_654_435_761; 2]) as u32 % 4093;
            prop_assert_eq!(mh_probe(fold, port, first, attempt, 4093), expected);
            prop_assert_eq!(mh_slot(5, 0), 0);
        }
    }
}
