//! Who balances: each does the same job on the director's machine, over the same real servers.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director,
    configuration::{Configuration, VirtualServer},
    registry::{self, wait_until},
    topology::{Scene, vip4},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// Port of the web servers.
const WEB: u16 = 80;
/// Port of the UDP sinks: "discard" (RFC 863).
pub const DISCARD: u16 = 9;
/// How long a balancer may take to answer.
const START: Duration = Duration::from_secs(10);

/// The balancers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// None: the kernel routes to one real server.
    Routing,
    /// xdirector, NAT, rr.
    Xdirector,
    /// The kernel's nftables: DNAT with a counter over a map.
    Nftables,
    /// HAProxy in TCP mode, roundrobin.
    Haproxy,
}

impl Kind {
    /// All, in the order of the report.
    pub const ALL: [Self; 4] = [Self::Routing, Self::Xdirector, Self::Nftables, Self::Haproxy];

    /// For tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Routing => "routing",
            Self::Xdirector => "xdirector",
            Self::Nftables => "nftables",
            Self::Haproxy => "haproxy",
        }
    }
}

/// A running balancer; dropping it stops it.
pub struct Balancer {
    kind: Kind,
    director: Option<Director>,
    /// Stop what they hold when they are dropped.
    others: (Option<Rules>, Option<Haproxy>),
}

impl Balancer {
    /// Starts one and waits until it serves.
    pub fn start(kind: Kind, scene: &Scene) -> Result<Self> {
        let mut balancer = Self { kind, director: None, others: (None, None) };
        match kind {
            Kind::Routing => {}
            Kind::Xdirector => {
                balancer.director = Some(Director::start(&scene.director, &configuration(scene))?);
            }
            Kind::Nftables => balancer.others.0 = Some(Rules::load(scene)?),
            Kind::Haproxy => balancer.others.1 = Some(Haproxy::start(scene)?),
        }
        let web = balancer.web(scene)?;
        // One for each real server, so that every neighbour is known.
        let serves = || scene.servers.iter().all(|_| scene.client().http_counts(web, 1).is_ok());
        ensure!(wait_until(START, serves), "{} does not serve; its log:\n{}", kind.name(), balancer.log());
        Ok(balancer)
    }

    fn log(&self) -> String {
        match (&self.director, &self.others.1) {
            (Some(director), _) => director.log(),
            (_, Some(haproxy)) => {
                fs::read_to_string(haproxy.directory.path().join("log")).unwrap_or_default()
            }
            _ => String::new(),
        }
    }

    /// Stops it.
    pub fn stop(self) -> Result<()> {
        match self.director {
            Some(mut director) => director.stop().map(drop),
            None => Ok(()),
        }
    }

    /// Which one it is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Where clients find the web servers.
    pub fn web(&self, scene: &Scene) -> Result<SocketAddr> {
        self.target(scene, WEB)
    }

    /// Where they find the UDP sinks.
    pub fn discard(&self, scene: &Scene) -> Result<Option<SocketAddr>> {
        match self.kind {
            Kind::Haproxy => Ok(None),
            Kind::Routing | Kind::Xdirector | Kind::Nftables => self.target(scene, DISCARD).map(Some),
        }
    }

    fn target(&self, scene: &Scene, port: u16) -> Result<SocketAddr> {
        match self.kind {
            Kind::Routing => {
                let first = scene.servers.first().context("a scene without servers")?;
                Ok((IpAddr::V4(first.ipv4), port).into())
            }
            Kind::Xdirector | Kind::Nftables | Kind::Haproxy => Ok(vip4(port)),
        }
    }
}

fn configuration(scene: &Scene) -> String {
    let instance = scene.director.name().trim_end_matches("-director");
    let web = VirtualServer::tcp("web", vip4(WEB));
    let discard = VirtualServer::udp("discard", vip4(DISCARD));
    let add = |server: VirtualServer, port: u16| {
        scene.servers.iter().fold(server, |server, real| server.real((real.ipv4, port).into(), 1))
    };
    let configuration = Configuration::new(instance, scene.interfaces);
    configuration.serve(&add(web, WEB)).serve(&add(discard, DISCARD)).text().to_owned()
}

/// nftables' rules in the director's namespace.
struct Rules(lab::Netns);

impl Rules {
    const TABLE: &str = "xdirector_bench";

    fn load(scene: &Scene) -> Result<Self> {
        let servers = scene.servers.len();
        let map: Vec<String> = scene
            .servers
            .iter()
            .enumerate()
            .map(|(number, real)| format!("{number} : {}", real.ipv4))
            .collect();
        let map = map.join(", ");
        let vip = vip4(WEB).ip();
        let mut rules = format!("table ip {} {{\n chain incoming {{\n", Self::TABLE);
        rules += "  type nat hook prerouting priority dstnat\n";
        for (protocol, port) in [("tcp", WEB), ("udp", DISCARD)] {
            // Writing to a String cannot fail.
            let _ = writeln!(
                rules,
                "  ip daddr {vip} {protocol} dport {port} dnat to numgen inc mod {servers} map {{ {map} }}"
            );
        }
        rules += " }\n}\n";
        nft(&scene.director, &rules)?;
        Ok(Self(scene.director.clone()))
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        if let Err(error) = nft(&self.0, &format!("delete table ip {}\n", Self::TABLE)) {
            eprintln!("{error:#}");
        }
    }
}

fn nft(netns: &lab::Netns, rules: &str) -> Result<()> {
    let mut command = netns.command("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("`nft` cannot be run (Debian package nftables)")?;
    child.stdin.take().context("no pipe")?.write_all(rules.as_bytes())?;
    let out = child.wait_with_output()?;
    ensure!(out.status.success(), "nft: {}\n{rules}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}

/// A running HAProxy.
struct Haproxy {
    child: Child,
    directory: TempDir,
}

impl Haproxy {
    fn start(scene: &Scene) -> Result<Self> {
        let prefix = format!("{}-haproxy-", scene.director.name());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let file = directory.path().join("haproxy.cfg");
        let mut text = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n \
             timeout server 30s\nlisten web\n bind {}\n balance roundrobin\n",
            vip4(WEB)
        );
        for (number, real) in scene.servers.iter().enumerate() {
            let _ = writeln!(text, " server real{number} {}:{WEB}", real.ipv4);
        }
        fs::write(&file, text)?;
        let mut registry = registry::lock();
        let mut command: Command = scene.director.command("haproxy");
        let child = command
            .args(["-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.path().join("log"))?)
            .spawn()
            .context("`haproxy` cannot be run (Debian package haproxy)")?;
        registry.children.insert(child.id());
        registry.directories.insert(directory.path().to_owned());
        drop(registry);
        Ok(Self { child, directory })
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let mut registry = registry::lock();
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It has ended already if this fails; the wait below tells.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let ended = wait_until(Duration::from_secs(5), || matches!(self.child.try_wait(), Ok(Some(_))));
        if !ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        registry.children.remove(&self.child.id());
        registry.directories.remove(self.directory.path());
    }
}
