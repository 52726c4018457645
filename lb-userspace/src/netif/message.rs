//! Requests to the kernel, as messages: pure.

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, Emitable as _, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, CacheInfo},
    link::{InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
        RouteVia,
    },
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use super::request::Request;
use crate::config::vrrp::{VirtualAddress, VirtualRoute, VirtualRule};

/// `rtm_protocol` of our routes and rules: keepalived's number (`RTPROT_KEEPALIVED`).
pub const ROUTE_PROTOCOL: u8 = 18;

/// `INFINITY_LIFE_TIME` (include/net/addrconf.h).
const FOREVER: u32 = u32::MAX;
/// `IFLA_AF_SPEC`.
const IFLA_AF_SPEC: u16 = 26;
/// `IFLA_INET_CONF`.
const IFLA_INET_CONF: u16 = 1;
/// `IFLA_INET6_ADDR_GEN_MODE`, and `IN6_ADDR_GEN_MODE_NONE` for it.
const IFLA_INET6_ADDR_GEN_MODE: (u16, u8) = (8, 1);

/// Adds an address as keepalived does: an IPv6 one without duplicate address detection, and of /128 as deprecated. It has no
/// broadcast address, which keepalived sets only where the configuration gives one.
pub(super) fn add_address(interface: u32, address: &VirtualAddress) -> Request {
    let mut message = self::address(interface, address);
    if address.address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        if address.prefix == 128 {
            let mut times = CacheInfo::default();
            times.ifa_preferred = 0;
            times.ifa_valid = FOREVER;
            message.attributes.push(AddressAttribute::CacheInfo(times));
        }
    } else if let Some(label) = &address.label {
        message.attributes.push(AddressAttribute::Label(label.clone()));
    }
    (RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// Removes an address of exactly this prefix.
pub(super) fn remove_address(interface: u32, address: &VirtualAddress) -> Request {
    (RouteNetlinkMessage::DelAddress(self::address(interface, address)), 0)
}

fn address(interface: u32, address: &VirtualAddress) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.address);
    message.header.prefix_len = address.prefix;
    message.header.index = interface;
    message.attributes.push(AddressAttribute::Local(address.address));
    // Without it the kernel would remove an IPv4 address of any prefix.
    message.attributes.push(AddressAttribute::Address(address.address));
    message
}

/// Adds a route before others of the same destination and metric, as `ip route prepend` does; refused only when it is there
/// exactly so.
pub(super) fn add_route(interface: Option<u32>, route: &VirtualRoute) -> Request {
    let mut message = self::route(interface, route);
    message.header.kind = RouteType::Unicast;
    // What has no gateway is on the link: IPv4 gateways are only looked for there.
    let is_on_link = route.via.is_none() && route.to.0.is_ipv4();
    message.header.scope = if is_on_link { RouteScope::Link } else { RouteScope::Universe };
    (RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE)
}

/// Removes a route of [`ROUTE_PROTOCOL`].
pub(super) fn remove_route(interface: Option<u32>, route: &VirtualRoute) -> Request {
    let mut message = self::route(interface, route);
    // Any scope.
    message.header.scope = RouteScope::NoWhere;
    (RouteNetlinkMessage::DelRoute(message), 0)
}

fn route(interface: Option<u32>, route: &VirtualRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    let (destination, prefix) = route.to;
    message.header.address_family = family(destination);
    message.header.destination_prefix_length = prefix;
    message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    let table = route.table.unwrap_or_else(|| RouteHeader::RT_TABLE_MAIN.into());
    message.header.table = small_table(table);
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(table));
    if prefix > 0 {
        attributes.push(RouteAttribute::Destination(route_address(network(destination, prefix))));
    }
    attributes.extend(route.via.map(|via| match via {
        IpAddr::V6(via) if destination.is_ipv4() => RouteAttribute::Via(RouteVia::Inet6(via)),
        via => RouteAttribute::Gateway(route_address(via)),
    }));
    attributes.extend(interface.map(RouteAttribute::Oif));
    attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(route_address(source))));
    attributes.extend(route.metric.map(RouteAttribute::Priority));
    message
}

