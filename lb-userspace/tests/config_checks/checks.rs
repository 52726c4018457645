//! `health_check` itself.

use std::time::Duration;

use lb_userspace::config::{
    Command,
    check::{HealthCheck, Http, HttpRequest, Probe, Tls, Via},
    parse,
};

use super::{DIRECTOR, checked, good, messages, one};

#[track_caller]
fn check(keys: &str) -> HealthCheck {
    let config = good(&checked(keys));
    let [check] = &config.virtual_servers[0].real_servers[0].health_checks[..] else { panic!("{config:?}") };
    check.clone()
}

#[track_caller]
fn request(keys: &str) -> HttpRequest {
    let Probe::Http(Http { requests, .. }) = check(keys).probe else { panic!("{keys}") };
    requests.into_iter().next().expect("at least one")
}

#[track_caller]
fn wrong(keys: &str, expected: &str) {
    one(&checked(keys), &format!("f:7: virtual_server[0] \"web\".health_check[0]{expected}"));
}

#[test]
fn a_check_has_defaults() {
    let seconds = Duration::from_secs;
    assert_eq!(
        check("type = \"tcp\""),
        HealthCheck {
            probe: Probe::Tcp,
            interval: seconds(5),
            timeout: seconds(3),
            rise: 2,
            fall: 3,
            retry: 0,
            delay_before_retry: seconds(1),
            warmup: seconds(5),
            connect: "10.0.0.1:8080".parse().expect("an address"),
            bind: None,
            fwmark: 0,
            via: Via::Direct,
        }
    );
    // The first check of many comes at another time for each.
    assert_eq!(check("type = \"tcp\", interval = \"1m\"").warmup, seconds(60));
    let root = HttpRequest {
        path: "/".to_owned(),
        method: "GET".to_owned(),
        host: None,
        headers: vec![],
        status: vec![200..=299],
        md5: None,
        regex: None,
    };
    let http = |tls| Probe::Http(Http { tls, requests: vec![root.clone()] });
    assert_eq!(check("type = \"http\"").probe, http(None));
    assert_eq!(check("type = \"https\"").probe, http(Some(Tls { sni: None, verify: false })));
    assert_eq!(check("type = \"smtp\"").probe, Probe::Smtp { helo: "director-01".to_owned() });
    assert_eq!(check("type = \"dns\"").probe, Probe::Dns { record: "SOA".to_owned(), name: ".".to_owned() });
    assert_eq!(
        check("type = \"udp\"").probe,
        Probe::Udp { payload: vec![], expect: vec![], require_reply: false }
    );
    assert_eq!(check("type = \"ping\"").probe, Probe::Ping);
    let command = Command(vec!["/bin/true".to_owned()]);
    assert_eq!(
        check("type = \"script\", command = [\"/bin/true\"]").probe,
        Probe::Script { command, dynamic: false }
    );
    assert_eq!(check("type = \"file\", path = \"/a\"").probe, Probe::File { path: "/a".into() });
}

#[test]
fn times_and_numbers_of_checks_have_limits() {
    let time = |key: &str, value: &str| messages(&checked(&format!("type = \"tcp\", {key} = {value}")));
    for key in ["interval", "timeout"] {
        for value in ["\"10ms\"", "\"1d\"", "86400"] {
            assert_eq!(time(key, value), [""; 0], "{key} = {value}");
        }
        for (value, what) in
            [("\"9ms\"", "too short"), ("0", "too short"), ("\"1d1ms\"", "too long"), ("0.5", "wrong type")]
        {
            wrong(&format!("type = \"tcp\", {key} = {value}"), &format!(".{key} = {value}: {what}"));
        }
    }
    for key in ["warmup", "delay_before_retry"] {
        assert_eq!(time(key, "0"), [""; 0]);
        wrong(&format!("type = \"tcp\", {key} = -1"), &format!(".{key} = -1: too short"));
        wrong(&format!("type = \"tcp\", {key} = \"2d\""), &format!(".{key} = \"2d\": too long"));
    }
    for (key, least) in [("rise", 1_i32), ("fall", 1), ("retry", 0)] {
        assert_eq!(time(key, &least.to_string()), [""; 0]);
        assert_eq!(time(key, "100"), [""; 0]);
        wrong(&format!("type = \"tcp\", {key} = 101"), &format!(".{key} = 101: out of range"));
        let below = least - 1;
        wrong(&format!("type = \"tcp\", {key} = {below}"), &format!(".{key} = {below}: out of range"));
    }
}

