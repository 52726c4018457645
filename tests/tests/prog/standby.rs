//! Virtual servers that are bound to a VRRP instance: served where this director has the instance's role, else left alone.

use lab::{Packet, packet::tcp_flags};
use lb_common::{Event, Verdict, conn::State, server::server_flag::GONE};
use lb_userspace::config::Protocol::{Tcp, Udp};

use crate::{
    case::{Case, Counts},
    forwarding::verdict,
    fragments::{Part, UDP, datagrams, fragment},
    icmp::{error, from_router, seen},
    scene::{
        CLIENT_MAC, CLIENTS, Client, DIRECTOR_MAC, FAMILIES, Family, INNER_MAC, MODES, Mode, PLAIN, Problem,
        SAME_PORT, SERVER_MAC, SERVERS, Target, VIRTUAL_MAC, quote,
    },
    setup::Setup::Bound,
};

/// The role of every virtual server [`PLAIN`] in [`Bound`]; the others need none.
pub const ROLE: u16 = 1;
/// A role that no virtual server needs.
const OTHER_ROLE: u16 = 2;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for mode in MODES {
            let target = Target::new(mode, family, PLAIN);
            cases.extend(begins(target));
            cases.extend(goes_on(target));
            cases.extend(fragmented(target));
            cases.extend(icmp(target));
            cases.push(gone(target));
            cases.push(unbound(mode, family));
        }
        cases.extend(answers(family));
        cases.push(checked(family));
    }
    cases
}

fn title(target: &Target, text: &str) -> String {
    format!("standby {} {}: {text}", target.mode.name(), target.family.name())
}

fn on_standby(title: String) -> Case {
    standby(Case::new(Bound, title))
}

fn as_master(title: String) -> Case {
    master(Case::new(Bound, title))
}

fn standby(case: Case) -> Case {
    case.happens("another director becomes master", |plane| {
        plane.set_role(ROLE, false);
        plane.set_role(OTHER_ROLE, true);
        Ok(())
    })
}

fn master(case: Case) -> Case {
    case.happens("this director becomes master", |plane| {
        plane.set_role(ROLE, true);
        plane.set_role(OTHER_ROLE, false);
        Ok(())
    })
}

/// New flows.
fn begins(target: Target) -> Vec<Case> {
    let c = Client::new(target.family);
    let syn = || c.to(target.vip()).tcp(c.port, 80).syn();
    let tcp = on_standby(title(&target, "SYN passes, and opens a connection when the director is master"))
        .arrives(CLIENTS, syn())
        .passes(Verdict::PassStandby)
        .counting(&[]);
    let tcp = master(tcp)
        .arrives(CLIENTS, syn())
        .redirects(verdict(target.mode), target.forwarded(&c).tcp(c.port, target.server_port(Tcp)).syn())
        .counting(&[Event::ConnectionNew])
        .leaves_state(&c, &target, Tcp, Some(State::SynRecv));

    let c = Client::new(target.family);
    let question = || c.to(target.vip()).udp(c.port, 53).payload(b"question");
    let forwarded = target.forwarded(&c).udp(c.port, target.server_port(Udp)).payload(b"question");
    let udp = on_standby(title(&target, "a datagram passes, and opens a flow when the director is master"))
        .arrives(CLIENTS, question())
        .passes(Verdict::PassStandby)
        .counting(&[]);
    let udp = master(udp).arrives(CLIENTS, question()).redirects(verdict(target.mode), forwarded);

    let c = Client::new(target.family);
    let middle = on_standby(title(&target, "a segment of a connection of the other director's"))
        .arrives(CLIENTS, c.to(target.vip()).tcp(c.port, 80).payload(b"data"))
        .passes(Verdict::PassStandby)
        .counting(&[])
        .leaves_state(&c, &target, Tcp, None);

    let c = Client::new(target.family);
    let not_served = on_standby(title(&target, "a port that nobody serves"))
        .arrives(CLIENTS, c.to(target.vip()).tcp(c.port, 81).syn())
        .passes(Verdict::PassNoService);
    vec![tcp, udp, middle, not_served]
}

