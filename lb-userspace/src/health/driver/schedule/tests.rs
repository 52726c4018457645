use proptest::prelude::*;

use super::*;
use crate::health::{
    driver::tests::{id, wanted},
    probe::Passed,
};

fn passed() -> Outcome {
    Ok(Passed { detail: "fine".to_owned(), ..Passed::default() })
}

fn failed() -> Outcome {
    Err("refused".to_owned())
}

fn set_of(ids: impl IntoIterator<Item = u32>) -> BTreeMap<CheckId, Wanted> {
    ids.into_iter().map(|number| (id(number), wanted())).collect()
}

const TOOK: Duration = Duration::from_millis(3);

#[test]
fn checks_take_turns_by_time() {
    let now = Instant::now();
    let mut schedule = Schedule::default();
    let mut wanted = set_of(0..3);
    for wanted in wanted.values_mut() {
        wanted.check.warmup = Duration::from_secs(10);
    }
    let mut fractions = [0.5, 0.9, 0.1].into_iter();
    assert_eq!(schedule.set(wanted, now, || fractions.next().expect("three checks")), []);
    assert_eq!(schedule.next_due(), Some(now + Duration::from_secs(1)));
    assert!(schedule.begin(now).is_none());
    let after = now + Duration::from_secs(20);
    let order: Vec<_> = std::iter::from_fn(|| schedule.begin(after)).map(|(id, ..)| id).collect();
    assert_eq!(order, [id(2), id(0), id(1)]);
    assert_eq!(schedule.next_due(), None);
}

#[test]
fn reports_the_first_result_and_changes() {
    let now = Instant::now();
    let mut schedule = Schedule::default();
    schedule.set(set_of([1]), now, || 0.0);
    let mut check = |outcome: Outcome| {
        let now = schedule.next_due().expect("it is not under way");
        let (id, attempt, _) = schedule.begin(now).expect("it is due");
        schedule.finish(id, attempt, outcome, TOOK, now)
    };
    let first = check(passed()).expect("the first result");
    assert_eq!((first.id, first.is_up, first.detail.as_str()), (id(1), true, "fine"));
    assert_eq!(check(passed()), None);
    let second = check(failed()).expect("a change");
    assert_eq!((second.is_up, second.detail.as_str()), (false, "refused"));
    assert_eq!(check(failed()), None);
    let state = &schedule.states()[&id(1)];
    assert_eq!((state.is_up, state.detail.as_deref()), (Some(false), Some("refused")));
    assert_eq!((state.passed, state.failed), (2, 2));
    assert_eq!((state.last, state.sum), (TOOK, 4 * TOOK));
}

#[test]
fn a_set_cancels_what_it_does_not_keep() {
    let now = Instant::now();
    let mut schedule = Schedule::default();
    schedule.set(set_of(0..4), now, || 0.0);
    let attempts: Vec<_> =
        std::iter::from_fn(|| schedule.begin(now)).map(|(_, attempt, _)| attempt).collect();
    // 0 and 4 as they are, 1 changes, 2 and 3 go.
    let mut next = set_of([0, 1, 4]);
    next.get_mut(&id(1)).expect("in the set").check.fall = 9;
    let mut cancelled = schedule.set(next, now, || 0.0);
    cancelled.sort_by_key(|attempt| attempt.0);
    assert_eq!(cancelled, attempts[1..]);
    // Results that come nevertheless change nothing.
    for (number, attempt) in attempts.iter().enumerate().skip(1) {
        assert_eq!(schedule.finish(id(number as u32), *attempt, failed(), TOOK, now), None);
    }
    assert!(schedule.finish(id(0), attempts[0], passed(), TOOK, now).is_some());
    let begun: Vec<_> = std::iter::from_fn(|| schedule.begin(now)).map(|(id, ..)| id).collect();
    assert_eq!(begun, [id(1), id(4)], "the one that changed again, the new one for the first time");
    assert_eq!(schedule.states().keys().copied().collect::<Vec<_>>(), [id(0), id(1), id(4)]);
}

#[test]
fn changed_options_keep_what_is_known() {
    let now = Instant::now();
    let mut schedule = Schedule::default();
    schedule.set(set_of([1]), now, || 0.0);
    let (id, attempt, _) = schedule.begin(now).expect("due");
    schedule.finish(id, attempt, failed(), TOOK, now).expect("the first result");
    let mut next = set_of([1]);
    next.get_mut(&id).expect("in the set").check.timeout = Duration::from_secs(77);
    schedule.set(next, now, || 0.0);
    let state = &schedule.states()[&id];
    assert_eq!((state.is_up, state.failed), (Some(false), 1));
    // Removed and added it is a new one.
    schedule.set(BTreeMap::new(), now, || 0.0);
    schedule.set(set_of([1]), now, || 0.0);
    assert_eq!(schedule.states()[&id].is_up, None);
}

