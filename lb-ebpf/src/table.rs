//! The connection table: finding a flow's place, taking one, giving it back.
//!
//! Functions with C names are global ones to the verifier: it looks at each of them once, for any arguments, and not again
//! at every call.
//!
//! The layout and the rules by which the agent changes the table at the same time stand in `lb_common::conn`.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use lb_common::{
    FlowHash, FlowKey,
    conn::{
        Connection, Direction, Meta, NONE, State, TAG_BUSY, TAG_FREE, TagBucket, WAYS, Word, age, is_active,
    },
};

use crate::{
    atomic::Atomic,
    maps,
    opaque::{opaque, opaque_in_order},
    settings,
};

/// A place of the table that holds a connection (or did, a moment ago).
#[derive(Clone, Copy)]
pub struct Place {
    /// Its number.
    pub index: u32,
    entry: *mut Connection,
}

macro_rules! field {
    ($self:ident . $name:ident) => {{
        // SAFETY: a field of a map's value; volatile, because the agent and other CPUs write it.
        unsafe { (&raw const (*$self.entry).$name).read_volatile() }
    }};
}

impl Place {
    /// The place of this number.
    #[inline(always)]
    pub fn at(index: u32) -> Option<Self> {
        maps::connection(index).map(|entry| Self { index, entry })
    }

    /// Generation and state.
    #[inline(always)]
    pub fn word(self) -> Word {
        Word(self.word_atomic().load())
    }

    #[inline(always)]
    fn word_atomic(self) -> Atomic {
        // SAFETY: a field of a map's value.
        unsafe { Atomic::new(&raw mut (*self.entry).word) }
    }

    /// Changes generation and state; false when somebody else did so before.
    #[inline(always)]
    pub fn change(self, old: Word, new: Word) -> bool {
        self.word_atomic().compare_exchange(old.0, new.0)
    }

    /// When the last packet came.
    #[inline(always)]
    pub fn last_seen(self) -> u32 {
        field!(self.last_seen)
    }

    /// A packet came. Written only when the time has changed, so that a busy connection's line stays shared.
    #[inline(always)]
    pub fn touch(self, last_seen: u32, now: u32) {
        if last_seen != now {
            // SAFETY: a field of a map's value, written whole.
            unsafe { (&raw mut (*self.entry).last_seen).write_volatile(now) }
        }
    }

    /// The real server's number.
    #[inline(always)]
    pub fn server(self) -> u32 {
        field!(self.server)
    }

    /// Protocol, direction, interface.
    #[inline(always)]
    pub fn meta(self) -> Meta {
        field!(self.meta)
    }

    /// The way back or the other place; see [`Connection::way`].
    #[inline(always)]
    pub fn way(self) -> [u32; 3] {
        // SAFETY: a field of a map's value. Not volatile: a copy of bytes whose change matters to one packet.
        unsafe { (*self.entry).way }
    }

    /// The place of the other direction ([`Direction::Forward`] only); [`NONE`] without NAT.
    #[inline(always)]
    pub fn peer(self) -> u32 {
        field!(self.way)[0]
    }

    /// The place of the other direction, if it still is that.
    #[inline(always)]
    pub fn true_peer(self) -> Option<Self> {
        let peer = Self::at(self.peer())?;
        // SAFETY: maps' values.
        if unsafe { (*self.entry).is_peer(&*peer.entry) } { Some(peer) } else { None }
    }

    /// Changes the way back.
    #[inline(always)]
    pub fn set_way(self, meta: Meta, way: [u32; 3]) {
        // SAFETY: fields of a map's value. A reader that sees half of the change sends one frame astray.
        unsafe {
            (*self.entry).way = way;
            (&raw mut (*self.entry).meta).write_volatile(meta);
        }
    }

    /// The flow that stands here.
    #[inline(always)]
    pub fn key(self) -> FlowKey {
        // SAFETY: a map's value; the caller checks the word when it matters who was there.
        unsafe { (*self.entry).key() }
    }

    #[inline(always)]
    fn holds(self, key: &FlowKey) -> bool {
        // SAFETY: a map's value.
        let entry = unsafe { &*self.entry };
        let (src, dst) = (entry.src.halves(), entry.dst.halves());
        let (want_src, want_dst) = (key.src.halves(), key.dst.halves());
        // One comparison of everything: branches cost more than loads from a line that is there.
        let mut differ =
            src[0] ^ want_src[0] | src[1] ^ want_src[1] | dst[0] ^ want_dst[0] | dst[1] ^ want_dst[1];
        differ |= (entry.sport.wire() ^ key.sport.wire()) as u64;
        differ |= (entry.dport.wire() ^ key.dport.wire()) as u64;
        differ |= (entry.meta.proto() as u32 ^ key.proto) as u64;
        differ == 0
    }
}

/// The place of a flow, if it has one.
///
/// The comparisons of tags are written out, since a loop's counter would be followed by the verifier through all that
/// comes after.
#[inline(always)]
pub fn find(key: &FlowKey, hash: FlowHash) -> Option<Place> {
    let buckets = settings::buckets();
    match find_in(hash.primary(buckets), key, hash.tag()) {
        None => find_in(hash.secondary(buckets), key, hash.tag()),
        found => found,
    }
}

