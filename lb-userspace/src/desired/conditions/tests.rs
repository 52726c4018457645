use super::*;
use crate::{config, health::Report};

/// Two servers of weight 1, each with a check, and more lines for their virtual server.
fn virtual_server(lines: &str) -> VirtualServer {
    let text = format!(
        "[director]\ninterfaces = [\"eth0\"]\n[[virtual_server]]\nname = \"web\"\naddress = \"192.0.2.1:80\"\n\
         scheduler = \"sh\"\nhealth_check = [{{ type = \"tcp\" }}, {{ type = \"ping\" }}]\n{lines}\n\
         [[virtual_server.real_server]]\naddress = \"10.0.0.1\"\n\
         [[virtual_server.real_server]]\naddress = \"10.0.0.2\"\n"
    );
    let (config, _) = config::parse("web.toml", &text).expect("a good file");
    std::sync::Arc::unwrap_or_clone(config.virtual_servers.into_iter().next().expect("one virtual server"))
}

/// What the check `index` of the server 10.0.0.`host` says.
fn report(virtual_server: &VirtualServer, host: u8, index: u32, is_up: bool, weight: Option<u32>) -> Inputs {
    let (service, address) = (ServiceId::of(virtual_server), [10, 0, 0, host].into());
    let id = CheckId { service, address, port: 80, index };
    let report = Report { weight, ..Report::sample(id, is_up, "as the test says") };
    Inputs { reports: [(id, report)].into(), ..Inputs::default() }
}

fn weights(outcome: &Outcome) -> Vec<(u8, u32, bool)> {
    let host = |server: &Server| match server.address {
        std::net::IpAddr::V4(address) => address.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    };
    outcome.service.servers.iter().map(|server| (host(server), server.weight, server.is_leaving)).collect()
}

#[test]
fn a_failed_server_is_taken_out() {
    let web = virtual_server("");
    let new = outcome(&web, &report(&web, 1, 1, false, None));
    assert_eq!(weights(&new), [(2, 1, false)]);
    assert_eq!(new.conditions[0], Condition::Down { reason: "ping: as the test says".to_owned() });
    assert_eq!(new.quorum, Quorum { is_up: true, alive_weight: 1 });
}

#[test]
fn an_inhibited_server_keeps_its_place_at_weight_0() {
    let web = virtual_server("on_failure = \"inhibit\"");
    let new = outcome(&web, &report(&web, 1, 0, false, None));
    assert_eq!(weights(&new), [(1, 0, false), (2, 1, false)]);
    assert_eq!(new.quorum.alive_weight, 1);
}

#[test]
fn beside_a_sorry_server_an_inhibited_one_has_no_place() {
    let lines = "on_failure = \"inhibit\"\nquorum = 2\nsorry_server = \"10.0.0.9\"";
    let web = virtual_server(lines);
    let new = outcome(&web, &report(&web, 1, 0, false, None));
    assert_eq!(weights(&new), [(1, 0, true), (2, 0, true), (9, 1, false)]);
    assert!(!new.quorum.is_up);
}

#[test]
fn the_smallest_weight_that_checks_set_counts() {
    let web = virtual_server("");
    let mut inputs = report(&web, 1, 0, true, Some(7));
    inputs.reports.extend(report(&web, 1, 1, true, Some(3)).reports);
    let new = outcome(&web, &inputs);
    assert_eq!(weights(&new), [(1, 3, false), (2, 1, false)]);
    assert_eq!(new.set_weights, [Some(3), None]);
    assert_eq!(new.quorum.alive_weight, 4);

    // An operator's weight is above theirs, and theirs are still known.
    let id = ServerId { service: ServiceId::of(&web), address: [10, 0, 0, 1].into(), port: 80 };
    inputs.orders.insert(id, Override::Weight { weight: 5 });
    let new = outcome(&web, &inputs);
    assert_eq!(weights(&new), [(1, 5, false), (2, 1, false)]);
    assert_eq!(new.set_weights, [Some(3), None]);
}

#[test]
fn between_the_thresholds_of_the_quorum_nothing_changes() {
    let web = virtual_server("quorum = 2\nhysteresis = 1");
    let id = ServiceId::of(&web);
    let with = |was_up: Option<bool>, alive: u64| quorum(&web, alive, was_up).is_up;
    assert_eq!([0, 1, 2, 3].map(|alive| with(Some(true), alive)), [false, true, true, true]);
    assert_eq!([0, 1, 2, 3].map(|alive| with(Some(false), alive)), [false, false, false, true]);
    assert_eq!([0, 1, 2, 3].map(|alive| with(None, alive)), [false, false, true, true]);
    let inputs = Inputs { quorum: [(id, false)].into(), ..Inputs::default() };
    assert!(!outcome(&web, &inputs).quorum.is_up, "two live, three are wanted");
}
