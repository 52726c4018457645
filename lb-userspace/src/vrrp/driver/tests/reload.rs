//! Other settings while it runs.

use super::*;
use crate::{
    config::vrrp::{SyncGroup, Track, TrackKey},
    vrrp::{TrackValue, Tracked},
};

#[test]
fn a_masters_list_of_addresses_can_change() {
    let mut one = instance("one", "eth0", 51, 100, &["10.0.0.100/32", "10.0.0.101/32"]);
    let mut bench = Bench::master(std::slice::from_ref(&one));
    one.addresses = vec![address("10.0.0.101/32"), address("10.0.0.102/32")];
    bench.order(Order::Set(wanted(std::slice::from_ref(&one))));
    bench.pass(MS);
    assert_eq!(bench.states(), [State::Master]);
    assert_eq!(bench.fake().held(), ["10.0.0.101 eth0", "10.0.0.102 eth0"]);
    let log = bench.log.take();
    assert!(log.contains(&"announce 10.0.0.102".to_owned()), "{log:?}");
    let changed: Vec<&String> = log.iter().filter(|line| line.contains("address")).collect();
    assert_eq!(
        changed,
        ["remove address 10.0.0.100/32", "add address 10.0.0.102/32"],
        "the third is left alone"
    );
    assert!(!log.contains(&"role 1 off".to_owned()), "{log:?}");
    let state = std::fs::read_to_string(bench.directory.path().join("vrrp.json")).unwrap();
    assert!(state.contains("10.0.0.102") && !state.contains("10.0.0.100"), "{state}");
}

#[test]
fn a_removed_instance_gives_up_and_others_keep_their_place() {
    let one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    let two = instance("two", "eth0", 52, 100, &["10.0.0.200/32"]);
    let mut bench = Bench::master(&[one, two.clone()]);
    let wanted = Wanted { roles: roles(&[("two", 2)]), ..wanted(&[two]) };
    bench.order(Order::Set(wanted));
    bench.pass(MS);
    let log = bench.log.take();
    assert_eq!(log[..2], ["advert 0 to 224.0.0.18 on 2", "remove address 10.0.0.100/32"], "{log:?}");
    assert_eq!(bench.fake().packets.last().unwrap()[21], 51);
    assert!(log.contains(&"role 1 off".to_owned()) && !log.contains(&"role 2 off".to_owned()), "{log:?}");
    assert_eq!(bench.states(), [State::Master]);
    assert_eq!(bench.fake().held(), ["10.0.0.200 eth0"]);
    assert!(bench.fake().marks["two"], "whatever its position is");
    assert_eq!(bench.fake().plans.last().unwrap().instances[0].name, "two");
    let removed = bench.reports().into_iter().find_map(|report| match report {
        Report::Instance { name, to, .. } => Some((name, to)),
        _ => None,
    });
    assert_eq!(removed.map(|(name, _)| name).as_deref(), Some("one"));
    bench.pass(MS * 1000);
    assert_eq!(bench.fake().packets.last().unwrap()[21], 52);
}

#[test]
fn a_role_that_moves_is_served_under_its_new_number() {
    let one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    let mut bench = Bench::master(std::slice::from_ref(&one));
    bench.order(Order::Set(Wanted { roles: roles(&[("one", 5)]), ..wanted(&[one]) }));
    let log = bench.log.take();
    let roles: Vec<&String> = log.iter().filter(|line| line.starts_with("role")).collect();
    assert_eq!(roles, ["role 1 off", "role 5 on"]);
}

#[test]
fn the_data_plane_that_is_loaded_again_hears_who_is_master() {
    let one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    let mut bench = Bench::master(&[one]);
    bench.order(Order::SetRoles(Arc::new(FakeRoles(bench.log.clone()))));
    assert!(bench.log.take().contains(&"role 1 on".to_owned()));
}

#[test]
fn what_is_known_of_a_script_counts_for_an_instance_that_comes_later() {
    let script = TrackKey::Script("haproxy".to_owned());
    let track = Track { key: script.clone(), weight: 0 };
    let mut one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    one.tracks = vec![track.clone()];
    let down = Tracked { key: script, value: TrackValue::Down, detail: "exit code 1".to_owned() };
    let other = Tracked { key: TrackKey::Script("other".to_owned()), ..down.clone() };
    let mut bench = Bench::started(std::slice::from_ref(&one));
    bench.order(Order::Tracked(down));
    bench.order(Order::Tracked(other));
    assert_eq!(bench.states(), [State::Fault]);
    assert_eq!(
        bench.engine.status().tracked.len(),
        2,
        "the interface and the script; nobody asked for another one"
    );
    let mut two = instance("two", "eth0", 52, 100, &["10.0.0.200/32"]);
    two.tracks = vec![track];
    bench.order(Order::Set(wanted(&[one, two])));
    assert_eq!(bench.states(), [State::Fault; 2]);
}

