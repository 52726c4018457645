//! The lab itself: hosts, networks, and the cables between them.

mod port;

use std::process;

use anyhow::{Context as _, Result};

pub use port::Port;

use crate::{
    Netns,
    ethtool::{self, Offloads},
    programs::{Programs, XdpProgram, pin_directory},
    registry,
};

/// Begins the names of labs that outlive their process; see [`Lab::keep`].
pub const KEPT_PREFIX: &str = "xdkeep-";

/// A set of hosts and networks. Dropping it removes them all.
///
/// Every network is a bridge in one more namespace, the switch, so that any number of hosts can join it and the
/// hosts' own interfaces carry nothing that a real machine's would not.
pub struct Lab {
    prefix: String,
    switch: Netns,
    ports: u32,
    offloads: Offloads,
    programs: Programs,
    namespaces: Vec<String>,
    kept: bool,
}

/// An Ethernet segment: a bridge in the lab's switch.
#[derive(Clone, Debug)]
pub struct Network {
    bridge: String,
}

impl Network {
    /// Its bridge in the lab's switch.
    #[must_use]
    pub fn bridge(&self) -> &str {
        &self.bridge
    }
}

impl Lab {
    /// An empty lab. `label` must be unique within the process; it is part of the namespaces' names.
    ///
    /// # Errors
    /// When the process may not make namespaces.
    pub fn new(label: &str) -> Result<Self> {
        Self::with_prefix(format!("xd{}-{label}-", process::id()))
    }

    /// An empty lab whose names do not change from run to run, for [`Lab::keep`].
    ///
    /// # Errors
    /// When such a lab exists already, or the process may not make namespaces.
    pub fn to_keep(label: &str) -> Result<Self> {
        Self::with_prefix(format!("{KEPT_PREFIX}{label}-"))
    }

    fn with_prefix(prefix: String) -> Result<Self> {
        registry::install();
        let name = format!("{prefix}switch");
        let switch = Netns::create(&name)?;
        Ok(Self {
            prefix,
            switch,
            ports: 0,
            offloads: Offloads::default(),
            programs: Programs::default(),
            namespaces: vec![name],
            kept: false,
        })
    }

    /// Which offloads the interfaces of later [`Lab::plug`]s have; all off unless this is called.
    pub fn set_offloads(&mut self, offloads: Offloads) {
        self.offloads = offloads;
    }

    /// Adds a network. `name` has at most 15 bytes.
    ///
    /// # Errors
    /// When the kernel has no bridge or the name is taken.
    pub fn network(&mut self, name: &str) -> Result<Network> {
        self.switch.ip([
            format!("link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"),
            format!("link set {name} up"),
        ])?;
        // The switch is no host: without this it would join in neighbour discovery.
        self.switch.sysctl(&[(&format!("ipv6/conf/{name}/disable_ipv6"), "1")])?;
        Ok(Network { bridge: name.to_owned() })
    }

