//! Random packets: whatever arrives, the program says one consistent thing about it.

use anyhow::Result;
use lab::Packet;
use lb_common::{Class, Verdict};
use proptest::{
    prelude::*,
    test_runner::{Config, TestError, TestRunner},
};

use crate::{
    plane::{Plane, Ran},
    scene::{CLIENTS, Client, FAMILIES, MODES, PLAIN, Problem, SERVERS, Target, quote},
    setup::Setup,
};

const PACKETS: u32 = 2000;

/// Good packets of every kind, of which some bytes are then changed.
fn seeds() -> Vec<(u32, Vec<u8>)> {
    let mut seeds = Vec::new();
    for mode in MODES {
        for family in FAMILIES {
            let target = Target::new(mode, family, PLAIN);
            let client = Client::number(family, 20_000);
            let port = client.port;
            let to = || client.to(target.vip());
            seeds.push((CLIENTS, to().tcp(port, 80).syn()));
            seeds.push((CLIENTS, to().tcp(port, 80).payload(b"GET / HTTP/1.0\r\n\r\n")));
            seeds.push((CLIENTS, to().udp(port, 53).payload(b"question")));
            seeds.push((CLIENTS, to().echo_request(1, 1)));
            seeds.push((SERVERS, target.answer(&client).tcp(8080, port).syn_ack()));
            let quoted = Packet::bare_ip(target.vip(), client.address).tcp(80, port);
            let (kind, code, rest) = Problem::TooBig(1280).encode(family);
            seeds.push((CLIENTS, to().icmp_error(kind, code, rest, &quote(&quoted, 8))));
            let tagged = Packet::eth([2; 6], [4; 6]).service_vlan(5).vlan(6).ip(client.address, target.vip());
            seeds.push((CLIENTS, tagged.udp(port, 53)));
        }
    }
    seeds.into_iter().map(|(link, packet)| (link, packet.build())).collect()
}

/// Runs them.
pub fn packets_get_a_verdict() -> Result<()> {
    let seeds = seeds();
    let strategy = (
        0..seeds.len(),
        proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        proptest::option::weighted(0.3, any::<proptest::sample::Index>()),
        proptest::collection::vec(any::<u8>(), 0..40),
    );
    let config = Config { cases: PACKETS, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&strategy, |(seed, changes, cut, tail)| {
        let (link, mut packet) = seeds[seed].clone();
        for (place, byte) in changes {
            let place = place.index(packet.len());
            packet[place] = byte;
        }
        match cut {
            // The kernel runs nothing on less than a frame's header.
            Some(at) => packet.truncate(14.max(at.index(packet.len() + 1))),
            None => packet.extend(tail),
        }
        let ran = Setup::Random
            .with(|plane: &mut Plane| plane.run(link, &packet, 0))
            .map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        consistent(&packet, &ran)
    });
    outcome.map_err(|error| match error {
        TestError::Fail(why, value) => anyhow::anyhow!("{why}\nwith (seed, changes, cut, tail) {value:?}"),
        TestError::Abort(why) => anyhow::anyhow!("{why}"),
    })
}

fn consistent(packet: &[u8], ran: &Ran) -> Result<(), TestCaseError> {
    /// Two tags and an IPv6 header, or an answer's ICMP and IPv6 header with a quoted IP header.
    const MOST: usize = 8 + 40;
    let name = ran.verdict().map_err(|error| TestCaseError::fail(error.to_string()))?;
    let verdict = Verdict::ALL.iter().find(|verdict| verdict.name() == name);
    let Some(class) = verdict.map(|verdict| verdict.class()) else {
        return Err(TestCaseError::fail(format!("no verdict is called {name}")));
    };
    match class {
        Class::Pass => {
            prop_assert_eq!(ran.action, 2, "{}", name);
            prop_assert_eq!(&ran.packet, packet, "{} changed the packet", name);
        }
        Class::Drop => prop_assert_eq!(ran.action, 1, "{}", name),
        Class::Transmit => {
            prop_assert!(ran.action == 3 || ran.action == 4, "{}: action {}", name, ran.action);
            let is_answer = name.starts_with("reply_");
            let fits = if is_answer { ran.packet.len() <= 14 + 8 + 40 + 8 + 60 + 8 } else { true };
            prop_assert!(fits && ran.packet.len() <= packet.len().max(14) + MOST + 60, "{}: {} bytes", name, ran.packet.len());
        }
    }
    Ok(())
}
