//! The common kinds of checks: each takes a server out and in again, and clients notice nothing.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director,
    configuration::VirtualServer,
    director::binary_path,
    httpd::Server,
    moody::{Mood, Moody},
    require_director,
    topology::{self, Options, PORTS, Scene},
};
use lb_userspace::api::types::RealServerState;

use crate::{
    support::{configuration, status},
    tls::self_signed,
    watch::{
        IMPATIENT, SILENT, checked, checked_on, ensure_only, ensure_told, server, until, until_all_up,
        until_state, with_times,
    },
};

/// What clients ask for.
const URL: &str = "http://192.168.10.50/";
/// The port of the pages that are checked. Clients use another.
const CHECKED: u16 = 8081;
const PAGE: &str = "all is well\n";

fn web() -> VirtualServer {
    VirtualServer::tcp("web", topology::vip4(80))
}

/// Every real server's page for checks.
fn pages(scene: &Scene, page: &str) -> Result<Vec<Moody>> {
    let start =
        |server: &topology::RealServer| Moody::start(&server.netns, CHECKED, Mood::Page(page.to_owned()));
    scene.servers.iter().map(start).collect()
}

#[test]
fn tcp_takes_a_dead_server_out_and_in() -> Result<()> {
    require_director!("tcp_takes_a_dead_server_out_and_in");
    let mut scene = topology::nat(&Options::new("tcp"))?;
    let text = configuration(&scene).serve(&checked(web(), &scene, "type = \"tcp\"", 3));
    let mut director = Director::start(&scene.director, text.text())?;
    until_all_up(&director, "web")?;
    ensure_only(scene.client(), URL, &[1, 2, 3])?;

    scene.servers[1].http = None;
    let dead = until_state(&director, "web", 1, RealServerState::Down)?;
    ensure_only(scene.client(), URL, &[1, 3])?;
    ensure!(dead.reason.as_deref() == Some("tcp: connection refused"), "{dead:?}");
    let shown = &status(&director)?.virtual_servers[0];
    ensure!(shown.real_servers[1].state == RealServerState::Down && shown.real_servers[1].weight == 0);
    ensure!(shown.real_servers[1].checks[0].up == Some(false), "{shown:?}");
    ensure!(shown.quorum.up && shown.quorum.alive_weight == 2, "{shown:?}");

    scene.servers[1].http = Some(Server::start(&scene.servers[1].netns, "Real 2", &PORTS)?);
    let back = until_state(&director, "web", 1, RealServerState::Up)?;
    ensure!(back.reason.is_none() && back.weight == 1, "{back:?}");
    ensure_only(scene.client(), URL, &[1, 2, 3])?;
    ensure_told(&director, "web", dead.address, &["down: tcp: connection refused", "up"])?;
    for other in [0, 2] {
        ensure_told(&director, "web", server(&director, "web", other)?.address, &[])?;
    }
    director.stop()
}

#[test]
fn http_knows_the_right_page() -> Result<()> {
    require_director!("http_knows_the_right_page");
    let scene = topology::nat(&Options::new("http"))?;
    let pages = pages(&scene, PAGE)?;
    let hash = scene
        .director
        .command(binary_path())
        .args(["hash", &format!("http://192.168.1.101:{CHECKED}/health")])
        .output()?;
    let said = String::from_utf8(hash.stdout)?;
    let is_sum = |word: &&str| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let sum = said.split_whitespace().find(is_sum).with_context(|| format!("no MD5 in {said:?}"))?;

    let check = format!("type = \"http\", connect_port = {CHECKED}, paths = [\"/health\"], md5 = \"{sum}\"");
    let text = configuration(&scene).serve(&with_times(IMPATIENT, 80, web(), &scene, &check, 3));
    let mut director = Director::start(&scene.director, text.text())?;
    until_all_up(&director, "web")?;
    let address = server(&director, "web", 0)?.address;
    let silent = format!("http: {SILENT}");
    let faults = [
        (Mood::Status(503), "http: HTTP 503 for /health"),
        (Mood::Page("all is lost\n".to_owned()), "http: MD5 of /health is "),
        (Mood::Slow(Duration::from_secs(5), PAGE.to_owned()), silent.as_str()),
        (Mood::Silent, silent.as_str()),
    ];
    let mut expected = Vec::new();
    for (mood, reason) in faults {
        pages[0].set(mood);
        let down = until_state(&director, "web", 0, RealServerState::Down)?;
        ensure!(down.reason.as_ref().is_some_and(|said| said.starts_with(reason)), "{reason}: {down:?}");
        ensure_only(scene.client(), URL, &[2, 3])?;
        pages[0].set(Mood::Page(PAGE.to_owned()));
        until_state(&director, "web", 0, RealServerState::Up)?;
        expected.extend([format!("down: {reason}"), "up".to_owned()]);
    }
    ensure_only(scene.client(), URL, &[1, 2, 3])?;
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    ensure_told(&director, "web", address, &expected)?;
    director.stop()
}

