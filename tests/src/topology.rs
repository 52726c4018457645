//! The networks of the scenarios: NAT, DR and TUN with one director.
//!
//! ```text
//! nat   clients 192.168.10.11.. --- wan --- eth0 director eth1 --- lan --- 192.168.1.101.. servers
//!                fd00:10::11..                                            fd00:1::101..
//! dr    clients 192.168.10.11.., director, servers 192.168.10.101.. --- lan
//! tun   clients 192.168.10.11.., director --- wan --- router --- lan --- 192.168.1.101.. servers
//! ```
//!
//! The virtual address is 192.168.10.50 and fd00:10::50 everywhere, on the director's `eth0`; with DR and TUN the
//! servers carry it on `lo` too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;

use crate::{
    Client, Lab, Netns, Network, ethtool::Offloads, httpd::Server, network::add_address, programs::XdpProgram,
};

/// The virtual server's IPv4 address.
pub const VIP4: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 50);
/// The virtual server's IPv6 address.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 0x50);
/// The TCP and UDP ports on which the real servers answer.
pub const PORTS: [u16; 2] = [80, 8080];

/// How forwarding reaches the real servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Servers in a network of their own, their gateway is the director.
    Nat,
    /// Servers in the clients' network with the virtual address on `lo`.
    Dr,
    /// Servers behind a router with the virtual address on `lo` and a tunnel's end.
    Tun,
}

/// What a scene is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Unique within the process; part of the namespaces' names.
    pub label: String,
    /// The number of clients.
    pub clients: u8,
    /// The number of real servers.
    pub servers: u8,
    /// Which offloads the interfaces have.
    pub offloads: Offloads,
    /// Whether the real servers run in threads of this process; otherwise the caller starts them.
    pub serve: bool,
    /// Whether the lab gets a name that is the same in every run; see [`Lab::to_keep`].
    pub fixed_name: bool,
}

impl Options {
    /// One client and three real servers, all offloads off.
    #[must_use]
    pub fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            clients: 1,
            servers: 3,
            offloads: Offloads::Off,
            serve: true,
            fixed_name: false,
        }
    }

    /// The same with another number of clients.
    #[must_use]
    pub fn clients(self, clients: u8) -> Self {
        Self { clients, ..self }
    }

    /// The same with another number of real servers.
    #[must_use]
    pub fn servers(self, servers: u8) -> Self {
        Self { servers, ..self }
    }

    /// The same with other offloads.
    #[must_use]
    pub fn offloads(self, offloads: Offloads) -> Self {
        Self { offloads, ..self }
    }
}

/// A lab with its machines. Dropping it removes them.
pub struct Scene {
    /// How it was built.
    pub mode: Mode,
    /// The clients' machines.
    pub clients: Vec<Client>,
    /// The director's machine, on which xdirector is not yet running.
    pub director: Netns,
    /// The director's interfaces, as `interfaces` in the configuration has to name them.
    pub interfaces: &'static [&'static str],
    /// The machine between the two networks, in [`Mode::Tun`].
    pub router: Option<Netns>,
    /// The real servers.
    pub servers: Vec<RealServer>,
    /// The network of clients and director.
    pub outside: Network,
    /// The namespaces and cables.
    pub lab: Lab,
}

/// A real server's machine.
pub struct RealServer {
    /// What it answers: `Real 1` and so on.
    pub name: String,
    /// Its namespace; its interface is `eth0`.
    pub netns: Netns,
    /// Its own IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its own IPv6 address.
    pub ipv6: Ipv6Addr,
    /// The running server on [`PORTS`]; dropping it makes the real server refuse.
    pub http: Option<Server>,
}

impl Scene {
    /// The first client.
    ///
    /// # Panics
    /// In a scene without clients.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.clients[0]
    }

    /// Adds a client at 10.8.0.2 and fd00:8::2. Its router, `edge`, sends packets of at most 1300 bytes towards it,
    /// but the client does not know and offers segments for 1500.
    ///
    /// # Errors
    /// When there is one already.
    pub fn add_narrow_client(&mut self) -> Result<Client> {
        let edge = self.lab.host("edge")?;
        edge.sysctl(FORWARD)?;
        self.lab.plug(&edge, "eth0", &self.outside, &["192.168.10.253/24", "fd00:10::253/64"])?;
        let network = self.lab.network("far")?;
        self.lab.plug(&edge, "eth1", &network, &["10.8.0.1/24", "fd00:8::1/64"])?;
        edge.ip(["link set eth1 mtu 1300"])?;
        let far = self.lab.host("far")?;
        self.lab.plug(&far, "eth0", &network, &["10.8.0.2/24", "fd00:8::2/64"])?;
        far.ip(["route add default via 10.8.0.1", "route add ::/0 via fd00:8::1"])?;
        let back = if self.mode == Mode::Tun { "254" } else { "1" };
        edge.ip([
            format!("route add 192.168.1.0/24 via 192.168.10.{back}"),
            format!("route add fd00:1::/64 via fd00:10::{back}"),
        ])?;
        let way = ["route add 10.8.0.0/24 via 192.168.10.253", "route add fd00:8::/64 via fd00:10::253"];
        self.director.ip(way)?;
        if let Some(router) = &self.router {
            router.ip(way)?;
        }
        if self.mode == Mode::Dr {
            for server in &self.servers {
                server.netns.ip(way)?;
            }
        }
        Ok(Client::new(far))
    }
}

/// Port `port` of the virtual IPv4 address.
#[must_use]
pub fn vip4(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(VIP4), port)
}

/// Port `port` of the virtual IPv6 address.
#[must_use]
pub fn vip6(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(VIP6), port)
}

