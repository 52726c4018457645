//! Reading the kernel's interfaces and addresses. Of each message only what is needed is looked at, so that what a
//! newer kernel adds cannot hide an interface.

use std::net::IpAddr;

use netlink_packet_route::{
    RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkAttribute, LinkExtentMask, LinkMessage},
};

use nix::net::if_::if_indextoname;

use super::netlink::{Message, attributes, text, u16_at, u32_at};

/// `RTM_NEWLINK`, `RTM_NEWADDR`.
const NEW: (u16, u16) = (16, 20);
/// `sizeof(struct ifinfomsg)`, `sizeof(struct ifaddrmsg)`.
const HEADERS: (usize, usize) = (16, 8);
/// `IFF_UP | IFF_RUNNING | IFF_LOWER_UP`.
const RUNNING: u32 = 0x1 | 0x40 | 0x1_0000;
/// `IFA_F_DADFAILED | IFA_F_TENTATIVE`.
const UNUSABLE: u32 = 0x08 | 0x40;

/// `IPV4_DEVCONF_*` (include/uapi/linux/ip.h).
pub mod ipv4 {
    /// Reverse path filter.
    pub const RP_FILTER: u16 = 8;
    /// Which ARP requests are answered: with 1 those for addresses of the interface itself.
    pub const ARP_IGNORE: u16 = 19;
    /// A removed primary address does not take its secondaries with it.
    pub const PROMOTE_SECONDARIES: u16 = 20;
    /// Packets from our own addresses are let in.
    pub const ACCEPT_LOCAL: u16 = 23;
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Where it has six bytes that are not all zero.
    pub mac: Option<[u8; 6]>,
    /// Up, with a carrier.
    pub is_running: bool,
    /// The interface below it.
    pub parent: Option<u32>,
    /// "macvlan" and so on; empty for a physical one.
    pub kind: String,
    /// Of a macvlan: `MACVLAN_MODE_*`.
    pub macvlan_mode: Option<u32>,
    /// `ip link ... alias`.
    pub alias: String,
    /// `net.ipv4.conf.NAME.arp_ignore`.
    pub arp_ignore: Option<u32>,
}

/// The request for all interfaces, or that of a name.
pub fn get_links(name: Option<&str>) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message.attributes.extend(name.map(|name| LinkAttribute::IfName(name.to_owned())));
    RouteNetlinkMessage::GetLink(message)
}

/// The request for all addresses.
pub fn get_addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

/// Reads an interface.
///
/// ```text
///  struct ifinfomsg: family 8, 0 8, type 16, index 32, flags 32, change 32
/// ```
pub fn link(message: &Message<'_>) -> Option<Link> {
    if message.kind != NEW.0 {
        return None;
    }
    let mut link = Link {
        index: u32_at(message.payload, 4)?,
        name: String::new(),
        mac: None,
        is_running: u32_at(message.payload, 8)? & RUNNING == RUNNING,
        parent: None,
        kind: String::new(),
        macvlan_mode: None,
        alias: String::new(),
        arp_ignore: None,
    };
    for (kind, value) in attributes(message.payload.get(HEADERS.0..)?) {
        match kind {
            // IFLA_ADDRESS, IFLA_IFNAME, IFLA_LINK, IFLA_LINKINFO, IFLA_IFALIAS, IFLA_AF_SPEC.
            1 => link.mac = value.try_into().ok().filter(|mac| *mac != [0; 6]),
            3 => link.name = text(value),
            5 => link.parent = u32_at(value, 0),
            18 => link.read_info(value),
            20 => link.alias = text(value),
            26 => link.arp_ignore = ipv4_parameter(value, ipv4::ARP_IGNORE),
            _ => {}
        }
    }
    Some(link)
}

impl Link {
    fn read_info(&mut self, info: &[u8]) {
        for (kind, value) in attributes(info) {
            match kind {
                // IFLA_INFO_KIND comes before IFLA_INFO_DATA, in which IFLA_MACVLAN_MODE is the first.
                1 => self.kind = text(value),
                2 if self.kind == "macvlan" => {
                    let mode = attributes(value).find(|(kind, _)| *kind == 1);
                    self.macvlan_mode = mode.and_then(|(_, mode)| u32_at(mode, 0));
                }
                _ => {}
            }
        }
    }
}

/// The kernel gives IPv4 parameters as an array whose first element is number 1.
fn ipv4_parameter(families: &[u8], number: u16) -> Option<u32> {
    let (_, inet) = attributes(families).find(|(family, _)| i32::from(*family) == libc::AF_INET)?;
    let (_, values) = attributes(inet).next()?;
    u32_at(values, (usize::from(number) - 1) * 4)
}

/// Reads an address: index of its interface, address and prefix; `None` also for one that cannot be used (yet).
pub fn address(message: &Message<'_>) -> Option<(u32, IpAddr, u8)> {
    if message.kind != NEW.1 {
        return None;
    }
    let read = any_address(message.payload)?;
    (read.flags & UNUSABLE == 0).then_some((read.interface, read.address, read.prefix))
}

