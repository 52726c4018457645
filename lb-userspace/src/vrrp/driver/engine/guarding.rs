//! What the guard is told, ahead of time.

use std::time::Duration;

use super::Engine;
use crate::vrrp::{
    driver::{
        holdings::{self, Thing},
        network::Network,
        stamp::LEAD,
    },
    guard::{InstancePlan, Plan},
    packet::Stamp,
};

/// How long an old guard is waited for when none is wanted any more.
const DISMISSAL: Duration = Duration::from_millis(100);

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
        let stamp = self.stamps.ahead(self.network.wall());
        let plan = self.plan_with(Some(stamp));
        let map = if self.roles_are_known { None } else { self.roles.map() };
        if let Err(error) = self.network.plan(&plan, map.as_ref()) {
            self.plan = None;
            self.notice("guard", "guard", true, format!("the guard cannot be told what to do: {error}"));
            return;
        }
        self.roles_are_known = true;
        self.plan = Some(shape);
        self.told = Some(now);
        // Positions may be others than in the plan before.
        for (id, instance) in self.instances.iter().enumerate() {
            self.network.mark(id, instance.is_held);
        }
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
            }
            (false, None) => {}
        }
    }

    fn start_guard(&mut self) {
        self.plan = None;
        self.roles_are_known = false;
        match self.network.want_guard(true, DISMISSAL) {
            Ok(()) => self.make_plan(),
            Err(error) => {
                self.notice("guard", "guard", true, format!("the guard cannot be started: {error}"));
            }
        }
    }
}
