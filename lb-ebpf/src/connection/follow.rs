//! A packet of a flow that is known: its connection goes on, changes its state, ends, or moves.

use lb_common::{
    Event, Verdict,
    conn::{Direction, NONE, Side, State, Word, age, is_active, may_be_reused, tcp_flag, tcp_next},
    server::{Server, server_flag},
};

use super::{FAILED, Route, unpack_opened};
use crate::{
    maps,
    pipeline::Step,
    service, settings, stats,
    table::{self, Place},
};

/// Follows the connection in a flow's place.
///
/// # Errors
/// [`Step::Open`] when the connection is over, or its real server's flags want to be looked at first;
/// [`Verdict::DropServerGone`]; [`Verdict::PassStandby`].
#[inline(always)]
pub fn follow(place: Place, flags: u8, now: u32) -> Result<(Route, &'static Server), Step> {
    let word = place.word();
    let route = Route { server: place.server(), direction: place.meta().direction(), place: place.index };
    let server = server_of(&route)?;
    may_serve(&route, server)?;
    // This path ends here: the verifier would look at all that follows once more.
    if server.flags & server_flag::SPECIAL != 0 {
        return Err(Step::Open { known: true });
    }
    let Some(last_seen) = go_on(place, word, flags, now) else { return Err(Step::Open { known: false }) };
    place.touch(last_seen, now);
    Ok((route, server))
}

/// [`follow`] for first fragments, and for flows whose real server is gone or drains. `None`: the flow has no connection
/// (any more).
///
/// # Errors
/// [`Verdict::DropServerGone`]; [`Verdict::PassStandby`].
#[inline(always)]
pub fn follow_slowly(index: u32, flags: u8, now: u32) -> Result<Option<Route>, Verdict> {
    match connection_follow(index, flags.into(), now) {
        Route::NONE => Ok(None),
        word => unpack_opened(word).map(Some),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn connection_follow(index: u32, flags: u32, now: u32) -> u64 {
    match try_follow(index, flags as u8, now) {
        Ok(route) => Route::pack(route),
        Err(verdict) => FAILED | verdict as u64,
    }
}

#[inline(always)]
fn try_follow(index: u32, flags: u8, now: u32) -> Result<Option<Route>, Verdict> {
    let Some(place) = Place::at(index) else { return Ok(None) };
    let word = place.word();
    let route = Route { server: place.server(), direction: place.meta().direction(), place: place.index };
    if let Some(server) = maps::server(route.server) {
        // Before anything else: what is not served changes nothing.
        may_serve(&route, server)?;
    }
    let Some(last_seen) = go_on(place, word, flags, now) else { return Ok(None) };
    let server = server_of(&route)?;
    if server.flags & server_flag::SPECIAL != 0 && !stays(&route, server.flags, word.state())? {
        return Ok(None);
    }
    // Last: what is dropped lets nobody live longer.
    place.touch(last_seen, now);
    Ok(Some(route))
}

/// A packet came for the connection of which `word` was read before anything else: when the last one did, or `None` if the
/// connection is over.
#[inline(always)]
fn go_on(place: Place, word: Word, flags: u8, now: u32) -> Option<u32> {
    const CHANGES: u8 = tcp_flag::FIN | tcp_flag::SYN | tcp_flag::RST;
    let state = word.state();
    let last_seen = place.last_seen();
    if age(now, last_seen) > settings::timeout(state) && !revive(place.index, now) {
        return None;
    }
    let is_quiet = state == State::Established as u8 && flags & CHANGES == 0;
    if !is_quiet && state != State::Udp as u8 && !advance(place.index, flags) {
        return None;
    }
    // The place may have been given to another connection while it was read.
    if place.word().same_generation(word) { Some(last_seen) } else { None }
}

/// The real server of a route.
///
/// # Errors
/// [`Verdict::DropServerGone`] when its entry is not in use.
#[inline(always)]
pub fn server_of(route: &Route) -> Result<&'static Server, Verdict> {
    match maps::server(route.server) {
        Some(server) if server.forwarding != 0 => Ok(server),
        _ => Err(Verdict::DropServerGone),
    }
}

/// Whether packets may take this route now. Those to a server may not while its virtual server is on standby: another director
/// serves it, and the connection waits here as it is. Answers are translated all the same, as IPVS does: those that were
/// under way when the role went would otherwise reach the client from an address that it does not know, and it would end
/// the connection.
///
/// # Errors
/// [`Verdict::PassStandby`].
#[inline(always)]
pub fn may_serve(route: &Route, server: &Server) -> Result<(), Verdict> {
    if route.direction as u32 == Direction::Forward as u32 && service::is_on_standby(server.role) {
        return Err(Verdict::PassStandby);
    }
    Ok(())
}

/// The same for what goes with a connection but is none of its own packets: an ICMP error, a later fragment.
///
/// # Errors
/// [`Verdict::PassStandby`]; [`Verdict::DropServerGone`], also when the way leads to a server that is gone.
#[inline(always)]
pub fn living_server_of(route: &Route) -> Result<&'static Server, Verdict> {
    let server = server_of(route)?;
    may_serve(route, server)?;
    if server.flags & server_flag::GONE != 0 && route.direction as u32 == Direction::Forward as u32 {
        return Err(Verdict::DropServerGone);
    }
    Ok(server)
}

