//! HAProxy on a machine of the scene.

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::{Directory, Process};
use crate::Netns;

/// A HAProxy with a file.
#[derive(Debug)]
pub struct Haproxy {
    netns: Netns,
    directory: Directory,
    process: Option<Process>,
}

impl Haproxy {
    /// Starts it with the text of a file.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn start(netns: &Netns, text: &str) -> Result<Self> {
        let directory = Directory::new(netns.name(), "haproxy")?;
        directory.write("haproxy.cfg", text)?;
        let mut haproxy = Self { netns: netns.clone(), directory, process: None };
        haproxy.restart()?;
        Ok(haproxy)
    }

    /// Its process, for scripts that look whether it lives: the file has the number while it should run.
    #[must_use]
    pub fn pid_file(&self) -> std::path::PathBuf {
        self.directory.file("pid")
    }

    /// Starts it again after [`Haproxy::kill`].
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn restart(&mut self) -> Result<()> {
        let mut command = self.netns.command("haproxy");
        command.args(["-db", "-f"]).arg(self.directory.file("haproxy.cfg"));
        let process = Process::spawn(&mut command, &self.directory.file("log"))?;
        self.directory.write("pid", &process.pid().to_string())?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.process.take().context("HAProxy does not run")?;
        process.signal(Signal::SIGKILL)?;
        process.wait()
    }

    /// All that it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.directory.read("log")
    }
}
