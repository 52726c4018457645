//! ICMP echo (RFC 792, RFC 4443 section 4).

use std::{io, net::IpAddr};

use nix::sys::socket::{setsockopt, sockopt};
use pnet_packet::{
    Packet as _,
    icmp::{
        self, IcmpPacket, IcmpType,
        echo_request::{EchoRequestPacket, MutableEchoRequestPacket},
    },
    ipv4::Ipv4Packet,
};
use socket2::{Protocol, SockAddr, Socket, Type};
use tokio::net::UdpSocket;

use super::{Outcome, Passed, Way, way};

/// One attempt: one request. Needs that `net.ipv4.ping_group_range` (it is for IPv6, too) includes a group of this
/// process, or CAP_NET_RAW. The former is cheaper: the kernel hands an answer to the socket that asked, while each raw
/// socket towards a server sees all of that server's ICMP.
///
/// An answer counts when its numbers and its random bytes are those of the request. ICMP errors (unreachable) end the
/// attempt. The ports of [`Way::connect`] and [`Way::bind`] mean nothing here.
pub async fn attempt(way: &Way) -> Outcome {
    match echo(way).await {
        Ok(()) => Ok(Passed { detail: "echo reply".to_owned(), ..Passed::default() }),
        Err(error) => Err(way::reason(&error)),
    }
}

async fn echo(way: &Way) -> io::Result<()> {
    let family = Family::of(way.connect.ip());
    let (socket, kind) = open(way, family)?;
    match family {
        Family::V4 => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
        Family::V6 => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
    }
    let mut server = way.connect;
    server.set_port(0);
    socket.connect(&SockAddr::from(server))?;
    let identifier = match kind {
        // The kernel puts the socket's port into requests, and hands it the answers with that number.
        Kind::Ping => socket.local_addr()?.as_socket().map_or(0, |local| local.port()),
        Kind::Raw => fastrand::u16(..),
    };
    let echo = Echo::new(family, identifier);
    // tokio's type for sockets that send and receive messages; it does not ask for the protocol.
    let socket = UdpSocket::from_std(socket.into())?;
    socket.send(&echo.request()).await?;
    loop {
        let mut buffer = [0; LONGEST];
        let length = socket.recv(&mut buffer).await?;
        if echo.is_answered_by(&buffer[..length], kind) {
            return Ok(());
        }
    }
}

/// An IPv4 header with all options, and a request's length. What is longer is no answer.
const LONGEST: usize = 60 + REQUEST;
const REQUEST: usize = EchoRequestPacket::minimum_packet_size() + PAYLOAD;
const PAYLOAD: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The kernel fills in the identifier and the checksum, and looks at both.
    Ping,
    /// Needs CAP_NET_RAW.
    Raw,
}

