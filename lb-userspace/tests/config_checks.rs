//! Health checks and what hangs on them, seen from outside: texts in, checks or messages out.

use std::{fs, path::Path};

use lb_userspace::config::{Config, check::Probe, parse};

#[path = "config_checks/checks.rs"]
mod checks;
#[path = "config_checks/mail.rs"]
mod mail;
#[path = "config_checks/servers.rs"]
mod servers;

const DIRECTOR: &str = "[director]\ninterfaces = [\"eth0\"]\nrouter_id = \"director-01\"\n";

/// A virtual server from line 4 on, `rest` from line 7.
fn web(rest: &str) -> String {
    format!("{DIRECTOR}[[virtual_server]]\nname = \"web\"\naddress = \"192.0.2.1:80\"\n{rest}\n")
}

/// `rest` from line 7, and one real server with a port of its own.
fn served(rest: &str) -> String {
    web(&format!("{rest}\n[[virtual_server.real_server]]\naddress = \"10.0.0.1:8080\""))
}

/// A check in line 7.
fn checked(keys: &str) -> String {
    served(&format!("health_check = [{{ {keys} }}]"))
}

#[track_caller]
fn good(text: &str) -> Config {
    match parse("f", text) {
        Ok((config, _)) => config,
        Err(errors) => panic!("refused:\n{errors}\nin:\n{text}"),
    }
}

#[track_caller]
fn messages(text: &str) -> Vec<String> {
    match parse("f", text) {
        Ok((_, warnings)) => warnings.iter().map(ToString::to_string).collect(),
        Err(errors) => errors.diagnostics().iter().map(ToString::to_string).collect(),
    }
}

/// Asserts that `text` gives exactly one message, with this beginning.
#[track_caller]
fn one(text: &str, expected: &str) {
    let got = messages(text);
    assert_eq!(got.len(), 1, "not one message: {got:#?}\nin:\n{text}");
    assert!(got[0].starts_with(expected), "{got:#?}\nnot: {expected}");
}

#[test]
fn ten_mistakes_get_ten_errors_each_with_its_line() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let text = fs::read_to_string(folder.join("ten-mistakes-in-checks.toml")).expect("the fixture");
    let expected = fs::read_to_string(folder.join("ten-mistakes-in-checks.expected")).expect("the fixture");
    let errors = parse("ten-mistakes-in-checks.toml", &text).expect_err("ten mistakes");
    assert_eq!(format!("{errors}\n"), expected);
    assert_eq!(errors.error_count(), 10);
    let lines: Vec<_> = errors.diagnostics().iter().map(|one| one.line.expect("each has a line")).collect();
    assert_eq!(lines, [8, 9, 12, 16, 17, 21, 22, 26, 30, 34]);
}

#[test]
fn the_full_example_has_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/full.toml");
    let text = fs::read_to_string(path).expect("the example");
    let (config, warnings) = parse("full.toml", &text).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(warnings, []);
    let checks = &config.virtual_servers[0].real_servers[0].health_checks;
    let types: Vec<_> = checks.iter().map(|check| check.probe.as_str()).collect();
    assert_eq!(types, Probe::TYPES);
    // An unknown key makes each table name those that it knows.
    let mut with_unknown = String::from("zzz = 0\n");
    for line in text.lines() {
        with_unknown.push_str(line);
        with_unknown.push('\n');
        if line.trim_start().starts_with('[') {
            with_unknown.push_str("zzz = 0\n");
        }
    }
    let errors = parse("full.toml", &with_unknown).expect_err("unknown keys");
    let mut tables = 0;
    for error in errors.diagnostics() {
        assert_eq!(error.message, "unknown key", "{error}");
        let expected = error.expected.as_deref().expect("the keys that there are");
        let known = expected.trim_start_matches("one of ").split(", ").map(|key| key.trim_matches('"'));
        for key in known {
            let written = [format!("{key} = "), format!("[{key}]"), format!("[{key}]]"), format!(".{key}]")];
            assert!(
                written.iter().any(|written| text.contains(written)),
                "{key} of {} is missing",
                error.key
            );
        }
        tables += 1;
    }
    assert_eq!(tables, 29, "{errors}");
}

#[test]
fn what_the_reference_shows_is_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let reference = fs::read_to_string(path).expect("the reference");
    let mut seen = 0;
    for block in reference.split("```toml\n").skip(1) {
        let (block, _) = block.split_once("```").expect("every block ends");
        let text = if block.starts_with("[director]") {
            block.to_owned()
        } else if block.starts_with("[[virtual_server]]") || block.starts_with("[[vrrp_") {
            format!("{DIRECTOR}{block}")
        } else {
            served("") + "[[virtual_server]]\nname = \"b\"\naddress = \"192.0.2.2:80\"\n" + block
        };
        good(&text);
        seen += 1;
    }
    assert!(seen >= 11, "only {seen} blocks found");
}
