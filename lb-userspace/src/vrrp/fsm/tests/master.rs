//! MASTER: adverts, rivals, gratuitous ARP.

use super::*;

/// RFC 9568 6.4.3: an advert at each Adver_Timer. In step: lateness is made up for.
#[test]
fn rfc_6_4_3_adverts_at_the_interval() {
    let mut bench = Bench::master(v3(100));
    let begin = bench.now;
    for _ in 0..20 {
        assert_eq!(short(&bench.next()), ["advertise 0 100"]);
    }
    assert_eq!(bench.now - begin, ms(2000));
    bench.pass(ms(130));
    assert_eq!(short(&bench.handle(Event::Timeout)), ["advertise 0 100"]);
    assert_eq!(bench.wait(), ms(70));
    // What was missed altogether is not sent later.
    bench.pass(ms(750));
    assert_eq!(short(&bench.handle(Event::Timeout)), ["advertise 0 100"]);
    assert_eq!(bench.wait(), ms(100));
}

/// RFC 9568 6.4.3: priority 0 is answered at once, and the timer begins anew.
#[test]
fn rfc_6_4_3_priority_0_is_answered() {
    let mut bench = Bench::master(v3(100));
    bench.pass(ms(60));
    assert_eq!(short(&bench.advert(0, 2, 0)), ["advertise 0 100"]);
    assert_eq!((bench.wait(), bench.state(0)), (ms(100), State::Master));
}

/// RFC 9568 6.4.3: a higher priority, or the same with the higher address, leads to BACKUP. No word of priority 0.
#[test]
fn rfc_6_4_3_a_better_master_leads_to_backup() {
    for (from, priority) in [(2, 101), (2, 100), (255, 100)] {
        let mut bench = Bench::master(v3(100));
        assert_eq!(
            short(&bench.advert_every(0, from, priority, 50)),
            ["advertise 0 100", "release 0", "0 Master -> Backup"]
        );
        // RFC 9568 6.4.3: with the interval of the advert.
        assert_eq!(bench.wait(), us(150_000) + Duration::from_nanos(30_468_750));
        let view = bench.machine.view(0);
        assert_eq!(
            (view.master, view.master_priority, view.released_master),
            (Some(host(from)), Some(priority), 1)
        );
    }
}

/// RFC 9568 6.4.3: addresses are compared as unsigned numbers; 192.0.2.200 is higher than 192.0.2.1.
#[test]
fn rfc_6_4_3_equal_priorities_are_decided_by_the_address() {
    let mut bench = Bench::with(Settings { instances: vec![v3(100)], groups: Vec::new() });
    bench.handle(Event::Source { instance: 0, address: Some(host(127)) });
    bench.handle(Event::Start);
    bench.until_master();
    bench.advert(0, 126, 100);
    assert_eq!(bench.state(0), State::Master);
    bench.advert(0, 128, 100);
    assert_eq!(bench.state(0), State::Backup);
    assert_eq!(bench.reason(0), "192.0.2.128 has the same priority 100 and the higher address");
}

/// RFC 9568 6.4.3: a lower priority is discarded and answered at once; keepalived's `garp_lower_prio_repeat` and `_delay`.
#[test]
fn rfc9568_6_4_3_lower_adverts_are_answered_with_gratuitous_arp() {
    let garp =
        Garp { lower_prio_repeat: 3, lower_prio_delay: ms(2000), delay: Duration::ZERO, ..Garp::default() };
    let mut bench = Bench::master(VrrpInstance { garp, ..v2(100) });
    bench.pass(ms(400));
    let commands = bench.advert(0, 2, 99);
    assert_eq!(short(&commands), ["advertise 0 100", "announce 0 3", "discarded 0 LowerPriority"]);
    // The timer begins anew.
    assert_eq!(bench.wait(), ms(1000));
    assert_eq!(short(&bench.next()), ["advertise 0 100"]);
    let after = [bench.next(), bench.next()].concat();
    assert_eq!(short(&after), ["advertise 0 100", "announce 0 3", "advertise 0 100"]);
}

