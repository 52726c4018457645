use proptest::prelude::*;

use super::*;
use crate::health::probe::Passed;

const OPTIONS: Options = Options {
    interval: Duration::from_secs(10),
    rise: 2,
    fall: 3,
    retry: 0,
    delay_before_retry: Duration::from_secs(1),
    begins_down: false,
};

const UP: Transition = Transition { is_up: true, weight: None, drain: false };
const DOWN: Transition = Transition { is_up: false, weight: None, drain: false };

fn passed() -> Outcome {
    Ok(Passed::default())
}

fn failed() -> Outcome {
    Err("refused".to_owned())
}

fn outcome(passes: bool) -> Outcome {
    if passes { passed() } else { failed() }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A machine and the time that it has been brought to.
struct Simulation {
    machine: Machine,
    start: Instant,
    now: Instant,
}

impl Simulation {
    fn new(options: Options) -> Self {
        let now = Instant::now();
        Self { machine: Machine::new(options, Duration::ZERO, 0.0, now), start: now, now }
    }

    /// Goes to the next attempt, which takes `takes`. Returns when it began and what it changed.
    fn attempt(&mut self, outcome: &Outcome, takes: Duration) -> (Duration, Option<Transition>) {
        let due = self.machine.poll_timeout().expect("no attempt is under way");
        self.now = self.now.max(due);
        let began = self.now - self.start;
        self.machine.begin(self.now);
        assert_eq!(self.machine.poll_timeout(), None);
        self.now += takes;
        (began, self.machine.handle(outcome, self.now))
    }

    fn changes(&mut self, results: &[bool]) -> Vec<Option<Transition>> {
        results.iter().map(|&passes| self.attempt(&outcome(passes), Duration::ZERO).1).collect()
    }
}

#[test]
fn falls_and_rises_after_rows() {
    let mut simulation = Simulation::new(OPTIONS);
    assert_eq!(simulation.machine.known(), None);
    assert_eq!(
        simulation.changes(&[true, false, false, false, false, true, true, true]),
        [Some(UP), None, None, Some(DOWN), None, None, Some(UP), None]
    );
    assert_eq!(simulation.machine.counts(), (4, 4));
    assert_eq!(simulation.machine.since(), simulation.start + seconds(60));
}

#[test]
fn alternating_results_change_nothing() {
    let mut up = Simulation::new(Options { fall: 2, ..OPTIONS });
    assert_eq!(up.changes(&[true, false, true, false, true, false])[1..], [None; 5]);
    let mut down = Simulation::new(Options { begins_down: true, ..OPTIONS });
    assert_eq!(down.changes(&[false, true, false, true, false, true])[1..], [None; 5]);
    assert_eq!(down.machine.known(), Some(DOWN));
}

#[test]
fn the_first_result_of_a_server_that_begins_down() {
    let options = Options { begins_down: true, rise: 3, ..OPTIONS };
    assert_eq!(Simulation::new(options).changes(&[true]), [Some(UP)]);
    // After a failure it is a recovery.
    assert_eq!(
        Simulation::new(options).changes(&[false, true, true, true]),
        [Some(DOWN), None, None, Some(UP)]
    );
}

#[test]
fn the_first_failure_of_a_server_that_begins_up_counts_like_any() {
    let mut simulation = Simulation::new(OPTIONS);
    assert_eq!(simulation.changes(&[false, false, false]), [Some(UP), None, Some(DOWN)]);
    let mut simulation = Simulation::new(Options { fall: 1, ..OPTIONS });
    assert_eq!(simulation.changes(&[false]), [Some(DOWN)]);
}

#[test]
fn retries_only_while_up() {
    let mut simulation = Simulation::new(Options { retry: 2, fall: 1, ..OPTIONS });
    let began: Vec<_> = [true, false, false, true, false, false, false, false, false]
        .map(|passes| simulation.attempt(&outcome(passes), seconds(1)))
        .into();
    let at: Vec<_> = began.iter().map(|(began, _)| began.as_secs()).collect();
    // 10 fails twice and passes, 20 fails three times; then it is down, and one attempt is a check.
    assert_eq!(at, [0, 10, 12, 14, 20, 22, 24, 30, 40]);
    let changes: Vec<_> = began.iter().filter_map(|(_, change)| *change).collect();
    assert_eq!(changes, [UP, DOWN]);
    assert_eq!(simulation.machine.counts(), (2, 3));
}

#[test]
fn weight_and_drain_are_changes() {
    let mut simulation = Simulation::new(Options { rise: 2, fall: 1, ..OPTIONS });
    let answers = |weight, drain| Ok(Passed { detail: String::new(), weight, drain });
    let mut attempt = |outcome: &Outcome| simulation.attempt(outcome, Duration::ZERO).1;
    assert_eq!(attempt(&answers(Some(5), false)), Some(Transition { weight: Some(5), ..UP }));
    assert_eq!(attempt(&answers(Some(5), false)), None);
    assert_eq!(attempt(&answers(Some(0), true)), Some(Transition { weight: Some(0), drain: true, ..UP }));
    assert_eq!(attempt(&failed()), Some(DOWN));
    // Not while it is down; the last one counts when it comes up.
    assert_eq!(attempt(&answers(Some(7), false)), None);
    assert_eq!(attempt(&answers(Some(8), false)), Some(Transition { weight: Some(8), ..UP }));
    assert_eq!(attempt(&answers(None, false)), Some(UP));
}

#[test]
fn the_first_turn_is_within_the_warmup() {
    let now = Instant::now();
    for (fraction, expected) in [(0.0, 0), (0.25, 5), (1.0, 20), (7.0, 20)] {
        let machine = Machine::new(OPTIONS, seconds(20), fraction, now);
        assert_eq!(machine.poll_timeout(), Some(now + seconds(expected)));
    }
}

#[test]
fn a_check_longer_than_the_interval_delays_the_next() {
    let mut simulation = Simulation::new(OPTIONS);
    let at = [(); 4].map(|()| simulation.attempt(&passed(), seconds(14)).0.as_secs());
    assert_eq!(at, [0, 14, 28, 42]);
}

#[test]
fn late_checks_keep_their_turns() {
    let mut simulation = Simulation::new(OPTIONS);
    simulation.attempt(&passed(), Duration::ZERO);
    simulation.now += seconds(13);
    assert_eq!(simulation.attempt(&passed(), Duration::ZERO).0, seconds(13));
    assert_eq!(simulation.attempt(&passed(), Duration::ZERO).0, seconds(20));
}

#[test]
fn a_long_pause_causes_one_check_and_they_spread_again() {
    let now = Instant::now();
    let after = now + seconds(1000);
    let mut turns: Vec<_> = (0_u32..10)
        .map(|number| {
            let mut machine = Machine::new(OPTIONS, seconds(10), f64::from(number) / 10.0, now);
            machine.begin(after);
            machine.handle(&passed(), after);
            machine.poll_timeout().expect("the attempt has ended")
        })
        .collect();
    turns.sort();
    assert!(turns[0] >= after + seconds(5) && turns[9] <= after + seconds(10), "{turns:?}");
    turns.dedup();
    assert!(turns.len() >= 5, "the checks stay together: {turns:?}");
}

#[test]
fn other_options_keep_what_is_known() {
    let mut simulation = Simulation::new(OPTIONS);
    simulation.changes(&[true, false, false]);
    let since = simulation.machine.since();
    simulation.machine.change(Options { begins_down: true, ..OPTIONS }, simulation.now);
    assert_eq!(simulation.machine.known(), Some(UP));
    assert_eq!(simulation.machine.since(), since);
    assert_eq!(simulation.changes(&[false]), [Some(DOWN)]);
}

#[test]
fn other_options_restart_the_attempt() {
    let mut simulation = Simulation::new(Options { retry: 1, ..OPTIONS });
    simulation.attempt(&passed(), Duration::ZERO);
    simulation.attempt(&failed(), Duration::ZERO);
    let now = simulation.now + seconds(1);
    simulation.machine.begin(now);
    simulation.machine.change(Options { retry: 1, fall: 1, ..OPTIONS }, now);
    assert_eq!(simulation.machine.poll_timeout(), Some(now));
    // The old attempt's result comes too late.
    assert_eq!(simulation.machine.handle(&failed(), now), None);
    // And its retry is given again.
    assert_eq!(simulation.changes(&[false, false]), [None, Some(DOWN)]);
}

#[test]
fn a_shorter_interval_holds_at_once() {
    let now = Instant::now();
    let mut machine = Machine::new(OPTIONS, Duration::ZERO, 0.0, now);
    machine.begin(now);
    machine.handle(&passed(), now);
    machine.change(Options { interval: seconds(1), ..OPTIONS }, now + seconds(4));
    let due = machine.poll_timeout().expect("no attempt is under way") - now;
    assert!(due.abs_diff(Duration::from_millis(4600)) < Duration::from_millis(1), "{due:?}");
    machine.change(Options { interval: seconds(100), ..OPTIONS }, now + seconds(4));
    assert_eq!(machine.poll_timeout(), Some(now + due));
}

#[test]
fn begins_down_can_change_before_the_first_result() {
    let mut simulation = Simulation::new(OPTIONS);
    simulation.machine.change(Options { begins_down: true, ..OPTIONS }, simulation.now);
    assert_eq!(simulation.changes(&[false]), [Some(DOWN)]);
}

prop_compose! {
    fn options()(
        interval in 1_u64..30_000,
        rise in 1_u32..5,
        fall in 1_u32..5,
        retry in 0_u32..4,
        delay in 0_u64..3000,
        begins_down: bool,
    ) -> Options {
        Options {
            interval: Duration::from_millis(interval),
            rise,
            fall,
            retry,
            delay_before_retry: Duration::from_millis(delay),
            begins_down,
        }
    }
}

proptest! {
    /// Dies right after an attempt that passed began: the worst moment.
    #[test]
    fn a_dead_server_is_down_in_time(options in options(), timeout in 0_u64..20_000, late in 0_u64..50) {
        let timeout = Duration::from_millis(timeout);
        let late = Duration::from_millis(late);
        let mut simulation = Simulation::new(options);
        let (died, _) = simulation.attempt(&passed(), Duration::ZERO);
        let mut checks = 0;
        while simulation.machine.known() == Some(UP) {
            simulation.now = simulation.now.max(simulation.machine.poll_timeout().expect("none is under way")) + late;
            simulation.attempt(&failed(), timeout);
            checks += 1;
            prop_assert!(checks <= options.fall * (options.retry + 1));
        }
        let check = (timeout + late) * (options.retry + 1) + options.delay_before_retry * options.retry;
        let longest = options.interval.max(check) * (options.fall - 1) + options.interval + check;
        prop_assert!(simulation.now - simulation.start - died <= longest);
    }

    /// The same as counting rows over all results.
    #[test]
    fn rows_decide(options in options(), results in proptest::collection::vec(any::<bool>(), 1..60)) {
        let options = Options { retry: 0, ..options };
        let mut simulation = Simulation::new(options);
        let mut is_up = !options.begins_down;
        for end in 1..=results.len() {
            let row = |kind| results[..end].iter().rev().take_while(|passes| **passes == kind).count();
            let change = simulation.changes(&results[end - 1..end])[0];
            let before = is_up;
            if is_up && row(false) >= options.fall as usize {
                is_up = false;
            } else if !is_up && (row(true) >= options.rise as usize || end == 1 && results[0]) {
                is_up = true;
            }
            prop_assert_eq!(change.is_some(), end == 1 || before != is_up);
            prop_assert_eq!(simulation.machine.known().map(|known| known.is_up), Some(is_up));
        }
    }

    /// However late attempts are and however long they take: never two checks within half an interval, and never later
    /// than an interval after the last began unless that one has not ended.
    #[test]
    fn turns_are_apart(
        options in options(),
        steps in proptest::collection::vec((any::<bool>(), 0_u64..40_000, 0_u64..100_000), 1..40),
    ) {
        let options = Options { retry: 0, ..options };
        let mut simulation = Simulation::new(options);
        for (passes, takes, late) in steps {
            simulation.now += Duration::from_millis(late);
            let (began, _) = simulation.attempt(&outcome(passes), Duration::from_millis(takes));
            let due = simulation.machine.poll_timeout().expect("it has ended") - simulation.start;
            prop_assert!(due - began >= options.interval / 2);
            prop_assert!(due - began <= options.interval);
        }
    }
}
