//! The thread: waits for descriptors and timers, and lets the [engine](super::engine) take its turns.

use std::{
    io,
    os::fd::AsFd as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::{eventfd::EventFd, time::TimeSpec},
};
use tokio::sync::mpsc as tokio_mpsc;

use super::{
    Roles, Wanted,
    engine::{Engine, Order, Ready},
    network::Network,
    pace::{Breath, stalled},
    realtime,
    state::StateFile,
    system::System,
};
use crate::{config::vrrp::VrrpSettings, vrrp::Report};

/// How many orders are taken in a turn.
const ORDERS: usize = 64;
/// How long the guard has to end, of the time that a stop has.
const FOR_THE_GUARD: Duration = Duration::from_millis(500);

/// What the thread is started with.
#[derive(Debug)]
pub struct Start {
    pub wanted: Wanted,
    pub roles: Arc<dyn Roles>,
    pub state: Option<PathBuf>,
    pub reports: tokio_mpsc::UnboundedSender<Report>,
    pub orders: mpsc::Receiver<Order>,
    /// Readable when there are orders.
    pub wake: Arc<EventFd>,
    /// Hears how the start went.
    pub started: mpsc::SyncSender<io::Result<()>>,
}

/// The thread's life.
pub fn run(start: Start) {
    let Start { wanted, roles, state, reports, orders, wake, started } = start;
    let is_guarded = wanted.config.settings.guard;
    let last_words = reports.clone();
    let made = System::open().and_then(|system| {
        let mut engine = Engine::new(system, wanted, roles, StateFile::new(state), reports);
        match begin(&mut engine, realtime::apply) {
            Ok(()) => Ok(engine),
            Err(error) => {
                engine.abandon();
                Err(error)
            }
        }
    });
    let mut engine = match made {
        Ok(engine) => engine,
        Err(error) => return drop(started.send(Err(error))),
    };
    // From here on whoever has asked for it holds on to the thread, and ends it.
    if started.send(Ok(())).is_err() {
        return engine.stop(FOR_THE_GUARD);
    }
    let life = catch_unwind(AssertUnwindSafe(|| live(&mut engine, &orders, &wake)));
    let Err(panic) = life else { return };
    let why = panic.downcast_ref::<&str>().map(|why| (*why).to_owned());
    let why = why.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    // The addresses must not stay with a thread that does nothing for them. What cannot be removed here the guard removes,
    // whose socket goes with the engine.
    let is_clean = catch_unwind(AssertUnwindSafe(|| engine.abandon())).is_ok();
    let addresses = match (is_clean, is_guarded) {
        (true, _) => "its addresses were given up",
        (false, true) => "the guard gives its addresses up",
        (false, false) => "its addresses may be there still",
    };
    let text = format!("the VRRP driver has failed, {addresses}: {why}");
    drop(last_words.send(Report::Notice { subject: "driver".to_owned(), is_bad: true, text }));
}

/// Starts the engine, with everything about the thread that is wanted.
///
/// Memory is locked first, which takes long in a large process: from the start on an owner is master, and must not be silent.
/// The thread is an ordinary one until it has started, for what a dead run has left may be more work than a real-time thread
/// may do without a rest.
pub fn begin<N: Network>(
    engine: &mut Engine<N>,
    mut apply: impl FnMut(&VrrpSettings, Option<&VrrpSettings>) -> Vec<String>,
) -> io::Result<()> {
    let settings = engine.config().settings.clone();
    let ordinary = VrrpSettings { realtime_priority: None, ..settings.clone() };
    let mut warnings = apply(&ordinary, None);
    engine.start()?;
    // Not locked once more: that would be as long.
    let unlocked = |settings| VrrpSettings { lock_memory: false, ..settings };
    warnings.extend(apply(&unlocked(settings), Some(&unlocked(ordinary))));
    engine.warn(warnings);
    Ok(())
}

fn live(engine: &mut Engine<System>, orders: &mpsc::Receiver<Order>, wake: &EventFd) {
    let mut settings = engine.config().settings.clone();
    let mut last = Instant::now();
    let mut breath = Breath::new(last);
    let mut has_more = false;
    loop {
        let began = Instant::now();
        let beat = last + settings.watchdog / 4;
        let deadline = if has_more { began } else { engine.deadline().min(beat) };
        let mut ready = wait(engine.network(), wake, deadline.saturating_duration_since(began));
        let now = Instant::now();
        ready.stalled = stalled(last, deadline, now);
        last = now;

        let taken = take(orders, wake);
        has_more = taken.len() == ORDERS;
        let stop = taken.iter().find_map(|order| match order {
            Order::Stop(until) => Some(*until),
            _ => None,
        });
        engine.turn(ready, taken);
        if let Some(until) = stop {
            let left = until.saturating_duration_since(Instant::now());
            return engine.stop(left.min(FOR_THE_GUARD));
        }
        if engine.config().settings != settings {
            settings = apply_other(engine, &settings);
        }
        if let Some(rest) = breath.after_wait(began, now)
            && settings.realtime_priority.is_some()
        {
            thread::sleep(rest);
        }
    }
}

fn apply_other(engine: &mut Engine<System>, before: &VrrpSettings) -> VrrpSettings {
    let settings = engine.config().settings.clone();
    let warnings = realtime::apply(&settings, Some(before));
    engine.warn(warnings);
    settings
}

/// Waits for something to do, at most for `limit`.
fn wait(system: &System, wake: &EventFd, limit: Duration) -> Ready {
    let mut descriptors =
        vec![PollFd::new(wake.as_fd(), PollFlags::POLLIN), PollFd::new(system.monitor(), PollFlags::POLLIN)];
    descriptors.extend(system.sockets().map(|socket| PollFd::new(socket, PollFlags::POLLIN)));
    let sockets = descriptors.len();
    // Every turn asks for its answer, whatever has woken the thread.
    descriptors.extend(system.guard().map(|(socket, flags)| PollFd::new(socket, flags)));
    // A signal or a lack of kernel memory ends the wait early: then there is nothing to do but what is due.
    if ppoll(&mut descriptors, Some(TimeSpec::from_duration(limit)), None).is_err() {
        return Ready::default();
    }
    let is_ready = |descriptor: &PollFd<'_>| descriptor.any().unwrap_or(true);
    Ready {
        changes: is_ready(&descriptors[1]),
        packets: descriptors[2..sockets].iter().any(is_ready),
        stalled: None,
    }
}

fn take(orders: &mpsc::Receiver<Order>, wake: &EventFd) -> Vec<Order> {
    // The counter first: what is sent from here on wakes again. An error: nobody has written.
    let _ = wake.read();
    orders.try_iter().take(ORDERS).collect()
}
