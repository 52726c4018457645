//! VRRP in the configuration, seen from outside: texts in, instances or messages out.

use std::{fs, path::Path};

use lb_userspace::config::{Config, Diagnostic, parse, vrrp::VrrpInstance};

#[path = "config_vrrp/addresses.rs"]
mod addresses;
#[path = "config_vrrp/authentication.rs"]
mod authentication;
#[path = "config_vrrp/instances.rs"]
mod instances;
#[path = "config_vrrp/servers.rs"]
mod servers;
#[path = "config_vrrp/tracks.rs"]
mod tracks;

const DIRECTOR: &str = "[director]\ninterfaces = [\"eth0\"]\n";

/// The smallest instance, from line 3 on, `rest` from line 8.
fn instance(rest: &str) -> String {
    format!("{DIRECTOR}{}{rest}\n", another("a", 1))
}

/// The same over IPv6.
fn instance_v6(rest: &str) -> String {
    instance(rest).replace("192.0.2.1", "2001:db8::1")
}

/// One more instance, with the header in its first line.
fn another(name: &str, vrid: u8) -> String {
    format!(
        "[[vrrp_instance]]\nname = \"{name}\"\ninterface = \"eth0\"\nvirtual_router_id = {vrid}\n\
         addresses = [\"192.0.2.{vrid}\"]\n"
    )
}

#[track_caller]
fn good(text: &str) -> Config {
    match parse("f", text) {
        Ok((config, _)) => config,
        Err(errors) => panic!("refused:\n{errors}\nin:\n{text}"),
    }
}

/// The first instance of a text.
#[track_caller]
fn first(text: &str) -> VrrpInstance {
    good(text).vrrp.instances.remove(0)
}

fn diagnostics(text: &str) -> Vec<Diagnostic> {
    match parse("f", text) {
        Ok((_, warnings)) => warnings,
        Err(errors) => errors.diagnostics().to_vec(),
    }
}

fn messages(text: &str) -> Vec<String> {
    diagnostics(text).iter().map(ToString::to_string).collect()
}

/// Asserts that `text` gives exactly one message, with this beginning.
#[track_caller]
fn one(text: &str, expected: &str) {
    let got = messages(text);
    assert_eq!(got.len(), 1, "not one message: {got:#?}\nin:\n{text}");
    assert!(got[0].starts_with(expected), "{got:#?}\nnot: {expected}");
}

/// The same for a key of the instance of [`instance`], in line 8.
#[track_caller]
fn one_key(key_and_value: &str, expected: &str) {
    one(&instance(key_and_value), &format!("f:8: vrrp_instance[0] \"a\".{key_and_value}: {expected}"));
}

/// The same for a warning.
#[track_caller]
fn one_warning(key_and_value: &str, expected: &str) {
    one(
        &instance(key_and_value),
        &format!("f:8: warning: vrrp_instance[0] \"a\".{key_and_value}: {expected}"),
    );
}

#[test]
fn ten_mistakes_get_ten_errors_each_with_its_line() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let text = fs::read_to_string(folder.join("ten-mistakes-in-vrrp.toml")).expect("the fixture");
    let expected = fs::read_to_string(folder.join("ten-mistakes-in-vrrp.expected")).expect("the fixture");
    let errors = parse("ten-mistakes-in-vrrp.toml", &text).expect_err("ten mistakes");
    assert_eq!(format!("{errors}\n"), expected);
    assert_eq!(errors.error_count(), 10);
    let lines: Vec<_> = errors.diagnostics().iter().map(|one| one.line.expect("each has a line")).collect();
    assert_eq!(lines, [5, 9, 15, 16, 17, 18, 19, 26, 28, 32]);
}

#[test]
fn keepalived_words_get_ours_suggested() {
    let suggestion = |text: &str| {
        let found = diagnostics(text);
        let found = found.iter().find(|one| one.message == "unknown key");
        found.unwrap_or_else(|| panic!("no unknown key in:\n{text}")).suggestion.clone()
    };
    for (theirs, ours) in [
        ("advert_int", "advert_interval"),
        ("virtual_ipaddress", "addresses"),
        ("virtual_ipaddress_excluded", "excluded_addresses"),
        ("virtual_routes", "routes"),
        ("virtual_rules", "rules"),
        ("use_vmac", "vmac"),
        ("mcast_src_ip", "source_address"),
        ("unicast_src_ip", "source_address"),
        ("unicast_peer", "unicast_peers"),
        ("check_unicast_src", "check_unicast_source"),
        ("track_interface", "track_interfaces"),
        ("track_script", "track_scripts"),
        ("track_process", "track_processes"),
        ("track_file", "track_files"),
        ("smtp_alert", "mail"),
        ("vrid", "virtual_router_id"),
        ("garp_master_repaet", "garp_master_repeat"),
    ] {
        assert_eq!(suggestion(&instance(&format!("{theirs} = 1"))).as_deref(), Some(ours), "{theirs}");
    }
    let group = |key: &str| format!("{}[[vrrp_sync_group]]\nname = \"g\"\n{key} = 1\n", instance(""));
    assert_eq!(suggestion(&group("group")).as_deref(), Some("instances"));
    assert_eq!(suggestion(&group("sync_group_tracking_weight")).as_deref(), Some("tracking_weight"));
    let script = |key: &str| format!("{}[[vrrp_script]]\nname = \"s\"\n{key} = 1\n", instance(""));
    assert_eq!(suggestion(&script("script")).as_deref(), Some("command"));
    assert_eq!(suggestion(&format!("{DIRECTOR}[[vrrp_instances]]\n")).as_deref(), Some("vrrp_instance"));
}

#[test]
fn the_thread_of_the_driver() {
    let settings = |keys: &str| format!("{}[vrrp]\n{keys}\n", instance(""));
    let read = good(&settings("realtime_priority = 50\nlock_memory = true\nguard = true\nwatchdog = \"1s\""));
    let read = read.vrrp.settings;
    assert_eq!((read.realtime_priority, read.lock_memory, read.guard), (Some(50), true, true));
    assert_eq!(read.watchdog.as_millis(), 1000);
    assert_eq!(good(&settings("")).vrrp.settings, good(&instance("")).vrrp.settings);
    let default = good(&settings("")).vrrp.settings;
    assert_eq!((default.realtime_priority, default.lock_memory, default.guard), (None, false, true));
    assert_eq!(default.watchdog.as_millis(), 500);
    for (keys, what) in [
        ("realtime_priority = 0", "out of range; expected a whole number from 1 to 99"),
        ("realtime_priority = 100", "out of range"),
        ("lock_memory = 1", "wrong type, an integer"),
        ("watchdog = \"49ms\"", "too short; expected a time from \"50ms\" to \"1h\""),
        ("watchdog = \"61m\"", "too long"),
    ] {
        one(&settings(keys), &format!("f:10: vrrp.{keys}: {what}"));
    }
    one(
        &settings("guard = false\nwatchdog = \"1s\""),
        "f:11: warning: vrrp.watchdog = \"1s\": without effect beside guard = false",
    );
}

#[test]
fn a_file_without_virtual_servers_is_fine_with_vrrp() {
    assert_eq!(messages(&instance("")), [""; 0]);
    assert!(messages(DIRECTOR)[0].contains("nothing will be balanced"));
}
