//! Routes and rules.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use lab::{Netns, require_lab};
use lb_userspace::{
    config::vrrp::{VirtualRoute, VirtualRule},
    netif::Kernel,
};
use serde_json::Value;

use crate::{Pair, index};

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    Some((address.parse().ok()?, prefix.parse().ok()?))
}

fn route(to: &str, via: Option<&str>) -> VirtualRoute {
    VirtualRoute {
        to: network(to).expect("a network"),
        via: via.map(|via| via.parse().expect("an address")),
        interface: None,
        source: None,
        table: None,
        metric: None,
    }
}

/// The routes of a table, with numbers for names.
fn routes(host: &Netns, family: &str, table: u32) -> Result<Vec<Value>> {
    let shown = host.ip_json(&["-N", family, "route", "show", "table", &table.to_string()]);
    // An IPv4 table that has never had a route is an error to `ip`.
    Ok(shown.map_or(vec![], |shown| shown.as_array().cloned().unwrap_or_default()))
}

/// Adds and removes; returns what `ip` has shown in between.
fn round(host: &Netns, interface: Option<u32>, route: &VirtualRoute) -> Result<Value> {
    let family = if route.to.0.is_ipv4() { "-4" } else { "-6" };
    let table = route.table.unwrap_or(254);
    let ours = || -> Result<Vec<Value>> {
        Ok(routes(host, family, table)?.into_iter().filter(|entry| entry["protocol"] == "18").collect())
    };
    host.enter(|| {
        let mut kernel = Kernel::open()?;
        ensure!(kernel.add_route(interface, route)?, "{route:?}: was there");
        ensure!(!kernel.add_route(interface, route)?, "{route:?}: added twice");
        let shown = ours()?;
        ensure!(shown.len() == 1, "{route:?}: {shown:?}");
        ensure!(kernel.remove_route(interface, route)?, "{route:?}: was not there");
        ensure!(ours()?.is_empty(), "{route:?}: not removed");
        ensure!(!kernel.remove_route(interface, route)?, "{route:?}: removed twice");
        Ok(shown[0].clone())
    })
}

#[test]
fn routes_come_and_go() -> Result<()> {
    require_lab!("routes_come_and_go");
    let pair = Pair::new("nroute")?;
    pair.a.ip(["addr add fd66::1/64 dev eth0 nodad"])?;
    let eth0 = index(&pair.a, "eth0")?;

    let shown = round(&pair.a, None, &route("10.9.1.2/16", Some("10.66.0.2")))?;
    ensure!(shown["dst"] == "10.9.0.0/16" && shown["gateway"] == "10.66.0.2", "{shown}");
    ensure!(shown["dev"] == "eth0", "{shown}");

    let full = VirtualRoute {
        source: Some("10.66.0.1".parse()?),
        table: Some(1000),
        metric: Some(77),
        ..route("0.0.0.0/0", Some("10.66.0.2"))
    };
    let shown = round(&pair.a, Some(eth0), &full)?;
    ensure!(shown["dst"] == "default" && shown["prefsrc"] == "10.66.0.1", "{shown}");
    ensure!(shown["metric"] == 77, "{shown}");

    let shown = round(&pair.a, Some(eth0), &route("10.9.0.0/16", None))?;
    ensure!(shown["scope"] == "253" && shown["dev"] == "eth0", "{shown}");

    let shown = round(&pair.a, Some(eth0), &route("10.9.0.0/16", Some("fe80::66:2")))?;
    ensure!(shown["via"]["host"] == "fe80::66:2", "{shown}");

    let ipv6 = VirtualRoute {
        source: Some("fd66::1".parse()?),
        metric: Some(77),
        ..route("fd99::/64", Some("fe80::66:2"))
    };
    let shown = round(&pair.a, Some(eth0), &ipv6)?;
    ensure!(shown["gateway"] == "fe80::66:2" && shown["metric"] == 77, "{shown}");
    ensure!(shown["prefsrc"] == "fd66::1", "{shown}");

    let shown = round(&pair.a, Some(eth0), &VirtualRoute { table: Some(100), ..route("::/0", None) })?;
    ensure!(shown["dst"] == "default" && shown["dev"] == "eth0", "{shown}");
    Ok(())
}

