//! Choosing a real server for a new connection. The formulas are those of `lb_common::schedule`.

use lb_common::{
    Addr, FlowHash, Port,
    conn::NONE,
    schedule::{
        SH_SLOTS, addr_fold, is_overloaded, mh_hash, mh_probe, mh_slot, overhead, sh_hash, sh_probe,
        wlc_better,
    },
    service::{
        MAX_FALLBACK, MAX_LAST_PASS, MAX_LEAST_CONNECTION_SERVERS, MAX_PASSED_OVER, Method, Service,
        service_flag,
    },
};

use crate::maps::{self, LoadRef};

/// The real server for a flow from (client, port), or [`NONE`].
///
/// `stateless`: the flow has no place in the connection table, so that every packet of it comes here; all of them get the
/// same answer as long as the weights stay. For that reason it knows no thresholds.
#[inline(always)]
pub fn choose(service: &Service, hash: FlowHash, client: Addr, port: Port, stateless: bool) -> u32 {
    let stateless_slot = if stateless { hash.pick(service.stateless_len) } else { NONE };
    // SAFETY: a reference is a valid pointer.
    unsafe { schedule_choose(service, addr_fold(client), port.number().into(), stateless_slot) }
}

#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn schedule_choose(
    service: *const Service,
    client: u32,
    port: u32,
    stateless_slot: u32,
) -> u32 {
    // SAFETY: null or a virtual server, by the contract of this function.
    let Some(service) = (unsafe { service.as_ref() }) else { return NONE };
    let port = if service.flags & service_flag::HASH_PORT != 0 { port as u16 } else { 0 };
    let limited = stateless_slot == NONE && service.flags & service_flag::THRESHOLDS != 0;
    match service.method {
        m if m == Method::SourceHash as u8 => source_hash(service, client, port, limited),
        m if m == Method::Maglev as u8 => maglev(service, client, port, limited),
        _ if stateless_slot != NONE => {
            if stateless_slot >= service.stateless_len {
                return NONE;
            }
            maps::slot(service.stateless_base + stateless_slot).unwrap_or(NONE)
        }
        m if m == Method::Cycle as u8 => next_in_cycle(service, limited),
        m => {
            let weighted = if m == Method::LeastConnection as u8 { 0 } else { WEIGHTED };
            let how = weighted | if limited { LIMITED } else { 0 };
            schedule_least(service.slots_base, service.slots_len, how)
        }
    }
}

/// Looks whether a real server has as many connections as its threshold allows: 1 or 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn schedule_look(server: u32) -> u32 {
    let Some(load) = maps::load(server) else { return 0 };
    look(load).into()
}

/// The same of a load. Whoever enters a connection looks too, see [`is_overloaded`].
#[inline(always)]
pub fn look(load: LoadRef) -> bool {
    let upper = load.upper.load();
    if upper == 0 {
        return false;
    }
    let was = load.overloaded.load();
    let total = load.active.load().wrapping_add(load.inactive.load());
    let is = is_overloaded(total, upper, load.lower.load(), was != 0);
    // Written only when it changes, so that the line stays shared.
    if (was != 0) != is {
        load.overloaded.store(is.into());
    }
    is
}

/// The real server of a slot if it takes a connection, else [`NONE`]. For loops: a function of its own is one path to the
/// verifier, however often it is called.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn schedule_try(slot: u32, limited: u32) -> u32 {
    unless_overloaded(maps::slot(slot).unwrap_or(NONE), limited != 0)
}

/// The server if it takes a connection, else [`NONE`].
#[inline(always)]
fn unless_overloaded(server: u32, limited: bool) -> u32 {
    if limited && server != NONE && schedule_look(server) != 0 { NONE } else { server }
}

/// Whether the choice depends on the client alone, so that a director which does not know a connection (after a
/// failover, say) still finds its server.
#[inline(always)]
pub fn is_by_client(service: &Service) -> bool {
    service.method == Method::SourceHash as u8 || service.method == Method::Maglev as u8
}

/// The real server of a flow that has no place; `None` where every choice is by the client, or no server takes any.
#[inline(always)]
pub fn stateless_slot(service: &Service, hash: FlowHash) -> Option<u32> {
    if is_by_client(service) || service.stateless_len == 0 {
        return None;
    }
    maps::slot(service.stateless_base + hash.pick(service.stateless_len))
}

#[inline(always)]
fn slot(service: &Service, index: u32) -> u32 {
    if index >= service.slots_len {
        return NONE;
    }
    maps::slot(service.slots_base + index).unwrap_or(NONE)
}

/// rr and wrr: the agent laid out one cycle of choices.
#[inline(always)]
fn next_in_cycle(service: &Service, limited: bool) -> u32 {
    if service.slots_len == 0 {
        return NONE;
    }
    let Some(cursor) = maps::cursor(service.index) else { return NONE };
    let count = cursor.fetch_add(1);
    let server = slot(service, count % service.slots_len);
    if unless_overloaded(server, limited) != NONE || !limited {
        return server;
    }
    let found = schedule_pass_over(service.slots_base, service.slots_len, count);
    // As the kernel's walk does, the next choice goes on behind this one.
    cursor.fetch_add((found >> 32) as u32);
    found as u32
}

