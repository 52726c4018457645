//! Real servers that come, and that get another network card, while xdirector runs.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{
    Director, Netns,
    configuration::VirtualServer,
    registry::wait_until,
    require_director, require_xdp,
    topology::{self, Mode, Options, Scene},
};
use lb_userspace::api::types::{RealServerState, RealServerStatus};

use crate::support::{configuration, ensure_in_turn, fill, forward, status};

/// Longer than the kernel's and the agent's retries take.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_server_that_comes_later_is_used() -> Result<()> {
    require_director!("a_server_that_comes_later_is_used");
    let scene = topology::dr(&Options::new("later"))?;
    let late = &scene.servers[2].netns;
    late.ip(["link set eth0 down"])?;
    let mut director = start(&scene, Mode::Dr)?;
    ensure!(third(&director)?.state != RealServerState::Up, "{:?}", third(&director)?);
    late.ip(["link set eth0 up", "route replace default via 192.168.10.1"])?;
    let up = wait_until(SOON, || third(&director).is_ok_and(|server| server.state == RealServerState::Up));
    ensure!(up, "{:?}", third(&director)?);
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 3)?;
    director.stop()
}

#[test]
fn a_server_with_a_new_mac_is_followed() -> Result<()> {
    require_director!("a_server_with_a_new_mac_is_followed");
    for (mode, label) in [(Mode::Nat, "mac-nat"), (Mode::Dr, "mac-dr")] {
        let scene = topology::build(mode, &Options::new(label))?;
        let mut director = start(&scene, mode)?;
        ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 3)?, 3)?;
        let changed = &scene.servers[2].netns;
        let mac = "02:00:00:00:99:03";
        changed.ip([format!("link set eth0 address {mac}"), "neigh flush dev eth0".to_owned()])?;
        announce(changed, mode)?;
        let followed = wait_until(SOON, || {
            third(&director)
                .is_ok_and(|server| server.next_hop.and_then(|hop| hop.mac).as_deref() == Some(mac))
        });
        ensure!(followed, "{label}: {:?}", third(&director)?);
        ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 3)?;
        director.stop()?;
    }
    Ok(())
}

/// Makes a machine ask for the director's MAC address, which tells the director its own.
fn announce(netns: &Netns, mode: Mode) -> Result<()> {
    let director = if mode == Mode::Nat { "192.168.1.1:9" } else { "192.168.10.1:9" };
    netns.enter(|| {
        std::net::UdpSocket::bind("0.0.0.0:0")?.send_to(b"hello", director)?;
        Ok(())
    })
}

fn start(scene: &Scene, mode: Mode) -> Result<Director> {
    let web = VirtualServer::tcp("web", topology::vip4(80)).forward(forward(mode));
    let web = fill(web, scene, false, 80, &[1, 1, 1]);
    Director::start(&scene.director, configuration(scene).serve(&web).text())
}

fn third(director: &Director) -> Result<RealServerStatus> {
    Ok(status(director)?.virtual_servers[0].real_servers[2].clone())
}

#[test]
fn an_interface_that_is_made_anew_is_attached_again() -> Result<()> {
    require_director!("an_interface_that_is_made_anew_is_attached_again");
    require_xdp!("an_interface_that_is_made_anew_is_attached_again");
    let mut scene = topology::nat(&Options::new("anew"))?;
    let mut director = start(&scene, Mode::Nat)?;
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 3)?, 3)?;
    scene.director.ip(["link delete eth0"])?;
    scene.lab.plug(&scene.director, "eth0", &scene.outside, &["192.168.10.1/24", "192.168.10.50/32"])?;
    let attached = wait_until(SOON, || scene.director.xdp("eth0").is_ok_and(|mode| mode.is_some()));
    ensure!(attached, "not attached again:\n{}", director.log());
    scene.client().netns.ip(["neigh flush dev eth0"])?;
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 3)?;
    director.stop()
}
