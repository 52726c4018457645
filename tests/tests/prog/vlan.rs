//! VLAN tags: kept, added, removed, exchanged.

use lab::Packet;
use lb_common::Verdict;
use lb_userspace::config::Protocol::Tcp;

use crate::{
    case::Case,
    forwarding::verdict,
    scene::{
        CLIENT_MAC, CLIENTS, Client, DIRECTOR_MAC, FAMILIES, Family, MODES, Mode, ON_A_STICK, ONE_ARM, PLAIN,
        SERVER_MAC, SERVERS, TAGGED, TWO_TAGS, Target,
    },
    setup::Setup::Forwarding,
};

/// Puts tags behind a frame's addresses.
type Tags = fn(Packet) -> Packet;

const TAGS: [(&str, Tags); 4] = [
    ("no tag", |frame| frame),
    ("one tag", |frame| frame.vlan(100)),
    ("a tag with a priority", |frame| frame.tag(0x8100, 0xa064)),
    ("two tags", |frame| frame.service_vlan(200).vlan(100)),
];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for mode in MODES {
            for (tags, tagged) in TAGS {
                cases.extend(to_server(mode, family, tags, tagged));
            }
        }
        for (tags, tagged) in TAGS.into_iter().skip(1) {
            cases.extend(to_client(family, tags, tagged));
        }
    }
    cases
}

/// A client's packet with tags.
fn from_client(client: &Client, target: &Target, tagged: Tags) -> Packet {
    tagged(Packet::eth(CLIENT_MAC, DIRECTOR_MAC)).ip(client.address, target.vip())
}

fn to_server(mode: Mode, family: Family, tags: &str, tagged: Tags) -> Vec<Case> {
    let mut cases = Vec::new();
    let ways =
        [(PLAIN, "to an untagged network"), (TAGGED, "to a VLAN"), (TWO_TAGS, "to a VLAN inside another")];
    for (number, way) in ways {
        if number == PLAIN && tags == "no tag" {
            continue;
        }
        let c = Client::new(family);
        let target = Target::new(mode, family, number);
        let port = target.server_port(Tcp);
        cases.push(
            Case::new(Forwarding, format!("vlan {} {}: {tags}, {way}", mode.name(), family.name()))
                .arrives(CLIENTS, from_client(&c, &target, tagged).tcp(c.port, 80).syn())
                .redirects(verdict(mode), target.forwarded(&c).tcp(c.port, port).syn()),
        );
    }
    let one_arm =
        [(ONE_ARM, "stays in its VLAN on one arm"), (ON_A_STICK, "to another VLAN of the same interface")];
    for (number, way) in one_arm {
        if number == ONE_ARM && tags == "no tag" {
            continue;
        }
        let c = Client::new(family);
        let target = Target::new(mode, family, number);
        let port = target.server_port(Tcp);
        let frame = match number {
            ONE_ARM => tagged(Packet::eth(DIRECTOR_MAC, SERVER_MAC)),
            _ => target.frame(),
        };
        cases.push(
            Case::new(Forwarding, format!("vlan {} {}: {tags}, {way}", mode.name(), family.name()))
                .arrives(CLIENTS, from_client(&c, &target, tagged).tcp(c.port, 80).syn())
                .transmits(verdict(mode), target.within(frame, &c).tcp(c.port, port).syn()),
        );
    }
    cases
}

fn to_client(family: Family, tags: &str, tagged: Tags) -> Vec<Case> {
    let title = |text: &str| format!("vlan nat {}: {tags}, {text}", family.name());
    let answered = |target: &Target, c: &Client| {
        tagged(Packet::eth(DIRECTOR_MAC, CLIENT_MAC)).ip(target.vip(), c.address).ttl(63)
    };
    let mut cases = Vec::new();

    let c = Client::new(family);
    let target = Target::new(Mode::Nat, family, PLAIN);
    cases.push(
        Case::new(Forwarding, title("the answer gets the client's tags"))
            .before(CLIENTS, from_client(&c, &target, tagged).tcp(c.port, 80).syn(), Verdict::ForwardNat)
            .arrives(SERVERS, target.answer(&c).tcp(8080, c.port).syn_ack())
            .redirects(Verdict::ReverseNat, answered(&target, &c).tcp(80, c.port).syn_ack()),
    );

    let c = Client::new(family);
    let target = Target::new(Mode::Nat, family, TAGGED);
    let from_server =
        Packet::eth(SERVER_MAC, crate::scene::INNER_MAC).vlan(10).ip(target.server(), c.address);
    cases.push(
        Case::new(Forwarding, title("the tagged answer gets the client's tags instead"))
            .before(CLIENTS, from_client(&c, &target, tagged).tcp(c.port, 80).syn(), Verdict::ForwardNat)
            .arrives(SERVERS, from_server.tcp(8080, c.port).syn_ack())
            .redirects(Verdict::ReverseNat, answered(&target, &c).tcp(80, c.port).syn_ack()),
    );

    let c = Client::new(family);
    let target = Target::new(Mode::Nat, family, TAGGED);
    let from_server =
        Packet::eth(SERVER_MAC, crate::scene::INNER_MAC).vlan(10).ip(target.server(), c.address);
    let untagged = Packet::eth(DIRECTOR_MAC, CLIENT_MAC).ip(target.vip(), c.address).ttl(63);
    cases.push(
        Case::new(Forwarding, title("then without: the tagged answer loses its tag"))
            .before(CLIENTS, from_client(&c, &target, tagged).tcp(c.port, 80).syn(), Verdict::ForwardNat)
            .before(CLIENTS, from_client(&c, &target, |frame| frame).tcp(c.port, 80), Verdict::ForwardNat)
            .arrives(SERVERS, from_server.tcp(8080, c.port))
            .redirects(Verdict::ReverseNat, untagged.tcp(80, c.port)),
    );
    cases
}
