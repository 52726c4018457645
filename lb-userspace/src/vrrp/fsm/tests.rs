//! The rules, one by one. [`simulation`](super::simulation) runs them together.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::config::vrrp::{
    Authentication, Checksum, Family, FastDetection, Garp, Track, Version, VirtualAddress,
};

mod advert;
mod backup;
mod detection;
mod groups;
mod master;
mod orders;
mod reload;
mod tracking;

/// Where time begins.
pub(super) fn epoch() -> Instant {
    Instant::now()
}

/// An instance with the defaults of the configuration.
pub(super) fn instance(name: &str, version: Version, priority: u8) -> VrrpInstance {
    VrrpInstance {
        name: name.to_owned(),
        interface: "eth0".to_owned(),
        family: Family::Ipv4,
        version,
        virtual_router_id: 51,
        priority,
        advert_interval: Duration::from_secs(1),
        initial_master: false,
        nopreempt: false,
        preempt_delay: Duration::ZERO,
        authentication: Authentication::None,
        checksum: Checksum::PseudoHeader,
        source_address: None,
        unicast_peers: Vec::new(),
        check_unicast_source: false,
        skip_check_adv_addr: false,
        quick_release: false,
        addresses: vec![virtual_address(100)],
        excluded_addresses: Vec::new(),
        routes: Vec::new(),
        rules: Vec::new(),
        vmac: None,
        garp: Garp::default(),
        dont_track_primary: false,
        tracks: Vec::new(),
        notify: None,
        notify_master: None,
        notify_backup: None,
        notify_fault: None,
        notify_stop: None,
        mail: false,
        fast_detection: None,
    }
}

/// A group with the defaults of the configuration.
pub(super) fn group(name: &str, instances: &[&str]) -> SyncGroup {
    SyncGroup {
        name: name.to_owned(),
        instances: instances.iter().map(|&name| name.to_owned()).collect(),
        tracks: Vec::new(),
        tracking_weight: false,
        notify: None,
        notify_master: None,
        notify_backup: None,
        notify_fault: None,
        notify_stop: None,
        mail: false,
    }
}

/// `192.0.2.HOST`: 1 is ours, 100 is virtual.
fn host(host: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, host).into()
}

fn virtual_address(last: u8) -> VirtualAddress {
    VirtualAddress { address: host(last), prefix: 32, interface: None, label: None }
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const fn us(microseconds: u64) -> Duration {
    Duration::from_micros(microseconds)
}

/// A machine with its clock.
struct Bench {
    machine: Machine,
    settings: Settings,
    begin: Instant,
    now: Instant,
}

impl Bench {
    /// Not started; every instance has the source address `192.0.2.1`, and every interface is up.
    fn with(settings: Settings) -> Self {
        let begin = epoch();
        let machine = Machine::new(settings.clone(), begin);
        let mut bench = Self { machine, settings, begin, now: begin };
        for instance in 0..bench.settings.instances.len() {
            bench.handle(Event::Source { instance, address: Some(host(1)) });
            let interface = bench.settings.instances[instance].interface.clone();
            bench.track(TrackKey::Interface(interface), TrackValue::Up);
        }
        bench
    }

    /// One started instance.
    fn one(instance: VrrpInstance) -> Self {
        let mut bench = Self::with(Settings { instances: vec![instance], groups: Vec::new() });
        bench.handle(Event::Start);
        bench
    }

    /// One started instance that has become master.
    fn master(instance: VrrpInstance) -> Self {
        let mut bench = Self::one(instance);
        bench.until_master();
        bench
    }

    fn until_master(&mut self) {
        for _ in 0..10 {
            if self.state(0) == State::Master {
                return;
            }
            self.next();
        }
        panic!("no master: {:?}", self.machine.view(0));
    }

    fn handle(&mut self, event: Event) -> Vec<Command> {
        let is_timeout = event == Event::Timeout;
        let commands = self.machine.handle(event, self.now);
        let due = self.machine.poll_timeout();
        assert!(!is_timeout || due.is_none_or(|due| due > self.now), "a busy loop");
        commands
    }

    fn advert(&mut self, instance: InstanceId, from: u8, priority: u8) -> Vec<Command> {
        let settings = &self.settings.instances[instance];
        let interval_ms = settings.advert_interval.as_millis() as u32;
        self.advert_every(instance, from, priority, interval_ms)
    }

    fn advert_every(
        &mut self,
        instance: InstanceId,
        from: u8,
        priority: u8,
        interval_ms: u32,
    ) -> Vec<Command> {
        let advert = Advert { priority, interval_ms, ..self.like_ours(instance) };
        self.handle(Event::Advert { instance, source: host(from), advert })
    }

    /// An advert as our own of priority 0.
    fn like_ours(&self, instance: InstanceId) -> Advert {
        let settings = &self.settings.instances[instance];
        Advert {
            version: settings.version,
            vrid: settings.virtual_router_id,
            priority: 0,
            interval_ms: settings.advert_interval.as_millis() as u32,
            addresses: settings.addresses.iter().map(|address| address.address).collect(),
        }
    }

    fn track(&mut self, key: TrackKey, value: TrackValue) -> Vec<Command> {
        self.handle(Event::Tracked { key, value, detail: "as told".to_owned() })
    }

    /// Lets time pass, without serving timers.
    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Serves the next timer.
    fn next(&mut self) -> Vec<Command> {
        self.now = self.machine.poll_timeout().expect("a timer").max(self.now);
        self.handle(Event::Timeout)
    }

    /// From now to the next timer.
    fn wait(&self) -> Duration {
        self.machine.poll_timeout().expect("a timer").saturating_duration_since(self.now)
    }

    fn state(&self, instance: InstanceId) -> State {
        self.machine.view(instance).state
    }

    fn reason(&self, instance: InstanceId) -> String {
        self.machine.view(instance).reason
    }
}

/// The commands in short: `advertise 0 100`, `acquire 0`, `0 Backup -> Master`, ...
fn short(commands: &[Command]) -> Vec<String> {
    let one = |command: &Command| match command {
        Command::Advertise { instance, priority } => format!("advertise {instance} {priority}"),
        Command::Acquire { instance } => format!("acquire {instance}"),
        Command::Release { instance } => format!("release {instance}"),
        Command::Announce { instance, repeat } => format!("announce {instance} {repeat}"),
        Command::Heartbeat { instance, last: false } => format!("heartbeat {instance}"),
        Command::Heartbeat { instance, last: true } => format!("last heartbeat {instance}"),
        Command::Changed { instance, from, to, .. } => format!("{instance} {from:?} -> {to:?}"),
        Command::GroupChanged { group, to, .. } => format!("group {group} {to:?}"),
        Command::Notice { instance, .. } => format!("notice {instance}"),
        Command::Discarded { instance, reason } => format!("discarded {instance} {reason:?}"),
    };
    commands.iter().map(one).collect()
}

/// What becoming master comes to, alone.
const RISE: [&str; 4] = ["advertise 0 100", "acquire 0", "announce 0 5", "0 Backup -> Master"];

fn v2(priority: u8) -> VrrpInstance {
    instance("VI", Version::V2, priority)
}

fn v3(priority: u8) -> VrrpInstance {
    VrrpInstance { advert_interval: ms(100), ..instance("VI", Version::V3, priority) }
}
