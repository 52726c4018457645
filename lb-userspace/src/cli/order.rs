//! `xdirector drain`, `disable`, `enable`, `weight`: what an operator orders for a real server.

mod wait;

use std::{
    io::{self, IsTerminal, Write},
    str::FromStr,
    time::Duration,
};

use anyhow::{anyhow, bail};
use clap::Args;

use super::{SocketArgs, closed_is_done};
use crate::{
    api::{
        Client, Order, Ordered, ServerAddress,
        client::ClientError,
        order::{Action, MAX_WEIGHT},
        types::OrderedServer,
    },
    config::parse_duration,
};

/// Arguments of `xdirector drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Which real server.
    #[command(flatten)]
    pub target: Target,
    /// Take it out after this time, such as 90s or 10m, with the connections it
    /// still has
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Wait until all its connections have ended
    #[arg(long)]
    pub wait: bool,
    /// Which agent.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Arguments of `xdirector disable` and `enable`.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// Which real server.
    #[command(flatten)]
    pub target: Target,
    /// Which agent.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Arguments of `xdirector weight`.
#[derive(Debug, Args)]
pub struct WeightArgs {
    /// Which real server.
    #[command(flatten)]
    pub target: Target,
    /// Its weight: 0 to 65535; 0 gives it no new connections
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_WEIGHT)))]
    pub weight: u32,
    /// Which agent.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Which real server an order is for.
#[derive(Debug, Args)]
pub struct Target {
    /// ADDRESS, ADDRESS:PORT, or NAME/ADDRESS:PORT with the name of a virtual
    /// server; without a port every port of the address
    #[arg(value_name = "SERVER")]
    pub server: NamedServer,
    /// Only in this virtual server; else in all that have the real server
    #[arg(long, value_name = "NAME")]
    pub virtual_server: Option<String>,
}

/// A real server, with its virtual server when one is named: `web/192.168.1.101:80`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedServer {
    /// What stands before the `/`.
    pub virtual_server: Option<String>,
    /// What stands behind it.
    pub server: ServerAddress,
}

impl FromStr for NamedServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (virtual_server, server) = match text.split_once('/') {
            Some(("", _)) => return Err("no name before the \"/\"".into()),
            Some((name, server)) => (Some(name.to_owned()), server),
            None => (None, text),
        };
        Ok(Self { virtual_server, server: server.parse()? })
    }
}

impl Target {
    fn order(&self, action: Action) -> anyhow::Result<Order> {
        let virtual_server = match (&self.server.virtual_server, &self.virtual_server) {
            (Some(one), Some(other)) if one != other => {
                bail!("SERVER names the virtual server {one} and --virtual-server {other}; name one");
            }
            (one, other) => one.as_ref().or(other.as_ref()).cloned(),
        };
        Ok(Order { server: self.server.server.to_string(), virtual_server, action })
    }
}

/// Gives real servers no new connections; with `--wait` waits until they have none.
///
/// # Errors
///
/// No agent, no such server, or the wait was interrupted: the order stays in force then.
pub fn drain(args: &DrainArgs) -> anyhow::Result<()> {
    let client = Client::new(args.socket.path())?;
    // From here on Ctrl-C ends the wait, not the program.
    let mut pauses = if args.wait { Some(wait::Pauses::new()?) } else { None };
    let action = Action::Drain { timeout_seconds: args.timeout.map(|time| time.as_secs().max(1)) };
    let ordered = give(&client, &args.target, action)?;
    let mut out = io::stdout().lock();
    let printed = print(&ordered, &mut out, |server, name| {
        format!("draining {name}: {}", connections(server.connections))
    });
    closed_is_done(printed)?;
    match &mut pauses {
        None => Ok(()),
        Some(pauses) => {
            let is_terminal = out.is_terminal();
            wait::wait(&ordered.servers, || client.status(), || pauses.pause(), &mut out, is_terminal)
        }
    }
}

/// Takes real servers out.
///
/// # Errors
///
/// No agent, or no such server.
pub fn disable(args: &ServerArgs) -> anyhow::Result<()> {
    let client = Client::new(args.socket.path())?;
    let ordered = give(&client, &args.target, Action::Disable)?;
    let text =
        |server: &OrderedServer, name: &str| format!("disabled {name}: {}", connections(server.connections));
    Ok(closed_is_done(print(&ordered, &mut io::stdout().lock(), text))?)
}

/// Lifts what was ordered.
///
/// # Errors
///
/// No agent, or no such server.
pub fn enable(args: &ServerArgs) -> anyhow::Result<()> {
    let client = Client::new(args.socket.path())?;
    let ordered = give(&client, &args.target, Action::Enable)?;
    let text = |_: &OrderedServer, name: &str| format!("enabled {name}");
    Ok(closed_is_done(print(&ordered, &mut io::stdout().lock(), text))?)
}

/// Gives real servers another weight than the configuration's.
///
/// # Errors
///
/// No agent, or no such server.
pub fn weight(args: &WeightArgs) -> anyhow::Result<()> {
    let client = Client::new(args.socket.path())?;
    let ordered = give(&client, &args.target, Action::Weight { weight: args.weight })?;
    let text = |_: &OrderedServer, name: &str| format!("{name}: weight {}", args.weight);
    Ok(closed_is_done(print(&ordered, &mut io::stdout().lock(), text))?)
}

