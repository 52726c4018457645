//! Who is who: the addresses, the links and the virtual servers that most cases use.
//!
//! ```text
//!  client -- router CLIENT_MAC ==(CLIENTS)== DIRECTOR_MAC [director] INNER_MAC ==(SERVERS)== SERVER_MAC -- real server
//! ```
//!
//! Every way of forwarding has, for IPv4 and for IPv6, the same list of virtual servers; their numbers below say what is
//! special about each. TCP is served on port 80, UDP on port 53.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU16, Ordering},
};

use lab::Packet;
use lb_userspace::{
    config::Protocol,
    desired::ServiceId,
    netlink::{NextHop, VlanTag},
};

/// Interface towards the clients.
pub const CLIENTS: u32 = 11;
/// Interface towards the real servers.
pub const SERVERS: u32 = 12;
/// Another interface towards clients, with an MTU of [`NARROW_MTU`].
pub const NARROW: u32 = 13;
/// MTU of [`NARROW`], and of the way to real server [`NARROW_SERVER`].
pub const NARROW_MTU: u16 = 1400;

/// The clients' router.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// The director on [`CLIENTS`].
pub const DIRECTOR_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
/// The director on [`SERVERS`].
pub const INNER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
/// A virtual router of the director's on [`CLIENTS`] (RFC 9568 section 7.3).
pub const VIRTUAL_MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 51];
/// The real server.
pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 2];
/// The real server to which connections move.
pub const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 3];

/// An ordinary virtual server; its NAT server has ports of its own (8080, 5353).
pub const PLAIN: u8 = 1;
/// Its NAT server has the same ports.
pub const SAME_PORT: u8 = 2;
/// Port 0: every port.
pub const EVERY_PORT: u8 = 3;
/// The way to the server is VLAN 10.
pub const TAGGED: u8 = 4;
/// The way to the server has two tags: 20 outside, 10 inside.
pub const TWO_TAGS: u8 = 5;
/// The server is on the clients' side.
pub const ONE_ARM: u8 = 6;
/// The server is on the clients' side, in VLAN 30.
pub const ON_A_STICK: u8 = 7;
/// The way to the server has an MTU of [`NARROW_MTU`].
pub const NARROW_SERVER: u8 = 8;
/// Nobody knows the way to the server.
pub const UNRESOLVED: u8 = 9;
/// The agent has not told the way to the server, but the kernel knows it.
pub const KERNEL: u8 = 10;
/// No real servers.
pub const EMPTY: u8 = 11;
/// With NAT the same real server as [`PLAIN`].
pub const TWIN: u8 = 12;
/// A case takes its weight away.
pub const WEIGHTLESS: u8 = 13;
/// A case removes its server.
pub const GONE: u8 = 14;
/// A case makes its server's neighbour unknown.
pub const LOST: u8 = 15;
/// Each case that counts connections has a server of its own from here on, up to the next one.
pub const COUNTED: u8 = 16;
/// A case removes its server and lets the agent look through the table.
pub const SWEPT: u8 = 24;
/// The last one.
pub const LAST: u8 = 24;
/// In [`crate::setup::Setup::Moving`]: its server goes away, and [`ARRIVING`]'s takes over.
pub const LEAVING: u8 = 25;
/// No virtual server of its own.
pub const ARRIVING: u8 = 26;

/// IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
}

pub use Family::{V4, V6};

/// Both.
pub const FAMILIES: [Family; 2] = [V4, V6];

impl Family {
    /// For the names of cases.
    pub fn name(self) -> &'static str {
        match self {
            V4 => "v4",
            V6 => "v6",
        }
    }

    /// Length of an IP header without options.
    pub fn header(self) -> usize {
        match self {
            V4 => 20,
            V6 => 40,
        }
    }

    fn other(self) -> Self {
        match self {
            V4 => V6,
            V6 => V4,
        }
    }

    /// `a.b.c.d` or `prefix::c:d`.
    fn address(self, [a, b, c, d]: [u8; 4], prefix: u16) -> IpAddr {
        match self {
            V4 => Ipv4Addr::new(a, b, c, d).into(),
            V6 => Ipv6Addr::new(prefix, 0, 0, 0, 0, 0, c.into(), d.into()).into(),
        }
    }
}

/// How packets get to a real server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Nat,
    Dr,
    /// The outer packet is of the same family.
    Tun,
    /// IPv4 in IPv6, IPv6 in IPv4.
    TunAcross,
}

