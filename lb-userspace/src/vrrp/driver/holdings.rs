//! What an instance brings to this machine while it is master: pure.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::links::Links;
use crate::{
    config::vrrp::{VirtualAddress, VirtualRoute, VirtualRule, VrrpInstance},
    vrrp::driver::burst::Target,
};

/// One thing that the kernel has while an instance is master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// An address, with the index of its interface.
    Address(u32, VirtualAddress),
    /// A route, with the index of its interface if it names one.
    Route(Option<u32>, VirtualRoute),
    /// A rule.
    Rule(VirtualRule),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(_, address) => write!(f, "address {}/{}", address.address, address.prefix),
            Self::Route(_, route) => write!(f, "route to {}/{}", route.to.0, route.to.1),
            Self::Rule(rule) => match rule.from.or(rule.to) {
                Some((net, prefix)) => write!(f, "rule for {net}/{prefix}"),
                None => write!(f, "rule for table {}", rule.table),
            },
        }
    }
}

/// What an instance holds: by names, so that it can be remembered for a time when indexes are others.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Named {
    /// Addresses, each with the name of its interface.
    pub addresses: Vec<(String, VirtualAddress)>,
    /// Routes.
    pub routes: Vec<VirtualRoute>,
    /// Rules.
    pub rules: Vec<VirtualRule>,
    /// Macvlans.
    pub macvlans: Vec<String>,
}

impl Named {
    /// Of one instance: its addresses, the excluded ones, routes and rules, in the file's order.
    pub fn of(instance: &VrrpInstance) -> Self {
        let home = instance.vmac.as_ref().unwrap_or(&instance.interface);
        let addresses = instance.addresses.iter().chain(&instance.excluded_addresses);
        Self {
            addresses: addresses
                .map(|address| (address.interface.as_ref().unwrap_or(home).clone(), address.clone()))
                .collect(),
            routes: instance.routes.clone(),
            rules: instance.rules.clone(),
            macvlans: instance.vmac.iter().cloned().collect(),
        }
    }

    /// Takes in what another holds.
    pub fn extend(&mut self, other: Self) {
        self.addresses.extend(other.addresses);
        self.routes.extend(other.routes);
        self.rules.extend(other.rules);
        self.macvlans.extend(other.macvlans);
    }

    /// With indexes instead of names. What is on interfaces that do not exist is left out.
    pub fn resolve(&self, links: &Links) -> Vec<Thing> {
        self.resolve_by(|name| links.get(name).map(|interface| interface.index))
    }

    /// The same, asking for each name's index.
    pub fn resolve_by(&self, index: impl Fn(&str) -> Option<u32>) -> Vec<Thing> {
        let addresses = self
            .addresses
            .iter()
            .filter_map(|(name, address)| Some(Thing::Address(index(name)?, address.clone())));
        let routes = self.routes.iter().filter_map(|route| match &route.interface {
            Some(name) => Some(Thing::Route(Some(index(name)?), route.clone())),
            // The kernel finds it by the gateway, which need not be in the instance's network.
            None => Some(Thing::Route(None, route.clone())),
        });
        addresses.chain(routes).chain(self.rules.iter().cloned().map(Thing::Rule)).collect()
    }
}

/// Those of `things` that are not in `others`, in their order.
pub fn without(things: &[Thing], others: &[Thing]) -> Vec<Thing> {
    things.iter().filter(|thing| !others.contains(thing)).cloned().collect()
}

/// Those IPv6 addresses of `things` that are there with another prefix: the kernel has each of them only once on an interface, so
/// that it is not added, but removes it only with the prefix that it has.
pub fn with_other_prefixes(things: &[Thing], links: &Links) -> Vec<Thing> {
    let other = |thing: &Thing| match thing {
        Thing::Address(index, address) if address.address.is_ipv6() => {
            let mut there = links.with_index(*index)?.addresses.iter();
            let (_, prefix) = there.find(|(other, _)| *other == address.address)?;
            let found = VirtualAddress { prefix: *prefix, ..address.clone() };
            (*prefix != address.prefix).then_some(Thing::Address(*index, found))
        }
        Thing::Address(..) | Thing::Route(..) | Thing::Rule(_) => None,
    };
    things.iter().filter_map(other).collect()
}

