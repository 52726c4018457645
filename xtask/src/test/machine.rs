//! Suites that need another kernel than this machine's: each in a virtual machine of its own (`cargo xtask vm`).

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::workspace::Workspace;

/// The suite that runs only there.
pub const ONLY_THERE: &str = "ipvs";

/// One suite, or some of its tests, on one kernel.
pub struct Run {
    /// What people see.
    pub name: &'static str,
    kernel: &'static str,
    suite: &'static str,
    /// Names of tests contain one of these; empty: all.
    filters: &'static [&'static str],
    /// What moves the packets where a test does not say so itself.
    dataplane: &'static str,
}

/// All of them, those that take longest first.
pub const RUNS: &[Run] = &[
    Run { name: "6.12: checks with IPVS", kernel: "6.12", suite: "health", filters: &[], dataplane: "ipvs" },
    Run { name: "6.12: ipvs", kernel: "6.12", suite: ONLY_THERE, filters: &[], dataplane: "xdp" },
    Run {
        name: "6.12: failover with IPVS",
        kernel: "6.12",
        suite: "failover",
        filters: &["scenarios::"],
        dataplane: "ipvs",
    },
    Run {
        name: "6.12: drains with IPVS",
        kernel: "6.12",
        suite: "change",
        filters: &["drain::"],
        dataplane: "ipvs",
    },
    Run {
        name: "6.12: scenarios with IPVS",
        kernel: "6.12",
        suite: "netns",
        filters: &["scenarios::", "forwarding::", "transfer::"],
        dataplane: "ipvs",
    },
    Run { name: "6.1: packets", kernel: "6.1", suite: "prog", filters: &[], dataplane: "xdp" },
    Run { name: "6.12: packets", kernel: "6.12", suite: "prog", filters: &[], dataplane: "xdp" },
];

impl Run {
    /// Builds the suite, and gives the command that runs it in the machine; `None` when no test has such a name, which saves
    /// the boot.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn command(&self, workspace: &Workspace, filter: Option<&str>) -> Result<Option<Command>> {
        let program = build(workspace, self.suite)?;
        let named = match filter {
            Some(filter) => Some(self.named(&program, filter)?),
            None => None,
        };
        if named.as_ref().is_some_and(Vec::is_empty) {
            return Ok(None);
        }
        let mut command = Command::new(env::current_exe().context("where is xtask?")?);
        command
            .current_dir(workspace.root().join("tests"))
            .args(["vm", "--kernel", self.kernel, "--memory", "4G", "--timeout", "900"])
            .arg("--env")
            .arg(format!("XDIRECTOR_LAB_DATAPLANE={}", self.dataplane))
            // Nothing is skipped there for want of IPVS.
            .args(["--env", "XDIRECTOR_LAB_NEEDS_IPVS=1"])
            .arg("--")
            .arg(program)
            // Its one processor is emulated: tests beside each other would only wait longer.
            .args(["--show-output", "--test-threads", "1"]);
        match named {
            Some(names) => command.arg("--exact").args(names),
            None => command.args(self.filters),
        };
        Ok(Some(command))
    }
}

impl Run {
    /// The tests of this run whose name contains `filter`.
    fn named(&self, program: &Path, filter: &str) -> Result<Vec<String>> {
        let listed = Command::new(program).args(["--list", filter]).output().context("--list")?;
        if !listed.status.success() {
            bail!("{} --list: {}", program.display(), listed.status);
        }
        let text = String::from_utf8_lossy(&listed.stdout);
        let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
        let is_ours =
            |name: &&str| self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter));
        Ok(names.filter(is_ours).map(ToOwned::to_owned).collect())
    }
}

/// The program of a suite.
fn build(workspace: &Workspace, suite: &str) -> Result<PathBuf> {
    let mut child = workspace
        .cargo()
        .args(["test", "--release", "-p", "lab", "--no-run", "--message-format", "json", "--test", suite])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("could not start cargo")?;
    let out = child.stdout.take().context("no pipe from cargo")?;
    let mut program = None;
    for line in BufReader::new(out).lines() {
        let Ok(message) = serde_json::from_str::<Value>(&line?) else { continue };
        if message["reason"] == "compiler-artifact"
            && message["target"]["name"] == suite
            && let Some(path) = message["executable"].as_str()
        {
            program = Some(PathBuf::from(path));
        }
    }
    if !child.wait()?.success() {
        bail!("the suite {suite} cannot be built");
    }
    program.with_context(|| format!("cargo names no program of the suite {suite}"))
}
