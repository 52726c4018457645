//! Virtual and real servers in the program's maps.
//!
//! The maps hold everything: [`Tables::open`] reads back what an earlier agent wrote, and [`Tables::audit`] compares. What
//! stands here beside them are indices.

mod addresses;
mod answers;
mod change;
mod checked;
mod entries;
mod inventory;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    mem::offset_of,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use anyhow::{Context, ensure};
use aya::maps::{HashMap, MapData, PerCpuArray};
use lb_common::{
    Addr,
    conn::NONE,
    filter::{MAC_BASE, MAP_WORDS, Role, WORDS, mac_position, position},
    server::{self, Load, ServerStats},
    service::{self, Cursor, ServiceKey, Slot},
};

use super::{
    layout::{Layout, layout, slots_needed},
    mapped::Mapped,
    ranges::Ranges,
    stats::StatsReader,
};
use crate::{
    config::Forward,
    desired::{Server, ServerId, Service, ServiceId, State},
    netlink::Resolution,
};
use addresses::Addresses;
use change::Reserved;
use entries::Hop;
pub use entries::in_use;
pub use inventory::Outgrown;

/// The number of a role that no VRRP instance has: there are fewer of them ([`crate::config::vrrp::MAX_VRRP_INSTANCES`]) than
/// words in the map.
const NOBODYS_ROLE: u16 = 2047;

const _: () = assert!(
    (NOBODYS_ROLE as usize) > crate::config::vrrp::MAX_VRRP_INSTANCES
        && (NOBODYS_ROLE as u32) < lb_common::service::MAX_ROLES
);

/// The maps that say what is served.
pub struct Maps {
    pub services: HashMap<MapData, ServiceKey, service::Service>,
    pub nat_servers: HashMap<MapData, ServiceKey, u32>,
    pub stats: PerCpuArray<MapData, ServerStats>,
    pub cursors: Mapped<Cursor>,
    pub slots: Mapped<Slot>,
    pub servers: Arc<Mapped<server::Server>>,
    pub loads: Arc<Mapped<Load>>,
    pub filter: Mapped<u64>,
    /// Of `services`, `nat_servers` and `stats`, to read many elements at once.
    pub services_fd: OwnedFd,
    pub nat_servers_fd: OwnedFd,
    pub stats_fd: OwnedFd,
}

/// What maps hold when they are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// They have just been made.
    Nothing,
    /// What another agent, or another load of this one, has written.
    Somebodys,
}

/// The maps and who has which part of them.
pub struct Tables {
    maps: Maps,
    placed: BTreeMap<ServiceId, Placed>,
    /// Servers that were taken out and whose connections may not all be over.
    gone: BTreeMap<Ident, Gone>,
    checked: checked::Checked,
    addresses: Addresses,
    free_services: Ranges,
    free_servers: Ranges,
    free_slots: Ranges,
    /// Slots that no virtual server names any more. A packet that has read the old entry may still look at them, so they are
    /// used again only after the connection table has been looked through.
    old_slots: Vec<((u32, u32), Option<u64>)>,
    /// Where the next look at what stands in the maps begins; `None`: at the beginning.
    next_audit: Option<ServiceId>,
}

/// By what a real server is known as long as any connection of it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ident {
    service: ServiceId,
    address: IpAddr,
    port: u16,
    forward: Forward,
}

/// A server that was taken out.
struct Gone {
    number: u32,
    /// How often the connection table had been looked through when it was found without connections.
    empty_since: Option<u64>,
}

/// Where a virtual server stands in the maps.
struct Placed {
    service: Service,
    /// The last weight of each real server that was not 0.
    last_weights: Vec<u32>,
    index: u32,
    /// Numbers of its real servers, in their order.
    numbers: Vec<u32>,
    slots: (u32, u32),
    stateless: (u32, u32),
    entry: service::Service,
    /// Of what was written to both ranges of slots.
    slots_hash: u64,
}

impl Tables {
    /// Slots that the virtual servers have.
    pub fn slots_in_use(&self) -> u64 {
        self.placed.values().map(|placed| u64::from(placed.slots.1) + u64::from(placed.stateless.1)).sum()
    }

