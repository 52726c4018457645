//! VRRP messages: whatever comes, it is judged; what is taken can be said again.

#![no_main]

use std::net::IpAddr;

use lb_userspace::{
    config::vrrp::{Authentication, Checksum, HmacMode, HmacSettings, Version},
    vrrp::packet::{
        Advert, Endpoints, Expectation, GROUP_V4, GROUP_V6, Receiver, ReplayGuard, Seal, Stamp, encode,
        peek_vrid, receive, without_ipv4_header,
    },
};
use libfuzzer_sys::fuzz_target;

// How the receiver is set up and whether the checksum is put right (one byte), the message.
fuzz_target!(|bytes: &[u8]| {
    let Some((setup, message)) = bytes.split_first() else { return };
    let _ = without_ipv4_header(message);
    let is_ipv6 = setup & 1 != 0;
    let version = if setup & 2 != 0 { Version::V2 } else { Version::V3 };
    let seal = seal(setup >> 2 & 7);
    let mut message = message.to_vec();
    if setup & 32 != 0 {
        put_right(&mut message);
    }
    let (source, destination) = way(is_ipv6);
    let endpoints = Endpoints { source, destination };
    let vrid = peek_vrid(&message).unwrap_or_default();
    let expected = Expectation { version, vrid, seal: &seal };
    let receiver = Receiver { expected, unicast_peers: &[], check_unicast_source: false };
    let mut replays = ReplayGuard::default();
    let Ok(received) = receive(&message, 255, endpoints, &receiver, &mut replays) else { return };
    assert!(received.advert.interval_ms > 0 && !received.advert.addresses.is_empty());
    if received.stamp.is_some() {
        receive(&message, 255, endpoints, &receiver, &mut replays).expect_err("a repetition");
    }
    let stamp = received.stamp.map_or(Stamp { seconds: 1, ..Stamp::default() }, |(_, stamp)| stamp);
    let again = encode(&received.advert, &seal, endpoints, stamp);
    let said = receive(&again, 255, endpoints, &receiver, &mut ReplayGuard::default());
    assert_eq!(said.map(|said| said.advert), Ok::<Advert, _>(received.advert));
});

fn seal(number: u8) -> Seal {
    let hmac = |mode| Authentication::Hmac(HmacSettings { keys: vec![(1, (0..32).collect())], mode });
    let authentication = match number & 3 {
        0 => Authentication::None,
        1 => Authentication::Pass(*b"secret12"),
        2 => hmac(HmacMode::Permissive),
        _ => hmac(HmacMode::Enforce),
    };
    let checksum = if number & 4 != 0 { Checksum::Rfc9568 } else { Checksum::PseudoHeader };
    Seal { authentication, checksum }
}

fn way(is_ipv6: bool) -> (IpAddr, IpAddr) {
    if is_ipv6 {
        ([0xfe80, 0, 0, 0, 0, 0, 0, 0x10].into(), GROUP_V6.into())
    } else {
        ([198, 51, 100, 10].into(), GROUP_V4.into())
    }
}

/// RFC 1071, over the message without a pseudo-header and without a trailer.
fn put_right(message: &mut [u8]) {
    let Some(count) = message.get(3) else { return };
    let data = if message[0] >> 4 == 2 { 8 } else { 0 };
    let length = 8 + usize::from(*count) * 4 + data;
    let Some(covered) = message.get_mut(..length) else { return };
    covered[6..8].fill(0);
    let words = covered.as_chunks::<2>().0.iter();
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    while sum >> 16 != 0 {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    covered[6..8].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
