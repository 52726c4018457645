//! What is sent, and what becomes of what comes.

use super::*;
use crate::{
    config::vrrp::{FastDetection, UnicastPeer},
    vrrp::driver::heartbeat::{self, Heartbeat},
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_first_advert_is_keepaliveds_byte_for_byte() {
    let mut one = instance("one", "eth0", 52, 150, &["10.66.0.100/24"]);
    one.version = Version::V2;
    let mut bench = Bench::new(&[one]);
    bench.fake().interface("eth0").addresses = vec![("10.66.0.1".parse().unwrap(), 24)];
    bench.engine.start().unwrap();
    bench.pass(MS * 3500);
    let packets = &bench.fake().packets;
    assert_eq!(
        hex(&packets[0]),
        "45c0002800010000ff70d04f0a420001e00000122134960100013e230a4200640000000000000000"
    );
    bench.engine.stop(MS);
    let last = bench.fake().packets.last().unwrap().clone();
    assert_eq!(hex(&last[20..]), "213400010001d4230a4200640000000000000000");
    assert_eq!(last[4..6], [0, 2], "the id counts");
}

#[test]
fn what_is_wrong_is_counted_and_said_once_in_a_while() {
    let one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    let mut bench = Bench::started(std::slice::from_ref(&one));
    bench.notices();
    for _ in 0..1000 {
        bench.arrive(Arrival { ttl: 254, ..advert(&one, [10, 0, 0, 2], 255) });
    }
    let mut strange = advert(&one, [10, 0, 0, 2], 255);
    strange.message[1] = 99;
    bench.arrive(strange);
    let status = bench.engine.status();
    assert_eq!(status.instances[0].discarded, [("ttl", 1000)].into());
    assert_eq!((status.instances[0].received, status.unknown_vrid), (0, 1));
    assert_eq!(bench.notices(), ["one: an advert from 10.0.0.2 was discarded: ttl"]);
    bench.pass(MS * 10_000);
    bench.notices();
    bench.arrive(Arrival { ttl: 1, ..advert(&one, [10, 0, 0, 2], 255) });
    let notices = bench.notices();
    assert!(notices[0].contains("(and 999 more"), "{notices:?}");
}

#[test]
fn a_living_master_is_heard() {
    let one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    let mut bench = Bench::started(std::slice::from_ref(&one));
    for _ in 0..10 {
        bench.pass(MS * 1000);
        bench.arrive(advert(&one, [10, 0, 0, 2], 150));
    }
    assert_eq!(bench.states(), [State::Backup]);
    let status = &bench.engine.status().instances[0];
    assert_eq!((status.received, status.checksums), (10, (10, 0)));
    assert_eq!(status.view.master, Some("10.0.0.2".parse().unwrap()));
    // It gives up: no need to wait for the whole of master-down.
    bench.arrive(advert(&one, [10, 0, 0, 2], 0));
    bench.pass(MS * 700);
    assert_eq!(bench.states(), [State::Master]);
    assert_eq!(bench.engine.status().instances[0].received_zero, 1);
}

#[test]
fn unicast_adverts_go_to_each_peer() {
    let mut one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    one.unicast_peers = ["10.0.0.2", "10.0.0.3"]
        .map(|address| UnicastPeer { address: address.parse().unwrap(), min_ttl: None, max_ttl: None })
        .into();
    let mut bench = Bench::master(&[one]);
    bench.pass(MS * 1000);
    assert_eq!(bench.log.take(), ["advert 100 to 10.0.0.2 on 2", "advert 100 to 10.0.0.3 on 2"]);
}

#[test]
fn a_packet_that_cannot_be_sent_is_an_error_and_nothing_else() {
    let mut bench = Bench::master(&[instance("one", "eth0", 51, 100, &["10.0.0.100/32"])]);
    let before = bench.engine.status().instances[0].sent;
    bench.fake().cannot_send = true;
    bench.pass(MS * 5000);
    let status = &bench.engine.status().instances[0];
    assert_eq!((status.sent, status.send_errors), (before, 5));
    assert_eq!(bench.notices().len(), 1);
    assert_eq!(bench.states(), [State::Master]);
}

#[test]
fn stamps_go_on_when_the_clock_goes_back_and_the_guards_are_ahead() {
    let mut one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    one.authentication = sealed();
    let mut bench = Bench::master(&[one]);
    // IPv4 header 20, message 12, then type, key and two zeros: 8 bytes of stamp.
    let stamp = |packet: &[u8]| u64::from_be_bytes(packet[36..44].try_into().unwrap());
    bench.fake().packets.clear();
    bench.fake().wall -= Duration::from_secs(3600);
    bench.pass(MS * 5000);
    let stamps: Vec<u64> = bench.fake().packets.iter().map(|packet| stamp(packet)).collect();
    assert_eq!(stamps.len(), 5);
    assert!(stamps.is_sorted_by(|one, other| one < other), "{stamps:?}");
    let plan = bench.fake().plans.last().unwrap().clone();
    assert!(stamp(&plan.instances[0].last_words[0].1) > *stamps.last().unwrap());
}

#[test]
fn heartbeats_are_sent_by_the_master_and_their_end_is_noticed() {
    let mut one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    one.fast_detection = Some(FastDetection { interval: MS * 10, multiplier: 3 });
    let channel = Channel { interface: 2, family: Family::Ipv4, kind: Kind::Heartbeats };
    let mut bench = Bench::started(std::slice::from_ref(&one));
    assert!(bench.fake().channels.contains(&channel));

    let source = IpAddr::from([10, 0, 0, 2]);
    let beat = |sequence| {
        let beat = Heartbeat { vrid: 51, family: Family::Ipv4, last: false, lasts: MS * 30, sequence };
        let message = heartbeat::encode(&beat, &Authentication::None, source);
        Arrival { channel, source, destination: IpAddr::V4(packet::GROUP_V4), ttl: 255, message }
    };
    bench.arrive(advert(&one, [10, 0, 0, 2], 150));
    for sequence in 1..50 {
        bench.arrive(beat(sequence));
        bench.pass(MS * 10);
    }
    assert_eq!(bench.states(), [State::Backup]);
    // Long before the adverts' master-down.
    bench.pass(MS * 100);
    assert_eq!(bench.states(), [State::Master]);
    bench.log.take();
    bench.pass(MS * 95);
    let beats = bench.log.take().iter().filter(|line| *line == "heartbeat 0 to 224.0.0.18 on 2").count();
    assert!((9..=10).contains(&beats), "{beats}");

    bench.arrive(Arrival { ttl: 64, ..beat(100) });
    assert_eq!(bench.engine.status().instances[0].discarded.get("heartbeat-ttl"), Some(&1));
    bench.engine.stop(MS);
    let log = bench.log.take();
    assert!(log.contains(&"heartbeat 1 to 224.0.0.18 on 2".to_owned()), "{log:?}");
}

#[test]
fn an_old_heartbeat_does_not_count_again() {
    let mut one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    one.fast_detection = Some(FastDetection { interval: MS * 10, multiplier: 3 });
    one.authentication = Authentication::Pass(*b"secret\0\0");
    one.version = Version::V2;
    let channel = Channel { interface: 2, family: Family::Ipv4, kind: Kind::Heartbeats };
    let source = IpAddr::from([10, 0, 0, 2]);
    let last = Heartbeat { vrid: 51, family: Family::Ipv4, last: true, lasts: Duration::ZERO, sequence: 7 };
    let message = heartbeat::encode(&last, &one.authentication, source);
    let arrival = Arrival { channel, source, destination: IpAddr::V4(packet::GROUP_V4), ttl: 255, message };
    let mut bench = Bench::started(&[one]);
    bench.arrive(arrival.clone());
    assert_eq!(bench.engine.status().instances[0].discarded, BTreeMap::new());
    bench.arrive(arrival);
    assert_eq!(bench.engine.status().instances[0].discarded, [("heartbeat-replay", 1)].into());
}

#[test]
fn after_a_restart_with_a_clock_that_was_set_back_adverts_are_no_replays() {
    let mut one = instance("one", "eth0", 51, 200, &["10.0.0.100/32"]);
    one.authentication = sealed();
    let mut directory = tempfile::tempdir().unwrap();
    let mut peer = Bench::started(&[VrrpInstance { priority: 100, ..one.clone() }]);
    for (run, set_back) in [0, 3600].into_iter().enumerate() {
        let mut bench = Bench::with(wanted(std::slice::from_ref(&one)), directory, |fake| {
            fake.interface("eth0").addresses[0].0 = [10, 0, 0, 2].into();
            fake.wall -= Duration::from_secs(set_back);
        });
        bench.engine.start().unwrap();
        bench.pass(MS * 20_000);
        let packets = bench.fake().packets.clone();
        assert!(packets.len() > 5);
        for packet in packets {
            let (source, destination) = ([10, 0, 0, 2].into(), IpAddr::V4(packet::GROUP_V4));
            let channel = Channel { interface: 2, family: Family::Ipv4, kind: Kind::Adverts };
            // The IPv4 header has 20 bytes.
            let message = packet[20..].to_vec();
            peer.arrive(Arrival { channel, source, destination, ttl: 255, message });
        }
        let status = peer.engine.status().instances.remove(0);
        assert_eq!(status.discarded, BTreeMap::new(), "in run {run}");
        bench.engine.wait_for_mark();
        // Killed: no goodbye.
        directory = bench.directory;
    }
}
