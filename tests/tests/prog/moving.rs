//! What becomes of connections whose real server is gone or takes no new ones. Which event of the agent's leads to which
//! flags is not the program's matter: the flags stand in the map.

use anyhow::Result;
use lab::{Packet, packet::tcp_flags};
use lb_common::{
    Event, Verdict,
    conn::State,
    server::server_flag::{GONE, KEEP, MOVE_UDP, NO_NEW},
};
use lb_userspace::config::Protocol::{Tcp, Udp};

use crate::{
    case::Case,
    forwarding::verdict,
    fragments::{Part, UDP, datagrams, fragment, payload_of},
    icmp::{error, from_router, seen},
    plane::Plane,
    scene::{
        ARRIVING, CLIENTS, Client, FAMILIES, Family, LEAVING, MODES, Mode, Problem, SERVERS, Target, V4,
        known_port, quote, stranger, tunnel_source,
    },
    setup::Setup::Moving,
};

/// What a move is counted as.
const MOVED: [Event; 2] = [Event::ConnectionMoved, Event::ConnectionNew];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for mode in MODES {
            cases.extend(gone(Scene::new(mode, family)));
            cases.extend(kept(Scene::new(mode, family)));
            cases.extend(draining(Scene::new(mode, family)));
            cases.extend(draining_udp(Scene::new(mode, family)));
            cases.extend(fragmented(Scene::new(mode, family)));
        }
        cases.extend(answers(Scene::new(Mode::Nat, family)));
    }
    cases
}

/// A virtual server with the real server that goes and the one that takes over.
#[derive(Clone, Copy)]
struct Scene {
    old: Target,
    new: Target,
}

impl Scene {
    fn new(mode: Mode, family: Family) -> Self {
        Self { old: Target::new(mode, family, LEAVING), new: Target::new(mode, family, ARRIVING) }
    }

    fn client(self) -> Client {
        Client::new(self.old.family)
    }

    fn verdict(self) -> Verdict {
        verdict(self.old.mode)
    }

    /// A case that begins with both servers there, the old one alone with a weight.
    fn case(self, title: &str) -> Case {
        let (mode, family) = (self.old.mode.name(), self.old.family.name());
        Case::new(Moving, format!("moving {mode} {family}: {title}"))
            .happens("the old server takes connections", move |plane| self.set(plane, [1, 0], 0))
    }

    /// From now on the new server takes connections and the old one has these flags.
    fn leaves(self, case: Case, flags: u8) -> Case {
        case.happens("the old server leaves", move |plane| self.set(plane, [0, 1], flags))
    }

    fn set(self, plane: &mut Plane, weights: [u32; 2], flags: u8) -> Result<()> {
        for protocol in [Tcp, Udp] {
            let id = self.old.id(protocol);
            for (server, weight) in [self.old, self.new].into_iter().zip(weights) {
                plane.set_weight(&id, server.server(), weight)?;
            }
            plane.set_flags(&id, self.old.server(), flags)?;
            plane.set_flags(&id, self.new.server(), 0)?;
        }
        Ok(())
    }

    /// A client's packet, without what follows the IP header.
    fn to(self, c: &Client) -> Packet {
        c.to(self.old.vip())
    }

    fn segment(self, c: &Client, flags: u8) -> Packet {
        self.to(c).tcp(c.port, 80).flags(flags)
    }

    fn datagram(self, c: &Client) -> Packet {
        self.to(c).udp(c.port, 53).payload(b"data")
    }

    /// What a real server gets of [`Self::segment`].
    fn segment_at(self, server: Target, c: &Client, flags: u8) -> Packet {
        server.forwarded_for(self.old.vip(), c).tcp(c.port, server.server_port(Tcp)).flags(flags)
    }

    /// What a real server gets of [`Self::datagram`].
    fn datagram_at(self, server: Target, c: &Client) -> Packet {
        server.forwarded_for(self.old.vip(), c).udp(c.port, server.server_port(Udp)).payload(b"data")
    }

