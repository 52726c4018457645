//! What the kernel counts: read in any thread, since with many services that takes a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use lb_common::server::{Load, ServerStats};

use super::{
    connections::{self, Entry},
    kernel::Kernel,
    numbers::Numbers,
    render::key,
    words::KernelDestination,
};
use crate::{
    config::{Forward, Protocol},
    dataplane::Listed,
    desired::{ServiceId, State},
};

/// For how long a reading is good for who decides by it.
const FRESH: Duration = Duration::from_millis(100);

/// What was counted for each real server at the last look.
#[derive(Debug, Default)]
pub struct Readings {
    by_number: BTreeMap<u32, (Load, ServerStats)>,
    at: BTreeMap<ServiceId, Instant>,
}

impl Readings {
    /// Whether a service's servers were read a moment ago.
    pub fn is_fresh(&self, id: &ServiceId) -> bool {
        self.at.get(id).is_some_and(|at| at.elapsed() < FRESH)
    }

    /// Takes what the kernel says of a service.
    pub fn take(&mut self, id: &ServiceId, destinations: &[KernelDestination], numbers: &Numbers) {
        // One that is not there any more has none.
        for number in numbers.all_of(id) {
            self.by_number.remove(&number);
        }
        for KernelDestination { destination, counts } in destinations {
            let Some(number) = numbers.at(id, destination.address.ip(), destination.address.port()) else {
                continue;
            };
            let load = Load {
                active: counts.active,
                inactive: counts.inactive,
                weight: destination.weight,
                upper: destination.upper,
                lower: destination.lower,
                ..Load::default()
            };
            self.by_number.insert(number, (load, counts.stats));
        }
        self.at.insert(*id, Instant::now());
    }

    /// Connections of a server; none for one that has not been read.
    pub fn load(&self, number: u32) -> Load {
        self.by_number.get(&number).map_or_else(Load::default, |(load, _)| *load)
    }
}

/// Reads all counters.
pub struct StatsReader {
    pub(super) kernel: Arc<Mutex<Kernel>>,
    pub(super) readings: Arc<Mutex<Readings>>,
    pub(super) numbers: Numbers,
    pub(super) services: Vec<ServiceId>,
}

impl StatsReader {
    /// The counters of each server.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn read(self) -> anyhow::Result<BTreeMap<u32, ServerStats>> {
        for id in &self.services {
            // One at a time: a check's result must not wait for all.
            let destinations = {
                let mut kernel = self.kernel.lock().unwrap_or_else(PoisonError::into_inner);
                kernel.destinations(&key(id))?
            };
            let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
            readings.take(id, &destinations, &self.numbers);
        }
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        let there: BTreeSet<ServiceId> = self.services.iter().copied().collect();
        readings.at.retain(|id, _| there.contains(id));
        let numbers = &self.numbers;
        readings.by_number.retain(|number, _| numbers.service(*number).is_some());
        Ok(readings.by_number.iter().map(|(number, (_, stats))| (*number, *stats)).collect())
    }
}

/// Where a connection's server stands: the kernel does not list how it is forwarded.
type Methods = BTreeMap<(Protocol, IpAddr, u16), Forward>;

/// The connections of our virtual servers.
pub struct ConnectionList {
    services: BTreeSet<ServiceId>,
    methods: Methods,
}

impl ConnectionList {
    pub(super) fn new(told: &State) -> Self {
        let methods = told.iter().flat_map(|(id, service)| {
            let method = |server: &crate::desired::Server| {
                ((id.protocol, server.address, server.port), server.forward)
            };
            service.servers.iter().map(method)
        });
        Self { services: told.keys().copied().collect(), methods: methods.collect() }
    }

    /// Calls `each` for every connection; stops when that says false.
    ///
    /// # Errors
    /// When the kernel's list cannot be read.
    pub fn each(&self, mut each: impl FnMut(Listed) -> bool) -> anyhow::Result<()> {
        connections::each(|entry| match service_of(&entry, |id| self.services.contains(id)) {
            Some(_) => each(self.listed(entry)),
            None => true,
        })
    }

    fn listed(&self, entry: Entry) -> Listed {
        let (address, port) = (entry.real.ip(), entry.real.port());
        let method = |port| self.methods.get(&(entry.protocol, address, port)).copied();
        Listed {
            protocol: entry.protocol,
            expires: entry.expires,
            client: entry.client,
            virtual_address: entry.virtual_address,
            real: entry.real,
            forward: method(port).or_else(|| method(0)).unwrap_or(Forward::Nat),
            state: entry.state.into(),
        }
    }
}

/// The virtual server of a connection: by address and port, else by port 0.
fn service_of(entry: &Entry, is_there: impl Fn(&ServiceId) -> bool) -> Option<ServiceId> {
    let at = |port| ServiceId { address: entry.virtual_address.ip(), port, protocol: entry.protocol };
    [at(entry.virtual_address.port()), at(0)].into_iter().find(|id| is_there(id))
}

/// The connections, for who only counts.
pub struct ConnectionCounts {
    pub(super) numbers: Numbers,
    /// Seconds for which a connection in FIN_WAIT is remembered.
    pub(super) tcp_fin: u32,
}

/// Seconds for which one in CLOSE_WAIT is remembered (`tcp_timeouts` in net/netfilter/ipvs/ip_vs_proto_tcp.c).
const CLOSE_WAIT: u32 = 60;
/// A closing connection on which nothing has moved for so many seconds is over, whatever the other side may not have said.
const CLOSED_AFTER: u32 = 5;

impl ConnectionCounts {
    /// How many connections of each of these servers are not over yet. One that was closed stays in the table for a while, for
    /// packets that come late; it is not counted.
    ///
    /// # Errors
    /// When the kernel's list cannot be read.
    pub fn unfinished(&self, numbers: &BTreeSet<u32>) -> anyhow::Result<BTreeMap<u32, u64>> {
        let mut counts: BTreeMap<u32, u64> = numbers.iter().map(|number| (*number, 0)).collect();
        connections::each(|entry| {
            let is_silent = |timeout: u32| entry.expires.saturating_add(CLOSED_AFTER) <= timeout;
            let is_over = match entry.state.as_str() {
                "TIME_WAIT" | "CLOSE" | "LAST_ACK" => true,
                "FIN_WAIT" => is_silent(self.tcp_fin),
                "CLOSE_WAIT" => is_silent(CLOSE_WAIT),
                _ => false,
            };
            if !is_over && !entry.is_template() {
                let number = |id: &ServiceId| {
                    let (address, port) = (entry.real.ip(), entry.real.port());
                    self.numbers.at(id, address, port).or_else(|| self.numbers.at(id, address, 0))
                };
                let id = service_of(&entry, |id| number(id).is_some());
                if let Some(count) = id.and_then(|id| number(&id)).and_then(|number| counts.get_mut(&number))
                {
                    *count += 1;
                }
            }
            true
        })?;
        Ok(counts)
    }
}
