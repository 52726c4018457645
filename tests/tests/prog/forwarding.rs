//! The ordinary ways: to the real server by NAT, DR and TUN, and from a NAT server back to the client.

use lab::Packet;
use lb_common::{Event, Verdict, conn::State};
use lb_userspace::config::Protocol::{Tcp, Udp};

use crate::{
    case::{Case, Counts},
    scene::{
        CLIENTS, COUNTED, Client, FAMILIES, Family, INNER_MAC, KERNEL, MODES, Mode, ONE_ARM, PLAIN,
        SERVER_MAC, SERVERS, Target, stranger,
    },
    setup::Setup::Forwarding,
};

/// The verdict of packets to real servers.
pub fn verdict(mode: Mode) -> Verdict {
    match mode {
        Mode::Nat => Verdict::ForwardNat,
        Mode::Dr => Verdict::ForwardDr,
        Mode::Tun | Mode::TunAcross => Verdict::ForwardTun,
    }
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for mode in MODES {
            cases.extend(to_server(mode, family));
        }
        cases.extend(to_client(family));
    }
    cases
}

fn to_server(mode: Mode, family: Family) -> Vec<Case> {
    let title = |text: &str| format!("{} {}: {text}", mode.name(), family.name());
    let target = Target::new(mode, family, PLAIN);
    let (tcp, udp) = (target.server_port(Tcp), target.server_port(Udp));
    let is_nat = mode == Mode::Nat;
    let mut cases = Vec::new();

    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("SYN opens a connection"))
            .arrives(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn().options(&[2, 4, 5, 0xb4]))
            .redirects(verdict(mode), target.forwarded(&c).tcp(c.port, tcp).syn().options(&[2, 4, 5, 0xb4]))
            .counting(&[Event::ConnectionNew])
            .leaves_state(&c, &target, Tcp, Some(State::SynRecv)),
    );

    let c = Client::new(family);
    let data = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";
    cases.push(
        Case::new(Forwarding, title("data of an established connection"))
            .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), verdict(mode))
            .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80), verdict(mode))
            .arrives(CLIENTS, c.to(target.vip()).tcp(c.port, 80).payload(data))
            .redirects(verdict(mode), target.forwarded(&c).tcp(c.port, tcp).payload(data))
            .counting(&[])
            .leaves_state(&c, &target, Tcp, Some(State::Established)),
    );

    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("UDP datagram of an odd length"))
            .arrives(CLIENTS, c.to(target.vip()).udp(c.port, 53).payload(b"odd"))
            .redirects(verdict(mode), target.forwarded(&c).udp(c.port, udp).payload(b"odd"))
            .counting(&[Event::ConnectionNew])
            .leaves_state(&c, &target, Udp, Some(State::Udp)),
    );

    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("second UDP datagram of a flow"))
            .before(CLIENTS, c.to(target.vip()).udp(c.port, 53), verdict(mode))
            .arrives(CLIENTS, c.to(target.vip()).udp(c.port, 53).payload(b"again"))
            .redirects(verdict(mode), target.forwarded(&c).udp(c.port, udp).payload(b"again"))
            .counting(&[]),
    );

    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("UDP without checksum keeps none"))
            .arrives(CLIENTS, c.to(target.vip()).udp(c.port, 53).checksum(0).payload(b"question"))
            .redirects(verdict(mode), target.forwarded(&c).udp(c.port, udp).checksum(0).payload(b"question")),
    );

    let c = Client::new(family);
    let server = Target::new(mode, family, ONE_ARM);
    let port = server.server_port(Tcp);
    cases.push(
        Case::new(Forwarding, title("a server on the clients' side"))
            .arrives(CLIENTS, c.to(server.vip()).tcp(c.port, 80).syn())
            .transmits(verdict(mode), server.forwarded(&c).tcp(c.port, port).syn()),
    );

    let c = Client::new(family);
    let server = Target::new(mode, family, KERNEL);
    let port = server.server_port(Tcp);
    // The agent has told no address for the outer packet either.
    if matches!(mode, Mode::Nat | Mode::Dr) {
        cases.push(
            Case::new(Forwarding, title("a next hop that only the kernel knows"))
                .arrives(CLIENTS, c.to(server.vip()).tcp(c.port, 80).syn())
                .redirects(verdict(mode), server.forwarded(&c).tcp(c.port, port).syn())
                .counting(&[Event::ConnectionNew, Event::FibLookup]),
        );
    }

    let c = Client::new(family);
    let counted = Target::new(mode, family, COUNTED);
    let header = family.header() as i64;
    let bytes_in = 3 * (header + 20) + 11;
    cases.push(
        Case::new(Forwarding, title("packets, bytes and connections are counted"))
            .before(CLIENTS, c.to(counted.vip()).tcp(c.port, 80).syn(), verdict(mode))
            .before(CLIENTS, c.to(counted.vip()).tcp(c.port, 80), verdict(mode))
            .arrives(CLIENTS, c.to(counted.vip()).tcp(c.port, 80).payload(b"eleven byte"))
            .redirects(
                verdict(mode),
                counted.forwarded(&c).tcp(c.port, counted.server_port(Tcp)).payload(b"eleven byte"),
            )
            .counts(
                &counted,
                Tcp,
                Counts { active: 1, connections: 1, packets_in: 3, bytes_in, ..Counts::default() },
            ),
    );

    let c = Client::new(family);
    let counted = Target::new(mode, family, COUNTED + 1);
    let bytes_in = header + 8;
    cases.push(
        Case::new(Forwarding, title("a UDP flow counts as inactive"))
            .arrives(CLIENTS, c.to(counted.vip()).udp(c.port, 53))
            .redirects(verdict(mode), counted.forwarded(&c).udp(c.port, counted.server_port(Udp)))
            .counts(
                &counted,
                Udp,
                Counts { inactive: 1, connections: 1, packets_in: 1, bytes_in, ..Counts::default() },
            ),
    );

    if !is_nat {
        let own = Packet::eth(SERVER_MAC, INNER_MAC).ip(target.server(), stranger(target.server_family()));
        cases.push(
            Case::new(Forwarding, title("a server's own packets are not ours"))
                .arrives(SERVERS, own.tcp(80, 4000))
                .passes(Verdict::PassNotOurs),
        );
    }
    cases
}

