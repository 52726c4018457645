//! Frames that are no packets, packets that are cut off, and packets that contradict themselves.

use std::net::Ipv6Addr;

use lab::{Packet, packet::tcp_flags};
use lb_common::Verdict;

use crate::{
    case::Case,
    forwarding::verdict,
    scene::{
        CLIENT_MAC, CLIENTS, Client, DIRECTOR_MAC, FAMILIES, Family, MODES, Mode, PLAIN, Target, V4, V6,
    },
    setup::Setup::Forwarding,
};

pub fn cases() -> Vec<Case> {
    let mut cases = frames();
    for family in FAMILIES {
        cases.extend(cut(family));
        cases.extend(transport(family));
        cases.extend(wrong_checksums(family));
        for mode in MODES {
            cases.extend(room(mode, family));
        }
    }
    cases.extend(ipv4());
    cases.extend(ipv6());
    cases
}

fn plain(mode: Mode, family: Family) -> Target {
    Target::new(mode, family, PLAIN)
}

fn frame() -> Packet {
    Packet::eth(CLIENT_MAC, DIRECTOR_MAC)
}

fn frames() -> Vec<Case> {
    let target = plain(Mode::Nat, V4);
    let c = Client::new(V4);
    let tagged = |tags: Packet| tags.ip(c.address, target.vip()).tcp(c.port, 80).syn();
    let truncated = |packet: Packet, length: usize| packet.build()[..length].to_vec();
    let title = |text: &str| format!("frames: {text}");
    vec![
        Case::new(Forwarding, title("ARP"))
            .arrives(CLIENTS, frame().ethertype(0x0806).payload(&[0; 46]))
            .passes(Verdict::PassNotIp),
        Case::new(Forwarding, title("LLDP"))
            .arrives(CLIENTS, frame().ethertype(0x88cc).payload(&[0; 46]))
            .passes(Verdict::PassNotIp),
        Case::new(Forwarding, title("a length instead of a type (IEEE 802.3)"))
            .arrives(CLIENTS, frame().ethertype(38).payload(&[0x42; 38]))
            .passes(Verdict::PassNotIp),
        Case::new(Forwarding, title("for another machine's MAC address"))
            .arrives(CLIENTS, tagged(Packet::eth(CLIENT_MAC, [2, 0, 0, 0, 9, 9])))
            .passes(Verdict::PassOtherHost),
        Case::new(Forwarding, title("IPv6 with IPv4-mapped addresses"))
            .arrives(
                CLIENTS,
                frame()
                    .ipv6(
                        [0, 0, 0, 0, 0, 0xffff, 0xc612, 0x0001],
                        "::ffff:192.0.2.1".parse::<Ipv6Addr>().expect("v6"),
                    )
                    .tcp(c.port, 80)
                    .syn(),
            )
            .passes(Verdict::PassMalformed),
        Case::new(Forwarding, title("ARP in a VLAN"))
            .arrives(CLIENTS, frame().vlan(5).ethertype(0x0806).payload(&[0; 46]))
            .passes(Verdict::PassNotIp),
        Case::new(Forwarding, title("three VLAN tags"))
            .arrives(CLIENTS, tagged(frame().service_vlan(1).vlan(2).vlan(3)))
            .passes(Verdict::PassVlan),
        Case::new(Forwarding, title("a frame that ends before its VLAN tag"))
            .arrives(CLIENTS, truncated(tagged(frame().vlan(1)), 17))
            .passes(Verdict::PassMalformed),
        Case::new(Forwarding, title("a frame that ends before its second VLAN tag"))
            .arrives(CLIENTS, truncated(tagged(frame().vlan(1).vlan(2)), 21))
            .passes(Verdict::PassMalformed),
        Case::new(Forwarding, title("nothing behind the frame's header"))
            .arrives(CLIENTS, truncated(tagged(frame()), 14))
            .passes(Verdict::PassMalformed),
    ]
}

