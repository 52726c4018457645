//! The addresses of instances, their routes and rules.

use std::fmt::Write as _;

use lb_userspace::config::vrrp::{UnicastPeer, VirtualAddress, VirtualRoute, VirtualRule};

use super::{another, first, good, instance, instance_v6, messages, one, one_key, one_warning};

/// An instance whose addresses are these, in line 7.
fn with(addresses: &str) -> String {
    instance("").replace("[\"192.0.2.1\"]", addresses)
}

fn several(base: &str, count: usize) -> String {
    let mut list = String::new();
    for number in 0..count {
        write!(list, "\"{base}{}.{}\", ", number / 256, number % 256).expect("memory");
    }
    format!("[{list}]")
}

#[test]
fn addresses_are_read() {
    let read = first(&with(
        "[\"192.0.2.1\", \"192.0.2.2/24\", { address = \"192.0.2.3/25\", interface = \"eth1\", label = \"eth1:1\" }]",
    ));
    let plain = |address: &str, prefix| VirtualAddress {
        address: address.parse().expect("an address"),
        prefix,
        interface: None,
        label: None,
    };
    let whole = VirtualAddress {
        interface: Some("eth1".to_owned()),
        label: Some("eth1:1".to_owned()),
        ..plain("192.0.2.3", 25)
    };
    assert_eq!(read.addresses, [plain("192.0.2.1", 32), plain("192.0.2.2", 24), whole]);
    let read = first(&with("[\"fe80::1\", \"2001:db8::1/64\"]\nexcluded_addresses = [\"10.0.0.1/8\"]"));
    assert_eq!(read.addresses, [plain("fe80::1", 128), plain("2001:db8::1", 64)]);
    assert_eq!(read.excluded_addresses, [plain("10.0.0.1", 8)]);
}

#[test]
fn addresses_that_nobody_can_have() {
    for (address, what) in [
        (
            "192.0.2.1 dev eth1",
            "not an IP address (names are not looked up); expected ADDRESS or ADDRESS/PREFIX",
        ),
        ("192.0.2.1/33", "the prefix is longer than 32"),
        ("2001:db8::1/129", "the prefix is longer than 128"),
        ("192.0.2.1/0", "prefix 0, which is everything"),
        ("192.0.2.1/", "the prefix is not a number"),
        ("192.0.2.1/+8", "the prefix is not a number"),
        ("0.0.0.0", "an unspecified address"),
        ("127.0.0.1", "a loopback address"),
        ("224.0.0.18", "a multicast address"),
        ("255.255.255.255", "a broadcast address"),
        ("ff02::12", "a multicast address"),
        ("::ffff:192.0.2.1", "an IPv4-mapped address"),
    ] {
        one(
            &with(&format!("[\"{address}\"]")),
            &format!("f:7: vrrp_instance[0] \"a\".addresses[0] = \"{address}\": {what}"),
        );
    }
    let path = "f:7: vrrp_instance[0] \"a\".addresses";
    one(&with("[]"), &format!("{path} = []: no address; expected an array of addresses"));
    one(&with("\"192.0.2.1\""), &format!("{path} = \"192.0.2.1\": wrong type, a text"));
    one(
        &with("[\"192.0.2.1\", \"2001:db8::1\"]"),
        &format!(
            "{path}[1] = \"2001:db8::1\": not of the family of the first address; expected an IPv4 address"
        ),
    );
    one(&with("[{ interface = \"eth1\" }]"), &format!("{path}[0].address: missing"));
    one(
        &with("[{ address = \"2001:db8::1\", label = \"a\" }]"),
        &format!("{path}[0].label = \"a\": IPv6 addresses have no labels"),
    );
    one(
        &with("[{ address = \"192.0.2.1\", label = \"sixteen-letters-\" }]"),
        &format!("{path}[0].label = \"sixteen-letters-\": too long, 16 bytes"),
    );
    one(
        &with("[{ address = \"192.0.2.1\", dev = \"eth1\" }]"),
        &format!("{path}[0].dev = \"eth1\": unknown key"),
    );
}

