//! Debian packages unpacked below `target`, for what a developer's machine should not have installed: other kernels,
//! or an emulator that conflicts with packages of the machine's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{packages, progress, workspace::Workspace};

/// Makes the directory `into` from packages, unless it is there already.
///
/// `names` says which, from what apt knows; it is asked again after apt's lists were read anew, because the versions
/// that old lists name may have left the archive. `prepare` finishes the directory, which appears under its name only
/// when it is complete, so that an interrupted set-up or a second one at the same time does no harm.
///
/// # Errors
/// Not a Debian system, or the archive does not have the packages.
pub fn ensure(
    workspace: &Workspace,
    what: &str,
    into: &Path,
    names: impl Fn() -> Result<Vec<String>>,
    prepare: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    if into.is_dir() {
        return Ok(());
    }
    ensure!(packages::is_debian(), "{what} is taken from Debian's archive, and this is not a Debian system");
    let staging = into.with_extension(format!("new-{}", process::id()));
    let removed = Removed(staging.clone());
    let packages = staging.join("packages");
    let content = staging.join("content");
    for directory in [&packages, &content] {
        fs::create_dir_all(directory).with_context(|| format!("could not make {}", directory.display()))?;
    }
    if download(workspace, what, &packages, &names).is_err() {
        packages::update(workspace)?;
        download(workspace, what, &packages, &names)?;
    }
    unpack(workspace, what, &packages, &content)?;
    prepare(&content)?;
    if let Err(error) = fs::rename(&content, into)
        && !into.is_dir()
    {
        return Err(error).with_context(|| format!("could not make {}", into.display()));
    }
    drop(removed);
    Ok(())
}

/// A directory that is removed at the end, however that comes.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // What cannot be removed lies below `target`, under a name that no later run looks at.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn download(
    workspace: &Workspace,
    what: &str,
    into: &Path,
    names: &impl Fn() -> Result<Vec<String>>,
) -> Result<()> {
    let mut command = packages::apt_get();
    // As root apt would give the work to a user of its own, who may not be allowed to write here.
    command.args(["-o", "APT::Sandbox::User=root", "download"]).args(names()?).current_dir(into);
    progress::run(&format!("Downloading {what}"), &mut command, &workspace.log("apt-download"))
}

fn unpack(workspace: &Workspace, what: &str, packages: &Path, into: &Path) -> Result<()> {
    let mut command = Command::new("sh");
    command
        .args([
            "-ec",
            "into=$1; shift; for package; do dpkg-deb --extract \"$package\" \"$into\"; done",
            "sh",
        ])
        .arg(into);
    for entry in fs::read_dir(packages).with_context(|| format!("could not list {}", packages.display()))? {
        let path = entry.context("could not list the downloaded packages")?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            command.arg(path);
        }
    }
    if command.get_args().count() == 4 {
        bail!("apt-get downloaded no package of {what}; see target/log/apt-download.log");
    }
    progress::run(&format!("Unpacking {what}"), &mut command, &workspace.log("dpkg-deb"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unpacked_is_not_fetched_again() {
        let directory = tempfile::tempdir().unwrap();
        let never = || -> Result<Vec<String>> { panic!("apt was asked") };
        ensure(&Workspace::find().unwrap(), "x", directory.path(), never, |_| panic!("prepared")).unwrap();
    }
}
