//! Interfaces, and the way down from a route's device to the one on which the frame leaves.

use std::{collections::BTreeMap, net::IpAddr};

use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};

use super::{NextHop, Reason, VlanTag};

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's interface index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address, where it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// The layer below works (`IFF_LOWER_UP`); an interface that is down has none.
    pub carrier: bool,
    /// It carries Ethernet frames (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// The kernel's name of the driver's kind ("veth", "vlan", "bridge"), `None` for most hardware.
    pub kind: Option<String>,
    /// Set for a VLAN device whose parent is in this namespace.
    pub vlan: Option<VlanLink>,
    /// Index of the bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// Its addresses; filled by [`links`](super::links) only.
    pub addresses: Vec<IpAddr>,
}

/// What a VLAN device adds, and where its frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanLink {
    /// The tag it puts on each frame.
    pub tag: VlanTag,
    /// Index of the interface below.
    pub parent: u32,
}

/// Kinds of Ethernet interface that cannot send a redirected frame as it is: they choose a port, encapsulate,
/// or have no XDP transmit.
const NO_REDIRECT: [&str; 15] = [
    "bridge",
    "macvlan",
    "macvtap",
    "ipvlan",
    "ipvtap",
    "vxlan",
    "geneve",
    "gretap",
    "ip6gretap",
    "erspan",
    "ip6erspan",
    "vrf",
    "macsec",
    "team",
    "batadv",
];

/// All interfaces by index.
#[derive(Clone, Debug, Default)]
pub(super) struct LinkTable(BTreeMap<u32, Link>);

/// The layer 2 half of a next hop, without the neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Egress {
    pub ifindex: u32,
    pub interface: String,
    pub vlans: Vec<VlanTag>,
    pub source_mac: [u8; 6],
    pub mtu: u32,
}

impl LinkTable {
    pub fn contains(&self, index: u32) -> bool {
        self.0.contains_key(&index)
    }

    pub fn add_address(&mut self, index: u32, address: IpAddr) {
        if let Some(link) = self.0.get_mut(&index) {
            link.addresses.push(address);
        }
    }

    pub fn into_links(self) -> Vec<Link> {
        self.0.into_values().collect()
    }

    /// Walks from the route's device `oif` down to the interface on which the frame leaves.
    pub fn egress(&self, oif: u32) -> Result<Egress, Reason> {
        let top = self.get(oif)?;
        let mut vlans = Vec::new();
        let mut link = top;
        loop {
            if !link.up {
                return Err(Reason::InterfaceDown { interface: link.name.clone() });
            }
            if !link.carrier {
                return Err(Reason::NoCarrier { interface: link.name.clone() });
            }
            let Some(vlan) = link.vlan else { break };
            // Also the bound that ends the walk, should the kernel's answers ever form a circle.
            if vlans.len() == NextHop::MAX_VLANS {
                return Err(Reason::TooManyVlans { interface: top.name.clone() });
            }
            vlans.push(vlan.tag);
            link = self.get(vlan.parent)?;
        }
        vlans.reverse();
        let kind = || link.kind.clone().unwrap_or_else(|| "unknown".to_owned());
        let not_ethernet = || Reason::NotEthernet { interface: link.name.clone(), kind: kind() };
        if !link.ethernet {
            return Err(not_ethernet());
        }
        if let Some(kind) = link.kind.as_deref() {
            // A VLAN device that comes here has its parent in another namespace.
            if NO_REDIRECT.contains(&kind) || kind == "vlan" {
                return Err(Reason::Unsupported { interface: link.name.clone(), kind: kind.to_owned() });
            }
        }
        Ok(Egress {
            ifindex: link.index,
            interface: top.name.clone(),
            vlans,
            source_mac: top.mac.ok_or_else(not_ethernet)?,
            mtu: top.mtu,
        })
    }

