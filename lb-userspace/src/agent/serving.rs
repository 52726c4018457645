//! Keeping the data plane as it should be: reconcile, next hops, interfaces, counters.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use lb_common::server::ServerStats;

use super::{Agent, events::Severity, report, unix_now};
use crate::{
    dataplane::DataPlane as _,
    desired::{ServiceId, State, desired_with, outcome},
    health::driver::Wanted,
    netlink::{self, Change, Reason, Resolution},
    rates::Estimator,
    reconcile::{Operation, reconcile},
};

/// How a comparison of what is with what should be ended.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Reconciled {
    pub(super) added: usize,
    pub(super) changed: usize,
    pub(super) removed: usize,
    pub(super) failed: usize,
}

impl Agent {
    /// What should be served now.
    pub(super) fn wanted(&self) -> State {
        desired_with(&self.config, &self.inputs)
    }

    /// Brings the data plane to what it should be. What the kernel refuses is tried again at the next audit.
    pub(super) fn reconcile(&mut self, damaged: &BTreeSet<ServiceId>) -> Reconciled {
        let started = Instant::now();
        let mut done = Reconciled::default();
        for operation in reconcile(&self.wanted(), &self.plane.observe(), damaged) {
            let is_repair = damaged.contains(operation.id());
            if !self.apply(&operation) {
                done.failed += 1;
                continue;
            }
            self.work.repairs += u64::from(is_repair);
            match operation {
                Operation::Add(..) => done.added += 1,
                Operation::Change(..) => done.changed += 1,
                Operation::Remove(..) => done.removed += 1,
            }
        }
        self.count_reconcile(started);
        done
    }

    /// Brings one virtual server to what it should be; false when the kernel refuses.
    fn apply(&mut self, operation: &Operation) -> bool {
        self.work.operations += 1;
        match self.plane.apply(operation) {
            Ok(()) => true,
            Err(error) => {
                self.work.operations_failed += 1;
                let name = self.name_of(operation.id());
                self.events.tell(
                    Severity::Bad,
                    &name,
                    format!("the kernel refuses a change, which is tried again soon: {error:#}"),
                );
                false
            }
        }
    }

    fn count_reconcile(&mut self, started: Instant) {
        let seconds = started.elapsed().as_secs_f64();
        self.work.reconciles += 1;
        self.work.reconcile_seconds_sum += seconds;
        self.work.reconcile_seconds_last = seconds;
    }

    /// Works out what follows from the inputs for some virtual servers, tells what has changed, and brings the data plane
    /// there.
    pub(super) fn refresh(&mut self, ids: impl IntoIterator<Item = ServiceId>) {
        let started = Instant::now();
        self.inputs.now = unix_now();
        for id in ids {
            let wanted = match self.positions.get(&id) {
                Some(&position) => {
                    let new = outcome(&self.config.virtual_servers[position], &self.inputs);
                    self.tell_changes(position, &id, &new);
                    self.inputs.quorum.insert(id, new.quorum.is_up);
                    let service = new.service.clone();
                    self.outcomes.insert(id, new);
                    Some(service)
                }
                None => self.inputs.draining.service(&id),
            };
            let operation = match (wanted, self.plane.service(&id)) {
                (Some(wanted), Some(there)) if wanted == *there => continue,
                (Some(wanted), Some(_)) => Operation::Change(id, wanted),
                (Some(wanted), None) => Operation::Add(id, wanted),
                (None, Some(_)) => Operation::Remove(id),
                (None, None) => continue,
            };
            self.apply(&operation);
        }
        self.count_reconcile(started);
    }

    /// Looks whether somebody else has changed the maps or an earlier change has failed, and puts it right.
    pub(super) fn audit(&mut self) {
        let damaged = match self.plane.damaged() {
            Ok(damaged) => damaged,
            Err(error) => return tracing::error!("cannot read the maps: {error:#}"),
        };
        for id in &damaged {
            let name = self.name_of(id);
            self.events.tell(
                Severity::Bad,
                &name,
                "somebody else has changed it in the kernel: put right".to_owned(),
            );
        }
        self.reconcile(&damaged);
    }

    /// The name of a virtual server, or its address when it has none any more.
    pub(super) fn name_of(&self, id: &ServiceId) -> String {
        match self.positions.get(id) {
            Some(&position) => self.config.virtual_servers[position].name.clone(),
            None => format!("{} {}", std::net::SocketAddr::new(id.address, id.port), id.protocol),
        }
    }

