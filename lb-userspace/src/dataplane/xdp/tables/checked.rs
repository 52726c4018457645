//! Entries by which health checks reach real servers, whatever the schedule says: also those that are down, drain, or have no
//! weight. They stand in no slots, and what is counted for them is shown nowhere.

use std::collections::BTreeMap;

use lb_common::{
    filter::Role,
    server::{self, server_flag},
};

use super::{Gone, Ident, Tables, entries};
use crate::{
    config::{Forward, Scheduler, SchedulerFlags, Tunnel},
    desired::{Server, ServerId, Service},
};

/// The numbers of the entries for checks.
#[derive(Default)]
pub struct Checked {
    here: BTreeMap<Ident, u32>,
    /// Not wanted any more; a check may still be under way.
    gone: BTreeMap<Ident, Gone>,
}

impl Checked {
    /// All numbers.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.here.values().copied().chain(self.gone.values().map(|gone| gone.number))
    }

    /// Takes what other maps hold.
    pub fn take(&mut self, other: &Self) {
        self.here.extend(&other.here);
        let gone = other.gone.iter();
        self.gone.extend(gone.map(|(ident, gone)| (*ident, Gone { number: gone.number, empty_since: None })));
    }
}

impl Tables {
    /// Makes entries for these real servers, and takes out those of others. Gives the numbers of those for which there is room.
    pub fn set_checked(&mut self, wanted: &BTreeMap<ServerId, Forward>) -> BTreeMap<ServerId, u32> {
        let mut old = std::mem::take(&mut self.checked.here);
        let mut numbers = BTreeMap::new();
        for (id, &forward) in wanted {
            let ident = Ident { service: id.service, address: id.address, port: id.port, forward };
            let known =
                old.remove(&ident).or_else(|| self.checked.gone.remove(&ident).map(|gone| gone.number));
            let Some(number) = known.or_else(|| self.free_servers.take(1)) else { continue };
            if known.is_none()
                && let Err(error) = self.clear_counts(number)
            {
                tracing::error!("cannot clear the counters of server {number}: {error:#}");
            }
            self.write_checked(number, id, forward);
            self.checked.here.insert(ident, number);
            numbers.insert(*id, number);
        }
        for (ident, number) in old {
            let mut entry = self.maps.servers.copy(number);
            entry.flags |= server_flag::GONE | server_flag::NO_NEW;
            self.maps.servers.store(number, &entry);
            self.checked.gone.insert(ident, Gone { number, empty_since: None });
        }
        numbers
    }

    fn write_checked(&mut self, number: u32, id: &ServerId, forward: Forward) {
        let (address, port) = (id.address, id.port);
        let server = Server {
            address,
            port,
            forward,
            weight: 1,
            tunnel: Tunnel::IPIP,
            is_leaving: false,
            upper_threshold: 0,
            lower_threshold: 0,
        };
        // Of its virtual server only what a server of weight 0 would do matters here.
        let service = Service {
            scheduler: Scheduler::Rr,
            flags: SchedulerFlags::default(),
            persistence: None,
            one_packet: false,
            expire_nodest: true,
            expire_quiescent: false,
            // Servers are checked on standby too.
            role: 0,
            servers: Vec::new(),
        };
        let old = self.server(number).map(entries::Hop::of);
        let hop = self.addresses.hop(address).or(old);
        let mut entry = entries::server(&id.service, &service, &server, u32::MAX, hop);
        entry.flags |= server_flag::CHECK;
        self.maps.servers.store(number, &entry);
        self.addresses.add(address, number);
        self.mark(entry.vip, Role::Virtual);
        // Without NAT the answers come from the virtual server's address.
        self.mark(if forward == Forward::Nat { entry.addr } else { entry.vip }, Role::NatServer);
    }

    /// Takes back the entries that an earlier agent, or an earlier load of this one, has made.
    pub(super) fn adopt_checked(&mut self) {
        for number in 0..self.maps.servers.len() {
            let Some(entry) = self.server(number).filter(is_checked) else { continue };
            let back = entries::server_back(&entry, &self.maps.loads, number);
            let protocol = entries::protocol_back(entry.proto);
            let (Some(server), Some(protocol)) = (back, protocol) else { continue };
            let service = crate::desired::ServiceId {
                address: entry.vip.to_ip(),
                port: entry.vport.number(),
                protocol,
            };
            self.take_number(number, &entry);
            let ident = Ident::of(&service, &server);
            if entry.flags & server_flag::GONE == 0 {
                self.checked.here.insert(ident, number);
            } else {
                self.checked.gone.insert(ident, Gone { number, empty_since: None });
            }
        }
    }

    /// Frees entries without connections; as [`Self::collect`].
    pub(super) fn collect_checked(&mut self, passes: u64) {
        for (ident, number) in super::emptied(&mut self.checked.gone, &self.maps.loads, passes) {
            self.checked.gone.remove(&ident);
            self.forget(ident.address, number);
        }
    }
}

/// Whether an entry is for checks only.
pub fn is_checked(entry: &server::Server) -> bool {
    entry.flags & server_flag::CHECK != 0
}
