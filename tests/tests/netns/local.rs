//! Connections that the director itself opens to its virtual servers.

use std::{fs, net::SocketAddr};

use anyhow::{Result, ensure};
use lab::{
    Director,
    client::Client,
    configuration::VirtualServer,
    require_director, require_xdp,
    requirements::say_skipped,
    topology::{self, Mode, Options, Scene},
};

use crate::support::{configuration, ensure_in_turn, fill, forward};

/// Skips the test where the programs for `connect` have nowhere to be attached.
macro_rules! require_cgroup2 {
    ($test:literal) => {
        if !fs::read_to_string("/proc/mounts")?.lines().any(|line| line.split(' ').nth(2) == Some("cgroup2"))
        {
            say_skipped($test, "no cgroup2 file system is mounted");
            return Ok(());
        }
    };
}

#[test]
fn the_director_itself_is_served_by_nat() -> Result<()> {
    require_director!("the_director_itself_is_served_by_nat");
    require_xdp!("the_director_itself_is_served_by_nat");
    require_cgroup2!("the_director_itself_is_served_by_nat");
    serves_itself(Mode::Nat, "local-nat", 8080, &[topology::vip4(80), topology::vip6(80)])
}

#[test]
fn the_director_itself_is_served_beside_dr() -> Result<()> {
    require_director!("the_director_itself_is_served_beside_dr");
    require_xdp!("the_director_itself_is_served_beside_dr");
    require_cgroup2!("the_director_itself_is_served_beside_dr");
    // IPv4 only: for a real server on the link IPv6 takes the VIP itself as source, as the nearest address, and the server
    // has that too. docs/operations.md says how directors avoid it.
    serves_itself(Mode::Dr, "local-dr", 80, &[topology::vip4(80)])
}

/// The director asks by TCP and UDP, IPv4 and IPv6; the same processes in another network namespace are left alone.
fn serves_itself(mode: Mode, label: &str, port: u16, vips: &[SocketAddr]) -> Result<()> {
    let scene = topology::build(mode, &Options::new(label))?;
    let mut director = Director::start(&scene.director, &text(&scene, mode, port))?;
    let inside = Client::new(scene.director.clone());
    for vip in vips {
        ensure_in_turn(&inside.curl_each(&format!("http://{vip}/"), 6)?, 3)?;
        ensure_in_turn(&scene.client().curl_each(&format!("http://{vip}/"), 6)?, 3)?;
    }
    let counts = inside.udp_counts(topology::vip4(80), 30)?;
    ensure!(counts.values().all(|count| *count == 10), "UDP from the director: {counts:?}");
    let own = director.status()?["verdicts"]["connection_local"].as_u64();
    ensure!(own == Some(6 * vips.len() as u64 + 30), "connections of the director's own: {own:?}");
    director.detach()?;
    ensure!(inside.curl("http://192.168.10.50/").is_err(), "still balanced after the end");
    Ok(())
}

fn text(scene: &Scene, mode: Mode, port: u16) -> String {
    let servers = [
        (VirtualServer::tcp("web", topology::vip4(80)), false),
        (VirtualServer::tcp("web-ipv6", topology::vip6(80)), true),
        (VirtualServer::udp("echo", topology::vip4(80)), false),
    ];
    let configuration = servers.into_iter().fold(configuration(scene), |configuration, (server, ipv6)| {
        configuration.serve(&fill(server.forward(forward(mode)), scene, ipv6, port, &[1, 1, 1]))
    });
    configuration.text().to_owned()
}
