//! `[vrrp]`, `[[vrrp_instance]]` and what belongs to them: keepalived's words and defaults.

use std::{fmt, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::Command;

/// The most VRRP instances in one configuration.
pub const MAX_VRRP_INSTANCES: usize = 1024;
/// The most virtual and excluded addresses of one instance together.
pub const MAX_VRRP_ADDRESSES: usize = 1024;
/// The most scripts, processes, files and ports to track, of each kind.
pub const MAX_VRRP_TRACKED: usize = 1024;
/// The most addresses in an advert: its count has eight bits.
pub const MAX_ADVERTISED_ADDRESSES: usize = 255;

/// Everything about VRRP in the configuration. Names are unique within each list; what instances track exists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vrrp {
    /// `[vrrp]`.
    pub settings: VrrpSettings,
    /// `[[vrrp_instance]]`, at most [`MAX_VRRP_INSTANCES`].
    pub instances: Vec<VrrpInstance>,
    /// `[[vrrp_sync_group]]`.
    pub sync_groups: Vec<SyncGroup>,
    /// `[[vrrp_script]]`.
    pub scripts: Vec<VrrpScript>,
    /// `[[vrrp_track_process]]`.
    pub processes: Vec<TrackProcess>,
    /// `[[vrrp_track_file]]`.
    pub files: Vec<TrackFile>,
    /// `[[vrrp_track_port]]`.
    pub ports: Vec<TrackPort>,
}

/// `[vrrp]`: how the driver's thread runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VrrpSettings {
    /// `realtime_priority`: SCHED_FIFO priority of the driver's thread, 1 to 99; `None`: an ordinary thread.
    pub realtime_priority: Option<u8>,
    /// `lock_memory`: the agent's memory is never paged out.
    pub lock_memory: bool,
    /// `guard`: a small process gives the addresses up when the agent dies or hangs.
    pub guard: bool,
    /// `watchdog`: for how long the driver may be silent before the guard gives its addresses up, 50 ms to 1 h;
    /// [`Self::watchdog_for`] unless given.
    pub watchdog: Duration,
}

impl Default for VrrpSettings {
    fn default() -> Self {
        Self {
            realtime_priority: None,
            lock_memory: false,
            guard: true,
            watchdog: Duration::from_millis(500),
        }
    }
}

impl VrrpSettings {
    /// Twice the shortest interval between adverts, so that the guard acts before the other director takes over, but between
    /// 150 ms, which a busy machine may take to give a thread its turn, and 500 ms.
    pub fn watchdog_for(instances: &[VrrpInstance]) -> Duration {
        let shortest =
            instances.iter().map(|one| one.advert_interval).min().unwrap_or(Duration::from_secs(1));
        (2 * shortest).clamp(Duration::from_millis(150), Duration::from_millis(500))
    }
}

/// `version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// RFC 3768: IPv4, whole seconds.
    V2,
    /// RFC 9568 (and 5798): IPv4 and IPv6, hundredths of a second.
    V3,
}

