//! An agent of the release build. [`lab::Director`] waits for a whole status; here the first answer counts.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use lab::{
    Netns, director,
    registry::{self, wait_until},
};
use lb_userspace::api::{Client, Stop};
use nix::{
    mount::{MsFlags, mount},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// How long it may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether it answers.
const LOOK: Duration = Duration::from_millis(2);
/// In the agent's log: what comes before the microseconds from a check's result to the maps.
const LATENCY: &str = "a check's result is in force after ";

/// A running agent; dropping it ends it, with all that it has in the kernel.
pub struct Agent {
    child: Child,
    client: Client,
    directory: TempDir,
}

impl Agent {
    /// Starts one from nothing; gives the time until it answered.
    pub fn start(host: &Netns, configuration: &str) -> Result<(Self, Duration)> {
        let directory = tempfile::Builder::new().prefix(&format!("{}-", host.name())).tempdir()?;
        fs::write(directory.path().join("xdirector.toml"), configuration)?;
        registry::lock().directories.insert(directory.path().to_owned());
        // At this place the lab's clean-up looks for it too.
        let bpf = directory.path().join("bpf");
        fs::create_dir(&bpf)?;
        mount(Some("bpf"), &bpf, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount a BPF file system at {}", bpf.display()))?;
        let log = File::create(directory.path().join("log"))?;
        let mut command = host.command(director::binary_path());
        command
            .arg("run")
            .arg("--config")
            .arg(directory.path().join("xdirector.toml"))
            .arg("--socket")
            .arg(directory.path().join("socket"))
            .arg("--pins")
            .arg(bpf.join("director"))
            .arg("--state")
            .arg(directory.path().join("state"))
            .env("XDIRECTOR_LOG", "info,xdirector::latency=debug")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let client = Client::new(directory.path().join("socket"))?;
        let mut registry = registry::lock();
        let started = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("{} cannot be run", director::binary_path().display()))?;
        registry.children.insert(child.id());
        drop(registry);
        let mut agent = Self { child, client, directory };
        agent.await_answer(started)?;
        Ok((agent, started.elapsed()))
    }

    fn await_answer(&mut self, started: Instant) -> Result<()> {
        while self.client.events().is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("xdirector ended with {status}; its log:\n{}", self.log());
            }
            ensure!(started.elapsed() < PATIENCE, "xdirector does not answer; its log:\n{}", self.log());
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// For requests.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that it has had so far.
    pub fn processor_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        ticks(&stat)
            .context("no processor time in /proc/PID/stat")
            .map(|ticks| Duration::from_millis(ticks * 10))
    }

    /// Writes another configuration file.
    pub fn write(&self, configuration: &str) -> Result<()> {
        Ok(fs::write(self.directory.path().join("xdirector.toml"), configuration)?)
    }

    /// All that it has printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Times from a check's result to the maps, so far.
    pub fn latencies(&self) -> Vec<Duration> {
        latencies(&self.log())
    }

    /// Ends it and its data plane.
    pub fn stop(mut self) -> Result<()> {
        self.client.stop(Stop { detach: true }).context("it does not stop")?;
        let has_ended = wait_until(PATIENCE, || matches!(self.child.try_wait(), Ok(Some(_))));
        ensure!(has_ended, "xdirector does not end; its log:\n{}", self.log());
        Ok(())
    }

    fn pins(&self) -> PathBuf {
        self.directory.path().join("bpf")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let mut registry = registry::lock();
        if let (Ok(None), Ok(pid)) = (self.child.try_wait(), i32::try_from(self.child.id())) {
            // It may end by itself in this moment.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
        registry.children.remove(&self.child.id());
        registry::unmount(&self.pins());
        registry.directories.remove(self.directory.path());
    }
}

/// User and system time; the kernel shows them in hundredths of a second (`USER_HZ`). The name of the program before them may
/// hold anything but ends with the last bracket.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn latencies(log: &str) -> Vec<Duration> {
    log.lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(LATENCY)?;
            rest.strip_suffix(" us")?.parse().ok().map(Duration::from_micros)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_from_behind_the_name() {
        assert_eq!(ticks("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 40 2 0 0"), Some(42));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn latencies_are_read_from_the_log() {
        let log = "2026-01-01T00:00:00Z  INFO web: up\n\
                   2026-01-01T00:00:00Z DEBUG a check's result is in force after 123 us\n";
        assert_eq!(latencies(log), [Duration::from_micros(123)]);
    }
}