    fn get(&self, index: u32) -> Result<&Link, Reason> {
        self.0.get(&index).ok_or_else(|| Reason::LookupFailed(format!("no interface with index {index}")))
    }
}

impl Extend<Link> for LinkTable {
    fn extend<I: IntoIterator<Item = Link>>(&mut self, links: I) {
        self.0.extend(links.into_iter().map(|link| (link.index, link)));
    }
}

impl From<&LinkMessage> for Link {
    fn from(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let layer = message.header.link_layer_type;
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            ethernet: layer == LinkLayerType::Ether,
            kind: None,
            vlan: None,
            master: None,
            addresses: Vec::new(),
        };
        let mut parent = None;
        let mut parent_elsewhere = false;
        let mut tag = None;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Link(index) => parent = Some(*index),
                LinkAttribute::LinkNetNsId(_) => parent_elsewhere = true,
                LinkAttribute::Controller(index) => link.master = Some(*index),
                LinkAttribute::LinkInfo(info) => (link.kind, tag) = kind_and_tag(info),
                _ => {}
            }
        }
        if layer == LinkLayerType::Loopback {
            link.kind = Some("loopback".to_owned());
        }
        if let (Some(tag), Some(parent), false) = (tag, parent, parent_elsewhere) {
            link.vlan = Some(VlanLink { tag, parent });
        }
        link
    }
}

fn kind_and_tag(info: &[LinkInfo]) -> (Option<String>, Option<VlanTag>) {
    let mut kind = None;
    let mut tag = None;
    for attribute in info {
        match attribute {
            LinkInfo::Kind(InfoKind::Other(name)) => kind = Some(name.clone()),
            LinkInfo::Kind(known) => kind = Some(known.to_string()),
            LinkInfo::Data(InfoData::Vlan(data)) => tag = vlan_tag(data),
            _ => {}
        }
    }
    (kind, tag)
}

