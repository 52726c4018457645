//! `cargo xtask test`: every check and test, one after the other, and a count as the last line.

mod machine;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, ExitCode, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::Value;

use crate::{
    ebpf_build, fuzz, invariants, package, progress,
    setup::{self, Need},
    test_output::{Counts, Reader},
    vm,
    workspace::{self, Workspace},
};

/// The package whose integration tests need root, namespaces and the built programs.
const PRIVILEGED: &str = "lab";

/// A test command that prints nothing for so long hangs; a run must end to be of use.
const PATIENCE: Duration = Duration::from_secs(600);

/// Each machine takes up to 4 GiB of memory.
const MOST_MACHINES: usize = 4;

/// What of it to run.
#[derive(Args)]
pub struct Options {
    /// Run only the tests whose name contains this, and none of the checks
    filter: Option<String>,
    /// Leave out what needs root (the eBPF build and the suites of the lab) and the fuzz targets
    #[arg(long)]
    unit: bool,
    /// Leave out what runs on other kernels, in virtual machines
    #[arg(long)]
    host: bool,
}

/// Runs everything, also after a failure.
///
/// # Errors
/// Only what keeps the run from starting; failures of tests are in the count and the exit code.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if !options.unit {
        workspace::require_root("test")?;
    }
    let suites = Suites::read(&workspace.metadata()?)?;
    let started = Instant::now();
    let mut steps = Steps { workspace, total: Counts::default() };
    if options.filter.is_none() {
        steps.check("fmt", &["fmt", "--all", "--check"], &[]);
        steps.check("fmt of fuzz", &["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"], &[]);
        let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        steps.check("clippy", &clippy, &[]);
        steps.step("invariants", report_invariants);
    }
    let built = options.unit || {
        steps.step("build", |workspace| {
            setup::ensure_packages(workspace, &[Need::Lab, Need::Failover])?;
            ebpf_build::build(workspace)?;
            Ok(Counts::single("build", true))
        })
    };
    if built && !options.unit {
        steps.step("package", |workspace| {
            package::make(workspace)?;
            Ok(Counts::single("package", true))
        });
    }
    let filter = options.filter.as_deref();
    let mut unit = vec!["test", "--workspace", "--lib", "--bins", "--no-fail-fast"];
    unit.extend(suites.host.iter().flat_map(|suite| ["--test", suite.as_str()]));
    steps.tests("unit and property tests", &unit, filter);
    if filter.is_none() {
        let doc = ["doc", "--workspace", "--no-deps", "--document-private-items"];
        steps.check("doc", &doc, &[("RUSTDOCFLAGS", "-D warnings")]);
    }
    if filter.is_none() && !options.unit {
        steps.step("fuzz", fuzz::test);
    }
    if !options.unit {
        for suite in suites.privileged.iter().filter(|suite| *suite != machine::ONLY_THERE) {
            if built {
                let args = ["test", "--release", "-p", PRIVILEGED, "--no-fail-fast", "--test", suite];
                steps.tests(suite, &args, filter);
            } else {
                steps.total.skipped.push(format!("{suite}: the build failed"));
            }
        }
    }
    if !options.unit && !options.host {
        if built {
            steps.machines(filter);
        } else {
            let skipped = machine::RUNS.iter().map(|run| format!("{}: the build failed", run.name));
            steps.total.skipped.extend(skipped);
        }
    }
    summarize(&steps.total, started);
    Ok(if steps.total.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The integration test programs of the workspace.
#[derive(Debug, Default, PartialEq, Eq)]
struct Suites {
    host: Vec<String>,
    privileged: Vec<String>,
}

impl Suites {
    fn read(metadata: &Value) -> Result<Self> {
        let mut suites = Self::default();
        for package in metadata["packages"].as_array().context("cargo metadata: no packages")? {
            let names = package["targets"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|target| {
                    target["kind"].as_array().is_some_and(|kinds| kinds.contains(&"test".into()))
                })
                .filter_map(|target| target["name"].as_str().map(ToOwned::to_owned));
            if package["name"] == PRIVILEGED {
                suites.privileged.extend(names);
            } else {
                suites.host.extend(names);
            }
        }
        suites.host.sort();
        suites.privileged.sort();
        Ok(suites)
    }
}

/// Runs steps and adds up what they say.
struct Steps<'a> {
    workspace: &'a Workspace,
    total: Counts,
}

