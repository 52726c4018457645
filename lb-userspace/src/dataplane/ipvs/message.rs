//! Requests to the kernel's IPVS as bytes, and its answers: pure.
//!
//! ```text
//!  struct nlmsghdr  16   type: the family's number, asked for by its name
//!  struct genlmsghdr 4   command, version 1, two reserved bytes
//!  attributes            IPVS_CMD_ATTR_SERVICE { IPVS_SVC_ATTR_* }, IPVS_CMD_ATTR_DEST { IPVS_DEST_ATTR_* }, ...
//! ```
//!
//! Numbers are in the machine's byte order, addresses and ports in the network's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::server::ServerStats;
use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_generic::{GenlFamily, GenlMessage};

use super::words::{
    Command, Counts, Destination, Encapsulation, HASHED, KernelDestination, KernelService, Key, Method,
};
use crate::{
    config::Protocol,
    nl::message::{attributes, text, u16_at, u32_at},
};

/// `IPVS_GENL_NAME`.
pub const FAMILY: &str = "IPVS";
/// `sizeof(struct genlmsghdr)`.
const GENERIC_HEADER: usize = 4;
/// `IPVS_GENL_VERSION`.
const VERSION: u8 = 1;

/// `IPVS_CMD_*`.
mod command {
    pub const NEW_SERVICE: u8 = 1;
    pub const SET_SERVICE: u8 = 2;
    pub const DEL_SERVICE: u8 = 3;
    pub const GET_SERVICE: u8 = 4;
    pub const NEW_DEST: u8 = 5;
    pub const SET_DEST: u8 = 6;
    pub const DEL_DEST: u8 = 7;
    pub const GET_DEST: u8 = 8;
    pub const SET_CONFIG: u8 = 12;
    pub const GET_CONFIG: u8 = 13;
}

/// `IPVS_CMD_ATTR_*`.
const SERVICE: u16 = 1;
const DEST: u16 = 2;
const TIMEOUTS: [u16; 3] = [4, 5, 6];

/// `IPVS_SVC_ATTR_*`.
mod service {
    pub const AF: u16 = 1;
    pub const PROTOCOL: u16 = 2;
    pub const ADDR: u16 = 3;
    pub const PORT: u16 = 4;
    pub const FWMARK: u16 = 5;
    pub const SCHED_NAME: u16 = 6;
    pub const FLAGS: u16 = 7;
    pub const TIMEOUT: u16 = 8;
    pub const NETMASK: u16 = 9;
}

/// `IPVS_DEST_ATTR_*`.
mod dest {
    pub const ADDR: u16 = 1;
    pub const PORT: u16 = 2;
    pub const FWD_METHOD: u16 = 3;
    pub const WEIGHT: u16 = 4;
    pub const U_THRESH: u16 = 5;
    pub const L_THRESH: u16 = 6;
    pub const ACTIVE_CONNS: u16 = 7;
    pub const INACT_CONNS: u16 = 8;
    pub const STATS: u16 = 10;
    pub const ADDR_FAMILY: u16 = 11;
    pub const STATS64: u16 = 12;
    pub const TUN_TYPE: u16 = 13;
    pub const TUN_PORT: u16 = 14;
    pub const TUN_FLAGS: u16 = 15;
}

/// `AF_INET` and `AF_INET6`, in the attributes' width.
const INET: u16 = 2;
const INET6: u16 = 10;

/// A request: its command and its attributes as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    command: u8,
    attributes: Vec<u8>,
}

impl GenlFamily for Ask {
    fn family_name() -> &'static str {
        FAMILY
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        VERSION
    }
}

impl Emitable for Ask {
    fn buffer_len(&self) -> usize {
        self.attributes.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer[..self.attributes.len()].copy_from_slice(&self.attributes);
    }
}

impl Ask {
    fn new(command: u8, attributes: &[DefaultNla]) -> Self {
        Self { command, attributes: bytes(attributes) }
    }

    /// For all services; a dump.
    pub fn services() -> Self {
        Self::new(command::GET_SERVICE, &[])
    }

    /// For a service's destinations; a dump.
    pub fn destinations(key: &Key) -> Self {
        Self::new(command::GET_DEST, &[nested(SERVICE, &identity(key))])
    }

    /// For the timeouts.
    pub fn timeouts() -> Self {
        Self::new(command::GET_CONFIG, &[])
    }