/// Builds the scene for `mode`.
///
/// # Errors
/// When the process may not make namespaces, or a lab with this label exists.
pub fn build(mode: Mode, options: &Options) -> Result<Scene> {
    let mut lab = if options.fixed_name { Lab::to_keep(&options.label)? } else { Lab::new(&options.label)? };
    lab.set_offloads(options.offloads);
    let outside = lab.network("wan")?;
    let director = director(&mut lab, &outside)?;
    let clients = (1..=options.clients)
        .map(|number| client(&mut lab, &outside, number))
        .collect::<Result<Vec<Client>>>()?;
    let (inside, router) = match mode {
        Mode::Nat => (inside_of_director(&mut lab, &director)?, None),
        Mode::Dr => (outside.clone(), None),
        Mode::Tun => inside_of_router(&mut lab, &outside, &director)?,
    };
    let servers = (1..=options.servers)
        .map(|number| real_server(&mut lab, &inside, mode, number, options.serve))
        .collect::<Result<Vec<RealServer>>>()?;
    let interfaces: &[&str] = if mode == Mode::Nat { &["eth0", "eth1"] } else { &["eth0"] };
    Ok(Scene { mode, clients, director, interfaces, router, servers, outside, lab })
}

/// The NAT scene. Clients know the way to the servers' network, for requests past the virtual server.
///
/// # Errors
/// As [`build`].
pub fn nat(options: &Options) -> Result<Scene> {
    build(Mode::Nat, options)
}

/// The DR scene: one network.
///
/// # Errors
/// As [`build`].
pub fn dr(options: &Options) -> Result<Scene> {
    build(Mode::Dr, options)
}

/// The TUN scene.
///
/// # Errors
/// As [`build`].
pub fn tun(options: &Options) -> Result<Scene> {
    build(Mode::Tun, options)
}

fn director(lab: &mut Lab, outside: &Network) -> Result<Netns> {
    let director = lab.host("director")?;
    director.sysctl(FORWARD)?;
    lab.plug(&director, "eth0", outside, &["192.168.10.1/24", "fd00:10::1/64"])?;
    director.ip([add_address(&format!("{VIP4}/32"), "eth0"), add_address(&format!("{VIP6}/128"), "eth0")])?;
    Ok(director)
}

pub(crate) fn client(lab: &mut Lab, outside: &Network, number: u8) -> Result<Client> {
    let host = 10 + u16::from(number);
    let netns = lab.host(&format!("client{number}"))?;
    lab.plug(&netns, "eth0", outside, &[&format!("192.168.10.{host}/24"), &format!("fd00:10::{host}/64")])?;
    netns.ip(["route add default via 192.168.10.1", "route add ::/0 via fd00:10::1"])?;
    Ok(Client::new(netns))
}

fn inside_of_director(lab: &mut Lab, director: &Netns) -> Result<Network> {
    let inside = lab.network("lan")?;
    lab.plug(director, "eth1", &inside, &["192.168.1.1/24", "fd00:1::1/64"])?;
    Ok(inside)
}

pub(crate) fn inside_of_router(
    lab: &mut Lab,
    outside: &Network,
    director: &Netns,
) -> Result<(Network, Option<Netns>)> {
    let inside = lab.network("lan")?;
    let router = lab.host("router")?;
    router.sysctl(FORWARD)?;
    lab.plug(&router, "eth0", outside, &["192.168.10.254/24", "fd00:10::254/64"])?;
    lab.plug(&router, "eth1", &inside, &["192.168.1.1/24", "fd00:1::1/64"])?;
    director.ip(WAY_TO_SERVERS)?;
    Ok((inside, Some(router)))
}

pub(crate) fn real_server(
    lab: &mut Lab,
    inside: &Network,
    mode: Mode,
    number: u8,
    serve: bool,
) -> Result<RealServer> {
    let name = format!("Real {number}");
    let netns = lab.host(&format!("real{number}"))?;
    let host = 100 + number;
    let (net4, net6) = if mode == Mode::Dr { (10, 0x10) } else { (1, 0x1) };
    let ipv4 = Ipv4Addr::new(192, 168, net4, host);
    // fd00:1::101, not fd00:1::65: people read the number.
    let ipv6: Ipv6Addr = format!("fd00:{net6:x}::{host}").parse()?;
    if mode != Mode::Nat {
        // Before the address is there: nothing may answer for it in between.
        netns.sysctl(QUIET_ABOUT_VIP)?;
        netns.ip([add_address(&format!("{VIP4}/32"), "lo"), add_address(&format!("{VIP6}/128"), "lo")])?;
    }
    lab.plug(&netns, "eth0", inside, &[&format!("{ipv4}/24"), &format!("{ipv6}/64")])?;
    if mode == Mode::Tun {
        lab.attach_xdp(&netns, "eth0", XdpProgram::Decap)?;
    }
    netns.ip([
        format!("route add default via 192.168.{net4}.1"),
        format!("route add ::/0 via fd00:{net6:x}::1"),
    ])?;
    let http = if serve { Some(Server::start(&netns, &name, &PORTS)?) } else { None };
    Ok(RealServer { name, netns, ipv4, ipv6, http })
}

/// Where [`Mode::Tun`]'s router is.
pub(crate) const WAY_TO_SERVERS: [&str; 2] =
    ["route add 192.168.1.0/24 via 192.168.10.254", "route add fd00:1::/64 via fd00:10::254"];

pub(crate) const FORWARD: &[(&str, &str)] = &[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];

/// IPv6 needs no setting: neighbour discovery speaks for the addresses of its own interface only.
const QUIET_ABOUT_VIP: &[(&str, &str)] =
    &[("ipv4/conf/all/arp_ignore", "1"), ("ipv4/conf/all/arp_announce", "2")];