    /// [`Self::case`] with a connection that is established.
    fn established(self, title: &str, c: &Client) -> Case {
        self.case(title).before(CLIENTS, self.segment(c, tcp_flags::SYN), self.verdict()).before(
            CLIENTS,
            self.segment(c, tcp_flags::ACK),
            self.verdict(),
        )
    }
}

const SYN: u8 = tcp_flags::SYN;
const ACK: u8 = tcp_flags::ACK;
const FIN_ACK: u8 = tcp_flags::FIN | tcp_flags::ACK;
const RST: u8 = tcp_flags::RST;

/// The connection ends at its next packet, and a packet that may begin one does so elsewhere.
fn gone(s: Scene) -> Vec<Case> {
    let mut cases = Vec::new();

    let c = s.client();
    let case = s.established("gone: SYN begins a connection elsewhere", &c);
    cases.push(
        s.leaves(case, GONE)
            .arrives(CLIENTS, s.segment(&c, SYN))
            .redirects(s.verdict(), s.segment_at(s.new, &c, SYN))
            .counting(&MOVED)
            .leaves_state(&c, &s.old, Tcp, Some(State::SynRecv)),
    );

    for flags in [ACK, FIN_ACK, RST] {
        let c = s.client();
        let case = s.established(&format!("gone: a segment with flags {flags:#x} ends it"), &c);
        cases.push(
            s.leaves(case, GONE | NO_NEW)
                .arrives(CLIENTS, s.segment(&c, flags))
                .passes(Verdict::PassNoConnection)
                .counting(&[Event::ConnectionMoved])
                .leaves_state(&c, &s.old, Tcp, None),
        );
    }

    let c = s.client();
    let case = s.case("gone: a datagram goes elsewhere").before(CLIENTS, s.datagram(&c), s.verdict());
    cases.push(
        s.leaves(case, GONE)
            .arrives(CLIENTS, s.datagram(&c))
            .redirects(s.verdict(), s.datagram_at(s.new, &c))
            .counting(&MOVED)
            .arrives(CLIENTS, s.datagram(&c))
            .redirects(s.verdict(), s.datagram_at(s.new, &c))
            .counting(&[])
            .leaves_state(&c, &s.old, Udp, Some(State::Udp)),
    );

    for (flags, name) in [(GONE, "gone"), (GONE | KEEP, "gone, kept")] {
        let c = s.client();
        let case = s.case(&format!("{name}: an ICMP error about its packet")).before(
            CLIENTS,
            s.datagram(&c),
            s.verdict(),
        );
        let quoted = quote(&seen(s.old.vip(), Udp, 53, &c), 8);
        cases.push(
            s.leaves(case, flags)
                .arrives(CLIENTS, error(s.old.family, from_router(&s.old), Problem::TooBig(1280), &quoted))
                .drops(Verdict::DropServerGone)
                .counting(&[])
                .leaves_state(&c, &s.old, Udp, Some(State::Udp)),
        );
    }
    cases
}

/// Connections wait for their server.
fn kept(s: Scene) -> Vec<Case> {
    let mut cases = Vec::new();
    for (flags, name) in [(SYN, "SYN"), (ACK, "a segment")] {
        let c = s.client();
        let case = s.established(&format!("gone, kept: {name} waits until it is back"), &c);
        let case = s
            .leaves(case, GONE | KEEP)
            .arrives(CLIENTS, s.segment(&c, flags))
            .drops(Verdict::DropServerGone)
            .counting(&[])
            .happens("the old server is back", move |plane| s.set(plane, [1, 1], 0));
        cases.push(
            case.arrives(CLIENTS, s.segment(&c, flags))
                .redirects(s.verdict(), s.segment_at(s.old, &c, flags))
                .counting(&[])
                .leaves_state(&c, &s.old, Tcp, Some(State::Established)),
        );
    }

    let c = s.client();
    let case = s.case("gone, kept: what is dropped lets no flow live longer").before(
        CLIENTS,
        s.datagram(&c),
        s.verdict(),
    );
    cases.push(
        s.leaves(case, GONE | KEEP)
            .happens("200 s pass", move |plane| plane.age_connections(&c, 200))
            .arrives(CLIENTS, s.datagram(&c))
            .drops(Verdict::DropServerGone)
            .counting(&[])
            .happens("200 s pass", move |plane| plane.age_connections(&c, 200))
            .arrives(CLIENTS, s.datagram(&c))
            .redirects(s.verdict(), s.datagram_at(s.new, &c))
            .counting(&[Event::ConnectionExpired, Event::ConnectionNew]),
    );
    cases
}

