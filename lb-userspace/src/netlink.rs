//! Next hops: how a frame reaches an address, as the kernel's rules, routes, links and neighbours say.
//!
//! An XDP program that forwards a frame itself needs everything the kernel would have looked up: the
//! interface, both MAC addresses, the VLAN tags, the MTU. [`Watcher`] resolves a set of addresses and reports
//! each one again whenever its answer changes.
//!
//! ```text
//!  target -> RTM_GETROUTE -> device, gateway, source, MTU
//!                              |        |
//!      RTM_GETLINK <-----------+        +--------> RTM_GETNEIGH (device, gateway or target)
//!   VLAN devices down to                           usable: its MAC
//!   the one that sends                             missing or failed: ask (NTF_USE), report why not
//! ```
//!
//! The lookup is the one for locally made packets without a mark, so policy rules are honoured as far as they
//! do not look at the incoming interface, the mark or the source. Of a multipath route the kernel's choice for
//! that destination is taken. A target in a VRF's own table is not found.
//!
//! Forwarded XDP traffic does not refresh the kernel's neighbour entries. The watcher asks the kernel to
//! confirm a stale entry as long as a target needs it, and leaves nothing permanent behind.

use std::{fmt, io, net::IpAddr, sync::Arc};

mod event;
mod kernel;
mod link;
mod neighbour;
mod pace;
mod route;
mod watcher;

pub use link::{Link, VlanLink};
pub use pace::Timing;
pub use watcher::{Watcher, WatcherHandle};

/// The answer for one address changed (or is the first one).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The address that was asked for.
    pub target: IpAddr,
    /// How to reach it now, or why that is not known.
    pub resolution: Resolution,
}

/// How to reach an address, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Frames can be sent. Shared, since thousands of addresses may be behind one router.
    Resolved(Arc<NextHop>),
    /// Frames cannot be sent. Shared too, and so no larger than the other.
    Unresolved(Arc<Reason>),
}

impl Resolution {
    /// Frames cannot be sent, for this reason.
    pub fn unresolved(reason: Reason) -> Self {
        Self::Unresolved(Arc::new(reason))
    }

    /// Whether the kernel is still asking for the neighbour.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Unresolved(reason) if matches!(**reason, Reason::NeighbourPending { .. }))
    }
}

/// Everything that a frame towards one address needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface on which the frame leaves; for a VLAN device that of its lowest parent. A bond is
    /// named by its master: XDP can redirect to that since Linux 5.15.
    pub ifindex: u32,
    /// Name of the route's device, for people: of a VLAN device its own name.
    pub interface: String,
    /// The tags to put on the frame, outermost first; at most [`NextHop::MAX_VLANS`].
    pub vlans: Vec<VlanTag>,
    /// The frame's source: the MAC of the route's device.
    pub source_mac: [u8; 6],
    /// The frame's destination: the MAC of the gateway, or of the target where it is on the link.
    pub destination_mac: [u8; 6],
    /// Largest IP packet in bytes: of the route where it (or path MTU discovery) sets one, else of the device.
    pub mtu: u32,
    /// The source address the kernel prefers towards this target: the outer one of a tunnel. Unspecified where
    /// the machine has none of that family.
    pub source: IpAddr,
    /// The router on the way, `None` where the target is on the link.
    pub gateway: Option<IpAddr>,
}

impl NextHop {
    /// How many VLAN tags a frame can carry: 802.1ad with one 802.1Q tag inside.
    pub const MAX_VLANS: usize = 2;
}

/// One VLAN tag (IEEE 802.1Q section 9.6), without priority bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VlanTag {
    /// The tag's EtherType in host order: 0x8100 or 0x88a8.
    pub tpid: u16,
    /// VLAN identifier, 1 to 4094.
    pub vid: u16,
}

