//! What comes in: messages, changes of links and addresses, orders.

use std::time::Instant;

use super::{Engine, FOREIGN, Order, RESTORE, RETRY};
use crate::{
    config::vrrp::{Checksum, TrackKey},
    netif::Change,
    vrrp::{
        State, Tracked,
        driver::{
            heartbeat,
            holdings::{self, Thing},
            network::{Arrival, Kind, Network},
        },
        fsm::{Event, InstanceId},
        packet::{Endpoints, peek_vrid},
    },
};

impl<N: Network> Engine<N> {
    pub(super) fn order(&mut self, order: Order, now: Instant) {
        // Who has asked and no longer waits needs no answer.
        match order {
            Order::Set(wanted) => self.set(wanted),
            Order::SetRoles(roles) => {
                self.roles = roles;
                self.roles_are_known = false;
                self.apply_roles();
                self.make_plan();
            }
            Order::Tracked(tracked) => self.track(tracked, now),
            Order::Handover(name, answer) => drop(answer.send(self.handover(&name, now))),
            Order::Resume(name, answer) => drop(answer.send(self.resume(&name, now))),
            Order::Status(answer) => drop(answer.send(self.status())),
            // The thread's business.
            Order::Stop(_) => {}
        }
    }

    pub(super) fn arrived(&mut self, arrival: Arrival, cause: Instant) {
        match arrival.channel.kind {
            Kind::Adverts => self.advert(&arrival, cause),
            Kind::Heartbeats => self.heartbeat(&arrival, cause),
        }
    }

    fn advert(&mut self, arrival: &Arrival, cause: Instant) {
        let Arrival { channel, source, destination, ttl, ref message } = *arrival;
        let vrid = peek_vrid(message);
        let id = vrid.and_then(|vrid| self.by_vrid.get(&(channel.interface, channel.family, vrid)).copied());
        let Some(id) = id else {
            self.unknown_vrid += 1;
            return;
        };
        let instance = &mut self.instances[id];
        match instance.read(message, ttl, Endpoints { source, destination }) {
            Ok(received) => {
                let counts = &mut instance.counts;
                counts.received += 1;
                counts.received_zero += u64::from(received.advert.priority == 0);
                match received.checksum {
                    Some(Checksum::PseudoHeader) => counts.checksums.0 += 1,
                    Some(Checksum::Rfc9568) => counts.checksums.1 += 1,
                    None => {}
                }
                self.feed(Event::Advert { instance: id, source, advert: received.advert }, cause);
            }
            Err(reason) => {
                let text = format!("an advert from {source} was discarded: {}", reason.as_str());
                self.discard(id, reason.as_str(), text);
            }
        }
    }

    fn heartbeat(&mut self, arrival: &Arrival, cause: Instant) {
        let (channel, source) = (arrival.channel, arrival.source);
        let is_its = |instance: &super::Instance, vrid, family| {
            instance.channel(Kind::Heartbeats) == Some(channel)
                && instance.config.virtual_router_id == vrid
                && instance.config.family == family
        };
        let id = heartbeat::peek(&arrival.message).and_then(|(vrid, family)| {
            self.instances.iter().position(|instance| is_its(instance, vrid, family))
        });
        let Some(id) = id else {
            self.unknown_vrid += 1;
            return;
        };
        let instance = &mut self.instances[id];
        if instance.place.source == Some(source) {
            return;
        }
        match instance.read_heartbeat(&arrival.message, arrival.ttl, source) {
            Ok(lasts) => self.feed(Event::Heartbeat { instance: id, source, lasts }, cause),
            Err(reason) => {
                let text = format!("a heartbeat from {source} was discarded: {}", reason.as_str());
                self.discard(id, reason.as_str(), text);
            }
        }
    }

    fn discard(&mut self, id: InstanceId, reason: &'static str, text: String) {
        let instance = &mut self.instances[id];
        *instance.counts.discarded.entry(reason).or_default() += 1;
        let name = instance.config.name.clone();
        self.notice(&name, reason, true, text);
    }

