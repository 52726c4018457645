//! The same connections through XDP and through IPVS in one kernel: the same servers.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director, Netns,
    configuration::VirtualServer,
    dataplane::with,
    require_ipvs,
    topology::{self, Options, Scene},
};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};

use super::{
    common::address,
    support::{configuration, fill},
};

/// Where the real servers say who they are.
const PORT: u16 = 9000;
/// How long a connection may take; one that is refused says so at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Says its number to everybody and keeps the connection open.
struct Names {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Names {
    fn start(netns: &Netns, number: u8) -> Result<Self> {
        let listener = netns.enter(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?))?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut open: Vec<TcpStream> = Vec::new();
            while !is_over.load(Relaxed) {
                match listener.accept() {
                    Ok((mut stream, _)) => {
                        stream.write_all(&[number])?;
                        open.push(stream);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        thread::sleep(Duration::from_millis(1));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whatever it says, the comparison has failed or not.
            let _ = thread.join();
        }
    }
}

/// What happens, one after the other.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A client opens a connection from a port.
    Open {
        client: usize,
        port: u16,
    },
    /// One that is open is reset.
    Close {
        oldest: bool,
    },
    /// A server gets another weight.
    Weight {
        server: usize,
        weight: u32,
    },
    /// A server is taken out, or comes back.
    Disable {
        server: usize,
    },
    Enable {
        server: usize,
    },
}

/// What happens to servers in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changes {
    /// Nothing.
    None,
    /// Weights, also to 0 and back.
    Weights,
    /// Weights, and one goes and comes back.
    Servers,
}

/// A trace that depends on the seed alone.
fn trace(seed: u64, clients: usize, changes: Changes) -> Vec<Step> {
    let mut state = seed;
    let mut random = |below: u64| {
        // Knuth's MMIX constants; the low bits are poor.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut steps = Vec::new();
    for number in 0..36u16 {
        let client = usize::try_from(random(clients as u64)).unwrap_or(0);
        steps.push(Step::Open { client, port: 20_000 + number });
        match number {
            8 if changes != Changes::None => steps.push(Step::Weight { server: 0, weight: 4 }),
            14 if changes != Changes::None => steps.push(Step::Weight { server: 1, weight: 0 }),
            20 if changes != Changes::None => steps.push(Step::Weight { server: 1, weight: 2 }),
            24 if changes == Changes::Servers => steps.push(Step::Disable { server: 2 }),
            30 if changes == Changes::Servers => steps.push(Step::Enable { server: 2 }),
            _ if random(3) == 0 => steps.push(Step::Close { oldest: random(2) == 0 }),
            _ => {}
        }
    }
    steps
}

/// Who got each connection; `None`: it was refused.
fn play(scene: &Scene, director: &Director, steps: &[Step]) -> Result<Vec<Option<u8>>> {
    let mut open: Vec<TcpStream> = Vec::new();
    let mut chosen = Vec::new();
    for step in steps {
        match *step {
            Step::Open { client, port } => {
                let stream = scene.clients[client].netns.enter(|| open_from(port))?;
                chosen.push(match stream {
                    Some(mut stream) => {
                        let mut name = [0];
                        stream.read_exact(&mut name).context("a connection without an answer")?;
                        open.push(stream);
                        Some(name[0])
                    }
                    None => None,
                });
            }
            Step::Close { oldest } => {
                if !open.is_empty() {
                    let stream = open.remove(if oldest { 0 } else { open.len() - 1 });
                    reset(&stream)?;
                }
            }
            Step::Weight { server, weight } => {
                director.command(&["weight", &at(scene, server), &weight.to_string()])?;
            }
            Step::Disable { server } => drop(director.command(&["disable", &at(scene, server)])?),
            Step::Enable { server } => drop(director.command(&["enable", &at(scene, server)])?),
        }
    }
    open.iter().try_for_each(reset)?;
    Ok(chosen)
}

fn at(scene: &Scene, server: usize) -> String {
    address(scene, server).replace(":80", &format!(":{PORT}"))
}

/// Closes with a reset, so that both data planes know at once.
fn reset(stream: &TcpStream) -> Result<()> {
    let now = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream.as_fd(), sockopt::Linger, &now)?;
    Ok(())
}

