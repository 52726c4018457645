//! From nothing, or from what an earlier agent has pinned, to a loaded program over its maps.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Arc, Mutex},
};

use anyhow::{Context as _, anyhow, bail};
use aya::{
    Ebpf,
    maps::{Array, Map, PerCpuArray},
    programs::Xdp,
};
use lb_common::{
    ABI_VERSION,
    conn::{Clock, WAYS, buckets_for},
    filter::MAP_WORDS,
    map_name,
    server::Load,
    settings::{CLOCK, Identity, Settings},
};

use super::{
    CLIENT_SILENCE, Pins, Sizes, XdpPlane, attach,
    conntable::{self, ConnectionTable, Import},
    keeper::Sweeper,
    left::{self, Left},
    load, local,
    mapped::Mapped,
    roles::Roles,
    tables::{self, Hold, Maps, Tables},
};
use crate::{config::Config, desired::State};

impl XdpPlane {
    pub(super) fn build(
        object: &[u8],
        config: &Config,
        desired: &State,
        trace: bool,
        pins: Option<Pins>,
    ) -> anyhow::Result<Self> {
        let max_connections = config.director.max_connections;
        let clock = kernel_clock().context("cannot find out the kernel's tick")?;
        let left = pins.as_ref().map(|pins| what_is_left(pins, clock)).transpose()?.flatten();
        let checked = match pins {
            Some(_) => config.servers_checked_through_dataplane(),
            // Such checks may come by a reload, and without pins the maps cannot be made larger.
            None => desired.values().map(|service| service.servers.len()).sum(),
        };
        let wanted = Sizes { max_connections, ..tables::sizes_for(desired, checked)? };
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
        // New maps are empty, and to look at all of them would only make them resident.
        let hold = if tables_fit { Hold::Somebodys } else { Hold::Nothing };
        let mut tables = open_tables(sizes, hold, |name| take_map(&mut ebpf, name))?;
        let mut outgrown = None;
        if let (Some(pins), Some(left)) = (&pins, left)
            && !tables_fit
        {
            tracing::info!("the maps of virtual and real servers are made larger");
            let old = open_tables(left.sizes, Hold::Somebodys, |name| left::open(pins, name))?;
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
        let roles = Roles::new(&take_map(&mut ebpf, map_name::ROLES)?, pins.is_some())
            .with_context(|| format!("map {}", map_name::ROLES))?;
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
            roles: Arc::new(roles),
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

/// The tables over the maps that `take` gives by name.
fn open_tables(
    sizes: Sizes,
    hold: Hold,
    mut take: impl FnMut(&str) -> anyhow::Result<Map>,
) -> anyhow::Result<Tables> {
    let services = take(map_name::SERVICES)?;
    let services_fd = map_fd(&services)?.try_clone_to_owned()?;
    let nat_servers = take(map_name::NAT_SERVERS)?;
    let nat_servers_fd = map_fd(&nat_servers)?.try_clone_to_owned()?;
    let stats = take(map_name::SERVER_STATS)?;
    let stats_fd = map_fd(&stats)?.try_clone_to_owned()?;
    let maps = Maps {
        services: services.try_into()?,
        nat_servers: nat_servers.try_into()?,
        stats: stats.try_into()?,
        cursors: mapped(&take(map_name::CURSORS)?, sizes.services).context("map CURSORS")?,
        slots: mapped(&take(map_name::SLOTS)?, sizes.slots).context("map SLOTS")?,
        servers: Arc::new(mapped(&take(map_name::SERVERS)?, sizes.servers).context("map SERVERS")?),
        loads: Arc::new(mapped(&take(map_name::LOADS)?, sizes.servers).context("map LOADS")?),
        filter: mapped(&take(map_name::FILTER)?, MAP_WORDS).context("map FILTER")?,
        services_fd,
        nat_servers_fd,
        stats_fd,
    };
    Tables::open(maps, sizes, hold)
}

/// A map of the object.
fn take_map(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<Map> {
    ebpf.take_map(name).ok_or_else(|| anyhow!("the program has no map {name}"))
}

/// The descriptor of a map.
pub(super) fn map_fd(map: &Map) -> anyhow::Result<BorrowedFd<'_>> {
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