#[test]
fn another_s_route_is_left_alone() -> Result<()> {
    require_lab!("another_s_route_is_left_alone");
    let pair = Pair::new("nroute2")?;
    pair.a.ip(["route add 10.9.0.0/16 via 10.66.0.2", "route add default via 10.66.0.2"])?;
    let count = || routes(&pair.a, "-4", 254).map(|routes| routes.len());
    let before = count()?;
    // The same by another's hand, and another way to the same destination: ours counts, and goes alone.
    for (to, via) in [("10.9.0.0/16", "10.66.0.2"), ("0.0.0.0/0", "10.66.0.3")] {
        let route = route(to, Some(via));
        pair.a.enter(|| {
            let mut kernel = Kernel::open()?;
            ensure!(!kernel.remove_route(None, &route)?, "{to}: another's route was removed");
            ensure!(kernel.add_route(None, &route)?, "{to}: not added");
            Ok(())
        })?;
        let chosen =
            pair.a.ip_json(&["route", "get", if to == "0.0.0.0/0" { "192.0.2.1" } else { "10.9.0.1" }])?;
        ensure!(chosen[0]["gateway"] == via, "{to}: {chosen}");
        pair.a.enter(|| {
            ensure!(Kernel::open()?.remove_route(None, &route)?, "{to}: not removed");
            Ok(())
        })?;
        ensure!(count()? == before, "{to}");
    }
    Ok(())
}

#[test]
fn a_route_that_cannot_be_says_which() -> Result<()> {
    require_lab!("a_route_that_cannot_be_says_which");
    let pair = Pair::new("nroute3")?;
    pair.a.enter(|| {
        let error =
            Kernel::open()?.add_route(None, &route("10.9.0.0/16", Some("192.0.2.1"))).expect_err("added");
        let text = error.to_string();
        ensure!(text.contains("10.9.0.0/16") && text.contains("Nexthop has invalid gateway"), "{text}");
        Ok(())
    })
}

fn rules(host: &Netns, family: &str) -> Result<Vec<Value>> {
    let shown = host.ip_json(&["-N", "-details", family, "rule", "show"])?;
    Ok(shown.as_array().context("no rules")?.clone())
}

#[test]
fn rules_come_and_go() -> Result<()> {
    require_lab!("rules_come_and_go");
    let pair = Pair::new("nrule")?;
    let wanted = [
        ("-4", VirtualRule { from: network("10.1.2.3/24"), to: None, table: 100, priority: Some(1000) }),
        (
            "-4",
            VirtualRule {
                from: network("10.1.0.0/16"),
                to: network("10.2.0.0/16"),
                table: 1000,
                priority: None,
            },
        ),
        ("-6", VirtualRule { from: None, to: network("fd99::/64"), table: 100, priority: None }),
        ("-6", VirtualRule { from: network("fd66::1/128"), to: None, table: 70_000, priority: Some(5) }),
    ];
    for (family, rule) in &wanted {
        let before = rules(&pair.a, family)?;
        let shown = pair.a.enter(|| {
            let mut kernel = Kernel::open()?;
            ensure!(kernel.add_rule(rule)?, "{rule:?}: was there");
            ensure!(!kernel.add_rule(rule)?, "{rule:?}: added twice");
            let now = rules(&pair.a, family)?;
            ensure!(now.len() == before.len() + 1, "{rule:?}: {now:?}");
            ensure!(kernel.remove_rule(rule)?, "{rule:?}: was not there");
            ensure!(!kernel.remove_rule(rule)?, "{rule:?}: removed twice");
            now.into_iter().find(|entry| !before.contains(entry)).context("no new rule")
        })?;
        ensure!(rules(&pair.a, family)? == before, "{rule:?}: not removed");
        ensure!(shown["table"] == rule.table.to_string().as_str(), "{shown}");
        ensure!(shown["protocol"] == "18", "{shown}");
        if let Some(priority) = rule.priority {
            ensure!(shown["priority"] == priority, "{shown}");
        }
    }
    Ok(())
}

#[test]
fn another_s_rule_is_left_alone() -> Result<()> {
    require_lab!("another_s_rule_is_left_alone");
    let pair = Pair::new("nrule2")?;
    pair.a.ip(["rule add from 10.1.0.0/16 table 100 priority 500"])?;
    let before = rules(&pair.a, "-4")?;
    let rule = VirtualRule { from: network("10.1.0.0/16"), to: None, table: 100, priority: None };
    pair.a.enter(|| {
        let mut kernel = Kernel::open()?;
        ensure!(!kernel.remove_rule(&rule)?, "another's rule was removed");
        ensure!(kernel.add_rule(&rule)?, "not added");
        ensure!(kernel.remove_rule(&rule)?, "not removed");
        Ok(())
    })?;
    ensure!(rules(&pair.a, "-4")? == before);
    Ok(())
}
