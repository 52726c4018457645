//! Fragments: the first decides where its packet goes, the others follow it.

use lab::{Packet, packet::extension};
use lb_common::Verdict;
use lb_userspace::config::Protocol::{Tcp, Udp};

use crate::{
    case::Case,
    forwarding::verdict,
    scene::{
        CLIENT_MAC, CLIENTS, Client, DIRECTOR_MAC, FAMILIES, Family, INNER_MAC, MODES, Mode, PLAIN,
        SERVER_MAC, SERVERS, Target, V4, V6, stranger, tunnel_source,
    },
    setup::Setup::Forwarding,
};

/// Where packets are cut, in bytes of the IP payload: a multiple of 8.
const CUT: usize = 64;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for mode in MODES {
            cases.extend(to_server(mode, family));
        }
        cases.extend(to_client(family));
        cases.extend(odd(family));
    }
    cases
}

/// One of the two parts of an IP payload.
#[derive(Clone, Copy, PartialEq)]
pub enum Part {
    First,
    Last,
}

/// A fragment: `ip` (frame and IP header of the whole) with a part of `payload`, which is of `protocol`. `id` is the
/// identification.
pub fn fragment(family: Family, ip: Packet, payload: &[u8], protocol: u8, id: u16, part: Part) -> Packet {
    let more = part == Part::First;
    let offset = if more { 0 } else { CUT / 8 };
    let offset = u16::try_from(offset).expect("a small offset");
    let data = if more { &payload[..CUT] } else { &payload[CUT..] };
    match family {
        V4 => ip.identification(id).fragment(offset, more).protocol(protocol).payload(data),
        V6 => ip.ipv6_fragment(offset, more, id.into()).protocol(protocol).payload(data),
    }
}

/// What follows the innermost IP header of a packet without extension headers and tags.
pub fn payload_of(packet: &Packet, family: Family) -> Vec<u8> {
    packet.without_link().build()[family.header()..].to_vec()
}

const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// The payloads of a client's UDP datagram before and after the director.
pub fn datagrams(target: &Target, c: &Client) -> (Vec<u8>, Vec<u8>) {
    let data: Vec<u8> = (0..101).collect();
    let before = Packet::bare_ip(c.address, target.vip()).udp(c.port, 53).payload(&data);
    let after = match target.mode {
        Mode::Nat => {
            Packet::bare_ip(c.address, target.server()).udp(c.port, target.server_port(Udp)).payload(&data)
        }
        Mode::Dr | Mode::Tun | Mode::TunAcross => before.clone(),
    };
    (payload_of(&before, target.family), payload_of(&after, target.family))
}

/// Frame and IP headers of a forwarded fragment: a tunnel's outer IPv4 header may be fragmented like the inner one.
fn forwarded(target: &Target, c: &Client, id: u16) -> Packet {
    match (target.mode, target.family) {
        (Mode::Tun, V4) => {
            let outer = target.frame().ip(tunnel_source(V4), target.server());
            outer.identification(id).dont_fragment(false).ip(c.address, target.vip()).ttl(63)
        }
        _ => target.forwarded(c),
    }
}

