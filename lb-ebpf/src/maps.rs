//! Every map of the program, behind accessors that know what is inside.
//!
//! Sizes are those for tests; the agent sets its own when it loads the program. The names are those of
//! `lb_common::map_name`.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use lb_common::{
    conn::{Connection, TagBucket},
    filter,
    fragment::{self, Fragment, FragmentKey},
    server::{Load, Server, ServerStats},
    service::{Cursor, MAX_ROLES, Service, ServiceKey, Slot},
    settings::Identity,
    verdict::Counters,
};

use crate::atomic::Atomic;

#[map]
static SERVICES: HashMap<ServiceKey, Service> = HashMap::with_max_entries(1024, 0);
#[map]
static CURSORS: Array<Cursor> = Array::with_max_entries(1024, BPF_F_MMAPABLE);
#[map]
static SLOTS: Array<Slot> = Array::with_max_entries(65_536, BPF_F_MMAPABLE);
#[map]
static SERVERS: Array<Server> = Array::with_max_entries(4096, BPF_F_MMAPABLE);
#[map]
static LOADS: Array<Load> = Array::with_max_entries(4096, BPF_F_MMAPABLE);
#[map]
static NAT_SERVERS: HashMap<ServiceKey, u32> = HashMap::with_max_entries(4096, 0);
#[map]
static SERVER_STATS: PerCpuArray<ServerStats> = PerCpuArray::with_max_entries(4096, 0);
#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);
#[map]
static TAGS: Array<TagBucket> = Array::with_max_entries(1024, BPF_F_MMAPABLE);
#[map]
static CONNECTIONS: Array<Connection> = Array::with_max_entries(16_384, BPF_F_MMAPABLE);
#[map]
static FILTER: Array<u64> = Array::with_max_entries(filter::MAP_WORDS, BPF_F_MMAPABLE);
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, Fragment> = LruHashMap::with_max_entries(fragment::ENTRIES, 0);
#[map]
static ROLES: Array<u64> = Array::with_max_entries(MAX_ROLES, BPF_F_MMAPABLE);
#[map]
static IDENTITY: Array<Identity> = Array::with_max_entries(1, 0);

/// The virtual server of exactly this address, port and protocol.
#[inline(always)]
pub fn service(key: &ServiceKey) -> Option<Service> {
    // SAFETY: the agent replaces whole values and the program only copies; a value that is being replaced is a
    // matter of one packet's choice, and every index in it is checked where it is used.
    unsafe { SERVICES.get(key) }.copied()
}

/// The counter of choices of the virtual server `index`.
#[inline(always)]
pub fn cursor(index: u32) -> Option<Atomic> {
    let cursor = CURSORS.get_ptr_mut(index)?;
    // SAFETY: a field of a map's value.
    Some(unsafe { Atomic::new(&raw mut (*cursor).count) })
}

/// The server number in a slot.
#[inline(always)]
pub fn slot(index: u32) -> Option<u32> {
    SLOTS.get(index).map(|slot| slot.server)
}

/// The real server of this number.
#[inline(always)]
pub fn server(index: u32) -> Option<&'static Server> {
    SERVERS.get(index)
}

/// The real server whose answers from (address, port, protocol) are translated without a table.
#[inline(always)]
pub fn nat_server(key: &ServiceKey) -> Option<u32> {
    // SAFETY: as in `service`.
    unsafe { NAT_SERVERS.get(key) }.copied()
}

/// What the least-connection schedulers compare.
#[derive(Clone, Copy)]
pub struct LoadRef {
    /// Active connections.
    pub active: Atomic,
    /// The others.
    pub inactive: Atomic,
    /// Weight.
    pub weight: Atomic,
    /// When a flow was last served without the table.
    pub stateless_at: Atomic,
    /// See [`Load::upper`].
    pub upper: Atomic,
    /// See [`Load::lower`].
    pub lower: Atomic,
    /// See [`Load::overloaded`].
    pub overloaded: Atomic,
}

/// The load of the real server of this number.
#[inline(always)]
pub fn load(index: u32) -> Option<LoadRef> {
    let load = LOADS.get_ptr_mut(index)?;
    // SAFETY: fields of a map's value.
    unsafe {
        Some(LoadRef {
            active: Atomic::new(&raw mut (*load).active),
            inactive: Atomic::new(&raw mut (*load).inactive),
            weight: Atomic::new(&raw mut (*load).weight),
            stateless_at: Atomic::new(&raw mut (*load).stateless_at),
            upper: Atomic::new(&raw mut (*load).upper),
            lower: Atomic::new(&raw mut (*load).lower),
            overloaded: Atomic::new(&raw mut (*load).overloaded),
        })
    }
}

/// This CPU's counters of the real server of this number.
#[inline(always)]
pub fn server_stats(index: u32) -> Option<&'static mut ServerStats> {
    // SAFETY: one CPU's own copy, and the program is not interrupted by itself.
    SERVER_STATS.get_ptr_mut(index).map(|stats| unsafe { &mut *stats })
}

/// This CPU's counters of verdicts and events.
#[inline(always)]
pub fn counters() -> Option<&'static mut Counters> {
    // SAFETY: as in `server_stats`.
    COUNTERS.get_ptr_mut(0).map(|counters| unsafe { &mut *counters })
}

/// The tags of a bucket, as one pointer for [`crate::table`].
#[inline(always)]
pub fn tags(bucket: u32) -> Option<*mut TagBucket> {
    TAGS.get_ptr_mut(bucket)
}

/// A place of the connection table, as one pointer for [`crate::table`].
#[inline(always)]
pub fn connection(place: u32) -> Option<*mut Connection> {
    CONNECTIONS.get_ptr_mut(place)
}

/// A word of the address filter.
#[inline(always)]
pub fn filter(word: u32) -> u64 {
    FILTER.get(word).copied().unwrap_or(0)
}

/// Whether this machine has the role of this number (from 1).
#[inline(always)]
pub fn has_role(number: u16) -> bool {
    // SAFETY: a map's value; volatile, because the agent writes it at any moment.
    ROLES.get_ptr(number.into()).is_some_and(|word| unsafe { word.read_volatile() } != 0)
}

/// What the first fragment of a packet decided.
#[inline(always)]
pub fn fragment(key: &FragmentKey) -> Option<Fragment> {
    // SAFETY: as in `service`.
    unsafe { FRAGMENTS.get(key) }.copied()
}

/// Remembers what a first fragment decided; a table that is full forgets the oldest.
#[inline(always)]
pub fn remember_fragment(key: &FragmentKey, fragment: &Fragment) -> bool {
    FRAGMENTS.insert(key, fragment, 0).is_ok()
}
