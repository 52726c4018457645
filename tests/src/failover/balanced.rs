//! The scenes of [`crate::topology`] with a second director, for virtual servers that fail over.
//!
//! ```text
//! nat   clients 192.168.10.11.. --- wan --- eth0 director, director2 eth1 --- lan --- 192.168.1.101.. servers
//! dr    clients, director, director2, servers in one network
//! tun   clients, director, director2 --- wan --- router --- lan --- servers
//! ```
//!
//! No director has a virtual address at first: VRRP brings them. With NAT the servers' gateway is one too.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result};

use super::{Holders, Probe};
use crate::{
    Client, Lab, Netns, Network,
    httpd::Server,
    network::Port,
    topology::{self, FORWARD, Mode, RealServer, VIP4},
};

/// Two directors before real servers. Dropping it removes them.
pub struct Balanced {
    /// How forwarding reaches the real servers.
    pub mode: Mode,
    /// The client.
    pub client: Client,
    /// The two directors.
    pub sides: Vec<Side>,
    /// The real servers.
    pub servers: Vec<RealServer>,
    /// A machine in the clients' network for what the directors themselves need: a mail server, a sorry server.
    pub office: Netns,
    /// The clients' network.
    pub outside: Network,
    /// The namespaces and cables.
    pub lab: Lab,
    _router: Option<Netns>,
}

/// One of the two directors.
pub struct Side {
    /// "first" or "second"; also what it answers on UDP port 7.
    pub name: &'static str,
    /// Its namespace.
    pub netns: Netns,
    /// The cable of `eth0`, in the clients' network.
    pub outside: Port,
    /// The cable of `eth1`, in the servers' network, with NAT.
    pub inside: Option<Port>,
    /// Answers probes.
    pub server: Server,
}

impl Balanced {
    /// The servers' gateway with NAT.
    pub const GATEWAY: &str = "192.168.1.254";
    /// The address of [`Self::office`].
    pub const OFFICE: &str = "192.168.10.99";

    /// Makes the scene with so many real servers.
    ///
    /// # Errors
    /// When the process may not make namespaces, or a lab with this label exists.
    pub fn new(mode: Mode, label: &str, servers: u8) -> Result<Self> {
        let mut lab = Lab::new(label)?;
        let outside = lab.network("wan")?;
        let mut hosts = Vec::new();
        for name in ["director", "director2"] {
            let netns = lab.host(name)?;
            netns.sysctl(FORWARD)?;
            hosts.push(netns);
        }
        let client = topology::client(&mut lab, &outside, 1)?;
        let cables = hosts
            .iter()
            .zip(1..)
            .map(|(netns, number)| {
                let addresses = [format!("192.168.10.{number}/24"), format!("fd00:10::{number}/64")];
                lab.plug_in(netns, "eth0", &outside, &addresses.each_ref().map(String::as_str))
            })
            .collect::<Result<Vec<Port>>>()?;
        let (inside, router) = match mode {
            Mode::Nat => (lab.network("lan")?, None),
            Mode::Dr => (outside.clone(), None),
            Mode::Tun => {
                let first = hosts.first().context("two directors")?;
                topology::inside_of_router(&mut lab, &outside, first)?
            }
        };
        if mode == Mode::Tun {
            hosts[1].ip(topology::WAY_TO_SERVERS)?;
        }
        let mut sides = Vec::new();
        for (((netns, cable), number), name) in
            hosts.into_iter().zip(cables).zip(1..).zip(["first", "second"])
        {
            let inner = match mode {
                Mode::Nat => {
                    Some(lab.plug_in(&netns, "eth1", &inside, &[&format!("192.168.1.{number}/24")])?)
                }
                Mode::Dr | Mode::Tun => None,
            };
            let server = Server::start(&netns, name, &[super::PROBE_PORT])?;
            sides.push(Side { name, netns, outside: cable, inside: inner, server });
        }
        let servers = (1..=servers)
            .map(|number| {
                let server = topology::real_server(&mut lab, &inside, mode, number, true)?;
                if mode == Mode::Nat {
                    server.netns.ip([format!("route replace default via {}", Self::GATEWAY)])?;
                }
                Ok(server)
            })
            .collect::<Result<Vec<RealServer>>>()?;
        let office = lab.host("office")?;
        lab.plug(&office, "eth0", &outside, &[&format!("{}/24", Self::OFFICE)])?;
        Ok(Self { mode, client, sides, servers, office, outside, lab, _router: router })
    }

    /// The directors' interfaces, as `interfaces` in the configuration has to name them.
    #[must_use]
    pub const fn interfaces(&self) -> &'static [&'static str] {
        match self.mode {
            Mode::Nat => &["eth0", "eth1"],
            Mode::Dr | Mode::Tun => &["eth0"],
        }
    }

    /// The director's part of a file for one side, with a name of its own.
    pub fn configuration(&self, side: usize) -> crate::configuration::Configuration {
        crate::configuration::Configuration::new(self.sides[side].netns.name(), self.interfaces())
    }

    /// Probes the virtual address.
    ///
    /// # Errors
    /// When nobody answers within 10 s.
    pub fn probe(&self) -> Result<Probe> {
        Probe::start(&self.client.netns, VIP4.into(), Duration::from_millis(1))
    }

    /// Whether the neighbour tables lead to this side: the client's for the virtual address, and with NAT that of each real server that
    /// has asked for its gateway.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn leads_to(&self, side: usize) -> Result<bool> {
        let netns = &self.sides[side].netns;
        if self.client.netns.neighbour(VIP4, "eth0")? != Some(netns.mac("eth0")?) {
            return Ok(false);
        }
        let servers: &[RealServer] = if self.mode == Mode::Nat { &self.servers } else { &[] };
        for server in servers {
            let gateway: Ipv4Addr = Self::GATEWAY.parse()?;
            let known = server.netns.neighbour(gateway, "eth0")?;
            if known.is_some() && known != Some(netns.mac("eth1")?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Watches who has the virtual address.
    ///
    /// # Errors
    /// When a netlink socket cannot be made.
    pub fn holders(&self) -> Result<Holders> {
        Holders::start(self.sides.iter().map(|side| &side.netns), VIP4.into())
    }
}
