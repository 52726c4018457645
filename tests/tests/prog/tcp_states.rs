//! TCP's states as IPVS keeps them, what they count, and when they end.

use lab::{Packet, packet::tcp_flags};
use lb_common::{Event, Verdict, conn::State};
use lb_userspace::config::Protocol::{Tcp, Udp};

use crate::{
    case::{Case, Counts},
    forwarding::verdict,
    plane::Plane,
    scene::{CLIENTS, COUNTED, Client, FAMILIES, Family, MODES, Mode, PLAIN, SERVERS, Target, V4},
    setup::Setup::Forwarding,
};

/// One segment of a connection.
#[derive(Clone, Copy)]
enum Segment {
    /// From the client.
    In(u8),
    /// From the NAT server.
    Out(u8),
}

use Segment::{In, Out};
use tcp_flags::{ACK, FIN, RST, SYN};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        cases.extend(walks(family));
        for mode in MODES {
            cases.extend(without_connection(mode, family));
            cases.extend(ends(mode, family));
        }
        cases.extend(again(family));
        cases.push(half_quiet(family));
    }
    cases.extend(lifetimes());
    cases
}

/// The segments, each forwarded.
fn walk(mut case: Case, target: &Target, c: &Client, segments: &[Segment]) -> Case {
    for segment in segments {
        case = match *segment {
            In(flags) => case.before(CLIENTS, from_client(target, c, flags), verdict(target.mode)),
            Out(flags) => {
                let packet = target.answer(c).tcp(target.server_port(Tcp), c.port).flags(flags);
                case.before(SERVERS, packet, Verdict::ReverseNat)
            }
        };
    }
    case
}

fn from_client(target: &Target, c: &Client, flags: u8) -> Packet {
    c.to(target.vip()).tcp(c.port, 80).flags(flags)
}

fn at_server(target: &Target, c: &Client, flags: u8) -> Packet {
    target.forwarded(c).tcp(c.port, target.server_port(Tcp)).flags(flags)
}

/// The client's last segment `flags` is forwarded like any other and leaves the connection in `state`.
fn ending(title: String, target: &Target, c: &Client, before: &[Segment], flags: u8, state: State) -> Case {
    walk(Case::new(Forwarding, title), target, c, before)
        .arrives(CLIENTS, from_client(target, c, flags))
        .redirects(verdict(target.mode), at_server(target, c, flags))
        .leaves_state(c, target, Tcp, Some(state))
}

fn walks(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    let open: &[Segment] = &[In(SYN), Out(SYN | ACK)];
    let established: &[Segment] = &[In(SYN), Out(SYN | ACK), In(ACK)];
    let server_closed: &[Segment] = &[In(SYN), Out(SYN | ACK), In(ACK), Out(FIN | ACK)];
    let both_closed: &[Segment] = &[In(SYN), Out(SYN | ACK), In(ACK), In(FIN | ACK), Out(FIN | ACK)];
    let table: &[(&str, &[Segment], u8, State)] = &[
        ("a repeated SYN", &[In(SYN)], SYN, State::SynRecv),
        ("the handshake's third segment", open, ACK, State::Established),
        ("data both ways", &[In(SYN), Out(SYN | ACK), In(ACK), Out(ACK)], ACK, State::Established),
        ("a segment without flags", established, 0, State::Established),
        ("SYN in an established connection", established, SYN, State::Established),
        ("FIN from the client", established, FIN | ACK, State::CloseWait),
        ("FIN from the client after the server's", server_closed, FIN | ACK, State::TimeWait),
        ("the last ACK", both_closed, ACK, State::TimeWait),
        ("RST from the client", established, RST, State::Close),
        ("RST goes before all other flags", established, RST | SYN | FIN | ACK, State::Close),
    ];
    let nat = Target::new(Mode::Nat, family, PLAIN);
    for (name, before, flags, state) in table {
        let c = Client::new(family);
        let title = format!("states nat {}: {name}", family.name());
        cases.push(ending(title, &nat, &c, before, *flags, *state));
    }
    let one_sided: &[(&str, &[Segment], u8, State)] = &[
        ("the handshake's third segment", &[In(SYN)], ACK, State::Established),
        ("FIN from the client", &[In(SYN), In(ACK)], FIN | ACK, State::FinWait),
        ("ACK after FIN", &[In(SYN), In(ACK), In(FIN | ACK)], ACK, State::FinWait),
        ("RST from the client", &[In(SYN), In(ACK)], RST, State::Close),
    ];
    for mode in [Mode::Dr, Mode::Tun, Mode::TunAcross] {
        let target = Target::new(mode, family, PLAIN);
        for (name, before, flags, state) in one_sided {
            let c = Client::new(family);
            let title = format!("states {} {}: {name}", mode.name(), family.name());
            cases.push(ending(title, &target, &c, before, *flags, *state));
        }
    }
    let from_server: &[(&str, &[Segment], u8, State)] = &[
        ("FIN from the server", established, FIN | ACK, State::FinWait),
        (
            "FIN from the server after the client's",
            &[In(SYN), In(ACK), In(FIN | ACK)],
            FIN | ACK,
            State::TimeWait,
        ),
        ("RST from the server", &[In(SYN)], RST | ACK, State::Close),
    ];
    for (name, before, flags, state) in from_server {
        let c = Client::new(family);
        cases.push(
            walk(Case::new(Forwarding, format!("states nat {}: {name}", family.name())), &nat, &c, before)
                .arrives(SERVERS, nat.answer(&c).tcp(8080, c.port).flags(*flags))
                .redirects(Verdict::ReverseNat, nat.answered(&c).tcp(80, c.port).flags(*flags))
                .leaves_state(&c, &nat, Tcp, Some(*state)),
        );
    }
    cases
}