/// Every length that a frame can be cut to: IP's header is the kernel's to count, what follows is not as long as it says.
fn cut(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    let target = plain(Mode::Nat, family);
    let header = 14 + family.header();
    for (protocol, whole) in [("TCP", 20), ("UDP", 8)] {
        let c = Client::new(family);
        let packet = match protocol {
            "TCP" => c.to(target.vip()).tcp(c.port, 80).syn(),
            _ => c.to(target.vip()).udp(c.port, 53),
        };
        let bytes = packet.build();
        assert_eq!(bytes.len(), header + whole);
        let mut in_ip =
            Case::new(Forwarding, format!("short {}: {protocol}, cut in IP's header", family.name()));
        for length in 14..header {
            in_ip = in_ip.arrives(CLIENTS, &bytes[..length]).passes(Verdict::PassMalformed);
        }
        let mut behind =
            Case::new(Forwarding, format!("short {}: cut in {protocol}'s header", family.name()));
        for length in header..header + whole {
            behind = behind.arrives(CLIENTS, &bytes[..length]).drops(Verdict::DropBadLength);
        }
        // Cut off by the sender, so that IP says the truth.
        let payload = &bytes[header..];
        let number = if protocol == "TCP" { 6 } else { 17 };
        let mut honest =
            Case::new(Forwarding, format!("short {}: {protocol} of too few bytes", family.name()));
        for length in 0..whole {
            let packet = c.to(target.vip()).protocol(number).payload(&payload[..length]);
            honest = honest.arrives(CLIENTS, packet).drops(Verdict::DropBadTransport);
        }
        // The same with the missing bytes behind the packet, as padding.
        let mut padded =
            Case::new(Forwarding, format!("short {}: {protocol} that goes on in the padding", family.name()));
        for length in 0..whole {
            let packet = c.to(target.vip()).protocol(number).payload(&payload[..length]);
            let padded_packet = [packet.build().as_slice(), &payload[length..], &[0; 6]].concat();
            padded = padded.arrives(CLIENTS, padded_packet).drops(Verdict::DropBadTransport);
        }
        cases.extend([in_ip, behind, honest, padded]);
    }
    cases
}

fn transport(family: Family) -> Vec<Case> {
    let title = |text: &str| format!("bad {}: {text}", family.name());
    let target = plain(Mode::Nat, family);
    let c = Client::new(family);
    let tcp = || c.to(target.vip()).tcp(c.port, 80).syn();
    let udp = || c.to(target.vip()).udp(c.port, 53);
    let all_flags = tcp_flags::FIN | tcp_flags::SYN | tcp_flags::RST | tcp_flags::PSH | tcp_flags::ACK;
    let mut cases = vec![
        Case::new(Forwarding, title("TCP's header of 16 bytes"))
            .arrives(CLIENTS, tcp().header_length(4))
            .drops(Verdict::DropBadTransport),
        Case::new(Forwarding, title("TCP's header of no bytes"))
            .arrives(CLIENTS, tcp().header_length(0))
            .drops(Verdict::DropBadTransport),
        Case::new(Forwarding, title("TCP's header longer than the packet"))
            .arrives(CLIENTS, tcp().header_length(6))
            .drops(Verdict::DropBadTransport),
        Case::new(Forwarding, title("UDP's length of 7"))
            .arrives(CLIENTS, udp().length(7))
            .drops(Verdict::DropBadTransport),
        Case::new(Forwarding, title("UDP's length of 0"))
            .arrives(CLIENTS, udp().length(0))
            .drops(Verdict::DropBadTransport),
        Case::new(Forwarding, title("UDP's length more than the packet"))
            .arrives(CLIENTS, udp().length(13).payload(b"four"))
            .drops(Verdict::DropBadTransport),
        Case::new(Forwarding, title("every TCP flag at once, without a connection"))
            .arrives(CLIENTS, tcp().flags(all_flags))
            .passes(Verdict::PassNoConnection),
    ];
    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("UDP's length less than the packet is no error"))
            .arrives(CLIENTS, c.to(target.vip()).udp(c.port, 53).length(10).payload(b"four"))
            .redirects(
                Verdict::ForwardNat,
                target.forwarded(&c).udp(c.port, 5353).length(10).payload(b"four"),
            ),
    );
    let c = Client::new(family);
    let largest = |packet: Packet| packet.options(&[1; 40]);
    cases.push(
        Case::new(Forwarding, title("as many TCP options as there can be"))
            .arrives(CLIENTS, largest(c.to(target.vip()).tcp(c.port, 80).syn()))
            .redirects(Verdict::ForwardNat, largest(target.forwarded(&c).tcp(c.port, 8080).syn())),
    );
    cases
}