    /// Real servers that the virtual servers have.
    pub fn servers_in_use(&self) -> usize {
        self.placed.values().map(|placed| placed.numbers.len()).sum()
    }

    /// How many virtual servers are served.
    pub fn served(&self) -> usize {
        self.placed.len()
    }

    /// What is served.
    pub fn state(&self) -> State {
        self.placed.iter().map(|(id, placed)| (*id, placed.service.clone())).collect()
    }

    /// What one virtual server is.
    pub fn service(&self, id: &ServiceId) -> Option<&Service> {
        self.placed.get(id).map(|placed| &placed.service)
    }

    /// The real servers of a virtual server with their numbers, in their order.
    pub fn servers_of(&self, id: &ServiceId) -> impl Iterator<Item = (Server, u32)> + '_ {
        self.placed
            .get(id)
            .into_iter()
            .flat_map(|placed| placed.service.servers.iter().copied().zip(placed.numbers.iter().copied()))
    }

    /// The number of a server that was taken out and may still have connections.
    pub fn gone_number(&self, id: &ServerId, forward: Forward) -> Option<u32> {
        let ServerId { service, address, port } = *id;
        self.gone.get(&Ident { service, address, port, forward }).map(|gone| gone.number)
    }

    /// The numbers of all real servers, also of those that were taken out and may still have connections.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        let placed = self.placed.values().flat_map(|placed| placed.numbers.iter().copied());
        placed.chain(self.gone.values().map(|gone| gone.number))
    }

    /// A real server's entry.
    pub fn server(&self, number: u32) -> Option<server::Server> {
        entries::in_use(&self.maps.servers, number)
    }

    /// The entries of all real servers, for other threads.
    pub fn shared_servers(&self) -> Arc<Mapped<server::Server>> {
        Arc::clone(&self.maps.servers)
    }

    /// The counts of connections.
    pub fn loads(&self) -> &Arc<Mapped<Load>> {
        &self.maps.loads
    }

    /// The counters' map.
    pub fn stats(&self) -> &PerCpuArray<MapData, ServerStats> {
        &self.maps.stats
    }

    /// The counters of all servers, for a reader in another thread.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn stats_reader(&self) -> anyhow::Result<StatsReader> {
        Ok(StatsReader::new(
            self.maps.stats_fd.try_clone()?,
            self.shared_servers(),
            self.free_servers.end_of_taken(),
        ))
    }

    /// Frames for any MAC address are for this machine, until [`Self::set_macs`] says which.
    pub fn accept_every_mac(&self) {
        for word in MAC_BASE..MAP_WORDS {
            self.maps.filter.cell(word).store(u64::MAX, SeqCst);
        }
    }

    /// No server has any connection: the connection table is new.
    pub fn clear_loads(&self) {
        for number in 0..self.maps.loads.len() {
            for field in [offset_of!(Load, active), offset_of!(Load, inactive)] {
                self.maps.loads.word(number, field).store(0, SeqCst);
            }
        }
    }

    /// Brings in a virtual server, or changes one that is there. Everything that its entry names is written before
    /// the entry itself, so that a packet sees the old or the new one.
    ///
    /// # Errors
    /// When the maps are too small or the kernel refuses. The virtual server then leads where it led before; servers that stay
    /// may have their new weights already.
    pub fn put(&mut self, id: &ServiceId, service: &Service) -> anyhow::Result<()> {
        let last_weights = self.last_weights(id, service);
        let plan = layout(id, service, &last_weights);
        let reserved = self.reserve(id, service, &plan)?;
        let entry = entries::service(service, &plan, reserved.index, reserved.slots, reserved.stateless);
        if let Err(error) = self.write(id, service, &last_weights, &plan, &reserved, entry) {
            self.give_back(id, &reserved);
            return Err(error);
        }
        let slots_hash = hash_of(&plan, &reserved.numbers);
        let Reserved { index, numbers, slots, stateless, .. } = reserved;
        for server in &service.servers {
            self.gone.remove(&Ident::of(id, server));
        }
        let placed = Placed {
            service: service.clone(),
            last_weights,
            index,
            numbers,
            slots,
            stateless,
            entry,
            slots_hash,
        };
        if let Some(old) = self.placed.insert(*id, placed) {
            self.take_out_missing(id, &old);
            self.old_slots.extend([(old.slots, None), (old.stateless, None)]);
        }
        self.give_role_to_gone(id, service.role);
        Ok(())
    }

    /// Puts all virtual servers on standby for new flows: their entries get a role that nobody ever has. Those of the real
    /// servers keep theirs, by which known flows are served.
    ///
    /// # Errors
    /// When the kernel refuses; then they serve as before.
    pub fn pass_new_flows(&mut self) -> anyhow::Result<()> {
        let mut set = Ok(());
        for (id, placed) in &mut self.placed {
            placed.entry.role = NOBODYS_ROLE;
            set = self.maps.services.insert(entries::service_key(id), placed.entry, 0);
            if set.is_err() {
                break;
            }
        }
        let Err(error) = set else { return Ok(()) };
        for (id, placed) in &mut self.placed {
            placed.entry.role = placed.service.role;
            // What is refused here, too, the audit puts right.
            let _ = self.maps.services.insert(entries::service_key(id), placed.entry, 0);
        }
        Err(error.into())
    }

    /// Takes a virtual server out. Its address stays in the filter: that costs a look-up, and another virtual server
    /// may have it.
    ///
    /// # Errors
    /// When the kernel refuses; then it stays.
    pub fn remove(&mut self, id: &ServiceId) -> anyhow::Result<()> {
        let placed = self.placed.get(id).with_context(|| format!("{id:?} is not served"))?;
        remove_key(&mut self.maps.services, &entries::service_key(id))?;
        let expire = placed.service.expire_nodest;
        let Some(placed) = self.placed.remove(id) else { return Ok(()) };
        for (server, number) in placed.service.servers.iter().zip(&placed.numbers) {
            self.take_out(id, server, *number, expire);
        }
        self.old_slots.extend([(placed.slots, None), (placed.stateless, None)]);
        self.free_services.give(placed.index, 1);
        Ok(())
    }

    /// Frees the numbers of servers that went and have no connection any more. `passes`: how often the connection table has been
    /// looked through.
    pub fn collect(&mut self, passes: u64) {
        for (ident, number) in emptied(&mut self.gone, &self.maps.loads, passes) {
            self.gone.remove(&ident);
            self.forget(ident.address, number);
        }
        self.collect_checked(passes);
        for (_, since) in &mut self.old_slots {
            since.get_or_insert(passes);
        }
        self.free_old_slots(|since| since.is_some_and(|since| passes > since));
    }

    fn free_old_slots(&mut self, is_free: impl Fn(Option<u64>) -> bool) {
        let free_slots = &mut self.free_slots;
        self.old_slots.retain(|&((base, len), since)| {
            let is_free = is_free(since);
            if is_free {
                free_slots.give(base, len);
            }
            !is_free
        });
    }

    /// Sets the MAC addresses whose frames are for this machine. Until then all are.
    pub fn set_macs(&self, macs: &BTreeSet<[u8; 6]>) {
        let mut words = [0u64; WORDS as usize];
        for &[a, b, c, d, e, f] in macs {
            let (word, bit) = mac_position(u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]));
            words[(word - MAC_BASE) as usize] |= bit;
        }
        for (index, word) in (MAC_BASE..MAP_WORDS).zip(words) {
            self.maps.filter.cell(index).store(word, SeqCst);
        }
    }

    /// Sets how frames reach an address, for every real server that has it. `keeps_tags`: no VLAN device sits on the
    /// interface.
    pub fn set_next_hop(&mut self, target: IpAddr, resolution: &Resolution, keeps_tags: bool) {
        let hop = Hop::new(resolution, keeps_tags, self.addresses.hop(target));
        self.addresses.set_hop(target, hop);
        for number in self.addresses.numbers(target) {
            if let Some(mut entry) = self.server(number) {
                hop.write_to(&mut entry);
                self.maps.servers.store(number, &entry);
            }
        }
    }

    /// The last weight of each server of `service` that was not 0.
    fn last_weights(&self, id: &ServiceId, service: &Service) -> Vec<u32> {
        let known = self.known_numbers(id);
        let last = |server: &Server| match (server.weight, self.number_of(&known, id, server)) {
            (0, Some(number)) => self.server(number).map_or(0, |entry| entry.last_weight),
            (weight, _) => weight,
        };
        service.servers.iter().map(last).collect()
    }

    /// The numbers of a virtual server's servers: looking each up in a list of thousands would take its square.
    fn known_numbers(&self, id: &ServiceId) -> BTreeMap<(IpAddr, u16, Forward), u32> {
        let placed = self.placed.get(id);
        let both = placed.into_iter().flat_map(|placed| placed.service.servers.iter().zip(&placed.numbers));
        both.map(|(server, number)| (server.key(), *number)).collect()
    }

    /// The number that a server has, or had and may have again.
    fn number_of(
        &self,
        known: &BTreeMap<(IpAddr, u16, Forward), u32>,
        id: &ServiceId,
        server: &Server,
    ) -> Option<u32> {
        let gone = || self.gone_number(&server.id(*id), server.forward);
        known.get(&server.key()).copied().or_else(gone)
    }

    /// Makes a number free.
    fn forget(&mut self, address: IpAddr, number: u32) {
        let mut entry = self.maps.servers.copy(number);
        entry.forwarding = 0;
        self.maps.servers.store(number, &entry);
        self.addresses.remove(address, number);
        self.free_servers.give(number, 1);
    }

    fn mark(&self, addr: Addr, role: Role) {
        let (word, bit) = position(addr, role);
        self.maps.filter.cell(word).fetch_or(bit, SeqCst);
    }
}

