//! Which virtual server a packet is for, if any; and packets that have nobody to go to.

use lab::Packet;
use lb_common::{Verdict, conn::State};
use lb_userspace::config::Protocol::{Tcp, Udp};

use crate::{
    case::Case,
    forwarding::verdict,
    scene::{
        CLIENT_MAC, CLIENTS, Client, DIRECTOR_MAC, EMPTY, EVERY_PORT, FAMILIES, Family, MODES, Mode, PLAIN,
        Problem, SAME_PORT, SERVERS, TWIN, Target, UNRESOLVED, director_error, stranger,
    },
    setup::Setup::Forwarding,
};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for mode in MODES {
            cases.extend(in_mode(mode, family));
        }
        cases.extend(for_nat(family));
        cases.extend(for_others(family));
    }
    cases
}

fn in_mode(mode: Mode, family: Family) -> Vec<Case> {
    let title = |text: &str| format!("{} {}: {text}", mode.name(), family.name());
    let mut cases = Vec::new();

    let c = Client::new(family);
    let every = Target::new(mode, family, EVERY_PORT);
    cases.push(
        Case::new(Forwarding, title("every port: TCP to any port keeps it"))
            .arrives(CLIENTS, c.to(every.vip()).tcp(c.port, 2222).syn())
            .redirects(verdict(mode), every.forwarded(&c).tcp(c.port, 2222).syn())
            .leaves_state_at(&c, (every.vip(), 2222, Tcp), Some(State::SynRecv)),
    );

    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("every port: UDP to any port keeps it"))
            .arrives(CLIENTS, c.to(every.vip()).udp(c.port, 6969).payload(b"x"))
            .redirects(verdict(mode), every.forwarded(&c).udp(c.port, 6969).payload(b"x"))
            .leaves_state_at(&c, (every.vip(), 6969, Udp), Some(State::Udp)),
    );

    let c = Client::new(family);
    let target = Target::new(mode, family, PLAIN);
    cases.push(
        Case::new(Forwarding, title("SYN to a port that is not served"))
            .arrives(CLIENTS, c.to(target.vip()).tcp(c.port, 81).syn())
            .passes(Verdict::PassNoService),
    );

    let c = Client::new(family);
    let unresolved = Target::new(mode, family, UNRESOLVED);
    cases.push(
        Case::new(Forwarding, title("a server whose next hop nobody knows"))
            .arrives(CLIENTS, c.to(unresolved.vip()).tcp(c.port, 80).syn())
            .drops(Verdict::DropNoNextHop),
    );

    let empty = Target::new(mode, family, EMPTY);
    for (what, packet) in [("SYN", true), ("UDP datagram", false)] {
        let c = Client::new(family);
        let packet = match packet {
            true => c.to(empty.vip()).tcp(c.port, 80).syn(),
            false => c.to(empty.vip()).udp(c.port, 53).payload(b"question"),
        };
        let answer = director_error(
            Packet::eth(DIRECTOR_MAC, CLIENT_MAC),
            empty.vip(),
            c.address,
            Problem::PortUnreachable,
            &packet,
        );
        cases.push(
            Case::new(Forwarding, title(&format!("{what} to a virtual server without servers")))
                .arrives(CLIENTS, packet)
                .transmits(Verdict::ReplyNoServer, answer),
        );
    }
    cases
}