/// A packet that was damaged on its way must not be repaired by the director.
fn wrong_checksums(family: Family) -> Vec<Case> {
    let title = |text: &str| format!("bad {}: {text}", family.name());
    let target = plain(Mode::Nat, family);
    let damaged = |packet: Packet| {
        let mut bytes = packet.build();
        if let Some(last) = bytes.last_mut() {
            *last ^= 0x10;
        }
        bytes
    };
    let mut cases = Vec::new();
    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("a wrong TCP checksum stays wrong"))
            .arrives(CLIENTS, damaged(c.to(target.vip()).tcp(c.port, 80).syn().payload(b"data")))
            .redirects(
                Verdict::ForwardNat,
                damaged(target.forwarded(&c).tcp(c.port, 8080).syn().payload(b"data")),
            ),
    );
    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("a wrong UDP checksum stays wrong"))
            .arrives(CLIENTS, damaged(c.to(target.vip()).udp(c.port, 53).payload(b"data")))
            .redirects(Verdict::ForwardNat, damaged(target.forwarded(&c).udp(c.port, 5353).payload(b"data"))),
    );
    if family == V4 {
        for mode in MODES {
            let target = plain(mode, V4);
            let c = Client::new(V4);
            let port = target.server_port(lb_userspace::config::Protocol::Tcp);
            // The last bit of the innermost header's identification.
            let changed = |packet: Packet| {
                let mut bytes = packet.build();
                let at = bytes.len() - 20 - 20 + 5;
                bytes[at] ^= 1;
                bytes
            };
            // A tunnel's outer header repeats the identification that it sees.
            let mut expected = changed(target.forwarded(&c).tcp(c.port, port).syn());
            if mode == Mode::Tun {
                let outer =
                    target.frame().ip(crate::scene::tunnel_source(V4), target.server()).identification(1);
                let outer = outer.ip(c.address, target.vip()).ttl(63).tcp(c.port, port).syn();
                expected = changed(outer);
            }
            cases.push(
                Case::new(
                    Forwarding,
                    title(&format!("a wrong IPv4 checksum stays wrong with {}", mode.name())),
                )
                .arrives(CLIENTS, changed(c.to(target.vip()).tcp(c.port, 80).syn()))
                .redirects(verdict(mode), expected),
            );
        }
    }
    cases
}

fn room(mode: Mode, family: Family) -> Vec<Case> {
    let target = plain(mode, family);
    let c = Client::new(family);
    let mut cases = Vec::new();
    if matches!(mode, Mode::Tun | Mode::TunAcross) {
        let packet = c.to(target.vip()).tcp(c.port, 80).syn();
        let title = format!("{} {}: no room in front of the packet", mode.name(), family.name());
        cases.push(
            Case::new(Forwarding, title).arrives(CLIENTS, packet).without_room().drops(Verdict::DropNoRoom),
        );
    }
    let packet = c.to(target.vip()).ttl(1).tcp(c.port, 80).syn();
    let title = format!("{} {}: no room for the answer to time to live 1", mode.name(), family.name());
    cases.push(
        Case::new(Forwarding, title).arrives(CLIENTS, packet).without_room().drops(Verdict::DropTimeExceeded),
    );
    cases
}

