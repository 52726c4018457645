//! Keeping the data plane as it should be: reconcile, next hops, interfaces, counters.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use lb_common::server::ServerStats;

use super::{Agent, events::Severity, report};
use crate::{
    config::Config,
    dataplane::DataPlane as _,
    desired::{ServiceId, State, outcome},
    health::{CheckId, driver::Wanted},
    netlink::{self, Change, Resolution},
    rates::Estimators,
    reconcile::{Operation, reconcile},
};

/// A look at all virtual servers is spread over so many audits.
const AUDIT_PARTS: usize = 40;
/// And each of those over so many bites, between which a check's result has its turn.
const AUDIT_BITES: usize = 10;

/// How a comparison of what is with what should be ended.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Reconciled {
    pub(super) added: usize,
    pub(super) changed: usize,
    pub(super) removed: usize,
    pub(super) failed: usize,
}

impl Reconciled {
    fn count(&mut self, operation: &Operation) {
        match operation {
            Operation::Add(..) => self.added += 1,
            Operation::Change(..) => self.changed += 1,
            Operation::Remove(..) => self.removed += 1,
        }
    }
}

impl Agent {
    /// What should be served now.
    fn wanted(&self) -> State {
        let configured = self.outcomes.iter().map(|(id, outcome)| (*id, outcome.service.clone()));
        let leaving = self
            .inputs
            .draining
            .services()
            .filter(|id| !self.outcomes.contains_key(id))
            .filter_map(|id| Some((id, self.inputs.draining.service(&id)?)));
        configured.chain(leaving).collect()
    }

    /// Brings the data plane to what it should be. What the kernel refuses is tried again, once at the end, when others may
    /// have made room, and then at the next audit.
    pub(super) fn reconcile(&mut self, damaged: &BTreeSet<ServiceId>) -> Reconciled {
        let started = Instant::now();
        let steps = reconcile(&self.wanted(), &self.plane.observe(), damaged);
        self.take_steps(steps, started)
    }

    fn take_steps(&mut self, steps: Vec<Operation>, started: Instant) -> Reconciled {
        let mut done = Reconciled::default();
        let mut refused = Vec::new();
        for operation in steps {
            match self.apply(&operation) {
                Ok(()) => done.count(&operation),
                Err(_) => refused.push(operation),
            }
        }
        for operation in refused {
            match self.apply(&operation) {
                Ok(()) => done.count(&operation),
                Err(error) => {
                    done.failed += 1;
                    self.tell_failure(operation.id(), &error);
                }
            }
        }
        self.count_reconcile(started);
        done
    }

    /// The same for some virtual servers only.
    pub(super) fn reconcile_some(
        &mut self,
        ids: BTreeSet<ServiceId>,
        damaged: &BTreeSet<ServiceId>,
    ) -> Reconciled {
        let steps = ids.iter().filter_map(|id| self.operation_for(id, damaged.contains(id))).collect();
        self.take_steps(steps, Instant::now())
    }

    fn apply(&mut self, operation: &Operation) -> anyhow::Result<()> {
        self.work.operations += 1;
        self.retiring_follows(operation);
        self.plane.apply(operation).inspect_err(|_| self.work.operations_failed += 1)
    }

    fn tell_failure(&mut self, id: &ServiceId, error: &anyhow::Error) {
        let name = self.name_of(id);
        let text = format!("the kernel refuses a change, which is tried again soon: {error:#}");
        self.events.tell(Severity::Bad, &name, text);
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
        self.inputs.now = self.now();
        let mut told = Vec::new();
        // First all that packets depend on; a log or a queue may be slow.
        let ids: BTreeSet<ServiceId> = ids.into_iter().collect();
        for &id in &ids {
            if let Some(&position) = self.positions.get(&id) {
                let new = outcome(&self.config.virtual_servers[position], &self.inputs);
                self.inputs.quorum.insert(id, new.quorum.is_up);
                told.extend(self.outcomes.insert(id, new).map(|old| (id, old)));
            }
            if let Some(operation) = self.operation_for(&id, false)
                && let Err(error) = self.apply(&operation)
            {
                self.tell_failure(&id, &error);
            }
        }
        self.count_reconcile(started);
        self.keep_dead(ids);
        self.tell_virtual_servers();
        for (id, old) in told {
            if let Some(new) = self.outcomes.get(&id).cloned() {
                self.tell_changes(&id, &old, &new);
            }
        }
    }