/// A server that takes no new connections: SYN never sticks to it.
fn draining(s: Scene) -> Vec<Case> {
    let mut cases = Vec::new();

    let c = s.client();
    let case = s.established("no new ones: an established connection goes on", &c);
    cases.push(
        s.leaves(case, NO_NEW | MOVE_UDP)
            .arrives(CLIENTS, s.segment(&c, ACK))
            .redirects(s.verdict(), s.segment_at(s.old, &c, ACK))
            .counting(&[])
            .leaves_state(&c, &s.old, Tcp, Some(State::Established)),
    );

    for keep in [0, KEEP] {
        let name = if keep == 0 { "no new ones" } else { "no new ones, kept" };
        let c = s.client();
        let case = s
            .established(&format!("{name}: the port of a closed connection is used again"), &c)
            .before(CLIENTS, s.segment(&c, RST), s.verdict());
        cases.push(
            s.leaves(case, NO_NEW | keep)
                .arrives(CLIENTS, s.segment(&c, SYN))
                .redirects(s.verdict(), s.segment_at(s.new, &c, SYN))
                .counting(&[Event::ConnectionReused, Event::ConnectionNew])
                .leaves_state(&c, &s.old, Tcp, Some(State::SynRecv)),
        );

        // Where answers pass, this is CLOSE_WAIT, which otherwise sticks.
        let c = s.client();
        let case = s
            .established(&format!("{name}: the port of a closing connection is used again"), &c)
            .before(CLIENTS, s.segment(&c, FIN_ACK), s.verdict());
        let event = if s.old.mode == Mode::Nat { Event::ConnectionMoved } else { Event::ConnectionReused };
        cases.push(
            s.leaves(case, NO_NEW | keep)
                .arrives(CLIENTS, s.segment(&c, SYN))
                .redirects(s.verdict(), s.segment_at(s.new, &c, SYN))
                .counting(&[event, Event::ConnectionNew]),
        );
    }

    for established in [false, true] {
        let c = s.client();
        let name = if established { "an established" } else { "a half-open" };
        let begun = |title: &str| match established {
            true => s.established(title, &c),
            false => s.case(title).before(CLIENTS, s.segment(&c, SYN), s.verdict()),
        };
        let case = begun(&format!("no new ones: SYN on {name} connection"));
        cases.push(
            s.leaves(case, NO_NEW)
                .arrives(CLIENTS, s.segment(&c, SYN))
                .redirects(s.verdict(), s.segment_at(s.new, &c, SYN))
                .counting(&MOVED)
                .leaves_state(&c, &s.old, Tcp, Some(State::SynRecv)),
        );
        let c = s.client();
        let case = match established {
            true => s.established(&format!("no new ones, kept: SYN on {name} connection"), &c),
            false => s.case(&format!("no new ones, kept: SYN on {name} connection")).before(
                CLIENTS,
                s.segment(&c, SYN),
                s.verdict(),
            ),
        };
        cases.push(
            s.leaves(case, NO_NEW | KEEP)
                .arrives(CLIENTS, s.segment(&c, SYN))
                .redirects(s.verdict(), s.segment_at(s.old, &c, SYN))
                .counting(&[]),
        );
    }
    cases
}

