//! The state machines of all instances and their sync groups: pure. `handle(event, now) -> commands`, `poll_timeout()`.
//!
//! ```text
//!            Start, everything tracked is known         master-down time over, in all members of the group
//!     INIT ------------------------------------> BACKUP --------------------------------------------> MASTER
//!      |          priority 255: to MASTER          ^  ^                                                 |
//!      |                                           |  +---- a better master, a handover, seized --------+
//!      +--> FAULT --- nothing is wrong any more ---+
//!             ^
//!             +---- something tracked with weight 0 fails, of any member of the group; from every state
//! ```
//!
//! What an event says is first noted in the instances that it is about (`instance`): each then *wishes* to be master, or
//! *yields*. Then their unit (a sync group, or an instance alone) is settled: all of its members go the same way, in the
//! same call.

mod instance;
mod reload;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod timers;
mod tracking;
mod unit;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use self::{instance::Instance, tracking::Known, unit::Unit};

use super::{State, TrackValue, packet::Advert};
use crate::config::vrrp::{SyncGroup, TrackKey, VrrpInstance};

/// Position of an instance in [`Settings::instances`].
pub type InstanceId = usize;

/// What the machines need to know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// All instances.
    pub instances: Vec<VrrpInstance>,
    /// All groups.
    pub groups: Vec<SyncGroup>,
}

/// What happens to the machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The agent is ready: all instances leave INIT.
    Start,
    /// The agent ends: masters give up and say so.
    Stop,
    /// A time that [`Machine::poll_timeout`] has given is over.
    Timeout,
    /// An advert that the receiving side has found right (authentication, TTL, checksum, vrid, version).
    Advert {
        /// To which instance.
        instance: InstanceId,
        /// From whom.
        source: IpAddr,
        /// What it says.
        advert: Advert,
    },
    /// A heartbeat of fast detection from whoever says that it is master.
    Heartbeat {
        /// To which instance.
        instance: InstanceId,
        /// From whom.
        source: IpAddr,
        /// After this long without another one it is gone; zero: it ends its heartbeats in good order.
        lasts: Duration,
    },
    /// The address from which an instance sends; `None`: it has none, which is a fault.
    Source {
        /// Which instance.
        instance: InstanceId,
        /// The address.
        address: Option<IpAddr>,
    },
    /// A tracked thing, or an instance's own interface ([`TrackKey::Interface`]), is known or has changed.
    Tracked {
        /// Which.
        key: TrackKey,
        /// How it is.
        value: TrackValue,
        /// In words.
        detail: String,
    },
    /// An operator asks the instance (and its group) to give up for maintenance. It stays BACKUP, and takes over only when no
    /// master is heard, until [`Event::Resume`].
    Handover {
        /// Which instance.
        instance: InstanceId,
    },
    /// Lifts [`Event::Handover`].
    Resume {
        /// Which instance.
        instance: InstanceId,
    },
    /// The guard has given up our addresses, and has said so on the network, since this process was silent for too long:
    /// masters are backups without a further word.
    Seized,
    /// The caller has slept for so long: it is going to hand over what it has received since, and then [`Event::Timeout`].
    Woke {
        /// How long.
        slept: Duration,
    },
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Send an advert.
    Advertise {
        /// Of which instance.
        instance: InstanceId,
        /// With this priority; 0: giving up.
        priority: u8,
    },
    /// Serve: the data plane's role, then addresses, routes and rules.
    Acquire {
        /// For which instance.
        instance: InstanceId,
    },
    /// Addresses, routes and rules go, then the data plane's role.
    Release {
        /// For which instance.
        instance: InstanceId,
    },
    /// Gratuitous ARP and unsolicited neighbour advertisements for all addresses of the instance.
    Announce {
        /// Which instance.
        instance: InstanceId,
        /// So many for each address.
        repeat: u32,
    },
    /// Send a heartbeat of fast detection.
    Heartbeat {
        /// Of which instance.
        instance: InstanceId,
        /// Whether heartbeats end here in good order.
        last: bool,
    },
    /// An instance's state has changed.
    Changed {
        /// Which.
        instance: InstanceId,
        /// Before.
        from: State,
        /// Now.
        to: State,
        /// Why, in words for people: "master down: nothing heard from 10.0.0.1 for 3.6 s".
        reason: String,
    },
    /// A group's state has changed; after those of its instances.
    GroupChanged {
        /// Position in [`Settings::groups`].
        group: usize,
        /// Now.
        to: State,
        /// Why.
        reason: String,
    },
    /// Something an operator should hear of that is no change of state.
    Notice {
        /// Which instance.
        instance: InstanceId,
        /// What.
        text: String,
    },
    /// The machine has thrown an event's advert away.
    Discarded {
        /// Which instance.
        instance: InstanceId,
        /// Why.
        reason: Discard,
    },
}