/// IP version of an instance's adverts and addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// `[[vrrp_instance]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VrrpInstance {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// Where adverts are sent and heard.
    pub interface: String,
    /// That of [`Self::addresses`], which all have the same.
    pub family: Family,
    /// 2 or 3; 3 for IPv6.
    pub version: Version,
    /// 1 to 255; unique for each interface and family.
    pub virtual_router_id: u8,
    /// 1 to 255; 255 = the addresses' owner, whom tracking never changes.
    pub priority: u8,
    /// Version 2: 1 to 255 whole seconds. Version 3: 10 ms to 40.95 s in steps of 10 ms.
    pub advert_interval: Duration,
    /// `state = "MASTER"`: wants to be master at start, after the master-down time as keepalived does; for status only.
    pub initial_master: bool,
    /// A higher priority does not take over from a living master. Not with 255.
    pub nopreempt: bool,
    /// How long a master of lower priority is left alone.
    pub preempt_delay: Duration,
    /// How adverts are authenticated.
    pub authentication: Authentication,
    /// Which checksum version 3 IPv4 adverts are sent with; both are accepted.
    pub checksum: Checksum,
    /// `source_address` (`mcast_src_ip`, `unicast_src_ip`): `None`: the interface's first.
    pub source_address: Option<IpAddr>,
    /// Adverts go to these only; empty: to the multicast group.
    pub unicast_peers: Vec<UnicastPeer>,
    /// A unicast advert must come from one of the peers.
    pub check_unicast_source: bool,
    /// Adverts that differ in their address list from ours only in a repetition of the master's last one are not compared
    /// again (keepalived's `skip_check_adv_addr`).
    pub skip_check_adv_addr: bool,
    /// After a master's farewell (priority 0) a backup waits a 64th of `Skew_Time` only: nobody has to be outwaited but other
    /// backups, which are as near. False: all of it, as the RFCs have it.
    pub quick_release: bool,
    /// `addresses` (`virtual_ipaddress`), at least one. The first [`MAX_ADVERTISED_ADDRESSES`] at most are advertised: more
    /// are an error.
    pub addresses: Vec<VirtualAddress>,
    /// `excluded_addresses` (`virtual_ipaddress_excluded`): of any family, not advertised.
    pub excluded_addresses: Vec<VirtualAddress>,
    /// `routes` (`virtual_routes`).
    pub routes: Vec<VirtualRoute>,
    /// `rules` (`virtual_rules`).
    pub rules: Vec<VirtualRule>,
    /// `vmac`: the addresses are on a macvlan with the virtual router's MAC address; the macvlan's name.
    pub vmac: Option<String>,
    /// Gratuitous ARP and unsolicited neighbour advertisements.
    pub garp: Garp,
    /// Whether losing the instance's own interface does not matter (keepalived's `dont_track_primary`).
    pub dont_track_primary: bool,
    /// What moves the priority or makes it FAULT, in the file's order of kinds.
    pub tracks: Vec<Track>,
    /// Run on every change with `INSTANCE name STATE priority`.
    pub notify: Option<Command>,
    /// Run on becoming master, without further arguments, before [`Self::notify`].
    pub notify_master: Option<Command>,
    /// On becoming backup.
    pub notify_backup: Option<Command>,
    /// On a fault.
    pub notify_fault: Option<Command>,
    /// At the agent's end.
    pub notify_stop: Option<Command>,
    /// Mail on changes (`smtp_alert`). Needs `[mail]`.
    pub mail: bool,
    /// Heartbeats between two xdirectors; `None`: adverts only.
    pub fast_detection: Option<FastDetection>,
}

/// `fast_detection = { interval = "10ms", multiplier = 3 }`: the master sends heartbeats at this interval, and a backup that has
/// heard them takes over when this many are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FastDetection {
    /// 1 ms to 10 s.
    pub interval: Duration,
    /// 2 to 100.
    pub multiplier: u32,
}

/// `authentication`.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Authentication {
    /// None.
    #[default]
    None,
    /// `{ type = "pass", password = "..." }`: version 2; eight bytes in clear text, NUL-padded.
    Pass([u8; 8]),
    /// `{ type = "hmac", key_id = 1, key = "hex of 32 to 64 bytes", mode = "receive-only" | "permissive" | "enforce" }`: keepalived's
    /// `auth_hmac`, version 3.
    Hmac(HmacSettings),
}

impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Pass(_) => f.write_str("Pass(***)"),
            Self::Hmac(settings) => f.debug_tuple("Hmac").field(settings).finish(),
        }
    }
}

/// Keys and strictness of keepalived's `auth_hmac`.
#[derive(Clone, PartialEq, Eq)]
pub struct HmacSettings {
    /// Keys by number; the first is the one to send with. Never empty.
    pub keys: Vec<(u8, Vec<u8>)>,
    /// How strict.
    pub mode: HmacMode,
}

impl fmt::Debug for HmacSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<u8> = self.keys.iter().map(|(id, _)| *id).collect();
        f.debug_struct("HmacSettings").field("keys", &ids).field("mode", &self.mode).finish()
    }
}

/// How strict `auth_hmac` is, for a change of one machine after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HmacMode {
    /// Sends none, checks the trailers that come, accepts adverts without one.
    ReceiveOnly,
    /// Sends them, checks those that come, accepts adverts without one.
    Permissive,
    /// Sends them, and accepts nothing without one.
    Enforce,
}

