//! Runs the checks: a thread of its own with one tokio runtime, so that thousands of them neither wait for the agent
//! nor delay it.
//!
//! ```text
//!  set() -> Schedule: per check its machine, and who is due when   <- states()
//!                |  ^
//!         attempt|  |outcome            one task each, only while it runs
//!                v  |
//!             probe::attempt            Report -> channel
//! ```
//!
//! A check that waits is an entry in the schedule and nothing else, so a hundred thousand of them are cheap. What is
//! limited is attempts at a time: each needs file descriptors. One that finds none free begins later, which says nothing
//! about its server.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as std_mpsc},
    thread,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::{AbortHandle, JoinError, JoinSet},
};

use self::schedule::{AttemptId, Schedule};
use super::{
    CheckId, Report, State,
    probe::{self, Outcome, Tools},
};
use crate::{
    config::check::{HealthCheck, Probe},
    desired::ServerId,
    process::User,
};

mod schedule;

/// One check to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What and how.
    pub check: HealthCheck,
    /// Whether the server counts as down until the first result (`alpha`).
    pub begins_down: bool,
}

/// The running checks. Dropping it ends them.
#[derive(Debug)]
pub struct Health {
    shared: Arc<Shared>,
    /// Dropped to end the thread.
    stop: Option<oneshot::Sender<()>>,
    /// Disconnected when it has ended.
    ended: Mutex<std_mpsc::Receiver<()>>,
}

impl Health {
    /// Starts the thread, without any check. Scripts run as `user`, and checks through the data plane take
    /// `path`. A [`Report`] comes from the channel for each first
    /// result and each change; the agent need not hurry to take it.
    ///
    /// Raises this process's soft limit of open files to the hard one.
    ///
    /// # Errors
    /// When the thread or its runtime cannot be made.
    pub fn spawn(
        user: Option<User>,
        path: Option<Arc<dyn probe::path::Path>>,
    ) -> io::Result<(Self, mpsc::UnboundedReceiver<Report>)> {
        let tools = Arc::new(Tools::new(user, path));
        let attempt = move |id: CheckId, check: Arc<HealthCheck>| {
            let tools = tools.clone();
            let server = ServerId { service: id.service, address: id.address, port: id.port };
            async move { probe::attempt(&server, &check, &tools).await }
        };
        Self::spawn_with(attempt, attempts_at_a_time(raise_file_limit()))
    }

    fn spawn_with<A, F>(attempt: A, slots: u32) -> io::Result<(Self, mpsc::UnboundedReceiver<Report>)>
    where
        A: Fn(CheckId, Arc<HealthCheck>) -> F + Send + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (reports, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared { inner: Mutex::default(), changed: Notify::new(), reports });
        let (stop, stopped) = oneshot::channel();
        let (alive, ended) = std_mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let driver = Driver {
            shared: shared.clone(),
            attempt,
            free: Arc::new(Semaphore::new(slots as usize)),
            slots,
            tasks: JoinSet::new(),
        };
        thread::Builder::new().name("health".to_owned()).spawn(move || {
            let _alive: std_mpsc::Sender<()> = alive;
            runtime.block_on(driver.run(stopped));
            // Not a drop: that would wait for file systems that hang.
            runtime.shutdown_background();
        })?;
        Ok((Self { shared, stop: Some(stop), ended: Mutex::new(ended) }, receiver))
    }

    /// Replaces the set of checks. Checks that stay go on as they are; one whose options change goes on with what it knows
    /// of its server, and repeats the attempt under way; so does one that has another number now. A check is known by its
    /// server and by what it asks. New ones begin within their warmup. No report of a removed check, nor one
    /// with an old number, is sent after this returns; one that was sent before may still be in the channel.
    pub fn set(&self, wanted: BTreeMap<CheckId, Wanted>) {
        self.set_after(wanted, || {});
    }

    /// The same, and between the last report with an old number and the first one with a new one `between` runs: what is in
    /// the channel then has old numbers, and all of them. It must not wait: no check goes on meanwhile.
    pub fn set_after(&self, wanted: BTreeMap<CheckId, Wanted>, between: impl FnOnce()) {
        let mut inner = self.shared.lock();
        between();
        for attempt in inner.schedule.set(wanted, Instant::now(), fastrand::f64) {
            if let Some(task) = inner.running.remove(&attempt) {
                task.abort();
            }
        }
        drop(inner);
        self.shared.changed.notify_one();
    }

    /// What is known of every check, also of those without a result.
    pub fn states(&self) -> BTreeMap<CheckId, State> {
        self.shared.lock().schedule.states()
    }
}

impl Drop for Health {
    /// Waits for the thread, but not for one that is stuck.
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        // An error is the good case here: the thread has dropped its end.
        let _ = ended.recv_timeout(LONGEST_END);
    }
}