#[test]
fn https_with_and_without_a_look_at_the_certificate() -> Result<()> {
    require_director!("https_with_and_without_a_look_at_the_certificate");
    let scene = topology::nat(&Options::new("https"))?;
    let mut pages: Vec<Option<Moody>> = Vec::new();
    let start = |real: &topology::RealServer| {
        let page = Mood::Page(PAGE.to_owned());
        Moody::start_inside(&real.netns, CHECKED, page, self_signed("shop.example.org")?)
    };
    for real in &scene.servers {
        pages.push(Some(start(real)?));
    }
    let check = format!(
        "type = \"https\", connect_port = {CHECKED}, host = \"shop.example.org\", paths = [\"/\", \"/cart\"], \
         regex = \"^all is well\""
    );
    let strict = VirtualServer::tcp("strict", topology::vip4(8080));
    let text = configuration(&scene).serve(&checked(web(), &scene, &check, 3)).serve(&checked_on(
        8080,
        strict,
        &scene,
        &format!("{check}, verify = true"),
        1,
    ));
    let mut director = Director::start(&scene.director, text.text())?;
    until_all_up(&director, "web")?;
    let refused = until_state(&director, "strict", 0, RealServerState::Down)?;
    ensure!(refused.reason.as_ref().is_some_and(|said| said.contains("certificate")), "{refused:?}");

    let page = pages[2].as_ref().context("it runs")?;
    page.set(Mood::Status(404));
    let down = until_state(&director, "web", 2, RealServerState::Down)?;
    ensure!(down.reason.as_ref().is_some_and(|said| said.starts_with("https: HTTP 404 for /")), "{down:?}");
    ensure_only(scene.client(), URL, &[1, 2])?;
    page.set(Mood::Page(PAGE.to_owned()));
    until_state(&director, "web", 2, RealServerState::Up)?;

    pages[2] = None;
    until_state(&director, "web", 2, RealServerState::Down)?;
    ensure_only(scene.client(), URL, &[1, 2])?;
    // Somebody answers there, but not in TLS.
    let plain = Moody::start(&scene.servers[2].netns, CHECKED, Mood::Page(PAGE.to_owned()))?;
    until(&director, "web", |one| {
        let detail = one.real_servers[2].checks[0].detail.clone();
        detail.is_some_and(|detail| !detail.contains("refused"))
    })?;
    ensure!(server(&director, "web", 2)?.state == RealServerState::Down);
    drop(plain);
    pages[2] = Some(start(&scene.servers[2])?);
    until_state(&director, "web", 2, RealServerState::Up)?;
    ensure_only(scene.client(), URL, &[1, 2, 3])?;
    ensure_told(
        &director,
        "web",
        down.address,
        &["down: https: HTTP 404 for /", "up", "down: https: connection refused", "up"],
    )?;
    director.stop()
}

