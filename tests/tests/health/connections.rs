//! What becomes of connections whose server fails, and of servers with too many of them.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Client, Director,
    configuration::VirtualServer,
    moody::{Mood, Moody},
    registry::wait_until,
    require_director, require_xdp,
    topology::{self, Options, Scene},
};
use lb_userspace::api::types::RealServerState;
use nix::sys::socket::{setsockopt, sockopt};

use crate::{
    support::{self, configuration, fill},
    watch::{SOON, checked, checked_on, ensure_only, server, until, until_all_up, until_state},
};

const URL: &str = "http://192.168.10.50/";
/// The check that the tests let fail while the server itself serves on.
const CHECK: &str = "type = \"http\", connect_port = 8081";

fn pages(scene: &Scene) -> Result<Vec<Moody>> {
    scene.servers.iter().map(|real| Moody::start(&real.netns, 8081, fine())).collect()
}

fn fine() -> Mood {
    Mood::Page("here".to_owned())
}

/// Opens a connection that the director gives to the real server `name`, and leaves it open.
pub fn hold(scene: &Scene, vip: SocketAddr, name: &str, director: &Director) -> Result<TcpStream> {
    let real = scene.servers.iter().find(|real| real.name == name).context("no such server")?;
    for _ in 0..scene.servers.len() {
        let stream = scene.client().connect(vip)?;
        if real_of(director, stream.local_addr()?)?.ip() == real.ipv4 {
            return Ok(stream);
        }
    }
    anyhow::bail!("{name} gets no connection")
}

/// The real server that has the connection of `client`.
fn real_of(director: &Director, client: SocketAddr) -> Result<SocketAddr> {
    let list = support::connections(director)?;
    list.iter().find(|one| one.client == client).map(|one| one.real).context("no such connection")
}

/// Asks over an open connection who is there, and ends it.
pub fn ask(mut stream: TcpStream) -> Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split("\r\n\r\n").nth(1).context("no body")?.trim().to_owned())
}

#[test]
fn inhibit_keeps_connections_and_remove_ends_them() -> Result<()> {
    require_director!("inhibit_keeps_connections_and_remove_ends_them");
    let scene = topology::nat(&Options::new("inhibit").servers(2))?;
    let pages = pages(&scene)?;
    let soft = VirtualServer::tcp("soft", topology::vip4(80)).line("on_failure = \"inhibit\"");
    let hard = VirtualServer::tcp("hard", topology::vip4(8080));
    let text = configuration(&scene)
        .serve(&checked(soft, &scene, CHECK, 2))
        .serve(&checked_on(8080, hard, &scene, CHECK, 2));
    let mut director = Director::start(&scene.director, text.text())?;
    until_all_up(&director, "soft")?;
    until_all_up(&director, "hard")?;
    let kept = hold(&scene, topology::vip4(80), "Real 1", &director)?;
    let over_restart = hold(&scene, topology::vip4(80), "Real 1", &director)?;
    let ended = hold(&scene, topology::vip4(8080), "Real 1", &director)?;

    pages[0].set(Mood::Status(503));
    let soft = until_state(&director, "soft", 0, RealServerState::Inhibited)?;
    until_state(&director, "hard", 0, RealServerState::Down)?;
    ensure!((soft.weight, soft.configured_weight) == (0, Some(1)) && soft.active >= 2, "{soft:?}");
    ensure!(soft.reason.as_ref().is_some_and(|reason| reason.starts_with("http: HTTP 503")), "{soft:?}");
    ensure_only(scene.client(), URL, &[2])?;
    ensure_only(scene.client(), "http://192.168.10.50:8080/", &[2])?;
    ensure!(ask(kept)? == "Real 1");
    ask(ended).expect_err("its server was removed");

    director.kill()?;
    director.restart()?;
    ensure_only(scene.client(), URL, &[2])?;
    ensure!(server(&director, "soft", 0)?.state == RealServerState::Inhibited);
    ensure!(ask(over_restart)? == "Real 1");

    pages[0].set(fine());
    for name in ["soft", "hard"] {
        until_state(&director, name, 0, RealServerState::Up)?;
    }
    ensure_only(scene.client(), URL, &[1, 2])?;
    director.stop()
}

