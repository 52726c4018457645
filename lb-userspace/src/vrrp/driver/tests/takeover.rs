//! Start, takeover, stop, and what comes between them.

use super::*;
use crate::{
    config::vrrp::{VirtualRule, VrrpSettings},
    vrrp::driver::thread,
};

#[test]
fn from_start_to_stop() {
    let mut bench = Bench::started(&[instance("one", "eth0", 51, 100, &["10.0.0.100/32", "10.0.0.101/32"])]);
    assert_eq!(bench.log.take(), ["role 1 off", "guard", "mark one false"]);
    assert_eq!(bench.states(), [State::Backup]);

    bench.pass(MS * 3600);
    assert_eq!(bench.log.take(), Vec::<String>::new(), "master-down is 3 s and 156/256 s");
    bench.pass(MS * 20);
    let expected = [
        "advert 100 to 224.0.0.18 on 2",
        "mark one true",
        "role 1 on",
        "add address 10.0.0.100/32",
        "add address 10.0.0.101/32",
        "announce 10.0.0.100",
        "announce 10.0.0.101",
        "announce 10.0.0.100",
        "announce 10.0.0.101",
    ];
    assert_eq!(bench.log.take(), expected);
    assert_eq!(bench.fake().held(), ["10.0.0.100 eth0", "10.0.0.101 eth0"]);
    bench.pass(MS * 2000);
    assert_eq!(bench.log.take(), ["advert 100 to 224.0.0.18 on 2"; 2]);

    let status = &bench.engine.status().instances[0];
    assert_eq!((status.sent, status.sent_zero, status.announced), (3, 0, 4));
    assert_eq!(status.source, Some("10.0.0.1".parse().unwrap()));
    let changes: Vec<_> = bench
        .reports()
        .into_iter()
        .filter_map(|report| match report {
            Report::Instance { name, from, to, priority, .. } => Some((name, from, to, priority)),
            _ => None,
        })
        .collect();
    assert_eq!(
        changes,
        [
            ("one".to_owned(), State::Init, State::Backup, 100),
            ("one".to_owned(), State::Backup, State::Master, 100)
        ]
    );

    bench.engine.stop(MS);
    let expected = [
        "advert 0 to 224.0.0.18 on 2",
        "remove address 10.0.0.100/32",
        "remove address 10.0.0.101/32",
        "role 1 off",
        "mark one false",
        "no guard",
    ];
    assert_eq!(bench.log.take(), expected);
    assert_eq!(bench.fake().held(), Vec::<String>::new());
}

#[test]
fn what_a_dead_run_has_left_is_removed_before_anything_is_said() {
    // The dead run had another configuration.
    let directory = {
        let other = instance("other", "eth0", 9, 100, &["10.0.0.200/24"]);
        let mut bench = Bench::new(&[other, instance("one", "eth0", 51, 100, &["10.0.0.100/32"])]);
        bench.engine.start().unwrap();
        bench.directory
    };
    let instances = [
        instance("one", "eth0", 51, 100, &["10.0.0.100/32"]),
        instance("owner", "eth0", 52, 255, &["10.0.0.50/24"]),
    ];
    let mut bench = Bench::with(wanted(&instances), directory, |fake| {
        let left = [("10.0.0.100", 32), ("10.0.0.200", 24), ("10.0.0.50", 24), ("10.0.0.201", 24)];
        let left = left.map(|(text, prefix)| (text.parse().unwrap(), prefix));
        fake.interface("eth0").addresses.extend(left);
    });
    bench.engine.start().unwrap();
    let log = bench.log.take();
    let position =
        |line: &str| log.iter().position(|other| other == line).unwrap_or_else(|| panic!("{line}: {log:?}"));
    assert!(position("remove address 10.0.0.200/24") < position("advert 255 to 224.0.0.18 on 2"));
    assert!(position("remove address 10.0.0.100/32") < position("advert 255 to 224.0.0.18 on 2"));
    assert!(!log.contains(&"remove address 10.0.0.50/24".to_owned()), "the owner's: {log:?}");
    assert!(bench.fake().held().contains(&"10.0.0.201 eth0".to_owned()), "not ours");
    let notices = bench.notices();
    assert!(notices.iter().any(|text| text.contains("10.0.0.200/24")), "{notices:?}");
}

