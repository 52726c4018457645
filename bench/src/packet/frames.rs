//! The packets that are measured, and what must become of them: TCP over IPv4 in the smallest Ethernet frame.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use lab::{Packet, packet::tcp_flags};

use super::plane::FIRST_FLOW;

/// The client's (or its router's) MAC address.
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The director's.
pub const DIRECTOR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The real servers' (or their router's).
pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
/// The port of the virtual servers.
pub const PORT: u16 = 80;
/// The port of the real servers behind NAT.
pub const NAT_PORT: u16 = 8080;
/// The source of tunnel packets.
pub const TUNNEL_SOURCE: Ipv4Addr = Ipv4Addr::new(192, 168, 2, 1);
const CLIENT_PORT: u16 = 40_000;
/// Fills the frame up to the 60 bytes that Ethernet wants without its checksum.
const PAYLOAD: &[u8] = b"xdp ok";

/// How packets are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To the real server's MAC address.
    Dr,
    /// Inside an outer IPv4 packet.
    Tun,
    /// Translated.
    Nat,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Dr, Self::Tun, Self::Nat];

    /// The configuration's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dr => "dr",
            Self::Tun => "tun",
            Self::Nat => "nat",
        }
    }

    /// The virtual server with this kind of real servers.
    pub const fn vip(self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 10, 50 + self as u8)
    }

    /// Its real server of this number.
    pub const fn real(self, number: u8) -> Ipv4Addr {
        match self {
            Self::Dr => Ipv4Addr::new(192, 168, 10, 101 + number),
            Self::Tun => Ipv4Addr::new(192, 168, 2, 101 + number),
            Self::Nat => Ipv4Addr::new(192, 168, 1, 101 + number),
        }
    }

    /// Bytes that it puts in front of a packet.
    pub const fn grown(self) -> u32 {
        match self {
            Self::Tun => 20,
            Self::Dr | Self::Nat => 0,
        }
    }
}

/// A packet, and what must become of it.
#[derive(Clone, Debug)]
pub struct Frames {
    /// As it arrives.
    pub input: Vec<u8>,
    /// As it leaves.
    pub output: Vec<u8>,
}

impl Frames {
    /// A packet to an address that no virtual server has.
    pub fn to_nobody() -> Self {
        let input = segment(Ipv4Addr::new(192, 168, 10, 200), tcp_flags::ACK);
        Self { output: input.clone(), input }
    }

    /// A segment of the first flow, and how it gets to the real server that `sent`, an earlier output, went to.
    pub fn known(kind: Kind, sent: &[u8]) -> Result<Self> {
        let frame = || Packet::eth(DIRECTOR_MAC, SERVER_MAC);
        let (client, vip) = (client_address(), kind.vip());
        let output = match kind {
            Kind::Dr => tcp(frame().ipv4(client, vip).ttl(63), CLIENT_PORT, PORT, tcp_flags::ACK),
            Kind::Tun => {
                let outer = frame().ipv4(TUNNEL_SOURCE, address(sent, 30)?);
                tcp(outer.ipv4(client, vip).ttl(63), CLIENT_PORT, PORT, tcp_flags::ACK)
            }
            Kind::Nat => {
                let real = address(sent, 30)?;
                tcp(frame().ipv4(client, real).ttl(63), CLIENT_PORT, NAT_PORT, tcp_flags::ACK)
            }
        };
        Ok(Self { input: segment(vip, tcp_flags::ACK), output })
    }

    /// The real server's answer to this NAT packet.
    pub fn answer(&self) -> Result<Self> {
        let real = address(&self.output, 30)?;
        let (client, vip) = (client_address(), Kind::Nat.vip());
        let input = Packet::eth(SERVER_MAC, DIRECTOR_MAC).ipv4(real, client);
        let output = Packet::eth(DIRECTOR_MAC, CLIENT_MAC).ipv4(vip, client).ttl(63);
        Ok(Self {
            input: tcp(input, NAT_PORT, CLIENT_PORT, tcp_flags::ACK),
            output: tcp(output, PORT, CLIENT_PORT, tcp_flags::ACK),
        })
    }
}

/// A segment of the first flow to a virtual server.
pub fn segment(vip: Ipv4Addr, flags: u8) -> Vec<u8> {
    let packet = Packet::eth(CLIENT_MAC, DIRECTOR_MAC).ipv4(client_address(), vip);
    tcp(packet, CLIENT_PORT, PORT, flags)
}

fn tcp(packet: Packet, source: u16, destination: u16, flags: u8) -> Vec<u8> {
    packet.tcp(source, destination).flags(flags).payload(PAYLOAD).build()
}

fn client_address() -> Ipv4Addr {
    Ipv4Addr::from(FIRST_FLOW)
}

fn address(frame: &[u8], at: usize) -> Result<Ipv4Addr> {
    let bytes: [u8; 4] = frame.get(at..at + 4).context("a frame without addresses")?.try_into()?;
    Ok(bytes.into())
}
