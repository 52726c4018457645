//! The guard: a process of its own that gives the addresses up when the agent dies or hangs.
//!
//! Agent and guard share a page of memory (`shared.rs`) and a socket pair. The agent's driver beats its heart in the page
//! and marks there which instances it is master of; the plan of what each of them means (addresses to remove, adverts of
//! priority 0 to send) goes over the socket ahead of time. The end of the agent is the end of its socket.
//!
//! ```text
//!               agent                                    guard (xdirector guard)
//!   driver: beat, set_master --> page: beat, masters --> looks four times in the watchdog's time
//!           may_speak        <-- page: phase         <-- AGENT -> SEIZED -> gives up -> DONE
//!           was_seized       --> page: phase         --> DONE -> AGENT
//!           set_plan         --> socket: plan, map   --> opens what it needs, answers
//!           dismiss          --> socket: bye         --> ends
//!           (kill -9)        --> socket: end         --> gives up, ends
//! ```
//!
//! What the driver has to do, so that a driver that wakes up and a guard that acts do not work against each other:
//!
//! - [`Guard::may_speak`] before every advert and every change of addresses. Whoever was stopped between the two does one
//!   thing too many, so:
//! - [`Guard::was_seized`] in every round of its loop, and at once when `may_speak` is false. After it was true the driver
//!   releases all that it was master of, even if it believes that it has just acquired it, and says nothing about it: the guard
//!   has spoken.
//! - [`Guard::beat`] in every round; after a stop first `was_seized`, then `beat`.

mod hands;
mod last_word;
pub mod process;
mod shared;
mod surroundings;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

use std::{
    borrow::Cow,
    collections::BTreeSet,
    io,
    net::{IpAddr, Shutdown},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::{
            net::UnixStream,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::config::vrrp::{MAX_VRRP_INSTANCES, VirtualAddress, VirtualRoute, VirtualRule};

use shared::{Page, Phase, monotonic};
use wire::{Answer, Frames, Order};

/// How long the guard may take to get ready for a plan.
const TAKING: Duration = Duration::from_secs(1);
/// How long the guard may take to give up everything.
const GIVING_UP: Duration = Duration::from_secs(5);
/// Between two looks whether the guard is done.
const PAUSE: Duration = Duration::from_millis(1);

/// What the guard needs to know to give up everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// For how long the driver may be silent, in milliseconds; less than 10 is taken for 10.
    pub watchdog_ms: u64,
    /// SCHED_FIFO priority of the driver; the guard's is one higher, 99 at most. `None`: an ordinary process.
    pub realtime_priority: Option<u8>,
    /// The guard's memory is never paged out.
    pub lock_memory: bool,
    /// One for each instance, at most [`MAX_VRRP_INSTANCES`]; [`Guard::set_master`] goes by these positions.
    pub instances: Vec<InstancePlan>,
}

/// What giving up one instance means.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstancePlan {
    /// Its name.
    pub name: String,
    /// Index of the interface on which adverts are sent.
    pub interface: u32,
    /// Source of the adverts.
    pub source: Option<IpAddr>,
    /// Messages of priority 0, each with where it goes; for IPv4 with their IP header.
    pub last_words: Vec<(IpAddr, Vec<u8>)>,
    /// Addresses to remove, each with the index of its interface.
    pub addresses: Vec<(u32, VirtualAddress)>,
    /// Routes to remove.
    pub routes: Vec<VirtualRoute>,
    /// Rules to remove.
    pub rules: Vec<VirtualRule>,
    /// Number of its role in the data plane; 0: none.
    pub role: u16,
}

impl InstancePlan {
    fn needs_kernel(&self) -> bool {
        !(self.addresses.is_empty() && self.routes.is_empty() && self.rules.is_empty())
    }
}

/// The agent's end of the guard.
///
/// Dropping it is like the agent's death: the guard gives up what is marked as master, and ends.
#[derive(Debug)]
pub struct Guard {
    page: Page,
    socket: UnixStream,
    child: Child,
    frames: Frames,
    /// The bank of the plan in force.
    generation: u32,
    /// Names of its instances.
    names: Vec<String>,
    warnings: Vec<String>,
    /// The same moment on two clocks, which are one: `Instant` does not tell its number.
    epoch: (Instant, Duration),
}

