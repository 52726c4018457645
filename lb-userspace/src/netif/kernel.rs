//! Requests to the kernel: interfaces, addresses, routes, rules.

use std::{fmt, io};

use netlink_packet_core::Parseable as _;
use netlink_packet_route::rule::RuleMessage;

use super::{
    Interface,
    error::{Capability::NetAdmin, Refusal},
    link::{self, Link, get_addresses, get_links},
    message,
    request::{Request, Requests},
};
use crate::config::vrrp::{VirtualAddress, VirtualRoute, VirtualRule};

/// `RTM_NEWRULE`.
const NEW_RULE: u16 = 32;

/// Requests to the kernel. Each waits for its answer.
#[derive(Debug)]
pub struct Kernel {
    pub(super) requests: Requests,
}

impl Kernel {
    /// Opens the socket.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let open = |error: io::Error| Refusal::from(error).during("cannot open a netlink socket", NetAdmin);
        Ok(Self { requests: Requests::open().map_err(open)? })
    }

    /// All interfaces with their addresses, by index. Needs no privilege.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        let links = self.links()?;
        let mut addresses = self
            .requests
            .dump(&get_addresses(), link::address)
            .map_err(|refusal| refusal.during("cannot list the addresses", NetAdmin))?;
        // Stable: the kernel's order stays within an interface.
        addresses.sort_by_key(|(interface, ..)| *interface);
        let of = |index: u32| {
            let start = addresses.partition_point(|(interface, ..)| *interface < index);
            addresses[start..]
                .iter()
                .take_while(move |(interface, ..)| *interface == index)
                .map(|(_, address, prefix)| (*address, *prefix))
                .collect()
        };
        let interface = |link: Link| Interface {
            addresses: of(link.index),
            index: link.index,
            name: link.name,
            mac: link.mac,
            is_running: link.is_running,
        };
        Ok(links.into_iter().map(interface).collect())
    }

    /// All interfaces, by index.
    pub(super) fn links(&mut self) -> io::Result<Vec<Link>> {
        let links = self.requests.dump(&get_links(None), link::link);
        let mut links = links.map_err(|refusal| refusal.during("cannot list the interfaces", NetAdmin))?;
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// Adds an address: IPv6 without duplicate address detection (`nodad`), and of /128 as deprecated, so that it is no source of
    /// the machine's own connections, as keepalived does. False: it was there already (an IPv6 address with any prefix).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_address(&mut self, interface: u32, address: &VirtualAddress) -> io::Result<bool> {
        let outcome = self.requests.ask(message::add_address(interface, address));
        added(outcome, || Adding(interface, address))
    }

    /// Removes an address of exactly this prefix. False: it was not there, or its interface is gone.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_address(&mut self, interface: u32, address: &VirtualAddress) -> io::Result<bool> {
        let outcome = self.requests.ask(message::remove_address(interface, address));
        removed(outcome, || Removing(interface, address))
    }

    /// [`Self::add_address`] for many, in their order and in few system calls: what one costs is the kernel's part. An address
    /// that fails does not keep the others from being added. The results are in the same order.
    pub fn add_addresses(&mut self, addresses: &[(u32, &VirtualAddress)]) -> Vec<io::Result<bool>> {
        let requests: Vec<Request> =
            addresses.iter().map(|(interface, address)| message::add_address(*interface, address)).collect();
        let outcomes = self.requests.ask_all(&requests).into_iter().zip(addresses);
        outcomes
            .map(|(outcome, (interface, address))| added(outcome, || Adding(*interface, address)))
            .collect()
    }

    /// [`Self::remove_address`] for many, as [`Self::add_addresses`].
    pub fn remove_addresses(&mut self, addresses: &[(u32, &VirtualAddress)]) -> Vec<io::Result<bool>> {
        let requests: Vec<Request> = addresses
            .iter()
            .map(|(interface, address)| message::remove_address(*interface, address))
            .collect();
        let outcomes = self.requests.ask_all(&requests).into_iter().zip(addresses);
        outcomes
            .map(|(outcome, (interface, address))| removed(outcome, || Removing(*interface, address)))
            .collect()
    }

    /// Adds a route, with protocol [`super::ROUTE_PROTOCOL`]: before others to the same destination with the same metric, so that
    /// it counts (an IPv6 one with a gateway joins them as a further path). False: it was there already, exactly so.
    /// `interface`: index of the route's own or the instance's interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_route(&mut self, interface: Option<u32>, route: &VirtualRoute) -> io::Result<bool> {
        let outcome = self.requests.ask(message::add_route(interface, route));
        added(outcome, || format!("cannot add the route to {}", network(route.to)))
    }

    /// Removes a route of protocol [`super::ROUTE_PROTOCOL`]. False: it was not there. The kernel removes routes by itself with
    /// the interface, and IPv4 ones with the preferred source address.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_route(&mut self, interface: Option<u32>, route: &VirtualRoute) -> io::Result<bool> {
        let outcome = self.requests.ask(message::remove_route(interface, route));
        removed(outcome, || format!("cannot remove the route to {}", network(route.to)))
    }

    /// Adds a rule, with protocol [`super::ROUTE_PROTOCOL`]. False: it was there already.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_rule(&mut self, rule: &VirtualRule) -> io::Result<bool> {
        // Without a priority the kernel takes a new one for each, and never finds that it has the rule.
        if rule.priority.is_none() && self.find_rule(rule)?.is_some() {
            return Ok(false);
        }
        added(self.requests.ask(message::add_rule(rule)), || format!("cannot add {}", Rule(rule)))
    }

    /// Removes a rule of protocol [`super::ROUTE_PROTOCOL`]. False: it was not there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_rule(&mut self, rule: &VirtualRule) -> io::Result<bool> {
        let Some(priority) = self.find_rule(rule)? else { return Ok(false) };
        let exact = VirtualRule { priority: Some(priority), ..rule.clone() };
        removed(self.requests.ask(message::remove_rule(&exact)), || format!("cannot remove {}", Rule(rule)))
    }

    /// Priority of the rule that is like this one, and ours.
    fn find_rule(&mut self, rule: &VirtualRule) -> io::Result<Option<u32>> {
        let found = self.requests.dump(&message::rules_like(rule), |entry| {
            let entry = (entry.kind == NEW_RULE).then(|| RuleMessage::parse(entry.payload).ok())??;
            message::priority_of(&entry, rule)
        });
        let found = found.map_err(|refusal| refusal.during("cannot list the rules", NetAdmin))?;
        Ok(found.first().copied())
    }
}