/// A script that ends with the code in the file that is named as the server's address.
fn write_script(directory: &Path) -> Result<String> {
    let path = directory.join("check.sh");
    let text = format!(
        "#!/bin/sh\nread code < {}/\"$XDIRECTOR_ADDRESS\" || exit 0\necho \"the code is $code\"\nexit \"$code\"\n",
        directory.display()
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

#[test]
fn a_script_sets_the_weight_and_takes_out() -> Result<()> {
    require_director!("a_script_sets_the_weight_and_takes_out");
    let scene = topology::nat(&Options::new("script"))?;
    let directory =
        tempfile::Builder::new().prefix(&format!("{}-script-", scene.director.name())).tempdir()?;
    let script = write_script(directory.path())?;
    let order = |address: &str, code: u8| fs::write(directory.path().join(address), format!("{code}\n"));
    let check = format!("type = \"script\", dynamic = true, command = [\"{script}\"]");
    let text = configuration(&scene).serve(&checked(web().scheduler("wrr"), &scene, &check, 3));
    let mut director = Director::start(&scene.director, text.text())?;
    until_all_up(&director, "web")?;
    ensure_only(scene.client(), URL, &[1, 2, 3])?;

    order("192.168.1.101", 5)?;
    until(&director, "web", |one| one.real_servers[0].weight == 3)?;
    let counts = scene.client().http_counts(topology::vip4(80), 50)?;
    ensure!(counts["Real 1"] == 30 && counts["Real 2"] == 10 && counts["Real 3"] == 10, "{counts:?}");
    let heavy = server(&director, "web", 0)?;
    ensure!(heavy.checks[0].weight == Some(3) && heavy.configured_weight == Some(1), "{heavy:?}");

    // Weight 0: up, without new connections.
    order("192.168.1.102", 2)?;
    until(&director, "web", |one| one.real_servers[1].weight == 0)?;
    let counts = scene.client().http_counts(topology::vip4(80), 40)?;
    ensure!(counts["Real 1"] == 30 && counts["Real 3"] == 10, "{counts:?}");
    ensure!(server(&director, "web", 1)?.state == RealServerState::Up);

    order("192.168.1.101", 1)?;
    let down = until_state(&director, "web", 0, RealServerState::Down)?;
    ensure!(down.reason.as_deref() == Some("script: exit code 1: the code is 1"), "{down:?}");
    ensure_only(scene.client(), URL, &[3])?;
    order("192.168.1.101", 0)?;
    order("192.168.1.102", 0)?;
    until_all_up(&director, "web")?;
    until(&director, "web", |one| one.real_servers.iter().all(|server| server.weight == 1))?;
    ensure_only(scene.client(), URL, &[1, 2, 3])?;
    let told = ["its check sets weight 3", "down: script: exit code 1: the code is 1", "up"];
    ensure_told(&director, "web", down.address, &told)?;
    let told = ["its check sets weight 0", "its check sets no weight any more, so it is 1"];
    ensure_told(&director, "web", server(&director, "web", 1)?.address, &told)?;
    director.stop()
}

#[test]
fn all_checks_of_a_server_must_pass() -> Result<()> {
    require_director!("all_checks_of_a_server_must_pass");
    let mut scene = topology::nat(&Options::new("several"))?;
    let pages = pages(&scene, PAGE)?;
    let quick = crate::watch::QUICK;
    let line = format!(
        "health_check = [{{ type = \"tcp\", {quick} }}, {{ type = \"http\", connect_port = {CHECKED}, {quick} }}]"
    );
    let text =
        configuration(&scene).serve(&crate::support::fill(web().line(&line), &scene, false, 80, &[1, 1, 1]));
    let mut director = Director::start(&scene.director, text.text())?;
    until_all_up(&director, "web")?;

    // One of two: the server itself serves, its page is not there.
    pages[0].set(Mood::Status(500));
    let down = until_state(&director, "web", 0, RealServerState::Down)?;
    ensure!(down.reason.as_ref().is_some_and(|said| said.starts_with("http: HTTP 500")), "{down:?}");
    ensure!((down.checks[0].up, down.checks[1].up) == (Some(true), Some(false)), "{down:?}");
    ensure_only(scene.client(), URL, &[2, 3])?;

    // Both, then the other one: still down, and nothing more is told.
    scene.servers[0].http = None;
    until(&director, "web", |one| one.real_servers[0].checks[0].up == Some(false))?;
    pages[0].set(Mood::Page(PAGE.to_owned()));
    until(&director, "web", |one| one.real_servers[0].checks[1].up == Some(true))?;
    let down = server(&director, "web", 0)?;
    ensure!(
        down.state == RealServerState::Down && down.reason.as_deref() == Some("tcp: connection refused"),
        "{down:?}"
    );
    ensure_only(scene.client(), URL, &[2, 3])?;

    scene.servers[0].http = Some(Server::start(&scene.servers[0].netns, "Real 1", &PORTS)?);
    until_state(&director, "web", 0, RealServerState::Up)?;
    ensure_only(scene.client(), URL, &[1, 2, 3])?;
    ensure_told(&director, "web", down.address, &["down: http: HTTP 500", "up"])?;
    director.stop()
}
