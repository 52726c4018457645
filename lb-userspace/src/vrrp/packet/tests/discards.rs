//! Every reason to throw a message away has a message here that has just that mistake.

use super::*;

fn simple() -> Advert {
    advert(Version::V3, 53, 1000, &["10.66.0.100"])
}

/// `message` with one byte changed and, unless that is the mistake, a right checksum.
fn changed(message: &[u8], at: usize, value: u8, version: Version, endpoints: Endpoints) -> Vec<u8> {
    let mut message = message.to_vec();
    message[at] = value;
    corrected(&mut message, version, endpoints);
    message
}

fn corrected(message: &mut [u8], version: Version, endpoints: Endpoints) {
    let sum =
        checksum::sum(message, checksum::Kind::of(version, Checksum::PseudoHeader, endpoints)).to_be_bytes();
    message[CHECKSUM_AT..HEADER].copy_from_slice(&sum);
}

fn way() -> Endpoints {
    v4([10, 66, 0, 1])
}

fn none() -> Seal {
    seal(Authentication::None)
}

#[track_caller]
fn discarded(message: &[u8], advert: &Advert, seal: &Seal, why: Discard) {
    assert_eq!(decode(message, &expected(advert, seal), way()), Err(why));
}

#[test]
fn version() {
    let message = encode(&simple(), &none(), way(), Stamp::default());
    let other = changed(&message, 0, 0x41, Version::V3, way());
    discarded(&other, &simple(), &none(), Discard::Version);
    let version_2 = Advert { version: Version::V2, ..simple() };
    discarded(&message, &version_2, &none(), Discard::Version);
    let message = encode(&version_2, &none(), way(), Stamp::default());
    discarded(&message, &simple(), &none(), Discard::Version);
    // There is no version 2 over IPv6.
    let over_ipv6 = decode(&message, &expected(&version_2, &none()), v6("fe80::1"));
    assert_eq!(over_ipv6, Err(Discard::Version));
}

#[test]
fn type_() {
    let message = encode(&simple(), &none(), way(), Stamp::default());
    for kind in [0x30, 0x32, 0x3f] {
        let other = changed(&message, 0, kind, Version::V3, way());
        discarded(&other, &simple(), &none(), Discard::Type);
    }
}

#[test]
fn length() {
    for version in [Version::V2, Version::V3] {
        let advert = Advert { version, ..simple() };
        let message = encode(&advert, &none(), way(), Stamp::default());
        for length in 0..message.len() {
            discarded(&message[..length], &advert, &none(), Discard::Length);
        }
        for more in (1..auth::TRAILER).chain([auth::TRAILER + 1]) {
            let long = [message.as_slice(), &vec![0; more]].concat();
            discarded(&long, &advert, &none(), Discard::Length);
        }
        // One address more than there is, one less, and none.
        for count in [2, 0] {
            let other = changed(&message, 3, count, version, way());
            discarded(&other, &advert, &none(), Discard::Length);
        }
    }
    let nobody = Advert { addresses: Vec::new(), ..simple() };
    let message = encode(&nobody, &none(), way(), Stamp::default());
    assert_eq!(message.len(), HEADER);
    discarded(&message, &nobody, &none(), Discard::Length);
}

#[test]
fn checksum() {
    for version in [Version::V2, Version::V3] {
        let advert = Advert { version, ..simple() };
        let message = encode(&advert, &none(), way(), Stamp::default());
        for bit in 0..message.len() * 8 {
            // Version and type, and the count, have reasons of their own.
            if [0, 3].contains(&(bit / 8)) {
                continue;
            }
            let mut other = message.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            discarded(&other, &advert, &none(), Discard::Checksum);
        }
    }
    // Over IPv6, and with a pseudo-header, the addresses count.
    let ipv6 = advert(Version::V3, 53, 1000, &["fe80::100"]);
    let message = encode(&ipv6, &none(), v6("fe80::1"), Stamp::default());
    let from_another = decode(&message, &expected(&ipv6, &none()), v6("fe80::2"));
    assert_eq!(from_another, Err(Discard::Checksum));
    let message = encode(&simple(), &none(), way(), Stamp::default());
    let from_another = decode(&message, &expected(&simple(), &none()), v4([10, 66, 0, 2]));
    assert_eq!(from_another, Err(Discard::Checksum));
}

#[test]
fn vrid() {
    let message = encode(&simple(), &none(), way(), Stamp::default());
    discarded(&message, &Advert { vrid: 54, ..simple() }, &none(), Discard::Vrid);
}

#[test]
fn authentication_type() {
    let version_2 = Advert { version: Version::V2, ..simple() };
    let pass = seal(Authentication::Pass(PASSWORD));
    let open = encode(&version_2, &none(), way(), Stamp::default());
    discarded(&open, &version_2, &pass, Discard::AuthenticationType);
    let closed = encode(&version_2, &pass, way(), Stamp::default());
    discarded(&closed, &version_2, &none(), Discard::AuthenticationType);
    let header = changed(&open, 4, 2, Version::V2, way());
    discarded(&header, &version_2, &none(), Discard::AuthenticationType);
    // Version 3 has no passwords.
    let message = encode(&simple(), &pass, way(), Stamp::default());
    discarded(&message, &simple(), &pass, Discard::AuthenticationType);
}

#[test]
fn authentication_of_version_2() {
    let advert = Advert { version: Version::V2, ..simple() };
    for at in 0..8 {
        let mut password = PASSWORD;
        password[at] ^= 0x20;
        let message = encode(&advert, &seal(Authentication::Pass(password)), way(), Stamp::default());
        let ours = seal(Authentication::Pass(PASSWORD));
        discarded(&message, &advert, &ours, Discard::Authentication);
    }
    // Without a password nobody looks at the data.
    let message = encode(&advert, &none(), way(), Stamp::default());
    let last = message.len() - 1;
    let message = changed(&message, last, 7, Version::V2, way());
    assert!(decode(&message, &expected(&advert, &none()), way()).is_ok());
}

