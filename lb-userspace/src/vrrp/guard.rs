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
//!           hand             --> socket: plan, map   --> opens what it needs
//!           answered         <-- socket: answer      <-- has it
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
    collections::BTreeMap,
    io,
    net::{IpAddr, Shutdown},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
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

use nix::poll::PollFlags;
use serde::{Deserialize, Serialize};

use crate::config::vrrp::{MAX_VRRP_INSTANCES, VirtualAddress, VirtualRoute, VirtualRule};

use shared::{Page, Phase, monotonic};
use wire::{Answer, Frames, Order, Read};

/// How long the guard may take to get ready for a plan.
pub const TAKING: Duration = Duration::from_millis(900);
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
    /// One for each instance, at most [`MAX_VRRP_INSTANCES`].
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
    /// Its instances.
    positions: Positions,
    /// The next plan, as long as there is no answer to it.
    handed: Option<Handed>,
    /// It was killed, and may not be gone yet.
    is_killed: bool,
    warnings: Vec<String>,
    /// The same moment on two clocks, which are one: `Instant` does not tell its number.
    epoch: (Instant, Duration),
}

/// Where each instance stands in a plan, by its name.
type Positions = BTreeMap<String, usize>;

/// A plan under way.
#[derive(Debug)]
struct Handed {
    generation: u32,
    positions: Positions,
    order: Vec<u8>,
    /// How much of the order is on its way.
    sent: usize,
    roles: Option<OwnedFd>,
    /// When the guard should have answered.
    deadline: Instant,
}

impl Handed {
    fn push(&mut self, socket: &UnixStream) -> io::Result<()> {
        let roles = self.roles.as_ref().filter(|_| self.sent == 0).map(AsFd::as_fd);
        self.sent += wire::send_some(socket, &self.order[self.sent..], roles)?;
        Ok(())
    }
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
        let (frames, positions, warnings) = Default::default();
        let (handed, is_killed) = (None, false);
        Ok(Self { page, socket, child, frames, generation: 0, positions, handed, is_killed, warnings, epoch })
    }

    /// Hands it the plan, which takes the place of the last one. Also the map of roles (a word of 64 bits for each role, by its
    /// number), which it sets to 0 when it gives up; `None`: as before.
    ///
    /// Never waits: the last plan holds until the guard has this one, which [`Self::answered`] says. Until then it takes
    /// no other plan. What is marked as master stays so, by name.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`]: the plan is too large (1024 instances, 64 MiB), and [`io::ErrorKind::WouldBlock`]:
    /// there is no answer to the one before; the last one still holds. Any other: the guard is gone, or was not fit for work
    /// and has been killed; start another one.
    pub fn hand(&mut self, plan: &Plan, roles: Option<&OwnedFd>) -> io::Result<()> {
        if plan.instances.len() > MAX_VRRP_INSTANCES {
            let text = format!("{} instances are too many for the guard", plan.instances.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if self.is_killed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.handed.is_some() {
            // There are two banks, and it may go by either of them.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let generation = self.generation.wrapping_add(1);
        let order = wire::frame(&Order::Plan { generation, plan: Cow::Borrowed(plan) })?;
        let roles = roles.map(OwnedFd::try_clone).transpose()?;
        let names = plan.instances.iter().map(|instance| instance.name.clone());
        let positions: Positions = names.zip(0..).collect();
        self.carry_over(&positions, generation);
        let deadline = Instant::now() + TAKING;
        let mut handed = Handed { generation, positions, order, sent: 0, roles, deadline };
        let pushed = handed.push(&self.socket);
        self.handed = Some(handed);
        pushed.inspect_err(|_| self.kill_later())
    }

    /// Whether the guard has the plan that was handed to it last. Never waits; to be asked again when the socket of
    /// [`Self::waits`] is ready, and 900 ms after [`Self::hand`].
    ///
    /// # Errors
    /// The guard is gone, or has not answered in time and has been killed; start another one when it
    /// [has ended](Self::is_alive).
    pub fn answered(&mut self) -> io::Result<bool> {
        // Nobody knows which plan it has.
        self.hear().inspect_err(|_| self.kill_later())
    }

    fn hear(&mut self) -> io::Result<bool> {
        let Some(handed) = &mut self.handed else { return Ok(true) };
        handed.push(&self.socket)?;
        loop {
            match self.frames.next::<Answer>()? {
                Some(answer) if answer.generation == handed.generation => {
                    self.generation = handed.generation;
                    self.positions = std::mem::take(&mut handed.positions);
                    self.warnings = answer.warnings;
                    self.handed = None;
                    return Ok(true);
                }
                Some(_) => return Err(io::ErrorKind::InvalidData.into()),
                None => {}
            }
            match wire::read(&self.socket, &mut self.frames)? {
                Read::Bytes(_) => {}
                Read::Nothing if Instant::now() < handed.deadline => return Ok(false),
                Read::Nothing => return Err(io::ErrorKind::TimedOut.into()),
                Read::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// For what [`Self::answered`] waits; `None`: for nothing.
    pub fn waits(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let handed = self.handed.as_ref()?;
        let is_sent = handed.sent == handed.order.len();
        let flags = if is_sent { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT };
        Some((self.socket.as_fd(), flags))
    }

    /// Fills the next plan's bank.
    fn carry_over(&self, positions: &Positions, generation: u32) {
        self.page.clear_masters(generation);
        for (name, &position) in positions {
            let before = self.positions.get(name);
            if before.is_some_and(|&before| self.page.is_master(self.generation, before)) {
                self.page.set_master(generation, position, true);
            }
        }
    }

    /// The plans that it may go by, with their banks.
    fn plans(&self) -> impl Iterator<Item = (u32, &Positions)> {
        let handed = self.handed.as_ref().map(|handed| (handed.generation, &handed.positions));
        handed.into_iter().chain([(self.generation, &self.positions)])
    }

    /// What the guard will not be able to do as it is now, in words; empty: all is well. Of the plan in force.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Says that an instance is master, before it takes its addresses, or that it is not, after it has given them up.
    pub fn set_master(&self, instance: &str, is_master: bool) {
        for (generation, positions) in self.plans() {
            if let Some(&position) = positions.get(instance) {
                self.page.set_master(generation, position, is_master);
            }
        }
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
        self.plans().for_each(|(generation, _)| self.page.clear_masters(generation));
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

    /// Without giving up anything, and without waiting for its end.
    fn kill_later(&mut self) {
        self.handed = None;
        self.is_killed = true;
        // Fails only when it has ended by now.
        let _ = self.child.kill();
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