#[test]
fn without_its_socket_an_instance_starts_in_fault_and_the_others_serve() {
    let other = instance("other", "eth1", 52, 100, &["10.1.0.100/32"]);
    let mut bench = Bench::new(&[instance("one", "eth0", 51, 100, &["10.0.0.100/32"]), other]);
    let mut eth1 = bench.fake().interface("eth0").clone();
    (eth1.index, eth1.name) = (3, "eth1".to_owned());
    eth1.addresses = vec![("10.1.0.1".parse().unwrap(), 24)];
    bench.fake().interfaces.push(eth1);
    bench.fake().deaf = Some((2, Kind::Adverts));
    bench.engine.start().unwrap();
    bench.pass(MS * 4500);
    assert_eq!(bench.states(), [State::Fault, State::Master]);
    let reason = bench.engine.status().instances[0].view.reason.clone();
    assert_eq!(reason, "it has no socket for adverts: permission denied");
    assert!(bench.notices().iter().any(|text| text.contains("`one`") && text.contains("eth0")));
    bench.fake().deaf = None;
    bench.pass(MS * 6000);
    assert_eq!(bench.states(), [State::Master, State::Master], "tried again");
}

#[test]
fn without_heartbeats_an_instance_serves_all_the_same() {
    let mut one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    one.fast_detection = Some(crate::config::vrrp::FastDetection { interval: MS * 10, multiplier: 3 });
    let mut bench = Bench::new(&[one]);
    bench.fake().deaf = Some((2, Kind::Heartbeats));
    bench.engine.start().unwrap();
    bench.pass(MS * 4500);
    assert_eq!(bench.states(), [State::Master]);
    assert!(bench.notices().iter().any(|text| text.contains("no socket for Heartbeats on eth0")));
}

#[test]
fn what_the_guard_has_seized_is_not_touched_again() {
    for calls in 0..3 {
        let mut bench = Bench::master(&[instance("one", "eth0", 51, 100, &["10.0.0.100/32"])]);
        bench.fake().seize_after = Some(calls);
        bench.pass(MS * 1000);
        let log = bench.log.take();
        // Before the first call nothing was said; after it the advert that was due may have been sent.
        let said = log.iter().filter(|line| line.starts_with("advert")).count();
        assert!(said <= calls, "{calls}: {log:?}");
        assert!(log.contains(&"remove address 10.0.0.100/32".to_owned()), "{log:?}");
        assert!(log.contains(&"role 1 off".to_owned()), "{log:?}");
        assert!(!log.iter().any(|line| line.starts_with("add") || line == "role 1 on"), "{log:?}");
        assert_eq!(bench.states(), [State::Backup]);
        assert!(bench.notices().iter().any(|text| text.starts_with("guard: the driver was silent")));
        // It takes part again.
        bench.pass(MS * 4000);
        assert_eq!(bench.states(), [State::Master]);
    }
}

