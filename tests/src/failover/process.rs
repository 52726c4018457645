//! Another program's daemon in a namespace: its process group, its log, its end.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::registry::{self, wait_until};

/// How long a daemon may take to end.
const END: Duration = Duration::from_secs(10);

/// A running daemon with what it has started. Dropping it kills them all.
#[derive(Debug)]
pub struct Process {
    child: Child,
    program: String,
}

impl Process {
    /// Starts `command` as the leader of a process group; what it prints goes to the end of `log`.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn spawn(command: &mut Command, log: &Path) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let program = command.get_program().to_string_lossy().into_owned();
        let mut registry = registry::lock();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{program} cannot be run; `cargo xtask setup` installs it"))?;
        registry.children.insert(child.id());
        Ok(Self { child, program })
    }

    /// Its process, and the number of its group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended by itself.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Signals the whole group.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        killpg(Pid::from_raw(i32::try_from(self.pid())?), signal).with_context(|| self.program.clone())
    }

    /// Waits for its end, after a signal.
    ///
    /// # Errors
    /// When it does not end; it is killed then.
    pub fn wait(mut self) -> Result<()> {
        let ended = wait_until(END, || !self.is_running());
        ensure!(ended, "{} does not end", self.program);
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut registry = registry::lock();
        if let Ok(pid) = i32::try_from(self.pid()) {
            // Also when the leader has ended: it is not waited for below yet, so the number is still the group's.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGCONT);
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
        registry.children.remove(&self.child.id());
    }
}

/// A directory of a lab's own, which its clean-up finds too.
#[derive(Debug)]
pub struct Directory(tempfile::TempDir);

impl Directory {
    /// Makes one for the machine `name` and something in it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str, what: &str) -> Result<Self> {
        registry::install();
        let directory = tempfile::Builder::new().prefix(&format!("{name}-{what}-")).tempdir()?;
        registry::lock().directories.insert(directory.path().to_owned());
        Ok(Self(directory))
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The text of a file in it; empty where there is none.
    #[must_use]
    pub fn read(&self, name: &str) -> String {
        fs::read(self.file(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Writes a file in it.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let file = self.file(name);
        fs::write(&file, text)?;
        Ok(file)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        registry::lock().directories.remove(self.0.path());
    }
}
