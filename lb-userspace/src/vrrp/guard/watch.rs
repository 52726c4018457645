//! When the driver counts as hanging: pure, all times are given.

use std::time::Duration;

/// So many looks are taken during the time for which the driver may be silent.
const LOOKS: u32 = 4;
/// A look that comes later than this part of the time says nothing: whatever kept the guard may have kept the driver as well.
const LATE: u32 = 8;
/// After so many looks at the same beat it counts all the same: a guard that gets to look so often, late or not, is no longer
/// held up by what holds the driver up.
const LOOKS_AT_MOST: u32 = 8;
/// The shortest time for which the driver may be silent.
const SHORTEST: Duration = Duration::from_millis(10);

/// What the guard sees when it looks at the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Now.
    pub now: Duration,
    /// How much later than planned this look is taken.
    pub lateness: Duration,
    /// The driver's last beat.
    pub beat: Duration,
    /// Whether there is anything to give up: the agent has it in hand, and is master of something.
    pub is_at_stake: bool,
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Look again.
    Wait,
    /// The driver hangs.
    Seize,
}

/// Remembers what was seen before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    patience: Duration,
    /// A beat that was too old, and how often it was seen; `None`: all was well.
    old: Option<(Duration, u32)>,
}

impl Watch {
    /// The driver may be silent for `patience`, which is 10 ms at least.
    pub fn new(patience: Duration) -> Self {
        Self { patience: patience.max(SHORTEST), old: None }
    }

    /// Time from one look to the next.
    pub fn period(&self) -> Duration {
        self.patience / LOOKS
    }

    /// The driver hangs when its beat is older than it may be, and is the same at two looks in a row, of which the second was
    /// taken in time. That takes between 1 and 1.5 times the patience.
    ///
    /// After the whole machine was stopped (a virtual machine's pause, a debugger on both) the first look is late, and until the
    /// second the driver has had its turn.
    pub fn look(&mut self, sight: Sight) -> Action {
        let age = sight.now.saturating_sub(sight.beat);
        if !sight.is_at_stake || age < self.patience {
            self.old = None;
            return Action::Wait;
        }
        let is_late = sight.lateness > self.patience / LATE;
        let seen = match self.old {
            Some((beat, seen)) if beat == sight.beat => seen + 1,
            _ => 1,
        };
        if seen >= 2 && (!is_late || seen >= LOOKS_AT_MOST) {
            self.old = None;
            return Action::Seize;
        }
        self.old = Some((sight.beat, seen));
        Action::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Looks in time, at `now` ms, at a beat of `beat` ms.
    fn sight(now: u32, beat: u32) -> Sight {
        Sight { now: now * MS, lateness: Duration::ZERO, beat: beat * MS, is_at_stake: true }
    }

    /// The time of the look that finds a driver hanging which beat every `interval` until `last`.
    fn seized_at(patience: u32, interval: u32, last: u32, until: u32) -> Option<u32> {
        let mut watch = Watch::new(patience * MS);
        let period = u32::try_from(watch.period().as_millis()).unwrap();
        (0..until).step_by(period as usize).find(|&now| {
            let beat = now.min(last) / interval * interval;
            watch.look(sight(now, beat)) == Action::Seize
        })
    }

    #[test]
    fn a_driver_that_beats_is_left_alone() {
        assert_eq!(seized_at(400, 10, u32::MAX, 100_000), None);
        assert_eq!(seized_at(400, 133, u32::MAX, 100_000), None);
        assert_eq!(seized_at(400, 399, u32::MAX, 100_000), None, "late, but not too late");
    }

    #[test]
    fn a_silent_one_is_found_within_one_and_a_half_times_the_patience() {
        for last in 1000..1400 {
            let found = seized_at(400, 1, last, 100_000).unwrap();
            assert!((last + 400..=last + 600).contains(&found), "{last}: {found}");
        }
        for last in 1000..1050 {
            let found = seized_at(40, 1, last, 100_000).unwrap();
            assert!((last + 40..=last + 60).contains(&found), "{last}: {found}");
        }
    }

    #[test]
    fn one_look_is_not_enough() {
        let mut watch = Watch::new(400 * MS);
        assert_eq!(watch.look(sight(5000, 1000)), Action::Wait);
        assert_eq!(watch.look(sight(5100, 4000)), Action::Wait, "another beat, old as well");
        assert_eq!(watch.look(sight(5200, 4000)), Action::Seize);
    }

    #[test]
    fn after_a_stop_of_both_the_driver_has_its_turn() {
        // Both stood still from 1000 to 5000; the guard wakes up first.
        let mut watch = Watch::new(400 * MS);
        assert_eq!(watch.look(Sight { lateness: 3900 * MS, ..sight(5000, 1000) }), Action::Wait);
        assert_eq!(watch.look(sight(5100, 5003)), Action::Wait);
        // It does not come back: then the second look counts.
        let mut watch = Watch::new(400 * MS);
        assert_eq!(watch.look(Sight { lateness: 3900 * MS, ..sight(5000, 1000) }), Action::Wait);
        assert_eq!(watch.look(sight(5100, 1000)), Action::Seize);
    }

    #[test]
    fn a_guard_that_is_always_late_does_not_wait_forever() {
        let mut watch = Watch::new(400 * MS);
        let seized = (1..100).find(|&n| {
            let look = Sight { lateness: 200 * MS, ..sight(1000 + n * 300, 500) };
            watch.look(look) == Action::Seize
        });
        assert_eq!(seized, Some(LOOKS_AT_MOST));
        // A little late is in time.
        let mut watch = Watch::new(400 * MS);
        assert_eq!(watch.look(sight(5000, 1000)), Action::Wait);
        assert_eq!(watch.look(Sight { lateness: 50 * MS, ..sight(5150, 1000) }), Action::Seize);
    }

    #[test]
    fn with_nothing_at_stake_silence_does_not_matter() {
        let mut watch = Watch::new(400 * MS);
        for n in 0..100 {
            let look = Sight { is_at_stake: false, ..sight(5000 + n * 100, 0) };
            assert_eq!(watch.look(look), Action::Wait);
        }
        // A driver that wakes up says that it is master and only then beats: it has the time from one look to the next.
        assert_eq!(watch.look(sight(20_000, 0)), Action::Wait);
        assert_eq!(watch.look(sight(20_100, 20_001)), Action::Wait);
    }

    #[test]
    fn it_acts_once() {
        let mut watch = Watch::new(400 * MS);
        assert_eq!(watch.look(sight(5000, 0)), Action::Wait);
        assert_eq!(watch.look(sight(5100, 0)), Action::Seize);
        assert_eq!(watch.look(sight(5200, 0)), Action::Wait);
    }

    #[test]
    fn extremes() {
        // A beat from the future is a beat.
        let mut watch = Watch::new(Duration::ZERO);
        assert!(watch.period() > Duration::ZERO);
        for _ in 0..20 {
            assert_eq!(watch.look(sight(1000, 2000)), Action::Wait);
        }
        let mut watch = Watch::new(Duration::MAX);
        assert_eq!(watch.look(sight(u32::MAX, 0)), Action::Wait);
    }
}
