//! Thresholds: an overloaded server gets no connections, whatever the scheduler. An overloaded server is to IPVS what a
//! server of weight 0 is, so where one stands still the picks are those that were observed for it.

use lab::Packet;
use lb_common::{
    Addr, Verdict,
    schedule::{NONE, SH_SLOTS, addr_fold, kernel_position, sh_hash, sh_table},
};
use lb_userspace::{
    config::Protocol::{Tcp, Udp},
    desired::ServiceId,
};

use crate::{
    case::Case,
    scene::{CLIENTS, Client, V4},
    schedulers::{entry, observed_client, picks, refusal, to},
    setup::{Setup::Scheduling, scheduled_server, scheduled_vip},
};

pub fn cases() -> Vec<Case> {
    let by_port = client_of(23, 2, true);
    let mut cases = vec![
        // Two connections for server 3: it is passed over in its third turn and later.
        sequence(18, &[(3, 2)], "3213212121"),
        // Three for server 1: 321121, and the cycle without it: 32, 2, 32, 2.
        sequence(19, &[(1, 3)], "321121322322"),
        sequence(20, &[(2, 1)], "21111"),
        sequence(21, &[(2, 1)], "21111"),
        // All full.
        sequence(26, &[(1, 1), (2, 2)], "21200"),
        sequence(32, &[(1, 1), (2, 1)], "2100"),
        sequence(31, &[(1, 1), (2, 1)], &full_source_hash()),
        // A cycle of 201 slots that begins in its last pass; then 199 in a row are of the server that is soon full.
        sequence(29, &[(2, 5)], "212222111111111"),
        // Two of three are full, and all of the table's slots lead to the third.
        filled(30, &[1, 2], [(1, 1), (2, 1)], "333333333333"),
        // As observed with weight 0 of server 2.
        stands_still(22, observed_client(V4, 10), "443333333001113330011443303114"),
        stands_still(23, by_port, "331111333334113331331341133311"),
        stands_still(24, observed_client(V4, 2), "300303103030330001333033330000"),
        stands_still(25, observed_client(V4, 2), "333313133333331331333133333333"),
    ];
    cases.push(hysteresis(27, 2, false, &[false, false, true]));
    cases.push(hysteresis(28, 0, true, &[false, true, true]));
    cases.push(raised());
    cases.push(known_flow());
    cases
}

fn id(number: u8) -> ServiceId {
    ServiceId { address: scheduled_vip(V4, number), port: 80, protocol: Udp }
}

/// A case in which these servers have an upper threshold.
fn case(number: u8, title: &str, limits: &[(u8, u32)]) -> Case {
    let (_, name) = entry(number);
    limits.iter().fold(
        Case::new(Scheduling, format!("thresholds: {name}: {title}")),
        |case, &(server, upper)| {
            case.happens(format!("server {server} gets the threshold {upper}"), move |plane| {
                plane.set_thresholds(&id(number), scheduled_server(V4, server), upper, 0)
            })
        },
    )
}

fn sequence(number: u8, limits: &[(u8, u32)], expected: &str) -> Case {
    picks(case(number, &format!("limits {limits:?}"), limits), number, V4, expected)
}

/// Server 2 is filled by a datagram of `filler`'s address, so that it is overloaded for all others.
fn stands_still(number: u8, filler: Client, expected: &str) -> Case {
    let c = Client { port: if number == 23 { filler.port } else { 39_999 }, ..filler };
    let vip = scheduled_vip(V4, number);
    let case = case(number, "an overloaded server is like one of weight 0", &[(2, 1)])
        .arrives(CLIENTS, c.to(vip).udp(c.port, 80))
        .redirects(Verdict::ForwardDr, to(2).ip(c.address, vip).ttl(63).udp(c.port, 80));
    picks(case, number, V4, expected)
}

/// The servers are filled by whoever is theirs, then come the clients.
fn filled(number: u8, servers: &[u8], limits: [(u8, u32); 2], expected: &str) -> Case {
    let vip = scheduled_vip(V4, number);
    let mut case = case(number, "all others are full", &limits);
    let servers = servers.to_vec();
    case = case.happens("the others are filled", move |plane| {
        // Of 200 clients of their own some are every server's.
        for client in 0..200 {
            let c = Client { port: 39_999, ..observed_client(V4, 1000 + client) };
            plane.run(CLIENTS, &c.to(vip).udp(c.port, 80).build(), 0)?;
        }
        for &server in &servers {
            let counts = plane.counts(&id(number), scheduled_server(V4, server))?;
            anyhow::ensure!(counts.inactive == 1, "server {server} has {} connections", counts.inactive);
        }
        Ok(())
    });
    picks(case, number, V4, expected)
}

/// sh-fallback with one connection for each of two servers: the first client's own, then the other one, then nobody.
fn full_source_hash() -> String {
    let mut slots = [NONE; SH_SLOTS];
    sh_table(&[1, 1], |_| true, false, &mut slots);
    let first = addr_fold(Addr::from_ip(observed_client(V4, 1).address));
    let first = kernel_position(slots[sh_hash(first, 0)].into(), 2) + 1;
    format!("{first}{}000", 3 - first)
}

