//! ICMP: errors go to whom they are about, all else is this machine's.

use std::net::IpAddr;

use lab::Packet;
use lb_common::Verdict;
use lb_userspace::config::Protocol::{self, Tcp, Udp};

use crate::{
    case::Case,
    forwarding::verdict,
    scene::{
        CLIENT_MAC, CLIENTS, Client, DIRECTOR_MAC, EVERY_PORT, FAMILIES, Family, INNER_MAC, MODES, Mode,
        NARROW_SERVER, PLAIN, Problem, SERVER_MAC, SERVERS, Target, UNRESOLVED, V4, V6, quote, stranger,
    },
    setup::Setup::Forwarding,
};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for mode in MODES {
            cases.extend(to_server(mode, family));
        }
        cases.extend(translated_to_server(family));
        cases.extend(to_client(family));
        cases.extend(unrelated(family));
        cases.extend(malformed(family));
        cases.extend(dropped(family));
    }
    cases
}

/// An ICMP error about a packet; `ip` is frame and IP header.
pub fn error(family: Family, ip: Packet, what: Problem, quoted: &[u8]) -> Packet {
    let (kind, code, rest) = what.encode(family);
    ip.icmp_error(kind, code, rest, quoted)
}

/// What a router sees of the packet that a virtual server sent to a client; its last bytes are 40 of data.
pub fn seen(from: IpAddr, protocol: Protocol, port: u16, c: &Client) -> Packet {
    let ip = Packet::bare_ip(from, c.address).ttl(57);
    match protocol {
        Tcp => ip.tcp(port, c.port).payload(&[0x44; 40]),
        Udp => ip.udp(port, c.port).payload(&[0x44; 40]),
    }
}

/// A router's frame and IP header towards the virtual server.
pub fn from_router(target: &Target) -> Packet {
    Packet::eth(CLIENT_MAC, DIRECTOR_MAC).ip(stranger(target.family), target.vip())
}

/// The same after the director.
fn at_server(target: &Target) -> Packet {
    let router = Client { address: stranger(target.family), port: 0 };
    target.forwarded(&router)
}

/// Opens the client's connection to the target.
fn opened(case: Case, target: &Target, protocol: Protocol, c: &Client) -> Case {
    let packet = c.to(target.vip());
    match protocol {
        Tcp => case.before(CLIENTS, packet.tcp(c.port, 80).syn(), verdict(target.mode)),
        Udp => case.before(CLIENTS, packet.udp(c.port, 53), verdict(target.mode)),
    }
}

fn to_server(mode: Mode, family: Family) -> Vec<Case> {
    let title = |text: &str| format!("icmp {} {}: {text}", mode.name(), family.name());
    let target = Target::new(mode, family, PLAIN);
    let mut cases = Vec::new();
    // The server knows its packets by its own address and port.
    let own = if mode == Mode::Nat { target.server() } else { target.vip() };
    for (protocol, port, bytes, name) in [
        (Tcp, 80, 8, "too big, with 8 bytes of TCP quoted"),
        (Tcp, 80, 20, "too big, with TCP's header quoted"),
        (Tcp, 80, 60, "too big, with all of the segment quoted"),
        (Udp, 53, 8, "too big, with UDP's header quoted"),
        (Udp, 53, 48, "too big, with all of the datagram quoted"),
    ] {
        let c = Client::new(family);
        let seen_by = seen(target.vip(), protocol, port, &c);
        let sent = seen(own, protocol, target.server_port(protocol), &c);
        cases.push(
            opened(Case::new(Forwarding, title(name)), &target, protocol, &c)
                .arrives(
                    CLIENTS,
                    error(family, from_router(&target), Problem::TooBig(1280), &quote(&seen_by, bytes)),
                )
                .redirects(
                    Verdict::IcmpToServer,
                    error(family, at_server(&target), Problem::TooBig(1280), &quote(&sent, bytes)),
                ),
        );
    }
    for (problem, name) in
        [(Problem::PortUnreachable, "port unreachable"), (Problem::TimeExceeded, "time exceeded")]
    {
        let c = Client::new(family);
        let seen_by = seen(target.vip(), Udp, 53, &c);
        let sent = seen(own, Udp, target.server_port(Udp), &c);
        let own_error = |ip: Packet, packet: &Packet| error(family, ip, problem, &quote(packet, 8));
        cases.push(
            opened(
                Case::new(Forwarding, title(&format!("{name}, from the client itself"))),
                &target,
                Udp,
                &c,
            )
            .arrives(CLIENTS, own_error(c.to(target.vip()), &seen_by))
            .redirects(Verdict::IcmpToServer, own_error(target.forwarded(&c), &sent)),
        );
    }
    cases
}