#[test]
fn after_a_stop_it_looks_before_it_speaks() {
    let one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    let mut bench = Bench::master(std::slice::from_ref(&one));
    bench.pass(MS * 1100);
    bench.log.take();
    bench.fake().now += MS * 5000;
    bench.fake().arrivals.push(advert(&one, [10, 0, 0, 2], 150));
    bench.turn(Ready { stalled: Some(MS * 5000), ..Ready::default() });
    assert_eq!(bench.states(), [State::Backup]);
    let log = bench.log.take();
    assert!(
        !log.iter().any(|line| line.starts_with("advert 100") || line.starts_with("announce")),
        "{log:?}"
    );
    assert_eq!(bench.fake().held(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_removed_is_tried_until_it_is() {
    let one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    let mut bench = Bench::master(std::slice::from_ref(&one));
    bench.fake().refuses.push("address 10.0.0.100/32".to_owned());
    bench.arrive(advert(&one, [10, 0, 0, 2], 150));
    assert_eq!(bench.states(), [State::Backup]);
    assert_eq!(bench.fake().held(), ["10.0.0.100 eth0"]);
    assert!(bench.notices().iter().any(|text| text.contains("10.0.0.100/32 cannot be removed")));
    bench.fake().refuses.clear();
    bench.pass(MS * 1100);
    assert_eq!(bench.fake().held(), Vec::<String>::new());
}

#[test]
fn a_handover_gives_up_and_a_resume_lifts_it() {
    let mut bench = Bench::master(&[instance("one", "eth0", 51, 100, &["10.0.0.100/32"])]);
    let ask = |bench: &mut Bench, order: fn(String, std::sync::mpsc::SyncSender<_>) -> Order, name: &str| {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        bench.order(order(name.to_owned(), answer));
        answered.try_recv().unwrap()
    };
    let error: Result<(), String> = ask(&mut bench, Order::Handover, "two");
    assert!(error.unwrap_err().contains("there are: `one`"));
    assert!(ask(&mut bench, Order::Resume, "one").is_err(), "not handed over");
    assert_eq!(ask(&mut bench, Order::Handover, "one"), Ok(()));
    assert_eq!(bench.states(), [State::Backup]);
    assert_eq!(bench.fake().held(), Vec::<String>::new());
    assert!(ask(&mut bench, Order::Handover, "one").unwrap_err().contains("BACKUP"));
    assert_eq!(ask(&mut bench, Order::Resume, "one"), Ok(()));
}

#[test]
fn the_guard_knows_the_last_words_and_is_replaced_when_it_ends() {
    let mut bench = Bench::master(&[instance("one", "eth0", 51, 100, &["10.0.0.100/32"])]);
    let plan = bench.fake().plans.last().unwrap().clone();
    let one = &plan.instances[0];
    assert_eq!((one.interface, one.role, one.addresses.len()), (2, 1, 1));
    let (destination, words) = &one.last_words[0];
    assert_eq!(destination, &IpAddr::V4(packet::GROUP_V4));
    assert_eq!(words[22], 0, "priority");

    bench.fake().guard = Some(false);
    bench.fake().marks.clear();
    bench.pass(MS * 1000);
    let log = bench.log.take();
    assert!(log.contains(&"guard".to_owned()) && log.contains(&"mark one true".to_owned()), "{log:?}");
    assert!(bench.notices().iter().any(|text| text.starts_with("guard: the guard has ended")));
}

#[test]
fn a_stopped_guard_keeps_nobody_waiting() {
    let mut one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    one.authentication = sealed();
    let mut bench = Bench::master(&[one]);
    bench.fake().is_guard_stopped = true;
    let before = bench.fake().plans.len();
    bench.pass(MS * 1000);
    assert_eq!(bench.fake().plans.len(), before + 1, "other last words");
    // Something else has changed, and it is not told before it has answered.
    bench.fake().interface("eth0").addresses.push(("10.0.0.100".parse().unwrap(), 25));
    bench.fake().interface("eth0").index = 7;
    bench.log.take();
    bench.changed(crate::netif::Change::Link { index: 2 });
    bench.pass(MS * 700);
    assert_eq!(bench.fake().plans.len(), before + 1);
    let log = bench.log.take();
    assert!(log.contains(&"advert 100 to 224.0.0.18 on 7".to_owned()), "{log:?}");

    bench.fake().is_guard_stopped = false;
    bench.turn(Ready::default());
    assert_eq!(bench.fake().plans.len(), before + 2, "at once");
    assert_eq!(bench.fake().plans.last().unwrap().instances[0].interface, 7);
    assert_eq!(bench.states(), [State::Master]);
}

#[test]
fn a_guard_that_does_not_answer_is_replaced() {
    let mut bench = Bench::master(&[instance("one", "eth0", 51, 100, &["10.0.0.100/32"])]);
    bench.fake().is_guard_stopped = true;
    bench.fake().interface("eth0").index = 7;
    bench.changed(crate::netif::Change::Link { index: 2 });
    bench.fake().is_guard_late = true;
    bench.pass(MS * 900);
    assert!(bench.notices().iter().any(|text| text.starts_with("guard: the guard cannot be told")));
    bench.fake().guard = Some(false);
    (bench.fake().is_guard_late, bench.fake().is_guard_stopped) = (false, false);
    bench.fake().plans.clear();
    bench.pass(MS * 1000);
    assert_eq!(bench.fake().plans.len(), 1, "for the new one");
    assert_eq!(bench.fake().plans[0].instances[0].interface, 7);
    assert_eq!(bench.states(), [State::Master]);
}

#[test]
fn the_failed_driver_gives_its_addresses_up() {
    let mut bench = Bench::master(&[instance("one", "eth0", 51, 100, &["10.0.0.100/32"])]);
    bench.engine.abandon();
    let expected =
        ["advert 0 to 224.0.0.18 on 2", "remove address 10.0.0.100/32", "role 1 off", "mark one false"];
    assert_eq!(bench.log.take(), expected);
    // Scripts and mails are made of this.
    let fault = Report::Instance {
        name: "one".to_owned(),
        from: State::Master,
        to: State::Fault,
        priority: 100,
        reason: "the VRRP driver has failed".to_owned(),
        took: Duration::ZERO,
    };
    assert_eq!(bench.reports(), [fault]);
}

/// One instance with `10.0.0.100/32` and so many more addresses, and so many rules.
fn large(addresses: u8, rules: u32) -> VrrpInstance {
    let texts: Vec<String> = (0..addresses).map(|n| format!("10.0.0.{}/32", 100 + n)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut one = instance("one", "eth0", 51, 100, &texts);
    let rule = |n| VirtualRule { from: None, to: None, table: 1000 + n, priority: None };
    one.rules = (0..rules).map(rule).collect();
    one
}

#[test]
fn while_many_things_come_and_go_the_heart_beats() {
    let mut bench = Bench::started(&[large(100, 100)]);
    bench.pass(MS * 4500);
    assert_eq!(bench.states(), [State::Master]);
    let log = bench.log.take();
    let added: Vec<&String> = log.iter().filter(|line| line.starts_with("add ")).collect();
    assert_eq!(added.len(), 200);
    assert!(added[..100].iter().all(|line| line.starts_with("add address")), "the addresses first");
    bench.engine.stop(MS);
    let log = bench.log.take();
    assert_eq!(log.iter().filter(|line| line.starts_with("remove ")).count(), 200);
    let (_, most) = bench.fake().beatless;
    assert!((1..=16).contains(&most), "{most} without a beat");
}

#[test]
fn seized_amid_many_addresses_it_adds_no_more_of_them() {
    let mut bench = Bench::started(&[large(100, 0)]);
    bench.fake().seize_with = Some("add address 10.0.0.119/32".to_owned());
    bench.pass(MS * 3650);
    let log = bench.log.take();
    let count = |start: &str| log.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!((count("add address"), count("remove address"), count("announce")), (32, 32, 0), "{log:?}");
    assert_eq!(bench.states(), [State::Backup]);
    assert_eq!(bench.fake().held(), Vec::<String>::new());
}

#[test]
fn seized_while_addresses_are_put_back_it_gives_them_up() {
    let mut one = large(20, 0);
    one.garp.repeat = 0;
    let mut bench = Bench::master(&[one]);
    bench.fake().interface("eth0").addresses.retain(|(_, prefix)| *prefix != 32);
    bench.fake().seize_with = Some("add address 10.0.0.101/32".to_owned());
    bench.changed(crate::netif::Change::Link { index: 2 });
    assert_eq!(bench.states(), [State::Backup]);
    assert_eq!(bench.fake().held(), Vec::<String>::new());
}

#[test]
fn the_guard_is_told_only_what_is_new() {
    let mut bench = Bench::master(&[instance("one", "eth0", 51, 100, &["10.0.0.100/32"])]);
    let before = bench.fake().plans.len();
    for _ in 0..10 {
        bench.pass(MS * 1000);
        bench.changed(crate::netif::Change::Link { index: 2 });
    }
    assert_eq!(bench.fake().plans.len(), before, "but for packet ids nothing is");
}

#[test]
fn sealed_last_words_are_renewed_in_time_and_not_at_every_change() {
    let mut one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    one.authentication = sealed();
    let mut bench = Bench::started(&[one]);
    bench.pass(MS * 60_000 + MS * 4500);
    assert_eq!(bench.states(), [State::Master]);
    let plans = bench.fake().plans.len();
    // Looked at each second, at each audit and each change: but told once a second.
    for _ in 0..1000 {
        bench.changed(crate::netif::Change::Link { index: 2 });
        bench.pass(MS * 10);
    }
    let told = bench.fake().plans.len() - plans;
    assert!((9..=11).contains(&told), "{told} times in 10 s");
}

#[test]
fn what_the_guard_says_first_for_a_new_master_is_newer_than_its_first_advert() {
    let mut one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    one.authentication = sealed();
    let mut bench = Bench::started(std::slice::from_ref(&one));
    bench.pass(MS * 3000);
    let before = bench.fake().plans.len();
    bench.pass(MS * 700);
    assert_eq!(bench.states(), [State::Master]);
    assert_eq!(bench.fake().plans.len(), before + 1, "the first advert only");

    // Its words are said, and it gets others.
    bench.fake().seize_after = Some(0);
    bench.turn(Ready::default());
    assert_eq!(bench.states(), [State::Backup]);
    let words: Vec<_> =
        bench.fake().plans.iter().rev().take(2).map(|plan| plan.instances[0].clone()).collect();
    assert_eq!(bench.fake().plans.len(), before + 2);
    assert_ne!(words[0].last_words, words[1].last_words);
}

#[test]
fn an_ipv6_address_with_another_prefix_goes_as_well() {
    let one = instance("one", "eth0", 51, 100, &["fe80::100/64", "2001:db8::100/128"]);
    let mut bench = Bench::new(&[one]);
    bench.engine.start().unwrap();
    // What somebody else has put there.
    bench.fake().interface("eth0").addresses.push(("2001:db8::100".parse().unwrap(), 64));
    bench.changed(crate::netif::Change::Link { index: 2 });
    bench.pass(MS * 4500);
    assert_eq!(bench.states(), [State::Master]);
    assert_eq!(bench.fake().held(), ["2001:db8::100 eth0", "fe80::100 eth0"]);
    let plan = bench.fake().plans.last().unwrap().clone();
    assert!(plan.instances[0].addresses.contains(&(2, address("2001:db8::100/64"))), "{plan:?}");
    bench.engine.stop(MS);
    assert_eq!(bench.fake().held(), Vec::<String>::new());
}

#[test]
fn seized_amid_announcements_it_falls_silent() {
    let mut bench = Bench::started(&[large(100, 0)]);
    bench.fake().seize_with = Some("announce 10.0.0.101".to_owned());
    bench.pass(MS * 3650);
    let log = bench.log.take();
    let announced = log.iter().filter(|line| line.starts_with("announce")).count();
    assert!((2..=16).contains(&announced), "{announced}");
    assert_eq!(bench.states(), [State::Backup]);
    assert_eq!(bench.fake().held(), Vec::<String>::new());
}

#[test]
fn what_a_dead_run_has_left_goes_whatever_its_prefix_is_but_not_an_owners() {
    let other = instance("other", "eth0", 51, 100, &["2001:db8::100/64"]);
    let owner = instance("owner", "eth0", 52, 255, &["2001:db8::1/64"]);
    let mut former = owner.clone();
    former.addresses = vec![address("2001:db8::1/128")];
    let directory = {
        let mut bench = Bench::new(&[other.clone(), former]);
        bench.engine.start().unwrap();
        bench.directory
    };
    let mut bench = Bench::with(wanted(&[other, owner]), directory, |fake| {
        let left = [("2001:db8::100", 128), ("2001:db8::1", 64)];
        fake.interface("eth0").addresses.extend(left.map(|(text, prefix)| (text.parse().unwrap(), prefix)));
    });
    bench.engine.clean().unwrap();
    assert_eq!(bench.log.take(), ["remove address 2001:db8::100/128"]);
}

#[test]
fn memory_is_locked_before_anything_is_said_and_the_thread_gets_its_priority_after_it() {
    let mut wanted = wanted(&[instance("owner", "eth0", 51, 255, &["10.0.0.50/24"])]);
    wanted.config.settings.lock_memory = true;
    wanted.config.settings.realtime_priority = Some(50);
    let mut bench = Bench::with(wanted, tempfile::tempdir().unwrap(), |_| ());
    let log = bench.log.clone();
    let apply = |wanted: &VrrpSettings, before: Option<&VrrpSettings>| {
        let was = before.map(|before| (before.lock_memory, before.realtime_priority));
        log.write(format!("{:?} after {was:?}", (wanted.lock_memory, wanted.realtime_priority)));
        vec!["a warning".to_owned()]
    };
    thread::begin(&mut bench.engine, apply).unwrap();
    let log = bench.log.take();
    assert_eq!(log[0], "(true, None) after None", "{log:?}");
    assert_eq!(
        log[log.len() - 1],
        "(false, Some(50)) after Some((false, None))",
        "and not locked again: {log:?}"
    );
    assert!(log.contains(&"advert 255 to 224.0.0.18 on 2".to_owned()), "{log:?}");
    assert_eq!(bench.engine.status().warnings.len(), 2);
}
