//! A running xdirector.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Netns,
    bpffs::BpfMount,
    dataplane,
    registry::{self, wait_until},
};

/// Names another binary than the release build of this workspace.
pub const BINARY_VARIABLE: &str = "XDIRECTOR_BIN";
/// Where `xdirector` finds the socket of a running instance.
const SOCKET_VARIABLE: &str = "XDIRECTOR_SOCKET";
/// Where `xdirector` pins its data plane.
const PINS_VARIABLE: &str = "XDIRECTOR_PINS";
/// Where it keeps what operators order.
const STATE_VARIABLE: &str = "XDIRECTOR_STATE";

/// How long xdirector may take to start: the kernel's verifier needs seconds where several labs start at once, and a machine that
/// is short of memory reads the program anew.
const START: Duration = Duration::from_mins(2);
/// How long it may take to end.
const END: Duration = Duration::from_secs(30);

/// `xdirector run` in a namespace. Dropping it stops it and prints its log; [`Director::stop`] prints nothing.
///
/// It pins its data plane in a BPF file system of its own, which goes with it.
#[derive(Debug)]
pub struct Director {
    netns: Netns,
    /// Before the directory: it is mounted there.
    pins: Option<BpfMount>,
    directory: TempDir,
    arguments: Vec<String>,
    /// Further variables of its environment, and of commands beside it.
    environment: BTreeMap<String, OsString>,
    /// Another binary than [`binary_path`].
    binary: Option<PathBuf>,
    child: Option<Child>,
}

impl Director {
    /// Starts xdirector in `netns` with the text of a configuration file, and waits until it answers.
    ///
    /// # Errors
    /// When it ends or does not answer within two minutes; the error holds its log.
    pub fn start(netns: &Netns, configuration: &str) -> Result<Self> {
        Self::start_with(netns, configuration, &[])
    }

    /// As [`Director::start`], with more arguments for `xdirector run`.
    ///
    /// # Errors
    /// As [`Director::start`].
    pub fn start_with(netns: &Netns, configuration: &str, arguments: &[&str]) -> Result<Self> {
        let mut director = Self::spawn(netns, configuration, arguments)?;
        director.await_answer()?;
        Ok(director)
    }

    /// Everything for xdirector but its process, which [`Director::restart`] begins.
    ///
    /// # Errors
    /// When its files cannot be made.
    pub fn prepared(netns: &Netns, configuration: &str) -> Result<Self> {
        Self::prepare(netns, configuration, &[])
    }

    /// Begins it where it should end at once: its exit status and its log.
    ///
    /// # Errors
    /// When it still runs after two minutes.
    pub fn refused(&mut self) -> Result<(ExitStatus, String)> {
        let earlier = self.log().len();
        self.launch()?;
        self.await_refusal(earlier)
    }

    fn await_refusal(&mut self, earlier: usize) -> Result<(ExitStatus, String)> {
        let mut ended = None;
        wait_until(START, || {
            ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            ended.is_some()
        });
        let log = self.log().split_off(earlier);
        let status =
            ended.with_context(|| format!("xdirector runs with this configuration; its log:\n{log}"))?;
        if let Some(child) = self.child.take() {
            registry::lock().children.remove(&child.id());
        }
        Ok((status, log))
    }

    /// Runs xdirector with a configuration that it should refuse: its exit status and its log.
    ///
    /// # Errors
    /// When it still runs after two minutes.
    pub fn expect_refusal(netns: &Netns, configuration: &str) -> Result<(ExitStatus, String)> {
        Self::prepare(netns, configuration, &[])?.refused()
    }

    fn spawn(netns: &Netns, configuration: &str, arguments: &[&str]) -> Result<Self> {
        let mut director = Self::prepare(netns, configuration, arguments)?;
        director.launch()?;
        Ok(director)
    }

    /// Makes its files.
    fn prepare(netns: &Netns, configuration: &str, arguments: &[&str]) -> Result<Self> {
        registry::install();
        // Named as the namespace is, so that the lab's clean-up finds it too.
        let directory = tempfile::Builder::new().prefix(&format!("{}-", netns.name())).tempdir()?;
        let file = directory.path().join("xdirector.toml");
        fs::write(&file, dataplane::named(configuration))?;
        registry::lock().directories.insert(directory.path().to_owned());
        let pins = BpfMount::new(directory.path().join("bpf"))?;
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Ok(Self {
            netns: netns.clone(),
            pins: Some(pins),
            directory,
            arguments,
            environment: BTreeMap::new(),
            binary: None,
            child: None,
        })
    }