/// A client whose slot belongs to a server.
fn client_of(number: u8, server: usize, with_port: bool) -> Client {
    let weights = [1, 5, 1, 2];
    assert!(entry(number).1.contains("[2, 1, 5, 1]"), "the weights in the kernel's order");
    let mut slots = [NONE; SH_SLOTS];
    sh_table(&weights, |_| true, false, &mut slots);
    let is_of = |c: &Client| {
        let slot = sh_hash(addr_fold(Addr::from_ip(c.address)), if with_port { c.port } else { 0 });
        kernel_position(slots[slot].into(), weights.len()) + 1 == server
    };
    (200..300)
        .map(|number| Client { address: [10, 99, 99, 99].into(), port: 30_000 + number })
        .find(is_of)
        .expect("one of a hundred clients")
}

/// One server with as many connections as it may have; `fifth`: another is refused, or nobody tries. Then connections end one
/// after the other, and after each `expected` says whether another is let in.
fn hysteresis(number: u8, lower: u32, fifth: bool, expected: &[bool]) -> Case {
    let vip = scheduled_vip(V4, number);
    let datagram = |c: &Client| c.to(vip).udp(c.port, 80);
    let clients = [(); 4].map(|()| Client::new(V4));
    let (_, name) = entry(number);
    let mut case = Case::new(Scheduling, format!("thresholds: {name}: upper 4, lower {lower}"))
        .happens("the thresholds are set", move |plane| {
            plane.set_thresholds(&id(number), scheduled_server(V4, 1), 4, lower)
        });
    for c in &clients {
        case = case.before(CLIENTS, datagram(c), Verdict::ForwardDr);
    }
    let refused = |case: Case| {
        let c = Client::new(V4);
        case.arrives(CLIENTS, datagram(&c)).transmits(Verdict::ReplyNoServer, refusal(vip, &c, &datagram(&c)))
    };
    if fifth {
        case = refused(case);
    }
    for (c, &let_in) in clients.into_iter().zip(expected) {
        case = case.happens("a connection ends", move |plane| {
            plane.age_connections(&c, 301)?;
            plane.sweep()
        });
        if !let_in {
            case = refused(case);
            continue;
        }
        // From here on one more each time: the state is what it was before the threshold was reached.
        let c = Client::new(V4);
        case = case
            .arrives(CLIENTS, datagram(&c))
            .redirects(Verdict::ForwardDr, to(1).ip(c.address, vip).ttl(63).udp(c.port, 80));
    }
    case
}

/// A higher threshold lets more in at once, without waiting for the lower one.
fn raised() -> Case {
    let vip = scheduled_vip(V4, 33);
    let [a, b, c, d] = [(); 4].map(|()| Client::new(V4));
    let datagram = |c: &Client| c.to(vip).udp(c.port, 80);
    let at_server = |c: &Client| to(1).ip(c.address, vip).ttl(63).udp(c.port, 80);
    Case::new(Scheduling, "thresholds: a threshold is raised")
        .happens("the threshold is 2", |plane| plane.set_thresholds(&id(33), scheduled_server(V4, 1), 2, 1))
        .before(CLIENTS, datagram(&a), Verdict::ForwardDr)
        .before(CLIENTS, datagram(&b), Verdict::ForwardDr)
        .arrives(CLIENTS, datagram(&c))
        .transmits(Verdict::ReplyNoServer, refusal(vip, &c, &datagram(&c)))
        .happens("the threshold is 3", |plane| plane.set_thresholds(&id(33), scheduled_server(V4, 1), 3, 1))
        .arrives(CLIENTS, datagram(&c))
        .redirects(Verdict::ForwardDr, at_server(&c))
        .arrives(CLIENTS, datagram(&d))
        .transmits(Verdict::ReplyNoServer, refusal(vip, &d, &datagram(&d)))
}

/// Who is in stays in.
fn known_flow() -> Case {
    let vip = scheduled_vip(V4, 27);
    let tcp = ServiceId { protocol: Tcp, ..id(27) };
    let (c, other) = (Client::new(V4), Client::new(V4));
    let syn = |c: &Client| c.to(vip).tcp(c.port, 80).syn();
    let data = |frame: Packet| frame.tcp(c.port, 80).payload(b"data");
    Case::new(Scheduling, "thresholds: a known flow of an overloaded server goes on")
        .happens("the threshold is set", move |plane| {
            plane.set_thresholds(&tcp, scheduled_server(V4, 1), 1, 0)
        })
        .before(CLIENTS, syn(&c), Verdict::ForwardDr)
        .arrives(CLIENTS, syn(&other))
        .transmits(Verdict::ReplyNoServer, refusal(vip, &other, &syn(&other)))
        .arrives(CLIENTS, data(c.to(vip)))
        .redirects(Verdict::ForwardDr, data(to(1).ip(c.address, vip).ttl(63)))
        .happens("the threshold is taken away", move |plane| {
            plane.set_thresholds(&tcp, scheduled_server(V4, 1), 0, 0)
        })
        .arrives(CLIENTS, syn(&other))
        .redirects(Verdict::ForwardDr, to(1).ip(other.address, vip).ttl(63).tcp(other.port, 80).syn())
}
