//! What the admin socket says, for the server that writes it and the client that reads it. docs/api.md describes
//! the same fields for other programs: change both together.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/status`: the whole director at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `director.instance` of the configuration.
    pub instance: String,
    /// `director.router_id` of the configuration.
    pub router_id: String,
    /// Version of the running binary, as `0.1.0`.
    pub version: String,
    /// Process id of the agent.
    pub pid: u32,
    /// Seconds since the agent started.
    pub uptime_seconds: u64,
    /// What moves the packets.
    pub dataplane: DataPlaneKind,
    /// Interfaces where packets come in, in the configuration's order.
    pub interfaces: Vec<InterfaceStatus>,
    /// How full the connection table is.
    pub connections: ConnectionTable,
    /// Sums over all virtual servers.
    pub totals: Totals,
    /// In the configuration's order.
    pub virtual_servers: Vec<VirtualServerStatus>,
    /// Packets per verdict of the data plane since it was loaded, by the verdict's name; zeros included.
    pub verdicts: BTreeMap<String, u64>,
}

/// The kinds of data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataPlaneKind {
    /// The XDP program.
    Xdp,
}

/// One interface that the data plane is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Name, as `eth0`.
    pub name: String,
    /// The kernel's index of the interface.
    pub ifindex: u32,
    /// How the program is attached.
    pub mode: XdpMode,
}

/// Where in the kernel's receive path the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver, before a socket buffer exists.
    Native,
    /// After the kernel allocated a socket buffer: works on every driver, much slower.
    Generic,
}

/// Fill of the connection table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionTable {
    /// Connections in the table now.
    pub entries: u64,
    /// The most it can hold.
    pub capacity: u64,
}

/// Sums over all virtual servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Active connections, counted as IPVS counts them.
    pub active: u64,
    /// All other connections still in the table.
    pub inactive: u64,
    /// Counters since the start.
    pub stats: Stats,
    /// The same, per second.
    pub rates: Rates,
}

/// One virtual server and what is behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VirtualServerStatus {
    /// Name in the configuration.
    pub name: String,
    /// Address and port, as `192.0.2.1:80` or `[2001:db8::1]:80`; port 0 = every port.
    pub address: SocketAddr,
    /// Protocol of its packets.
    pub protocol: Protocol,
    /// Scheduler, as `wrr`.
    pub scheduler: String,
    /// Its flags, as `sh-port`.
    pub scheduler_flags: Vec<String>,
    /// Active connections over all real servers.
    pub active: u64,
    /// Inactive connections over all real servers.
    pub inactive: u64,
    /// Counters since the virtual server was made.
    pub stats: Stats,
    /// The same, per second.
    pub rates: Rates,
    /// In the configuration's order.
    pub real_servers: Vec<RealServerStatus>,
}

/// One real server of one virtual server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RealServerStatus {
    /// Address and port that packets are sent to; port 0 = the port that the client asked for.
    pub address: SocketAddr,
    /// How packets get there.
    pub forward: Forward,
    /// Share of new connections; 0 = no new ones, the old ones go on.
    pub weight: u32,
    /// Whether it can be reached.
    pub state: RealServerState,
    /// Why the state is not `up`, for a person; null when it is.
    pub reason: Option<String>,
    /// Where its packets leave; null when there is no route.
    pub next_hop: Option<NextHop>,
    /// Active connections.
    pub active: u64,
    /// Inactive connections.
    pub inactive: u64,
    /// Counters since the real server was added.
    pub stats: Stats,
    /// The same, per second.
    pub rates: Rates,
}

/// Whether packets can be sent to a real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RealServerState {
    /// Its next hop is known.
    Up,
    /// The kernel has no usable route to it.
    NoRoute,
    /// There is a route; the next hop's MAC address has been asked for.
    Resolving,
    /// There is a route; the next hop does not answer ARP or neighbour discovery.
    NoNeighbour,
}

/// Where a real server's packets leave the director.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// Outgoing interface.
    pub interface: String,
    /// Router on the way; null when the real server is on the link.
    pub gateway: Option<IpAddr>,
    /// MAC address of the next hop, as `02:00:00:00:00:01`; null when it is not known.
    pub mac: Option<String>,
}

/// How packets reach a real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// Addresses and ports rewritten, both ways.
    Nat,
    /// Only the MAC address rewritten; answers bypass the director.
    Dr,
    /// Put into another IP packet; answers bypass the director.
    Tun,
}

/// Layer-4 protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, RFC 9293.
    Tcp,
    /// UDP, RFC 768.
    Udp,
}

/// Counters that only grow. Bytes are the lengths of IP packets, without the link's header, as IPVS counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients; 0 for DR and TUN, whose answers bypass the director.
    pub packets_out: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

/// [`Stats`] per second, smoothed as IPVS smooths them (see [`crate::rates`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Connections per second.
    pub connections: f64,
    /// Packets from clients per second.
    pub packets_in: f64,
    /// Packets to clients per second.
    pub packets_out: f64,
    /// Bytes (not bits) from clients per second.
    pub bytes_in: f64,
    /// Bytes (not bits) to clients per second.
    pub bytes_out: f64,
}

/// One element of the answer of `GET /v1/connections`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Protocol of the connection.
    pub protocol: Protocol,
    /// Seconds until it is forgotten if no packet comes.
    pub expires_seconds: u32,
    /// State in IPVS' words, as `ESTABLISHED`; `UDP` for UDP. Borrowed when the agent writes a million of them.
    pub state: Cow<'static, str>,
    /// The client.
    pub client: SocketAddr,
    /// The address and port that the client asked for.
    #[serde(rename = "virtual")]
    pub virtual_address: SocketAddr,
    /// The real server that has the connection.
    pub real: SocketAddr,
    /// How its packets are forwarded.
    pub forward: Forward,
}

/// Body of every answer that is not 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong, for a person.
    pub error: String,
}

impl fmt::Display for DataPlaneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Xdp => "xdp",
        })
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

impl fmt::Display for RealServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::NoRoute => "no-route",
            Self::Resolving => "resolving",
            Self::NoNeighbour => "no-neighbour",
        })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nat => "nat",
            Self::Dr => "dr",
            Self::Tun => "tun",
        })
    }
}

/// In capitals, as ipvsadm prints it.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}