    /// The step from what one virtual server is to what it should be.
    fn operation_for(&self, id: &ServiceId, is_damaged: bool) -> Option<Operation> {
        let wanted = match self.positions.get(id) {
            Some(_) => self.outcomes.get(id).map(|outcome| outcome.service.clone()),
            None => self.inputs.draining.service(id),
        };
        match (wanted, self.plane.service(id)) {
            (Some(wanted), Some(there)) if wanted == *there && !is_damaged => None,
            (Some(wanted), Some(_)) => Some(Operation::Change(*id, wanted)),
            (Some(wanted), None) => Some(Operation::Add(*id, wanted)),
            (None, Some(_)) => Some(Operation::Remove(*id)),
            (None, None) => None,
        }
    }

    /// Looks whether somebody else has changed the maps or an earlier change has failed, and puts it right. A part of the
    /// virtual servers each time: with very many of them a look at all would keep others waiting. The loop has the rest of the
    /// part looked at by [`Self::audit_bite`].
    pub(super) fn audit(&mut self) {
        self.audit_bites = self.plane.served().div_ceil(AUDIT_PARTS).clamp(1, AUDIT_BITES);
        self.audit_bite();
        // Those that could not be brought in are not among what is there; usually counting shows that there are none.
        if self.plane.served() == self.positions.len() + self.inputs.draining.services().count() {
            return;
        }
        let missing: Vec<ServiceId> =
            self.positions.keys().filter(|id| self.plane.service(id).is_none()).copied().collect();
        if !missing.is_empty() {
            self.refresh(missing);
        }
    }

    /// Looks at the next few virtual servers.
    pub(super) fn audit_bite(&mut self) {
        self.audit_bites = self.audit_bites.saturating_sub(1);
        let audit = match self.plane.damaged(AUDIT_PARTS * AUDIT_BITES) {
            Ok(audit) => audit,
            Err(error) => return tracing::error!("cannot read the maps: {error:#}"),
        };
        let mut repaired = Vec::new();
        for id in audit.looked_at {
            let is_damaged = audit.damaged.contains(&id);
            let Some(operation) = self.operation_for(&id, is_damaged) else { continue };
            match self.apply(&operation) {
                Ok(()) if is_damaged => repaired.push(id),
                Ok(()) => {}
                Err(error) => self.tell_failure(&id, &error),
            }
        }
        self.tell_repaired(&repaired);
    }

    pub(super) fn tell_repaired(&mut self, repaired: &[ServiceId]) {
        /// More than this at once are summed up.
        const MOST: usize = 8;
        self.work.repairs += repaired.len() as u64;
        for id in repaired.iter().take(MOST) {
            let name = self.name_of(id);
            let text = "was not in the kernel as it should be: put right".to_owned();
            self.events.tell(Severity::Bad, &name, text);
        }
        if repaired.len() > MOST {
            let text = format!("{} more virtual servers were put right", repaired.len() - MOST);
            self.events.tell(Severity::Bad, "director", text);
        }
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
        let mut wanted = self.plane.observe();
        wanted.extend(self.retiring_state());
        let targets: BTreeSet<IpAddr> = wanted
            .values()
            .flat_map(|service| &service.servers)
            .map(|server| server.address)
            .chain(configured_addresses(&self.config))
            .collect();
        self.watcher.set_targets(targets.clone());
        targets
    }

    /// Hands the configured checks to who runs them.
    pub(super) fn set_checks(&self) {
        self.health.set(self.wanted_checks());
    }

    /// The configured checks.
    pub(super) fn wanted_checks(&self) -> BTreeMap<CheckId, Wanted> {
        let mut wanted = BTreeMap::new();
        for virtual_server in &self.config.virtual_servers {
            let service = ServiceId::of(virtual_server);
            for server in &virtual_server.real_servers {
                for (index, check) in (0..).zip(&server.health_checks) {
                    let id = CheckId { service, address: server.address, port: server.port, index };
                    let known = self.inputs.reports.get(&id);
                    let begins_down = known.map_or(virtual_server.alpha, |report| !report.is_up);
                    wanted.insert(id, Wanted { check: check.clone(), begins_down });
                }
            }
        }
        wanted
    }

