//! The end, handovers, and what a machine finds that has not run for a while.

use super::*;

/// RFC 9568 6.4.2 and 6.4.3, Shutdown: a master says priority 0; all end in INIT and listen no more.
#[test]
fn rfc_6_4_3_stop_says_priority_0() {
    let mut bench = Bench::master(v2(100));
    assert_eq!(short(&bench.handle(Event::Stop)), ["advertise 0 0", "release 0", "0 Master -> Init"]);
    assert_eq!(bench.machine.poll_timeout(), None);
    let mut bench = Bench::one(v2(100));
    assert_eq!(short(&bench.handle(Event::Stop)), ["0 Backup -> Init"]);
    assert_eq!(bench.machine.poll_timeout(), None);
    // And it can begin again.
    assert_eq!(short(&bench.handle(Event::Start)), ["0 Init -> Backup"]);
}

/// A handover gives up at once; after it the instance follows any master, and takes over only when there is none.
#[test]
fn a_handed_over_instance_takes_over_only_when_nobody_is_heard() {
    let mut bench = Bench::master(v2(100));
    let commands = bench.handle(Event::Handover { instance: 0 });
    assert_eq!(short(&commands), ["advertise 0 0", "release 0", "0 Master -> Backup"]);
    assert_eq!((bench.wait(), bench.machine.view(0).is_handed_over), (us(3_609_375), true));
    bench.pass(ms(3000));
    assert_eq!(short(&bench.advert(0, 2, 50)), [""; 0]);
    assert_eq!(bench.wait(), us(3_609_375));
    bench.next();
    assert_eq!(bench.state(0), State::Master);
    assert!(bench.machine.view(0).is_handed_over);
}

/// What was about to preempt somebody does so no more.
#[test]
fn a_handover_ends_a_preemption_under_way() {
    let mut bench = Bench::one(v2(100));
    bench.pass(ms(3000));
    bench.advert(0, 2, 50);
    assert_eq!(bench.wait(), us(609_375));
    assert_eq!(bench.handle(Event::Handover { instance: 0 }), []);
    assert_eq!((bench.wait(), bench.machine.view(0).master), (us(3_609_375), Some(host(2))));
}

#[test]
fn a_resumed_instance_preempts_again() {
    let mut bench = Bench::master(v2(100));
    bench.handle(Event::Handover { instance: 0 });
    bench.advert(0, 2, 50);
    assert_eq!(bench.handle(Event::Resume { instance: 0 }), []);
    assert!(!bench.machine.view(0).is_handed_over);
    assert_eq!(short(&bench.advert(0, 2, 50)), ["discarded 0 LowerPriority"]);
    bench.next();
    assert_eq!(bench.state(0), State::Master);
}

/// The owner of the addresses can be handed over too, and is not master again after a fault.
#[test]
fn an_owner_can_be_handed_over() {
    let mut bench = Bench::one(v2(255));
    bench.handle(Event::Handover { instance: 0 });
    bench.advert(0, 2, 50);
    let interface = TrackKey::Interface("eth0".to_owned());
    bench.track(interface.clone(), TrackValue::Down);
    bench.track(interface, TrackValue::Up);
    assert_eq!(bench.state(0), State::Backup);
}

/// A group is handed over, and resumed, as a whole.
#[test]
fn a_handover_is_of_the_group() {
    let instances = ["a", "b", "c"].map(|name| instance(name, Version::V2, 100)).to_vec();
    let mut bench = Bench::with(Settings { instances, groups: vec![group("VG", &["a", "b"])] });
    bench.handle(Event::Start);
    bench.next();
    let commands = bench.handle(Event::Handover { instance: 1 });
    assert_eq!(
        short(&commands),
        [
            "advertise 0 0",
            "advertise 1 0",
            "release 0",
            "release 1",
            "0 Master -> Backup",
            "1 Master -> Backup",
            "group 0 Backup"
        ]
    );
    assert_eq!([0, 1, 2].map(|id| bench.machine.view(id).is_handed_over), [true, true, false]);
    bench.handle(Event::Resume { instance: 0 });
    assert_eq!([0, 1].map(|id| bench.machine.view(id).is_handed_over), [false, false]);
}

/// The guard has said all there is to say.
#[test]
fn a_seized_master_is_backup_without_a_word() {
    let mut bench = Bench::master(v2(100));
    bench.pass(ms(700));
    assert_eq!(short(&bench.handle(Event::Seized)), ["release 0", "0 Master -> Backup"]);
    assert_eq!(bench.wait(), us(3_609_375));
    assert_eq!(bench.handle(Event::Seized), []);
}

/// After a stop a master looks before it speaks: whoever has become master meanwhile stays it.
#[test]
fn after_a_sleep_any_other_master_is_believed() {
    let mut bench = Bench::master(v3(100));
    bench.next();
    bench.pass(ms(1500));
    bench.handle(Event::Woke { slept: ms(1500) });
    assert_eq!(short(&bench.advert(0, 2, 50)), ["release 0", "0 Master -> Backup"]);
    assert_eq!(bench.reason(0), "192.0.2.2 has become master while we slept");
    // As backup the usual rules hold: it preempts, after the master-down time.
    assert_eq!(short(&bench.advert(0, 2, 50)), ["discarded 0 LowerPriority"]);
    assert_eq!(bench.wait(), us(360_937) + Duration::from_nanos(500));
}

/// A takeover that took its time is no sleep: the last advert of the predecessor takes nothing back.
#[test]
fn a_slow_takeover_is_no_sleep() {
    let mut bench = Bench::master(v3(100));
    bench.pass(ms(500));
    bench.handle(Event::Woke { slept: ms(500) });
    bench.advert(0, 2, 50);
    assert_eq!(bench.state(0), State::Master);
}

#[test]
fn after_a_sleep_and_a_time_out_the_usual_rules_hold() {
    let mut bench = Bench::master(v3(100));
    bench.next();
    bench.pass(ms(1500));
    bench.handle(Event::Woke { slept: ms(1500) });
    // Who gives up is no master.
    assert_eq!(short(&bench.advert(0, 2, 0)), ["advertise 0 100"]);
    bench.handle(Event::Timeout);
    bench.advert(0, 2, 50);
    assert_eq!(bench.state(0), State::Master);
}

/// A backup that wakes has its timer reset by what it has received before it is served.
#[test]
fn after_a_sleep_a_backup_hears_first() {
    let mut bench = Bench::one(v3(100));
    bench.pass(ms(1500));
    bench.handle(Event::Woke { slept: ms(1500) });
    bench.advert(0, 2, 150);
    assert_eq!(bench.handle(Event::Timeout), []);
    assert_eq!(bench.state(0), State::Backup);
}
