//! When to look at a target again, and when to ask for its neighbour again. Takes the time, reads no clock.

use std::time::{Duration, Instant};

/// The watcher's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long events are gathered before the targets are looked at again.
    pub debounce: Duration,
    /// Wait after the first unsuccessful attempt; it doubles with each further one.
    pub retry_first: Duration,
    /// Longest wait between attempts.
    pub retry_longest: Duration,
    /// Longest wait until a resolved target is looked at again and a stale neighbour confirmed. The real wait
    /// is between half of this and the whole, at random, so that many targets do not ask in step.
    pub refresh: Duration,
    /// How long a known MAC address is kept after its neighbour entry vanished, while the kernel asks again.
    pub grace: Duration,
}

impl Default for Timing {
    /// Ten milliseconds, 1 to 30 s, 30 s, 5 s: a neighbour is confirmed at least as often as the kernel would
    /// do it under traffic (`base_reachable_time` is 30 s), and the grace outlasts three unanswered requests.
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(10),
            retry_first: Duration::from_secs(1),
            retry_longest: Duration::from_secs(30),
            refresh: Duration::from_secs(30),
            grace: Duration::from_secs(5),
        }
    }
}

/// One target's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    attempts: u32,
    due: Instant,
}

impl Pace {
    /// Due at once, with the shortest wait to follow.
    pub fn fresh(now: Instant) -> Self {
        Self { attempts: 0, due: now }
    }

    pub fn due(&self) -> Instant {
        self.due
    }

    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// Plans the next turn. `settled`: the target is resolved and its neighbour's entry is usable. `spent`: this
    /// look was the target's turn or asked for its neighbour; a look that an event caused does neither and
    /// must not put off the next turn. `jitter` is from 0 to 1.
    pub fn plan(&mut self, settled: bool, spent: bool, now: Instant, timing: &Timing, jitter: f64) {
        if settled {
            if spent || self.attempts > 0 {
                self.due = now + timing.refresh.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
            }
            self.attempts = 0;
        } else if spent {
            let wait = timing.retry_first.saturating_mul(1 << self.attempts.min(16));
            self.due = now + wait.min(timing.retry_longest);
            self.attempts = self.attempts.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let timing = Timing::default();
        let now = Instant::now();
        let mut pace = Pace::fresh(now);
        assert!(pace.is_due(now));
        let mut waits = Vec::new();
        for _ in 0..40 {
            pace.plan(false, true, now, &timing, 0.0);
            waits.push((pace.due() - now).as_secs());
        }
        assert_eq!(waits[..7], [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(waits[39], 30);
    }

    #[test]
    fn an_events_look_does_not_move_the_turn() {
        let timing = Timing::default();
        let now = Instant::now();
        let mut pace = Pace::fresh(now);
        pace.plan(false, true, now, &timing, 0.0);
        let before = pace;
        pace.plan(false, false, now + Duration::from_millis(300), &timing, 0.0);
        assert_eq!(pace, before);
    }

    #[test]
    fn success_starts_the_refresh_and_forgets_the_attempts() {
        let timing = Timing::default();
        let now = Instant::now();
        let mut pace = Pace::fresh(now);
        for _ in 0..5 {
            pace.plan(false, true, now, &timing, 0.0);
        }
        pace.plan(true, false, now, &timing, 0.0);
        assert_eq!(pace.due() - now, timing.refresh / 2);
        pace.plan(true, true, now, &timing, 1.0);
        assert_eq!(pace.due() - now, timing.refresh);
        pace.plan(false, true, now, &timing, 1.0);
        assert_eq!(pace.due() - now, timing.retry_first);
    }
}
