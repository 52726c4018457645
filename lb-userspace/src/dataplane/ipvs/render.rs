//! A virtual server in the kernel's words, and back: pure.

use std::{net::SocketAddr, time::Duration};

use super::words::{
    Destination, Encapsulation, FALLBACK, KernelService, Key, Method, ONE_PACKET, PERSISTENT, PORT,
};
use crate::{
    config::{Forward, Persistence, Scheduler, SchedulerFlags, Tunnel, TunnelChecksum, TunnelKind},
    desired::{Server, Service, ServiceId},
};

/// A service with its destinations, in the order in which they are added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The service.
    pub service: KernelService,
    /// One for each address and port.
    pub destinations: Vec<Destination>,
}

/// By what the kernel knows a virtual server.
pub const fn key(id: &ServiceId) -> Key {
    let ServiceId { address, port, protocol } = *id;
    Key::Address { address, port, protocol }
}

/// The virtual server that a key belongs to; `None` for a firewall mark.
pub const fn id(key: &Key) -> Option<ServiceId> {
    match *key {
        Key::Address { address, port, protocol } => Some(ServiceId { address, port, protocol }),
        Key::Mark { .. } => None,
    }
}

/// What the kernel should have of a virtual server, some of whose destinations it has already (`is_there`).
///
/// A server that leaves is a destination of weight 0: taking it out would cut its connections. Where it is not there it has none,
/// and is not added. To `sh` and `mh` weight 0 means "refuse its clients" unless they may fall back, so they may for as long as
/// somebody leaves.
pub fn render(id: &ServiceId, service: &Service, is_there: impl Fn(&SocketAddr) -> bool) -> Rendered {
    let mut destinations: Vec<Destination> = Vec::with_capacity(service.servers.len());
    // The kernel knows a destination by address and port: one that serves goes before one that leaves with another method.
    let (serving, leaving): (Vec<&Server>, Vec<&Server>) =
        service.servers.iter().partition(|server| !server.is_leaving);
    let mut somebody_leaves = false;
    for server in serving.into_iter().chain(leaving) {
        let one = destination(id, server);
        let is_known = || destinations.iter().any(|other| other.address == one.address);
        if server.is_leaving && !is_there(&one.address) || is_known() {
            continue;
        }
        somebody_leaves |= server.is_leaving;
        destinations.push(one);
    }
    let hashes = super::is_stateless(service.scheduler);
    let flags = [
        (service.flags.port, PORT),
        (service.flags.fallback || hashes && somebody_leaves, FALLBACK),
        (service.persistence.is_some(), PERSISTENT),
        (service.one_packet, ONE_PACKET),
    ];
    let whole = if id.address.is_ipv6() { 128 } else { 32 };
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    Rendered {
        service: KernelService {
            key: key(id),
            scheduler: service.scheduler.as_str().to_owned(),
            flags: flags.into_iter().filter(|(is_set, _)| *is_set).fold(0, |flags, (_, flag)| flags | flag),
            timeout: service.persistence.map_or(0, |persistence| seconds(persistence.timeout)),
            prefix: service.persistence.map_or(whole, |persistence| persistence.prefix),
        },
        destinations,
    }
}

fn destination(id: &ServiceId, server: &Server) -> Destination {
    let method = match server.forward {
        Forward::Nat => Method::Masquerade,
        Forward::Dr => Method::Route,
        Forward::Tun => Method::Tunnel,
    };
    Destination {
        address: SocketAddr::new(server.address, if server.port == 0 { id.port } else { server.port }),
        method,
        encapsulation: match method {
            Method::Tunnel => encapsulation(server.tunnel),
            _ => Encapsulation::default(),
        },
        weight: if server.is_leaving { 0 } else { server.weight },
        upper: server.upper_threshold,
        lower: server.lower_threshold,
    }
}

const fn encapsulation(tunnel: Tunnel) -> Encapsulation {
    Encapsulation {
        kind: match tunnel.kind {
            TunnelKind::Ipip => 0,
            TunnelKind::Gue => 1,
            TunnelKind::Gre => 2,
        },
        port: tunnel.port,
        flags: match tunnel.checksum {
            TunnelChecksum::None => 0,
            TunnelChecksum::Full => 1,
            TunnelChecksum::Remote => 2,
        },
    }
}

fn tunnel(encapsulation: Encapsulation) -> Tunnel {
    Tunnel {
        kind: match encapsulation.kind {
            1 => TunnelKind::Gue,
            2 => TunnelKind::Gre,
            _ => TunnelKind::Ipip,
        },
        port: encapsulation.port,
        checksum: match encapsulation.flags {
            1 => TunnelChecksum::Full,
            2 => TunnelChecksum::Remote,
            _ => TunnelChecksum::None,
        },
    }
}

