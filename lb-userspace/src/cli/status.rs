//! `xdirector status`: who is behind which address and how they are.

pub mod table;
mod watch;
pub mod words;

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::bail;
use clap::Args;

pub use self::table::render;
use super::{SocketArgs, closed_is_done};
use crate::api::{Client, Status};

/// Arguments of `xdirector status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Which agent.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Show counters since the start: connections, packets, bytes
    #[arg(long, conflicts_with = "rates")]
    pub stats: bool,
    /// Show rates: connections, packets and bytes (not bits) per second
    #[arg(long)]
    pub rates: bool,
    /// Show the health checks of every real server and their last results
    #[arg(long, conflicts_with_all = ["stats", "rates"])]
    pub checks: bool,
    /// Show too how many packets met which verdict of the data plane
    #[arg(long)]
    pub verdicts: bool,
    /// Show only virtual servers with this name
    #[arg(long, value_name = "NAME")]
    pub virtual_server: Option<String>,
    /// Show only real servers with this address: ADDRESS or ADDRESS:PORT
    #[arg(long, value_name = "ADDRESS", value_parser = server_address)]
    pub server: Option<ServerAddress>,
    /// Show it again every so many seconds until Ctrl-C [default: 2]
    #[arg(
        long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    pub watch: Option<u64>,
    /// Print the whole answer of GET /v1/status as JSON
    #[arg(
        long,
        conflicts_with_all = ["stats", "rates", "checks", "verdicts", "virtual_server", "server", "watch"]
    )]
    pub json: bool,
}

/// A real server's address, with or without its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerAddress {
    address: IpAddr,
    port: Option<u16>,
}

impl ServerAddress {
    fn is(self, server: SocketAddr) -> bool {
        server.ip() == self.address && self.port.is_none_or(|port| server.port() == port)
    }
}

fn server_address(text: &str) -> Result<ServerAddress, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(ServerAddress { address: address.ip(), port: Some(address.port()) });
    }
    match text.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(address) => Ok(ServerAddress { address, port: None }),
        Err(_) => {
            Err("neither ADDRESS nor ADDRESS:PORT; as 192.0.2.1, 192.0.2.1:80 or [2001:db8::1]:80".into())
        }
    }
}

/// Asks the agent and prints its answer, once or again and again.
///
/// # Errors
///
/// No agent, no answer, nobody of the name or address that was asked for, or standard output cannot be written. With
/// `--watch` only what happens before the first answer: later the agent may be restarting.
pub fn run(args: &StatusArgs) -> anyhow::Result<()> {
    if let Some(seconds) = args.watch {
        let every = Duration::from_secs(seconds);
        return watch::run(&args.socket.path(), every, io::stdout().is_terminal(), |status| {
            text(args, status)
        });
    }
    let status = Client::new(args.socket.path())?.status()?;
    let text = if args.json { serde_json::to_string_pretty(&status)? + "\n" } else { text(args, status)? };
    Ok(closed_is_done(io::stdout().lock().write_all(text.as_bytes()))?)
}

/// Which table is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Forwarding, weights, states and connections.
    Servers,
    /// Health checks.
    Checks,
    /// Counters.
    Stats,
    /// The same per second.
    Rates,
}

fn text(args: &StatusArgs, mut status: Status) -> anyhow::Result<String> {
    filter(&mut status, args.virtual_server.as_deref(), args.server)?;
    let view = match (args.stats, args.rates, args.checks) {
        (true, ..) => View::Stats,
        (_, true, _) => View::Rates,
        (.., true) => View::Checks,
        _ => View::Servers,
    };
    Ok(render(&status, view, args.verdicts))
}

/// Leaves what was asked for. The head stays that of the whole director.
fn filter(status: &mut Status, name: Option<&str>, server: Option<ServerAddress>) -> anyhow::Result<()> {
    if let Some(name) = name {
        let known: Vec<_> = status.virtual_servers.iter().map(|known| known.name.clone()).take(20).collect();
        status.virtual_servers.retain(|virtual_server| virtual_server.name == name);
        if status.virtual_servers.is_empty() {
            bail!("there is no virtual server {name}; there are: {}", known.join(", "));
        }
    }
    if let Some(server) = server {
        for virtual_server in &mut status.virtual_servers {
            virtual_server.real_servers.retain(|known| server.is(known.address));
        }
        status.virtual_servers.retain(|virtual_server| !virtual_server.real_servers.is_empty());
        if status.virtual_servers.is_empty() {
            let port = server.port.map_or(String::new(), |port| format!(" with port {port}"));
            bail!(
                "no virtual server has a real server {}{port}; xdirector status lists them",
                server.address
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