#[test]
fn where_a_check_connects() {
    let connect = |keys: &str| check(keys).connect.to_string();
    assert_eq!(connect("type = \"tcp\", connect_port = 81"), "10.0.0.1:81");
    assert_eq!(connect("type = \"tcp\", connect_address = \"2001:db8::9\""), "[2001:db8::9]:8080");
    assert_eq!(connect("type = \"tcp\", connect_address = \"127.0.0.1\", connect_port = 1"), "127.0.0.1:1");
    assert_eq!(connect("type = \"tcp\", via = \"dataplane\""), "192.0.2.1:80");
    let bind = |keys: &str| check(&format!("type = \"tcp\", {keys}")).bind.expect("given").to_string();
    assert_eq!(bind("bind_address = \"192.0.2.7\""), "192.0.2.7:0");
    assert_eq!(bind("bind_port = 99"), "0.0.0.0:99");
    assert_eq!(bind("bind_port = 99, connect_address = \"2001:db8::9\""), "[::]:99");
    assert_eq!(check("type = \"ping\", fwmark = 0xffffffff").fwmark, u32::MAX);

    wrong(
        "type = \"tcp\", connect_address = \"10.0.0.1:80\"",
        ".connect_address = \"10.0.0.1:80\": a port, which has a key",
    );
    wrong(
        "type = \"tcp\", connect_address = \"224.0.0.1\"",
        ".connect_address = \"224.0.0.1\": a multicast address",
    );
    wrong("type = \"tcp\", connect_port = 0", ".connect_port = 0: out of range");
    wrong(
        "type = \"tcp\", bind_address = \"2001:db8::1\"",
        ".bind_address = \"2001:db8::1\": not of the family of 10.0.0.1, to which the check connects; expected an \
         IPv4 address",
    );
    let every_port = |keys: &str| {
        format!(
            "{DIRECTOR}[[virtual_server]]\nname = \"web\"\naddress = \"192.0.2.1:0\"\nhealth_check = [{{ {keys} }}]\n\
             [[virtual_server.real_server]]\naddress = \"10.0.0.1\"\n\
             [[virtual_server.real_server]]\naddress = \"10.0.0.2\"\n"
        )
    };
    let path = "f:7: virtual_server[0] \"web\".health_check[0]";
    // Said once, not for each server.
    one(
        &every_port("type = \"http\""),
        &format!("{path}: the real server has every port, and a check needs one; expected connect_port"),
    );
    one(
        &every_port("type = \"http\", via = \"dataplane\""),
        &format!("{path}: the virtual server has every port, and a check needs one; expected connect_port"),
    );
    let connect = |keys: &str| {
        let checks = &good(&every_port(keys)).virtual_servers[0].real_servers[1].health_checks;
        checks[0].connect.to_string()
    };
    assert_eq!(connect("type = \"http\", connect_port = 80"), "10.0.0.2:80");
    assert_eq!(connect("type = \"http\", connect_port = 80, via = \"dataplane\""), "192.0.2.1:80");
    assert_eq!(connect("type = \"ping\""), "10.0.0.2:0");
    assert_eq!(connect("type = \"script\", command = [\"/a\"]"), "10.0.0.2:0");
}

#[test]
fn the_data_plane_leads_to_the_virtual_server_only() {
    let through = |keys: &str| format!("type = \"tcp\", via = \"dataplane\", {keys}");
    wrong(
        &through("connect_address = \"10.0.0.1\""),
        ".connect_address = \"10.0.0.1\": the data plane leads to the virtual server's address",
    );
    wrong(
        &through("connect_port = 81"),
        ".connect_port = 81: the data plane leads to the virtual server's port 80",
    );
    wrong(&through("fwmark = 1"), ".fwmark = 1: marks have no part");
    wrong(
        "type = \"ping\", via = \"dataplane\"",
        ".via = \"dataplane\": \"ping\" does not go through the data plane",
    );
    wrong(
        "type = \"dns\", via = \"dataplane\"",
        ".via = \"dataplane\": \"dns\" goes over udp, and the virtual server takes tcp",
    );
    wrong(
        "type = \"file\", path = \"/a\", via = \"dataplane\"",
        ".via = \"dataplane\": a key of type \"tcp\", \"http\"",
    );
}

