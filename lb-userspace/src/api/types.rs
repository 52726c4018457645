//! What the admin socket says, for the server that writes it and the client that reads it. docs/api.md describes
//! the same fields for other programs: change both together.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use super::vrrp::VrrpStatus;
use crate::config;

pub use super::order::{Action, Order};

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
    /// Why it is not XDP, though `dataplane = "auto"`; null otherwise.
    pub dataplane_reason: Option<String>,
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
    /// The configuration in force.
    pub configuration: ConfigurationStatus,
    /// Where the data plane outlives the agent.
    pub persistence: Persistence,
    /// Who has the virtual addresses; null without VRRP in the configuration.
    pub vrrp: Option<VrrpStatus>,
    /// What the agent has done and how long it took.
    pub work: Work,
}

/// The configuration in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationStatus {
    /// Its file.
    pub path: String,
    /// When it came into force: seconds since 1970-01-01 UTC.
    pub loaded_at: u64,
    /// The last reload that was asked for; null before the first.
    pub last_reload: Option<LastReload>,
}

/// How a reload ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReload {
    /// When: seconds since 1970-01-01 UTC.
    pub at: u64,
    /// Whether the file was taken.
    pub succeeded: bool,
    /// What changed, or why nothing did.
    pub message: String,
}

/// Where the data plane outlives the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// Directory of the pins in the BPF file system; null when nothing is pinned.
    pub pins: Option<String>,
    /// Why nothing is pinned; null when it is.
    pub reason: Option<String>,
    /// Whether this agent took over the data plane that an earlier one had left.
    pub adopted: bool,
}

/// What the agent has done since it started. Times are in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Reloads that changed the configuration, or could have.
    pub reloads_succeeded: u64,
    /// Reloads that were refused.
    pub reloads_failed: u64,
    /// Times the data plane was compared with what it should be.
    pub reconciles: u64,
    /// Time they took in all.
    pub reconcile_seconds_sum: f64,
    /// Time the last one took.
    pub reconcile_seconds_last: f64,
    /// Steps that changed the data plane.
    pub operations: u64,
    /// Steps that the kernel refused.
    pub operations_failed: u64,
    /// Steps that put right what somebody else had changed.
    pub repairs: u64,
    /// Scripts that were run on changes.
    pub notifications: u64,
    /// Scripts that failed or were ended.
    pub notifications_failed: u64,
    /// Mails that were sent.
    pub mails_sent: u64,
    /// Mails that were given up.
    pub mails_failed: u64,
}

/// The kinds of data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataPlaneKind {
    /// The XDP program.
    Xdp,
    /// The kernel's IPVS.
    Ipvs,
}

/// Body of `POST /v1/dataplane`, and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPlaneOrder {
    /// What should move the packets, or does now.
    pub dataplane: DataPlaneKind,
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
    /// The most it can hold; 0: as many as memory holds (IPVS).
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
    /// Whether enough of it is alive.
    pub quorum: QuorumStatus,
    /// Who answers while it is not; null without one.
    pub sorry_server: Option<SorryServerStatus>,
    /// The VRRP instance that it is bound to; null: none, it is always served.
    pub bound_to: Option<BoundTo>,
    /// In the configuration's order; then those that have been taken out of it and still have connections.
    pub real_servers: Vec<RealServerStatus>,
}

/// Whether enough real servers are alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuorumStatus {
    /// Whether the virtual server counts as up.
    pub up: bool,
    /// Weight of the living real servers.
    pub alive_weight: u64,
    /// Configured quorum.
    pub quorum: u32,
    /// Configured hysteresis.
    pub hysteresis: u32,
}

/// The sorry server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SorryServerStatus {
    /// Its address and port.
    pub address: SocketAddr,
    /// How packets get there.
    pub forward: Forward,
    /// Whether it answers now.
    pub active: bool,
}

/// The VRRP instance by which a virtual server is served or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundTo {
    /// Its name.
    pub instance: String,
    /// Whether the data plane serves the virtual server now: this director is the instance's master.
    pub served: bool,
}

/// One real server of one virtual server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RealServerStatus {
    /// Address and port that packets are sent to; port 0 = the port that the client asked for.
    pub address: SocketAddr,
    /// How packets get there.
    pub forward: Forward,
    /// Share of new connections now; 0 = no new ones, the old ones go on.
    pub weight: u32,
    /// The same in the configuration; null for a server that has been taken out of it.
    pub configured_weight: Option<u32>,
    /// What an operator has ordered; null for nothing.
    #[serde(rename = "override")]
    pub ordered: Option<Override>,
    /// Whether it serves, and if not, how that came.
    pub state: RealServerState,
    /// Seconds since the state last changed.
    pub since_seconds: u64,
    /// Its health checks, in the configuration's order.
    pub checks: Vec<CheckStatus>,
    /// Whether it has more connections than its thresholds allow.
    pub overloaded: bool,
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

