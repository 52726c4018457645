//! MASTER (RFC 3768 6.4.3, RFC 9568 6.4.3): adverts, heartbeats, gratuitous ARP.

use std::time::Instant;

use super::{Farewell, Instance};
use crate::vrrp::{
    State,
    fsm::{Command, timers},
};

impl Instance {
    /// Has the addresses from now on. The advert goes before them: it is what other routers wait for.
    pub(in crate::vrrp::fsm) fn become_master(&mut self, why: String, now: Instant, out: &mut Vec<Command>) {
        self.advertise(now, out);
        self.beat(now, out);
        out.push(Command::Acquire { instance: self.id });
        let garp = self.settings.garp;
        self.announce(garp.repeat, out);
        self.timers.burst = timers::after(garp.delay, now);
        self.timers.lower_burst = None;
        self.timers.refresh = timers::after(garp.refresh, now);
        (self.wish, self.yields, self.down, self.pulse) = (None, None, None, None);
        (self.lower, self.patience, self.answered, self.rival) = (None, None, None, None);
        self.interval = self.settings.advert_interval;
        self.is_settled = false;
        self.became_master += 1;
        self.enter(State::Master, why, now, out);
    }

    /// Sends an advert now; the next one follows after an interval.
    pub(in crate::vrrp::fsm) fn advertise(&mut self, now: Instant, out: &mut Vec<Command>) {
        out.push(Command::Advertise { instance: self.id, priority: self.standing.effective });
        self.timers.advert = Some(timers::again(now, self.settings.advert_interval, now));
    }

    fn beat(&mut self, now: Instant, out: &mut Vec<Command>) {
        self.timers.heartbeat = self.settings.fast_detection.map(|detection| {
            out.push(Command::Heartbeat { instance: self.id, last: false });
            timers::again(now, detection.interval, now)
        });
    }

    fn announce(&self, repeat: u32, out: &mut Vec<Command>) {
        if repeat > 0 {
            out.push(Command::Announce { instance: self.id, repeat });
        }
    }

    /// Does what is due.
    pub(super) fn work(&mut self, now: Instant, out: &mut Vec<Command>) {
        let garp = self.settings.garp;
        if let Some(due) = timers::take_due(&mut self.timers.advert, now) {
            self.is_settled = true;
            self.advertise(now, out);
            // In step, however late this call is.
            self.timers.advert = Some(timers::again(due, self.settings.advert_interval, now));
        }
        if let Some(due) = timers::take_due(&mut self.timers.heartbeat, now) {
            self.beat(now, out);
            let interval = self.settings.fast_detection.map(|detection| detection.interval);
            self.timers.heartbeat = interval.map(|interval| timers::again(due, interval, now));
        }
        if timers::take_due(&mut self.timers.burst, now).is_some() {
            self.announce(garp.repeat, out);
        }
        if timers::take_due(&mut self.timers.lower_burst, now).is_some() {
            self.announce(garp.lower_prio_repeat, out);
        }
        if let Some(due) = timers::take_due(&mut self.timers.refresh, now) {
            self.announce(garp.refresh_repeat, out);
            self.timers.refresh = (!garp.refresh.is_zero()).then(|| timers::again(due, garp.refresh, now));
        }
    }

    /// Answers a master of lower priority, so that it steps back and everybody learns again where the addresses are (RFC 9568
    /// 6.4.3, keepalived's `garp_lower_prio_repeat`). The gratuitous ARPs are for once in an interval only: who sends us adverts
    /// at full rate is no reason to send five times as many packets.
    pub(super) fn answer_lower(&mut self, now: Instant, out: &mut Vec<Command>) {
        self.advertise(now, out);
        let garp = self.settings.garp;
        let interval = self.settings.advert_interval;
        if self.answered.is_none_or(|last| now.saturating_duration_since(last) >= interval) {
            self.answered = Some(now);
            self.announce(garp.lower_prio_repeat, out);
            if garp.lower_prio_repeat > 0 {
                self.timers.lower_burst = timers::after(garp.lower_prio_delay, now);
            }
        }
    }

    /// It goes on without fast detection: whoever follows its heartbeats is told.
    pub(in crate::vrrp::fsm) fn end_heartbeats(&mut self, out: &mut Vec<Command>) {
        if self.timers.heartbeat.take().is_some() {
            out.push(Command::Heartbeat { instance: self.id, last: true });
        }
    }

    /// Is no master any more.
    pub(super) fn step_back(&mut self, farewell: Farewell, out: &mut Vec<Command>) {
        if farewell != Farewell::Nothing && self.settings.fast_detection.is_some() {
            out.push(Command::Heartbeat { instance: self.id, last: true });
        }
        if farewell == Farewell::Zero {
            out.push(Command::Advertise { instance: self.id, priority: 0 });
        }
        out.push(Command::Release { instance: self.id });
        self.timers = timers::Timers::default();
        self.released_master += 1;
    }
}