fn translated_to_server(family: Family) -> Vec<Case> {
    let title = |text: &str| format!("icmp nat {}: {text}", family.name());
    let mut cases = Vec::new();
    let target = Target::new(Mode::Nat, family, PLAIN);

    let c = Client::new(family);
    let quoted = |from, port| {
        quote(&Packet::bare_ip(from, c.address).ttl(9).udp(port, c.port).checksum(0).payload(&[1; 20]), 8)
    };
    cases.push(
        opened(
            Case::new(Forwarding, title("a quoted datagram without checksum keeps none")),
            &target,
            Udp,
            &c,
        )
        .arrives(
            CLIENTS,
            error(family, from_router(&target), Problem::TooBig(1280), &quoted(target.vip(), 53)),
        )
        .redirects(
            Verdict::IcmpToServer,
            error(family, at_server(&target), Problem::TooBig(1280), &quoted(target.server(), 5353)),
        ),
    );

    let c = Client::new(family);
    let every = Target::new(Mode::Nat, family, EVERY_PORT);
    let quoted = |from| quote(&Packet::bare_ip(from, c.address).tcp(2222, c.port), 8);
    cases.push(
        Case::new(Forwarding, title("about a connection of every port"))
            .before(CLIENTS, c.to(every.vip()).tcp(c.port, 2222).syn(), Verdict::ForwardNat)
            .arrives(CLIENTS, error(family, from_router(&every), Problem::TooBig(1280), &quoted(every.vip())))
            .redirects(
                Verdict::IcmpToServer,
                error(family, at_server(&every), Problem::TooBig(1280), &quoted(every.server())),
            ),
    );

    let c = Client::new(family);
    let tagged = Packet::eth(CLIENT_MAC, DIRECTOR_MAC).vlan(9).ip(stranger(family), target.vip());
    let seen_by = quote(&seen(target.vip(), Tcp, 80, &c), 8);
    let sent = quote(&seen(target.server(), Tcp, 8080, &c), 8);
    cases.push(
        opened(Case::new(Forwarding, title("in a VLAN")), &target, Tcp, &c)
            .arrives(CLIENTS, error(family, tagged, Problem::TooBig(1280), &seen_by))
            .redirects(
                Verdict::IcmpToServer,
                error(family, at_server(&target), Problem::TooBig(1280), &sent),
            ),
    );
    if family == V4 {
        let c = Client::new(V4);
        let quoted = |from: IpAddr, port| {
            let packet = match from {
                IpAddr::V4(_) => Packet::bare_ip(from, c.address).options(&[7, 7, 4, 0, 0, 0, 0, 0]),
                IpAddr::V6(_) => unreachable!("IPv4 here"),
            };
            quote(&packet.tcp(port, c.port).syn_ack(), 8)
        };
        cases.push(
            opened(Case::new(Forwarding, title("with options in the quoted packet")), &target, Tcp, &c)
                .arrives(
                    CLIENTS,
                    error(family, from_router(&target), Problem::TooBig(1280), &quoted(target.vip(), 80)),
                )
                .redirects(
                    Verdict::IcmpToServer,
                    error(family, at_server(&target), Problem::TooBig(1280), &quoted(target.server(), 8080)),
                ),
        );
        let c = Client::new(V4);
        let options = [0x94, 4, 0, 0];
        let seen_by = quote(&seen(target.vip(), Tcp, 80, &c), 8);
        let sent = quote(&seen(target.server(), Tcp, 8080, &c), 8);
        cases.push(
            opened(Case::new(Forwarding, title("with options of its own")), &target, Tcp, &c)
                .arrives(
                    CLIENTS,
                    error(family, from_router(&target).options(&options), Problem::TooBig(1280), &seen_by),
                )
                .redirects(
                    Verdict::IcmpToServer,
                    error(family, at_server(&target).options(&options), Problem::TooBig(1280), &sent),
                ),
        );
    }
    cases
}