/// Whether a packet of a known flow goes to the real server of its connection although that is gone or drains; else the
/// connection has been ended.
#[inline(always)]
fn stays(route: &Route, flags: u8, state: u8) -> Result<bool, Verdict> {
    // A server that failed a check may still finish what it had begun.
    if route.direction as u32 == Direction::Reverse as u32 {
        return Ok(true);
    }
    if flags & server_flag::GONE != 0 {
        if flags & server_flag::KEEP != 0 {
            return Err(Verdict::DropServerGone);
        }
    } else if flags & server_flag::NO_NEW == 0 || state != State::Udp as u8 {
        return Ok(true);
    }
    connection_leave(route.place, route.server);
    Ok(false)
}

/// Ends the connection of a forward place if its real server still is this one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn connection_leave(index: u32, server: u32) -> u32 {
    if let Some(place) = Place::at(index)
        && place.server() == server
        && table::remove(index)
    {
        stats::count_event(Event::ConnectionMoved);
    }
    0
}

/// A connection whose time seems over lives if its other direction does; else it is removed.
#[inline(always)]
fn revive(index: u32, now: u32) -> bool {
    connection_revive(index, now) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn connection_revive(index: u32, now: u32) -> u32 {
    let Some(place) = Place::at(index) else { return 0 };
    let forward = if is_reverse(place) { table::forward_of(index) } else { index };
    let Some(forward) = Place::at(forward) else { return 0 };
    if !table::is_over(forward, now) {
        return (forward.word().state() != State::Free as u8).into();
    }
    if table::remove(forward.index) {
        stats::count_event(Event::ConnectionExpired);
    }
    0
}

#[inline(always)]
fn is_reverse(place: Place) -> bool {
    place.meta().direction() as u32 == Direction::Reverse as u32
}

/// Moves TCP's state on. False when the segment begins a new connection in the place of this one, which is then
/// removed.
#[inline(always)]
fn advance(index: u32, flags: u8) -> bool {
    connection_advance(index, flags.into()) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn connection_advance(index: u32, flags: u32) -> u32 {
    let flags = flags as u8;
    let Some(place) = Place::at(index) else { return 0 };
    let reverse = is_reverse(place);
    // A reverse place without its forward one is an orphan: its connection was removed a moment ago.
    let Some(forward) = Place::at(if reverse { table::forward_of(index) } else { index }) else { return 0 };
    let side = match (reverse, forward.peer()) {
        (true, _) => Side::Output,
        (false, NONE) => Side::InputOnly,
        (false, _) => Side::Input,
    };
    let word = forward.word();
    let state = word.state();
    if state == State::Free as u8 {
        return 0;
    }
    let is_new = flags & (tcp_flag::SYN | tcp_flag::RST | tcp_flag::ACK) == tcp_flag::SYN;
    if is_new && !reverse {
        let reused = may_be_reused(state, side as u32 == Side::InputOnly as u32);
        if reused || moves_at_syn(forward.server(), state) {
            if table::remove(forward.index) {
                stats::count_event(if reused { Event::ConnectionReused } else { Event::ConnectionMoved });
            }
            return 0;
        }
    }
    let next = tcp_next(state, side, flags);
    if next != state && forward.change(word, word.with_state(next)) {
        move_counts(forward.server(), is_active(state), is_active(next));
    }
    // The reverse place carries a copy of the state, so that packets of both directions know when nothing happens.
    let copy = if reverse { Some(place) } else { forward.true_peer() };
    if let Some(copy) = copy {
        let word = copy.word();
        if word.state() != next && word.state() != State::Free as u8 {
            copy.change(word, word.with_state(next));
        }
    }
    1
}

#[inline(always)]
fn moves_at_syn(server: u32, state: u8) -> bool {
    maps::server(server).is_some_and(|server| server_flag::moves_at_syn(server.flags, is_active(state)))
}

#[inline(always)]
fn move_counts(server: u32, was_active: bool, is_active: bool) {
    if was_active == is_active {
        return;
    }
    if let Some(load) = maps::load(server) {
        let (from, to) = if was_active { (load.active, load.inactive) } else { (load.inactive, load.active) };
        from.fetch_add(u32::MAX);
        to.fetch_add(1);
    }
}
