//! Macvlans with a virtual router's MAC address.

use std::fs;

use anyhow::{Result, ensure};
use lab::{Netns, require_lab};
use lb_userspace::netif::Kernel;

use crate::{Pair, index, vip, wait_for};

const MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 50];

fn setting(host: &Netns, device: &str, key: &str) -> Result<String> {
    host.enter(|| {
        Ok(fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{device}/{key}"))?.trim().to_owned())
    })
}

fn add(host: &Netns, parent: u32, name: &str, mac: [u8; 6]) -> Result<u32> {
    host.enter(|| Ok(Kernel::open()?.add_macvlan(parent, name, mac)?))
}

fn remove(host: &Netns, name: &str) -> Result<bool> {
    host.enter(|| Ok(Kernel::open()?.remove_macvlan(name)?))
}

#[test]
fn a_macvlan_comes_and_goes() -> Result<()> {
    require_lab!("a_macvlan_comes_and_goes");
    let pair = Pair::new("nmac")?;
    pair.a.sysctl(&[("ipv4/conf/default/rp_filter", "1")])?;
    let eth0 = index(&pair.a, "eth0")?;
    let made = add(&pair.a, eth0, "vrrp.50", MAC)?;
    ensure!(made == index(&pair.a, "vrrp.50")?);
    let link = &pair.a.ip_json(&["-details", "link", "show", "dev", "vrrp.50"])?[0];
    ensure!(link["linkinfo"]["info_kind"] == "macvlan", "{link}");
    ensure!(link["linkinfo"]["info_data"]["mode"] == "private", "{link}");
    ensure!(link["link"] == "eth0" && link["inet6_addr_gen_mode"] == "none", "{link}");
    ensure!(link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP")), "{link}");
    ensure!(pair.a.mac("vrrp.50")? == MAC);
    for (key, value) in
        [("arp_ignore", "1"), ("rp_filter", "0"), ("accept_local", "1"), ("promote_secondaries", "1")]
    {
        ensure!(setting(&pair.a, "vrrp.50", key)? == value, "{key}");
    }
    ensure!(setting(&pair.a, "eth0", "arp_ignore")? == "1");

    ensure!(add(&pair.a, eth0, "vrrp.50", MAC)? == made, "the macvlan was not taken over");
    ensure!(remove(&pair.a, "vrrp.50")?, "it was not there");
    ensure!(!remove(&pair.a, "vrrp.50")?, "removed twice");
    ensure!(index(&pair.a, "vrrp.50").is_err());
    ensure!(setting(&pair.a, "eth0", "arp_ignore")? == "0", "eth0 did not get its setting back");
    Ok(())
}

#[test]
fn the_last_macvlan_gives_the_parent_s_setting_back() -> Result<()> {
    require_lab!("the_last_macvlan_gives_the_parent_s_setting_back");
    let pair = Pair::new("nmac2")?;
    let eth0 = index(&pair.a, "eth0")?;
    let other = [0, 0, 0x5e, 0, 2, 51];
    for order in [["vrrp.50", "vrrp.51"], ["vrrp.51", "vrrp.50"]] {
        add(&pair.a, eth0, "vrrp.50", MAC)?;
        add(&pair.a, eth0, "vrrp.51", other)?;
        ensure!(remove(&pair.a, order[0])?);
        ensure!(setting(&pair.a, "eth0", "arp_ignore")? == "1", "{order:?}");
        ensure!(remove(&pair.a, order[1])?);
        ensure!(setting(&pair.a, "eth0", "arp_ignore")? == "0", "{order:?}");
    }
    // What an operator has set stays.
    pair.a.sysctl(&[("ipv4/conf/eth0/arp_ignore", "2")])?;
    add(&pair.a, eth0, "vrrp.50", MAC)?;
    ensure!(setting(&pair.a, "eth0", "arp_ignore")? == "2");
    ensure!(remove(&pair.a, "vrrp.50")?);
    ensure!(setting(&pair.a, "eth0", "arp_ignore")? == "2");
    Ok(())
}

#[test]
fn only_a_virtual_router_s_macvlan_is_touched() -> Result<()> {
    require_lab!("only_a_virtual_router_s_macvlan_is_touched");
    let pair = Pair::new("nmac3")?;
    let eth0 = index(&pair.a, "eth0")?;
    pair.a.ip([
        "link add other type bridge",
        "link add container link eth0 type macvlan mode private",
        "link add below type bridge",
    ])?;
    for name in ["other", "container", "eth0"] {
        let before = index(&pair.a, name)?;
        for result in [add(&pair.a, eth0, name, MAC).map(|_| ()), remove(&pair.a, name).map(|_| ())] {
            let text = result.expect_err("something else was taken for a macvlan of ours").to_string();
            ensure!(text.contains(name) && text.contains("no macvlan of a virtual router"), "{text}");
        }
        ensure!(index(&pair.a, name)? == before);
    }
    // A wrong one of ours is replaced: another virtual router's, then one on another interface.
    let first = add(&pair.a, eth0, "vrrp.50", [0, 0, 0x5e, 0, 1, 49])?;
    let second = add(&pair.a, eth0, "vrrp.50", MAC)?;
    ensure!(first != second && pair.a.mac("vrrp.50")? == MAC);
    add(&pair.a, index(&pair.a, "below")?, "vrrp.50", MAC)?;
    let link = &pair.a.ip_json(&["link", "show", "dev", "vrrp.50"])?[0];
    ensure!(link["link"] == "below", "{link}");
    ensure!(setting(&pair.a, "eth0", "arp_ignore")? == "0", "eth0 did not get its setting back");
    Ok(())
}

#[test]
fn the_network_finds_the_address_at_the_virtual_mac() -> Result<()> {
    require_lab!("the_network_finds_the_address_at_the_virtual_mac");
    let pair = Pair::new("nmac4")?;
    let made = add(&pair.a, index(&pair.a, "eth0")?, "vrrp.50", MAC)?;
    pair.a.enter(|| {
        let mut kernel = Kernel::open()?;
        kernel.add_address(made, &vip("10.66.0.100/32"))?;
        kernel.add_address(made, &vip("fe80::66:100/128"))?;
        Ok(())
    })?;
    for (address, at) in [("10.66.0.100", "00:00:5e:00:01:32"), ("fe80::66:100", "00:00:5e:00:01:32")] {
        wait_for("the neighbour", || {
            // Has the kernel look for it.
            pair.b.ip([format!("neigh replace {address} dev eth0 nud none use")])?;
            let entries = pair.b.ip_json(&["neigh", "show", "dev", "eth0"])?;
            let entry = entries.as_array().and_then(|all| all.iter().find(|entry| entry["dst"] == address));
            let Some(mac) = entry.and_then(|entry| entry["lladdr"].as_str()) else { return Ok(None) };
            ensure!(mac == at, "{address} is at {mac}");
            Ok(Some(()))
        })?;
    }
    Ok(())
}
