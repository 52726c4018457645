//! What each scenario is.

use std::net::{IpAddr, SocketAddr};

use clap::ValueEnum;
use lab::{
    configuration::{Configuration, VirtualServer},
    topology::{self, Mode, RealServer, Scene},
};

/// Bytes of the download.
pub const DOWNLOAD: u64 = 100_000_000;

/// One of the classic set-ups with one director.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// NAT: the director rewrites addresses, both ways
    S1,
    /// DR, direct routing: same network, answers bypass the director
    S2,
    /// TUN: servers in another network, answers bypass the director
    S3,
    /// Servers that die and drain, an agent that is killed
    S11,
}

impl Scenario {
    pub const ALL: [Self; 4] = [Self::S1, Self::S2, Self::S3, Self::S11];

    pub const fn title(self) -> &'static str {
        match self {
            Self::S1 => "S1: NAT",
            Self::S2 => "S2: direct routing (DR)",
            Self::S3 => "S3: IP tunnel (TUN)",
            Self::S11 => "S11: health checks, drain, restart",
        }
    }

    /// The picture of the network and what is special.
    pub const fn description(self) -> &'static str {
        match self {
            Self::S1 => {
                "client --- 192.168.10.0/24 --- director --- 192.168.1.0/24 --- Real 1, 2, 3\n\
                 The director rewrites address and port (80 to 8080), and back again."
            }
            Self::S2 => {
                "client, director, Real 1, 2, 3 --- 192.168.10.0/24\n\
                 The director changes the MAC address only; servers answer clients directly."
            }
            Self::S3 => {
                "client, director --- 192.168.10.0/24 --- router --- Real 1, 2, 3\n\
                 The director wraps each packet into another; servers answer directly."
            }
            Self::S11 => {
                "client --- 192.168.10.0/24 --- director --- 192.168.1.0/24 --- Real 1, 2, 3\n\
                 Every 200 ms the director asks each server for its page."
            }
        }
    }

    pub const fn label(self) -> &'static str {
        match self {
            Self::S1 => "s1",
            Self::S2 => "s2",
            Self::S3 => "s3",
            Self::S11 => "s11",
        }
    }

    pub const fn mode(self) -> Mode {
        match self {
            Self::S1 | Self::S11 => Mode::Nat,
            Self::S2 => Mode::Dr,
            Self::S3 => Mode::Tun,
        }
    }

    /// The weights of the three real servers.
    pub const fn weights(self) -> &'static [u32] {
        match self {
            Self::S1 => &[3, 2, 1],
            Self::S2 | Self::S11 => &[1, 1, 1],
            Self::S3 => &[2, 1, 1],
        }
    }

    const fn scheduler(self) -> &'static str {
        match self {
            Self::S1 | Self::S3 => "wrr",
            Self::S2 | Self::S11 => "rr",
        }
    }

    const fn forward(self) -> &'static str {
        match self {
            Self::S1 | Self::S11 => "nat",
            Self::S2 => "dr",
            Self::S3 => "tun",
        }
    }

    const fn server_port(self) -> u16 {
        match self {
            Self::S1 | Self::S11 => 8080,
            Self::S2 | Self::S3 => 80,
        }
    }

    /// The virtual server that the demo prints; the file has the same for IPv6 and for UDP.
    pub fn web(self, scene: &Scene) -> VirtualServer {
        let web = VirtualServer::tcp("web", topology::vip4(80));
        self.fill(web, &scene.servers, |server| IpAddr::V4(server.ipv4))
    }

    pub fn configuration(self, scene: &Scene) -> Configuration {
        let web6 = VirtualServer::tcp("web-ipv6", topology::vip6(80));
        let echo = VirtualServer::udp("echo", topology::vip4(80));
        // Instances need their own names where several labs are up.
        let instance = scene.director.name().trim_end_matches("-director");
        let configuration = Configuration::new(instance, scene.interfaces).serve(&self.web(scene));
        if self == Self::S11 {
            return configuration;
        }
        configuration
            .serve(&self.fill(web6, &scene.servers, |server| IpAddr::V6(server.ipv6)))
            .serve(&self.fill(echo, &scene.servers, |server| IpAddr::V4(server.ipv4)))
    }

    fn fill(
        self,
        server: VirtualServer,
        real: &[RealServer],
        address: impl Fn(&RealServer) -> IpAddr,
    ) -> VirtualServer {
        let mut server = server.scheduler(self.scheduler()).forward(self.forward());
        if self == Self::S11 {
            server = server.line(
                "health_check = [{ type = \"http\", interval = \"200ms\", timeout = \"1s\", fall = 2 }]",
            );
        }
        real.iter().zip(self.weights()).fold(server, |server, (real, weight)| {
            server.real(SocketAddr::new(address(real), self.server_port()), *weight)
        })
    }
}
