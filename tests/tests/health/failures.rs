//! Ways to fail: frozen machines, servers that flap, all of them at once.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::{
    Director,
    configuration::VirtualServer,
    httpd::Server,
    moody::{Mood, Moody},
    require_director,
    topology::{self, Options, PORTS},
};
use lb_userspace::api::types::RealServerState;

use crate::{
    connections::{ask, hold},
    support::configuration,
    watch::{
        IMPATIENT, checked, checked_on, ensure_only, ensure_told, server, told, until, until_all_up,
        until_state, with_times,
    },
};

const URL: &str = "http://192.168.10.50/";

#[test]
fn a_frozen_machine_is_taken_out() -> Result<()> {
    require_director!("a_frozen_machine_is_taken_out");
    let scene = topology::nat(&Options::new("frozen"))?;
    let web = VirtualServer::tcp("web", topology::vip4(80));
    let ping = VirtualServer::tcp("ping", topology::vip4(8080));
    let text = configuration(&scene)
        .serve(&with_times(IMPATIENT, 80, web, &scene, "type = \"tcp\"", 3))
        .serve(&with_times(IMPATIENT, 8080, ping, &scene, "type = \"ping\"", 3));
    let mut director = Director::start(&scene.director, text.text())?;
    until_all_up(&director, "web")?;
    until_all_up(&director, "ping")?;

    let frozen = &scene.servers[0].netns;
    // It hears and says nothing; then its cable is pulled.
    let ways: [(&str, &[&str], &[&str]); 2] = [
        ("mute", &["route add blackhole 192.168.1.1/32"], &["route del blackhole 192.168.1.1/32"]),
        ("unplugged", &["link set eth0 down"], &["link set eth0 up", "route add default via 192.168.1.1"]),
    ];
    for (way, freeze, thaw) in ways {
        frozen.ip(freeze)?;
        for name in ["web", "ping"] {
            let down = until_state(&director, name, 0, RealServerState::Down)?;
            let reason = down.reason.unwrap_or_default();
            ensure!(
                reason.contains("no answer") || reason.contains("unreachable"),
                "{way}: {name}: {reason}"
            );
        }
        ensure_only(scene.client(), URL, &[2, 3])?;
        ensure_only(scene.client(), "http://192.168.10.50:8080/", &[2, 3])?;
        frozen.ip(thaw)?;
        for name in ["web", "ping"] {
            until_state(&director, name, 0, RealServerState::Up)?;
        }
        ensure_only(scene.client(), URL, &[1, 2, 3])?;
    }
    for name in ["web", "ping"] {
        let address = server(&director, name, 0)?.address;
        ensure_told(&director, name, address, &["down: ", "up", "down: ", "up"])?;
    }
    director.stop()
}

#[test]
fn a_server_that_flaps_changes_nothing() -> Result<()> {
    require_director!("a_server_that_flaps_changes_nothing");
    let scene = topology::nat(&Options::new("flaps").servers(2))?;
    let start = |index: usize| Moody::start(&scene.servers[index].netns, 8081, Mood::Page("here".to_owned()));
    let pages = [start(0)?, start(1)?];
    let web = VirtualServer::tcp("web", topology::vip4(80));
    // A check that is given up counts as failed, and shifts who is answered how: none is.
    let times = "interval = \"100ms\", timeout = \"1m\", warmup = \"100ms\", rise = 2, fall = 2";
    let check = "type = \"http\", connect_port = 8081";
    let text = configuration(&scene).serve(&with_times(times, 80, web, &scene, check, 2));
    let mut director = Director::start(&scene.director, text.text())?;
    until_all_up(&director, "web")?;
    pages[1].set(Mood::Status(503));
    until_state(&director, "web", 1, RealServerState::Down)?;

    // From now on the one that was up and the one that was down both fail each other time.
    let before = pages.each_ref().map(Moody::asked);
    let checks = |index: usize| server(&director, "web", index).map(|one| one.checks[0].clone());
    let failed_before = checks(0)?.failed;
    pages.iter().for_each(|page| page.set(Mood::Alternating));
    until(&director, "web", |_| pages.iter().zip(before).all(|(page, before)| page.asked() >= before + 12))?;
    ensure!(checks(0)?.failed >= failed_before + 4, "{:?}", checks(0)?);
    let states = [0, 1].map(|index| server(&director, "web", index).map(|one| one.state).ok());
    ensure!(states == [Some(RealServerState::Up), Some(RealServerState::Down)], "{states:?}");
    for (index, texts) in [(0, [].as_slice()), (1, &["down: http: HTTP 503"])] {
        ensure_told(&director, "web", server(&director, "web", index)?.address, texts)?;
    }
    ensure_only(scene.client(), URL, &[1])?;
    director.stop()
}

