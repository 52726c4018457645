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

#[derive(Debug, Clone)]
enum Step {
    Set(Vec<(u32, u32)>),
    Begin,
    Finish(usize, bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        proptest::collection::vec((0_u32..6, 1_u32..3), 0..6).prop_map(Step::Set),
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
