//! `lc` and `wlc`: the server with the least load (net/netfilter/ipvs/ip_vs_lc.c, ip_vs_wlc.c).
//!
//! Both walk the list from its head, skip servers that are overloaded or of weight 0, take the first
//! that is left as the best so far, and change only for a strictly better one: on a tie the first
//! in the list stays.

/// The load of a server: `active * 256 + inactive` connections (`ip_vs_dest_conn_overhead`).
///
/// The kernel adds up in a signed 32-bit number, which wraps beyond 8 million active connections;
/// this does not.
#[inline(always)]
#[must_use]
pub const fn overhead(active: u32, inactive: u32) -> u64 {
    ((active as u64) << 8) + inactive as u64
}

/// `lc`: whether the candidate takes the place of the best server so far.
#[inline(always)]
#[must_use]
pub const fn lc_better(candidate_overhead: u64, best_overhead: u64) -> bool {
    candidate_overhead < best_overhead
}

/// `wlc`: whether the candidate takes the place of the best server so far, that is whether
/// `candidate_overhead / candidate_weight < best_overhead / best_weight`, multiplied out.
///
/// A candidate of weight 0 never does. Exact for every input: the products are compared in 96 bits.
#[inline(always)]
#[must_use]
pub const fn wlc_better(
    candidate_overhead: u64,
    candidate_weight: u32,
    best_overhead: u64,
    best_weight: u32,
) -> bool {
    let best = product(best_overhead, candidate_weight);
    let candidate = product(candidate_overhead, best_weight);
    best.0 > candidate.0 || (best.0 == candidate.0 && best.1 > candidate.1)
}

/// `value * weight` as its upper 64 and lower 32 bits. A 128-bit product would be a call into a
/// library that BPF does not have.
#[inline(always)]
const fn product(value: u64, weight: u32) -> (u64, u32) {
    let weight = weight as u64;
    let low = (value & 0xffff_ffff).wrapping_mul(weight);
    let high = (value >> 32).wrapping_mul(weight).wrapping_add(low >> 32);
    (high, low as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_active_connection_weighs_256_inactive_ones() {
        assert_eq!(overhead(1, 0), overhead(0, 256));
        assert_eq!(overhead(u32::MAX, u32::MAX), u64::from(u32::MAX) * 257);
    }

    #[test]
    fn a_tie_keeps_the_first() {
        assert!(!lc_better(7, 7));
        assert!(lc_better(6, 7));
        assert!(!wlc_better(0, 1, 0, 5));
        assert!(!wlc_better(2, 2, 1, 1));
        assert!(wlc_better(2, 3, 1, 1));
        assert!(!wlc_better(0, 0, 9, 1));
    }

    proptest! {
        /// The program has one search for both.
        #[test]
        fn lc_is_wlc_with_weights_of_1(a: u64, b: u64) {
            prop_assert_eq!(lc_better(a, b), wlc_better(a, 1, b, 1));
        }

        #[test]
        fn wlc_equals_the_comparison_in_128_bits(a: u64, v: u32, b: u64, w: u32) {
            let expected = u128::from(b) * u128::from(v) > u128::from(a) * u128::from(w);
            prop_assert_eq!(wlc_better(a, v, b, w), expected);
        }

        #[test]
        fn wlc_equals_the_comparison_near_a_tie(
            (v, w) in (any::<u32>(), 1u32..),
            load in 1u64..1 << 31,
            (a_more, b_more) in (0u64..3, 0u64..3),
        ) {
            // Both loads per weight are `load`, and a little more.
            let (a, b) = (u64::from(v) * load + a_more, u64::from(w) * load + b_more);
            let expected = u128::from(b) * u128::from(v) > u128::from(a) * u128::from(w);
            prop_assert_eq!(wlc_better(a, v, b, w), expected);
        }
    }
}
