//! The counters of real servers, which stand in a map once for every CPU.

use std::{collections::BTreeMap, os::fd::OwnedFd, sync::Arc};

use anyhow::Context as _;
use lb_common::server::{Server, ServerStats, server_flag};

use super::{mapped::Mapped, syscall, tables};

/// Reads all counters, in any thread: with a hundred thousand servers that takes too long for the agent's loop.
pub struct StatsReader {
    map: OwnedFd,
    servers: Arc<Mapped<Server>>,
    /// One more than the highest number that a server ever had.
    end: u32,
}

impl StatsReader {
    /// Of all servers below the number `end`.
    pub fn new(map: OwnedFd, servers: Arc<Mapped<Server>>, end: u32) -> Self {
        Self { map, servers, end }
    }

    /// The counters of each server, summed over all CPUs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn read(self) -> anyhow::Result<BTreeMap<u32, ServerStats>> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).context("cannot count the CPUs")?;
        let size = size_of::<ServerStats>();
        let mut all = vec![ServerStats::default(); self.end as usize];
        syscall::each(&self.map, size * cpus, |number: u32, value| {
            let Some(slot) = all.get_mut(number as usize) else { return false };
            // SAFETY: each part is as long as a `ServerStats`, of which any bytes are one.
            let each = value
                .chunks_exact(size)
                .map(|part| unsafe { part.as_ptr().cast::<ServerStats>().read_unaligned() });
            *slot = each.fold(ServerStats::default(), add);
            number + 1 < self.end
        })?;
        let is_there = |number: &u32| {
            tables::in_use(&self.servers, *number)
                .is_some_and(|server| server.flags & server_flag::CHECK == 0)
        };
        Ok((0..self.end).filter(is_there).map(|number| (number, all[number as usize])).collect())
    }
}

/// The sum over all CPUs.
pub fn sum<'a>(cpus: impl Iterator<Item = &'a ServerStats>) -> ServerStats {
    cpus.copied().fold(ServerStats::default(), add)
}

fn add(sum: ServerStats, part: ServerStats) -> ServerStats {
    ServerStats {
        connections: sum.connections + part.connections,
        packets_in: sum.packets_in + part.packets_in,
        bytes_in: sum.bytes_in + part.bytes_in,
        packets_out: sum.packets_out + part.packets_out,
        bytes_out: sum.bytes_out + part.bytes_out,
    }
}
