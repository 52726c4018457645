//! What the guard is told, ahead of time.

use std::{io, time::Duration};

use super::Engine;
use crate::vrrp::{
    driver::{
        holdings::{self, Thing},
        network::Network,
        stamp::LEAD,
    },
    guard::{InstancePlan, Plan, TAKING},
    packet::Stamp,
};

/// How long an old guard is waited for when none is wanted any more.
const DISMISSAL: Duration = Duration::from_millis(100);

/// Between two looks for an answer that is late.
const HEARING: Duration = Duration::from_millis(10);

// Until the guard has new last words, or is killed, the old ones are newer than any advert.
const _: () = assert!(LEAD.as_millis() / 2 + TAKING.as_millis() < LEAD.as_millis());

impl<N: Network> Engine<N> {
    /// Hands the guard what it has to do, if that has changed, and who is master.
    pub(super) fn make_plan(&mut self) {
        self.timers.plan = None;
        if !self.config.settings.guard {
            return;
        }
        let now = self.network.now();
        // Without stamps and packet ids, which are others each time.
        let shape = self.plan_with(None);
        let mut told = self.told.filter(|_| self.roles_are_known && self.plan.as_ref() == Some(&shape));
        // Stamps grow old: there is a new plan before others could be newer.
        if self.instances.iter().any(|instance| instance.is_held && instance.is_stamped()) {
            told = told.filter(|told| now < *told + LEAD / 2);
            self.timers.plan = Some(told.unwrap_or(now) + LEAD / 2);
        }
        if told.is_some() {
            return;
        }
        // Adverts do not wait for it: it may be starved or stopped.
        if self.timers.answer.is_some() {
            self.has_news = true;
            self.timers.plan = None;
            return;
        }
        let stamp = self.stamps.ahead(self.network.wall());
        let plan = self.plan_with(Some(stamp));
        let map = if self.roles_are_known { None } else { self.roles.map() };
        if let Err(error) = self.network.plan(&plan, map.as_ref()) {
            self.guard_failed(&error);
            return;
        }
        self.roles_are_known = true;
        self.plan = Some(shape);
        self.told = Some(now);
        self.timers.answer = Some(now + TAKING);
        // It may be another guard than before.
        for instance in &self.instances {
            self.network.mark(&instance.config.name, instance.is_held);
        }
        self.hear_guard();
    }

    /// Whether the guard has its plan by now; tells it what has changed meanwhile.
    pub(super) fn hear_guard(&mut self) {
        let Some(due) = self.timers.answer else { return };
        match self.network.has_plan() {
            Ok(false) => {
                // Its own clock has read a little less.
                let soon = self.network.now() + HEARING;
                self.timers.answer = Some(due.max(soon));
            }
            Ok(true) => {
                self.timers.answer = None;
                if std::mem::take(&mut self.has_news) {
                    self.make_plan();
                }
            }
            // It is looked after every second, and gets the news then.
            Err(error) => self.guard_failed(&error),
        }
    }

    fn guard_failed(&mut self, error: &io::Error) {
        self.plan = None;
        self.timers.answer = None;
        self.has_news = false;
        self.notice("guard", "guard", true, format!("the guard cannot be told what to do: {error}"));
    }

    /// What the guard would have to do now; without a stamp only to be compared with another one.
    fn plan_with(&mut self, stamp: Option<Stamp>) -> Plan {
        let Self { instances, links, lingering, .. } = self;
        let mut plans = Vec::new();
        for instance in instances.iter_mut() {
            let mut plan = InstancePlan {
                name: instance.config.name.clone(),
                interface: instance.place.adverts.unwrap_or(0),
                source: instance.place.source,
                last_words: instance.last_words(stamp),
                addresses: Vec::new(),
                routes: Vec::new(),
                rules: Vec::new(),
                role: instance.role,
            };
            instance.going.retain(|thing| lingering.contains(thing));
            let others = holdings::with_other_prefixes(&instance.things, links);
            for thing in instance.things.iter().chain(&others).chain(&instance.going) {
                match thing.clone() {
                    Thing::Address(index, address) => plan.addresses.push((index, address)),
                    Thing::Route(_, route) => plan.routes.push(route),
                    Thing::Rule(rule) => plan.rules.push(rule),
                }
            }
            plans.push(plan);
        }
        let settings = &self.config.settings;
        Plan {
            watchdog_ms: u64::try_from(settings.watchdog.as_millis()).unwrap_or(u64::MAX),
            realtime_priority: settings.realtime_priority,
            lock_memory: settings.lock_memory,
            instances: plans,
        }
    }

    /// Starts the guard if it is wanted and does not run; ends it if it is not wanted.
    pub(super) fn look_after_guard(&mut self) {
        let is_wanted = self.config.settings.guard;
        match (is_wanted, self.network.is_guarded()) {
            (true, Some(true)) => {
                // What could not be told is told now.
                if self.plan.is_none() {
                    self.make_plan();
                }
            }
            (true, was) => {
                if was == Some(false) {
                    let how = self.network.guard_ending().unwrap_or_default();
                    let text = format!("the guard has ended ({how}); another one is started");
                    self.notice("guard", "guard-ended", true, text);
                }
                self.start_guard();
            }
            (false, Some(_)) => {
                if let Err(error) = self.network.want_guard(false, DISMISSAL) {
                    self.notice("guard", "guard", true, format!("the guard does not end: {error}"));
                }
                self.plan = None;
                self.timers.answer = None;
            }
            (false, None) => {}
        }
    }

    fn start_guard(&mut self) {
        self.plan = None;
        self.timers.answer = None;
        self.has_news = false;
        self.roles_are_known = false;
        match self.network.want_guard(true, DISMISSAL) {
            Ok(()) => self.make_plan(),
            Err(error) => {
                self.notice("guard", "guard", true, format!("the guard cannot be started: {error}"));
            }
        }
    }
}
