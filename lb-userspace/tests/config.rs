//! The configuration seen from outside: texts in, configurations or messages out.

use std::{fmt::Write as _, fs, net::IpAddr, path::Path, time::Duration};

use lb_userspace::config::{
    self, Config, Dataplane, Forward, Protocol, Scheduler, SchedulerFlags, Severity, Timeouts, XdpMode, load,
    parse,
};

/// Enough of a file for the rest of it to be looked at.
const DIRECTOR: &str = "[director]\ninterfaces = [\"eth0\"]\n";

/// A virtual server with two real servers, without its `[[virtual_server]]` header; from line 4 with [`web`].
const WEB: &str = "name = \"web\"\naddress = \"192.0.2.1:80\"\n";

fn web(rest: &str) -> String {
    format!("{DIRECTOR}[[virtual_server]]\n{WEB}{rest}")
}

fn real_server(lines: &str) -> String {
    format!("[[virtual_server.real_server]]\n{lines}\n")
}

#[track_caller]
fn good(text: &str) -> Config {
    match parse("f", text) {
        Ok((config, _)) => config,
        Err(errors) => panic!("refused:\n{errors}\nin:\n{text}"),
    }
}

/// All lines that `check` would print, the count of errors included.
#[track_caller]
fn messages(text: &str) -> Vec<String> {
    match parse("f", text) {
        Ok((_, warnings)) => warnings.iter().map(ToString::to_string).collect(),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}

/// Asserts that `text` gives exactly one error and no warning.
#[track_caller]
fn one_error(text: &str, expected: &str) {
    let got = messages(text);
    let errors: Vec<_> = got.iter().filter(|line| !line.contains(": warning: ")).collect();
    assert_eq!(errors.len(), 2, "not one error: {got:#?}");
    assert_eq!(errors[0], expected);
    assert!(errors[1].starts_with("1 error"), "{got:#?}");
}

#[test]
fn ten_mistakes_get_ten_errors_each_with_its_line() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let text = fs::read_to_string(folder.join("ten-mistakes.toml")).expect("the fixture");
    let expected = fs::read_to_string(folder.join("ten-mistakes.expected")).expect("the fixture");
    let errors = parse("ten-mistakes.toml", &text).expect_err("ten mistakes");
    assert_eq!(format!("{errors}\n"), expected);
    assert_eq!(errors.error_count(), 10);
    assert_eq!(errors.diagnostics().len(), 10);
    let lines: Vec<_> = errors.diagnostics().iter().map(|one| one.line.expect("each has a line")).collect();
    assert_eq!(lines, [2, 3, 4, 6, 9, 13, 14, 19, 22, 28]);
}