fn ipv4() -> Vec<Case> {
    let title = |text: &str| format!("bad v4: {text}");
    let target = plain(Mode::Nat, V4);
    let c = Client::new(V4);
    let ip = || c.to(target.vip());
    let syn = |ip: Packet| ip.tcp(c.port, 80).syn();
    let with_version = |version: u8| {
        let mut bytes = syn(ip()).build();
        bytes[14] = version << 4 | 5;
        bytes
    };
    let mut cases = vec![
        Case::new(Forwarding, title("version 6 in a frame of IPv4"))
            .arrives(CLIENTS, with_version(6))
            .passes(Verdict::PassMalformed),
        Case::new(Forwarding, title("version 0"))
            .arrives(CLIENTS, with_version(0))
            .passes(Verdict::PassMalformed),
        Case::new(Forwarding, title("a header of 16 bytes"))
            .arrives(CLIENTS, syn(ip().header_length(4)))
            .passes(Verdict::PassMalformed),
        Case::new(Forwarding, title("a header of no bytes"))
            .arrives(CLIENTS, syn(ip().header_length(0)))
            .passes(Verdict::PassMalformed),
        Case::new(Forwarding, title("a header longer than the packet"))
            .arrives(CLIENTS, syn(ip().header_length(15)))
            .drops(Verdict::DropBadLength),
    ];
    for (length, name) in [
        (0, "a total length of 0"),
        (19, "a total length less than the header"),
        (41, "a total length of one byte more than there is"),
        (65_535, "the largest total length"),
    ] {
        cases.push(
            Case::new(Forwarding, title(name))
                .arrives(CLIENTS, syn(ip().length(length)))
                .drops(Verdict::DropBadLength),
        );
    }
    cases
}

fn ipv6() -> Vec<Case> {
    let title = |text: &str| format!("bad v6: {text}");
    let target = plain(Mode::Nat, V6);
    let c = Client::new(V6);
    let ip = || c.to(target.vip());
    let syn = |ip: Packet| ip.tcp(c.port, 80).syn();
    let mut version_4 = syn(ip()).build();
    version_4[14] = 0x45;
    let mut endless = ip().ipv6_extension(60, &[1, 4, 0, 0, 0, 0]).tcp(c.port, 80).syn().build();
    endless[14 + 40 + 1] = 255;
    let cut_extension = &ip().ipv6_extension(0, &[1, 4, 0, 0, 0, 0]).tcp(c.port, 80).build()[..14 + 40 + 2];
    vec![
        Case::new(Forwarding, title("version 4 in a frame of IPv6"))
            .arrives(CLIENTS, version_4)
            .passes(Verdict::PassMalformed),
        Case::new(Forwarding, title("a payload length of one byte more than there is"))
            .arrives(CLIENTS, syn(ip().length(21)))
            .drops(Verdict::DropBadLength),
        Case::new(Forwarding, title("the largest payload length"))
            .arrives(CLIENTS, syn(ip().length(65_535)))
            .drops(Verdict::DropBadLength),
        Case::new(Forwarding, title("a payload length of 0 before TCP"))
            .arrives(CLIENTS, syn(ip().length(0)))
            .drops(Verdict::DropBadTransport),
        Case::new(Forwarding, title("an extension header that is cut off"))
            .arrives(CLIENTS, cut_extension)
            .passes(Verdict::PassMalformed),
        Case::new(Forwarding, title("an extension header longer than is followed"))
            .arrives(CLIENTS, endless)
            .passes(Verdict::PassExtensionHeaders),
        Case::new(Forwarding, title("no next header"))
            .arrives(CLIENTS, ip().protocol(59).payload(&[0; 4]))
            .passes(Verdict::PassNoService),
    ]
}