    /// Something about links, addresses, routes or rules has changed.
    pub(super) fn changes(&mut self) {
        let changes = self.network.changes().unwrap_or_else(|error| {
            self.notice("driver", "monitor", true, format!("changes of interfaces cannot be read: {error}"));
            vec![Change::Overrun]
        });
        let has_links = changes.iter().any(|change| *change != Change::Route);
        let holds_routes = |instance: &super::Instance| {
            instance.is_held && instance.things.iter().any(|thing| !matches!(thing, Thing::Address(..)))
        };
        // The kernel does not always say so when a route goes with an interface or an address.
        if !changes.is_empty() && self.timers.routes.is_none() && self.instances.iter().any(holds_routes) {
            let now = self.network.now();
            self.timers.routes = Some(self.timers.routes_done.map_or(now, |done| now.max(done + RETRY)));
        }
        if !has_links {
            return;
        }
        let now = self.network.now();
        let again = self.timers.looked.map(|looked| looked + FOREIGN).filter(|again| *again > now);
        match again.filter(|_| !changes.iter().any(|change| self.concerns(change))) {
            // Other programs may change their own all the time, and a look at thousands of interfaces is long.
            Some(again) => self.look_at(again),
            None => self.look(),
        }
    }

    /// Whether a change may be of something that the driver works with.
    fn concerns(&self, change: &Change) -> bool {
        let (index, address) = match *change {
            Change::Link { index } => (index, None),
            Change::Address { interface, address, .. } => (interface, Some(address)),
            Change::Route => return false,
            Change::Overrun => return true,
        };
        // What is not known yet may be what was waited for.
        let Some(interface) = self.links.with_index(index) else { return true };
        let is_its = |instance: &super::Instance| {
            instance.config.interface == interface.name
                || instance.config.vmac.as_ref() == Some(&interface.name)
                || (address.is_some() && instance.config.source_address == address)
                || instance.named.addresses.iter().any(|(name, _)| *name == interface.name)
        };
        self.keys.contains(&TrackKey::Interface(interface.name.clone()))
            || self.instances.iter().any(is_its)
            || self.macvlans.values().any(|macvlan| *macvlan == index)
    }

    /// Compares everything with the kernel, and does what is missing.
    pub(super) fn look(&mut self) {
        self.timers.looked = Some(self.network.now());
        if let Err(error) = self.read_links() {
            self.notice("driver", "links", true, format!("interfaces cannot be read: {error}"));
            self.try_again();
            return;
        }
        if self.make_macvlans()
            && let Err(error) = self.read_links()
        {
            self.notice("driver", "links", true, format!("interfaces cannot be read: {error}"));
            self.try_again();
        }
        self.remove_lingering();
        let is_other = self.resolve();
        self.settle_sockets();
        if is_other {
            self.make_plan();
        }
        self.tell();
        self.restore();
    }

    /// Tells the machines of interfaces and sources that are others than they know.
    pub(super) fn tell(&mut self) {
        let now = self.network.now();
        for (id, source) in self.sources() {
            if self.instances[id].knows_source(source) {
                continue;
            }
            // A new one is there before the machine acts on it; an old one still for what it says when it has none.
            if source.is_some() {
                self.instances[id].set_source(source);
            }
            self.feed(Event::Source { instance: id, address: source }, now);
            self.instances[id].set_source(source);
        }
        self.make_plan();
        let of_instances =
            self.instances.iter().map(|instance| TrackKey::Interface(instance.config.interface.clone()));
        let tracked = self.keys.iter().filter(|key| matches!(key, TrackKey::Interface(_))).cloned();
        let keys: std::collections::BTreeSet<TrackKey> = of_instances.chain(tracked).collect();
        for key in keys {
            let TrackKey::Interface(name) = &key else { continue };
            let (value, words) = self.links.value(name);
            let tracked = Tracked { key: key.clone(), value, detail: words.to_owned() };
            if self.tracked.get(&key) == Some(&tracked) {
                continue;
            }
            self.tracked.insert(key.clone(), tracked);
            self.feed(Event::Tracked { key, value, detail: words.to_owned() }, now);
        }
    }

    fn track(&mut self, tracked: Tracked, cause: Instant) {
        // Of something that is no longer tracked; interfaces are the driver's own.
        if !self.keys.contains(&tracked.key) || matches!(tracked.key, TrackKey::Interface(_)) {
            return;
        }
        self.tracked.insert(tracked.key.clone(), tracked.clone());
        let Tracked { key, value, detail } = tracked;
        self.feed(Event::Tracked { key, value, detail }, cause);
    }

