//! How each real server is, and what follows for its virtual server.

use std::net::IpAddr;

use super::{Inputs, Server, ServerId, Service, ServiceId};
use crate::{
    api::types::Override,
    config::{OnFailure, RealServer, SorryServer, Tunnel, VirtualServer},
    health::CheckId,
};

/// How a real server is, but for whether it can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It gets connections.
    Up,
    /// A check says that it gets no new connections for now.
    Quiet,
    /// A check fails.
    Down {
        /// Which and why.
        reason: String,
    },
    /// It counts as down until its first check has passed.
    Checking,
    /// An operator drains it.
    Draining,
    /// An operator has taken it out.
    Disabled,
}

/// Whether enough real servers are alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    /// Whether the virtual server counts as up.
    pub is_up: bool,
    /// Weight of the living servers.
    pub alive_weight: u64,
}

/// What follows from the inputs for one virtual server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What the data plane should do.
    pub service: Service,
    /// Address and port of each configured real server, in order.
    pub servers: Vec<(IpAddr, u16)>,
    /// How each of them is.
    pub conditions: Vec<Condition>,
    /// The weight that the checks of each set, if they do.
    pub set_weights: Vec<Option<u32>>,
    /// Whether enough are alive.
    pub quorum: Quorum,
}

impl Outcome {
    /// Whether there is something to tell after `old`.
    pub fn differs_for_people(&self, old: &Self) -> bool {
        (&self.servers, &self.conditions, &self.set_weights)
            != (&old.servers, &old.conditions, &old.set_weights)
            || self.quorum.is_up != old.quorum.is_up
    }

    /// Where a server stands; `None` when it is not configured.
    pub fn position_of(&self, address: IpAddr, port: u16) -> Option<usize> {
        self.servers.iter().position(|server| *server == (address, port))
    }

    /// How it is.
    pub fn condition_of(&self, address: IpAddr, port: u16) -> Option<&Condition> {
        self.conditions.get(self.position_of(address, port)?)
    }
}

impl Condition {
    /// Whether it counts for the quorum.
    pub fn is_alive(&self) -> bool {
        matches!(self, Self::Up)
    }

    /// Whether its connections are left to end.
    pub fn is_draining(&self) -> bool {
        matches!(self, Self::Quiet | Self::Draining)
    }
}

/// See [`super::outcome`].
pub fn outcome(virtual_server: &VirtualServer, inputs: &Inputs) -> Outcome {
    let id = ServiceId::of(virtual_server);
    let judged: Vec<Judged> =
        virtual_server.real_servers.iter().map(|server| judge(id, virtual_server, server, inputs)).collect();
    let alive_weight =
        judged.iter().filter(|one| one.condition.is_alive()).map(|one| u64::from(one.weight)).sum();
    let quorum = quorum(virtual_server, alive_weight, inputs.quorum.get(&id).copied());
    let is_sorry = !quorum.is_up && virtual_server.sorry_server.is_some();
    let mut servers: Vec<Server> = virtual_server
        .real_servers
        .iter()
        .zip(&judged)
        .filter_map(|(server, judged)| serve(server, &judged.condition, judged.weight, is_sorry))
        .collect();
    if let Some(sorry) = &virtual_server.sorry_server {
        // While it is not needed it stays for the connections that it has.
        let server = sorry_server(sorry);
        if is_sorry {
            // It may be one of the real servers too.
            servers.retain(|other| other.key() != server.key());
            servers.push(server);
        } else {
            push_leaving(&mut servers, server);
        }
    }
    for leaver in inputs.draining.leavers(&id) {
        push_leaving(&mut servers, leaver.server);
    }
    let service = Service {
        scheduler: virtual_server.scheduler,
        flags: virtual_server.scheduler_flags,
        persistence: virtual_server.persistence,
        one_packet: virtual_server.one_packet,
        expire_nodest: virtual_server.expire_nodest,
        expire_quiescent: virtual_server.expire_quiescent,
        role: virtual_server.bind_to.as_ref().and_then(|name| inputs.roles.get(name)).copied().unwrap_or(0),
        servers,
    };
    Outcome {
        service,
        servers: virtual_server.real_servers.iter().map(|server| (server.address, server.port)).collect(),
        set_weights: judged.iter().map(|one| one.set_weight).collect(),
        conditions: judged.into_iter().map(|one| one.condition).collect(),
        quorum,
    }
}

