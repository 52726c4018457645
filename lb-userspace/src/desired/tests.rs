//! What follows from what: one virtual server, its servers' checks, orders, and configurations that change.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::config;

const VIP: &str = "192.0.2.1:80";

/// A configuration with one virtual server: `keys` in its table, and a real server for each of `servers` with its keys.
fn configuration(keys: &str, servers: &[(&str, &str)]) -> Config {
    let mut text = format!(
        "[director]\ninterfaces = [\"eth0\"]\n[[virtual_server]]\nname = \"web\"\naddress = \"{VIP}\"\n{keys}\n"
    );
    for (address, keys) in servers {
        text += &format!("[[virtual_server.real_server]]\naddress = \"{address}\"\n{keys}\n");
    }
    config::parse("test.toml", &text).unwrap_or_else(|errors| panic!("{errors}")).0
}

fn service() -> ServiceId {
    let address: SocketAddr = VIP.parse().unwrap();
    ServiceId { address: address.ip(), port: address.port(), protocol: Protocol::Tcp }
}

fn server(text: &str) -> ServerId {
    let address: SocketAddr = text.parse().unwrap();
    ServerId { service: service(), address: address.ip(), port: address.port() }
}

/// The word of a server's first check.
fn report(text: &str, is_up: bool) -> (CheckId, Report) {
    let ServerId { service, address, port } = server(text);
    let id = CheckId { service, address, port, index: 0 };
    (id, Report::sample(id, is_up, "refused"))
}

/// The data plane's servers as `address weight`, or `address leaving`.
fn servers(service: &Service) -> Vec<String> {
    let one = |server: &Server| match server.is_leaving {
        true => format!("{} leaving", server.address),
        false => format!("{} {}", server.address, server.weight),
    };
    service.servers.iter().map(one).collect()
}

const CHECK: &str = "health_check = [{ type = \"tcp\" }]";
const TWO: [(&str, &str); 2] = [("10.0.0.1:80", CHECK), ("10.0.0.2:80", CHECK)];

#[test]
fn a_failing_check_takes_a_server_out_and_a_passing_one_brings_it_back() {
    let config = configuration("", &TWO);
    let mut inputs = Inputs::default();
    let both = ["10.0.0.1 1", "10.0.0.2 1"];
    let web = &config.virtual_servers[0];
    assert_eq!(servers(&outcome(web, &inputs).service), both);
    inputs.reports.extend([report("10.0.0.1:80", false)]);
    let down = outcome(web, &inputs);
    assert_eq!(servers(&down.service), ["10.0.0.2 1"]);
    assert_eq!(down.conditions[0], Condition::Down { reason: "tcp: refused".to_owned() });
    assert_eq!(down.quorum, Quorum { is_up: true, alive_weight: 1 });
    inputs.reports.extend([report("10.0.0.1:80", true)]);
    assert_eq!(servers(&outcome(web, &inputs).service), both);
}

#[test]
fn a_bound_virtual_server_has_the_role_of_its_instance() {
    let mut config = configuration("", &TWO);
    let inputs =
        Inputs { roles: [("VI_1".to_owned(), 1), ("VI_2".to_owned(), 2)].into(), ..Inputs::default() };
    let role = |config: &Config| desired_with(config, &inputs)[&service()].role;
    assert_eq!(role(&config), 0);
    std::sync::Arc::make_mut(&mut config.virtual_servers[0]).bind_to = Some("VI_2".to_owned());
    assert_eq!(role(&config), 2);
}

#[test]
fn what_drains_keeps_its_role() {
    let mut before = configuration("", &TWO);
    std::sync::Arc::make_mut(&mut before.virtual_servers[0]).bind_to = Some("VI_1".to_owned());
    let after = Config { virtual_servers: Vec::new(), ..before.clone() };
    let mut inputs = Inputs { roles: [("VI_1".to_owned(), 7)].into(), ..Inputs::default() };
    let served = desired_with(&before, &inputs);
    inputs.draining.follow(&served, Some(&before), &after, 0);
    let left = desired_with(&after, &inputs);
    assert_eq!(left[&service()].role, 7);
    assert_eq!(servers(&left[&service()]), ["10.0.0.1 leaving", "10.0.0.2 leaving"]);
}

#[test]
fn inhibited_servers_keep_their_connections() {
    let config = configuration("on_failure = \"inhibit\"", &TWO);
    let inputs = Inputs { reports: [report("10.0.0.1:80", false)].into(), ..Inputs::default() };
    let outcome = outcome(&config.virtual_servers[0], &inputs);
    assert_eq!(servers(&outcome.service), ["10.0.0.1 0", "10.0.0.2 1"]);
}

