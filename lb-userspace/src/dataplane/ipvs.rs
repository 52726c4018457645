//! The kernel's IPVS as data plane: over generic netlink, in this network namespace.
//!
//! What is served stands in the kernel and outlives the agent. Services that somebody else has made there are left alone; which
//! ones are ours stands in a file, so that a later agent with another configuration knows what to remove.

mod connections;
mod diff;
mod kernel;
mod message;
mod numbers;
mod owned;
mod readings;
mod render;
mod roles;
mod sysctl;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::Bound::{Excluded, Unbounded},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use readings::{ConnectionCounts, ConnectionList, StatsReader};

use lb_common::server::Load;

use super::{Audit, DataPlane};
use crate::{
    config::{Config, Scheduler, check::Via},
    desired::{Server, Service, ServiceId, State},
    reconcile::Operation,
    vrrp::driver,
};
use kernel::Kernel;
use numbers::Numbers;
use owned::Owned;
use readings::Readings;
use render::{Rendered, key, read, render};
use roles::Roles;
use words::{Command, Destination, KernelService, Key};

/// The kernel's IPVS.
pub struct IpvsPlane {
    kernel: Arc<Mutex<Kernel>>,
    /// What it was told, or had been told by an earlier agent.
    told: State,
    /// The kernel's services, as of the last look and what was done since.
    services: BTreeMap<Key, KernelService>,
    numbers: Numbers,
    readings: Arc<Mutex<Readings>>,
    roles: Arc<Roles>,
    owned: Owned,
    /// The last virtual server that an audit has looked at.
    audited: Option<ServiceId>,
    adopted: bool,
    /// Seconds for which a connection in FIN_WAIT is remembered.
    tcp_fin: u32,
}

impl IpvsPlane {
    /// Opens it and looks at what is there. Nothing is changed yet.
    ///
    /// # Errors
    /// When the kernel has no IPVS, or this process no right to it.
    pub fn open(config: &Config, owned: PathBuf) -> anyhow::Result<Self> {
        Self::open_for(&config.virtual_servers.iter().map(|one| ServiceId::of(one)).collect(), owned)
    }

    /// The same for some virtual servers, and what stands in the file.
    fn open_for(configured: &BTreeSet<ServiceId>, owned: PathBuf) -> anyhow::Result<Self> {
        let mut kernel = Kernel::open()?;
        let owned = Owned::load(owned);
        let services: BTreeMap<Key, KernelService> =
            kernel.services()?.into_iter().map(|service| (service.key, service)).collect();
        let mut told = State::new();
        for (key, service) in &services {
            let is_ours = |id: &ServiceId| configured.contains(id) || owned.contains(id);
            if !render::id(key).is_some_and(|id| is_ours(&id)) {
                continue;
            }
            let destinations: Vec<Destination> =
                kernel.destinations(key)?.iter().map(|one| one.destination).collect();
            told.extend(read(service, &destinations));
        }
        let mut numbers = Numbers::default();
        told.iter().for_each(|(id, service)| numbers.set(*id, &service.servers));
        let adopted = !told.is_empty();
        Ok(Self {
            kernel: Arc::new(Mutex::new(kernel)),
            told,
            services,
            numbers,
            readings: Arc::default(),
            roles: Arc::default(),
            owned,
            audited: None,
            adopted,
            tcp_fin: 0,
        })
    }

    /// Settings that hold for all services: timeouts and system controls. What cannot be set is logged: it is better to serve
    /// without.
    pub fn configure(&mut self, config: &Config, desired: &State) {
        let seconds = |time: std::time::Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let timeouts = [config.timeouts.tcp, config.timeouts.tcp_fin, config.timeouts.udp].map(seconds);
        self.tcp_fin = timeouts[1];
        let mut kernel = self.kernel();
        let set = match kernel.timeouts() {
            Ok(there) if there == timeouts => Ok(()),
            _ => kernel.take(&[Command::SetTimeouts(timeouts)]),
        };
        drop(kernel);
        if let Err(error) = set {
            tracing::warn!("{error:#}");
        }
        for problem in sysctl::set(&sysctl::wanted(desired)) {
            tracing::warn!("{problem}");
        }
        self.remember(desired);
    }

    /// Writes down what is or may become ours.
    fn remember(&mut self, desired: &State) {
        let ours = desired.keys().chain(self.told.keys()).copied().collect();
        if let Err(error) = self.owned.store(ours) {
            tracing::warn!(
                "a later agent with another configuration will not know which of IPVS's services are to be removed: {error}"
            );
        }
    }

