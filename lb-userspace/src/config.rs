//! The configuration: one TOML file in, a checked [`Config`] or every mistake at once out.
//!
//! The way of a file: text -> `syntax` (is it TOML?) -> `document` (typed reading that remembers where each
//! value stands) -> `validate` (the rules between values) -> [`Config`]. Nothing after this module needs to
//! doubt a value again. `docs/configuration.md` is the reference for the people who write the file.

use std::{
    collections::HashSet,
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use toml::de::{DeTable, DeValue};

pub mod check;
mod diagnostic;
mod document;
mod secret;
pub mod source;
mod syntax;
mod validate;
mod values;
pub mod vrrp;

pub use diagnostic::{ConfigErrors, Diagnostic, Severity};
pub use source::Source;

/// The most virtual servers in one configuration.
pub const MAX_VIRTUAL_SERVERS: usize = 16_384;
/// The most real servers in one configuration, over all virtual servers.
pub const MAX_REAL_SERVERS: usize = 4 * MAX_SERVERS_OF_A_VIRTUAL_SERVER;
/// The most real servers of one virtual server: the schedulers' tables hold positions of 16 bits.
pub const MAX_SERVERS_OF_A_VIRTUAL_SERVER: usize = 65_535;
/// The most real servers of one virtual server whose scheduler is `lc` or `wlc`, which look at each of them for
/// every new connection.
pub const MAX_LEAST_CONNECTION_SERVERS: usize = 256;
/// The most checks in one configuration, over all real servers.
pub const MAX_HEALTH_CHECKS: usize = 262_144;
/// The most checks of one real server.
pub const MAX_CHECKS_OF_A_SERVER: usize = 16;
/// The most interfaces of one director.
pub const MAX_INTERFACES: usize = 32;

/// Reads and checks the file at `path`. Gives the configuration and its warnings, or every mistake in it.
///
/// # Errors
/// [`ConfigErrors`] when the file cannot be read, is not UTF-8, is not TOML, or breaks a rule of the reference.
pub fn load(path: &Path) -> Result<(Config, Vec<Diagnostic>), ConfigErrors> {
    let name = path.display().to_string();
    parse(&name, &read(&name, path)?)
}

/// The same as [`load`], faster where little has changed since `last`, the configuration in force and its text. Also gives the
/// text for the next time, if it is of use.
///
/// # Errors
/// As [`load`].
pub fn load_after(
    path: &Path,
    last: Option<(&Config, &Source)>,
) -> Result<(Config, Vec<Diagnostic>, Option<Source>), ConfigErrors> {
    let name = path.display().to_string();
    source::parse_after(&name, read(&name, path)?, last)
}

fn read(name: &str, path: &Path) -> Result<String, ConfigErrors> {
    let bytes = fs::read(path).map_err(|error| ConfigErrors::unreadable(name, reason(&error)))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(ConfigErrors::not_utf8(name, line))
        }
    }
}

/// The same as [`load`] for a text at hand; `name` is the file name that the diagnostics show.
///
/// # Errors
/// [`ConfigErrors`] when the text is not TOML or breaks a rule of the reference.
pub fn parse(name: &str, text: &str) -> Result<(Config, Vec<Diagnostic>), ConfigErrors> {
    parse_beside(name, text, &HashSet::new())
}

/// The same as [`parse`] for a part of a file that has more virtual servers, whose names are `others`.
fn parse_beside(
    name: &str,
    text: &str,
    others: &HashSet<&str>,
) -> Result<(Config, Vec<Diagnostic>), ConfigErrors> {
    let mut report = document::Report::new(name, text);
    let (root, mistakes) = DeTable::parse_recoverable(text);
    let config = if mistakes.is_empty() {
        validate::config(document::Table::root(root.get_ref()), others, &mut report)
    } else {
        syntax::readable(&mut report).and_then(|source| {
            // `readable` has made sure that this parse finds nothing wrong.
            let (root, _) = DeTable::parse_recoverable(&source);
            validate::config(document::Table::root(root.get_ref()), others, &mut report)
        })
    };
    report.finish(config)
}

/// Reads a time as the configuration writes it, such as `90s`, `1h30m` or whole seconds, for the command line.
///
/// # Errors
/// What is wrong with it and what is expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = DeValue::String(if is_number { format!("{text}s").into() } else { text.into() });
    values::duration(&value).map_err(|problem| {
        let Diagnostic { message, expected, .. } = problem.at(Severity::Error, "", None, String::new(), None);
        expected.map_or_else(|| message.clone(), |expected| format!("{message}; expected {expected}"))
    })
}