impl Steps<'_> {
    /// Runs one step under a header; returns whether nothing in it failed.
    fn step(&mut self, name: &str, body: impl FnOnce(&Workspace) -> Result<Counts>) -> bool {
        println!("\n=== {name}");
        let started = Instant::now();
        let counts = body(self.workspace).unwrap_or_else(|error| {
            println!("error: {error:#}");
            Counts::single(name, false)
        });
        println!("--- {name}: {} in {}", counts.line(), progress::seconds(started.elapsed()));
        let fine = counts.failed.is_empty();
        self.total.add(counts);
        fine
    }

    /// The suites on other kernels. An emulated machine has one processor, so as many run as this machine has.
    fn machines(&mut self, filter: Option<&str>) {
        let mut prepared = Vec::new();
        for run in machine::RUNS {
            match run.command(self.workspace, filter) {
                Ok(command) => prepared.extend(command.map(|command| (run.name, command))),
                Err(error) => drop(self.step(run.name, |_| Err(error))),
            }
        }
        if prepared.is_empty() {
            return;
        }
        // Once, before several machines want the same things at the same time.
        let is_ready = self.step("kernels", |workspace| {
            vm::ensure(workspace)?;
            Ok(Counts::single("kernels", true))
        });
        if !is_ready {
            return;
        }
        println!("\n=== on other kernels: {} suites in virtual machines", prepared.len());
        let at_once = thread::available_parallelism().map_or(1, usize::from).min(MOST_MACHINES);
        let waiting = Mutex::new(prepared.into_iter());
        let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
        let done = Mutex::new(&mut self.total);
        thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    while let Some((name, mut command)) = next() {
                        let started = Instant::now();
                        let show = |line: &str| println!("{name}: {line}");
                        let counts = read_tests(name, &mut command, PATIENCE, show).unwrap_or_else(|error| {
                            println!("{name}: error: {error:#}");
                            Counts::single(name, false)
                        });
                        println!("--- {name}: {} in {}", counts.line(), progress::seconds(started.elapsed()));
                        done.lock().unwrap_or_else(PoisonError::into_inner).add(counts);
                    }
                });
            }
        });
    }

    /// A cargo command that counts as one test.
    fn check(&mut self, name: &str, args: &[&str], variables: &[(&str, &str)]) {
        self.step(name, |workspace| {
            let status = workspace
                .cargo()
                .args(args)
                .envs(variables.iter().copied())
                .status()
                .context("could not start cargo")?;
            Ok(Counts::single(name, status.success()))
        });
    }

    /// A cargo command that runs test programs.
    fn tests(&mut self, name: &str, args: &[&str], filter: Option<&str>) {
        self.step(name, |workspace| {
            let mut command = workspace.cargo();
            // `--show-output` is how a test's reason for skipping gets out without the noise of the others.
            command.args(args).args(["--", "--show-output"]).args(filter);
            read_tests(name, &mut command, PATIENCE, |line| println!("{line}"))
        });
    }
}

fn report_invariants(workspace: &Workspace) -> Result<Counts> {
    let violations = invariants::check(workspace)?;
    for violation in &violations {
        println!("{violation}");
    }
    Ok(Counts::single("invariants", violations.is_empty()))
}