/// Adds a rule; refused when there is the same of that priority.
pub(super) fn add_rule(rule: &VirtualRule) -> Request {
    (RouteNetlinkMessage::NewRule(self::rule(rule)), NLM_F_CREATE | NLM_F_EXCL)
}

/// Removes a rule: the first that is like this one, so its priority had better be given.
pub(super) fn remove_rule(rule: &VirtualRule) -> Request {
    (RouteNetlinkMessage::DelRule(self::rule(rule)), 0)
}

/// All rules of the rule's family.
pub(super) fn rules_like(rule: &VirtualRule) -> RouteNetlinkMessage {
    let mut message = RuleMessage::default();
    message.header.family = rule_family(rule);
    RouteNetlinkMessage::GetRule(message)
}

fn rule(rule: &VirtualRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = rule_family(rule);
    message.header.action = RuleAction::ToTable;
    message.header.table = small_table(rule.table);
    let attributes = &mut message.attributes;
    if let Some((address, prefix)) = rule.from.filter(|(_, prefix)| *prefix > 0) {
        message.header.src_len = prefix;
        attributes.push(RuleAttribute::Source(network(address, prefix)));
    }
    if let Some((address, prefix)) = rule.to.filter(|(_, prefix)| *prefix > 0) {
        message.header.dst_len = prefix;
        attributes.push(RuleAttribute::Destination(network(address, prefix)));
    }
    attributes.push(RuleAttribute::Table(rule.table));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(ROUTE_PROTOCOL)));
    attributes.extend(rule.priority.map(RuleAttribute::Priority));
    message
}

/// Whether two rules differ in their priority at most.
pub(super) fn is_like(one: &VirtualRule, other: &VirtualRule) -> bool {
    let bare = |rule: &VirtualRule| self::rule(&VirtualRule { priority: None, ..rule.clone() });
    bare(one) == bare(other)
}

/// In which of the kernel's two tables a rule is.
pub(super) fn is_ipv6_rule(rule: &VirtualRule) -> bool {
    rule_family(rule) == AddressFamily::Inet6
}

/// The priority of a rule of ours in the kernel's table, when it is `wanted` (whose priority may be open).
pub(super) fn priority_of(found: &RuleMessage, wanted: &VirtualRule) -> Option<u32> {
    let expected = self::rule(wanted);
    let (mut priority, mut is_ours, mut like) = (0, false, RuleMessage::default());
    like.header = found.header.clone();
    for attribute in &found.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Protocol(protocol) => is_ours = u8::from(*protocol) == ROUTE_PROTOCOL,
            RuleAttribute::Source(_) | RuleAttribute::Destination(_) | RuleAttribute::Table(_) => {
                like.attributes.push(attribute.clone());
            }
            // The kernel's word for "no such limit".
            RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            RuleAttribute::Other(_) => {}
            // We set nothing else.
            _ => return None,
        }
    }
    let has = |attribute: &RuleAttribute| {
        matches!(attribute, RuleAttribute::Priority(_) | RuleAttribute::Protocol(_))
            || like.attributes.contains(attribute)
    };
    let header = |message: &RuleMessage| {
        let header = &message.header;
        (header.family, header.src_len, header.dst_len, header.tos, header.action)
    };
    let is_it = is_ours
        && header(&like) == header(&expected)
        && expected.attributes.iter().all(has)
        && wanted.priority.is_none_or(|wanted| wanted == priority);
    is_it.then_some(priority)
}

