//! What the tests of this suite share.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director,
    configuration::VirtualServer,
    load::Options as LoadOptions,
    registry::wait_until,
    topology::{self, Scene},
};
use lb_userspace::api::types::{RealServerStatus, StateEvent, Status, VirtualServerStatus};

use crate::support::{fill, status};

pub use lab::figures::{judged, measured, ms};

/// Longer than the agent takes to notice anything of itself: it looks at the maps every 10 s.
pub const SOON: Duration = Duration::from_secs(25);

/// The virtual server of most tests: `web` on port 80 with NAT and `rr`, and the scene's real servers.
pub fn web(scene: &Scene, weights: &[u32]) -> VirtualServer {
    fill(VirtualServer::tcp("web", topology::vip4(80)), scene, false, 80, weights)
}

/// One that answers datagrams.
pub fn echo(scene: &Scene) -> VirtualServer {
    fill(VirtualServer::udp("echo", topology::vip4(80)), scene, false, 80, &[1, 1, 1])
}

/// `ADDRESS:80` of a real server, counted from 0.
pub fn address(scene: &Scene, server: usize) -> String {
    SocketAddr::new(IpAddr::V4(scene.servers[server].ipv4), 80).to_string()
}

/// A load with datagrams too.
pub fn with_echo() -> LoadOptions {
    LoadOptions { echo: Some(topology::vip4(80)), ..LoadOptions::default() }
}

/// Waits until the status is as `wanted` says.
pub fn wait_for_status(
    director: &Director,
    what: &str,
    mut wanted: impl FnMut(&Status) -> bool,
) -> Result<Status> {
    let mut last = None;
    wait_until(SOON, || {
        last = status(director).ok().filter(&mut wanted);
        last.is_some()
    });
    last.with_context(|| {
        format!(
            "not {what} in {SOON:?}: {:#?}\n{}",
            status(director).map(|it| it.virtual_servers),
            director.log()
        )
    })
}

/// One virtual server of the status.
pub fn service<'a>(status: &'a Status, name: &str) -> Result<&'a VirtualServerStatus> {
    let found = status.virtual_servers.iter().find(|one| one.name == name);
    found.with_context(|| format!("no {name} in {:?}", status.virtual_servers))
}

/// One real server of `web`, counted from 0.
pub fn real<'a>(status: &'a Status, scene: &Scene, server: usize) -> Result<&'a RealServerStatus> {
    let wanted: SocketAddr = address(scene, server).parse()?;
    let found = service(status, "web")?.real_servers.iter().find(|one| one.address == wanted);
    found.with_context(|| format!("no {wanted} in {status:?}"))
}

/// `xdirector events --json` with its types.
pub fn events(director: &Director) -> Result<Vec<StateEvent>> {
    serde_json::from_str(&director.command(&["events", "--json"])?).context("other events than docs/api.md")
}

/// Waits until an event says `text` of `subject`.
pub fn wait_for_event(director: &Director, subject: &str, text: &str) -> Result<()> {
    let said = |event: &StateEvent| event.subject.contains(subject) && event.text.contains(text);
    let seen = wait_until(SOON, || events(director).is_ok_and(|all| all.iter().any(said)));
    ensure!(seen, "no event \"{text}\" of {subject}: {:?}\n{}", events(director), director.log());
    Ok(())
}
