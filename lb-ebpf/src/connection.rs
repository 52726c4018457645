//! What becomes of a connection when a packet arrives: it goes on, changes its state, or begins.

mod follow;

use aya_ebpf::{macros::map, maps::PerCpuArray};
use lb_common::{
    Addr, Event, FlowHash, FlowKey, Port, Verdict,
    conn::{Direction, Meta, NONE, Side, State, Word, age, is_active, tcp_flag, tcp_next},
    ip_proto,
    server::{Forwarding, Macs},
    service::{Service, ServiceKey},
};

pub use follow::{follow, follow_slowly, living_server_of, server_of};

use crate::{
    maps,
    opaque::opaque,
    packet::{Packet, Window},
    schedule, service, settings, stats,
    table::{self, Place},
    transmit::read_tags,
};

/// Where a packet goes.
#[derive(Clone, Copy)]
pub struct Route {
    /// Number of the real server.
    pub server: u32,
    /// To it, or from it to the client.
    pub direction: Direction,
    /// The connection's place, or [`NONE`] for one that has none.
    pub place: u32,
}

/// Who sent the frame, for the way back. Laid out like [`lb_common::server::NextHop`], for the same reason.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Sender {
    /// Its tags.
    pub vlan: [u32; 2],
    /// Both MAC addresses.
    pub macs: Macs,
    /// Index of the interface.
    pub link: u32,
    /// Whether the frame has VLAN tags.
    pub tagged: bool,
}

impl Sender {
    /// Who sent the frame that the window shows.
    #[inline(always)]
    pub fn of(packet: Packet, window: Window, tags: u32) -> Result<Self, Verdict> {
        let macs = Macs::from_words(window.read(0).ok_or(Verdict::PassMalformed)?);
        let vlan = if tags > 0 { read_tags(window, tags).ok_or(Verdict::PassMalformed)? } else { [0; 2] };
        Ok(Self { link: packet.ingress(), tagged: tags > 0, macs, vlan })
    }
}

/// A packet of a flow that has no place.
#[repr(C)]
pub struct Opening {
    /// The flow.
    pub key: FlowKey,
    /// Its hash.
    pub hash: FlowHash,
    /// Time in ticks.
    pub now: u32,
    /// TCP's flags.
    pub flags: u8,
    /// Who sent it.
    pub sender: Sender,
}

/// The opening that this CPU is busy with; here because the stack has no room for it.
#[map]
static OPENING: PerCpuArray<Opening> = PerCpuArray::with_max_entries(1, 0);

/// A place to describe an opening.
#[inline(always)]
pub fn new_opening() -> Option<&'static mut Opening> {
    // SAFETY: this CPU's own value, used for one packet at a time.
    OPENING.get_ptr_mut(0).map(|opening| unsafe { &mut *opening })
}

impl Route {
    const NONE: u64 = u64::MAX;
    const REVERSE: u64 = 1 << 62;

    /// As one word: what a function of its own takes and gives.
    #[inline(always)]
    pub fn pack(route: Option<Self>) -> u64 {
        match route {
            Some(route) => {
                let reverse = if route.direction as u32 == 0 { 0 } else { Self::REVERSE };
                reverse | (route.server as u64 & 0xff_ffff) << 32 | route.place as u64
            }
            None => Self::NONE,
        }
    }

    /// From [`Self::pack`].
    #[inline(always)]
    pub fn unpack(word: u64) -> Option<Self> {
        if word == Self::NONE {
            return None;
        }
        let direction = if word & Self::REVERSE == 0 { Direction::Forward } else { Direction::Reverse };
        Some(Self { server: (word >> 32) as u32 & 0xff_ffff, direction, place: word as u32 })
    }
}

const FAILED: u64 = 1 << 63;

/// A route or the verdict, as one word.
#[inline(always)]
pub fn pack_opened(result: Result<Route, Verdict>) -> u64 {
    match result {
        Ok(route) => Route::pack(Some(route)),
        Err(verdict) => FAILED | verdict as u64,
    }
}

/// From [`pack_opened`].
#[inline(always)]
pub fn unpack_opened(word: u64) -> Result<Route, Verdict> {
    if word & FAILED != 0 {
        return Err(Verdict::from_slot(word as u32 & 0xff).unwrap_or(Verdict::PassNoService));
    }
    Route::unpack(word).ok_or(Verdict::PassNoService)
}