#[test]
fn an_address_has_one_place() {
    let expected = "has the same address; expected each address once, in one instance";
    one(
        &with("[\"192.0.2.1\", { address = \"192.0.2.1/24\" }]"),
        &format!(
            "f:7: vrrp_instance[0] \"a\".addresses[1].address = \"192.0.2.1/24\": vrrp_instance[0] \"a\".addresses[0] at \
             line 7 {expected}"
        ),
    );
    one(
        &instance("excluded_addresses = [\"192.0.2.1\"]"),
        &format!(
            "f:8: vrrp_instance[0] \"a\".excluded_addresses[0] = \"192.0.2.1\": vrrp_instance[0] \"a\".addresses[0] at \
             line 7 {expected}"
        ),
    );
    let same = another("b", 2).replace("192.0.2.2", "192.0.2.1");
    one(
        &format!("{}{same}", instance("")),
        &format!(
            "f:13: vrrp_instance[1] \"b\".addresses[0] = \"192.0.2.1\": vrrp_instance[0] \"a\".addresses[0] at line 7 \
             {expected}"
        ),
    );
    // A link-local address is another one on another interface.
    let local = |text: String| text.replace("192.0.2.1", "fe80::1").replace("192.0.2.2", "fe80::1");
    good(&local(format!("{}{}", instance(""), another("b", 2).replace("eth0", "eth1"))));
    let got = messages(&local(format!("{}{}", instance(""), another("b", 2))));
    assert!(got.len() == 1 && got[0].contains(expected), "{got:#?}");
}

#[test]
fn adverts_count_to_255() {
    assert_eq!(first(&with(&several("10.0.", 255))).addresses.len(), 255);
    let got = messages(&with(&several("10.0.", 256)));
    assert!(
        got.len() == 1
            && got[0].ends_with(
                ": 256 addresses, and adverts count to 255; expected at most 255, and others in \"excluded_addresses\""
            ),
        "{got:#?}"
    );
    let excluded = |count| instance(&format!("excluded_addresses = {}", several("10.1.", count)));
    assert_eq!(first(&excluded(1023)).excluded_addresses.len(), 1023);
    let got = messages(&excluded(1024));
    assert!(
        got.len() == 1
            && got[0].ends_with(": 1025 addresses together; expected at most 1024 in one instance"),
        "{got:#?}"
    );
}

#[test]
fn our_own_address_and_our_peers() {
    let read = first(&instance(
        "source_address = \"192.0.2.11\"\ncheck_unicast_source = true\n\
         unicast_peers = [\"192.0.2.12\", { address = \"192.0.2.13\", min_ttl = 254, max_ttl = 255 }]",
    ));
    let peer = |address: &str, min_ttl, max_ttl| UnicastPeer {
        address: address.parse().expect("an address"),
        min_ttl,
        max_ttl,
    };
    assert_eq!(read.source_address, Some("192.0.2.11".parse().expect("an address")));
    assert_eq!(
        read.unicast_peers,
        [peer("192.0.2.12", None, None), peer("192.0.2.13", Some(254), Some(255))]
    );
    assert!(read.check_unicast_source);

    one_key("source_address = \"192.0.2.11:80\"", "a port, which has no meaning here");
    one_key(
        "source_address = \"2001:db8::11\"",
        "not of the family of the instance's addresses; expected an IPv4 address",
    );
    one_key("source_address = \"127.0.0.1\"", "a loopback address");
    one_warning("check_unicast_source = true", "without effect, since there are no unicast_peers");
    let source = "source_address = \"192.0.2.11\"\n";
    let path = "f:9: vrrp_instance[0] \"a\".unicast_peers";
    for (peers, what) in [
        (
            "[\"192.0.2.11\"]",
            "[0] = \"192.0.2.11\": our own source_address; expected the addresses of the other directors",
        ),
        (
            "[\"192.0.2.12\", { address = \"192.0.2.12\" }]",
            "[1].address = \"192.0.2.12\": the same peer as at line 9",
        ),
        ("[\"2001:db8::12\"]", "[0] = \"2001:db8::12\": not of the family of the instance's addresses"),
        ("[\"224.0.0.18\"]", "[0] = \"224.0.0.18\": a multicast address"),
        ("[{ address = \"192.0.2.12\", min_ttl = 0 }]", "[0].min_ttl = 0: out of range"),
        (
            "[{ address = \"192.0.2.12\", min_ttl = 255, max_ttl = 254 }]",
            "[0].max_ttl = 254: less than the min_ttl, 255; expected a whole number from 255 to 255",
        ),
        ("[{ min_ttl = 1 }]", "[0].address: missing"),
    ] {
        one(&instance(&format!("{source}unicast_peers = {peers}")), &format!("{path}{what}"));
    }

    // RFC 9568 section 5.1.2.1.
    let global = "source_address = \"2001:db8::11\"";
    good(&instance_v6("source_address = \"fe80::11\""));
    good(&instance_v6(&format!("{global}\nunicast_peers = [\"2001:db8::12\"]")));
    one(
        &instance_v6(global),
        &format!(
            "f:8: vrrp_instance[0] \"a\".{global}: IPv6 adverts go to the group from a link-local address only; expected an \
             address of fe80::/10, or \"unicast_peers\""
        ),
    );
}

