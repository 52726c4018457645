//! Virtual and real servers in the program's maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::offset_of,
    net::IpAddr,
    sync::atomic::Ordering::SeqCst,
};

use anyhow::{Context, ensure};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, PerCpuArray},
};
use lb_common::{
    Addr, Port,
    checksum::Delta,
    conn::NONE,
    filter::{MAC_BASE, MAP_WORDS, Role, WORDS, mac_position, position},
    ip_proto, map_name,
    server::{self, Forwarding, Load, ServerStats, next_hop_flag},
    service::{self, Cursor, ServiceKey},
};

use super::{layout::layout, mapped::Mapped, ranges::Ranges};
use crate::{
    config::{Forward, Protocol},
    desired::{Server, Service, ServiceId, State},
    netlink::{NextHop, Resolution},
};

/// The maps that say what is served, and what the agent put into them.
pub struct Tables {
    services: HashMap<MapData, ServiceKey, service::Service>,
    nat_servers: HashMap<MapData, ServiceKey, u32>,
    cursors: Array<MapData, Cursor>,
    slots: Array<MapData, u32>,
    servers: Array<MapData, server::Server>,
    /// What stands in `servers`: a system call for each look would be too slow for a sweep.
    entries: BTreeMap<u32, server::Server>,
    stats: PerCpuArray<MapData, ServerStats>,
    filter: Mapped<u64>,
    placed: BTreeMap<ServiceId, Placed>,
    hops: BTreeMap<IpAddr, Hop>,
    free_services: Ranges,
    free_servers: Ranges,
    free_slots: Ranges,
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
}

/// A next hop as the program wants it, and the source address for tunnels.
#[derive(Clone, Copy)]
struct Hop {
    next_hop: server::NextHop,
    source: Addr,
}

impl Tables {
    /// Takes the maps of a program that serves nothing yet.
    ///
    /// # Errors
    /// When a map is missing or is not what it should be.
    pub fn new(ebpf: &mut Ebpf, sizes: super::Sizes) -> anyhow::Result<Self> {
        let filter: Mapped<u64> =
            Mapped::new(super::map_fd(ebpf, map_name::FILTER)?, MAP_WORDS).context("cannot map FILTER")?;
        for word in MAC_BASE..MAP_WORDS {
            filter.cell(word).store(u64::MAX, SeqCst);
        }
        Ok(Self {
            services: super::take(ebpf, map_name::SERVICES)?,
            nat_servers: super::take(ebpf, map_name::NAT_SERVERS)?,
            cursors: super::take(ebpf, map_name::CURSORS)?,
            slots: super::take(ebpf, map_name::SLOTS)?,
            servers: super::take(ebpf, map_name::SERVERS)?,
            entries: BTreeMap::new(),
            stats: super::take(ebpf, map_name::SERVER_STATS)?,
            filter,
            placed: BTreeMap::new(),
            hops: BTreeMap::new(),
            free_services: Ranges::new(sizes.services),
            free_servers: Ranges::new(sizes.servers),
            free_slots: Ranges::new(sizes.slots),
        })
    }

    /// What is served.
    pub fn state(&self) -> State {
        self.placed.iter().map(|(id, placed)| (*id, placed.service.clone())).collect()
    }

