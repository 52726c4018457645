use proptest::{collection::vec, option, prelude::*};

use super::*;

fn authentication(version: Version) -> BoxedStrategy<Authentication> {
    let mode = prop_oneof![Just(HmacMode::ReceiveOnly), Just(HmacMode::Permissive), Just(HmacMode::Enforce)];
    let hmac = (vec((any::<u8>(), vec(any::<u8>(), 1..80)), 1..4), mode)
        .prop_map(|(keys, mode)| Authentication::Hmac(HmacSettings { keys, mode }));
    match version {
        Version::V2 => {
            prop_oneof![Just(Authentication::None), any::<[u8; 8]>().prop_map(Authentication::Pass), hmac]
                .boxed()
        }
        Version::V3 => prop_oneof![Just(Authentication::None), hmac].boxed(),
    }
}

fn seals(version: Version) -> impl Strategy<Value = Seal> {
    let checksum = prop_oneof![Just(Checksum::PseudoHeader), Just(Checksum::Rfc9568)];
    (authentication(version), checksum)
        .prop_map(|(authentication, checksum)| Seal { authentication, checksum })
}

fn stamps() -> impl Strategy<Value = Stamp> {
    any::<(u32, u16, u16)>().prop_map(|(seconds, fraction, counter)| Stamp { seconds, fraction, counter })
}

fn addresses(is_ipv6: bool) -> BoxedStrategy<IpAddr> {
    if is_ipv6 {
        any::<Ipv6Addr>().prop_map(IpAddr::from).boxed()
    } else {
        any::<Ipv4Addr>().prop_map(IpAddr::from).boxed()
    }
}

fn endpoints(is_ipv6: bool) -> impl Strategy<Value = Endpoints> {
    (addresses(is_ipv6), addresses(is_ipv6))
        .prop_map(|(source, destination)| Endpoints { source, destination })
}

fn versions() -> impl Strategy<Value = (Version, bool)> {
    prop_oneof![Just((Version::V2, false)), Just((Version::V3, false)), Just((Version::V3, true))]
}

/// What the configuration allows, and with it intervals of zero.
fn adverts(version: Version, is_ipv6: bool) -> impl Strategy<Value = Advert> {
    let interval = match version {
        Version::V2 => (0..=255_u32).prop_map(|seconds| seconds * 1000).boxed(),
        Version::V3 => (0..=4095_u32).prop_map(|hundredths| hundredths * 10).boxed(),
    };
    (any::<u8>(), any::<u8>(), interval, vec(addresses(is_ipv6), 1..=255)).prop_map(
        move |(vrid, priority, interval_ms, addresses)| Advert {
            version,
            vrid,
            priority,
            interval_ms,
            addresses,
        },
    )
}

fn messages() -> impl Strategy<Value = (Advert, Seal, Endpoints, Stamp)> {
    versions().prop_flat_map(|(version, is_ipv6)| {
        (adverts(version, is_ipv6), seals(version), endpoints(is_ipv6), stamps())
    })
}

