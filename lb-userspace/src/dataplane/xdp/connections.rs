//! The connection table for readers in other threads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lb_common::conn::{Clock, State as ConnState};

use super::{Listed, conntable};

/// The connection table, for who only counts.
pub struct ConnectionCounts {
    pub(super) memory: Arc<conntable::Memory>,
    pub(super) clock: Clock,
    pub(super) now: u32,
}

/// The connection table and the servers that its connections name.
pub struct ConnectionList {
    pub(super) memory: Arc<conntable::Memory>,
    pub(super) servers: BTreeMap<u32, lb_common::server::Server>,
    pub(super) clock: Clock,
    pub(super) now: u32,
}

impl ConnectionList {
    /// Calls `each` for every connection, with its server and the seconds until it is forgotten; stops when that says
    /// false.
    pub fn each(&self, mut each: impl FnMut(Listed, &lb_common::server::Server, u32) -> bool) {
        self.memory.list(self.now, |listed| match self.servers.get(&listed.server) {
            Some(server) => each(listed, server, self.clock.seconds(listed.expires)),
            None => true,
        });
    }
}

/// A closing connection on which nothing has moved for so long is over, whatever the other side may not have said.
const CLOSED_AFTER: u32 = 5;

impl ConnectionCounts {
    /// How many connections of each of these servers are not over yet. One that was closed stays in the table for a while, for
    /// packets that come late; it is not counted.
    pub fn unfinished(&self, numbers: &BTreeSet<u32>) -> BTreeMap<u32, u64> {
        let mut counts: BTreeMap<u32, u64> = numbers.iter().map(|number| (*number, 0)).collect();
        self.memory.list(self.now, |listed| {
            let is_over = match listed.state {
                ConnState::TimeWait | ConnState::Close | ConnState::LastAck => true,
                ConnState::FinWait | ConnState::CloseWait => {
                    self.clock.seconds(listed.silent) >= CLOSED_AFTER
                }
                _ => false,
            };
            if let (false, Some(count)) = (is_over, counts.get_mut(&listed.server)) {
                *count += 1;
            }
            true
        });
        counts
    }
}