/// What an operator has ordered for a real server; holds over reloads and restarts until it is lifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "action")]
pub enum Override {
    /// No new connections; the old ones go on.
    Drain {
        /// When it is taken out with the connections it still has: seconds since 1970-01-01 UTC; null: never.
        until: Option<u64>,
    },
    /// Taken out, as if a check had failed.
    Disable,
    /// Another weight than the configuration's.
    Weight {
        /// 0 to 65,535.
        weight: u32,
    },
}

/// One health check of a real server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckStatus {
    /// The type in the configuration, as `http`.
    pub kind: String,
    /// What it says of the server; null before its first result.
    pub up: Option<bool>,
    /// The last result in words, as `HTTP 503 for /health`; null before the first.
    pub detail: Option<String>,
    /// Seconds since [`Self::up`] last changed.
    pub since_seconds: u64,
    /// Checks that passed.
    pub passed: u64,
    /// Checks that failed.
    pub failed: u64,
    /// Time the last attempt took, in seconds.
    pub seconds_last: f64,
    /// Time all attempts took, in seconds.
    pub seconds_sum: f64,
    /// The weight that it sets; null when it sets none.
    pub weight: Option<u32>,
}

/// Whether a real server serves. The first that holds is shown, in this order: removed, disabled, drained, draining, down,
/// checking, no-route, no-neighbour, resolving, inhibited, up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RealServerState {
    /// Its checks pass and its next hop is known.
    Up,
    /// A check fails.
    Down,
    /// A check fails, and its weight is 0 for that.
    Inhibited,
    /// No check has had a result yet, and until then it counts as down (`alpha`).
    Checking,
    /// An operator or a check drains it; it still has connections.
    Draining,
    /// An operator or a check drains it; all its connections have ended.
    Drained,
    /// An operator has taken it out.
    Disabled,
    /// The configuration no longer has it; it still has connections.
    Removed,
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

/// Answer of `POST /v1/servers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// The real servers that it concerns, each with its virtual server.
    pub servers: Vec<OrderedServer>,
    /// Why the order will not survive a restart of the agent; null when it will.
    pub not_kept: Option<String>,
}

/// One real server that an order concerns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedServer {
    /// Name of the virtual server.
    pub virtual_server: String,
    /// The real server.
    pub address: SocketAddr,
    /// Connections that it has, active and inactive.
    pub connections: u64,
}

/// Answer of `POST /v1/reload` when the file was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Virtual servers that came, changed and went.
    pub added: usize,
    /// See [`Self::added`].
    pub changed: usize,
    /// See [`Self::added`].
    pub removed: usize,
    /// Warnings about the file, as `xdirector check` prints them.
    pub warnings: Vec<String>,
    /// Settings whose change needs a restart of the agent, in words.
    pub needs_restart: Vec<String>,
}

/// Body of `POST /v1/stop`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Also remove the data plane: packets are no longer forwarded.
    #[serde(default)]
    pub detach: bool,
}

/// One element of the answer of `GET /v1/events`: a change of state, oldest first; the last thousand are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEvent {
    /// When: seconds since 1970-01-01 UTC.
    pub at: u64,
    /// What it is about, as `web/192.168.1.101:80`.
    pub subject: String,
    /// What happened and why, as one line.
    pub text: String,
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
            Self::Ipvs => "ipvs",
        })
    }
}

impl Status {
    /// What moves the packets and where, as one line.
    #[must_use]
    pub fn data_plane(&self) -> String {
        match self.dataplane {
            DataPlaneKind::Xdp => {
                let one = |interface: &InterfaceStatus| format!("{} ({})", interface.name, interface.mode);
                format!("xdp on {}", self.interfaces.iter().map(one).collect::<Vec<_>>().join(", "))
            }
            DataPlaneKind::Ipvs => "ipvs of the kernel".to_owned(),
        }
    }
}

impl ConnectionTable {
    /// How many there are, of how many there may be.
    #[must_use]
    pub fn fill(&self) -> String {
        match self.capacity {
            0 => self.entries.to_string(),
            capacity => {
                let share = 100.0 * self.entries as f64 / capacity as f64;
                format!("{} of {capacity} ({share:.1}%)", self.entries)
            }
        }
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
            Self::Down => "down",
            Self::Inhibited => "inhibited",
            Self::Checking => "checking",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Disabled => "disabled",
            Self::Removed => "removed",
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

impl From<config::Protocol> for Protocol {
    fn from(protocol: config::Protocol) -> Self {
        match protocol {
            config::Protocol::Tcp => Self::Tcp,
            config::Protocol::Udp => Self::Udp,
        }
    }
}

impl From<Protocol> for config::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
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
