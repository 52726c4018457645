//! From the agent's words to the maps' and back.

use std::{mem::offset_of, net::IpAddr, sync::atomic::Ordering::SeqCst};

use lb_common::{
    Addr, Port,
    checksum::Delta,
    ip_proto,
    server::{self, Forwarding, Load, next_hop_flag, server_flag},
    service::{self, ServiceKey, service_option},
};

use super::super::{layout::Layout, mapped::Mapped};
use crate::{
    config::{Forward, Protocol, Scheduler, SchedulerFlags, Tunnel},
    desired::{Server, Service, ServiceId},
    netlink::{NextHop, Resolution},
};

/// A next hop as the program wants it, and the source address for tunnels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    next_hop: server::NextHop,
    source: Addr,
}

impl Hop {
    /// Of what is known of an address; a tunnel keeps its source while there is no way.
    pub fn new(resolution: &Resolution, keeps_tags: bool, old: Option<Self>) -> Self {
        match resolution {
            Resolution::Resolved(hop) => {
                Self { next_hop: next_hop(hop, keeps_tags), source: Addr::from_ip(hop.source) }
            }
            Resolution::Unresolved(_) => Self {
                next_hop: server::NextHop::default(),
                source: old.map_or(Addr::default(), |old| old.source),
            },
        }
    }

    /// What an entry has.
    pub fn of(entry: server::Server) -> Self {
        Self { next_hop: entry.next_hop, source: entry.tunnel_source }
    }

    /// Into an entry.
    pub fn write_to(self, entry: &mut server::Server) {
        entry.next_hop = self.next_hop;
        entry.tunnel_source = self.source;
    }
}

fn next_hop(hop: &NextHop, keeps_tags: bool) -> server::NextHop {
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

/// The entry of a number, if a server has it.
pub fn in_use(servers: &Mapped<server::Server>, number: u32) -> Option<server::Server> {
    (number < servers.len()).then(|| servers.copy(number)).filter(|server| server.forwarding != 0)
}

/// A virtual server's entry.
pub fn service(
    service: &Service,
    plan: &Layout,
    index: u32,
    slots: (u32, u32),
    stateless: (u32, u32),
) -> service::Service {
    let option = |set: bool, bit: u8| if set { bit } else { 0 };
    service::Service {
        index,
        method: plan.method as u8,
        flags: plan.flags,
        scheduler: scheduler_number(service.scheduler),
        options: option(service.expire_nodest, service_option::EXPIRE_NODEST)
            | option(service.expire_quiescent, service_option::EXPIRE_QUIESCENT),
        slots_base: slots.0,
        slots_len: slots.1,
        stateless_base: stateless.0,
        stateless_len: stateless.1,
        role: service.role,
        reserved: [0; 3],
    }
}

/// A real server's entry, but for what only the tables know.
pub fn server(
    id: &ServiceId,
    service: &Service,
    server: &Server,
    index: u32,
    hop: Option<Hop>,
) -> server::Server {
    let (addr, vip) = (Addr::from_ip(server.address), Addr::from_ip(id.address));
    let nat = server.forward == Forward::Nat;
    let mut flags = 0;
    if weight(server) == 0 {
        flags |= server_flag::NO_NEW;
        if service.expire_quiescent {
            flags |= server_flag::MOVE_UDP;
        }
        if !service.expire_nodest {
            // Established connections stay where they are.
            flags |= server_flag::KEEP;
        }
    }
    if server.is_leaving {
        flags |= server_flag::LEAVING;
    }
    let mut entry = server::Server {
        addr,
        vip,
        port: Port::from_number(server.port),
        vport: Port::from_number(id.port),
        forwarding: forwarding(server.forward) as u8,
        flags,
        proto: proto(id.protocol),
        reserved: 0,
        nat_delta: if nat { Delta::ZERO.addr(vip, addr).folded() } else { 0 },
        role: service.role,
        service: index,
        tunnel_source: Addr::default(),
        next_hop: server::NextHop::default(),
        position: 0,
        last_weight: 0,
        reserved3: [0; 6],
    };
    if let Some(hop) = hop {
        hop.write_to(&mut entry);
    }
    entry
}

/// The weight that the program sees.
pub fn weight(server: &Server) -> u32 {
    if server.is_leaving { 0 } else { server.weight }
}

/// Back from the entry of a real server and its load.
pub fn server_back(entry: &server::Server, loads: &Mapped<Load>, number: u32) -> Option<Server> {
    let forward = [Forward::Nat, Forward::Dr, Forward::Tun]
        .into_iter()
        .find(|&forward| forwarding(forward) as u8 == entry.forwarding)?;
    let load = |field: usize| loads.word(number, field).load(SeqCst);
    Some(Server {
        address: entry.addr.to_ip(),
        port: entry.port.number(),
        forward,
        weight: load(offset_of!(Load, weight)),
        tunnel: Tunnel::IPIP,
        is_leaving: entry.flags & server_flag::LEAVING != 0,
        upper_threshold: load(offset_of!(Load, upper)),
        lower_threshold: load(offset_of!(Load, lower)),
    })
}

/// Back from the entry of a virtual server; `None` when no version of xdirector has written it.
pub fn service_back(entry: &service::Service, servers: Vec<Server>) -> Option<Service> {
    Some(Service {
        scheduler: *Scheduler::ALL
            .iter()
            .find(|one| one.is_in_xdp() && scheduler_number(**one) == entry.scheduler)?,
        flags: SchedulerFlags {
            port: entry.flags & service::service_flag::HASH_PORT != 0,
            fallback: entry.flags & service::service_flag::FALLBACK != 0,
        },
        persistence: None,
        one_packet: false,
        expire_nodest: entry.options & service_option::EXPIRE_NODEST != 0,
        expire_quiescent: entry.options & service_option::EXPIRE_QUIESCENT != 0,
        role: entry.role,
        servers,
    })
}

/// Back from a key.
pub fn id_back(key: &ServiceKey) -> Option<ServiceId> {
    let protocol = protocol_back(u8::try_from(key.proto).ok()?)?;
    Some(ServiceId { address: key.addr.to_ip(), port: key.port.number(), protocol })
}

/// Back from the number of a protocol.
pub fn protocol_back(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp].into_iter().find(|&protocol| proto(protocol) == number)
}

/// Stands in the map, so it may never change.
const fn scheduler_number(scheduler: Scheduler) -> u8 {
    match scheduler {
        Scheduler::Rr => 1,
        Scheduler::Wrr => 2,
        Scheduler::Lc => 3,
        Scheduler::Wlc => 4,
        Scheduler::Sh => 5,
        Scheduler::Mh => 6,
        // None that this data plane has.
        _ => 0,
    }
}

fn forwarding(forward: Forward) -> Forwarding {
    match forward {
        Forward::Nat => Forwarding::Nat,
        Forward::Dr => Forwarding::Dr,
        Forward::Tun => Forwarding::Tun,
    }
}

/// The number of a protocol.
pub fn proto(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => ip_proto::TCP,
        Protocol::Udp => ip_proto::UDP,
    }
}

/// The key of a virtual server.
pub fn service_key(id: &ServiceId) -> ServiceKey {
    ServiceKey::new(Addr::from_ip(id.address), Port::from_number(id.port), proto(id.protocol))
}

/// The key of a NAT server's answers.
pub fn nat_key(id: &ServiceId, server: &Server) -> ServiceKey {
    let address: IpAddr = server.address;
    ServiceKey::new(Addr::from_ip(address), Port::from_number(server.port), proto(id.protocol))
}
