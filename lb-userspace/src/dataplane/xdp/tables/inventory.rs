//! Reading back from the maps what they hold: what an earlier agent left, and whether somebody else has changed it.

use std::{
    collections::{BTreeMap, HashMap},
    mem::offset_of,
    ops::Bound,
    sync::atomic::Ordering::SeqCst,
};

use anyhow::Context as _;
use aya::maps::PerCpuValues;
use lb_common::{
    Addr,
    filter::{Role, position},
    server::{self, Load, ServerStats, server_flag},
    service::{self, Cursor, ServiceKey},
};

use super::{
    super::{Sizes, mapped::Mapped, ranges::Ranges, syscall},
    Gone, Hold, Ident, Maps, Placed, Tables,
    answers::Answers,
    entries, hash_slots,
};
use crate::{
    dataplane::Audit,
    desired::{Server, ServiceId},
};

/// Smaller maps that were taken over, and what they counted then.
pub struct Outgrown {
    old: Tables,
    counts: Vec<Counted>,
}

/// What a real server had counted.
struct Counted {
    number: u32,
    load: Load,
    /// For each CPU.
    stats: Vec<ServerStats>,
}

impl Tables {
    /// Takes the maps as they are. What makes no sense in them is taken out.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn open(maps: Maps, sizes: Sizes, hold: Hold) -> anyhow::Result<Self> {
        let mut tables = Self {
            maps,
            placed: BTreeMap::new(),
            gone: BTreeMap::new(),
            checked: super::checked::Checked::default(),
            addresses: super::Addresses::default(),
            free_services: Ranges::new(sizes.services),
            free_servers: Ranges::new(sizes.servers),
            free_slots: Ranges::new(sizes.slots),
            old_slots: Vec::new(),
            next_audit: None,
        };
        if hold == Hold::Somebodys {
            tables.read_back()?;
        }
        Ok(tables)
    }

    fn read_back(&mut self) -> anyhow::Result<()> {
        let found = self.services_in_kernel()?;
        let mut servers = servers_by_service(&self.maps.servers);
        let mut senseless = Vec::new();
        for (key, entry) in &found {
            if !self.adopt(key, entry, &mut servers) {
                senseless.push(*key);
            }
        }
        if !senseless.is_empty() {
            tracing::warn!(
                "{} entries of the map of virtual servers make no sense and are removed",
                senseless.len()
            );
        }
        for key in senseless {
            super::remove_key(&mut self.maps.services, &key)?;
        }
        self.adopt_gone(servers);
        self.adopt_checked();
        Ok(())
    }

    /// Takes one virtual server with its real servers; false when it is not one.
    fn adopt(
        &mut self,
        key: &ServiceKey,
        entry: &service::Service,
        servers: &mut BTreeMap<u32, Vec<(u32, server::Server)>>,
    ) -> bool {
        let Some(id) = entries::id_back(key) else { return false };
        // The index of a virtual server that went may be another one's now; its servers are gone then.
        let is_here = |server: &server::Server| {
            server.flags & server_flag::GONE == 0 && (server.vip, server.vport) == (key.addr, key.port)
        };
        let all = servers.remove(&entry.index).unwrap_or_default();
        let (mut here, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, server)| is_here(server));
        servers.insert(entry.index, rest);
        here.sort_by_key(|(number, server)| (server.position, *number));
        let back: Option<Vec<Server>> = here
            .iter()
            .map(|(number, server)| entries::server_back(server, &self.maps.loads, *number))
            .collect();
        let Some(service) = back.and_then(|back| entries::service_back(entry, back)) else {
            return Self::give_up(servers, entry, here);
        };
        let (slots, stateless) =
            ((entry.slots_base, entry.slots_len), (entry.stateless_base, entry.stateless_len));
        if !self.free_services.take_at(entry.index, 1) {
            return Self::give_up(servers, entry, here);
        }
        if !self.free_slots.take_at(slots.0, slots.1) {
            self.free_services.give(entry.index, 1);
            return Self::give_up(servers, entry, here);
        }
        if !self.free_slots.take_at(stateless.0, stateless.1) {
            self.free_slots.give(slots.0, slots.1);
            self.free_services.give(entry.index, 1);
            return Self::give_up(servers, entry, here);
        }
        for (number, server) in &here {
            self.take_number(*number, server);
        }
        let last_weights: Vec<u32> = here.iter().map(|(_, server)| server.last_weight).collect();
        let numbers: Vec<u32> = here.iter().map(|(number, _)| *number).collect();
        // Not what the slots are but what they should be: an agent that died while it wrote them left a difference to find.
        let slots_hash = super::hash_of(&super::layout(&id, &service, &last_weights), &numbers);
        self.placed.insert(
            id,
            Placed {
                service,
                last_weights,
                index: entry.index,
                numbers,
                slots,
                stateless,
                entry: *entry,
                slots_hash,
            },
        );
        true
    }

    /// A virtual server that makes no sense; its servers' numbers stay taken as long as connections may have them.
    fn give_up(
        servers: &mut BTreeMap<u32, Vec<(u32, server::Server)>>,
        entry: &service::Service,
        here: Vec<(u32, server::Server)>,
    ) -> bool {
        servers.entry(entry.index).or_default().extend(here);
        false
    }

    /// Servers that no virtual server has any more: their connections may live.
    fn adopt_gone(&mut self, servers: BTreeMap<u32, Vec<(u32, server::Server)>>) {
        for (number, mut entry) in servers.into_values().flatten() {
            self.take_number(number, &entry);
            let server = entries::server_back(&entry, &self.maps.loads, number);
            let (Some(server), Some(protocol)) = (server, entries::protocol_back(entry.proto)) else {
                // Of another version: its number stays taken while these maps live.
                continue;
            };
            if entry.flags & server_flag::GONE == 0 {
                // An agent died while it brought this one in or took it out.
                entry.flags |= server_flag::GONE | server_flag::NO_NEW;
                self.maps.servers.store(number, &entry);
            }
            let service = ServiceId { address: entry.vip.to_ip(), port: entry.vport.number(), protocol };
            self.gone.insert(Ident::of(&service, &server), Gone { number, empty_since: None });
        }
    }

    pub(super) fn take_number(&mut self, number: u32, entry: &server::Server) {
        self.free_servers.take_at(number, 1);
        let address = entry.addr.to_ip();
        self.addresses.add(address, number);
        self.addresses.set_hop_if_unknown(address, entries::Hop::of(*entry));
    }

    /// Compares one of `parts` parts of the virtual servers with the maps; goes on where it stopped, or with 1 at the beginning.
    /// Removes what somebody else has added when it begins.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn audit(&mut self, parts: usize) -> anyhow::Result<Audit> {
        let from = self.next_audit.take().filter(|_| parts > 1);
        // All of the map in a few system calls, or each entry by one of its own.
        let whole = match from {
            None => Some(self.remove_strangers()?),
            Some(_) => None,
        };
        let answers = match parts {
            1 => Some(Answers::read(&self.maps.nat_servers_fd, &self.maps.servers)?),
            _ => None,
        };
        let count = self.placed.len().div_ceil(parts.max(1)).max(1);
        let mut rest = self.placed.range((from.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded));
        let mut audit = Audit::default();
        for (id, placed) in rest.by_ref().take(count) {
            let key = entries::service_key(id);
            let there = match &whole {
                Some(whole) => whole.get(&key).copied(),
                None => self.maps.services.get(&key, 0).ok(),
            };
            if there != Some(placed.entry) || !self.is_whole(id, placed, answers.as_ref()) {
                audit.damaged.insert(*id);
            }
            audit.looked_at.push(*id);
        }
        self.next_audit = rest.next().map(|(id, _)| *id);
        Ok(audit)
    }

    /// Takes out what nobody here has written; gives all that is there.
    fn remove_strangers(&mut self) -> anyhow::Result<HashMap<ServiceKey, service::Service>> {
        let is_ours =
            |key: &ServiceKey| entries::id_back(key).is_some_and(|id| self.placed.contains_key(&id));
        let found = self.services_in_kernel()?;
        let strangers: Vec<ServiceKey> =
            found.iter().map(|(key, _)| *key).filter(|key| !is_ours(key)).collect();
        if !strangers.is_empty() {
            tracing::warn!(
                "removed {} virtual servers that somebody else had put into the map",
                strangers.len()
            );
        }
        for key in strangers {
            super::remove_key(&mut self.maps.services, &key)?;
        }
        Ok(found.into_iter().collect())
    }

    /// Whether the servers and slots of a virtual server are as they were written.
    fn is_whole(&self, id: &ServiceId, placed: &Placed, answers: Option<&Answers>) -> bool {
        if self.slots_hash(&placed.entry) != placed.slots_hash {
            return false;
        }
        let filter_has = |addr: Addr, role: Role| {
            let (word, bit) = position(addr, role);
            self.maps.filter.cell(word).load(SeqCst) & bit != 0
        };
        if !filter_has(Addr::from_ip(id.address), Role::Virtual) {
            return false;
        }
        let nat = crate::config::Forward::Nat;
        if placed.service.servers.iter().any(|server| {
            server.forward == nat && !filter_has(Addr::from_ip(server.address), Role::NatServer)
        }) {
            return false;
        }
        placed.service.servers.iter().zip(&placed.numbers).enumerate().all(|(place, (server, &number))| {
            let there = self.maps.servers.copy(number);
            let hop = self.addresses.hop(server.address).unwrap_or(entries::Hop::of(there));
            let mut wanted = entries::server(id, &placed.service, server, placed.index, Some(hop));
            wanted.position = u32::try_from(place).unwrap_or(u32::MAX);
            wanted.last_weight = placed.last_weights[place];
            let load = self.maps.loads.copy(number);
            there == wanted
                && load.weight == entries::weight(server)
                && (load.upper, load.lower) == (server.upper_threshold, server.lower_threshold)
                && (answers.is_some_and(|answers| answers.lead_to(number)) || self.has_way_back(id, server))
        })
    }

    /// Whether the answers of a NAT server that belong to no connection are found to be one's. Another virtual server with the
    /// same real server will do.
    fn has_way_back(&self, id: &ServiceId, server: &Server) -> bool {
        if server.forward != crate::config::Forward::Nat {
            return true;
        }
        let key = entries::nat_key(id, server);
        let (word, bit) = position(key.addr, Role::NatServer);
        self.maps.filter.cell(word).load(SeqCst) & bit != 0
            && self.maps.nat_servers.get(&key, 0).is_ok_and(|number| {
                entries::in_use(&self.maps.servers, number)
                    .is_some_and(|entry| (entry.addr, entry.port) == (key.addr, key.port))
            })
    }

    /// Takes over everything that other, smaller maps hold. The numbers of servers stay: connections have them.
    ///
    /// # Errors
    /// When the kernel refuses, or these maps are no larger.
    pub fn import(&mut self, old: Self) -> anyhow::Result<Outgrown> {
        let mut counts = Vec::new();
        for number in old.numbers().chain(old.checked.numbers()) {
            let entry = old.maps.servers.copy(number);
            self.maps.servers.store(number, &entry);
            let load = old.maps.loads.copy(number);
            self.maps.loads.store(number, &load);
            let stats = old.maps.stats.get(&number, 0)?;
            counts.push(Counted { number, load, stats: stats.to_vec() });
            self.maps.stats.set(number, stats, 0)?;
            self.take_number(number, &entry);
        }
        for (id, placed) in &old.placed {
            self.import_service(id, placed, &old.maps.cursors)?;
        }
        for (ident, gone) in &old.gone {
            self.gone.insert(*ident, Gone { number: gone.number, empty_since: None });
        }
        self.checked.take(&old.checked);
        Ok(Outgrown { old, counts })
    }

    /// Adds what the program has counted in the other maps since they were taken over. Without this a connection that ended
    /// meanwhile would count for ever.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn settle(&mut self, outgrown: &Outgrown) -> anyhow::Result<()> {
        let Outgrown { old, counts } = outgrown;
        for Counted { number, load, stats } in counts {
            for (field, then) in
                [(offset_of!(Load, active), load.active), (offset_of!(Load, inactive), load.inactive)]
            {
                let now = old.maps.loads.word(*number, field).load(SeqCst);
                self.maps.loads.word(*number, field).fetch_add(now.wrapping_sub(then), SeqCst);
            }
            let now = old.maps.stats.get(number, 0)?;
            let new = self.maps.stats.get(number, 0)?;
            let sums = new.iter().zip(now.iter().zip(stats)).map(|(new, (now, then))| added(new, now, then));
            self.maps.stats.set(*number, PerCpuValues::try_from(sums.collect::<Vec<_>>())?, 0)?;
        }
        Ok(())
    }

    fn import_service(
        &mut self,
        id: &ServiceId,
        old: &Placed,
        cursors: &Mapped<Cursor>,
    ) -> anyhow::Result<()> {
        let plan = super::layout(id, &old.service, &old.last_weights);
        let mut range = |len: u32| {
            self.free_slots
                .take(len)
                .map(|base| (base, len))
                .context("no room for the slots of a virtual server")
        };
        let (slots, stateless) = (range(old.slots.1)?, range(old.stateless.1)?);
        anyhow::ensure!(self.free_services.take_at(old.index, 1), "two virtual servers with one number");
        self.write_slots(slots, &plan.slots, &old.numbers);
        self.write_slots(stateless, &plan.stateless, &old.numbers);
        let count = offset_of!(Cursor, count);
        self.maps.cursors.word(old.index, count).store(cursors.word(old.index, count).load(SeqCst), SeqCst);
        for (server, &number) in old.service.servers.iter().zip(&old.numbers) {
            if server.forward == crate::config::Forward::Nat {
                self.maps.nat_servers.insert(entries::nat_key(id, server), number, 0)?;
            }
        }
        let entry = entries::service(&old.service, &plan, old.index, slots, stateless);
        self.maps.services.insert(entries::service_key(id), entry, 0)?;
        let slots_hash = self.slots_hash(&entry);
        self.placed.insert(
            *id,
            Placed {
                service: old.service.clone(),
                last_weights: old.last_weights.clone(),
                index: old.index,
                numbers: old.numbers.clone(),
                slots,
                stateless,
                entry,
                slots_hash,
            },
        );
        Ok(())
    }

    fn services_in_kernel(&self) -> anyhow::Result<Vec<(ServiceKey, service::Service)>> {
        let mut found = Vec::new();
        syscall::each(&self.maps.services_fd, size_of::<service::Service>(), |key, value| {
            // SAFETY: as many bytes as the map's value has, and any bytes are a `Service`.
            found.push((key, unsafe { value.as_ptr().cast::<service::Service>().read_unaligned() }));
            true
        })
        .context("cannot read the map of virtual servers")?;
        Ok(found)
    }

    fn slots_hash(&self, entry: &service::Service) -> u64 {
        let range = |base: u32, len: u32| base..base.saturating_add(len).min(self.maps.slots.len());
        let all =
            range(entry.slots_base, entry.slots_len).chain(range(entry.stateless_base, entry.stateless_len));
        hash_slots(all.map(|slot| self.maps.slots.word(slot, 0).load(SeqCst)))
    }
}

/// `new` and what has been added to `then` until `now`.
fn added(new: &ServerStats, now: &ServerStats, then: &ServerStats) -> ServerStats {
    let sum = |field: fn(&ServerStats) -> u64| field(new).wrapping_add(field(now).wrapping_sub(field(then)));
    ServerStats {
        connections: sum(|stats| stats.connections),
        packets_in: sum(|stats| stats.packets_in),
        packets_out: sum(|stats| stats.packets_out),
        bytes_in: sum(|stats| stats.bytes_in),
        bytes_out: sum(|stats| stats.bytes_out),
    }
}

/// All servers in use, by the index of their virtual server.
fn servers_by_service(servers: &Mapped<server::Server>) -> BTreeMap<u32, Vec<(u32, server::Server)>> {
    let mut found: BTreeMap<u32, Vec<_>> = BTreeMap::new();
    for number in 0..servers.len() {
        if let Some(entry) =
            entries::in_use(servers, number).filter(|entry| !super::checked::is_checked(entry))
        {
            found.entry(entry.service).or_default().push((number, entry));
        }
    }
    found
}
