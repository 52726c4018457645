//! How many TCP checks a second the agent's health checks make on one CPU.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use lab::Netns;
use lb_userspace::{
    config::{
        Protocol,
        check::{HealthCheck, Probe, Via},
    },
    desired::ServiceId,
    health::{CheckId, Health, driver::Wanted},
};
use nix::{
    sched::{CpuSet, sched_getaffinity},
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
    },
    unistd::Pid,
};

/// Every check once in this time.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a level is measured, once every check has had its first turn.
const MEASURED: Duration = Duration::from_secs(4);
/// More checks than one CPU makes: from what is left of them it is known where to look.
const TOO_MANY: usize = 40_000;
/// The part of the checks that must be made in time.
const ENOUGH: f64 = 0.99;
/// Levels that are tried, each this much of the one before.
const LEVELS: usize = 6;
const NEXT_LEVEL: f64 = 0.9;
const PORT: u16 = 8080;
const BACKLOG: i32 = 4096;

/// What was found.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sustained {
    /// Checks that passed in a second, all of those that were due.
    pub rate: f64,
    /// Whether the servers had a CPU of their own.
    pub is_apart: bool,
}

/// The highest rate at which every check has its turn. The servers are on another CPU if there is one.
pub fn sustained(host: &Netns) -> Result<Sustained> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
    let (&first, &last) = cpus.first().zip(cpus.last()).context("no CPU")?;
    let is_over = AtomicBool::new(false);
    let rate = thread::scope(|scope| {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let is_over = &is_over;
        let server = scope.spawn(move || host.enter(|| serve(first, &ready, is_over)));
        let rate = match is_ready.recv() {
            Ok(()) => host.enter(|| {
                crate::cpu::pin(Some(last))?;
                search()
            }),
            Err(_) => Ok(0.0),
        };
        is_over.store(true, Ordering::Relaxed);
        let served = server.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause));
        served.context("the checked servers").and(rate)
    })?;
    Ok(Sustained { rate, is_apart: first != last })
}

/// Accepts and closes, on every address.
fn serve(cpu: usize, ready: &std::sync::mpsc::Sender<()>, is_over: &AtomicBool) -> Result<()> {
    crate::cpu::pin(Some(cpu))?;
    let flags = SockFlag::SOCK_CLOEXEC;
    let listener = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    setsockopt(&listener, sockopt::ReuseAddr, &true)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&listener), &SockaddrIn::new(0, 0, 0, 0, PORT))?;
    listen(&listener, Backlog::new(BACKLOG)?)?;
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    ready.send(()).context("nobody waits")?;
    while !is_over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok(connection) => drop(connection),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_micros(500));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn search() -> Result<f64> {
    let most = level(TOO_MANY)?;
    eprintln!("  {:.0} checks a second of {TOO_MANY} that were due", most.passed);
    if most.is_enough(TOO_MANY) {
        return Ok(most.passed);
    }
    let mut checks = most.passed;
    for _ in 0..LEVELS {
        let count = checks as usize / 100 * 100;
        let measured = level(count)?;
        eprintln!("  {:.0} checks a second of {count} that were due", measured.passed);
        if measured.is_enough(count) {
            return Ok(measured.passed);
        }
        checks *= NEXT_LEVEL;
    }
    bail!("the checks fall behind at every rate that was tried, down to {checks:.0} a second")
}

/// Checks a second.
struct Level {
    passed: f64,
    failed: f64,
}

impl Level {
    fn is_enough(&self, count: usize) -> bool {
        self.failed == 0.0 && self.passed >= count as f64 * ENOUGH
    }
}

fn level(count: usize) -> Result<Level> {
    // Its thread stays on this thread's CPU and in its namespace.
    let (health, mut reports) = Health::spawn(None, None)?;
    health.set(
        (0..count)
            .map(|number| check(number).map(|check| (id(&check), wanted(check))))
            .collect::<Result<BTreeMap<_, _>>>()?,
    );
    thread::sleep(INTERVAL * 2);
    let count_all = || {
        health
            .states()
            .values()
            .fold((0, 0), |(passed, failed), state| (passed + state.passed, failed + state.failed))
    };
    let (before, started) = (count_all(), Instant::now());
    thread::sleep(MEASURED);
    let (after, took) = (count_all(), started.elapsed().as_secs_f64());
    while reports.try_recv().is_ok() {}
    ensure!(after.0 > before.0, "no check passes");
    Ok(Level { passed: (after.0 - before.0) as f64 / took, failed: (after.1 - before.1) as f64 / took })
}

/// A server of its own for each.
fn check(number: usize) -> Result<SocketAddr> {
    let number = u32::try_from(number)?;
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number);
    Ok(SocketAddr::new(address.into(), PORT))
}

fn id(server: &SocketAddr) -> CheckId {
    let service = ServiceId { address: [192, 0, 2, 1].into(), port: PORT, protocol: Protocol::Tcp };
    CheckId { service, address: server.ip(), port: server.port(), index: 0 }
}

fn wanted(connect: SocketAddr) -> Wanted {
    let check = HealthCheck {
        probe: Probe::Tcp,
        interval: INTERVAL,
        timeout: Duration::from_secs(3),
        rise: 2,
        fall: 3,
        retry: 0,
        delay_before_retry: Duration::from_secs(1),
        warmup: INTERVAL,
        connect,
        bind: None,
        fwmark: 0,
        via: Via::Direct,
    };
    Wanted { check, begins_down: false }
}
