//! What keepalived 2.2.7, keepalived 2.4's own tests and FRR 8.4.4 have sent, byte for byte, in both directions.

use super::*;

/// Who sent what.
struct Vector {
    name: &'static str,
    advert: Advert,
    seal: Seal,
    endpoints: Endpoints,
    stamp: Option<Stamp>,
    bytes: &'static str,
}

impl Vector {
    fn new(
        name: &'static str,
        advert: Advert,
        seal: Seal,
        endpoints: Endpoints,
        bytes: &'static str,
    ) -> Self {
        Self { name, advert, seal, endpoints, stamp: None, bytes }
    }

    fn check(&self) {
        let Self { name, advert, seal, endpoints, stamp, bytes } = self;
        let bytes = hex(bytes);
        let encoded = encode(advert, seal, *endpoints, stamp.unwrap_or_default());
        assert_eq!(encoded, bytes, "{name}");
        assert_eq!(peek_vrid(&bytes), Some(advert.vrid), "{name}");
        let has_two = advert.version == Version::V3 && endpoints.source.is_ipv4();
        let received = Received {
            advert: advert.clone(),
            checksum: has_two.then_some(seal.checksum),
            stamp: stamp.map(|stamp| (1, stamp)),
        };
        assert_eq!(decode(&bytes, &expected(advert, seal), *endpoints), Ok(received.clone()), "{name}");
        // Whichever checksum one sends oneself, both are taken.
        for checksum in [Checksum::PseudoHeader, Checksum::Rfc9568] {
            let ours = Seal { checksum, ..seal.clone() };
            let decoded = decode(&bytes, &expected(advert, &ours), *endpoints);
            assert_eq!(decoded.as_ref(), Ok(&received), "{name}");
        }
    }
}

const NONE: Authentication = Authentication::None;

fn pass() -> Seal {
    seal(Authentication::Pass(PASSWORD))
}

fn rfc9568() -> Seal {
    Seal { authentication: NONE, checksum: Checksum::Rfc9568 }
}

fn given_up(advert: &Advert) -> Advert {
    Advert { priority: 0, ..advert.clone() }
}

const KEEPALIVED: [u8; 4] = [10, 66, 0, 1];
const FRR: [u8; 4] = [10, 66, 1, 1];

#[test]
fn keepalived_version_2() {
    let with_password = advert(Version::V2, 51, 1000, &["10.66.0.100", "10.66.0.101"]);
    let none = advert(Version::V2, 52, 1000, &["10.66.0.100"]);
    let way = v4(KEEPALIVED);
    for vector in [
        Vector::new(
            "PASS",
            with_password.clone(),
            pass(),
            way,
            "213396020101c4fd0a4200640a4200657365637265743132",
        ),
        Vector::new(
            "PASS, at its stop",
            given_up(&with_password),
            pass(),
            way,
            "2133000201015afe0a4200640a4200657365637265743132",
        ),
        Vector::new("none", none.clone(), seal(NONE), way, "2134960100013e230a4200640000000000000000"),
        Vector::new(
            "none, at its stop",
            given_up(&none),
            seal(NONE),
            way,
            "213400010001d4230a4200640000000000000000",
        ),
    ] {
        vector.check();
    }
}

#[test]
fn keepalived_version_3_ipv4() {
    let half = advert(Version::V3, 53, 500, &["10.66.0.100"]);
    let unicast = advert(Version::V3, 55, 1000, &["10.66.0.100"]);
    let vmac = advert(Version::V3, 57, 1000, &["10.66.0.100"]);
    let way = v4(KEEPALIVED);
    let to_peer = Endpoints { destination: [10, 66, 0, 2].into(), ..way };
    for vector in [
        Vector::new("pseudo-header", half.clone(), seal(NONE), way, "313596010032431f0a420064"),
        Vector::new("message only", half.clone(), rfc9568(), way, "3135960100322df10a420064"),
        Vector::new("at its stop", given_up(&half), seal(NONE), way, "313500010032d91f0a420064"),
        Vector::new("unicast", unicast.clone(), seal(NONE), to_peer, "31379601006418ba0a420064"),
        Vector::new("unicast, message only", unicast, rfc9568(), to_peer, "3137960100642dbd0a420064"),
        Vector::new("VMAC", vmac, seal(NONE), way, "31399601006442e90a420064"),
    ] {
        vector.check();
    }
}

#[test]
fn keepalived_version_3_ipv6() {
    let advert = advert(Version::V3, 54, 1000, &["fe80::66:100", "fd66::100"]);
    let bytes = "3136960200643c80fe800000000000000000000000660100fd660000000000000000000000000100";
    Vector::new("IPv6", advert, seal(NONE), v6("fe80::66:ff:fe00:1"), bytes).check();
}