    /// Adds a host without interfaces but `lo`.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn host(&mut self, name: &str) -> Result<Netns> {
        let full_name = format!("{}{name}", self.prefix);
        let netns = Netns::create(&full_name)?;
        self.namespaces.push(full_name);
        netns.sysctl(HOST_SETTINGS)?;
        Ok(netns)
    }

    /// Plugs a host into a network: makes the interface `device` with `addresses` (such as "192.168.1.1/24").
    ///
    /// # Errors
    /// When the interface exists or an address is not one.
    pub fn plug(&mut self, host: &Netns, device: &str, network: &Network, addresses: &[&str]) -> Result<()> {
        self.plug_in(host, device, network, addresses).map(drop)
    }

    /// The same; gives the switch's end of the cable.
    ///
    /// # Errors
    /// As [`Lab::plug`].
    pub fn plug_in(
        &mut self,
        host: &Netns,
        device: &str,
        network: &Network,
        addresses: &[&str],
    ) -> Result<Port> {
        self.ports += 1;
        let port = format!("port{}", self.ports);
        let bridge = &network.bridge;
        self.switch.ip([
            format!("link add {port} type veth peer name {device} netns {}", host.name()),
            format!("link set {port} master {bridge}"),
        ])?;
        ethtool::apply(&self.switch, &port, self.offloads)?;
        ethtool::apply(host, device, self.offloads)?;
        self.switch.sysctl(&[(&format!("ipv6/conf/{port}/disable_ipv6"), "1")])?;
        self.programs.attach_xdp(&self.switch, &port, XdpProgram::Pass)?;
        self.switch.ip([format!("link set {port} up")])?;
        host.ip([format!("link set {device} up")])?;
        host.ip(addresses.iter().map(|address| add_address(address, device)))?;
        Port::new(&self.switch, port, bridge.clone(), (host, device))
    }

    /// The machine that holds the networks' bridges and the ports.
    #[must_use]
    pub const fn switch(&self) -> &Netns {
        &self.switch
    }

    /// Joins two hosts by a cable of their own, without a switch. Attach [`XdpProgram::Pass`] to the end that gets
    /// no XDP program otherwise.
    ///
    /// # Errors
    /// When one of the interfaces exists.
    pub fn cable(&mut self, a: (&Netns, &str), b: (&Netns, &str)) -> Result<()> {
        a.0.ip([format!("link add {} type veth peer name {} netns {}", a.1, b.1, b.0.name())])?;
        for (host, device) in [a, b] {
            ethtool::apply(host, device, self.offloads)?;
            host.ip([format!("link set {device} up")])?;
        }
        Ok(())
    }

    /// Attaches one of the lab's XDP programs in native mode.
    ///
    /// # Errors
    /// When the interface is missing or has an XDP program already.
    pub fn attach_xdp(&mut self, host: &Netns, device: &str, program: XdpProgram) -> Result<()> {
        self.programs.attach_xdp(host, device, program)
    }

    /// Puts the IP packets of an interface into a VLAN, as an 802.1Q device would.
    ///
    /// # Errors
    /// When the interface is missing, or the kernel is older than 6.6.
    pub fn attach_vlan(&mut self, host: &Netns, device: &str, vlan: u16) -> Result<()> {
        self.programs.attach_vlan(host, device, vlan)
    }

    /// Leaves the lab standing when this process ends; [`remove_kept`] removes it.
    ///
    /// # Errors
    /// When the programs cannot be pinned.
    pub fn keep(&mut self) -> Result<()> {
        self.programs.pin(&pins(&self.prefix))?;
        let mut registry = registry::lock();
        for name in &self.namespaces {
            registry.namespaces.remove(name);
        }
        self.kept = true;
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut registry = registry::lock();
        for name in &self.namespaces {
            registry::delete_namespace(name);
            registry.namespaces.remove(name);
        }
    }
}

/// Removes the kept lab `label`, with every process in it; says whether there was one.
///
/// # Errors
/// When its pins cannot be removed.
pub fn remove_kept(label: &str) -> Result<bool> {
    let prefix = format!("{KEPT_PREFIX}{label}-");
    let names: Vec<String> =
        registry::namespaces().into_iter().filter(|name| name.starts_with(&prefix)).collect();
    for name in &names {
        registry::remove_namespace_with_processes(name);
    }
    registry::remove_temporary_directories(|name| name.starts_with(&prefix));
    let pins = pin_directory(&pins(&prefix));
    if pins.exists() {
        std::fs::remove_dir_all(&pins).with_context(|| format!("cannot remove {}", pins.display()))?;
    }
    Ok(!names.is_empty())
}

fn pins(prefix: &str) -> String {
    format!("{prefix}lab")
}

/// The line of `ip` that adds an address; IPv6 addresses are usable at once.
pub(crate) fn add_address(address: &str, device: &str) -> String {
    let nodad = if address.contains(':') { " nodad" } else { "" };
    format!("addr add {address} dev {device}{nodad}")
}

/// What every host has. Duplicate address detection would delay every test by a second, redirects and rate
/// limits would make results depend on time.
const HOST_SETTINGS: &[(&str, &str)] = &[
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/all/accept_redirects", "0"),
    ("ipv6/icmp/ratelimit", "0"),
];
