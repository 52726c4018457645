//! The connection table without a free place: everything is served all the same.

use anyhow::{Result, ensure};
use lab::Packet;
use lb_common::{Event, Verdict};
use lb_userspace::config::Protocol::{Tcp, Udp};

use crate::{
    case::Case,
    forwarding::verdict,
    plane::Plane,
    scene::{
        CLIENT_MAC, CLIENTS, Client, DIRECTOR_MAC, FAMILIES, Family, MODES, Mode, PLAIN, SAME_PORT, SERVERS,
        Target, V4,
    },
    setup::Setup::Small,
};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for mode in MODES {
            cases.extend(served(mode, family));
        }
        cases.extend(answers(family));
    }
    cases
}

/// Opens flows until no place is free.
fn fill(plane: &mut Plane) -> Result<()> {
    // Connections that are over would make room.
    plane.sweep()?;
    let vip = Target::new(Mode::Dr, V4, PLAIN).vip();
    let mut flow = 0u32;
    // The last free places are found by flows that hash there: a few rounds of as many flows as there are places.
    while plane.free_places()? > 0 {
        ensure!(flow < 200_000, "{} places are still free after {flow} flows", plane.free_places()?);
        for _ in 0..2000 {
            flow += 1;
            let [_, a, b, c] = flow.to_be_bytes();
            let packet = Packet::eth(CLIENT_MAC, DIRECTOR_MAC).ip([198, 19, a ^ b, c].into(), vip);
            let port = 1024 + (flow >> 8) as u16;
            plane.run(CLIENTS, &packet.udp(port, 53).build(), 0)?;
        }
    }
    Ok(())
}

fn full(title: String) -> Case {
    Case::new(Small, title).happens("the table is filled", fill)
}

fn served(mode: Mode, family: Family) -> Vec<Case> {
    let title = |text: &str| format!("full table {} {}: {text}", mode.name(), family.name());
    let target = Target::new(mode, family, PLAIN);
    let port = target.server_port(Tcp);
    let mut cases = Vec::new();

    let c = Client::new(family);
    cases.push(
        full(title("SYN"))
            .arrives(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn())
            .redirects(verdict(mode), target.forwarded(&c).tcp(c.port, port).syn())
            .counting(&[Event::Stateless])
            .leaves_state(&c, &target, Tcp, None),
    );
    let c = Client::new(family);
    cases.push(
        full(title("data of a connection that has no place"))
            .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), verdict(mode))
            .arrives(CLIENTS, c.to(target.vip()).tcp(c.port, 80).payload(b"data"))
            .redirects(verdict(mode), target.forwarded(&c).tcp(c.port, port).payload(b"data"))
            .counting(&[Event::Stateless]),
    );
    let c = Client::new(family);
    cases.push(
        full(title("UDP"))
            .arrives(CLIENTS, c.to(target.vip()).udp(c.port, 53).payload(b"question"))
            .redirects(
                verdict(mode),
                target.forwarded(&c).udp(c.port, target.server_port(Udp)).payload(b"question"),
            )
            .counting(&[Event::Stateless]),
    );
    let c = Client::new(family);
    let untouched = Target::new(mode, family, SAME_PORT);
    cases.push(
        full(title("data of a connection that nobody knows"))
            .arrives(CLIENTS, c.to(untouched.vip()).tcp(c.port, 80).payload(b"data"))
            .passes(Verdict::PassNoConnection)
            .counting(&[]),
    );
    if mode != Mode::Nat {
        let c = Client::new(family);
        cases.push(
            full(title("a connection whose time is over makes room"))
                .happens("5 minutes pass", |plane| plane.age_all(301))
                .arrives(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn())
                .redirects(verdict(mode), target.forwarded(&c).tcp(c.port, port).syn())
                .counting(&[Event::ConnectionExpired, Event::ConnectionNew]),
        );
    }
    cases
}

fn answers(family: Family) -> Vec<Case> {
    let title = |text: &str| format!("full table nat {}: {text}", family.name());
    let target = Target::new(Mode::Nat, family, PLAIN);
    let mut cases = Vec::new();
    let c = Client::new(family);
    cases.push(
        full(title("the answer goes the kernel's way"))
            .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), Verdict::ForwardNat)
            .arrives(SERVERS, target.answer(&c).tcp(8080, c.port).syn_ack())
            .redirects(Verdict::ReverseNat, target.answered(&c).tcp(80, c.port).syn_ack())
            .counting(&[Event::Stateless, Event::FibLookup]),
    );
    let c = Client::new(family);
    cases.push(
        full(title("a UDP answer goes the kernel's way"))
            .before(CLIENTS, c.to(target.vip()).udp(c.port, 53), Verdict::ForwardNat)
            .arrives(SERVERS, target.answer(&c).udp(5353, c.port).payload(b"answer"))
            .redirects(Verdict::ReverseNat, target.answered(&c).udp(53, c.port).payload(b"answer"))
            .counting(&[Event::Stateless, Event::FibLookup]),
    );
    let c = Client::new(family);
    let untouched = Target::new(Mode::Nat, family, SAME_PORT);
    cases.push(
        full(title("a packet of a server whose connections all have places"))
            .arrives(SERVERS, untouched.answer(&c).tcp(80, c.port))
            .passes(Verdict::PassNoService),
    );
    cases
}
