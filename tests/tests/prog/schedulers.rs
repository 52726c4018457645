//! Who gets a new connection. The expected choices were observed with the kernel's IPVS (Linux 6.12) for the same servers,
//! weights and clients: one UDP datagram from each client in turn; each digit is a server, 0 means refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lab::{Packet, packet::tcp_flags};
use lb_common::{Event, Verdict, conn::State};
use lb_userspace::{
    config::Protocol::{Tcp, Udp},
    desired::ServiceId,
};

use crate::{
    case::Case,
    scene::{
        CLIENT_MAC, CLIENTS, Client, DIRECTOR_MAC, Family, INNER_MAC, Problem, SERVERS, V4, V6,
        director_error, quote, stranger, tunnel_source,
    },
    setup::{MIXED, SCHEDULED, Setup::Scheduling, scheduled_mac, scheduled_server, scheduled_vip},
};

pub fn cases() -> Vec<Case> {
    let observed = [
        (1, "3213213"),
        (2, "4314314"),
        (3, "32112132112132"),
        (4, "32133132133132"),
        (5, "32132132"),
        (6, "321121321121321121"),
        (7, "332211331332213223311332133113"),
        (8, "443333333001113330011443303114"),
        (9, "331111333334113331331341133311"),
        (10, "323232331233213123133323222323"),
        (11, "321133121231331221313233131222"),
        (12, "333233233323333323322333322322"),
        (15, "321322333213333233322312132123"),
        (17, "000"),
    ];
    let mut cases: Vec<Case> = observed.into_iter().map(|(number, picks)| sequence(number, picks)).collect();
    cases.push(after_weight_0(13, "333313133333331331333133333333"));
    cases.push(after_weight_0(14, "300303103030330001333033330000"));
    cases.push(loads());
    cases.extend(by_client());
    cases.push(mixed());
    cases
}

/// The clients of the observation, from 1.
pub fn observed_client(family: Family, number: u16) -> Client {
    let [_, low] = number.to_be_bytes();
    let address: IpAddr = match family {
        V4 => {
            let part = |factor: u8| low.wrapping_mul(factor);
            Ipv4Addr::new(10, part(7), part(13), part(29)).into()
        }
        V6 => Ipv6Addr::new(0x2001, 0xdb8, number, number * 77, 0, 0, 0, number * 5).into(),
    };
    Client { address, port: 20_000 + number }
}

pub fn entry(number: u8) -> (Family, String) {
    let found = SCHEDULED.iter().find(|(there, ..)| *there == number);
    let (_, family, scheduler, flags, weights) = found.expect("a number of the list");
    (*family, format!("{scheduler} {flags} {weights:?} {}", family.name()).replace("  ", " "))
}

/// The frame to a real server, without IP.
pub fn to(server: u8) -> Packet {
    Packet::eth(INNER_MAC, scheduled_mac(server))
}

/// One datagram from each client goes where the digits say.
pub fn picks(mut case: Case, number: u8, family: Family, picks: &str) -> Case {
    let vip = scheduled_vip(family, number);
    for (client, pick) in (1..).zip(picks.bytes()) {
        let c = observed_client(family, client);
        let packet = c.to(vip).udp(c.port, 80);
        case = match pick - b'0' {
            0 => {
                let refusal = refusal(vip, &c, &packet);
                case.arrives(CLIENTS, packet).transmits(Verdict::ReplyNoServer, refusal)
            }
            server => {
                let expected = to(server).ip(c.address, vip).ttl(63).udp(c.port, 80);
                case.arrives(CLIENTS, packet).redirects(Verdict::ForwardDr, expected)
            }
        };
    }
    case
}

/// What the director answers when there is no server for a client's packet.
pub fn refusal(vip: IpAddr, c: &Client, packet: &Packet) -> Packet {
    let frame = Packet::eth(DIRECTOR_MAC, CLIENT_MAC);
    director_error(frame, vip, c.address, Problem::PortUnreachable, packet)
}

fn sequence(number: u8, expected: &str) -> Case {
    let (family, name) = entry(number);
    picks(Case::new(Scheduling, format!("schedulers: {name} chooses like IPVS")), number, family, expected)
}

fn after_weight_0(number: u8, expected: &str) -> Case {
    let (family, name) = entry(number);
    let id = ServiceId { address: scheduled_vip(family, number), port: 80, protocol: Udp };
    let server = scheduled_server(family, 2);
    let case =
        Case::new(Scheduling, format!("schedulers: {name}, the second then set to 0, chooses like IPVS"))
            .happens("the second server's weight becomes 0", move |plane| plane.set_weight(&id, server, 0));
    picks(case, number, family, expected)
}