fn without_connection(mode: Mode, family: Family) -> Vec<Case> {
    let target = Target::new(mode, family, PLAIN);
    [("ACK", ACK), ("RST", RST), ("SYN and ACK", SYN | ACK), ("FIN", FIN | ACK), ("no flag", 0)]
        .into_iter()
        .map(|(name, flags)| {
            let c = Client::new(family);
            let title = format!("states {} {}: {name} without a connection", mode.name(), family.name());
            Case::new(Forwarding, title)
                .arrives(CLIENTS, from_client(&target, &c, flags))
                .passes(Verdict::PassNoConnection)
                .counting(&[])
                .leaves_state(&c, &target, Tcp, None)
        })
        .collect()
}

fn ends(mode: Mode, family: Family) -> Vec<Case> {
    let title = |text: &str| format!("states {} {}: {text}", mode.name(), family.name());
    let segment = family.header() as i64 + 20;
    let mut cases = Vec::new();

    let c = Client::new(family);
    let target = Target::new(mode, family, COUNTED + 3);
    cases.push(
        walk(
            Case::new(Forwarding, title("a closed connection counts as inactive")),
            &target,
            &c,
            &[In(SYN), In(ACK)],
        )
        .arrives(CLIENTS, from_client(&target, &c, FIN | ACK))
        .redirects(verdict(mode), at_server(&target, &c, FIN | ACK))
        .counts(
            &target,
            Tcp,
            Counts { inactive: 1, connections: 1, packets_in: 3, bytes_in: 3 * segment, ..Counts::default() },
        ),
    );

    let c = Client::new(family);
    let target = Target::new(mode, family, COUNTED + 4);
    cases.push(
        walk(
            Case::new(Forwarding, title("a packet after the time is over")),
            &target,
            &c,
            &[In(SYN), In(ACK)],
        )
        .happens("15 minutes pass", move |plane| plane.age_connections(&c, 901))
        .arrives(CLIENTS, from_client(&target, &c, ACK))
        .passes(Verdict::PassNoConnection)
        .counting(&[Event::ConnectionExpired])
        .leaves_state(&c, &target, Tcp, None)
        .counts(
            &target,
            Tcp,
            Counts { connections: 1, packets_in: 2, bytes_in: 2 * segment, ..Counts::default() },
        ),
    );

    let c = Client::new(family);
    cases.push(
        walk(Case::new(Forwarding, title("SYN after the time is over")), &target, &c, &[In(SYN), In(ACK)])
            .happens("15 minutes pass", move |plane| plane.age_connections(&c, 901))
            .arrives(CLIENTS, from_client(&target, &c, SYN))
            .redirects(verdict(mode), at_server(&target, &c, SYN))
            .counting(&[Event::ConnectionExpired, Event::ConnectionNew])
            .leaves_state(&c, &target, Tcp, Some(State::SynRecv)),
    );

    let c = Client::new(family);
    let target = Target::new(mode, family, COUNTED + 5);
    cases.push(
        walk(Case::new(Forwarding, title("the agent ends what is over")), &target, &c, &[In(SYN), In(ACK)])
            .happens("15 minutes pass", move |plane| plane.age_connections(&c, 901))
            .happens("the agent looks", Plane::sweep)
            .arrives(CLIENTS, from_client(&target, &c, ACK))
            .passes(Verdict::PassNoConnection)
            .counting(&[])
            .counts(
                &target,
                Tcp,
                Counts { connections: 1, packets_in: 2, bytes_in: 2 * segment, ..Counts::default() },
            ),
    );

    let c = Client::new(family);
    let target = Target::new(mode, family, PLAIN);
    cases.push(
        Case::new(Forwarding, title("a UDP flow begins anew after its time"))
            .before(CLIENTS, c.to(target.vip()).udp(c.port, 53), verdict(mode))
            .happens("5 minutes pass", move |plane| plane.age_connections(&c, 301))
            .arrives(CLIENTS, c.to(target.vip()).udp(c.port, 53))
            .redirects(verdict(mode), target.forwarded(&c).udp(c.port, target.server_port(Udp)))
            .counting(&[Event::ConnectionExpired, Event::ConnectionNew]),
    );
    cases
}