/// Servers that went and have no connections any more, with their numbers.
fn emptied(gone: &mut BTreeMap<Ident, Gone>, loads: &Mapped<Load>, passes: u64) -> Vec<(Ident, u32)> {
    let mut over = Vec::new();
    for (ident, gone) in gone {
        let load = loads.copy(gone.number);
        if load.active != 0 || load.inactive != 0 {
            gone.empty_since = None;
        } else if passes > *gone.empty_since.get_or_insert(passes) + 1 {
            // Two whole looks: whoever was entering a connection when the server went has finished.
            over.push((*ident, gone.number));
        }
    }
    over
}

/// The number in a slot.
fn number_at(position: Option<usize>, numbers: &[u32]) -> u32 {
    position.map_or(NONE, |position| numbers[position])
}

/// Of all slots of a virtual server, to see whether somebody has changed them.
fn hash_of(plan: &Layout, numbers: &[u32]) -> u64 {
    let all = plan.slots.iter().chain(&plan.stateless);
    hash_slots(all.map(|position| number_at(*position, numbers)))
}

fn hash_slots(slots: impl Iterator<Item = u32>) -> u64 {
    let mut hasher = DefaultHasher::new();
    slots.for_each(|number| number.hash(&mut hasher));
    hasher.finish()
}

impl Ident {
    fn of(id: &ServiceId, server: &Server) -> Self {
        let Server { address, port, forward, .. } = *server;
        Self { service: *id, address, port, forward }
    }
}

