//! Which rows the table has, in which order.

use std::{cmp::Ordering, collections::HashSet, net::SocketAddr};

use crate::api::{
    Status,
    types::{Protocol, RealServerState, RealServerStatus, VirtualServerStatus},
};

/// One row: indices into the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// A virtual server.
    Virtual(usize),
    /// A real server of a virtual server.
    Real(usize, usize),
    /// The sorry server of a virtual server.
    Sorry(usize),
}

impl Row {
    /// The virtual server's index.
    pub fn virtual_server(self) -> usize {
        match self {
            Self::Virtual(index) | Self::Real(index, _) | Self::Sorry(index) => index,
        }
    }
}

/// Names a virtual server over refreshes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VirtualKey {
    name: String,
    address: SocketAddr,
    is_udp: bool,
}

impl VirtualKey {
    /// The key of a virtual server.
    pub fn of(server: &VirtualServerStatus) -> Self {
        Self { name: server.name.clone(), address: server.address, is_udp: server.protocol == Protocol::Udp }
    }
}

/// Names a row over refreshes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowKey {
    /// See [`Row::Virtual`].
    Virtual(VirtualKey),
    /// See [`Row::Real`].
    Real(VirtualKey, SocketAddr),
    /// See [`Row::Sorry`].
    Sorry(VirtualKey),
}

impl RowKey {
    /// The key of a row.
    pub fn of(status: &Status, row: Row) -> Self {
        let server = &status.virtual_servers[row.virtual_server()];
        let key = VirtualKey::of(server);
        match row {
            Row::Virtual(_) => Self::Virtual(key),
            Row::Real(_, real) => Self::Real(key, server.real_servers[real].address),
            Row::Sorry(_) => Self::Sorry(key),
        }
    }

    /// Where it is among `rows`. Compares without a copy of every row's name, for there may be many.
    pub fn find(&self, status: &Status, rows: &[Row]) -> Option<usize> {
        rows.iter().position(|row| {
            let server = &status.virtual_servers[row.virtual_server()];
            match (self, row) {
                (Self::Virtual(key), Row::Virtual(_)) | (Self::Sorry(key), Row::Sorry(_)) => key.is(server),
                (Self::Real(key, address), Row::Real(_, real)) => {
                    server.real_servers[*real].address == *address && key.is(server)
                }
                _ => false,
            }
        })
    }
}

impl VirtualKey {
    fn is(&self, server: &VirtualServerStatus) -> bool {
        server.address == self.address
            && self.is_udp == (server.protocol == Protocol::Udp)
            && server.name == self.name
    }
}

/// What the rows are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// As in the configuration.
    Configuration,
    /// Name of the virtual server, address of the real server.
    Name,
    /// Active connections, most first.
    Active,
    /// New connections per second, most first.
    Connections,
    /// Bytes per second in both directions, most first.
    Bytes,
    /// State, worst first.
    State,
}

impl Sort {
    /// The word for the screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Name => "name",
            Self::Active => "active",
            Self::Connections => "new/s",
            Self::Bytes => "bit/s",
            Self::State => "state",
        }
    }
}

/// Which rows there are and how they are ordered.
#[derive(Debug, Clone)]
pub struct Choice {
    /// What they are ordered by.
    pub sort: Sort,
    /// Whether the other way round.
    pub reverse: bool,
    /// A row is there when it contains this; a virtual server also when one of its real servers does. Empty: all.
    pub filter: String,
    /// Virtual servers whose real servers are not there.
    pub folded: HashSet<VirtualKey>,
}

impl Choice {
    /// The rows for a status.
    pub fn rows(&self, status: &Status) -> Vec<Row> {
        let filter = self.filter.to_lowercase();
        let mut order: Vec<usize> = (0..status.virtual_servers.len()).collect();
        let servers = &status.virtual_servers;
        self.sort(&mut order, |a, b| compare_virtual(self.sort, &servers[a], &servers[b]));
        let mut rows = Vec::new();
        for index in order {
            let server = &servers[index];
            let takes_all = filter.is_empty() || virtual_text(server).to_lowercase().contains(&filter);
            let mut real: Vec<usize> = (0..server.real_servers.len())
                .filter(|real| {
                    takes_all || real_text(&server.real_servers[*real]).to_lowercase().contains(&filter)
                })
                .collect();
            if !takes_all && real.is_empty() {
                continue;
            }
            rows.push(Row::Virtual(index));
            if !self.folded.is_empty() && self.folded.contains(&VirtualKey::of(server)) {
                continue;
            }
            self.sort(&mut real, |a, b| {
                compare_real(self.sort, &server.real_servers[a], &server.real_servers[b])
            });
            rows.extend(real.into_iter().map(|real| Row::Real(index, real)));
            if takes_all && server.sorry_server.is_some() {
                rows.push(Row::Sorry(index));
            }
        }
        rows
    }

    /// Stable, so that equal rows stay in the configuration's order instead of changing places every second.
    fn sort(&self, indices: &mut [usize], compare: impl Fn(usize, usize) -> Ordering) {
        indices.sort_by(|a, b| {
            let order = compare(*a, *b);
            if self.reverse { order.reverse() } else { order }
        });
        if self.sort == Sort::Configuration && self.reverse {
            indices.reverse();
        }
    }
}

fn compare_virtual(sort: Sort, a: &VirtualServerStatus, b: &VirtualServerStatus) -> Ordering {
    let worst = |server: &VirtualServerStatus| {
        let states = server.real_servers.iter().map(|server| badness(server.state));
        (!server.quorum.up, states.max().unwrap_or(0))
    };
    match sort {
        Sort::Configuration => Ordering::Equal,
        Sort::Name => a.name.cmp(&b.name),
        Sort::Active => b.active.cmp(&a.active),
        Sort::Connections => b.rates.connections.total_cmp(&a.rates.connections),
        Sort::Bytes => {
            (b.rates.bytes_in + b.rates.bytes_out).total_cmp(&(a.rates.bytes_in + a.rates.bytes_out))
        }
        Sort::State => worst(b).cmp(&worst(a)),
    }
}

fn compare_real(sort: Sort, a: &RealServerStatus, b: &RealServerStatus) -> Ordering {
    match sort {
        Sort::Configuration => Ordering::Equal,
        Sort::Name => a.address.cmp(&b.address),
        Sort::Active => b.active.cmp(&a.active),
        Sort::Connections => b.rates.connections.total_cmp(&a.rates.connections),
        Sort::Bytes => {
            (b.rates.bytes_in + b.rates.bytes_out).total_cmp(&(a.rates.bytes_in + a.rates.bytes_out))
        }
        Sort::State => badness(b.state).cmp(&badness(a.state)),
    }
}

/// How much a state needs a person: failures first, then what is on its way, then what somebody wanted so.
fn badness(state: RealServerState) -> u8 {
    match state {
        RealServerState::Down => 10,
        RealServerState::NoRoute => 9,
        RealServerState::NoNeighbour => 8,
        RealServerState::Inhibited => 7,
        RealServerState::Resolving => 6,
        RealServerState::Checking => 5,
        RealServerState::Draining => 4,
        RealServerState::Drained => 3,
        RealServerState::Disabled => 2,
        RealServerState::Removed => 1,
        RealServerState::Up => 0,
    }
}

fn virtual_text(server: &VirtualServerStatus) -> String {
    let quorum = if server.quorum.up { "" } else { "no quorum" };
    format!("{} {} {} {quorum}", server.name, server.protocol, server.address)
}

fn real_text(server: &RealServerStatus) -> String {
    format!("{} {} {}", server.address, server.forward, server.state)
}
