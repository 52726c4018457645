//! This machine's addresses, routes, rules and macvlans, and telling the network of them.
//!
//! Blocking and without tokio: it serves the VRRP driver's thread and the guard, where a request to the kernel takes
//! microseconds and nothing else may come in between.
//!
//! ```text
//!  Kernel      requests over NETLINK_ROUTE, each acknowledged (kernel, macvlan: what; message: as bytes; nl: the socket)
//!  Monitor     NETLINK_ROUTE's notifications, never blocks
//!  Announcer   gratuitous ARP, unsolicited neighbour advertisements (announce; frame: as bytes)
//!  VrrpSocket  adverts in and out (vrrp_socket)
//! ```
//!
//! All of them belong to the network namespace in which they were opened.

use std::net::IpAddr;

use crate::nl::{error, message as netlink, request};

mod announce;
mod frame;
mod kernel;
mod link;
mod macvlan;
mod message;
mod monitor;
mod vrrp_socket;

pub use crate::nl::error::os_code;
pub use announce::Announcer;
pub use frame::{arp_frame, na_frame};
pub use kernel::Kernel;
pub use message::ROUTE_PROTOCOL;
pub use monitor::{Change, Monitor};
pub use vrrp_socket::{Received, VrrpSocket};

/// An interface as the kernel has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Six bytes, where it has such an address that is not all zeroes.
    pub mac: Option<[u8; 6]>,
    /// `IFF_UP` and `IFF_LOWER_UP` (carrier), and `IFF_RUNNING`.
    pub is_running: bool,
    /// Its addresses with their prefix, in the kernel's order (the first IPv4 one is its primary; IPv6 ones that are tentative
    /// or failed detection are left out).
    pub addresses: Vec<(IpAddr, u8)>,
}
