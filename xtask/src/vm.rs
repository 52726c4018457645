//! `cargo xtask vm`: a command in a kernel of Debian's, in an emulated machine whose root is this machine's own.
//!
//! The guest sees the host's files read-only, and its changes stay in its memory, so that no command in it harms the
//! host. Only the directories where cargo builds are shared for writing: tests and benchmarks leave results there.
//! /tmp, /var/tmp and /run are new and empty. There is no network but loopback; tests make their own.

mod clock;
mod guest;
mod kernel;
mod qemu;
mod watch;

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{self, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::{
    kernel::{Kernel, Series},
    qemu::{Machine, Qemu},
};
use crate::{
    setup::{self, Need},
    workspace::Workspace,
};

/// What to run, and in which machine.
#[derive(Args)]
pub struct Options {
    /// The series of Debian's kernels
    #[arg(long, value_enum, default_value = "6.12")]
    kernel: Series,
    /// The machine's memory, in which also its temporary files are
    #[arg(long, default_value = "2G", value_name = "SIZE")]
    memory: String,
    /// Its processors; a second one costs more than it brings unless the host has idle ones
    #[arg(long, default_value_t = 1, conflicts_with = "counted", value_parser = clap::value_parser!(u32).range(1..))]
    cpus: u32,
    /// One processor on which an instruction is a nanosecond: slow, and the same each time
    #[arg(long)]
    counted: bool,
    /// A variable for the command, beside HOME, PATH, RUST_*, XDIRECTOR_* and the like
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = assignment)]
    variables: Vec<(OsString, OsString)>,
    /// End the machine after so many seconds
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    timeout: u64,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

impl Options {
    /// A program of this workspace, in the machine whose instructions are counted.
    pub fn counted(program: PathBuf, args: Vec<OsString>) -> Self {
        Self {
            kernel: Series::V6_12,
            memory: "3G".to_owned(),
            cpus: 1,
            counted: true,
            variables: Vec::new(),
            timeout: 1800,
            command: [program.into()].into_iter().chain(args).collect(),
        }
    }
}

/// Fetches everything that any machine needs.
pub fn ensure(workspace: &Workspace) -> Result<()> {
    setup::ensure_packages(workspace, &[Need::Vm])?;
    Qemu::ensure(workspace)?;
    qemu::busybox(workspace)?;
    for series in [Series::V6_12, Series::V6_1] {
        Kernel::ensure(workspace, series)?;
    }
    Ok(())
}

/// The exit code when the machine failed, so that the command's own codes can be told from it.
const NO_EXIT_CODE: u8 = 125;

/// Runs the command; its exit code is the result, or 125 when there is none because the machine cannot be had, does not
/// boot, ends before the command, or takes too long.
pub fn run(workspace: &Workspace, options: &Options) -> ExitCode {
    match in_machine(workspace, options) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(NO_EXIT_CODE)
        }
    }
}