fn vlan_tag(data: &[InfoVlan]) -> Option<VlanTag> {
    let mut vid = None;
    let mut tpid = 0x8100;
    for attribute in data {
        match attribute {
            InfoVlan::Id(id) => vid = Some(*id),
            InfoVlan::Protocol(protocol) => tpid = u16::from(*protocol),
            _ => {}
        }
    }
    vid.map(|vid| VlanTag { tpid, vid })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::VlanProtocol;

    use super::*;

    fn ethernet(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mac: Some([2, 0, 0, 0, 0, u8::try_from(index).unwrap()]),
            mtu: 1500,
            up: true,
            carrier: true,
            ethernet: true,
            kind: None,
            vlan: None,
            master: None,
            addresses: Vec::new(),
        }
    }

    fn vlan(index: u32, name: &str, tpid: u16, vid: u16, parent: u32) -> Link {
        Link {
            kind: Some("vlan".to_owned()),
            vlan: Some(VlanLink { tag: VlanTag { tpid, vid }, parent }),
            ..ethernet(index, name)
        }
    }

    fn table(links: impl IntoIterator<Item = Link>) -> LinkTable {
        let mut table = LinkTable::default();
        table.extend(links);
        table
    }

    #[test]
    fn a_plain_interface_is_its_own_egress() {
        let egress = table([ethernet(3, "eth0")]).egress(3).unwrap();
        assert_eq!(
            egress,
            Egress {
                ifindex: 3,
                interface: "eth0".to_owned(),
                vlans: vec![],
                source_mac: [2, 0, 0, 0, 0, 3],
                mtu: 1500
            }
        );
    }

    #[test]
    fn stacked_vlans_give_the_outer_tag_first_and_the_top_devices_mac_and_mtu() {
        let mut top = vlan(5, "eth0.10.20", 0x8100, 20, 4);
        top.mtu = 1400;
        let links = [ethernet(3, "eth0"), vlan(4, "eth0.10", 0x88a8, 10, 3), top];
        assert_eq!(
            table(links).egress(5).unwrap(),
            Egress {
                ifindex: 3,
                interface: "eth0.10.20".to_owned(),
                vlans: vec![VlanTag { tpid: 0x88a8, vid: 10 }, VlanTag { tpid: 0x8100, vid: 20 }],
                source_mac: [2, 0, 0, 0, 0, 5],
                mtu: 1400
            }
        );
    }

    #[test]
    fn a_third_vlan_or_a_circle_is_refused() {
        let three = [
            ethernet(1, "e"),
            vlan(2, "a", 0x8100, 1, 1),
            vlan(3, "b", 0x8100, 2, 2),
            vlan(4, "c", 0x8100, 3, 3),
        ];
        let too_many = |name: &str| Err(Reason::TooManyVlans { interface: name.to_owned() });
        assert_eq!(table(three).egress(4), too_many("c"));
        let circle = [vlan(2, "a", 0x8100, 1, 3), vlan(3, "b", 0x8100, 2, 2)];
        assert_eq!(table(circle).egress(2), too_many("a"));
    }

    #[test]
    fn every_interface_on_the_way_must_be_up_with_a_carrier() {
        let mut parent = ethernet(3, "eth0");
        parent.carrier = false;
        let links = [parent.clone(), vlan(4, "eth0.10", 0x8100, 10, 3)];
        assert_eq!(table(links).egress(4), Err(Reason::NoCarrier { interface: "eth0".to_owned() }));
        parent.up = false;
        assert_eq!(table([parent]).egress(3), Err(Reason::InterfaceDown { interface: "eth0".to_owned() }));
    }

    #[test]
    fn a_bond_is_used_and_a_bridge_is_not() {
        let mut link = ethernet(3, "bond0");
        link.kind = Some("bond".to_owned());
        assert_eq!(table([link.clone()]).egress(3).unwrap().ifindex, 3);
        link.kind = Some("bridge".to_owned());
        let expected = Reason::Unsupported { interface: "bond0".to_owned(), kind: "bridge".to_owned() };
        assert_eq!(table([link]).egress(3), Err(expected));
    }

    #[test]
    fn a_vlan_whose_parent_is_elsewhere_is_refused() {
        let mut link = vlan(4, "eth0.10", 0x8100, 10, 3);
        link.vlan = None;
        let expected = Reason::Unsupported { interface: "eth0.10".to_owned(), kind: "vlan".to_owned() };
        assert_eq!(table([link]).egress(4), Err(expected));
    }

    #[test]
    fn other_link_layers_and_unknown_indexes_are_refused() {
        let mut link = ethernet(3, "wg0");
        link.ethernet = false;
        link.kind = Some("wireguard".to_owned());
        let links = table([link]);
        let expected = Reason::NotEthernet { interface: "wg0".to_owned(), kind: "wireguard".to_owned() };
        assert_eq!(links.egress(3), Err(expected));
        assert!(matches!(links.egress(9), Err(Reason::LookupFailed(_))));
    }

    fn vlan_message() -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        message.attributes = vec![
            LinkAttribute::IfName("eth0.10".to_owned()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 7]),
            LinkAttribute::Mtu(1496),
            LinkAttribute::Link(3),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vlan),
                LinkInfo::Data(InfoData::Vlan(vec![
                    InfoVlan::Id(10),
                    InfoVlan::Protocol(VlanProtocol::Ieee8021Ad),
                ])),
            ]),
        ];
        message
    }

    #[test]
    fn a_vlan_devices_message_gives_tag_and_parent() {
        let mut expected = vlan(7, "eth0.10", 0x88a8, 10, 3);
        expected.mtu = 1496;
        assert_eq!(Link::from(&vlan_message()), expected);
    }

    #[test]
    fn a_parent_in_another_namespace_is_no_parent() {
        let mut message = vlan_message();
        message.attributes.push(LinkAttribute::LinkNetNsId(0));
        assert_eq!(Link::from(&message).vlan, None);
    }
}
