//! What a configuration means: at the start, and when it becomes another one.

use std::collections::{BTreeMap, BTreeSet};

use super::{Engine, Instance};
use crate::{
    config::vrrp::{TrackKey, Vrrp as Config},
    vrrp::{
        Report,
        driver::{
            Wanted,
            holdings::{self, Named, Thing},
            network::Network,
        },
        fsm::{Event, Settings},
    },
};

/// How many of the things that a dead run has left are named.
const NAMED: usize = 5;

/// What the machines need to know.
pub fn of_machine(config: &Config) -> Settings {
    Settings { instances: config.instances.clone(), groups: config.sync_groups.clone() }
}

/// The instances' names, in their order.
pub fn names(config: &Config) -> Vec<String> {
    config.instances.iter().map(|instance| instance.name.clone()).collect()
}

/// Everything that some instance or group tracks.
pub fn keys(config: &Config) -> BTreeSet<TrackKey> {
    let of_instances = config.instances.iter().flat_map(|instance| &instance.tracks);
    let of_groups = config.sync_groups.iter().flat_map(|group| &group.tracks);
    of_instances.chain(of_groups).map(|track| track.key.clone()).collect()
}

/// Everything that the configuration may bring to this machine.
fn everything(config: &Config) -> Named {
    let mut all = Named::default();
    for instance in &config.instances {
        all.extend(Named::of(instance));
    }
    all
}

/// Unless it is there: what lingers of the configuration is no reason to write the file again, in a failover.
fn add<T: PartialEq>(all: &mut Vec<T>, one: T) {
    if !all.contains(&one) {
        all.push(one);
    }
}

impl<N: Network> Engine<N> {
    /// Other settings: what the old ones still ask for first.
    pub(super) fn set(&mut self, wanted: Wanted) {
        let now = self.network.now();
        let Wanted { config, roles } = wanted;
        self.names = names(&config);
        let commands = self.machine.reconfigure(of_machine(&config), now);
        self.is_reloading = true;
        self.execute(commands, now);
        if self.is_seized {
            // While positions are the old ones; the machines hear of it when they are the new ones.
            self.release_all();
        }

        let old_config = std::mem::replace(&mut self.config, config);
        let held = self.replace_instances(&roles);
        self.keys = keys(&self.config);
        let interfaces: BTreeSet<&String> = self.config.instances.iter().map(|i| &i.interface).collect();
        let is_wanted = |key: &TrackKey| match key {
            TrackKey::Interface(name) => self.keys.contains(key) || interfaces.contains(name),
            _ => self.keys.contains(key),
        };
        self.tracked.retain(|key, _| is_wanted(key));
        let is_subject = |name: &str| {
            !old_config.instances.iter().any(|instance| instance.name == name)
                || self.names.iter().any(|other| other == name)
        };
        self.notices.retain(is_subject);
        self.remove_old_macvlans();
        self.let_go(&held);
        self.remember();
        self.apply_roles();
        self.exchange(held);
        self.remember();
        self.keep_stamps();
        self.is_reloading = false;
        if self.is_seized {
            self.seized();
        }
        // Machines that are new know nothing yet; to others this is no news.
        for tracked in self.tracked.values().cloned().collect::<Vec<_>>() {
            let crate::vrrp::Tracked { key, value, detail } = tracked;
            self.feed(Event::Tracked { key, value, detail }, now);
        }
        self.tell();
        self.look_after_guard();
        self.look();
    }

    /// The new instances take over from the old ones of their name. What those that go on as masters hold.
    fn replace_instances(&mut self, roles: &BTreeMap<String, u16>) -> BTreeMap<String, Vec<Thing>> {
        // Positions are others from here on; masters announce again, below.
        self.bursts.clear();
        let mut old: BTreeMap<String, Instance> = BTreeMap::new();
        for instance in std::mem::take(&mut self.instances) {
            if instance.role != 0 {
                self.roles.set(
                    instance.role,
                    instance.is_held && roles.get(&instance.config.name) == Some(&instance.role),
                );
            }
            old.insert(instance.config.name.clone(), instance);
        }
        let mut held = BTreeMap::new();
        for config in &self.config.instances {
            let mut instance = Instance::new(config, roles);
            if let Some(old) = old.remove(&config.name) {
                if old.is_held {
                    held.insert(config.name.clone(), old.things.clone());
                }
                instance.continue_from(old);
            }
            self.instances.push(instance);
        }
        // The machine has released them, unless it forgot.
        for instance in old.into_values().filter(|instance| instance.is_held) {
            self.remove(&instance.things);
        }
        held
    }

    /// What masters hold and are to lose is known until it is removed: to the next run, and to the guard.
    fn let_go(&mut self, held: &BTreeMap<String, Vec<Thing>>) {
        let Self { instances, links, lingering, .. } = self;
        for instance in instances {
            let Some(before) = held.get(&instance.config.name) else { continue };
            for thing in holdings::without(before, &instance.named.resolve(links)) {
                if !lingering.contains(&thing) {
                    lingering.push(thing.clone());
                }
                instance.going.push(thing);
            }
        }
    }

