//! keepalived on a machine of the scene. Its pid files are its own, and so is its directory: any number of them run side by
//! side.

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::{Directory, Instance, Kind, Machine, Process, Router, keepalived_file, router::await_word};
use crate::Netns;

/// A keepalived with a file.
#[derive(Debug)]
pub struct Keepalived {
    netns: Netns,
    directory: Directory,
    process: Option<Process>,
    instances: usize,
}

impl Keepalived {
    /// Starts it with some instances.
    ///
    /// # Errors
    /// When it does not start; the error has its log.
    pub fn start(machine: &Machine, instances: &[Instance]) -> Result<Self> {
        Self::start_with(&machine.netns, &keepalived_file(machine.name, instances), instances.len())
    }

    /// Starts it with the text of a file that has so many instances.
    ///
    /// # Errors
    /// When it does not start; the error has its log.
    pub fn start_with(netns: &Netns, text: &str, instances: usize) -> Result<Self> {
        let directory = Directory::new(netns.name(), "keepalived")?;
        directory.write("keepalived.conf", text)?;
        let mut keepalived = Self { netns: netns.clone(), directory, process: None, instances };
        keepalived.restart()?;
        Ok(keepalived)
    }

    fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("keepalived does not run")
    }
}

impl Router for Keepalived {
    fn kind(&self) -> Kind {
        Kind::Keepalived
    }

    fn restart(&mut self) -> Result<()> {
        // One that was killed has left them, and a number may be in use again by another process.
        for file in ["pid", "vrrp.pid"] {
            let _ = std::fs::remove_file(self.directory.file(file));
        }
        let earlier = self.log().len();
        let mut command = self.netns.command("keepalived");
        command
            .args(["--dont-fork", "--log-console", "--log-detail", "--no-syslog", "--vrrp", "--use-file"])
            .arg(self.directory.file("keepalived.conf"))
            .arg("--pid")
            .arg(self.directory.file("pid"))
            .arg("--vrrp_pid")
            .arg(self.directory.file("vrrp.pid"));
        let mut process = Process::spawn(&mut command, &self.directory.file("log"))?;
        let directory = &self.directory;
        await_word(|| directory.read("log"), earlier, "Entering ", self.instances, || process.is_running())?;
        self.process = Some(process);
        Ok(())
    }

    fn ask_to_stop(&mut self) -> Result<()> {
        // The parent tells its child; the group would get it twice.
        let pid = i32::try_from(self.process()?.pid())?;
        Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM)?)
    }

    fn await_end(&mut self) -> Result<()> {
        self.process.take().context("keepalived does not run")?.wait()
    }

    fn kill(&mut self) -> Result<()> {
        self.process()?.signal(Signal::SIGKILL)?;
        self.await_end()
    }

    fn freeze(&mut self) -> Result<()> {
        self.process()?.signal(Signal::SIGSTOP)
    }

    fn thaw(&mut self) -> Result<()> {
        self.process()?.signal(Signal::SIGCONT)
    }

    fn log(&self) -> String {
        self.directory.read("log")
    }
}