#[inline(always)]
fn find_in(bucket: u32, key: &FlowKey, tag: u32) -> Option<Place> {
    // SAFETY: a map's value; tags change under us, which the comparison of keys below makes harmless.
    let tags = unsafe { &(*maps::tags(bucket)?).0 };
    // Which way it is the verifier would remember through all that comes after, and follow that once for each: there and
    // back by a number that it does not know, it forgets.
    let way = opaque((way_of(tags, tag)? ^ tag) as usize) as u32 ^ tag;
    let place = Place::at(bucket * WAYS + way)?;
    if place.holds(key) { Some(place) } else { None }
}

/// The way with this tag: at most one has it, since [`insert`] takes care.
#[inline(always)]
fn way_of(tags: &[u32; WAYS as usize], tag: u32) -> Option<u32> {
    macro_rules! check {
        ($($way:literal)+) => {$( if tags[$way] == tag { return Some($way); } )+};
    }
    check!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    None
}

/// [`find`] for paths where its size counts more than its speed; the place's number or [`NONE`].
#[inline(always)]
pub fn find_index(key: &FlowKey) -> u32 {
    // SAFETY: a reference is a valid pointer.
    unsafe { table_find(key) }
}

#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn table_find(key: *const FlowKey) -> u32 {
    // SAFETY: null or a flow, by the contract of this function.
    let Some(key) = (unsafe { key.as_ref() }) else { return NONE };
    match find(key, settings::hash_slowly(key)) {
        Some(place) => place.index,
        None => NONE,
    }
}

/// What a new place is filled with.
#[repr(C)]
pub struct NewPlace {
    /// The flow.
    pub key: FlowKey,
    /// Its hash.
    pub hash: FlowHash,
    /// Protocol, direction, interface.
    pub meta: Meta,
    /// First state.
    pub state: u32,
    /// Time in ticks.
    pub now: u32,
    /// Real server.
    pub server: u32,
    /// See [`Connection::way`].
    pub way: [u32; 3],
}

/// The place that this CPU is about to fill; here because the stack has no room for it.
#[map]
static NEW_PLACE: PerCpuArray<NewPlace> = PerCpuArray::with_max_entries(1, 0);

/// What describes a new place.
#[inline(always)]
pub fn new_place() -> Option<&'static mut NewPlace> {
    // SAFETY: this CPU's own value, used for one packet at a time.
    NEW_PLACE.get_ptr_mut(0).map(|new| unsafe { &mut *new })
}

/// Takes a place for a flow that has none; [`NONE`] when both its buckets are full of living connections.
#[inline(always)]
pub fn insert(new: &NewPlace) -> u32 {
    // SAFETY: a reference is a valid pointer.
    unsafe { table_insert(new) }
}

#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn table_insert(new: *const NewPlace) -> u32 {
    // SAFETY: null or a new place, by the contract of this function.
    let Some(new) = (unsafe { new.as_ref() }) else { return NONE };
    let hash = new.hash;
    let buckets = settings::buckets();
    let (primary, secondary) = (hash.primary(buckets), hash.secondary(buckets));
    let (free_here, way_here) = free_way(primary, hash.tag());
    // The first bucket while it has room to spare, so that most flows are found there; else the emptier one.
    if free_here >= 4 {
        return fill(new, hash, primary, way_here);
    }
    let (free_there, way_there) = free_way(secondary, hash.tag());
    let (free, bucket, way) = if free_here >= free_there {
        (free_here, primary, way_here)
    } else {
        (free_there, secondary, way_there)
    };
    if free > 0 {
        return fill(new, hash, bucket, way);
    }
    let way = table_reclaim(primary, new.now);
    if way == NONE { NONE } else { fill(new, hash, primary, way) }
}