/// A client that uses its port again.
fn again(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    let segment = family.header() as i64 + 20;
    let nat = Target::new(Mode::Nat, family, COUNTED + 6);
    let closed: &[Segment] = &[In(SYN), Out(SYN | ACK), In(ACK), In(FIN | ACK), Out(FIN | ACK), In(ACK)];
    let c = Client::new(family);
    cases.push(
        walk(
            Case::new(Forwarding, format!("states nat {}: SYN in TIME_WAIT", family.name())),
            &nat,
            &c,
            closed,
        )
        .arrives(CLIENTS, from_client(&nat, &c, SYN))
        .redirects(Verdict::ForwardNat, at_server(&nat, &c, SYN))
        .counting(&[Event::ConnectionReused, Event::ConnectionNew])
        .leaves_state(&c, &nat, Tcp, Some(State::SynRecv))
        .counts(
            &nat,
            Tcp,
            Counts {
                active: 1,
                connections: 2,
                packets_in: 5,
                bytes_in: 5 * segment,
                packets_out: 2,
                bytes_out: 2 * segment,
                ..Counts::default()
            },
        ),
    );
    for mode in [Mode::Dr, Mode::Tun, Mode::TunAcross] {
        let target = Target::new(mode, family, PLAIN);
        let c = Client::new(family);
        let title =
            format!("states {} {}: SYN in FIN_WAIT, whose end nobody sees", mode.name(), family.name());
        cases.push(
            walk(Case::new(Forwarding, title), &target, &c, &[In(SYN), In(ACK), In(FIN | ACK)])
                .arrives(CLIENTS, from_client(&target, &c, SYN))
                .redirects(verdict(mode), at_server(&target, &c, SYN))
                .counting(&[Event::ConnectionReused, Event::ConnectionNew])
                .leaves_state(&c, &target, Tcp, Some(State::SynRecv)),
        );
    }
    let plain = Target::new(Mode::Nat, family, PLAIN);
    let c = Client::new(family);
    cases.push(
        walk(
            Case::new(Forwarding, format!("states nat {}: SYN after RST", family.name())),
            &plain,
            &c,
            &[In(SYN), In(ACK), In(RST)],
        )
        .arrives(CLIENTS, from_client(&plain, &c, SYN))
        .redirects(Verdict::ForwardNat, at_server(&plain, &c, SYN))
        .counting(&[Event::ConnectionReused, Event::ConnectionNew])
        .leaves_state(&c, &plain, Tcp, Some(State::SynRecv)),
    );
    cases
}

/// A download: only the server's packets come for a long time, which keeps both directions alive.
fn half_quiet(family: Family) -> Case {
    let target = Target::new(Mode::Nat, family, PLAIN);
    let c = Client::new(family);
    let title = format!("states nat {}: one direction keeps the other alive", family.name());
    walk(Case::new(Forwarding, title), &target, &c, &[In(SYN), Out(SYN | ACK), In(ACK)])
        .happens("10 minutes pass", move |plane| plane.age_connections(&c, 600))
        .before(SERVERS, target.answer(&c).tcp(8080, c.port), Verdict::ReverseNat)
        .happens("10 minutes pass", move |plane| plane.age_connections(&c, 600))
        .arrives(CLIENTS, from_client(&target, &c, ACK))
        .redirects(Verdict::ForwardNat, at_server(&target, &c, ACK))
        .counting(&[])
        .leaves_state(&c, &target, Tcp, Some(State::Established))
}

/// IPVS's timeouts (`tcp_timeouts` in `ip_vs_proto_tcp.c`) by state: the last second of life, and the one after.
fn lifetimes() -> Vec<Case> {
    let target = Target::new(Mode::Nat, V4, PLAIN);
    let lives: &[(State, u64, &[Segment])] = &[
        (State::SynRecv, 60, &[In(SYN)]),
        (State::Established, 900, &[In(SYN), In(ACK)]),
        (State::CloseWait, 60, &[In(SYN), In(ACK), In(FIN | ACK)]),
        (State::FinWait, 120, &[In(SYN), In(ACK), Out(FIN | ACK)]),
        (State::TimeWait, 120, &[In(SYN), In(ACK), In(FIN | ACK), Out(FIN | ACK)]),
        (State::Close, 10, &[In(SYN), In(ACK), In(RST)]),
    ];
    let mut cases = Vec::new();
    for (state, seconds, before) in lives {
        let c = Client::new(V4);
        let alive = *seconds - 2;
        let name = state.name();
        cases.push(
            walk(Case::new(Forwarding, format!("states: {name} after {alive} seconds")), &target, &c, before)
                .happens("time passes", move |plane| plane.age_connections(&c, alive))
                .arrives(SERVERS, target.answer(&c).tcp(8080, c.port).payload(b"late"))
                .redirects(Verdict::ReverseNat, target.answered(&c).tcp(80, c.port).payload(b"late")),
        );
        let c = Client::new(V4);
        let over = *seconds + 1;
        cases.push(
            walk(Case::new(Forwarding, format!("states: {name} after {over} seconds")), &target, &c, before)
                .happens("time passes", move |plane| plane.age_connections(&c, over))
                .arrives(SERVERS, target.answer(&c).tcp(8080, c.port).payload(b"late"))
                .passes(Verdict::PassNoService)
                .counting(&[Event::ConnectionExpired])
                .leaves_state(&c, &target, Tcp, None),
        );
    }
    cases
}
