//! What the admin interface says of VRRP.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/vrrp`, and part of `GET /v1/status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VrrpStatus {
    /// In the configuration's order.
    pub instances: Vec<VrrpInstanceStatus>,
    /// In the configuration's order.
    pub groups: Vec<VrrpGroupStatus>,
    /// What instances and groups track, as far as it is known.
    pub tracked: Vec<TrackedStatus>,
    /// Adverts on the instances' interfaces that are for none of them.
    pub unknown_vrid: u64,
    /// Whether the guard runs that gives the addresses up when the agent dies; null: it is not wanted.
    pub guard: Option<bool>,
    /// What the driver could not do for itself, such as real-time priority, for a person.
    pub warnings: Vec<String>,
    /// The longest time by which the driver was late since it started, in seconds.
    pub longest_delay_seconds: f64,
}

/// One VRRP instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VrrpInstanceStatus {
    /// Name in the configuration.
    pub name: String,
    /// `INIT`, `BACKUP`, `MASTER` or `FAULT`.
    pub state: String,
    /// Seconds since the state last changed.
    pub since_seconds: u64,
    /// Why it did, for a person.
    pub reason: String,
    /// Where adverts are sent and heard.
    pub interface: String,
    /// Virtual router id.
    pub virtual_router_id: u8,
    /// Version of the protocol, 2 or 3.
    pub version: u8,
    /// The master's address, this director's own while it is master; null: none has been heard.
    pub master: Option<IpAddr>,
    /// The priority in the master's last advert; null: none has been heard.
    pub master_priority: Option<u8>,
    /// The interval between two of the master's adverts, in seconds.
    pub advert_interval_seconds: f64,
    /// Configured priority.
    pub priority: u8,
    /// The same with what tracked things add and take away.
    pub effective_priority: u8,
    /// What they add or take away.
    pub weights: Vec<VrrpWeight>,
    /// What makes it FAULT, for a person.
    pub faults: Vec<String>,
    /// An operator has had it give up (`xdirector vrrp handover`).
    pub handed_over: bool,
    /// The address that its adverts come from; null: its interface has none.
    pub source: Option<IpAddr>,
    /// The virtual addresses, each with its prefix.
    pub addresses: Vec<String>,
    /// Adverts sent.
    pub sent: u64,
    /// Of these with priority 0, which give up.
    pub sent_zero: u64,
    /// Adverts that could not be sent.
    pub send_errors: u64,
    /// Adverts received and found right.
    pub received: u64,
    /// Of these with priority 0.
    pub received_zero: u64,
    /// Adverts thrown away, by the reason's name.
    pub discarded: BTreeMap<String, u64>,
    /// Version 3 adverts over IPv4 that were received with each kind of checksum.
    pub checksums: VrrpChecksums,
    /// Gratuitous ARPs and neighbour advertisements sent.
    pub announced: u64,
    /// Addresses that were put back after somebody else had removed them.
    pub restored: u64,
    /// Times it became master.
    pub became_master: u64,
    /// Times it gave up being master.
    pub released_master: u64,
}

/// Received adverts by their checksum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrrpChecksums {
    /// With a pseudo-header, as keepalived and FRR send them.
    pub pseudo_header: u64,
    /// Over the message only (RFC 9568).
    pub rfc9568: u64,
}

/// What a tracked thing does to an instance's priority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrrpWeight {
    /// The thing, as `script haproxy`.
    pub track: String,
    /// What it adds.
    pub weight: i32,
}

/// One sync group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrrpGroupStatus {
    /// Name in the configuration.
    pub name: String,
    /// As an instance's.
    pub state: String,
    /// Its instances.
    pub instances: Vec<String>,
}

/// A tracked thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackedStatus {
    /// What, as `script haproxy`.
    pub track: String,
    /// Whether it works; null for a file's number.
    pub up: Option<bool>,
    /// The number in a file; null for everything else.
    pub number: Option<i64>,
    /// In words, such as `exit code 1`.
    pub detail: String,
}

/// Body of `POST /v1/vrrp/handover` and `POST /v1/vrrp/resume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VrrpOrder {
    /// Name of the instance; its sync group goes with it.
    pub instance: String,
}
