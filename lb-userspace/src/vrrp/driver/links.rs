//! What is known of this machine's interfaces, and what follows for an instance: pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    config::vrrp::{Family, VirtualAddress, VrrpInstance},
    netif::Interface,
    vrrp::TrackValue,
};

/// All interfaces at one moment.
#[derive(Debug, Default)]
pub struct Links {
    by_name: BTreeMap<String, Interface>,
    names: BTreeMap<u32, String>,
}

impl Links {
    /// As the kernel lists them.
    pub fn new(interfaces: Vec<Interface>) -> Self {
        let names = interfaces.iter().map(|interface| (interface.index, interface.name.clone())).collect();
        let by_name = interfaces.into_iter().map(|interface| (interface.name.clone(), interface)).collect();
        Self { by_name, names }
    }

    /// The interface of that name.
    pub fn get(&self, name: &str) -> Option<&Interface> {
        self.by_name.get(name)
    }

    /// The interface with that index.
    pub fn with_index(&self, index: u32) -> Option<&Interface> {
        self.names.get(&index).and_then(|name| self.get(name))
    }

    /// Whether an interface has an address; of IPv4, which may be there several times, with that prefix.
    pub fn has(&self, index: u32, address: &VirtualAddress) -> bool {
        let is_it = |(there, prefix): &(IpAddr, u8)| {
            *there == address.address && (there.is_ipv6() || *prefix == address.prefix)
        };
        self.with_index(index).is_some_and(|interface| interface.addresses.iter().any(is_it))
    }

    /// How an interface is, for the machines.
    pub fn value(&self, name: &str) -> (TrackValue, &'static str) {
        match self.get(name) {
            None => (TrackValue::Down, "there is no such interface"),
            Some(interface) if interface.is_running => (TrackValue::Up, "up"),
            Some(_) => (TrackValue::Down, "down or without carrier"),
        }
    }

    /// From which address an instance sends. `virtuals`: addresses that come and go, which are no source.
    ///
    /// IPv4: the configured one, else the interface's first that is not virtual; the owner of the addresses (priority 255) may
    /// have no other than these. IPv6: the configured one if this machine has it, else the link-local one (RFC 9568 5.1.2.1),
    /// or, to unicast peers elsewhere, the first other one.
    pub fn source(&self, instance: &VrrpInstance, virtuals: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let interface = self.get(&instance.interface)?;
        if let Some(configured) = instance.source_address {
            let is_known = configured.is_ipv4() || self.is_mine(configured);
            return is_known.then_some(configured);
        }
        let mut own =
            interface.addresses.iter().map(|(address, _)| *address).filter(|a| !virtuals.contains(a));
        match instance.family {
            Family::Ipv4 => own.find(IpAddr::is_ipv4).or_else(|| {
                let first = instance.addresses.first().map(|address| address.address);
                first.filter(|_| instance.priority == 255)
            }),
            Family::Ipv6 => {
                let is_far = |peer: IpAddr| !is_link_local(peer);
                let goes_far = instance.unicast_peers.iter().any(|peer| is_far(peer.address));
                own.find(|address| address.is_ipv6() && is_link_local(*address) != goes_far)
            }
        }
    }

    fn is_mine(&self, address: IpAddr) -> bool {
        self.by_name.values().any(|interface| interface.addresses.iter().any(|(mine, _)| *mine == address))
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::vrrp::UnicastPeer, vrrp::driver::tests::instance};

    fn links() -> Links {
        let address = |text: &str, prefix| (text.parse().unwrap(), prefix);
        Links::new(vec![
            Interface {
                index: 2,
                name: "eth0".into(),
                mac: Some([2; 6]),
                is_running: true,
                addresses: vec![
                    address("10.0.0.100", 32),
                    address("10.0.0.1", 24),
                    address("2001:db8::1", 64),
                    address("fe80::100", 64),
                    address("fe80::1", 64),
                ],
            },
            Interface {
                index: 3,
                name: "eth1".into(),
                mac: None,
                is_running: false,
                addresses: vec![address("192.0.2.1", 24)],
            },
        ])
    }

    fn virtuals() -> BTreeSet<IpAddr> {
        ["10.0.0.100", "fe80::100", "192.0.2.1"].map(|a| a.parse().unwrap()).into()
    }

    #[test]
    fn a_virtual_address_is_no_source_but_for_its_owner() {
        let mut one = instance("one", "eth0", 1, 100, &["10.0.0.100/32"]);
        let source = |instance: &VrrpInstance| links().source(instance, &virtuals()).map(|a| a.to_string());
        assert_eq!(source(&one).as_deref(), Some("10.0.0.1"));
        one.interface = "eth1".into();
        assert_eq!(source(&one), None);
        one.priority = 255;
        assert_eq!(source(&one).as_deref(), Some("10.0.0.100"));
        one.interface = "eth2".into();
        assert_eq!(source(&one), None, "no such interface");
    }

    #[test]
    fn ipv6_sends_from_the_link_local_address_unless_it_goes_far() {
        let mut one = instance("one", "eth0", 1, 100, &["fe80::100/64"]);
        let source = |instance: &VrrpInstance| links().source(instance, &virtuals()).map(|a| a.to_string());
        assert_eq!(source(&one).as_deref(), Some("fe80::1"));
        one.unicast_peers =
            vec![UnicastPeer { address: "2001:db8::2".parse().unwrap(), min_ttl: None, max_ttl: None }];
        assert_eq!(source(&one).as_deref(), Some("2001:db8::1"));
    }

    #[test]
    fn a_configured_source_counts_if_it_can_be_sent_from() {
        let mut one = instance("one", "eth0", 1, 100, &["10.0.0.100/32"]);
        one.source_address = Some("10.9.9.9".parse().unwrap());
        assert_eq!(links().source(&one, &virtuals()), one.source_address, "as keepalived's mcast_src_ip");
        let mut six = instance("six", "eth0", 1, 100, &["fe80::100/64"]);
        six.source_address = Some("fe80::9".parse().unwrap());
        assert_eq!(links().source(&six, &virtuals()), None, "the kernel would refuse");
        six.source_address = Some("2001:db8::1".parse().unwrap());
        assert_eq!(links().source(&six, &virtuals()), six.source_address);
    }

    #[test]
    fn interfaces_are_up_down_or_not_there() {
        assert_eq!(links().value("eth0").0, TrackValue::Up);
        assert_eq!(links().value("eth1"), (TrackValue::Down, "down or without carrier"));
        assert_eq!(links().value("eth2"), (TrackValue::Down, "there is no such interface"));
    }
}
