//! This machine's network, as the driver sees it: the kernel, sockets, the guard. What the other modules offer is used here and
//! nowhere else in the driver.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::poll::PollFlags;

use super::{
    burst::Target,
    heartbeat_socket::HeartbeatSocket,
    holdings::Thing,
    network::{Arrival, Channel, Kind, Network, Outgoing},
};
use crate::{
    config::vrrp::{VirtualAddress, VirtualRoute, VirtualRule},
    netif::{Announcer, Change, Interface, Kernel, Monitor, Received, VrrpSocket},
    vrrp::{
        guard::{Guard, Plan},
        packet::{self, Endpoints},
    },
};

/// The longest IP packet.
const LONGEST: usize = 65_535;

/// The real thing.
#[derive(Debug)]
pub struct System {
    kernel: Kernel,
    monitor: Monitor,
    announcer: Announcer,
    sockets: BTreeMap<Channel, ChannelSocket>,
    guard: Option<Guard>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
enum ChannelSocket {
    Adverts(VrrpSocket),
    Heartbeats(HeartbeatSocket),
}

impl System {
    /// Opens what it needs in any case.
    ///
    /// # Errors
    /// When a socket cannot be opened: which.
    pub fn open() -> io::Result<Self> {
        let with = |what: &'static str| {
            move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"))
        };
        Ok(Self {
            kernel: Kernel::open().map_err(with("no netlink socket"))?,
            monitor: Monitor::open().map_err(with("no netlink socket to hear of changes"))?,
            announcer: Announcer::open().map_err(with("no packet socket for gratuitous ARP"))?,
            sockets: BTreeMap::new(),
            guard: None,
            buffer: vec![0; LONGEST],
        })
    }

    /// Readable when there are changes.
    pub fn monitor(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }

    /// Readable when there are messages.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.values().map(|socket| match socket {
            ChannelSocket::Adverts(socket) => socket.as_fd(),
            ChannelSocket::Heartbeats(socket) => socket.as_fd(),
        })
    }

    /// Ready when there is an answer of the guard; `None`: it has been asked nothing.
    pub fn guard(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.guard.as_ref().and_then(Guard::waits)
    }
}

impl Network for System {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> Duration {
        // Before 1970 the clock is as good as unset.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        self.kernel.interfaces()
    }

    fn changes(&mut self) -> io::Result<Vec<Change>> {
        self.monitor.read()
    }

    fn add(&mut self, things: &[Thing]) -> Vec<io::Result<bool>> {
        let mut results = Vec::new();
        for run in runs(things) {
            match run {
                Run::Addresses(addresses) => results.extend(self.kernel.add_addresses(&addresses)),
                Run::Route(index, route) => results.push(self.kernel.add_route(index, route)),
                Run::Rules(rules) => results.extend(self.kernel.add_rules(&rules)),
            }
        }
        results
    }

    fn remove(&mut self, things: &[Thing]) -> Vec<io::Result<bool>> {
        let mut results = Vec::new();
        for run in runs(things) {
            match run {
                Run::Addresses(addresses) => results.extend(self.kernel.remove_addresses(&addresses)),
                Run::Route(index, route) => results.push(self.kernel.remove_route(index, route)),
                Run::Rules(rules) => results.extend(self.kernel.remove_rules(&rules)),
            }
        }
        results
    }

    fn add_macvlan(&mut self, parent: u32, name: &str, mac: [u8; 6]) -> io::Result<u32> {
        self.kernel.add_macvlan(parent, name, mac)
    }

    fn remove_macvlan(&mut self, name: &str) -> io::Result<bool> {
        self.kernel.remove_macvlan(name)
    }

    fn listen(&mut self, channels: &BTreeSet<Channel>) -> Vec<(Channel, io::Error)> {
        self.sockets.retain(|channel, _| channels.contains(channel));
        let mut failures = Vec::new();
        for channel in channels {
            if self.sockets.contains_key(channel) {
                continue;
            }
            let Channel { interface, family, kind } = *channel;
            let opened = match kind {
                Kind::Adverts => VrrpSocket::open(interface, family).map(ChannelSocket::Adverts),
                Kind::Heartbeats => HeartbeatSocket::open(interface, family).map(ChannelSocket::Heartbeats),
            };
            match opened {
                Ok(socket) => drop(self.sockets.insert(*channel, socket)),
                Err(error) => failures.push((*channel, error)),
            }
        }
        failures
    }