/// A flood of lower adverts is no flood of gratuitous ARPs: they come once in an interval.
#[test]
fn lower_adverts_are_answered_with_gratuitous_arp_once_in_an_interval() {
    let mut bench = Bench::master(v2(100));
    assert_eq!(short(&bench.advert(0, 2, 99)).len(), 3);
    bench.pass(ms(999));
    assert_eq!(short(&bench.advert(0, 2, 99)), ["advertise 0 100", "discarded 0 LowerPriority"]);
    bench.pass(ms(1));
    assert_eq!(short(&bench.advert(0, 2, 99)).len(), 3);
}

/// keepalived's `garp_lower_prio_repeat 0`.
#[test]
fn keepalived_garp_lower_prio_repeat_can_be_none() {
    let garp = Garp { lower_prio_repeat: 0, delay: Duration::ZERO, ..Garp::default() };
    let mut bench = Bench::master(VrrpInstance { garp, ..v2(100) });
    assert_eq!(short(&bench.advert(0, 2, 99)), ["advertise 0 100", "discarded 0 LowerPriority"]);
    for _ in 0..10 {
        assert_eq!(short(&bench.next()), ["advertise 0 100"]);
    }
}

/// keepalived's `garp_master_repeat`, `garp_master_delay`: 5 at once, 5 more after 5 s, then none.
#[test]
fn keepalived_garp_master_delay() {
    let mut bench = Bench::master(v2(100));
    let became = bench.now;
    let mut bursts = Vec::new();
    while bench.now < became + ms(20_000) {
        let commands = short(&bench.next());
        bursts.extend(commands.contains(&"announce 0 5".to_owned()).then(|| bench.now - became));
    }
    assert_eq!(bursts, [ms(5000)]);
}

/// keepalived's `garp_master_refresh`, `garp_master_refresh_repeat`.
#[test]
fn keepalived_garp_master_refresh() {
    let garp = Garp { delay: Duration::ZERO, refresh: ms(2500), refresh_repeat: 2, ..Garp::default() };
    let mut bench = Bench::master(VrrpInstance { garp, ..v2(100) });
    let became = bench.now;
    let mut bursts = Vec::new();
    while bench.now < became + ms(8000) {
        let commands = short(&bench.next());
        bursts.extend(commands.contains(&"announce 0 2".to_owned()).then(|| bench.now - became));
    }
    assert_eq!(bursts, [ms(2500), ms(5000), ms(7500)]);
}

/// RFC 9568 6.4.3: two owners of priority 255. The lower address yields; an operator hears of it, once.
#[test]
fn rfc_6_4_3_two_owners_are_decided_by_the_address() {
    let mut bench = Bench::one(v2(255));
    bench.handle(Event::Source { instance: 0, address: Some(host(50)) });
    let commands = bench.advert(0, 2, 255);
    let expected = ["advertise 0 255", "announce 0 5", "notice 0", "discarded 0 OwnAddress"];
    assert_eq!(sorted(&commands), {
        let mut list = expected;
        list.sort_unstable();
        list
    });
    assert_eq!(short(&bench.advert(0, 2, 255)), ["advertise 0 255", "discarded 0 OwnAddress"]);
    assert_eq!(
        short(&bench.advert(0, 60, 255)),
        ["advertise 0 255", "release 0", "notice 0", "0 Master -> Backup"]
    );
}

fn sorted(commands: &[Command]) -> Vec<String> {
    let mut list = short(commands);
    list.sort_unstable();
    list
}

/// A new priority of a master is said at once: others may have to take over.
#[test]
fn a_new_priority_is_advertised_at_once() {
    let key = TrackKey::Script("s".to_owned());
    let tracks = vec![Track { key: key.clone(), weight: 10 }];
    let mut bench = Bench::master(VrrpInstance { tracks, ..v2(100) });
    bench.pass(ms(500));
    assert_eq!(short(&bench.track(key.clone(), TrackValue::Up)), ["advertise 0 110"]);
    assert_eq!(bench.wait(), ms(1000));
    assert_eq!(short(&bench.track(key, TrackValue::Up)), [""; 0]);
}
