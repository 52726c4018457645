//! The way of health checks through the data plane.
//!
//! ```text
//!  probe namespace                          director
//!  socket S:61000.. -> VIP:port --- veth ---[XDP]--- like any client's packets ---> real server N
//!                   <--------------------- [XDP] <--- answer to S, on the interface where it arrives
//! ```
//!
//! S is the director's own address towards the real server. Before a socket connects its connection is entered into the
//! table: the forward place leads to N, whatever the scheduler says, and a reverse place leads the answers to the veth. They
//! are keyed as NAT does it; DR and TUN have a reverse place for checks only, since their answers come from the
//! virtual server's address, to S.

mod ethtool;
mod namespace;
mod plane;

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use lb_common::{
    Addr, FlowKey, Port,
    conn::{Connection, Direction, Meta, NONE, State},
    ip_proto,
    server::{Forwarding, Macs, Server},
};
use socket2::{Socket, Type};

use super::{conntable::Memory, keeper::Sweeper, mapped::Mapped, tables};
use crate::{
    desired::ServerId,
    health::probe::path::{Opened, Path},
};
pub use namespace::{Namespace, Veth};

/// Source ports of checks: above those that the machine's own connections get.
const PORTS: std::ops::RangeInclusive<u16> = 61_000..=65_535;
/// How many ports in a row may be taken.
const TRIES: usize = 64;
/// How long a connection's places stay after its attempt: its last segments are still on their way.
const LINGER: Duration = Duration::from_secs(3);

/// The way. One for the agent's life; the data plane behind it changes.
#[derive(Debug)]
pub struct CheckPath {
    state: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    plane: Option<Ends>,
    namespace: Result<Arc<Namespace>, String>,
    numbers: BTreeMap<ServerId, u32>,
    /// This machine's own addresses by interface, without virtual ones.
    own: Vec<(u32, IpAddr)>,
    next_port: u16,
    /// Attempts that have ended, the oldest first.
    ended: VecDeque<(Instant, FlowKey)>,
}

/// What of a data plane the way needs.
#[derive(Clone)]
pub struct Ends {
    pub(super) memory: Arc<Memory>,
    pub(super) servers: Arc<Mapped<Server>>,
    pub(super) sweeper: Arc<Mutex<Sweeper>>,
}

impl std::fmt::Debug for Ends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ends")
    }
}

impl Default for CheckPath {
    fn default() -> Self {
        let namespace = Err("not begun yet".to_owned());
        let state = Shared {
            plane: None,
            namespace,
            numbers: BTreeMap::new(),
            own: Vec::new(),
            next_port: *PORTS.start(),
            ended: VecDeque::new(),
        };
        Self { state: Mutex::new(state) }
    }
}

impl CheckPath {
    /// Makes the probe namespace if there is none; else gives the one that is there. Its veth is to be taken by the data plane.
    ///
    /// # Errors
    /// When that is not permitted; checks then fail with this reason.
    pub async fn namespace(&self, instance: &str) -> Result<Arc<Namespace>, String> {
        if let Ok(there) = &self.lock().namespace {
            return Ok(Arc::clone(there));
        }
        let made = Namespace::make(instance).await.map(Arc::new);
        let made = made.map_err(|error| format!("cannot make the probe namespace: {error:#}"));
        self.lock().namespace.clone_from(&made);
        made
    }

    /// No check goes this way any more: the namespace goes.
    pub fn close(&self) {
        let mut state = self.lock();
        state.namespace = Err("no longer wanted".to_owned());
        state.numbers.clear();
    }

    /// Why no check gets through.
    pub fn fail(&self, reason: String) {
        self.lock().namespace = Err(reason);
    }

    /// The data plane through which checks go from now on.
    pub fn follow(&self, plane: Ends) {
        self.lock().plane = Some(plane);
    }

    /// The entries by which real servers are reached.
    pub fn set_numbers(&self, numbers: BTreeMap<ServerId, u32>) {
        self.lock().numbers = numbers;
    }

    /// This machine's addresses by interface, without virtual ones: where the kernel prefers one of those as the source of packets
    /// to a real server, another one is taken.
    pub fn set_own_addresses(&self, own: Vec<(u32, IpAddr)>) {
        self.lock().own = own;
    }

