//! Real servers as the data plane sees them.

use crate::{Addr, Port};

/// How packets reach a real server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Forwarding {
    /// Address and port are rewritten; answers come back through the director (`-m`).
    Nat = 1,
    /// Only the frame's MAC addresses change (`-g`).
    Dr = 2,
    /// The packet is wrapped into another IP packet (`-i`).
    Tun = 3,
}

/// A real server of one virtual server; indexed by the server number that connections hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Server {
    /// Its address.
    pub addr: Addr,
    /// The address of its virtual server.
    pub vip: Addr,
    /// Its port; [`Port::ANY`]: the packet's.
    pub port: Port,
    /// The port of its virtual server; [`Port::ANY`]: every port.
    pub vport: Port,
    /// [`Forwarding`], 0 for an entry that is not in use.
    pub forwarding: u8,
    /// [`server_flag`]s.
    pub flags: u8,
    /// IP protocol number of its virtual server: for the agent only.
    pub proto: u8,
    /// Nothing yet.
    pub reserved: u8,
    /// What NAT towards the server adds to a checksum over the destination address
    /// ([`crate::checksum::Delta::folded`] of vip -> addr).
    pub nat_delta: u16,
    /// [`crate::service::Service::role`] of its virtual server; 0 for an entry for checks, which have no role to wait for.
    pub role: u16,
    /// Index of its virtual server.
    pub service: u32,
    /// TUN: source address of the outer packet, of the family of `addr`.
    pub tunnel_source: Addr,
    /// Where frames for it go.
    pub next_hop: NextHop,
    /// Its place in its virtual server's list: for the agent only, which reads its own state back from here.
    pub position: u32,
    /// Its last weight that was not 0: for the agent only.
    pub last_weight: u32,
    /// Nothing yet: fills two cache lines.
    pub reserved3: [u32; 6],
}

const _: () = assert!(size_of::<Server>() == 128);

/// Bits of [`Server::flags`]. An entry keeps its identity (addresses, ports, kind) whatever they say.
pub mod server_flag {
    /// It was removed, or failed: its connections end at their next packet from the client. Answers on their way
    /// still pass.
    pub const GONE: u8 = 1;
    /// It takes no new connections: its weight is 0, or it drains. A client that opens a connection anew gets another
    /// server.
    pub const NO_NEW: u8 = 2;
    /// With [`NO_NEW`]: UDP flows move to another server at their next packet.
    pub const MOVE_UDP: u8 = 4;
    /// Its connections wait for it: with [`GONE`] their packets are dropped until it is back, and with [`NO_NEW`] those
    /// that live stay where they are.
    pub const KEEP: u8 = 8;
    /// It has no part in the schedule: for the agent only.
    pub const LEAVING: u8 = 16;
    /// Checks of the agent reach a real server by this entry. It has no part in any schedule, and with DR and TUN its
    /// connections have a reverse place too: for the agent only.
    pub const CHECK: u8 = 32;
    /// Packets of known flows may not simply be forwarded.
    pub const SPECIAL: u8 = GONE | MOVE_UDP;

    /// Whether a SYN on a known connection with this server begins a new one elsewhere (`ip_vs_in_hook`: any SYN to a
    /// server of weight 0 with `expire_nodest_conn`). With [`KEEP`] a connection that is active goes on.
    #[inline(always)]
    pub const fn moves_at_syn(flags: u8, is_active: bool) -> bool {
        flags & NO_NEW != 0 && (flags & KEEP == 0 || !is_active)
    }
}

/// Where frames go: everything that a frame needs to leave.
///
/// Aligned to eight bytes because copies of it lie on the program's stack, where the verifier takes aligned accesses only
/// and the compiler joins neighbouring words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(8))]
pub struct NextHop {
    /// Interface on which the frame leaves; 0: unknown.
    pub ifindex: u32,
    /// Largest packet (layer 3) that fits.
    pub mtu: u16,
    /// [`next_hop_flag`]s.
    pub flags: u8,
    /// VLAN tags of the frame, 0 to 2.
    pub tags: u8,
    /// The tags, outermost first: TPID and TCI each, network-order bytes.
    pub vlan: [u32; 2],
    /// Destination and source MAC address.
    pub macs: Macs,
    /// Nothing yet.
    pub reserved: u32,
}

const _: () = assert!(size_of::<NextHop>() == 32);

