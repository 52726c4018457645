//! Which machines have the virtual address, at every moment: the kernels' own notifications, one thread for each machine.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::{
    ifaddrs::getifaddrs,
    net::if_::InterfaceFlags,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrStorage, bind,
            recv, setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};

use crate::{Netns, registry::wait_until};

/// Groups of rtnetlink: links, IPv4 addresses, IPv6 addresses (RTMGRP_*).
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// How long a thread waits before it looks whether it should go on.
const LOOK: Duration = Duration::from_millis(50);

/// One change on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When it was seen.
    pub at: Instant,
    /// The machine, counted from 0.
    pub machine: usize,
    /// Whether it has the address from now on, on an interface that runs.
    pub holds: bool,
}

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Holders {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    begun: Instant,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// Changes in their order, and who has it now.
    state: Mutex<(Vec<Change>, Vec<bool>)>,
}

/// What a watch has seen.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it began.
    pub begun: Instant,
    /// When it ended.
    pub ended: Instant,
    /// All changes; the first of each machine that has it from the start is at the beginning.
    pub changes: Vec<Change>,
}

impl Holders {
    /// Watches `address` on these machines.
    ///
    /// # Errors
    /// When a netlink socket cannot be made.
    pub fn start<'a>(machines: impl IntoIterator<Item = &'a Netns>, address: IpAddr) -> Result<Self> {
        let machines: Vec<&Netns> = machines.into_iter().collect();
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            state: Mutex::new((Vec::new(), vec![false; machines.len()])),
        });
        let mut holders = Self { shared, threads: Vec::new(), begun: Instant::now() };
        for (number, netns) in machines.into_iter().enumerate() {
            let (netns, shared) = (netns.clone(), Arc::clone(&holders.shared));
            let socket = netns.enter(notifications)?;
            look(&shared, number, holds(&netns, address)?);
            holders.threads.push(thread::spawn(move || {
                let watched = netns.enter(|| watch(&socket, &shared, number, address));
                if let Err(error) = watched {
                    eprintln!("watching {address} in {}: {error:#}", netns.name());
                }
            }));
        }
        Ok(holders)
    }

    /// The machines that have it now, counted from 0.
    #[must_use]
    pub fn now(&self) -> Vec<usize> {
        let state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        (0..state.1.len()).filter(|number| state.1[*number]).collect()
    }

    /// Waits until exactly one machine has it, and it is this one.
    ///
    /// # Errors
    /// When it is not so within `limit`.
    pub fn await_only(&self, machine: usize, limit: Duration) -> Result<()> {
        let only = wait_until(limit, || self.now() == [machine]);
        ensure!(only, "machine {machine} should have the address alone, but {:?} have it", self.now());
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    /// When a thread panicked.
    pub fn stop(mut self) -> Result<Record> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a watch panicked"))?;
        }
        Ok(self.so_far())
    }

    /// What it has seen so far.
    #[must_use]
    pub fn so_far(&self) -> Record {
        let changes = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        Record { begun: self.begun, ended: Instant::now(), changes }
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Record {
    /// For how long, after `from`, more than one machine had it; all such times together.
    #[must_use]
    pub fn doubled(&self, from: Instant) -> Duration {
        let mut doubled = Duration::ZERO;
        self.each_span(|begin, end, holders| {
            if holders > 1 {
                doubled += end.saturating_duration_since(begin.max(from));
            }
        });
        doubled
    }

    /// For how long, after `from`, no machine had it.
    #[must_use]
    pub fn absent(&self, from: Instant) -> Duration {
        let mut absent = Duration::ZERO;
        self.each_span(|begin, end, holders| {
            if holders == 0 {
                absent += end.saturating_duration_since(begin.max(from));
            }
        });
        absent
    }

    /// From `event` until this machine has it.
    #[must_use]
    pub fn taken(&self, event: Instant, machine: usize) -> Option<Duration> {
        let found = self.changes.iter().find(|one| one.machine == machine && one.holds && one.at >= event);
        found.map(|one| one.at.duration_since(event))
    }

    /// How often some machine got it, after `from`.
    #[must_use]
    pub fn takeovers(&self, from: Instant) -> usize {
        self.changes.iter().filter(|one| one.holds && one.at > from).count()
    }

    fn each_span(&self, mut seen: impl FnMut(Instant, Instant, usize)) {
        let mut holders = std::collections::BTreeSet::new();
        let mut begin = self.begun;
        for change in &self.changes {
            seen(begin, change.at, holders.len());
            begin = change.at;
            if change.holds {
                holders.insert(change.machine);
            } else {
                holders.remove(&change.machine);
            }
        }
        seen(begin, self.ended, holders.len());
    }
}

/// Whether a machine has an address on an interface that runs.
///
/// # Errors
/// When its namespace cannot be entered.
pub(super) fn holds(netns: &Netns, address: IpAddr) -> Result<bool> {
    netns.enter(|| holds_here(address))
}

fn holds_here(address: IpAddr) -> Result<bool> {
    let runs = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    Ok(getifaddrs()?
        .any(|one| one.flags.contains(runs) && one.address.as_ref().and_then(ip) == Some(address)))
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

fn notifications() -> Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        Some(SockProtocol::NetlinkRoute),
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS)).context("netlink")?;
    let limit = TimeVal::new(0, i64::try_from(LOOK.as_micros())?);
    setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
    Ok(socket)
}

fn watch(socket: &OwnedFd, shared: &Shared, machine: usize, address: IpAddr) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    while !shared.stop.load(Ordering::Relaxed) {
        // What the message says does not matter, nor whether some were lost: the state is looked at each time.
        let _ = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty());
        look(shared, machine, holds_here(address)?);
    }
    Ok(())
}

fn look(shared: &Shared, machine: usize, holds: bool) {
    let at = Instant::now();
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    if state.1[machine] != holds {
        state.1[machine] = holds;
        state.0.push(Change { at, machine, holds });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_with_two_and_with_none_are_added_up() {
        let begun = Instant::now();
        let change = |ms, machine, holds| Change { at: begun + Duration::from_millis(ms), machine, holds };
        let changes = vec![
            change(0, 0, true),
            change(100, 1, true),
            change(130, 0, false),
            change(200, 1, false),
            change(250, 0, true),
            change(290, 1, true),
        ];
        let record = Record { begun, ended: begun + Duration::from_millis(300), changes };
        assert_eq!(record.doubled(begun), Duration::from_millis(40));
        assert_eq!(record.doubled(begun + Duration::from_millis(120)), Duration::from_millis(20));
        assert_eq!(record.absent(begun), Duration::from_millis(50));
        assert_eq!(record.taken(begun + Duration::from_millis(90), 1), Some(Duration::from_millis(10)));
        assert_eq!(record.takeovers(begun + Duration::from_millis(1)), 3);
    }
}
