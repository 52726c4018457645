//! Bringing in, changing and taking out one virtual server: first what it needs is taken, then written, then named.

use std::{collections::BTreeSet, mem::offset_of, net::Ipv4Addr, sync::atomic::Ordering::SeqCst};

use anyhow::Context as _;
use aya::maps::PerCpuValues;
use lb_common::{
    Addr,
    filter::Role,
    server::{self, Load, ServerStats, server_flag},
    service::{self, Cursor, ServiceKey},
};

use super::{super::layout::Layout, Gone, Hop, Ident, Placed, Tables, entries, number_at};
use crate::{
    config::Forward,
    desired::{Server, Service, ServiceId},
};

/// What a change takes before it writes anything; given back when it fails.
#[derive(Default)]
pub(super) struct Reserved {
    pub(super) index: u32,
    pub(super) numbers: Vec<u32>,
    /// Those of `numbers` that were free before.
    pub(super) fresh: BTreeSet<u32>,
    pub(super) slots: (u32, u32),
    pub(super) stateless: (u32, u32),
}

impl Tables {
    pub(super) fn reserve(
        &mut self,
        id: &ServiceId,
        service: &Service,
        plan: &Layout,
    ) -> anyhow::Result<Reserved> {
        let index = match self.placed.get(id) {
            Some(old) => old.index,
            None => self.free_services.take(1).context("no room for another virtual server")?,
        };
        let mut reserved = Reserved { index, ..Reserved::default() };
        let mut done = self.reserve_rest(id, service, plan, &mut reserved);
        if done.is_err() && !self.old_slots.is_empty() {
            // Rather a packet that is scheduled wrongly, should one be under way that long, than no change.
            self.give_back(id, &reserved);
            self.free_old_slots(|_| true);
            reserved = Reserved { index, ..Reserved::default() };
            if !self.placed.contains_key(id) {
                reserved.index = self.free_services.take(1).context("no room for another virtual server")?;
            }
            done = self.reserve_rest(id, service, plan, &mut reserved);
        }
        if let Err(error) = done {
            self.give_back(id, &reserved);
            return Err(error);
        }
        Ok(reserved)
    }

    pub(super) fn reserve_rest(
        &mut self,
        id: &ServiceId,
        service: &Service,
        plan: &Layout,
        reserved: &mut Reserved,
    ) -> anyhow::Result<()> {
        let known = self.known_numbers(id);
        for server in &service.servers {
            let number = match self.number_of(&known, id, server) {
                Some(number) => number,
                None => {
                    let number = self.free_servers.take(1).context("no room for another real server")?;
                    reserved.fresh.insert(number);
                    number
                }
            };
            reserved.numbers.push(number);
        }
        let mut range = |len: usize| {
            let len = u32::try_from(len)?;
            let base =
                self.free_slots.take(len).context("no room for the slots of another virtual server")?;
            anyhow::Ok((base, len))
        };
        reserved.slots = range(plan.slots.len())?;
        reserved.stateless = range(plan.stateless.len())?;
        Ok(())
    }

    /// Undoes [`Self::reserve`] and what [`Self::write`] has done of it.
    pub(super) fn give_back(&mut self, id: &ServiceId, reserved: &Reserved) {
        for &number in &reserved.fresh {
            if let Some(entry) = self.server(number) {
                self.remove_nat(id, &entry, number);
                self.forget(entry.addr.to_ip(), number);
            } else {
                self.free_servers.give(number, 1);
            }
        }
        self.free_slots.give(reserved.slots.0, reserved.slots.1);
        self.free_slots.give(reserved.stateless.0, reserved.stateless.1);
        if !self.placed.contains_key(id) {
            self.free_services.give(reserved.index, 1);
        }
    }

    pub(super) fn write(
        &mut self,
        id: &ServiceId,
        service: &Service,
        last_weights: &[u32],
        plan: &Layout,
        reserved: &Reserved,
        entry: service::Service,
    ) -> anyhow::Result<()> {
        for (server, &number) in service.servers.iter().zip(&reserved.numbers) {
            if reserved.fresh.contains(&number) {
                self.clear_counts(number)?;
            }
            if server.forward == Forward::Nat {
                self.mark(Addr::from_ip(server.address), Role::NatServer);
                self.maps.nat_servers.insert(entries::nat_key(id, server), number, 0)?;
            }
        }
        // Who gets connections, or more of them, must be there before the entry names it; who gets none any more goes after that:
        // so that there always is somebody.
        let (late, early): (Vec<_>, Vec<_>) = (0..service.servers.len())
            .partition(|&position| entries::weight(&service.servers[position]) == 0);
        let write_server = |tables: &mut Self, position: usize| {
            let (server, number) = (&service.servers[position], reserved.numbers[position]);
            tables.write_server(
                id,
                service,
                server,
                (position, last_weights[position]),
                reserved.index,
                number,
            );
        };
        early.into_iter().for_each(|position| write_server(self, position));
        self.write_slots(reserved.slots, &plan.slots, &reserved.numbers);
        self.write_slots(reserved.stateless, &plan.stateless, &reserved.numbers);
        if !self.placed.contains_key(id) {
            let cursor = self.maps.cursors.word(reserved.index, offset_of!(Cursor, count));
            cursor.store(plan.first, SeqCst);
        }
        self.mark(Addr::from_ip(id.address), Role::Virtual);
        self.maps.services.insert(entries::service_key(id), entry, 0)?;
        late.into_iter().for_each(|position| write_server(self, position));
        Ok(())
    }

