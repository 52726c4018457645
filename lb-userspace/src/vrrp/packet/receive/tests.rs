use std::net::IpAddr;

use super::*;
use crate::{
    config::vrrp::{Authentication, Checksum, HmacMode, HmacSettings, Version},
    vrrp::packet::{Advert, GROUP_V4, GROUP_V6, Seal, Stamp, encode},
};

const US: [u8; 4] = [10, 0, 0, 2];
const PEER: [u8; 4] = [10, 0, 0, 1];

fn advert() -> Advert {
    Advert {
        version: Version::V3,
        vrid: 7,
        priority: 100,
        interval_ms: 1000,
        addresses: vec![[10, 0, 0, 50].into()],
    }
}

fn open() -> Seal {
    Seal { authentication: Authentication::None, checksum: Checksum::PseudoHeader }
}

fn sealed() -> Seal {
    let settings = HmacSettings { keys: vec![(1, vec![7; 32])], mode: HmacMode::Enforce };
    Seal { authentication: Authentication::Hmac(settings), ..open() }
}

fn from(source: [u8; 4], destination: impl Into<IpAddr>) -> Endpoints {
    Endpoints { source: source.into(), destination: destination.into() }
}

fn peer(min_ttl: Option<u8>, max_ttl: Option<u8>) -> UnicastPeer {
    UnicastPeer { address: PEER.into(), min_ttl, max_ttl }
}

/// What an instance with these peers says to an advert that came this way.
fn judged(peers: &[UnicastPeer], check_unicast_source: bool, ttl: u8, way: Endpoints) -> Option<Discard> {
    let seal = open();
    let expected = Expectation { version: Version::V3, vrid: 7, seal: &seal };
    let receiver = Receiver { expected, unicast_peers: peers, check_unicast_source };
    let message = encode(&advert(), &seal, way, Stamp::default());
    receive(&message, ttl, way, &receiver, &mut ReplayGuard::default()).err()
}

#[test]
fn what_came_to_the_group_is_from_this_link() {
    let way = from(PEER, GROUP_V4);
    assert_eq!(judged(&[], false, 255, way), None);
    for ttl in [0, 1, 64, 254] {
        assert_eq!(judged(&[], false, ttl, way), Some(Discard::Ttl), "{ttl}");
    }
    let ipv6 = Endpoints { source: "fe80::1".parse().expect("an address"), destination: GROUP_V6.into() };
    let seal = open();
    let receiver = Receiver {
        expected: Expectation { version: Version::V3, vrid: 7, seal: &seal },
        unicast_peers: &[],
        check_unicast_source: false,
    };
    let advert = Advert { addresses: vec!["fe80::50".parse().expect("an address")], ..advert() };
    let message = encode(&advert, &seal, ipv6, Stamp::default());
    let judge = |hops| receive(&message, hops, ipv6, &receiver, &mut ReplayGuard::default()).err();
    assert_eq!((judge(255), judge(254)), (None, Some(Discard::Ttl)));
}

#[test]
fn peers_have_limits_only_where_they_are_given() {
    let way = from(PEER, US);
    for (limits, passing, failing) in [
        (peer(None, None), &[0, 1, 64, 254, 255][..], &[][..]),
        (peer(Some(255), None), &[255], &[0, 254]),
        (peer(Some(62), Some(64)), &[62, 63, 64], &[0, 61, 65, 255]),
        (peer(None, Some(1)), &[0, 1], &[2, 255]),
    ] {
        for (ttls, wanted) in [(passing, None), (failing, Some(Discard::Ttl))] {
            for ttl in ttls {
                for check in [false, true] {
                    assert_eq!(judged(&[limits], check, *ttl, way), wanted, "{limits:?} {ttl}");
                }
            }
        }
    }
}

#[test]
fn a_stranger_is_no_peer_where_that_is_asked() {
    let way = from([10, 0, 0, 3], US);
    let peers = [peer(Some(255), None)];
    assert_eq!(judged(&peers, false, 3, way), None);
    assert_eq!(judged(&peers, true, 255, way), Some(Discard::UnknownPeer));
}

#[test]
fn the_group_and_peers_are_not_mixed() {
    let peers = [peer(None, None)];
    for check in [false, true] {
        assert_eq!(judged(&peers, check, 255, from(PEER, GROUP_V4)), Some(Discard::Destination));
        assert_eq!(judged(&[], check, 255, from(PEER, US)), Some(Discard::Destination));
    }
}

