//! `xdirector connections`: the connection table, in the columns of `ipvsadm -Lnc`.

use std::io::{self, BufWriter, Write};

use clap::Args;

use super::{SocketArgs, closed_is_done};
use crate::api::{Client, Connection, client::ClientError};

/// Arguments of `xdirector connections`.
#[derive(Debug, Args)]
pub struct ConnectionsArgs {
    /// Which agent.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Show at most N connections
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Print the answer of GET /v1/connections: a JSON array, one element per line
    #[arg(long)]
    pub json: bool,
}

/// Asks the agent and prints its table while it comes.
///
/// # Errors
///
/// No agent, a broken answer, or standard output cannot be written.
pub fn run(args: &ConnectionsArgs) -> anyhow::Result<()> {
    let client = Client::new(args.socket.path())?;
    let mut out = BufWriter::new(io::stdout().lock());
    let printed = if args.json {
        client.copy_connections(args.limit, &mut out).and_then(|()| out.flush().map_err(ClientError::Output))
    } else {
        let mut table = Table::new(out);
        client
            .connections(args.limit, |connection| table.push(connection))
            .and_then(|()| table.finish().map_err(ClientError::Output))
    };
    match printed {
        Err(ClientError::Output(error)) => Ok(closed_is_done(Err(error))?),
        other => Ok(other?),
    }
}

/// Connections that are looked at to choose the width of the columns. A later, wider one shifts its own line.
const SAMPLE: usize = 256;
/// ipvsadm's width of an address.
const ADDRESS: usize = 18;

/// Writes connections as lines. One line each, also where IPv6 makes it wider than the screen: people search this
/// with grep.
#[derive(Debug)]
pub struct Table<W> {
    out: W,
    waiting: Vec<Connection>,
    widths: Option<(usize, usize)>,
}

impl<W: Write> Table<W> {
    /// A table that is written to `out`.
    pub fn new(out: W) -> Self {
        Self { out, waiting: Vec::new(), widths: None }
    }

    /// Adds a line.
    ///
    /// # Errors
    ///
    /// The writer's.
    pub fn push(&mut self, connection: Connection) -> io::Result<()> {
        if let Some(widths) = self.widths {
            return line(&mut self.out, widths, &connection);
        }
        self.waiting.push(connection);
        if self.waiting.len() < SAMPLE { Ok(()) } else { self.start() }
    }

    /// Writes what is left.
    ///
    /// # Errors
    ///
    /// The writer's.
    pub fn finish(mut self) -> io::Result<()> {
        if self.widths.is_none() {
            self.start()?;
        }
        self.out.flush()
    }

    fn start(&mut self) -> io::Result<()> {
        let widest = |address: fn(&Connection) -> String| {
            self.waiting.iter().map(|connection| address(connection).len()).max().unwrap_or(0).max(ADDRESS)
        };
        let widths = (
            widest(|connection| connection.client.to_string()),
            widest(|connection| connection.virtual_address.to_string()),
        );
        self.widths = Some(widths);
        let (source, target) = widths;
        writeln!(
            self.out,
            "pro expire state       {:<source$} {:<target$} destination",
            "source", "virtual"
        )?;
        self.waiting.drain(..).try_for_each(|connection| line(&mut self.out, widths, &connection))
    }
}

fn line(out: &mut impl Write, (source, target): (usize, usize), connection: &Connection) -> io::Result<()> {
    let Connection { protocol, expires_seconds, state, client, virtual_address, real, .. } = connection;
    let expire = format!("{:02}:{:02}", expires_seconds / 60, expires_seconds % 60);
    // An address' Display pads itself to the width.
    writeln!(out, "{protocol:<3} {expire:<6} {state:<11} {client:<source$} {virtual_address:<target$} {real}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{Forward, Protocol};

    fn connection(client: &str, virtual_address: &str, real: &str) -> Connection {
        Connection {
            protocol: Protocol::Tcp,
            expires_seconds: 899,
            state: "ESTABLISHED".into(),
            client: client.parse().unwrap(),
            virtual_address: virtual_address.parse().unwrap(),
            real: real.parse().unwrap(),
            forward: Forward::Nat,
        }
    }

    fn table(connections: impl IntoIterator<Item = Connection>) -> String {
        let mut out = Vec::new();
        let mut table = Table::new(&mut out);
        connections.into_iter().try_for_each(|connection| table.push(connection)).unwrap();
        table.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn ipv4_as_ipvsadm() {
        let web = connection("203.0.113.7:50412", "192.168.10.50:80", "192.168.1.101:8080");
        let name = Connection {
            protocol: Protocol::Udp,
            expires_seconds: 7265,
            state: "UDP".into(),
            ..connection("203.0.113.8:5353", "192.168.10.50:53", "192.168.1.102:53")
        };
        let text = table([web, name]);
        assert_eq!(
            text,
            "\
pro expire state       source             virtual            destination
TCP 14:59  ESTABLISHED 203.0.113.7:50412  192.168.10.50:80   192.168.1.101:8080
UDP 121:05 UDP         203.0.113.8:5353   192.168.10.50:53   192.168.1.102:53
"
        );
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }

    #[test]
    fn ipv6_widens_its_columns() {
        let text =
            table([connection("[2001:db8:1::7]:50412", "[2001:db8::50]:443", "[2001:db8:2::101]:8443")]);
        assert_eq!(
            text,
            "\
pro expire state       source                virtual            destination
TCP 14:59  ESTABLISHED [2001:db8:1::7]:50412 [2001:db8::50]:443 [2001:db8:2::101]:8443
"
        );
    }

    #[test]
    fn an_empty_table_has_its_heads() {
        assert_eq!(table([]), "pro expire state       source             virtual            destination\n");
    }

    #[test]
    fn every_connection_has_a_line() {
        for many in [SAMPLE - 1, SAMPLE, SAMPLE + 1, 3 * SAMPLE] {
            let text = table((0..many).map(|index| {
                connection(&format!("203.0.113.7:{}", 1000 + index), "192.0.2.1:80", "10.0.0.1:80")
            }));
            assert_eq!(text.lines().count(), 1 + many);
            for (index, line) in text.lines().skip(1).enumerate() {
                assert!(line.contains(&format!("203.0.113.7:{} ", 1000 + index)), "{line}");
            }
        }
    }
}
