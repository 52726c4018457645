//! This machine's network, as the driver sees it: the kernel, sockets, the guard. What the other modules offer is used here and
//! nowhere else in the driver.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    burst::Target,
    heartbeat_socket::HeartbeatSocket,
    holdings::Thing,
    network::{Arrival, Channel, Kind, Network, Outgoing},
};
use crate::{
    config::vrrp::VirtualAddress,
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
        let (addresses, others) = split(things);
        let mut results = self.kernel.add_addresses(&addresses);
        results.extend(others.iter().map(|thing| match thing {
            Thing::Address(index, address) => self.kernel.add_address(*index, address),
            Thing::Route(index, route) => self.kernel.add_route(*index, route),
            Thing::Rule(rule) => self.kernel.add_rule(rule),
        }));
        results
    }

    fn remove(&mut self, things: &[Thing]) -> Vec<io::Result<bool>> {
        let (addresses, others) = split(things);
        let mut results = self.kernel.remove_addresses(&addresses);
        results.extend(others.iter().map(|thing| match thing {
            Thing::Address(index, address) => self.kernel.remove_address(*index, address),
            Thing::Route(index, route) => self.kernel.remove_route(*index, route),
            Thing::Rule(rule) => self.kernel.remove_rule(rule),
        }));
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

    fn announce(&mut self, target: Target) -> io::Result<()> {
        self.announcer.announce(target.interface, target.mac, target.address)
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
        self.guard.as_mut().map_or(Ok(()), |guard| guard.set_plan(plan, roles))
    }

    fn mark(&mut self, position: usize, is_master: bool) {
        if let Some(guard) = &self.guard {
            guard.set_master(position, is_master);
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

/// The addresses, which come first, for a batch; and the others.
fn split(things: &[Thing]) -> (Vec<(u32, &VirtualAddress)>, &[Thing]) {
    let addresses: Vec<(u32, &VirtualAddress)> = things
        .iter()
        .map_while(|thing| match thing {
            Thing::Address(index, address) => Some((*index, address)),
            Thing::Route(..) | Thing::Rule(_) => None,
        })
        .collect();
    let others = &things[addresses.len()..];
    (addresses, others)
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