fn to_server(mode: Mode, family: Family) -> Vec<Case> {
    let title = |text: &str| format!("fragments {} {}: {text}", mode.name(), family.name());
    let target = Target::new(mode, family, PLAIN);
    let to_server = verdict(mode);
    let mut cases = Vec::new();

    let c = Client::new(family);
    let (whole, translated) = datagrams(&target, &c);
    let first = |c: &Client, whole: &[u8]| fragment(family, c.to(target.vip()), whole, UDP, 77, Part::First);
    cases.push(
        Case::new(Forwarding, title("the first, of UDP")).arrives(CLIENTS, first(&c, &whole)).redirects(
            to_server,
            fragment(family, forwarded(&target, &c, 77), &translated, UDP, 77, Part::First),
        ),
    );

    let c = Client::new(family);
    let (whole, translated) = datagrams(&target, &c);
    cases.push(
        Case::new(Forwarding, title("the last follows the first"))
            .before(CLIENTS, first(&c, &whole), to_server)
            .arrives(CLIENTS, fragment(family, c.to(target.vip()), &whole, UDP, 77, Part::Last))
            .redirects(
                to_server,
                fragment(family, forwarded(&target, &c, 77), &translated, UDP, 77, Part::Last),
            ),
    );

    let c = Client::new(family);
    let (whole, _) = datagrams(&target, &c);
    cases.push(
        Case::new(Forwarding, title("the last before the first"))
            .arrives(CLIENTS, fragment(family, c.to(target.vip()), &whole, UDP, 77, Part::Last))
            .drops(Verdict::DropFragment),
    );

    let c = Client::new(family);
    let (whole, _) = datagrams(&target, &c);
    cases.push(
        Case::new(Forwarding, title("the last of another packet"))
            .before(CLIENTS, first(&c, &whole), to_server)
            .arrives(CLIENTS, fragment(family, c.to(target.vip()), &whole, UDP, 78, Part::Last))
            .drops(Verdict::DropFragment),
    );

    let c = Client::new(family);
    let (whole, _) = datagrams(&target, &c);
    cases.push(
        Case::new(Forwarding, title("the last after half a minute"))
            .before(CLIENTS, first(&c, &whole), to_server)
            .happens("31 seconds pass", move |plane| plane.age_fragments(&c, 31))
            .arrives(CLIENTS, fragment(family, c.to(target.vip()), &whole, UDP, 77, Part::Last))
            .drops(Verdict::DropFragment),
    );

    let c = Client::new(family);
    let data = [0x33; 80];
    let segment =
        |dst, port| payload_of(&Packet::bare_ip(c.address, dst).tcp(c.port, port).payload(&data), family);
    let before = segment(target.vip(), 80);
    let after = match mode {
        Mode::Nat => segment(target.server(), target.server_port(Tcp)),
        Mode::Dr | Mode::Tun | Mode::TunAcross => before.clone(),
    };
    cases.push(
        Case::new(Forwarding, title("both, of an established TCP connection"))
            .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), to_server)
            .arrives(CLIENTS, fragment(family, c.to(target.vip()), &before, TCP, 5, Part::First))
            .redirects(to_server, fragment(family, forwarded(&target, &c, 5), &after, TCP, 5, Part::First))
            .arrives(CLIENTS, fragment(family, c.to(target.vip()), &before, TCP, 5, Part::Last))
            .redirects(to_server, fragment(family, forwarded(&target, &c, 5), &after, TCP, 5, Part::Last)),
    );

    let c = Client::new(family);
    let (whole, _) = datagrams(&target, &c);
    cases.push(
        Case::new(Forwarding, title("the last with time to live 1"))
            .before(CLIENTS, first(&c, &whole), to_server)
            .arrives(CLIENTS, fragment(family, c.to(target.vip()).ttl(1), &whole, UDP, 77, Part::Last))
            .drops(Verdict::DropTimeExceeded),
    );
    cases
}

fn to_client(family: Family) -> Vec<Case> {
    let title = |text: &str| format!("fragments nat {}: {text}", family.name());
    let target = Target::new(Mode::Nat, family, PLAIN);
    let data: Vec<u8> = (0..90).collect();
    let c = Client::new(family);
    let answer =
        |src, port| payload_of(&Packet::bare_ip(src, c.address).udp(port, c.port).payload(&data), family);
    let (before, after) = (answer(target.server(), 5353), answer(target.vip(), 53));
    let both = Case::new(Forwarding, title("both of an answer"))
        .before(CLIENTS, c.to(target.vip()).udp(c.port, 53), Verdict::ForwardNat)
        .arrives(SERVERS, fragment(family, target.answer(&c), &before, UDP, 9, Part::First))
        .redirects(Verdict::ReverseNat, fragment(family, target.answered(&c), &after, UDP, 9, Part::First))
        .arrives(SERVERS, fragment(family, target.answer(&c), &before, UDP, 9, Part::Last))
        .redirects(Verdict::ReverseNat, fragment(family, target.answered(&c), &after, UDP, 9, Part::Last));

    let c = Client::new(family);
    let alone = Case::new(Forwarding, title("the last of an answer before the first"))
        .before(CLIENTS, c.to(target.vip()).udp(c.port, 53), Verdict::ForwardNat)
        .arrives(SERVERS, fragment(family, target.answer(&c), &before, UDP, 9, Part::Last))
        .drops(Verdict::DropFragment);
    vec![both, alone]
}