fn to_client(family: Family) -> Vec<Case> {
    let title = |text: &str| format!("icmp nat {}: {text}", family.name());
    let target = Target::new(Mode::Nat, family, PLAIN);
    let mut cases = Vec::new();
    // What arrived at the server, and what the client had sent: both of them with the server's side of the hops.
    let arrived = |c: &Client, to: IpAddr, protocol: Protocol, port: u16| {
        let ip = Packet::bare_ip(c.address, to).ttl(62);
        match protocol {
            Tcp => ip.tcp(c.port, port).payload(&[0x55; 30]),
            Udp => ip.udp(c.port, port).payload(&[0x55; 30]),
        }
    };
    let senders = [("the server", target.server()), ("a router behind the director", stranger(family))];
    for (who, sender) in senders {
        for (protocol, port, bytes) in [(Tcp, 80, 8), (Tcp, 80, 50), (Udp, 53, 8), (Udp, 53, 38)] {
            let c = Client::new(family);
            let at_server = arrived(&c, target.server(), protocol, target.server_port(protocol));
            let at_client = arrived(&c, target.vip(), protocol, port);
            let problem = if protocol == Udp { Problem::PortUnreachable } else { Problem::TooBig(1300) };
            let name = format!("from {who} about {protocol}, {bytes} bytes quoted");
            let incoming = Packet::eth(SERVER_MAC, INNER_MAC).ip(sender, c.address);
            cases.push(
                opened(Case::new(Forwarding, title(&name)), &target, protocol, &c)
                    .arrives(SERVERS, error(family, incoming, problem, &quote(&at_server, bytes)))
                    .redirects(
                        Verdict::IcmpToClient,
                        error(family, target.answered(&c), problem, &quote(&at_client, bytes)),
                    ),
            );
        }
    }
    cases
}

fn unrelated(family: Family) -> Vec<Case> {
    let title = |text: &str| format!("icmp {}: {text}", family.name());
    let target = Target::new(Mode::Nat, family, PLAIN);
    let c = Client::new(family);
    let unknown = quote(&seen(target.vip(), Tcp, 80, &c), 8);
    let later = match family {
        V4 => Packet::bare_ip(target.vip(), c.address).fragment(10, false).protocol(6).payload(&[0; 8]),
        V6 => {
            Packet::bare_ip(target.vip(), c.address).ipv6_fragment(10, false, 1).protocol(6).payload(&[0; 8])
        }
    };
    let later = later.build();
    let tunnelled = Packet::bare_ip(target.vip(), c.address).ip(c.address, target.vip()).tcp(1, 2).build();
    let ping = Packet::bare_ip(target.vip(), c.address).echo_request(1, 1).build();
    let redirect = match family {
        V4 => c.to(target.vip()).icmp_error(5, 1, 0, &unknown),
        V6 => c.to(target.vip()).icmp(137, 0, [0; 4]).payload(&[0; 32]),
    };
    let to = || c.to(target.vip());
    let elsewhere = Target::new(Mode::Dr, family, PLAIN);
    let misdirected = Client::new(family);
    vec![
        opened(
            Case::new(Forwarding, title("an error to another than it quotes")),
            &target,
            Tcp,
            &misdirected,
        )
        .arrives(
            CLIENTS,
            error(
                family,
                from_router(&elsewhere),
                Problem::TooBig(1280),
                &quote(&seen(target.vip(), Tcp, 80, &misdirected), 8),
            ),
        )
        .passes(Verdict::PassIcmpUnrelated),
        Case::new(Forwarding, title("echo request to a virtual server"))
            .arrives(CLIENTS, to().echo_request(7, 1).payload(b"ping"))
            .passes(Verdict::PassIcmp),
        Case::new(Forwarding, title("echo reply"))
            .arrives(CLIENTS, to().echo_reply(7, 1).payload(b"ping"))
            .passes(Verdict::PassIcmp),
        Case::new(Forwarding, title("echo request to somebody else"))
            .arrives(CLIENTS, c.to(stranger(family)).echo_request(7, 1))
            .passes(Verdict::PassIcmp),
        Case::new(Forwarding, title("redirect")).arrives(CLIENTS, redirect).passes(Verdict::PassIcmp),
        Case::new(Forwarding, title("an error about a connection that is not known"))
            .arrives(CLIENTS, error(family, to(), Problem::TooBig(1280), &unknown))
            .passes(Verdict::PassIcmpUnrelated),
        Case::new(Forwarding, title("an error about somebody else's packet"))
            .arrives(
                CLIENTS,
                error(
                    family,
                    to(),
                    Problem::PortUnreachable,
                    &quote(&seen(stranger(family), Udp, 53, &c), 8),
                ),
            )
            .passes(Verdict::PassIcmpUnrelated),
        Case::new(Forwarding, title("an error about a later fragment"))
            .arrives(CLIENTS, error(family, to(), Problem::TimeExceeded, &later))
            .passes(Verdict::PassIcmpUnrelated),
        Case::new(Forwarding, title("an error about a tunnel's packet"))
            .arrives(CLIENTS, error(family, to(), Problem::TooBig(1280), &tunnelled))
            .passes(Verdict::PassIcmpUnrelated),
        Case::new(Forwarding, title("an error about a ping"))
            .arrives(CLIENTS, error(family, to(), Problem::PortUnreachable, &ping))
            .passes(Verdict::PassIcmpUnrelated),
    ]
}

