//! What all programs that run VRRP have in common, so that a test is written once for each of them.

use std::{fmt, time::Duration};

use anyhow::{Result, ensure};

use super::{Frr, Instance, Keepalived, Machine, Xdirector};
use crate::registry::wait_until;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// This project's.
    Xdirector,
    /// keepalived of the system.
    Keepalived,
    /// FRR's vrrpd with its zebra.
    Frr,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xdirector => "xdirector",
            Self::Keepalived => "keepalived",
            Self::Frr => "frr",
        })
    }
}

/// A router that runs VRRP on one machine of the scene. Dropping it ends it.
pub trait Router: Send {
    /// Which program it is.
    fn kind(&self) -> Kind;

    /// Starts it again after it has ended, with the same files, and waits until it takes part.
    ///
    /// # Errors
    /// When it does not; the error has its log.
    fn restart(&mut self) -> Result<()>;

    /// SIGTERM, and at once back.
    ///
    /// # Errors
    /// When it does not run.
    fn ask_to_stop(&mut self) -> Result<()>;

    /// Waits for its end after [`Router::ask_to_stop`].
    ///
    /// # Errors
    /// When it does not end.
    fn await_end(&mut self) -> Result<()>;

    /// SIGKILL to all of its processes that are one group, as whoever kills the service does. The signal is sent when this
    /// begins; it waits for the end.
    ///
    /// # Errors
    /// When it does not run.
    fn kill(&mut self) -> Result<()>;

    /// SIGSTOP to the same.
    ///
    /// # Errors
    /// When it does not run.
    fn freeze(&mut self) -> Result<()>;

    /// SIGCONT to the same.
    ///
    /// # Errors
    /// When it does not run.
    fn thaw(&mut self) -> Result<()>;

    /// All that it has printed.
    fn log(&self) -> String;

    /// This one as xdirector, for what only that can do.
    fn xdirector(&mut self) -> Option<&mut crate::Director> {
        None
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// As [`Router::await_end`].
    fn stop(&mut self) -> Result<()> {
        self.ask_to_stop()?;
        self.await_end()
    }
}

/// Starts a program with its instances on a machine, and waits until it takes part.
///
/// # Errors
/// When it does not; the error has its log.
pub fn start(kind: Kind, machine: &Machine, instances: &[Instance]) -> Result<Box<dyn Router>> {
    Ok(match kind {
        Kind::Xdirector => Box::new(Xdirector::start(machine, instances)?),
        Kind::Keepalived => Box::new(Keepalived::start(machine, instances)?),
        Kind::Frr => Box::new(Frr::start(machine, instances)?),
    })
}

/// Waits until a daemon's log, from `earlier` on, has `word` at least `count` times.
pub(super) fn await_word(
    log: impl Fn() -> String,
    earlier: usize,
    word: &str,
    count: usize,
    mut is_running: impl FnMut() -> bool,
) -> Result<()> {
    let mut lives = true;
    let there = wait_until(Duration::from_secs(20), || {
        lives = is_running();
        !lives || log().get(earlier..).is_some_and(|new| new.matches(word).count() >= count)
    });
    ensure!(lives, "it has ended; its log:\n{}", log());
    ensure!(there, "\"{word}\" is not in its log:\n{}", log());
    Ok(())
}