/// A checked configuration. Lists keep the order of the file: the schedulers depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The machine and its data plane.
    pub director: Director,
    /// How long a connection is remembered after its last packet.
    pub timeouts: Timeouts,
    /// Where Prometheus finds the metrics; `None`: nowhere.
    pub metrics: Option<Metrics>,
    /// Who gets mail on changes; `None`: nobody.
    pub mail: Option<Mail>,
    /// Who has the virtual addresses.
    pub vrrp: vrrp::Vrrp,
    /// At most [`MAX_VIRTUAL_SERVERS`]; names and (address, port, protocol) are unique.
    pub virtual_servers: Vec<Arc<VirtualServer>>,
}

impl Config {
    /// Whether both have the same virtual servers with the same real and sorry servers, whatever else may differ.
    #[must_use]
    pub fn has_same_servers(&self, other: &Self) -> bool {
        self.virtual_servers.len() == other.virtual_servers.len()
            && self
                .virtual_servers
                .iter()
                .zip(&other.virtual_servers)
                .all(|(one, other)| Arc::ptr_eq(one, other) || one.has_same_servers(other))
    }

    /// Real servers with a check that goes through the data plane.
    #[must_use]
    pub fn servers_checked_through_dataplane(&self) -> usize {
        let servers = self.virtual_servers.iter().flat_map(|one| &one.real_servers);
        servers.filter(|one| one.is_checked_through_dataplane()).count()
    }
}

/// `[director]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Director {
    /// Tells several directors on one machine apart: 1 to 32 of `a-z 0-9 _ -`.
    pub instance: String,
    /// What this machine is called in messages; the host name unless given.
    pub router_id: String,
    /// What moves the packets.
    pub dataplane: Dataplane,
    /// 1 to [`MAX_INTERFACES`] interface names, each once; with [`Dataplane::Ipvs`] also none. They are valid names; they may not
    /// exist.
    pub interfaces: Vec<String>,
    /// How the XDP program is attached.
    pub xdp_mode: XdpMode,
    /// The size of the connection table, 1,024 to 16,777,216 entries.
    pub max_connections: u32,
    /// The user as whom scripts run (keepalived's `script_user`); `None`: as the agent.
    pub script_user: Option<String>,
}

/// `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metrics {
    /// Where `GET /metrics` is answered over plain HTTP.
    pub listen: SocketAddr,
}

/// `[mail]`: keepalived's `notification_email` and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Host name or address of the SMTP server.
    pub server: String,
    /// Its port; 25, 587 or 465 unless given, as [`Self::tls`] says.
    pub port: u16,
    /// Whether and how the connection is encrypted.
    pub tls: MailTls,
    /// Whether the server's certificate must be valid for its name.
    pub verify: bool,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// A mail address.
    pub from: String,
    /// 1 to 100 mail addresses.
    pub to: Vec<String>,
    /// User name and password, both or neither.
    pub login: Option<Login>,
}

/// User name and password; the password is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).field("password", &"***").finish()
    }
}

/// `[timeouts]`; each from one second to 31 days. The defaults are IPVS's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// An established TCP connection.
    pub tcp: Duration,
    /// A TCP connection that is being closed.
    pub tcp_fin: Duration,
    /// A UDP flow.
    pub udp: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp: Duration::from_secs(900),
            tcp_fin: Duration::from_secs(120),
            udp: Duration::from_secs(300),
        }
    }
}

