//! A network that writes down what is done to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::{
    config::vrrp::VirtualAddress,
    netif::{Change, Interface},
    vrrp::{
        driver::{
            Roles,
            burst::Target,
            holdings::Thing,
            network::{Arrival, Channel, Kind, Network, Outgoing},
        },
        guard::Plan,
    },
};

/// What was done, in its order: by the network and by the roles.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn write(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    /// What was written since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[derive(Debug)]
pub struct FakeRoles(pub Log);

impl Roles for FakeRoles {
    fn set(&self, role: u16, is_served: bool) {
        self.0.write(format!("role {role} {}", if is_served { "on" } else { "off" }));
    }

    fn map(&self) -> Option<OwnedFd> {
        None
    }
}

#[derive(Debug)]
pub struct Fake {
    pub now: Instant,
    pub wall: Duration,
    pub interfaces: Vec<Interface>,
    pub changes: Vec<Change>,
    pub arrivals: Vec<Arrival>,
    /// What cannot be added or removed, macvlans included.
    pub refuses: Vec<String>,
    pub cannot_listen: bool,
    /// Nor this interface for this.
    pub deaf: Option<(u32, Kind)>,
    pub cannot_send: bool,
    pub channels: BTreeSet<Channel>,
    pub packets: Vec<Vec<u8>>,
    pub plans: Vec<Plan>,
    pub marks: BTreeMap<String, bool>,
    /// The guard does not answer.
    pub is_guard_stopped: bool,
    /// Nor will it any more.
    pub is_guard_late: bool,
    pub guard: Option<bool>,
    /// The guard takes everything in the course of so many calls from now.
    pub seize_after: Option<usize>,
    /// Or once this has been done.
    pub seize_with: Option<String>,
    /// How many things were added or removed since the last beat, and how many at most.
    pub beatless: (usize, usize),
    /// How often interfaces were asked for.
    pub dumps: usize,
    /// Where the driver remembers what it may leave, to look into it at each removal of an address.
    pub state: Option<PathBuf>,
    /// What was found: whether that and the guard's plan named it until then.
    pub known: Vec<(bool, bool)>,
    log: Log,
}

impl Fake {
    /// With `eth0` (index 2, 10.0.0.1/24 and fe80::1) and `lo`.
    pub fn new(log: Log) -> Self {
        let interface = |index, name: &str, mac, addresses: &[(&str, u8)]| Interface {
            index,
            name: name.to_owned(),
            mac,
            is_running: true,
            addresses: addresses.iter().map(|(text, prefix)| (text.parse().unwrap(), *prefix)).collect(),
        };
        Self {
            now: Instant::now(),
            wall: Duration::from_secs(1_750_000_000),
            interfaces: vec![
                interface(1, "lo", None, &[("127.0.0.1", 8)]),
                interface(2, "eth0", Some([2, 0, 0, 0, 0, 1]), &[("10.0.0.1", 24), ("fe80::1", 64)]),
            ],
            changes: Vec::new(),
            arrivals: Vec::new(),
            refuses: Vec::new(),
            cannot_listen: false,
            deaf: None,
            cannot_send: false,
            channels: BTreeSet::new(),
            packets: Vec::new(),
            plans: Vec::new(),
            marks: BTreeMap::new(),
            is_guard_stopped: false,
            is_guard_late: false,
            guard: None,
            seize_after: None,
            seize_with: None,
            beatless: (0, 0),
            dumps: 0,
            state: None,
            known: Vec::new(),
            log,
        }
    }

    pub fn interface(&mut self, name: &str) -> &mut Interface {
        self.interfaces.iter_mut().find(|interface| interface.name == name).unwrap()
    }

    /// Its addresses without its own.
    pub fn held(&self) -> Vec<String> {
        let own = ["127.0.0.1", "10.0.0.1", "fe80::1"];
        let all = self.interfaces.iter().flat_map(|interface| {
            interface.addresses.iter().map(|(address, _)| format!("{address} {}", interface.name))
        });
        all.filter(|shown| !own.iter().any(|own| shown.starts_with(&format!("{own} ")))).collect()
    }

    fn write(&mut self, line: String) {
        if self.seize_with.take_if(|with| *with == line).is_some() {
            self.seize_after = Some(0);
        }
        self.log.write(line);
    }

    fn note(&mut self, address: &VirtualAddress) {
        let Some(path) = &self.state else { return };
        let is_remembered = std::fs::read_to_string(path).unwrap().contains(&address.address.to_string());
        let plan = self.plans.last().unwrap();
        let mut planned = plan.instances.iter().flat_map(|instance| &instance.addresses);
        self.known.push((is_remembered, planned.any(|(_, other)| other == address)));
    }

    fn change(&mut self, thing: &Thing, is_there: bool) -> io::Result<bool> {
        let (since, most) = self.beatless;
        self.beatless = (since + 1, most.max(since + 1));
        let word = if is_there { "add" } else { "remove" };
        let shown = thing.to_string();
        if self.refuses.contains(&shown) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut is_other = true;
        if let Thing::Address(index, address) = thing {
            let Some(interface) = self.interfaces.iter_mut().find(|interface| interface.index == *index)
            else {
                return if is_there { Err(io::ErrorKind::NotFound.into()) } else { Ok(false) };
            };
            let entry = (address.address, address.prefix);
            // As the kernel: IPv6 addresses are added whatever their prefix is, but removed with the right one only.
            let is_it =
                |other: &(IpAddr, u8)| *other == entry || is_there && entry.0.is_ipv6() && other.0 == entry.0;
            is_other = interface.addresses.iter().any(is_it) != is_there;
            if is_other && is_there {
                interface.addresses.push(entry);
            }
            if is_other && !is_there {
                interface.addresses.retain(|other| *other != entry);
                self.note(address);
            }
        }
        if is_other {
            self.write(format!("{word} {shown}"));
        }
        Ok(is_other)
    }
}

