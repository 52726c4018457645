//! `health_check`: one check of a real server.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use serde::Serialize;

use super::Command;

/// The most memory that a compiled [`HttpRequest::regex`] takes, in bytes.
const MOST_REGEX_MEMORY: usize = 1 << 20;

/// Compiles [`HttpRequest::regex`]. That of a checked configuration cannot fail.
///
/// # Errors
/// When it is no regular expression, or would take more than a megabyte.
pub fn body_regex(pattern: &str) -> Result<regex::bytes::Regex, regex::Error> {
    regex::bytes::RegexBuilder::new(pattern)
        .size_limit(MOST_REGEX_MEMORY)
        .dfa_size_limit(MOST_REGEX_MEMORY)
        .build()
}

/// One check of one real server, complete: everything that may be inherited has been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked, and which answer is right.
    pub probe: Probe,
    /// From the beginning of one check to the beginning of the next, which waits for the end of the one before.
    pub interval: Duration,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Checks in a row that must pass before the server is up.
    pub rise: u32,
    /// Checks in a row that must fail before the server is down.
    pub fall: u32,
    /// While the server is up: attempts after the first one before a check has failed.
    pub retry: u32,
    /// The wait before each of them.
    pub delay_before_retry: Duration,
    /// The first check begins after a random time up to this.
    pub warmup: Duration,
    /// Where the check connects; the real server's address and port unless given. For [`Via::Dataplane`] the virtual
    /// server's. Port 0 only where none is needed: ping, script, file.
    pub connect: SocketAddr,
    /// From where, of the family of [`Self::connect`]; port 0: any.
    pub bind: Option<SocketAddr>,
    /// Firewall mark of its packets (`SO_MARK`); 0: none.
    pub fwmark: u32,
    /// Which way its packets take.
    pub via: Via,
}

/// Which way a check's packets take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// As any packets of this machine.
    Direct,
    /// To the virtual server, through the data plane, by way of this one real server. Never for ping, script and file.
    Dataplane,
}

impl Via {
    /// Every choice, in the order in which messages and the reference name them.
    pub const ALL: &'static [Self] = &[Self::Direct, Self::Dataplane];

    /// The word in the configuration file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Dataplane => "dataplane",
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A TCP connection.
    Tcp,
    /// HTTP/1.1 requests.
    Http(Http),
    /// A greeting and HELO (RFC 5321).
    Smtp {
        /// The name that the director gives of itself.
        helo: String,
    },
    /// A DNS query over UDP (RFC 1035); any answer with the right question and no error passes.
    Dns {
        /// The record type's name as `SOA`, in capitals.
        record: String,
        /// The name asked for.
        name: String,
    },
    /// One datagram.
    Udp {
        /// What is sent; may be empty.
        payload: Vec<u8>,
        /// The answer must begin with this; empty: any.
        expect: Vec<u8>,
        /// Whether silence fails. Else only the server's refusal (ICMP) does, or a wrong answer.
        require_reply: bool,
    },
    /// ICMP echo.
    Ping,
    /// A program; 0 passes.
    Script {
        /// The program.
        command: Command,
        /// Exit codes 2 to 255 pass and set the weight to the code less 2 (keepalived's `misc_dynamic`).
        dynamic: bool,
    },
    /// A file's content.
    File {
        /// The file. Its first line is a weight, `up`, or `down` (`0` and `drain`: no new connections). No file: up.
        path: PathBuf,
    },
}

impl Probe {
    /// Whether it can set the server's weight.
    pub const fn sets_weight(&self) -> bool {
        matches!(self, Self::Script { dynamic: true, .. } | Self::File { .. })
    }

    /// The words of `type`, in the order in which messages and the reference name them.
    pub const TYPES: &'static [&'static str] =
        &["tcp", "http", "https", "smtp", "dns", "udp", "ping", "script", "file"];

    /// The word of `type` in the configuration file, one of [`Self::TYPES`].
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http(Http { tls: None, .. }) => "http",
            Self::Http(Http { tls: Some(_), .. }) => "https",
            Self::Smtp { .. } => "smtp",
            Self::Dns { .. } => "dns",
            Self::Udp { .. } => "udp",
            Self::Ping => "ping",
            Self::Script { .. } => "script",
            Self::File { .. } => "file",
        }
    }
}

/// HTTP requests that are made one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// TLS; `None` for plain HTTP.
    pub tls: Option<Tls>,
    /// 1 to 32.
    pub requests: Vec<HttpRequest>,
}

/// How an HTTPS check trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Server name of the handshake; `None` sends none.
    pub sni: Option<String>,
    /// Whether the certificate must be valid for [`Self::sni`], or for the address without one.
    pub verify: bool,
}

/// One request and the answer that it must get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// Path and query, beginning with `/`.
    pub path: String,
    /// `GET`, `HEAD`, `OPTIONS` or `POST`.
    pub method: String,
    /// `Host` header; `None`: the address and port that the check connects to.
    pub host: Option<String>,
    /// More headers, in order; no name twice, and none that the check writes itself.
    pub headers: Vec<(String, String)>,
    /// Status codes that are right, at least one range.
    pub status: Vec<RangeInclusive<u16>>,
    /// MD5 of the body as keepalived's `genhash` makes it.
    pub md5: Option<[u8; 16]>,
    /// Must match somewhere in the body; [`body_regex`] compiles it.
    pub regex: Option<String>,
}

impl HealthCheck {
    /// The host part of [`Self::connect`].
    #[must_use]
    pub fn host(&self) -> IpAddr {
        self.connect.ip()
    }
}