    /// Begins a process with what is prepared; its log goes on where that of the last one ended.
    fn launch(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.directory.path().join("log"))?;
        let mut registry = registry::lock();
        let child = self
            .binary_command()
            .arg("run")
            .arg("--config")
            .arg(self.configuration())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for the process that owns the lab; it stops xdirector in its own order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} cannot be run", binary_path().display()))?;
        registry.children.insert(child.id());
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it answers.
    fn await_answer(&mut self) -> Result<()> {
        let mut ended = None;
        let answered = wait_until(START, || {
            ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            ended.is_some() || self.socket().exists() && self.command(&["status"]).is_ok()
        });
        match ended {
            Some(status) => bail!("xdirector ended with {status}; its log:\n{}", self.log()),
            None if !answered => bail!("xdirector does not answer; its log:\n{}", self.log()),
            None => Ok(()),
        }
    }

    /// Starts it again after [`Director::stop`] or [`Director::kill`], with the same files and pins.
    ///
    /// # Errors
    /// As [`Director::start`], and when it still runs.
    pub fn restart(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("it still runs");
        }
        self.launch()?;
        self.await_answer()
    }

    /// Writes another configuration file; it is read by the next reload or start.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_configuration(&self, text: &str) -> Result<()> {
        let new = self.directory.path().join("xdirector.toml.new");
        fs::write(&new, dataplane::named(text))?;
        Ok(fs::rename(new, self.configuration())?)
    }

    /// Where its data plane is pinned.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.directory.path().join("bpf/director")
    }

    /// A directory for files of a test, removed with it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The socket on which it answers.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// The configuration file that it runs with.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.directory.path().join("xdirector.toml")
    }

    /// All that it has printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The output of `xdirector <arguments>` beside it, with the same socket.
    ///
    /// # Errors
    /// When the command fails.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let out = self.output(arguments)?;
        if !out.status.success() {
            bail!("xdirector {}: {}", arguments.join(" "), String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(String::from_utf8(out.stdout)?)
    }

    /// What `xdirector <arguments>` beside it does, with the same socket: output and exit code, also when it fails.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        self.binary_command()
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{} cannot be run", binary_path().display()))
    }

    /// `xdirector <arguments>` beside it, begun and not waited for.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn spawn_command(&self, arguments: &[&str]) -> Result<Child> {
        self.binary_command()
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be run", binary_path().display()))
    }

    fn binary_command(&self) -> Command {
        let mut command = self.netns.command(self.binary.clone().unwrap_or_else(binary_path));
        command
            .env(SOCKET_VARIABLE, self.socket())
            .env(PINS_VARIABLE, self.pins())
            .env(STATE_VARIABLE, self.directory.path().join("state"))
            .envs(&self.environment);
        command
    }

    /// Writes another configuration file and reloads.
    ///
    /// # Errors
    /// When it is refused.
    pub fn reload(&self, text: &str) -> Result<String> {
        self.write_configuration(text)?;
        self.command(&["reload"])
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().context("it does not run")?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Sets a variable of its environment, and of commands beside it, from the next start on.
    pub fn set_environment(&mut self, name: &str, value: impl Into<OsString>) {
        self.environment.insert(name.to_owned(), value.into());
    }

    /// From the next start on it is another binary.
    pub fn set_binary(&mut self, path: &Path) {
        self.binary = Some(path.to_owned());
    }

    /// As [`Director::restart`]; says how long after its beginning it had printed each of `words`.
    ///
    /// # Errors
    /// As [`Director::restart`], or when one is not printed within two minutes.
    pub fn restart_timed(&mut self, words: &[&str]) -> Result<Vec<Duration>> {
        if self.child.is_some() {
            bail!("it still runs");
        }
        let earlier = self.log().len();
        let begun = Instant::now();
        self.launch()?;
        let mut times = Vec::new();
        for word in words {
            while !self.log()[earlier..].contains(word) {
                if begun.elapsed() > START {
                    bail!("\"{word}\" is not in its log:\n{}", self.log());
                }
                thread::sleep(Duration::from_millis(1));
            }
            times.push(begun.elapsed());
        }
        self.await_answer()?;
        Ok(times)
    }

    /// `xdirector status --json`.
    ///
    /// # Errors
    /// When the command fails or prints something else.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.command(&["status", "--json"])?)?)
    }

    /// `xdirector connections --json`.
    ///
    /// # Errors
    /// When the command fails or prints something else.
    pub fn connections(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.command(&["connections", "--json"])?)?)
    }

    /// Stops it with SIGTERM and waits for its end.
    ///
    /// # Errors
    /// When it does not end well within half a minute; the error holds its log.
    pub fn stop(&mut self) -> Result<()> {
        let Some(status) = self.end() else { return Ok(()) };
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("xdirector ended with {status}; its log:\n{}", self.log()),
            None => bail!("xdirector did not end on SIGTERM and was killed; its log:\n{}", self.log()),
        }
    }

    /// Stops it and removes its data plane, with `xdirector stop --detach`.
    ///
    /// # Errors
    /// When it does not end well within two minutes; the error holds its log.
    pub fn detach(&mut self) -> Result<()> {
        self.command(&["stop", "--detach"])?;
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let status = child.wait()?;
        registry::lock().children.remove(&child.id());
        if !status.success() {
            bail!("xdirector ended with {status}; its log:\n{}", self.log());
        }
        Ok(())
    }

    /// Kills it with SIGKILL, as the kernel would when memory runs out, and waits for its end.
    ///
    /// # Errors
    /// When the process cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child {
            child.kill()?;
            child.wait()?;
        }
        self.end();
        Ok(())
    }

    /// Ends the process: `None` when it had been stopped before, `Some(None)` when it had to be killed.
    fn end(&mut self) -> Option<Option<ExitStatus>> {
        let mut child = self.child.take()?;
        if let Ok(pid) = i32::try_from(child.id()) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let mut status = None;
        wait_until(END, || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        });
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        registry::lock().children.remove(&child.id());
        Some(status)
    }

    /// Leaves xdirector running, and its files in place, when this process ends.
    #[must_use]
    pub fn keep(mut self) -> PathBuf {
        let mut registry = registry::lock();
        if let Some(child) = self.child.take() {
            registry.children.remove(&child.id());
        }
        registry.directories.remove(self.directory.path());
        drop(registry);
        std::mem::forget(self.pins.take());
        self.directory.disable_cleanup(true);
        self.directory.path().to_owned()
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        // Who is satisfied calls `stop`; a test that left before has failed.
        if self.end().is_some() {
            eprintln!("the log of xdirector in {}:\n{}", self.netns.name(), self.log());
        }
        self.pins = None;
        registry::lock().directories.remove(self.directory.path());
    }
}

/// Where the binary is looked for.
#[must_use]
pub fn binary_path() -> PathBuf {
    env::var_os(BINARY_VARIABLE).map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/xdirector"),
        PathBuf::from,
    )
}
