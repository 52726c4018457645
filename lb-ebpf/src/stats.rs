//! Counters: one for every verdict and event, and five for every real server.

use lb_common::{Event, verdict::SLOTS};

use crate::maps;

#[inline(always)]
fn count(slot: u32) {
    if let Some(counters) = maps::counters()
        && let Some(counter) = counters.0.get_mut(slot as usize & (SLOTS - 1))
    {
        *counter += 1;
    }
}

/// Counts what became of a packet, by the slot of its verdict.
#[inline(always)]
pub fn count_verdict(slot: u32) {
    count(slot);
}

/// Counts something that happened besides.
#[inline(always)]
pub fn count_event(event: Event) {
    count(event as u32);
}

/// Counts a packet of `bytes` (layer 3) from a client to the real server.
#[inline(always)]
pub fn count_in(server: u32, bytes: u32) {
    if let Some(stats) = maps::server_stats(server) {
        stats.packets_in += 1;
        stats.bytes_in += bytes as u64;
    }
}

/// Counts a packet of `bytes` (layer 3) from the real server to a client.
#[inline(always)]
pub fn count_out(server: u32, bytes: u32) {
    if let Some(stats) = maps::server_stats(server) {
        stats.packets_out += 1;
        stats.bytes_out += bytes as u64;
    }
}

/// Counts a connection that was scheduled to the real server.
#[inline(always)]
pub fn count_connection(server: u32) {
    if let Some(stats) = maps::server_stats(server) {
        stats.connections += 1;
    }
}
