//! What keeps a flood, of packets or of somebody who fights with us, from becoming one of log lines or of work.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Over which time notices of one kind are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// Lets through so many notices of a kind in ten seconds, and counts the others. What it keeps is bounded by subjects and kinds,
/// never by senders.
#[derive(Debug, Default)]
pub struct Notices {
    windows: BTreeMap<(String, &'static str), Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    let_through: u32,
    left_out: u64,
}

impl Notices {
    /// Whether a notice may pass; how many have not since the last one that did. `most`: in ten seconds.
    pub fn admit(&mut self, subject: &str, kind: &'static str, most: u32, now: Instant) -> Option<u64> {
        let window = self.windows.entry((subject.to_owned(), kind)).or_insert(Window {
            began: now,
            let_through: 0,
            left_out: 0,
        });
        if now.saturating_duration_since(window.began) >= WINDOW {
            window.began = now;
            window.let_through = 0;
        }
        if window.let_through >= most {
            window.left_out += 1;
            return None;
        }
        window.let_through += 1;
        Some(std::mem::take(&mut window.left_out))
    }

    /// Forgets subjects that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.windows.retain(|(subject, _), _| is_there(subject));
    }
}

/// For how long the driver runs on without a rest.
const EXERTION: Duration = Duration::from_millis(5);
/// A rest: the kernel gives others the processor.
const REST: Duration = Duration::from_micros(100);
/// A wait of this length was one.
const REAL_WAIT: Duration = Duration::from_micros(20);

/// Makes a real-time thread rest while a flood keeps its sockets ready. Otherwise the kernel would: for 50 ms in every second
/// (`sched_rt_runtime_us`), which is longer than fast adverts can wait, or with a SIGXCPU at RLIMIT_RTTIME, which counts the time
/// since the last wait.
#[derive(Debug)]
pub struct Breath {
    rested: Instant,
}

impl Breath {
    /// `now`: rested.
    pub fn new(now: Instant) -> Self {
        Self { rested: now }
    }

    /// It has waited for something from `began` to `ended`. How long it should rest now, if it should.
    pub fn after_wait(&mut self, began: Instant, ended: Instant) -> Option<Duration> {
        if ended.saturating_duration_since(began) >= REAL_WAIT {
            self.rested = ended;
        }
        let is_tired = ended.saturating_duration_since(self.rested) >= EXERTION;
        if is_tired {
            self.rested = ended + REST;
        }
        is_tired.then_some(REST)
    }
}

/// Later than this, and the driver has been stopped rather than delayed.
pub const STALL: Duration = Duration::from_millis(100);

/// How much later than asked for a wait has ended, if that is a [`STALL`]. `last`: the end of the wait before, so that a stop
/// between the waits is seen too.
pub fn stalled(last: Instant, deadline: Instant, now: Instant) -> Option<Duration> {
    let late = now.saturating_duration_since(deadline.max(last));
    (late > STALL).then_some(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn notices_are_limited_and_counted() {
        let start = Instant::now();
        let mut notices = Notices::default();
        assert_eq!(notices.admit("a", "ttl", 1, start), Some(0));
        for i in 0..1000 {
            assert_eq!(notices.admit("a", "ttl", 1, start + MS * i), None);
        }
        assert_eq!(notices.admit("a", "checksum", 1, start + MS), Some(0), "another reason");
        assert_eq!(notices.admit("b", "ttl", 1, start + MS), Some(0), "another instance");
        assert_eq!(notices.admit("a", "ttl", 1, start + WINDOW), Some(1000));
        assert_eq!(notices.admit("a", "ttl", 1, start + WINDOW + MS), None);
    }

    #[test]
    fn some_kinds_may_come_more_often() {
        let start = Instant::now();
        let mut notices = Notices::default();
        let passed = (0..10).filter(|_| notices.admit("a", "machine", 3, start).is_some()).count();
        assert_eq!(passed, 3);
        notices.retain(|name| name != "a");
        assert_eq!(notices.admit("a", "machine", 3, start), Some(0), "nothing is known of what was gone");
    }

    #[test]
    fn only_who_never_waits_has_to_rest() {
        let mut now = Instant::now();
        let mut breath = Breath::new(now);
        for _ in 0..1000 {
            assert_eq!(breath.after_wait(now, now + MS), None);
            now += MS * 2;
        }
        let mut rests = 0;
        for _ in 0..100 {
            rests += u32::from(breath.after_wait(now, now).is_some());
            now += MS;
        }
        assert!((16..=20).contains(&rests), "{rests}");
    }

    #[test]
    fn a_stop_is_told_from_a_delay() {
        let last = Instant::now();
        assert_eq!(stalled(last, last + MS * 50, last + MS * 50), None);
        assert_eq!(stalled(last, last + MS * 50, last + MS * 150), None);
        assert_eq!(stalled(last, last + MS * 50, last + MS * 151), Some(MS * 101));
        assert_eq!(stalled(last, last + MS * 500, last + MS * 3), None, "woken by a packet");
        assert_eq!(
            stalled(last, last - MS * 500, last + MS),
            None,
            "the lateness of the turn before does not count again"
        );
    }
}