#[test]
fn frr() {
    let ipv4 = advert(Version::V3, 5, 500, &["10.66.1.100"]);
    let ipv6 = advert(Version::V3, 5, 500, &["fd67::100"]);
    let version_2 = advert(Version::V2, 5, 1000, &["10.66.1.100"]);
    for vector in [
        Vector::new("IPv4", ipv4.clone(), seal(NONE), v4(FRR), "310596010032414f0a420164"),
        Vector::new("IPv4, at its stop", given_up(&ipv4), seal(NONE), v4(FRR), "310500010032d74f0a420164"),
        Vector::new(
            "IPv6",
            ipv6,
            seal(NONE),
            v6("fe80::200:5eff:fe00:205"),
            "310596010032db3bfd670000000000000000000000000100",
        ),
        Vector::new("version 2", version_2, seal(NONE), v4(FRR), "2105960100013d520a4201640000000000000000"),
    ] {
        vector.check();
    }
}

#[test]
fn keepalived_auth_hmac() {
    let stamp = Some(Stamp { seconds: 0x6800_0000, fraction: 0x8000, counter: 0 });
    let enforce = hmac_seal(HmacMode::Enforce);
    let ipv4 = Advert { priority: 200, ..advert(Version::V3, 51, 1000, &["192.0.2.100"]) };
    let ipv4 = Advert { addresses: vec![[192, 0, 2, 100].into()], ..ipv4 };
    let ipv6 = Advert { priority: 200, ..advert(Version::V3, 51, 1000, &["fe80::100"]) };
    for vector in [
        Vector {
            name: "IPv4; its checksum is over the message only",
            advert: ipv4,
            seal: Seal { checksum: Checksum::Rfc9568, ..enforce.clone() },
            endpoints: v4([198, 51, 100, 10]),
            stamp,
            bytes: "3133c80100644402c0000264 010100006800000080000000 1b84bc4e8e43892dc6d98448f8ee2265",
        },
        Vector {
            name: "IPv6; its checksum is that of a message to fe80::20",
            advert: ipv6,
            seal: enforce,
            endpoints: Endpoints { destination: "fe80::20".parse().expect("an address"), ..v6("fe80::10") },
            stamp,
            bytes: "3133c8010064a2e9 fe800000000000000000000000000100 010100006800000080000000 \
                    c8c56146ebfd66ee10ec4d8186461b78",
        },
    ] {
        vector.check();
    }
}

#[test]
fn ipv4_headers() {
    let source = Ipv4Addr::from(KEEPALIVED);
    for (header, message) in [
        ("45c0002c00010000ff70d04b0a420001e0000012", "213396020101c4fd0a4200640a4200657365637265743132"),
        ("45c0002800010000ff70d04f0a420001e0000012", "2134960100013e230a4200640000000000000000"),
        ("45c0002000010000ff70d0570a420001e0000012", "313596010032431f0a420064"),
    ] {
        let message = hex(message);
        let packet = [hex(header), message.clone()].concat();
        assert_eq!(with_ipv4_header(&message, source, GROUP_V4, 1), packet);
        assert_eq!(without_ipv4_header(&packet), Some((255, v4(KEEPALIVED), &*message)));
        // The padding of an Ethernet frame.
        let padded = [packet.as_slice(), &[0; 6]].concat();
        assert_eq!(without_ipv4_header(&padded), Some((255, v4(KEEPALIVED), &*message)));
        // With an option, here "no operation" four times.
        let mut long = packet.clone();
        long[0] = 0x46;
        long[3] += 4;
        long.splice(20..20, [1; 4]);
        assert_eq!(without_ipv4_header(&long), Some((255, v4(KEEPALIVED), &*message)));
    }
}

#[test]
fn what_is_no_whole_vrrp_packet_has_no_header_to_take_off() {
    let message = hex("313596010032431f0a420064");
    let packet = with_ipv4_header(&message, KEEPALIVED.into(), GROUP_V4, 7);
    let with = |at: usize, value: u8| {
        let mut packet = packet.clone();
        packet[at] = value;
        packet
    };
    for (what, packet) in [
        ("nothing", Vec::new()),
        ("cut in the header", packet[..19].to_vec()),
        ("cut in the message", packet[..31].to_vec()),
        ("version 6", with(0, 0x65)),
        ("a header of 16 bytes", with(0, 0x44)),
        ("a header longer than all", with(0, 0x4f)),
        ("total length below the header's", with(3, 19)),
        ("UDP", with(9, 17)),
        ("the first fragment", with(6, 0x20)),
        ("a later fragment", with(7, 1)),
    ] {
        assert_eq!(without_ipv4_header(&packet), None, "{what}");
    }
    assert!(without_ipv4_header(&with(8, 254)).is_some_and(|(ttl, ..)| ttl == 254));
    // "Do not fragment" is no fragment.
    assert!(without_ipv4_header(&with(6, 0x40)).is_some());
}