/// All of them.
pub const MODES: [Mode; 4] = [Mode::Nat, Mode::Dr, Mode::Tun, Mode::TunAcross];

impl Mode {
    /// For the names of cases.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Dr => "dr",
            Self::Tun => "tun",
            Self::TunAcross => "tun across",
        }
    }

    /// The word of the configuration.
    pub fn forward(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Dr => "dr",
            Self::Tun | Self::TunAcross => "tun",
        }
    }
}

/// A client. Each has an address and a port that no other has.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub address: IpAddr,
    pub port: u16,
}

impl Client {
    /// A new one.
    pub fn new(family: Family) -> Self {
        static LAST: AtomicU16 = AtomicU16::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        Self::number(family, number)
    }

    /// The one of this number; up to 20,000.
    pub fn number(family: Family, number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        Self { address: family.address([198, 18, high, low], 0xfd18), port: 40_000 + number }
    }

    /// A packet to an address, as it comes in on [`CLIENTS`]: frame and IP header, TTL 64.
    pub fn to(&self, address: IpAddr) -> Packet {
        Packet::eth(CLIENT_MAC, DIRECTOR_MAC).ip(self.address, address)
    }
}

/// A virtual server with its only real server.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub mode: Mode,
    pub family: Family,
    pub number: u8,
}

impl Target {
    /// One of the list at the top of this file.
    pub const fn new(mode: Mode, family: Family, number: u8) -> Self {
        Self { mode, family, number }
    }

    /// The virtual server's address.
    pub fn vip(&self) -> IpAddr {
        let mode = self.mode as u8;
        self.family.address([192, 168, 100 + mode, self.number], 0x2001)
    }

    /// The real server's address.
    pub fn server(&self) -> IpAddr {
        let number = if self.mode == Mode::Nat && self.number == TWIN { PLAIN } else { self.number };
        let family = self.server_family();
        family.address([10, 0, self.mode as u8, number], 0xfd10)
    }

    /// The family of [`Self::server`].
    pub fn server_family(&self) -> Family {
        if self.mode == Mode::TunAcross { self.family.other() } else { self.family }
    }

    /// The port on which it is served, 0 for every port.
    pub fn port(&self, protocol: Protocol) -> u16 {
        if self.number == EVERY_PORT { 0 } else { known_port(protocol) }
    }

    /// The port of the real server for a client's packet to [`known_port`].
    pub fn server_port(&self, protocol: Protocol) -> u16 {
        match (self.mode, self.number, protocol) {
            (Mode::Nat, SAME_PORT | EVERY_PORT, _) | (Mode::Dr | Mode::Tun | Mode::TunAcross, ..) => {
                known_port(protocol)
            }
            (_, _, Protocol::Tcp) => 8080,
            (_, _, Protocol::Udp) => 5353,
        }
    }

    /// What the agent knows it by.
    pub fn id(&self, protocol: Protocol) -> ServiceId {
        ServiceId { address: self.vip(), port: self.port(protocol), protocol }
    }

    /// The agent's knowledge of the way to the server; `None` where it has none.
    pub fn next_hop(&self) -> Option<NextHop> {
        let one_arm = matches!(self.number, ONE_ARM | ON_A_STICK);
        let vlans = match self.number {
            TAGGED => vec![VlanTag { tpid: 0x8100, vid: 10 }],
            TWO_TAGS => vec![VlanTag { tpid: 0x88a8, vid: 20 }, VlanTag { tpid: 0x8100, vid: 10 }],
            ON_A_STICK => vec![VlanTag { tpid: 0x8100, vid: 30 }],
            _ => Vec::new(),
        };
        let hop = NextHop {
            ifindex: if one_arm { CLIENTS } else { SERVERS },
            interface: if one_arm { "clients" } else { "servers" }.to_owned(),
            vlans,
            source_mac: if one_arm { DIRECTOR_MAC } else { INNER_MAC },
            destination_mac: self.server_mac(),
            mtu: if self.number == NARROW_SERVER { NARROW_MTU.into() } else { 1500 },
            source: tunnel_source(self.server_family()),
            gateway: None,
        };
        (!matches!(self.number, UNRESOLVED | KERNEL)).then_some(hop)
    }

    fn server_mac(&self) -> [u8; 6] {
        if self.number == ARRIVING { OTHER_MAC } else { SERVER_MAC }
    }