/// Checksum of version 3 IPv4 adverts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// With a pseudo-header, as keepalived and FRR have it.
    #[default]
    PseudoHeader,
    /// Over the message only, as RFC 9568 has it.
    Rfc9568,
}

/// One of `unicast_peers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnicastPeer {
    /// Of the instance's family.
    pub address: IpAddr,
    /// Its adverts must have at least this TTL; `None`: any.
    pub min_ttl: Option<u8>,
    /// And at most this one.
    pub max_ttl: Option<u8>,
}

/// One of `addresses`: `"192.168.10.50/32"` or `{ address = "192.168.10.50/32", interface = "eth1", label = "eth1:1" }`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VirtualAddress {
    /// The address.
    pub address: IpAddr,
    /// Its prefix; 32 or 128 unless given.
    pub prefix: u8,
    /// On which interface; `None`: the instance's (or its macvlan).
    pub interface: Option<String>,
    /// Label of an IPv4 address.
    pub label: Option<String>,
}

/// One of `routes`: `{ to = "10.0.0.0/8", via = "192.168.1.1", interface = "eth1", table = 100, metric = 10, source = ... }`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VirtualRoute {
    /// Destination network; `0.0.0.0/0` or `::/0` = default.
    pub to: (IpAddr, u8),
    /// Gateway; this or [`Self::interface`] is given.
    pub via: Option<IpAddr>,
    /// Interface.
    pub interface: Option<String>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Routing table; `None`: main.
    pub table: Option<u32>,
    /// Metric.
    pub metric: Option<u32>,
}

/// One of `rules`: `{ from = "10.0.0.0/8", to = ..., table = 100, priority = 1000 }`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VirtualRule {
    /// Source network; this or [`Self::to`] is given, of one family.
    pub from: Option<(IpAddr, u8)>,
    /// Destination network.
    pub to: Option<(IpAddr, u8)>,
    /// Routing table to look in.
    pub table: u32,
    /// Priority of the rule; `None`: the kernel's choice.
    pub priority: Option<u32>,
}

/// Gratuitous ARP and unsolicited neighbour advertisements, with keepalived's meanings and defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Garp {
    /// `garp_master_repeat`: how many at once on becoming master.
    pub repeat: u32,
    /// `garp_master_delay`: when the second burst follows; zero: none.
    pub delay: Duration,
    /// `garp_master_refresh`: repeated for as long as it is master; zero: not.
    pub refresh: Duration,
    /// `garp_master_refresh_repeat`: how many then.
    pub refresh_repeat: u32,
    /// `garp_lower_prio_repeat`: how many after an advert of lower priority; as [`Self::repeat`] unless given.
    pub lower_prio_repeat: u32,
    /// `garp_lower_prio_delay`: when the second burst of those follows; as [`Self::delay`] unless given.
    pub lower_prio_delay: Duration,
    /// `garp_interval`: pause between two packets of a burst.
    pub interval: Duration,
}

impl Default for Garp {
    fn default() -> Self {
        Self {
            repeat: 5,
            delay: Duration::from_secs(5),
            refresh: Duration::ZERO,
            refresh_repeat: 1,
            lower_prio_repeat: 5,
            lower_prio_delay: Duration::from_secs(5),
            interval: Duration::ZERO,
        }
    }
}

/// By what a tracked thing is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrackKey {
    /// An interface, by name.
    Interface(String),
    /// A `[[vrrp_script]]`, by name.
    Script(String),
    /// A `[[vrrp_track_process]]`, by name.
    Process(String),
    /// A `[[vrrp_track_file]]`, by name.
    File(String),
    /// A `[[vrrp_track_port]]`, by name.
    Port(String),
    /// A virtual server, by name: up while it has its quorum.
    VirtualServer(String),
}

/// As messages and status name it: `script haproxy`.
impl fmt::Display for TrackKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match self {
            Self::Interface(name) => ("interface", name),
            Self::Script(name) => ("script", name),
            Self::Process(name) => ("process", name),
            Self::File(name) => ("file", name),
            Self::Port(name) => ("port", name),
            Self::VirtualServer(name) => ("virtual server", name),
        };
        write!(f, "{kind} {name}")
    }
}

