//! What the kernel's notifications mean for the targets.

use std::{collections::BTreeSet, net::IpAddr};

use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};

use super::route::Prefix;

/// A neighbour: the index of the route's device, and the address on its link.
pub(super) type NeighbourKey = (u32, IpAddr);

/// One notification, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// An interface or an address of this machine came, changed or went.
    Interface,
    /// A policy rule came or went.
    Rule,
    /// A route came, changed or went.
    Route(Prefix),
    /// A neighbour entry came, changed or went.
    Neighbour(NeighbourKey),
    /// The kernel dropped notifications (`ENOBUFS`): anything may have happened.
    Overrun,
}

impl Event {
    /// Reads a notification; `None` for what concerns no target.
    pub fn decode(message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<Self> {
        use RouteNetlinkMessage as Message;
        match &message.payload {
            NetlinkPayload::Overrun(_) => Some(Self::Overrun),
            NetlinkPayload::InnerMessage(inner) => match inner {
                Message::NewLink(_)
                | Message::DelLink(_)
                | Message::NewAddress(_)
                | Message::DelAddress(_) => Some(Self::Interface),
                Message::NewRule(_) | Message::DelRule(_) => Some(Self::Rule),
                Message::NewRoute(route) | Message::DelRoute(route) => Prefix::of(route).map(Self::Route),
                Message::NewNeighbour(entry) | Message::DelNeighbour(entry) => {
                    neighbour_key(entry).map(Self::Neighbour)
                }
                _ => None,
            },
            _ => None,
        }
    }
}

fn neighbour_key(entry: &NeighbourMessage) -> Option<NeighbourKey> {
    let address = entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some((*address).into()),
        _ => None,
    })?;
    Some((entry.header.ifindex, address))
}

/// What has to be looked at again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dirty {
    /// The table of interfaces is out of date.
    pub links: bool,
    /// Every target, and their waits start over: what hindered them may be gone.
    pub everything: bool,
    /// Single targets.
    pub targets: BTreeSet<IpAddr>,
}

impl Dirty {
    /// Nothing known so far holds.
    pub fn everything() -> Self {
        Self { links: true, everything: true, targets: BTreeSet::new() }
    }

    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    /// Marks what `event` may concern among `targets`, each given with the neighbour that it uses.
    pub fn note(&mut self, event: Event, targets: impl Iterator<Item = (IpAddr, Option<NeighbourKey>)>) {
        match event {
            Event::Interface | Event::Overrun => *self = Self::everything(),
            Event::Rule => self.everything = true,
            _ if self.everything => {}
            Event::Route(prefix) => {
                self.targets
                    .extend(targets.map(|(target, _)| target).filter(|target| prefix.covers(*target)));
            }
            Event::Neighbour(key) => {
                self.targets.extend(targets.filter(|(_, used)| *used == Some(key)).map(|(target, _)| target));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::{AddressFamily, link::LinkMessage, route::RouteMessage};
    use rtnetlink::packet_core::NetlinkHeader;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn noted(event: Event) -> Dirty {
        let mut dirty = Dirty::default();
        let gateway = (3, ip("10.0.0.1"));
        dirty.note(
            event,
            [
                (ip("10.1.0.1"), Some(gateway)),
                (ip("10.2.0.1"), Some(gateway)),
                (ip("10.1.0.2"), Some((3, ip("10.1.0.2")))),
                (ip("2001:db8::1"), None),
            ]
            .into_iter(),
        );
        dirty
    }

    fn only(targets: &[&str]) -> Dirty {
        Dirty { targets: targets.iter().map(|text| ip(text)).collect(), ..Dirty::default() }
    }

    #[test]
    fn a_route_concerns_the_targets_it_covers() {
        let prefix = Prefix { network: ip("10.1.0.0"), length: 16 };
        assert_eq!(noted(Event::Route(prefix)), only(&["10.1.0.1", "10.1.0.2"]));
        let other = Prefix { network: ip("203.0.113.0"), length: 24 };
        assert!(noted(Event::Route(other)).is_clean());
    }

    #[test]
    fn a_neighbour_concerns_the_targets_behind_it() {
        assert_eq!(noted(Event::Neighbour((3, ip("10.0.0.1")))), only(&["10.1.0.1", "10.2.0.1"]));
        assert!(noted(Event::Neighbour((4, ip("10.0.0.1")))).is_clean());
    }

    #[test]
    fn interfaces_and_lost_notifications_concern_everything() {
        assert_eq!(noted(Event::Interface), Dirty::everything());
        assert_eq!(noted(Event::Overrun), Dirty::everything());
        assert!(noted(Event::Rule).everything);
    }

    #[test]
    fn messages_are_read() {
        let message = |payload| NetlinkMessage::new(NetlinkHeader::default(), payload);
        let inner = |inner| message(NetlinkPayload::InnerMessage(inner));
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        let mut entry = NeighbourMessage::default();
        entry.header.ifindex = 3;
        let no_address = inner(RouteNetlinkMessage::NewNeighbour(entry.clone()));
        entry.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet([10, 0, 0, 1].into())));
        for (message, expected) in [
            (message(NetlinkPayload::Overrun(vec![])), Some(Event::Overrun)),
            (message(NetlinkPayload::Noop), None),
            (inner(RouteNetlinkMessage::DelLink(LinkMessage::default())), Some(Event::Interface)),
            (
                inner(RouteNetlinkMessage::DelRoute(route)),
                Some(Event::Route(Prefix { network: ip("0.0.0.0"), length: 0 })),
            ),
            (no_address, None),
            (inner(RouteNetlinkMessage::DelNeighbour(entry)), Some(Event::Neighbour((3, ip("10.0.0.1"))))),
        ] {
            assert_eq!(Event::decode(&message), expected);
        }
    }
}