/// Known flows: they stay in the table as they are, and go on later.
fn goes_on(target: Target) -> Vec<Case> {
    let (to_server, port) = (verdict(target.mode), target.server_port(Tcp));
    let c = Client::new(target.family);
    let segment = |flags: u8| c.to(target.vip()).tcp(c.port, 80).flags(flags);
    let mut tcp = standby(
        as_master(title(&target, "a connection waits and goes on"))
            .before(CLIENTS, segment(tcp_flags::SYN), to_server)
            .before(CLIENTS, segment(tcp_flags::ACK), to_server),
    );
    for flags in [tcp_flags::ACK, tcp_flags::FIN | tcp_flags::ACK, tcp_flags::RST, tcp_flags::SYN] {
        tcp = tcp.arrives(CLIENTS, segment(flags)).passes(Verdict::PassStandby).counting(&[]);
    }
    let tcp = master(tcp)
        .arrives(CLIENTS, c.to(target.vip()).tcp(c.port, 80).payload(b"more"))
        .redirects(to_server, target.forwarded(&c).tcp(c.port, port).payload(b"more"))
        .counting(&[])
        .leaves_state(&c, &target, Tcp, Some(State::Established));

    let c = Client::new(target.family);
    let question = || c.to(target.vip()).udp(c.port, 53).payload(b"question");
    let forwarded = target.forwarded(&c).udp(c.port, target.server_port(Udp)).payload(b"question");
    let udp = as_master(title(&target, "a flow of datagrams waits and goes on")).before(
        CLIENTS,
        question(),
        to_server,
    );
    let udp = standby(udp).arrives(CLIENTS, question()).passes(Verdict::PassStandby).counting(&[]);
    let udp = master(udp).arrives(CLIENTS, question()).redirects(to_server, forwarded).counting(&[]);

    // What passes lets nobody live longer, and is counted for no server.
    let c = Client::new(target.family);
    let old = standby(
        as_master(title(&target, "waiting does not keep a flow alive"))
            .before(CLIENTS, c.to(target.vip()).udp(c.port, 53), to_server)
            .happens("four minutes pass", move |plane| plane.age_connections(&c, 240)),
    );
    let old = old
        .arrives(CLIENTS, c.to(target.vip()).udp(c.port, 53))
        .passes(Verdict::PassStandby)
        .happens("two more minutes pass", move |plane| plane.age_connections(&c, 120));
    let old = master(old)
        .arrives(CLIENTS, c.to(target.vip()).udp(c.port, 53))
        .redirects(to_server, target.forwarded(&c).udp(c.port, target.server_port(Udp)))
        .counting(&[Event::ConnectionExpired, Event::ConnectionNew]);

    let c = Client::new(target.family);
    let counted = on_standby(title(&target, "nothing is counted"))
        .arrives(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn())
        .passes(Verdict::PassStandby)
        .counts(&target, Tcp, Counts::default());
    vec![tcp, udp, old, counted]
}

/// All fragments of a packet share its fate, whether its flow is known or not.
fn fragmented(target: Target) -> Vec<Case> {
    let family = target.family;
    let to_server = verdict(target.mode);
    let part = |c: &Client, id: u16, part: Part| {
        let (whole, _) = datagrams(&target, c);
        fragment(family, c.to(target.vip()), &whole, UDP, id, part)
    };
    let c = Client::new(family);
    let new = on_standby(title(&target, "the fragments of a datagram"))
        .arrives(CLIENTS, part(&c, 77, Part::First))
        .passes(Verdict::PassStandby)
        .arrives(CLIENTS, part(&c, 77, Part::Last))
        .passes(Verdict::PassStandby);

    let c = Client::new(family);
    let known = as_master(title(&target, "the fragments of a datagram of a known flow")).before(
        CLIENTS,
        c.to(target.vip()).udp(c.port, 53),
        to_server,
    );
    let known = standby(known)
        .arrives(CLIENTS, part(&c, 77, Part::First))
        .passes(Verdict::PassStandby)
        .arrives(CLIENTS, part(&c, 77, Part::Last))
        .passes(Verdict::PassStandby);

    let c = Client::new(family);
    let between = as_master(title(&target, "the last fragment after the director was master")).before(
        CLIENTS,
        part(&c, 77, Part::First),
        to_server,
    );
    let between = standby(between).arrives(CLIENTS, part(&c, 77, Part::Last)).passes(Verdict::PassStandby);

    let c = Client::new(family);
    let alone = on_standby(title(&target, "the last fragment alone"))
        .arrives(CLIENTS, part(&c, 77, Part::Last))
        .drops(Verdict::DropFragment);
    vec![new, known, between, alone]
}

/// Errors about packets of the virtual server, and what is no error.
fn icmp(target: Target) -> Vec<Case> {
    let family = target.family;
    let own = if target.mode == Mode::Nat { target.server() } else { target.vip() };
    let about = |ip: Packet, from, port, c: &Client| {
        error(family, ip, Problem::TooBig(1280), &quote(&seen(from, Tcp, port, c), 20))
    };
    let c = Client::new(family);
    let arriving = || about(from_router(&target), target.vip(), 80, &c);
    let router = Client { address: crate::scene::stranger(family), port: 0 };
    let leaving = about(target.forwarded(&router), own, target.server_port(Tcp), &c);
    let known = as_master(title(&target, "an ICMP error about a known connection")).before(
        CLIENTS,
        c.to(target.vip()).tcp(c.port, 80).syn(),
        verdict(target.mode),
    );
    let known = standby(known).arrives(CLIENTS, arriving()).passes(Verdict::PassStandby);
    let known = master(known).arrives(CLIENTS, arriving()).redirects(Verdict::IcmpToServer, leaving);

    let other = Client::new(family);
    let unknown = on_standby(title(&target, "an ICMP error about a connection of the other director's"))
        .arrives(CLIENTS, about(from_router(&target), target.vip(), 80, &other))
        .passes(Verdict::PassStandby);
    let echo = on_standby(title(&target, "echo request"))
        .arrives(CLIENTS, other.to(target.vip()).echo_request(7, 1).payload(b"ping"))
        .passes(Verdict::PassIcmp);
    vec![known, unknown, echo]
}