/// Makes a macvlan that talks to nobody on this machine (mode private), as keepalived's.
pub(super) fn new_macvlan(parent: u32, name: &str, mac: [u8; 6]) -> Request {
    let mut message = LinkMessage::default();
    let mode = InfoMacVlan::Mode(MacVlanMode::Private);
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Link(parent),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::MacVlan),
            LinkInfo::Data(InfoData::MacVlan(vec![mode])),
        ]),
    ];
    (RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// Removes an interface.
pub(super) fn remove_link(index: u32) -> Request {
    (RouteNetlinkMessage::DelLink(link(index, vec![])), 0)
}

/// Sets an interface up.
pub(super) fn set_up(index: u32) -> Request {
    let mut message = link(index, vec![]);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    (RouteNetlinkMessage::SetLink(message), 0)
}

/// Sets an interface's alias.
pub(super) fn set_alias(index: u32, alias: &str) -> Request {
    (RouteNetlinkMessage::SetLink(link(index, vec![LinkAttribute::IfAlias(alias.to_owned())])), 0)
}

/// Sets IPv4 parameters of an interface (net.ipv4.conf) by their number (`IPV4_DEVCONF_*`). Needs no writable /proc/sys.
pub(super) fn set_ipv4_parameters(index: u32, parameters: &[(u16, u32)]) -> Request {
    let parameters: Vec<DefaultNla> =
        parameters.iter().map(|(kind, value)| DefaultNla::new(*kind, value.to_ne_bytes().to_vec())).collect();
    let conf = nest(IFLA_INET_CONF, &parameters);
    set_family_options(index, libc::AF_INET, conf)
}

/// Has an interface get no link-local address of its own: one made of a virtual router's MAC would be the same on every
/// router (RFC 9568 7.4).
pub(super) fn set_no_link_local(index: u32) -> Request {
    let (kind, mode) = IFLA_INET6_ADDR_GEN_MODE;
    set_family_options(index, libc::AF_INET6, DefaultNla::new(kind, vec![mode]))
}

fn set_family_options(index: u32, family: i32, option: DefaultNla) -> Request {
    let family = nest(u16::try_from(family).unwrap_or(0), &[option]);
    let attribute = LinkAttribute::Other(nest(IFLA_AF_SPEC, &[family]));
    (RouteNetlinkMessage::SetLink(link(index, vec![attribute])), 0)
}

fn nest(kind: u16, inner: &[DefaultNla]) -> DefaultNla {
    let mut value = vec![0; inner.buffer_len()];
    inner.emit(&mut value);
    DefaultNla::new(kind, value)
}

fn link(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

fn rule_family(rule: &VirtualRule) -> AddressFamily {
    rule.from.or(rule.to).map_or(AddressFamily::Inet, |(address, _)| family(address))
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

/// A header has eight bits for the table; an attribute says which it is.
fn small_table(table: u32) -> u8 {
    u8::try_from(table).unwrap_or(libc::RT_TABLE_COMPAT)
}

/// An address without its host bits, which the kernel refuses.
fn network(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_are_cut_off() {
        for (address, prefix, expected) in [
            ("10.1.2.3", 8, "10.0.0.0"),
            ("10.1.2.3", 32, "10.1.2.3"),
            ("10.1.2.3", 0, "0.0.0.0"),
            ("fd66::1:2", 112, "fd66::1:0"),
            ("fd66::1", 128, "fd66::1"),
            ("fd66::1", 0, "::"),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(network(address, prefix), expected.parse::<IpAddr>().unwrap(), "{address}/{prefix}");
        }
    }

    #[test]
    fn only_our_own_rules_are_recognised() {
        let wanted = VirtualRule {
            from: Some(("10.1.2.3".parse().unwrap(), 24)),
            to: None,
            table: 1000,
            priority: None,
        };
        let mut found = rule(&wanted);
        found.attributes.push(RuleAttribute::Priority(32_765));
        found.attributes.push(RuleAttribute::SuppressPrefixLen(u32::MAX));
        assert_eq!(priority_of(&found, &wanted), Some(32_765));
        assert_eq!(priority_of(&found, &VirtualRule { priority: Some(5), ..wanted.clone() }), None);
        assert_eq!(priority_of(&found, &VirtualRule { table: 1001, ..wanted.clone() }), None);
        assert_eq!(priority_of(&found, &VirtualRule { to: wanted.from, ..wanted.clone() }), None);
        let mut marked = found.clone();
        marked.attributes.push(RuleAttribute::FwMark(1));
        assert_eq!(priority_of(&marked, &wanted), None);
        found.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Protocol(_)));
        assert_eq!(priority_of(&found, &wanted), None);
    }
}