/// Finds the virtual server, chooses a real server and enters the connection into the table. Where the table has
/// no place the packet is served all the same, by a choice that needs none.
#[inline(always)]
pub fn open(opening: &Opening) -> Result<Route, Verdict> {
    let key = &opening.key;
    let Some(service) = service::find(key.dst, key.dport, key.proto as u8) else {
        return answer_without_place(opening);
    };
    if service::is_on_standby(service.role) {
        return Err(Verdict::PassStandby);
    }
    let begins = key.proto != ip_proto::TCP as u32
        || opening.flags & (tcp_flag::SYN | tcp_flag::RST | tcp_flag::ACK) == tcp_flag::SYN;
    if !begins && !schedule::is_by_client(&service) {
        return continue_without_place(opening, &service);
    }
    if opening.flags & tcp_flag::RST != 0 {
        return Err(Verdict::PassNoConnection);
    }
    let server = match schedule::stateless_slot(&service, opening.hash) {
        // The flow may have begun while the table was full: then it is there.
        Some(server) if was_stateless(server, opening.now) => server,
        _ => schedule::choose(&service, opening.hash, key.src, key.sport, false),
    };
    if server == NONE {
        return Err(Verdict::ReplyNoServer);
    }
    let place = enter(opening, server)?;
    if place != NONE {
        stats::count_connection(server);
        stats::count_event(Event::ConnectionNew);
        return Ok(Route { server, direction: Direction::Forward, place });
    }
    let server = schedule::choose(&service, opening.hash, key.src, key.sport, true);
    serve_without_place(server, opening.now).ok_or(Verdict::ReplyNoServer)
}

/// Enters a connection: one place, or for NAT two. [`NONE`] when the table is full.
#[inline(always)]
fn enter(opening: &Opening, number: u32) -> Result<u32, Verdict> {
    // SAFETY: a reference is a valid pointer.
    let word = unsafe { connection_enter(opening, number) };
    if word & FAILED == 0 {
        return Ok(word as u32);
    }
    Err(if word as u32 == Verdict::DropCollision as u32 {
        Verdict::DropCollision
    } else {
        Verdict::ReplyNoServer
    })
}

#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn connection_enter(opening: *const Opening, number: u32) -> u64 {
    // SAFETY: null or an opening, by the contract of this function.
    let entered = unsafe { opening.as_ref() }.map_or(Ok(NONE), |opening| try_enter(opening, number));
    match entered {
        Ok(place) => place.into(),
        Err(verdict) => FAILED | verdict as u64,
    }
}

#[inline(always)]
fn try_enter(opening: &Opening, number: u32) -> Result<u32, Verdict> {
    let Some(server) = maps::server(number) else { return Err(Verdict::ReplyNoServer) };
    let key = &opening.key;
    let (proto, sender) = (key.proto as u8, &opening.sender);
    let nat = server.forwarding == Forwarding::Nat as u8;
    let side = if nat { Side::Input } else { Side::InputOnly };
    let state = if proto == ip_proto::TCP {
        tcp_next(State::None as u8, side, opening.flags).into()
    } else {
        State::Udp as u32
    };
    let new = table::new_place().ok_or(Verdict::ReplyNoServer)?;
    new.state = state;
    new.now = opening.now;
    new.server = number;
    let mut peer = NONE;
    if nat {
        // Word by word: the compiler makes a call of `memmove` of a whole copy from map to map, which goes byte by byte.
        new.key.src = Addr::v6(server.addr.words().map(
            #[inline(always)]
            |word| opaque(word as usize) as u32,
        ));
        new.key.dst = key.src;
        new.key.sport = if server.port.is_any() { key.dport } else { server.port };
        new.key.dport = key.sport;
        new.key.proto = key.proto;
        if let Some(old) = Place::at(table::find_index(&new.key))
            && !is_leftover(old, opening.now)
        {
            return Err(Verdict::DropCollision);
        }
        new.hash = settings::hash_slowly(&new.key);
        new.meta = Meta::new(proto, Direction::Reverse, sender.tagged, sender.link);
        new.way = sender.macs.turned().words();
        peer = table::insert(new);
        if peer == NONE {
            return Ok(NONE);
        }
    }
    new.key = *key;
    new.hash = opening.hash;
    new.meta = Meta::new(proto, Direction::Forward, sender.tagged, sender.link);
    new.way = forward_way(peer, sender);
    let place = table::insert(new);
    if place == NONE {
        table::discard(peer);
        return Ok(NONE);
    }
    if let Some(load) = maps::load(number) {
        let count = if is_active(state as u8) { load.active } else { load.inactive };
        count.fetch_add(1);
        schedule::look(load);
    }
    Ok(place)
}

