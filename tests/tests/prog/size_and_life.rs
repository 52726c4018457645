//! Packets whose time to live ends here, and packets that are as large as fits or larger.

use lab::Packet;
use lb_common::Verdict;
use lb_userspace::config::Protocol::Tcp;

use crate::{
    case::Case,
    forwarding::verdict,
    scene::{
        CLIENT_MAC, CLIENTS, Client, DIRECTOR_MAC, FAMILIES, Family, INNER_MAC, MODES, Mode, NARROW,
        NARROW_SERVER, PLAIN, Problem, SERVER_MAC, SERVERS, Target, V4, director_error,
    },
    setup::Setup::Forwarding,
};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for mode in MODES {
            cases.extend(time_to_live(mode, family));
            cases.extend(size(mode, family));
        }
        cases.extend(answers(family));
        cases.push(tagged(family));
        cases.push(padding(family));
    }
    cases.push(with_options());
    cases.extend(padded_elsewhere());
    cases
}

/// The frame of an answer to what came from the clients' router.
fn back() -> Packet {
    Packet::eth(DIRECTOR_MAC, CLIENT_MAC)
}

fn time_to_live(mode: Mode, family: Family) -> Vec<Case> {
    let title = |text: &str| format!("{} {}: {text}", mode.name(), family.name());
    let target = Target::new(mode, family, PLAIN);
    let mut cases = Vec::new();

    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("the last but one hop"))
            .arrives(CLIENTS, c.to(target.vip()).ttl(2).tcp(c.port, 80).syn())
            .redirects(verdict(mode), target.forwarded(&c).ttl(1).tcp(c.port, target.server_port(Tcp)).syn()),
    );
    for ttl in [1, 0] {
        let c = Client::new(family);
        let packet = c.to(target.vip()).ttl(ttl).tcp(c.port, 80).syn();
        let answer = director_error(back(), target.vip(), c.address, Problem::TimeExceeded, &packet);
        cases.push(
            Case::new(Forwarding, title(&format!("SYN with time to live {ttl}")))
                .arrives(CLIENTS, packet)
                .transmits(Verdict::ReplyTimeExceeded, answer),
        );
    }
    let c = Client::new(family);
    let packet = c.to(target.vip()).ttl(1).udp(c.port, 53).payload(b"a question that is quoted in part");
    let answer = director_error(back(), target.vip(), c.address, Problem::TimeExceeded, &packet);
    cases.push(
        Case::new(Forwarding, title("UDP with time to live 1"))
            .arrives(CLIENTS, packet)
            .transmits(Verdict::ReplyTimeExceeded, answer),
    );
    cases
}

/// A TCP segment that makes a packet of `size` bytes.
fn sized(ip: Packet, family: Family, ports: (u16, u16), size: usize) -> Packet {
    ip.tcp(ports.0, ports.1).payload(&vec![0x5a; size - family.header() - 20])
}

fn size(mode: Mode, family: Family) -> Vec<Case> {
    let outer = match mode {
        Mode::Nat | Mode::Dr => 0,
        Mode::Tun | Mode::TunAcross => Target::new(mode, family, PLAIN).server_family().header(),
    };
    let mut cases = Vec::new();
    for (number, mtu) in [(PLAIN, 1500), (NARROW_SERVER, 1400)] {
        let target = Target::new(mode, family, number);
        let port = target.server_port(Tcp);
        let largest = mtu - outer;
        let title = |size: usize, text: &str| {
            format!("{} {}: {size} bytes on a way of {mtu}: {text}", mode.name(), family.name())
        };

        let c = Client::new(family);
        cases.push(
            Case::new(Forwarding, title(largest, "fits"))
                .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), verdict(mode))
                .arrives(CLIENTS, sized(c.to(target.vip()), family, (c.port, 80), largest))
                .redirects(verdict(mode), sized(target.forwarded(&c), family, (c.port, port), largest)),
        );

        let c = Client::new(family);
        let packet = sized(c.to(target.vip()), family, (c.port, 80), largest + 1);
        let mtu = Problem::TooBig(u16::try_from(largest).expect("an MTU"));
        let answer = director_error(back(), target.vip(), c.address, mtu, &packet);
        cases.push(
            Case::new(Forwarding, title(largest + 1, "does not fit"))
                .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), verdict(mode))
                .arrives(CLIENTS, packet)
                .transmits(Verdict::ReplyTooBig, answer),
        );
    }
    cases
}