#[test]
fn every_example_is_without_errors_and_warnings() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut seen = 0;
    for entry in fs::read_dir(folder).expect("the examples") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "toml") {
            let (config, warnings) = load(&path).unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!(warnings, [], "{}", path.display());
            let is_empty = config.virtual_servers.is_empty() && config.vrrp.instances.is_empty();
            assert!(!is_empty, "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 13, "only {seen} examples found");
}

#[test]
fn the_smallest_file_gets_the_defaults() {
    let config = good(&web(&real_server("address = \"10.0.0.1\"")));
    let director = &config.director;
    assert_eq!(director.instance, "default");
    assert!(!director.router_id.is_empty());
    assert_eq!(director.dataplane, Dataplane::Xdp);
    assert_eq!(director.interfaces, ["eth0"]);
    assert_eq!(director.xdp_mode, XdpMode::Auto);
    assert_eq!(director.max_connections, 1_048_576);
    let seconds = Duration::from_secs;
    assert_eq!(config.timeouts, Timeouts { tcp: seconds(900), tcp_fin: seconds(120), udp: seconds(300) });
    let [server] = &config.virtual_servers[..] else { panic!("{config:?}") };
    assert_eq!((server.name.as_str(), server.port, server.protocol), ("web", 80, Protocol::Tcp));
    assert_eq!(server.scheduler, Scheduler::Wlc);
    assert_eq!(server.scheduler_flags, SchedulerFlags::default());
    let [real] = &server.real_servers[..] else { panic!("{config:?}") };
    assert_eq!((real.port, real.weight, real.forward), (80, 1, Forward::Nat));
    assert_eq!(real.address, "10.0.0.1".parse::<IpAddr>().expect("an address"));
}

#[test]
fn times() {
    let tcp = |value: &str| messages(&format!("{}[timeouts]\ntcp = {value}\n", web("")));
    let time =
        |value: &str| good(&format!("{}[timeouts]\ntcp = {value}\n", web(""))).timeouts.tcp.as_millis();
    assert_eq!(time("\"15m\""), 900_000);
    assert_eq!(time("\"90s\""), 90_000);
    assert_eq!(time("\"1h30m\""), 5_400_000);
    assert_eq!(time("\"1500ms\""), 1500);
    assert_eq!(time("\"1s\""), 1000);
    assert_eq!(time("\"31d\""), 31 * 86_400_000);
    assert_eq!(time("7"), 7000);
    assert_eq!(time("0x10"), 16_000);
    for (value, what) in [
        ("\"500ms\"", "too short"),
        ("\"0s\"", "too short"),
        ("0", "too short"),
        ("-5", "too short"),
        ("\"31d1ms\"", "too long"),
        ("2678401", "too long"),
        ("99999999999999999999999999", "too long"),
        ("\"99999999999999999999999999s\"", "too long"),
        ("\"99999999999999999d\"", "too long"),
        ("\"900\"", "no unit"),
        ("\"\"", "empty"),
        ("\"5 m\"", "not a time"),
        ("\"1.5h\"", "not a time"),
        ("\"soon\"", "not a time"),
        ("\"1M\"", "unknown unit of time"),
        ("\"1w\"", "unknown unit of time"),
        ("\"30m1h\"", "the larger unit of time comes first"),
        ("\"1h1h\"", "the larger unit of time comes first"),
        ("1.5", "wrong type, a number with a fraction"),
        ("true", "wrong type, a boolean"),
    ] {
        let got = tcp(value);
        let start = format!("f:7: timeouts.tcp = {value}: {what}");
        assert!(got.iter().any(|line| line.starts_with(&start)), "{value}: {got:#?}");
    }
}

#[test]
fn addresses_of_virtual_servers() {
    let with =
        |address: &str| format!("{DIRECTOR}[[virtual_server]]\nname = \"v\"\naddress = \"{address}\"\n");
    let read = |address: &str| {
        let server = good(&with(address)).virtual_servers.remove(0);
        (server.address.to_string(), server.port)
    };
    assert_eq!(read("192.0.2.1:80"), ("192.0.2.1".to_owned(), 80));
    assert_eq!(read("192.0.2.1:0"), ("192.0.2.1".to_owned(), 0));
    assert_eq!(read("192.0.2.1:65535"), ("192.0.2.1".to_owned(), 65535));
    assert_eq!(read("[2001:db8::50]:443"), ("2001:db8::50".to_owned(), 443));
    for (address, what) in [
        ("192.0.2.1", "no port"),
        ("[2001:db8::50]", "no port"),
        ("2001:db8::50", "no port"),
        ("192.0.2.1:", "the port is not a number"),
        ("192.0.2.1:http", "the port is not a number"),
        ("192.0.2.1:+80", "the port is not a number"),
        ("192.0.2.1:65536", "the port is larger than 65535"),
        ("192.0.2.256:80", "not an IP address (names are not looked up)"),
        ("web.example:80", "not an IP address (names are not looked up)"),
        ("", "not an IP address (names are not looked up)"),
        ("2001:db8:1:2:3:4:5:6:443", "an IPv6 address with a port needs brackets"),
        ("[192.0.2.1]:80", "not an IPv6 address between the brackets"),
        ("[2001:db8::50:443", "\"[\" without \"]\""),
        ("[2001:db8::50]443", "something other than \":PORT\" after the \"]\""),
        ("0.0.0.0:80", "an unspecified address"),
        ("127.0.0.1:80", "a loopback address"),
        ("224.0.0.18:80", "a multicast address"),
        ("255.255.255.255:80", "a broadcast address"),
        ("[::]:80", "an unspecified address"),
        ("[::1]:80", "a loopback address"),
        ("[ff02::12]:80", "a multicast address"),
        ("[fe80::1]:80", "a link-local address"),
        ("[::ffff:192.0.2.1]:80", "an IPv4-mapped address"),
    ] {
        let start = format!("f:5: virtual_server[0] \"v\".address = \"{address}\": {what}; expected ");
        let got = messages(&with(address));
        assert!(got.iter().any(|line| line.starts_with(&start)), "{address}: {got:#?}");
    }
}

#[test]
fn addresses_of_real_servers() {
    let read = |virtual_address: &str, forward: &str, address: &str| {
        let text = format!(
            "{DIRECTOR}[[virtual_server]]\nname = \"v\"\naddress = \"{virtual_address}\"\nforward = \"{forward}\"\n\
             [[virtual_server.real_server]]\naddress = \"{address}\"\n"
        );
        match parse("f", &text) {
            Ok((config, _)) => {
                let real = &config.virtual_servers[0].real_servers[0];
                Ok((real.address.to_string(), real.port))
            }
            Err(errors) => Err(errors.diagnostics()[0].message.clone()),
        }
    };
    let ok = |address: &str, port| Ok((address.to_owned(), port));
    let err = |message: &str| Err(message.to_owned());
    let (v4, v6) = ("192.0.2.1:80", "[2001:db8::50]:443");

    assert_eq!(read(v4, "nat", "10.0.0.1:8080"), ok("10.0.0.1", 8080));
    assert_eq!(read(v4, "nat", "10.0.0.1"), ok("10.0.0.1", 80));
    assert_eq!(read(v4, "dr", "10.0.0.1"), ok("10.0.0.1", 80));
    assert_eq!(read(v4, "dr", "10.0.0.1:80"), ok("10.0.0.1", 80));
    assert_eq!(read(v6, "nat", "2001:db8::1"), ok("2001:db8::1", 443));
    assert_eq!(read(v6, "nat", "[2001:db8::1]"), ok("2001:db8::1", 443));
    assert_eq!(read(v6, "nat", "[2001:db8::1]:8443"), ok("2001:db8::1", 8443));
    assert_eq!(read(v6, "tun", "10.0.0.1"), ok("10.0.0.1", 443));
    assert_eq!(read(v4, "tun", "2001:db8::1"), ok("2001:db8::1", 80));
    assert_eq!(read("192.0.2.1:0", "nat", "10.0.0.1"), ok("10.0.0.1", 0));
    assert_eq!(read("192.0.2.1:0", "dr", "10.0.0.1"), ok("10.0.0.1", 0));

    assert_eq!(read(v4, "dr", "10.0.0.1:8080"), err("\"dr\" cannot change the port"));
    assert_eq!(read(v4, "tun", "10.0.0.1:8080"), err("\"tun\" cannot change the port"));
    assert_eq!(
        read("192.0.2.1:0", "nat", "10.0.0.1:8080"),
        err("the virtual server has every port, which one port of a server cannot stand for")
    );
    assert_eq!(read("192.0.2.1:0", "dr", "10.0.0.1:80"), err("\"dr\" cannot change the port"));
    assert_eq!(read("192.0.2.1:0", "tun", "10.0.0.1:80"), err("\"tun\" cannot change the port"));
    assert_eq!(
        read(v4, "nat", "10.0.0.1:0"),
        err("port 0 keeps the client's port, which needs a virtual server with port 0")
    );
    assert_eq!(read(v4, "nat", "2001:db8::1"), err("\"nat\" cannot change the address family"));
    assert_eq!(read(v6, "dr", "10.0.0.1"), err("\"dr\" cannot change the address family"));
    assert_eq!(read(v4, "nat", "192.0.2.1:8080"), err("the virtual server's own address"));
    assert_eq!(read(v4, "nat", "127.0.0.1"), err("a loopback address"));
    assert_eq!(read(v4, "nat", "224.0.0.1"), err("a multicast address"));
}

#[test]
fn scheduler_flags_belong_to_their_scheduler() {
    let flags = |scheduler: &str, flags: &str| {
        parse("f", &web(&format!("scheduler = \"{scheduler}\"\nscheduler_flags = {flags}\n")))
            .map(|(config, _)| config.virtual_servers[0].scheduler_flags)
    };
    let both = SchedulerFlags { port: true, fallback: true };
    assert_eq!(flags("sh", "[\"sh-port\", \"sh-fallback\"]"), Ok(both));
    assert_eq!(flags("mh", "[\"mh-fallback\", \"mh-port\"]"), Ok(both));
    assert_eq!(flags("mh", "[\"mh-port\"]"), Ok(SchedulerFlags { port: true, fallback: false }));
    assert_eq!(flags("rr", "[]"), Ok(SchedulerFlags::default()));
    one_error(
        &web("scheduler = \"sh\"\nscheduler_flags = [\"sh-port\",\n\"mh-port\"]\n"),
        "f:8: virtual_server[0] \"web\".scheduler_flags[1] = \"mh-port\": not a flag of scheduler \"sh\"; \
         expected one of \"sh-port\", \"sh-fallback\"",
    );
    one_error(
        &web("scheduler_flags = [\"sh-port\"]\n"),
        "f:6: virtual_server[0] \"web\".scheduler_flags[0] = \"sh-port\": not a flag of scheduler \"wlc\"; \
         expected no flags for this scheduler",
    );
    one_error(
        &web("scheduler = \"sh\"\nscheduler_flags = [\"sh-port\", \"sh-port\"]\n"),
        "f:7: virtual_server[0] \"web\".scheduler_flags[1] = \"sh-port\": given twice; expected each flag once",
    );
    // A wrong scheduler must not make its flags look wrong too.
    one_error(
        &web("scheduler = \"hs\"\nscheduler_flags = [\"sh-port\"]\n"),
        "f:6: virtual_server[0] \"web\".scheduler = \"hs\": unknown scheduler; expected one of \
         \"rr\", \"wrr\", \"lc\", \"wlc\", \"sh\", \"mh\", \"dh\", \"sed\", \"nq\", \"lblc\", \"lblcr\", \"fo\", \"ovf\", \
         \"twos\"; did you mean \"sh\"?",
    );
}

#[test]
fn what_only_ipvs_has_needs_ipvs() {
    let only = "the XDP data plane does not have this; expected none of it, or director.dataplane = \"ipvs\" or \"auto\"";
    let with = |dataplane: &str, lines: &str| {
        web(lines).replacen("[director]\n", &format!("[director]\ndataplane = \"{dataplane}\"\n"), 1)
    };
    for (key, value) in [
        ("scheduler", "\"sed\""),
        ("persistence_timeout", "\"6m\""),
        ("persistence_granularity", "24"),
        ("one_packet", "true"),
    ] {
        let udp = if key == "one_packet" { "protocol = \"udp\"\n" } else { "" };
        let text = with("xdp", &format!("{key} = {value}\n{udp}"));
        one_error(&text, &format!("f:7: virtual_server[0] \"web\".{key} = {value}: {only}"));
        for dataplane in ["ipvs", "auto"] {
            let text = with(dataplane, &format!("{key} = {value}\n{udp}"));
            assert!(parse("f", &text).is_ok(), "{text}");
        }
    }
    let tunnel = "tunnel = { type = \"gue\", port = 6080 }\n";
    one_error(&with("xdp", tunnel), &format!("f:7: virtual_server[0] \"web\".tunnel.type = \"gue\": {only}"));
    one_error(
        &with("ipvs", "tunnel = { type = \"gue\" }\n"),
        "f:7: virtual_server[0] \"web\".tunnel: GUE without a port; expected port = 6080, or another one",
    );
    one_error(
        &with("ipvs", "tunnel = { type = \"gre\", checksum = \"remote\" }\n"),
        "f:7: virtual_server[0] \"web\".tunnel.checksum = \"remote\": \"gre\" does not have it; expected \"none\"; \"full\" \
         with \"gue\" and \"gre\"; \"remote\" with \"gue\"",
    );
    one_error(
        &with("ipvs", "one_packet = true\n"),
        "f:7: virtual_server[0] \"web\".one_packet = true: TCP is more than single packets; expected protocol = \"udp\"",
    );
    one_error(
        &with("ipvs", "persistence_granularity = \"255.0.255.0\"\n"),
        "f:7: virtual_server[0] \"web\".persistence_granularity = \"255.0.255.0\": not a mask of leading ones; expected a mask \
         such as \"255.255.255.0\", or for both families a number of bits such as 24 or 64",
    );
    let every_port = with("ipvs", "").replace("192.0.2.1:80", "192.0.2.1:0");
    one_error(
        &every_port,
        "f:6: virtual_server[0] \"web\".address = \"192.0.2.1:0\": IPVS serves every port of an address with persistence only; \
         expected a port, or a persistence_timeout",
    );
    // IPVS sees all interfaces.
    assert!(parse("f", &with("ipvs", "").replace("interfaces = [\"eth0\"]\n", "")).is_ok());
}

#[test]
fn interfaces_follow_the_kernels_rules() {
    let line = |list: &str| messages(&format!("[director]\ninterfaces = {list}\n[[virtual_server]]\n{WEB}"));
    for (list, message) in [
        ("[]", "director.interfaces = []: no interface; expected an array of 1 to 32 interface names"),
        ("\"eth0\"", "director.interfaces = \"eth0\": wrong type, a text; expected an array"),
        ("[\"\"]", "director.interfaces[0] = \"\": empty"),
        ("[\"a\", \"a\"]", "director.interfaces[1] = \"a\": given twice"),
        ("[\"sixteen-letters-\"]", "director.interfaces[0] = \"sixteen-letters-\": too long, 16 bytes"),
        ("[\"..\"]", "director.interfaces[0] = \"..\": not an interface name"),
        ("[\"a/b\"]", "director.interfaces[0] = \"a/b\": '/' is not allowed"),
        ("[\"eth0:1\"]", "director.interfaces[0] = \"eth0:1\": ':' is not allowed"),
        ("[\"a b\"]", "director.interfaces[0] = \"a b\": a space or control character in it"),
        ("[3]", "director.interfaces[0] = 3: wrong type, an integer"),
    ] {
        let got = line(list);
        assert!(got.iter().any(|one| one.starts_with(&format!("f:2: {message}"))), "{list}: {got:#?}");
    }
    let names = |count: usize| {
        let names: Vec<_> = (0..count).map(|number| format!("\"eth{number}\"")).collect();
        format!("[{}]", names.join(", "))
    };
    assert!(line(&names(32)).iter().all(|one| one.contains(": warning: ")));
    assert!(line(&names(33)).iter().any(|one| one.contains(": 33 interfaces; expected an array of 1 to 32")));
}

#[test]
fn duplicates_name_both_lines() {
    let other = "[[virtual_server]]\nname = \"other\"\naddress = \"192.0.2.1:80\"\n";
    one_error(
        &format!("{}{other}", web("")),
        "f:8: virtual_server[1] \"other\".address = \"192.0.2.1:80\": virtual_server[0] \"web\" at line 5 has the \
         same address, port and protocol (tcp); expected one virtual server for each",
    );
    // Another protocol is another service.
    good(&format!("{}{other}protocol = \"udp\"\n", web("")));
    let twice = real_server("address = \"10.0.0.1\"") + &real_server("address = \"10.0.0.1:80\"");
    one_error(
        &web(&twice),
        "f:9: virtual_server[0] \"web\".real_server[1].address = \"10.0.0.1:80\": the same address and port as at \
         line 7; expected each real server once in a virtual server",
    );
}

#[test]
fn limits() {
    let servers = |count: usize, base: usize| {
        let mut text = String::new();
        for number in base..base + count {
            let (high, low) = (number / 256, number % 256);
            writeln!(
                text,
                "[[virtual_server.real_server]]\naddress = \"10.{}.{}.{low}\"",
                high / 256,
                high % 256
            )
            .expect("memory");
        }
        text
    };
    good(&web(&servers(256, 0)));
    one_error(
        &web(&servers(257, 0)),
        "f:518: virtual_server[0] \"web\".real_server[256]: 257 real servers for scheduler \"wlc\"; expected at \
         most 256, or another scheduler",
    );
    const MOST: usize = config::MAX_SERVERS_OF_A_VIRTUAL_SERVER;
    let rr = |count| web(&format!("scheduler = \"rr\"\n{}", servers(count, 0)));
    let mut text = rr(MOST);
    good(&text);
    assert_eq!(
        messages(&rr(MOST + 1))[0].split_once("real_server[65535]: ").expect("the place").1,
        "65536 real servers; expected at most 65535 in one virtual server"
    );
    for number in 1..config::MAX_REAL_SERVERS / MOST {
        write!(
            text,
            "[[virtual_server]]\nname = \"web{number}\"\naddress = \"192.0.2.2:{number}\"\nscheduler = \"rr\"\n{}",
            servers(MOST, number << 16)
        )
        .expect("memory");
    }
    good(&text);
    text.push_str("[[virtual_server]]\nname = \"more\"\naddress = \"192.0.2.2:80\"\n");
    text.push_str(&servers(1, 1 << 19));
    let got = messages(&text);
    let line = text.lines().count() - 1;
    let expected = format!(
        "f:{line}: virtual_server[4] \"more\".real_server[0]: 262141 real servers in all virtual servers together; \
         expected at most 262140"
    );
    assert_eq!(got, [expected, "1 error".to_owned()]);

    let mut text = DIRECTOR.to_owned();
    for number in 0..=config::MAX_VIRTUAL_SERVERS {
        let (high, low) = (number / 256, number % 256);
        write!(text, "[[virtual_server]]\nname = \"v{number}\"\naddress = \"10.1.{high}.{low}:80\"\n")
            .expect("memory");
    }
    one_error(&text, "f:49155: virtual_server[16384]: 16385 virtual servers; expected at most 16384");
}

#[test]
fn warnings() {
    let two = |first: &str, second: &str| {
        format!(
            "{}{}[[virtual_server]]\nname = \"b\"\naddress = \"192.0.2.2:{second}\n",
            web(""),
            real_server(&format!("address = \"10.0.0.1:{first}\""))
        )
    };
    let clash = "translates to the same real server";
    let count = |text: &str| messages(text).iter().filter(|line| line.contains(clash)).count();
    let same = two("80", "80\"\n[[virtual_server.real_server]]\naddress = \"10.0.0.1:80\"");
    assert_eq!(
        messages(&same),
        [
            "f:12: warning: virtual_server[1] \"b\".real_server[0].address = \"10.0.0.1:80\": virtual_server[0] \
          \"web\".real_server[0] at line 7 translates to the same real server; a client that uses one source port \
          for both would mix up its connections"
        ]
    );
    // Every port of the server is one of them.
    assert_eq!(count(&two("80", "0\"\n[[virtual_server.real_server]]\naddress = \"10.0.0.1\"")), 1);
    assert_eq!(count(&two("80", "80\"\n[[virtual_server.real_server]]\naddress = \"10.0.0.1:81\"")), 0);
    assert_eq!(
        count(&two("80", "80\"\nforward = \"dr\"\n[[virtual_server.real_server]]\naddress = \"10.0.0.1\"")),
        0
    );
    assert_eq!(
        count(&two("80", "80\"\nprotocol = \"udp\"\n[[virtual_server.real_server]]\naddress = \"10.0.0.1\"")),
        0
    );
    assert_eq!(
        messages(&web("")),
        ["f:3: warning: virtual_server[0] \"web\": no real server, so every new connection is refused"]
    );
    assert_eq!(
        messages(DIRECTOR),
        ["f:1: warning: virtual_server: there is none, so nothing will be balanced"]
    );
}

#[test]
fn unknown_keys_suggest_the_nearest() {
    let suggestion = |text: &str| {
        let errors = parse("f", text).expect_err("an unknown key");
        let found = errors.diagnostics().iter().find(|one| one.message == "unknown key");
        found.unwrap_or_else(|| panic!("{errors}")).suggestion.clone()
    };
    let some = |word: &str| Some(word.to_owned());
    assert_eq!(suggestion(&web("sheduler = 1\n")), some("scheduler"));
    assert_eq!(suggestion(&web("Protocol = 1\n")), some("protocol"));
    assert_eq!(suggestion(&web("lb_algo = 1\n")), some("scheduler"));
    assert_eq!(suggestion(&web("lb_kind = 1\n")), some("forward"));
    assert_eq!(suggestion(&format!("{DIRECTOR}max_conns = 1\n")), some("max_connections"));
    assert_eq!(suggestion(&format!("{DIRECTOR}[timeout]\ntcp = 3\n")), some("timeouts"));
    assert_eq!(suggestion(&web(&real_server("wieght = 1"))), some("weight"));
    assert_eq!(suggestion(&web("colour = 1\n")), None);
    assert_eq!(suggestion(&web(&format!("{} = 1\n", "x".repeat(100_000)))), None);
}

#[test]
fn broken_toml_is_reported_beside_the_other_mistakes() {
    let text = "[director]\ninterfaces = [\"eth0\"]\nrouter_id = director one\n[[virtual_server]]\n\
                address = 192.0.2.1:80 # no quotes\nscheduler = \"xx\"\nscheduler = \"rr\"\n";
    assert_eq!(
        messages(text),
        [
            "f:3: router_id = director one: not valid TOML: a text without quotes; expected \"director one\"",
            "f:5: address = 192.0.2.1:80: not valid TOML: a text without quotes; expected \"192.0.2.1:80\"",
            "f:6: virtual_server[0].scheduler = \"xx\": unknown scheduler; expected one of \"rr\", \"wrr\", \
             \"lc\", \"wlc\", \"sh\", \"mh\", \"dh\", \"sed\", \"nq\", \"lblc\", \"lblcr\", \"fo\", \"ovf\", \"twos\"",
            "f:7: scheduler = \"rr\": not valid TOML: duplicate key",
            "4 errors",
        ]
    );
    // Where the following keys belong is not known: nothing is said about them.
    assert_eq!(
        messages("[director\nfoo = 1\n[timeouts]\ntcp = \"x\"\n"),
        [
            "f:1: [director: not valid TOML: unclosed table (the rest of the file was not checked); expected `]`",
            "1 error",
        ]
    );
}

#[test]
fn a_file_that_is_not_text_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), b"[director]\ninterfaces = [\"\xff\"]\n").expect("the file is ours");
    let errors = load(file.path()).expect_err("not UTF-8");
    let [one] = errors.diagnostics() else { panic!("{errors}") };
    assert_eq!((one.line, one.severity, one.message.as_str()), (Some(2), Severity::Error, "not UTF-8 text"));
    let errors = load(Path::new("/nowhere/at/all.toml")).expect_err("no such file");
    assert_eq!(errors.to_string(), "/nowhere/at/all.toml: cannot read: No such file or directory\n1 error");
}

#[test]
fn messages_carry_no_control_characters() {
    let errors = parse("f\u{1b}", "a = \"\u{1b}[31m\u{202e}\"\n\"k\\n\\u001b\" = 1\n").expect_err("rubbish");
    let shown = errors.to_string();
    assert!(shown.contains("\\u{1b}[31m\\u{202e}"), "{shown}");
    assert!(shown.chars().all(|letter| letter == '\n' || !letter.is_control()), "{shown:?}");
    assert_eq!(shown.lines().count(), errors.diagnostics().len() + 1, "{shown}");
}