/// Why the machine throws away an advert that is well-formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discard {
    /// Its addresses are not ours (RFC 3768 7.1).
    AddressList,
    /// Version 2: its interval is not ours (RFC 3768 7.1).
    Interval,
    /// Its priority is lower than ours.
    LowerPriority,
    /// The instance is in INIT or FAULT.
    NotListening,
    /// From our own address, or priority 255 while we are 255 too: two owners, or an echo.
    OwnAddress,
}

/// How an instance is, for status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// Why it came to be.
    pub reason: String,
    /// The last master's address; our own while we are.
    pub master: Option<IpAddr>,
    /// The last master's priority.
    pub master_priority: Option<u8>,
    /// The master's interval, in milliseconds: learned in version 3.
    pub master_interval_ms: u32,
    /// Priority with tracking.
    pub effective_priority: u8,
    /// What moves it from the configured one: thing and weight.
    pub weights: Vec<(TrackKey, i32)>,
    /// What makes it FAULT, in words; empty: nothing.
    pub faults: Vec<String>,
    /// After a handover.
    pub is_handed_over: bool,
    /// When it next does something by itself.
    pub timer: Option<Instant>,
    /// Times it became master.
    pub became_master: u64,
    /// Times it gave up.
    pub released_master: u64,
}

/// All instances and groups of a director.
///
/// An event for an instance that does not exist does nothing.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    instances: Vec<Instance>,
    /// First one for each group, in their order; then one for each instance that is in none.
    units: Vec<Unit>,
    known: BTreeMap<TrackKey, Known>,
    is_started: bool,
    /// Since when there are other settings whose consequences have not been drawn yet.
    unsettled: Option<Instant>,
}

impl Machine {
    /// All instances are in INIT until [`Event::Start`].
    pub fn new(settings: Settings, now: Instant) -> Self {
        let mut machine = Self {
            settings: Settings::default(),
            instances: Vec::new(),
            units: Vec::new(),
            known: BTreeMap::new(),
            is_started: false,
            unsettled: None,
        };
        // Nothing was there before, so there is nothing to be done for it.
        machine.reconfigure(settings, now);
        machine
    }

    /// Takes other settings while running. Instances that stay (by name) keep their state, timers and what is known of what
    /// they track, as far as they are not concerned. Commands for removed and changed instances refer to the positions of the
    /// old settings: they are to be done before the new settings count. What the new settings lead to comes with the next
    /// event; [`Self::poll_timeout`] is due at once.
    ///
    /// An instance whose interface, vrid, version, family, VMAC or whole address list changes while it is master gives up and
    /// begins anew; one that gains or loses addresses only stays master: the caller adds and removes those. An instance that
    /// comes into a group takes the group with it into BACKUP: its members are to be elected together.
    pub fn reconfigure(&mut self, settings: Settings, now: Instant) -> Vec<Command> {
        let mut out = Vec::new();
        let units = unit::divide(&settings);
        let tracks = tracking::tracks(&settings);
        reload::drop_groups(&self.settings, &self.units, &settings, &mut out);
        self.units = reload::units(&self.settings, &self.units, &settings, units);
        // What nobody tracks any more may be otherwise when somebody does again.
        let tracked: BTreeSet<&TrackKey> = tracks.iter().flatten().map(|track| &track.key).collect();
        self.known.retain(|key, _| tracked.contains(key));
        let before = std::mem::take(&mut self.instances);
        self.instances = reload::instances(before, &settings, tracks, now, &mut out);
        for (index, unit) in self.units.iter().enumerate() {
            for &member in &unit.members {
                self.instances[member].unit = index;
            }
        }
        for instance in &mut self.instances {
            instance.assess(&self.known);
        }
        self.settings = settings;
        if self.is_started {
            self.unsettled = Some(now);
        }
        in_order(out)
    }