/// An address, in whatever state.
pub struct AnyAddress {
    /// Index of its interface.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// Its prefix.
    pub prefix: u8,
    /// `IFA_F_*`.
    pub flags: u32,
}

/// Reads the payload of `RTM_NEWADDR` or `RTM_DELADDR`.
///
/// ```text
///  struct ifaddrmsg: family 8, prefix 8, flags 8, scope 8, index 32
/// ```
pub fn any_address(payload: &[u8]) -> Option<AnyAddress> {
    let prefix = *payload.get(1)?;
    let mut flags = u32::from(*payload.get(2)?);
    let interface = u32_at(payload, 4)?;
    let (mut address, mut local) = (None, None);
    for (kind, value) in attributes(payload.get(HEADERS.1..)?) {
        match kind {
            // IFA_ADDRESS is the other end where there is one, IFA_LOCAL this machine; IFA_FLAGS has all bits.
            1 => address = ip(value),
            2 => local = ip(value),
            8 => flags = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(AnyAddress { interface, address: local.or(address)?, prefix, flags })
}

/// Family and index of the interface in a link's notification.
pub fn link_index(payload: &[u8]) -> Option<u32> {
    // The family 0 leaves out what a bridge says of its ports.
    (*payload.first()? == 0 && u16_at(payload, 2).is_some()).then(|| u32_at(payload, 4))?
}

/// An interface's name for people; its index where it is gone.
pub fn name(index: u32) -> String {
    known_name(index).unwrap_or_else(|| format!("interface {index}"))
}

/// An interface's name, `None` where it is gone.
pub fn known_name(index: u32) -> Option<String> {
    let name = if_indextoname(index).ok()?.to_string_lossy().into_owned();
    // nix does not see that the C library has found none.
    (!name.is_empty()).then_some(name)
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use netlink_packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressFlags},
        link::{InfoData, InfoKind, InfoMacVlan, LinkFlags, LinkInfo, MacVlanMode},
    };
    use proptest::prelude::*;

    use super::*;

    fn emitted(kind: u16, message: &impl Emitable, read: impl FnOnce(&Message<'_>)) {
        let mut payload = vec![0; message.buffer_len()];
        message.emit(&mut payload);
        read(&Message { kind, flags: 0, sequence: 1, payload: &payload });
    }

    #[test]
    fn a_macvlan_is_read() {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.flags = LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp;
        let mode = InfoMacVlan::Mode(MacVlanMode::Private);
        message.attributes = vec![
            LinkAttribute::IfName("vrrp.50".to_owned()),
            LinkAttribute::Address(vec![0, 0, 0x5e, 0, 1, 50]),
            LinkAttribute::Link(2),
            LinkAttribute::IfAlias("words".to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::MacVlan),
                LinkInfo::Data(InfoData::MacVlan(vec![mode])),
            ]),
        ];
        let expected = Link {
            index: 7,
            name: "vrrp.50".to_owned(),
            mac: Some([0, 0, 0x5e, 0, 1, 50]),
            is_running: true,
            parent: Some(2),
            kind: "macvlan".to_owned(),
            macvlan_mode: Some(1),
            alias: "words".to_owned(),
            arp_ignore: None,
        };
        emitted(NEW.0, &message, |message| assert_eq!(link(message), Some(expected.clone())));
        // RTM_DELLINK.
        emitted(17, &message, |message| assert_eq!(link(message), None));
        message.header.flags = LinkFlags::Up | LinkFlags::Running;
        message.attributes[1] = LinkAttribute::Address(vec![0; 6]);
        let expected = Link { is_running: false, mac: None, ..expected };
        emitted(NEW.0, &message, |message| assert_eq!(link(message), Some(expected)));
    }

    #[test]
    fn an_address_is_this_machine_s_and_usable() {
        let (own, peer): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = 32;
        message.header.index = 7;
        message.attributes = vec![AddressAttribute::Address(peer)];
        emitted(NEW.1, &message, |message| assert_eq!(address(message), Some((7, peer, 32))));
        message.attributes.push(AddressAttribute::Local(own));
        emitted(NEW.1, &message, |message| assert_eq!(address(message), Some((7, own, 32))));
        for unusable in [AddressFlags::Tentative, AddressFlags::Dadfailed] {
            message.attributes.truncate(2);
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Permanent | unusable));
            emitted(NEW.1, &message, |message| {
                assert_eq!(address(message), None);
                assert_eq!(any_address(message.payload).map(|found| found.address), Some(own));
            });
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_not(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            for kind in [NEW.0, NEW.1] {
                let message = Message { kind, flags: 0, sequence: 1, payload: &payload };
                let _ = (link(&message), address(&message), link_index(&payload));
            }
        }
    }
}
