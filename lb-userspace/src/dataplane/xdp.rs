//! The XDP data plane: the program of `lb-ebpf`, its maps and where it is attached. The only place that knows aya.

mod attach;
mod conntable;
mod keeper;
mod layout;
mod left;
mod load;
mod local;
mod mapped;
pub mod pins;
mod probe;
mod ranges;
mod stats;
mod syscall;
mod tables;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use anyhow::{Context, anyhow, bail};
use aya::{
    Ebpf,
    maps::{Array, Map, MapData, PerCpuArray},
    programs::Xdp,
};
use aya_log::EbpfLogger;
use lb_common::{
    ABI_VERSION, Event, Verdict,
    conn::{Clock, State as ConnState, WAYS, buckets_for},
    filter::MAP_WORDS,
    map_name,
    server::{Load, ServerStats},
    settings::{CLOCK, Identity, Settings},
    verdict::Counters,
};
use tokio::io::unix::AsyncFd;

pub use attach::{AttachError, Attachment, Interface};
pub use conntable::Listed;
pub use load::{LoadError, OBJECT, PROGRAM, Sizes};
pub use pins::{Pins, remove_pinned};
pub use probe::{CheckPath, Namespace, Veth};
pub use stats::StatsReader;

use super::{Audit, DataPlane};
use crate::{
    config::{Config, Forward, XdpMode},
    desired::{Server, ServerId, Service, ServiceId, State},
    netlink::{Link, Resolution},
    reconcile::Operation,
};
use conntable::{ConnectionTable, Import, Imported};
use keeper::{Keeper, Sweeper};
use left::Left;
use mapped::Mapped;
use tables::{Maps, Outgrown, Tables};

/// Libraries whose own debug messages say nothing about packets.
pub const CHATTY: [&str; 4] = ["aya_obj", "aya::", "netlink_proto", "rtnetlink"];

/// Nanoseconds after which a client that says nothing while its server goes on sending may have lost its router.
const CLIENT_SILENCE: u64 = 3_000_000_000;

/// How long packets that were in the old program when it was replaced may take to be counted; it is done in microseconds.
const LAST_PACKETS: std::time::Duration = std::time::Duration::from_millis(20);

/// The XDP data plane, loaded.
pub struct XdpPlane {
    /// Ends before the maps go.
    keeper: Option<Keeper>,
    /// Before the program: detaching needs its descriptor.
    attachments: Vec<Attachment>,
    /// The veth of the probe namespace.
    check_attachment: Option<Attachment>,
    ebpf: Ebpf,
    tables: Tables,
    sweeper: Arc<Mutex<Sweeper>>,
    memory: Arc<conntable::Memory>,
    /// The connections of a table of another size, until the program is attached.
    import: Option<Import>,
    passes: Arc<AtomicU64>,
    counters: PerCpuArray<MapData, Counters>,
    clock: Clock,
    sizes: Sizes,
    settings: Settings,
    pins: Option<Pins>,
    adopted: bool,
    /// Smaller maps, in which packets are counted until the program is attached.
    outgrown: Option<Outgrown>,
}

