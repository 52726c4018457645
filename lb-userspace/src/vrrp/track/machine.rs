//! What a row of findings says of a tracked thing: pure.

use crate::vrrp::TrackValue;

/// When findings count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Options {
    /// Successes in a row until it is up.
    pub(super) rise: u32,
    /// Failures in a row until it is down.
    pub(super) fall: u32,
    /// It is down before its first finding (`init_fail`); else nothing is known of it.
    pub(super) begins_down: bool,
}

impl Options {
    /// Each finding counts.
    pub(super) const AT_ONCE: Self = Self { rise: 1, fall: 1, begins_down: false };
}

/// Knows what to say of one tracked thing.
///
/// The first finding counts at once: `rise` and `fall` are for what comes and goes, and an agent that starts should know soon.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    options: Options,
    told: Option<TrackValue>,
    last: Option<TrackValue>,
    /// How often the last finding came in a row.
    row: u32,
}

impl Machine {
    pub(super) fn new(options: Options) -> Self {
        let told = options.begins_down.then_some(TrackValue::Down);
        Self { options, told, last: None, row: 0 }
    }

    /// What has been said of it.
    pub(super) fn told(&self) -> Option<TrackValue> {
        self.told
    }

    /// Takes a finding. Returns whether it is to be said.
    pub(super) fn handle(&mut self, found: TrackValue) -> bool {
        let is_first = self.last.is_none();
        self.row = if self.last == Some(found) { self.row.saturating_add(1) } else { 1 };
        self.last = Some(found);
        let needed = match found {
            TrackValue::Up => self.options.rise,
            TrackValue::Down => self.options.fall,
            TrackValue::Number(_) => 1,
        };
        if self.told == Some(found) || (!is_first && self.row < needed) {
            return false;
        }
        self.told = Some(found);
        true
    }

    /// Goes on with other options. What is known stays: a reload that changes an interval must not move an address.
    pub(super) fn change(&mut self, options: Options) {
        self.options = options;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use TrackValue::{Down, Number, Up};

    fn options(rise: u32, fall: u32, begins_down: bool) -> Options {
        Options { rise, fall, begins_down }
    }

    /// What is said after each finding; `None`: nothing.
    fn said(machine: &mut Machine, findings: &[TrackValue]) -> Vec<Option<TrackValue>> {
        findings.iter().map(|found| machine.handle(*found).then_some(*found)).collect()
    }

    #[test]
    fn the_first_finding_counts_at_once() {
        for found in [Up, Down, Number(7)] {
            let mut machine = Machine::new(options(3, 3, false));
            assert_eq!(machine.told(), None);
            assert_eq!(said(&mut machine, &[found, found]), [Some(found), None]);
        }
    }

    #[test]
    fn what_begins_down_is_up_with_its_first_success() {
        let mut machine = Machine::new(options(3, 3, true));
        assert_eq!(machine.told(), Some(Down));
        assert_eq!(said(&mut machine, &[Up]), [Some(Up)]);
        // After a failure it has failed like any other.
        let mut machine = Machine::new(options(2, 3, true));
        assert_eq!(said(&mut machine, &[Down, Up, Up]), [None, None, Some(Up)]);
    }

    #[test]
    fn later_ones_count_in_a_row() {
        let mut machine = Machine::new(options(2, 3, false));
        let findings = [Up, Down, Down, Up, Down, Down, Down, Down, Up, Down, Up, Up];
        let expected = [Some(Up), None, None, None, None, None, Some(Down), None, None, None, None, Some(Up)];
        assert_eq!(said(&mut machine, &findings), expected);
    }

    #[test]
    fn every_other_number_counts() {
        let mut machine = Machine::new(Options::AT_ONCE);
        let findings = [Number(0), Number(5), Number(5), Number(-5), Number(0)];
        let expected = [Some(Number(0)), Some(Number(5)), None, Some(Number(-5)), Some(Number(0))];
        assert_eq!(said(&mut machine, &findings), expected);
    }

    #[test]
    fn other_options_change_nothing_at_once() {
        let mut machine = Machine::new(options(1, 1, false));
        assert!(machine.handle(Up));
        machine.change(options(1, 2, true));
        assert_eq!(machine.told(), Some(Up));
        assert_eq!(said(&mut machine, &[Down, Down]), [None, Some(Down)]);
    }

    proptest! {
        /// A row that is long enough always counts, and nothing is said twice.
        #[test]
        fn it_follows(
            rise in 0..5_u32,
            fall in 0..5_u32,
            begins_down: bool,
            findings in proptest::collection::vec(any::<bool>(), 0..40),
            end: bool,
        ) {
            let mut machine = Machine::new(options(rise, fall, begins_down));
            let last = [end; 5];
            for is_up in findings.into_iter().chain(last) {
                let before = machine.told();
                let is_said = machine.handle(if is_up { Up } else { Down });
                prop_assert_eq!(is_said, machine.told() != before);
            }
            prop_assert_eq!(machine.told(), Some(if end { Up } else { Down }));
        }
    }
}