/// How long [`Health`]'s drop waits for its thread.
const LONGEST_END: Duration = Duration::from_secs(2);

/// What the handle and the thread share.
#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    /// The schedule is another.
    changed: Notify,
    reports: mpsc::UnboundedSender<Report>,
}

#[derive(Debug, Default)]
struct Inner {
    schedule: Schedule,
    running: HashMap<AttemptId, AbortHandle>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's part.
struct Driver<A> {
    shared: Arc<Shared>,
    attempt: A,
    free: Arc<Semaphore>,
    slots: u32,
    tasks: JoinSet<Done>,
}

/// An attempt that has ended.
struct Done {
    id: CheckId,
    attempt: AttemptId,
    outcome: Outcome,
    took: Duration,
}

/// How many attempts begin before others have a turn.
const BATCH: usize = 64;

impl<A, F> Driver<A>
where
    A: Fn(CheckId, Arc<HealthCheck>) -> F,
    F: Future<Output = Outcome> + Send + 'static,
{
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            let next = self.begin_due();
            let sleep = async {
                match next {
                    Next::Now => tokio::task::yield_now().await,
                    Next::At(due) => tokio::time::sleep_until(due.into()).await,
                    Next::Never => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = &mut stopped => return,
                () = self.shared.changed.notified() => {}
                Some(done) = self.tasks.join_next() => self.finish(done),
                () = sleep => {}
            }
        }
    }

    /// Begins attempts that are due, as far as there are file descriptors. Says when to call it again.
    fn begin_due(&mut self) -> Next {
        let mut inner = self.shared.lock();
        let Inner { schedule, running } = &mut *inner;
        for _ in 0..BATCH {
            let now = Instant::now();
            let Some(check) = schedule.due(now) else {
                return schedule.next_due().map_or(Next::Never, Next::At);
            };
            let descriptors = descriptors(&check.probe).min(self.slots);
            let Ok(permit) = self.free.clone().try_acquire_many_owned(descriptors) else {
                // The end of another attempt is the moment to look again.
                return Next::Never;
            };
            let Some((id, attempt, check)) = schedule.begin(now) else { return Next::Never };
            let task = self.tasks.spawn(run_attempt(id, attempt, (self.attempt)(id, check), permit));
            running.insert(attempt, task);
        }
        Next::Now
    }

    fn finish(&mut self, done: Result<Done, JoinError>) {
        let mut inner = self.shared.lock();
        let mut next = Some(done);
        while let Some(done) = next {
            // The only error is an attempt that was aborted.
            if let Ok(Done { id, attempt, outcome, took }) = done {
                inner.running.remove(&attempt);
                if let Some(report) = inner.schedule.finish(id, attempt, outcome, took, Instant::now()) {
                    // Nobody listens when the agent ends.
                    let _ = self.shared.reports.send(report);
                }
            }
            next = self.tasks.try_join_next();
        }
    }
}

/// When to look at the schedule.
enum Next {
    /// After others had a turn.
    Now,
    At(Instant),
    /// When something else happens.
    Never,
}

/// Holds `permit` until nothing of the attempt is left.
async fn run_attempt(
    id: CheckId,
    attempt: AttemptId,
    future: impl Future<Output = Outcome>,
    permit: OwnedSemaphorePermit,
) -> Done {
    let begin = Instant::now();
    // A probe's bug costs its own check a failure, not the others their thread.
    let outcome = match AssertUnwindSafe(future).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(_) => Err("internal error: the check panicked".to_owned()),
    };
    drop(permit);
    Done { id, attempt, outcome, took: begin.elapsed() }
}

/// File descriptors that an attempt holds, at most.
fn descriptors(probe: &Probe) -> u32 {
    match probe {
        // Its output's pipe, one while it starts, and the process.
        Probe::Script { .. } => 8,
        _ => 1,
    }
}

/// Leaves some for everything else in this process.
fn attempts_at_a_time(file_limit: u64) -> u32 {
    const OTHERS: u64 = 512;
    const FEWEST: u64 = 64;
    let slots = file_limit.saturating_sub(OTHERS).max(FEWEST);
    // More than a semaphore's limit needs no bound.
    u32::try_from(slots).unwrap_or(u32::MAX).min(1 << 28)
}

/// Raises the soft limit of open files to the hard one and returns what it is then.
fn raise_file_limit() -> u64 {
    // Some systems allow a thousand million; programs that close every possible descriptor then take minutes.
    const MOST: u64 = 1 << 20;
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) => {
            let raised = hard.min(MOST);
            if raised > soft && setrlimit(Resource::RLIMIT_NOFILE, raised, hard).is_ok() {
                raised
            } else {
                soft
            }
        }
        // The limit of Linux where nobody set another.
        Err(_) => 1024,
    }
}

#[cfg(test)]
pub(super) mod tests;