/// How many places of a bucket are free, and one of them; none if another flow has the same tag there, so that a tag
/// leads to one place only.
///
/// Without branches: the verifier would follow every combination of them.
#[inline(always)]
fn free_way(bucket: u32, tag: u32) -> (u32, u32) {
    let found = table_free_way(bucket, tag);
    ((found >> 32) as u32, found as u32)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn table_free_way(bucket: u32, tag: u32) -> u64 {
    /// 1 for any word but 0. Opaque twice, or the compiler sees what this is and makes branches of it.
    #[inline(always)]
    fn not_zero(word: u32) -> u32 {
        let negative = opaque_in_order(word.wrapping_neg() as usize) as u32;
        opaque_in_order(((word | negative) >> 31) as usize) as u32
    }
    let Some(tags) = maps::tags(bucket) else { return 0 };
    // SAFETY: a map's value.
    let tags = unsafe { &(*tags).0 };
    let (mut used, mut found, mut others) = (0u32, 0u32, 0u32);
    macro_rules! count {
        ($($way:literal)+) => {$(
            let is_used = not_zero(tags[$way]);
            used += is_used;
            found += ($way - found) * (1 - is_used);
            others += not_zero(tags[$way] ^ tag);
        )+};
    }
    // Upwards, so that the difference is never negative.
    count!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    let free = if others == WAYS { WAYS - used } else { 0 };
    (free as u64) << 32 | found as u64
}

#[inline(always)]
fn tag_atomic(tags: *mut TagBucket, way: u32) -> Atomic {
    // SAFETY: `way` is masked, so this is a word of the map's value.
    unsafe { Atomic::new((&raw mut (*tags).0).cast::<u32>().add((way & (WAYS - 1)) as usize)) }
}

#[inline(never)]
fn fill(new: &NewPlace, hash: FlowHash, bucket: u32, way: u32) -> u32 {
    let Some(tags) = maps::tags(bucket) else { return NONE };
    let tag = tag_atomic(tags, way);
    if !tag.compare_exchange(TAG_FREE, TAG_BUSY) {
        // Another CPU took it in between; this packet does without a place, the next one finds another.
        return NONE;
    }
    let index = bucket * WAYS + (way & (WAYS - 1));
    let Some(place) = Place::at(index) else {
        tag.publish(TAG_FREE);
        return NONE;
    };
    // SAFETY: a map's value; the busy tag makes it ours until the tag is published.
    unsafe {
        let entry = place.entry;
        (*entry).src = new.key.src;
        (*entry).dst = new.key.dst;
        (*entry).sport = new.key.sport;
        (*entry).dport = new.key.dport;
        (*entry).meta = new.meta;
        (*entry).last_seen = new.now;
        (*entry).server = new.server;
        (*entry).way = new.way;
        (*entry).word = Word((*entry).word).with_state(new.state as u8).0;
    }
    tag.publish(hash.tag());
    index
}

/// Frees a place of the bucket whose connection's time is over; its way, or [`NONE`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn table_reclaim(bucket: u32, now: u32) -> u32 {
    let mut over = NONE;
    for way in 0..WAYS {
        let Some(place) = Place::at(bucket * WAYS + way) else { break };
        if place.meta().direction() as u32 == Direction::Forward as u32 && is_over(place, now) {
            over = place.index;
            break;
        }
    }
    match Place::at(over) {
        Some(place) if remove(place.index) => {
            crate::stats::count_event(lb_common::Event::ConnectionExpired);
            over & (WAYS - 1)
        }
        _ => NONE,
    }
}

/// Whether nobody has used the connection of a [`Direction::Forward`] place for longer than its state allows. The two
/// directions of NAT share one life.
#[inline(always)]
pub fn is_over(place: Place, now: u32) -> bool {
    let state = place.word().state();
    let timeout = settings::timeout(state);
    if state == State::Free as u8 || age(now, place.last_seen()) <= timeout {
        return false;
    }
    match place.true_peer() {
        Some(peer) => age(now, peer.last_seen()) > timeout,
        None => true,
    }
}

/// The [`Direction::Forward`] place of the connection of which `index` is the [`Direction::Reverse`] one; [`NONE`] when
/// it is gone.
#[inline(always)]
pub fn forward_of(index: u32) -> u32 {
    table_forward_of(index)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn table_forward_of(index: u32) -> u32 {
    let Some(place) = Place::at(index) else { return NONE };
    let Some(server) = maps::server(place.server()) else { return NONE };
    let answer = place.key();
    // A virtual server of every port has servers without a port of their own, so theirs is the client's.
    let dport = if server.vport.is_any() { answer.sport } else { server.vport };
    let key = FlowKey { src: answer.dst, dst: server.vip, sport: answer.dport, dport, proto: answer.proto };
    find_index(&key)
}

/// Ends the connection of a [`Direction::Forward`] place: counts it out and frees its places. False when somebody
/// else does so at this moment.
#[inline(always)]
pub fn remove(index: u32) -> bool {
    table_remove(index) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn table_remove(index: u32) -> u32 {
    let Some(place) = Place::at(index) else { return 0 };
    let word = place.word();
    if word.state() == State::Free as u8 || !place.change(word, word.freed()) {
        return 0;
    }
    if let Some(load) = maps::load(place.server()) {
        let count = if is_active(word.state()) { load.active } else { load.inactive };
        count.fetch_add(u32::MAX);
    }
    if let Some(peer) = place.true_peer() {
        discard(peer.index);
    }
    clear_tag(place.index);
    1
}

#[inline(always)]
fn clear_tag(place: u32) {
    if let Some(tags) = maps::tags(place / WAYS) {
        tag_atomic(tags, place).publish(TAG_FREE);
    }
}

/// Frees a place of the reverse direction, which is not counted.
#[inline(always)]
pub fn discard(index: u32) {
    table_discard(index);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn table_discard(index: u32) -> u32 {
    if let Some(place) = Place::at(index) {
        let word = place.word();
        if word.state() != State::Free as u8 && place.change(word, word.freed()) {
            clear_tag(index);
        }
    }
    0
}
