//! What an advert means: RFC 3768 and RFC 9568 6.4.2 and 6.4.3, and the checks of 7.1 that need an instance's state.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Farewell, Instance, Leader, Yield, sorted};
use crate::{
    config::vrrp::Version,
    vrrp::{
        State,
        fsm::{Command, Discard, timers, timers::Down, tracking::OWNER},
        packet::Advert,
    },
};

/// The intervals that a version 3 advert can have (RFC 9568 5.2.7), in milliseconds.
const INTERVALS_MS: std::ops::RangeInclusive<u32> = 10..=40_950;

impl Instance {
    /// An advert that is right in itself.
    pub(in crate::vrrp::fsm) fn hear(
        &mut self,
        source: IpAddr,
        advert: &Advert,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        if let Some(reason) = self.objection(source, advert) {
            out.push(Command::Discarded { instance: self.id, reason });
        } else if self.state == State::Backup {
            self.hear_as_backup(source, advert, now, out);
        } else {
            self.hear_as_master(source, advert, now, out);
        }
    }

    /// Why an advert is none of its business.
    fn objection(&self, source: IpAddr, advert: &Advert) -> Option<Discard> {
        let settings = &self.settings;
        if !matches!(self.state, State::Backup | State::Master) {
            return Some(Discard::NotListening);
        }
        if self.address() == Some(source) {
            return Some(Discard::OwnAddress);
        }
        if settings.version == Version::V2
            && Duration::from_millis(advert.interval_ms.into()) != settings.advert_interval
        {
            return Some(Discard::Interval);
        }
        let is_leader = self.leader.is_some_and(|leader| leader.address == source);
        let is_known = self.state == State::Backup && settings.skip_check_adv_addr && is_leader;
        (!is_known && !self.has_addresses(&advert.addresses)).then_some(Discard::AddressList)
    }

    /// Whether a list is ours, in any order.
    fn has_addresses(&self, list: &[IpAddr]) -> bool {
        list == self.advertised || sorted(list.to_vec()) == self.advertised
    }

    fn hear_as_backup(&mut self, source: IpAddr, advert: &Advert, now: Instant, out: &mut Vec<Command>) {
        let priority = advert.priority;
        let is_better = priority >= self.standing.effective;
        if priority == 0 {
            // From another router than the one that is followed it counts all the same: that one answers it at once.
            self.pulse = self.pulse.filter(|_| self.leader.is_none_or(|leader| leader.address != source));
            self.hurry(source, now);
        } else if is_better || !self.does_preempt() || self.is_patient(now) {
            if is_better {
                self.patience = None;
            }
            self.follow(source, advert, now);
            self.down = Some(Down { since: now, given_up: None });
            (self.wish, self.lower) = (None, None);
        } else {
            self.lower = Some(Leader { address: source, priority });
            out.push(Command::Discarded { instance: self.id, reason: Discard::LowerPriority });
        }
    }

    /// `Preempt_Mode`. After a handover it is off.
    fn does_preempt(&self) -> bool {
        !self.settings.nopreempt && !self.is_handed_over
    }

    /// Whether a master of lower priority is left alone (`preempt_delay`). The time begins with the first one that is heard,
    /// if it has not begun at the start.
    fn is_patient(&mut self, now: Instant) -> bool {
        if self.patience.is_none() {
            self.patience = timers::after(self.settings.preempt_delay, now);
        }
        self.patience.is_some_and(|end| now < end)
    }

    /// Takes a router for the master, and in version 3 its interval for that of adverts.
    fn follow(&mut self, source: IpAddr, advert: &Advert, now: Instant) {
        let is_same = self.leader.is_some_and(|leader| leader.address == source);
        self.leader = Some(Leader { address: source, priority: advert.priority });
        self.pulse = self.pulse.filter(|_| is_same);
        if let Some(pulse) = &mut self.pulse {
            // An advert is as good a sign of life as a heartbeat.
            pulse.felt = now;
        }
        if self.settings.version == Version::V3 {
            let interval = advert.interval_ms.clamp(*INTERVALS_MS.start(), *INTERVALS_MS.end());
            self.interval = Duration::from_millis(interval.into());
        }
    }

    fn hear_as_master(&mut self, source: IpAddr, advert: &Advert, now: Instant, out: &mut Vec<Command>) {
        let (priority, own) = (advert.priority, self.standing.effective);
        let has_higher_address = self.address().is_some_and(|address| source > address);
        if (priority, own) == (OWNER, OWNER) && self.rival.replace(source) != Some(source) {
            let text = format!("{source} says that it is the owner of the addresses (priority 255) too");
            out.push(Command::Notice { instance: self.id, text });
        }
        if priority == 0 {
            self.advertise(now, out);
        } else if priority > own || (priority == own && has_higher_address) {
            let why = match priority == own {
                true => format!("{source} has the same priority {priority} and the higher address"),
                false => format!("{source} has priority {priority}, which is higher than our {own}"),
            };
            self.follow(source, advert, now);
            // After a partition the better one does not know that there were two, and that the network must learn again where the
            // addresses are. Our advert tells it, and it answers (RFC 9568 6.4.3).
            if !self.has_slept {
                out.push(Command::Advertise { instance: self.id, priority: own });
            }
            self.yields = Some(Yield { why, farewell: Farewell::Quiet });
        } else if self.has_slept {
            let why = format!("{source} has become master while we slept");
            self.follow(source, advert, now);
            self.yields = Some(Yield { why, farewell: Farewell::Quiet });
        } else {
            let reason = if priority == OWNER { Discard::OwnAddress } else { Discard::LowerPriority };
            out.push(Command::Discarded { instance: self.id, reason });
            self.answer_lower(now, out);
        }
    }
}
