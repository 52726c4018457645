//! The configurations with which the program is loaded. Each is loaded once, when its first case runs, and its cases
//! run one after the other.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::{self, Command},
    sync::{Mutex, OnceLock, PoisonError},
};

use anyhow::{Result, anyhow};
use lab::{Netns, registry};
use lb_userspace::{
    config::{self, Config, Protocol},
    netlink::NextHop,
};

use crate::{
    plane::Plane,
    scene::{
        ARRIVING, CLIENT_MAC, CLIENTS, DIRECTOR_MAC, EMPTY, FAMILIES, Family, INNER_MAC, LAST, LEAVING,
        MODES, Mode, NARROW, NARROW_MTU, ON_A_STICK, PLAIN, SAME_PORT, SERVER_MAC, SERVERS, Target, V4, V6,
        tunnel_source,
    },
    standby::ROLE,
};

/// Which configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setup {
    /// Every way of forwarding with the virtual servers of `scene.rs`.
    Forwarding,
    /// Virtual servers with several real servers: [`SCHEDULED`].
    Scheduling,
    /// The first two virtual servers of every way of forwarding, with the smallest connection table.
    Small,
    /// As [`Setup::Forwarding`], apart from it, for random packets.
    Random,
    /// For every way of forwarding the virtual server [`LEAVING`], with two real servers: its own, and of weight 0 that of
    /// [`ARRIVING`].
    Moving,
    /// The first two virtual servers of every way of forwarding, scheduled by mh; the first of them needs [`ROLE`].
    Bound,
}

/// Who the virtual servers of [`Setup::Scheduling`] are: a number for their address, scheduler, flags, the weights of their
/// real servers.
pub const SCHEDULED: [(u8, Family, &str, &str, &[u32]); 33] = [
    (1, V4, "rr", "", &[1, 1, 1]),
    (2, V4, "rr", "", &[1, 0, 5, 1]),
    (3, V4, "wrr", "", &[3, 2, 1]),
    (4, V4, "wrr", "", &[4, 2, 6]),
    (5, V4, "lc", "", &[3, 2, 1]),
    (6, V4, "wlc", "", &[3, 2, 1]),
    (7, V4, "sh", "", &[1, 1, 1]),
    (8, V4, "sh", "", &[2, 0, 5, 1]),
    (9, V4, "sh", "sh-port sh-fallback", &[2, 0, 5, 1]),
    (10, V6, "sh", "", &[1, 2, 3]),
    (11, V4, "mh", "", &[1, 1, 1]),
    (12, V4, "mh", "mh-port", &[4, 100, 250, 0]),
    (13, V4, "mh", "mh-fallback", &[1, 3, 2]),
    (14, V4, "mh", "", &[1, 3, 2]),
    (15, V6, "mh", "", &[1, 2, 3]),
    (16, V4, "wlc", "", &[1, 1]),
    (17, V4, "sh", "", &[0, 0]),
    // From here on with thresholds.
    (18, V4, "rr", "", &[1, 1, 1]),
    (19, V4, "wrr", "", &[3, 2, 1]),
    (20, V4, "lc", "", &[1, 1]),
    (21, V4, "wlc", "", &[1, 1]),
    (22, V4, "sh", "", &[2, 1, 5, 1]),
    (23, V4, "sh", "sh-port sh-fallback", &[2, 1, 5, 1]),
    (24, V4, "mh", "", &[1, 3, 2]),
    (25, V4, "mh", "mh-fallback", &[1, 3, 2]),
    (26, V4, "rr", "", &[1, 1]),
    (27, V4, "rr", "", &[1]),
    (28, V4, "rr", "", &[1]),
    (29, V4, "wrr", "", &[1, 200]),
    (30, V4, "mh", "mh-fallback", &[1, 1, 1]),
    (31, V4, "sh", "sh-fallback", &[1, 1]),
    (32, V4, "lc", "", &[1, 1]),
    (33, V4, "rr", "", &[1]),
];

/// The virtual server whose real servers are of every kind, in [`Setup::Scheduling`].
pub const MIXED: u8 = 100;

impl Setup {
    const COUNT: usize = 6;