/// The check with this position of one and the same server.
fn of_server(index: u32) -> CheckId {
    CheckId { index, ..id(1) }
}

/// Checks of one server, each to another port.
fn checks_to(ports: &[u16]) -> BTreeMap<CheckId, Wanted> {
    let to = |(index, &port): (u32, &u16)| {
        let mut wanted = wanted();
        wanted.check.connect.set_port(port);
        (of_server(index), wanted)
    };
    (0..).zip(ports).map(to).collect()
}

#[test]
fn what_is_known_follows_its_check() {
    let now = Instant::now();
    let mut schedule = Schedule::default();
    schedule.set(checks_to(&[1, 2, 3]), now, || 0.0);
    let begun: Vec<_> = std::iter::from_fn(|| schedule.begin(now)).collect();
    for ((id, attempt, _), outcome) in begun.into_iter().zip([passed(), failed(), passed()]) {
        schedule.finish(id, attempt, outcome, TOOK, now).expect("the first result");
    }
    let now = now + Duration::from_secs(1);
    let (_, attempt, _) = schedule.begin(now).expect("the first one's turn");
    let cancelled = schedule.set(checks_to(&[2, 4]), now, || 0.0);
    assert_eq!(cancelled, [attempt]);
    let states = schedule.states();
    assert_eq!(states.keys().copied().collect::<Vec<_>>(), [of_server(0), of_server(1)]);
    let known = |index| (states[&of_server(index)].is_up, states[&of_server(index)].failed);
    assert_eq!((known(0), known(1)), ((Some(false), 1), (None, 0)), "the second one, and a new one");
}

#[test]
fn an_attempt_of_a_check_that_moves_is_repeated() {
    let now = Instant::now();
    let mut schedule = Schedule::default();
    schedule.set(checks_to(&[1, 2]), now, || 0.0);
    let begun: Vec<_> =
        std::iter::from_fn(|| schedule.begin(now)).map(|(id, attempt, _)| (id, attempt)).collect();
    let mut cancelled = schedule.set(checks_to(&[2]), now, || 0.0);
    cancelled.sort_by_key(|attempt| attempt.0);
    assert_eq!(cancelled, [begun[0].1, begun[1].1]);
    // Under the old number it would be a result of the other check.
    assert_eq!(schedule.finish(begun[0].0, begun[0].1, passed(), TOOK, now), None);
    let (id, attempt, check) = schedule.begin(now).expect("again");
    assert_eq!((id, check.connect.port()), (of_server(0), 2));
    assert!(schedule.finish(id, attempt, failed(), TOOK, now).is_some());
}

#[derive(Debug, Clone)]
enum Step {
    Set(Vec<(u32, u32)>),
    SetOfServer(Vec<u16>),
    Begin,
    Finish(usize, bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        proptest::collection::vec((0_u32..6, 1_u32..3), 0..6).prop_map(Step::Set),
        proptest::collection::vec(1_u16..5, 0..5).prop_map(Step::SetOfServer),
        Just(Step::Begin),
        (any::<usize>(), any::<bool>()).prop_map(|(which, passes)| Step::Finish(which, passes)),
        (0_u64..3000).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Every check is either due or has exactly one attempt under way, whatever happens.
    #[test]
    fn no_check_is_lost(steps in proptest::collection::vec(step(), 1..80)) {
        let mut now = Instant::now();
        let mut schedule = Schedule::default();
        let mut running: Vec<(CheckId, AttemptId)> = Vec::new();
        for step in steps {
            match step {
                Step::Set(checks) => {
                    let mut set = set_of(checks.iter().map(|(number, _)| *number));
                    for (number, fall) in checks {
                        set.get_mut(&id(number)).expect("in the set").check.fall = fall;
                    }
                    let cancelled = schedule.set(set, now, || 0.5);
                    running.retain(|(_, attempt)| !cancelled.contains(attempt));
                }
                Step::SetOfServer(ports) => {
                    let cancelled = schedule.set(checks_to(&ports), now, || 0.5);
                    running.retain(|(_, attempt)| !cancelled.contains(attempt));
                }
                Step::Begin => running.extend(schedule.begin(now).map(|(id, attempt, _)| (id, attempt))),
                Step::Finish(which, passes) if !running.is_empty() => {
                    let (id, attempt) = running.swap_remove(which % running.len());
                    schedule.finish(id, attempt, if passes { passed() } else { failed() }, TOOK, now);
                }
                Step::Finish(..) => {}
                Step::Wait(milliseconds) => now += Duration::from_millis(milliseconds),
            }
            let mut known: Vec<_> =
                schedule.due.iter().map(|(_, id)| *id).chain(running.iter().map(|(id, _)| *id)).collect();
            known.sort();
            prop_assert_eq!(known, schedule.checks.keys().copied().collect::<Vec<_>>());
        }
    }
}
