//! Requests to the kernel: interfaces, addresses, routes, rules.

use std::{fmt, io};

use netlink_packet_core::Parseable as _;
use netlink_packet_route::rule::RuleMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

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
        Ok(Self { requests: Requests::open(NETLINK_ROUTE).map_err(open)? })
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
        self.add_rules(&[rule]).pop().unwrap_or(Ok(false))
    }

    /// Removes a rule of protocol [`super::ROUTE_PROTOCOL`]. False: it was not there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_rule(&mut self, rule: &VirtualRule) -> io::Result<bool> {
        self.remove_rules(&[rule]).pop().unwrap_or(Ok(false))
    }

    /// [`Self::add_rule`] for many, in their order; one that fails does not keep the others from being added. The results are
    /// in the same order. The kernel's rules are listed once for each family.
    pub fn add_rules(&mut self, rules: &[&VirtualRule]) -> Vec<io::Result<bool>> {
        let mut tables = RuleTables::default();
        let mut new: Vec<&VirtualRule> = Vec::new();
        let mut results = Vec::new();
        for &rule in rules {
            // Without a priority the kernel takes a new one for each, and never finds that it has the rule.
            let is_there = match rule.priority {
                Some(_) => Ok(false),
                None if new.iter().any(|new| message::is_like(new, rule)) => Ok(true),
                None => tables.find(&mut self.requests, rule).map(|found| found.is_some()),
            };
            results.push(is_there.and_then(|is_there| {
                if is_there {
                    return Ok(false);
                }
                let outcome = self.requests.ask(message::add_rule(rule));
                let is_new = added(outcome, || format!("cannot add {}", Rule(rule)))?;
                new.push(rule);
                Ok(is_new)
            }));
        }
        results
    }

    /// [`Self::remove_rule`] for many, as [`Self::add_rules`].
    pub fn remove_rules(&mut self, rules: &[&VirtualRule]) -> Vec<io::Result<bool>> {
        let mut tables = RuleTables::default();
        let mut remove = |rule: &VirtualRule| {
            let Some(priority) = tables.take(&mut self.requests, rule)? else { return Ok(false) };
            let exact = VirtualRule { priority: Some(priority), ..rule.clone() };
            let outcome = self.requests.ask(message::remove_rule(&exact));
            removed(outcome, || format!("cannot remove {}", Rule(rule)))
        };
        rules.iter().map(|rule| remove(rule)).collect()
    }
}

/// The kernel's rules, for IPv4 and IPv6: each as it was when it was first asked for.
#[derive(Default)]
struct RuleTables([Option<Result<Vec<RuleMessage>, Refusal>>; 2]);

impl RuleTables {
    /// Priority of the rule that is like this one, and ours.
    fn find(&mut self, requests: &mut Requests, rule: &VirtualRule) -> io::Result<Option<u32>> {
        let table = self.of(requests, rule)?;
        Ok(table.iter().find_map(|entry| message::priority_of(entry, rule)))
    }

    /// The same, and it is not found again.
    fn take(&mut self, requests: &mut Requests, rule: &VirtualRule) -> io::Result<Option<u32>> {
        let table = self.of(requests, rule)?;
        let found = table.iter().enumerate();
        let mut found = found.filter_map(|(at, entry)| Some((at, message::priority_of(entry, rule)?)));
        let Some((at, priority)) = found.next() else { return Ok(None) };
        table.remove(at);
        Ok(Some(priority))
    }

    fn of(&mut self, requests: &mut Requests, rule: &VirtualRule) -> io::Result<&mut Vec<RuleMessage>> {
        let table = self.0[usize::from(message::is_ipv6_rule(rule))].get_or_insert_with(|| {
            requests.dump(&message::rules_like(rule), |entry| {
                (entry.kind == NEW_RULE).then(|| RuleMessage::parse(entry.payload).ok())?
            })
        });
        table.as_mut().map_err(|refusal| refusal.clone().during("cannot list the rules", NetAdmin))
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

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::{
        sched::{CloneFlags, unshare},
        unistd::Uid,
    };

    use super::*;

    #[test]
    fn for_many_rules_the_kernels_are_listed_once() {
        if !Uid::effective().is_root() {
            println!("SKIPPED for_many_rules_the_kernels_are_listed_once: needs root");
            return;
        }
        // The namespace goes with the thread.
        thread::spawn(add_and_remove_many).join().unwrap();
    }

    fn add_and_remove_many() {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let mut kernel = Kernel::open().unwrap();
        let rule = |from: &str, table| VirtualRule {
            from: Some((from.parse().unwrap(), 24)),
            to: None,
            table,
            priority: None,
        };
        let rules: Vec<VirtualRule> = (0..50).map(|n| rule("10.1.2.0", 1000 + n)).collect();
        let mut all: Vec<&VirtualRule> = rules.iter().collect();
        // The first once more, in another spelling.
        let again = rule("10.1.2.3", 1000);
        all.push(&again);
        let mut expected = vec![true; 50];
        expected.push(false);
        let mut requests_for = |work: fn(&mut Kernel, &[&VirtualRule]) -> Vec<io::Result<bool>>| {
            let before = kernel.requests.requests();
            let results: Vec<bool> = work(&mut kernel, &all).into_iter().map(Result::unwrap).collect();
            (results, kernel.requests.requests() - before)
        };
        assert_eq!(requests_for(Kernel::add_rules), (expected.clone(), 1 + 50));
        assert_eq!(requests_for(Kernel::add_rules), (vec![false; 51], 1));
        assert_eq!(requests_for(Kernel::remove_rules), (expected, 1 + 50));
    }
}