    pub(super) fn next_hop_changed(&mut self, change: Change) {
        let Change { target, resolution } = change;
        match &resolution {
            Resolution::Resolved(hop) => tracing::debug!("real server {target}: by way of {}", hop.interface),
            pending if pending.is_pending() => {}
            Resolution::Unresolved(reason) => {
                let text = format!("no way to it: {reason}");
                self.events.tell(Severity::Bad, &format!("real server {target}"), text);
            }
        }
        let was_lost = matches!(
            self.resolutions.get(&target),
            Some(lost @ Resolution::Unresolved(_)) if !lost.is_pending()
        );
        if let (true, Resolution::Resolved(hop)) = (was_lost, &resolution) {
            let text = format!("it can be reached again, by way of {}", hop.interface);
            self.events.tell(Severity::Good, &format!("real server {target}"), text);
        }
        let keeps_tags = self.keeps_tags(&resolution);
        self.plane.set_next_hop(target, &resolution, keeps_tags);
        if let Some(retiring) = self.retiring_plane() {
            retiring.set_next_hop(target, &resolution, keeps_tags);
        }
        self.resolutions.insert(target, resolution);
    }

    /// VLAN devices on an interface say which tags its frames have; without any, frames keep theirs.
    pub(super) fn keeps_tags(&self, resolution: &Resolution) -> bool {
        match resolution {
            Resolution::Resolved(hop) => {
                !self.links.iter().any(|link| link.vlan.is_some_and(|vlan| vlan.parent == hop.ifindex))
            }
            Resolution::Unresolved(_) => false,
        }
    }

    /// Asks for this machine's interfaces and waits for the answer.
    pub(super) async fn look_at_links(&mut self) {
        match netlink::links().await {
            Ok(links) => self.links_seen(links),
            Err(error) => tracing::warn!("cannot list the interfaces: {error}"),
        }
    }

    /// Asks for them without waiting; unless the last answer is still on its way.
    pub(super) fn ask_for_links(&self) {
        let Ok(permit) = self.to_links.clone().try_reserve_owned() else { return };
        tokio::spawn(async move {
            match netlink::links().await {
                Ok(links) => drop(permit.send(links)),
                Err(error) => tracing::warn!("cannot list the interfaces: {error}"),
            }
        });
    }

    /// Keeps up with this machine's interfaces and their MAC addresses, and with whether the program is still there.
    pub(super) fn links_seen(&mut self, links: Vec<netlink::Link>) {
        if links != self.links {
            let macs = links.iter().filter_map(|link| link.mac).collect();
            self.plane.set_macs(&macs);
            if let Some(retiring) = self.retiring_plane() {
                retiring.set_macs(&macs);
            }
            self.links = links;
            self.tell_own_addresses();
        }
        let mode = self.config.director.xdp_mode;
        self.plane.follow_interfaces(&self.links, mode);
        if let Some(retiring) = &mut self.retiring {
            retiring.follow_interfaces(&self.links, mode);
        }
    }

    /// Has the counters read and the rates worked out, in another thread; unless that is still busy with the last time.
    pub(super) fn take_sample(&mut self) {
        self.plane.collect();
        self.check_path.tidy();
        if Arc::strong_count(&self.rates) > 1 {
            return;
        }
        let reader = match self.plane.stats_reader() {
            Ok(reader) => reader,
            Err(error) => return tracing::error!("cannot read the counters: {error:#}"),
        };
        let (rates, started) = (Arc::clone(&self.rates), self.started);
        tokio::task::spawn_blocking(move || match reader.read() {
            Ok(stats) => sample(&rates, started.elapsed(), stats),
            Err(error) => tracing::error!("cannot read the counters: {error:#}"),
        });
    }
}

/// Also of servers that are down: when they come back their next hop should be known.
pub(super) fn configured_addresses(config: &Config) -> impl Iterator<Item = IpAddr> + '_ {
    config.virtual_servers.iter().flat_map(|virtual_server| {
        let sorry = virtual_server.sorry_server.iter().map(|sorry| sorry.address);
        virtual_server.real_servers.iter().map(|server| server.address).chain(sorry)
    })
}

/// Works out the rates; `now` is the time since the agent started.
fn sample(rates: &Mutex<Estimators>, now: Duration, stats: BTreeMap<u32, ServerStats>) {
    let mut rates = rates.lock().unwrap_or_else(PoisonError::into_inner);
    rates.sample(now, stats.into_iter().map(|(number, stats)| (number, report::stats(&stats))));
}
