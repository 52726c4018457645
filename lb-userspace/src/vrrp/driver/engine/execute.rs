//! The machines' commands, done in their order.

use std::time::{Duration, Instant};

use super::{Engine, RETRY};
use crate::vrrp::{
    Report,
    driver::{
        burst::Target,
        heartbeat::{self, Heartbeat},
        holdings::{self, Thing},
        network::{Kind, Network, Outgoing},
    },
    fsm::{Command, Discard, Event, InstanceId},
};

/// How many things are added or removed between two beats: the kernel takes up to a millisecond for an IPv6 address, and the
/// guard may have no more than 50 ms of patience.
const THINGS: usize = 16;
/// How many announcements are sent without asking the guard.
const ANNOUNCED: usize = 16;
/// Notices of the machines that are let through in ten seconds, for each instance.
const MACHINE_NOTICES: u32 = 10;

impl<N: Network> Engine<N> {
    /// Tells the machines what has happened, and does what they say. `cause`: when it happened.
    pub(super) fn feed(&mut self, event: Event, cause: Instant) {
        let commands = self.machine.handle(event, self.network.now());
        self.execute(commands, cause);
    }

    pub(super) fn execute(&mut self, commands: Vec<Command>, cause: Instant) {
        let mut reports = Vec::new();
        for command in commands {
            if is_outward(&command) && self.has_lost_all() {
                continue;
            }
            // Many addresses take their time.
            self.network.beat(self.network.now());
            match command {
                Command::Advertise { instance, priority } => self.advertise(instance, priority),
                Command::Acquire { instance } => self.acquire(instance),
                Command::Release { instance } => self.release(instance),
                Command::Announce { instance, repeat } => self.announce(instance, repeat),
                Command::Heartbeat { instance, last } => self.send_heartbeat(instance, last),
                Command::Changed { instance, from, to, reason } => {
                    let Some(changed) = self.instances.get(instance) else { continue };
                    let (name, reason) = (changed.config.name.clone(), changed.reword(reason));
                    let priority = self.priority(instance);
                    reports.push(Report::Instance { name, from, to, priority, reason, took: Duration::ZERO });
                }
                Command::GroupChanged { group, to, reason } => {
                    let Some(group) = self.config.sync_groups.get(group) else { continue };
                    reports.push(Report::Group { name: group.name.clone(), to, reason });
                }
                Command::Notice { instance, text } => {
                    if let Some(name) = self.instances.get(instance).map(|i| i.config.name.clone()) {
                        self.notice_up_to(MACHINE_NOTICES, &name, "machine", false, text);
                    }
                }
                Command::Discarded { instance, reason } => self.discarded(instance, reason),
            }
        }
        let spent = self.network.now().saturating_duration_since(cause);
        for mut report in reports {
            if let Report::Instance { took, .. } = &mut report {
                *took = spent;
            }
            self.say(report);
        }
        if self.is_seized && !self.is_reloading {
            self.seized();
        }
    }

    /// The guard has given up everything, and is done with it: nothing of it may stay or come back.
    pub(super) fn seized(&mut self) {
        self.is_seized = false;
        self.stamps.said_ahead();
        // Its last words are said: it needs newer ones.
        self.told = None;
        // What was done between the guard's deed and now.
        self.release_all();
        let text =
            "the driver was silent for longer than `vrrp.watchdog`: the guard has given its addresses up";
        self.notice("guard", "seized", true, text.to_owned());
        self.feed(Event::Seized, self.network.now());
        self.make_plan();
    }

    /// Whether the guard has taken the addresses since this turn began.
    pub(super) fn has_lost_all(&mut self) -> bool {
        self.is_seized = self.is_seized || self.network.was_seized();
        self.is_seized
    }

    /// The priority for scripts. While the machine has other settings already, `id` is still a position in the old ones.
    fn priority(&self, id: InstanceId) -> u8 {
        let config = &self.instances[id].config;
        let position = self.names.iter().position(|name| *name == config.name);
        position.map_or(config.priority, |position| self.machine.view(position).effective_priority)
    }

