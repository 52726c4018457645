//! Waits until real servers are drained.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{anyhow, bail};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};

use super::{connections, name};
use crate::{
    api::{
        Status,
        client::ClientError,
        types::{OrderedServer, Override, RealServerState, RealServerStatus},
    },
    cli::closed_is_done,
};

const PERIOD: Duration = Duration::from_millis(500);

/// Pauses between two looks, which Ctrl-C ends early.
#[derive(Debug)]
pub(super) struct Pauses {
    runtime: Runtime,
    interrupts: Signal,
}

impl Pauses {
    pub(super) fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let interrupts = {
            let _inside = runtime.enter();
            signal(SignalKind::interrupt())?
        };
        Ok(Self { runtime, interrupts })
    }

    /// Whether to go on.
    pub(super) fn pause(&mut self) -> bool {
        let interrupts = &mut self.interrupts;
        self.runtime.block_on(async {
            tokio::select! {
                _ = interrupts.recv() => false,
                () = sleep(PERIOD) => true,
            }
        })
    }
}

/// Looks until every server is drained and says how it goes: on a terminal in one line that changes, else in one line for
/// each change. `pause` says whether to go on.
pub(super) fn wait(
    servers: &[OrderedServer],
    mut look: impl FnMut() -> Result<Status, ClientError>,
    mut pause: impl FnMut() -> bool,
    out: &mut impl Write,
    is_terminal: bool,
) -> anyhow::Result<()> {
    let mut left: Vec<Left<'_>> =
        servers.iter().map(|server| Left { server, shown: server.connections }).collect();
    let mut lifted = Vec::new();
    loop {
        let status = look().map_err(|error| anyhow!(error).context("cannot see how the drain goes on"))?;
        let now = by_name(&status);
        let mut lines = Vec::new();
        left.retain_mut(|one| {
            let key = (one.server.virtual_server.as_str(), one.server.address);
            let ended = match progress(now.get(&key).copied()) {
                Progress::Waiting(connections) if connections == one.shown => return true,
                Progress::Waiting(count) => {
                    one.shown = count;
                    if !is_terminal {
                        lines.push(format!("{}: {}", name(one.server), connections(count)));
                    }
                    return true;
                }
                Progress::Drained => "drained",
                Progress::TakenOut => "taken out",
                Progress::Gone => "no longer there",
                Progress::Lifted => {
                    lifted.push(name(one.server));
                    "no longer draining, another order came"
                }
            };
            lines.push(format!("{}: {ended}", name(one.server)));
            false
        });
        closed_is_done(show(&lines, &left, out, is_terminal))?;
        if left.is_empty() {
            break;
        }
        if !pause() {
            if is_terminal {
                closed_is_done(writeln!(out))?;
            }
            bail!("interrupted; the drain stays in force until xdirector enable lifts it");
        }
    }
    if lifted.is_empty() { Ok(()) } else { bail!("not drained: {}", lifted.join(", ")) }
}

/// A server that is waited for, and the connections that were last shown.
struct Left<'a> {
    server: &'a OrderedServer,
    shown: u64,
}

enum Progress {
    Waiting(u64),
    Drained,
    TakenOut,
    Gone,
    Lifted,
}

fn progress(server: Option<&RealServerStatus>) -> Progress {
    let Some(server) = server else { return Progress::Gone };
    match (server.state, server.ordered) {
        (RealServerState::Drained, _) => Progress::Drained,
        (RealServerState::Disabled, _) | (_, Some(Override::Disable)) => Progress::TakenOut,
        // Out of the file, it drains all the same.
        (RealServerState::Removed, _) | (_, Some(Override::Drain { .. })) => {
            Progress::Waiting(server.active + server.inactive)
        }
        _ => Progress::Lifted,
    }
}

fn by_name(status: &Status) -> BTreeMap<(&str, SocketAddr), &RealServerStatus> {
    let mut servers = BTreeMap::new();
    for virtual_server in &status.virtual_servers {
        for server in &virtual_server.real_servers {
            // The first is the configuration's; one of the same address behind it has been taken out.
            servers.entry((virtual_server.name.as_str(), server.address)).or_insert(server);
        }
    }
    servers
}

