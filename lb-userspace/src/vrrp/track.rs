//! Runs what instances track beside interfaces and virtual servers: scripts, TCP ports, processes, files. A thread of its own
//! with one tokio runtime, so that a slow script delays nobody.
//!
//! ```text
//!  set() -> Runner: per tracked thing its machine, and when its turn is -> report
//!                |  ^
//!         attempt|  |finding            one task each, only while it runs
//!                v  |
//!               probe
//! ```
//!
//! Turns are at the configured interval from the first one on. An attempt that takes longer misses the turns meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc},
    thread,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinError, JoinSet},
};

use self::{
    machine::{Machine, Options},
    probe::{Finding, Probe, Users},
};
use super::{TrackValue, Tracked};
use crate::{
    config::vrrp::{TrackKey, Vrrp},
    process::User,
};

mod file;
mod machine;
mod probe;
mod program;

/// The running trackers. Dropping it ends them.
#[derive(Debug)]
pub struct Trackers {
    /// Dropped to end the thread.
    orders: Option<mpsc::UnboundedSender<Wanted>>,
    /// Disconnected when it has ended.
    ended: Mutex<std_mpsc::Receiver<()>>,
}

impl Trackers {
    /// Starts the thread, without anything to track. `report` is called for each first result and each change, from that
    /// thread, and must not block.
    ///
    /// # Errors
    /// When the thread or its runtime cannot be made.
    pub fn spawn(user: Option<User>, report: impl Fn(Tracked) + Send + 'static) -> io::Result<Self> {
        let (orders, receiver) = mpsc::unbounded_channel();
        let (alive, ended) = std_mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let runner = Runner {
            orders: receiver,
            user: user.map(Arc::new),
            report,
            trackers: BTreeMap::new(),
            tasks: JoinSet::new(),
            attempts: 0,
        };
        thread::Builder::new().name("vrrp-track".to_owned()).spawn(move || {
            let _alive: std_mpsc::Sender<()> = alive;
            runtime.block_on(runner.run());
            // Not a drop: that would wait for file systems that hang.
            runtime.shutdown_background();
        })?;
        Ok(Self { orders: Some(orders), ended: Mutex::new(ended) })
    }

    /// Replaces what is tracked by what some instance or group of the configuration tracks. What stays goes on. What stays
    /// with other options goes on with what is known of it, and its attempt under way is repeated.
    pub fn set(&self, config: &Vrrp) {
        if let Some(orders) = &self.orders {
            // The thread ends only after this handle has gone.
            let _ = orders.send(wanted(config));
        }
    }
}

impl Drop for Trackers {
    /// Waits for the thread, but not for one that is stuck.
    fn drop(&mut self) {
        drop(self.orders.take());
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        // An error is the good case here: the thread has dropped its end.
        let _ = ended.recv_timeout(LONGEST_END);
    }
}

/// How long [`Trackers`]' drop waits for its thread.
const LONGEST_END: Duration = Duration::from_secs(2);
/// Whatever the options say, a tracker is no busy loop.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

type Wanted = BTreeMap<TrackKey, Thing>;

/// One thing to track.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Thing {
    probe: Probe,
    /// From the start of one attempt to the start of the next.
    interval: Duration,
    options: Options,
}

/// What some instance or group tracks, of the kinds that are run here.
fn wanted(config: &Vrrp) -> Wanted {
    let by_instances = config.instances.iter().flat_map(|instance| &instance.tracks);
    let by_groups = config.sync_groups.iter().flat_map(|group| &group.tracks);
    let tracked: BTreeSet<&TrackKey> = by_instances.chain(by_groups).map(|track| &track.key).collect();
    let scripts = config.scripts.iter().map(|script| {
        let options = Options { rise: script.rise, fall: script.fall, begins_down: script.init_fail };
        (TrackKey::Script(script.name.clone()), Probe::script(script), script.interval, options)
    });
    let ports = config.ports.iter().map(|port| {
        let options = Options { rise: port.rise, fall: port.fall, begins_down: false };
        let probe = Probe::Port { address: port.address, timeout: port.timeout };
        (TrackKey::Port(port.name.clone()), probe, port.interval, options)
    });
    let processes = config.processes.iter().map(|process| {
        let probe = Probe::Process { name: process.process.clone(), quorum: process.quorum };
        (TrackKey::Process(process.name.clone()), probe, process.interval, Options::AT_ONCE)
    });
    let files = config.files.iter().map(|file| {
        let probe = Probe::File { path: file.file.clone().into() };
        (TrackKey::File(file.name.clone()), probe, file.interval, Options::AT_ONCE)
    });
    scripts
        .chain(ports)
        .chain(processes)
        .chain(files)
        .filter(|(key, ..)| tracked.contains(key))
        .map(|(key, probe, interval, options)| {
            let interval = interval.max(SHORTEST_INTERVAL);
            (key, Thing { probe, interval, options })
        })
        .collect()
}

