//! The way back to a client behind NAT: believed, doubted, believed again.

use lb_common::{Event, Verdict};

use crate::{
    case::Case,
    plane::Plane,
    scene::{CLIENTS, Client, FAMILIES, Family, Mode, NARROW, PLAIN, SERVERS, Target},
    setup::Setup::Forwarding,
};

pub fn cases() -> Vec<Case> {
    FAMILIES.into_iter().flat_map(|family| [silent(family), heard_again(family), elsewhere(family)]).collect()
}

fn opened(target: &Target, c: &Client, what: &str) -> Case {
    Case::new(Forwarding, format!("way back {}: {what}", target.family.name()))
        .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), Verdict::ForwardNat)
        .before(SERVERS, target.answer(c).tcp(8080, c.port).syn_ack(), Verdict::ReverseNat)
}

/// The client's router may have died with the client none the wiser: the kernel's routes are asked.
fn silent(family: Family) -> Case {
    let (target, c) = (Target::new(Mode::Nat, family, PLAIN), Client::new(family));
    let (packet, sent) = answer(&target, &c);
    fallen_silent(opened(&target, &c, "a client that fell silent"), &target, c)
        .arrives(SERVERS, packet)
        .redirects(Verdict::ReverseNat, sent)
        .counting(&[Event::FibLookup])
}

fn heard_again(family: Family) -> Case {
    let (target, c) = (Target::new(Mode::Nat, family, PLAIN), Client::new(family));
    let (packet, sent) = answer(&target, &c);
    fallen_silent(opened(&target, &c, "a client that speaks again"), &target, c)
        .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).payload(b"here"), Verdict::ForwardNat)
        .arrives(SERVERS, packet)
        .redirects(Verdict::ReverseNat, sent)
        .counting(&[])
}

/// Who sends with the client's address from elsewhere does not get its answers.
fn elsewhere(family: Family) -> Case {
    let (target, c) = (Target::new(Mode::Nat, family, PLAIN), Client::new(family));
    let (packet, sent) = answer(&target, &c);
    opened(&target, &c, "a packet by another interface")
        .before(NARROW, c.to(target.vip()).tcp(c.port, 80).payload(b"mine"), Verdict::ForwardNat)
        .arrives(SERVERS, packet)
        .redirects(Verdict::ReverseNat, sent)
        .counting(&[Event::FibLookup])
}

fn answer(target: &Target, c: &Client) -> (lab::Packet, lab::Packet) {
    (target.answer(c).tcp(8080, c.port).payload(b"data"), target.answered(c).tcp(80, c.port).payload(b"data"))
}

fn fallen_silent(case: Case, target: &Target, c: Client) -> Case {
    case.happens("5 s pass", move |plane| plane.age_connections(&c, 5))
        .before(SERVERS, target.answer(&c).tcp(8080, c.port).payload(b"more"), Verdict::ReverseNat)
        .happens("the agent looks", Plane::sweep)
}
