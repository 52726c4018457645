//! Stamps of sealed adverts and sequence numbers of heartbeats: from the wall clock, but never going back with it, nor from one
//! run to the next.

use std::time::Duration;

use crate::vrrp::packet::{Stamp, Stamper};

/// By how much the last words that the guard keeps are ahead of the clock: they are to be newer than every advert that is sent
/// until the guard is handed new ones. A new run begins that much ahead, too, or what it says after a crash would be older than
/// the last words of the run before.
pub const LEAD: Duration = Duration::from_secs(2);

/// Gives stamps and numbers, each later than the one before.
#[derive(Debug, Clone)]
pub struct Stamps {
    stamper: Stamper,
    /// The latest clock that was seen, or where it began.
    clock: Duration,
    sequence: u64,
}

impl Stamps {
    /// `wall`: time since 1970.
    pub fn new(wall: Duration) -> Self {
        Self { stamper: Stamper::default(), clock: wall + LEAD, sequence: 0 }
    }

    /// An earlier run may have gone so far: what follows is later.
    pub fn begin_after(&mut self, mark: Duration) {
        self.clock = self.clock.max(mark + LEAD);
    }

    /// How far they have gone: none is later than this, but for what was stamped ahead.
    pub fn reached(&self) -> Duration {
        self.clock
    }

    /// The stamp of a message that is sent now.
    pub fn next(&mut self, wall: Duration) -> Stamp {
        self.clock = self.clock.max(wall);
        self.stamper.next(self.clock)
    }

    /// A stamp [`LEAD`] ahead, for what others may send later. It does not count as given until [`Self::said_ahead`].
    pub fn ahead(&mut self, wall: Duration) -> Stamp {
        self.clock = self.clock.max(wall);
        self.stamper.clone().next(self.clock + LEAD)
    }

    /// What was stamped ahead may have been sent: what follows is later.
    pub fn said_ahead(&mut self) {
        self.clock += LEAD;
        self.stamper.next(self.clock);
    }

    /// Number of the next heartbeat: microseconds since 1970, or one more than the last.
    pub fn sequence(&mut self, wall: Duration) -> u64 {
        self.clock = self.clock.max(wall);
        let now = u64::try_from(self.clock.as_micros()).unwrap_or(u64::MAX);
        self.sequence = now.max(self.sequence.saturating_add(1));
        self.sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_newer_than_what_is_sent_meanwhile_and_what_follows_them_is_newer_still() {
        let start = Duration::from_secs(1_750_000_000);
        for age in [0, 1, 100] {
            let now = start + Duration::from_secs(age);
            let mut stamps = Stamps::new(start);
            let words = stamps.ahead(now);
            // Even when the clock goes back meanwhile.
            for wall in [now, now + Duration::from_millis(1900), now - Duration::from_secs(3600)] {
                assert!(words > stamps.next(wall));
            }
            stamps.said_ahead();
            assert!(stamps.next(now - Duration::from_secs(3600)) > words);
        }
    }

    #[test]
    fn a_new_run_is_newer_than_the_last_words_of_the_one_before() {
        let start = Duration::from_secs(1_750_000_000);
        let crash = start + Duration::from_secs(100);
        let words = Stamps::new(start).ahead(crash);
        assert!(Stamps::new(crash + Duration::from_millis(100)).next(crash) > words);
    }

    #[test]
    fn a_new_run_whose_clock_was_set_back_goes_on_from_the_mark() {
        let start = Duration::from_secs(1_750_000_000);
        let mut stamps = Stamps::new(start);
        let (last, number) = (stamps.next(start), stamps.sequence(start));
        let (words, mark) = (stamps.ahead(start), stamps.reached());
        let earlier = start - Duration::from_secs(3600);
        let mut next = Stamps::new(earlier);
        assert!(next.clone().next(earlier) < last, "without the mark it would begin here");
        next.begin_after(mark);
        assert!(next.next(earlier) > last && next.next(earlier) > words);
        assert!(next.sequence(earlier) > number);
        // A mark of the past changes nothing.
        let before = next.reached();
        next.begin_after(earlier);
        assert_eq!(next.reached(), before);
    }

    #[test]
    fn sequences_never_repeat() {
        let mut stamps = Stamps::new(Duration::ZERO);
        let first = stamps.sequence(Duration::from_secs(10));
        assert_eq!(first, 10_000_000);
        assert_eq!(stamps.sequence(Duration::from_secs(9)), first + 1);
        assert_eq!(stamps.sequence(Duration::from_secs(11)), 11_000_000);
    }
}