#[test]
fn a_group_moves_together_and_says_so() {
    let one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    let mut two = instance("two", "eth1", 52, 100, &["10.1.0.100/32"]);
    two.source_address = Some("10.1.0.1".parse().unwrap());
    let mut wanted = wanted(&[one, two]);
    wanted.config.sync_groups = vec![SyncGroup {
        name: "both".to_owned(),
        instances: vec!["one".to_owned(), "two".to_owned()],
        tracks: Vec::new(),
        tracking_weight: false,
        notify: None,
        notify_master: None,
        notify_backup: None,
        notify_fault: None,
        notify_stop: None,
        mail: false,
    }];
    let mut bench = Bench::with(wanted, tempfile::tempdir().unwrap(), |fake| {
        let mut eth1 = fake.interface("eth0").clone();
        (eth1.index, eth1.name) = (3, "eth1".to_owned());
        fake.interfaces.push(eth1);
    });
    bench.engine.start().unwrap();
    bench.pass(MS * 4000);
    assert_eq!(bench.engine.status().groups, [("both".to_owned(), State::Master)]);
    bench.fake().interface("eth1").is_running = false;
    bench.changed(crate::netif::Change::Link { index: 3 });
    assert_eq!(bench.states(), [State::Fault; 2]);
    assert_eq!(bench.fake().held(), Vec::<String>::new());
    let groups: Vec<State> = bench
        .reports()
        .into_iter()
        .filter_map(|report| match report {
            Report::Group { to, .. } => Some(to),
            _ => None,
        })
        .collect();
    assert_eq!(groups, [State::Backup, State::Master, State::Fault]);
}

#[test]
fn what_a_master_loses_is_known_until_it_is_removed() {
    let mut one = instance("one", "eth0", 51, 100, &["10.0.0.100/32", "10.0.0.101/32", "10.0.0.102/32"]);
    let mut bench = Bench::master(std::slice::from_ref(&one));
    let path = bench.directory.path().join("vrrp.json");
    bench.fake().state = Some(path.clone());
    one.addresses.remove(0);
    bench.order(Order::Set(wanted(std::slice::from_ref(&one))));
    assert_eq!(bench.fake().known, [(true, true)], "in the file, and in the guard's plan");
    let is_known = |bench: &mut Bench, text: &str| {
        let plan = bench.fake().plans.last().unwrap();
        let is_planned = plan.instances[0].addresses.iter().any(|(_, other)| *other == address(text));
        let (host, _) = text.split_once('/').unwrap();
        (std::fs::read_to_string(&path).unwrap().contains(host), is_planned)
    };
    assert_eq!(is_known(&mut bench, "10.0.0.100/32"), (false, false));

    // One that stays for a time.
    bench.fake().refuses.push("address 10.0.0.101/32".to_owned());
    one.addresses.remove(0);
    bench.order(Order::Set(wanted(&[one])));
    assert_eq!(bench.states(), [State::Master]);
    assert_eq!(is_known(&mut bench, "10.0.0.101/32"), (true, true));
    bench.fake().refuses.clear();
    bench.pass(MS * 1100);
    assert_eq!(is_known(&mut bench, "10.0.0.101/32"), (false, false));
    assert_eq!(is_known(&mut bench, "10.0.0.102/32"), (true, true));
}

#[test]
fn a_seizure_in_the_middle_of_a_reload_hits_the_right_instances() {
    for calls in 1..5 {
        let one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
        let mut two = instance("two", "eth0", 52, 100, &["10.0.0.200/32"]);
        let mut bench = Bench::master(&[one, two.clone()]);
        two.addresses.push(address("10.0.0.201/32"));
        bench.reports();
        bench.fake().seize_after = Some(calls);
        bench.order(Order::Set(Wanted { roles: roles(&[("two", 2)]), ..wanted(&[two]) }));
        if bench.fake().seize_after.is_some() {
            assert!(calls > 2, "{calls}: it asks in a reload");
            continue;
        }
        assert_eq!(bench.states(), [State::Backup], "{calls}");
        assert_eq!(bench.fake().held(), Vec::<String>::new(), "{calls}");
        let log = bench.log.take();
        assert!(!log.contains(&"role 2 on".to_owned()) || calls > 1, "{calls}: {log:?}");
        let is_added = log.contains(&"add address 10.0.0.201/32".to_owned());
        assert!(!is_added || calls > 2, "{calls}: {log:?}");
        assert!(log.iter().rfind(|line| line.starts_with("role 2")).unwrap().ends_with("off"), "{log:?}");
        let reports = bench.reports().into_iter().filter_map(|report| match report {
            Report::Instance { name, to, .. } => Some((name, to)),
            _ => None,
        });
        let reports: Vec<_> = reports.collect();
        assert!(reports.contains(&("two".to_owned(), State::Backup)), "{calls}: {reports:?}");
        assert!(!reports.contains(&("one".to_owned(), State::Backup)), "{calls}: {reports:?}");
        bench.pass(MS * 4000);
        assert_eq!(bench.fake().held(), ["10.0.0.200 eth0", "10.0.0.201 eth0"], "{calls}");
    }
}