fn draining_udp(s: Scene) -> Vec<Case> {
    let mut cases = Vec::new();
    for flags in [NO_NEW, NO_NEW | KEEP, MOVE_UDP] {
        let c = s.client();
        let case = s.case(&format!("flags {flags:#x}: a UDP flow stays")).before(
            CLIENTS,
            s.datagram(&c),
            s.verdict(),
        );
        cases.push(
            s.leaves(case, flags)
                .arrives(CLIENTS, s.datagram(&c))
                .redirects(s.verdict(), s.datagram_at(s.old, &c))
                .counting(&[]),
        );
    }
    let c = s.client();
    let case = s.case("no new ones: a UDP flow moves").before(CLIENTS, s.datagram(&c), s.verdict());
    cases.push(
        s.leaves(case, NO_NEW | MOVE_UDP)
            .arrives(CLIENTS, s.datagram(&c))
            .redirects(s.verdict(), s.datagram_at(s.new, &c))
            .counting(&MOVED)
            .leaves_state(&c, &s.old, Udp, Some(State::Udp)),
    );
    // Nobody else is there.
    let c = s.client();
    let case = s.case("no new ones: a UDP flow stays where no other server is");
    cases.push(
        case.before(CLIENTS, s.datagram(&c), s.verdict())
            .happens("the only server drains", move |plane| s.set(plane, [1, 0], NO_NEW | MOVE_UDP))
            .arrives(CLIENTS, s.datagram(&c))
            .redirects(s.verdict(), s.datagram_at(s.old, &c))
            .counting(&MOVED),
    );
    cases
}

/// Fragments go where their first one went.
fn fragmented(s: Scene) -> Vec<Case> {
    let family = s.old.family;
    let part = |c: &Client, id, part| fragment(family, s.to(c), &datagrams(&s.old, c).0, UDP, id, part);
    // A tunnel's outer IPv4 header may be fragmented like the inner one.
    let frame = |c: &Client, id| match (s.new.mode, family) {
        (Mode::Tun, V4) => {
            let outer = s.new.frame().ip(tunnel_source(V4), s.new.server());
            outer.identification(id).dont_fragment(false).ip(c.address, s.old.vip()).ttl(63)
        }
        _ => s.new.forwarded_for(s.old.vip(), c),
    };
    let moved = |c: &Client, id, part| {
        let payload = match s.new.mode {
            Mode::Nat => datagrams(&s.new, c).1,
            Mode::Dr | Mode::Tun | Mode::TunAcross => datagrams(&s.old, c).0,
        };
        fragment(family, frame(c, id), &payload, UDP, id, part)
    };
    let mut cases = Vec::new();
    for (flags, name) in [(GONE, "gone"), (NO_NEW | MOVE_UDP, "no new ones")] {
        let c = s.client();
        let case = s.case(&format!("{name}: a datagram in fragments goes elsewhere"));
        cases.push(
            s.leaves(case.before(CLIENTS, s.datagram(&c), s.verdict()), flags)
                .arrives(CLIENTS, part(&c, 7, Part::First))
                .redirects(s.verdict(), moved(&c, 7, Part::First))
                .counting(&MOVED)
                .arrives(CLIENTS, part(&c, 7, Part::Last))
                .redirects(s.verdict(), moved(&c, 7, Part::Last))
                .counting(&[]),
        );
    }
    let c = s.client();
    let case = s.case("gone: the last fragment after its first went there");
    cases.push(
        s.leaves(case.before(CLIENTS, part(&c, 8, Part::First), s.verdict()), GONE)
            .arrives(CLIENTS, part(&c, 8, Part::Last))
            .drops(Verdict::DropServerGone)
            .counting(&[])
            .leaves_state(&c, &s.old, Udp, Some(State::Udp)),
    );
    let c = s.client();
    let case = s.case("gone, kept: fragments");
    cases.push(
        s.leaves(case.before(CLIENTS, s.datagram(&c), s.verdict()), GONE | KEEP)
            .arrives(CLIENTS, part(&c, 9, Part::First))
            .drops(Verdict::DropServerGone)
            .arrives(CLIENTS, part(&c, 9, Part::Last))
            .drops(Verdict::DropFragment),
    );
    cases
}

