//! Adding and removing addresses.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use lab::{Netns, require_lab};
use lb_userspace::{
    config::vrrp::VirtualAddress,
    netif::{Kernel, os_code},
};
use serde_json::Value;

use crate::{Pair, index, vip};

/// What `ip` says of an address.
fn shown(host: &Netns, address: &VirtualAddress) -> Result<Option<Value>> {
    let link = &host.ip_json(&["addr", "show", "dev", "eth0"])?[0];
    let all = link["addr_info"].as_array().context("no addresses")?;
    let is_it = |entry: &&Value| {
        entry["local"] == address.address.to_string().as_str() && entry["prefixlen"] == address.prefix
    };
    Ok(all.iter().find(is_it).cloned())
}

#[test]
fn addresses_come_and_go() -> Result<()> {
    require_lab!("addresses_come_and_go");
    let pair = Pair::new("naddr")?;
    let eth0 = index(&pair.a, "eth0")?;
    for address in ["10.66.0.100/32", "10.66.0.101/24", "fd66::100/128", "fd66::101/64", "fe80::66:100/64"] {
        let address = vip(address);
        let there = || shown(&pair.a, &address).map(|entry| entry.is_some());
        pair.a.enter(|| {
            let mut kernel = Kernel::open()?;
            ensure!(kernel.add_address(eth0, &address)?, "{address:?}: was there");
            ensure!(there()?, "{address:?}: not added");
            ensure!(!kernel.add_address(eth0, &address)?, "{address:?}: added twice");
            ensure!(kernel.remove_address(eth0, &address)?, "{address:?}: was not there");
            ensure!(!there()?, "{address:?}: not removed");
            ensure!(!kernel.remove_address(eth0, &address)?, "{address:?}: removed twice");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn an_ipv6_address_is_usable_at_once_and_of_128_no_source() -> Result<()> {
    require_lab!("an_ipv6_address_is_usable_at_once_and_of_128_no_source");
    let pair = Pair::new("nnodad")?;
    pair.a.sysctl(&[("ipv6/conf/eth0/accept_dad", "1"), ("ipv6/conf/eth0/dad_transmits", "3")])?;
    let eth0 = index(&pair.a, "eth0")?;
    let (single, network) = (vip("fd66::100/128"), vip("fd66::101/64"));
    pair.a.enter(|| {
        let mut kernel = Kernel::open()?;
        kernel.add_address(eth0, &single)?;
        kernel.add_address(eth0, &network)?;
        Ok(())
    })?;
    for (address, is_deprecated) in [(&single, true), (&network, false)] {
        let entry = shown(&pair.a, address)?.context("not added")?;
        ensure!(entry["nodad"] == true && entry.get("tentative").is_none(), "{entry}");
        ensure!((entry["deprecated"] == true) == is_deprecated, "{entry}");
        ensure!(entry["valid_life_time"] == u32::MAX, "{entry}");
    }
    Ok(())
}

#[test]
fn an_ipv4_address_has_its_label_and_no_broadcast() -> Result<()> {
    require_lab!("an_ipv4_address_has_its_label_and_no_broadcast");
    let pair = Pair::new("nlabel")?;
    let eth0 = index(&pair.a, "eth0")?;
    let labelled = VirtualAddress { label: Some("eth0:vip".to_owned()), ..vip("10.66.0.100/24") };
    let plain = vip("10.66.0.101/32");
    pair.a.enter(|| {
        let mut kernel = Kernel::open()?;
        kernel.add_address(eth0, &labelled)?;
        kernel.add_address(eth0, &plain)?;
        Ok(())
    })?;
    for (address, label) in [(&labelled, "eth0:vip"), (&plain, "eth0")] {
        let entry = shown(&pair.a, address)?.context("not added")?;
        ensure!(entry["label"] == label && entry.get("broadcast").is_none(), "{entry}");
    }
    pair.a.enter(|| {
        ensure!(Kernel::open()?.remove_address(eth0, &labelled)?, "not removed");
        Ok(())
    })
}

#[test]
fn only_the_address_of_that_prefix_is_removed() -> Result<()> {
    require_lab!("only_the_address_of_that_prefix_is_removed");
    let pair = Pair::new("nprefix")?;
    let eth0 = index(&pair.a, "eth0")?;
    pair.a.enter(|| {
        let mut kernel = Kernel::open()?;
        let (own, single) = (vip("10.66.0.1/24"), vip("10.66.0.1/32"));
        ensure!(!kernel.remove_address(eth0, &single)?, "the machine's own address was removed");
        ensure!(kernel.add_address(eth0, &single)?, "the other prefix was taken for this one");
        ensure!(kernel.remove_address(eth0, &single)?, "not removed");
        ensure!(shown(&pair.a, &own)?.is_some(), "the machine's own address is gone");
        ensure!(!kernel.remove_address(eth0, &vip("fe80::66:1/128"))?, "the link-local address was removed");
        Ok(())
    })
}

#[test]
fn many_addresses_are_added_together() -> Result<()> {
    require_lab!("many_addresses_are_added_together");
    const MANY: usize = 1000;
    let pair = Pair::new("nmany")?;
    let eth0 = index(&pair.a, "eth0")?;
    let addresses: Vec<VirtualAddress> = (0..MANY)
        .map(|number| match number % 2 {
            0 => vip(&format!("10.77.{}.{}/32", number / 250, number % 250)),
            _ => vip(&format!("fd77::{number:x}/128")),
        })
        .collect();
    // One in the middle is for an interface that does not exist.
    let wanted: Vec<(u32, &VirtualAddress)> = addresses
        .iter()
        .enumerate()
        .map(|(number, address)| (if number == MANY / 2 { 9999 } else { eth0 }, address))
        .collect();
    let count = |kernel: &mut Kernel| -> Result<usize> {
        let interfaces = kernel.interfaces()?;
        let eth0 = interfaces.iter().find(|interface| interface.index == eth0).context("no eth0")?;
        // The link-local address comes when the kernel has made sure that nobody else has it.
        let is_ours =
            |address: &&(std::net::IpAddr, u8)| addresses.iter().any(|one| one.address == address.0);
        Ok(eth0.addresses.iter().filter(is_ours).count())
    };
    pair.a.enter(|| {
        let mut kernel = Kernel::open()?;
        for (is_new, expected) in [(true, MANY - 1), (false, MANY - 1)] {
            let results = kernel.add_addresses(&wanted);
            ensure!(results.len() == MANY);
            for (number, result) in results.iter().enumerate() {
                match result {
                    Ok(was_new) => ensure!(*was_new == is_new, "{number}: {result:?}"),
                    Err(error) => {
                        ensure!(number == MANY / 2, "{number}: {error}");
                        ensure!(os_code(error) == Some(libc::ENODEV), "{error}");
                    }
                }
            }
            ensure!(results[MANY / 2].is_err(), "an address was added to no interface");
            ensure!(count(&mut kernel)? == expected);
        }
        for is_there in [true, false] {
            for (number, result) in kernel.remove_addresses(&wanted).into_iter().enumerate() {
                ensure!(result? == (is_there && number != MANY / 2), "{number}");
            }
        }
        ensure!(count(&mut kernel)? == 0, "some are left");
        Ok(())
    })
}

#[test]
fn interfaces_are_as_they_are() -> Result<()> {
    require_lab!("interfaces_are_as_they_are");
    let mut pair = Pair::new("nifs")?;
    pair.a.ip([
        "addr add 10.66.0.50/24 dev eth0",
        "link add bridge type bridge",
        "addr add 10.99.0.1 peer 10.99.0.2/32 dev bridge",
    ])?;
    let mac = pair.a.mac("eth0")?;
    let look = |host: &Netns| host.enter(|| Ok(Kernel::open()?.interfaces()?));
    let interfaces = look(&pair.a)?;
    let named = |name: &str| {
        interfaces.iter().find(|interface| interface.name == name).with_context(|| name.to_owned())
    };
    let eth0 = named("eth0")?;
    ensure!(eth0.index == index(&pair.a, "eth0")? && eth0.mac == Some(mac) && eth0.is_running, "{eth0:?}");
    let ipv4: Vec<(IpAddr, u8)> =
        eth0.addresses.iter().copied().filter(|(address, _)| address.is_ipv4()).collect();
    ensure!(ipv4 == [("10.66.0.1".parse()?, 24), ("10.66.0.50".parse()?, 24)], "{ipv4:?}");
    ensure!(eth0.addresses.contains(&("fe80::66:1".parse()?, 64)), "{eth0:?}");
    let (lo, bridge) = (named("lo")?, named("bridge")?);
    ensure!(lo.mac.is_none() && lo.is_running, "{lo:?}");
    // It is not up; of an address with another end it is our own that counts.
    ensure!(bridge.mac.is_some() && !bridge.is_running, "{bridge:?}");
    ensure!(bridge.addresses.contains(&("10.99.0.1".parse()?, 32)), "{bridge:?}");

    // No carrier: the other end is down.
    pair.b.ip(["link set eth0 down"])?;
    crate::wait_for("no carrier", || {
        let is_running =
            look(&pair.a)?.iter().any(|interface| interface.name == "eth0" && interface.is_running);
        Ok((!is_running).then_some(()))
    })?;
    // A dump that takes more than one datagram.
    let host = pair.lab.host("many")?;
    host.ip((0..300).map(|number| format!("link add bridge{number} type bridge")))?;
    ensure!(look(&host)?.iter().filter(|interface| interface.name.starts_with("bridge")).count() == 300);
    Ok(())
}

#[test]
fn a_tentative_address_does_not_count() -> Result<()> {
    require_lab!("a_tentative_address_does_not_count");
    let pair = Pair::new("ntent")?;
    pair.a.sysctl(&[
        ("ipv6/conf/all/accept_dad", "1"),
        ("ipv6/conf/eth0/accept_dad", "1"),
        ("ipv6/conf/eth0/dad_transmits", "100"),
    ])?;
    pair.a.ip(["addr add fd66::1/64 dev eth0", "addr add fd66::2/64 dev eth0 nodad"])?;
    let interfaces = pair.a.enter(|| Ok(Kernel::open()?.interfaces()?))?;
    let eth0 = interfaces.iter().find(|interface| interface.name == "eth0").context("no eth0")?;
    ensure!(!eth0.addresses.contains(&("fd66::1".parse()?, 64)), "{eth0:?}");
    ensure!(eth0.addresses.contains(&("fd66::2".parse()?, 64)), "{eth0:?}");
    Ok(())
}

#[test]
fn an_interface_that_is_gone_is_an_error_to_add_to_only() -> Result<()> {
    require_lab!("an_interface_that_is_gone_is_an_error_to_add_to_only");
    let pair = Pair::new("ngone")?;
    pair.a.enter(|| {
        let mut kernel = Kernel::open()?;
        for address in [vip("10.66.0.100/32"), vip("fd66::100/128")] {
            let error = kernel.add_address(9999, &address).expect_err("added to no interface");
            ensure!(os_code(&error) == Some(libc::ENODEV), "{error}");
            ensure!(error.to_string().contains("interface 9999"), "{error}");
            ensure!(!kernel.remove_address(9999, &address)?);
        }
        Ok(())
    })
}