    /// Puts back addresses of masters that somebody else has removed, and tells the network again.
    fn restore(&mut self) {
        let now = self.network.now();
        for id in 0..self.instances.len() {
            let instance = &self.instances[id];
            let is_missing = |thing: &&Thing| match thing {
                Thing::Address(index, address) => !self.links.has(*index, address),
                Thing::Route(..) | Thing::Rule(_) => false,
            };
            if !instance.is_held || !instance.things.iter().any(|thing| is_missing(&thing)) {
                continue;
            }
            if let Some(after) = instance.restore_after.filter(|after| *after > now) {
                self.look_at(after);
                continue;
            }
            // With an address the kernel may have removed routes.
            let is_no_address = |thing: &&Thing| !matches!(thing, Thing::Address(..));
            let missing = instance.things.iter().filter(|thing| is_missing(thing) || is_no_address(thing));
            let missing: Vec<Thing> = missing.cloned().collect();
            let (name, garp) = (instance.config.name.clone(), instance.config.garp);
            if self.has_lost_all() {
                return self.seized();
            }
            let mut restored = self.add(&name, &missing);
            restored.retain(|thing| matches!(thing, Thing::Address(..)));
            let targets = holdings::targets(&restored, &self.links);
            self.bursts.also(id, targets, garp.repeat, garp.interval, now);
            let instance = &mut self.instances[id];
            instance.restore_after = Some(now + RESTORE);
            instance.counts.restored += restored.len() as u64;
            if let Some(first) = restored.first() {
                let text = format!("{first} was put back: somebody else had removed it");
                self.notice(&name, "restored", true, text);
            }
        }
    }

    /// The same with routes and rules, of which it is not known whether they are there.
    pub(super) fn restore_routes(&mut self) {
        for id in 0..self.instances.len() {
            let instance = &self.instances[id];
            if !instance.is_held {
                continue;
            }
            let others = instance.things.iter().filter(|thing| !matches!(thing, Thing::Address(..)));
            let (name, others) = (instance.config.name.clone(), others.cloned().collect::<Vec<_>>());
            if others.is_empty() {
                continue;
            }
            if self.has_lost_all() {
                return self.seized();
            }
            if let Some(first) = self.add(&name, &others).first() {
                let text = format!("{first} was put back: somebody else had removed it");
                self.notice(&name, "restored-route", true, text);
            }
        }
    }

    /// Tries again what could not be removed, unless somebody holds it by now.
    fn remove_lingering(&mut self) {
        if self.lingering.is_empty() {
            return;
        }
        let lingering = std::mem::take(&mut self.lingering);
        let is_held = |thing: &Thing| {
            self.instances.iter().any(|instance| instance.is_held && instance.things.contains(thing))
        };
        let is_there = |thing: &Thing| match thing {
            Thing::Address(index, _) => self.links.with_index(*index).is_some(),
            Thing::Route(..) | Thing::Rule(_) => true,
        };
        let rest: Vec<Thing> =
            lingering.into_iter().filter(|thing| !is_held(thing) && is_there(thing)).collect();
        self.remove(&rest);
        self.remember();
    }

    fn handover(&mut self, name: &str, cause: Instant) -> Result<(), String> {
        let id = self.find(name)?;
        let state = self.machine.view(id).state;
        if state != State::Master {
            return Err(format!(
                "`{name}` is not MASTER but {}: there is nothing to hand over",
                state.as_str()
            ));
        }
        self.feed(Event::Handover { instance: id }, cause);
        let view = self.machine.view(id);
        if view.is_handed_over { Ok(()) } else { Err(format!("`{name}` does not give up: {}", view.reason)) }
    }

    fn resume(&mut self, name: &str, cause: Instant) -> Result<(), String> {
        let id = self.find(name)?;
        if !self.machine.view(id).is_handed_over {
            return Err(format!("`{name}` was not handed over"));
        }
        self.feed(Event::Resume { instance: id }, cause);
        Ok(())
    }

    fn find(&self, name: &str) -> Result<InstanceId, String> {
        let position = self.names.iter().position(|other| other == name);
        position.ok_or_else(|| {
            let names = self.names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let there_are = if names.is_empty() { "none".to_owned() } else { names };
            format!("there is no VRRP instance `{name}`; there are: {there_are}")
        })
    }
}