    /// For a change.
    pub fn change(wanted: &Command) -> Self {
        match wanted {
            Command::AddService(one) => Self::new(command::NEW_SERVICE, &[nested(SERVICE, &settings(one))]),
            Command::SetService(one) => Self::new(command::SET_SERVICE, &[nested(SERVICE, &settings(one))]),
            Command::RemoveService(key) => {
                Self::new(command::DEL_SERVICE, &[nested(SERVICE, &identity(key))])
            }
            Command::AddDestination(key, one) => Self::of_destination(command::NEW_DEST, key, &whole(one)),
            Command::SetDestination(key, one) => Self::of_destination(command::SET_DEST, key, &whole(one)),
            Command::RemoveDestination(key, one) => {
                Self::of_destination(command::DEL_DEST, key, &place(*one))
            }
            Command::SetTimeouts(seconds) => {
                let timeouts = TIMEOUTS.iter().zip(seconds).map(|(kind, value)| number(*kind, *value));
                Self::new(command::SET_CONFIG, &timeouts.collect::<Vec<_>>())
            }
        }
    }

    fn of_destination(command: u8, key: &Key, destination: &[DefaultNla]) -> Self {
        Self::new(command, &[nested(SERVICE, &identity(key)), nested(DEST, destination)])
    }

    /// With the number that the kernel has given the family.
    pub fn to(self, family: u16) -> GenlMessage<Self> {
        let mut message = GenlMessage::from_payload(self);
        message.set_resolved_family_id(family);
        message
    }
}

fn bytes(mut attributes: &[DefaultNla]) -> Vec<u8> {
    let attributes = &mut attributes;
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

fn nested(kind: u16, inside: &[DefaultNla]) -> DefaultNla {
    DefaultNla::new(kind | NLA_F_NESTED, bytes(inside))
}

fn half(kind: u16, value: u16) -> DefaultNla {
    DefaultNla::new(kind, value.to_ne_bytes().to_vec())
}

fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_ne_bytes().to_vec())
}

/// `union nf_inet_addr`: always 16 bytes, IPv4 in the first four.
fn address(kind: u16, address: IpAddr) -> DefaultNla {
    let mut value = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    value.resize(16, 0);
    DefaultNla::new(kind, value)
}

fn port(kind: u16, port: u16) -> DefaultNla {
    DefaultNla::new(kind, port.to_be_bytes().to_vec())
}

const fn family(is_ipv6: bool) -> u16 {
    if is_ipv6 { INET6 } else { INET }
}

