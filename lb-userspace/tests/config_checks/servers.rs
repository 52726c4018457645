//! What hangs on checks: quorum, sorry server, thresholds, inheritance.

use std::{net::SocketAddr, time::Duration};

use lb_userspace::config::{Command, Forward, MAX_HEALTH_CHECKS, OnFailure, OnRemove, SorryServer};

use super::{good, messages, one, served, web};

#[test]
fn a_virtual_server_has_defaults() {
    let config = good(&served(""));
    assert_eq!((config.metrics, config.mail, config.director.script_user), (None, None, None));
    let server = &config.virtual_servers[0];
    assert_eq!((server.quorum, server.hysteresis), (1, 0));
    assert_eq!((&server.quorum_up, &server.quorum_down, &server.sorry_server), (&None, &None, &None));
    assert_eq!((server.alpha, server.omega, server.mail), (false, false, false));
    assert_eq!((server.on_remove, server.drain_timeout), (OnRemove::Drain, None));
    assert_eq!((server.expire_nodest, server.expire_quiescent), (true, false));
    let real = &server.real_servers[0];
    assert_eq!((real.upper_threshold, real.lower_threshold, real.on_failure), (0, 0, OnFailure::Remove));
    assert_eq!((&real.notify_up, &real.notify_down, &real.health_checks[..]), (&None, &None, &[][..]));
}

#[test]
fn a_real_server_inherits_or_has_its_own() {
    let text = web(
        "on_failure = \"inhibit\"\nupper_threshold = 100\nlower_threshold = 50\nnotify_up = [\"/up\"]\n\
         notify_down = [\"/down\"]\n[[virtual_server.health_check]]\ntype = \"ping\"\n\
         [[virtual_server.real_server]]\naddress = \"10.0.0.1\"\n\
         [[virtual_server.real_server]]\naddress = \"10.0.0.2\"\non_failure = \"remove\"\nupper_threshold = 10\n\
         notify_up = []\nnotify_down = [\"/other\", \"a\"]\nhealth_check = []\n\
         [[virtual_server.real_server]]\naddress = \"10.0.0.3\"\nlower_threshold = 7\n\
         [[virtual_server.real_server.health_check]]\ntype = \"tcp\"\n",
    );
    let command = |words: &[&str]| Some(Command(words.iter().map(|word| (*word).to_owned()).collect()));
    let config = good(&text);
    let [first, second, third] = &config.virtual_servers[0].real_servers[..] else { panic!("{config:?}") };
    assert_eq!(
        (first.upper_threshold, first.lower_threshold, first.on_failure),
        (100, 50, OnFailure::Inhibit)
    );
    assert_eq!((&first.notify_up, &first.notify_down), (&command(&["/up"]), &command(&["/down"])));
    assert_eq!(
        (second.upper_threshold, second.lower_threshold, second.on_failure),
        (10, 0, OnFailure::Remove)
    );
    assert_eq!((&second.notify_up, &second.notify_down), (&None, &command(&["/other", "a"])));
    assert_eq!((third.upper_threshold, third.lower_threshold), (100, 7));
    let probes = |index: usize| {
        let checks = &config.virtual_servers[0].real_servers[index].health_checks;
        checks.iter().map(|check| check.probe.as_str()).collect::<Vec<_>>()
    };
    assert_eq!((probes(0), probes(1), probes(2)), (vec!["ping"], vec![], vec!["tcp"]));

    let path = "f:7: virtual_server[0] \"web\".lower_threshold = ";
    one(
        &served("lower_threshold = 5"),
        &format!("{path}5: without effect, since there is no upper_threshold"),
    );
    one(
        &served("lower_threshold = 5\nupper_threshold = 4"),
        &format!("{path}5: more than the upper_threshold, 4"),
    );
    one(
        &format!("{}lower_threshold = 5\n", served("upper_threshold = 4")),
        "f:10: virtual_server[0] \"web\".real_server[0].lower_threshold = 5: more than the upper_threshold, 4",
    );
}

#[test]
fn quorum_and_hysteresis() {
    let path = "f:8: virtual_server[0] \"web\".hysteresis = ";
    one(
        &served("quorum = 3\nhysteresis = 3"),
        &format!("{path}3: not less than the quorum, 3; expected a whole number from 0 to 2"),
    );
    one(&served("\nhysteresis = 1"), &format!("{path}1: not less than the quorum, 1"));
    one(&served("quorum = 0"), "f:7: virtual_server[0] \"web\".quorum = 0: out of range");
    one(
        &served("quorum = 2"),
        "f:7: warning: virtual_server[0] \"web\".quorum = 2: once lost it is never reached again: that takes a weight \
         of 2, and all real servers together have 1",
    );
    assert_eq!(messages(&format!("{}weight = 3\n", served("quorum = 2\nhysteresis = 1"))), [""; 0]);
    // A script may set any weight.
    let script = "quorum = 9\nhealth_check = [{ type = \"script\", command = [\"/a\"], dynamic = true }]";
    assert_eq!(messages(&served(script)), [""; 0]);
    let server = good(&served("quorum_up = [\"/a\", \"b\"]\nquorum_down = []")).virtual_servers.remove(0);
    assert_eq!(server.quorum_up, Some(Command(vec!["/a".to_owned(), "b".to_owned()])));
    assert_eq!(server.quorum_down, None);
}

