//! Sync groups (keepalived's `vrrp_sync_group`): all members in one step.

use super::*;

/// A group of so many members of priority 100, each with an interface of its own.
fn bench(members: usize) -> Bench {
    let names: Vec<String> = (0..members).map(|member| format!("VI_{member}")).collect();
    let instances = names
        .iter()
        .enumerate()
        .map(|(member, name)| VrrpInstance {
            interface: format!("eth{member}"),
            ..instance(name, Version::V2, 100)
        })
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut bench = Bench::with(Settings { instances, groups: vec![group("VG", &names)] });
    bench.handle(Event::Start);
    bench
}

fn master(members: usize) -> Bench {
    let mut bench = bench(members);
    bench.until_master();
    bench
}

fn eth(member: usize) -> TrackKey {
    TrackKey::Interface(format!("eth{member}"))
}

/// keepalived: all adverts before the first address, all addresses before the first gratuitous ARP, the group's word last.
#[test]
fn keepalived_a_group_becomes_master_in_one_step() {
    let mut bench = bench(2);
    let commands = bench.next();
    assert_eq!(
        short(&commands),
        [
            "advertise 0 100",
            "advertise 1 100",
            "acquire 0",
            "acquire 1",
            "announce 0 5",
            "announce 1 5",
            "0 Backup -> Master",
            "1 Backup -> Master",
            "group 0 Master",
        ]
    );
    assert_eq!(bench.machine.group_state(0), State::Master);
}

/// keepalived: only if all want it. Who hears a master on one side only takes over nothing.
#[test]
fn keepalived_a_group_is_master_only_when_all_members_want_it() {
    let mut bench = bench(2);
    bench.pass(ms(3000));
    bench.advert(1, 2, 150);
    assert_eq!(bench.next(), []);
    assert_eq!((bench.state(0), bench.wait()), (State::Backup, us(3_000_000)));
    // The other one's master gives up: now all want it.
    bench.pass(ms(100));
    bench.advert(1, 2, 0);
    assert_eq!(bench.wait(), us(609_375));
    bench.next();
    assert_eq!((bench.state(0), bench.state(1)), (State::Master, State::Master));
}

/// A member that wished to be master hears one again, and wishes no more.
#[test]
fn keepalived_a_member_that_hears_a_master_wants_no_more() {
    let mut bench = bench(2);
    bench.pass(ms(3000));
    bench.advert(1, 2, 150);
    bench.next();
    bench.advert(0, 2, 150);
    bench.advert(1, 2, 0);
    bench.next();
    assert_eq!((bench.state(0), bench.state(1)), (State::Backup, State::Backup));
}

/// keepalived: one BACKUP, all BACKUP. The others say priority 0, so that the peer's group follows at once.
#[test]
fn keepalived_one_backup_takes_all_to_backup() {
    let mut bench = master(3);
    let commands = bench.advert(1, 2, 150);
    assert_eq!(
        short(&commands),
        [
            "advertise 1 100",
            "advertise 0 0",
            "advertise 2 0",
            "release 0",
            "release 1",
            "release 2",
            "0 Master -> Backup",
            "1 Master -> Backup",
            "2 Master -> Backup",
            "group 0 Backup",
        ]
    );
    assert_eq!(bench.reason(1), "192.0.2.2 has priority 150, which is higher than our 100");
    assert_eq!(bench.reason(2), format!("group VG: VI_1: {}", bench.reason(1)));
}

/// keepalived: one FAULT, all FAULT; out of it together. Of any size (reliability: 16).
#[test]
fn keepalived_one_fault_takes_all_to_fault() {
    let mut bench = master(16);
    let commands = bench.track(eth(7), TrackValue::Down);
    assert_eq!(commands.len(), 16 * 3 + 1);
    let zeros =
        commands[..16].iter().all(|command| matches!(command, Command::Advertise { priority: 0, .. }));
    assert!(zeros, "{commands:?}");
    assert!((0..16).all(|member| bench.state(member) == State::Fault));
    assert_eq!(bench.machine.group_state(0), State::Fault);
    assert_eq!(bench.reason(3), "group VG: VI_7: interface eth7: as told");
    let commands = bench.track(eth(7), TrackValue::Up);
    assert_eq!(commands.len(), 16 + 1);
    assert!((0..16).all(|member| bench.state(member) == State::Backup));
    assert_eq!(bench.wait(), us(3_609_375));
}

/// What its group tracks is tracked by each member.
#[test]
fn keepalived_a_groups_tracks_count_for_all_members() {
    let key = TrackKey::Port("p".to_owned());
    let mut vg = group("VG", &["a", "b"]);
    vg.tracks = vec![Track { key: key.clone(), weight: 0 }];
    let instances = ["a", "b", "c"].map(|name| instance(name, Version::V2, 100)).to_vec();
    let mut bench = Bench::with(Settings { instances, groups: vec![vg] });
    bench.handle(Event::Start);
    // The members wait for it, the one outside does not.
    assert_eq!([0, 1, 2].map(|id| bench.state(id)), [State::Init, State::Init, State::Backup]);
    bench.track(key, TrackValue::Down);
    assert_eq!([0, 1, 2].map(|id| bench.state(id)), [State::Fault, State::Fault, State::Backup]);
}

/// One owner does not make a group master: it waits for the others.
#[test]
fn an_owner_waits_for_its_group() {
    let mut settings = bench(2).settings;
    settings.instances[0].priority = 255;
    let mut bench = Bench::with(settings.clone());
    bench.handle(Event::Start);
    assert_eq!((bench.state(0), bench.state(1)), (State::Backup, State::Backup));
    bench.until_master();
    assert_eq!(bench.now - bench.begin, us(3_609_375));
    settings.instances[1].priority = 255;
    let mut bench = Bench::with(settings);
    let commands = bench.handle(Event::Start);
    assert_eq!(short(&commands).last().map(String::as_str), Some("group 0 Master"));
}