/// Runs a command that speaks libtest's language, and passes on what a person wants to see at once.
fn read_tests(name: &str, command: &mut Command, patience: Duration, show: impl Fn(&str)) -> Result<Counts> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // The reader knows libtest's words without colours.
        .env("CARGO_TERM_COLOR", "never")
        .spawn()
        .context("could not start cargo")?;
    let (sender, lines) = mpsc::channel();
    let stdout = child.stdout.take().context("no pipe from cargo")?;
    let stderr = child.stderr.take().context("no pipe from cargo")?;
    let errors = sender.clone();
    // Two threads only read; one place decides, so that the order of lines is the order of their arrival.
    thread::spawn(move || each_line(stdout, &sender));
    thread::spawn(move || each_line(stderr, &errors));
    let mut reader = Reader::default();
    let mut hanging = None;
    loop {
        match lines.recv_timeout(patience) {
            Ok(line) => {
                if reader.line(&line) {
                    show(&line);
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                show(&format!("nothing was printed for {}; ending it", progress::seconds(patience)));
                match &hanging {
                    None => signal("TERM", hanging.insert(with_descendants(child.id()))),
                    Some(pids) => {
                        // They did not heed it. Whoever still holds the pipes after this is not waited for.
                        signal("KILL", pids);
                        break;
                    }
                }
            }
        }
    }
    let status = child.wait().context("could not wait for cargo")?;
    Ok(reader.finish(name, status.success() && hanging.is_none()))
}

/// A child of this process and everything that it started, parents first.
fn with_descendants(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // `pid (name) state parent ...`; the name may hold spaces and parentheses.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| pid));
        next += 1;
    }
    family
}

fn signal(name: &str, pids: &[u32]) {
    // Some may have ended meanwhile; `kill` says so and signals the others. The shell's own: the program of that name is not on
    // every machine.
    let _ = Command::new("sh")
        .args(["-c", "kill \"$@\"", "sh"])
        .arg(format!("-{name}"))
        .args(pids.iter().map(u32::to_string))
        .stderr(Stdio::null())
        .status();
}

fn each_line(stream: impl std::io::Read, lines: &mpsc::Sender<String>) {
    // Bytes that are not UTF-8 (a packet that a test printed) must not end the reading.
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            return;
        }
    }
}

fn summarize(total: &Counts, started: Instant) {
    println!();
    for skipped in &total.skipped {
        println!("skipped: {skipped}");
    }
    for failed in &total.failed {
        println!("FAILED: {failed}");
    }
    println!("in {}", progress::seconds(started.elapsed()));
    println!("{}", total.line());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_labs_suites_are_privileged() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "lab", "targets": [
                { "name": "lab", "kind": ["lib"] },
                { "name": "netns", "kind": ["test"] },
                { "name": "cli", "kind": ["test"] },
            ]},
            { "name": "lb-userspace", "targets": [{ "name": "config", "kind": ["test"] }] },
        ]});
        let suites = Suites::read(&metadata).unwrap();
        assert_eq!(suites.privileged, ["cli", "netns"]);
        assert_eq!(suites.host, ["config"]);
    }

    #[test]
    fn both_streams_and_the_exit_code_count() {
        let script = "echo 'test a ... FAILED'; printf '\\377\\n'; echo noise >&2; \
                      echo 'test result: FAILED. 1 passed; 1 failed; 0 ignored'; exit 101";
        let read = |script: &str, patience| {
            let mut command = Command::new("sh");
            read_tests("step", command.args(["-c", script]), patience, |_| ()).unwrap()
        };
        let counts = read(script, PATIENCE);
        assert_eq!((counts.passed, counts.failed), (1, vec!["step: a".to_owned()]));
        assert_eq!(read("kill -9 $$", PATIENCE).line(), "0 passed, 1 failed, 0 skipped");
        // A grandchild that hangs and holds the pipes open.
        let counts = read("sh -c 'trap \"\" TERM; sleep 3600; sleep 3600'; true", Duration::from_millis(300));
        assert_eq!(counts.failed, ["step: did not finish; see its output above"]);
    }
}