/// wlc counts 256 inactive connections like one active one.
fn loads() -> Case {
    let vip = scheduled_vip(V4, 16);
    let [a, b, third] = [(); 3].map(|()| Client::new(V4));
    let syn = |c: &Client| c.to(vip).tcp(c.port, 80).syn();
    let at = |server: u8, c: &Client| to(server).ip(c.address, vip).ttl(63).tcp(c.port, 80).syn();
    Case::new(Scheduling, "schedulers: wlc prefers the server whose connection was closed")
        .arrives(CLIENTS, syn(&a))
        .redirects(Verdict::ForwardDr, at(2, &a))
        .arrives(CLIENTS, syn(&b))
        .redirects(Verdict::ForwardDr, at(1, &b))
        .before(CLIENTS, b.to(vip).tcp(b.port, 80), Verdict::ForwardDr)
        // Server 2 is first in turn, so only the closed connection makes server 1 the better one.
        .before(CLIENTS, b.to(vip).tcp(b.port, 80).rst(), Verdict::ForwardDr)
        .arrives(CLIENTS, syn(&third))
        .redirects(Verdict::ForwardDr, at(1, &third))
}

/// What a choice by the client's address means for packets without a connection.
fn by_client() -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, scheduler, pick) in [(7, "sh", 3), (11, "mh", 3)] {
        let vip = scheduled_vip(V4, number);
        let first = observed_client(V4, 1);
        // Another port than the datagrams of the sequences, but the same address.
        let c = |port| Client { port, ..first };

        let middle = c(30_001);
        cases.push(
            Case::new(
                Scheduling,
                format!("schedulers: {scheduler}: a segment from the middle of a connection"),
            )
            .arrives(CLIENTS, middle.to(vip).tcp(middle.port, 80).payload(b"data"))
            .redirects(
                Verdict::ForwardDr,
                to(pick).ip(middle.address, vip).ttl(63).tcp(middle.port, 80).payload(b"data"),
            )
            .counting(&[Event::ConnectionNew])
            .leaves_state_at(&middle, (vip, 80, Tcp), Some(State::Established)),
        );
        let reset = c(30_002);
        cases.push(
            Case::new(Scheduling, format!("schedulers: {scheduler}: RST without a connection"))
                .arrives(CLIENTS, reset.to(vip).tcp(reset.port, 80).flags(tcp_flags::RST))
                .passes(Verdict::PassNoConnection),
        );
        let unknown = c(30_003);
        let quoted = quote(&Packet::bare_ip(vip, unknown.address).tcp(80, unknown.port), 8);
        let router = Client { address: stranger(V4), ..unknown };
        cases.push(
            Case::new(
                Scheduling,
                format!("schedulers: {scheduler}: an ICMP error about a connection that is not known"),
            )
            .arrives(CLIENTS, router.to(vip).icmp_error(3, 4, 1280, &quoted))
            .redirects(
                Verdict::IcmpToServer,
                to(pick).ip(router.address, vip).ttl(63).icmp_error(3, 4, 1280, &quoted),
            ),
        );
    }
    cases
}

/// A virtual server whose real servers are reached by NAT, DR and TUN.
fn mixed() -> Case {
    let vip = scheduled_vip(V4, MIXED);
    let [by_tun, by_dr, by_nat] = [(); 3].map(|()| Client::new(V4));
    let server = |number| scheduled_server(V4, number);
    let syn = |c: &Client| c.to(vip).tcp(c.port, 80).syn();
    let data = |c: &Client| c.to(vip).tcp(c.port, 80).payload(b"data");
    let tunnelled =
        |c: &Client| to(3).ip(tunnel_source(V4), server(3)).ip(c.address, vip).ttl(63).tcp(c.port, 80);
    let direct = |c: &Client| to(2).ip(c.address, vip).ttl(63).tcp(c.port, 80);
    let translated = |c: &Client| to(1).ip(c.address, server(1)).ttl(63).tcp(c.port, 80);
    let answer = Packet::eth(scheduled_mac(1), INNER_MAC).ip(server(1), by_nat.address).tcp(80, by_nat.port);
    let answered = Packet::eth(DIRECTOR_MAC, CLIENT_MAC).ip(vip, by_nat.address).ttl(63).tcp(80, by_nat.port);
    Case::new(Scheduling, "schedulers: one virtual server with servers of every kind")
        .arrives(CLIENTS, syn(&by_tun))
        .redirects(Verdict::ForwardTun, tunnelled(&by_tun).syn())
        .arrives(CLIENTS, syn(&by_dr))
        .redirects(Verdict::ForwardDr, direct(&by_dr).syn())
        .arrives(CLIENTS, syn(&by_nat))
        .redirects(Verdict::ForwardNat, translated(&by_nat).syn())
        .arrives(CLIENTS, data(&by_dr))
        .redirects(Verdict::ForwardDr, direct(&by_dr).payload(b"data"))
        .arrives(CLIENTS, data(&by_tun))
        .redirects(Verdict::ForwardTun, tunnelled(&by_tun).payload(b"data"))
        .arrives(CLIENTS, data(&by_nat))
        .redirects(Verdict::ForwardNat, translated(&by_nat).payload(b"data"))
        .arrives(SERVERS, answer.payload(b"answer"))
        .redirects(Verdict::ReverseNat, answered.payload(b"answer"))
}