    /// The real servers of a virtual server with their numbers, in the configuration's order.
    pub fn servers_of(&self, id: &ServiceId) -> impl Iterator<Item = (Server, u32)> + '_ {
        self.placed
            .get(id)
            .into_iter()
            .flat_map(|placed| placed.service.servers.iter().copied().zip(placed.numbers.iter().copied()))
    }

    /// The numbers of all real servers.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.placed.values().flat_map(|placed| placed.numbers.iter().copied())
    }

    /// A real server's entry.
    pub fn server(&self, number: u32) -> Option<server::Server> {
        self.entries.get(&number).copied().filter(|server| server.forwarding != 0)
    }

    /// A real server's counters, summed over all CPUs.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn stats(&self, number: u32) -> anyhow::Result<ServerStats> {
        let mut sum = ServerStats::default();
        for cpu in self.stats.get(&number, 0)?.iter() {
            sum.connections += cpu.connections;
            sum.packets_in += cpu.packets_in;
            sum.bytes_in += cpu.bytes_in;
            sum.packets_out += cpu.packets_out;
            sum.bytes_out += cpu.bytes_out;
        }
        Ok(sum)
    }

    /// Brings in a virtual server, or changes one that is there. Everything that its entry names is written before
    /// the entry itself, so that a packet sees the old or the new one.
    ///
    /// # Errors
    /// When the maps are too small or the kernel refuses; what was there before then stays.
    pub fn put(&mut self, id: &ServiceId, service: &Service, loads: &Mapped<Load>) -> anyhow::Result<()> {
        let old = self.placed.remove(id);
        let last_weights: Vec<u32> = service
            .servers
            .iter()
            .map(|server| match server.weight {
                0 => old.as_ref().and_then(|old| old.last_weight_of(server)).unwrap_or(0),
                weight => weight,
            })
            .collect();
        let plan = layout(id, service, &last_weights);
        let index = match &old {
            Some(old) => old.index,
            None => self.free_services.take(1).context("no room for another virtual server")?,
        };
        let mut numbers = Vec::with_capacity(service.servers.len());
        for server in &service.servers {
            let number = match old.as_ref().and_then(|old| old.number_of(server)) {
                Some(number) => number,
                None => {
                    let number = self.free_servers.take(1).context("no room for another real server")?;
                    self.add_server(id, server, index, number, loads)?;
                    number
                }
            };
            loads.word(number, offset_of!(Load, weight)).store(server.weight, SeqCst);
            numbers.push(number);
        }
        let slots = self.write_slots(&plan.slots, &numbers)?;
        let stateless = self.write_slots(&plan.stateless, &numbers)?;
        if old.is_none() {
            self.cursors.set(index, Cursor { count: plan.first, reserved: [0; 15] }, 0)?;
        }
        self.mark(Addr::from_ip(id.address), Role::Virtual);
        let entry = service::Service {
            index,
            method: plan.method as u8,
            flags: plan.flags,
            reserved: 0,
            slots_base: slots.0,
            slots_len: slots.1,
            stateless_base: stateless.0,
            stateless_len: stateless.1,
        };
        self.services.insert(key_of(id), entry, 0)?;
        if let Some(old) = old {
            let gone = old.numbers.iter().filter(|number| !numbers.contains(number));
            for &number in gone {
                self.remove_server(id, number)?;
            }
            self.free_slots.give(old.slots.0, old.slots.1);
            self.free_slots.give(old.stateless.0, old.stateless.1);
        }
        self.placed
            .insert(*id, Placed { service: service.clone(), last_weights, index, numbers, slots, stateless });
        Ok(())
    }

    /// Takes a virtual server out. Its address stays in the filter: that costs a look-up, and another virtual server
    /// may have it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&mut self, id: &ServiceId) -> anyhow::Result<()> {
        let placed = self.placed.remove(id).with_context(|| format!("{id:?} is not served"))?;
        self.services.remove(&key_of(id))?;
        for &number in &placed.numbers {
            self.remove_server(id, number)?;
        }
        self.free_slots.give(placed.slots.0, placed.slots.1);
        self.free_slots.give(placed.stateless.0, placed.stateless.1);
        self.free_services.give(placed.index, 1);
        Ok(())
    }

    /// Sets the MAC addresses whose frames are for this machine. Until then all are.
    pub fn set_macs(&self, macs: &BTreeSet<[u8; 6]>) {
        let mut words = [0u64; WORDS as usize];
        for &[a, b, c, d, e, f] in macs {
            let (word, bit) = mac_position(u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]));
            words[(word - MAC_BASE) as usize] |= bit;
        }
        for (index, word) in (MAC_BASE..).zip(words) {
            self.filter.cell(index).store(word, SeqCst);
        }
    }

    /// Sets how frames reach an address, for every real server that has it. `keeps_tags`: no VLAN device sits on the
    /// interface.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_next_hop(
        &mut self,
        target: IpAddr,
        resolution: &Resolution,
        keeps_tags: bool,
    ) -> anyhow::Result<()> {
        let hop = match resolution {
            Resolution::Resolved(next_hop) => {
                Hop { next_hop: to_wire(next_hop, keeps_tags), source: Addr::from_ip(next_hop.source) }
            }
            Resolution::Unresolved(_) => Hop {
                next_hop: server::NextHop::default(),
                source: self.hops.get(&target).map_or(Addr::default(), |old| old.source),
            },
        };
        self.hops.insert(target, hop);
        let concerned: Vec<u32> = self
            .placed
            .values()
            .flat_map(|placed| placed.service.servers.iter().zip(&placed.numbers))
            .filter(|(server, _)| server.address == target)
            .map(|(_, number)| *number)
            .collect();
        for number in concerned {
            let Some(mut entry) = self.entries.get(&number).copied() else { continue };
            entry.next_hop = hop.next_hop;
            entry.tunnel_source = hop.source;
            self.set_server(number, entry)?;
        }
        Ok(())
    }

    fn add_server(
        &mut self,
        id: &ServiceId,
        server: &Server,
        service: u32,
        number: u32,
        loads: &Mapped<Load>,
    ) -> anyhow::Result<()> {
        let (addr, vip) = (Addr::from_ip(server.address), Addr::from_ip(id.address));
        let forwarding = match server.forward {
            Forward::Nat => Forwarding::Nat,
            Forward::Dr => Forwarding::Dr,
            Forward::Tun => Forwarding::Tun,
        };
        let nat = forwarding == Forwarding::Nat;
        let hop = self.hops.get(&server.address);
        let entry = server::Server {
            addr,
            vip,
            port: Port::from_number(server.port),
            vport: Port::from_number(id.port),
            forwarding: forwarding as u8,
            reserved: [0; 3],
            nat_delta: if nat { Delta::ZERO.addr(vip, addr).folded() } else { 0 },
            reserved2: 0,
            service,
            tunnel_source: hop.map_or(Addr::default(), |hop| hop.source),
            next_hop: hop.map_or(server::NextHop::default(), |hop| hop.next_hop),
            reserved3: [0; 8],
        };
        for field in [offset_of!(Load, active), offset_of!(Load, inactive), offset_of!(Load, stateless_at)] {
            loads.word(number, field).store(0, SeqCst);
        }
        let cpus = self.stats.get(&number, 0)?.len();
        self.stats.set(number, aya::maps::PerCpuValues::try_from(vec![ServerStats::default(); cpus])?, 0)?;
        self.set_server(number, entry)?;
        if nat {
            self.mark(addr, Role::NatServer);
            self.nat_servers.insert(nat_key(id, server.address, server.port), number, 0)?;
        }
        Ok(())
    }

    /// Makes a real server's entry say that nobody is there. Its number is not used again while the agent lives, so
    /// that no connection of it goes to another.
    fn remove_server(&mut self, id: &ServiceId, number: u32) -> anyhow::Result<()> {
        let Some(mut entry) = self.entries.get(&number).copied() else { return Ok(()) };
        if entry.forwarding == Forwarding::Nat as u8 {
            let key = ServiceKey::new(entry.addr, entry.port, proto_of(id.protocol));
            if self.nat_servers.get(&key, 0).is_ok_and(|there| there == number) {
                self.nat_servers.remove(&key)?;
            }
        }
        entry.forwarding = 0;
        self.set_server(number, entry)
    }

    fn set_server(&mut self, number: u32, entry: server::Server) -> anyhow::Result<()> {
        self.servers.set(number, entry, 0)?;
        self.entries.insert(number, entry);
        Ok(())
    }

    /// Writes positions as server numbers into slots of their own.
    fn write_slots(&mut self, positions: &[Option<usize>], numbers: &[u32]) -> anyhow::Result<(u32, u32)> {
        let len = u32::try_from(positions.len())?;
        let base = self.free_slots.take(len).context("no room for the slots of another virtual server")?;
        for (slot, position) in (base..).zip(positions) {
            let number = position.map_or(NONE, |position| numbers[position]);
            self.slots.set(slot, number, 0)?;
        }
        Ok((base, len))
    }

    fn mark(&self, addr: Addr, role: Role) {
        let (word, bit) = position(addr, role);
        self.filter.cell(word).fetch_or(bit, SeqCst);
    }
}

