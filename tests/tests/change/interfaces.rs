//! Interfaces go down, and away, and come back.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use lab::{
    Director, Load,
    registry::wait_until,
    require_director,
    topology::{self, Options, Scene},
};

use crate::{
    common::{SOON, echo, measured, web, with_echo},
    support::configuration,
};

const FLAPS: usize = 30;

/// Waits until every server answers its share.
fn wait_until_served(scene: &Scene, director: &Director) -> Result<()> {
    let served = || {
        let counts = scene.client().http_counts(topology::vip4(80), 6);
        counts.is_ok_and(|counts| counts.values().all(|count| *count == 2))
    };
    ensure!(wait_until(SOON, served), "not served: {}", director.log());
    Ok(())
}

#[test]
fn interfaces_that_flap_are_served_again() -> Result<()> {
    require_director!("interfaces_that_flap_are_served_again");
    let scene = topology::nat(&Options::new("flaps"))?;
    let file = configuration(&scene).serve(&web(&scene, &[1, 1, 1])).serve(&echo(&scene));
    let mut director = Director::start(&scene.director, file.text())?;
    let load = Load::start(scene.client(), topology::vip4(80), with_echo())?;
    for round in 0..FLAPS {
        let device = scene.interfaces[round % 2];
        scene.director.ip([format!("link set {device} down")])?;
        thread::sleep(Duration::from_millis(20));
        scene.director.ip([format!("link set {device} up")])?;
        thread::sleep(Duration::from_millis(60));
    }
    wait_until_served(&scene, &director)?;
    let report = load.stop();
    measured("flaps_connections", format!("{} failed of {}", report.failed, report.ok + report.failed));
    measured("flaps_datagrams_lost", format!("{} of {}", report.echo_lost, report.echo_sent));
    measured("flaps_held", format!("{} broken of {}", report.held_broken, report.held));
    ensure!(report.held_broken == 0, "{report:?}");
    // The flaps last half as long as a request is waited for: a stall of a second or two adds what is missing.
    ensure!(report.failed == 0 || report.stalled > Duration::from_secs(1), "{report:?}");
    for device in scene.interfaces {
        ensure!(scene.director.xdp(device)?.as_deref() == Some("xdp"), "{device}");
    }
    director.stop()
}

#[test]
fn an_interface_that_was_made_anew_is_served() -> Result<()> {
    require_director!("an_interface_that_was_made_anew_is_served");
    let mut scene = topology::nat(&Options::new("anew"))?;
    let file = configuration(&scene).serve(&web(&scene, &[1, 1, 1]));
    let mut director = Director::start(&scene.director, file.text())?;
    wait_until_served(&scene, &director)?;
    scene.director.ip(["link del eth0"])?;
    ensure!(wait_until(SOON, || director.log().contains("interface eth0 is gone")), "{}", director.log());
    director.command(&["status"])?;
    let addresses = ["192.168.10.1/24", "fd00:10::1/64", "192.168.10.50/32", "fd00:10::50/128"];
    scene.lab.plug(&scene.director, "eth0", &scene.outside, &addresses)?;
    scene.client().netns.ip(["neigh flush dev eth0"])?;
    let attached = wait_until(SOON, || scene.director.xdp("eth0").is_ok_and(|mode| mode.is_some()));
    ensure!(attached && director.log().contains("attached again"), "{}", director.log());
    wait_until_served(&scene, &director)?;
    director.stop()?;
    // The pin is that of the new one.
    director.restart()?;
    ensure!(director.log().contains("took over"), "{}", director.log());
    wait_until_served(&scene, &director)?;
    director.stop()
}
