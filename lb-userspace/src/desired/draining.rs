//! Servers that the configuration no longer has and whose connections go on.

use std::collections::{BTreeMap, BTreeSet};

use super::{Server, ServerId, Service, ServiceId, State};
use crate::config::{Config, OnRemove};

/// A server that has been taken out of the configuration and still has connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaver {
    /// As it was.
    pub server: Server,
    /// When it goes with what it still has: seconds since 1970-01-01 UTC; `None`: never.
    pub until: Option<u64>,
}

/// All of them, by virtual server; and for virtual servers that went themselves, what they were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draining {
    leavers: BTreeMap<ServiceId, Vec<Leaver>>,
    whole: BTreeMap<ServiceId, Service>,
}

impl Draining {
    /// After a change of the configuration: what `served` has and `config` has not drains, if its virtual server says so;
    /// `before` is the configuration that had it, if it is known. What came back drains no more.
    pub fn follow(&mut self, served: &State, before: Option<&Config>, config: &Config, now: u64) {
        let configured: BTreeMap<ServiceId, _> =
            config.virtual_servers.iter().map(|one| (ServiceId::of(one), one)).collect();
        let earlier: BTreeMap<ServiceId, _> = before
            .into_iter()
            .flat_map(|config| &config.virtual_servers)
            .map(|one| (ServiceId::of(one), one))
            .collect();
        for (id, service) in served {
            // A virtual server that went cannot say it any more: what it said before holds, else the default.
            let policy = configured.get(id).or_else(|| earlier.get(id));
            let drains = policy.is_none_or(|one| one.on_remove == OnRemove::Drain);
            let timeout = policy.and_then(|one| one.drain_timeout);
            let still: BTreeSet<_> = configured
                .get(id)
                .into_iter()
                .flat_map(|one| {
                    let sorry =
                        one.sorry_server.iter().map(|sorry| (sorry.address, sorry.port, sorry.forward));
                    one.real_servers
                        .iter()
                        .map(|server| (server.address, server.port, server.forward))
                        .chain(sorry)
                })
                .collect();
            if drains && !configured.contains_key(id) {
                self.whole.entry(*id).or_insert_with(|| service.clone());
            }
            let leavers = self.leavers.entry(*id).or_default();
            leavers.retain(|leaver| !still.contains(&leaver.server.key()));
            for server in service.servers.iter().filter(|_| drains) {
                let key = server.key();
                let is_known = leavers.iter().any(|leaver| leaver.server.key() == key);
                if !still.contains(&key) && !is_known {
                    let until = timeout.map(|timeout| now.saturating_add(timeout.as_secs()));
                    leavers.push(Leaver { server: *server, until });
                }
            }
        }
        self.leavers.retain(|_, leavers| !leavers.is_empty());
        let leavers = &self.leavers;
        self.whole.retain(|id, _| !configured.contains_key(id) && leavers.contains_key(id));
    }

    /// Ends the draining of servers for which `is_over` says so, or whose time is over; gives them.
    pub fn end(&mut self, now: u64, is_over: impl Fn(&ServiceId, &Server) -> bool) -> Vec<ServerId> {
        let mut ended = Vec::new();
        for (id, leavers) in &mut self.leavers {
            leavers.retain(|leaver| {
                let stays = leaver.until.is_none_or(|until| until > now) && !is_over(id, &leaver.server);
                if !stays {
                    ended.push(leaver.server.id(*id));
                }
                stays
            });
        }
        self.leavers.retain(|_, leavers| !leavers.is_empty());
        let leavers = &self.leavers;
        self.whole.retain(|id, _| leavers.contains_key(id));
        ended
    }

    /// Whether nothing drains.
    pub fn is_empty(&self) -> bool {
        self.leavers.is_empty() && self.whole.is_empty()
    }

    /// Those of one virtual server.
    pub fn leavers(&self, id: &ServiceId) -> &[Leaver] {
        self.leavers.get(id).map_or(&[], Vec::as_slice)
    }

    /// Those of all virtual servers.
    pub fn all(&self) -> impl Iterator<Item = (ServiceId, &Leaver)> {
        self.leavers.iter().flat_map(|(id, leavers)| leavers.iter().map(|leaver| (*id, leaver)))
    }

    /// Virtual servers that the configuration no longer has.
    pub fn services(&self) -> impl Iterator<Item = ServiceId> + '_ {
        self.whole.keys().copied()
    }

    /// One of them: it takes no connections and keeps what it has.
    pub fn service(&self, id: &ServiceId) -> Option<Service> {
        let servers = self.leavers(id).iter().map(|leaver| leaver.server.leaving()).collect();
        self.whole.get(id).map(|service| Service { servers, ..service.clone() })
    }
}