impl Placed {
    /// Where a real server stands that stays; its weight may change, all else makes it another server.
    fn position_of(&self, server: &Server) -> Option<usize> {
        self.service.servers.iter().position(|there| {
            (there.address, there.port, there.forward) == (server.address, server.port, server.forward)
        })
    }

    fn number_of(&self, server: &Server) -> Option<u32> {
        self.position_of(server).map(|position| self.numbers[position])
    }

    fn last_weight_of(&self, server: &Server) -> Option<u32> {
        self.position_of(server).map(|position| self.last_weights[position])
    }
}

/// How many slots a virtual server takes.
pub fn slots_needed(id: &ServiceId, service: &Service) -> usize {
    let weights: Vec<u32> = service.servers.iter().map(|server| server.weight).collect();
    let plan = layout(id, service, &weights);
    plan.slots.len() + plan.stateless.len()
}

fn proto_of(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => ip_proto::TCP,
        Protocol::Udp => ip_proto::UDP,
    }
}

fn key_of(id: &ServiceId) -> ServiceKey {
    ServiceKey::new(Addr::from_ip(id.address), Port::from_number(id.port), proto_of(id.protocol))
}

fn nat_key(id: &ServiceId, address: IpAddr, port: u16) -> ServiceKey {
    ServiceKey::new(Addr::from_ip(address), Port::from_number(port), proto_of(id.protocol))
}

