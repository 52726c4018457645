//! Two or three directors and a client in one network.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{Holders, Instance, Probe, Watch, holders, probe::PORT};
use crate::{Client, Lab, Netns, Network, httpd::Server, network::Port};

/// The virtual IPv4 address.
pub const VIP4: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 100);
/// The virtual IPv6 address.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 0x100);
/// The link-local address that a virtual IPv6 router has first (RFC 9568 5.2.9).
pub const LINK_LOCAL_VIP6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x66, 0x100);
/// The directors' names; also what each of them answers.
pub const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

/// The machines. Dropping it removes them.
pub struct Scene {
    /// The directors, alpha first.
    pub machines: Vec<Machine>,
    /// The client.
    pub client: Client,
    /// The network of all.
    pub lan: Network,
    /// The namespaces and cables.
    pub lab: Lab,
}

/// One director's machine. Its `eth0` is in the network; on UDP port 7 it answers with its name at all of its addresses.
pub struct Machine {
    /// One of [`NAMES`].
    pub name: &'static str,
    /// Its namespace.
    pub netns: Netns,
    /// The cable of `eth0`.
    pub port: Port,
    /// Its own IPv4 address: 10.66.0.1 and so on.
    pub ipv4: Ipv4Addr,
    /// Its link-local IPv6 address.
    pub link_local: Ipv6Addr,
    /// Answers probes.
    pub server: Server,
}

impl Scene {
    /// Makes a scene with up to three directors.
    ///
    /// # Errors
    /// When the process may not make namespaces, or a lab with this label exists.
    pub fn new(label: &str, directors: usize) -> Result<Self> {
        let mut lab = Lab::new(label)?;
        let lan = lab.network("lan")?;
        let machines = NAMES
            .into_iter()
            .take(directors)
            .zip(1..)
            .map(|(name, number)| Machine::new(&mut lab, &lan, name, number))
            .collect::<Result<Vec<Machine>>>()?;
        let netns = lab.host("client")?;
        lab.plug(&netns, "eth0", &lan, &["10.66.0.11/24", "fd66::11/64"])?;
        Ok(Self { machines, client: Client::new(netns), lan, lab })
    }

    /// Probes an address every millisecond.
    ///
    /// # Errors
    /// When nobody answers within 10 s.
    pub fn probe(&self, address: impl Into<IpAddr>) -> Result<Probe> {
        Probe::start(&self.client.netns, address.into(), Duration::from_millis(1))
    }

    /// Watches who has an address.
    ///
    /// # Errors
    /// When a netlink socket cannot be made.
    pub fn holders(&self, address: impl Into<IpAddr>) -> Result<Holders> {
        Holders::start(self.machines.iter().map(|machine| &machine.netns), address.into())
    }

    /// Watches the adverts in the network; those to one machine only are not among them.
    ///
    /// # Errors
    /// When a packet socket cannot be made.
    pub fn watch(&self) -> Result<Watch> {
        Watch::start(self.lab.switch(), self.lan.bridge())
    }

    /// The MAC address that the client has for an address; `None` when it has none.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn neighbour(&self, address: impl Into<IpAddr>) -> Result<Option<[u8; 6]>> {
        self.client.netns.neighbour(address, "eth0")
    }
}

impl Machine {
    fn new(lab: &mut Lab, lan: &Network, name: &'static str, number: u8) -> Result<Self> {
        let netns = lab.host(name)?;
        let port = lab.plug_in(&netns, "eth0", lan, &[])?;
        // With the address in place before it is up, the link-local address follows from it (RFC 4291 appendix A).
        netns.ip([
            "link set eth0 down".to_owned(),
            format!("link set eth0 address 02:66:00:00:00:{number:02x}"),
            "link set eth0 up".to_owned(),
            crate::network::add_address(&format!("10.66.0.{number}/24"), "eth0"),
            crate::network::add_address(&format!("fd66::{number}/64"), "eth0"),
        ])?;
        let server = Server::start(&netns, name, &[PORT])?;
        let ipv4 = Ipv4Addr::new(10, 66, 0, number);
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x66, 0xff, 0xfe00, number.into());
        Ok(Self { name, netns, port, ipv4, link_local, server })
    }

    /// Whether it has an address, on an interface that runs.
    ///
    /// # Errors
    /// When its namespace cannot be entered.
    pub fn has(&self, address: impl Into<IpAddr>) -> Result<bool> {
        holders::holds(&self.netns, address.into()).with_context(|| self.name)
    }
}

impl Instance {
    /// An instance of the scene's IPv4 address.
    pub fn ipv4(vrid: u8, priority: u8) -> Self {
        Self::new(vrid, priority).address(&format!("{VIP4}/32"))
    }

    /// An instance of the scene's IPv6 addresses, the link-local one first.
    pub fn ipv6(vrid: u8, priority: u8) -> Self {
        Self::new(vrid, priority).address(&format!("{LINK_LOCAL_VIP6}/64")).address(&format!("{VIP6}/128"))
    }
}