#[test]
fn all_down_and_up_again_with_and_without_a_sorry_server() -> Result<()> {
    require_director!("all_down_and_up_again_with_and_without_a_sorry_server");
    let mut scene = topology::nat(&Options::new("sorry").servers(3))?;
    let web = VirtualServer::tcp("web", topology::vip4(80)).line("sorry_server = \"192.168.1.103:80\"");
    let plain = VirtualServer::tcp("plain", topology::vip4(8080));
    let text = configuration(&scene).serve(&checked(web, &scene, "type = \"tcp\"", 2)).serve(&checked_on(
        8080,
        plain,
        &scene,
        "type = \"tcp\"",
        2,
    ));
    let mut director = Director::start(&scene.director, text.text())?;
    until_all_up(&director, "web")?;
    until_all_up(&director, "plain")?;
    for _ in 0..2 {
        for real in &mut scene.servers[..2] {
            real.http = None;
        }
        for (name, index) in [("web", 0), ("web", 1), ("plain", 0), ("plain", 1)] {
            until_state(&director, name, index, RealServerState::Down)?;
        }
        ensure_only(scene.client(), URL, &[3])?;
        let web = crate::watch::service(&director, "web")?;
        ensure!(!web.quorum.up && web.sorry_server.is_some_and(|sorry| sorry.active), "{web:?}");
        // Refused (ICMP port unreachable), and not only after curl's patience.
        let asked = Instant::now();
        let refused = scene.client().curl("http://192.168.10.50:8080/").expect_err("nobody serves");
        ensure!(refused.to_string().contains("curl: (7)"), "{refused}");
        ensure!(asked.elapsed() < Duration::from_secs(4), "curl waited in vain");

        for (number, real) in (1..).zip(&mut scene.servers[..2]) {
            real.http = Some(Server::start(&real.netns, &format!("Real {number}"), &PORTS)?);
        }
        for (name, index) in [("web", 0), ("web", 1), ("plain", 0), ("plain", 1)] {
            until_state(&director, name, index, RealServerState::Up)?;
        }
        ensure_only(scene.client(), URL, &[1, 2])?;
        ensure_only(scene.client(), "http://192.168.10.50:8080/", &[1, 2])?;
    }
    let lost =
        "quorum lost: living servers have weight 0, 1 wanted, sorry server 192.168.1.103:80 takes over";
    let told = told(&director, "web")?;
    ensure!(
        told.len() == 4 && told[0] == lost && told[1].starts_with("quorum reached") && told[2] == lost,
        "{told:?}"
    );
    director.stop()
}