    /// Runs `work` with the loaded program, inside the network namespace.
    ///
    /// # Errors
    /// What `work` says, or why the program cannot be loaded.
    pub fn with<T: Send>(self, work: impl FnOnce(&mut Plane) -> Result<T> + Send) -> Result<T> {
        static PLANES: [OnceLock<Result<Mutex<Plane>, String>>; Setup::COUNT] =
            [const { OnceLock::new() }; Setup::COUNT];
        let netns = netns()?;
        netns.enter(|| {
            let loaded = PLANES[self as usize]
                .get_or_init(|| self.load().map(Mutex::new).map_err(|e| format!("{e:#}")));
            let plane = loaded.as_ref().map_err(|error| anyhow!("{self:?} cannot be loaded: {error}"))?;
            // A case that panicked has not damaged the maps.
            work(&mut plane.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    fn load(self) -> Result<Plane> {
        let targets = self.targets();
        let (text, mut hops) = match self {
            Self::Scheduling => scheduling(),
            Self::Moving => (moving(&targets), Vec::new()),
            Self::Bound => (forwarding(8192, &targets).replace("\"rr\"", "\"mh\""), Vec::new()),
            Self::Forwarding | Self::Random | Self::Small => {
                (forwarding(self.max_connections(), &targets), Vec::new())
            }
        };
        for target in &targets {
            if let Some(hop) = target.next_hop() {
                hops.push((target.server(), hop, target.number != ON_A_STICK));
            }
        }
        let mut plane = Plane::load(&parse(&text)?, &hops)?;
        if self == Self::Bound {
            let bound: BTreeSet<_> =
                targets.iter().filter(|target| target.number == PLAIN).map(Target::vip).collect();
            plane.bind(ROLE, |id| bound.contains(&id.address))?;
        }
        Ok(plane)
    }

    fn max_connections(self) -> u32 {
        if self == Self::Small { 1024 } else { 8192 }
    }

    fn targets(self) -> Vec<Target> {
        let numbers = match self {
            Self::Forwarding | Self::Random => PLAIN..=LAST,
            Self::Small | Self::Bound => PLAIN..=SAME_PORT,
            Self::Moving => LEAVING..=ARRIVING,
            Self::Scheduling => return Vec::new(),
        };
        let of_mode =
            |mode| FAMILIES.map(|family| numbers.clone().map(move |n| Target::new(mode, family, n)));
        MODES.into_iter().flat_map(of_mode).flatten().collect()
    }
}

fn parse(text: &str) -> Result<Config> {
    let (config, _) =
        config::parse("setup.toml", text).map_err(|errors| anyhow!("{errors}\nin this text:\n{text}"))?;
    Ok(config)
}

fn director(max_connections: u32) -> String {
    format!(
        "[director]\ninstance = \"prog\"\ninterfaces = [\"clients\", \"servers\"]\n\
         max_connections = {max_connections}\n"
    )
}

fn forwarding(max_connections: u32, targets: &[Target]) -> String {
    let mut text = director(max_connections);
    for target in targets {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let (mode, family) = (target.mode, target.family.name());
            let name = mode.name().replace(' ', "-");
            let address = SocketAddr::new(target.vip(), target.port(protocol));
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "[[virtual_server]]\nname = \"{name}-{family}-{}-{protocol}\"\naddress = \"{address}\"\n\
                 protocol = \"{protocol}\"\nscheduler = \"rr\"\nforward = \"{}\"\n",
                target.number,
                mode.forward(),
            );
            if target.number != EMPTY {
                let port = if target.port(protocol) == 0 { 0 } else { target.server_port(protocol) };
                let _ = write!(text, "[[virtual_server.real_server]]\naddress = \"");
                let _ = if port == 0 {
                    writeln!(text, "{}\"", target.server())
                } else {
                    writeln!(text, "{}\"", SocketAddr::new(target.server(), port))
                };
            }
        }
    }
    text
}

fn moving(targets: &[Target]) -> String {
    let mut text = director(8192);
    for target in targets.iter().filter(|target| target.number == LEAVING) {
        let other = Target { number: ARRIVING, ..*target };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let (mode, family) = (target.mode, target.family.name());
            let name = mode.name().replace(' ', "-");
            let address = SocketAddr::new(target.vip(), target.port(protocol));
            let _ = write!(
                text,
                "[[virtual_server]]\nname = \"{name}-{family}-{protocol}\"\naddress = \"{address}\"\n\
                 protocol = \"{protocol}\"\nscheduler = \"rr\"\nforward = \"{}\"\n",
                mode.forward(),
            );
            for (server, weight) in [(target, 1), (&other, 0)] {
                let address = SocketAddr::new(server.server(), server.server_port(protocol));
                let _ = write!(
                    text,
                    "[[virtual_server.real_server]]\naddress = \"{address}\"\nweight = {weight}\n"
                );
            }
        }
    }
    text
}

/// The address of a virtual server of [`Setup::Scheduling`].
pub fn scheduled_vip(family: Family, number: u8) -> IpAddr {
    match family {
        V4 => Ipv4Addr::new(192, 168, 200, number).into(),
        V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

/// The address of a real server there; `number` counts from 1.
pub fn scheduled_server(family: Family, number: u8) -> IpAddr {
    match family {
        V4 => Ipv4Addr::new(172, 17, 0, number).into(),
        V6 => Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

/// The MAC address of a real server there: its last byte is the server's number.
pub fn scheduled_mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 3, number]
}

type Hops = Vec<(IpAddr, NextHop, bool)>;

/// DR, so that the frame's destination tells which server was chosen, whatever else a client has open.
fn scheduling() -> (String, Hops) {
    let mut text = director(8192);
    for (number, family, scheduler, flags, weights) in SCHEDULED {
        let address = SocketAddr::new(scheduled_vip(family, number), 80);
        let flags: Vec<&str> = flags.split_whitespace().collect();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let _ = write!(
                text,
                "[[virtual_server]]\nname = \"s{number}-{protocol}\"\naddress = \"{address}\"\n\
                 protocol = \"{protocol}\"\nscheduler = \"{scheduler}\"\nscheduler_flags = {flags:?}\nforward = \"dr\"\n"
            );
            for (server, weight) in (1..).zip(weights) {
                let address = SocketAddr::new(scheduled_server(family, server), 80);
                let _ = write!(
                    text,
                    "[[virtual_server.real_server]]\naddress = \"{address}\"\nweight = {weight}\n"
                );
            }
        }
    }
    let _ = write!(
        text,
        "[[virtual_server]]\nname = \"mixed\"\naddress = \"{}:80\"\nscheduler = \"rr\"\nforward = \"nat\"\n",
        scheduled_vip(V4, MIXED)
    );
    for (server, forward) in (1..).zip(["nat", "dr", "tun"]) {
        let address = scheduled_server(V4, server);
        let _ = write!(
            text,
            "[[virtual_server.real_server]]\naddress = \"{address}:80\"\nforward = \"{forward}\"\n"
        );
    }
    let hops = FAMILIES.into_iter().flat_map(|family| {
        (1..=4).map(move |server| {
            let hop = NextHop {
                ifindex: SERVERS,
                interface: "servers".to_owned(),
                vlans: Vec::new(),
                source_mac: INNER_MAC,
                destination_mac: scheduled_mac(server),
                mtu: 1500,
                source: tunnel_source(family),
                gateway: None,
            };
            (scheduled_server(family, server), hop, true)
        })
    });
    (text, hops.collect())
}

/// The namespace in which the program runs: its interfaces have the indices of `scene.rs`, its routes lead to the clients'
/// router and to the real servers. It is removed with all that the registry knows.
fn netns() -> Result<&'static Netns> {
    static NETNS: OnceLock<Result<Netns, String>> = OnceLock::new();
    let made = NETNS.get_or_init(|| make_netns().map_err(|error| format!("{error:#}")));
    made.as_ref().map_err(|error| anyhow!("no network namespace: {error}"))
}

fn make_netns() -> Result<Netns> {
    registry::install();
    let netns = Netns::create(&format!("xd{}-prog", process::id()))?;
    netns.sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
    let interfaces = [
        ("clients", CLIENTS, 1500, DIRECTOR_MAC),
        ("servers", SERVERS, 1500, INNER_MAC),
        ("narrow", NARROW, NARROW_MTU, DIRECTOR_MAC),
    ];
    for (name, index, mtu, mac) in interfaces {
        let mac = text(mac);
        netns.ip([
            format!("link add {name} index {index} address {mac} mtu {mtu} type veth peer name {name}-end"),
            format!("link set {name}-end up"),
            format!("link set {name} up"),
        ])?;
    }
    let (router, server) = (text(CLIENT_MAC), text(SERVER_MAC));
    let kernel_v4 = Target::new(Mode::Nat, V4, crate::scene::KERNEL);
    netns.ip([
        "addr add 172.31.0.1/24 dev clients".to_owned(),
        "addr add 10.0.200.1/16 dev servers".to_owned(),
        "addr add fd31::1/64 dev clients nodad".to_owned(),
        "addr add fd10::c8:1/64 dev servers nodad".to_owned(),
        format!("neigh add 172.31.0.2 lladdr {router} dev clients nud permanent"),
        format!("neigh add fd31::2 lladdr {router} dev clients nud permanent"),
        "route add 198.18.0.0/15 via 172.31.0.2".to_owned(),
        "route add fd18::/64 via fd31::2".to_owned(),
    ])?;
    for mode in MODES {
        for family in FAMILIES {
            let known = Target { mode, family, ..kernel_v4 }.server();
            netns.ip([format!("neigh replace {known} lladdr {server} dev servers nud permanent")])?;
        }
    }
    Ok(netns)
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Why the program cannot be run here; `None` when it can.
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    if Command::new("ip").arg("-Version").output().is_err() {
        return Some("`ip` is not installed".to_owned());
    }
    lb_userspace::dataplane::xdp::OBJECT
        .is_empty()
        .then(|| "built without the XDP program; `cargo xtask build` makes it".to_owned())
}
