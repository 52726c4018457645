//! INIT and BACKUP: the master-down timer, preemption, priority 0.

use super::*;

/// RFC 9568 6.4.1, RFC 3768 6.4.1; keepalived waits for the master-down time with `state MASTER` too.
#[test]
fn rfc_6_4_1_start_leads_to_backup() {
    for initial_master in [false, true] {
        let mut bench = Bench::with(Settings {
            instances: vec![VrrpInstance { initial_master, ..v2(100) }],
            groups: Vec::new(),
        });
        assert_eq!((bench.state(0), bench.machine.poll_timeout()), (State::Init, None));
        assert_eq!(short(&bench.handle(Event::Start)), ["0 Init -> Backup"]);
        assert_eq!(bench.wait(), us(3_609_375));
    }
}

/// RFC 9568 6.4.1, RFC 3768 6.4.1.
#[test]
fn rfc_6_4_1_priority_255_is_master_at_once() {
    let mut bench = Bench::with(Settings { instances: vec![v2(255)], groups: Vec::new() });
    let commands = bench.handle(Event::Start);
    assert_eq!(short(&commands), ["advertise 0 255", "acquire 0", "announce 0 5", "0 Init -> Master"]);
}

/// RFC 3768 6.1: Skew_Time is (256 - priority) / 256 seconds. In microseconds: keepalived's timers have them too.
#[test]
fn rfc3768_6_1_skew_time_is_of_a_second() {
    for (priority, skew) in [(1, 996_093), (100, 609_375), (150, 414_062), (254, 7_812)] {
        let bench = Bench::one(VrrpInstance { advert_interval: ms(2000), ..v2(priority) });
        assert_eq!(bench.wait().as_micros(), 6_000_000 + skew);
    }
}

/// RFC 9568 6.1: Skew_Time is (256 - priority) / 256 of the active interval.
#[test]
fn rfc9568_6_1_skew_time_is_of_the_interval() {
    for (priority, skew) in [(1, 99_609), (100, 60_937), (254, 781)] {
        assert_eq!(Bench::one(v3(priority)).wait().as_micros(), 300_000 + skew);
    }
    let bench = Bench::one(VrrpInstance { advert_interval: ms(10), ..v3(254) });
    assert_eq!(bench.wait().as_nanos(), 30_078_125);
}

/// RFC 9568 6.4.2 (365) and on: at the end of the timer an advert, then the addresses, then gratuitous ARP.
#[test]
fn rfc_6_4_2_master_down_leads_to_master() {
    let mut bench = Bench::one(v3(100));
    bench.advert(0, 2, 150);
    bench.pass(ms(100));
    let commands = bench.next();
    assert_eq!(short(&commands), RISE);
    assert_eq!(bench.reason(0), "master down: nothing heard from 192.0.2.2 for 360.9ms");
    let view = bench.machine.view(0);
    assert_eq!((view.master, view.master_priority, view.became_master), (Some(host(1)), Some(100), 1));
    assert_eq!((view.since, view.timer), (bench.now, Some(bench.now + ms(100))));
}

/// RFC 9568 6.4.2: priority 0 sets the timer to the skew.
#[test]
fn rfc_6_4_2_priority_0_leaves_the_skew() {
    let mut bench = Bench::one(v2(100));
    bench.advert(0, 2, 150);
    bench.pass(ms(300));
    assert_eq!(short(&bench.advert(0, 2, 0)), [""; 0]);
    assert_eq!(bench.wait(), us(609_375));
    // It does not begin anew with a repetition.
    bench.pass(ms(200));
    bench.advert(0, 2, 0);
    assert_eq!(bench.wait(), us(409_375));
    assert_eq!(short(&bench.next()), RISE);
    assert_eq!(bench.reason(0), "192.0.2.2 has given up");
}

/// `quick_release`: a 64th of it, so the better priority still goes first.
#[test]
fn quick_release_leaves_a_64th_of_the_skew() {
    for (priority, wait) in [(100, 9_521), (200, 3_417), (254, 122)] {
        let mut settings = v2(priority);
        settings.quick_release = true;
        let mut bench = Bench::one(settings);
        bench.advert(0, 2, 255);
        bench.advert(0, 2, 0);
        assert_eq!(bench.wait().as_micros(), wait);
        bench.next();
        assert_eq!(bench.state(0), State::Master);
    }
}

/// Nobody else is known to be master, or somebody is.
#[test]
fn quick_release_is_for_the_masters_farewell() {
    let mut settings = v2(100);
    settings.quick_release = true;
    let mut bench = Bench::one(settings.clone());
    bench.advert(0, 2, 0);
    assert_eq!(bench.wait().as_micros(), 9_521);
    let mut bench = Bench::one(settings);
    bench.advert(0, 2, 150);
    bench.advert(0, 3, 0);
    assert_eq!(bench.wait(), us(609_375));
}

/// RFC 9568 6.4.2: the same or a higher priority resets the timer.
#[test]
fn rfc_6_4_2_equal_or_higher_adverts_reset_the_timer() {
    for priority in [100, 101, 255] {
        let mut bench = Bench::one(v2(100));
        bench.pass(ms(3000));
        assert_eq!(short(&bench.advert(0, 2, priority)), [""; 0]);
        assert_eq!(bench.wait(), us(3_609_375));
        let view = bench.machine.view(0);
        assert_eq!((view.master, view.master_priority), (Some(host(2)), Some(priority)));
    }
}

