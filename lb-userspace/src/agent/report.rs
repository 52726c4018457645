//! What the agent tells: its state in the words of the admin interface.

use std::net::SocketAddr;

use lb_common::{conn::State, ip_proto, server::ServerStats};
use tokio::sync::mpsc;

use super::Agent;
use crate::{
    api::{
        ConnectionBatch,
        types::{
            Connection, ConnectionTable, DataPlaneKind, Forward, InterfaceStatus, NextHop, Protocol, Rates,
            RealServerState, RealServerStatus, Stats, Status, Totals, VirtualServerStatus,
        },
    },
    config::{self, VirtualServer},
    dataplane::xdp::{ConnectionList, Listed},
    desired::{Server, ServiceId},
    netlink::{Reason, Resolution},
};

impl Agent {
    /// The whole director at this moment.
    pub(super) fn status(&self) -> anyhow::Result<Status> {
        let virtual_servers = self
            .config
            .virtual_servers
            .iter()
            .map(|v| self.virtual_server(v))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut totals = Totals::default();
        for virtual_server in &virtual_servers {
            totals.active += virtual_server.active;
            totals.inactive += virtual_server.inactive;
            add_stats(&mut totals.stats, &virtual_server.stats);
            add_rates(&mut totals.rates, &virtual_server.rates);
        }
        let interfaces = self.plane.attachments().iter().map(|attachment| InterfaceStatus {
            name: attachment.name.clone(),
            ifindex: attachment.ifindex,
            mode: attachment.mode,
        });
        Ok(Status {
            instance: self.config.director.instance.clone(),
            router_id: self.config.director.router_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            dataplane: DataPlaneKind::Xdp,
            interfaces: interfaces.collect(),
            connections: ConnectionTable {
                entries: totals.active + totals.inactive,
                capacity: self.config.director.max_connections.into(),
            },
            totals,
            virtual_servers,
            verdicts: self
                .plane
                .counters()?
                .into_iter()
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
        })
    }

    fn virtual_server(&self, virtual_server: &VirtualServer) -> anyhow::Result<VirtualServerStatus> {
        let real_servers = self
            .plane
            .servers_of(&ServiceId::of(virtual_server))
            .map(|(server, number)| self.real_server(&server, number))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let flags = virtual_server.scheduler_flags;
        let named = |set: bool, name: &str| set.then(|| format!("{}-{name}", virtual_server.scheduler));
        let mut status = VirtualServerStatus {
            name: virtual_server.name.clone(),
            address: SocketAddr::new(virtual_server.address, virtual_server.port),
            protocol: match virtual_server.protocol {
                config::Protocol::Tcp => Protocol::Tcp,
                config::Protocol::Udp => Protocol::Udp,
            },
            scheduler: virtual_server.scheduler.to_string(),
            scheduler_flags: named(flags.port, "port")
                .into_iter()
                .chain(named(flags.fallback, "fallback"))
                .collect(),
            active: 0,
            inactive: 0,
            stats: Stats::default(),
            rates: Rates::default(),
            real_servers,
        };
        for server in &status.real_servers {
            status.active += server.active;
            status.inactive += server.inactive;
            add_stats(&mut status.stats, &server.stats);
            add_rates(&mut status.rates, &server.rates);
        }
        Ok(status)
    }

    fn real_server(&self, server: &Server, number: u32) -> anyhow::Result<RealServerStatus> {
        let load = self.plane.server_load(number);
        let (state, reason, next_hop) = reachability(self.resolutions.get(&server.address));
        Ok(RealServerStatus {
            address: SocketAddr::new(server.address, server.port),
            forward: match server.forward {
                config::Forward::Nat => Forward::Nat,
                config::Forward::Dr => Forward::Dr,
                config::Forward::Tun => Forward::Tun,
            },
            weight: server.weight,
            state,
            reason,
            next_hop,
            active: load.active.into(),
            inactive: load.inactive.into(),
            stats: stats(&self.plane.server_stats(number)?),
            rates: self.rates.get(&number).map(crate::rates::Estimator::rates).unwrap_or_default(),
        })
    }
}