#[test]
fn authentication_by_hmac() {
    for version in [Version::V2, Version::V3] {
        let advert = Advert { version, ..simple() };
        let enforce = hmac_seal(HmacMode::Enforce);
        let message = encode(&advert, &enforce, way(), Stamp { seconds: 7, ..Stamp::default() });
        let trailer_at = message.len() - auth::TRAILER;
        assert!(decode(&message, &expected(&advert, &enforce), way()).is_ok());
        for at in trailer_at..message.len() {
            let mut other = message.clone();
            other[at] ^= 0x80;
            let why = match at - trailer_at {
                // Type and reserved.
                0 | 2 | 3 => Discard::AuthenticationType,
                // The key, the stamp, the code.
                _ => Discard::Authentication,
            };
            discarded(&other, &advert, &enforce, why);
        }
        for at in [2, 4, 5, HEADER] {
            let (signed, trailer) = message.split_at(trailer_at);
            // In version 2 byte 4 is the authentication's type.
            if version == Version::V2 && at == 4 {
                continue;
            }
            let mut signed = signed.to_vec();
            signed[at] ^= 1;
            corrected(&mut signed, version, way());
            discarded(&[&signed, trailer].concat(), &advert, &enforce, Discard::Authentication);
        }
    }
}

#[test]
fn the_source_is_signed() {
    let enforce = Seal { checksum: Checksum::Rfc9568, ..hmac_seal(HmacMode::Enforce) };
    let message = encode(&simple(), &enforce, way(), Stamp::default());
    let from_another = decode(&message, &expected(&simple(), &enforce), v4([10, 66, 0, 2]));
    assert_eq!(from_another, Err(Discard::Authentication));
}

#[test]
fn modes_of_auth_hmac() {
    let modes = [HmacMode::ReceiveOnly, HmacMode::Permissive, HmacMode::Enforce];
    let stamp = Stamp { seconds: 7, fraction: 8, counter: 9 };
    for (sender, is_sealed) in [
        (none(), false),
        (hmac_seal(HmacMode::ReceiveOnly), false),
        (hmac_seal(HmacMode::Permissive), true),
        (hmac_seal(HmacMode::Enforce), true),
    ] {
        for version in [Version::V2, Version::V3] {
            let advert = Advert { version, ..simple() };
            let message = encode(&advert, &sender, way(), stamp);
            for mode in modes {
                let result = decode(&message, &expected(&advert, &hmac_seal(mode)), way());
                let what = (&sender, mode, version);
                if is_sealed {
                    assert_eq!(result.expect("it is right").stamp, Some((1, stamp)), "{what:?}");
                } else if mode == HmacMode::Enforce {
                    assert_eq!(result, Err(Discard::AuthenticationType), "{what:?}");
                } else {
                    assert_eq!(result.expect("it is right").stamp, None, "{what:?}");
                }
            }
            // Who knows nothing of trailers takes none.
            let result = decode(&message, &expected(&advert, &none()), way());
            assert_eq!(result.err(), is_sealed.then_some(Discard::AuthenticationType), "{sender:?}");
        }
    }
}

#[test]
fn a_wrong_code_is_never_taken_whatever_the_mode() {
    let mut message = encode(&simple(), &hmac_seal(HmacMode::Enforce), way(), Stamp::default());
    *message.last_mut().expect("not empty") ^= 1;
    for mode in [HmacMode::ReceiveOnly, HmacMode::Permissive, HmacMode::Enforce] {
        discarded(&message, &simple(), &hmac_seal(mode), Discard::Authentication);
    }
}

#[test]
fn keys_are_found_by_their_number() {
    let seal = |keys: &[(u8, &[u8])]| {
        let keys = keys.iter().map(|(id, key)| (*id, key.to_vec())).collect();
        let settings = HmacSettings { keys, mode: HmacMode::Enforce };
        Seal { authentication: Authentication::Hmac(settings), checksum: Checksum::PseudoHeader }
    };
    let (old, new): (&[u8], &[u8]) = (&[1; 32], &[2; 100]);
    let from = |keys: &[(u8, &[u8])]| encode(&simple(), &seal(keys), way(), Stamp::default());
    let ours = seal(&[(2, new), (1, old)]);
    let decoded = |message: Vec<u8>, ours: &Seal| {
        decode(&message, &expected(&simple(), ours), way()).map(|received| received.stamp.expect("sealed").0)
    };
    assert_eq!(decoded(from(&[(1, old)]), &ours), Ok(1));
    assert_eq!(decoded(from(&[(2, new), (1, old)]), &ours), Ok(2));
    assert_eq!(decoded(from(&[(3, old)]), &ours), Err(Discard::Authentication));
    assert_eq!(decoded(from(&[(1, new)]), &ours), Err(Discard::Authentication));
}

#[test]
fn reserved_bits_mean_nothing() {
    let message = encode(&simple(), &none(), way(), Stamp::default());
    let other = changed(&message, 4, message[4] | 0xf0, Version::V3, way());
    let decoded = decode(&other, &expected(&simple(), &none()), way());
    assert_eq!(decoded.expect("it is right").advert, simple());
}

#[test]
fn words() {
    let words: std::collections::BTreeSet<_> = Discard::ALL.into_iter().map(Discard::as_str).collect();
    assert_eq!(words.len(), Discard::ALL.len());
    assert!(Discard::ALL.is_sorted(), "the order is that of the checks");
    assert!(words.iter().all(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
    assert_eq!(Discard::AuthenticationType.as_str(), "authentication-type");
}
