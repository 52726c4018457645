//! Fragments: the first one decides, the others follow it.
//!
//! Later fragments have no ports. What the first decided is remembered by the packet's addresses and
//! identification; a fragment that comes before its first one is dropped, since nothing says where it belongs, and
//! the sender repeats the packet.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    Verdict,
    conn::{Direction, NONE, Word, age},
    fragment::{Fragment, FragmentKey},
};

use crate::{
    connection::{Route, living_server_of, pack_opened, unpack_opened, word_of},
    maps,
    packet::Packet,
    parse::{self, ipv6},
    settings,
};

/// Where a later fragment goes.
#[inline(always)]
pub fn follow(packet: Packet) -> Result<Route, Verdict> {
    // SAFETY: the program's own context.
    unpack_opened(packet.forget(unsafe { fragment_follow(packet.raw()) }))
}

#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn fragment_follow(ctx: *mut xdp_md) -> u64 {
    // SAFETY: the program's own context, by the contract of this function.
    pack_opened(find(unsafe { Packet::from_raw(ctx) }))
}

#[inline(always)]
fn find(packet: Packet) -> Result<Route, Verdict> {
    let found = key(packet).and_then(|key| maps::fragment(&key)).ok_or(Verdict::DropFragment)?;
    if age(settings::now(), found.seen) > settings::fragment_timeout() {
        return Err(Verdict::DropFragment);
    }
    if found.server == NONE {
        return Err(Verdict::PassStandby);
    }
    let direction =
        if found.direction == Direction::Forward as u32 { Direction::Forward } else { Direction::Reverse };
    let lives = word_of(found.place).is_some_and(|word| word.same_generation(Word(found.word)));
    let route = Route { server: found.server, direction, place: if lives { found.place } else { NONE } };
    living_server_of(&route)?;
    Ok(route)
}

/// Remembers where the first fragment went; `None`: it was passed, since its virtual server is on standby. A table without room
/// costs the packet its other fragments.
#[inline(always)]
pub fn remember(packet: Packet, route: Option<Route>) {
    // SAFETY: the program's own context.
    unsafe { fragment_remember(packet.raw(), Route::pack(route)) };
}

#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn fragment_remember(ctx: *mut xdp_md, route: u64) -> u32 {
    // SAFETY: the program's own context, by the contract of this function.
    let packet = unsafe { Packet::from_raw(ctx) };
    let Some(key) = key(packet) else { return 0 };
    let passed = Route { server: NONE, direction: Direction::Forward, place: NONE };
    let route = Route::unpack(route).unwrap_or(passed);
    let fragment = Fragment {
        place: route.place,
        word: word_of(route.place).map_or(0, |word| word.0),
        server: route.server,
        direction: route.direction as u32,
        seen: settings::now(),
        reserved: 0,
    };
    maps::remember_fragment(&key, &fragment).into()
}

#[inline(always)]
fn key(packet: Packet) -> Option<FragmentKey> {
    let (window, _, ip) = parse::headers(packet).ok()?;
    let (id, proto) = if ip.v6 {
        // Later fragments of IPv6 do not always name the same protocol as the first, and need not be told apart by it.
        (ipv6::fragment_id(packet, window, ip.l3)?, 0)
    } else {
        (window.from(ip.l3).read::<u16>(4)? as u32, ip.proto as u32)
    };
    Some(FragmentKey { src: ip.src, dst: ip.dst, id, proto })
}
