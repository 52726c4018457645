//! Looks through the connection table in a thread of its own: a table of millions takes milliseconds, which the agent's other
//! work should not wait for.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use lb_common::server::Server;

use super::{conntable::ConnectionTable, mapped::Mapped, syscall, tables};

/// How often a part of the table is looked through, and how large a part: all of it every two seconds, so a connection ends at
/// most that much later than its timeout says.
const PERIOD: Duration = Duration::from_millis(250);
const PARTS: u32 = 8;

/// The connection table, what time it is for it, and where the next look begins.
pub struct Sweeper {
    table: ConnectionTable,
    servers: Arc<Mapped<Server>>,
    /// The program that tells the time: jiffies are seen inside the kernel only.
    clock: OwnedFd,
    /// Ticks after which a client that says nothing while its server goes on sending may have lost its router.
    silence: u32,
    next_bucket: u32,
    passes: Arc<AtomicU64>,
}

impl Sweeper {
    /// Of a table.
    pub fn new(table: ConnectionTable, servers: Arc<Mapped<Server>>, clock: OwnedFd, silence: u32) -> Self {
        Self { table, servers, clock, silence, next_bucket: 0, passes: Arc::default() }
    }

    /// The present time, in ticks.
    ///
    /// # Errors
    /// When the kernel does not tell it.
    pub fn now(&self) -> anyhow::Result<u32> {
        syscall::run_on_empty_frame(&self.clock).context("the kernel does not tell the time")
    }

    /// How often all of the table has been looked through.
    pub fn passes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.passes)
    }

    /// Ends connections whose time is over in one of `parts` parts of the table; goes on where it stopped.
    ///
    /// # Errors
    /// When the kernel does not tell the time.
    pub fn sweep(&mut self, parts: u32) -> anyhow::Result<usize> {
        let now = self.now()?;
        let buckets = self.table.buckets();
        let end = (self.next_bucket + buckets.div_ceil(parts).max(1)).min(buckets);
        let range = self.next_bucket..end;
        let is_last = end == buckets;
        self.next_bucket = if is_last { 0 } else { end };
        let servers = &self.servers;
        let ended = self.table.sweep(range, now, self.silence, |number| tables::in_use(servers, number));
        if is_last {
            self.passes.fetch_add(1, SeqCst);
        }
        Ok(ended)
    }
}

/// The thread. Dropping it ends it.
pub struct Keeper {
    /// Closed to end the thread.
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Begins.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(sweeper: Arc<Mutex<Sweeper>>) -> std::io::Result<Self> {
        let (end, ended) = mpsc::channel();
        let thread = thread::Builder::new().name("sweep".to_owned()).spawn(move || {
            while ended.recv_timeout(PERIOD) == Err(mpsc::RecvTimeoutError::Timeout) {
                match sweeper.lock().unwrap_or_else(PoisonError::into_inner).sweep(PARTS) {
                    Ok(0) => {}
                    Ok(ended) => tracing::trace!("{ended} connections ended"),
                    Err(error) => tracing::error!("cannot end connections whose time is over: {error:#}"),
                }
            }
        })?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that ends connections had failed");
        }
    }
}
