//! What the agent tells: its state in the words of the admin interface.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{MutexGuard, PoisonError},
};

use lb_common::{schedule::is_overloaded, server::ServerStats};
use tokio::sync::mpsc;

use super::Agent;
use crate::{
    api::{
        ConnectionBatch,
        types::{
            BoundTo, CheckStatus, ConfigurationStatus, Connection, ConnectionTable, DataPlaneKind, Forward,
            InterfaceStatus, NextHop, Persistence, QuorumStatus, Rates, RealServerState, RealServerStatus,
            SorryServerStatus, Stats, Status, Totals, VirtualServerStatus, Work,
        },
    },
    config::{self, OnFailure, RealServer, VirtualServer},
    dataplane::{ConnectionList, Listed},
    desired::{Condition, Server, ServerId, ServiceId},
    health::{self, CheckId},
    netlink::{Reason, Resolution},
    rates::Estimators,
};

/// What is read once for all servers.
struct Readings<'a> {
    stats: BTreeMap<u32, ServerStats>,
    checks: BTreeMap<CheckId, health::State>,
    rates: MutexGuard<'a, Estimators>,
}

impl Agent {
    /// The whole director at this moment.
    pub(super) fn status(&self) -> anyhow::Result<Status> {
        let readings = Readings {
            stats: self.plane.stats_reader()?.read()?,
            checks: self.health.states(),
            rates: self.rates.lock().unwrap_or_else(PoisonError::into_inner),
        };
        let mut virtual_servers: Vec<VirtualServerStatus> = self
            .config
            .virtual_servers
            .iter()
            .map(|virtual_server| self.virtual_server(virtual_server, &readings))
            .collect();
        virtual_servers.extend(self.inputs.draining.services().map(|id| self.leaving(&id, &readings)));
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
            dataplane: self.plane.kind(),
            dataplane_reason: self.fallback.clone(),
            interfaces: interfaces.collect(),
            connections: ConnectionTable {
                entries: totals.active + totals.inactive,
                // IPVS's table grows as it must.
                capacity: match self.plane.kind() {
                    DataPlaneKind::Xdp => self.config.director.max_connections.into(),
                    DataPlaneKind::Ipvs => 0,
                },
            },
            totals,
            virtual_servers,
            verdicts: self
                .plane
                .counters()?
                .into_iter()
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
            configuration: ConfigurationStatus {
                path: self.options.config.display().to_string(),
                loaded_at: self.loaded_at,
                last_reload: self.last_reload.clone(),
            },
            persistence: Persistence {
                pins: self.plane.pins().map(|path| path.display().to_string()),
                reason: self.unpinned.clone(),
                adopted: self.plane.is_adopted(),
            },
            vrrp: self.vrrp_status(),
            work: self.work_done(),
        })
    }

    fn work_done(&self) -> Work {
        let scripts = self.notifier.counts();
        let mails = self.mailer.as_ref().map(crate::mail::Mailer::counts).unwrap_or_default();
        Work {
            notifications: scripts.run,
            notifications_failed: scripts.failed,
            mails_sent: mails.sent,
            mails_failed: mails.failed,
            ..self.work
        }
    }

    fn virtual_server(&self, virtual_server: &VirtualServer, readings: &Readings<'_>) -> VirtualServerStatus {
        let id = ServiceId::of(virtual_server);
        let outcome = self.outcomes.get(&id);
        let numbers: BTreeMap<SocketAddr, (Server, u32)> = self
            .plane
            .servers_of(&id)
            .map(|(server, number)| (SocketAddr::new(server.address, server.port), (server, number)))
            .collect();
        let mut real_servers: Vec<RealServerStatus> = Vec::with_capacity(virtual_server.real_servers.len());
        for (index, server) in virtual_server.real_servers.iter().enumerate() {
            let condition = outcome.map_or(&Condition::Up, |outcome| &outcome.conditions[index]);
            let there = numbers.get(&SocketAddr::new(server.address, server.port)).copied();
            real_servers.push(self.real_server(id, server, condition, there, readings));
        }
        real_servers.extend(
            self.inputs.draining.leavers(&id).iter().map(|leaver| self.leaver(&id, &leaver.server, readings)),
        );
        let quorum = outcome.map(|outcome| outcome.quorum);
        let flags = virtual_server.scheduler_flags;
        let named = |set: bool, name: &str| set.then(|| format!("{}-{name}", virtual_server.scheduler));
        sum_up(VirtualServerStatus {
            name: virtual_server.name.clone(),
            address: SocketAddr::new(virtual_server.address, virtual_server.port),
            protocol: virtual_server.protocol.into(),
            scheduler: virtual_server.scheduler.to_string(),
            scheduler_flags: named(flags.port, "port")
                .into_iter()
                .chain(named(flags.fallback, "fallback"))
                .collect(),
            active: 0,
            inactive: 0,
            stats: Stats::default(),
            rates: Rates::default(),
            quorum: QuorumStatus {
                up: quorum.is_none_or(|quorum| quorum.is_up),
                alive_weight: quorum.map_or(0, |quorum| quorum.alive_weight),
                quorum: virtual_server.quorum,
                hysteresis: virtual_server.hysteresis,
            },
            sorry_server: virtual_server.sorry_server.map(|sorry| SorryServerStatus {
                address: SocketAddr::new(sorry.address, sorry.port),
                forward: forward(sorry.forward),
                active: quorum.is_some_and(|quorum| !quorum.is_up),
            }),
            bound_to: virtual_server.bind_to.as_ref().map(|instance| self.bound_to(instance)),
            real_servers,
        })
    }

    /// A virtual server that the configuration no longer has.
    fn leaving(&self, id: &ServiceId, readings: &Readings<'_>) -> VirtualServerStatus {
        let scheduler =
            self.plane.service(id).map(|service| service.scheduler.to_string()).unwrap_or_default();
        let leavers = self.inputs.draining.leavers(id).iter();
        sum_up(VirtualServerStatus {
            name: self.name_of(id),
            address: SocketAddr::new(id.address, id.port),
            protocol: id.protocol.into(),
            scheduler,
            scheduler_flags: Vec::new(),
            active: 0,
            inactive: 0,
            stats: Stats::default(),
            rates: Rates::default(),
            quorum: QuorumStatus { up: false, alive_weight: 0, quorum: 0, hysteresis: 0 },
            sorry_server: None,
            bound_to: self.plane.service(id).and_then(|service| self.bound_by(service.role)),
            real_servers: leavers.map(|leaver| self.leaver(id, &leaver.server, readings)).collect(),
        })
    }

    /// How a virtual server is bound to an instance.
    fn bound_to(&self, instance: &str) -> BoundTo {
        BoundTo { instance: instance.to_owned(), served: self.is_served(instance) }
    }

    /// The same by the number of the instance's role; `None` for 0, and when there is no such instance any more.
    fn bound_by(&self, role: u16) -> Option<BoundTo> {
        let mut instances = self.inputs.roles.iter();
        instances.find(|(_, number)| **number == role).map(|(instance, _)| self.bound_to(instance))
    }

    /// Whether the data plane serves the virtual servers that are bound to an instance.
    fn is_served(&self, instance: &str) -> bool {
        self.inputs.roles.get(instance).is_none_or(|role| self.plane.is_role_on(*role))
    }

    fn real_server(
        &self,
        service: ServiceId,
        server: &RealServer,
        condition: &Condition,
        there: Option<(Server, u32)>,
        readings: &Readings<'_>,
    ) -> RealServerStatus {
        let id = ServerId { service, address: server.address, port: server.port };
        let (reach, unreachable, next_hop) = reachability(self.resolutions.get(&server.address));
        let mut status = self.counted(id, there, readings);
        let is_drained = self.drained.contains(&id);
        let (state, reason) = match condition {
            Condition::Up => (reach, unreachable),
            Condition::Quiet | Condition::Draining if is_drained => (RealServerState::Drained, None),
            Condition::Quiet => (RealServerState::Draining, Some("its check asks for it".to_owned())),
            Condition::Draining => (RealServerState::Draining, None),
            Condition::Disabled => (RealServerState::Disabled, None),
            Condition::Checking => (RealServerState::Checking, None),
            Condition::Down { reason } if server.on_failure == OnFailure::Inhibit => {
                (RealServerState::Inhibited, Some(reason.clone()))
            }
            Condition::Down { reason } => (RealServerState::Down, Some(reason.clone())),
        };
        status.forward = forward(server.forward);
        status.configured_weight = Some(server.weight);
        let ordered = self.inputs.orders.get(&id);
        status.ordered =
            ordered.map(|order| self.clock.on_wall(*order, std::time::Instant::now(), super::wall_clock()));
        (status.state, status.reason, status.next_hop) = (state, reason, next_hop);
        status.checks = (0..)
            .zip(&server.health_checks)
            .map(|(index, check)| {
                let check_id = CheckId { service, address: id.address, port: id.port, index };
                check_status(check.probe.as_str(), readings.checks.get(&check_id))
            })
            .collect();
        status
    }

    /// A server that the configuration no longer has.
    fn leaver(&self, service: &ServiceId, server: &Server, readings: &Readings<'_>) -> RealServerStatus {
        let there = self
            .plane
            .servers_of(service)
            .find(|(one, _)| (one.address, one.port) == (server.address, server.port));
        let mut status = self.counted(server.id(*service), there, readings);
        status.forward = forward(server.forward);
        status
    }

    /// What is counted for a server; the rest is for the caller.
    fn counted(
        &self,
        id: ServerId,
        there: Option<(Server, u32)>,
        readings: &Readings<'_>,
    ) -> RealServerStatus {
        let gone = || {
            [config::Forward::Nat, config::Forward::Dr, config::Forward::Tun]
                .into_iter()
                .find_map(|forward| self.plane.gone_number(&id, forward))
        };
        let number = there.map(|(_, number)| number).or_else(gone);
        let load = number.map(|number| self.plane.last_load(number)).unwrap_or_default();
        let counters = number.and_then(|number| readings.stats.get(&number)).copied().unwrap_or_default();
        let rates = number.and_then(|number| readings.rates.rates(number));
        RealServerStatus {
            address: SocketAddr::new(id.address, id.port),
            forward: Forward::Nat,
            weight: there.map_or(0, |(server, _)| server.weight),
            configured_weight: None,
            ordered: None,
            state: RealServerState::Removed,
            reason: None,
            since_seconds: self.since.get(&id).unwrap_or(&self.started).elapsed().as_secs(),
            checks: Vec::new(),
            // The program looks only when it chooses; connections have ended since.
            overloaded: is_overloaded(
                load.active.saturating_add(load.inactive),
                load.upper,
                load.lower,
                load.overloaded != 0,
            ),
            next_hop: None,
            active: load.active.into(),
            inactive: load.inactive.into(),
            stats: stats(&counters),
            rates: rates.unwrap_or_default(),
        }
    }
}

