//! What tracked things do: priority, FAULT, and what is not known yet (keepalived's `track_*`).

use super::*;

fn key(name: &str) -> TrackKey {
    TrackKey::Script(name.to_owned())
}

fn file() -> TrackKey {
    TrackKey::File("f".to_owned())
}

fn tracking(priority: u8, tracks: &[(TrackKey, i32)]) -> VrrpInstance {
    let tracks = tracks.iter().map(|(key, weight)| Track { key: key.clone(), weight: *weight }).collect();
    VrrpInstance { tracks, ..v2(priority) }
}

fn priority(bench: &Bench) -> u8 {
    bench.machine.view(0).effective_priority
}

/// keepalived's `weight`: a positive one is added while up, a negative one while down; nothing while unknown.
#[test]
fn keepalived_weights_are_added_while_up_and_subtracted_while_down() {
    let mut bench = Bench::one(tracking(100, &[(key("a"), 20), (key("b"), -30)]));
    assert_eq!((bench.state(0), priority(&bench)), (State::Backup, 100));
    for (name, value, expected) in [
        ("a", TrackValue::Up, 120),
        ("b", TrackValue::Up, 120),
        ("b", TrackValue::Down, 90),
        ("a", TrackValue::Down, 70),
        ("b", TrackValue::Up, 100),
    ] {
        bench.track(key(name), value);
        assert_eq!((bench.state(0), priority(&bench)), (State::Backup, expected), "{name} {value:?}");
    }
    bench.track(key("a"), TrackValue::Up);
    assert_eq!(bench.machine.view(0).weights, [(key("a"), 20)]);
}

/// keepalived's `track_file`: its number times the weight.
#[test]
fn keepalived_track_file_adds_number_times_weight() {
    let mut bench = Bench::one(tracking(100, &[(file(), -2)]));
    for (number, expected) in [(0, 100), (10, 80), (-10, 120), (-1000, 254), (i64::MIN, 254)] {
        bench.track(file(), TrackValue::Number(number));
        assert_eq!((bench.state(0), priority(&bench)), (State::Backup, expected), "{number}");
    }
}

/// keepalived's `track_file`: -254 or less is a fault, as is anything but 0 with weight 0.
#[test]
fn keepalived_track_file_of_minus_254_is_a_fault() {
    for (weight, number, state) in [
        (1, -253, State::Backup),
        (1, -254, State::Fault),
        (-2, 127, State::Fault),
        (2, i64::MIN, State::Fault),
        (0, 1, State::Fault),
        (0, 0, State::Backup),
    ] {
        let mut bench = Bench::one(tracking(100, &[(file(), weight)]));
        bench.track(file(), TrackValue::Number(number));
        assert_eq!(bench.state(0), state, "{weight} * {number}");
    }
}

/// RFC 9568 5.2.4: 1 to 254 for all but the owner, whom tracking never changes (keepalived).
#[test]
fn rfc_5_2_4_the_priority_is_between_1_and_254() {
    for (base, weight, expected) in [(10, -253, 1), (200, 253, 254), (255, -253, 255), (254, 1, 254)] {
        let mut bench = Bench::one(tracking(base, &[(key("a"), weight)]));
        bench.track(key("a"), if weight > 0 { TrackValue::Up } else { TrackValue::Down });
        assert_eq!(priority(&bench), expected, "{base} {weight}");
    }
}

/// keepalived's weight 0: a failure is a FAULT, a master gives up with priority 0; the end of it begins in BACKUP anew.
#[test]
fn keepalived_weight_0_is_a_fault() {
    let mut bench = Bench::one(tracking(100, &[(key("a"), 0)]));
    bench.track(key("a"), TrackValue::Up);
    bench.until_master();
    let commands = bench.track(key("a"), TrackValue::Down);
    assert_eq!(short(&commands), ["advertise 0 0", "release 0", "0 Master -> Fault"]);
    assert_eq!((bench.reason(0).as_str(), bench.machine.poll_timeout()), ("script a: as told", None));
    assert_eq!(bench.machine.view(0).faults, ["script a: as told"]);
    bench.pass(ms(60_000));
    assert_eq!(short(&bench.track(key("a"), TrackValue::Up)), ["0 Fault -> Backup"]);
    assert_eq!(bench.wait(), us(3_609_375));
}

/// Two faults are two: the end of one is not enough.
#[test]
fn all_faults_must_end() {
    let mut bench = Bench::one(tracking(100, &[(key("a"), 0), (key("b"), 0)]));
    for (name, value, expected) in [
        ("a", TrackValue::Down, State::Fault),
        ("b", TrackValue::Down, State::Fault),
        ("a", TrackValue::Up, State::Fault),
        ("b", TrackValue::Up, State::Backup),
    ] {
        bench.track(key(name), value);
        assert_eq!(bench.state(0), expected);
    }
}