/// The thread's part.
struct Runner<R> {
    orders: mpsc::UnboundedReceiver<Wanted>,
    /// As whom scripts run that name nobody.
    user: Option<Arc<User>>,
    report: R,
    trackers: BTreeMap<TrackKey, Tracker>,
    tasks: JoinSet<Done>,
    /// How many have begun.
    attempts: u64,
}

/// What is known of a tracked thing.
struct Tracker {
    thing: Thing,
    users: Users,
    machine: Machine,
    /// The words of the last report.
    detail: String,
    /// The next turn.
    due: Instant,
    /// The attempt under way, and its number.
    running: Option<(u64, AbortHandle)>,
}

/// An attempt that has ended.
struct Done {
    key: TrackKey,
    attempt: u64,
    finding: Finding,
}

impl<R: Fn(Tracked)> Runner<R> {
    async fn run(mut self) {
        loop {
            self.begin_due();
            let waiting = self.trackers.values().filter(|tracker| tracker.running.is_none());
            let next = waiting.map(|tracker| tracker.due).min();
            let sleep = async {
                match next {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                wanted = self.orders.recv() => match wanted {
                    Some(wanted) => self.set(wanted),
                    None => return,
                },
                Some(done) = self.tasks.join_next() => self.finish(done),
                () = sleep => {}
            }
        }
    }

    fn set(&mut self, wanted: Wanted) {
        for (_, mut gone) in self.trackers.extract_if(.., |key, _| !wanted.contains_key(key)) {
            gone.abort();
        }
        for (key, thing) in wanted {
            match self.trackers.get_mut(&key) {
                Some(tracker) if tracker.thing == thing => {}
                Some(tracker) => tracker.change(thing),
                None => self.add(key, thing),
            }
        }
    }

    fn add(&mut self, key: TrackKey, thing: Thing) {
        let machine = Machine::new(thing.options);
        let detail = "not tried yet".to_owned();
        if let Some(value) = machine.told() {
            (self.report)(Tracked { key: key.clone(), value, detail: detail.clone() });
        }
        let users = Users { default: self.user.clone(), own: Arc::default() };
        self.trackers
            .insert(key, Tracker { thing, users, machine, detail, due: Instant::now(), running: None });
    }

    fn begin_due(&mut self) {
        let now = Instant::now();
        for (key, tracker) in &mut self.trackers {
            if tracker.running.is_some() || tracker.due > now {
                continue;
            }
            self.attempts += 1;
            let attempt = self.attempts;
            let (key, probe, users) = (key.clone(), tracker.thing.probe.clone(), tracker.users.clone());
            let task = self.tasks.spawn(async move {
                // A bug in one probe is not the end of the others.
                let finding = match AssertUnwindSafe(probe.attempt(&users)).catch_unwind().await {
                    Ok(finding) => finding,
                    Err(_) => Finding::down("internal error: the probe panicked"),
                };
                Done { key, attempt, finding }
            });
            tracker.running = Some((attempt, task));
        }
    }

    fn finish(&mut self, done: Result<Done, JoinError>) {
        // The only error is an attempt that was aborted.
        let Ok(Done { key, attempt, finding: Finding { value, detail } }) = done else { return };
        let Some(tracker) = self.trackers.get_mut(&key) else { return };
        if tracker.running.as_ref().is_none_or(|(running, _)| *running != attempt) {
            return;
        }
        tracker.running = None;
        tracker.due = next_turn(tracker.due, tracker.thing.interval, Instant::now());
        // The words for a number say whether it is one: they change without the value.
        let says_more = matches!(value, TrackValue::Number(_)) && detail != tracker.detail;
        if tracker.machine.handle(value) || says_more {
            tracker.detail.clone_from(&detail);
            (self.report)(Tracked { key, value, detail });
        }
    }
}

impl Tracker {
    fn abort(&mut self) {
        if let Some((_, task)) = self.running.take() {
            task.abort();
        }
    }

    fn change(&mut self, thing: Thing) {
        self.abort();
        self.machine.change(thing.options);
        self.thing = thing;
        self.users.own = Arc::default();
        self.due = Instant::now();
    }
}

/// The first turn after `now` of those that began with `due`.
fn next_turn(due: Instant, interval: Duration, now: Instant) -> Instant {
    let late = now.saturating_duration_since(due);
    // Below the interval, so it fits.
    let since_turn = Duration::from_nanos((late.as_nanos() % interval.as_nanos()) as u64);
    now + (interval - since_turn)
}

#[cfg(test)]
mod tests;
