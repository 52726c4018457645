//! What an earlier agent has left, and whether it can be gone on with.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use aya::maps::{Array, Map, MapData, MapInfo, MapType};
use lb_common::{
    ABI_VERSION,
    conn::{Clock, Connection, TagBucket, WAYS},
    fragment::{Fragment, FragmentKey},
    map_name,
    server::{Load, Server, ServerStats},
    service::{Cursor, Service, ServiceKey, Slot},
    settings::Identity,
    verdict::Counters,
};

use super::{Sizes, pins::Pins};

/// Maps of which one cannot be larger without the others, since they number the same things.
pub const TABLES: [&str; 6] = [
    map_name::SERVICES,
    map_name::CURSORS,
    map_name::SLOTS,
    map_name::SERVERS,
    map_name::NAT_SERVERS,
    map_name::SERVER_STATS,
];

/// The two maps of the connection table, and the one that names places in it: kept together or not at all. The map in which
/// connections are counted belongs to both: each table has counts of its own as long as the old program runs.
pub const CONNECTIONS: [&str; 3] = [map_name::TAGS, map_name::CONNECTIONS, map_name::FRAGMENTS];

/// A generation of maps that fit this agent.
#[derive(Debug, Clone, Copy)]
pub struct Left {
    /// What was written about them.
    pub identity: Identity,
    /// How large they are; `max_connections` is not known.
    pub sizes: Sizes,
}

impl Left {
    /// Looks at the generation in force; `None` without one.
    ///
    /// # Errors
    /// Why it cannot be gone on with.
    pub fn look(pins: &Pins, clock: Clock) -> anyhow::Result<Option<Self>> {
        if pins.previous_program().is_none() {
            return Ok(None);
        }
        let path = |name: &str| pins.previous_map(name).context("no generation in force");
        let mut sizes = Sizes { max_connections: 0, services: 0, servers: 0, slots: 0 };
        let mut places = 0;
        for name in map_name::ALL {
            let info = MapInfo::from_pin(path(name)?).with_context(|| format!("map {name}"))?;
            check_kind(name, &info)?;
            match name {
                map_name::SERVICES => sizes.services = info.max_entries(),
                map_name::SERVERS => sizes.servers = info.max_entries(),
                map_name::SLOTS => sizes.slots = info.max_entries(),
                map_name::CONNECTIONS => places = info.max_entries(),
                _ => {}
            }
        }
        let identity = read_identity(&path(map_name::IDENTITY)?)?;
        if identity.abi != ABI_VERSION {
            bail!("it is of version {} of the maps, this agent has {ABI_VERSION}", identity.abi);
        }
        if identity.clock_shift != clock.shift() {
            bail!("the kernel's tick has changed");
        }
        if Some(places) != identity.buckets.checked_mul(WAYS) {
            bail!("the connection table has not the size that it should have");
        }
        Ok(Some(Self { identity, sizes }))
    }
}

/// Compares a pinned map with what the program wants: the loader would take any map.
fn check_kind(name: &str, info: &MapInfo) -> anyhow::Result<()> {
    let (kind, key, value) = kind_of(name).ok_or_else(|| anyhow!("no map {name}"))?;
    let found = (info.map_type()?, info.key_size(), info.value_size());
    if found != (kind, key, value) {
        bail!("map {name} is {found:?}, not {:?}", (kind, key, value));
    }
    Ok(())
}

fn kind_of(name: &str) -> Option<(MapType, u32, u32)> {
    const fn size<T>() -> u32 {
        size_of::<T>() as u32
    }
    let array = |value: u32| (MapType::Array, 4, value);
    let per_cpu = |value: u32| (MapType::PerCpuArray, 4, value);
    Some(match name {
        map_name::SERVICES => (MapType::Hash, size::<ServiceKey>(), size::<Service>()),
        map_name::NAT_SERVERS => (MapType::Hash, size::<ServiceKey>(), 4),
        map_name::FRAGMENTS => (MapType::LruHash, size::<FragmentKey>(), size::<Fragment>()),
        map_name::CURSORS => array(size::<Cursor>()),
        map_name::SLOTS => array(size::<Slot>()),
        map_name::SERVERS => array(size::<Server>()),
        map_name::LOADS => array(size::<Load>()),
        map_name::TAGS => array(size::<TagBucket>()),
        map_name::CONNECTIONS => array(size::<Connection>()),
        map_name::FILTER | map_name::ROLES => array(8),
        map_name::IDENTITY => array(size::<Identity>()),
        map_name::SERVER_STATS => per_cpu(size::<ServerStats>()),
        map_name::COUNTERS => per_cpu(size::<Counters>()),
        _ => return None,
    })
}

/// Gives maps of the generation in force a name in the new one too.
///
/// # Errors
/// When the kernel refuses.
pub fn keep(pins: &Pins, names: &[&str]) -> anyhow::Result<()> {
    for name in names {
        let path = pins.previous_map(name).context("no generation in force")?;
        let map = MapData::from_pin(path).with_context(|| format!("map {name}"))?;
        map.pin(pins.map(name)).with_context(|| format!("cannot pin map {name}"))?;
    }
    Ok(())
}

/// A map of the generation in force.
///
/// # Errors
/// When it is not there.
pub fn open(pins: &Pins, name: &str) -> anyhow::Result<Map> {
    let path = pins.previous_map(name).context("no generation in force")?;
    Ok(Map::from_map_data(MapData::from_pin(path)?)?)
}

fn read_identity(path: &Path) -> anyhow::Result<Identity> {
    let map = Map::from_map_data(MapData::from_pin(path)?)?;
    Ok(Array::<MapData, Identity>::try_from(map)?.get(&0, 0)?)
}
