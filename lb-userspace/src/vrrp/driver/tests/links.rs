//! Interfaces and addresses that come and go.

use super::*;
use crate::{config::vrrp::VirtualRoute, netif::Change};

const LINK: Change = Change::Link { index: 2 };

#[test]
fn an_address_that_somebody_removes_is_back_at_once_but_nobody_is_fought() {
    let mut bench = Bench::master(&[instance("one", "eth0", 51, 100, &["10.0.0.100/32"])]);
    let steal = |bench: &mut Bench| {
        bench.fake().interface("eth0").addresses.retain(|(_, prefix)| *prefix != 32);
        bench.changed(LINK);
    };
    steal(&mut bench);
    assert_eq!(bench.log.take(), ["add address 10.0.0.100/32", "announce 10.0.0.100", "announce 10.0.0.100"]);
    // A program that does that all the time.
    for _ in 0..1000 {
        steal(&mut bench);
        bench.pass(MS);
    }
    let restored = bench.engine.status().instances[0].restored;
    assert!((8..=12).contains(&restored), "{restored} times in a second");
    assert_eq!(bench.notices().len(), 1);
    bench.pass(MS * 100);
    assert_eq!(bench.fake().held(), ["10.0.0.100 eth0"], "the last time, too");
}

#[test]
fn an_interface_that_comes_late_is_waited_for() {
    let mut bench = Bench::new(&[instance("one", "eth9", 51, 100, &["10.0.0.100/32"])]);
    bench.engine.start().unwrap();
    assert_eq!(bench.states(), [State::Fault]);
    let mut late = bench.fake().interface("eth0").clone();
    (late.index, late.name) = (9, "eth9".to_owned());
    bench.fake().interfaces.push(late);
    bench.changed(LINK);
    assert_eq!(bench.states(), [State::Backup]);
    bench.pass(MS * 4000);
    assert_eq!(bench.fake().held(), ["10.0.0.100 eth9"]);
}

#[test]
fn a_dead_link_is_a_fault_and_its_return_ends_it() {
    let mut bench = Bench::master(&[instance("one", "eth0", 51, 100, &["10.0.0.100/32"])]);
    bench.fake().interface("eth0").is_running = false;
    bench.changed(LINK);
    assert_eq!(bench.states(), [State::Fault]);
    assert_eq!(bench.fake().held(), Vec::<String>::new());
    bench.fake().interface("eth0").is_running = true;
    bench.changed(LINK);
    bench.pass(MS * 4000);
    assert_eq!(bench.states(), [State::Master]);
    let tracked = bench.engine.status().tracked;
    assert_eq!(tracked.len(), 1, "{tracked:?}");
}

#[test]
fn an_interface_with_a_new_index_gets_new_sockets_and_its_addresses() {
    let mut bench = Bench::master(&[instance("one", "eth0", 51, 100, &["10.0.0.100/32"])]);
    let eth0 = bench.fake().interface("eth0");
    eth0.index = 7;
    eth0.addresses.retain(|(_, prefix)| *prefix != 32);
    bench.changed(LINK);
    let channel = Channel { interface: 7, family: Family::Ipv4, kind: Kind::Adverts };
    assert_eq!(bench.fake().channels, [channel].into());
    assert_eq!(bench.fake().held(), ["10.0.0.100 eth0"]);
    assert_eq!(bench.fake().plans.last().unwrap().instances[0].interface, 7);
    bench.log.take();
    bench.pass(MS * 1000);
    assert!(bench.log.take().contains(&"advert 100 to 224.0.0.18 on 7".to_owned()));
}

#[test]
fn without_an_address_to_send_from_it_gives_up_with_the_old_one() {
    let mut bench = Bench::master(&[instance("one", "eth0", 51, 100, &["10.0.0.100/32"])]);
    bench.fake().interface("eth0").addresses.retain(|(address, _)| *address != IpAddr::from([10, 0, 0, 1]));
    bench.changed(LINK);
    assert_eq!(bench.states(), [State::Fault]);
    assert_eq!(bench.log.take()[0], "advert 0 to 224.0.0.18 on 2");
    assert_eq!(bench.fake().packets.last().unwrap()[12..16], [10, 0, 0, 1]);
    assert_eq!(bench.engine.status().instances[0].source, None);
}

#[test]
fn routes_that_somebody_removes_are_put_back_once_a_second() {
    let mut one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    one.routes = vec![VirtualRoute {
        to: ("192.0.2.0".parse().unwrap(), 24),
        via: Some("10.0.0.254".parse().unwrap()),
        interface: None,
        source: None,
        table: None,
        metric: None,
    }];
    let mut bench = Bench::master(&[one]);
    for _ in 0..500 {
        bench.changed(Change::Route);
        bench.pass(MS);
    }
    let log = bench.log.take();
    assert_eq!(log.iter().filter(|line| *line == "add route to 192.0.2.0/24").count(), 1, "{log:?}");
    bench.pass(MS * 1000);
    let log = bench.log.take();
    assert_eq!(log.iter().filter(|line| *line == "add route to 192.0.2.0/24").count(), 1, "{log:?}");
}

