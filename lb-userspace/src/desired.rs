//! What the data plane should do: pure, from the configuration, the health of the servers, what operators have ordered and
//! what still drains.

mod conditions;
mod draining;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    api::types::Override,
    config::{Config, Forward, Persistence, Protocol, Scheduler, SchedulerFlags, Tunnel, VirtualServer},
    health::{CheckId, Report},
};

pub use conditions::{Condition, Outcome, Quorum};
pub use draining::{Draining, Leaver};

/// By what a virtual server is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// Its address.
    pub address: IpAddr,
    /// Its port in host byte order; 0 = every port.
    pub port: u16,
    /// The protocol above IP.
    pub protocol: Protocol,
}

impl ServiceId {
    /// Of a configured virtual server.
    pub const fn of(virtual_server: &VirtualServer) -> Self {
        let VirtualServer { address, port, protocol, .. } = *virtual_server;
        Self { address, port, protocol }
    }
}

/// By what a real server of a virtual server is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId {
    /// Its virtual server.
    pub service: ServiceId,
    /// Its address.
    pub address: IpAddr,
    /// Its port in host byte order; 0 = the client's.
    pub port: u16,
}

/// A virtual server as the data plane needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Who gets a new connection.
    pub scheduler: Scheduler,
    /// Its flags.
    pub flags: SchedulerFlags,
    /// Whether a client's connections stay together; IPVS only.
    pub persistence: Option<Persistence>,
    /// Each datagram is scheduled alone; IPVS only.
    pub one_packet: bool,
    /// Connections of a server that is not among [`Self::servers`] end at their next packet; else that is dropped.
    pub expire_nodest: bool,
    /// UDP flows leave a server that takes no new connections.
    pub expire_quiescent: bool,
    /// Number of the role that this director must have for it to be served; 0: none, it always is.
    pub role: u16,
    /// In the configuration's order, on which the schedulers depend.
    pub servers: Vec<Server>,
}

/// A real server of one virtual server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// Its address.
    pub address: IpAddr,
    /// Its port in host byte order; 0 = the client's.
    pub port: u16,
    /// How packets get there.
    pub forward: Forward,
    /// In what, with [`Forward::Tun`].
    pub tunnel: Tunnel,
    /// Share of new connections; 0 = none. Of no matter for one that leaves, and 0 then.
    pub weight: u32,
    /// It keeps its connections and has no part in the schedule any more, as if it were not there.
    pub is_leaving: bool,
    /// With this many connections it gets no more; 0: no limit.
    pub upper_threshold: u32,
    /// Below this many it gets connections again; 0: below three quarters of the upper one.
    pub lower_threshold: u32,
}

impl Server {
    /// The same server, which takes no new connections and has no part in the schedule.
    #[must_use]
    pub fn leaving(self) -> Self {
        Self { weight: 0, is_leaving: true, ..self }
    }

    /// What makes it one and the same server: with another way of forwarding it is another one.
    pub const fn key(&self) -> (IpAddr, u16, Forward) {
        (self.address, self.port, self.forward)
    }

    /// By what it is known.
    pub const fn id(&self, service: ServiceId) -> ServerId {
        ServerId { service, address: self.address, port: self.port }
    }
}

/// All virtual servers that the data plane should serve.
pub type State = BTreeMap<ServiceId, Service>;

/// What beside the configuration decides.
#[derive(Debug, Default)]
pub struct Inputs {
    /// The last word of each check.
    pub reports: BTreeMap<CheckId, Report>,
    /// What operators have ordered.
    pub orders: BTreeMap<ServerId, Override>,
    /// What is no longer in the configuration and still has connections.
    pub draining: Draining,
    /// Whether each virtual server had its quorum: it has a hysteresis. Missing ones begin as if they had.
    pub quorum: BTreeMap<ServiceId, bool>,
    /// Number of each VRRP instance's role; from 1.
    pub roles: BTreeMap<String, u16>,
    /// Seconds since 1970-01-01 UTC.
    pub now: u64,
}

/// What the configuration asks for, with every server up and no orders.
pub fn desired(config: &Config) -> State {
    desired_with(config, &Inputs::default())
}

/// What should be served now.
pub fn desired_with(config: &Config, inputs: &Inputs) -> State {
    let mut state: State = config
        .virtual_servers
        .iter()
        .map(|virtual_server| {
            (ServiceId::of(virtual_server), conditions::outcome(virtual_server, inputs).service)
        })
        .collect();
    for id in inputs.draining.services() {
        if !state.contains_key(&id)
            && let Some(service) = inputs.draining.service(&id)
        {
            state.insert(id, service);
        }
    }
    state
}

/// What should be served at one of the configuration's virtual servers, and how each of its real servers is.
pub fn outcome(virtual_server: &VirtualServer, inputs: &Inputs) -> Outcome {
    conditions::outcome(virtual_server, inputs)
}
