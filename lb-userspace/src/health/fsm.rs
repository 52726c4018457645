//! When to check, and what a row of results says: pure. The caller brings the time and makes the attempts.
//!
//! ```text
//!  first turn = a random time within `warmup`
//!
//!  turn -> attempt -> passed: the check passed
//!             ^         failed: down, or no retries left: the check failed
//!             |                 else ------------------+
//!             +------------- delay_before_retry <------+
//! ```
//!
//! A *check* is one attempt and, while the server is up, up to `retry` more after failed ones. A server that is down gets
//! none: it is not urgent to learn that it is still down. `fall` failed checks in a row take it down, `rise` passed
//! ones up. The first result of all needs no row to bring a server up that began down: `rise` is about servers that
//! have failed.
//!
//! `interval` is from the beginning of one check to the beginning of the next, which waits for the end of the one before
//! if that takes longer. So a server that dies is down after at most `fall` intervals and the time of one failing check:
//! with its retries `(retry + 1) * timeout + retry * delay_before_retry`.

use std::time::{Duration, Instant};

use super::probe::Outcome;
use crate::config::check::HealthCheck;

/// What the machine knows of its check's options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// From the beginning of one check to the beginning of the next.
    pub interval: Duration,
    /// Passed checks in a row that bring a server up that was down.
    pub rise: u32,
    /// Failed checks in a row that take it down.
    pub fall: u32,
    /// While the server is up: attempts after a failed first one.
    pub retry: u32,
    /// The wait before each of those.
    pub delay_before_retry: Duration,
    /// Whether the server counts as down until the first result.
    pub begins_down: bool,
}

impl Options {
    /// Those of a check.
    pub fn new(check: &HealthCheck, begins_down: bool) -> Self {
        let HealthCheck { interval, rise, fall, retry, delay_before_retry, .. } = *check;
        Self { interval, rise, fall, retry, delay_before_retry, begins_down }
    }
}

/// What a check says of its server now, other than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// Whether the server is up.
    pub is_up: bool,
    /// The weight that the last passed check set; `None` while the server is down.
    pub weight: Option<u32>,
    /// It asked for no new connections; false while the server is down.
    pub drain: bool,
}

/// One check of one server.
#[derive(Debug, Clone)]
pub struct Machine {
    options: Options,
    turn: Turn,
    /// The turn after the check under way.
    next: Instant,
    /// Failed attempts of the check under way.
    attempts: u32,
    /// Passed or failed checks in a row; a result of the other kind begins a new row.
    row: u32,
    current: Transition,
    /// What [`Machine::handle`] returned last; `None` before the first result.
    told: Option<Transition>,
    since: Instant,
    passed: u64,
    failed: u64,
    last_passed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The next attempt begins then.
    Due(Instant),
    /// An attempt is under way.
    Running,
}

impl Machine {
    /// A check that has not been made yet. `fraction` (0 to 1) says when within `warmup` its first turn is.
    pub fn new(options: Options, warmup: Duration, fraction: f64, now: Instant) -> Self {
        let due = now + warmup.mul_f64(fraction.clamp(0.0, 1.0));
        Self {
            options,
            turn: Turn::Due(due),
            next: due,
            attempts: 0,
            row: 0,
            current: Transition { is_up: !options.begins_down, weight: None, drain: false },
            told: None,
            since: now,
            passed: 0,
            failed: 0,
            last_passed: false,
        }
    }

    /// When to make the next attempt; `None` while one is under way.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.turn {
            Turn::Due(due) => Some(due),
            Turn::Running => None,
        }
    }

    /// An attempt begins.
    pub fn begin(&mut self, now: Instant) {
        let Turn::Due(due) = self.turn else { return };
        if self.attempts == 0 {
            self.next = now + wait(now.saturating_duration_since(due), self.options.interval);
        }
        self.turn = Turn::Running;
    }

    /// The attempt that was under way has ended. Returns what it changed, and what the first result says.
    pub fn handle(&mut self, outcome: &Outcome, now: Instant) -> Option<Transition> {
        if self.turn != Turn::Running {
            return None;
        }
        match outcome {
            Ok(passed) => {
                self.end_check(true);
                if self.told.is_none() || self.row >= self.options.rise {
                    self.current.is_up = true;
                }
                if self.current.is_up {
                    (self.current.weight, self.current.drain) = (passed.weight, passed.drain);
                }
            }
            Err(_) if self.current.is_up && self.attempts < self.options.retry => {
                self.attempts += 1;
                self.turn = Turn::Due(now + self.options.delay_before_retry);
                return None;
            }
            Err(_) => {
                self.end_check(false);
                if self.current.is_up && self.row >= self.options.fall {
                    self.current = Transition { is_up: false, weight: None, drain: false };
                }
            }
        }
        if self.told == Some(self.current) {
            return None;
        }
        if self.told.is_none_or(|told| told.is_up != self.current.is_up) {
            self.since = now;
        }
        self.told = Some(self.current);
        self.told
    }

    fn end_check(&mut self, passed: bool) {
        self.row = if passed == self.last_passed { self.row.saturating_add(1) } else { 1 };
        self.last_passed = passed;
        *(if passed { &mut self.passed } else { &mut self.failed }) += 1;
        self.attempts = 0;
        self.turn = Turn::Due(self.next);
    }

    /// Goes on with other options and what is known of the server. An attempt under way no longer counts; it is
    /// made again at once.
    pub fn change(&mut self, options: Options, now: Instant) {
        let before = std::mem::replace(&mut self.options, options);
        self.turn = Turn::Due(match self.turn {
            Turn::Running => now,
            // In proportion, so that checks which were spread stay so.
            Turn::Due(due) if options.interval < before.interval => {
                let part = options.interval.as_secs_f64() / before.interval.as_secs_f64();
                now + due.saturating_duration_since(now).mul_f64(part)
            }
            Turn::Due(due) => due,
        });
        self.attempts = 0;
        if self.told.is_none() {
            self.current.is_up = !options.begins_down;
        }
    }

    /// What the results so far say; `None` before the first.
    pub fn known(&self) -> Option<Transition> {
        self.told
    }

    /// When [`Self::known`] last changed between nothing, up and down.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Checks that passed and that failed.
    pub fn counts(&self) -> (u64, u64) {
        (self.passed, self.failed)
    }
}

/// From the beginning of a check that was `late` to the next turn: between half an interval and a whole one.
///
/// A check that was a little late does not put off all that follow. When everything stood still for long, all checks are
/// due at once; the turns that they would have had spread them again.
fn wait(late: Duration, interval: Duration) -> Duration {
    let interval = interval.max(SHORTEST_INTERVAL);
    let half = interval / 2;
    // Below the interval, so it fits.
    let rest = Duration::from_nanos((late.as_nanos() % interval.as_nanos()) as u64);
    let wait = interval - rest;
    if wait < half { wait + half } else { wait }
}

/// Whatever the options say, a check is no busy loop.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests;