/// How a real server is.
struct Judged {
    condition: Condition,
    /// That it has if it serves.
    weight: u32,
    /// That its checks ask for.
    set_weight: Option<u32>,
}

fn judge(service: ServiceId, virtual_server: &VirtualServer, server: &RealServer, inputs: &Inputs) -> Judged {
    let id = ServerId { service, address: server.address, port: server.port };
    let (by_checks, set_weight) = judge_checks(id, virtual_server, server, inputs);
    let weight = set_weight.unwrap_or(server.weight);
    let (condition, weight) = match inputs.orders.get(&id) {
        Some(Override::Disable) => (Condition::Disabled, weight),
        Some(Override::Drain { until: Some(until) }) if *until <= inputs.now => (Condition::Disabled, weight),
        Some(Override::Drain { .. }) => (Condition::Draining, weight),
        Some(Override::Weight { weight }) => (by_checks, *weight),
        None => (by_checks, weight),
    };
    Judged { condition, weight, set_weight }
}

/// All checks must pass. Of the weights that checks set the smallest counts.
fn judge_checks(
    id: ServerId,
    virtual_server: &VirtualServer,
    server: &RealServer,
    inputs: &Inputs,
) -> (Condition, Option<u32>) {
    let (mut condition, mut weight) = (Condition::Up, None);
    for (index, check) in (0..).zip(&server.health_checks) {
        let check_id = CheckId { service: id.service, address: id.address, port: id.port, index };
        let Some(report) = inputs.reports.get(&check_id) else {
            if virtual_server.alpha && condition == Condition::Up {
                condition = Condition::Checking;
            }
            continue;
        };
        if !report.is_up {
            let reason = format!("{}: {}", check.probe.as_str(), report.detail);
            return (Condition::Down { reason }, None);
        }
        if report.drain && condition == Condition::Up {
            condition = Condition::Quiet;
        }
        weight = match (weight, report.weight) {
            (Some(one), Some(other)) => Some(std::cmp::min::<u32>(one, other)),
            (one, other) => one.or(other),
        };
    }
    (condition, weight)
}

/// Up again at `quorum + hysteresis`, down below `quorum - hysteresis` (keepalived's `update_quorum_state`). The first time
/// the quorum alone counts.
fn quorum(virtual_server: &VirtualServer, alive_weight: u64, was_up: Option<bool>) -> Quorum {
    let (quorum, hysteresis) = (u64::from(virtual_server.quorum), u64::from(virtual_server.hysteresis));
    let is_up = match was_up {
        Some(true) => alive_weight >= quorum.saturating_sub(hysteresis).max(1),
        Some(false) => alive_weight >= quorum + hysteresis,
        None => alive_weight >= quorum,
    };
    Quorum { is_up, alive_weight }
}

/// A configured server as the data plane has it; `None`: not at all.
fn serve(server: &RealServer, condition: &Condition, weight: u32, is_sorry: bool) -> Option<Server> {
    let there = Server {
        address: server.address,
        port: server.port,
        forward: server.forward,
        tunnel: server.tunnel,
        weight,
        is_leaving: false,
        upper_threshold: server.upper_threshold,
        lower_threshold: server.lower_threshold,
    };
    match condition {
        Condition::Up if is_sorry => Some(there.leaving()),
        Condition::Up => Some(there),
        Condition::Quiet | Condition::Draining => Some(there.leaving()),
        Condition::Down { .. } | Condition::Checking => match server.on_failure {
            OnFailure::Remove => None,
            OnFailure::Inhibit if is_sorry => Some(there.leaving()),
            // It keeps its place: `sh` and `mh` without fallback refuse its clients, as IPVS does at weight 0.
            OnFailure::Inhibit => Some(Server { weight: 0, ..there }),
        },
        Condition::Disabled => None,
    }
}

fn sorry_server(sorry: &SorryServer) -> Server {
    Server {
        address: sorry.address,
        port: sorry.port,
        forward: sorry.forward,
        tunnel: Tunnel::IPIP,
        weight: 1,
        is_leaving: false,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

/// Adds a server that only keeps its connections, unless it is there anyway.
fn push_leaving(servers: &mut Vec<Server>, server: Server) {
    if !servers.iter().any(|other| other.key() == server.key()) {
        servers.push(server.leaving());
    }
}
#[cfg(test)]
mod tests;
