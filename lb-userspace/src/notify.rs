//! Scripts on changes: strictly in order for each queue, never in the agent's way.
//!
//! A queue exists while it has something to do, with one task that runs its scripts one after the other. Different
//! queues run at the same time, [`MAX_AT_ONCE`] of them. What does not fit into a queue is dropped from its front:
//! the newest state matters most.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore},
};

use crate::{
    config::Command,
    process::{self, Ending, User},
};

/// How long one script may take; then it is killed with all that it has started.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// How many scripts may wait in one queue, beside the one that runs.
pub const MAX_WAITING: usize = 64;
/// How many scripts run at the same time.
pub const MAX_AT_ONCE: usize = 16;
/// How much of a failed script's output is logged, in characters.
const MAX_LOGGED: usize = 200;

/// One script to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Scripts of one queue run one after the other: the virtual server's or instance's name.
    pub queue: String,
    /// The program and its configured arguments.
    pub command: Command,
    /// More arguments.
    pub arguments: Vec<String>,
    /// Environment variables beside a clean `PATH`.
    pub environment: Vec<(String, String)>,
}

/// What has been done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Begun.
    pub run: u64,
    /// Not started, failed, ended by a signal or for their time, or dropped because a queue was full.
    pub failed: u64,
}

/// Runs notifications in tasks of the runtime that it is made in. Dropping it lets the waiting ones run; the end of
/// the runtime kills them.
#[derive(Debug)]
pub struct Notifier {
    runtime: Handle,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    user: Option<User>,
    timeout: Duration,
    at_once: Semaphore,
    state: Mutex<State>,
    /// Told when the last queue goes away.
    idle: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Those with a task, which runs one script beside the ones that wait here.
    queues: BTreeMap<String, VecDeque<Notification>>,
    counts: Counts,
}

impl Notifier {
    /// Scripts run as `user`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(user: Option<User>) -> Self {
        Self::with_timeout(user, TIMEOUT)
    }

    fn with_timeout(user: Option<User>, timeout: Duration) -> Self {
        let shared = Shared {
            user,
            timeout,
            at_once: Semaphore::new(MAX_AT_ONCE),
            state: Mutex::default(),
            idle: Notify::new(),
        };
        Self { runtime: Handle::current(), shared: Arc::new(shared) }
    }

    /// Puts a script into its queue; never waits. A full queue loses its oldest waiting one, which counts as failed.
    pub fn run(&self, notification: Notification) {
        let mut state = self.shared.state();
        if let Some(waiting) = state.queues.get_mut(&notification.queue) {
            waiting.push_back(notification);
            if waiting.len() > MAX_WAITING
                && let Some(dropped) = waiting.pop_front()
            {
                state.counts.failed += 1;
                drop(state);
                tracing::warn!("{dropped} dropped: {MAX_WAITING} newer ones wait behind a slow script");
            }
        } else {
            state.queues.insert(notification.queue.clone(), VecDeque::new());
            drop(state);
            self.runtime.spawn(Arc::clone(&self.shared).work(notification));
        }
    }

    /// What has been done so far.
    pub fn counts(&self) -> Counts {
        self.shared.state().counts
    }

    /// Waits until every queue is empty, at most `limit`: for the end of the agent.
    pub async fn finish(&self, limit: Duration) {
        if tokio::time::timeout(limit, self.shared.idle()).await.is_err() {
            // A queue has one that runs or is about to.
            let left: usize = self.shared.state().queues.values().map(|waiting| waiting.len() + 1).sum();
            tracing::warn!("{left} notify scripts had not ended after {} s", limit.as_secs_f64());
        }
    }
}

impl Shared {
    /// Runs a queue's scripts until none waits any more.
    async fn work(self: Arc<Self>, first: Notification) {
        let queue = first.queue.clone();
        let mut next = Some(first);
        while let Some(notification) = next {
            self.run_one(&notification).await;
            let mut state = self.state();
            next = state.queues.get_mut(&queue).and_then(VecDeque::pop_front);
            if next.is_none() {
                state.queues.remove(&queue);
                if state.queues.is_empty() {
                    self.idle.notify_waiters();
                }
            }
        }
    }

    async fn run_one(&self, notification: &Notification) {
        let _permit = self.at_once.acquire().await.expect("nobody closes the semaphore");
        self.state().counts.run += 1;
        let Notification { command, arguments, environment, .. } = notification;
        let command: Vec<String> = command.0.iter().chain(arguments).cloned().collect();
        let failure = match process::run(&command, environment, self.user.as_ref(), self.timeout).await {
            Err(error) => format!("cannot be run: {error}"),
            Ok(finished) => {
                let failure = match finished.ending {
                    Ending::Exited(0) => return,
                    Ending::Exited(code) => format!("failed with exit code {code}"),
                    Ending::Signaled(signal) => format!("was ended by signal {signal}"),
                    Ending::TimedOut => format!("was killed after {} s", self.timeout.as_secs_f64()),
                };
                match finished.first_line(MAX_LOGGED) {
                    line if line.is_empty() => failure,
                    line => format!("{failure}: {line}"),
                }
            }
        };
        self.state().counts.failed += 1;
        tracing::warn!("{notification} {failure}");
    }

    async fn idle(&self) {
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            // Listens from here on, so nothing is missed between the look and the wait.
            idle.as_mut().enable();
            if self.state().queues.is_empty() {
                return;
            }
            idle.await;
        }
    }

    /// Never held across a wait or a log line.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As in the log: `notify script /path of web`.
impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.command.0.first().map_or("", String::as_str);
        write!(f, "notify script {program} of {}", self.queue)
    }
}

#[cfg(test)]
mod tests;