fn odd(family: Family) -> Vec<Case> {
    let title = |text: &str| format!("fragments {}: {text}", family.name());
    let target = Target::new(Mode::Nat, family, PLAIN);
    let mut cases = Vec::new();

    let c = Client::new(family);
    let (whole, translated) = datagrams(&target, &c);
    let tagged = |ip_of: fn(Packet) -> Packet| {
        ip_of(Packet::eth(CLIENT_MAC, DIRECTOR_MAC)).ip(c.address, target.vip())
    };
    cases.push(
        Case::new(Forwarding, title("in a VLAN"))
            .before(
                CLIENTS,
                fragment(family, tagged(|f| f.vlan(5)), &whole, UDP, 1, Part::First),
                Verdict::ForwardNat,
            )
            .arrives(CLIENTS, fragment(family, tagged(|f| f.vlan(5)), &whole, UDP, 1, Part::Last))
            .redirects(
                Verdict::ForwardNat,
                fragment(family, target.forwarded(&c), &translated, UDP, 1, Part::Last),
            ),
    );

    let c = Client::new(family);
    cases.push(
        Case::new(Forwarding, title("the last of a packet to somebody else"))
            .arrives(CLIENTS, fragment(family, c.to(stranger(family)), &whole, UDP, 1, Part::Last))
            .passes(Verdict::PassNotOurs),
    );

    // A first fragment of 8 bytes has TCP's ports but not its flags (RFC 1858).
    let c = Client::new(family);
    let segment = payload_of(&Packet::bare_ip(c.address, target.vip()).tcp(c.port, 80).syn(), family);
    let tiny = match family {
        V4 => c.to(target.vip()).fragment(0, true).protocol(TCP).payload(&segment[..8]),
        V6 => c.to(target.vip()).ipv6_fragment(0, true, 1).protocol(TCP).payload(&segment[..8]),
    };
    cases.push(
        Case::new(Forwarding, title("a first one too short for TCP's header"))
            .arrives(CLIENTS, tiny)
            .drops(Verdict::DropBadTransport),
    );

    let c = Client::new(family);
    let (whole, _) = datagrams(&target, &c);
    let not_served = {
        let mut payload = whole.clone();
        payload[2..4].copy_from_slice(&54u16.to_be_bytes());
        fragment(family, c.to(target.vip()), &payload, UDP, 1, Part::First)
    };
    cases.push(
        Case::new(Forwarding, title("the first to a port that is not served"))
            .arrives(CLIENTS, not_served)
            .passes(Verdict::PassNoService),
    );

    if family == V6 {
        let c = Client::new(V6);
        let (whole, translated) = datagrams(&target, &c);
        let hop_by_hop = |ip: Packet| ip.ipv6_extension(extension::HOP_BY_HOP, &[5, 2, 0, 0, 1, 0]);
        let behind = |ip: Packet, payload: &[u8], part| fragment(V6, hop_by_hop(ip), payload, UDP, 3, part);
        cases.push(
            Case::new(Forwarding, title("behind hop-by-hop options"))
                .before(CLIENTS, behind(c.to(target.vip()), &whole, Part::First), Verdict::ForwardNat)
                .arrives(CLIENTS, behind(c.to(target.vip()), &whole, Part::Last))
                .redirects(Verdict::ForwardNat, behind(target.forwarded(&c), &translated, Part::Last)),
        );
    } else {
        let c = Client::new(V4);
        let (whole, translated) = datagrams(&target, &c);
        let options = [7, 7, 4, 0, 0, 0, 0, 0];
        let with =
            |ip: Packet, payload: &[u8], part| fragment(V4, ip.options(&options), payload, UDP, 3, part);
        cases.push(
            Case::new(Forwarding, title("with IPv4 options"))
                .before(CLIENTS, with(c.to(target.vip()), &whole, Part::First), Verdict::ForwardNat)
                .arrives(CLIENTS, with(c.to(target.vip()), &whole, Part::Last))
                .redirects(Verdict::ForwardNat, with(target.forwarded(&c), &translated, Part::Last)),
        );
    }

    // Both sides' fragments with one identification are of different packets.
    let c = Client::new(family);
    let (whole, _) = datagrams(&target, &c);
    let from_server = Packet::eth(SERVER_MAC, INNER_MAC).ip(target.server(), c.address);
    cases.push(
        Case::new(Forwarding, title("a server's with the identification of a client's"))
            .before(
                CLIENTS,
                fragment(family, c.to(target.vip()), &whole, UDP, 1, Part::First),
                Verdict::ForwardNat,
            )
            .arrives(SERVERS, fragment(family, from_server, &whole, UDP, 1, Part::Last))
            .drops(Verdict::DropFragment),
    );
    cases
}
