//! xdirector on a machine of the scene.

use std::fs;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::{Instance, Kind, Machine, Router, toml_file};
use crate::Director;

/// An xdirector that runs VRRP. Its guard is in a session of its own and lives on for a moment when it is killed.
#[derive(Debug)]
pub struct Xdirector {
    /// The agent.
    pub director: Director,
}

impl Xdirector {
    /// Starts it with some instances.
    ///
    /// # Errors
    /// When it does not start; the error has its log.
    pub fn start(machine: &Machine, instances: &[Instance]) -> Result<Self> {
        Self::start_with(machine, &toml_file(machine.netns.name(), &["eth0"], instances))
    }

    /// Starts it with the text of a file.
    ///
    /// # Errors
    /// When it does not start; the error has its log.
    pub fn start_with(machine: &Machine, text: &str) -> Result<Self> {
        Ok(Self { director: Director::start(&machine.netns, text)? })
    }
}

impl Router for Xdirector {
    fn kind(&self) -> Kind {
        Kind::Xdirector
    }

    fn restart(&mut self) -> Result<()> {
        self.director.restart()
    }

    fn ask_to_stop(&mut self) -> Result<()> {
        self.director.signal(Signal::SIGTERM)
    }

    fn await_end(&mut self) -> Result<()> {
        self.director.stop()
    }

    fn kill(&mut self) -> Result<()> {
        self.director.signal(Signal::SIGKILL)?;
        self.director.kill()
    }

    fn freeze(&mut self) -> Result<()> {
        self.director.signal(Signal::SIGSTOP)
    }

    fn thaw(&mut self) -> Result<()> {
        self.director.signal(Signal::SIGCONT)
    }

    fn log(&self) -> String {
        self.director.log()
    }

    fn xdirector(&mut self) -> Option<&mut Director> {
        Some(&mut self.director)
    }
}

/// The guard of a running agent: its child whose first argument is `guard`.
///
/// # Errors
/// When it has none.
pub fn guard_of(director: &Director) -> Result<u32> {
    let agent = director.pid().context("it does not run")?;
    let entries = fs::read_dir("/proc").context("/proc")?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_guard = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // `pid (name) state parent ...`; the name may hold anything.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        parent == Some(agent) && arguments.split(|byte| *byte == 0).nth(1) == Some(b"guard")
    };
    pids.into_iter().find(is_guard).with_context(|| format!("no guard of {agent}: {}", director.log()))
}