/// The program's debug events; printed to the log by [`Trace::print`].
pub struct Trace(AsyncFd<EbpfLogger<&'static dyn log::Log>>);

impl XdpPlane {
    /// Loads the program for a configuration. Nothing is served, attached or pinned yet.
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
        Self::build(object, config, desired, trace, None)
    }

    /// Loads the program over what an earlier agent, or an earlier load of this one, has pinned; pins what is new. What is
    /// served stays as it was, and packets take the old program until [`Self::attach`].
    ///
    /// # Errors
    /// As [`Self::load`]; then what was there stays in force.
    pub fn open(config: &Config, desired: &State, trace: bool, pins: Pins) -> anyhow::Result<Self> {
        let directory = pins.directory().to_owned();
        let built = Self::build(OBJECT, config, desired, trace, Some(pins));
        if built.is_err()
            && let Ok(pins) = Pins::open(&directory)
        {
            // Opening removed what had been begun, and began another one.
            pins.abandon();
        }
        built
    }

    fn build(
        object: &[u8],
        config: &Config,
        desired: &State,
        trace: bool,
        pins: Option<Pins>,
    ) -> anyhow::Result<Self> {
        let max_connections = config.director.max_connections;
        let clock = kernel_clock().context("cannot find out the kernel's tick")?;
        let left = pins.as_ref().map(|pins| what_is_left(pins, clock)).transpose()?.flatten();
        let wanted = Sizes { max_connections, ..tables::sizes_for(desired)? };
        // With another connection table the counts of connections begin anew too: the program that is still in force goes on with
        // the old ones.
        let connections_fit = left.is_some_and(|left| left.identity.buckets == buckets_for(max_connections));
        let tables_fit = left.is_some_and(|left| left.sizes.holds(&wanted));
        let sizes = match left {
            Some(left) if tables_fit => Sizes { max_connections, ..left.sizes },
            Some(left) => wanted.at_least(&left.sizes),
            None => wanted,
        };
        let hash_keys = match left {
            Some(left) => left.identity.hash_keys,
            None => load::new_hash_keys().context("no random numbers")?,
        };
        let settings = load::settings(clock, max_connections, &config.timeouts, hash_keys);
        if let (Some(pins), Some(_)) = (&pins, left) {
            let fits = |name: &&str| match *name {
                map_name::LOADS => tables_fit && connections_fit,
                name if left::TABLES.contains(&name) => tables_fit,
                name if left::CONNECTIONS.contains(&name) => connections_fit,
                // Says what this generation is.
                map_name::IDENTITY => false,
                _ => true,
            };
            left::keep(pins, &map_name::ALL.into_iter().filter(|name| fits(name)).collect::<Vec<_>>())?;
        }
        let mut ebpf = load::load(object, sizes, &settings, trace, pins.as_ref())?;
        if let (Some(pins), Some(left)) = (&pins, left)
            && tables_fit
            && !connections_fit
        {
            // Thresholds and weights stand there too.
            let old = mapped(&left::open(pins, map_name::LOADS)?, left.sizes.servers)?;
            map::<Load>(&ebpf, map_name::LOADS, sizes.servers)?.copy_from(&old);
        }
        let mut tables = open_tables(sizes, |name| take_map(&mut ebpf, name))?;
        let mut outgrown = None;
        if let (Some(pins), Some(left)) = (&pins, left)
            && !tables_fit
        {
            tracing::info!("the maps of virtual and real servers are made larger");
            let old = open_tables(left.sizes, |name| left::open(pins, name))?;
            outgrown = Some(tables.import(old).context("cannot take over what was served")?);
        }
        if left.is_none() {
            tables.accept_every_mac();
        }
        let memory = Arc::new(conntable::Memory::new(
            map(&ebpf, map_name::TAGS, settings.buckets)?,
            map(&ebpf, map_name::CONNECTIONS, settings.buckets * WAYS)?,
            Arc::clone(tables.loads()),
            settings,
        ));
        let import = match (&pins, left) {
            (Some(pins), Some(left)) if !connections_fit => {
                tables.clear_loads();
                outgrown = None;
                let buckets = left.identity.buckets;
                let tags = mapped(&left::open(pins, map_name::TAGS)?, buckets).context("map TAGS")?;
                let places = mapped(&left::open(pins, map_name::CONNECTIONS)?, buckets * WAYS)
                    .context("map CONNECTIONS")?;
                Some(Import::new(tags, places, Arc::clone(&memory)))
            }
            _ => None,
        };
        let counters = PerCpuArray::try_from(take_map(&mut ebpf, map_name::COUNTERS)?)?;
        let generation = left.map_or(1, |left| left.identity.generation.wrapping_add(1));
        let mut identity: Array<_, Identity> = Array::try_from(take_map(&mut ebpf, map_name::IDENTITY)?)?;
        identity.set(0, identity_of(&settings, generation), 0)?;
        let clock_program: &Xdp =
            ebpf.program(CLOCK).with_context(|| format!("no program {CLOCK}"))?.try_into()?;
        let clock_fd = clock_program.fd()?.as_fd().try_clone_to_owned()?;
        let table = ConnectionTable::new(Arc::clone(&memory));
        let sweeper = Sweeper::new(table, tables.shared_servers(), clock_fd, clock.ticks(CLIENT_SILENCE));
        let passes = sweeper.passes();
        Ok(Self {
            keeper: None,
            attachments: Vec::new(),
            check_attachment: None,
            ebpf,
            tables,
            sweeper: Arc::new(Mutex::new(sweeper)),
            memory,
            import,
            passes,
            counters,
            clock,
            sizes,
            settings,
            pins,
            adopted: left.is_some(),
            outgrown,
        })
    }

    /// Attaches the program to every interface, or to none; in place of an earlier agent's where that is pinned. Connections move
    /// when the connection table is a new one. From then on expired connections are ended too.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn attach(&mut self, names: &[String], mode: XdpMode) -> anyhow::Result<()> {
        let interfaces = attach::check(names, self.pins.as_ref()).await?;
        let sweeper = Arc::clone(&self.sweeper);
        let now = || sweeper.lock().unwrap_or_else(PoisonError::into_inner).now();
        let mut import = self.import.take();
        if let Some(import) = &mut import {
            import.copy(now()?);
        }
        let program = program_of(&mut self.ebpf)?;
        if let Some(pins) = &self.pins {
            // From here on the next agent finds this generation, whether or not this one gets to the end.
            program.pin(pins.program()).context("cannot pin the program")?;
        }
        match attach::attach_all(program, &interfaces, mode, self.pins.as_ref()) {
            Ok(attachments) => self.attachments = attachments,
            Err(error) => {
                self.pins.iter().for_each(Pins::abandon);
                return Err(error.into());
            }
        }
        if let Some(import) = import {
            say_imported(import.finish(now()?));
        }
        if let Some(pins) = &mut self.pins {
            attach::release_others(names, pins);
            if let Err(error) = pins.commit() {
                tracing::warn!("cannot remove what earlier agents have pinned: {error}");
            }
        }
        if let Err(error) = local::attach(&mut self.ebpf, self.pins.as_ref()) {
            tracing::warn!(
                "connections from this machine to its own virtual servers are not balanced: {error:#}"
            );
        }
        if let Some(outgrown) = self.outgrown.take() {
            tokio::time::sleep(LAST_PACKETS).await;
            // The program is in force: that counts may be wrong is no reason to say that it is not.
            if let Err(error) = self.tables.settle(&outgrown) {
                tracing::warn!("what was counted while the program was replaced is lost: {error:#}");
            }
        }
        self.resume()
    }

    /// Checks that every interface is there and free, or has our own program.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn check_interfaces(names: &[String], pins: Option<&Pins>) -> anyhow::Result<()> {
        attach::check(names, pins).await?;
        Ok(())
    }

    /// Whether the maps hold a state, so that it can be applied step by step; else the program must be opened again.
    ///
    /// # Errors
    /// When no maps can.
    pub fn holds(&self, desired: &State) -> anyhow::Result<bool> {
        Ok(self.sizes.holds(&tables::sizes_for(desired)?))
    }

    /// Whether the program was loaded with the settings that a configuration asks for; else it must be opened again.
    pub fn has_settings_of(&self, config: &Config) -> bool {
        let keys = self.settings.hash_keys;
        let wanted = load::settings(self.clock, config.director.max_connections, &config.timeouts, keys);
        wanted == self.settings
    }

    /// Where the data plane is pinned; `None` when it ends with this process.
    pub fn pins(&self) -> Option<&Path> {
        self.pins.as_ref().map(Pins::directory)
    }

    /// Whether an earlier agent's connections were taken over.
    pub fn is_adopted(&self) -> bool {
        self.adopted
    }

    /// Ends the data plane, also what is pinned: packets are no longer forwarded.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn detach(self) -> anyhow::Result<()> {
        if let Some(pins) = &self.pins {
            remove_pinned(pins.directory()).context("cannot remove the pins")?;
        }
        Ok(())
    }

    /// Ends the threads that look through the maps, before another load of the same maps takes over.
    pub fn retire(&mut self) {
        self.keeper = None;
    }

    /// Begins them; also again, when that other load has failed.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.keeper = Some(Keeper::start(Arc::clone(&self.sweeper)).context("no thread for the sweep")?);
        Ok(())
    }

    /// Attaches again where somebody has detached the program, or an interface has been made anew under its old name.
    pub fn follow_interfaces(&mut self, links: &[Link], mode: XdpMode) {
        let Ok(program) = program_of(&mut self.ebpf) else { return };
        let Ok(id) = program.info().map(|info| info.id()) else { return };
        for attachment in &mut self.attachments {
            let name = attachment.name.clone();
            let link = links.iter().find(|link| link.name == name);
            let was_there = links.iter().any(|link| link.index == attachment.ifindex);
            if was_there && attachment.is_there(id) {
                continue;
            }
            let Some(link) = link else {
                if attachment.ifindex != 0 {
                    tracing::warn!(
                        "interface {name} is gone; the program will be attached again when it is back"
                    );
                    attachment.ifindex = 0;
                }
                continue;
            };
            match attach::attach(program, &name, link.index, mode, self.pins.as_ref()) {
                Ok(again) => {
                    tracing::warn!("interface {name} had lost the program: attached again ({})", again.mode);
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
        program_of(&mut self.ebpf)
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
    pub fn set_next_hop(&mut self, target: IpAddr, resolution: &Resolution, keeps_tags: bool) {
        self.tables.set_next_hop(target, resolution, keeps_tags);
    }

    /// The clock of the connection table.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Ends connections whose time is over, in one of `parts` parts of the table; goes on where it stopped. For who has not
    /// attached the program.
    ///
    /// # Errors
    /// When the kernel does not tell the time.
    pub fn sweep(&self, parts: u32) -> anyhow::Result<usize> {
        self.sweeper().sweep(parts)
    }

    /// Frees what servers have left that went and have no connections any more.
    pub fn collect(&mut self) {
        self.tables.collect(self.passes.load(SeqCst));
    }

    fn sweeper(&self) -> MutexGuard<'_, Sweeper> {
        self.sweeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What one virtual server is.
    pub fn service(&self, id: &ServiceId) -> Option<&Service> {
        self.tables.service(id)
    }

    /// The real servers of a virtual server with their numbers, in their order.
    pub fn servers_of(&self, id: &ServiceId) -> impl Iterator<Item = (Server, u32)> + '_ {
        self.tables.servers_of(id)
    }

    /// The number of a server that was taken out and may still have connections.
    pub fn gone_number(&self, id: &ServerId, forward: Forward) -> Option<u32> {
        self.tables.gone_number(id, forward)
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
        Ok(stats::sum(self.tables.stats().get(&number, 0)?.iter()))
    }

    /// The counters of all real servers, for a reader in another thread.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn stats_reader(&self) -> anyhow::Result<StatsReader> {
        self.tables.stats_reader()
    }

    /// Active and inactive connections of a real server.
    pub fn server_load(&self, number: u32) -> Load {
        self.tables.loads().copy(number)
    }

    /// The connection table as it is, for a reader in another thread.
    ///
    /// # Errors
    /// When the kernel does not tell the time.
    pub fn connection_list(&self) -> anyhow::Result<ConnectionList> {
        let servers = self.tables.numbers().filter_map(|number| Some((number, self.tables.server(number)?)));
        let now = self.sweeper().now()?;
        Ok(ConnectionList {
            servers: servers.collect(),
            memory: Arc::clone(&self.memory),
            clock: self.clock,
            now,
        })
    }

    /// The connection table as it is, for who counts in another thread.
    ///
    /// # Errors
    /// When the kernel does not tell the time.
    pub fn connection_counts(&self) -> anyhow::Result<ConnectionCounts> {
        let now = self.sweeper().now()?;
        Ok(ConnectionCounts { memory: Arc::clone(&self.memory), clock: self.clock, now })
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

/// The connection table, for who only counts.
pub struct ConnectionCounts {
    memory: Arc<conntable::Memory>,
    clock: Clock,
    now: u32,
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

/// A closing connection on which nothing has moved for so long is over, whatever the other side may not have said.
const CLOSED_AFTER: u32 = 5;

impl ConnectionCounts {
    /// How many connections of each of these servers are not over yet. One that was closed stays in the table for a while, for
    /// packets that come late; it is not counted.
    pub fn unfinished(&self, numbers: &BTreeSet<u32>) -> BTreeMap<u32, u64> {
        let mut counts: BTreeMap<u32, u64> = numbers.iter().map(|number| (*number, 0)).collect();
        self.memory.list(self.now, |listed| {
            let is_over = match listed.state {
                ConnState::TimeWait | ConnState::Close | ConnState::LastAck => true,
                ConnState::FinWait | ConnState::CloseWait => {
                    self.clock.seconds(listed.silent) >= CLOSED_AFTER
                }
                _ => false,
            };
            if let (false, Some(count)) = (is_over, counts.get_mut(&listed.server)) {
                *count += 1;
            }
            true
        });
        counts
    }
}

impl DataPlane for XdpPlane {
    fn observe(&self) -> State {
        self.tables.state()
    }

    fn damaged(&mut self, parts: usize) -> anyhow::Result<Audit> {
        self.tables.audit(parts)
    }

    fn apply(&mut self, operation: &Operation) -> anyhow::Result<()> {
        match operation {
            Operation::Add(id, service) | Operation::Change(id, service) => self.tables.put(id, service),
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

/// What became of connections when their table was made anew.
fn say_imported(Imported { taken, dropped }: Imported) {
    tracing::info!("the connection table is made anew: {taken} connections have moved there");
    if dropped > 0 {
        tracing::warn!(
            "{dropped} connections are lost, since there is no room for them in the new connection table: raise \
             director.max_connections"
        );
    }
}

/// The kernel's tick: its coarse clocks go by it.
fn kernel_clock() -> nix::Result<Clock> {
    let tick = nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)?;
    Ok(Clock::new(u64::try_from(nix::sys::time::TimeValLike::num_nanoseconds(&tick)).unwrap_or(0)))
}

/// What an earlier agent has left that this one can go on with.
fn what_is_left(pins: &Pins, clock: Clock) -> anyhow::Result<Option<Left>> {
    let left = match Left::look(pins, clock) {
        Ok(left) => left,
        Err(error) => {
            tracing::warn!(
                "the data plane that an earlier agent has left is replaced, its connections are lost: {error:#}"
            );
            return Ok(None);
        }
    };
    if left.is_none() && !pins.foreign_links().is_empty() {
        tracing::warn!(
            "another version of xdirector has left its data plane, whose maps this one cannot read: it is replaced, \
             its connections are lost"
        );
    }
    let elsewhere = left.is_some_and(|left| left.identity.netns_cookie != local::netns_cookie());
    if elsewhere && attach::any_alive(pins) {
        bail!(
            "{} belongs to a director in another network namespace; give this one another director.instance, or another \
             directory with --pins",
            pins.directory().display()
        );
    }
    Ok(left.filter(|_| !elsewhere))
}

fn identity_of(settings: &Settings, generation: u32) -> Identity {
    Identity {
        abi: ABI_VERSION,
        buckets: settings.buckets,
        clock_shift: settings.clock_shift,
        generation,
        hash_keys: settings.hash_keys,
        netns_cookie: settings.netns_cookie,
    }
}

fn program_of(ebpf: &mut Ebpf) -> anyhow::Result<&mut Xdp> {
    let program = ebpf.program_mut(PROGRAM).with_context(|| format!("no program {PROGRAM}"))?;
    Ok(program.try_into()?)
}

/// The tables over the maps that `take` gives by name.
fn open_tables(sizes: Sizes, mut take: impl FnMut(&str) -> anyhow::Result<Map>) -> anyhow::Result<Tables> {
    let services = take(map_name::SERVICES)?;
    let services_fd = map_fd(&services)?.try_clone_to_owned()?;
    let stats = take(map_name::SERVER_STATS)?;
    let stats_fd = map_fd(&stats)?.try_clone_to_owned()?;
    let maps = Maps {
        services: services.try_into()?,
        nat_servers: take(map_name::NAT_SERVERS)?.try_into()?,
        stats: stats.try_into()?,
        cursors: mapped(&take(map_name::CURSORS)?, sizes.services).context("map CURSORS")?,
        slots: mapped(&take(map_name::SLOTS)?, sizes.slots).context("map SLOTS")?,
        servers: Arc::new(mapped(&take(map_name::SERVERS)?, sizes.servers).context("map SERVERS")?),
        loads: Arc::new(mapped(&take(map_name::LOADS)?, sizes.servers).context("map LOADS")?),
        filter: mapped(&take(map_name::FILTER)?, MAP_WORDS).context("map FILTER")?,
        services_fd,
        stats_fd,
    };
    Tables::open(maps, sizes)
}

/// A map of the object.
fn take_map(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<Map> {
    ebpf.take_map(name).ok_or_else(|| anyhow!("the program has no map {name}"))
}

/// The descriptor of a map.
fn map_fd(map: &Map) -> anyhow::Result<BorrowedFd<'_>> {
    match map {
        Map::Array(data) | Map::HashMap(data) | Map::PerCpuArray(data) => Ok(data.fd().as_fd()),
        other => Err(anyhow!("{other:?} is not a map of ours")),
    }
}

/// An array map in memory.
fn mapped<T: aya::Pod>(map: &Map, len: u32) -> anyhow::Result<Mapped<T>> {
    Mapped::new(map_fd(map)?, len).context("cannot map it into memory")
}

/// An array map of the object in memory.
fn map<T: aya::Pod>(ebpf: &Ebpf, name: &str, len: u32) -> anyhow::Result<Mapped<T>> {
    let map = ebpf.map(name).ok_or_else(|| anyhow!("the program has no map {name}"))?;
    mapped(map, len).with_context(|| format!("map {name}"))
}