/// The first twelve bytes of a frame: destination and source MAC address. Kept as words, because a program's stack takes
/// aligned accesses only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Macs([u32; 3]);

impl Macs {
    /// From the native words that stand in a frame or were kept from one.
    #[inline(always)]
    pub const fn from_words(words: [u32; 3]) -> Self {
        Self(words)
    }

    /// From two addresses.
    pub const fn new(destination: [u8; 6], source: [u8; 6]) -> Self {
        let (d, s) = (destination, source);
        Self([
            u32::from_ne_bytes([d[0], d[1], d[2], d[3]]),
            u32::from_ne_bytes([d[4], d[5], s[0], s[1]]),
            u32::from_ne_bytes([s[2], s[3], s[4], s[5]]),
        ])
    }

    /// The native words.
    #[inline(always)]
    pub const fn words(self) -> [u32; 3] {
        self.0
    }

    /// Sender and receiver exchanged.
    #[inline(always)]
    pub fn turned(self) -> Self {
        let [a, b, c] = self.0.map(u32::to_ne_bytes);
        Self([
            u32::from_ne_bytes([b[2], b[3], c[0], c[1]]),
            u32::from_ne_bytes([c[2], c[3], a[0], a[1]]),
            u32::from_ne_bytes([a[2], a[3], b[0], b[1]]),
        ])
    }

    /// The source address, and two zero bytes.
    #[inline(always)]
    pub fn source(self) -> [u32; 2] {
        let [_, b, c] = self.0.map(u32::to_ne_bytes);
        [u32::from_ne_bytes([b[2], b[3], c[0], c[1]]), u32::from_ne_bytes([c[2], c[3], 0, 0])]
    }
}

/// Bits of [`NextHop::flags`].
pub mod next_hop_flag {
    /// The neighbour is known: frames may be sent.
    pub const RESOLVED: u8 = 1;
    /// No VLAN device sits on the interface, so a frame that leaves where it came from keeps its tags: the
    /// director stands on one trunk with clients and servers of one VLAN.
    pub const KEEP_TAGS: u8 = 2;
}

/// What the least-connection schedulers compare; changed by packets, so apart from [`Server`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Load {
    /// Active connections ([`crate::conn::is_active`]).
    pub active: u32,
    /// All others.
    pub inactive: u32,
    /// Weight; 0 gets no new connections.
    pub weight: u32,
    /// When a connection was last served without a place in the table, in ticks; 0: never. Until such
    /// connections must have ended, the server's answers are translated without a table too.
    pub stateless_at: u32,
    /// With so many connections, active or not, it is overloaded; 0: never.
    pub upper: u32,
    /// With fewer than so many it no longer is; 0: with fewer than three quarters of `upper`.
    pub lower: u32,
    /// Whether it was overloaded at the last look ([`crate::schedule::is_overloaded`]): 0 or 1.
    pub overloaded: u32,
    /// Nothing yet.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Load>() == 32);

/// Counters of one real server on one CPU. Bytes are those of layer 3, as in IPVS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct ServerStats {
    /// Connections that were scheduled to it.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Packets from the server (NAT).
    pub packets_out: u64,
    /// Bytes from the server (NAT).
    pub bytes_out: u64,
}

const _: () = assert!(size_of::<ServerStats>() == 40);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_drains_loses_connections_to_syn_only_as_far_as_it_may() {
        use server_flag::{GONE, KEEP, MOVE_UDP, NO_NEW, moves_at_syn};
        for is_active in [false, true] {
            assert!(moves_at_syn(NO_NEW, is_active) && moves_at_syn(NO_NEW | MOVE_UDP | GONE, is_active));
            assert!(!moves_at_syn(GONE | KEEP | MOVE_UDP, is_active));
            assert_eq!(moves_at_syn(NO_NEW | KEEP, is_active), !is_active);
        }
    }

    #[test]
    fn addresses_of_a_frame_are_exchanged_and_taken_apart() {
        let macs = Macs::new([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]);
        assert_eq!(macs.words().map(u32::to_ne_bytes).concat(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(macs.turned(), Macs::new([7, 8, 9, 10, 11, 12], [1, 2, 3, 4, 5, 6]));
        assert_eq!(macs.source().map(u32::to_ne_bytes).concat(), [7, 8, 9, 10, 11, 12, 0, 0]);
    }
}