    /// Masters whose addresses, routes or rules have changed get the new ones and lose the old ones.
    fn exchange(&mut self, held: BTreeMap<String, Vec<Thing>>) {
        self.make_macvlans();
        if let Err(error) = self.read_links() {
            self.notice("driver", "links", true, format!("interfaces cannot be read: {error}"));
            self.try_again();
        }
        self.resolve();
        self.settle_sockets();
        self.make_plan();
        let now = self.network.now();
        for (name, before) in held {
            let Some(id) = self.names.iter().position(|other| *other == name) else { continue };
            let things = self.instances[id].things.clone();
            let old = holdings::without(&before, &things);
            // What cannot be removed lingers again.
            self.lingering.retain(|thing| !before.contains(thing));
            self.remove(&old);
            if self.has_lost_all() {
                continue;
            }
            let added = self.add(&name, &holdings::without(&things, &before));
            let targets = holdings::targets(&added, &self.links);
            let garp = self.instances[id].config.garp;
            self.bursts.begin(id, targets, garp.repeat, garp.interval, now);
        }
    }

    /// The data plane serves whom it should.
    pub(super) fn apply_roles(&self) {
        for instance in self.instances.iter().filter(|instance| instance.role != 0) {
            self.roles.set(instance.role, instance.is_held);
        }
    }

    /// Writes down what may be on this machine from now on.
    pub(super) fn remember(&mut self) {
        let mut all = everything(&self.config);
        for thing in &self.lingering {
            match thing.clone() {
                Thing::Address(index, address) => {
                    if let Some(interface) = self.links.with_index(index) {
                        add(&mut all.addresses, (interface.name.clone(), address));
                    }
                }
                Thing::Route(_, route) => add(&mut all.routes, route),
                Thing::Rule(rule) => add(&mut all.rules, rule),
            }
        }
        if let Err(text) = self.state.store(&all) {
            self.notice(
                "driver",
                "state",
                true,
                format!("what this run may leave is not remembered: {text}"),
            );
        }
    }

    /// Stamps go on from where an earlier run may have come to, wherever the clock is now.
    pub(super) fn begin_stamps(&mut self) {
        match self.mark.load() {
            Ok(mark) => self.stamps.begin_after(mark),
            Err(text) => {
                let text = format!("how far the stamps of an earlier run have gone is not known: {text}");
                self.notice("driver", "stamp", true, text);
            }
        }
        self.keep_stamps();
    }

    /// Writes down how far they have gone, if anybody has a key to judge them by. To be called every few seconds.
    pub(super) fn keep_stamps(&mut self) {
        let is_sealed = |instance: &Instance| {
            matches!(instance.config.authentication, crate::config::vrrp::Authentication::Hmac(_))
        };
        if !self.instances.iter().any(is_sealed) {
            return;
        }
        if let Err(error) = self.mark.keep(self.stamps.reached().max(self.network.wall())) {
            let text = format!("how far stamps have gone is not remembered: {error}");
            self.notice("driver", "stamp", true, text);
        }
    }

    /// Removes what an earlier run has left: what it has written down, and what is configured now. Not the addresses of an
    /// owner, who is master as soon as it starts, and has them for its own.
    pub(super) fn remove_leftovers(&mut self) {
        let mut all = self.state.load().unwrap_or_else(|text| {
            self.notice(
                "driver",
                "state",
                true,
                format!("what an earlier run may have left is not known: {text}"),
            );
            Named::default()
        });
        let mut own = Named::default();
        for instance in &self.config.instances {
            let named = Named::of(instance);
            if instance.priority == 255 {
                own.extend(named);
            } else {
                all.extend(named);
            }
        }
        let own = own.resolve(&self.links);
        let is_own = |thing: &Thing| {
            let others = holdings::with_other_prefixes(std::slice::from_ref(thing), &self.links);
            own.contains(thing) || others.iter().any(|other| own.contains(other))
        };
        let mut things = Vec::new();
        for thing in all.resolve(&self.links) {
            let is_there = match &thing {
                Thing::Address(index, address) => self.links.has(*index, address),
                Thing::Route(..) | Thing::Rule(_) => true,
            };
            if is_there && !is_own(&thing) && !things.contains(&thing) {
                things.push(thing);
            }
        }
        let removed = self.remove(&things);
        let wanted: BTreeSet<&str> = holdings::macvlans(&self.config.instances).into_keys().collect();
        let others: Vec<String> =
            all.macvlans.into_iter().filter(|name| !wanted.contains(name.as_str())).collect();
        for name in others {
            self.remove_macvlan(&name);
        }
        if !removed.is_empty() {
            let mut text = "removed what an earlier run has left: ".to_owned();
            let shown: Vec<String> = removed.iter().take(NAMED).map(ToString::to_string).collect();
            text.push_str(&shown.join(", "));
            if removed.len() > NAMED {
                text.push_str(&format!(" and {} more", removed.len() - NAMED));
            }
            self.say(Report::Notice { subject: "driver".to_owned(), is_bad: false, text });
        }
    }

    fn remove_old_macvlans(&mut self) {
        let wanted: BTreeSet<String> =
            holdings::macvlans(&self.config.instances).into_keys().map(str::to_owned).collect();
        let old: Vec<String> = self.macvlans.keys().filter(|name| !wanted.contains(*name)).cloned().collect();
        for name in old {
            self.macvlans.remove(&name);
            self.remove_macvlan(&name);
        }
    }
}
