//! IPv4 options, IPv6 extension headers, traffic classes and other fields that must survive.

use lab::{Packet, packet::extension};
use lb_common::Verdict;

use crate::{
    case::Case,
    forwarding::verdict,
    scene::{CLIENTS, Client, MODES, Mode, PLAIN, SERVERS, Target, V4, V6, tunnel_source},
    setup::Setup::Forwarding,
};

/// Authentication header (RFC 4302): 12 bytes of fixed fields, 12 bytes of integrity check value.
const AH: u8 = 51;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in MODES {
        cases.extend(v4(mode));
        cases.extend(v6(mode));
    }
    cases.extend(answers());
    cases.push(too_many());
    cases
}

fn v4(mode: Mode) -> Vec<Case> {
    let title = |text: &str| format!("{} v4: {text}", mode.name());
    let target = Target::new(mode, V4, PLAIN);
    let (tcp, udp) = (
        target.server_port(lb_userspace::config::Protocol::Tcp),
        target.server_port(lb_userspace::config::Protocol::Udp),
    );
    let record_route = [7, 7, 4, 0, 0, 0, 0, 0];
    let most = [1; 40];
    let mut cases = Vec::new();

    let c = Client::new(V4);
    cases.push(
        Case::new(Forwarding, title("SYN with IPv4 options"))
            .arrives(CLIENTS, c.to(target.vip()).options(&record_route).tcp(c.port, 80).syn())
            .redirects(verdict(mode), target.forwarded(&c).options(&record_route).tcp(c.port, tcp).syn()),
    );
    let c = Client::new(V4);
    cases.push(
        Case::new(Forwarding, title("UDP with as many IPv4 options as there can be"))
            .arrives(CLIENTS, c.to(target.vip()).options(&most).udp(c.port, 53).payload(b"x"))
            .redirects(verdict(mode), target.forwarded(&c).options(&most).udp(c.port, udp).payload(b"x")),
    );
    let c = Client::new(V4);
    let marked = |ip: Packet| ip.tos(0xb9).identification(0x1234).dont_fragment(false);
    // A tunnel's outer header takes over class, identification and permission to be fragmented; IPv6 has only the class.
    let expected = match mode {
        Mode::Nat | Mode::Dr => marked(target.forwarded(&c)),
        Mode::Tun => marked(
            marked(target.frame().ip(tunnel_source(V4), target.server())).ip(c.address, target.vip()).ttl(63),
        ),
        Mode::TunAcross => marked(
            target
                .frame()
                .ip(tunnel_source(V6), target.server())
                .tos(0xb9)
                .ip(c.address, target.vip())
                .ttl(63),
        ),
    };
    cases.push(
        Case::new(Forwarding, title("type of service and identification"))
            .arrives(CLIENTS, marked(c.to(target.vip())).tcp(c.port, 80).syn())
            .redirects(verdict(mode), expected.tcp(c.port, tcp).syn()),
    );
    cases
}