/// Connections of a server that is gone are not ended by packets that are another director's.
fn gone(target: Target) -> Case {
    let c = Client::new(target.family);
    let (id, server) = (target.id(Udp), target.server());
    let case = as_master(title(&target, "a flow of a server that is gone"))
        .before(CLIENTS, c.to(target.vip()).udp(c.port, 53), verdict(target.mode))
        .happens("the server is gone", move |plane| plane.set_flags(&id, server, GONE));
    standby(case)
        .arrives(CLIENTS, c.to(target.vip()).udp(c.port, 53))
        .passes(Verdict::PassStandby)
        .counting(&[])
        .happens("the server is back", move |plane| plane.set_flags(&id, server, 0))
        .leaves_state(&c, &target, Udp, Some(State::Udp))
}

/// What needs no role is served always.
fn unbound(mode: Mode, family: Family) -> Case {
    let target = Target::new(mode, family, SAME_PORT);
    let c = Client::new(family);
    on_standby(title(&target, "a virtual server that is bound to nothing"))
        .arrives(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn())
        .redirects(verdict(mode), target.forwarded(&c).tcp(c.port, 80).syn())
        .counting(&[Event::ConnectionNew])
}

/// Answers that were under way when the role went are translated, so that the client keeps its connection; but never with
/// the virtual router's MAC address.
fn answers(family: Family) -> Vec<Case> {
    let target = Target::new(Mode::Nat, family, PLAIN);
    let c = Client::new(family);
    let opened = as_master(title(&target, "an answer of a NAT server"))
        .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), Verdict::ForwardNat)
        .before(SERVERS, target.answer(&c).tcp(8080, c.port).syn_ack(), Verdict::ReverseNat);
    let tcp = standby(opened)
        .arrives(SERVERS, target.answer(&c).tcp(8080, c.port).payload(b"data"))
        .redirects(Verdict::ReverseNat, target.answered(&c).tcp(80, c.port).payload(b"data"))
        .counting(&[Event::FibLookup]);

    let c = Client::new(family);
    let virtual_mac = |packet: Packet| packet.udp(53, c.port).payload(b"answer");
    let question = Packet::eth(CLIENT_MAC, VIRTUAL_MAC).ip(c.address, target.vip()).udp(c.port, 53);
    let answer = || target.answer(&c).udp(5353, c.port).payload(b"answer");
    let from = |mac| virtual_mac(Packet::eth(mac, CLIENT_MAC).ip(target.vip(), c.address).ttl(63));
    let moved =
        as_master(title(&target, "an answer to a client that knows the virtual router's MAC address"))
            .before(CLIENTS, question, Verdict::ForwardNat)
            .arrives(SERVERS, answer())
            .redirects(Verdict::ReverseNat, from(VIRTUAL_MAC))
            .counting(&[]);
    let moved = standby(moved)
        .arrives(SERVERS, answer())
        .redirects(Verdict::ReverseNat, from(DIRECTOR_MAC))
        .counting(&[Event::FibLookup]);

    let c = Client::new(family);
    let arrived =
        |to, port| quote(&Packet::bare_ip(c.address, to).ttl(62).udp(c.port, port).payload(&[0x55; 30]), 8);
    let refusal = |ip, quoted: Vec<u8>| error(family, ip, Problem::PortUnreachable, &quoted);
    let incoming = Packet::eth(SERVER_MAC, INNER_MAC).ip(target.server(), c.address);
    let refused = as_master(title(&target, "an ICMP error of a NAT server")).before(
        CLIENTS,
        c.to(target.vip()).udp(c.port, 53),
        Verdict::ForwardNat,
    );
    let refused = standby(refused)
        .arrives(SERVERS, refusal(incoming, arrived(target.server(), 5353)))
        .redirects(Verdict::IcmpToClient, refusal(target.answered(&c), arrived(target.vip(), 53)));

    let c = Client::new(family);
    let nobodys = on_standby(title(&target, "a NAT server's packet without a connection"))
        .arrives(SERVERS, target.answer(&c).tcp(8080, c.port).syn())
        .passes(Verdict::PassNoService);
    vec![tcp, moved, refused, nobodys]
}

/// The agent's checks reach their servers, or a director would not know whom to serve from when it becomes master.
fn checked(family: Family) -> Case {
    let target = Target::new(Mode::Nat, family, PLAIN);
    let c = Client::new(family);
    on_standby(title(&target, "a check and its answer"))
        .happens("a check begins", move |plane| plane.begin_check(&c, &target, Tcp))
        .arrives(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn())
        .redirects(Verdict::ForwardNat, target.forwarded(&c).tcp(c.port, 8080).syn())
        .counting(&[])
        .arrives(SERVERS, target.answer(&c).tcp(8080, c.port).syn_ack())
        .redirects(Verdict::ReverseNat, target.answered(&c).tcp(80, c.port).syn_ack())
        .counting(&[])
}