/// What a server had begun to answer still passes, as long as its connection has a place.
fn answers(s: Scene) -> Vec<Case> {
    let mut cases = Vec::new();
    for (flags, name) in [(GONE, "gone"), (GONE | KEEP, "gone, kept"), (NO_NEW | MOVE_UDP, "no new ones")] {
        let c = s.client();
        let case = s.established(&format!("{name}: an answer passes"), &c);
        cases.push(
            s.leaves(case, flags)
                .arrives(SERVERS, s.old.answer(&c).tcp(8080, c.port).payload(b"rest"))
                .redirects(Verdict::ReverseNat, s.old.answered(&c).tcp(80, c.port).payload(b"rest"))
                .counting(&[])
                .leaves_state(&c, &s.old, Tcp, Some(State::Established)),
        );

        let c = s.client();
        let case = s.case(&format!("{name}: a router's error about it reaches the client"));
        let arrived = Packet::bare_ip(c.address, s.old.server()).ttl(62).udp(c.port, 5353).payload(b"data");
        let sent =
            Packet::bare_ip(c.address, s.old.vip()).ttl(62).udp(c.port, known_port(Udp)).payload(b"data");
        let about = |ip: Packet, packet: &Packet| {
            error(s.old.family, ip, Problem::PortUnreachable, &quote(packet, 8))
        };
        let router = Packet::eth(crate::scene::SERVER_MAC, crate::scene::INNER_MAC)
            .ip(stranger(s.old.family), c.address);
        cases.push(
            s.leaves(case.before(CLIENTS, s.datagram(&c), s.verdict()), flags)
                .arrives(SERVERS, about(router, &arrived))
                .redirects(Verdict::IcmpToClient, about(s.old.answered(&c), &sent)),
        );
    }

    // A fragment's answer, for the path of first fragments.
    let c = s.client();
    let case = s.case("gone: an answer in fragments passes");
    let data: Vec<u8> = (0..90).collect();
    let payload = |src, port| {
        payload_of(&Packet::bare_ip(src, c.address).udp(port, c.port).payload(&data), s.old.family)
    };
    let (before, after) = (payload(s.old.server(), 5353), payload(s.old.vip(), 53));
    let part = |ip: Packet, payload: &[u8], part| fragment(s.old.family, ip, payload, UDP, 9, part);
    cases.push(
        s.leaves(case.before(CLIENTS, s.datagram(&c), s.verdict()), GONE)
            .arrives(SERVERS, part(s.old.answer(&c), &before, Part::First))
            .redirects(Verdict::ReverseNat, part(s.old.answered(&c), &after, Part::First))
            .arrives(SERVERS, part(s.old.answer(&c), &before, Part::Last))
            .redirects(Verdict::ReverseNat, part(s.old.answered(&c), &after, Part::Last)),
    );

    let c = s.client();
    let case = s.case("gone: after the move only the new server's answers pass");
    cases.push(
        s.leaves(case.before(CLIENTS, s.datagram(&c), s.verdict()), GONE)
            .before(CLIENTS, s.datagram(&c), s.verdict())
            .arrives(SERVERS, s.old.answer(&c).udp(5353, c.port).payload(b"late"))
            .passes(Verdict::PassNoService)
            .arrives(SERVERS, s.new.answer(&c).udp(5353, c.port).payload(b"answer"))
            .redirects(Verdict::ReverseNat, s.old.answered(&c).udp(53, c.port).payload(b"answer")),
    );
    cases
}