    /// Removes the connections of attempts that have ended a moment ago.
    pub fn tidy(&self) {
        self.lock().tidy(Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Path for Arc<CheckPath> {
    fn open(
        &self,
        server: &ServerId,
        connect: SocketAddr,
        bind: Option<SocketAddr>,
        kind: Type,
    ) -> Result<Opened, String> {
        let (socket, key) = self.lock().open(server, connect, bind, kind)?;
        Ok(Opened { socket, hold: Box::new(Hold { path: Arc::clone(self), key }) })
    }
}

/// A connection in the table.
struct Hold {
    path: Arc<CheckPath>,
    key: FlowKey,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.path.lock().ended.push_back((Instant::now(), self.key));
    }
}

impl Shared {
    fn open(
        &mut self,
        id: &ServerId,
        connect: SocketAddr,
        bind: Option<SocketAddr>,
        kind: Type,
    ) -> Result<(Socket, FlowKey), String> {
        self.tidy(Instant::now());
        let namespace = Arc::clone(self.namespace.as_ref().map_err(Clone::clone)?);
        let plane = self.plane.clone().ok_or("the data plane is not there yet")?;
        let number = *self.numbers.get(id).ok_or("the data plane has no room for the check")?;
        let server = tables::in_use(&plane.servers, number).ok_or("the data plane does not know it")?;
        let source = source(&server, connect, bind, &self.own)?;
        namespace.take_address(source).map_err(|error| format!("{error:#}"))?;
        let now = plane.sweeper.lock().unwrap_or_else(PoisonError::into_inner).now();
        let now = now.map_err(|error| format!("{error:#}"))?;
        let proto = if kind == Type::STREAM { ip_proto::TCP } else { ip_proto::UDP };
        let wanted_port = bind.map_or(0, |bind| bind.port());
        for _ in 0..TRIES {
            let port = if wanted_port == 0 { self.port() } else { wanted_port };
            let from = SocketAddr::new(source, port);
            let (forward, reverse) = keys(&server, from, connect, proto);
            if wanted_port != 0 {
                // That of the last attempt may still be there.
                plane.memory.end_flow(&forward);
                self.ended.retain(|(_, key)| *key != forward);
            }
            if plane.memory.find(&forward).is_some() || plane.memory.find(&reverse).is_some() {
                continue;
            }
            let socket = match namespace.socket(from, kind) {
                Ok(socket) => socket,
                Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) && wanted_port == 0 => continue,
                Err(error) => return Err(format!("{from}: {error}")),
            };
            let places = places(namespace.veth, number, (forward, reverse), now);
            plane.memory.enter(places.0, Some(places.1)).ok_or("the connection table is full")?;
            return Ok((socket, forward));
        }
        Err("no free source port".to_owned())
    }

    fn port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = if port == *PORTS.end() { *PORTS.start() } else { port + 1 };
        port
    }

    fn tidy(&mut self, now: Instant) {
        let Some(plane) = &self.plane else { return };
        while let Some((_, key)) = self.ended.pop_front_if(|(since, _)| now.duration_since(*since) >= LINGER)
        {
            plane.memory.end_flow(&key);
        }
    }
}

/// The address that is asked for, or the director's own towards the server. The kernel may prefer one that will not do: a virtual
/// address that this machine has (the newest one of IPv6), or for tunnels one of the other family; then another of its own.
fn source(
    server: &Server,
    connect: SocketAddr,
    bind: Option<SocketAddr>,
    own: &[(u32, IpAddr)],
) -> Result<IpAddr, String> {
    if let Some(asked) = bind.map(|bind| bind.ip()).filter(|address| !address.is_unspecified()) {
        return Ok(asked);
    }
    if server.tunnel_source == Addr::default() {
        return Err("no way to it is known yet".to_owned());
    }
    let towards = server.tunnel_source.to_ip();
    let is_right = |address: IpAddr| address.is_ipv4() == connect.is_ipv4() && address != connect.ip();
    let link = server.next_hop.ifindex;
    let others = own.iter().filter(|(_, address)| is_right(*address));
    let other = || others.min_by_key(|(index, _)| *index != link).map(|(_, address)| *address);
    Some(towards).filter(|address| is_right(*address)).or_else(other).ok_or_else(|| {
        format!(
            "this machine has no address of its own for packets to {}: give the check a bind_address",
            connect.ip()
        )
    })
}

/// The flow to the virtual server, and that of the answers as they come from the real server.
fn keys(server: &Server, from: SocketAddr, connect: SocketAddr, proto: u8) -> (FlowKey, FlowKey) {
    let forward = FlowKey {
        src: Addr::from_ip(from.ip()),
        dst: Addr::from_ip(connect.ip()),
        sport: Port::from_number(from.port()),
        dport: Port::from_number(connect.port()),
        proto: proto.into(),
    };
    let mut reverse = forward.reversed();
    if server.forwarding == Forwarding::Nat as u8 {
        reverse.src = server.addr;
        if !server.port.is_any() {
            reverse.sport = server.port;
        }
    }
    (forward, reverse)
}

/// What is entered into the table.
fn places(
    veth: Veth,
    number: u32,
    (forward, reverse): (FlowKey, FlowKey),
    now: u32,
) -> (Connection, Connection) {
    // The first segment makes SYN_RECV of it, as of any connection.
    let state = if forward.proto == u32::from(ip_proto::TCP) { State::None } else { State::Udp };
    // As the frames from there have them.
    let macs = Macs::new(veth.outer_mac, veth.inner_mac);
    let [a, b] = macs.source();
    let place = |key: FlowKey, direction: Direction, way: [u32; 3]| Connection {
        src: key.src,
        dst: key.dst,
        sport: key.sport,
        dport: key.dport,
        meta: Meta::new(key.proto as u8, direction, false, veth.link),
        word: state as u32,
        last_seen: now,
        server: number,
        way,
    };
    (
        place(forward, Direction::Forward, [NONE, a, b]),
        place(reverse, Direction::Reverse, macs.turned().words()),
    )
}

impl Ends {
    /// Enters the connection of one check into the table; `from` is where it comes from, by way of `veth`.
    ///
    /// # Errors
    /// When there is no such server, or no room.
    pub(super) fn enter(
        &self,
        number: u32,
        from: SocketAddr,
        connect: SocketAddr,
        proto: u8,
        veth: Veth,
    ) -> anyhow::Result<()> {
        let server = tables::in_use(&self.servers, number).context("no such server")?;
        let now = self.sweeper.lock().unwrap_or_else(PoisonError::into_inner).now()?;
        let (forward, reverse) = places(veth, number, keys(&server, from, connect, proto), now);
        self.memory.enter(forward, Some(reverse)).context("the connection table is full")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