fn sum_up(mut status: VirtualServerStatus) -> VirtualServerStatus {
    for server in &status.real_servers {
        status.active += server.active;
        status.inactive += server.inactive;
        add_stats(&mut status.stats, &server.stats);
        add_rates(&mut status.rates, &server.rates);
    }
    status
}

fn check_status(kind: &str, state: Option<&health::State>) -> CheckStatus {
    CheckStatus {
        kind: kind.to_owned(),
        up: state.and_then(|state| state.is_up),
        detail: state.and_then(|state| state.detail.clone()),
        since_seconds: state.map_or(0, |state| state.since.elapsed().as_secs()),
        passed: state.map_or(0, |state| state.passed),
        failed: state.map_or(0, |state| state.failed),
        seconds_last: state.map_or(0.0, |state| state.last.as_secs_f64()),
        seconds_sum: state.map_or(0.0, |state| state.sum.as_secs_f64()),
        weight: state.and_then(|state| state.weight),
    }
}

fn forward(forward: config::Forward) -> Forward {
    match forward {
        config::Forward::Nat => Forward::Nat,
        config::Forward::Dr => Forward::Dr,
        config::Forward::Tun => Forward::Tun,
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
            let state = match &**reason {
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
    let listed = list.each(|listed| {
        if left == 0 {
            return false;
        }
        left -= 1;
        piece.push(connection(listed));
        if piece.len() >= PIECE {
            is_listening = reply.blocking_send(ConnectionBatch::Entries(std::mem::take(&mut piece))).is_ok();
        }
        is_listening
    });
    if let Err(error) = listed {
        let _ = reply.blocking_send(ConnectionBatch::Failed(format!("{error:#}")));
    } else if is_listening && reply.blocking_send(ConnectionBatch::Entries(piece)).is_ok() {
        // The last word; a client that left does not miss it.
        let _ = reply.blocking_send(ConnectionBatch::End);
    }
}

fn connection(listed: Listed) -> Connection {
    let Listed { protocol: layer4, expires, state, client, virtual_address, real, forward: method } = listed;
    Connection {
        protocol: layer4.into(),
        expires_seconds: expires,
        state,
        client,
        virtual_address,
        real,
        forward: forward(method),
    }
}