fn malformed(family: Family) -> Vec<Case> {
    let title = |text: &str| format!("icmp {}: {text}", family.name());
    let target = Target::new(Mode::Nat, family, PLAIN);
    let c = Client::new(family);
    let known = seen(target.vip(), Tcp, 80, &c);
    let opening = |text: &str| opened(Case::new(Forwarding, title(text)), &target, Tcp, &c);
    let with = |quoted: &[u8]| error(family, c.to(target.vip()), Problem::TooBig(1280), quoted);
    let header = family.header();
    let mut wrong_version = quote(&known, 8);
    wrong_version[0] = 0x75;
    let mut cut = with(&quote(&known, 8)).build();
    cut.truncate(cut.len() - 2);
    let mut cases = vec![
        opening("an error that quotes nothing").arrives(CLIENTS, with(&[])).drops(Verdict::DropIcmpMalformed),
        opening("an error that quotes half a header")
            .arrives(CLIENTS, with(&quote(&known, 0)[..header - 1]))
            .drops(Verdict::DropIcmpMalformed),
        opening("an error that quotes no ports")
            .arrives(CLIENTS, with(&quote(&known, 2)))
            .drops(Verdict::DropIcmpMalformed),
        opening("an error that quotes another version of IP")
            .arrives(CLIENTS, with(&wrong_version))
            .drops(Verdict::DropIcmpMalformed),
        opening("an error that is shorter than it says")
            .arrives(CLIENTS, cut)
            .drops(Verdict::DropIcmpMalformed),
    ];
    let mut empty = c.to(target.vip()).echo_request(1, 1).build();
    empty.truncate(14 + header + 1);
    cases.push(
        Case::new(Forwarding, title("one byte of ICMP"))
            .arrives(CLIENTS, empty)
            .passes(Verdict::PassMalformed),
    );
    if family == V4 {
        cases.push(
            Case::new(Forwarding, title("an error in fragments"))
                .arrives(
                    CLIENTS,
                    error(
                        family,
                        c.to(target.vip()).fragment(0, true),
                        Problem::TooBig(1280),
                        &quote(&known, 8),
                    ),
                )
                .passes(Verdict::PassIcmp),
        );
    }
    cases
}

fn dropped(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in MODES {
        let title = |text: &str| format!("icmp {} {}: {text}", mode.name(), family.name());
        let target = Target::new(mode, family, PLAIN);
        let c = Client::new(family);
        let quoted = quote(&seen(target.vip(), Tcp, 80, &c), 8);
        cases.push(
            opened(Case::new(Forwarding, title("an error with time to live 1")), &target, Tcp, &c)
                .arrives(CLIENTS, error(family, from_router(&target).ttl(1), Problem::TooBig(1280), &quoted))
                .drops(Verdict::DropTimeExceeded),
        );
        let c = Client::new(family);
        let narrow = Target::new(mode, family, NARROW_SERVER);
        let long =
            Packet::bare_ip(narrow.vip(), c.address)
                .udp(53, c.port)
                .payload(&vec![0; 1450 - family.header()]);
        cases.push(
            opened(Case::new(Forwarding, title("an error that does not fit")), &narrow, Udp, &c)
                .arrives(
                    CLIENTS,
                    error(family, from_router(&narrow), Problem::PortUnreachable, &long.build()),
                )
                .drops(Verdict::DropTooBig),
        );
    }
    let target = Target::new(Mode::Nat, family, UNRESOLVED);
    let c = Client::new(family);
    let quoted = quote(&seen(target.vip(), Tcp, 80, &c), 8);
    cases.push(
        Case::new(
            Forwarding,
            format!("icmp nat {}: an error to a server whose next hop nobody knows", family.name()),
        )
        .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), Verdict::DropNoNextHop)
        .arrives(CLIENTS, error(family, from_router(&target), Problem::TooBig(1280), &quoted))
        .drops(Verdict::DropNoNextHop),
    );
    cases
}