fn added<D: fmt::Display>(outcome: Result<(), Refusal>, what: impl FnOnce() -> D) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(refusal) if refusal.code == libc::EEXIST => Ok(false),
        Err(refusal) => Err(refusal.during(what(), NetAdmin)),
    }
}

fn removed<D: fmt::Display>(outcome: Result<(), Refusal>, what: impl FnOnce() -> D) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        // EADDRNOTAVAIL for addresses, ESRCH for routes, ENOENT for rules; ENODEV when the interface has gone with them.
        Err(refusal)
            if matches!(refusal.code, libc::EADDRNOTAVAIL | libc::ESRCH | libc::ENOENT | libc::ENODEV) =>
        {
            Ok(false)
        }
        Err(refusal) => Err(refusal.during(what(), NetAdmin)),
    }
}

struct Adding<'a>(u32, &'a VirtualAddress);

impl fmt::Display for Adding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(interface, VirtualAddress { address, prefix, .. }) = self;
        write!(f, "cannot add {address}/{prefix} to {}", link::name(*interface))
    }
}

struct Removing<'a>(u32, &'a VirtualAddress);

impl fmt::Display for Removing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(interface, VirtualAddress { address, prefix, .. }) = self;
        write!(f, "cannot remove {address}/{prefix} from {}", link::name(*interface))
    }
}

struct Rule<'a>(&'a VirtualRule);

impl fmt::Display for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the rule")?;
        if let Some(from) = self.0.from {
            write!(f, " from {}", network(from))?;
        }
        if let Some(to) = self.0.to {
            write!(f, " to {}", network(to))?;
        }
        write!(f, " table {}", self.0.table)
    }
}

fn network((address, prefix): (std::net::IpAddr, u8)) -> String {
    format!("{address}/{prefix}")
}