/// What there is to announce of `things`: addresses on interfaces that have a MAC address.
pub fn targets(things: &[Thing], links: &Links) -> Vec<Target> {
    let target = |thing: &Thing| match thing {
        Thing::Address(index, address) => {
            let mac = links.with_index(*index)?.mac?;
            Some(Target { interface: *index, mac, address: address.address })
        }
        Thing::Route(..) | Thing::Rule(_) => None,
    };
    things.iter().filter_map(target).collect()
}

/// The virtual router's MAC address (RFC 9568 7.3).
pub fn virtual_mac(instance: &VrrpInstance) -> [u8; 6] {
    let family = match instance.family {
        crate::config::vrrp::Family::Ipv4 => 1,
        crate::config::vrrp::Family::Ipv6 => 2,
    };
    [0x00, 0x00, 0x5e, 0x00, family, instance.virtual_router_id]
}

/// The macvlans of all instances: name, parent and MAC address.
pub fn macvlans(instances: &[VrrpInstance]) -> BTreeMap<&str, (&str, [u8; 6])> {
    let macvlan = |instance| {
        let VrrpInstance { vmac, interface, .. }: &VrrpInstance = instance;
        Some((vmac.as_deref()?, (interface.as_str(), virtual_mac(instance))))
    };
    instances.iter().filter_map(macvlan).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        netif::Interface,
        vrrp::driver::tests::{address, instance},
    };

    fn links(names: &[(&str, u32, Option<[u8; 6]>)]) -> Links {
        let interface = |(name, index, mac): &(&str, u32, Option<[u8; 6]>)| Interface {
            index: *index,
            name: (*name).to_owned(),
            mac: *mac,
            is_running: true,
            addresses: Vec::new(),
        };
        Links::new(names.iter().map(interface).collect())
    }

    #[test]
    fn addresses_are_on_their_own_interface_else_the_macvlan_else_the_instances() {
        let mut one = instance("one", "eth0", 51, 100, &["10.0.0.100/32", "10.0.0.101/32"]);
        one.addresses[1].interface = Some("lo".into());
        one.excluded_addresses = vec![address("fd00::1/128")];
        let shown = |instance: &VrrpInstance| {
            let named = Named::of(instance);
            let show = |(name, address): &(String, VirtualAddress)| format!("{} {name}", address.address);
            named.addresses.iter().map(show).collect::<Vec<_>>()
        };
        assert_eq!(shown(&one), ["10.0.0.100 eth0", "10.0.0.101 lo", "fd00::1 eth0"]);
        one.vmac = Some("vrrp.51".into());
        assert_eq!(shown(&one), ["10.0.0.100 vrrp.51", "10.0.0.101 lo", "fd00::1 vrrp.51"]);
        assert_eq!(macvlans(&[one]), [("vrrp.51", ("eth0", [0, 0, 0x5e, 0, 1, 51]))].into());
    }

    #[test]
    fn what_has_no_interface_is_left_out_and_loopback_is_not_announced() {
        let mut one = instance("one", "eth0", 51, 100, &["10.0.0.100/32", "10.0.0.101/32", "10.0.0.102/32"]);
        one.addresses[1].interface = Some("lo".into());
        one.addresses[2].interface = Some("gone".into());
        let links = links(&[("eth0", 2, Some([2; 6])), ("lo", 1, None)]);
        let things = Named::of(&one).resolve(&links);
        let shown: Vec<String> = things.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["address 10.0.0.100/32", "address 10.0.0.101/32"]);
        let target = Target { interface: 2, mac: [2; 6], address: "10.0.0.100".parse().unwrap() };
        assert_eq!(targets(&things, &links), [target]);
        assert_eq!(without(&things, &things[..1]), things[1..]);
    }
}