/// keepalived tracks the instance's own interface, unless `dont_track_primary`.
#[test]
fn keepalived_the_own_interface_is_tracked() {
    for dont_track_primary in [false, true] {
        let mut bench = Bench::one(VrrpInstance { dont_track_primary, ..v2(100) });
        bench.track(TrackKey::Interface("eth0".to_owned()), TrackValue::Down);
        assert_eq!(bench.state(0), if dont_track_primary { State::Backup } else { State::Fault });
        bench.track(TrackKey::Interface("eth1".to_owned()), TrackValue::Down);
        bench.track(TrackKey::Interface("eth0".to_owned()), TrackValue::Up);
        assert_eq!(bench.state(0), State::Backup);
    }
}

/// keepalived: without an address to send from an instance is in FAULT, with `dont_track_primary` too.
#[test]
fn keepalived_no_source_address_is_a_fault() {
    let mut bench = Bench::one(VrrpInstance { dont_track_primary: true, ..v2(100) });
    bench.handle(Event::Source { instance: 0, address: None });
    assert_eq!(
        (bench.state(0), bench.reason(0).as_str()),
        (State::Fault, "interface eth0 has no address to send from")
    );
    bench.handle(Event::Source { instance: 0, address: Some(host(7)) });
    assert_eq!(bench.state(0), State::Backup);
}

/// keepalived: scripts of weight 0 that have not run yet hold an instance back; those with a weight do not. Here it is the same
/// for all kinds, and for files of any weight, since their number can be a fault.
#[test]
fn keepalived_what_may_be_a_fault_must_be_known_before_the_start() {
    let tracks = [(key("a"), 0), (file(), 1), (key("c"), 5)];
    let mut bench = Bench::one(tracking(100, &tracks));
    assert_eq!((bench.state(0), bench.machine.poll_timeout()), (State::Init, None));
    assert_eq!(bench.reason(0), "not started; not known yet: script a, file f");
    bench.track(key("a"), TrackValue::Up);
    assert_eq!(bench.state(0), State::Init);
    assert_eq!(short(&bench.track(file(), TrackValue::Number(0))), ["0 Init -> Backup"]);
    // What has failed need not wait for the others.
    let mut bench = Bench::one(tracking(100, &tracks));
    assert_eq!(short(&bench.track(key("a"), TrackValue::Down)), ["0 Init -> Fault"]);
    bench.track(key("a"), TrackValue::Up);
    assert_eq!(bench.state(0), State::Fault);
    bench.track(file(), TrackValue::Number(0));
    assert_eq!(bench.state(0), State::Backup);
}

/// An instance whose address and interface are not known yet waits as well, unless its address is configured.
#[test]
fn the_source_must_be_known_before_the_start() {
    for source_address in [None, Some(host(1))] {
        let settings = VrrpInstance { source_address, dont_track_primary: true, ..v2(100) };
        let now = epoch();
        let mut machine = Machine::new(Settings { instances: vec![settings], groups: Vec::new() }, now);
        machine.handle(Event::Start, now);
        assert_eq!(machine.view(0).state == State::Backup, source_address.is_some());
        machine.handle(Event::Source { instance: 0, address: Some(host(1)) }, now);
        assert_eq!(machine.view(0).state, State::Backup);
    }
}

/// RFC 9568 6.4.1 after a fault: the owner is master at once.
#[test]
fn rfc_6_4_1_the_owner_is_master_at_once_after_a_fault() {
    let mut bench = Bench::one(v2(255));
    let interface = TrackKey::Interface("eth0".to_owned());
    bench.track(interface.clone(), TrackValue::Down);
    let commands = bench.track(interface, TrackValue::Up);
    assert_eq!(short(&commands), ["advertise 0 255", "acquire 0", "announce 0 5", "0 Fault -> Master"]);
}

/// keepalived: what instance and group both track has the group's weight, but weight 0 stays.
#[test]
fn keepalived_the_groups_weight_counts() {
    let instance = tracking(100, &[(key("a"), 5), (key("b"), 0)]);
    let mut group = group("VG", &["VI"]);
    group.tracks =
        [("a", 7), ("b", -9), ("c", 11)].map(|(name, weight)| Track { key: key(name), weight }).to_vec();
    let mut bench = Bench::with(Settings { instances: vec![instance], groups: vec![group] });
    for name in ["a", "b", "c"] {
        bench.track(key(name), TrackValue::Up);
    }
    bench.handle(Event::Start);
    assert_eq!(priority(&bench), 118);
    bench.track(key("b"), TrackValue::Down);
    assert_eq!(bench.state(0), State::Fault);
}