/// One thing that an instance (or a sync group) tracks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// What.
    pub key: TrackKey,
    /// 0: its failure makes FAULT. Positive: added while it is up. Negative: added while it is down. -253 to 253. Of a file:
    /// its number is multiplied with it.
    pub weight: i32,
}

/// `[[vrrp_sync_group]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncGroup {
    /// As an instance's.
    pub name: String,
    /// At least one; an instance is in one group at most.
    pub instances: Vec<String>,
    /// Tracked for all of them. Weights only with [`Self::tracking_weight`].
    pub tracks: Vec<Track>,
    /// `sync_group_tracking_weight`: weights of tracked things are allowed and add to every member's priority.
    pub tracking_weight: bool,
    /// Run on every change with `GROUP name STATE priority` (priority 0).
    pub notify: Option<Command>,
    /// As an instance's.
    pub notify_master: Option<Command>,
    /// As an instance's.
    pub notify_backup: Option<Command>,
    /// As an instance's.
    pub notify_fault: Option<Command>,
    /// As an instance's.
    pub notify_stop: Option<Command>,
    /// Mail on changes.
    pub mail: bool,
}

/// `[[vrrp_script]]`: its exit code 0 is success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VrrpScript {
    /// As an instance's.
    pub name: String,
    /// The program and its arguments.
    pub command: Command,
    /// From the start of one run to the start of the next; 1 s unless given.
    pub interval: Duration,
    /// It fails when it takes longer; its process group is killed. As [`Self::interval`] unless given.
    pub timeout: Duration,
    /// Successes in a row until it is up; 1 unless given.
    pub rise: u32,
    /// Failures in a row until it is down; 1 unless given.
    pub fall: u32,
    /// The weight where whoever tracks it gives none.
    pub weight: i32,
    /// `user`: as whom it runs; `None`: `director.script_user`.
    pub user: Option<String>,
    /// `init_fail`: counts as down until its first success; else it is not known until its first result.
    pub init_fail: bool,
}

/// `[[vrrp_track_process]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackProcess {
    /// As an instance's.
    pub name: String,
    /// The program's name (`/proc/PID/comm`, or the base name of its first argument).
    pub process: String,
    /// At least so many must run; 1 unless given.
    pub quorum: u32,
    /// How often it is looked at; 1 s unless given.
    pub interval: Duration,
    /// The weight where whoever tracks it gives none.
    pub weight: i32,
}

/// `[[vrrp_track_file]]`: holds a number; with weight 0 anything but 0 is a failure, else number times weight is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackFile {
    /// As an instance's.
    pub name: String,
    /// Absolute path. A file that is not there counts as 0.
    pub file: String,
    /// How often it is read; 1 s unless given.
    pub interval: Duration,
    /// The weight where whoever tracks it gives none; 1 unless given.
    pub weight: i32,
}

/// `[[vrrp_track_port]]`: a TCP connection that must succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackPort {
    /// As an instance's.
    pub name: String,
    /// Where to connect.
    pub address: std::net::SocketAddr,
    /// From the start of one attempt to the start of the next; 1 s unless given.
    pub interval: Duration,
    /// It fails when it takes longer; 1 s unless given.
    pub timeout: Duration,
    /// As a script's.
    pub rise: u32,
    /// As a script's.
    pub fall: u32,
    /// The weight where whoever tracks it gives none.
    pub weight: i32,
}

impl HmacMode {
    /// Every choice, in the order in which messages and the reference name them.
    pub const ALL: &'static [Self] = &[Self::ReceiveOnly, Self::Permissive, Self::Enforce];

    /// The word in the configuration file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReceiveOnly => "receive-only",
            Self::Permissive => "permissive",
            Self::Enforce => "enforce",
        }
    }
}

impl Checksum {
    /// Every choice, in the order in which messages and the reference name them.
    pub const ALL: &'static [Self] = &[Self::PseudoHeader, Self::Rfc9568];

    /// The word in the configuration file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PseudoHeader => "pseudo-header",
            Self::Rfc9568 => "rfc9568",
        }
    }
}

impl Family {
    /// That of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V2 => "2",
            Self::V3 => "3",
        })
    }
}