/// Whether a place of the reverse direction belongs to nobody any more; then it is freed.
#[inline(always)]
fn is_leftover(old: Place, now: u32) -> bool {
    /// Another processor may be about to enter the other direction.
    const YOUNG: u32 = 2;
    match Place::at(table::forward_of(old.index)) {
        Some(forward) if forward.word().state() == State::Free as u8 => true,
        Some(forward) if !table::is_over(forward, now) => false,
        Some(forward) => table::remove(forward.index),
        None if age(now, old.last_seen()) < YOUNG => false,
        None => {
            table::discard(old.index);
            true
        }
    }
}

/// What the forward place keeps: its peer, and the tags of a tagged client or the MAC address of an untagged one, by which
/// [`keep_way_back`] sees a change without looking at the other place.
#[inline(always)]
fn forward_way(peer: u32, sender: &Sender) -> [u32; 3] {
    let [a, b] = if sender.tagged { sender.vlan } else { sender.macs.source() };
    [peer, a, b]
}

/// The client's packets may come from another router than before: so must the answers go.
///
/// On the same interface and VLAN that is believed at once. Packets by another one may be forged by somebody who could not
/// send them where the client is, so they only cast doubt: the kernel's routes then have the first word.
#[inline(always)]
pub fn keep_way_back(index: u32, sender: &Sender) {
    let Some(place) = Place::at(index) else { return };
    let (meta, way) = (place.meta(), place.way());
    let [peer, outer, inner] = way;
    let wanted_meta = Meta::new(meta.proto(), Direction::Forward, sender.tagged, sender.link);
    let wanted_way = forward_way(peer, sender);
    if meta == wanted_meta && way == wanted_way && !sender.tagged {
        return;
    }
    let Some(other) = place.true_peer() else { return };
    let same_link = meta.link() == wanted_meta.link() && meta.tagged() == sender.tagged;
    if same_link && (!sender.tagged || [outer, inner] == sender.vlan) {
        let meta = Meta::new(meta.proto(), Direction::Reverse, sender.tagged, sender.link);
        place.set_way(wanted_meta, wanted_way);
        other.set_way(meta, sender.macs.turned().words());
    } else if !other.meta().is_doubted() {
        other.set_way(other.meta().doubted(), other.way());
    }
}

/// Serves one packet without a place.
#[inline(always)]
fn serve_without_place(server: u32, now: u32) -> Option<Route> {
    let load = maps::load(server)?;
    // 0 means never, so the one tick in more than a year that is 0 becomes its neighbour.
    load.stateless_at.store(if now == 0 { 1 } else { now });
    stats::count_event(Event::Stateless);
    Some(Route { server, direction: Direction::Forward, place: NONE })
}

/// A segment from the middle of a connection that has no place. If connections of this virtual server were served
/// without places lately this may be one of them; else nobody here knows it.
#[inline(always)]
fn continue_without_place(opening: &Opening, service: &Service) -> Result<Route, Verdict> {
    let key = &opening.key;
    let server = schedule::choose(service, opening.hash, key.src, key.sport, true);
    if !was_stateless(server, opening.now) {
        return Err(Verdict::PassNoConnection);
    }
    serve_without_place(server, opening.now).ok_or(Verdict::PassNoConnection)
}

/// An answer of a real server behind NAT whose connection has no place.
#[inline(always)]
fn answer_without_place(opening: &Opening) -> Result<Route, Verdict> {
    let key = &opening.key;
    let proto = key.proto as u8;
    let server = maps::nat_server(&ServiceKey::new(key.src, key.sport, proto))
        .or_else(|| maps::nat_server(&ServiceKey::new(key.src, Port::ANY, proto)));
    match server {
        Some(server) if was_stateless(server, opening.now) => {
            stats::count_event(Event::Stateless);
            Ok(Route { server, direction: Direction::Reverse, place: NONE })
        }
        _ => Err(Verdict::PassNoService),
    }
}

/// Whether connections to this real server were served without places lately.
#[inline(always)]
fn was_stateless(server: u32, now: u32) -> bool {
    match maps::load(server) {
        Some(load) => {
            let at = load.stateless_at.load();
            at != 0 && age(now, at) <= settings::timeout(State::Established as u8)
        }
        None => false,
    }
}

/// The place's generation and state, for who follows it later.
#[inline(always)]
pub fn word_of(index: u32) -> Option<Word> {
    Place::at(index).map(Place::word)
}
