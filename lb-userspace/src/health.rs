//! Health checks: which real servers answer.
//!
//! ```text
//! set of checks -> driver (own thread, tokio) -> probe::* -> fsm (rise, fall, retry) -> Report -> agent
//! ```

mod counterpart;
pub mod driver;
pub mod fsm;
pub mod probe;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::desired::{ServerId, ServiceId};

pub use counterpart::counterparts;
pub use driver::Health;

/// One check: which virtual server, which of its real servers, which of that one's checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckId {
    /// The virtual server.
    pub service: ServiceId,
    /// Address of the real server.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Position among its checks: of the configuration in force, since a reload may move it.
    pub index: u32,
}

impl CheckId {
    /// Whom it checks.
    pub const fn server(&self) -> ServerId {
        ServerId { service: self.service, address: self.address, port: self.port }
    }
}

/// What a check says of its server. Sent to the agent whenever that changes, and for the first result: that may be a
/// failure of a server that stays up, since `fall` is not reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The check.
    pub id: CheckId,
    /// Whether the server is up.
    pub is_up: bool,
    /// The weight that the check sets (script, file); `None` also while the server is down.
    pub weight: Option<u32>,
    /// The file probe: no new connections, the old ones go on. Not while the server is down.
    pub drain: bool,
    /// The last result in words, printable and short.
    pub detail: String,
    /// When the check had this result.
    pub at: Instant,
}

#[cfg(test)]
impl Report {
    /// For tests of what has no clock.
    pub fn sample(id: CheckId, is_up: bool, detail: &str) -> Self {
        Self { id, is_up, weight: None, drain: false, detail: detail.to_owned(), at: Instant::now() }
    }
}

/// Everything that is known of a check.
#[derive(Debug, Clone)]
pub struct State {
    /// `None` before the first result.
    pub is_up: Option<bool>,
    /// As in [`Report`].
    pub weight: Option<u32>,
    /// The last attempt's result in words; `None` before the first.
    pub detail: Option<String>,
    /// When [`Self::is_up`] last changed; before the first result, when the check was added.
    pub since: Instant,
    /// Checks (not attempts) that passed.
    pub passed: u64,
    /// Checks that failed.
    pub failed: u64,
    /// Time the last attempt took.
    pub last: Duration,
    /// Time all attempts took.
    pub sum: Duration,
}