    pub(super) fn write_server(
        &mut self,
        id: &ServiceId,
        service: &Service,
        server: &Server,
        (position, last_weight): (usize, u32),
        index: u32,
        number: u32,
    ) {
        let hop = self.addresses.hop(server.address);
        let old = self.server(number);
        let mut new = entries::server(id, service, server, index, hop.or(old.map(Hop::of)));
        new.position = u32::try_from(position).unwrap_or(u32::MAX);
        new.last_weight = last_weight;
        self.maps.servers.store(number, &new);
        self.addresses.add(server.address, number);
        let load = |field: usize| self.maps.loads.word(number, field);
        let before = load(offset_of!(Load, upper)).swap(server.upper_threshold, SeqCst);
        if server.upper_threshold == 0 || server.upper_threshold > before {
            // A higher threshold counts at once, as with IPVS.
            load(offset_of!(Load, overloaded)).store(0, SeqCst);
        }
        load(offset_of!(Load, lower)).store(server.lower_threshold, SeqCst);
        load(offset_of!(Load, weight)).store(entries::weight(server), SeqCst);
    }

    /// Writes positions as server numbers into slots of their own.
    pub(super) fn write_slots(&self, range: (u32, u32), positions: &[Option<usize>], numbers: &[u32]) {
        for (slot, position) in (range.0..).zip(positions) {
            self.maps.slots.word(slot, 0).store(number_at(*position, numbers), SeqCst);
        }
    }

    /// A number that had another server begins at zero.
    pub(super) fn clear_counts(&mut self, number: u32) -> anyhow::Result<()> {
        if self.maps.servers.copy(number).addr == Addr::default() {
            // It has never been used since the kernel made the maps.
            return Ok(());
        }
        self.maps.loads.store(number, &Load::default());
        let cpus = self.maps.stats.get(&number, 0)?.len();
        let zeros = PerCpuValues::try_from(vec![ServerStats::default(); cpus])?;
        self.maps.stats.set(number, zeros, 0)?;
        Ok(())
    }

    /// Takes out those servers of `old` that the virtual server no longer has.
    pub(super) fn take_out_missing(&mut self, id: &ServiceId, old: &Placed) {
        let Some(new) = self.placed.get(id) else { return };
        let expire = new.service.expire_nodest;
        let there: BTreeSet<u32> = new.numbers.iter().copied().collect();
        let missing: Vec<(Server, u32)> = old
            .service
            .servers
            .iter()
            .zip(&old.numbers)
            .filter(|(_, number)| !there.contains(number))
            .map(|(server, number)| (*server, *number))
            .collect();
        for (server, number) in missing {
            self.take_out(id, &server, number, expire);
        }
    }

    /// Servers that were taken out of a virtual server and still have connections serve them when it is served.
    pub(super) fn give_role_to_gone(&self, id: &ServiceId, role: u16) {
        let address = Ipv4Addr::UNSPECIFIED.into();
        let first = Ident { service: *id, address, port: 0, forward: Forward::Nat };
        for (_, gone) in self.gone.range(first..).take_while(|(ident, _)| ident.service == *id) {
            if let Some(mut entry) = self.server(gone.number).filter(|entry| entry.role != role) {
                entry.role = role;
                self.maps.servers.store(gone.number, &entry);
            }
        }
    }

    pub(super) fn take_out(&mut self, id: &ServiceId, server: &Server, number: u32, expire: bool) {
        if let Some(mut entry) = self.server(number) {
            self.remove_nat(id, &entry, number);
            entry.flags |= server_flag::GONE | server_flag::NO_NEW;
            entry.flags &= !(server_flag::KEEP | server_flag::LEAVING);
            if !expire {
                entry.flags |= server_flag::KEEP;
            }
            self.maps.servers.store(number, &entry);
        }
        self.gone.insert(Ident::of(id, server), Gone { number, empty_since: None });
    }

    /// Nobody translates answers of a server without a connection once it is gone, unless another virtual server has it too.
    pub(super) fn remove_nat(&mut self, id: &ServiceId, entry: &server::Server, number: u32) {
        let key = ServiceKey::new(entry.addr, entry.port, entries::proto(id.protocol));
        if !self.maps.nat_servers.get(&key, 0).is_ok_and(|there| there == number) {
            return;
        }
        let is_heir = |other: &u32| {
            *other != number
                && self.server(*other).is_some_and(|there| {
                    (there.port, there.proto, there.forwarding) == (entry.port, entry.proto, entry.forwarding)
                        && there.flags & server_flag::GONE == 0
                })
        };
        let heir = self.addresses.numbers(entry.addr.to_ip()).find(is_heir);
        // It was there a moment ago; if it is not any more, all is well. An update needs no new memory.
        let _ = match heir {
            Some(heir) => self.maps.nat_servers.insert(key, heir, 0),
            None => self.maps.nat_servers.remove(&key),
        };
    }
}
