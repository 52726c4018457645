//! `cargo xtask package`: the Debian package, `target/debian/xdirector_VERSION_ARCHITECTURE.deb`.
//!
//! What goes where is in lb-userspace/Cargo.toml, `[package.metadata.deb]`; unit, scripts and default configuration
//! are in packaging/. Here is what must be made first: manual pages and completions, by the program itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    progress,
    setup::{self, Need},
    workspace::{self, Workspace},
};

const CARGO_DEB: &str = "3.8.0";

/// Completions: the shell, and the name under which it looks for them.
const COMPLETIONS: [(&str, &str); 3] =
    [("bash", "xdirector"), ("zsh", "_xdirector"), ("fish", "xdirector.fish")];

/// Makes the package of what `cargo xtask build` has built; returns its path.
///
/// # Errors
/// A missing tool that cannot be installed, a program that was not built, or what cargo-deb says.
pub fn make(workspace: &Workspace) -> Result<PathBuf> {
    let cargo_deb = ensure_tools(workspace)?;
    let changelog = workspace.root().join("packaging/debian/changelog");
    let newest =
        fs::read_to_string(&changelog).with_context(|| format!("could not read {}", changelog.display()))?;
    check_changelog(&newest, env!("CARGO_PKG_VERSION"))?;
    generate(workspace)?;
    let packages = workspace.root().join("target/debian");
    // The test suite and a person with `*.deb` must find this one only.
    remove_packages(&packages)?;
    let mut command = Command::new(&cargo_deb);
    workspace::remove_cargo_run_variables(&mut command);
    command
        .current_dir(workspace.root())
        // `--strip`: line tables are for backtraces on a developer's machine, and ten times the size.
        .args(["--package", "lb-userspace", "--no-build", "--strip", "--locked", "--offline", "--output"])
        .arg(&packages);
    progress::run("Making the Debian package", &mut command, &workspace.log("package"))?;
    let made = list_packages(&packages)?;
    match made.as_slice() {
        [package] => Ok(package.clone()),
        other => bail!("cargo-deb made {} packages in {}", other.len(), packages.display()),
    }
}

/// Installs cargo-deb, and what it calls, as far as they are missing; returns its path.
pub fn ensure_tools(workspace: &Workspace) -> Result<PathBuf> {
    setup::ensure_packages(workspace, &[Need::Package])?;
    let root = workspace.tools().join(format!("cargo-deb-{CARGO_DEB}"));
    let binary = root.join("bin/cargo-deb");
    if !binary.is_file() {
        let label = format!("Building cargo-deb {CARGO_DEB} (some minutes, once)");
        setup::cargo_install(workspace, &label, &root, &["cargo-deb", "--version", CARGO_DEB], None)?;
    }
    Ok(binary)
}

/// Manual pages and completions, in `target/package`.
fn generate(workspace: &Workspace) -> Result<()> {
    let xdirector = workspace.release_binary("xdirector")?;
    ensure!(xdirector.is_file(), "{} is missing; `cargo xtask build` makes it", xdirector.display());
    let folder = workspace.root().join("target/package");
    if folder.exists() {
        // A page of a command that is no more must not be packaged.
        fs::remove_dir_all(&folder).with_context(|| format!("could not remove {}", folder.display()))?;
    }
    let completions = folder.join("completions");
    fs::create_dir_all(&completions).with_context(|| format!("could not make {}", completions.display()))?;
    output(Command::new(&xdirector).arg("man").arg(folder.join("man")))?;
    for (shell, name) in COMPLETIONS {
        let text = output(Command::new(&xdirector).args(["completions", shell]))?;
        ensure!(!text.is_empty(), "`xdirector completions {shell}` printed nothing");
        let path = completions.join(name);
        fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
    }
    Ok(())
}

fn output(command: &mut Command) -> Result<Vec<u8>> {
    let name = format!("{command:?}");
    let output = command.output().with_context(|| format!("could not start {name}"))?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output.stdout)
}

/// Debian's changelog begins with the version of the package, which dpkg's tools read from there.
fn check_changelog(text: &str, version: &str) -> Result<()> {
    let expected = format!("xdirector ({version}-1) ");
    let first = text.lines().next().unwrap_or_default();
    ensure!(
        first.starts_with(&expected),
        "packaging/debian/changelog begins with `{first}`; expected an entry `{expected}...` for this version"
    );
    Ok(())
}

fn list_packages(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            packages.push(path);
        }
    }
    Ok(packages)
}

fn remove_packages(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    for package in list_packages(folder)? {
        fs::remove_file(&package).with_context(|| format!("could not remove {}", package.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelog_must_know_the_version() {
        let text = "xdirector (0.2.0-1) unstable; urgency=medium\n\n  * More.\n";
        assert!(check_changelog(text, "0.2.0").is_ok());
        let error = check_changelog(text, "0.2.1").unwrap_err().to_string();
        assert!(error.contains("`xdirector (0.2.1-1) ...`"), "{error}");
        assert!(check_changelog("", "0.2.0").is_err());
    }

    #[test]
    fn only_packages_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("debian");
        remove_packages(&inner).unwrap();
        for name in ["xdirector_0.1.0-1_amd64.deb", "notes.txt"] {
            fs::write(inner.join(name), "").unwrap();
        }
        assert_eq!(list_packages(&inner).unwrap().len(), 1);
        remove_packages(&inner).unwrap();
        assert!(list_packages(&inner).unwrap().is_empty());
        assert!(inner.join("notes.txt").exists());
    }
}