fn to_client(family: Family) -> Vec<Case> {
    let title = |text: &str| format!("nat {}: {text}", family.name());
    let target = Target::new(Mode::Nat, family, PLAIN);
    let mut cases = Vec::new();

    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("SYN and ACK come back from the virtual server"))
            .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), Verdict::ForwardNat)
            .arrives(SERVERS, target.answer(&c).tcp(8080, c.port).syn_ack())
            .redirects(Verdict::ReverseNat, target.answered(&c).tcp(80, c.port).syn_ack())
            .counting(&[])
            .leaves_state(&c, &target, Tcp, Some(State::SynRecv)),
    );

    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("data comes back from the virtual server"))
            .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), Verdict::ForwardNat)
            .before(SERVERS, target.answer(&c).tcp(8080, c.port).syn_ack(), Verdict::ReverseNat)
            .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80), Verdict::ForwardNat)
            .arrives(SERVERS, target.answer(&c).tos(0xb8).tcp(8080, c.port).payload(&[7; 1301]))
            .redirects(
                Verdict::ReverseNat,
                target.answered(&c).tos(0xb8).tcp(80, c.port).payload(&[7; 1301]),
            ),
    );

    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("a UDP answer comes back from the virtual server"))
            .before(CLIENTS, c.to(target.vip()).udp(c.port, 53), Verdict::ForwardNat)
            .arrives(SERVERS, target.answer(&c).udp(5353, c.port).payload(b"answer"))
            .redirects(Verdict::ReverseNat, target.answered(&c).udp(53, c.port).payload(b"answer")),
    );

    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("a UDP answer without checksum keeps none"))
            .before(CLIENTS, c.to(target.vip()).udp(c.port, 53), Verdict::ForwardNat)
            .arrives(SERVERS, target.answer(&c).udp(5353, c.port).checksum(0).payload(b"answer"))
            .redirects(
                Verdict::ReverseNat,
                target.answered(&c).udp(53, c.port).checksum(0).payload(b"answer"),
            ),
    );

    // Two bytes make the checksum of the translated datagram 0, which must be sent as 0xffff (RFC 768).
    let c = Client::new(family);
    let translated = |fill: [u8; 2]| target.forwarded(&c).udp(c.port, 5353).payload(&fill);
    let checksum_at = 14 + family.header() + 6;
    let without = translated([0, 0]).build();
    // A checksum is the complement of a sum; added to what is summed it makes that all ones.
    let fill = [without[checksum_at], without[checksum_at + 1]];
    let expected = translated(fill).build();
    assert_eq!(expected[checksum_at..checksum_at + 2], [0xff, 0xff]);
    cases.push(
        Case::new(Forwarding, title("a UDP checksum that becomes 0 is sent as all ones"))
            .arrives(CLIENTS, c.to(target.vip()).udp(c.port, 53).payload(&fill))
            .redirects(Verdict::ForwardNat, expected),
    );

    let c = Client::new(family);
    let counted = Target::new(Mode::Nat, family, COUNTED + 2);
    let bytes = family.header() as i64 + 20;
    cases.push(
        Case::new(Forwarding, title("answers are counted too"))
            .before(CLIENTS, c.to(counted.vip()).tcp(c.port, 80).syn(), Verdict::ForwardNat)
            .arrives(SERVERS, counted.answer(&c).tcp(8080, c.port).syn_ack())
            .redirects(Verdict::ReverseNat, counted.answered(&c).tcp(80, c.port).syn_ack())
            .counts(
                &counted,
                Tcp,
                Counts {
                    active: 1,
                    connections: 1,
                    packets_in: 1,
                    bytes_in: bytes,
                    packets_out: 1,
                    bytes_out: bytes,
                    ..Counts::default()
                },
            ),
    );

    let c = Client::new(family);
    let server = Target::new(Mode::Nat, family, ONE_ARM);
    cases.push(
        Case::new(Forwarding, title("an answer from the clients' side"))
            .before(CLIENTS, c.to(server.vip()).tcp(c.port, 80).syn(), Verdict::ForwardNat)
            .arrives(CLIENTS, server.answer(&c).tcp(8080, c.port).syn_ack())
            .transmits(Verdict::ReverseNat, server.answered(&c).tcp(80, c.port).syn_ack()),
    );

    let c = Client::new(family);
    let router = [2, 0, 0, 0, 1, 9];
    let moved = Packet::eth(router, [2, 0, 0, 0, 1, 2]).ip(c.address, target.vip());
    let expected = Packet::eth([2, 0, 0, 0, 1, 2], router).ip(target.vip(), c.address).ttl(63);
    cases.push(
        Case::new(Forwarding, title("answers follow a client that comes by another router"))
            .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), Verdict::ForwardNat)
            .before(CLIENTS, moved.tcp(c.port, 80), Verdict::ForwardNat)
            .arrives(SERVERS, target.answer(&c).tcp(8080, c.port))
            .redirects(Verdict::ReverseNat, expected.tcp(80, c.port)),
    );

    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("a server's packet to a client without a connection"))
            .arrives(SERVERS, target.answer(&c).tcp(8080, c.port).syn())
            .passes(Verdict::PassNoService),
    );

    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("a server's packet from another port"))
            .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), Verdict::ForwardNat)
            .arrives(SERVERS, target.answer(&c).tcp(22, c.port))
            .passes(Verdict::PassNoService),
    );
    cases
}
