//! For how long this machine lets a thread wait that wants to run: what no program on it can be blamed for.
//!
//! A thread on each processor sleeps for a millisecond, again and again, and notes how late it wakes. The threads begin with the first
//! [`Mark`] and go on for as long as the process lives.

use std::{
    error, fmt,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// How long the threads sleep.
const TICK: Duration = Duration::from_millis(1);
/// What is less late is not kept.
const KEPT: Duration = Duration::from_millis(2);
/// How often [`judge`] tries.
const ATTEMPTS: usize = 3;

/// A moment from which on stalls are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Mark(Instant);

impl Mark {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        processors();
        Self(Instant::now())
    }

    /// The longest stall of any processor since then; what it had lasted before does not count.
    #[must_use]
    pub fn worst(self) -> Duration {
        let worst = |processor: &Mutex<Processor>| lock(processor).worst(self.0, Instant::now());
        processors().iter().map(worst).max().unwrap_or_default()
    }
}

/// Does something and judges it. Where a [`verdict`] in it is bad, and the machine has stood still for longer than `patience` meanwhile,
/// nobody can tell whose fault it was, and it is done again, three times in all. `run` makes its own beginning each time.
///
/// # Errors
/// The last bad verdict, the first one without such a stall, or any other error at once.
pub fn judge<T>(what: &str, patience: Duration, run: impl FnMut() -> Result<T>) -> Result<T> {
    judge_by(what, patience, Mark::now, Mark::worst, run)
}

fn judge_by<M, T>(
    what: &str,
    patience: Duration,
    begin: impl Fn() -> M,
    worst: impl Fn(M) -> Duration,
    mut run: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut attempt = 1;
    loop {
        let mark = begin();
        let error = match run() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let stalled = worst(mark);
        if !error.is::<Bad>() || stalled <= patience || attempt == ATTEMPTS {
            return Err(error)
                .with_context(|| format!("{what}: the machine stood still for {stalled:.1?} at most"));
        }
        println!("{what}: again, as the machine stood still for {stalled:.1?}: {error:#}");
        attempt += 1;
    }
}

/// What [`judge`] judges by: a bad one may be the machine's fault.
///
/// # Errors
/// When it is bad, with the reason.
pub fn verdict(is_good: bool, why: impl FnOnce() -> String) -> Result<()> {
    if is_good { Ok(()) } else { Err(Bad(why()).into()) }
}

/// A bad verdict.
#[derive(Debug)]
struct Bad(String);

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for Bad {}

/// What the thread of one processor has seen.
#[derive(Debug)]
struct Processor {
    /// When it will have slept enough.
    due: Instant,
    /// When it should have run, and when it did.
    stalls: Vec<(Instant, Instant)>,
}

impl Processor {
    fn worst(&self, from: Instant, now: Instant) -> Duration {
        // The last one may still go on.
        let overdue = (self.due, now);
        let late = |(due, ran): &(Instant, Instant)| ran.saturating_duration_since((*due).max(from));
        self.stalls.iter().chain([&overdue]).map(late).max().unwrap_or_default()
    }
}

fn processors() -> &'static [Mutex<Processor>] {
    static PROCESSORS: OnceLock<Vec<Mutex<Processor>>> = OnceLock::new();
    static WATCHED: OnceLock<()> = OnceLock::new();
    let numbers = || {
        let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
        let numbers: Vec<usize> =
            (0..CpuSet::count()).filter(|number| allowed.is_set(*number).unwrap_or(false)).collect();
        if numbers.is_empty() { vec![0] } else { numbers }
    };
    let new = |_| Mutex::new(Processor { due: Instant::now() + TICK, stalls: Vec::new() });
    let processors = PROCESSORS.get_or_init(|| numbers().into_iter().map(new).collect());
    WATCHED.get_or_init(|| {
        for (number, processor) in numbers().into_iter().zip(processors) {
            thread::spawn(move || watch(number, processor));
        }
    });
    processors
}

fn watch(number: usize, processor: &Mutex<Processor>) {
    let mut only = CpuSet::new();
    // Where it may not be bound to its processor it sees what threads see that are not.
    let _ = only.set(number).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only));
    loop {
        let due = Instant::now() + TICK;
        lock(processor).due = due;
        thread::sleep(TICK);
        let now = Instant::now();
        if now.saturating_duration_since(due) > KEPT {
            lock(processor).stalls.push((due, now));
        }
    }
}

fn lock(processor: &Mutex<Processor>) -> MutexGuard<'_, Processor> {
    processor.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;
    use crate::registry::wait_until;

    #[test]
    fn a_stall_counts_from_the_mark_on_and_while_it_lasts() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let processor = Processor { due: at(200), stalls: vec![(at(10), at(60)), (at(80), at(110))] };
        let ms = Duration::from_millis;
        assert_eq!(processor.worst(begun, at(150)), ms(50));
        assert_eq!(processor.worst(at(50), at(150)), ms(30));
        assert_eq!(processor.worst(at(120), at(150)), ms(0));
        assert_eq!(processor.worst(at(120), at(270)), ms(70));
        assert_eq!(processor.worst(at(260), at(270)), ms(10));
    }

    #[test]
    fn only_a_stall_excuses_and_only_twice() {
        let tries = |stalled: u64, succeeds_at: usize| {
            let mut tries = 0;
            let run = || {
                tries += 1;
                verdict(tries == succeeds_at, || "it moved".to_owned()).context("after a handover")
            };
            let worst = |()| Duration::from_millis(stalled);
            let done = judge_by("calm", Duration::from_millis(100), || (), worst, run).is_ok();
            (done, tries)
        };
        assert_eq!(tries(0, 1), (true, 1));
        assert_eq!(tries(100, 2), (false, 1));
        assert_eq!(tries(101, 2), (true, 2));
        assert_eq!(tries(101, 4), (false, 3));
        let mut tries = 0;
        let broken = judge_by(
            "calm",
            Duration::ZERO,
            || (),
            |()| Duration::MAX,
            || -> Result<()> {
                tries += 1;
                bail!("it does not start")
            },
        );
        assert!(broken.is_err() && tries == 1);
    }

    #[test]
    fn every_processor_is_watched() {
        let mark = Mark::now();
        let due = || processors().iter().map(|one| lock(one).due).collect::<Vec<Instant>>();
        let first = due();
        let beats = || due().iter().zip(&first).all(|(now, first)| now > first);
        assert!(!first.is_empty() && wait_until(Duration::from_secs(10), beats));
        assert!(mark.worst() <= mark.0.elapsed());
    }
}