    pub(super) fn advertise(&mut self, id: InstanceId, priority: u8) {
        let (now, wall) = (self.network.now(), self.network.wall());
        let Self { instances, network, stamps, timers, .. } = self;
        let Some(instance) = instances.get_mut(id) else { return };
        let packets = instance.advert(priority, || stamps.next(wall));
        let way = instance.channel(Kind::Adverts).zip(instance.place.source);
        let mut failure = None;
        let mut is_sent = false;
        if let Some((channel, source)) = way {
            for (destination, packet) in &packets {
                let outgoing = Outgoing { channel, source, destination: *destination, packet };
                match network.send(outgoing) {
                    Ok(()) => is_sent = true,
                    Err(error) => {
                        failure = Some(format!("an advert to {destination} cannot be sent: {error}"));
                    }
                }
            }
        } else {
            let why = instance.silenced.as_deref().unwrap_or("there is no address to send it from");
            failure = Some(format!("an advert cannot be sent: {why}"));
        }
        // The first advert of a master comes before it holds anything.
        if instance.is_stamped() && priority != 0 && timers.plan.is_none() {
            timers.plan = Some(now);
        }
        instance.counts.sent += u64::from(is_sent);
        instance.counts.sent_zero += u64::from(is_sent && priority == 0);
        if let Some(text) = failure {
            instance.counts.send_errors += 1;
            let name = instance.config.name.clone();
            self.notice(&name, "send", true, text);
        }
    }

    fn send_heartbeat(&mut self, id: InstanceId, last: bool) {
        let wall = self.network.wall();
        let Self { instances, network, stamps, .. } = self;
        let Some(instance) = instances.get_mut(id) else { return };
        let way = instance.channel(Kind::Heartbeats).zip(instance.place.source);
        let Some(((channel, source), fast)) = way.zip(instance.config.fast_detection) else { return };
        let lasts = if last { Duration::ZERO } else { fast.interval * fast.multiplier };
        let (vrid, family) = (instance.config.virtual_router_id, instance.config.family);
        let heartbeat = Heartbeat { vrid, family, last, lasts, sequence: stamps.sequence(wall) };
        let packet = heartbeat::encode(&heartbeat, &instance.config.authentication, source);
        let mut failure = None;
        for destination in instance.destinations() {
            let outgoing = Outgoing { channel, source, destination, packet: &packet };
            if let Err(error) = network.send(outgoing) {
                failure = Some(format!("a heartbeat to {destination} cannot be sent: {error}"));
            }
        }
        if let Some(text) = failure {
            let name = instance.config.name.clone();
            self.notice(&name, "send-heartbeat", true, text);
        }
    }

    fn acquire(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.is_held = true;
        instance.restore_after = None;
        // The guard first: from here on it has something to remove. The role before the addresses, so that nothing that comes
        // for them is refused.
        self.network.mark(&instance.config.name, true);
        if instance.role != 0 {
            self.roles.set(instance.role, true);
        }
        let things = instance.things.clone();
        self.lingering.retain(|thing| !things.contains(thing));
        let name = instance.config.name.clone();
        self.add(&name, &things);
    }

    pub(super) fn release(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.is_held = false;
        self.bursts.cancel(id);
        let (things, role) = (instance.things.clone(), instance.role);
        let name = instance.config.name.clone();
        self.remove(&things);
        if role != 0 {
            self.roles.set(role, false);
        }
        self.network.mark(&name, false);
    }

    /// Gives up whatever is still held.
    pub(super) fn release_all(&mut self) {
        for id in 0..self.instances.len() {
            if self.instances[id].is_held {
                self.release(id);
            }
        }
    }