fn for_nat(family: Family) -> Vec<Case> {
    let title = |text: &str| format!("nat {}: {text}", family.name());
    let mut cases = Vec::new();

    let same = Target::new(Mode::Nat, family, SAME_PORT);
    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("the same port on both sides: TCP"))
            .arrives(CLIENTS, c.to(same.vip()).tcp(c.port, 80).syn())
            .redirects(Verdict::ForwardNat, same.forwarded(&c).tcp(c.port, 80).syn()),
    );

    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("the same port on both sides: UDP and its answer"))
            .before(CLIENTS, c.to(same.vip()).udp(c.port, 53), Verdict::ForwardNat)
            .arrives(SERVERS, same.answer(&c).udp(53, c.port).payload(b"answer"))
            .redirects(Verdict::ReverseNat, same.answered(&c).udp(53, c.port).payload(b"answer")),
    );

    let every = Target::new(Mode::Nat, family, EVERY_PORT);
    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("every port: the answer keeps its port"))
            .before(CLIENTS, c.to(every.vip()).tcp(c.port, 2222).syn(), Verdict::ForwardNat)
            .arrives(SERVERS, every.answer(&c).tcp(2222, c.port).syn_ack())
            .redirects(Verdict::ReverseNat, every.answered(&c).tcp(2222, c.port).syn_ack()),
    );

    let plain = Target::new(Mode::Nat, family, PLAIN);
    let twin = Target::new(Mode::Nat, family, TWIN);
    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("one client port to one server by two virtual servers"))
            .before(CLIENTS, c.to(plain.vip()).tcp(c.port, 80).syn(), Verdict::ForwardNat)
            .arrives(CLIENTS, c.to(twin.vip()).tcp(c.port, 80).syn())
            .drops(Verdict::DropCollision)
            .leaves_state(&c, &plain, Tcp, Some(State::SynRecv))
            .leaves_state(&c, &twin, Tcp, None),
    );

    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("the same, after the first connection is over"))
            .before(CLIENTS, c.to(plain.vip()).tcp(c.port, 80).syn(), Verdict::ForwardNat)
            .happens("two minutes pass", move |plane| plane.age_connections(&c, 120))
            .arrives(CLIENTS, c.to(twin.vip()).tcp(c.port, 80).syn())
            .redirects(Verdict::ForwardNat, twin.forwarded(&c).tcp(c.port, 8080).syn())
            .leaves_state(&c, &plain, Tcp, None)
            .leaves_state(&c, &twin, Tcp, Some(State::SynRecv)),
    );
    cases
}

fn for_others(family: Family) -> Vec<Case> {
    let title = |text: &str| format!("not ours {}: {text}", family.name());
    let target = Target::new(Mode::Nat, family, PLAIN);
    let c = Client::new(family);
    let nobody = stranger(family);
    let sctp = c.to(target.vip()).protocol(132).payload(&[0; 12]);
    let gre = c.to(target.vip()).protocol(47).payload(&[0; 4]);
    vec![
        Case::new(Forwarding, title("TCP to another address"))
            .arrives(CLIENTS, c.to(nobody).tcp(c.port, 80).syn())
            .passes(Verdict::PassNotOurs),
        Case::new(Forwarding, title("UDP to another address"))
            .arrives(CLIENTS, c.to(nobody).udp(c.port, 53))
            .passes(Verdict::PassNotOurs),
        Case::new(Forwarding, title("SCTP to a virtual server's address"))
            .arrives(CLIENTS, sctp)
            .passes(Verdict::PassNoService),
        Case::new(Forwarding, title("GRE to a virtual server's address"))
            .arrives(CLIENTS, gre)
            .passes(Verdict::PassNoService),
        Case::new(Forwarding, title("UDP to the port of TCP"))
            .arrives(CLIENTS, c.to(target.vip()).udp(c.port, 80))
            .passes(Verdict::PassNoService),
        Case::new(Forwarding, title("an unserved port of IP protocol 59 or none"))
            .arrives(CLIENTS, c.to(target.vip()).protocol(59).payload(&[0; 8]))
            .passes(Verdict::PassNoService),
        Case::new(Forwarding, title("SYN without servers from an address that may not be answered"))
            .arrives(CLIENTS, unanswerable(family).tcp(4000, 80).syn())
            .drops(Verdict::DropNoServer),
    ]
}

/// A packet for [`EMPTY`] from a multicast address.
fn unanswerable(family: Family) -> Packet {
    let multicast: std::net::IpAddr = match family {
        Family::V4 => [224, 0, 0, 251].into(),
        Family::V6 => [0xff02, 0, 0, 0, 0, 0, 0, 0xfb].into(),
    };
    Packet::eth(CLIENT_MAC, DIRECTOR_MAC).ip(multicast, Target::new(Mode::Nat, family, EMPTY).vip())
}