#[test]
fn routes_lead_somewhere() {
    let read = first(&instance(
        "routes = [{ to = \"0.0.0.0/0\", via = \"192.0.2.254\" }, { to = \"10.9.0.0/16\", interface = \"eth1\", \
         source = \"192.0.2.1\", table = 100, metric = 7 }, { to = \"::/0\", via = \"fe80::1\", interface = \"eth1\" }]",
    ));
    let address = |text: &str| text.parse().expect("an address");
    assert_eq!(
        read.routes[0],
        VirtualRoute {
            to: (address("0.0.0.0"), 0),
            via: Some(address("192.0.2.254")),
            interface: None,
            source: None,
            table: None,
            metric: None,
        }
    );
    assert_eq!(
        read.routes[1],
        VirtualRoute {
            to: (address("10.9.0.0"), 16),
            via: None,
            interface: Some("eth1".to_owned()),
            source: Some(address("192.0.2.1")),
            table: Some(100),
            metric: Some(7),
        }
    );
    assert_eq!((read.routes[2].to, read.routes[2].via), ((address("::"), 0), Some(address("fe80::1"))));
    let path = "f:8: vrrp_instance[0] \"a\".routes[0]";
    for (keys, what) in [
        ("to = \"10.0.0.0/8\"", ": leads nowhere; expected \"via\", \"interface\", or both"),
        ("via = \"192.0.2.254\"", ".to: missing"),
        (
            "to = \"10.0.0.1/8\", via = \"192.0.2.254\"",
            ".to = \"10.0.0.1/8\": address bits after the prefix; expected \"10.0.0.0/8\"",
        ),
        (
            "to = \"2001:db8::1/32\", interface = \"a\"",
            ".to = \"2001:db8::1/32\": address bits after the prefix; expected \"2001:db8::/32\"",
        ),
        ("to = \"default\", via = \"192.0.2.254\"", ".to = \"default\": not an IP address"),
        (
            "to = \"10.0.0.0/8\", via = \"2001:db8::1\"",
            ".via = \"2001:db8::1\": not of the destination's family; expected an IPv4 address",
        ),
        (
            "to = \"::/0\", interface = \"a\", source = \"10.0.0.1\"",
            ".source = \"10.0.0.1\": not of the destination's family",
        ),
        ("to = \"10.0.0.0/8\", interface = \"a\", table = 0", ".table = 0: out of range"),
    ] {
        one(&instance(&format!("routes = [{{ {keys} }}]")), &format!("{path}{what}"));
    }
    let route = "{ to = \"10.0.0.0/8\", interface = \"a\" }";
    one(
        &instance(&format!("routes = [{route}, {route}]")),
        "f:8: vrrp_instance[0] \"a\".routes[1]: given twice; expected each once",
    );
    one_key("routes = \"10.0.0.0/8\"", "wrong type, a text; expected an array of tables");
}

#[test]
fn rules_are_for_something() {
    let read = first(&instance(
        "rules = [{ from = \"192.0.2.1/32\", table = 100 }, { from = \"10.0.0.0/8\", to = \"0.0.0.0/0\", table = 254, \
         priority = 1000 }]",
    ));
    let network = |text: &str, prefix| Some((text.parse().expect("an address"), prefix));
    assert_eq!(
        read.rules,
        [
            VirtualRule { from: network("192.0.2.1", 32), to: None, table: 100, priority: None },
            VirtualRule {
                from: network("10.0.0.0", 8),
                to: network("0.0.0.0", 0),
                table: 254,
                priority: Some(1000)
            },
        ]
    );
    let path = "f:8: vrrp_instance[0] \"a\".rules[0]";
    for (keys, what) in [
        ("table = 1", ": for every packet; expected \"from\", \"to\", or both"),
        ("from = \"10.0.0.0/8\"", ".table: missing"),
        ("to = \"10.0.0.0/8\", table = 0", ".table = 0: out of range"),
        (
            "from = \"10.0.0.0/8\", to = \"::/0\", table = 1",
            ".to = \"::/0\": not of the family of \"from\"; expected an IPv4 network",
        ),
    ] {
        one(&instance(&format!("rules = [{{ {keys} }}]")), &format!("{path}{what}"));
    }
}