#[test]
fn an_inhibited_server_keeps_its_place_in_the_hash() -> Result<()> {
    require_director!("an_inhibited_server_keeps_its_place_in_the_hash");
    let scene = topology::nat(&Options::new("hash").servers(2).clients(6))?;
    let pages = pages(&scene)?;
    let rigid = VirtualServer::tcp("rigid", topology::vip4(80)).scheduler("sh");
    let flexible = VirtualServer::tcp("flexible", topology::vip4(8080))
        .scheduler("sh")
        .line("scheduler_flags = [\"sh-fallback\"]");
    let inhibited = |server: VirtualServer| server.line("on_failure = \"inhibit\"");
    let text = configuration(&scene).serve(&checked(inhibited(rigid), &scene, CHECK, 2)).serve(&checked_on(
        8080,
        inhibited(flexible),
        &scene,
        CHECK,
        2,
    ));
    let mut director = Director::start(&scene.director, text.text())?;
    until_all_up(&director, "rigid")?;
    until_all_up(&director, "flexible")?;
    let answers = |url: &str| -> Vec<Option<String>> {
        scene.clients.iter().map(|client| client.curl(url).ok()).collect()
    };
    let before = answers(URL);
    for name in ["Real 1", "Real 2"] {
        ensure!(before.iter().flatten().any(|answer| answer == name), "{name} has no clients: {before:?}");
    }
    pages[0].set(Mood::Status(503));
    for name in ["rigid", "flexible"] {
        until_state(&director, name, 0, RealServerState::Inhibited)?;
    }
    let after: Vec<_> = before.iter().map(|answer| answer.clone().filter(|name| name == "Real 2")).collect();
    ensure!(answers(URL) == after, "{:?}, expected {after:?}", answers(URL));
    let moved = answers("http://192.168.10.50:8080/");
    ensure!(moved.iter().all(|answer| answer.as_deref() == Some("Real 2")), "{moved:?}");
    director.stop()
}

/// One client socket, and who answers it.
struct Flow(UdpSocket);

/// Who does not answer for so long is silent; who should answer has more time.
const SILENCE: Duration = Duration::from_millis(300);
const ANSWER: Duration = Duration::from_secs(5);

impl Flow {
    fn open(client: &Client, vip: SocketAddr) -> Result<Self> {
        client.netns.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(vip)?;
            Ok(Self(socket))
        })
    }

    /// A flow that the director gives to the real server `name`.
    fn open_to(client: &Client, vip: SocketAddr, name: &str) -> Result<Self> {
        for _ in 0..10 {
            let flow = Self::open(client, vip)?;
            if flow.answer()? == name {
                return Ok(flow);
            }
        }
        anyhow::bail!("{name} gets no flow")
    }

    /// Asks once, and waits for the answer.
    fn answer(&self) -> Result<String> {
        self.ask_for(ANSWER)?.context("no answer")
    }

    /// Asks once; `None` for silence.
    fn ask(&self) -> Result<Option<String>> {
        self.ask_for(SILENCE)
    }

    fn ask_for(&self, patience: Duration) -> Result<Option<String>> {
        self.0.set_read_timeout(Some(patience))?;
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let question = format!("question {}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        self.0.send(question.as_bytes())?;
        let mut buffer = [0; 200];
        loop {
            let Ok(len) = self.0.recv(&mut buffer) else { return Ok(None) };
            let answer = std::str::from_utf8(&buffer[..len])?;
            // A late answer to an earlier question is none to this one.
            if let Some(name) = answer.strip_suffix(&question) {
                return Ok(Some(name.trim().to_owned()));
            }
        }
    }

    fn ask_until(&self, wanted: &str) -> Result<()> {
        let heard = wait_until(SOON, || self.ask().is_ok_and(|answer| answer.as_deref() == Some(wanted)));
        ensure!(heard, "{wanted} does not answer");
        Ok(())
    }
}

#[test]
fn udp_flows_leave_a_dead_server_or_wait_for_it() -> Result<()> {
    require_director!("udp_flows_leave_a_dead_server_or_wait_for_it");
    require_xdp!("udp_flows_leave_a_dead_server_or_wait_for_it");
    let scene = topology::nat(&Options::new("flows").servers(2))?;
    let pages = pages(&scene)?;
    let moving = VirtualServer::udp("moving", topology::vip4(80));
    let waiting = VirtualServer::udp("waiting", topology::vip4(8080)).line("expire_nodest = false");
    let text = configuration(&scene)
        .serve(&checked(moving, &scene, CHECK, 2))
        .serve(&checked_on(8080, waiting, &scene, CHECK, 2));
    let mut director = Director::start(&scene.director, text.text())?;
    until_all_up(&director, "moving")?;
    until_all_up(&director, "waiting")?;
    let moving = Flow::open_to(scene.client(), topology::vip4(80), "Real 1")?;
    let waiting = Flow::open_to(scene.client(), topology::vip4(8080), "Real 1")?;

    pages[0].set(Mood::Status(503));
    for name in ["moving", "waiting"] {
        until_state(&director, name, 0, RealServerState::Down)?;
    }
    // The packet that finds its server gone may be the flow's last with it; the next one goes elsewhere.
    let first = moving.ask()?;
    ensure!(first.is_none() || first.as_deref() == Some("Real 2"), "{first:?}");
    let second = moving.answer()?;
    ensure!(second == "Real 2", "{first:?}, then {second:?}");
    for _ in 0..3 {
        let answer = waiting.ask()?;
        ensure!(answer.is_none(), "its packets should wait, but {answer:?}");
    }
    let other = Flow::open(scene.client(), topology::vip4(8080))?;
    ensure!(other.answer()? == "Real 2", "new flows go to the living server");

    pages[0].set(fine());
    for name in ["moving", "waiting"] {
        until_state(&director, name, 0, RealServerState::Up)?;
    }
    waiting.ask_until("Real 1")?;
    ensure!(moving.answer()? == "Real 2", "it stays where it is");
    director.stop()
}