#[test]
fn keys_belong_to_types() {
    for (keys, expected) in [
        ("interval = 1", ".type: missing; expected one of \"tcp\", \"http\", \"https\", \"smtp\""),
        ("type = \"HTTP_GET\"", ".type = \"HTTP_GET\": unknown type of check; expected one of"),
        ("type = 3", ".type = 3: wrong type, an integer"),
        (
            "type = \"tcp\", paths = [\"/\"]",
            ".paths = [\"/\"]: a key of type \"http\" and \"https\", not of \"tcp\"",
        ),
        ("type = \"http\", sni = \"a\"", ".sni = \"a\": a key of type \"https\", not of \"http\""),
        ("type = \"ping\", connect_port = 1", ".connect_port = 1: a key of type"),
        ("type = \"script\", command = [\"/a\"], fwmark = 1", ".fwmark = 1: a key of type"),
        ("type = \"script\"", ".command: missing"),
        ("type = \"script\", command = []", ".command = []: no program"),
        ("type = \"file\"", ".path: missing"),
        ("type = \"file\", path = \"a\"", ".path = \"a\": not the absolute path of a file"),
        ("type = \"tcp\", colour = 1", ".colour = 1: unknown key; expected one of \"type\", \"interval\""),
    ] {
        wrong(keys, expected);
    }
    let suggestion = |keys: &str| {
        let errors = parse("f", &checked(keys)).expect_err("an unknown word");
        errors.diagnostics()[0].suggestion.clone().unwrap_or_default()
    };
    assert_eq!(suggestion("type = \"SSL_GET\""), "https");
    assert_eq!(suggestion("type = \"MISC_CHECK\""), "script");
    assert_eq!(suggestion("type = \"tcp\", delay_loop = 1"), "interval");
    assert_eq!(suggestion("type = \"tcp\", connect_timeout = 1"), "timeout");
    assert_eq!(suggestion("type = \"tcp\", connect_ip = 1"), "connect_address");
    assert_eq!(suggestion("type = \"http\", path = \"/\""), "paths");
    assert_eq!(suggestion("type = \"http\", digest = 1"), "md5");
    assert_eq!(suggestion("type = \"http\", method = \"get\""), "GET");
    assert_eq!(suggestion("type = \"script\", misc_path = 1, command = [\"/a\"]"), "command");
}

