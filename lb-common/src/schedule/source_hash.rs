//! `sh`: the client's address chooses one of 256 slots (net/netfilter/ipvs/ip_vs_sh.c).

use super::NONE;

/// The number of slots: 2 to the power `CONFIG_IP_VS_SH_TAB_BITS`, which is 8 in the kernels that
/// distributions ship.
pub const SH_SLOTS: usize = 256;

/// The slot of a client, always below [`SH_SLOTS`].
///
/// `addr_fold` is [`super::addr_fold`] of the client's address. `port` is the
/// client's port in host order with the flag `sh-port` (TCP, UDP and SCTP only), else 0.
#[inline(always)]
#[must_use]
pub const fn sh_hash(addr_fold: u32, port: u16) -> usize {
    hash_32(addr_fold.wrapping_add(port as u32), 8) as usize
}

/// With the flag `sh-fallback`, when the slot `first` has no server that takes the connection: the slot of attempt
/// `attempt` (from 0). The kernel starts the offset at the first hash and adds it to that hash again.
#[inline(always)]
#[must_use]
pub const fn sh_probe(first: u32, attempt: u32) -> u32 {
    (first * 2 + attempt) & (SH_SLOTS as u32 - 1)
}

/// The upper `bits` (1 to 32) of the value times the kernel's `GOLDEN_RATIO_32` (include/linux/hash.h,
/// since Linux 4.7).
#[inline(always)]
#[must_use]
pub const fn hash_32(value: u32, bits: u32) -> u32 {
    value.wrapping_mul(0x61c8_8647) >> ((32 - bits) & 31)
}

/// Fills the table of positions.
///
/// The servers take their slots in turn, each as many in a row as its weight, around and around until
/// the table is full. A server of weight 0 takes one slot a round. `available` says whether a server
/// may be picked apart from its weight (not overloaded).
///
/// A slot whose server is not available becomes [`NONE`]. With the flag `sh-fallback` it becomes what
/// the kernel's search finds: the search depends on the first hash only, so it needs no packet.
pub fn sh_table(
    weights: &[u32],
    available: impl Fn(usize) -> bool,
    fallback: bool,
    table: &mut [u16; SH_SLOTS],
) {
    let assigned = assign(weights);
    let usable = |slot: u8| {
        let position = assigned[usize::from(slot)];
        let weight = weights.get(usize::from(position)).copied().unwrap_or(0);
        if weight > 0 && available(usize::from(position)) { Some(position) } else { None }
    };
    for (first, slot) in (0..=u8::MAX).zip(table.iter_mut()) {
        let mut found = usable(first);
        if found.is_none() && fallback {
            found = (0..SH_SLOTS as u32).find_map(|attempt| usable(sh_probe(first.into(), attempt) as u8));
        }
        *slot = found.unwrap_or(NONE);
    }
}

fn assign(weights: &[u32]) -> [u16; SH_SLOTS] {
    let mut assigned = [NONE; SH_SLOTS];
    let mut slots = assigned.iter_mut();
    if weights.is_empty() {
        return assigned;
    }
    loop {
        for (position, &weight) in weights.iter().enumerate() {
            for _ in 0..weight.max(1) {
                let Some(slot) = slots.next() else { return assigned };
                // Each server takes a slot at least, so no position reaches 256.
                *slot = position as u16;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(weights: &[u32], available: impl Fn(usize) -> bool, fallback: bool) -> [u16; SH_SLOTS] {
        let mut table = [0; SH_SLOTS];
        sh_table(weights, available, fallback, &mut table);
        table
    }

    /// The kernel's lookup of one client, slot by slot, without a prepared table.
    fn looked_up(weights: &[u32], overloaded: &[bool], fallback: bool, key: u32) -> Option<usize> {
        // Which server holds a slot: walk the list, leaving a server after `weight` slots.
        let holder = |slot: u32| {
            let (mut at, mut held) = (0, 0);
            for _ in 0..slot {
                held += 1;
                if held >= weights[at] {
                    at = (at + 1) % weights.len();
                    held = 0;
                }
            }
            at
        };
        let hash = |offset: u32| (offset + ((u64::from(key) * 0x61c8_8647 % (1 << 32)) >> 24) as u32) % 256;
        let unavailable = |server: usize| weights[server] == 0 || overloaded[server];
        if weights.is_empty() {
            return None;
        }
        let first = hash(0);
        if !unavailable(holder(first)) {
            return Some(holder(first));
        }
        if !fallback {
            return None;
        }
        (0..256).map(|offset| holder(hash((offset + first) % 256))).find(|&server| !unavailable(server))
    }

    #[test]
    fn known_hashes() {
        // 0x61c88647 itself, and its products by hand: 2 * 0x61c88647 = 0xc3910c8e.
        assert_eq!(hash_32(1, 32), 0x61c8_8647);
        assert_eq!(hash_32(1, 8), 0x61);
        assert_eq!(hash_32(2, 8), 0xc3);
        assert_eq!(sh_hash(u32::MAX, 3), 0xc3);
    }

    #[test]
    fn weights_are_consecutive_slots() {
        let slots = table(&[2, 0, 3], |_| true, false);
        assert_eq!(slots[..8], [0, 0, NONE, 2, 2, 2, 0, 0]);
        assert_eq!(table(&[], |_| true, true), [NONE; SH_SLOTS]);
        assert_eq!(table(&[0, 0], |_| true, true), [NONE; SH_SLOTS]);
        assert_eq!(table(&[u32::MAX, 1], |_| true, false), [0; SH_SLOTS]);
    }

    proptest! {
        #[test]
        fn the_table_answers_as_the_kernels_lookup(
            servers in proptest::collection::vec((0u32..9, proptest::bool::weighted(0.3)), 0..300),
            fallback: bool,
            keys in proptest::collection::vec(any::<u32>(), 20),
        ) {
            let (weights, overloaded): (Vec<_>, Vec<_>) = servers.into_iter().unzip();
            let slots = table(&weights, |position| !overloaded[position], fallback);
            for key in keys {
                let expected = looked_up(&weights, &overloaded, fallback, key);
                let found = slots[sh_hash(key, 0)];
                prop_assert_eq!(found, expected.map_or(NONE, |position| position as u16));
            }
        }

        #[test]
        fn the_port_adds_to_the_address(address: u32, port: u16) {
            prop_assert_eq!(sh_hash(address, port), sh_hash(address.wrapping_add(u32::from(port)), 0));
            prop_assert!(sh_hash(address, port) < SH_SLOTS);
        }
    }
}
