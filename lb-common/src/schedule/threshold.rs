//! The thresholds of a server (`-x`, `-y` of ipvsadm): with too many connections it gets no new ones for a while.

/// Whether a server with `total` connections, active and inactive, is overloaded; `was`: whether it was at the last look.
///
/// It becomes so when the connections reach `upper`, and stays so until they are fewer than `lower` or, without that,
/// fewer than three quarters of `upper` (`ip_vs_bind_dest`, `ip_vs_unbind_dest` in net/netfilter/ipvs/ip_vs_conn.c). An
/// `upper` of 0 is no threshold.
///
/// The kernel looks whenever a connection begins or ends. It is the same to look when one begins and before each choice:
/// in between connections only end, so none of these looks sees more than the next one.
#[inline(always)]
#[must_use]
pub const fn is_overloaded(total: u32, upper: u32, lower: u32, was: bool) -> bool {
    if upper == 0 {
        false
    } else if total >= upper {
        true
    } else if lower != 0 {
        was && total >= lower
    } else {
        was && total as u64 * 4 >= upper as u64 * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The totals one after the other, and what each makes of the state.
    fn walk(upper: u32, lower: u32, totals: &[u32]) -> Vec<bool> {
        let mut state = false;
        totals
            .iter()
            .map(|&total| {
                state = is_overloaded(total, upper, lower, state);
                state
            })
            .collect()
    }

    #[test]
    fn overload_begins_at_the_upper_threshold_and_ends_below_the_lower() {
        assert_eq!(
            walk(4, 2, &[3, 4, 5, 3, 2, 1, 2, 3, 4]),
            [false, true, true, true, true, false, false, false, true]
        );
    }

    #[test]
    fn without_a_lower_threshold_it_ends_below_three_quarters() {
        assert_eq!(walk(8, 0, &[7, 8, 7, 6, 5, 6]), [false, true, true, true, false, false]);
        assert_eq!(walk(1, 0, &[0, 1, 0]), [false, true, false]);
    }

    #[test]
    fn without_an_upper_threshold_there_is_none() {
        assert_eq!(walk(0, 5, &[0, u32::MAX]), [false, false]);
        assert!(!is_overloaded(7, 0, 0, true));
    }

    #[test]
    fn large_thresholds_do_not_overflow() {
        assert!(is_overloaded(u32::MAX - 1, u32::MAX, 0, true));
        assert!(!is_overloaded(u32::MAX / 2, u32::MAX, 0, true));
    }

    proptest! {
        /// The kernel looks after every change; here a look happens after a connection began and before a choice.
        #[test]
        fn looking_at_choices_only_is_the_same(
            (upper, lower) in (0u32..12).prop_flat_map(|upper| (Just(upper), 0..=upper)),
            steps in proptest::collection::vec(any::<bool>(), 1..80),
        ) {
            let (mut total, mut kernel, mut ours) = (0u32, false, false);
            for begins in steps {
                if begins {
                    ours = is_overloaded(total, upper, lower, ours);
                    prop_assert_eq!(ours, kernel, "before a choice with {} connections", total);
                    // Sticky flows of other servers aside, an overloaded one gets nothing.
                    if kernel {
                        continue;
                    }
                    total += 1;
                    ours = is_overloaded(total, upper, lower, ours);
                    // ip_vs_bind_dest
                    kernel |= upper != 0 && total >= upper;
                } else if total > 0 {
                    total -= 1;
                    // ip_vs_unbind_dest
                    kernel &= if lower != 0 { total >= lower } else { upper != 0 && total * 4 >= upper * 3 };
                }
            }
        }
    }
}
