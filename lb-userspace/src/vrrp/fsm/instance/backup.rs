//! BACKUP (RFC 3768 6.4.2, RFC 9568 6.4.2): the wait for the master to be down.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Instance, Leader, Pulse};
use crate::vrrp::{
    State,
    fsm::timers::{self, Down},
};

impl Instance {
    /// A wait for masters that have not been heard yet.
    pub(super) fn wait_afresh(&mut self, now: Instant) {
        self.interval = self.settings.advert_interval;
        self.down = Some(Down { since: now, given_up: None });
    }

    /// A heartbeat of fast detection.
    pub(in crate::vrrp::fsm) fn feel(&mut self, source: IpAddr, lasts: Duration, now: Instant) {
        let is_leader = self.leader.is_some_and(|leader| leader.address == source);
        if self.state == State::Backup && is_leader && self.settings.fast_detection.is_some() {
            self.pulse = (!lasts.is_zero()).then_some(Pulse { felt: now, lasts });
        }
    }

    /// When it takes over unless something is heard: the wait for adverts or that for heartbeats, whichever ends first.
    pub(super) fn takeover(&self) -> Option<Instant> {
        let (adverts, heartbeats) = (self.down.map(|down| self.down_at(down)), self.pulse_ends());
        // Without a wait there is nothing to wait for: it wishes to be master, and its group does not let it.
        adverts.map(|adverts| heartbeats.map_or(adverts, |heartbeats| adverts.min(heartbeats)))
    }

    /// The end of a wait. It follows the priority, which may have changed since it began.
    fn down_at(&self, down: Down) -> Instant {
        let (version, priority) = (self.settings.version, self.standing.effective);
        down.since
            + match down.given_up {
                // Another router's farewell is answered by the master, who needs time for that.
                Some(who)
                    if self.settings.quick_release
                        && self.leader.is_none_or(|leader| leader.address == who) =>
                {
                    timers::short_skew(version, priority, self.interval)
                }
                Some(_) => timers::skew(version, priority, self.interval),
                None => timers::master_down(version, priority, self.interval),
            }
    }

    fn pulse_ends(&self) -> Option<Instant> {
        self.pulse.map(|pulse| pulse.felt + timers::heartbeat_down(self.standing.effective, pulse.lasts))
    }

    /// A router has given up: only the skew remains of the wait, if not less already.
    pub(super) fn hurry(&mut self, source: IpAddr, now: Instant) {
        let short = Down { since: now, given_up: Some(source) };
        self.down =
            self.down.map(|down| if self.down_at(down) <= self.down_at(short) { down } else { short });
    }

    /// It does not preempt any more: a master of lower priority that it was about to preempt is its master from now on.
    pub(super) fn let_preempted_live(&mut self, now: Instant) {
        if self.state == State::Backup
            && let Some(lower) = self.lower.take()
        {
            self.leader = Some(lower);
            self.wait_afresh(now);
            (self.wish, self.pulse) = (None, None);
        }
    }

    /// The wait is over.
    pub(super) fn miss_master(&mut self, now: Instant) {
        if let Some(down) = self.down
            && self.takeover().is_some_and(|due| due <= now)
        {
            self.wish = Some(self.why_now(down, now));
            (self.down, self.pulse) = (None, None);
        }
    }

    fn why_now(&self, down: Down, now: Instant) -> String {
        let silent = now.saturating_duration_since(down.since);
        let own = self.standing.effective;
        match (self.leader, self.lower, down.given_up) {
            (Some(leader), ..) if self.pulse_ends().is_some_and(|end| end < self.down_at(down)) => {
                format!("master down: the heartbeats of {} are missing", leader.address)
            }
            (_, _, Some(address)) => format!("{address} has given up"),
            (_, Some(Leader { address, priority }), None) => {
                format!("preempts {address}, whose priority {priority} is lower than our {own}")
            }
            (Some(leader), None, None) => {
                format!("master down: nothing heard from {} for {silent:.1?}", leader.address)
            }
            (None, None, None) => format!("nothing heard from a master for {silent:.1?}"),
        }
    }
}