    /// Tells the watcher whose next hops are wanted; gives them.
    pub(super) fn set_targets(&self) -> BTreeSet<IpAddr> {
        let wanted = self.plane.observe();
        let targets: BTreeSet<IpAddr> = wanted
            .values()
            .flat_map(|service| &service.servers)
            .map(|server| server.address)
            .chain(self.configured_addresses())
            .collect();
        self.watcher.set_targets(targets.clone());
        targets
    }

    /// Also of servers that are down: when they come back their next hop should be known.
    fn configured_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.config.virtual_servers.iter().flat_map(|virtual_server| {
            let sorry = virtual_server.sorry_server.iter().map(|sorry| sorry.address);
            virtual_server.real_servers.iter().map(|server| server.address).chain(sorry)
        })
    }

    /// Hands the configured checks to who runs them.
    pub(super) fn set_checks(&self) {
        let mut wanted = BTreeMap::new();
        for virtual_server in &self.config.virtual_servers {
            let service = ServiceId::of(virtual_server);
            for server in &virtual_server.real_servers {
                for (index, check) in (0..).zip(&server.health_checks) {
                    let id =
                        crate::health::CheckId { service, address: server.address, port: server.port, index };
                    let known_down = self.inputs.reports.get(&id).is_some_and(|report| !report.is_up);
                    let begins_down = virtual_server.alpha || known_down;
                    wanted.insert(id, Wanted { check: check.clone(), begins_down });
                }
            }
        }
        self.health.set(wanted);
    }

    pub(super) fn next_hop_changed(&mut self, change: Change) {
        let Change { target, resolution } = change;
        match &resolution {
            Resolution::Resolved(hop) => tracing::debug!("real server {target}: by way of {}", hop.interface),
            Resolution::Unresolved(Reason::NeighbourPending { .. }) => {}
            Resolution::Unresolved(reason) => {
                let text = format!("no way to it: {reason}");
                self.events.tell(Severity::Bad, &format!("real server {target}"), text);
            }
        }
        let was_lost = matches!(
            self.resolutions.get(&target),
            Some(Resolution::Unresolved(reason)) if !matches!(reason, Reason::NeighbourPending { .. })
        );
        if let (true, Resolution::Resolved(hop)) = (was_lost, &resolution) {
            let text = format!("it can be reached again, by way of {}", hop.interface);
            self.events.tell(Severity::Good, &format!("real server {target}"), text);
        }
        let keeps_tags = match &resolution {
            // VLAN devices on an interface say which tags its frames have; without any, frames keep theirs.
            Resolution::Resolved(hop) => {
                !self.links.iter().any(|link| link.vlan.is_some_and(|vlan| vlan.parent == hop.ifindex))
            }
            Resolution::Unresolved(_) => false,
        };
        self.plane.set_next_hop(target, &resolution, keeps_tags);
        self.resolutions.insert(target, resolution);
    }

    /// Keeps up with this machine's interfaces and their MAC addresses, and with whether the program is still there.
    pub(super) async fn look_at_links(&mut self) {
        match netlink::links().await {
            Ok(links) => {
                if links != self.links {
                    self.plane.set_macs(&links.iter().filter_map(|link| link.mac).collect());
                    self.links = links;
                }
                self.plane.follow_interfaces(&self.links, self.config.director.xdp_mode);
            }
            Err(error) => tracing::warn!("cannot list the interfaces: {error}"),
        }
    }

    /// Has the counters read, in another thread; unless that is still busy with the last time.
    pub(super) fn take_sample(&mut self) {
        self.plane.collect();
        let Ok(permit) = self.to_samples.clone().try_reserve_owned() else { return };
        let reader = match self.plane.stats_reader() {
            Ok(reader) => reader,
            Err(error) => return tracing::error!("cannot read the counters: {error:#}"),
        };
        tokio::task::spawn_blocking(move || match reader.read() {
            Ok(stats) => drop(permit.send(stats)),
            Err(error) => tracing::error!("cannot read the counters: {error:#}"),
        });
    }

    /// Works out the rates.
    pub(super) fn sampled(&mut self, stats: BTreeMap<u32, ServerStats>) {
        let now = self.started.elapsed();
        self.rates.retain(|number, _| stats.contains_key(number));
        for (number, stats) in stats {
            let stats = report::stats(&stats);
            self.rates.entry(number).or_insert_with(|| Estimator::new(now, stats)).sample(now, stats);
        }
    }
}
