//! VRRP: which director has the virtual addresses.
//!
//! ```text
//!            adverts, heartbeats        tracks: scripts, ports, files, processes (own thread, tokio)
//!                  |                                    |
//!   netif monitor -+-> driver (own thread) <------------+-- agent: configuration, virtual servers, handover
//!                        |   fsm (pure)
//!                        +-> adverts, addresses, gratuitous ARP, the data plane's roles
//!                        +-> Report -> agent: log, events, scripts, mail
//!                        +-> guard (own process): gives the addresses up when the driver dies or hangs
//! ```

pub mod driver;
pub mod fsm;
pub mod guard;
pub mod packet;
pub mod track;

use std::time::Duration;

use crate::config::vrrp::TrackKey;

pub use driver::Vrrp;

/// The state of an instance or a sync group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Not started, or stopped (RFC 9568 6.4.1).
    Init,
    /// Listens for the master (6.4.2).
    Backup,
    /// Has the addresses and says so (6.4.3).
    Master,
    /// Something tracked has failed: takes part in nothing (keepalived).
    Fault,
}

impl State {
    /// keepalived's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Backup => "BACKUP",
            Self::Master => "MASTER",
            Self::Fault => "FAULT",
        }
    }
}

/// What is known of a tracked thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackValue {
    /// It works.
    Up,
    /// It does not.
    Down,
    /// The number in a file.
    Number(i64),
}

/// A tracked thing has changed, or is known for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// Which.
    pub key: TrackKey,
    /// How it is.
    pub value: TrackValue,
    /// In words, printable and short.
    pub detail: String,
}

/// What the agent hears from the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// An instance's state has changed.
    Instance {
        /// Its name.
        name: String,
        /// Before.
        from: State,
        /// Now.
        to: State,
        /// The priority it has now, as keepalived gives it to `notify`.
        priority: u8,
        /// Why, in words.
        reason: String,
        /// From the event that caused it until everything was done.
        took: Duration,
    },
    /// A sync group's state has changed; comes after those of its instances.
    Group {
        /// Its name.
        name: String,
        /// Now.
        to: State,
        /// Why.
        reason: String,
    },
    /// Something for the log and the events that is no change of state: adverts of a stranger, addresses put back, the guard
    /// gone. Already limited in rate.
    Notice {
        /// The instance's name, or what else it is about.
        subject: String,
        /// Whether it is bad.
        is_bad: bool,
        /// What.
        text: String,
    },
}
