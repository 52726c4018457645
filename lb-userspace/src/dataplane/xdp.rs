//! The XDP data plane: the program of `lb-ebpf`, its maps and where it is attached. The only place that knows aya.

mod attach;
mod conntable;
mod layout;
mod load;
mod local;
mod mapped;
mod ranges;
mod tables;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use anyhow::{Context, anyhow};
use aya::{
    Ebpf,
    maps::{Map, MapError, PerCpuArray},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use aya_log::EbpfLogger;
use lb_common::{
    Event, Verdict,
    conn::{Clock, WAYS},
    map_name,
    server::{Load, ServerStats},
    settings::CLOCK,
    verdict::Counters,
};
use tokio::io::unix::AsyncFd;

pub use attach::{AttachError, Attachment};
pub use conntable::Listed;
pub use load::{LoadError, OBJECT, PROGRAM, Sizes};

use super::DataPlane;
use crate::{
    config::{Config, XdpMode},
    desired::{Server, ServiceId, State},
    netlink::{Link, Resolution},
    reconcile::Operation,
};
use conntable::ConnectionTable;
use mapped::Mapped;
use tables::Tables;

/// Libraries whose own debug messages say nothing about packets.
pub const CHATTY: [&str; 4] = ["aya_obj", "aya::", "netlink_proto", "rtnetlink"];

/// Nanoseconds after which a client that says nothing while its server goes on sending may have lost its router.
const CLIENT_SILENCE: u64 = 3_000_000_000;

/// The XDP data plane, loaded.
pub struct XdpPlane {
    /// Before the program: detaching needs its descriptor.
    attachments: Vec<Attachment>,
    ebpf: Ebpf,
    tables: Tables,
    connections: ConnectionTable,
    counters: PerCpuArray<aya::maps::MapData, Counters>,
    clock: Clock,
    /// The bucket at which the next sweep begins.
    next_bucket: u32,
}

/// The program's debug events; printed to the log by [`Trace::print`].
pub struct Trace(AsyncFd<EbpfLogger<&'static dyn log::Log>>);

impl XdpPlane {
    /// Loads the program for a configuration. Nothing is served and nothing attached yet.
    ///
    /// # Errors
    /// [`LoadError`] inside, or what a map is not.
    pub fn load(config: &Config, desired: &State, trace: bool) -> anyhow::Result<Self> {
        Self::load_object(OBJECT, config, desired, trace)
    }

    /// The same with another object that holds the program's maps: the benchmarks' one.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_object(object: &[u8], config: &Config, desired: &State, trace: bool) -> anyhow::Result<Self> {
        let max_connections = config.director.max_connections;
        let sizes = Sizes { max_connections, ..tables::check_sizes(desired)? };
        let clock = kernel_clock().context("cannot find out the kernel's tick")?;
        let settings =
            load::settings(clock, max_connections, &config.timeouts).context("no random numbers")?;
        let mut ebpf = load::load(object, sizes, &settings, trace)?;
        let connections = ConnectionTable::new(
            map(&ebpf, map_name::TAGS, settings.buckets)?,
            map(&ebpf, map_name::CONNECTIONS, settings.buckets * WAYS)?,
            map(&ebpf, map_name::LOADS, sizes.servers)?,
            settings,
        );
        let counters = take(&mut ebpf, map_name::COUNTERS)?;
        let tables = Tables::new(&mut ebpf, sizes)?;
        Ok(Self { ebpf, tables, connections, counters, clock, attachments: Vec::new(), next_bucket: 0 })
    }

    /// Attaches the program to every interface, or to none.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn attach(&mut self, names: &[String], mode: XdpMode) -> anyhow::Result<()> {
        let indices = attach::check(names).await?;
        let program = self.program()?;
        let attachments = names
            .iter()
            .zip(indices)
            .map(|(name, ifindex)| attach::attach(program, name, ifindex, mode))
            .collect::<Result<Vec<_>, _>>()?;
        self.attachments = attachments;
        if let Err(error) = local::attach(&mut self.ebpf) {
            tracing::warn!(
                "connections from this machine to its own virtual servers are not balanced: {error:#}"
            );
        }
        Ok(())
    }

    /// Checks that every interface is there and free.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn check_interfaces(names: &[String]) -> anyhow::Result<()> {
        attach::check(names).await?;
        Ok(())
    }

    /// Attaches again where an interface has been made anew under its old name, which detached the program.
    pub fn follow_interfaces(&mut self, links: &[Link], mode: XdpMode) {
        let Some(Ok(program)) = self.ebpf.program_mut(PROGRAM).map(<&mut Xdp>::try_from) else { return };
        for attachment in &mut self.attachments {
            if links.iter().any(|link| link.index == attachment.ifindex) {
                continue;
            }
            let name = &attachment.name;
            let Some(link) = links.iter().find(|link| link.name == *name) else {
                tracing::warn!(
                    "interface {name} is gone; the program will be attached again when it is back"
                );
                continue;
            };
            match attach::attach(program, name, link.index, mode) {
                Ok(again) => {
                    tracing::info!("interface {name} was made anew: attached again ({})", again.mode);
                    *attachment = again;
                }
                Err(error) => tracing::error!("{error}"),
            }
        }
    }

    /// Where the program is attached.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// The loaded program.
    ///
    /// # Errors
    /// When the object has none.
    pub fn program(&mut self) -> anyhow::Result<&mut Xdp> {
        let program = self.ebpf.program_mut(PROGRAM).with_context(|| format!("no program {PROGRAM}"))?;
        Ok(program.try_into()?)
    }

    /// All of the object, for tests and benchmarks that run its programs themselves.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// The program's debug events. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the program has no log, or the runtime cannot watch it.
    pub fn trace(&mut self) -> anyhow::Result<Trace> {
        let logger = EbpfLogger::init(&mut self.ebpf)?;
        // SAFETY: the logger owns the ring buffer's descriptor and is owned by the `AsyncFd`, so the descriptor stays
        // open and the same as long as that watches it.
        Ok(Trace(unsafe { AsyncFd::register(logger) }?))
    }

    /// Sets the MAC addresses whose frames are for this machine; until then all are.
    pub fn set_macs(&self, macs: &BTreeSet<[u8; 6]>) {
        self.tables.set_macs(macs);
    }

    /// Sets how frames reach an address.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_next_hop(
        &mut self,
        target: IpAddr,
        resolution: &Resolution,
        keeps_tags: bool,
    ) -> anyhow::Result<()> {
        self.tables.set_next_hop(target, resolution, keeps_tags)
    }

    /// The clock of the connection table.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The present time by that clock: the program is asked, since jiffies are seen inside the kernel only.
    fn now(&self) -> anyhow::Result<u32> {
        let program: &Xdp =
            self.ebpf.program(CLOCK).with_context(|| format!("no program {CLOCK}"))?.try_into()?;
        // The shortest frame that the kernel takes.
        let (frame, mut told) = ([0; 64], [0; 64]);
        program.test_run(TestRunOptions {
            data_in: Some(&frame),
            data_out: Some(&mut told),
            ..TestRunOptions::default()
        })?;
        Ok(u32::from_ne_bytes([told[0], told[1], told[2], told[3]]))
    }

    /// Ends connections whose time is over, in `part` of the table (1 = all of it); goes on where it stopped.
    ///
    /// # Errors
    /// When the kernel does not tell the time.
    pub fn sweep(&mut self, part: f64) -> anyhow::Result<usize> {
        let now = self.now()?;
        let buckets = self.connections.buckets();
        let count = ((f64::from(buckets) * part).ceil() as u32).clamp(1, buckets);
        let end = (self.next_bucket + count).min(buckets);
        let range = self.next_bucket..end;
        self.next_bucket = if end == buckets { 0 } else { end };
        let tables = &self.tables;
        let silence = self.clock.ticks(CLIENT_SILENCE);
        Ok(self.connections.sweep(range, now, silence, |number| tables.server(number)))
    }

    /// The real servers of a virtual server with their numbers, in the configuration's order.
    pub fn servers_of(&self, id: &ServiceId) -> impl Iterator<Item = (Server, u32)> + '_ {
        self.tables.servers_of(id)
    }

    /// The numbers of all real servers.
    pub fn server_numbers(&self) -> Vec<u32> {
        self.tables.numbers().collect()
    }

    /// Counters of a real server.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn server_stats(&self, number: u32) -> anyhow::Result<ServerStats> {
        self.tables.stats(number)
    }

    /// Active and inactive connections of a real server.
    pub fn server_load(&self, number: u32) -> Load {
        self.connections.loads().copy(number)
    }

    /// The connection table as it is, for a reader in another thread.
    ///
    /// # Errors
    /// When the kernel does not tell the time.
    pub fn connection_list(&self) -> anyhow::Result<ConnectionList> {
        let servers = self.tables.numbers().filter_map(|number| Some((number, self.tables.server(number)?)));
        let (clock, now) = (self.clock, self.now()?);
        Ok(ConnectionList { servers: servers.collect(), memory: self.connections.memory(), clock, now })
    }

    /// Packets by verdict and events by name, since the program was loaded.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn counters(&self) -> anyhow::Result<BTreeMap<&'static str, u64>> {
        let cpus = self.counters.get(&0, 0)?;
        let sum = |slot: u32| cpus.iter().map(|cpu| cpu.0[slot as usize]).sum();
        let verdicts = Verdict::ALL.iter().map(|&verdict| (verdict.name(), sum(verdict as u32)));
        let events = Event::ALL.iter().map(|&event| (event.name(), sum(event as u32)));
        Ok(verdicts.chain(events).collect())
    }
}