/// `[[virtual_server]]`: one service that clients see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualServer {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// The address (VIP) that clients connect to: unicast, not loopback.
    pub address: IpAddr,
    /// In host byte order; 0 means every port of the address.
    pub port: u16,
    /// The protocol above IP.
    pub protocol: Protocol,
    /// The VRRP instance that must be master here for it to be served; `None`: it always is.
    pub bind_to: Option<String>,
    /// Who gets a new connection.
    pub scheduler: Scheduler,
    /// Only flags that [`Self::scheduler`] has can be set.
    pub scheduler_flags: SchedulerFlags,
    /// Whether a client's connections stay together; IPVS only.
    pub persistence: Option<Persistence>,
    /// Each datagram is scheduled alone (UDP, IPVS only).
    pub one_packet: bool,
    /// The weight of living servers below which the virtual server counts as down; 1 to 2,147,483,647.
    pub quorum: u32,
    /// It goes down below `quorum - hysteresis` and up again at `quorum + hysteresis`; less than [`Self::quorum`].
    pub hysteresis: u32,
    /// Run when the quorum is reached.
    pub quorum_up: Option<Command>,
    /// Run when the quorum is lost.
    pub quorum_down: Option<Command>,
    /// Takes all connections while the quorum is lost.
    pub sorry_server: Option<SorryServer>,
    /// Servers with checks begin as down, until their first check has passed (keepalived's `alpha`).
    pub alpha: bool,
    /// The scripts for "down" run when the agent is stopped for good (keepalived's `omega`).
    pub omega: bool,
    /// What becomes of connections of a server that is taken out of the file.
    pub on_remove: OnRemove,
    /// After this long a server that drains is removed with the connections it still has; `None`: never.
    pub drain_timeout: Option<Duration>,
    /// Connections of a server that failed or was removed end, and their clients' next attempts go to another one
    /// (IPVS's `expire_nodest_conn`); else they wait for it to come back.
    pub expire_nodest: bool,
    /// UDP flows leave a server as soon as it takes no new connections; else they stay until they are silent.
    pub expire_quiescent: bool,
    /// Mail when the quorum or a server changes. Needs `[mail]`.
    pub mail: bool,
    /// May be empty. In the order of the file; (address, port) is unique.
    pub real_servers: Vec<RealServer>,
}

impl VirtualServer {
    /// Whether both are the same service with the same real and sorry servers, whatever else may differ.
    #[must_use]
    pub fn has_same_servers(&self, other: &Self) -> bool {
        let key = |one: &RealServer| (one.address, one.port, one.forward);
        (self.address, self.port, self.protocol, self.sorry_server)
            == (other.address, other.port, other.protocol, other.sorry_server)
            && self.real_servers.iter().map(key).eq(other.real_servers.iter().map(key))
    }
}

/// `sorry_server`: who answers while the quorum is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SorryServer {
    /// As for a real server.
    pub address: IpAddr,
    /// As for a real server.
    pub port: u16,
    /// As for a real server.
    pub forward: Forward,
}

/// A program with its arguments, run without a shell: at least the program, which is an absolute path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Command(pub Vec<String>);

/// `[[virtual_server.real_server]]`: one machine behind a virtual server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealServer {
    /// Unicast, not loopback. Of the virtual server's family unless [`Self::forward`] is [`Forward::Tun`].
    pub address: IpAddr,
    /// In host byte order. Only [`Forward::Nat`] may differ from the virtual server's; 0 keeps the client's choice.
    pub port: u16,
    /// 0 to 65,535; 0 gets no new connections.
    pub weight: u32,
    /// How packets get there.
    pub forward: Forward,
    /// In what, with [`Forward::Tun`]; else [`Tunnel::IPIP`].
    pub tunnel: Tunnel,
    /// With this many connections, active and inactive, it gets no more; 0: no limit (IPVS's `u-threshold`).
    pub upper_threshold: u32,
    /// Below this many it gets connections again; 0: below three quarters of the upper one. At most that.
    pub lower_threshold: u32,
    /// What its failing checks do.
    pub on_failure: OnFailure,
    /// All of them must pass; those of the virtual server unless it has its own. Empty: always up. At most
    /// [`MAX_CHECKS_OF_A_SERVER`].
    pub health_checks: Vec<check::HealthCheck>,
    /// Run when it comes up.
    pub notify_up: Option<Command>,
    /// Run when it goes down.
    pub notify_down: Option<Command>,
}

impl RealServer {
    /// Whether any of its checks goes through the data plane.
    #[must_use]
    pub fn is_checked_through_dataplane(&self) -> bool {
        self.health_checks.iter().any(|check| check.via == check::Via::Dataplane)
    }
}

/// `scheduler_flags`: what a flag means is the same for `sh` and `mh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SchedulerFlags {
    /// `sh-port`, `mh-port`: the client's port is part of the hash.
    pub port: bool,
    /// `sh-fallback`, `mh-fallback`: take another server when the chosen one is unavailable.
    pub fallback: bool,
}

/// An enum whose variants are words of the configuration file.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub enum $name {
            $($(#[$what])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every choice, in the order in which messages and the reference name them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in the configuration file.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(self.as_str())
            }
        }
    };
}