    /// Adds things; how many of the addresses were not there. What fails is said and tried again.
    pub(super) fn add(&mut self, name: &str, things: &[Thing]) -> Vec<Thing> {
        let mut added = Vec::new();
        for some in things.chunks(THINGS) {
            // Nothing more for the guard's victim: `seized` follows at the end of the commands or of the turn.
            if self.has_lost_all() {
                break;
            }
            let results = self.network.add(some);
            self.network.beat(self.network.now());
            for (thing, result) in some.iter().zip(results) {
                match result {
                    Ok(true) => added.push(thing.clone()),
                    Ok(false) => {}
                    Err(error) => {
                        self.notice(name, "add", true, format!("{thing} cannot be added: {error}"));
                        self.try_again();
                    }
                }
            }
        }
        added
    }

    /// Removes things, also IPv6 addresses that were there with another prefix already. What fails is said and tried again.
    pub(super) fn remove(&mut self, things: &[Thing]) -> Vec<Thing> {
        let is_held =
            |thing: &Thing| self.instances.iter().any(|one| one.is_held && one.things.contains(thing));
        let mut all = holdings::with_other_prefixes(things, &self.links);
        all.retain(|thing| !is_held(thing));
        all.extend_from_slice(things);
        let mut results = Vec::new();
        for some in all.chunks(THINGS) {
            results.extend(self.network.remove(some));
            self.network.beat(self.network.now());
        }
        let mut removed = Vec::new();
        for (thing, result) in all.iter().zip(results) {
            match result {
                Ok(true) => removed.push(thing.clone()),
                Ok(false) => {}
                Err(error) => {
                    self.notice("driver", "remove", true, format!("{thing} cannot be removed: {error}"));
                    if !self.lingering.contains(thing) {
                        self.lingering.push(thing.clone());
                    }
                    self.look_at(self.network.now() + RETRY);
                }
            }
        }
        removed
    }

    fn announce(&mut self, id: InstanceId, repeat: u32) {
        let now = self.network.now();
        let Some(instance) = self.instances.get(id) else { return };
        let targets = instance.targets(&self.links);
        self.bursts.begin(id, targets, repeat, instance.config.garp.interval, now);
    }

    /// What is due of the bursts.
    pub(super) fn announce_due(&mut self, due: &[(InstanceId, Target)]) {
        for some in due.chunks(ANNOUNCED) {
            // Others may have the addresses since the last ones.
            if self.has_lost_all() {
                return self.seized();
            }
            let targets: Vec<Target> = some.iter().map(|(_, target)| *target).collect();
            for ((id, target), result) in some.iter().zip(self.network.announce(&targets)) {
                let Some(instance) = self.instances.get_mut(*id) else { continue };
                match result {
                    Ok(()) => instance.counts.announced += 1,
                    Err(error) => {
                        let name = instance.config.name.clone();
                        let text = format!("{} cannot be announced: {error}", target.address);
                        self.notice(&name, "announce", true, text);
                    }
                }
            }
        }
    }

    fn discarded(&mut self, id: InstanceId, reason: Discard) {
        let (word, text) = match reason {
            Discard::AddressList => ("address-list", Some("its addresses are not those of this instance")),
            Discard::Interval => ("advert-interval", Some("its interval is not that of this instance")),
            Discard::OwnAddress => ("own-address", Some("it has our address or is an owner as we are")),
            // Every day's business.
            Discard::LowerPriority => ("lower-priority", None),
            Discard::NotListening => ("not-listening", None),
        };
        let Some(instance) = self.instances.get_mut(id) else { return };
        *instance.counts.discarded.entry(word).or_default() += 1;
        if let Some(text) = text {
            let name = instance.config.name.clone();
            self.notice(&name, word, true, format!("an advert was discarded: {text}"));
        }
    }
}

/// Whether a command speaks to others, or takes what may be theirs by now.
fn is_outward(command: &Command) -> bool {
    matches!(
        command,
        Command::Advertise { .. }
            | Command::Acquire { .. }
            | Command::Announce { .. }
            | Command::Heartbeat { .. }
    )
}
