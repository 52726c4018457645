//! The terminal as a whole screen, and its return to the shell whatever happens.

use std::{
    io::{self, Write as _},
    panic, process,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::sys::signal::{SigSet, Signal};
use ratatui::crossterm::{
    cursor::{Hide, Show},
    execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};

/// Who gets the keys while the screen is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// The program, each at once; Ctrl-C is a key too.
    ToTheProgram,
    /// Nobody; Ctrl-C is a signal as ever.
    ToTheShell,
}

static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// The alternate screen, until it is dropped. After a panic of any thread it is given back first, then the message is
/// printed, then the process ends.
#[derive(Debug)]
pub struct Screen(());

impl Screen {
    /// Takes the screen.
    ///
    /// # Errors
    ///
    /// When standard output is no terminal or does not do as told.
    pub fn enter(keys: Keys) -> io::Result<Self> {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            previous(info);
            // A screen without the thread that fills it would stand still for ever.
            process::exit(101);
        }));
        IS_TAKEN.store(true, Ordering::SeqCst);
        let screen = Self(());
        if keys == Keys::ToTheProgram {
            enable_raw_mode()?;
        }
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Once, and as far as it goes: the terminal may be gone.
fn give_back() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        let _ = disable_raw_mode();
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = io::stdout().flush();
    }
}

/// Calls `stop` at the first SIGINT, SIGTERM or SIGHUP; the second ends the process at once. To be called before the
/// process has other threads: those that exist already would still die of the signal.
///
/// # Errors
///
/// When the kernel gives no thread.
pub fn on_stop_signal(stop: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        if signals.wait().is_ok() {
            stop();
        }
        if let Ok(signal) = signals.wait() {
            give_back();
            process::exit(128 + signal as i32);
        }
    })?;
    Ok(())
}