/// RFC 9568 6.4.2: with Preempt_Mode a lower priority is discarded, and the timer goes on.
#[test]
fn rfc_6_4_2_lower_adverts_are_discarded_without_reset() {
    let mut bench = Bench::one(v2(100));
    bench.pass(ms(3000));
    assert_eq!(short(&bench.advert(0, 2, 99)), ["discarded 0 LowerPriority"]);
    assert_eq!(bench.wait(), us(609_375));
    assert_eq!(short(&bench.next()), RISE);
    assert_eq!(bench.reason(0), "preempts 192.0.2.2, whose priority 99 is lower than our 100");
}

/// RFC 9568 6.4.2, keepalived's `nopreempt`.
#[test]
fn rfc_6_4_2_nopreempt_follows_lower_adverts() {
    let mut bench = Bench::one(VrrpInstance { nopreempt: true, ..v2(100) });
    bench.pass(ms(3000));
    assert_eq!(short(&bench.advert(0, 2, 1)), [""; 0]);
    assert_eq!(bench.wait(), us(3_609_375));
}

/// RFC 9568 6.4.2: Active_Adver_Interval is that of the master, and timer and skew follow it.
#[test]
fn rfc9568_6_4_2_the_masters_interval_is_learned() {
    let mut bench = Bench::one(v3(100));
    bench.advert_every(0, 2, 150, 1000);
    assert_eq!(bench.wait(), us(3_609_375));
    assert_eq!(bench.machine.view(0).master_interval_ms, 1000);
    // With priority 0 it is not learned, and the skew is that of the interval learned before.
    bench.advert_every(0, 2, 0, 10);
    assert_eq!(bench.wait(), us(609_375));
    // From a lower one that is discarded neither.
    bench.advert_every(0, 2, 150, 500);
    bench.advert_every(0, 3, 50, 4000);
    assert_eq!(bench.machine.view(0).master_interval_ms, 500);
    // What is master has an interval of its own.
    bench.next();
    assert_eq!((bench.state(0), bench.wait()), (State::Master, ms(100)));
}

/// No interval in an advert makes a busy loop, whatever the codec lets through.
#[test]
fn a_learned_interval_has_bounds() {
    let mut bench = Bench::one(v3(254));
    bench.advert_every(0, 2, 255, 0);
    assert_eq!(bench.machine.view(0).master_interval_ms, 10);
    bench.advert_every(0, 2, 255, u32::MAX);
    assert_eq!(bench.machine.view(0).master_interval_ms, 40_950);
}

/// keepalived's `preempt_delay`: lower adverts are accepted until it ends, then discarded.
#[test]
fn keepalived_preempt_delay_leaves_a_lower_master_alone() {
    let mut bench = Bench::one(VrrpInstance { preempt_delay: ms(10_000), ..v2(100) });
    for second in 0..10 {
        assert_eq!(short(&bench.advert(0, 2, 50)), [""; 0], "second {second}");
        assert_eq!(bench.wait(), us(3_609_375));
        bench.pass(ms(1000));
    }
    assert_eq!(short(&bench.advert(0, 2, 50)), ["discarded 0 LowerPriority"]);
    assert_eq!(bench.wait(), us(2_609_375));
    assert_eq!(short(&bench.next()), RISE);
}

/// keepalived's `preempt_delay`: it is no reason to leave the addresses without a master.
#[test]
fn keepalived_preempt_delay_does_not_delay_a_takeover() {
    let mut bench = Bench::one(VrrpInstance { preempt_delay: ms(10_000), ..v2(100) });
    assert_eq!(bench.wait(), us(3_609_375));
    bench.advert(0, 2, 50);
    bench.advert(0, 2, 0);
    assert_eq!(bench.wait(), us(609_375));
    assert_eq!(short(&bench.next()), RISE);
}

/// keepalived's `preempt_delay`: a higher advert cancels it; it begins anew with the next lower one.
#[test]
fn keepalived_preempt_delay_is_cancelled_by_a_higher_advert() {
    let mut bench = Bench::one(VrrpInstance { preempt_delay: ms(10_000), ..v2(100) });
    bench.advert(0, 2, 50);
    bench.pass(ms(9000));
    bench.advert(0, 3, 150);
    bench.pass(ms(2000));
    assert_eq!(short(&bench.advert(0, 2, 50)), [""; 0]);
    bench.pass(ms(9000));
    assert_eq!(short(&bench.advert(0, 2, 50)), [""; 0]);
    bench.pass(ms(1000));
    assert_eq!(short(&bench.advert(0, 2, 50)), ["discarded 0 LowerPriority"]);
}

/// The wait follows a priority that tracking changes meanwhile (keepalived).
#[test]
fn keepalived_the_timer_follows_the_priority() {
    let key = TrackKey::Script("s".to_owned());
    let tracks = vec![Track { key: key.clone(), weight: -50 }];
    let mut bench = Bench::one(VrrpInstance { tracks, ..v2(150) });
    assert_eq!(bench.wait(), us(3_414_062) + Duration::from_nanos(500));
    bench.track(key, TrackValue::Down);
    assert_eq!(bench.wait(), us(3_609_375));
}
