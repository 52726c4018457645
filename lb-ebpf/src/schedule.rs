//! Choosing a real server for a new connection. The formulas are those of `lb_common::schedule`.

use lb_common::{
    Addr, FlowHash, Port,
    conn::NONE,
    schedule::{addr_fold, lc_better, mh_hash, mh_probe, mh_slot, overhead, sh_hash, wlc_better},
    service::{MAX_FALLBACK, MAX_LEAST_CONNECTION_SERVERS, Method, Service, service_flag},
};

use crate::maps;

/// The real server for a flow from (client, port), or [`NONE`].
///
/// `stateless`: the flow has no place in the connection table, so that every packet of it comes here; all of them get the
/// same answer as long as the weights stay.
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
    match service.method {
        m if m == Method::SourceHash as u8 => slot(service, sh_hash(client, port) as u32),
        m if m == Method::Maglev as u8 => maglev(service, client, port),
        _ if stateless_slot != NONE => {
            if stateless_slot >= service.stateless_len {
                return NONE;
            }
            maps::slot(service.stateless_base + stateless_slot).unwrap_or(NONE)
        }
        m if m == Method::Cycle as u8 => next_in_cycle(service),
        m if m == Method::LeastConnection as u8 => schedule_least(service.slots_base, service.slots_len, 0),
        _ => schedule_least(service.slots_base, service.slots_len, 1),
    }
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
fn next_in_cycle(service: &Service) -> u32 {
    if service.slots_len == 0 {
        return NONE;
    }
    match maps::cursor(service.index) {
        Some(cursor) => slot(service, cursor.fetch_add(1) % service.slots_len),
        None => NONE,
    }
}

#[inline(always)]
fn maglev(service: &Service, client: u32, port: u16) -> u32 {
    let size = service.slots_len;
    if size == 0 {
        return NONE;
    }
    let first = mh_slot(mh_hash(client, port, 0), size);
    let server = slot(service, first);
    if server != NONE || service.flags & service_flag::FALLBACK == 0 {
        return server;
    }
    match schedule_maglev_fallback(service.slots_base, size, client, port.into(), first) {
        // The kernel searches on until it has tried as many slots as there are; here, with half of the servers gone, one
        // client in four billion comes to this end and gets any server.
        NONE if service.stateless_len > 0 => {
            maps::slot(service.stateless_base + first % service.stateless_len).unwrap_or(NONE)
        }
        server => server,
    }
}

/// mh-fallback: other slots for the same client, until one has a server.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn schedule_maglev_fallback(base: u32, size: u32, client: u32, port: u32, first: u32) -> u32 {
    for attempt in 0..MAX_FALLBACK {
        if let Some(server) = maps::slot(base + mh_probe(client, port as u16, first, attempt, size))
            && server != NONE
        {
            return server;
        }
    }
    NONE
}

/// lc and wlc: the first of the servers with the least load, among `len` slots from `base`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn schedule_least(base: u32, len: u32, weighted: u32) -> u32 {
    let (mut best, mut best_overhead, mut best_weight) = (NONE, 0, 0);
    for i in 0..MAX_LEAST_CONNECTION_SERVERS {
        if i >= len {
            break;
        }
        let Some(server) = maps::slot(base + i) else { break };
        let Some(load) = maps::load(server) else { continue };
        let weight = load.weight.load();
        if weight == 0 {
            continue;
        }
        let overhead = overhead(load.active.load(), load.inactive.load());
        let better = if best == NONE {
            true
        } else if weighted == 0 {
            lc_better(overhead, best_overhead)
        } else {
            wlc_better(overhead, weight, best_overhead, best_weight)
        };
        if better {
            (best, best_overhead, best_weight) = (server, overhead, weight);
        }
    }
    best
}
