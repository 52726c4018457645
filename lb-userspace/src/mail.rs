//! Mail on changes: a bounded queue in front of a slow server, never in the agent's way.
//!
//! One task sends. Messages that come within a second, or while another mail is on its way, go into one mail: a
//! thousand changes are a few mails. Of what does not fit into the queue the oldest is dropped, and the next mail
//! says how much that was.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use crate::config::Mail;

mod message;
mod server;

use message::{Letterhead, Note};
use server::{Failure, Server};

/// How many messages may wait.
pub const MAX_WAITING: usize = 256;

/// What has been done so far, in messages: a mail that joins several counts as all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken by the server.
    pub sent: u64,
    /// Given up, or dropped because the queue was full.
    pub failed: u64,
}

/// Sends mails in a task of the runtime that it is made in. After it is dropped, the task still sends what waits.
#[derive(Debug)]
pub struct Mailer {
    shared: Arc<Shared>,
}

/// The times of the task.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// How long the first message waits for others.
    gather: Duration,
    /// The waits between the attempts, one less than there are attempts.
    retries: [Duration; 2],
}

/// Three attempts over a minute: a mail server's restart or a greylisting's first look takes about that long.
const PACE: Pace =
    Pace { gather: Duration::from_secs(1), retries: [Duration::from_secs(10), Duration::from_secs(50)] };

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Note>,
    /// Of those, too old for the queue since the last mail.
    dropped: u64,
    /// How many are on their way.
    sending: u64,
    counts: Counts,
    /// The agent is about to end: no more waits.
    hurry: bool,
    /// The mailer is gone: nothing more comes.
    closed: bool,
}

impl Mailer {
    /// `router_id` stands in every subject. Reads the system's certificates if the server's is to be checked.
    ///
    /// # Errors
    /// When an address or the server's name is not one.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(mail: &Mail, router_id: &str) -> anyhow::Result<Self> {
        Self::with_pace(mail, router_id, PACE)
    }

    fn with_pace(mail: &Mail, router_id: &str, pace: Pace) -> anyhow::Result<Self> {
        let head = Letterhead::new(mail, router_id)?;
        let server = Server::new(mail)?;
        let shared = Arc::new(Shared::default());
        tokio::spawn(Arc::clone(&shared).work(head, server, pace));
        Ok(Self { shared })
    }

    /// Puts a mail into the queue; never waits. A full queue loses its oldest one, which counts as failed.
    pub fn send(&self, subject: &str, body: String) {
        self.shared.change(|state| {
            state.waiting.push_back(Note { subject: subject.into(), body });
            if state.waiting.len() > MAX_WAITING {
                state.waiting.pop_front();
                state.dropped += 1;
                state.counts.failed += 1;
            }
        });
    }

    /// What has been done so far.
    pub fn counts(&self) -> Counts {
        self.shared.state().counts
    }

    /// Waits until the queue is empty, at most `limit`: for the end of the agent. From now on nothing is gathered
    /// and attempts follow each other at once.
    pub async fn finish(&self, limit: Duration) {
        self.shared.change(|state| state.hurry = true);
        let empty = self.shared.until(|state| state.waiting.is_empty() && state.sending == 0);
        if tokio::time::timeout(limit, empty).await.is_err() {
            let left = {
                let state = self.shared.state();
                state.waiting.len() as u64 + state.sending
            };
            tracing::warn!("{left} mail messages were not sent within {} s", limit.as_secs_f64());
        }
    }
}

impl Drop for Mailer {
    fn drop(&mut self) {
        self.shared.change(|state| state.closed = true);
    }
}

impl Shared {
    async fn work(self: Arc<Self>, head: Letterhead, server: Server, pace: Pace) {
        loop {
            self.until(|state| !state.waiting.is_empty() || state.closed).await;
            self.pause(pace.gather).await;
            let (notes, dropped) = self.take();
            if notes.is_empty() {
                return;
            }
            if dropped > 0 {
                tracing::warn!(
                    "{dropped} mail messages dropped: {MAX_WAITING} newer ones waited for the server"
                );
            }
            let taken = self.send(&head.mail(&notes, dropped), &head, &server, pace).await;
            self.change(|state| {
                let count = std::mem::take(&mut state.sending);
                if taken {
                    state.counts.sent += count;
                } else {
                    state.counts.failed += count;
                }
            });
        }
    }

    /// Everything that waits becomes one mail.
    fn take(&self) -> (Vec<Note>, u64) {
        let mut state = self.state();
        let notes = Vec::from(std::mem::take(&mut state.waiting));
        state.sending = notes.len() as u64;
        (notes, std::mem::take(&mut state.dropped))
    }

    /// Whether the server took it.
    async fn send(&self, mail: &[u8], head: &Letterhead, server: &Server, pace: Pace) -> bool {
        let mut retries = pace.retries.iter();
        loop {
            let Failure { permanent, reason } = match server.deliver(head.from(), &head.to(), mail).await {
                Ok(refused) => {
                    for reason in refused {
                        tracing::warn!("mail: {server} refuses a recipient: {reason}");
                    }
                    return true;
                }
                Err(failure) => failure,
            };
            match retries.next().filter(|_| !permanent) {
                Some(wait) => {
                    tracing::debug!("mail: {server}: {reason}; next attempt in {} s", wait.as_secs_f64());
                    self.pause(*wait).await;
                }
                None => {
                    tracing::warn!("mail: {server}: {reason}; giving it up");
                    return false;
                }
            }
        }
    }

    /// A wait that ends when the agent is about to.
    async fn pause(&self, duration: Duration) {
        // Either way it is over.
        let _ = tokio::time::timeout(duration, self.until(|state| state.hurry || state.closed)).await;
    }

    async fn until(&self, condition: impl Fn(&State) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Listens from here on, so nothing is missed between the look and the wait.
            changed.as_mut().enable();
            if condition(&self.state()) {
                return;
            }
            changed.await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_waiters();
    }

    /// Never held across a wait or a log line.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