#[test]
fn an_interval_of_zero_is_none() {
    let way = from(PEER, GROUP_V4);
    let seal = open();
    for (version, interval_ms, wanted) in [
        (Version::V2, 0, Some(Discard::Interval)),
        (Version::V3, 0, Some(Discard::Interval)),
        (Version::V3, 10, None),
    ] {
        let message = encode(&Advert { version, interval_ms, ..advert() }, &seal, way, Stamp::default());
        let expected = Expectation { version, vrid: 7, seal: &seal };
        let receiver = Receiver { expected, unicast_peers: &[], check_unicast_source: false };
        let received = receive(&message, 255, way, &receiver, &mut ReplayGuard::default());
        assert_eq!(received.err(), wanted, "{version} {interval_ms}");
    }
}

#[test]
fn a_repetition_is_discarded() {
    let way = from(PEER, GROUP_V4);
    let seal = sealed();
    let receiver = Receiver {
        expected: Expectation { version: Version::V3, vrid: 7, seal: &seal },
        unicast_peers: &[],
        check_unicast_source: false,
    };
    let mut guard = ReplayGuard::default();
    let message = |seconds| encode(&advert(), &seal, way, Stamp { seconds, ..Stamp::default() });
    let mut judge = |message: &[u8]| receive(message, 255, way, &receiver, &mut guard).err();
    assert_eq!(judge(&message(5)), None);
    assert_eq!(judge(&message(5)), Some(Discard::Replay));
    assert_eq!(judge(&message(4)), Some(Discard::Replay));
    // A stamp without the key moves nothing.
    let mut forged = message(9);
    *forged.last_mut().expect("not empty") ^= 1;
    assert_eq!(judge(&forged), Some(Discard::Authentication));
    assert_eq!(judge(&message(6)), None);
}

/// With several mistakes at once the first in the order of [`Discard`] is the one that is told.
#[test]
fn the_order_of_the_checks() {
    let way = from(PEER, GROUP_V4);
    let seal = sealed();
    let expected = Expectation { version: Version::V3, vrid: 7, seal: &seal };
    let peers = [UnicastPeer { address: [10, 0, 0, 9].into(), min_ttl: None, max_ttl: None }];
    let receiver = Receiver { expected, unicast_peers: &peers, check_unicast_source: true };
    let to_us = from(PEER, US);
    let mut guard = ReplayGuard::default();
    // Wrong in everything: each step puts one thing right.
    let other = Seal { authentication: Authentication::None, ..open() };
    let mut bytes = vec![0x42, 8, 100, 1, 0, 0, 0, 0];
    let mut told = Vec::new();
    let group = Receiver { unicast_peers: &[], ..receiver.clone() };
    told.push(receive(&bytes, 1, way, &group, &mut guard));
    told.push(receive(&bytes, 1, way, &receiver, &mut guard));
    told.push(receive(&bytes, 1, to_us, &receiver, &mut guard));
    let receiver = Receiver { check_unicast_source: false, ..receiver };
    told.push(receive(&bytes, 1, to_us, &receiver, &mut guard));
    bytes[0] = 0x32;
    told.push(receive(&bytes, 1, to_us, &receiver, &mut guard));
    bytes[0] = 0x31;
    told.push(receive(&bytes, 1, to_us, &receiver, &mut guard));
    bytes.extend([10, 0, 0, 50]);
    told.push(receive(&bytes, 1, to_us, &receiver, &mut guard));
    let zero = |vrid| Advert { vrid, interval_ms: 0, ..advert() };
    told.push(receive(&encode(&zero(8), &other, to_us, Stamp::default()), 1, to_us, &receiver, &mut guard));
    told.push(receive(&encode(&zero(7), &other, to_us, Stamp::default()), 1, to_us, &receiver, &mut guard));
    let right = encode(&zero(7), &seal, to_us, Stamp { seconds: 5, ..Stamp::default() });
    let mut forged = right.clone();
    *forged.last_mut().expect("not empty") ^= 1;
    told.push(receive(&forged, 1, to_us, &receiver, &mut guard));
    let mut used = guard.clone();
    used.accept(PEER.into(), 1, Stamp { seconds: 5, ..Stamp::default() }).expect("the first");
    told.push(receive(&right, 1, to_us, &receiver, &mut used));
    told.push(receive(&right, 1, to_us, &receiver, &mut guard));
    let told: Vec<Discard> = told.into_iter().map(|result| result.expect_err("all are wrong")).collect();
    assert_eq!(told, Discard::ALL);
}