#[test]
fn with_alpha_servers_wait_for_their_first_check() {
    let config = configuration("alpha = true", &[TWO[0], ("10.0.0.3:80", "health_check = []")]);
    let mut inputs = Inputs::default();
    let before = outcome(&config.virtual_servers[0], &inputs);
    assert_eq!(servers(&before.service), ["10.0.0.3 1"]);
    assert_eq!(before.conditions, [Condition::Checking, Condition::Up]);
    inputs.reports.extend([report("10.0.0.1:80", true)]);
    assert_eq!(servers(&outcome(&config.virtual_servers[0], &inputs).service), ["10.0.0.1 1", "10.0.0.3 1"]);
}

#[test]
fn the_sorry_server_serves_while_the_quorum_is_lost() {
    let config = configuration(
        "quorum = 3\nhysteresis = 1\nsorry_server = \"10.0.0.9:80\"",
        &[
            ("10.0.0.1:80", "weight = 2\nhealth_check = [{ type = \"tcp\" }]"),
            ("10.0.0.2:80", "weight = 2\nhealth_check = [{ type = \"tcp\" }]"),
        ],
    );
    let web = &config.virtual_servers[0];
    let mut inputs = Inputs::default();
    let mut step = |address: &str, is_up: bool| {
        inputs.reports.extend([report(address, is_up)]);
        let outcome = outcome(web, &inputs);
        inputs.quorum.insert(service(), outcome.quorum.is_up);
        (outcome.quorum.is_up, servers(&outcome.service))
    };
    // 4 of 3: up; the sorry server only keeps what it has.
    let (is_up, all) = step("10.0.0.1:80", true);
    assert_eq!((is_up, all.join(", ").as_str()), (true, "10.0.0.1 2, 10.0.0.2 2, 10.0.0.9 leaving"));
    // 2 is not below 3 - 1.
    assert_eq!(step("10.0.0.1:80", false), (true, vec!["10.0.0.2 2".into(), "10.0.0.9 leaving".into()]));
    assert_eq!(step("10.0.0.2:80", false), (false, vec!["10.0.0.9 1".into()]));
    // 2 is less than 3 + 1: the living server waits.
    assert_eq!(step("10.0.0.2:80", true), (false, vec!["10.0.0.2 leaving".into(), "10.0.0.9 1".into()]));
    assert!(step("10.0.0.1:80", true).0);
}

#[test]
fn without_a_sorry_server_the_living_go_on_below_the_quorum() {
    let config = configuration("quorum = 2", &TWO);
    let inputs = Inputs { reports: [report("10.0.0.1:80", false)].into(), ..Inputs::default() };
    let outcome = outcome(&config.virtual_servers[0], &inputs);
    assert!(!outcome.quorum.is_up);
    assert_eq!(servers(&outcome.service), ["10.0.0.2 1"]);
}

#[test]
fn orders_stand_above_the_configuration() {
    let config = configuration("", &TWO);
    let web = &config.virtual_servers[0];
    let with = |order: Override, now: u64| {
        let inputs = Inputs { orders: [(server("10.0.0.1:80"), order)].into(), now, ..Inputs::default() };
        let outcome = outcome(web, &inputs);
        (outcome.conditions[0].clone(), servers(&outcome.service).join(", "))
    };
    let drained = "10.0.0.1 leaving, 10.0.0.2 1".to_owned();
    assert_eq!(with(Override::Drain { until: None }, 0), (Condition::Draining, drained.clone()));
    assert_eq!(with(Override::Drain { until: Some(10) }, 9), (Condition::Draining, drained));
    let out = "10.0.0.2 1".to_owned();
    assert_eq!(with(Override::Drain { until: Some(10) }, 10), (Condition::Disabled, out.clone()));
    assert_eq!(with(Override::Disable, 0), (Condition::Disabled, out));
    let heavy = "10.0.0.1 7, 10.0.0.2 1".to_owned();
    assert_eq!(with(Override::Weight { weight: 7 }, 0), (Condition::Up, heavy));
}

#[test]
fn checks_set_weights_and_ask_for_silence() {
    let config = configuration(
        "",
        &[(
            "10.0.0.1:80",
            "health_check = [{ type = \"file\", path = \"/a\" }, { type = \"file\", path = \"/b\" }]",
        )],
    );
    let web = &config.virtual_servers[0];
    let (id, first) = report("10.0.0.1:80", true);
    let second = CheckId { index: 1, ..id };
    let mut inputs = Inputs::default();
    inputs.reports.insert(id, Report { weight: Some(5), ..first.clone() });
    inputs.reports.insert(second, Report { id: second, weight: Some(3), ..first.clone() });
    assert_eq!(servers(&outcome(web, &inputs).service), ["10.0.0.1 3"]);
    inputs.reports.insert(second, Report { id: second, drain: true, ..first });
    let outcome = outcome(web, &inputs);
    assert_eq!(
        (outcome.conditions[0].clone(), servers(&outcome.service)[0].as_str()),
        (Condition::Quiet, "10.0.0.1 leaving")
    );
}

