//! Watching a director: its state, its events, its log; and waiting for them.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{Client, Director, configuration::VirtualServer, registry::wait_until, topology::Scene};
use lb_userspace::api::{
    StateEvent, Status,
    types::{RealServerState, RealServerStatus, VirtualServerStatus},
};
use serde::de::DeserializeOwned;

use crate::support::fill;

/// Longer than any change may take, also on a busy machine.
pub const SOON: Duration = Duration::from_secs(15);

/// Times of a check: quick, and so patient that no busy machine makes a server that answers look dead. To be put into a check's table.
pub const QUICK: &str = r#"interval = "100ms", timeout = "5s", warmup = "100ms", rise = 2, fall = 2"#;
/// The same where servers are silent and have to be found so.
pub const IMPATIENT: &str = r#"interval = "100ms", timeout = "1500ms", warmup = "100ms", rise = 2, fall = 2"#;
/// What is said of a server that is silent for so long.
pub const SILENT: &str = "no answer within 1.5 s";

/// A virtual server with one check, given as the keys of its table, on port 80 of the scene's first `count` real servers.
pub fn checked(server: VirtualServer, scene: &Scene, check: &str, count: usize) -> VirtualServer {
    checked_on(80, server, scene, check, count)
}

/// The same on another port: two virtual servers should not lead to one by NAT.
pub fn checked_on(
    port: u16,
    server: VirtualServer,
    scene: &Scene,
    check: &str,
    count: usize,
) -> VirtualServer {
    with_times(QUICK, port, server, scene, check, count)
}

/// As [`checked_on`], by a check with these times.
pub fn with_times(
    times: &str,
    port: u16,
    server: VirtualServer,
    scene: &Scene,
    check: &str,
    count: usize,
) -> VirtualServer {
    let line = format!("health_check = [{{ {check}, {times} }}]");
    fill(server.line(&line), scene, false, port, &vec![1; count])
}

/// `GET path` on the director's socket: quicker than a command.
///
/// # Errors
/// When it does not answer, or something else.
pub fn ask<T: DeserializeOwned>(director: &Director, path: &str) -> Result<T> {
    let mut socket = UnixStream::connect(director.socket())?;
    socket.set_read_timeout(Some(SOON))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: xdirector\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the headers")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Ok(serde_json::from_str(body)?)
}

/// The virtual server `name`.
pub fn service(director: &Director, name: &str) -> Result<VirtualServerStatus> {
    let status: Status = ask(director, "/v1/status")?;
    status
        .virtual_servers
        .into_iter()
        .find(|one| one.name == name)
        .with_context(|| format!("no virtual server {name}"))
}

/// One of its real servers, from 0.
pub fn server(director: &Director, name: &str, index: usize) -> Result<RealServerStatus> {
    service(director, name)?.real_servers.into_iter().nth(index).context("no such real server")
}

/// Waits until the state of a real server is the one wanted; gives the server.
///
/// # Errors
/// When it is not soon; the error has what it is instead and the log.
pub fn until_state(
    director: &Director,
    name: &str,
    index: usize,
    wanted: RealServerState,
) -> Result<RealServerStatus> {
    until(director, name, |one| one.real_servers[index].state == wanted)
        .with_context(|| format!("real server {index} is not {wanted}"))?;
    server(director, name, index)
}

/// Waits until all real servers are up.
pub fn until_all_up(director: &Director, name: &str) -> Result<()> {
    until(director, name, |one| {
        one.real_servers.iter().all(|server| {
            // Not only until proven otherwise.
            server.state == RealServerState::Up && server.checks.iter().all(|check| check.passed > 0)
        })
    })
    .context("not all real servers are up")
}

/// Waits until `wanted` holds for the virtual server `name`.
///
/// # Errors
/// When it does not soon; the error has its state and the log.
pub fn until(
    director: &Director,
    name: &str,
    mut wanted: impl FnMut(&VirtualServerStatus) -> bool,
) -> Result<()> {
    let reached = wait_until(SOON, || service(director, name).is_ok_and(|one| wanted(&one)));
    ensure!(reached, "{:#?}\n{}", service(director, name), director.log());
    Ok(())
}

/// What has happened with a virtual server or one of its real servers, as the director tells it.
pub fn told(director: &Director, subject: &str) -> Result<Vec<String>> {
    let events: Vec<StateEvent> = ask(director, "/v1/events")?;
    Ok(events.into_iter().filter(|one| one.subject == subject).map(|one| one.text).collect())
}

/// Fails unless exactly `texts` were told of a real server, each with one line in the log. A text need only begin so.
pub fn ensure_told(director: &Director, name: &str, server: SocketAddr, texts: &[&str]) -> Result<()> {
    let subject = format!("{name}/{server}");
    let told = told(director, &subject)?;
    let is_right =
        told.len() == texts.len() && told.iter().zip(texts).all(|(one, text)| one.starts_with(text));
    ensure!(is_right, "{subject}: {told:?}, expected {texts:?}");
    let log = director.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(&format!("{subject}: "))).collect();
    let is_right =
        lines.len() == told.len() && lines.iter().zip(&told).all(|(line, text)| line.contains(text));
    ensure!(is_right, "{subject}: {told:?}, but the log says {lines:?}");
    Ok(())
}

/// Fails unless exactly the real servers with these numbers, from 1, answer, all equally often.
pub fn ensure_only(client: &Client, url: &str, numbers: &[usize]) -> Result<()> {
    let answers = client.curl_each(url, numbers.len() * 3)?;
    for number in numbers {
        let name = format!("Real {number}");
        let count = answers.iter().filter(|answer| **answer == name).count();
        ensure!(count == 3, "{count} of {} answers are {name}'s: {answers:?}", answers.len());
    }
    Ok(())
}
