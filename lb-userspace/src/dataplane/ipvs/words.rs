//! What the kernel's IPVS knows of services and destinations, in its own terms (include/uapi/linux/ip_vs.h).

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use crate::config::Protocol;

/// `IP_VS_SVC_F_PERSISTENT`.
pub const PERSISTENT: u32 = 0x0001;
/// `IP_VS_SVC_F_HASHED`: the kernel's own.
pub const HASHED: u32 = 0x0002;
/// `IP_VS_SVC_F_ONEPACKET`.
pub const ONE_PACKET: u32 = 0x0004;
/// `IP_VS_SVC_F_SCHED_SH_FALLBACK` and `IP_VS_SVC_F_SCHED_MH_FALLBACK`.
pub const FALLBACK: u32 = 0x0008;
/// `IP_VS_SVC_F_SCHED_SH_PORT` and `IP_VS_SVC_F_SCHED_MH_PORT`.
pub const PORT: u32 = 0x0010;

/// By what the kernel knows a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// By where its packets go.
    Address {
        /// Destination address.
        address: IpAddr,
        /// Destination port; 0: any.
        port: u16,
        /// Layer 4.
        protocol: Protocol,
    },
    /// By a firewall mark.
    Mark {
        /// The mark; not 0.
        mark: u32,
        /// `AF_INET6` instead of `AF_INET`.
        is_ipv6: bool,
    },
}

impl Key {
    /// Whether its packets are IPv6.
    pub const fn is_ipv6(&self) -> bool {
        match self {
            Self::Address { address, .. } => address.is_ipv6(),
            Self::Mark { is_ipv6, .. } => *is_ipv6,
        }
    }
}

/// A service without its destinations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelService {
    /// Which.
    pub key: Key,
    /// The scheduler's name; empty for none.
    pub scheduler: String,
    /// `IP_VS_SVC_F_*` without [`HASHED`].
    pub flags: u32,
    /// Seconds that a persistence template lives; 0 without [`PERSISTENT`].
    pub timeout: u32,
    /// Bits of a client's address by which persistence knows it: 32 or 128 is the whole address.
    pub prefix: u8,
}

/// How a destination gets its packets: `IP_VS_CONN_F_*` (`IP_VS_CONN_F_FWD_MASK`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// `MASQ`.
    Masquerade,
    /// `LOCALNODE`: only shown.
    Local,
    /// `TUNNEL`.
    Tunnel,
    /// `DROUTE`.
    Route,
}

impl Method {
    /// The kernel's number.
    pub const fn number(self) -> u32 {
        match self {
            Self::Masquerade => 0,
            Self::Local => 1,
            Self::Tunnel => 2,
            Self::Route => 3,
        }
    }

    /// Of the kernel's number; `None` for `BYPASS` and what is not known.
    pub const fn of(number: u32) -> Option<Self> {
        match number & 7 {
            0 => Some(Self::Masquerade),
            1 => Some(Self::Local),
            2 => Some(Self::Tunnel),
            3 => Some(Self::Route),
            _ => None,
        }
    }
}

/// A tunnel: `IP_VS_CONN_F_TUNNEL_TYPE_*`, port and `IP_VS_TUNNEL_ENCAP_FLAG_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Encapsulation {
    /// 0: IPIP, 1: GUE, 2: GRE.
    pub kind: u8,
    /// UDP port of GUE; else 0.
    pub port: u16,
    /// 0: no checksum, 1: checksum, 2: remote checksum offload.
    pub flags: u16,
}

/// A destination's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// Address, and port; 0: the client's.
    pub address: SocketAddr,
    /// How it gets its packets.
    pub method: Method,
    /// How it is wrapped; of no matter without [`Method::Tunnel`], and the default then.
    pub encapsulation: Encapsulation,
    /// Weight.
    pub weight: u32,
    /// Upper threshold; 0: none.
    pub upper: u32,
    /// Lower threshold; 0: three quarters of the upper one.
    pub lower: u32,
}

/// What the kernel counts for a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Active connections.
    pub active: u32,
    /// All others.
    pub inactive: u32,
    /// Connections, packets and bytes since it was added.
    pub stats: lb_common::server::ServerStats,
}

/// A destination as it is in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelDestination {
    /// Its settings.
    pub destination: Destination,
    /// What is counted.
    pub counts: Counts,
}

/// One request that changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `IPVS_CMD_NEW_SERVICE`.
    AddService(KernelService),
    /// `IPVS_CMD_SET_SERVICE`.
    SetService(KernelService),
    /// `IPVS_CMD_DEL_SERVICE`; its destinations go with it.
    RemoveService(Key),
    /// `IPVS_CMD_NEW_DEST`.
    AddDestination(Key, Destination),
    /// `IPVS_CMD_SET_DEST`.
    SetDestination(Key, Destination),
    /// `IPVS_CMD_DEL_DEST`.
    RemoveDestination(Key, SocketAddr),
    /// `IPVS_CMD_SET_CONFIG`: seconds of established TCP, closing TCP and UDP.
    SetTimeouts([u32; 3]),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address, port, protocol } => {
                write!(f, "{protocol} {}", SocketAddr::new(*address, *port))
            }
            Self::Mark { mark, is_ipv6 } => {
                write!(f, "fwmark {mark}{}", if *is_ipv6 { " (IPv6)" } else { "" })
            }
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddService(one) => write!(f, "add {} with scheduler {}", one.key, one.scheduler),
            Self::SetService(one) => write!(f, "change {} with scheduler {}", one.key, one.scheduler),
            Self::RemoveService(key) => write!(f, "remove {key}"),
            Self::AddDestination(key, one) => write!(f, "add {} to {key}", one.address),
            Self::SetDestination(key, one) => write!(f, "change {} of {key}", one.address),
            Self::RemoveDestination(key, address) => write!(f, "remove {address} from {key}"),
            Self::SetTimeouts([tcp, fin, udp]) => write!(f, "set the timeouts {tcp} {fin} {udp}"),
        }
    }
}