fn give(client: &Client, target: &Target, action: Action) -> anyhow::Result<Ordered> {
    let ordered = match client.order(&target.order(action)?) {
        // The agent's sentence alone: the operator asked for a server, not for a path.
        Err(ClientError::Refused { message, .. }) => return Err(anyhow!(message)),
        other => other?,
    };
    if let Some(reason) = &ordered.not_kept {
        eprintln!("warning: this will not survive a restart of xdirector: {reason}");
    }
    Ok(ordered)
}

fn print(
    ordered: &Ordered,
    out: &mut impl Write,
    text: impl Fn(&OrderedServer, &str) -> String,
) -> io::Result<()> {
    ordered.servers.iter().try_for_each(|server| writeln!(out, "{}", text(server, &name(server))))
}

/// As `status` and `events` name it, and as SERVER takes it.
fn name(OrderedServer { virtual_server, address, .. }: &OrderedServer) -> String {
    format!("{virtual_server}/{address}")
}

fn connections(count: u64) -> String {
    format!("{count} connection{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use clap::{Parser, error::ErrorKind};

    use super::*;
    use crate::cli::{Cli, Command};

    fn parsed(args: &[&str]) -> Result<Command, clap::Error> {
        Cli::try_parse_from(["xdirector"].iter().chain(args)).map(|cli| cli.command)
    }

    #[test]
    fn servers_are_named_as_status_prints_them() {
        let read = |text: &str| {
            text.parse::<NamedServer>().map(|named| (named.virtual_server, named.server.to_string()))
        };
        assert_eq!(read("192.168.1.101"), Ok((None, "192.168.1.101".into())));
        assert_eq!(read("192.168.1.101:80"), Ok((None, "192.168.1.101:80".into())));
        assert_eq!(read("web/192.168.1.101:80"), Ok((Some("web".into()), "192.168.1.101:80".into())));
        assert_eq!(read("web/[2001:db8::1]:80"), Ok((Some("web".into()), "[2001:db8::1]:80".into())));
        assert!(read("web").is_err());
        assert!(read("/192.168.1.101:80").is_err());
        assert!(read("web/").is_err());
    }

    #[test]
    fn arguments_become_orders() {
        let Command::Drain(args) =
            parsed(&["drain", "web/192.168.1.101:80", "--timeout", "1h30m", "--wait"]).unwrap()
        else {
            unreachable!()
        };
        assert_eq!(args.timeout, Some(Duration::from_secs(5400)));
        assert!(args.wait);
        let order = args.target.order(Action::Disable).unwrap();
        assert_eq!(
            order,
            Order {
                server: "192.168.1.101:80".into(),
                virtual_server: Some("web".into()),
                action: Action::Disable
            }
        );

        let Command::Weight(args) =
            parsed(&["weight", "192.168.1.101", "5", "--virtual-server", "web"]).unwrap()
        else {
            unreachable!()
        };
        assert_eq!(args.weight, 5);
        assert_eq!(args.target.order(Action::Enable).unwrap().virtual_server.as_deref(), Some("web"));
    }

    #[test]
    fn two_names_contradict_each_other() {
        let order = |args: &[&str]| match parsed(args).unwrap() {
            Command::Disable(args) => args.target.order(Action::Disable),
            other => panic!("{other:?}"),
        };
        let error = order(&["disable", "web/192.0.2.1", "--virtual-server", "dns"]).unwrap_err().to_string();
        assert!(error.contains("web") && error.contains("dns"), "{error}");
        order(&["disable", "web/192.0.2.1", "--virtual-server", "web"]).unwrap();
    }

    #[test]
    fn wrong_usage() {
        for (args, kind) in [
            (&["drain"][..], ErrorKind::MissingRequiredArgument),
            (&["drain", "www"], ErrorKind::ValueValidation),
            (&["drain", "192.0.2.1", "--timeout", "ten"], ErrorKind::ValueValidation),
            (&["drain", "192.0.2.1", "--timeout", "0s"], ErrorKind::ValueValidation),
            (&["weight", "192.0.2.1"], ErrorKind::MissingRequiredArgument),
            (&["weight", "192.0.2.1", "65536"], ErrorKind::ValueValidation),
        ] {
            assert_eq!(parsed(args).unwrap_err().kind(), kind, "{args:?}");
        }
    }

    #[test]
    fn each_server_has_a_line() {
        let server = |address: &str, connections| OrderedServer {
            virtual_server: "web".into(),
            address: address.parse().unwrap(),
            connections,
        };
        let ordered =
            Ordered { servers: vec![server("192.0.2.1:80", 1), server("192.0.2.1:443", 0)], not_kept: None };
        let mut out = Vec::new();
        print(&ordered, &mut out, |server, name| format!("{name}: {}", connections(server.connections)))
            .unwrap();
        let expected = "web/192.0.2.1:80: 1 connection\nweb/192.0.2.1:443: 0 connections\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
