//! The configuration: one TOML file in, a checked [`Config`] or every mistake at once out.
//!
//! The way of a file: text -> `syntax` (is it TOML?) -> `document` (typed reading that remembers where each
//! value stands) -> `validate` (the rules between values) -> [`Config`]. Nothing after this module needs to
//! doubt a value again. `docs/configuration.md` is the reference for the people who write the file.

use std::{fmt, fs, io, net::IpAddr, path::Path, time::Duration};

use serde::Serialize;
use toml::de::DeTable;

mod diagnostic;
mod document;
mod syntax;
mod validate;
mod values;

pub use diagnostic::{ConfigErrors, Diagnostic, Severity};

/// The most virtual servers in one configuration.
pub const MAX_VIRTUAL_SERVERS: usize = 16_384;
/// The most real servers in one configuration, over all virtual servers.
pub const MAX_REAL_SERVERS: usize = 65_535;
/// The most real servers of one virtual server whose scheduler is `lc` or `wlc`, which look at each of them for
/// every new connection.
pub const MAX_LEAST_CONNECTION_SERVERS: usize = 256;
/// The most interfaces of one director.
pub const MAX_INTERFACES: usize = 32;

/// Reads and checks the file at `path`. Gives the configuration and its warnings, or every mistake in it.
///
/// # Errors
/// [`ConfigErrors`] when the file cannot be read, is not UTF-8, is not TOML, or breaks a rule of the reference.
pub fn load(path: &Path) -> Result<(Config, Vec<Diagnostic>), ConfigErrors> {
    let name = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| ConfigErrors::unreadable(&name, reason(&error)))?;
    match String::from_utf8(bytes) {
        Ok(text) => parse(&name, &text),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(ConfigErrors::not_utf8(&name, line))
        }
    }
}

/// The same as [`load`] for a text at hand; `name` is the file name that the diagnostics show.
///
/// # Errors
/// [`ConfigErrors`] when the text is not TOML or breaks a rule of the reference.
pub fn parse(name: &str, text: &str) -> Result<(Config, Vec<Diagnostic>), ConfigErrors> {
    let mut report = document::Report::new(name, text);
    let config = syntax::readable(&mut report).and_then(|source| {
        // `readable` has made sure that this parse finds nothing wrong.
        let (root, _) = DeTable::parse_recoverable(&source);
        validate::config(document::Table::root(root.get_ref()), &mut report)
    });
    report.finish(config)
}

/// A checked configuration. Lists keep the order of the file: the schedulers depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The machine and its data plane.
    pub director: Director,
    /// How long a connection is remembered after its last packet.
    pub timeouts: Timeouts,
    /// At most [`MAX_VIRTUAL_SERVERS`]; names and (address, port, protocol) are unique.
    pub virtual_servers: Vec<VirtualServer>,
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
    /// 1 to [`MAX_INTERFACES`] interface names, each once. They are valid names; they may not exist.
    pub interfaces: Vec<String>,
    /// How the XDP program is attached.
    pub xdp_mode: XdpMode,
    /// The size of the connection table, 1,024 to 16,777,216 entries.
    pub max_connections: u32,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VirtualServer {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// The address (VIP) that clients connect to: unicast, not loopback.
    pub address: IpAddr,
    /// In host byte order; 0 means every port of the address.
    pub port: u16,
    /// The protocol above IP.
    pub protocol: Protocol,
    /// Who gets a new connection.
    pub scheduler: Scheduler,
    /// Only flags that [`Self::scheduler`] has can be set.
    pub scheduler_flags: SchedulerFlags,
    /// May be empty. In the order of the file; (address, port) is unique.
    pub real_servers: Vec<RealServer>,
}

/// `[[virtual_server.real_server]]`: one machine behind a virtual server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RealServer {
    /// Unicast, not loopback. Of the virtual server's family unless [`Self::forward`] is [`Forward::Tun`].
    pub address: IpAddr,
    /// In host byte order. Only [`Forward::Nat`] may differ from the virtual server's; 0 keeps the client's choice.
    pub port: u16,
    /// 0 to 65,535; 0 gets no new connections.
    pub weight: u32,
    /// How packets get there.
    pub forward: Forward,
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
    }
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

/// The kernel's words without the number that Rust adds: "No such file or directory".
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