/// How large the maps must be for a state in which `checked` real servers are checked through the data plane.
///
/// # Errors
/// When no map can be that large.
pub fn sizes_for(state: &State, checked: usize) -> anyhow::Result<super::Sizes> {
    let servers: usize = state.values().map(|service| service.servers.len()).sum();
    let slots: u64 = state.values().map(slots_needed).sum();
    // Room for as much again: changes write the new before they free the old.
    let room = |needed: usize, least: u32| u32::try_from(needed * 2).map(|needed| needed.max(least));
    let sizes = super::Sizes {
        max_connections: 0,
        services: room(state.len(), 256)?,
        // Such checks have entries of their own.
        servers: room(servers + checked, 1024)?,
        slots: room(usize::try_from(slots)?, 65_536)?,
    };
    ensure!(sizes.servers < 1 << 24, "{servers} real servers are more than the program can number");
    Ok(sizes)
}

/// Removes a key that may be gone already.
fn remove_key<V: aya::Pod>(
    map: &mut HashMap<MapData, ServiceKey, V>,
    key: &ServiceKey,
) -> anyhow::Result<()> {
    match map.remove(key) {
        Ok(()) => Ok(()),
        Err(aya::maps::MapError::KeyNotFound) => Ok(()),
        Err(aya::maps::MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