const fn protocol_number(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

fn identity(key: &Key) -> Vec<DefaultNla> {
    let mut attributes = vec![half(service::AF, family(key.is_ipv6()))];
    match key {
        Key::Address { address: at, port: number, protocol } => attributes.extend([
            half(service::PROTOCOL, protocol_number(*protocol)),
            address(service::ADDR, *at),
            port(service::PORT, *number),
        ]),
        Key::Mark { mark, .. } => attributes.push(number(service::FWMARK, *mark)),
    }
    attributes
}

fn settings(wanted: &KernelService) -> Vec<DefaultNla> {
    let mut name = wanted.scheduler.clone().into_bytes();
    name.push(0);
    // `struct ip_vs_flags`: the flags, and which of them are meant.
    let flags = [wanted.flags.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat();
    let mut attributes = identity(&wanted.key);
    attributes.extend([
        DefaultNla::new(service::SCHED_NAME, name),
        DefaultNla::new(service::FLAGS, flags),
        number(service::TIMEOUT, wanted.timeout),
        netmask(wanted),
    ]);
    attributes
}

/// IPv4: a mask in the network's byte order. IPv6: the length of the prefix.
fn netmask(wanted: &KernelService) -> DefaultNla {
    if wanted.key.is_ipv6() {
        return number(service::NETMASK, wanted.prefix.into());
    }
    let mask = u32::MAX.checked_shl(32 - u32::from(wanted.prefix.min(32))).unwrap_or(0);
    DefaultNla::new(service::NETMASK, mask.to_be_bytes().to_vec())
}

fn place(at: SocketAddr) -> Vec<DefaultNla> {
    vec![
        half(dest::ADDR_FAMILY, family(at.is_ipv6())),
        address(dest::ADDR, at.ip()),
        port(dest::PORT, at.port()),
    ]
}

fn whole(wanted: &Destination) -> Vec<DefaultNla> {
    let mut attributes = place(wanted.address);
    attributes.extend([
        number(dest::FWD_METHOD, wanted.method.number()),
        number(dest::WEIGHT, wanted.weight),
        number(dest::U_THRESH, wanted.upper),
        number(dest::L_THRESH, wanted.lower),
    ]);
    if wanted.method == Method::Tunnel {
        let Encapsulation { kind, port: to, flags } = wanted.encapsulation;
        attributes.extend([
            DefaultNla::new(dest::TUN_TYPE, vec![kind]),
            port(dest::TUN_PORT, to),
            half(dest::TUN_FLAGS, flags),
        ]);
    }
    attributes
}

/// The attribute of a kind in an answer.
fn find(inside: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(inside).find_map(|(found, value)| (found == kind).then_some(value))
}

fn answered(payload: &[u8], kind: u16) -> Option<&[u8]> {
    find(payload.get(GENERIC_HEADER..)?, kind)
}

fn number_of(inside: &[u8], kind: u16) -> Option<u32> {
    u32_at(find(inside, kind)?, 0)
}

fn port_of(inside: &[u8], kind: u16) -> Option<u16> {
    Some(u16::from_be_bytes(*find(inside, kind)?.first_chunk()?))
}

fn address_of(inside: &[u8], kind: u16, family: u16) -> Option<IpAddr> {
    let value = find(inside, kind)?;
    match family {
        INET => Some(Ipv4Addr::from(*value.first_chunk::<4>()?).into()),
        INET6 => Some(Ipv6Addr::from(*value.first_chunk::<16>()?).into()),
        _ => None,
    }
}

/// A service of a dump; `None` for what is none, or is of a protocol that xdirector does not have.
pub fn service_of(payload: &[u8]) -> Option<KernelService> {
    let inside = answered(payload, SERVICE)?;
    let family = u16_at(find(inside, service::AF)?, 0)?;
    let is_ipv6 = family == INET6;
    let key = match number_of(inside, service::FWMARK) {
        Some(mark) if mark != 0 => Key::Mark { mark, is_ipv6 },
        _ => Key::Address {
            address: address_of(inside, service::ADDR, family)?,
            port: port_of(inside, service::PORT)?,
            protocol: match u16_at(find(inside, service::PROTOCOL)?, 0)? {
                6 => Protocol::Tcp,
                17 => Protocol::Udp,
                _ => return None,
            },
        },
    };
    let mask = find(inside, service::NETMASK)?;
    let prefix = if is_ipv6 {
        u8::try_from(u32_at(mask, 0)?).ok()?
    } else {
        u8::try_from(u32::from_be_bytes(*mask.first_chunk()?).leading_ones()).ok()?
    };
    Some(KernelService {
        key,
        scheduler: find(inside, service::SCHED_NAME).map(text).unwrap_or_default(),
        flags: u32_at(find(inside, service::FLAGS)?, 0)? & !HASHED,
        timeout: number_of(inside, service::TIMEOUT)?,
        prefix,
    })
}

/// A destination of a dump.
pub fn destination_of(payload: &[u8]) -> Option<KernelDestination> {
    let inside = answered(payload, DEST)?;
    // Kernels before 3.18 say no family; there it is the service's.
    let family = u16_at(find(inside, dest::ADDR_FAMILY)?, 0)?;
    let address = address_of(inside, dest::ADDR, family)?;
    let method = Method::of(number_of(inside, dest::FWD_METHOD)?)?;
    let encapsulation = match method {
        Method::Tunnel => Encapsulation {
            kind: find(inside, dest::TUN_TYPE).and_then(|value| value.first().copied()).unwrap_or(0),
            port: port_of(inside, dest::TUN_PORT).unwrap_or(0),
            flags: find(inside, dest::TUN_FLAGS).and_then(|value| u16_at(value, 0)).unwrap_or(0),
        },
        _ => Encapsulation::default(),
    };
    let destination = Destination {
        address: SocketAddr::new(address, port_of(inside, dest::PORT)?),
        method,
        encapsulation,
        weight: number_of(inside, dest::WEIGHT)?,
        upper: number_of(inside, dest::U_THRESH)?,
        lower: number_of(inside, dest::L_THRESH)?,
    };
    let counts = Counts {
        active: number_of(inside, dest::ACTIVE_CONNS).unwrap_or(0),
        inactive: number_of(inside, dest::INACT_CONNS).unwrap_or(0),
        stats: stats(inside),
    };
    Some(KernelDestination { destination, counts })
}

/// `IPVS_STATS_ATTR_CONNS`, `INPKTS`, `OUTPKTS`, `INBYTES`, `OUTBYTES`: of 64 bits since Linux 4.1.
fn stats(inside: &[u8]) -> ServerStats {
    let (wide, narrow) = (find(inside, dest::STATS64), find(inside, dest::STATS));
    let count = |kind| {
        let wide = || Some(u64::from_ne_bytes(*find(wide?, kind)?.first_chunk()?));
        // The bytes among the older ones have 64 bits too.
        let narrow = || {
            let value = find(narrow?, kind)?;
            value.first_chunk().map(|long| u64::from_ne_bytes(*long)).or(u32_at(value, 0).map(u64::from))
        };
        wide().or_else(narrow).unwrap_or(0)
    };
    ServerStats {
        connections: count(1),
        packets_in: count(2),
        packets_out: count(3),
        bytes_in: count(4),
        bytes_out: count(5),
    }
}

/// The answer to [`Ask::timeouts`].
pub fn timeouts_of(payload: &[u8]) -> Option<[u32; 3]> {
    let inside = payload.get(GENERIC_HEADER..)?;
    let [tcp, tcp_fin, udp] = TIMEOUTS.map(|kind| number_of(inside, kind));
    Some([tcp?, tcp_fin?, udp?])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::words::{PERSISTENT, PORT},
        *,
    };

    fn payload(ask: &Ask) -> Vec<u8> {
        [&[ask.command, VERSION, 0, 0][..], &ask.attributes].concat()
    }

    fn a_service(address: &str, flags: u32, prefix: u8) -> KernelService {
        let address: SocketAddr = address.parse().unwrap();
        KernelService {
            key: Key::Address { address: address.ip(), port: address.port(), protocol: Protocol::Tcp },
            scheduler: "wlc".to_owned(),
            flags,
            timeout: 360,
            prefix,
        }
    }

    /// Against the header's numbers, written out: one mistaken attribute would hide from a round trip.
    #[test]
    fn a_service_is_made_of_the_headers_attributes() {
        let ask = Ask::change(&Command::AddService(a_service("10.1.2.3:80", 0x11, 24)));
        assert_eq!(ask.command, 1);
        let words: Vec<(u16, Vec<u8>)> = attributes(find(&ask.attributes, 1).unwrap())
            .map(|(kind, value)| (kind, value.to_vec()))
            .collect();
        let mut address = vec![10, 1, 2, 3];
        address.resize(16, 0);
        let expected = [
            (1, 2u16.to_ne_bytes().to_vec()),
            (2, 6u16.to_ne_bytes().to_vec()),
            (3, address),
            (4, vec![0, 80]),
            (6, b"wlc\0".to_vec()),
            (7, [0x11u32.to_ne_bytes(), [0xff; 4]].concat()),
            (8, 360u32.to_ne_bytes().to_vec()),
            (9, vec![255, 255, 255, 0]),
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn a_service_comes_back_as_it_was_sent() {
        let marked = KernelService {
            key: Key::Mark { mark: 7, is_ipv6: true },
            ..a_service("[2001:db8::1]:0", PERSISTENT, 64)
        };
        for one in [a_service("10.1.2.3:80", 0, 32), a_service("[2001:db8::1]:443", PORT, 128), marked] {
            let ask = Ask::change(&Command::SetService(one.clone()));
            assert_eq!(service_of(&payload(&ask)), Some(one));
        }
    }

    #[test]
    fn a_destination_comes_back_as_it_was_sent() {
        let key = a_service("10.1.2.3:80", 0, 32).key;
        let masquerade = Destination {
            address: "10.0.0.1:8080".parse().unwrap(),
            method: Method::Masquerade,
            encapsulation: Encapsulation::default(),
            weight: 5,
            upper: 100,
            lower: 60,
        };
        let gue = Destination {
            address: "[2001:db8::9]:80".parse().unwrap(),
            method: Method::Tunnel,
            encapsulation: Encapsulation { kind: 1, port: 6080, flags: 2 },
            ..masquerade
        };
        for one in [masquerade, gue] {
            let ask = Ask::change(&Command::AddDestination(key, one));
            assert_eq!(ask.command, 5);
            let there = destination_of(&payload(&ask)).unwrap();
            assert_eq!(there.destination, one);
            assert_eq!(there.counts, Counts::default());
        }
    }

    #[test]
    fn timeouts_come_back_as_they_were_sent() {
        let ask = Ask::change(&Command::SetTimeouts([900, 120, 300]));
        assert_eq!((ask.command, timeouts_of(&payload(&ask))), (12, Some([900, 120, 300])));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_to_its_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (service_of(&bytes), destination_of(&bytes), timeouts_of(&bytes));
        }

        #[test]
        fn a_cut_answer_is_no_panic(len in 0usize..160) {
            let whole = payload(&Ask::change(&Command::AddService(a_service("10.1.2.3:80", 0, 32))));
            let _ = service_of(&whole[..len.min(whole.len())]);
        }
    }
}