#[test]
fn what_leaves_the_file_drains_until_it_is_empty() {
    let before = configuration("drain_timeout = \"10s\"", &TWO);
    let after = configuration("drain_timeout = \"10s\"", &TWO[..1]);
    let mut inputs = Inputs::default();
    let served = desired(&before);
    inputs.draining.follow(&served, Some(&before), &after, 100);
    let wanted = desired_with(&after, &inputs);
    assert_eq!(servers(&wanted[&service()]), ["10.0.0.1 1", "10.0.0.2 leaving"]);
    // A second reload changes nothing, not even the time that is left.
    inputs.draining.follow(&wanted, Some(&after), &after, 105);
    assert_eq!(inputs.draining.leavers(&service())[0].until, Some(110));
    assert!(inputs.draining.end(109, |_, _| false).is_empty());
    assert_eq!(inputs.draining.end(110, |_, _| false), [server("10.0.0.2:80")]);
    assert_eq!(servers(&desired_with(&after, &inputs)[&service()]), ["10.0.0.1 1"]);
}

#[test]
fn a_server_that_comes_back_drains_no_more() {
    let (both, one) = (configuration("", &TWO), configuration("", &TWO[..1]));
    let mut draining = Draining::default();
    draining.follow(&desired(&both), Some(&both), &one, 0);
    assert_eq!(draining.leavers(&service()).len(), 1);
    draining.follow(&desired(&both), Some(&one), &both, 0);
    assert_eq!(draining, Draining::default());
}

#[test]
fn with_drop_nothing_drains() {
    let before = configuration("on_remove = \"drop\"", &TWO);
    let mut draining = Draining::default();
    draining.follow(&desired(&before), Some(&before), &configuration("on_remove = \"drop\"", &TWO[..1]), 0);
    let nothing = config::parse("none.toml", "director.interfaces = [\"eth0\"]").unwrap().0;
    draining.follow(&desired(&before), Some(&before), &nothing, 0);
    assert_eq!(draining, Draining::default());
}

#[test]
fn a_virtual_server_that_leaves_the_file_drains_too() {
    let before = configuration("", &TWO);
    let nothing = config::parse("none.toml", "director.interfaces = [\"eth0\"]").unwrap().0;
    let mut inputs = Inputs::default();
    inputs.draining.follow(&desired(&before), Some(&before), &nothing, 0);
    let wanted = desired_with(&nothing, &inputs);
    assert_eq!(servers(&wanted[&service()]), ["10.0.0.1 leaving", "10.0.0.2 leaving"]);
    assert_eq!(inputs.draining.end(0, |_, _| true).len(), 2);
    assert!(desired_with(&nothing, &inputs).is_empty());
}

proptest! {
    /// Whatever checks and operators say: a server is there at most once, and one that is alive serves unless the sorry server
    /// does.
    #[test]
    fn no_server_twice_and_no_living_one_forgotten(
        ups in proptest::collection::vec(any::<Option<bool>>(), 2),
        order in proptest::option::of(0u8..3),
        quorum in 1u32..4,
        was_up in any::<Option<bool>>(),
        alpha in any::<bool>(),
    ) {
        let keys = format!("quorum = {quorum}\nalpha = {alpha}\nsorry_server = \"10.0.0.9:80\"");
        let config = configuration(&keys, &TWO);
        let mut inputs = Inputs::default();
        for (up, (address, _)) in ups.iter().zip(TWO) {
            inputs.reports.extend(up.map(|up| report(address, up)));
        }
        if let Some(order) = order {
            let order = [Override::Drain { until: None }, Override::Disable, Override::Weight { weight: 2 }][usize::from(order)];
            inputs.orders.insert(server("10.0.0.1:80"), order);
        }
        inputs.quorum.extend(was_up.map(|up| (service(), up)));
        let outcome = outcome(&config.virtual_servers[0], &inputs);
        let mut seen = std::collections::BTreeSet::new();
        for server in &outcome.service.servers {
            prop_assert!(seen.insert((server.address, server.port)), "{:?}", outcome.service.servers);
        }
        let serving = |id: ServerId| outcome.service.servers.iter().any(|one| one.id(service()) == id && !one.is_leaving);
        for (condition, (address, _)) in outcome.conditions.iter().zip(TWO) {
            prop_assert_eq!(serving(server(address)), condition.is_alive() && outcome.quorum.is_up);
        }
        prop_assert_eq!(serving(server("10.0.0.9:80")), !outcome.quorum.is_up);
    }
}
