//! The driver: a thread of its own that owns sockets, timers and addresses, and drives the [machines](super::fsm).
//!
//! It uses no tokio: an ordinary poll loop has nothing in it that could delay an advert. What comes from sockets is handled
//! before what timers want, so that after a stop it looks before it speaks.
//!
//! ```text
//!  Vrrp, TrackSender -- orders --> thread: waits -> engine: turns -> Machine -> commands -> network: System | tests
//!        ^                           |                |
//!        '------ reports ------------'                '- links, holdings, burst, stamp, pace, heartbeat: pure
//! ```

mod burst;
mod engine;
mod heartbeat;
mod heartbeat_socket;
mod holdings;
mod links;
mod mark;
mod network;
mod pace;
mod realtime;
mod stamp;
mod state;
mod system;
#[cfg(test)]
mod tests;
mod thread;

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc},
    time::{Duration, Instant},
};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc;

use self::engine::Order;

use super::{Report, Tracked, fsm::InstanceView};
use crate::config::vrrp::Vrrp as Config;

/// The switch between VRRP and the data plane: one word for each role, in memory that the program reads. Cheap.
pub trait Roles: Send + Sync + std::fmt::Debug {
    /// Whether virtual servers with this role (from 1) are served.
    fn set(&self, role: u16, is_served: bool);
    /// The map, for the guard; `None` when it goes away with this process anyway.
    fn map(&self) -> Option<OwnedFd>;
}

/// What the driver works by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The configuration.
    pub config: Config,
    /// Number of each instance's role in the data plane.
    pub roles: BTreeMap<String, u16>,
}

/// How an instance is, with what the driver counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceStatus {
    /// Its name.
    pub name: String,
    /// What the machine knows.
    pub view: InstanceView,
    /// The address it sends from.
    pub source: Option<IpAddr>,
    /// Adverts sent, those of priority 0 included.
    pub sent: u64,
    /// Of these with priority 0.
    pub sent_zero: u64,
    /// Adverts that could not be sent.
    pub send_errors: u64,
    /// Adverts received and found right.
    pub received: u64,
    /// Of these with priority 0.
    pub received_zero: u64,
    /// Discarded, by reason (`ttl`, `checksum`, `authentication`, ...: the reasons in kebab-case; zeros are left out).
    pub discarded: BTreeMap<&'static str, u64>,
    /// Version 3 adverts over IPv4 received with a pseudo-header's checksum, and with RFC 9568's.
    pub checksums: (u64, u64),
    /// Gratuitous ARPs and neighbour advertisements sent.
    pub announced: u64,
    /// Addresses that somebody else had removed and that were put back.
    pub restored: u64,
}

/// All of it, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// In the configuration's order.
    pub instances: Vec<InstanceStatus>,
    /// Name and state of each group.
    pub groups: Vec<(String, super::State)>,
    /// What is known of each tracked thing, with its words.
    pub tracked: Vec<Tracked>,
    /// Adverts on our interfaces that are for no instance of ours.
    pub unknown_vrid: u64,
    /// Whether the guard runs; `None`: not wanted.
    pub guard: Option<bool>,
    /// Why the thread is not as wanted (SCHED_FIFO, locked memory), in words.
    pub warnings: Vec<String>,
    /// The longest time from when a timer was due until it was served, since the start.
    pub longest_delay: Duration,
}

/// How long the thread may take to start: reading interfaces, removing leftovers, starting the guard.
const START: Duration = Duration::from_secs(30);
/// How long `status` waits.
const STATUS: Duration = Duration::from_millis(100);
/// How long an operator waits.
const ANSWER: Duration = Duration::from_secs(2);
/// How long dropping the handle waits.
const DROP: Duration = Duration::from_millis(500);

/// The agent's handle. Dropping it stops the driver as [`Vrrp::stop`] does, and waits for at most 500 ms.
#[derive(Debug)]
pub struct Vrrp {
    orders: TrackSender,
    last: Mutex<Status>,
    /// Disconnected when the thread is over.
    ended: Mutex<std_mpsc::Receiver<()>>,
    is_stopped: bool,
}

/// Hands the driver what trackers find; may be cloned into other threads.
#[derive(Debug, Clone)]
pub struct TrackSender {
    orders: std_mpsc::Sender<Order>,
    wake: Arc<EventFd>,
}

impl TrackSender {
    /// A tracked thing has changed.
    pub fn send(&self, tracked: Tracked) {
        self.order(Order::Tracked(tracked));
    }

    /// Whether the thread will get it.
    fn order(&self, order: Order) -> bool {
        let is_sent = self.orders.send(order).is_ok();
        // Fails only when the counter is full, and then the thread is about to wake.
        let _ = self.wake.write(1);
        is_sent
    }
}

