//! Adverts every 10 ms on a machine that has no time.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use lab::failover::Kind;

use super::{Config, script::Pair};

/// Threads that do nothing but count.
pub const LOOPS: usize = 8;

/// What happened meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// How long the loops ran.
    pub time: Duration,
    /// How often a machine took the address that should not have.
    pub takeovers: usize,
    /// The longest time between two adverts of the master.
    pub longest_gap: Duration,
}

/// Runs two directors of a program beside busy loops.
pub fn run(kind: Kind, time: Duration) -> Result<Seen> {
    let pair = Pair::start(kind, Config::V3Fast)?;
    let watched = pair.watch()?;
    let begun = Instant::now();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..LOOPS {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        thread::sleep(time);
        over.store(true, Ordering::Relaxed);
    });
    let (takeovers, longest_gap) = watched.end(begun)?;
    pair.stop()?;
    Ok(Seen { time, takeovers, longest_gap })
}