/// The connection table and the servers that its connections name.
pub struct ConnectionList {
    memory: Arc<conntable::Memory>,
    servers: BTreeMap<u32, lb_common::server::Server>,
    clock: Clock,
    now: u32,
}

impl ConnectionList {
    /// Calls `each` for every connection, with its server and the seconds until it is forgotten; stops when that says
    /// false.
    pub fn each(&self, mut each: impl FnMut(Listed, &lb_common::server::Server, u32) -> bool) {
        self.memory.list(self.now, |listed| match self.servers.get(&listed.server) {
            Some(server) => each(listed, server, self.clock.seconds(listed.expires)),
            None => true,
        });
    }
}

impl DataPlane for XdpPlane {
    fn observe(&self) -> State {
        self.tables.state()
    }

    fn apply(&mut self, operation: &Operation) -> anyhow::Result<()> {
        let loads = self.connections.loads();
        match operation {
            Operation::Add(id, service) | Operation::Change(id, service) => {
                self.tables.put(id, service, loads)
            }
            Operation::Remove(id) => self.tables.remove(id),
        }
    }
}

impl Trace {
    /// Waits for events and prints them. Returns only with an error.
    pub async fn print(&mut self) -> std::io::Error {
        loop {
            match self.0.readable_mut().await {
                Ok(mut ready) => {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
                Err(error) => return error,
            }
        }
    }
}

/// The kernel's tick: its coarse clocks go by it.
fn kernel_clock() -> nix::Result<Clock> {
    let tick = nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)?;
    Ok(Clock::new(u64::try_from(nix::sys::time::TimeValLike::num_nanoseconds(&tick)).unwrap_or(0)))
}

/// A map of the object by name and type.
fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<M> {
    let map = ebpf.take_map(name).ok_or_else(|| anyhow!("the program has no map {name}"))?;
    M::try_from(map).with_context(|| format!("map {name}"))
}

/// The descriptor of an array map.
fn map_fd<'a>(ebpf: &'a Ebpf, name: &str) -> anyhow::Result<std::os::fd::BorrowedFd<'a>> {
    use std::os::fd::AsFd;
    match ebpf.map(name) {
        Some(Map::Array(data)) => Ok(data.fd().as_fd()),
        _ => Err(anyhow!("the program has no array map {name}")),
    }
}

/// An array map in memory.
fn map<T: aya::Pod>(ebpf: &Ebpf, name: &str, len: u32) -> anyhow::Result<Mapped<T>> {
    Mapped::new(map_fd(ebpf, name)?, len).with_context(|| format!("cannot map {name} into memory"))
}