    fn receive(&mut self, most: usize) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        for (channel, socket) in &self.sockets {
            for _ in 0..most {
                let arrival = match socket {
                    ChannelSocket::Adverts(socket) => receive_advert(*channel, socket, &mut self.buffer),
                    ChannelSocket::Heartbeats(socket) => socket.receive(*channel, &mut self.buffer),
                };
                match arrival {
                    Ok(Some(Some(arrival))) => arrivals.push(arrival),
                    Ok(Some(None)) => {}
                    // An error is gone with being told; a socket that stays without use is closed when its interface is gone.
                    Ok(None) | Err(_) => break,
                }
            }
        }
        arrivals
    }

    fn send(&mut self, outgoing: Outgoing<'_>) -> io::Result<()> {
        let Outgoing { channel, source, destination, packet } = outgoing;
        match self.sockets.get(&channel) {
            Some(ChannelSocket::Adverts(socket)) => socket.send(packet, source, destination),
            Some(ChannelSocket::Heartbeats(socket)) => socket.send(packet, source, destination),
            None => Err(io::Error::new(io::ErrorKind::NotConnected, "its socket could not be opened")),
        }
    }

    fn announce(&mut self, targets: &[Target]) -> Vec<io::Result<()>> {
        self.announcer
            .announce_all(targets.iter().map(|target| (target.interface, target.mac, target.address)))
    }

    fn want_guard(&mut self, wanted: bool, limit: Duration) -> io::Result<()> {
        let lives = self.guard.as_mut().is_some_and(Guard::is_alive);
        if wanted && !lives {
            self.guard = Some(Guard::spawn()?);
        } else if !wanted && let Some(guard) = self.guard.take() {
            guard.dismiss(limit);
        }
        Ok(())
    }

    fn is_guarded(&mut self) -> Option<bool> {
        self.guard.as_mut().map(Guard::is_alive)
    }

    fn guard_ending(&mut self) -> Option<String> {
        self.guard.as_mut().and_then(Guard::ending)
    }

    fn guard_warnings(&self) -> &[String] {
        self.guard.as_ref().map_or(&[], Guard::warnings)
    }

    fn plan(&mut self, plan: &Plan, roles: Option<&OwnedFd>) -> io::Result<()> {
        self.guard.as_mut().map_or(Ok(()), |guard| guard.hand(plan, roles))
    }

    fn has_plan(&mut self) -> io::Result<bool> {
        self.guard.as_mut().map_or(Ok(true), Guard::answered)
    }

    fn mark(&mut self, instance: &str, is_master: bool) {
        if let Some(guard) = &self.guard {
            guard.set_master(instance, is_master);
        }
    }

    fn beat(&mut self, now: Instant) {
        if let Some(guard) = &self.guard {
            guard.beat(now);
        }
    }

    fn was_seized(&mut self) -> bool {
        self.guard.as_mut().is_some_and(Guard::was_seized)
    }
}

/// Things of a kind that follow each other.
#[derive(Debug, PartialEq)]
enum Run<'a> {
    Addresses(Vec<(u32, &'a VirtualAddress)>),
    Route(Option<u32>, &'a VirtualRoute),
    Rules(Vec<&'a VirtualRule>),
}

/// In their order, but together what the kernel does better together.
fn runs(things: &[Thing]) -> Vec<Run<'_>> {
    let mut runs = Vec::new();
    for thing in things {
        match (thing, runs.last_mut()) {
            (Thing::Address(index, address), Some(Run::Addresses(run))) => run.push((*index, address)),
            (Thing::Address(index, address), _) => runs.push(Run::Addresses(vec![(*index, address)])),
            (Thing::Route(index, route), _) => runs.push(Run::Route(*index, route)),
            (Thing::Rule(rule), Some(Run::Rules(run))) => run.push(rule),
            (Thing::Rule(rule), _) => runs.push(Run::Rules(vec![rule])),
        }
    }
    runs
}

/// `Some(None)`: something came that is no IP packet.
fn receive_advert(
    channel: Channel,
    socket: &VrrpSocket,
    buffer: &mut [u8],
) -> io::Result<Option<Option<Arrival>>> {
    let Some(received) = socket.recv(buffer)? else { return Ok(None) };
    Ok(Some(match received {
        Received::Ipv4 { packet } => packet::without_ipv4_header(packet).map(|(ttl, endpoints, message)| {
            let Endpoints { source, destination } = endpoints;
            Arrival { channel, source, destination, ttl, message: message.to_vec() }
        }),
        Received::Ipv6 { message, source, destination, hop_limit } => Some(Arrival {
            channel,
            source: IpAddr::V6(source),
            destination: IpAddr::V6(destination),
            ttl: hop_limit,
            message: message.to_vec(),
        }),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::driver::tests::address;

    #[test]
    fn addresses_and_rules_go_together_and_nothing_changes_its_place() {
        let addresses = ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"].map(address);
        let route = VirtualRoute {
            to: ("192.0.2.0".parse().unwrap(), 24),
            via: None,
            interface: None,
            source: None,
            table: None,
            metric: None,
        };
        let rules = [100, 101].map(|table| VirtualRule { from: None, to: None, table, priority: None });
        let things = [
            Thing::Address(2, addresses[0].clone()),
            Thing::Address(3, addresses[1].clone()),
            Thing::Route(None, route.clone()),
            Thing::Rule(rules[0].clone()),
            Thing::Rule(rules[1].clone()),
            Thing::Address(2, addresses[2].clone()),
        ];
        let expected = [
            Run::Addresses(vec![(2, &addresses[0]), (3, &addresses[1])]),
            Run::Route(None, &route),
            Run::Rules(vec![&rules[0], &rules[1]]),
            Run::Addresses(vec![(2, &addresses[2])]),
        ];
        assert_eq!(runs(&things), expected);
        assert_eq!(runs(&[]), []);
    }
}
