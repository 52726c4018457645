//! Gratuitous ARP and unsolicited neighbour advertisements on a wire.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use lab::{Netns, require_lab, wire::Wire};
use lb_userspace::netif::{Announcer, arp_frame, na_frame, os_code};

use crate::{LIMIT, Pair, bytes, index, wait_for};

const MAC: [u8; 6] = [0x02, 0x66, 0, 0, 0, 1];

fn announce(host: &Netns, address: &str) -> Result<()> {
    let eth0 = index(host, "eth0")?;
    let address: IpAddr = address.parse()?;
    host.enter(|| Ok(Announcer::open()?.announce(eth0, MAC, address)?))
}

fn next_from_us(wire: &Wire) -> Result<Vec<u8>> {
    wire.find(LIMIT, |frame| frame.get(6..12) == Some(&MAC[..]))?.context("nothing came")
}

#[test]
fn announcements_are_keepalived_s_on_the_wire() -> Result<()> {
    require_lab!("announcements_are_keepalived_s_on_the_wire");
    let pair = Pair::new("nann")?;
    let wire = Wire::open(&pair.b, "eth0")?;
    announce(&pair.a, "10.66.0.100")?;
    let expected =
        bytes("ffffffffffff026600000001 0806 0001080006040001 026600000001 0a420064 ffffffffffff 0a420064");
    ensure!(next_from_us(&wire)? == expected);

    announce(&pair.a, "fd66::100")?;
    ensure!(next_from_us(&wire)? == na_frame(MAC, "fd66::100".parse()?, false));
    pair.a.sysctl(&[("ipv6/conf/eth0/forwarding", "1")])?;
    announce(&pair.a, "fd66::100")?;
    ensure!(next_from_us(&wire)? == na_frame(MAC, "fd66::100".parse()?, true));
    Ok(())
}

#[test]
fn the_other_host_takes_the_new_mac() -> Result<()> {
    require_lab!("the_other_host_takes_the_new_mac");
    let pair = Pair::new("nann2")?;
    for address in ["10.66.0.100", "fe80::66:100"] {
        pair.b.ip([format!("neigh replace {address} lladdr 02:aa:aa:aa:aa:aa dev eth0 nud stale")])?;
        // A gratuitous ARP within a second of the entry's last change does not count (net.ipv4 locktime).
        pair.b.sysctl(&[("ipv4/neigh/eth0/locktime", "0")])?;
        announce(&pair.a, address)?;
        wait_for("the new MAC", || {
            let entries = pair.b.ip_json(&["neigh", "show", "dev", "eth0"])?;
            let entry = entries.as_array().and_then(|all| all.iter().find(|entry| entry["dst"] == address));
            let mac = entry.and_then(|entry| entry["lladdr"].as_str());
            Ok((mac == Some("02:66:00:00:00:01")).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn many_are_announced_in_their_order() -> Result<()> {
    require_lab!("many_are_announced_in_their_order");
    let pair = Pair::new("nann3")?;
    let wire = Wire::open(&pair.b, "eth0")?;
    let eth0 = index(&pair.a, "eth0")?;
    let addresses: Vec<IpAddr> = ["10.66.0.100", "fd66::100", "10.66.0.101"]
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    pair.a.enter(|| {
        for result in Announcer::open()?.announce_all(addresses.iter().map(|address| (eth0, MAC, *address))) {
            result?;
        }
        Ok(())
    })?;
    for address in addresses {
        let frame = next_from_us(&wire)?;
        match address {
            IpAddr::V4(address) => ensure!(frame == arp_frame(MAC, address), "{address}"),
            IpAddr::V6(address) => ensure!(frame == na_frame(MAC, address, false), "{address}"),
        }
    }
    Ok(())
}

#[test]
fn an_announcement_that_cannot_be_sent_names_the_interface() -> Result<()> {
    require_lab!("an_announcement_that_cannot_be_sent_names_the_interface");
    let pair = Pair::new("nann4")?;
    pair.a.ip(["link set eth0 down"])?;
    let eth0 = index(&pair.a, "eth0")?;
    pair.a.enter(|| {
        let announcer = Announcer::open()?;
        let error = announcer.announce(eth0, MAC, "10.66.0.100".parse()?).expect_err("sent");
        ensure!(os_code(&error) == Some(libc::ENETDOWN), "{error}");
        ensure!(error.to_string().contains("cannot announce 10.66.0.100 on eth0"), "{error}");
        let error = announcer.announce(9999, MAC, "fd66::100".parse()?).expect_err("sent");
        ensure!(os_code(&error) == Some(libc::ENXIO), "{error}");
        Ok(())
    })
}