/// Removes what a dead run has left: all that `state` remembers, and all addresses of the configuration. [`Vrrp::spawn`] does so
/// too; this is for the time before, in which a data plane is loaded and another director has the addresses already. Gives
/// what there is to say.
///
/// # Errors
/// When the kernel cannot be asked for its interfaces.
pub fn remove_leftovers(wanted: Wanted, state: PathBuf) -> io::Result<Vec<Report>> {
    let (reports, mut said) = mpsc::unbounded_channel();
    let mut engine = engine::Engine::new(
        system::System::open()?,
        wanted,
        Arc::new(NoRoles),
        state::StateFile::new(Some(state)),
        reports,
    );
    engine.clean()?;
    Ok(std::iter::from_fn(|| said.try_recv().ok()).collect())
}

/// While there is no data plane.
#[derive(Debug)]
struct NoRoles;

impl Roles for NoRoles {
    fn set(&self, _: u16, _: bool) {}

    fn map(&self) -> Option<OwnedFd> {
        None
    }
}

impl Vrrp {
    /// Starts thread and guard: removes what a dead run has left (all that `state` remembers, and all addresses of the
    /// configuration), and begins.
    ///
    /// `state`: a file that remembers what this run may leave to the next one; its directory exists. `None`: what an earlier
    /// configuration had is not known.
    ///
    /// # Errors
    /// When the thread or the guard cannot be made: which. Sockets that cannot be opened are said in a [`Report::Notice`] and
    /// tried again; their instances are in FAULT until then.
    pub fn spawn(
        wanted: Wanted,
        roles: Arc<dyn Roles>,
        state: Option<PathBuf>,
    ) -> io::Result<(Self, mpsc::UnboundedReceiver<Report>)> {
        let (reports, to_agent) = mpsc::unbounded_channel();
        let (orders, from_agent) = std_mpsc::channel();
        let (started, start) = std_mpsc::sync_channel(1);
        let (end, ended) = std_mpsc::sync_channel::<()>(0);
        let wake =
            Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let life =
            thread::Start { wanted, roles, state, reports, orders: from_agent, wake: wake.clone(), started };
        std::thread::Builder::new().name("vrrp".to_owned()).spawn(move || {
            thread::run(life);
            drop(end);
        })?;
        start.recv_timeout(START).map_err(|error| match error {
            std_mpsc::RecvTimeoutError::Timeout => io::Error::from(io::ErrorKind::TimedOut),
            std_mpsc::RecvTimeoutError::Disconnected => {
                io::Error::other("the VRRP driver has failed at its start")
            }
        })??;
        let handle = Self {
            orders: TrackSender { orders, wake },
            last: Mutex::default(),
            ended: Mutex::new(ended),
            is_stopped: false,
        };
        Ok((handle, to_agent))
    }

    /// Other settings. Sockets that cannot be opened are said in a [`Report::Notice`] and tried again.
    pub fn set(&self, wanted: Wanted) {
        self.orders.order(Order::Set(wanted));
    }

    /// The data plane has been loaded again: its roles are set to what they are.
    pub fn set_roles(&self, roles: Arc<dyn Roles>) {
        self.orders.order(Order::SetRoles(roles));
    }

    /// For trackers and for the virtual servers' health.
    pub fn tracks(&self) -> TrackSender {
        self.orders.clone()
    }

    /// See [`super::fsm::Event::Handover`].
    ///
    /// # Errors
    /// When there is no such instance, or it is not master: which, in words. Takes some milliseconds.
    pub fn handover(&self, instance: &str) -> Result<(), String> {
        self.ask(|answer| Order::Handover(instance.to_owned(), answer), ANSWER)
            .unwrap_or_else(|| Err("the VRRP driver does not answer".to_owned()))
    }

    /// Lifts a handover.
    ///
    /// # Errors
    /// When there is no such instance or it was not handed over.
    pub fn resume(&self, instance: &str) -> Result<(), String> {
        self.ask(|answer| Order::Resume(instance.to_owned(), answer), ANSWER)
            .unwrap_or_else(|| Err("the VRRP driver does not answer".to_owned()))
    }

    /// How everything is; the driver's last word when it does not answer within 100 ms.
    pub fn status(&self) -> Status {
        let status = self.ask(Order::Status, STATUS);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = status {
            *last = status;
        }
        last.clone()
    }

    /// Gives up all addresses, says so on the network and to the receiver of reports, and waits for the thread, at most
    /// `limit`.
    pub fn stop(mut self, limit: Duration) {
        self.end(limit);
    }

    fn end(&mut self, limit: Duration) {
        self.is_stopped = true;
        if self.orders.order(Order::Stop(Instant::now() + limit)) {
            let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
            // Disconnected: it is over. Timeout: it is not, and nobody can wait any longer.
            let _ = ended.recv_timeout(limit);
        }
    }

    fn ask<T>(&self, order: impl FnOnce(std_mpsc::SyncSender<T>) -> Order, limit: Duration) -> Option<T> {
        let (answer, answered) = std_mpsc::sync_channel(1);
        if !self.orders.order(order(answer)) {
            return None;
        }
        answered.recv_timeout(limit).ok()
    }
}

impl Drop for Vrrp {
    fn drop(&mut self) {
        if !self.is_stopped {
            self.end(DROP);
        }
    }
}