fn to_wire(hop: &NextHop, keeps_tags: bool) -> server::NextHop {
    let mut vlan = [0; 2];
    for (word, tag) in vlan.iter_mut().zip(&hop.vlans) {
        let ([a, b], [c, d]) = (tag.tpid.to_be_bytes(), tag.vid.to_be_bytes());
        *word = u32::from_ne_bytes([a, b, c, d]);
    }
    server::NextHop {
        ifindex: hop.ifindex,
        mtu: u16::try_from(hop.mtu).unwrap_or(u16::MAX),
        flags: next_hop_flag::RESOLVED | if keeps_tags { next_hop_flag::KEEP_TAGS } else { 0 },
        tags: u8::try_from(hop.vlans.len().min(NextHop::MAX_VLANS)).unwrap_or(0),
        macs: server::Macs::new(hop.destination_mac, hop.source_mac),
        vlan,
        reserved: 0,
    }
}

/// Checks that a state fits the maps, before anything is loaded.
///
/// # Errors
/// When it does not.
pub fn check_sizes(state: &State) -> anyhow::Result<super::Sizes> {
    let servers: usize = state.values().map(|service| service.servers.len()).sum();
    let slots: usize = state.iter().map(|(id, service)| slots_needed(id, service)).sum();
    // Room for as much again: changes write the new before they free the old.
    let room = |needed: usize, least: u32| u32::try_from(needed * 2).map(|needed| needed.max(least));
    let sizes = super::Sizes {
        max_connections: 0,
        services: room(state.len(), 64)?,
        servers: room(servers, 256)?,
        slots: room(slots, 16_384)?,
    };
    ensure!(sizes.servers < 1 << 24, "{servers} real servers are more than the program can number");
    Ok(sizes)
}