fn answers(family: Family) -> Vec<Case> {
    let title = |text: &str| format!("nat {}: {text}", family.name());
    let target = Target::new(Mode::Nat, family, PLAIN);
    let to_server = || Packet::eth(INNER_MAC, SERVER_MAC);
    let mut cases = Vec::new();

    let c = Client::new(family);
    let packet = target.answer(&c).ttl(1).tcp(8080, c.port).syn_ack();
    let reply = director_error(to_server(), target.vip(), target.server(), Problem::TimeExceeded, &packet);
    cases.push(
        Case::new(Forwarding, title("an answer with time to live 1"))
            .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), Verdict::ForwardNat)
            .arrives(SERVERS, packet)
            .transmits(Verdict::ReplyTimeExceeded, reply),
    );

    let narrow = |c: &Client| Packet::eth(CLIENT_MAC, DIRECTOR_MAC).ip(c.address, target.vip());
    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("an answer of 1400 bytes on a way of 1400 back"))
            .before(NARROW, narrow(&c).tcp(c.port, 80).syn(), Verdict::ForwardNat)
            .arrives(SERVERS, sized(target.answer(&c), family, (8080, c.port), 1400))
            .redirects(Verdict::ReverseNat, sized(target.answered(&c), family, (80, c.port), 1400)),
    );

    let c = Client::new(family);
    let packet = sized(target.answer(&c), family, (8080, c.port), 1401);
    let reply = director_error(to_server(), target.vip(), target.server(), Problem::TooBig(1400), &packet);
    cases.push(
        Case::new(Forwarding, title("an answer of 1401 bytes on a way of 1400 back"))
            .before(NARROW, narrow(&c).tcp(c.port, 80).syn(), Verdict::ForwardNat)
            .arrives(SERVERS, packet)
            .transmits(Verdict::ReplyTooBig, reply),
    );

    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("an answer of 1500 bytes on a way of 1500 back"))
            .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), Verdict::ForwardNat)
            .arrives(SERVERS, sized(target.answer(&c), family, (8080, c.port), 1500))
            .redirects(Verdict::ReverseNat, sized(target.answered(&c), family, (80, c.port), 1500)),
    );

    let c = Client::new(family);
    let packet = sized(target.answer(&c), family, (8080, c.port), 1501);
    let reply = director_error(to_server(), target.vip(), target.server(), Problem::TooBig(1500), &packet);
    cases.push(
        Case::new(Forwarding, title("an answer of 1501 bytes on a way of 1500 back"))
            .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), Verdict::ForwardNat)
            .arrives(SERVERS, packet)
            .transmits(Verdict::ReplyTooBig, reply),
    );
    cases
}

fn tagged(family: Family) -> Case {
    let target = Target::new(Mode::Dr, family, PLAIN);
    let c = Client::new(family);
    let tags = |frame: Packet| frame.service_vlan(200).vlan(100);
    let packet =
        tags(Packet::eth(CLIENT_MAC, DIRECTOR_MAC)).ip(c.address, target.vip()).ttl(1).tcp(c.port, 80).syn();
    let answer = director_error(tags(back()), target.vip(), c.address, Problem::TimeExceeded, &packet);
    Case::new(Forwarding, format!("dr {}: the answer to time to live 1 keeps both tags", family.name()))
        .arrives(CLIENTS, packet)
        .transmits(Verdict::ReplyTimeExceeded, answer)
}

fn with_options() -> Case {
    let target = Target::new(Mode::Nat, V4, PLAIN);
    let c = Client::new(V4);
    let packet = c.to(target.vip()).options(&[7, 7, 4, 0, 0, 0, 0, 0]).ttl(1).tcp(c.port, 80).syn();
    let answer = director_error(back(), target.vip(), c.address, Problem::TimeExceeded, &packet);
    Case::new(Forwarding, "nat v4: the answer to time to live 1 quotes the options")
        .arrives(CLIENTS, packet)
        .transmits(Verdict::ReplyTimeExceeded, answer)
}

/// A frame of 60 bytes at least, as Ethernet wants it: the padding is no part of the packet.
fn padded(packet: &Packet) -> Vec<u8> {
    let mut bytes = packet.build();
    bytes.resize(bytes.len() + 6, 0xee);
    bytes
}

fn padding(family: Family) -> Case {
    let target = Target::new(Mode::Nat, family, PLAIN);
    let c = Client::new(family);
    Case::new(Forwarding, format!("nat {}: Ethernet padding is no part of the packet", family.name()))
        .arrives(CLIENTS, padded(&c.to(target.vip()).tcp(c.port, 80).syn()))
        .redirects(Verdict::ForwardNat, padded(&target.forwarded(&c).tcp(c.port, 8080).syn()))
}

fn padded_elsewhere() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in [Mode::Dr, Mode::Tun, Mode::TunAcross] {
        for family in FAMILIES {
            let target = Target::new(mode, family, PLAIN);
            let c = Client::new(family);
            cases.push(
                Case::new(
                    Forwarding,
                    format!("{} {}: Ethernet padding stays outside", mode.name(), family.name()),
                )
                .arrives(CLIENTS, padded(&c.to(target.vip()).udp(c.port, 53)))
                .redirects(verdict(mode), padded(&target.forwarded(&c).udp(c.port, 53))),
            );
        }
    }
    // The answer to a padded packet quotes none of the padding.
    let target = Target::new(Mode::Nat, V4, PLAIN);
    let c = Client::new(V4);
    let packet = c.to(target.vip()).ttl(1).udp(c.port, 53);
    let answer = director_error(back(), target.vip(), c.address, Problem::TimeExceeded, &packet);
    cases.push(
        Case::new(Forwarding, "nat v4: the answer to a padded packet has no padding")
            .arrives(CLIENTS, padded(&packet))
            .transmits(Verdict::ReplyTimeExceeded, answer),
    );
    cases
}
