//! The loaded program: running it on one packet (BPF_PROG_TEST_RUN), and changing what it knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::{Array, HashMap, Map, MapData},
    programs::{TestRun as _, TestRunOptions},
};
use lb_common::{
    Addr, Event, FlowKey, Port, Verdict,
    conn::{Connection, State, TAG_FREE, TagBucket, is_active},
    fragment::{Fragment, FragmentKey},
    ip_proto, map_name,
    server::Server,
};
use lb_userspace::{
    config::{Config, Protocol},
    dataplane::{
        DataPlane as _,
        xdp::{Veth, XdpPlane},
    },
    desired::{self, ServiceId},
    netlink::{NextHop, Reason, Resolution},
    reconcile::reconcile,
};

use crate::{
    case::Counts,
    scene::{CLIENT_MAC, CLIENTS, Client, DIRECTOR_MAC, INNER_MAC, Target, VIRTUAL_MAC, known_port},
};

/// The program with its maps.
pub struct Plane {
    plane: XdpPlane,
}

/// What became of a packet.
pub struct Ran {
    /// What the kernel was told.
    pub action: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// Verdicts that were counted, with how often.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Events that were counted, with how often.
    pub events: BTreeMap<&'static str, u64>,
}

impl Ran {
    /// The one verdict that was counted.
    ///
    /// # Errors
    /// When it is not exactly one.
    pub fn verdict(&self) -> Result<&'static str> {
        match self.verdicts.iter().collect::<Vec<_>>()[..] {
            [(name, 1)] => Ok(name),
            _ => anyhow::bail!("not one verdict was counted but {:?}", self.verdicts),
        }
    }
}

impl Plane {
    /// Loads the program and programs its maps as the agent does.
    pub fn load(config: &Config, hops: &[(IpAddr, NextHop, bool)]) -> Result<Self> {
        let wanted = desired::desired(config);
        let mut plane = XdpPlane::load(config, &wanted, false)?;
        for operation in reconcile(&wanted, &plane.observe(), &BTreeSet::new()) {
            plane.apply(&operation)?;
        }
        for (target, hop, keeps_tags) in hops {
            plane.set_next_hop(*target, &Resolution::Resolved(hop.clone().into()), *keeps_tags);
        }
        plane.set_macs(&[DIRECTOR_MAC, INNER_MAC, VIRTUAL_MAC].into());
        Ok(Self { plane })
    }

