//! The connection table for readers in other threads.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use lb_common::{
    conn::{Clock, State as ConnState},
    ip_proto,
    server::Forwarding,
};

use super::conntable::{self, Listed as Entry};
use crate::{
    config::{Forward, Protocol},
    dataplane::Listed,
};

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
    /// Calls `each` for every connection; stops when that says false.
    pub fn each(&self, mut each: impl FnMut(Listed) -> bool) {
        self.each_entry(|entry, server| each(listed(entry, server, self.clock.seconds(entry.expires))));
    }

    /// The same as the table has them.
    pub fn each_entry(&self, mut each: impl FnMut(&Entry, &lb_common::server::Server) -> bool) {
        self.memory.list(self.now, |entry| match self.servers.get(&entry.server) {
            Some(server) => each(&entry, server),
            None => true,
        });
    }
}

fn listed(found: &Entry, server: &lb_common::server::Server, expires: u32) -> Listed {
    let key = &found.key;
    let port = if server.port.is_any() { key.dport } else { server.port };
    Listed {
        protocol: if key.proto == u32::from(ip_proto::TCP) { Protocol::Tcp } else { Protocol::Udp },
        expires,
        state: ConnState::name(found.state).into(),
        client: SocketAddr::new(key.src.to_ip(), key.sport.number()),
        virtual_address: SocketAddr::new(key.dst.to_ip(), key.dport.number()),
        real: SocketAddr::new(server.addr.to_ip(), port.number()),
        forward: match server.forwarding {
            f if f == Forwarding::Nat as u8 => Forward::Nat,
            f if f == Forwarding::Dr as u8 => Forward::Dr,
            _ => Forward::Tun,
        },
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
