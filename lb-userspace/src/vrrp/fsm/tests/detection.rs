//! Fast detection: heartbeats between two directors.

use super::*;

fn fast(priority: u8) -> VrrpInstance {
    let fast_detection = Some(FastDetection { interval: ms(10), multiplier: 3 });
    VrrpInstance { fast_detection, ..v2(priority) }
}

/// A backup that follows 192.0.2.2 and has felt a heartbeat of it.
fn follower() -> Bench {
    let mut bench = Bench::one(fast(100));
    bench.advert(0, 2, 150);
    beat(&mut bench, 2, 30);
    bench
}

fn beat(bench: &mut Bench, from: u8, lasts: u64) {
    assert_eq!(bench.handle(Event::Heartbeat { instance: 0, source: host(from), lasts: ms(lasts) }), []);
}

#[test]
fn missing_heartbeats_are_a_dead_master() {
    let mut bench = follower();
    for _ in 0..100 {
        bench.pass(ms(10));
        beat(&mut bench, 2, 30);
        // 30 ms, and (256 - 100) / 256 of them.
        assert_eq!(bench.wait(), Duration::from_nanos(48_281_250));
        bench.handle(Event::Timeout);
    }
    let commands = bench.next();
    assert_eq!(short(&commands)[..2], ["advertise 0 100", "heartbeat 0"]);
    assert_eq!(
        (bench.state(0), bench.reason(0).as_str()),
        (State::Master, "master down: the heartbeats of 192.0.2.2 are missing")
    );
}

/// The better backup is the first, as with adverts.
#[test]
fn the_better_backup_misses_heartbeats_first() {
    let mut waits = [250, 101, 100].map(|priority| {
        let mut bench = Bench::one(fast(priority));
        bench.advert(0, 2, 255);
        beat(&mut bench, 2, 30);
        bench.wait()
    });
    assert!(waits.is_sorted(), "{waits:?}");
    waits.reverse();
    assert!(!waits.is_sorted());
}

/// Adverts end the wait of adverts alone, whichever comes first.
#[test]
fn heartbeats_never_make_a_takeover_later() {
    let mut bench = Bench::one(fast(100));
    bench.advert(0, 2, 150);
    bench.pass(ms(3600));
    beat(&mut bench, 2, 1000);
    assert_eq!(bench.wait(), us(9375));
    bench.advert(0, 2, 150);
    bench.advert(0, 2, 0);
    assert_eq!(bench.wait(), us(609_375));
}

/// An advert is as good a sign of life.
#[test]
fn an_advert_counts_as_a_heartbeat() {
    let mut bench = follower();
    bench.pass(ms(40));
    bench.advert(0, 2, 150);
    assert_eq!(bench.wait(), Duration::from_nanos(48_281_250));
}

#[test]
fn heartbeats_that_end_in_good_order_leave_the_adverts() {
    let mut bench = follower();
    beat(&mut bench, 2, 0);
    assert_eq!(bench.wait(), us(3_609_375));
}

#[test]
fn heartbeats_of_others_are_ignored() {
    // Nobody is followed yet.
    let mut bench = Bench::one(fast(100));
    beat(&mut bench, 2, 30);
    assert_eq!(bench.wait(), us(3_609_375));
    // Somebody else is.
    bench.advert(0, 2, 150);
    beat(&mut bench, 3, 30);
    assert_eq!(bench.wait(), us(3_609_375));
    // Another master has come since.
    let mut bench = follower();
    bench.advert(0, 3, 151);
    assert_eq!(bench.wait(), us(3_609_375));
    beat(&mut bench, 2, 30);
    assert_eq!(bench.wait(), us(3_609_375));
    // Whose priority is too low is no master.
    let mut bench = Bench::one(fast(100));
    bench.advert(0, 2, 50);
    beat(&mut bench, 2, 30);
    assert_eq!(bench.wait(), us(3_609_375));
    // Without the option they mean nothing.
    let mut bench = Bench::one(v2(100));
    bench.advert(0, 2, 150);
    beat(&mut bench, 2, 30);
    assert_eq!(bench.wait(), us(3_609_375));
}

#[test]
fn a_master_sends_heartbeats() {
    let mut bench = Bench::one(fast(100));
    let commands = bench.next();
    assert_eq!(
        short(&commands),
        ["advertise 0 100", "heartbeat 0", "acquire 0", "announce 0 5", "0 Backup -> Master"]
    );
    for _ in 0..99 {
        assert_eq!((bench.wait(), short(&bench.next())), (ms(10), vec!["heartbeat 0".to_owned()]));
    }
    assert_eq!(short(&bench.next()), ["advertise 0 100", "heartbeat 0"]);
}

/// The others must not take the end of a planned end's heartbeats for a dead master.
#[test]
fn a_planned_end_ends_the_heartbeats() {
    let interface = TrackKey::Interface("eth0".to_owned());
    for event in [
        Event::Stop,
        Event::Handover { instance: 0 },
        Event::Tracked { key: interface, value: TrackValue::Down, detail: String::new() },
    ] {
        let mut bench = Bench::master(fast(100));
        let commands = bench.handle(event);
        assert_eq!(short(&commands)[..3], ["last heartbeat 0", "advertise 0 0", "release 0"]);
    }
    let mut bench = Bench::master(fast(100));
    assert_eq!(short(&bench.advert(0, 2, 150))[..3], ["last heartbeat 0", "advertise 0 100", "release 0"]);
    let mut bench = Bench::master(fast(100));
    assert_eq!(short(&bench.handle(Event::Seized)), ["release 0", "0 Master -> Backup"]);
}
