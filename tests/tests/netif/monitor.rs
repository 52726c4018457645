//! What the kernel says by itself.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use lab::require_lab;
use lb_userspace::{
    config::vrrp::VirtualRoute,
    netif::{Change, Kernel, Monitor},
};
use nix::sys::socket::{setsockopt, sockopt};

use crate::{Pair, index, vip, wait_for};

/// Reads until `wanted` is among the changes; all that came.
fn read_until(monitor: &mut Monitor, wanted: &Change) -> Result<Vec<Change>> {
    let mut all = vec![];
    wait_for(&format!("{wanted:?}"), || {
        all.extend(monitor.read()?);
        Ok(all.contains(wanted).then_some(()))
    })?;
    Ok(all)
}

#[test]
fn the_monitor_hears_what_others_do() -> Result<()> {
    require_lab!("the_monitor_hears_what_others_do");
    let pair = Pair::new("nmon")?;
    let eth0 = index(&pair.a, "eth0")?;
    let mut monitor = pair.a.enter(|| Ok(Monitor::open()?))?;
    ensure!(monitor.read()?.is_empty(), "it was heard what was before");
    for address in [vip("10.66.0.100/32"), vip("fd66::100/128")] {
        pair.a.enter(|| Ok(Kernel::open()?.add_address(eth0, &address)?))?;
        let change = |is_there| Change::Address { interface: eth0, address: address.address, is_there };
        read_until(&mut monitor, &change(true))?;
        pair.a.ip([format!("addr del {}/{} dev eth0", address.address, address.prefix)])?;
        let heard = read_until(&mut monitor, &change(false))?;
        ensure!(!heard.contains(&change(true)), "{heard:?}");
    }
    pair.b.ip(["link set eth0 down"])?;
    read_until(&mut monitor, &Change::Link { index: eth0 })?;
    pair.b.ip(["link set eth0 up"])?;
    read_until(&mut monitor, &Change::Link { index: eth0 })?;
    for family in ["-4", "-6"] {
        run(&pair, &[family, "rule", "add", "table", "100", "priority", "7"])?;
        read_until(&mut monitor, &Change::Route)?;
        run(&pair, &[family, "rule", "del", "table", "100", "priority", "7"])?;
        read_until(&mut monitor, &Change::Route)?;
    }
    Ok(())
}

fn run(pair: &Pair, arguments: &[&str]) -> Result<()> {
    let out = pair.a.command("ip").args(arguments).output()?;
    ensure!(out.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

#[test]
fn only_our_own_routes_are_heard_of() -> Result<()> {
    require_lab!("only_our_own_routes_are_heard_of");
    let pair = Pair::new("nmon2")?;
    let eth0 = index(&pair.a, "eth0")?;
    let mut monitor = pair.a.enter(|| Ok(Monitor::open()?))?;
    let last: IpAddr = "10.66.0.100".parse()?;
    for (is_there, verb) in [(true, "add"), (false, "del")] {
        run(&pair, &["route", verb, "10.9.0.0/16", "via", "10.66.0.2"])?;
        run(&pair, &["-6", "route", verb, "fd99::/64", "dev", "eth0"])?;
        pair.a.ip([format!("addr {verb} {last}/32 dev eth0")])?;
        let heard = read_until(&mut monitor, &Change::Address { interface: eth0, address: last, is_there })?;
        ensure!(!heard.contains(&Change::Route), "{heard:?}");
    }
    for to in ["10.9.0.0", "fd99::"] {
        let to: IpAddr = to.parse()?;
        let route = VirtualRoute {
            to: (to, if to.is_ipv4() { 16 } else { 64 }),
            via: None,
            interface: None,
            source: None,
            table: None,
            metric: None,
        };
        pair.a.enter(|| Ok(Kernel::open()?.add_route(Some(eth0), &route)?))?;
        read_until(&mut monitor, &Change::Route)?;
        run(&pair, &[if to.is_ipv4() { "-4" } else { "-6" }, "route", "flush", "protocol", "18"])?;
        read_until(&mut monitor, &Change::Route)?;
    }
    Ok(())
}

#[test]
fn lost_notifications_are_said() -> Result<()> {
    require_lab!("lost_notifications_are_said");
    let pair = Pair::new("nmon3")?;
    let eth0 = index(&pair.a, "eth0")?;
    let mut monitor = pair.a.enter(|| Ok(Monitor::open()?))?;
    // The least that the kernel gives.
    setsockopt(&monitor, sockopt::RcvBufForce, &1)?;
    let addresses: Vec<_> = (1..200).map(|number| vip(&format!("10.77.0.{number}/32"))).collect();
    let wanted: Vec<_> = addresses.iter().map(|address| (eth0, address)).collect();
    pair.a.enter(|| {
        for result in Kernel::open()?.add_addresses(&wanted) {
            ensure!(result?, "was there");
        }
        Ok(())
    })?;
    let heard = monitor.read()?;
    ensure!(heard.iter().filter(|change| **change == Change::Overrun).count() == 1, "{heard:?}");
    // It goes on hearing.
    pair.a.ip(["addr del 10.77.0.7/32 dev eth0"])?;
    let change = Change::Address { interface: eth0, address: "10.77.0.7".parse()?, is_there: false };
    read_until(&mut monitor, &change)?;
    ensure!(monitor.read()?.is_empty());
    Ok(())
}