#[test]
fn alpha_servers_wait_for_their_first_check() -> Result<()> {
    require_director!("alpha_servers_wait_for_their_first_check");
    let scene = topology::nat(&Options::new("alpha").servers(2))?;
    let pages: Vec<Moody> = scene
        .servers
        .iter()
        .map(|real| Moody::start(&real.netns, 8081, Mood::Silent))
        .collect::<Result<_>>()?;
    // The first check takes as long as its server likes.
    let check =
        "health_check = [{ type = \"http\", connect_port = 8081, interval = \"100ms\", timeout = \"1m\" }]";
    let web = VirtualServer::tcp("web", topology::vip4(80)).line("alpha = true").line(check);
    let text = configuration(&scene).serve(&crate::support::fill(web, &scene, false, 80, &[1, 1]));
    let mut director = Director::start(&scene.director, text.text())?;
    until(&director, "web", |_| pages.iter().all(|page| page.asked() == 1))?;
    for index in [0, 1] {
        until_state(&director, "web", index, RealServerState::Checking)?;
    }
    scene.client().curl(URL).expect_err("no server has passed its first check");
    ensure!(crate::watch::service(&director, "web")?.stats.connections == 0);

    pages[1].set(Mood::Page("here".to_owned()));
    until_state(&director, "web", 1, RealServerState::Up)?;
    ensure!(server(&director, "web", 0)?.state == RealServerState::Checking);
    ensure_only(scene.client(), URL, &[2])?;
    pages[0].set(Mood::Status(500));
    until_state(&director, "web", 0, RealServerState::Down)?;
    pages[0].set(Mood::Page("here".to_owned()));
    until_state(&director, "web", 0, RealServerState::Up)?;
    ensure_only(scene.client(), URL, &[1, 2])?;
    director.stop()
}

/// Waits until the first server of each has been checked, whatever came of it.
fn until_all_checked(director: &Director, names: &[&str]) -> Result<()> {
    names.iter().try_for_each(|name| {
        until(director, name, |one| {
            one.real_servers[0].checks[0].passed + one.real_servers[0].checks[0].failed > 0
        })
    })
}

#[test]
fn a_check_file_drains_a_server() -> Result<()> {
    require_director!("a_check_file_drains_a_server");
    let scene = topology::nat(&Options::new("file").servers(2))?;
    let directory = tempfile::Builder::new().prefix(&format!("{}-file-", scene.director.name())).tempdir()?;
    let file = directory.path().join("web.state");
    // The first server has the file, the second nothing. The first check of a new agent comes late: the test is quicker.
    let check = format!(
        "  health_check = [{{ type = \"file\", path = \"{}\", interval = \"100ms\", rise = 2, fall = 2, \
         warmup = \"2s\" }}]\n",
        file.display()
    );
    let on = |server: VirtualServer| {
        let first = server.real((scene.servers[0].ipv4, 80).into(), 1).text();
        format!("{first}{check}\n  [[virtual_server.real_server]]\n  address = \"192.168.1.102:80\"\n")
    };
    let text = configuration(&scene)
        .lines("\n[timeouts]\nudp = \"1s\"\n")
        .lines(&on(VirtualServer::tcp("web", topology::vip4(80))))
        .lines(&on(VirtualServer::udp("echo", topology::vip4(80))));
    let mut director = Director::start(&scene.director, text.text())?;
    until_all_checked(&director, &["web", "echo"])?;
    let held = hold(&scene, topology::vip4(80), "Real 1", &director)?;
    let answers = scene.client().udp_counts(topology::vip4(80), 4)?;
    ensure!(answers.len() == 2, "{answers:?}");

    fs::write(&file, "drain\n")?;
    let draining = until_state(&director, "web", 0, RealServerState::Draining)?;
    ensure!(draining.weight == 0 && draining.active == 1, "{draining:?}");
    ensure_only(scene.client(), URL, &[2])?;
    until_state(&director, "echo", 0, RealServerState::Drained)?;
    let answers = scene.client().udp_counts(topology::vip4(80), 4)?;
    ensure!(answers.keys().eq(["Real 2"]), "{answers:?}");
    director.kill()?;
    director.restart()?;
    ensure!(server(&director, "web", 0)?.state == RealServerState::Draining);
    ensure!(ask(held)? == "Real 1");
    ensure_only(scene.client(), URL, &[2])?;
    until_all_checked(&director, &["web", "echo"])?;
    ensure_only(scene.client(), URL, &[2])?;

    fs::write(&file, "up\n")?;
    until_state(&director, "web", 0, RealServerState::Up)?;
    ensure_only(scene.client(), URL, &[1, 2])?;
    fs::write(&file, "down\n")?;
    until_state(&director, "web", 0, RealServerState::Down)?;
    ensure_only(scene.client(), URL, &[2])?;
    fs::remove_file(&file)?;
    until_state(&director, "web", 0, RealServerState::Up)?;
    director.stop()
}
