//! Adverts that are well-formed, and none of an instance's business (RFC 3768 and RFC 9568 7.1).

use super::*;

fn discarded(reason: Discard) -> Vec<String> {
    vec![format!("discarded 0 {reason:?}")]
}

/// RFC 3768 7.1: the list must be ours. As a set: keepalived rejects another list, not another order.
#[test]
fn rfc3768_7_1_the_address_list_is_compared_as_a_set() {
    let settings = VrrpInstance { addresses: [101, 100, 102].map(virtual_address).to_vec(), ..v2(100) };
    for mut bench in [Bench::one(settings.clone()), Bench::master(settings)] {
        let state = bench.state(0);
        for list in [&[100][..], &[], &[100, 101, 103], &[100, 101, 102, 103]] {
            let addresses = list.iter().map(|&last| host(last)).collect();
            let advert = Advert { priority: 200, addresses, ..bench.like_ours(0) };
            let commands = bench.handle(Event::Advert { instance: 0, source: host(2), advert });
            assert_eq!((short(&commands), bench.state(0)), (discarded(Discard::AddressList), state));
        }
        let addresses = [102, 100, 101].map(host).to_vec();
        let advert = Advert { priority: 200, addresses, ..bench.like_ours(0) };
        bench.handle(Event::Advert { instance: 0, source: host(2), advert });
        assert_eq!(bench.machine.view(0).master, Some(host(2)));
    }
}

/// keepalived's `skip_check_adv_addr`: a backup looks at the list of a master once, and again when the master is another.
#[test]
fn keepalived_skip_check_adv_addr() {
    for skip_check_adv_addr in [false, true] {
        let mut bench = Bench::one(VrrpInstance { skip_check_adv_addr, ..v2(100) });
        let other = |bench: &mut Bench, from| {
            let advert = Advert { priority: 200, addresses: vec![host(99)], ..bench.like_ours(0) };
            short(&bench.handle(Event::Advert { instance: 0, source: host(from), advert }))
        };
        assert_eq!(other(&mut bench, 2), discarded(Discard::AddressList));
        bench.advert(0, 2, 200);
        let expected = if skip_check_adv_addr { vec![] } else { discarded(Discard::AddressList) };
        assert_eq!(other(&mut bench, 2), expected);
        assert_eq!(other(&mut bench, 3), discarded(Discard::AddressList));
        // A master always looks.
        bench.until_master();
        assert_eq!(other(&mut bench, 2), discarded(Discard::AddressList));
    }
}

/// RFC 3768 7.1: version 2 discards another interval. Version 3 does not.
#[test]
fn rfc3768_7_1_the_interval_must_be_ours() {
    for mut bench in [Bench::one(v2(100)), Bench::master(v2(100))] {
        assert_eq!(short(&bench.advert_every(0, 2, 200, 2000)), discarded(Discard::Interval));
        assert_ne!(bench.machine.view(0).master, Some(host(2)));
    }
    let mut bench = Bench::one(v3(100));
    assert_eq!(short(&bench.advert_every(0, 2, 200, 2000)), [""; 0]);
}

/// An echo of our own adverts, or somebody with our address, says nothing of a master.
#[test]
fn adverts_from_our_own_address_are_discarded() {
    for mut bench in [Bench::one(v2(100)), Bench::master(v2(100))] {
        for priority in [0, 100, 200] {
            assert_eq!(short(&bench.advert(0, 1, priority)), discarded(Discard::OwnAddress));
        }
    }
}

/// RFC 9568 6.4.1: Initialize only waits. keepalived: so does FAULT.
#[test]
fn rfc_6_4_1_init_and_fault_do_not_listen() {
    let mut bench = Bench::with(Settings { instances: vec![v2(100)], groups: Vec::new() });
    assert_eq!(short(&bench.advert(0, 2, 200)), discarded(Discard::NotListening));
    bench.handle(Event::Start);
    bench.handle(Event::Source { instance: 0, address: None });
    assert_eq!(bench.state(0), State::Fault);
    assert_eq!(short(&bench.advert(0, 2, 200)), discarded(Discard::NotListening));
}

/// Events for instances that are no more (a datagram that was under way at a reload) do nothing.
#[test]
fn events_for_unknown_instances_do_nothing() {
    let mut bench = Bench::one(v2(100));
    let advert = bench.like_ours(0);
    for event in [
        Event::Advert { instance: 7, source: host(2), advert },
        Event::Heartbeat { instance: 7, source: host(2), lasts: ms(30) },
        Event::Source { instance: 7, address: None },
        Event::Handover { instance: 7 },
        Event::Resume { instance: 7 },
        Event::Tracked {
            key: TrackKey::File("no".to_owned()),
            value: TrackValue::Down,
            detail: String::new(),
        },
    ] {
        assert_eq!(bench.handle(event), []);
    }
}