    /// Whether an earlier agent's services were taken over.
    pub const fn is_adopted(&self) -> bool {
        self.adopted
    }

    /// Which roles this machine has. The kernel's IPVS serves whatever reaches this machine, so they only are remembered: packets
    /// come where the virtual address is.
    pub fn roles(&self) -> Arc<dyn driver::Roles> {
        Arc::<Roles>::clone(&self.roles)
    }

    /// See [`Self::roles`].
    pub fn is_role_on(&self, role: u16) -> bool {
        self.roles.is_on(role)
    }

    /// Removes all of our services, also what is left of those that the kernel had refused half-way.
    ///
    /// # Errors
    /// The first that the kernel refuses; the others are removed.
    pub fn detach(mut self) -> anyhow::Result<()> {
        self.look()?;
        let is_ours = |id: &ServiceId| self.told.contains_key(id) || self.owned.contains(id);
        let keys: Vec<Key> = self
            .services
            .keys()
            .filter(|key| render::id(key).is_some_and(|id| is_ours(&id)))
            .copied()
            .collect();
        let mut kernel = self.kernel();
        let mut outcomes = keys.iter().map(|key| kernel.remove(key)).collect::<Vec<_>>().into_iter();
        let first = outcomes.find(Result::is_err).unwrap_or(Ok(()));
        drop(kernel);
        if first.is_ok() {
            self.owned.forget();
        }
        first
    }

    /// Whether it has no connections that anybody waits for.
    pub fn is_idle(&self) -> bool {
        let all: BTreeSet<u32> =
            self.told.keys().flat_map(|id| self.servers_of(id)).map(|(_, number)| number).collect();
        match self.connection_counts().unfinished(&all) {
            Ok(counts) => counts.values().all(|count| *count == 0),
            Err(error) => {
                tracing::debug!("{error:#}");
                false
            }
        }
    }

    /// How many virtual servers it serves.
    pub fn served(&self) -> usize {
        self.told.len()
    }

    /// What one virtual server is.
    pub fn service(&self, id: &ServiceId) -> Option<&Service> {
        self.told.get(id)
    }

    /// The real servers of a virtual server with their numbers, in their order.
    pub fn servers_of(&self, id: &ServiceId) -> impl Iterator<Item = (Server, u32)> + '_ {
        let id = *id;
        let servers = self.told.get(&id).into_iter().flat_map(|service| &service.servers);
        servers.filter_map(move |server| Some((*server, self.numbers.of(&id, server)?)))
    }

    /// Connections of a real server, asked for anew unless that was done a moment ago.
    pub fn server_load(&self, number: u32) -> Load {
        let Some(id) = self.numbers.service(number) else { return Load::default() };
        let mut readings = self.readings();
        if !readings.is_fresh(id) {
            match self.kernel().destinations(&key(id)) {
                Ok(destinations) => readings.take(id, &destinations, &self.numbers),
                Err(error) => tracing::error!("{error:#}"),
            }
        }
        readings.load(number)
    }

    /// The same as it was when it was last asked for, with all others: for who tells of thousands.
    pub fn last_load(&self, number: u32) -> Load {
        self.readings().load(number)
    }

    /// The counters of all real servers, for a reader in another thread.
    pub fn stats_reader(&self) -> StatsReader {
        StatsReader {
            kernel: Arc::clone(&self.kernel),
            readings: Arc::clone(&self.readings),
            numbers: self.numbers.clone(),
            services: self.told.keys().copied().collect(),
        }
    }

    /// The connections, for a reader in another thread.
    pub fn connection_list(&self) -> ConnectionList {
        ConnectionList::new(&self.told)
    }

    /// The same for who counts.
    pub fn connection_counts(&self) -> ConnectionCounts {
        ConnectionCounts { numbers: self.numbers.clone(), tcp_fin: self.tcp_fin }
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readings(&self) -> MutexGuard<'_, Readings> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at all services again.
    fn look(&mut self) -> anyhow::Result<()> {
        let services = self.kernel().services()?;
        self.services = services.into_iter().map(|service| (service.key, service)).collect();
        Ok(())
    }

    /// What the kernel has of a service.
    fn there(&self, key: &Key) -> anyhow::Result<Option<(KernelService, Vec<Destination>)>> {
        let Some(service) = self.services.get(key) else { return Ok(None) };
        let destinations = self.kernel().destinations(key)?;
        Ok(Some((service.clone(), destinations.iter().map(|one| one.destination).collect())))
    }

    /// What the kernel should have, and the steps that are missing to it.
    fn missing(&self, id: &ServiceId, service: &Service) -> anyhow::Result<(Rendered, Vec<Command>)> {
        let there = self.there(&key(id))?;
        let there = there.as_ref().map(|(service, all)| (service, all.as_slice()));
        let is_there = |address: &SocketAddr| {
            there.is_some_and(|(_, all)| all.iter().any(|one| one.address == *address))
        };
        let wanted = render(id, service, is_there);
        let steps = diff::steps(there, &wanted);
        Ok((wanted, steps))
    }

    fn put(&mut self, id: &ServiceId, service: &Service) -> anyhow::Result<()> {
        let (mut wanted, steps) = self.missing(id, service)?;
        let mut taken = self.kernel().take(&steps);
        if taken.is_err() {
            // Somebody else has changed something since the last look.
            self.look()?;
            let steps;
            (wanted, steps) = self.missing(id, service)?;
            taken = self.kernel().take(&steps);
        }
        if let Err(error) = taken {
            // Some of it is there: that is ours too, and has to be removed one day.
            self.look()?;
            if let Some((there, destinations)) = self.there(&wanted.service.key)?
                && let Some((_, half)) = read(&there, &destinations)
            {
                self.numbers.set(*id, &half.servers);
                self.told.insert(*id, half);
            }
            return Err(error);
        }
        self.services.insert(wanted.service.key, wanted.service);
        self.numbers.set(*id, &service.servers);
        self.told.insert(*id, service.clone());
        Ok(())
    }

    fn remove(&mut self, id: &ServiceId) -> anyhow::Result<()> {
        let key = key(id);
        self.kernel().remove(&key)?;
        self.services.remove(&key);
        self.numbers.set(*id, &[]);
        self.told.remove(id);
        Ok(())
    }
}