/// The virtual server that the kernel has; `None` for one that xdirector would not have made. Who leaves looks like any other server
/// of weight 0, so those count as leaving: neither gets new connections, and the next change tells them apart.
pub fn read(service: &KernelService, destinations: &[Destination]) -> Option<(ServiceId, Service)> {
    let id = id(&service.key)?;
    let scheduler = *Scheduler::ALL.iter().find(|one| one.as_str() == service.scheduler)?;
    let servers = destinations
        .iter()
        .filter_map(|one| {
            Some(Server {
                address: one.address.ip(),
                port: one.address.port(),
                forward: match one.method {
                    Method::Masquerade => Forward::Nat,
                    Method::Route => Forward::Dr,
                    Method::Tunnel => Forward::Tun,
                    Method::Local => return None,
                },
                tunnel: tunnel(one.encapsulation),
                weight: one.weight,
                is_leaving: one.weight == 0,
                upper_threshold: one.upper,
                lower_threshold: one.lower,
            })
        })
        .collect();
    let flags = SchedulerFlags { port: service.flags & PORT != 0, fallback: service.flags & FALLBACK != 0 };
    let service = Service {
        scheduler,
        flags,
        persistence: (service.flags & PERSISTENT != 0).then(|| Persistence {
            timeout: Duration::from_secs(service.timeout.into()),
            prefix: service.prefix,
        }),
        one_packet: service.flags & ONE_PACKET != 0,
        expire_nodest: true,
        expire_quiescent: false,
        role: 0,
        servers,
    };
    Some((id, service))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Protocol;

    fn server(host: u8, weight: u32) -> Server {
        Server {
            address: [10, 0, 0, host].into(),
            port: 8080,
            forward: Forward::Nat,
            tunnel: Tunnel::IPIP,
            weight,
            is_leaving: false,
            upper_threshold: 0,
            lower_threshold: 0,
        }
    }

    fn service(scheduler: Scheduler, servers: Vec<Server>) -> Service {
        Service {
            scheduler,
            flags: SchedulerFlags::default(),
            persistence: None,
            one_packet: false,
            expire_nodest: true,
            expire_quiescent: false,
            role: 0,
            servers,
        }
    }

    fn id() -> ServiceId {
        ServiceId { address: [192, 0, 2, 1].into(), port: 80, protocol: Protocol::Tcp }
    }

    #[test]
    fn who_leaves_keeps_its_connections_and_gets_no_clients() {
        let leaving = service(Scheduler::Sh, vec![server(1, 3).leaving(), server(2, 5)]);
        let there = render(&id(), &leaving, |_| true);
        let weights: Vec<_> = there.destinations.iter().map(|one| (one.address.ip(), one.weight)).collect();
        assert_eq!(weights, [([10, 0, 0, 2].into(), 5), ([10, 0, 0, 1].into(), 0)]);
        assert_eq!(there.service.flags, FALLBACK, "its clients find another server meanwhile");
        let new = render(&id(), &leaving, |_| false);
        assert_eq!(
            (new.destinations.len(), new.service.flags),
            (1, 0),
            "where it is not, it has no connections"
        );
        let quiet = render(&id(), &service(Scheduler::Sh, vec![server(1, 0), server(2, 5)]), |_| true);
        assert_eq!((quiet.destinations.len(), quiet.service.flags), (2, 0), "weight 0 is as with IPVS");
    }

    #[test]
    fn the_kernel_has_one_destination_for_an_address_and_port() {
        let old = Server { forward: Forward::Dr, ..server(1, 3) }.leaving();
        let rendered = render(&id(), &service(Scheduler::Rr, vec![old, server(1, 3)]), |_| true);
        assert_eq!(rendered.destinations.len(), 1);
        assert_eq!(
            (rendered.destinations[0].method, rendered.destinations[0].weight),
            (Method::Masquerade, 3)
        );
    }

    fn any_service() -> impl Strategy<Value = Service> {
        let kind = prop_oneof![
            Just((Forward::Nat, Tunnel::IPIP)),
            Just((Forward::Dr, Tunnel::IPIP)),
            Just((Forward::Tun, Tunnel::IPIP)),
            Just((
                Forward::Tun,
                Tunnel { kind: TunnelKind::Gue, port: 6080, checksum: TunnelChecksum::Remote }
            )),
            Just((Forward::Tun, Tunnel { kind: TunnelKind::Gre, port: 0, checksum: TunnelChecksum::Full })),
        ];
        let servers = prop::collection::btree_map(1u8..9, (kind, 0u32..9, 0u32..9), 0..5).prop_map(|all| {
            all.into_iter()
                .map(|(host, ((forward, tunnel), weight, upper))| Server {
                    forward,
                    tunnel,
                    upper_threshold: upper,
                    ..server(host, weight)
                })
                .collect()
        });
        let persistence = prop::option::of((1u64..9999, 1u8..=32)).prop_map(|one| {
            one.map(|(seconds, prefix)| Persistence { timeout: Duration::from_secs(seconds), prefix })
        });
        (0..Scheduler::ALL.len(), servers, persistence, any::<(bool, bool)>()).prop_map(
            |(scheduler, servers, persistence, (port, one_packet))| Service {
                flags: SchedulerFlags { port, fallback: false },
                persistence,
                one_packet,
                ..service(Scheduler::ALL[scheduler], servers)
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_rendered_is_read_again(service in any_service()) {
            let rendered = render(&id(), &service, |_| true);
            let mut seen = service;
            seen.servers.iter_mut().for_each(|server| server.is_leaving = server.weight == 0);
            prop_assert_eq!(read(&rendered.service, &rendered.destinations), Some((id(), seen)));
        }
    }
}
