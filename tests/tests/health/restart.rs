//! The agent goes and comes while a server is down, and while all is well.

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
    support::{configuration, fill},
    watch::{checked, ensure_only, server, until, until_all_up, until_state},
};

const URL: &str = "http://192.168.10.50/";

#[test]
fn a_server_that_was_down_stays_out_until_a_check_passes() -> Result<()> {
    require_director!("a_server_that_was_down_stays_out_until_a_check_passes");
    let mut scene = topology::nat(&Options::new("stays-out"))?;
    let web = VirtualServer::tcp("web", topology::vip4(80));
    let text = configuration(&scene).serve(&checked(web, &scene, "type = \"tcp\"", 3));
    let mut director = Director::start(&scene.director, text.text())?;
    until_all_up(&director, "web")?;
    for kill in [false, true] {
        scene.servers[0].http = None;
        until_state(&director, "web", 0, RealServerState::Down)?;
        if kill {
            director.kill()?;
        } else {
            director.stop()?;
        }
        ensure_only(scene.client(), URL, &[2, 3])?;
        director.restart()?;
        ensure_only(scene.client(), URL, &[2, 3])?;
        ensure!(server(&director, "web", 0)?.state == RealServerState::Down);
        until(&director, "web", |web| web.real_servers[0].checks[0].failed > 0)?;
        ensure!(server(&director, "web", 0)?.state == RealServerState::Down);
        scene.servers[0].http = Some(Server::start(&scene.servers[0].netns, "Real 1", &PORTS)?);
        until_state(&director, "web", 0, RealServerState::Up)?;
        ensure_only(scene.client(), URL, &[1, 2, 3])?;
    }
    director.stop()
}

#[test]
fn a_server_that_died_meanwhile_is_found_out() -> Result<()> {
    require_director!("a_server_that_died_meanwhile_is_found_out");
    let mut scene = topology::nat(&Options::new("meanwhile").servers(2))?;
    let web = VirtualServer::tcp("web", topology::vip4(80));
    let text = configuration(&scene).serve(&checked(web, &scene, "type = \"tcp\"", 2));
    let mut director = Director::start(&scene.director, text.text())?;
    until_all_up(&director, "web")?;
    director.kill()?;
    scene.servers[1].http = None;
    director.restart()?;
    until_state(&director, "web", 1, RealServerState::Down)?;
    ensure_only(scene.client(), URL, &[1])?;
    director.stop()
}

/// Nothing but a check takes servers out: neither `alpha` nor a sorry server that answers just now make a new agent cut the
/// connections that an earlier one has left.
#[test]
fn a_restart_cuts_no_connections() -> Result<()> {
    require_director!("a_restart_cuts_no_connections");
    let scene = topology::nat(&Options::new("no-cut"))?;
    let pages: Vec<Moody> = scene.servers[..2]
        .iter()
        .map(|real| Moody::start(&real.netns, 8081, Mood::Page("here".to_owned())))
        .collect::<Result<_>>()?;
    // The first check of a new agent takes as long as the test likes.
    let check = "health_check = [{ type = \"http\", connect_port = 8081, interval = \"100ms\", timeout = \"20s\", fall = 2 }]";
    let alpha = VirtualServer::tcp("alpha", topology::vip4(80)).line("alpha = true").line(check);
    let sorry = VirtualServer::tcp("sorry", topology::vip4(8080))
        .line("quorum = 2")
        .line("sorry_server = \"192.168.1.103:8080\"")
        .line(check);
    let text = configuration(&scene).serve(&fill(alpha, &scene, false, 80, &[1, 1])).serve(&fill(
        sorry,
        &scene,
        false,
        8080,
        &[1, 1],
    ));
    let mut director = Director::start(&scene.director, text.text())?;
    until_all_up(&director, "alpha")?;
    until_all_up(&director, "sorry")?;
    let in_alpha = hold(&scene, topology::vip4(80), "Real 1", &director)?;
    let in_sorry = hold(&scene, topology::vip4(8080), "Real 1", &director)?;
    pages[1].set(Mood::Status(503));
    for name in ["alpha", "sorry"] {
        until_state(&director, name, 1, RealServerState::Down)?;
    }
    ensure_only(scene.client(), URL, &[1])?;
    ensure_only(scene.client(), "http://192.168.10.50:8080/", &[3])?;

    director.kill()?;
    pages[0].set(Mood::Silent);
    director.restart()?;
    ensure_only(scene.client(), URL, &[1])?;
    ensure_only(scene.client(), "http://192.168.10.50:8080/", &[3])?;
    ensure!(ask(in_alpha)? == "Real 1");
    ensure!(ask(in_sorry)? == "Real 1");
    pages[0].set(Mood::Page("here".to_owned()));
    pages[1].set(Mood::Page("here".to_owned()));
    for name in ["alpha", "sorry"] {
        until_all_up(&director, name)?;
    }
    ensure_only(scene.client(), URL, &[1, 2])?;
    ensure_only(scene.client(), "http://192.168.10.50:8080/", &[1, 2])?;
    director.stop()
}