    /// What an event leads to.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Command> {
        let mut out = Vec::new();
        if self.unsettled.take().is_some() {
            self.settle_all(now, &mut out);
        }
        match event {
            Event::Start => {
                self.is_started = true;
                self.settle_all(now, &mut out);
            }
            Event::Stop => self.stop(now, &mut out),
            Event::Timeout => self.timeout(now, &mut out),
            Event::Advert { instance, source, advert } => {
                self.with(instance, now, &mut out, |instance, out| instance.hear(source, &advert, now, out));
            }
            Event::Heartbeat { instance, source, lasts } => {
                if let Some(instance) = self.instances.get_mut(instance) {
                    instance.feel(source, lasts, now);
                }
            }
            Event::Source { instance, address } => {
                if let Some(instance) = self.instances.get_mut(instance) {
                    instance.source = Some(address);
                }
                self.assess(now, &mut out, |id, _| id == instance);
            }
            Event::Tracked { key, value, detail } => {
                self.known.insert(key.clone(), Known { value, detail });
                self.assess(now, &mut out, |_, instance| instance.does_track(&key));
            }
            Event::Handover { instance } => self.hand_over(instance, now, &mut out),
            Event::Resume { instance } => {
                for member in self.members_with(instance) {
                    self.instances[member].is_handed_over = false;
                }
            }
            Event::Seized => {
                for instance in &mut self.instances {
                    instance.seize();
                }
                self.settle_all(now, &mut out);
            }
            Event::Woke { .. } => {
                for instance in &mut self.instances {
                    // One that has just become master may have taken long for that, and hears its predecessor's last advert.
                    instance.has_slept = instance.state == State::Master && instance.is_settled;
                }
            }
        }
        in_order(out)
    }

    /// When [`Event::Timeout`] is due. After it, this is later, or nothing.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.instances.iter().filter_map(Instance::due).chain(self.unsettled).min()
    }

    /// How an instance is.
    ///
    /// # Panics
    /// When there is no such instance.
    pub fn view(&self, instance: InstanceId) -> InstanceView {
        self.instances[instance].view()
    }

    /// The state of a group: that of its members. While one of them has just come and is not known yet, BACKUP.
    ///
    /// # Panics
    /// When there is no such group.
    pub fn group_state(&self, group: usize) -> State {
        self.units[..self.settings.groups.len()][group].state
    }

    /// Notes something in an instance and draws the consequences for its unit.
    fn with(
        &mut self,
        instance: InstanceId,
        now: Instant,
        out: &mut Vec<Command>,
        note: impl FnOnce(&mut Instance, &mut Vec<Command>),
    ) {
        if let Some(instance) = self.instances.get_mut(instance) {
            note(instance, out);
            let unit = instance.unit;
            self.settle(unit, now, out);
        }
    }

    /// Looks again at what is known of what some instances track, and draws the consequences.
    fn assess(
        &mut self,
        now: Instant,
        out: &mut Vec<Command>,
        is_concerned: impl Fn(InstanceId, &Instance) -> bool,
    ) {
        let mut units = Vec::new();
        for (id, instance) in self.instances.iter_mut().enumerate() {
            if is_concerned(id, instance) {
                let has_new_priority = instance.assess(&self.known);
                if has_new_priority && instance.state == State::Master && instance.standing.faults.is_empty()
                {
                    instance.advertise(now, out);
                }
                units.push(instance.unit);
            }
        }
        self.settle_some(units, now, out);
    }

    fn timeout(&mut self, now: Instant, out: &mut Vec<Command>) {
        let mut units = Vec::new();
        for instance in &mut self.instances {
            instance.has_slept = false;
            if instance.due().is_some_and(|due| due <= now) {
                instance.fire(now, out);
                units.push(instance.unit);
            }
        }
        self.settle_some(units, now, out);
    }

    fn hand_over(&mut self, instance: InstanceId, now: Instant, out: &mut Vec<Command>) {
        for member in self.members_with(instance) {
            self.instances[member].hand_over(now);
        }
        self.with(instance, now, out, |_, _| ());
    }

    fn stop(&mut self, now: Instant, out: &mut Vec<Command>) {
        self.is_started = false;
        for instance in &mut self.instances {
            instance.end("stopped", now, out);
        }
        for (index, unit) in self.units.iter_mut().enumerate() {
            unit.tell(index, &self.settings, &self.instances, "stopped", out);
        }
    }

    /// The members of an instance's unit, itself among them.
    fn members_with(&self, instance: InstanceId) -> Vec<InstanceId> {
        self.instances
            .get(instance)
            .map_or_else(Vec::new, |instance| self.units[instance.unit].members.clone())
    }

    fn settle_all(&mut self, now: Instant, out: &mut Vec<Command>) {
        for unit in 0..self.units.len() {
            self.settle(unit, now, out);
        }
    }

    fn settle_some(&mut self, mut units: Vec<usize>, now: Instant, out: &mut Vec<Command>) {
        units.sort_unstable();
        units.dedup();
        for unit in units {
            self.settle(unit, now, out);
        }
    }

    fn settle(&mut self, unit: usize, now: Instant, out: &mut Vec<Command>) {
        if self.is_started {
            self.units[unit].settle(unit, &self.settings, &mut self.instances, now, out);
        }
    }
}

/// The order in which commands are done: what the other routers wait for comes first, what people read comes last. Within each
/// kind the order is that of the instances.
fn in_order(mut commands: Vec<Command>) -> Vec<Command> {
    if commands.len() > 1 {
        commands.sort_by_key(|command| match command {
            // Heartbeats end before priority 0 says that we do, or their absence would be noticed.
            Command::Heartbeat { last: true, .. } => 0,
            Command::Advertise { .. } => 1,
            Command::Heartbeat { last: false, .. } => 2,
            Command::Release { .. } => 3,
            Command::Acquire { .. } => 4,
            Command::Announce { .. } => 5,
            Command::Discarded { .. } | Command::Notice { .. } => 6,
            Command::Changed { .. } => 7,
            Command::GroupChanged { .. } => 8,
        });
    }
    commands
}