fn reachability(resolution: Option<&Resolution>) -> (RealServerState, Option<String>, Option<NextHop>) {
    match resolution {
        None => (RealServerState::Resolving, None, None),
        Some(Resolution::Resolved(hop)) => {
            let mac = hop.destination_mac.map(|byte| format!("{byte:02x}")).join(":");
            let next_hop = NextHop { interface: hop.interface.clone(), gateway: hop.gateway, mac: Some(mac) };
            (RealServerState::Up, None, Some(next_hop))
        }
        Some(Resolution::Unresolved(reason)) => {
            let state = match reason {
                Reason::NeighbourPending { .. } => RealServerState::Resolving,
                Reason::NeighbourFailed { .. } => RealServerState::NoNeighbour,
                _ => RealServerState::NoRoute,
            };
            (state, Some(reason.to_string()), None)
        }
    }
}

/// The data plane's counters in the words of the admin interface.
pub(super) fn stats(counters: &ServerStats) -> Stats {
    Stats {
        connections: counters.connections,
        packets_in: counters.packets_in,
        packets_out: counters.packets_out,
        bytes_in: counters.bytes_in,
        bytes_out: counters.bytes_out,
    }
}

fn add_stats(sum: &mut Stats, part: &Stats) {
    sum.connections += part.connections;
    sum.packets_in += part.packets_in;
    sum.packets_out += part.packets_out;
    sum.bytes_in += part.bytes_in;
    sum.bytes_out += part.bytes_out;
}

fn add_rates(sum: &mut Rates, part: &Rates) {
    sum.connections += part.connections;
    sum.packets_in += part.packets_in;
    sum.packets_out += part.packets_out;
    sum.bytes_in += part.bytes_in;
    sum.bytes_out += part.bytes_out;
}

/// Sends the connection table in pieces; waits for a slow client, and stops when it leaves or has enough. For a thread
/// of its own.
pub(super) fn send_connections(
    list: &ConnectionList,
    limit: Option<usize>,
    reply: &mpsc::Sender<ConnectionBatch>,
) {
    const PIECE: usize = 1000;
    let mut piece = Vec::new();
    let mut left = limit.unwrap_or(usize::MAX);
    let mut is_listening = true;
    list.each(|listed, server, expires| {
        if left == 0 {
            return false;
        }
        left -= 1;
        piece.push(connection(&listed, server, expires));
        if piece.len() >= PIECE {
            is_listening = reply.blocking_send(ConnectionBatch::Entries(std::mem::take(&mut piece))).is_ok();
        }
        is_listening
    });
    if is_listening && reply.blocking_send(ConnectionBatch::Entries(piece)).is_ok() {
        // The last word; a client that left does not miss it.
        let _ = reply.blocking_send(ConnectionBatch::End);
    }
}

fn connection(listed: &Listed, server: &lb_common::server::Server, expires: u32) -> Connection {
    let key = &listed.key;
    let port = if server.port.is_any() { key.dport } else { server.port };
    Connection {
        protocol: if key.proto == u32::from(ip_proto::TCP) { Protocol::Tcp } else { Protocol::Udp },
        expires_seconds: expires,
        state: State::name(listed.state).into(),
        client: SocketAddr::new(key.src.to_ip(), key.sport.number()),
        virtual_address: SocketAddr::new(key.dst.to_ip(), key.dport.number()),
        real: SocketAddr::new(server.addr.to_ip(), port.number()),
        forward: match server.forwarding {
            f if f == lb_common::server::Forwarding::Nat as u8 => Forward::Nat,
            f if f == lb_common::server::Forwarding::Dr as u8 => Forward::Dr,
            _ => Forward::Tun,
        },
    }
}
