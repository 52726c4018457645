//! Addresses, routes, rules, macvlans, announcements and VRRP's sockets against a real kernel: two hosts on a cable.

mod addresses;
mod announcements;
mod macvlans;
mod monitor;
mod privileges;
mod routes;
mod vrrp_sockets;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use lab::{Lab, Netns};
use lb_userspace::config::vrrp::VirtualAddress;
use nix::net::if_::if_nametoindex;

/// How long something may take that happens at once.
const LIMIT: Duration = Duration::from_secs(10);

/// Two hosts, joined by a cable between their `eth0`.
struct Pair {
    a: Netns,
    b: Netns,
    lab: Lab,
}

impl Pair {
    /// `a` has 10.66.0.1 and fe80::66:1, `b` 10.66.0.2 and fe80::66:2.
    fn new(label: &str) -> Result<Self> {
        let mut lab = Lab::new(label)?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        lab.cable((&a, "eth0"), (&b, "eth0"))?;
        for (host, number) in [(&a, 1), (&b, 2)] {
            host.ip([
                format!("addr add 10.66.0.{number}/24 dev eth0"),
                format!("addr add fe80::66:{number}/64 dev eth0 nodad"),
            ])?;
        }
        Ok(Self { a, b, lab })
    }
}

fn index(host: &Netns, device: &str) -> Result<u32> {
    host.enter(|| if_nametoindex(device).with_context(|| device.to_owned()))
}

/// A virtual address from "10.0.0.1/32".
fn vip(text: &str) -> VirtualAddress {
    let (address, prefix) = text.split_once('/').expect("a prefix");
    VirtualAddress {
        address: address.parse().expect("an address"),
        prefix: prefix.parse().expect("a prefix"),
        interface: None,
        label: None,
    }
}

/// Asks until there is an answer.
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > end {
            bail!("{what}: not within {LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Bytes from hexadecimal digits; spaces do not count.
fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).expect("a digit") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