impl Guard {
    /// Starts the guard (`/proc/self/exe guard`), in a session of its own. It ends when the agent does.
    ///
    /// It has the caller's SCHED_FIFO priority, if any, until its first plan says something else.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn() -> io::Result<Self> {
        // Not the path of the program, which an upgrade may have replaced.
        Self::spawn_from(Path::new("/proc/self/exe"))
    }

    /// As [`Guard::spawn`], with the absolute path of an xdirector: for programs that are none.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_from(program: &Path) -> io::Result<Self> {
        let page = Page::create()?;
        let (socket, theirs) = UnixStream::pair()?;
        let inherited = [page.as_fd().as_raw_fd(), theirs.as_raw_fd()];
        let mut command = Command::new(program);
        command
            .arg0("xdirector-guard")
            .args(["guard", "--shared", &inherited[0].to_string(), "--socket", &inherited[1].to_string()])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // SAFETY: another thread may have held any lock at the fork. `prepare` only makes system calls on memory that exists
        // already: it takes no lock, allocates nothing and cannot panic.
        unsafe {
            command.pre_exec(move || prepare(inherited));
        }
        let child = command.spawn()?;
        let epoch = (Instant::now(), monotonic());
        let (frames, names, warnings) = Default::default();
        Ok(Self { page, socket, child, frames, generation: 0, names, warnings, epoch })
    }

    /// Hands it the plan; takes the place of the last one. Also the map of roles (a word of 64 bits for each role, by its
    /// number), which it sets to 0 when it gives up; `None`: as before.
    ///
    /// The guard has it when this returns, after 1 s at most. What is marked as master stays so, by name. The last plan holds
    /// until then.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`]: the plan is too large (1024 instances, 64 MiB), and the last one still holds. Any other:
    /// the guard is gone, or was not fit for work and has been killed; start another one.
    pub fn set_plan(&mut self, plan: &Plan, roles: Option<&OwnedFd>) -> io::Result<()> {
        if plan.instances.len() > MAX_VRRP_INSTANCES {
            let text = format!("{} instances are too many for the guard", plan.instances.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let generation = self.generation.wrapping_add(1);
        let order = wire::frame(&Order::Plan { generation, plan: Cow::Borrowed(plan) })?;
        self.carry_over(plan, generation);
        let deadline = Instant::now() + TAKING;
        let answer = wire::send(&self.socket, &order, roles.map(AsFd::as_fd), deadline)
            .and_then(|()| wire::receive::<Answer>(&self.socket, &mut self.frames, deadline));
        match answer {
            Ok(answer) if answer.generation == generation => {
                self.generation = generation;
                self.names = plan.instances.iter().map(|instance| instance.name.clone()).collect();
                self.warnings = answer.warnings;
                Ok(())
            }
            other => {
                // Nobody knows which plan it has.
                self.kill();
                Err(other.err().unwrap_or_else(|| io::ErrorKind::InvalidData.into()))
            }
        }
    }

    /// Fills the next plan's bank.
    fn carry_over(&self, plan: &Plan, generation: u32) {
        let masters: BTreeSet<_> =
            self.page.masters(self.generation, self.names.len()).map(|n| self.names[n].as_str()).collect();
        self.page.clear_masters(generation);
        for (position, instance) in plan.instances.iter().enumerate() {
            if masters.contains(instance.name.as_str()) {
                self.page.set_master(generation, position, true);
            }
        }
    }

    /// What the guard will not be able to do as it is now, in words; empty: all is well. Of the last plan.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Says that an instance is master, before it takes its addresses, or that it is not, after it has given them up.
    pub fn set_master(&self, instance: usize, is_master: bool) {
        self.page.set_master(self.generation, instance, is_master);
    }

    /// The driver lives. To be called often: at least every third of the plan's watchdog time.
    pub fn beat(&self, now: Instant) {
        let (instant, monotonic) = self.epoch;
        self.page.set_beat(monotonic + now.saturating_duration_since(instant));
    }

    /// Whether the addresses are the driver's: not while the guard gives them up, nor after that until
    /// [`was_seized`](Self::was_seized) has said so. Cheap: one load. To be asked before every advert and every change of
    /// addresses.
    pub fn may_speak(&self) -> bool {
        self.page.phase() == Phase::Agent
    }

    /// Whether the guard has given up the addresses because the driver was silent; only once for each time. It has finished
    /// when this returns true (which may wait for some milliseconds, 5 s at most), nothing is marked as master any more, and
    /// from then on it guards again.
    pub fn was_seized(&mut self) -> bool {
        if self.may_speak() {
            return false;
        }
        let deadline = Instant::now() + GIVING_UP;
        while self.page.phase() == Phase::Seized && self.is_alive() && Instant::now() < deadline {
            sleep(PAUSE);
        }
        if self.page.phase() == Phase::Seized {
            // It is dead or hangs itself. It must not go on with it later, when we are master again.
            self.kill();
            self.page.change(Phase::Seized, Phase::Done);
        }
        self.page.clear_masters(self.generation);
        self.page.set_beat(monotonic());
        self.page.change(Phase::Done, Phase::Agent);
        true
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How it has ended, in words; `None`: it still runs.
    pub fn ending(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(match (status.code(), status.signal()) {
                (_, Some(signal)) => format!("killed by signal {signal}"),
                (code, None) => format!("exit code {}", code.unwrap_or_default()),
            }),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Ends it without giving up anything. One that does not end within `limit` is killed.
    pub fn dismiss(mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        // If it is dead already there is nobody to tell.
        if let Ok(bye) = wire::frame(&Order::Bye) {
            let _ = wire::send(&self.socket, &bye, None, deadline);
        }
        self.wait_until(deadline);
        self.kill();
    }

    fn wait_until(&mut self, deadline: Instant) {
        while self.is_alive() && Instant::now() < deadline {
            sleep(PAUSE);
        }
    }

    /// Without giving up anything.
    fn kill(&mut self) {
        if self.is_alive() {
            // Fails only when it has ended by now.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Fails only when the other end is closed.
        let _ = self.socket.shutdown(Shutdown::Both);
        self.wait_until(Instant::now() + GIVING_UP);
        self.kill();
    }
}

/// In the child, between `fork` and `exec`: no signal and no descriptor but those two.
fn prepare(inherited: [RawFd; 2]) -> io::Result<()> {
    // From the first moment on: what a service manager sends to all must not hit it before its `main`.
    surroundings::ignore_signals()?;
    nix::unistd::setsid()?;
    // Libraries that forgot the flag must not hand on a socket, which would stay open with the guard. Kernels before 5.11 do
    // not know the call.
    // SAFETY: takes three numbers and touches no memory.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
    for fd in inherited {
        // SAFETY: takes numbers only; the descriptor is open, as the agent's end of the guard holds it.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