#[test]
fn requests_of_http() {
    let paths = |keys: &str| {
        let Probe::Http(Http { requests, .. }) = check(keys).probe else { panic!("{keys}") };
        requests.into_iter().map(|request| request.path).collect::<Vec<_>>()
    };
    assert_eq!(paths("type = \"http\", paths = [\"/b\", \"/a?x=1&y=%20\"]"), ["/b", "/a?x=1&y=%20"]);
    assert_eq!(paths("type = \"http\", requests = [{}, { path = \"/a\" }]"), ["/", "/a"]);

    // The check's keys are the defaults of its requests; headers add up.
    let got = request(
        "type = \"http\", host = \"a\", regex = \"x\", headers = { B = \"1\", A = \"2\" }, status = 204, requests = \
         [{ path = \"/p\", method = \"POST\", host = \"b:81\", headers = { b = \"3\", C = \"4\" } }]",
    );
    let headers =
        [("A", "2"), ("b", "3"), ("C", "4")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(
        got,
        HttpRequest {
            path: "/p".to_owned(),
            method: "POST".to_owned(),
            host: Some("b:81".to_owned()),
            headers: headers.to_vec(),
            status: vec![204..=204],
            md5: None,
            regex: Some("x".to_owned()),
        }
    );
    let status = |value: &str| request(&format!("type = \"http\", status = {value}")).status;
    assert_eq!(status("\"200-299\""), [200..=299]);
    assert_eq!(status("[200, \"301-302\", \"404\"]"), [200..=200, 301..=302, 404..=404]);
    let md5 = request("type = \"http\", md5 = \"000102030405060708090a0b0c0d0e0F\"").md5;
    assert_eq!(md5, Some([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]));

    let long = format!("\"/{}\"", "a".repeat(2048));
    for (keys, expected) in [
        ("paths = []", ".paths = []: 0 requests; expected 1 to 32 of them"),
        ("requests = []", ".requests = []: 0 requests"),
        (
            "paths = [\"/\"], requests = [{}]",
            ".paths = [\"/\"]: there are \"requests\" too; expected one of them",
        ),
        ("paths = [\"a\"]", ".paths[0] = \"a\": does not begin with \"/\""),
        ("paths = [\"/a b\"]", ".paths[0] = \"/a b\": ' ' is not allowed; other characters"),
        ("paths = [\"/a\\r\\nX: y\"]", ".paths[0] = \"/a\\r\\nX: y\": '\\r' is not allowed"),
        ("paths = [\"/a#b\"]", ".paths[0] = \"/a#b\": '#' is not allowed"),
        (&format!("paths = [{long}]"), ".paths[0] = \"/aaa"),
        ("method = \"DELETE\"", ".method = \"DELETE\": unknown method"),
        ("method = \"HEAD\", regex = \"x\"", ": the answer to HEAD has no body"),
        ("regex = \"x\", requests = [{ method = \"HEAD\" }]", ".requests[0]: the answer to HEAD has no body"),
        ("host = \"a b\"", ".host = \"a b\": not a host"),
        (
            "headers = { Host = \"a\" }",
            ".headers.Host = \"a\": the Host header has a key of its own; expected host",
        ),
        ("headers = { \"a b\" = \"c\" }", ".headers.a b = \"c\": not the name of a header"),
        ("headers = { a = \"1\", A = \"2\" }", ".headers.A = \"2\": given twice"),
        ("headers = { a = \"b\\nc\" }", ".headers.a = \"b\\nc\": a character that a header cannot have"),
        ("headers = { a = 1 }", ".headers.a = 1: wrong type, an integer"),
        ("headers = { Authorization = 5 }", ".headers.Authorization = ***: wrong type, an integer"),
        ("headers = [\"Authorization Bearer hunter2secret\"]", ".headers = ***: wrong type, an array"),
        ("headers = \"Authorization: Bearer hunter2secret\"", ".headers = ***: wrong type, a text"),
        ("header = [\"Bearer hunter2secret\"]", ".header = ***: unknown key"),
        ("requests = [{ headers = [\"hunter2secret\"] }]", ".requests[0].headers = ***: wrong type"),
        ("status = 99", ".status = 99: not a status code or range"),
        ("status = \"200-\"", ".status = \"200-\": not a status code or range"),
        ("status = [302, \"300-299\"]", ".status = [302, \"300-299\"]: a range that ends before it begins"),
        ("status = []", ".status = []: 0 elements"),
        ("status = true", ".status = true: wrong type, a boolean"),
        ("md5 = \"00\"", ".md5 = \"00\": not an MD5 sum; expected 32 hexadecimal digits"),
        ("regex = \"(\"", ".regex = \"(\": not a regular expression: unclosed group"),
        ("regex = '\\w{1000}{1000}'", ".regex = '\\w{1000}{1000}': would take too much memory"),
        ("requests = [{ paths = [] }]", ".requests[0].paths = []: unknown key"),
    ] {
        wrong(&format!("type = \"http\", {keys}"), expected);
    }
    let many = |count| format!("type = \"http\", paths = [{}]", vec!["\"/\""; count].join(", "));
    assert_eq!(paths(&many(32)).len(), 32);
    assert_eq!(messages(&checked(&many(33))).len(), 1);
}

#[test]
fn the_name_in_the_handshake_is_the_hosts() {
    let sni = |keys: &str| {
        let Probe::Http(Http { tls: Some(tls), .. }) = check(&format!("type = \"https\", {keys}")).probe
        else {
            panic!("{keys}")
        };
        tls.sni
    };
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(sni("verify = true"), None);
    assert_eq!(sni("host = \"www.example.org:8443\""), name("www.example.org"));
    assert_eq!(sni("host = \"192.0.2.1\""), None);
    assert_eq!(sni("host = \"a\", sni = \"b\""), name("b"));
    assert_eq!(sni("requests = [{ host = \"first\" }, { host = \"second\" }]"), name("first"));
    wrong("type = \"https\", sni = \"192.0.2.1\"", ".sni = \"192.0.2.1\": not a host name");
}

#[test]
fn other_probes() {
    let udp = |keys: &str| check(&format!("type = \"udp\", {keys}")).probe;
    assert_eq!(
        udp("payload = \"ping\\n\", expect_hex = \"70 6F\", require_reply = true"),
        Probe::Udp { payload: b"ping\n".to_vec(), expect: b"po".to_vec(), require_reply: true }
    );
    wrong(
        "type = \"udp\", payload = \"a\", payload_hex = \"61\"",
        ".payload_hex = \"61\": there is \"payload\" too",
    );
    wrong("type = \"udp\", expect_hex = \"6\"", ".expect_hex = \"6\": not pairs of hexadecimal digits");
    let dns = Probe::Dns { record: "AAAA".to_owned(), name: "example.org".to_owned() };
    assert_eq!(check("type = \"dns\", record = \"aaaa\", name = \"example.org\"").probe, dns);
    wrong(
        "type = \"dns\", record = \"AXFR\"",
        ".record = \"AXFR\": unknown record type; expected one of \"SOA\"",
    );
    wrong("type = \"dns\", name = \"a..b\"", ".name = \"a..b\": not a name in the DNS");
    // The name of a machine that is none of a host cannot be said in a greeting.
    let text = checked("type = \"smtp\"").replace("director-01", "main office");
    one(
        &text,
        "f:7: virtual_server[0] \"web\".health_check[0].helo: missing; expected a host name, \
         since the router_id \"main office\" is none",
    );
    good(&checked("type = \"smtp\", helo = \"a\"").replace("director-01", "main office"));
    for (command, expected) in [
        ("\"/a\"", "wrong type, a text; expected an array"),
        ("[\"a\"]", "\"a\" is not the absolute path of a program"),
        ("[\"/a\", 1]", "element 1 is not a text"),
        ("[\"/a\", \"\\u0000\"]", "element 1 has a zero byte in it"),
    ] {
        let got = messages(&checked(&format!("type = \"script\", command = {command}")));
        assert!(got.len() == 1 && got[0].contains(expected), "{command}: {got:#?}");
    }
}