#[test]
fn sorry_servers_follow_the_rules_of_real_servers() {
    let sorry = |rest: &str| good(&served(rest)).virtual_servers.remove(0).sorry_server;
    let server = |address: &str, forward| {
        let address: SocketAddr = address.parse().expect("an address");
        Some(SorryServer { address: address.ip(), port: address.port(), forward })
    };
    assert_eq!(sorry("sorry_server = \"10.0.0.9:81\""), server("10.0.0.9:81", Forward::Nat));
    assert_eq!(sorry("sorry_server = \"10.0.0.9\""), server("10.0.0.9:80", Forward::Nat));
    let table = "sorry_server = { address = \"2001:db8::9\", forward = \"tun\" }";
    assert_eq!(sorry(table), server("[2001:db8::9]:80", Forward::Tun));
    let inherited = good(&web("forward = \"dr\"\nsorry_server = \"10.0.0.9\"")).virtual_servers.remove(0);
    assert_eq!(inherited.sorry_server, server("10.0.0.9:80", Forward::Dr));
    let path = "virtual_server[0] \"web\".sorry_server";
    for (value, expected) in [
        (
            "\"2001:db8::9\"",
            format!("f:7: {path} = \"2001:db8::9\": \"nat\" cannot change the address family"),
        ),
        ("\"192.0.2.1\"", format!("f:7: {path} = \"192.0.2.1\": the virtual server's own address")),
        ("3", format!("f:7: {path} = 3: wrong type, an integer")),
        ("{ forward = \"dr\" }", format!("f:7: {path}.address: missing")),
        (
            "{ address = \"10.0.0.9:81\", forward = \"dr\" }",
            format!("f:7: {path}.address = \"10.0.0.9:81\": \"dr\" cannot change the port"),
        ),
        ("{ address = \"10.0.0.9\", port = 1 }", format!("f:7: {path}.port = 1: unknown key")),
        (
            "\"10.0.0.1:8080\"",
            format!(
                "f:7: warning: {path} = \"10.0.0.1:8080\": the sorry server is one of the real servers too"
            ),
        ),
    ] {
        one(&served(&format!("sorry_server = {value}")), &expected);
    }
}

#[test]
fn connections_of_servers_that_go() {
    let server = good(&served("on_remove = \"drop\"\nexpire_nodest = false\nexpire_quiescent = true"));
    let server = &server.virtual_servers[0];
    assert_eq!(
        (server.on_remove, server.expire_nodest, server.expire_quiescent),
        (OnRemove::Drop, false, true)
    );
    let timeout = good(&served("drain_timeout = \"10m\"")).virtual_servers[0].drain_timeout;
    assert_eq!(timeout, Some(Duration::from_secs(600)));
    one(
        &served("on_remove = \"drop\"\ndrain_timeout = 5"),
        "f:8: warning: virtual_server[0] \"web\".drain_timeout = 5: without effect",
    );
    one(
        &served("alpha = \"true\""),
        "f:7: virtual_server[0] \"web\".alpha = \"true\": wrong type, a text; expected true or false",
    );
}

#[test]
fn checks_are_counted() {
    let checks = |count| format!("health_check = [{}]", vec!["{ type = \"tcp\" }"; count].join(", "));
    assert_eq!(good(&served(&checks(16))).virtual_servers[0].real_servers[0].health_checks.len(), 16);
    one(
        &served(&checks(17)),
        "f:7: virtual_server[0] \"web\".health_check[16]: 17 checks; expected at most 16",
    );

    let mut text = web(&format!("scheduler = \"rr\"\n{}", checks(16)));
    for number in 0..=MAX_HEALTH_CHECKS / 16 {
        let (high, low) = (number / 256, number % 256);
        text.push_str(&format!("[[virtual_server.real_server]]\naddress = \"10.0.{high}.{low}\"\n"));
    }
    one(
        &text,
        &format!(
            "f:{}: virtual_server[0] \"web\".real_server[16384]: 262160 checks of all real servers together; expected \
             at most 262144",
            text.lines().count() - 1
        ),
    );
}
