//! Traffic that goes on while something else happens, and what became of it.
//!
//! [`Load::start`] keeps connections open on which data flows and is compared byte by byte, makes short connections one
//! after the other, and sends datagrams with numbers. [`Load::stop`] says what was lost.

mod held;
mod short;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use crate::{Client, Netns, client::Counts, registry::wait_until, stall::Mark};

/// What is to be sent, and for how long at most.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections that stay, half of them downloads and half of them uploads.
    pub held: usize,
    /// Threads that make short connections.
    pub workers: usize,
    /// How long each of them rests between two.
    pub pause: Duration,
    /// Where numbered datagrams go, one every 5 ms; nowhere if `None`.
    pub echo: Option<SocketAddr>,
    /// After this time it ends by itself.
    pub longest: Duration,
    /// After so many short connections too.
    pub most: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            held: 8,
            workers: 2,
            pause: Duration::from_millis(5),
            echo: None,
            longest: Duration::from_secs(120),
            most: 200_000,
        }
    }
}

/// What became of the traffic.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Short connections that were answered.
    pub ok: u64,
    /// Those that were not.
    pub failed: u64,
    /// Those of [`Report::failed`], and held connections, that were reset.
    pub resets: u64,
    /// The first failure of any kind.
    pub first_error: Option<String>,
    /// How often each real server answered.
    pub by_server: Counts,
    /// The longest that a short connection took.
    pub slowest: Duration,
    /// Held connections.
    pub held: usize,
    /// Those that broke, stood still at the end, or had other data than was sent.
    pub held_broken: usize,
    /// Bytes that went over them, both ways together.
    pub held_bytes: u64,
    /// Datagrams that were sent.
    pub echo_sent: u64,
    /// Datagrams that no answer came for.
    pub echo_lost: u64,
    /// The longest stall of the machine meanwhile.
    pub stalled: Duration,
}

/// A stall as long as the queue of a veth pair (256 packets) lasts at least, with what the rest of a load sends.
const OVERFLOW: Duration = Duration::from_millis(100);

impl Report {
    /// How many datagrams the lab itself may have lost: what was sent in a long stall, and by three who were late one after the other.
    fn excused(&self) -> u64 {
        let lost = self.stalled.as_nanos() * 3 / short::BEAT.as_nanos();
        if self.stalled < OVERFLOW { 0 } else { u64::try_from(lost).unwrap_or(u64::MAX) }
    }

    /// Fails unless every connection was answered, every held one lives, and no datagram was lost: none but those that a stall of the
    /// machine can have cost, when queues and buffers of the lab ran over.
    ///
    /// # Errors
    /// What was lost, with the first error.
    pub fn ensure_clean(&self) -> Result<()> {
        ensure!(self.failed == 0 && self.resets == 0 && self.held_broken == 0, "traffic was lost: {self:?}");
        ensure!(self.ok > 0, "there was no traffic: {self:?}");
        ensure!(self.echo_lost <= self.excused(), "datagrams were lost: {self:?}");
        Ok(())
    }
}

/// Traffic that flows.
#[derive(Debug)]
pub struct Load {
    mark: Mark,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads have in common.
#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    options: Options,
    end: Instant,
    stop: AtomicBool,
    /// Short connections that have been begun.
    begun: AtomicU64,
    ok: AtomicU64,
    /// Bytes on held connections.
    moved: AtomicU64,
    report: Mutex<Report>,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.stop.load(Relaxed) || Instant::now() >= self.end
    }

    fn report(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Load {
    /// Begins, and returns when every held connection has moved data and the first short ones were answered.
    ///
    /// # Errors
    /// When a connection cannot be made or nothing is answered within 10 s.
    pub fn start(client: &Client, server: SocketAddr, options: Options) -> Result<Self> {
        let shared = Arc::new(Shared {
            server,
            end: Instant::now() + options.longest,
            stop: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            ok: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            report: Mutex::default(),
            options,
        });
        let mut load = Self { mark: Mark::now(), shared: Arc::clone(&shared), threads: Vec::new() };
        if shared.options.held > 0 {
            let held = client.netns.enter(|| held::Held::open(&shared))?;
            load.spawn(None, move |shared| held.run(shared));
        }
        for _ in 0..shared.options.workers {
            load.spawn(Some(&client.netns), short::connections);
        }
        if let Some(echo) = shared.options.echo {
            load.spawn(Some(&client.netns), move |shared| short::echo(shared, echo));
        }
        let wanted = 4 * shared.options.held as u64 * held::PIECE as u64;
        let flows = wait_until(Duration::from_secs(10), || {
            shared.moved.load(Relaxed) >= wanted
                && (shared.options.workers == 0 || shared.ok.load(Relaxed) >= 3)
        });
        if !flows {
            let report = load.stop();
            bail!("no traffic flows: {report:?}");
        }
        Ok(load)
    }

    /// Waits until `more` further short connections have been answered.
    ///
    /// # Errors
    /// When that takes longer than 30 s.
    pub fn wait_for(&self, more: u64) -> Result<()> {
        let wanted = self.shared.ok.load(Relaxed) + more;
        ensure!(
            wait_until(Duration::from_secs(30), || self.shared.ok.load(Relaxed) >= wanted),
            "not {more} connections in 30 s: {:?}",
            self.report()
        );
        Ok(())
    }

    /// Short connections that have been answered so far.
    #[must_use]
    pub fn ok(&self) -> u64 {
        self.shared.ok.load(Relaxed)
    }

    /// How it stands; what is held, and what is lost of the datagrams, is known at the end only.
    #[must_use]
    pub fn report(&self) -> Report {
        self.shared.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends: every held connection must move data once more, and uploads must have arrived as they were sent.
    #[must_use]
    pub fn stop(mut self) -> Report {
        self.end();
        let mut report = self.report();
        report.ok = self.shared.ok.load(Relaxed);
        report.held_bytes = self.shared.moved.load(Relaxed);
        report.stalled = self.mark.worst();
        report
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.shared.report(|report| {
                    report.failed += 1;
                    report.first_error.get_or_insert_with(|| "a thread of the load panicked".to_owned());
                });
            }
        }
    }

    fn spawn(&mut self, netns: Option<&Netns>, work: impl FnOnce(&Shared) + Send + 'static) {
        let (shared, netns) = (Arc::clone(&self.shared), netns.cloned());
        self.threads.push(thread::spawn(move || match netns {
            None => work(&shared),
            Some(netns) => {
                let done = netns.enter(|| {
                    work(&shared);
                    Ok(())
                });
                if let Err(error) = done {
                    shared.report(|report| {
                        report.failed += 1;
                        report.first_error.get_or_insert_with(|| format!("{error:#}"));
                    });
                }
            }
        }));
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_stall_excuses_lost_datagrams() {
        let is_clean = |stalled: u64, echo_lost: u64| {
            let stalled = Duration::from_millis(stalled);
            Report { ok: 1, echo_sent: 1000, echo_lost, stalled, ..Report::default() }.ensure_clean().is_ok()
        };
        assert!(is_clean(0, 0) && !is_clean(0, 1) && !is_clean(99, 1));
        assert!(is_clean(100, 60) && !is_clean(100, 61));
    }
}