#[test]
fn a_vmac_has_the_addresses_and_the_adverts() {
    let mut one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    one.vmac = Some("vrrp.51".to_owned());
    let mut bench = Bench::master(&[one]);
    assert_eq!(bench.fake().held(), ["10.0.0.100 vrrp.51"]);
    bench.pass(MS * 1000);
    assert_eq!(bench.log.take(), ["advert 100 to 224.0.0.18 on 102"]);
    assert_eq!(bench.fake().interface("vrrp.51").mac, Some([0, 0, 0x5e, 0, 1, 51]));
    bench.engine.stop(MS);
    assert!(bench.log.take().contains(&"no macvlan vrrp.51".to_owned()));
}

#[test]
fn without_its_macvlan_an_instance_is_in_fault_and_says_why() {
    let mut one = instance("one", "eth0", 51, 100, &["10.0.0.100/32"]);
    one.vmac = Some("vrrp.51".to_owned());
    let mut bench = Bench::new(&[one]);
    bench.fake().refuses = vec!["macvlan vrrp.51".to_owned()];
    bench.engine.start().unwrap();
    let reason = |bench: &mut Bench| bench.engine.status().instances[0].view.reason.clone();
    let changes = bench.reports().into_iter().filter_map(|report| match report {
        Report::Instance { reason, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(changes.collect::<Vec<_>>(), ["there is no macvlan vrrp.51"]);

    // Somebody else's interface of that name: nothing of ours may be there.
    let mut foreign = bench.fake().interface("eth0").clone();
    (foreign.index, foreign.name) = (50, "vrrp.51".to_owned());
    foreign.addresses.clear();
    bench.fake().interfaces.push(foreign);
    bench.changed(LINK);
    bench.pass(MS * 20_000);
    assert_eq!(bench.states(), [State::Fault]);
    assert_eq!(reason(&mut bench), "vrrp.51 is not its macvlan but another interface");
    assert_eq!(bench.fake().held(), Vec::<String>::new());
    assert_eq!(bench.fake().channels, [].into());
    assert!(!bench.log.take().contains(&"role 1 on".to_owned()));

    bench.fake().interfaces.pop();
    bench.fake().refuses.clear();
    bench.changed(LINK);
    assert_eq!(bench.states(), [State::Backup]);
    bench.pass(MS * 4000);
    assert_eq!(bench.fake().held(), ["10.0.0.100 vrrp.51"]);

    // It goes while the instance is master, and something else takes its name.
    bench.fake().refuses = vec!["macvlan vrrp.51".to_owned()];
    bench.fake().interface("vrrp.51").index = 51;
    bench.fake().interface("vrrp.51").addresses.clear();
    bench.changed(LINK);
    assert_eq!(bench.states(), [State::Fault]);
    assert_eq!(bench.fake().held(), Vec::<String>::new());
}

#[test]
fn without_its_socket_an_instance_is_in_fault_and_says_why() {
    let mut bench = Bench::started(&[instance("one", "eth0", 51, 100, &["10.0.0.100/32"])]);
    bench.fake().cannot_listen = true;
    bench.fake().interface("eth0").index = 7;
    bench.changed(LINK);
    bench.pass(MS * 20_000);
    assert_eq!(bench.states(), [State::Fault]);
    let view = bench.engine.status().instances[0].view.clone();
    assert_eq!(view.reason, "it has no socket for adverts: permission denied");
    assert_eq!(bench.fake().held(), Vec::<String>::new());
    bench.fake().cannot_listen = false;
    bench.pass(MS * 1000);
    assert_eq!(bench.states(), [State::Backup]);
    bench.pass(MS * 4000);
    assert_eq!(bench.fake().held(), ["10.0.0.100 eth0"]);
}

#[test]
fn what_changes_elsewhere_is_looked_at_now_and_then_and_ours_at_once() {
    let mut bench = Bench::master(&[instance("one", "eth0", 51, 100, &["10.0.0.100/32"])]);
    let before = bench.fake().dumps;
    for number in 0..1000_u32 {
        let address = IpAddr::from((0x7f01_0000 + number).to_be_bytes());
        bench.changed(Change::Address { interface: 1, address, is_there: true });
        bench.pass(MS);
    }
    let dumps = bench.fake().dumps - before;
    assert!((9..=12).contains(&dumps), "{dumps} times in a second");

    let dumps = |bench: &mut Bench, change: Change| {
        let before = bench.fake().dumps;
        bench.changed(change);
        bench.fake().dumps - before
    };
    assert_eq!(dumps(&mut bench, Change::Link { index: 1 }), 0);
    for ours in [LINK, Change::Link { index: 77 }, Change::Overrun] {
        assert_eq!(dumps(&mut bench, ours.clone()), 1, "{ours:?}");
    }
    // The last one of the others is not forgotten.
    let late = bench.fake().dumps;
    bench.pass(MS * 100);
    assert_eq!(bench.fake().dumps, late + 1);
}