words! {
    /// `director.dataplane`: what moves the packets.
    Dataplane {
        /// The XDP program.
        Xdp = "xdp",
        /// The kernel's IPVS.
        Ipvs = "ipvs",
        /// The XDP program where it can run, else the kernel's IPVS.
        Auto = "auto",
    }
}

words! {
    /// `director.xdp_mode`: how the XDP program is attached.
    XdpMode {
        /// Native where the driver can, else generic.
        Auto = "auto",
        /// In the driver, or not at all.
        Native = "native",
        /// In the kernel's network stack: slower, works on every interface.
        Generic = "generic",
    }
}

words! {
    /// `virtual_server.protocol`.
    Protocol {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
    }
}

words! {
    /// `virtual_server.scheduler`: the kernel's IPVS has the same ones under the same names.
    Scheduler {
        /// Round robin.
        Rr = "rr",
        /// Weighted round robin.
        Wrr = "wrr",
        /// Least connections.
        Lc = "lc",
        /// Weighted least connections.
        Wlc = "wlc",
        /// Source hashing.
        Sh = "sh",
        /// Maglev hashing.
        Mh = "mh",
        /// Destination hashing.
        Dh = "dh",
        /// Shortest expected delay.
        Sed = "sed",
        /// Never queue.
        Nq = "nq",
        /// Locality-based least connections.
        Lblc = "lblc",
        /// The same with replication.
        Lblcr = "lblcr",
        /// Weighted failover: the highest weight.
        Fo = "fo",
        /// Weighted overflow: the highest weight while it has fewer active connections than that.
        Ovf = "ovf",
        /// The better of two random choices.
        Twos = "twos",
    }
}

impl Scheduler {
    /// Whether the XDP data plane has it.
    #[must_use]
    pub const fn is_in_xdp(self) -> bool {
        matches!(self, Self::Rr | Self::Wrr | Self::Lc | Self::Wlc | Self::Sh | Self::Mh)
    }
}

words! {
    /// `tunnel.type`: in what a `forward = "tun"` server gets its packets.
    TunnelKind {
        /// IP in IP, or IPv6 in either.
        Ipip = "ipip",
        /// Generic UDP encapsulation.
        Gue = "gue",
        /// Generic routing encapsulation.
        Gre = "gre",
    }
}

words! {
    /// `tunnel.checksum`: of the outer header.
    TunnelChecksum {
        /// None.
        None = "none",
        /// One over the packet.
        Full = "full",
        /// GUE's remote checksum offload.
        Remote = "remote",
    }
}

/// How packets are wrapped for a server with [`Forward::Tun`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Tunnel {
    /// In what.
    pub kind: TunnelKind,
    /// UDP port of GUE; else 0.
    pub port: u16,
    /// Of GUE and GRE; else none.
    pub checksum: TunnelChecksum,
}

impl Tunnel {
    /// What XDP has, and the default.
    pub const IPIP: Self = Self { kind: TunnelKind::Ipip, port: 0, checksum: TunnelChecksum::None };
}

/// `persistence_timeout`, `persistence_granularity`: a client's connections go to the same server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Persistence {
    /// How long after the last of them began; whole seconds.
    pub timeout: Duration,
    /// So many bits of the address make a client: 1 to 32 or 128.
    pub prefix: u8,
}

words! {
    /// `forward`: how packets get to a real server.
    Forward {
        /// The destination address and port are rewritten; replies come back through the director.
        Nat = "nat",
        /// Direct routing: only the MAC address is rewritten; replies go straight to the client.
        Dr = "dr",
        /// The packet travels inside an IP tunnel; replies go straight to the client.
        Tun = "tun",
    }
}

words! {
    /// `on_failure`: what failing checks do to a real server.
    OnFailure {
        /// It is taken out (keepalived's default).
        Remove = "remove",
        /// Its weight becomes 0: no new connections, the old ones go on (keepalived's `inhibit_on_failure`).
        Inhibit = "inhibit",
    }
}

words! {
    /// `on_remove`: what becomes of connections of a server that is taken out of the file.
    OnRemove {
        /// They go on until they end.
        Drain = "drain",
        /// They end.
        Drop = "drop",
    }
}

words! {
    /// `mail.tls`.
    MailTls {
        /// Not encrypted.
        None = "none",
        /// Encrypted after a plain greeting (RFC 3207), or not at all.
        StartTls = "starttls",
        /// Encrypted from the beginning (RFC 8314).
        Tls = "tls",
    }
}

/// The kernel's words without the number that Rust adds: "No such file or directory".
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
