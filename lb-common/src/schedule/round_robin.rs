//! `rr` and `wrr` as one full cycle of picks (net/netfilter/ipvs/ip_vs_rr.c, ip_vs_wrr.c).
//!
//! The kernel keeps a place in its list and walks on from it. Without changes to the service its
//! picks repeat, so the data plane needs only the cycle and a counter. The kernel passes over an
//! overloaded server without any other effect; the data plane does the same by taking the next
//! element of the cycle.

use super::gcd_of;

/// One cycle of `rr`: every server whose weight is not 0, once, in the list's order.
/// `emit` gets the server's position.
pub fn rr_cycle(weights: &[u32], mut emit: impl FnMut(usize)) {
    for (position, &weight) in weights.iter().enumerate() {
        if weight > 0 {
            emit(position);
        }
    }
}

/// How many picks [`rr_cycle`] emits.
#[must_use]
pub fn rr_cycle_len(weights: &[u32]) -> u64 {
    weights.iter().filter(|&&weight| weight > 0).count() as u64
}

/// One cycle of `wrr`. `emit` gets the server's position.
///
/// In units of the weights' greatest common divisor: a pass through the list for every threshold
/// from the greatest weight down to 1, and each pass picks the servers whose weight is at least the
/// threshold. Element 0 is the first pick at the greatest weight. A kernel whose service was just
/// built starts elsewhere in the same cycle: [`wrr_first_pick`].
///
/// The work is the number of passes times the number of servers: first compare [`wrr_cycle_len`]
/// with the room there is, and see [`scale_weights`].
pub fn wrr_cycle(weights: &[u32], mut emit: impl FnMut(usize)) {
    let step = gcd_of(weights.iter().copied()).max(1);
    let passes = weights.iter().copied().max().unwrap_or(0) / step;
    for threshold in (1..=passes).rev() {
        for (position, &weight) in weights.iter().enumerate() {
            if weight / step >= threshold {
                emit(position);
            }
        }
    }
}

/// How many picks [`wrr_cycle`] emits: the sum of the weights over their greatest common divisor.
#[must_use]
pub fn wrr_cycle_len(weights: &[u32]) -> u64 {
    let step = gcd_of(weights.iter().copied()).max(1);
    weights.iter().map(|&weight| u64::from(weight / step)).sum()
}

/// The index in [`wrr_cycle`] of the first pick of a kernel service to which these servers were added
/// one at a time, without traffic in between.
///
/// The kernel sets its current weight when the first server is added and then keeps it, only aligned
/// to the new divisor, while each further server may raise the greatest weight
/// (`ip_vs_wrr_dest_changed`). So a fresh service starts with a low threshold, not the highest.
#[must_use]
pub fn wrr_first_pick(weights: &[u32]) -> u64 {
    // The kernel's numbers: `step`, `top` (the greatest weight less step - 1) and `current`.
    let (mut step, mut top, mut current) = (1, 0, 0);
    for added in (0..weights.len()).rev() {
        let present = weights.get(added..).unwrap_or_default();
        step = gcd_of(present.iter().copied()).max(1);
        // All weights are 0 or multiples of the step; with none above 0 the step is 1.
        top = present.iter().copied().max().unwrap_or(0).saturating_sub(step - 1);
        // Otherwise the kernel aligns it to the step, which it is: a new step divides the one before.
        if current > top || current == 0 {
            current = top;
        }
    }
    if top == 0 {
        return 0;
    }
    // The threshold in units of the step; every pick of a higher threshold comes before it.
    let threshold = (current - 1) / step + 1;
    weights.iter().map(|&weight| u64::from((weight / step).saturating_sub(threshold))).sum()
}