impl DataPlane for IpvsPlane {
    fn observe(&self) -> State {
        self.told.clone()
    }

    fn damaged(&mut self, parts: usize) -> anyhow::Result<Audit> {
        let begin = if parts == 1 { None } else { self.audited };
        let most = self.told.len().div_ceil(parts);
        if begin.is_none() {
            self.look()?;
        }
        let from = begin.map_or(Unbounded, Excluded);
        let looked_at: Vec<ServiceId> =
            self.told.range((from, Unbounded)).take(most).map(|(id, _)| *id).collect();
        let mut damaged = BTreeSet::new();
        for id in &looked_at {
            if !self.missing(id, &self.told[id])?.1.is_empty() {
                damaged.insert(*id);
            }
        }
        self.audited = if looked_at.len() < most { None } else { looked_at.last().copied() };
        Ok(Audit { looked_at, damaged })
    }

    fn apply(&mut self, operation: &Operation) -> anyhow::Result<()> {
        match operation {
            Operation::Add(id, service) | Operation::Change(id, service) => self.put(id, service),
            Operation::Remove(id) => self.remove(id),
        }
    }
}

/// The file in which it stands which services are an instance's; in the directory of what outlives the agent.
pub fn owned_file(directory: &Path, instance: &str) -> PathBuf {
    directory.join(format!("{instance}.ipvs.json"))
}

/// Removes the services that an agent has left; says whether there were any.
///
/// # Errors
/// When the kernel cannot be asked, or refuses.
pub fn remove_owned(file: PathBuf) -> anyhow::Result<bool> {
    if !file.exists() {
        return Ok(false);
    }
    // A kernel without IPVS has nothing of it.
    if !Path::new("/proc/net/ip_vs").exists() {
        return Ok(false);
    }
    let plane = IpvsPlane::open_for(&BTreeSet::new(), file)?;
    let had_any = plane.is_adopted();
    plane.detach()?;
    Ok(had_any)
}

/// Why the kernel's IPVS cannot do what a configuration asks for; `None` when it can. With `dataplane = "ipvs"` such a file is
/// refused.
pub fn obstacle(config: &Config) -> Option<String> {
    config.virtual_servers.iter().find_map(|one| {
        let mut checks = one.real_servers.iter().flat_map(|server| &server.health_checks);
        let what = if one.port == 0 && one.persistence.is_none() {
            "serves port 0 with persistence only"
        } else if checks.any(|check| check.via == Via::Dataplane) {
            "has no way for checks through the data plane"
        } else {
            return None;
        };
        Some(format!("virtual server \"{}\": IPVS {what}", one.name))
    })
}

/// Whether clients of a scheduler's services find their server again without any state.
pub const fn is_stateless(scheduler: Scheduler) -> bool {
    matches!(scheduler, Scheduler::Sh | Scheduler::Mh)
}