/// From the `count`-th choice of a cycle on: the first server that is not overloaded, or [`NONE`]; in the upper half how
/// many choices were passed over.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn schedule_pass_over(base: u32, len: u32, count: u32) -> u64 {
    let last_pass = if len < MAX_LAST_PASS { len } else { MAX_LAST_PASS };
    if last_pass == 0 {
        return NONE as u64;
    }
    for i in 0..MAX_PASSED_OVER + MAX_LAST_PASS {
        let at = count.wrapping_add(i);
        let index = if i < MAX_PASSED_OVER { at % len } else { len - 1 - at % last_pass };
        let server = schedule_try(base.wrapping_add(index), 1);
        if server != NONE {
            let passed = if i < MAX_PASSED_OVER { i } else { MAX_PASSED_OVER };
            return (passed as u64) << 32 | server as u64;
        }
    }
    NONE as u64
}

#[inline(always)]
fn source_hash(service: &Service, client: u32, port: u16, limited: bool) -> u32 {
    let first = sh_hash(client, port) as u32;
    let server = unless_overloaded(slot(service, first), limited);
    // Without thresholds the agent has put the result of the search into the slots.
    if server == NONE
        && limited
        && service.flags & service_flag::FALLBACK != 0
        && service.slots_len == SH_SLOTS as u32
    {
        return schedule_source_fallback(service.slots_base, first);
    }
    server
}

/// sh-fallback: other slots, until one has a server that takes the connection.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn schedule_source_fallback(base: u32, first: u32) -> u32 {
    for attempt in 0..SH_SLOTS as u32 {
        let server = schedule_try(base.wrapping_add(sh_probe(first, attempt)), 1);
        if server != NONE {
            return server;
        }
    }
    NONE
}

#[inline(always)]
fn maglev(service: &Service, client: u32, port: u16, limited: bool) -> u32 {
    let size = service.slots_len;
    if size == 0 {
        return NONE;
    }
    let first = mh_slot(mh_hash(client, port, 0), size);
    let server = unless_overloaded(slot(service, first), limited);
    if server != NONE || service.flags & service_flag::FALLBACK == 0 {
        return server;
    }
    let probe = (first as u64) << 32 | port as u64 | if limited { 1 << 16 } else { 0 };
    match schedule_maglev_fallback(service.slots_base, size, client, probe) {
        // The kernel searches on until it has tried as many slots as there are; here, with half of the servers gone, one
        // client in four billion comes to this end and gets any server.
        NONE if limited => schedule_pass_over(service.stateless_base, service.stateless_len, first) as u32,
        NONE if service.stateless_len > 0 => {
            maps::slot(service.stateless_base + first % service.stateless_len).unwrap_or(NONE)
        }
        server => server,
    }
}

/// mh-fallback: other slots for the same client, until one has a server. `probe`: the first slot (upper half), whether
/// thresholds count (bit 16), the port.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn schedule_maglev_fallback(base: u32, size: u32, client: u32, probe: u64) -> u32 {
    let (first, limited, port) = ((probe >> 32) as u32, (probe >> 16) as u32 & 1, probe as u16);
    for attempt in 0..MAX_FALLBACK {
        let server = schedule_try(base.wrapping_add(mh_probe(client, port, first, attempt, size)), limited);
        if server != NONE {
            return server;
        }
    }
    NONE
}

/// The best server so far.
#[repr(C)]
struct Best {
    overhead: u64,
    server: u32,
    weight: u32,
}

/// Bits of what the functions below are told.
const WEIGHTED: u32 = 1;
const LIMITED: u32 = 2;

/// lc and wlc: the first of the servers with the least load, among `len` slots from `base`. lc is wlc with weights of 1.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn schedule_least(base: u32, len: u32, how: u32) -> u32 {
    // Every server is better than none.
    let mut best = Best { overhead: u64::MAX, server: NONE, weight: 1 };
    for i in 0..MAX_LEAST_CONNECTION_SERVERS / AT_ONCE {
        let first = i * AT_ONCE;
        if first >= len {
            break;
        }
        // SAFETY: a reference is a valid pointer.
        unsafe { schedule_compare(&raw mut best, base.wrapping_add(first), len - first, how) };
    }
    best.server
}

/// How many servers one call compares: few enough for a verifier that takes no two ways through them for the same, enough for
/// the calls not to count.
const AT_ONCE: u32 = 8;
const _: () = assert!(MAX_LEAST_CONNECTION_SERVERS.is_multiple_of(AT_ONCE));

/// Takes the servers of the next slots, of which `left` are left, for the best one if they are better. A function of its own
/// for the loop: the verifier knows every round by its number, and would follow each anew with all that was found before.
/// It knows nothing of what stands behind a pointer that a function was given, so the best server stays there.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn schedule_compare(best: *mut Best, slot: u32, left: u32, how: u32) -> u32 {
    if best.is_null() {
        return 0;
    }
    for i in 0..AT_ONCE {
        if i >= left {
            break;
        }
        let Some(server) = maps::slot(slot.wrapping_add(i)) else { continue };
        if how & LIMITED != 0 && schedule_look(server) != 0 {
            continue;
        }
        let Some(load) = maps::load(server) else { continue };
        let weight = load.weight.load();
        if weight == 0 {
            continue;
        }
        // 1 for lc, without a branch.
        let weight = (weight - 1).wrapping_mul(how & WEIGHTED) + 1;
        let overhead = overhead(load.active.load(), load.inactive.load());
        // SAFETY: the best server so far, by the contract of this function. Volatile, or the compiler would keep it in registers.
        unsafe {
            let old = best.read_volatile();
            if wlc_better(overhead, weight, old.overhead, old.weight) {
                best.write_volatile(Best { overhead, server, weight });
            }
        }
    }
    0
}