/// A connection from this port; `None` when it is refused.
fn open_from(port: u16) -> Result<Option<TcpStream>> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)))?;
    let limit = nix::sys::time::TimeVal::new(i64::try_from(PATIENCE.as_secs())?, 0);
    setsockopt(&fd, sockopt::SendTimeout, &limit)?;
    let SocketAddr::V4(server) = topology::vip4(80) else { unreachable!("it is an IPv4 address") };
    match connect(fd.as_raw_fd(), &SockaddrIn::from(server)) {
        Ok(()) => {
            let stream = TcpStream::from(fd);
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(Some(stream))
        }
        Err(nix::Error::ECONNREFUSED | nix::Error::EHOSTUNREACH) => Ok(None),
        Err(error) => Err(error).context("connect"),
    }
}

/// How far both choose alike; docs/parity.md says why not further.
const KINDS: [(&str, &str, Changes); 10] = [
    ("rr", "", Changes::None),
    ("wrr", "", Changes::None),
    ("lc", "", Changes::Weights),
    ("wlc", "", Changes::Weights),
    ("sh", "", Changes::Servers),
    ("sh", "\"sh-port\"", Changes::Servers),
    ("sh", "\"sh-port\", \"sh-fallback\"", Changes::Servers),
    ("mh", "", Changes::Servers),
    ("mh", "\"mh-port\"", Changes::Servers),
    ("mh", "\"mh-port\", \"mh-fallback\"", Changes::Servers),
];

#[test]
fn both_data_planes_choose_the_same_servers() -> Result<()> {
    require_ipvs!("both_data_planes_choose_the_same_servers");
    let scene = topology::nat(&Options::new("parity").clients(4))?;
    let _names = scene
        .servers
        .iter()
        .zip(1..)
        .map(|(server, number)| Names::start(&server.netns, number))
        .collect::<Result<Vec<_>>>()?;
    let mut differences = Vec::new();
    let mut compared = 0;
    for (seed, (scheduler, flags, changes)) in (1..).zip(KINDS) {
        let web = fill(VirtualServer::tcp("web", topology::vip4(80)), &scene, false, PORT, &[1, 2, 3])
            .scheduler(scheduler)
            .line(&format!("scheduler_flags = [{flags}]"));
        let file = configuration(&scene).serve(&web);
        let steps = trace(seed, scene.clients.len(), changes);
        let mut chosen = Vec::new();
        for dataplane in ["xdp", "ipvs"] {
            let mut director = Director::start(&scene.director, &with(file.text(), dataplane))?;
            let played = play(&scene, &director, &steps);
            chosen.push(played.with_context(|| format!("{scheduler} {flags} {dataplane}"))?);
            director.command(&["stop", "--detach"])?;
            director.stop()?;
        }
        compared += chosen[0].len();
        let served = chosen[0].iter().flatten().count();
        ensure!(served > chosen[0].len() / 2, "{scheduler} {flags}: {}", tell(&chosen[0]));
        if chosen[0] != chosen[1] {
            let [xdp, ipvs] = [&chosen[0], &chosen[1]].map(|chosen| tell(chosen));
            differences.push(format!("{scheduler} {flags}\n  xdp  {xdp}\n  ipvs {ipvs}"));
        }
    }
    super::common::measured("parity_compared", compared);
    ensure!(differences.is_empty(), "other servers:\n{}", differences.join("\n"));
    Ok(())
}

/// A digit for each connection; `-`: refused.
fn tell(chosen: &[Option<u8>]) -> String {
    chosen.iter().map(|one| one.map_or("-".to_owned(), |number| number.to_string())).collect()
}
