use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

mod discards;
mod properties;
mod vectors;

const PASSWORD: [u8; 8] = *b"secret12";

fn key() -> Vec<u8> {
    (0..32).collect()
}

fn hmac_seal(mode: HmacMode) -> Seal {
    let settings = HmacSettings { keys: vec![(1, key())], mode };
    Seal { authentication: Authentication::Hmac(settings), checksum: Checksum::PseudoHeader }
}

fn seal(authentication: Authentication) -> Seal {
    Seal { authentication, checksum: Checksum::PseudoHeader }
}

fn v4(source: [u8; 4]) -> Endpoints {
    Endpoints { source: source.into(), destination: GROUP_V4.into() }
}

fn v6(source: &str) -> Endpoints {
    let source: Ipv6Addr = source.parse().expect("an address");
    Endpoints { source: source.into(), destination: GROUP_V6.into() }
}

fn expected<'a>(advert: &Advert, seal: &'a Seal) -> Expectation<'a> {
    Expectation { version: advert.version, vrid: advert.vrid, seal }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|digit| u8::try_from(digit).expect("4 bits"))
        .collect();
    digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect()
}

fn advert(version: Version, vrid: u8, interval_ms: u32, addresses: &[&str]) -> Advert {
    let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
    Advert { version, vrid, priority: 150, interval_ms, addresses }
}