    /// The frame that the director sends to the server: its header, without IP.
    pub fn frame(&self) -> Packet {
        let one_arm = matches!(self.number, ONE_ARM | ON_A_STICK);
        let frame = Packet::eth(if one_arm { DIRECTOR_MAC } else { INNER_MAC }, self.server_mac());
        match self.number {
            TAGGED => frame.vlan(10),
            TWO_TAGS => frame.service_vlan(20).vlan(10),
            ON_A_STICK => frame.vlan(30),
            _ => frame,
        }
    }

    /// What the director makes of `client.to(vip)`: frame and IP headers, TTL 63.
    pub fn forwarded(&self, client: &Client) -> Packet {
        self.within(self.frame(), client)
    }

    /// [`Self::forwarded`] behind another frame's header.
    pub fn within(&self, frame: Packet, client: &Client) -> Packet {
        self.forwarded_by(frame, client, self.vip())
    }

    /// [`Self::forwarded`] of a packet for another virtual server's address.
    pub fn forwarded_for(&self, vip: IpAddr, client: &Client) -> Packet {
        self.forwarded_by(self.frame(), client, vip)
    }

    fn forwarded_by(&self, frame: Packet, client: &Client, vip: IpAddr) -> Packet {
        let server = self.server();
        let source = tunnel_source(self.server_family());
        match self.mode {
            Mode::Nat => frame.ip(client.address, server).ttl(63),
            Mode::Dr => frame.ip(client.address, vip).ttl(63),
            Mode::Tun | Mode::TunAcross => frame.ip(source, server).ip(client.address, vip).ttl(63),
        }
    }

    /// A NAT server's packet to the client, as it comes in on [`SERVERS`]: frame and IP header, TTL 64.
    pub fn answer(&self, client: &Client) -> Packet {
        Packet::eth(SERVER_MAC, INNER_MAC).ip(self.server(), client.address)
    }

    /// What the director makes of it: frame and IP header, TTL 63.
    pub fn answered(&self, client: &Client) -> Packet {
        Packet::eth(DIRECTOR_MAC, CLIENT_MAC).ip(self.vip(), client.address).ttl(63)
    }
}

/// 80 for TCP, 53 for UDP.
pub fn known_port(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 80,
        Protocol::Udp => 53,
    }
}

/// The director's own address towards the servers: the source of tunnels' outer packets.
pub fn tunnel_source(family: Family) -> IpAddr {
    family.address([10, 0, 200, 1], 0xfd10)
}

/// A machine that has nothing to do with any virtual server.
pub fn stranger(family: Family) -> IpAddr {
    family.address([203, 0, 113, 7], 0xfd20)
}

/// An ICMP error of the director's own about `packet`: `frame` (turned round) and what is between the IP header and the
/// quoted bytes of the packet, which are its IP header and 8 bytes.
pub fn director_error(frame: Packet, from: IpAddr, to: IpAddr, what: Problem, packet: &Packet) -> Packet {
    let quote = quote(packet, 8);
    let family = if to.is_ipv4() { V4 } else { V6 };
    let (kind, code, rest) = what.encode(family);
    frame.ip(from, to).icmp_error(kind, code, rest, &quote)
}

/// What an ICMP error tells.
#[derive(Clone, Copy, Debug)]
pub enum Problem {
    TimeExceeded,
    TooBig(u16),
    PortUnreachable,
}

impl Problem {
    /// Type, code and the word behind the checksum (RFC 792, RFC 1191, RFC 4443).
    pub fn encode(self, family: Family) -> (u8, u8, u32) {
        match (self, family) {
            (Self::TimeExceeded, V4) => (11, 0, 0),
            (Self::TimeExceeded, V6) => (3, 0, 0),
            (Self::TooBig(mtu), V4) => (3, 4, mtu.into()),
            (Self::TooBig(mtu), V6) => (2, 0, mtu.into()),
            (Self::PortUnreachable, V4) => (3, 3, 0),
            (Self::PortUnreachable, V6) => (1, 4, 0),
        }
    }
}

/// The IP header of a packet (without link) and `bytes` of what follows.
pub fn quote(packet: &Packet, bytes: usize) -> Vec<u8> {
    let mut quote = packet.without_link().build();
    let header = if quote[0] >> 4 == 4 { usize::from(quote[0] & 0xf) * 4 } else { 40 };
    quote.truncate(header + bytes);
    quote
}