/// A TCP connection from a port of the client's choice.
fn connect_from(client: &Client, port: u16, vip: SocketAddr) -> Result<TcpStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd as _;
    client.netns.enter(|| {
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        bind(fd.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, port))?;
        let SocketAddr::V4(vip) = vip else { anyhow::bail!("IPv4 only") };
        connect(fd.as_raw_fd(), &SockaddrIn::from(vip))?;
        let stream = TcpStream::from(fd);
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(stream)
    })
}

#[test]
fn a_reused_client_port_leaves_a_dead_server() -> Result<()> {
    require_director!("a_reused_client_port_leaves_a_dead_server");
    let scene = topology::nat(&Options::new("reuse").servers(2))?;
    let pages = pages(&scene)?;
    let web = checked(VirtualServer::tcp("web", topology::vip4(80)), &scene, CHECK, 2);
    let mut director = Director::start(&scene.director, configuration(&scene).serve(&web).text())?;
    until_all_up(&director, "web")?;
    let stream = connect_from(scene.client(), 45_678, topology::vip4(80))?;
    let name = ask(stream)?;
    let (index, other) = if name == "Real 1" { (0, "Real 2") } else { (1, "Real 1") };
    // The director remembers the closed connection for two minutes more.
    ensure!(support::connections(&director)?.iter().any(|one| one.client.port() == 45_678));
    pages[index].set(Mood::Status(503));
    until_state(&director, "web", index, RealServerState::Down)?;
    let answer = ask(connect_from(scene.client(), 45_678, topology::vip4(80))?)?;
    ensure!(answer == other, "{answer} has answered, not {other}");
    director.stop()
}

#[test]
fn a_full_server_gets_no_more() -> Result<()> {
    require_director!("a_full_server_gets_no_more");
    let scene = topology::nat(&Options::new("full").servers(2))?;
    let web = VirtualServer::tcp("web", topology::vip4(80)).scheduler("wrr").line("upper_threshold = 2");
    // So heavy that it would get three of four at least, if it could.
    let web = fill(web, &scene, false, 80, &[9, 1]);
    // What is silent for so long is over: the way to fewer connections.
    let text = configuration(&scene).lines("\n[timeouts]\ntcp = \"8s\"").serve(&web);
    let mut director = Director::start(&scene.director, text.text())?;
    let vip = topology::vip4(80);
    let mut held: Vec<TcpStream> = (0..4).map(|_| scene.client().connect(vip)).collect::<Result<_>>()?;
    let list = support::connections(&director)?;
    for real in &scene.servers {
        let count = list.iter().filter(|one| one.real.ip() == real.ipv4).count();
        ensure!(count == 2, "{count} of 4 connections are {}'s: {list:?}", real.name);
    }
    // Both are full now, and are still when the fifth one comes: the others have just been heard of.
    for stream in &mut held {
        stream.write_all(b"G")?;
    }
    let refused = scene.client().connect(vip).expect_err("nobody may take it");
    ensure!(format!("{refused:#}").contains("refused"), "{refused:#}");
    until(&director, "web", |web| web.real_servers.iter().all(|server| server.overloaded))?;
    ensure!(server(&director, "web", 0)?.state == RealServerState::Up);

    // Fewer than three quarters of two: they get connections again.
    until(&director, "web", |web| {
        web.active == 0 && web.real_servers.iter().all(|server| !server.overloaded)
    })?;
    drop(held);
    let again: Vec<TcpStream> = (0..3).map(|_| scene.client().connect(vip)).collect::<Result<_>>()?;
    let list = support::connections(&director)?;
    ensure!(again.len() == 3 && list.iter().any(|one| one.real.ip() == scene.servers[0].ipv4), "{list:?}");
    director.stop()
}
