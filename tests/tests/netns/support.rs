//! What the tests share: configurations for a scene, and what they expect of answers.

use std::{
    net::{IpAddr, SocketAddr},
    process,
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director,
    configuration::{Configuration, VirtualServer},
    topology::{Mode, Scene},
};
use lb_userspace::api::{Connection, Status};

/// The word of the configuration for a mode.
pub fn forward(mode: Mode) -> &'static str {
    match mode {
        Mode::Nat => "nat",
        Mode::Dr => "dr",
        Mode::Tun => "tun",
    }
}

/// A director of its own name for the scene, so that tests can run side by side.
pub fn configuration(scene: &Scene) -> Configuration {
    let instance = scene.director.name().trim_end_matches("-director");
    assert!(instance.starts_with(&format!("xd{}-", process::id())), "{instance} is not of this run");
    Configuration::new(instance, scene.interfaces)
}

/// Adds the scene's real servers on `port`, with their IPv6 addresses if `ipv6`, one for each weight.
pub fn fill(server: VirtualServer, scene: &Scene, ipv6: bool, port: u16, weights: &[u32]) -> VirtualServer {
    scene.servers.iter().zip(weights).fold(server, |server, (real, weight)| {
        let address = if ipv6 { IpAddr::V6(real.ipv6) } else { IpAddr::V4(real.ipv4) };
        server.real(SocketAddr::new(address, port), *weight)
    })
}

/// Fails unless `answers` go round all of `servers` names in turn.
pub fn ensure_in_turn(answers: &[String], servers: usize) -> Result<()> {
    let mut round: Vec<&String> = answers.iter().take(servers).collect();
    round.sort();
    round.dedup();
    ensure!(round.len() == servers, "the first {servers} answers are not of all servers: {answers:?}");
    let repeats = answers.iter().zip(answers.iter().skip(servers)).all(|(one, later)| one == later);
    ensure!(repeats, "the answers do not go round: {answers:?}");
    Ok(())
}

/// `xdirector status --json` with its types.
pub fn status(director: &Director) -> Result<Status> {
    serde_json::from_value(director.status()?).context("another answer than docs/api.md describes")
}

/// `xdirector connections --json` with its types.
pub fn connections(director: &Director) -> Result<Vec<Connection>> {
    serde_json::from_value(director.connections()?).context("another answer than docs/api.md describes")
}