fn in_machine(workspace: &Workspace, options: &Options) -> Result<u8> {
    if env::consts::ARCH != "x86_64" {
        bail!("the virtual machine runs this machine's programs, so it needs an x86-64 machine");
    }
    setup::ensure_packages(workspace, &[Need::Vm])?;
    let qemu = Qemu::ensure(workspace)?;
    let busybox = qemu::busybox(workspace)?;
    let kernel = Kernel::ensure(workspace, options.kernel)?;

    let shares = shares(workspace)?;
    let directory = RunDirectory::make(workspace)?;
    // Also the machine's host name, which has no dots.
    let name = format!("vm-{}-{}", options.kernel.name().replace('.', "-"), process::id());
    let layout =
        guest::Layout { name: &name, project: workspace.root(), modules: &kernel.modules, shares: &shares };
    let initramfs = directory.path.join("initramfs");
    write(&initramfs, &guest::initramfs(&busybox, &read_all(&kernel.boot_modules)?, &layout))?;
    let here = env::current_dir().context("the current directory is gone")?;
    let variables = guest::environment(env::vars_os(), &options.variables);
    let shared = directory.shared();
    write(&shared.join("command.sh"), &guest::command_script(&here, &variables, &options.command))?;
    write(&shared.join("main.sh"), guest::MAIN)?;

    let console = workspace.log(&name);
    write(&console, &[])?;
    let machine = Machine {
        kernel: &kernel.image,
        initramfs: &initramfs,
        memory: &options.memory,
        cpus: if options.counted { 1 } else { options.cpus },
        counted: options.counted,
        // Where time is counted, the emulator's own: an instruction is a nanosecond.
        tsc_kilohertz: if options.counted { 1_000_000 } else { clock::kilohertz() },
        console: &console,
        run: &shared,
        shares: &shares,
    };
    let mut command = qemu.command();
    command.args(qemu::arguments(&machine));
    let code = watch::run(&mut command, &shared, &console, Duration::from_secs(options.timeout))?;
    if watch::kernel_complained(&console) {
        eprintln!("The kernel {} complained meanwhile; see {}.", kernel.release, console.display());
    } else {
        // Nobody will ask for it, and a suite makes many.
        let _ = fs::remove_file(&console);
    }
    Ok(code)
}

/// Where cargo builds, and where the tools of this project write, which need not be the same.
fn shares(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let own = workspace.root().join("target");
    let cargos = workspace.target()?;
    let mut shares = vec![own];
    if !cargos.starts_with(&shares[0]) {
        shares.push(cargos);
    }
    for share in &shares {
        fs::create_dir_all(share).with_context(|| format!("could not make {}", share.display()))?;
    }
    Ok(shares)
}

/// The files of one run. Its name has this process's number, so that runs at the same time do not meet.
struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    fn make(workspace: &Workspace) -> Result<Self> {
        let runs = workspace.vm().join("run");
        remove_dead(&runs);
        let run = Self { path: runs.join(process::id().to_string()) };
        fs::create_dir_all(run.shared()).with_context(|| format!("could not make {}", run.path.display()))?;
        Ok(run)
    }

    /// What the guest sees of it.
    fn shared(&self) -> PathBuf {
        self.path.join("shared")
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        // A later run removes what is left.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what killed runs left.
fn remove_dead(runs: &Path) {
    for entry in fs::read_dir(runs).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let alive = Path::new("/proc").join(&name).exists();
        if !alive || name.to_str() == Some(&process::id().to_string()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn read_all(paths: &[PathBuf]) -> Result<Vec<(OsString, Vec<u8>)>> {
    paths
        .iter()
        .map(|path| {
            let content = fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
            Ok((path.file_name().unwrap_or_default().to_owned(), content))
        })
        .collect()
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("could not make {}", directory.display()))?;
    }
    fs::write(path, content).with_context(|| format!("could not write {}", path.display()))
}

fn assignment(text: &str) -> Result<(OsString, OsString), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("must be NAME=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn the_commands_options_are_its_own() {
        let line = ["vm", "--kernel", "6.1", "--env", "A=b=c", "--", "ip", "--kernel", "-h"];
        let options = Cli::try_parse_from(line).unwrap().options;
        assert_eq!(options.kernel, Series::V6_1);
        assert_eq!(options.variables, [("A".into(), "b=c".into())]);
        assert_eq!(options.command, ["ip", "--kernel", "-h"]);
        for wrong in [&["vm"][..], &["vm", "--counted", "--cpus", "2", "true"], &["vm", "--env", "A", "true"]]
        {
            assert!(Cli::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_dead_runs_left_is_removed() {
        let runs = tempfile::tempdir().unwrap();
        // No process has the first number; the second is the oldest one.
        for name in ["0", "1"] {
            fs::create_dir(runs.path().join(name)).unwrap();
        }
        remove_dead(runs.path());
        assert!(!runs.path().join("0").exists() && runs.path().join("1").exists());
    }
}
