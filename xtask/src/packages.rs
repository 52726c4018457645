//! Debian packages: which are missing, and their installation.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    progress,
    workspace::{self, Workspace},
};

/// A package and the file or command that shows it is there, however it came.
pub struct Package {
    pub name: String,
    pub shown_by: ShownBy,
}

/// What proves that a package's content is present.
pub enum ShownBy {
    /// A program on PATH or in the system's sbin directories.
    Command(&'static str),
    /// A file at a fixed place.
    File(PathBuf),
}

impl Package {
    /// A package that is needed for one program.
    pub fn with_command(name: &str, command: &'static str) -> Self {
        Self { name: name.to_owned(), shown_by: ShownBy::Command(command) }
    }

    /// The same for a program that may be given by its whole path, where it is not for people to start.
    pub fn shown_by(name: &str, program: &'static str) -> Self {
        if program.starts_with('/') {
            Self { name: name.to_owned(), shown_by: ShownBy::File(program.into()) }
        } else {
            Self::with_command(name, program)
        }
    }

    fn is_there(&self) -> bool {
        match &self.shown_by {
            ShownBy::Command(command) => find_command(command).is_some(),
            ShownBy::File(path) => path.exists(),
        }
    }

    fn missing_thing(&self) -> String {
        match &self.shown_by {
            ShownBy::Command(command) => format!("the command `{command}`"),
            ShownBy::File(path) => path.display().to_string(),
        }
    }
}

/// Packages whose installation on Debian starts a daemon of the same name which a developer's machine does not want.
const SERVICES: [&str; 3] = ["frr", "haproxy", "keepalived"];

/// Installs those of `packages` whose content is not there.
///
/// # Errors
/// Not a Debian system, or not root, or apt-get refuses: each names what is missing.
pub fn ensure(workspace: &Workspace, packages: &[Package]) -> Result<()> {
    let missing: Vec<_> = packages.iter().filter(|package| !package.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|package| package.name.as_str()).collect();
    if !is_debian() {
        let things: Vec<_> = missing.iter().map(|package| package.missing_thing()).collect();
        bail!(
            "missing: {}.\nThis is not a Debian system, so install them with its own package manager \
             (on Debian they come with {}).",
            things.join(", "),
            names.join(", ")
        );
    }
    install(workspace, &names, Refresh::IfNeeded)?;
    for package in missing {
        if !package.is_there() {
            bail!("{} is installed, but {} is still missing", package.name, package.missing_thing());
        }
    }
    Ok(())
}

/// Whether to read the archive's package lists again first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Only when the lists that are there do not lead to an installation.
    IfNeeded,
    /// Always: the newest version is wanted.
    First,
}

/// Installs packages with apt-get, without questions, recommendations, removals or started services.
pub fn install(workspace: &Workspace, names: &[&str], refresh: Refresh) -> Result<()> {
    let list = names.join(" ");
    if !workspace::is_root() {
        bail!(
            "Debian packages are missing and only root can install them:\n\n    \
             sudo apt-get update && sudo apt-get install --no-install-recommends {list}\n"
        );
    }
    let label = format!("Installing {list}");
    if refresh == Refresh::IfNeeded
        && simulate(names)
        && run_install(&label, names, &workspace.log("apt-install")).is_ok()
    {
        return Ok(());
    }
    update(workspace)?;
    run_install(&label, names, &workspace.log("apt-install"))
}

/// Reads the archive's package lists again.
pub fn update(workspace: &Workspace) -> Result<()> {
    progress::run("Reading Debian's package lists", apt_get().arg("update"), &workspace.log("apt-update"))
}

/// Whether apt-get is this system's way to install.
pub fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && find_command("apt-get").is_some()
}

/// A program on PATH, or in the directories of administrators' programs, which a user's PATH often lacks.
pub fn find_command(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// `apt-get` without questions.
pub fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C.UTF-8")
        // Another apt may be at work, for instance a machine's unattended upgrades.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .stdin(Stdio::null());
    command
}

fn install_command(names: &[&str]) -> Command {
    let mut command = apt_get();
    // `--no-remove`: a package that would push out one of the user's own is an error to read, not an act.
    command.args(["install", "-y", "--no-install-recommends", "--no-remove"]).args(names);
    command
}

fn simulate(names: &[&str]) -> bool {
    install_command(names)
        .arg("--simulate")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn run_install(label: &str, names: &[&str], log: &Path) -> Result<()> {
    let quiet: Vec<_> = SERVICES.into_iter().filter(|service| names.contains(service)).collect();
    let systemd = Path::new("/run/systemd/system").is_dir();
    if systemd {
        // A runtime mask lives in /run only and is lifted below; the postinst's start then does nothing.
        systemctl("mask", &quiet)?;
    }
    let mut command = install_command(names);
    if !quiet.is_empty() {
        // The same for System V scripts: in run level 1 invoke-rc.d starts no network service.
        command.env("RUNLEVEL", "1");
    }
    let result = progress::run(label, &mut command, log);
    if systemd {
        systemctl("unmask", &quiet)?;
    }
    result?;
    for service in quiet {
        // Nor at the next start of the machine.
        let status = Command::new("update-rc.d")
            .args([service, "disable"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("could not start update-rc.d")?;
        if !status.success() {
            eprintln!(
                "warning: `update-rc.d {service} disable` failed; {service} may start with this machine"
            );
        }
    }
    Ok(())
}

fn systemctl(verb: &str, services: &[&str]) -> Result<()> {
    if services.is_empty() {
        return Ok(());
    }
    let output = Command::new("systemctl")
        .args([verb, "--runtime"])
        .args(services.iter().map(|service| format!("{service}.service")))
        .stdin(Stdio::null())
        .output()
        .context("could not start systemctl")?;
    if !output.status.success() {
        bail!("`systemctl {verb} --runtime` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_installed() {
        let here = Package { name: "x".into(), shown_by: ShownBy::File("/proc/self/status".into()) };
        assert!(ensure(&Workspace::find().unwrap(), &[Package::with_command("sh", "sh"), here]).is_ok());
    }

    #[test]
    fn commands_are_found_and_absent_ones_are_not() {
        assert!(find_command("sh").is_some());
        assert!(find_command("no-such-command-anywhere").is_none());
        assert!(!Package::with_command("x", "no-such-command-anywhere").is_there());
    }
}