/// Why an address has no usable next hop. Its `Display` is meant for `xdirector status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No route covers the address.
    NoRoute,
    /// The route is of type `unreachable`.
    Unreachable,
    /// The route is of type `blackhole`.
    Blackhole,
    /// The route is of type `prohibit`.
    Prohibited,
    /// The address belongs to this machine.
    LocalAddress,
    /// The address is a broadcast, multicast or anycast one.
    NotUnicast,
    /// The interface, or one below it, is administratively down.
    InterfaceDown {
        /// The one that is down.
        interface: String,
    },
    /// The interface, or one below it, has no carrier.
    NoCarrier {
        /// The one without a carrier.
        interface: String,
    },
    /// The interface does not carry Ethernet frames.
    NotEthernet {
        /// The route's device.
        interface: String,
        /// What it is: "wireguard", "loopback", ...
        kind: String,
    },
    /// The interface carries Ethernet, but a frame redirected to it would not leave as it is. A bridge chooses
    /// a port for each frame; macvlan, VXLAN and the like have no XDP transmit.
    Unsupported {
        /// The interface at the bottom of the stack.
        interface: String,
        /// What it is: "bridge", "macvlan", ...
        kind: String,
    },
    /// More VLAN devices on top of each other than tags fit on a frame.
    TooManyVlans {
        /// The route's device.
        interface: String,
    },
    /// The kernel is asking for the neighbour's MAC address.
    NeighbourPending {
        /// The gateway, or the target itself.
        address: IpAddr,
        /// The route's device.
        interface: String,
    },
    /// The neighbour does not answer.
    NeighbourFailed {
        /// The gateway, or the target itself.
        address: IpAddr,
        /// The route's device.
        interface: String,
    },
    /// The kernel refused a lookup: its words.
    LookupFailed(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute => f.write_str("no route"),
            Self::Unreachable => f.write_str("the route says unreachable"),
            Self::Blackhole => f.write_str("the route is a blackhole"),
            Self::Prohibited => f.write_str("the route prohibits it"),
            Self::LocalAddress => f.write_str("the address is this machine's own"),
            Self::NotUnicast => f.write_str("the address is not a unicast one"),
            Self::InterfaceDown { interface } => write!(f, "interface {interface} is down"),
            Self::NoCarrier { interface } => write!(f, "interface {interface} has no carrier"),
            Self::NotEthernet { interface, kind } => {
                write!(f, "interface {interface} ({kind}) does not carry Ethernet frames")
            }
            Self::Unsupported { interface, kind } => {
                write!(f, "frames cannot be redirected to interface {interface} ({kind})")
            }
            Self::TooManyVlans { interface } => {
                write!(f, "interface {interface} adds more than {} VLAN tags", NextHop::MAX_VLANS)
            }
            Self::NeighbourPending { address, interface } => {
                write!(f, "waiting for neighbour {address} on {interface}")
            }
            Self::NeighbourFailed { address, interface } => {
                write!(f, "neighbour {address} on {interface} does not answer")
            }
            Self::LookupFailed(error) => write!(f, "the kernel refused the lookup: {error}"),
        }
    }
}

/// Netlink did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket, or the subscription to the kernel's events was refused.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The kernel answered with an error.
    #[error("netlink {request}: {source}")]
    Request {
        /// The kernel's name of the request, for instance "RTM_GETLINK".
        request: &'static str,
        /// The error number the kernel gave.
        source: io::Error,
    },
    /// The kernel's answer did not come, or the socket closed.
    #[error("netlink {request}: no answer")]
    NoAnswer {
        /// The kernel's name of the request.
        request: &'static str,
    },
}

/// Every interface of this network namespace, by index, with its addresses.
///
/// # Errors
///
/// See [`Error`]. Needs no privilege.
pub async fn links() -> Result<Vec<Link>, Error> {
    let kernel = kernel::Kernel::open()?;
    let mut links = kernel.links().await?;
    kernel.add_addresses(&mut links).await?;
    Ok(links.into_links())
}
