//! What the data plane should do: pure, from the configuration alone so far.

use std::{collections::BTreeMap, net::IpAddr};

use crate::config::{Config, Forward, Protocol, Scheduler, SchedulerFlags, VirtualServer};

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

/// A virtual server as the data plane needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Who gets a new connection.
    pub scheduler: Scheduler,
    /// Its flags.
    pub flags: SchedulerFlags,
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
    /// Share of new connections; 0 = none.
    pub weight: u32,
}

/// All virtual servers that the data plane should serve.
pub type State = BTreeMap<ServiceId, Service>;

/// What the configuration asks for.
pub fn desired(config: &Config) -> State {
    config
        .virtual_servers
        .iter()
        .map(|virtual_server| {
            let servers = virtual_server
                .real_servers
                .iter()
                .map(|server| Server {
                    address: server.address,
                    port: server.port,
                    forward: server.forward,
                    weight: server.weight,
                })
                .collect();
            let service = Service {
                scheduler: virtual_server.scheduler,
                flags: virtual_server.scheduler_flags,
                servers,
            };
            (ServiceId::of(virtual_server), service)
        })
        .collect()
}
