//! The XDP data plane: the program of `lb-ebpf`, its maps and where it is attached. The only place that knows aya.

mod attach;
mod build;
mod connections;
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
mod roles;
mod stats;
mod syscall;
mod tables;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use anyhow::Context;
use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
    programs::Xdp,
};
use aya_log::EbpfLogger;
use lb_common::{
    Event, Verdict,
    conn::Clock,
    server::{Load, ServerStats},
    settings::Settings,
    verdict::Counters,
};
use tokio::io::unix::AsyncFd;

pub use attach::{AttachError, Attachment, Interface};
pub use connections::{ConnectionCounts, ConnectionList};
pub use load::{LoadError, OBJECT, PROGRAM, Sizes};
pub use pins::{Pins, remove_pinned};
pub use probe::{CheckPath, Namespace, Veth};
pub use roles::Roles;
pub use stats::StatsReader;

use super::{Audit, DataPlane};
use crate::{
    config::{Config, Forward, Scheduler, Tunnel, XdpMode},
    desired::{Server, ServerId, Service, ServiceId, State},
    netlink::{Link, Resolution},
    reconcile::Operation,
    vrrp::driver,
};
use conntable::{Import, Imported};
use keeper::{Keeper, Sweeper};
use tables::{Outgrown, Tables};

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
    roles: Arc<Roles>,
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

    /// Whether the maps hold a state in which `checked` real servers are checked through the data plane, so that it can be applied
    /// step by step; else the program must be opened again.
    ///
    /// # Errors
    /// When no maps can.
    pub fn holds(&self, desired: &State, checked: usize) -> anyhow::Result<bool> {
        Ok(self.sizes.holds(&tables::sizes_for(desired, checked)?))
    }

    /// Whether the maps also hold other settings of virtual servers that are there, with as many servers, `checked` of all of
    /// which are checked through the data plane.
    pub fn has_room_for(&self, changed: impl Iterator<Item = Service>, checked: usize) -> bool {
        let needed = changed.map(|service| layout::slots_needed(&service)).sum::<u64>();
        let slots = u32::try_from((self.tables.slots_in_use() + needed) * 2).unwrap_or(u32::MAX);
        let servers = u32::try_from((self.tables.servers_in_use() + checked) * 2).unwrap_or(u32::MAX);
        self.sizes.holds(&Sizes { max_connections: 0, services: 0, servers, slots })
    }

    /// Whether the program was loaded with the settings that a configuration asks for; else it must be opened again.
    pub fn has_settings_of(&self, config: &Config) -> bool {
        let keys = self.settings.hash_keys;
        let wanted = load::settings(self.clock, config.director.max_connections, &config.timeouts, keys);
        wanted == self.settings
    }

    /// Which roles this machine has: what VRRP sets and the program goes by. With pins it is the same map after another load, also
    /// by another agent; without them every load begins without any role.
    pub fn roles(&self) -> Arc<dyn driver::Roles> {
        Arc::<Roles>::clone(&self.roles)
    }

    /// Whether virtual servers with this role are served; always true of role 0, which needs none.
    pub fn is_role_on(&self, role: u16) -> bool {
        self.roles.is_on(role)
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

    /// Passes new flows to the kernel from now on, as on standby; the flows that are known go on. For who puts another data plane
    /// in its place.
    ///
    /// # Errors
    /// When the kernel refuses; then they serve as before.
    pub fn pass_new_flows(&mut self) -> anyhow::Result<()> {
        self.tables.pass_new_flows()
    }

    /// Whether it has no connections that anybody waits for.
    pub fn is_idle(&self) -> bool {
        let all = self.tables.numbers().collect();
        match self.connection_counts() {
            Ok(counts) => counts.unfinished(&all).values().all(|count| *count == 0),
            Err(_) => false,
        }
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

    /// How many virtual servers there are.
    pub fn served(&self) -> usize {
        self.tables.served()
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

impl DataPlane for XdpPlane {
    fn observe(&self) -> State {
        self.tables.state()
    }

    fn damaged(&mut self, parts: usize) -> anyhow::Result<Audit> {
        self.tables.audit(parts)
    }

    fn apply(&mut self, operation: &Operation) -> anyhow::Result<()> {
        match operation {
            Operation::Add(_, service) | Operation::Change(_, service) if !can_serve(service) => {
                anyhow::bail!("XDP has no {}", what_is_missing(service).unwrap_or_default())
            }
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

/// Why XDP cannot do what a configuration asks for; `None` when it can. With `dataplane = "xdp"` such a file is refused.
pub fn obstacle(config: &Config) -> Option<String> {
    config.virtual_servers.iter().find_map(|one| {
        let tunnels = one.real_servers.iter().map(|server| server.tunnel);
        let what = missing(one.scheduler, one.persistence.is_some(), one.one_packet, tunnels)?;
        Some(format!("virtual server \"{}\": XDP has no {what}", one.name))
    })
}

/// Whether XDP has everything that a virtual server needs.
pub fn can_serve(service: &Service) -> bool {
    what_is_missing(service).is_none()
}

fn what_is_missing(service: &Service) -> Option<String> {
    let tunnels = service.servers.iter().map(|server| server.tunnel);
    missing(service.scheduler, service.persistence.is_some(), service.one_packet, tunnels)
}

fn missing(
    scheduler: Scheduler,
    persists: bool,
    one_packet: bool,
    mut tunnels: impl Iterator<Item = Tunnel>,
) -> Option<String> {
    if !scheduler.is_in_xdp() {
        Some(format!("scheduler \"{scheduler}\""))
    } else if persists {
        Some("persistence".to_owned())
    } else if one_packet {
        Some("one_packet".to_owned())
    } else {
        tunnels
            .find(|tunnel| *tunnel != Tunnel::IPIP)
            .map(|tunnel| format!("tunnel of type \"{}\"", tunnel.kind))
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

fn program_of(ebpf: &mut Ebpf) -> anyhow::Result<&mut Xdp> {
    let program = ebpf.program_mut(PROGRAM).with_context(|| format!("no program {PROGRAM}"))?;
    Ok(program.try_into()?)
}
