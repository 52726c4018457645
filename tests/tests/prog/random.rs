//! Random packets: whatever arrives, the program says one consistent thing about it.

use std::cell::RefCell;

use anyhow::{Result, anyhow};
use lab::Packet;
use lb_common::{Class, Verdict};
use proptest::{
    prelude::*,
    test_runner::{Config, TestError, TestRunner},
};

use crate::{
    plane::Ran,
    scene::{CLIENTS, Client, FAMILIES, MODES, Mode, PLAIN, Problem, SERVERS, Target, quote},
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
            if mode == Mode::Nat {
                seeds.push((SERVERS, target.answer(&client).tcp(8080, port).syn_ack()));
            }
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
    Setup::Random.with(|plane| {
        let plane = RefCell::new(plane);
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
            let ran = plane.borrow_mut().run(link, &packet, 0);
            consistent(&packet, &ran.map_err(|error| TestCaseError::fail(format!("{error:#}")))?)
        });
        outcome.map_err(|error| match error {
            TestError::Fail(why, value) => anyhow!("{why}\nwith (seed, changes, cut, tail) {value:?}"),
            TestError::Abort(why) => anyhow!("{why}"),
        })?;
        plane.into_inner().check_loads()
    })
}

fn consistent(packet: &[u8], ran: &Ran) -> Result<(), TestCaseError> {
    /// What forwarding may add: two tags and an outer IPv6 header.
    const MOST_ADDED: usize = 8 + 40;
    /// The longest answer: frame with two tags, IPv4, ICMP, an IPv4 header with all options, 8 bytes (IPv6: less).
    const LONGEST_ANSWER: usize = 22 + 20 + 8 + 60 + 8;
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
            let most = if name.starts_with("reply_") { LONGEST_ANSWER } else { packet.len() + MOST_ADDED };
            prop_assert!(ran.packet.len() <= most, "{}: {} bytes", name, ran.packet.len());
        }
    }
    Ok(())
}
