//! Rates as IPVS estimates them (net/netfilter/ipvs/ip_vs_est.c): a sample every two seconds moves the average by a
//! quarter of its distance, so half of a change shows after about five seconds.
//!
//! Pure: the caller brings the time.

use std::time::Duration;

use crate::api::types::{Rates, Stats};

/// How often [`Estimator::sample`] wants to be called, and the step that the kernel's factor belongs to.
pub const SAMPLE_PERIOD: Duration = Duration::from_secs(2);

/// What one period leaves of the old average: `avg += (x - avg) / 4`.
const KEPT_PER_PERIOD: f64 = 0.75;

/// Turns counters that grow into rates per second.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimator {
    at: Duration,
    counters: Stats,
    rates: Rates,
}

impl Estimator {
    /// Starts at zero. `now` is the time since any fixed moment, on a clock that never goes back. What `counters` hold
    /// already is history, not a rate: an agent that takes over old maps must not show a burst.
    pub fn new(now: Duration, counters: Stats) -> Self {
        Self { at: now, counters, rates: Rates::default() }
    }

    /// Takes the counters as they are at `now` and returns the new averages.
    ///
    /// After exactly [`SAMPLE_PERIOD`] this is the kernel's step. A late or early sample weighs as much as its length,
    /// as if the rate had been even in between. A counter that went back (its map was made anew) counts as still.
    pub fn sample(&mut self, now: Duration, counters: Stats) -> Rates {
        let elapsed = now.saturating_sub(self.at).as_secs_f64();
        if elapsed > 0.0 {
            let kept = KEPT_PER_PERIOD.powf(elapsed / SAMPLE_PERIOD.as_secs_f64());
            let last = self.counters;
            let step = |average: &mut f64, before: u64, after: u64| {
                let rate = after.saturating_sub(before) as f64 / elapsed;
                *average = rate + (*average - rate) * kept;
            };
            step(&mut self.rates.connections, last.connections, counters.connections);
            step(&mut self.rates.packets_in, last.packets_in, counters.packets_in);
            step(&mut self.rates.packets_out, last.packets_out, counters.packets_out);
            step(&mut self.rates.bytes_in, last.bytes_in, counters.bytes_in);
            step(&mut self.rates.bytes_out, last.bytes_out, counters.bytes_out);
            self.at = now;
            self.counters = counters;
        }
        self.rates
    }

    /// The averages of the last sample.
    pub fn rates(&self) -> Rates {
        self.rates
    }
}

/// The estimators of all servers by number. Numbers are given from 0 on, so this takes half the memory of a tree.
#[derive(Debug, Default)]
pub struct Estimators(Vec<Option<Estimator>>);

impl Estimators {
    /// Samples the counters of all servers, in the order of their numbers, at `now`; forgets servers that are not among them.
    pub fn sample(&mut self, now: Duration, counters: impl Iterator<Item = (u32, Stats)>) {
        let mut next = 0;
        for (number, counters) in counters {
            let at = number as usize;
            if at >= self.0.len() {
                self.0.resize(at + 1, None);
            }
            self.0[next..at].fill(None);
            self.0[at].get_or_insert_with(|| Estimator::new(now, counters)).sample(now, counters);
            next = at + 1;
        }
        self.0.truncate(next);
    }

    /// The averages of one server, if it has been sampled.
    pub fn rates(&self, number: u32) -> Option<Rates> {
        self.0.get(number as usize)?.as_ref().map(Estimator::rates)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connections(connections: u64) -> Stats {
        Stats { connections, ..Stats::default() }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[track_caller]
    fn assert_near(actual: f64, expected: f64) {
        assert!((actual - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{actual} is not {expected}");
    }

    #[test]
    fn a_period_is_the_kernels_step() {
        let mut estimator = Estimator::new(seconds(0), connections(0));
        // 100 per second: 100/4, then three quarters of that and 100/4 again.
        for (period, expected) in [(1, 25.0), (2, 43.75), (3, 57.8125)] {
            assert_near(
                estimator.sample(seconds(2 * period), connections(200 * period)).connections,
                expected,
            );
        }
        // And down again when nothing comes.
        assert_near(estimator.sample(seconds(8), connections(600)).connections, 43.359375);
        assert_near(estimator.rates().connections, 43.359375);
    }

    #[test]
    fn every_counter_has_its_own_average() {
        let mut estimator = Estimator::new(seconds(10), Stats::default());
        let counters =
            Stats { connections: 8, packets_in: 16, packets_out: 24, bytes_in: 8000, bytes_out: 16_000 };
        let expected = Rates {
            connections: 1.0,
            packets_in: 2.0,
            packets_out: 3.0,
            bytes_in: 1000.0,
            bytes_out: 2000.0,
        };
        assert_eq!(estimator.sample(seconds(12), counters), expected);
    }

    #[test]
    fn old_counters_are_no_burst() {
        let mut estimator = Estimator::new(seconds(0), connections(1_000_000));
        assert_near(estimator.sample(seconds(2), connections(1_000_000)).connections, 0.0);
    }

    #[test]
    fn a_counter_that_went_back_counts_as_still() {
        let mut estimator = Estimator::new(seconds(0), connections(0));
        assert_near(estimator.sample(seconds(2), connections(800)).connections, 100.0);
        assert_near(estimator.sample(seconds(4), connections(3)).connections, 75.0);
        // From the new value on.
        assert_near(estimator.sample(seconds(6), connections(3)).connections, 56.25);
    }

    #[test]
    fn who_is_not_sampled_is_forgotten() {
        let mut all = Estimators::default();
        let mut sample = |at: u64, numbers: &[u32]| {
            all.sample(seconds(at), numbers.iter().map(|number| (*number, connections(at * 100))));
            [0, 1, 2, 3, 4].map(|number| all.rates(number).map(|rates| rates.connections))
        };
        assert_eq!(sample(2, &[1, 2, 4]), [None, Some(0.0), Some(0.0), None, Some(0.0)]);
        assert_eq!(sample(4, &[0, 2]), [Some(0.0), None, Some(25.0), None, None]);
        // A number that is used again begins anew.
        assert_eq!(sample(6, &[2, 4]), [None, None, Some(43.75), None, Some(0.0)]);
    }

    #[test]
    fn no_time_no_change() {
        let mut estimator = Estimator::new(seconds(5), connections(0));
        assert_near(estimator.sample(seconds(5), connections(10)).connections, 0.0);
        assert_near(estimator.sample(seconds(4), connections(10)).connections, 0.0);
        assert_near(estimator.sample(seconds(7), connections(80)).connections, 10.0);
    }

    proptest! {
        /// However a steady stretch is cut into samples, the average is the same.
        #[test]
        fn sampling_times_do_not_matter(cuts in proptest::collection::btree_set(1_u64..60, 0..20), per_second in 0_u64..1_000_000) {
            let mut cut = Estimator::new(seconds(0), connections(0));
            for second in cuts {
                cut.sample(seconds(second), connections(second * per_second));
            }
            let mut even = Estimator::new(seconds(0), connections(0));
            for period in 1..=30 {
                even.sample(seconds(2 * period), connections(2 * period * per_second));
            }
            assert_near(cut.sample(seconds(60), connections(60 * per_second)).connections, even.rates().connections);
        }
    }
}
