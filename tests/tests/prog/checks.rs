//! The agent's own checks through the data plane: to one real server whatever the schedule says, and the answers back.

use lab::Packet;
use lb_common::Verdict;
use lb_userspace::config::Protocol;

use crate::{
    case::{Case, Counts},
    scene::{CLIENTS, Client, FAMILIES, Family, INNER_MAC, Mode, PLAIN, SERVER_MAC, SERVERS, Target},
    setup::Setup::Forwarding,
};

pub fn cases() -> Vec<Case> {
    FAMILIES
        .into_iter()
        .flat_map(|family| {
            [Mode::Nat, Mode::Dr, Mode::Tun].into_iter().flat_map(move |mode| {
                [to_server(mode, family), answered(mode, family), datagrams(mode, family)]
            })
        })
        .collect()
}

fn begun(mode: Mode, family: Family, protocol: Protocol, what: &str) -> (Case, Target, Client) {
    let (target, c) = (Target::new(mode, family, PLAIN), Client::new(family));
    let case = Case::new(Forwarding, format!("check {} {}: {what}", mode.name(), family.name()))
        .happens("a check begins", move |plane| plane.begin_check(&c, &target, protocol));
    (case, target, c)
}

fn forwarded(mode: Mode) -> Verdict {
    match mode {
        Mode::Nat => Verdict::ForwardNat,
        Mode::Dr => Verdict::ForwardDr,
        Mode::Tun | Mode::TunAcross => Verdict::ForwardTun,
    }
}

/// An answer as the server sends it: with NAT from its own address, else from the virtual server's.
fn answer(target: &Target, c: &Client) -> Packet {
    if target.mode == Mode::Nat {
        return target.answer(c);
    }
    Packet::eth(SERVER_MAC, INNER_MAC).ip(target.vip(), c.address)
}

/// Also to a server that takes no connections; and it is counted for nobody.
fn to_server(mode: Mode, family: Family) -> Case {
    let (case, target, c) = begun(mode, family, Protocol::Tcp, "to a server of weight 0");
    let port = target.server_port(Protocol::Tcp);
    case.happens("the weight becomes 0", move |plane| {
        plane.set_weight(&target.id(Protocol::Tcp), target.server(), 0)
    })
    .arrives(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn())
    .redirects(forwarded(mode), target.forwarded(&c).tcp(c.port, port).syn())
    .counting(&[])
    .happens("the weight becomes 1", move |plane| {
        plane.set_weight(&target.id(Protocol::Tcp), target.server(), 1)
    })
    .counts(&target, Protocol::Tcp, Counts::default())
}

fn answered(mode: Mode, family: Family) -> Case {
    let (case, target, c) = begun(mode, family, Protocol::Tcp, "an answer");
    let port = target.server_port(Protocol::Tcp);
    case.before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), forwarded(mode))
        .before(SERVERS, answer(&target, &c).tcp(port, c.port).syn_ack(), Verdict::ReverseNat)
        .arrives(SERVERS, answer(&target, &c).tcp(port, c.port).payload(b"data"))
        .redirects(Verdict::ReverseNat, target.answered(&c).tcp(80, c.port).payload(b"data"))
        .counting(&[])
        .counts(&target, Protocol::Tcp, Counts::default())
}

/// UDP, whose answer may be any datagram.
fn datagrams(mode: Mode, family: Family) -> Case {
    let (case, target, c) = begun(mode, family, Protocol::Udp, "a datagram and its answer");
    let port = target.server_port(Protocol::Udp);
    case.arrives(CLIENTS, c.to(target.vip()).udp(c.port, 53).payload(b"question"))
        .redirects(forwarded(mode), target.forwarded(&c).udp(c.port, port).payload(b"question"))
        .counting(&[])
        .arrives(SERVERS, answer(&target, &c).udp(port, c.port).payload(b"answer"))
        .redirects(Verdict::ReverseNat, target.answered(&c).udp(53, c.port).payload(b"answer"))
        .counting(&[])
}