impl Network for Fake {
    fn now(&self) -> Instant {
        self.now
    }

    fn wall(&self) -> Duration {
        self.wall
    }

    fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        self.dumps += 1;
        Ok(self.interfaces.clone())
    }

    fn changes(&mut self) -> io::Result<Vec<Change>> {
        Ok(std::mem::take(&mut self.changes))
    }

    fn add(&mut self, things: &[Thing]) -> Vec<io::Result<bool>> {
        things.iter().map(|thing| self.change(thing, true)).collect()
    }

    fn remove(&mut self, things: &[Thing]) -> Vec<io::Result<bool>> {
        things.iter().map(|thing| self.change(thing, false)).collect()
    }

    fn add_macvlan(&mut self, parent: u32, name: &str, mac: [u8; 6]) -> io::Result<u32> {
        if self.refuses.contains(&format!("macvlan {name}")) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let index = 100 + parent;
        if !self.interfaces.iter().any(|interface| interface.name == name) {
            self.log.write(format!("macvlan {name}"));
            self.interfaces.push(Interface {
                index,
                name: name.to_owned(),
                mac: Some(mac),
                is_running: true,
                addresses: Vec::new(),
            });
        }
        Ok(index)
    }

    fn remove_macvlan(&mut self, name: &str) -> io::Result<bool> {
        let before = self.interfaces.len();
        self.interfaces.retain(|interface| interface.name != name);
        self.log.write(format!("no macvlan {name}"));
        Ok(self.interfaces.len() != before)
    }

    fn listen(&mut self, channels: &BTreeSet<Channel>) -> Vec<(Channel, io::Error)> {
        let cannot = |channel: &Channel| {
            self.cannot_listen && !self.channels.contains(channel)
                || self.deaf == Some((channel.interface, channel.kind))
        };
        let (failed, open): (BTreeSet<_>, BTreeSet<_>) =
            channels.iter().copied().partition(|channel| cannot(channel));
        self.channels = open;
        let error = || io::Error::from(io::ErrorKind::PermissionDenied);
        failed.into_iter().map(|channel| (channel, error())).collect()
    }

    fn receive(&mut self, most: usize) -> Vec<Arrival> {
        let most = most.min(self.arrivals.len());
        self.arrivals.drain(..most).collect()
    }

    fn send(&mut self, outgoing: Outgoing<'_>) -> io::Result<()> {
        if self.cannot_send {
            return Err(io::ErrorKind::HostUnreachable.into());
        }
        if !self.channels.contains(&outgoing.channel) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let what = match (outgoing.channel.kind, outgoing.channel.family) {
            (Kind::Heartbeats, _) => format!("heartbeat {}", outgoing.packet[7]),
            // The IPv4 header has 20 bytes.
            (Kind::Adverts, crate::config::vrrp::Family::Ipv4) => format!("advert {}", outgoing.packet[22]),
            (Kind::Adverts, crate::config::vrrp::Family::Ipv6) => format!("advert {}", outgoing.packet[2]),
        };
        self.log.write(format!("{what} to {} on {}", outgoing.destination, outgoing.channel.interface));
        self.packets.push(outgoing.packet.to_vec());
        Ok(())
    }

    fn announce(&mut self, targets: &[Target]) -> Vec<io::Result<()>> {
        for target in targets {
            self.write(format!("announce {}", target.address));
        }
        targets.iter().map(|_| Ok(())).collect()
    }

    fn want_guard(&mut self, wanted: bool, _: Duration) -> io::Result<()> {
        self.log.write(if wanted { "guard" } else { "no guard" }.to_owned());
        self.guard = wanted.then_some(true);
        Ok(())
    }

    fn is_guarded(&mut self) -> Option<bool> {
        self.guard
    }

    fn guard_ending(&mut self) -> Option<String> {
        (self.guard == Some(false)).then(|| "killed by signal 9".to_owned())
    }

    fn guard_warnings(&self) -> &[String] {
        &[]
    }

    fn plan(&mut self, plan: &Plan, _: Option<&OwnedFd>) -> io::Result<()> {
        self.plans.push(plan.clone());
        Ok(())
    }

    fn has_plan(&mut self) -> io::Result<bool> {
        if self.is_guard_late { Err(io::ErrorKind::TimedOut.into()) } else { Ok(!self.is_guard_stopped) }
    }

    fn mark(&mut self, instance: &str, is_master: bool) {
        if self.marks.insert(instance.to_owned(), is_master) != Some(is_master) {
            self.log.write(format!("mark {instance} {is_master}"));
        }
    }

    fn beat(&mut self, _: Instant) {
        self.beatless.0 = 0;
    }

    fn was_seized(&mut self) -> bool {
        match self.seize_after {
            Some(0) => {
                self.seize_after = None;
                true
            }
            Some(calls) => {
                self.seize_after = Some(calls - 1);
                false
            }
            None => false,
        }
    }
}