/// Reduces the weights so that the cycle of [`wrr_cycle`] has at most `max_len` picks.
///
/// Weights that already fit stay as they are. Otherwise each becomes its share of `max_len`, rounded
/// down but never from above 0 to 0. A server's share of the traffic then changes by at most
/// `(servers + 1) / sum of the new weights`. Returns whether the cycle fits, which fails only when
/// there are more servers of a weight above 0 than `max_len`.
pub fn scale_weights(weights: &mut [u32], max_len: u32) -> bool {
    let max_len = u64::from(max_len);
    if wrr_cycle_len(weights) <= max_len {
        return true;
    }
    let servers = rr_cycle_len(weights);
    if servers > max_len {
        return false;
    }
    let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    // One pick for each server is set aside: it pays for rounding up to 1.
    let room = max_len - servers;
    for weight in weights.iter_mut().filter(|weight| **weight > 0) {
        // At most the weight itself, as the room is below the total.
        *weight = (u64::from(*weight) * room / total).max(1) as u32;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rr(weights: &[u32]) -> Vec<usize> {
        let mut cycle = Vec::new();
        rr_cycle(weights, |position| cycle.push(position));
        cycle
    }

    fn wrr(weights: &[u32]) -> Vec<usize> {
        let mut cycle = Vec::new();
        wrr_cycle(weights, |position| cycle.push(position));
        cycle
    }

    /// The kernel's walk: a mark in the list (`None` is the list's head), and for `wrr` the current
    /// weight, the greatest and the step. Weights are signed as there.
    #[derive(Default)]
    struct Kernel {
        list: Vec<(usize, i64)>,
        mark: Option<usize>,
        current: i64,
        top: i64,
        step: i64,
    }

    impl Kernel {
        /// Adds the servers as an operator does, from the last position to the first.
        fn with(weights: &[u32]) -> Self {
            let mut kernel = Self::default();
            for (position, &weight) in weights.iter().enumerate().rev() {
                kernel.list.insert(0, (position, i64::from(weight)));
                kernel.changed();
            }
            kernel
        }

        fn changed(&mut self) {
            let divides_all = |d: i64| self.list.iter().all(|(_, w)| w % d == 0);
            let greatest = self.list.iter().map(|(_, w)| *w).max().unwrap_or(0);
            self.step = (1..=greatest).rev().find(|d| divides_all(*d)).unwrap_or(1);
            self.top = greatest - (self.step - 1);
            self.mark = None;
            if self.current > self.top || self.current == 0 {
                self.current = self.top;
            } else if self.step > 1 {
                self.current = (self.current / self.step) * self.step + 1;
            }
        }

        fn wrr_pick(&mut self, overloaded: &[bool]) -> Option<usize> {
            if self.top == 0 {
                return None;
            }
            // Two full rounds of thresholds visit everything from any start.
            for _ in 0..=2 * (self.top / self.step + 1) {
                let next = self.mark.map_or(0, |mark| mark + 1);
                for place in next..self.list.len() {
                    let (position, weight) = self.list[place];
                    if !overloaded[position] && weight >= self.current {
                        self.mark = Some(place);
                        return Some(position);
                    }
                }
                self.mark = None;
                self.current -= self.step;
                if self.current <= 0 {
                    self.current = self.top;
                }
            }
            None
        }

        fn rr_pick(&mut self, overloaded: &[bool]) -> Option<usize> {
            for _ in 0..2 {
                let next = self.mark.map_or(0, |mark| mark + 1);
                for place in next..self.list.len() {
                    let (position, weight) = self.list[place];
                    if !overloaded[position] && weight > 0 {
                        self.mark = Some(place);
                        return Some(position);
                    }
                }
                self.mark = None;
            }
            None
        }
    }

    fn skipping(cycle: &[usize], first: usize, overloaded: &[bool], count: usize) -> Vec<Option<usize>> {
        if !cycle.iter().any(|&position| !overloaded[position]) {
            return vec![None; count];
        }
        let picks = cycle.iter().copied().cycle().skip(first);
        picks.filter(|&position| !overloaded[position]).map(Some).take(count).collect()
    }

    #[test]
    fn known_cycles() {
        assert_eq!(rr(&[1, 0, 9]), [0, 2]);
        assert_eq!(wrr(&[1, 2, 3]), [2, 1, 2, 0, 1, 2]);
        assert_eq!(wrr(&[30, 20, 10]), [0, 0, 1, 0, 1, 2]);
        assert_eq!(wrr(&[0, 0]), []);
        assert_eq!(wrr(&[]), []);
        assert_eq!(wrr_cycle_len(&[u32::MAX, u32::MAX - 1]), 2 * u64::from(u32::MAX) - 1);
        assert_eq!(wrr_first_pick(&[]), 0);
        assert_eq!(wrr_first_pick(&[0, 0]), 0);
    }

    proptest! {
        #[test]
        fn rr_follows_the_kernels_walk(servers in proptest::collection::vec((0u32..3, any::<bool>()), 0..12)) {
            let (weights, overloaded): (Vec<_>, Vec<_>) = servers.into_iter().unzip();
            let cycle = rr(&weights);
            prop_assert_eq!(cycle.len() as u64, rr_cycle_len(&weights));
            let mut kernel = Kernel::with(&weights);
            let walked: Vec<_> = (0..40).map(|_| kernel.rr_pick(&overloaded)).collect();
            prop_assert_eq!(skipping(&cycle, 0, &overloaded, 40), walked);
        }

        #[test]
        fn wrr_follows_the_kernels_walk(
            servers in proptest::collection::vec((0u32..12, proptest::bool::weighted(0.2)), 0..10),
            unit in 1u32..6,
        ) {
            let (weights, overloaded): (Vec<_>, Vec<_>) = servers.into_iter().unzip();
            let weights: Vec<u32> = weights.into_iter().map(|weight| weight * unit).collect();
            let cycle = wrr(&weights);
            prop_assert_eq!(cycle.len() as u64, wrr_cycle_len(&weights));
            let first = wrr_first_pick(&weights);
            prop_assert!(cycle.is_empty() || first < cycle.len() as u64);
            let mut kernel = Kernel::with(&weights);
            let walked: Vec<_> = (0..300).map(|_| kernel.wrr_pick(&overloaded)).collect();
            prop_assert_eq!(skipping(&cycle, first as usize, &overloaded, 300), walked);
        }

        #[test]
        fn scaled_weights_fit_and_keep_their_shares(
            weights in proptest::collection::vec(prop_oneof![0u32..20, any::<u32>()], 0..30),
            max_len in 0u32..5000,
        ) {
            let mut scaled = weights.clone();
            let servers = rr_cycle_len(&weights);
            let fits = scale_weights(&mut scaled, max_len);
            prop_assert_eq!(fits, servers <= u64::from(max_len));
            if !fits || wrr_cycle_len(&weights) <= u64::from(max_len) {
                prop_assert_eq!(scaled, weights);
                return Ok(());
            }
            prop_assert!(wrr_cycle_len(&scaled) <= u64::from(max_len));
            let share = |of: &[u32], at: usize| {
                f64::from(of[at]) / of.iter().map(|&weight| f64::from(weight)).sum::<f64>()
            };
            for at in 0..weights.len() {
                prop_assert_eq!(scaled[at] == 0, weights[at] == 0);
                let error = (share(&scaled, at) - share(&weights, at)).abs();
                let sum: f64 = scaled.iter().map(|&weight| f64::from(weight)).sum();
                prop_assert!(error <= (servers + 1) as f64 / sum + 1e-9, "{} of {:?}", error, scaled);
            }
        }
    }
}