fn open(way: &Way, family: Family) -> io::Result<(Socket, Kind)> {
    match way.socket(Type::DGRAM, family.protocol()) {
        Ok(socket) => return Ok((socket, Kind::Ping)),
        // The group range says no, or the kernel has no such sockets.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {}
        Err(error) => return Err(error),
    }
    match way.socket(Type::RAW, family.protocol()) {
        Ok(socket) => Ok((socket, Kind::Raw)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(io::Error::other(
            "ping needs CAP_NET_RAW, or a group of this process in net.ipv4.ping_group_range",
        )),
        Err(error) => Err(error),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn protocol(self) -> Protocol {
        match self {
            Self::V4 => Protocol::ICMPV4,
            Self::V6 => Protocol::ICMPV6,
        }
    }

    fn request(self) -> IcmpType {
        IcmpType(if self == Self::V4 { 8 } else { 128 })
    }

    fn reply(self) -> IcmpType {
        IcmpType(if self == Self::V4 { 0 } else { 129 })
    }
}

/// A request, and thereby its only right answer.
#[derive(Debug)]
struct Echo {
    family: Family,
    identifier: u16,
    sequence: u16,
    payload: [u8; PAYLOAD],
}

impl Echo {
    fn new(family: Family, identifier: u16) -> Self {
        Self {
            family,
            identifier,
            sequence: fastrand::u16(..),
            payload: std::array::from_fn(|_| fastrand::u8(..)),
        }
    }

    /// Both versions have the same format. Of ICMPv6 the kernel makes the checksum, also on raw sockets (RFC 3542
    /// section 3.1).
    fn request(&self) -> [u8; REQUEST] {
        let mut buffer = [0; REQUEST];
        let mut packet = MutableEchoRequestPacket::new(&mut buffer).expect("the buffer has its size");
        packet.set_icmp_type(self.family.request());
        packet.set_identifier(self.identifier);
        packet.set_sequence_number(self.sequence);
        packet.set_payload(&self.payload);
        if self.family == Family::V4 {
            let checksum = IcmpPacket::new(packet.packet()).map_or(0, |packet| icmp::checksum(&packet));
            packet.set_checksum(checksum);
        }
        buffer
    }

    /// `received` is as the socket gave it: with the IP header for raw IPv4.
    fn is_answered_by(&self, received: &[u8], kind: Kind) -> bool {
        let message = match (self.family, kind) {
            (Family::V4, Kind::Raw) => {
                let Some(packet) = Ipv4Packet::new(received) else { return false };
                let header = usize::from(packet.get_header_length()) * 4;
                received.get(header..).unwrap_or_default()
            }
            _ => received,
        };
        // Raw IPv4 sockets get packets before the kernel has looked at the ICMP checksum.
        let is_intact = self.family == Family::V6
            || IcmpPacket::new(message)
                .is_some_and(|packet| icmp::checksum(&packet) == packet.get_checksum());
        is_intact
            && EchoRequestPacket::new(message).is_some_and(|packet| {
                packet.get_icmp_type() == self.family.reply()
                    && packet.get_icmp_code().0 == 0
                    && packet.get_identifier() == self.identifier
                    && packet.get_sequence_number() == self.sequence
                    && packet.payload() == self.payload
            })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    /// The right answer to a request.
    fn answer(echo: &Echo) -> Vec<u8> {
        let mut answer = echo.request();
        answer[0] = echo.family.reply().0;
        with_checksum(answer.to_vec(), echo.family)
    }

    fn with_checksum(mut message: Vec<u8>, family: Family) -> Vec<u8> {
        if family == Family::V4 {
            let checksum = icmp::checksum(&IcmpPacket::new(&message).expect("it is long enough"));
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        message
    }

    #[test]
    fn only_the_right_answer_counts() {
        for family in [Family::V4, Family::V6] {
            let echo = Echo::new(family, 0x1234);
            let right = answer(&echo);
            assert!(echo.is_answered_by(&right, Kind::Ping));
            assert!(!echo.is_answered_by(&echo.request(), Kind::Ping), "its own request");
            // Type, code, identifier, sequence number and the payload's ends.
            for position in [0, 1, 4, 5, 6, 7, 8, right.len() - 1] {
                let mut wrong = right.clone();
                wrong[position] ^= 1;
                let wrong = with_checksum(wrong, family);
                assert!(!echo.is_answered_by(&wrong, Kind::Ping), "{family:?}, byte {position}");
            }
            for length in 0..right.len() {
                assert!(!echo.is_answered_by(&with_length(&right, length, family), Kind::Ping), "{length}");
            }
        }
    }

    fn with_length(message: &[u8], length: usize, family: Family) -> Vec<u8> {
        let message = message[..length].to_vec();
        if length < 8 { message } else { with_checksum(message, family) }
    }

    #[test]
    fn raw_ipv4_answers_come_with_their_header() {
        let echo = Echo::new(Family::V4, 7);
        for words in [5_u8, 6, 15] {
            let mut packet = vec![0; usize::from(words) * 4];
            packet[0] = 0x40 | words;
            packet.extend(answer(&echo));
            assert!(echo.is_answered_by(&packet, Kind::Raw), "a header of {words} words");
            *packet.last_mut().expect("not empty") ^= 1;
            assert!(!echo.is_answered_by(&packet, Kind::Raw), "the checksum is wrong");
        }
        assert!(!echo.is_answered_by(&[0x4f; 20], Kind::Raw), "a header that is longer than the packet");
        assert!(!echo.is_answered_by(&[], Kind::Raw));
    }

    #[tokio::test]
    async fn loopback_answers() {
        for connect in ["127.0.0.1:9", "[::1]:9"] {
            let connect: SocketAddr = connect.parse().expect("an address");
            let way = Way { connect, bind: Some((connect.ip(), 9).into()), fwmark: 0, through: None };
            if let Err(error) = open(&way, Family::of(connect.ip())) {
                println!("SKIPPED loopback_answers: {connect}: {error}");
                continue;
            }
            let outcome = tokio::time::timeout(std::time::Duration::from_secs(20), attempt(&way)).await;
            assert_eq!(outcome.expect("an end").expect("loopback answers").detail, "echo reply");
        }
    }

    #[tokio::test]
    async fn says_why_it_cannot_ask() {
        let way = Way {
            connect: ([127, 0, 0, 1], 9).into(),
            bind: Some(([203, 0, 113, 1], 0).into()),
            fwmark: 0,
            through: None,
        };
        if let Err(error) = open(&Way { bind: None, ..way.clone() }, Family::V4) {
            println!("SKIPPED says_why_it_cannot_ask: {error}");
            return;
        }
        let failure = attempt(&way).await.expect_err("203.0.113.1 is not this machine's");
        assert_eq!(failure, "the source address is not this machine's, or has no free port");
    }
}
