//! Writes xdirector's configuration files for scenes of the lab.

use std::{fmt::Write as _, net::SocketAddr};

/// A configuration file with one director.
#[derive(Clone, Debug)]
#[must_use]
pub struct Configuration {
    text: String,
}

/// One `[[virtual_server]]`.
#[derive(Clone, Debug)]
#[must_use]
pub struct VirtualServer {
    name: String,
    address: SocketAddr,
    protocol: &'static str,
    scheduler: String,
    forward: String,
    more: String,
    real_servers: Vec<(SocketAddr, u32)>,
}

impl Configuration {
    /// A director named `instance` that takes packets on `interfaces`.
    pub fn new(instance: &str, interfaces: &[&str]) -> Self {
        // An instance's name has 32 bytes at most; the end of a namespace's tells directors apart.
        let instance = &instance[instance.len().saturating_sub(32)..];
        Self {
            text: format!(
                "[director]\ninstance = \"{instance}\"\nrouter_id = \"director-01\"\ninterfaces = {interfaces:?}\n"
            ),
        }
    }

    /// Adds lines as they are: further keys of `[director]`, or other tables.
    pub fn lines(mut self, lines: &str) -> Self {
        self.text += lines;
        self.text += "\n";
        self
    }

    /// Adds a virtual server.
    pub fn serve(mut self, server: &VirtualServer) -> Self {
        self.text += "\n";
        self.text += &server.text();
        self
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl VirtualServer {
    /// A TCP virtual server with the scheduler `rr` and NAT.
    pub fn tcp(name: &str, address: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            address,
            protocol: "tcp",
            scheduler: "rr".to_owned(),
            forward: "nat".to_owned(),
            more: String::new(),
            real_servers: Vec::new(),
        }
    }

    /// A UDP virtual server with the scheduler `rr` and NAT.
    pub fn udp(name: &str, address: SocketAddr) -> Self {
        Self { protocol: "udp", ..Self::tcp(name, address) }
    }

    /// The same with another scheduler.
    pub fn scheduler(mut self, scheduler: &str) -> Self {
        scheduler.clone_into(&mut self.scheduler);
        self
    }

    /// The same with another kind of forwarding: "nat", "dr" or "tun".
    pub fn forward(mut self, forward: &str) -> Self {
        forward.clone_into(&mut self.forward);
        self
    }

    /// The same with one more line in its table, for example `scheduler_flags = ["sh-port"]`.
    pub fn line(mut self, line: &str) -> Self {
        self.more += line;
        self.more += "\n";
        self
    }

    /// Adds a real server.
    pub fn real(mut self, address: SocketAddr, weight: u32) -> Self {
        self.real_servers.push((address, weight));
        self
    }

    /// Its part of the file.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { name, address, protocol, scheduler, forward, more, real_servers } = self;
        let mut text = format!(
            "[[virtual_server]]\nname = \"{name}\"\naddress = \"{address}\"\nprotocol = \"{protocol}\"\n\
             scheduler = \"{scheduler}\"\nforward = \"{forward}\"\n{more}"
        );
        for (address, weight) in real_servers {
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "\n  [[virtual_server.real_server]]\n  address = \"{address}\"\n  weight = {weight}\n"
            );
        }
        text
    }
}
