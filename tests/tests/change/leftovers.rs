//! What an agent that has ended leaves behind.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director, Load,
    configuration::VirtualServer,
    load::Options as LoadOptions,
    registry::wait_until,
    require_director,
    topology::{self, Options, Scene},
};
use lb_common::ABI_VERSION;

use crate::{
    common::{SOON, address, real, web},
    support::{configuration, ensure_in_turn, fill, status},
};

fn version(director: &Director) -> PathBuf {
    director.pins().join(format!("v{ABI_VERSION}"))
}

/// The number of the generation in force.
fn generation(director: &Director) -> Result<u64> {
    let numbers =
        fs::read_dir(version(director))?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.max().context("no generation")
}

fn ensure_serves(scene: &Scene, servers: usize) -> Result<()> {
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 2 * servers)?, servers)
}

#[test]
fn the_next_agent_puts_right_what_the_file_no_longer_has() -> Result<()> {
    require_director!("the_next_agent_puts_right_what_the_file_no_longer_has");
    let mut scene = topology::nat(&Options::new("leftover"))?;
    let third = scene.lab.network("third")?;
    let machine = scene.director.clone();
    scene.lab.plug(&machine, "eth2", &third, &["192.168.3.1/24"])?;
    let base = configuration(&scene);
    let other = fill(VirtualServer::tcp("other", topology::vip4(8080)), &scene, false, 8080, &[1, 1, 1]);
    let three = base.clone().serve(&web(&scene, &[1, 1, 1])).serve(&other);
    let three = three.text().replace("\"eth1\"]", "\"eth1\", \"eth2\"]");
    let mut director = Director::start(&scene.director, &three)?;
    ensure!(scene.director.xdp("eth2")?.is_some());
    let load = LoadOptions { held: 0, ..LoadOptions::default() };
    let load = Load::start(scene.client(), topology::vip4(80), load)?;
    director.kill()?;
    // As an agent leaves it that dies while it begins.
    fs::create_dir_all(version(&director).join("99/maps"))?;
    director.write_configuration(base.serve(&web(&scene, &[1, 1])).text())?;
    director.restart()?;
    ensure!(
        wait_until(SOON, || scene.director.xdp("eth2").is_ok_and(|mode| mode.is_none())),
        "eth2 has it still"
    );
    ensure!(!version(&director).join("links/eth2").exists());
    ensure!(!version(&director).join("99").exists() && fs::read_dir(version(&director))?.count() == 3);
    let gone = wait_until(SOON, || {
        status(&director).is_ok_and(|it| {
            it.virtual_servers.len() == 1
                && real(&it, &scene, 2).is_ok_and(|one| one.weight == 0 && one.configured_weight.is_none())
        })
    });
    ensure!(gone, "{} still serves: {:?}", address(&scene, 2), status(&director)?.virtual_servers);
    load.wait_for(20)?;
    load.stop().ensure_clean()?;
    ensure_serves(&scene, 2)?;
    director.stop()
}

#[test]
fn it_can_be_detached_without_an_agent() -> Result<()> {
    require_director!("it_can_be_detached_without_an_agent");
    let scene = topology::nat(&Options::new("orphan"))?;
    let file = configuration(&scene).serve(&web(&scene, &[1, 1, 1]));
    let mut director = Director::start(&scene.director, file.text())?;
    director.kill()?;
    ensure_serves(&scene, 3)?;
    let said = director.command(&["stop", "--detach"])?;
    ensure!(said.contains("no xdirector was running; removed"), "{said}");
    ensure!(!director.pins().exists(), "pins are left");
    for device in scene.interfaces {
        let gone = wait_until(SOON, || scene.director.xdp(device).is_ok_and(|mode| mode.is_none()));
        ensure!(gone, "the program is left on {device}");
    }
    let said = director.command(&["stop", "--detach"])?;
    ensure!(said.contains("none had left"), "{said}");
    director.restart()?;
    ensure!(!status(&director)?.persistence.adopted);
    ensure_serves(&scene, 3)?;
    director.stop()
}

#[test]
fn what_cannot_be_gone_on_with_is_replaced() -> Result<()> {
    require_director!("what_cannot_be_gone_on_with_is_replaced");
    let scene = topology::nat(&Options::new("foreign"))?;
    let file = configuration(&scene).serve(&web(&scene, &[1, 1, 1]));
    let mut director = Director::start(&scene.director, file.text())?;
    let other = director.pins().join(format!("v{}", ABI_VERSION - 1));
    for kill in [true, false] {
        if kill {
            director.kill()?;
        } else {
            director.stop()?;
        }
        // As another version with other maps would have left it.
        fs::rename(version(&director), &other)?;
        let earlier = director.log().len();
        director.restart()?;
        let said = director.log().split_off(earlier);
        ensure!(said.contains("another version of xdirector"), "{said}");
        ensure!(!other.exists() && version(&director).join("links/eth0").exists());
        ensure!(!status(&director)?.persistence.adopted);
        ensure_serves(&scene, 3)?;
    }
    director.kill()?;
    let maps = version(&director).join(generation(&director)?.to_string()).join("maps");
    fs::remove_file(maps.join("SLOTS"))?;
    let earlier = director.log().len();
    director.restart()?;
    let said = director.log().split_off(earlier);
    ensure!(said.contains("is replaced, its connections are lost") && said.contains("SLOTS"), "{said}");
    ensure_serves(&scene, 3)?;
    director.stop()
}