    /// Makes virtual servers need a role, as `bind_to` in their configuration does.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn bind(&mut self, role: u16, is_bound: impl Fn(&ServiceId) -> bool) -> Result<()> {
        let observed = self.plane.observe();
        let mut wanted = observed.clone();
        for (_, service) in wanted.iter_mut().filter(|(id, _)| is_bound(id)) {
            service.role = role;
        }
        for operation in reconcile(&wanted, &observed, &BTreeSet::new()) {
            self.plane.apply(&operation)?;
        }
        ensure!(self.plane.observe() == wanted && self.plane.damaged(1)?.damaged.is_empty());
        Ok(())
    }

    /// VRRP says whether this director has a role.
    pub fn set_role(&self, role: u16, has: bool) {
        self.plane.roles().set(role, has);
    }

    /// Runs the program on a packet from an interface. `metadata` bytes stand in front of the packet.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn run(&mut self, link: u32, packet: &[u8], metadata: usize) -> Result<Ran> {
        /// Room for what the program may add.
        const GROWTH: usize = 256;
        let before = self.plane.counters()?;
        let input = [vec![0; metadata].as_slice(), packet].concat();
        let mut output = vec![0; input.len() + GROWTH];
        let context = context(metadata, input.len(), link)?;
        let result = self
            .plane
            .program()?
            .test_run(TestRunOptions {
                data_in: Some(&input),
                data_out: Some(&mut output),
                ctx_in: Some(&context),
                ..TestRunOptions::default()
            })
            .context("BPF_PROG_TEST_RUN")?;
        output.truncate(result.data_size_out as usize);
        let after = self.plane.counters()?;
        let counted = |names: &mut dyn Iterator<Item = &'static str>| {
            names.map(|name| (name, after[name] - before[name])).filter(|(_, count)| *count > 0).collect()
        };
        Ok(Ran {
            action: result.return_value,
            packet: output,
            verdicts: counted(&mut Verdict::ALL.iter().map(|verdict| verdict.name())),
            events: counted(&mut Event::ALL.iter().map(|event| event.name())),
        })
    }

    /// What is counted for a real server.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn counts(&self, service: &ServiceId, server: IpAddr) -> Result<Counts> {
        let number = self.number(service, server)?;
        let (load, stats) = (self.plane.server_load(number), self.plane.server_stats(number)?);
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        Ok(Counts {
            // A count that went below zero has wrapped, and is shown as what it is.
            active: i64::from(load.active.cast_signed()),
            inactive: i64::from(load.inactive.cast_signed()),
            connections: signed(stats.connections),
            packets_in: signed(stats.packets_in),
            bytes_in: signed(stats.bytes_in),
            packets_out: signed(stats.packets_out),
            bytes_out: signed(stats.bytes_out),
        })
    }

    fn number(&self, service: &ServiceId, server: IpAddr) -> Result<u32> {
        let found = self.plane.servers_of(service).find(|(there, _)| there.address == server);
        Ok(found.with_context(|| format!("{service:?} has no server {server}"))?.1)
    }

    /// The state of a client's connection, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn state(&self, client: &Client, to: (IpAddr, u16, Protocol)) -> Result<Option<State>> {
        let key = flow(client, to);
        let mut found = None;
        self.plane.connection_list()?.each_entry(|listed, _| {
            if listed.key == key {
                found = Some(listed.state);
            }
            found.is_none()
        });
        Ok(found)
    }

    /// The agent begins a check of a real server through the data plane; its packets come as the client's do.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn begin_check(&mut self, client: &Client, target: &Target, protocol: Protocol) -> Result<()> {
        let service = target.id(protocol);
        let there = self.plane.servers_of(&service).find(|(there, _)| there.address == target.server());
        let server = there.context("no such server")?.0;
        let id = server.id(service);
        let numbers = self.plane.set_checked(&[(id, server.forward)].into());
        let number = *numbers.get(&id).context("no room")?;
        let proto = match protocol {
            Protocol::Tcp => ip_proto::TCP,
            Protocol::Udp => ip_proto::UDP,
        };
        let veth = Veth { link: CLIENTS, outer_mac: DIRECTOR_MAC, inner_mac: CLIENT_MAC };
        let (from, to) = ((client.address, client.port), (target.vip(), known_port(protocol)));
        self.plane.enter_check(number, from.into(), to.into(), proto, veth)
    }

    /// Compares every real server's active and inactive connections with the table itself.
    ///
    /// # Errors
    /// When they differ.
    pub fn check_loads(&self) -> Result<()> {
        let mut found: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        self.plane.connection_list()?.each_entry(|listed, _| {
            let (active, inactive) = found.entry(listed.server).or_default();
            *if is_active(listed.state as u8) { active } else { inactive } += 1;
            true
        });
        for number in self.plane.server_numbers() {
            let load = self.plane.server_load(number);
            let (active, inactive) = found.get(&number).copied().unwrap_or_default();
            ensure!(
                (load.active, load.inactive) == (active, inactive),
                "server number {number} counts {} active and {} inactive connections, but has {active} and {inactive}",
                load.active,
                load.inactive
            );
        }
        Ok(())
    }

    /// Gives a real server another weight, as a reload of the configuration does.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn set_weight(&mut self, service: &ServiceId, server: IpAddr, weight: u32) -> Result<()> {
        self.number(service, server)?;
        self.change(service, |servers| {
            for there in servers.iter_mut().filter(|there| there.address == server) {
                there.weight = weight;
            }
        })
    }

    /// Removes a real server.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn remove_server(&mut self, service: &ServiceId, server: IpAddr) -> Result<()> {
        self.number(service, server)?;
        self.change(service, |servers| servers.retain(|there| there.address != server))
    }

    fn change(&mut self, id: &ServiceId, change: impl Fn(&mut Vec<desired::Server>)) -> Result<()> {
        let observed = self.plane.observe();
        let mut wanted = observed.clone();
        change(&mut wanted.get_mut(id).with_context(|| format!("{id:?} is not served"))?.servers);
        for operation in reconcile(&wanted, &observed, &BTreeSet::new()) {
            self.plane.apply(&operation)?;
        }
        Ok(())
    }

    /// Gives a real server other thresholds, as a reload of the configuration does.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn set_thresholds(
        &mut self,
        service: &ServiceId,
        server: IpAddr,
        upper: u32,
        lower: u32,
    ) -> Result<()> {
        self.number(service, server)?;
        self.change(service, |servers| {
            for there in servers.iter_mut().filter(|there| there.address == server) {
                (there.upper_threshold, there.lower_threshold) = (upper, lower);
            }
        })
    }

    /// Sets a real server's flags ([`lb_common::server::server_flag`]) in the program's map itself: each combination,
    /// whatever events of the agent's would lead to it.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn set_flags(&mut self, service: &ServiceId, server: IpAddr, flags: u8) -> Result<()> {
        let number = self.number(service, server)?;
        let mut servers: Array<_, Server> = Array::try_from(self.map_by_id(map_name::SERVERS)?)?;
        let mut entry = servers.get(&number, 0)?;
        ensure!(entry.addr == Addr::from_ip(server), "server number {number} is {:?}", entry.addr);
        entry.flags = flags;
        Ok(servers.set(number, entry, 0)?)
    }

    /// A map of the program, also one that the agent's code has taken.
    fn map_by_id(&mut self, name: &str) -> Result<Map> {
        let ids = self.plane.program()?.info()?.map_ids()?.context("the kernel names no maps")?;
        for id in ids {
            let data = MapData::from_id(id)?;
            if data.info()?.name_as_str() == Some(name) {
                return Ok(Map::Array(data));
            }
        }
        anyhow::bail!("the program has no map {name}")
    }

    /// The agent learns that an address's neighbour does not answer.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn lose_neighbour(&mut self, address: IpAddr) -> Result<()> {
        let reason = Reason::NeighbourFailed { address, interface: "servers".to_owned() };
        self.plane.set_next_hop(address, &Resolution::unresolved(reason), true);
        Ok(())
    }

    /// Lets all places of a client's connections look as if their last packet had come `seconds` earlier.
    ///
    /// # Errors
    /// When the client has none.
    pub fn age_connections(&mut self, client: &Client, seconds: u64) -> Result<()> {
        let ticks = self.plane.clock().ticks(seconds * 1_000_000_000);
        let address = Addr::from_ip(client.address);
        let mut places: Array<_, Connection> = Array::try_from(self.map(map_name::CONNECTIONS)?)?;
        let mut aged = 0;
        for index in 0..places.len() {
            let mut place = places.get(&index, 0)?;
            if place.src == address || place.dst == address {
                place.last_seen = place.last_seen.wrapping_sub(ticks);
                places.set(index, place, 0)?;
                aged += 1;
            }
        }
        ensure!(aged > 0, "{} has no connection", client.address);
        Ok(())
    }

    /// The same for the whole table.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn age_all(&mut self, seconds: u64) -> Result<()> {
        let ticks = self.plane.clock().ticks(seconds * 1_000_000_000);
        let mut places: Array<_, Connection> = Array::try_from(self.map(map_name::CONNECTIONS)?)?;
        for index in 0..places.len() {
            let mut place = places.get(&index, 0)?;
            place.last_seen = place.last_seen.wrapping_sub(ticks);
            places.set(index, place, 0)?;
        }
        Ok(())
    }

    /// The same for what is remembered of the client's fragments.
    ///
    /// # Errors
    /// When nothing is remembered.
    pub fn age_fragments(&mut self, client: &Client, seconds: u64) -> Result<()> {
        let ticks = self.plane.clock().ticks(seconds * 1_000_000_000);
        let address = Addr::from_ip(client.address);
        let mut map: HashMap<_, FragmentKey, Fragment> = HashMap::try_from(self.map(map_name::FRAGMENTS)?)?;
        let keys = map.keys().collect::<Result<Vec<_>, _>>()?;
        let theirs: Vec<_> = keys.into_iter().filter(|key| key.src == address).collect();
        ensure!(!theirs.is_empty(), "no fragments of {} are remembered", client.address);
        for key in theirs {
            let mut fragment = map.get(&key, 0)?;
            fragment.seen = fragment.seen.wrapping_sub(ticks);
            map.insert(key, fragment, 0)?;
        }
        Ok(())
    }

    /// The agent ends every connection whose time is over.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sweep(&mut self) -> Result<()> {
        self.plane.sweep(1)?;
        Ok(())
    }

    /// How many places of the connection table are free.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn free_places(&mut self) -> Result<usize> {
        let buckets: Array<_, TagBucket> = Array::try_from(self.map(map_name::TAGS)?)?;
        let buckets = buckets.iter().collect::<Result<Vec<_>, _>>()?;
        Ok(buckets.iter().flat_map(|bucket| bucket.0).filter(|tag| *tag == TAG_FREE).count())
    }

    fn map(&mut self, name: &str) -> Result<&mut Map> {
        self.plane.ebpf().map_mut(name).with_context(|| format!("no map {name}"))
    }
}

/// `struct xdp_md`: the packet's data from `data` to `data_end`, metadata from `data_meta`, then interface, queue and
/// egress interface.
fn context(data: usize, data_end: usize, link: u32) -> Result<[u8; 24]> {
    let fields = [u32::try_from(data)?, u32::try_from(data_end)?, 0, link, 0, 0];
    let mut bytes = [0; 24];
    for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
        place.copy_from_slice(&field.to_ne_bytes());
    }
    Ok(bytes)
}

fn flow(client: &Client, (address, port, protocol): (IpAddr, u16, Protocol)) -> FlowKey {
    FlowKey {
        src: Addr::from_ip(client.address),
        dst: Addr::from_ip(address),
        sport: Port::from_number(client.port),
        dport: Port::from_number(port),
        proto: match protocol {
            Protocol::Tcp => ip_proto::TCP,
            Protocol::Udp => ip_proto::UDP,
        }
        .into(),
    }
}