fn show(lines: &[String], left: &[Left<'_>], out: &mut impl Write, is_terminal: bool) -> io::Result<()> {
    /// Back to the beginning of the line, and nothing in it.
    const CLEAR: &str = "\r\x1b[K";
    for line in lines {
        writeln!(out, "{}{line}", if is_terminal { CLEAR } else { "" })?;
    }
    if is_terminal && let Some(first) = left.first() {
        let count = left.iter().map(|one| one.shown).sum();
        match left.len() {
            1 => write!(out, "{CLEAR}{}: {}", name(first.server), connections(count))?,
            many => write!(out, "{CLEAR}{many} servers: {}", connections(count))?,
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::samples;

    const DRAIN: Option<Override> = Some(Override::Drain { until: None });

    fn ordered(addresses: &[&str]) -> Vec<OrderedServer> {
        let server = |address: &&str| OrderedServer {
            virtual_server: "web".into(),
            address: address.parse().unwrap(),
            connections: 3,
        };
        addresses.iter().map(server).collect()
    }

    fn status(servers: &[(&str, RealServerState, Option<Override>, u64)]) -> Status {
        let mut status = samples::status();
        let mut web = status.virtual_servers.remove(0);
        let template = web.real_servers.remove(0);
        let server = |&(address, state, ordered, active): &(&str, _, _, _)| RealServerStatus {
            address: address.parse().unwrap(),
            state,
            ordered,
            active,
            inactive: 0,
            ..template.clone()
        };
        web.name = "web".into();
        web.real_servers = servers.iter().map(server).collect();
        status.virtual_servers = vec![web];
        status
    }

    /// What is printed for these looks, and how it ends. After the last look Ctrl-C comes.
    fn waited(addresses: &[&str], looks: Vec<Status>, is_terminal: bool) -> (String, Result<(), String>) {
        let mut out = Vec::new();
        let pauses = std::cell::Cell::new(looks.len());
        let mut looks = looks.into_iter();
        let pause = || {
            pauses.set(pauses.get() - 1);
            pauses.get() > 0
        };
        let look = || Ok(looks.next().expect("no look after the end"));
        let ended = wait(&ordered(addresses), look, pause, &mut out, is_terminal);
        (String::from_utf8(out).unwrap(), ended.map_err(|error| error.to_string()))
    }

    #[test]
    fn changes_are_shown_until_all_are_drained() {
        use RealServerState::{Drained, Draining};
        let (one, two) = ("192.168.1.101:80", "192.168.1.102:80");
        let looks = vec![
            status(&[(one, Draining, DRAIN, 3), (two, Draining, DRAIN, 3)]),
            status(&[(one, Draining, DRAIN, 1), (two, Drained, DRAIN, 0)]),
            status(&[(one, Draining, DRAIN, 1), (two, Drained, DRAIN, 0)]),
            status(&[(one, Drained, DRAIN, 0), (two, Drained, DRAIN, 0)]),
        ];
        let (text, ended) = waited(&[one, two], looks.clone(), false);
        assert_eq!(ended, Ok(()));
        assert_eq!(
            text,
            "web/192.168.1.101:80: 1 connection\nweb/192.168.1.102:80: drained\nweb/192.168.1.101:80: drained\n"
        );
        let (text, ended) = waited(&[one, two], looks, true);
        assert_eq!(ended, Ok(()));
        assert_eq!(
            text.replace("\r\x1b[K", "|"),
            "|2 servers: 6 connections|web/192.168.1.102:80: drained\n|web/192.168.1.101:80: 1 connection\
             |web/192.168.1.101:80: 1 connection|web/192.168.1.101:80: drained\n"
        );
    }

    #[test]
    fn other_ends_are_told_apart() {
        use RealServerState::{Disabled, Removed, Up};
        let one = "192.168.1.101:80";
        let (text, ended) = waited(&[one], vec![status(&[(one, Disabled, DRAIN, 2)])], false);
        assert_eq!((text.as_str(), ended), ("web/192.168.1.101:80: taken out\n", Ok(())));
        let looks = vec![status(&[(one, Removed, None, 2)]), status(&[])];
        let (text, ended) = waited(&[one], looks, false);
        assert_eq!(text, "web/192.168.1.101:80: 2 connections\nweb/192.168.1.101:80: no longer there\n");
        assert_eq!(ended, Ok(()));
        let (text, ended) = waited(&[one], vec![status(&[(one, Up, None, 2)])], false);
        assert_eq!(text, "web/192.168.1.101:80: no longer draining, another order came\n");
        assert_eq!(ended, Err("not drained: web/192.168.1.101:80".into()));
    }

    #[test]
    fn an_interrupted_wait_says_that_the_drain_goes_on() {
        let one = "192.168.1.101:80";
        let look = status(&[(one, RealServerState::Draining, DRAIN, 3)]);
        let (text, ended) = waited(&[one], vec![look.clone()], false);
        assert_eq!(text, "");
        assert!(ended.unwrap_err().contains("stays in force"));
        let (text, _) = waited(&[one], vec![look], true);
        assert_eq!(text, "\r\x1b[Kweb/192.168.1.101:80: 3 connections\n");
    }

    #[test]
    fn ctrl_c_ends_a_pause() {
        let mut pauses = Pauses::new().unwrap();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGINT).unwrap();
        // Only the signal ends it with false, whenever it is seen.
        assert!((0..20).any(|_| !pauses.pause()));
    }
}