fn v6(mode: Mode) -> Vec<Case> {
    let title = |text: &str| format!("{} v6: {text}", mode.name());
    let target = Target::new(mode, V6, PLAIN);
    let tcp = target.server_port(lb_userspace::config::Protocol::Tcp);
    let mut cases = Vec::new();
    let ah = |packet: Packet| {
        // Its length counts words of 4 bytes less two, so the builder's own count does not fit: 24 bytes are 4.
        packet.ipv6_extension(AH, &[0; 22])
    };
    type Add = Box<dyn Fn(Packet) -> Packet>;
    let chains: [(&str, Add); 6] = [
        ("hop-by-hop options", Box::new(|p| p.ipv6_extension(extension::HOP_BY_HOP, &[5, 2, 0, 0, 1, 0]))),
        ("destination options of 24 bytes", Box::new(|p| p.ipv6_extension(extension::DESTINATION, &[1; 22]))),
        ("a used-up routing header", Box::new(|p| p.ipv6_extension(extension::ROUTING, &[0, 0, 0, 0, 0, 0]))),
        ("a fragment header of a whole packet", Box::new(|p| p.ipv6_fragment(0, false, 7))),
        (
            "a chain of four extension headers",
            Box::new(|p| {
                p.ipv6_extension(extension::HOP_BY_HOP, &[1, 4, 0, 0, 0, 0])
                    .ipv6_extension(extension::DESTINATION, &[1, 4, 0, 0, 0, 0])
                    .ipv6_extension(extension::ROUTING, &[0, 0, 0, 0, 0, 0])
                    .ipv6_extension(extension::DESTINATION, &[1, 4, 0, 0, 0, 0])
            }),
        ),
        (
            "six extension headers",
            Box::new(|p| {
                (0..6).fold(p, |p, _| p.ipv6_extension(extension::DESTINATION, &[1, 4, 0, 0, 0, 0]))
            }),
        ),
    ];
    for (name, add) in chains {
        let c = Client::new(V6);
        cases.push(
            Case::new(Forwarding, title(&format!("SYN behind {name}")))
                .arrives(CLIENTS, add(c.to(target.vip())).tcp(c.port, 80).syn())
                .redirects(verdict(mode), add(target.forwarded(&c)).tcp(c.port, tcp).syn()),
        );
    }
    if mode != Mode::Nat {
        // NAT would break its integrity; DR and TUN carry it on.
        let c = Client::new(V6);
        let with_length = |packet: Packet, at: usize| {
            let mut bytes = packet.build();
            bytes[at] = 4;
            bytes
        };
        let packet = ah(c.to(target.vip())).tcp(c.port, 80).syn();
        let expected = ah(target.forwarded(&c)).tcp(c.port, tcp).syn();
        let tail = packet.build().len() - (14 + 40 + 1);
        let at = expected.build().len() - tail;
        cases.push(
            Case::new(Forwarding, title("SYN behind an authentication header"))
                .arrives(CLIENTS, with_length(packet, 14 + 40 + 1))
                .redirects(verdict(mode), with_length(expected, at)),
        );
    }
    let c = Client::new(V6);
    let marked = |ip: Packet| ip.tos(0xb9).flow_label(0xabcde);
    let expected = match mode {
        Mode::Nat | Mode::Dr => marked(target.forwarded(&c)),
        Mode::Tun | Mode::TunAcross => {
            let outer = target.frame().ip(tunnel_source(target.server_family()), target.server()).tos(0xb9);
            marked(outer.ip(c.address, target.vip()).ttl(63))
        }
    };
    cases.push(
        Case::new(Forwarding, title("traffic class and flow label"))
            .arrives(CLIENTS, marked(c.to(target.vip())).tcp(c.port, 80).syn())
            .redirects(verdict(mode), expected.tcp(c.port, tcp).syn()),
    );
    cases
}

fn answers() -> Vec<Case> {
    let target = Target::new(Mode::Nat, V4, PLAIN);
    let c = Client::new(V4);
    let options = [0x94, 4, 0, 0];
    let with_options = Case::new(Forwarding, "nat v4: an answer with IPv4 options")
        .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), Verdict::ForwardNat)
        .arrives(SERVERS, target.answer(&c).options(&options).tcp(8080, c.port).syn_ack())
        .redirects(Verdict::ReverseNat, target.answered(&c).options(&options).tcp(80, c.port).syn_ack());

    let target = Target::new(Mode::Nat, V6, PLAIN);
    let c = Client::new(V6);
    let hop_by_hop = |packet: Packet| packet.ipv6_extension(extension::HOP_BY_HOP, &[5, 2, 0, 0, 1, 0]);
    let with_extension = Case::new(Forwarding, "nat v6: an answer with hop-by-hop options")
        .before(CLIENTS, c.to(target.vip()).udp(c.port, 53), Verdict::ForwardNat)
        .arrives(SERVERS, hop_by_hop(target.answer(&c)).udp(5353, c.port).payload(b"answer"))
        .redirects(Verdict::ReverseNat, hop_by_hop(target.answered(&c)).udp(53, c.port).payload(b"answer"));
    vec![with_options, with_extension]
}

fn too_many() -> Case {
    let target = Target::new(Mode::Nat, V6, PLAIN);
    let c = Client::new(V6);
    let chain = (0..7).fold(c.to(target.vip()), |packet, _| {
        packet.ipv6_extension(extension::DESTINATION, &[1, 4, 0, 0, 0, 0])
    });
    Case::new(Forwarding, "nat v6: more extension headers than are followed")
        .arrives(CLIENTS, chain.tcp(c.port, 80).syn())
        .passes(Verdict::PassExtensionHeaders)
}
