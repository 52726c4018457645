//! What a route lookup answered, and which addresses a changed route may concern.

use std::net::IpAddr;

use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};

use super::Reason;

/// The kernel's answer to `RTM_GETROUTE` for one address, as far as it names a way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Index of the route's device.
    pub oif: u32,
    pub gateway: Option<IpAddr>,
    pub source: Option<IpAddr>,
    pub mtu: Option<u32>,
}

impl Route {
    /// Reads the answer.
    pub fn decode(message: &RouteMessage) -> Result<Self, Reason> {
        match message.header.kind {
            RouteType::Unicast => {}
            RouteType::Local => return Err(Reason::LocalAddress),
            RouteType::Broadcast | RouteType::Multicast | RouteType::Anycast => {
                return Err(Reason::NotUnicast);
            }
            RouteType::BlackHole => return Err(Reason::Blackhole),
            RouteType::Unreachable => return Err(Reason::Unreachable),
            RouteType::Prohibit => return Err(Reason::Prohibited),
            other => return Err(Reason::LookupFailed(format!("route of type {}", u8::from(other)))),
        }
        let mut oif = None;
        let mut route = Route { oif: 0, gateway: None, source: None, mtu: None };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => oif = Some(*index),
                RouteAttribute::Gateway(gateway) => route.gateway = address(gateway),
                // An IPv4 destination through an IPv6 router (RFC 8950).
                RouteAttribute::Via(RouteVia::Inet(gateway)) => route.gateway = Some((*gateway).into()),
                RouteAttribute::Via(RouteVia::Inet6(gateway)) => route.gateway = Some((*gateway).into()),
                RouteAttribute::PrefSource(source) => route.source = address(source),
                RouteAttribute::Metrics(metrics) => {
                    route.mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                        _ => None,
                    });
                }
                RouteAttribute::EncapType(_) => {
                    return Err(Reason::LookupFailed("the route encapsulates".to_owned()));
                }
                _ => {}
            }
        }
        route.oif = oif.ok_or(Reason::NoRoute)?;
        Ok(route)
    }

    /// What the error number of a failed lookup means; `None` where it says nothing about the route.
    ///
    /// The numbers are those of the route types in the kernel's `fib_props` (`net/ipv4/fib_semantics.c`).
    pub fn refused(errno: i32) -> Option<Reason> {
        match errno {
            libc::ENETUNREACH => Some(Reason::NoRoute),
            libc::EHOSTUNREACH => Some(Reason::Unreachable),
            libc::EACCES => Some(Reason::Prohibited),
            libc::EINVAL => Some(Reason::Blackhole),
            _ => None,
        }
    }
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// The destinations of a route that came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    /// Its network, of the right family also for a default route.
    pub network: IpAddr,
    pub length: u8,
}

impl Prefix {
    /// The destinations of a route message; `None` for families that no target has.
    pub fn of(message: &RouteMessage) -> Option<Self> {
        let default: IpAddr = match message.header.address_family {
            AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let network = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(network) => address(network),
            _ => None,
        });
        Some(Self { network: network.unwrap_or(default), length: message.header.destination_prefix_length })
    }

    pub fn covers(&self, target: IpAddr) -> bool {
        // Both as the top bits of one width: a shift by the whole width would overflow, hence `checked_shr`.
        let (network, target, width) = match (self.network, target) {
            (IpAddr::V4(network), IpAddr::V4(target)) => {
                (u128::from(network.to_bits()), u128::from(target.to_bits()), 32)
            }
            (IpAddr::V6(network), IpAddr::V6(target)) => (network.to_bits(), target.to_bits(), 128),
            _ => return false,
        };
        let ignored = width - u32::from(self.length).min(width);
        (network ^ target).checked_shr(ignored).unwrap_or(0) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn unicast(attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::Unicast;
        message.attributes = attributes;
        message
    }

    #[test]
    fn an_answer_gives_device_gateway_source_and_mtu() {
        let message = unicast(vec![
            RouteAttribute::Oif(4),
            RouteAttribute::Gateway(ip("192.0.2.1").into()),
            RouteAttribute::PrefSource(ip("192.0.2.9").into()),
            RouteAttribute::Metrics(vec![RouteMetric::Hoplimit(3), RouteMetric::Mtu(1400)]),
        ]);
        let expected =
            Route { oif: 4, gateway: Some(ip("192.0.2.1")), source: Some(ip("192.0.2.9")), mtu: Some(1400) };
        assert_eq!(Route::decode(&message), Ok(expected));
    }

    #[test]
    fn an_ipv6_gateway_of_an_ipv4_route_is_taken() {
        let via = RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap()));
        let route = Route::decode(&unicast(vec![RouteAttribute::Oif(4), via])).unwrap();
        assert_eq!(route.gateway, Some(ip("fe80::1")));
    }

    #[test]
    fn other_route_types_are_reasons() {
        for (kind, reason) in [
            (RouteType::Local, Reason::LocalAddress),
            (RouteType::Broadcast, Reason::NotUnicast),
            (RouteType::Multicast, Reason::NotUnicast),
            (RouteType::Unreachable, Reason::Unreachable),
            (RouteType::BlackHole, Reason::Blackhole),
            (RouteType::Prohibit, Reason::Prohibited),
        ] {
            let mut message = unicast(vec![RouteAttribute::Oif(4)]);
            message.header.kind = kind;
            assert_eq!(Route::decode(&message), Err(reason));
        }
        assert_eq!(Route::decode(&unicast(vec![])), Err(Reason::NoRoute));
    }

    #[test]
    fn a_prefix_covers_what_it_should() {
        for (network, length, target, expected) in [
            ("10.1.0.0", 16, "10.1.255.1", true),
            ("10.1.0.0", 16, "10.2.0.1", false),
            ("0.0.0.0", 0, "203.0.113.7", true),
            ("0.0.0.0", 0, "2001:db8::1", false),
            ("192.0.2.7", 32, "192.0.2.7", true),
            ("192.0.2.7", 32, "192.0.2.6", false),
            ("192.0.2.7", 200, "192.0.2.6", false),
            ("2001:db8::", 32, "2001:db8:1::1", true),
            ("2001:db8::", 32, "2001:db9::1", false),
            ("::", 0, "2001:db8::1", true),
            ("2001:db8::1", 128, "2001:db8::2", false),
        ] {
            let prefix = Prefix { network: ip(network), length };
            assert_eq!(prefix.covers(ip(target)), expected, "{network}/{length} and {target}");
        }
    }

    #[test]
    fn a_default_routes_prefix_has_the_messages_family() {
        let mut message = unicast(vec![]);
        message.header.address_family = AddressFamily::Inet6;
        assert_eq!(Prefix::of(&message), Some(Prefix { network: ip("::"), length: 0 }));
        message.header.address_family = AddressFamily::Mpls;
        assert_eq!(Prefix::of(&message), None);
    }
}