fn is_signed(seal: &Seal) -> Option<u8> {
    match &seal.authentication {
        Authentication::Hmac(settings) if settings.mode != HmacMode::ReceiveOnly => Some(settings.keys[0].0),
        _ => None,
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded((advert, seal, endpoints, stamp) in messages()) {
        let message = encode(&advert, &seal, endpoints, stamp);
        let has_two = advert.version == Version::V3 && endpoints.source.is_ipv4();
        let received = decode(&message, &expected(&advert, &seal), endpoints);
        let wanted = Received {
            checksum: has_two.then_some(seal.checksum),
            stamp: is_signed(&seal).map(|id| (id, stamp)),
            advert,
        };
        prop_assert_eq!(received, Ok(wanted));
    }

    #[test]
    fn headers_come_off_again(
        message in vec(any::<u8>(), 0..1100),
        source in any::<Ipv4Addr>(),
        destination in any::<Ipv4Addr>(),
        id in any::<u16>(),
    ) {
        let packet = with_ipv4_header(&message, source, destination, id);
        let endpoints = Endpoints { source: source.into(), destination: destination.into() };
        prop_assert_eq!(without_ipv4_header(&packet), Some((TTL, endpoints, message.as_slice())));
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in vec(any::<u8>(), 0..200),
        (version, _) in versions(),
        seal in versions().prop_flat_map(|(version, _)| seals(version)),
        way in prop_oneof![endpoints(false), endpoints(true)],
        ttl in any::<u8>(),
    ) {
        let _ = without_ipv4_header(&bytes);
        let vrid = peek_vrid(&bytes).unwrap_or_default();
        let expected = Expectation { version, vrid, seal: &seal };
        let decoded = decode(&bytes, &expected, way);
        prop_assert!(decoded.is_err() || bytes.len() >= HEADER + 4);
        let receiver = Receiver { expected, unicast_peers: &[], check_unicast_source: true };
        let _ = receive(&bytes, ttl, way, &receiver, &mut ReplayGuard::default());
    }

    /// Bytes that get past the first checks: a header with the right version, length and checksum.
    #[test]
    fn nearly_right_bytes_do_not_either(
        (advert, seal, endpoints, stamp) in messages(),
        ours in versions().prop_flat_map(|(version, _)| seals(version)),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        length in option::of(any::<prop::sample::Index>()),
        fix in any::<bool>(),
    ) {
        let mut message = encode(&advert, &seal, endpoints, stamp);
        for (at, value) in changes {
            let at = at.index(message.len());
            message[at] = value;
        }
        if let Some(length) = length {
            message.truncate(length.index(message.len()));
        }
        if fix && message.len() >= HEADER {
            let kind = checksum::Kind::of(advert.version, seal.checksum, endpoints);
            let sum = checksum::sum(&message, kind);
            message[CHECKSUM_AT..HEADER].copy_from_slice(&sum.to_be_bytes());
        }
        if let Ok(received) = decode(&message, &expected(&advert, &ours), endpoints) {
            // What is right can be said again.
            let stamp = received.stamp.map_or(Stamp::default(), |(_, stamp)| stamp);
            let plain = Seal { authentication: Authentication::None, checksum: Checksum::PseudoHeader };
            let again = encode(&received.advert, &plain, endpoints, stamp);
            let received_again = decode(&again, &expected(&advert, &plain), endpoints);
            prop_assert_eq!(received_again.map(|again| again.advert), Ok(received.advert));
        }
    }

    /// Encoding takes everything, also what the configuration rules out.
    #[test]
    fn whatever_is_encoded_has_a_right_form(
        mut advert in versions().prop_flat_map(|(version, is_ipv6)| adverts(version, is_ipv6)),
        others in vec(prop_oneof![addresses(false), addresses(true)], 0..300),
        interval_ms in any::<u32>(),
        seal in versions().prop_flat_map(|(version, _)| seals(version)),
        way in prop_oneof![endpoints(false), endpoints(true)],
    ) {
        advert.addresses.extend(others);
        advert.interval_ms = interval_ms;
        if way.source.is_ipv6() {
            advert.version = Version::V3;
        }
        let message = encode(&advert, &seal, way, Stamp::default());
        let fitting =
            advert.addresses.iter().filter(|address| address.is_ipv6() == way.source.is_ipv6()).count();
        prop_assert_eq!(usize::from(message[3]), fitting.min(255));
        let is_password = matches!(seal.authentication, Authentication::Pass(_));
        if fitting > 0 && !(is_password && advert.version == Version::V3) {
            let received = decode(&message, &expected(&advert, &seal), way);
            let said = received.map(|received| received.advert.interval_ms);
            let most = if advert.version == Version::V2 { (1000, 255) } else { (10, 4095) };
            prop_assert_eq!(said, Ok((interval_ms / most.0).min(most.1) * most.0));
        }
    }
}
