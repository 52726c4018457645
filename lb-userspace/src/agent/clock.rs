//! The time by which limits end: seconds as on the wall clock, which go on evenly whatever is done to that one.

use std::time::{Duration, Instant};

use crate::api::types::Override;

/// Began as the wall clock stood then. After a step of that one the two differ until the next start: a drain of an hour takes an
/// hour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    began: Instant,
    /// Since 1970-01-01 UTC.
    unix: Duration,
}

impl Clock {
    /// `wall`: since 1970-01-01 UTC, at `now`.
    pub(super) fn new(now: Instant, wall: Duration) -> Self {
        Self { began: now, unix: wall }
    }

    /// Its time at `now`, in seconds since 1970-01-01 UTC.
    pub(super) fn at(&self, now: Instant) -> u64 {
        self.since_epoch(now).as_secs()
    }

    /// An order in the wall clock's time, which stands at `wall` now: for people and for the next agent.
    pub(super) fn on_wall(&self, order: Override, now: Instant, wall: Duration) -> Override {
        match order {
            Override::Drain { until: Some(until) } => {
                Override::Drain { until: Some(self.time_on_wall(until, now, wall)) }
            }
            other => other,
        }
    }

    fn time_on_wall(&self, time: u64, now: Instant, wall: Duration) -> u64 {
        const SECOND: i128 = 1_000_000_000;
        let nanos = |time: Duration| i128::try_from(time.as_nanos()).unwrap_or(i128::MAX);
        let step = nanos(wall) - nanos(self.since_epoch(now));
        // To the nearest second, or the same time would be shown now as one and now as another.
        let step = (step + SECOND / 2).div_euclid(SECOND);
        u64::try_from((i128::from(time) + step).max(0)).unwrap_or(u64::MAX)
    }

    fn since_epoch(&self, now: Instant) -> Duration {
        self.unix.saturating_add(now.saturating_duration_since(self.began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: Duration = Duration::from_secs(1_750_000_000);

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn steps_of_the_wall_clock_move_no_limit() {
        let began = Instant::now();
        let clock = Clock::new(began, WALL);
        let until = clock.at(began) + 600;
        assert!(clock.at(began + seconds(599)) < until && clock.at(began + seconds(600)) >= until);
        // After 60 s the wall clock is an hour ahead, or ten years, or an hour behind: nine minutes are left.
        let walls =
            [WALL + seconds(60 + 3600), WALL + seconds(315_360_000), WALL + seconds(60) - seconds(3600)];
        for wall in walls {
            let order = Override::Drain { until: Some(until) };
            let shown = clock.on_wall(order, began + seconds(60), wall);
            let expected = (wall + seconds(540)).as_secs();
            assert_eq!(shown, Override::Drain { until: Some(expected) });
            // The next agent goes on from there.
            let next = Clock::new(began + seconds(61), wall + seconds(1));
            assert!(next.at(began + seconds(599)) < expected && next.at(began + seconds(600)) >= expected);
        }
    }

    #[test]
    fn without_a_step_times_are_shown_as_they_are() {
        let began = Instant::now();
        let clock = Clock::new(began, WALL + Duration::from_millis(700));
        for passed in [0, 299, 301, 999] {
            let passed = Duration::from_millis(passed);
            // The two clocks do not go quite alike.
            for wall in
                [WALL + Duration::from_millis(690) + passed, WALL + Duration::from_millis(710) + passed]
            {
                assert_eq!(clock.time_on_wall(17, began + passed, wall), 17);
            }
        }
        assert_eq!(clock.time_on_wall(u64::MAX, began, WALL + seconds(9)), u64::MAX);
        assert_eq!(clock.time_on_wall(5, began, Duration::ZERO), 0, "long past");
    }
}
