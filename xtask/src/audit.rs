//! `cargo xtask audit`: licences, bans and sources of every dependency, by cargo-deny and `deny.toml`.

use anyhow::{Context as _, Result, bail};

use crate::{setup, workspace::Workspace};

const VERSION: &str = "0.20.2";

/// Installs cargo-deny if it is missing, and runs it.
pub fn run(workspace: &Workspace) -> Result<()> {
    let root = workspace.tools().join(format!("cargo-deny-{VERSION}"));
    let binary = root.join("bin/cargo-deny");
    if !binary.is_file() {
        let label = format!("Building cargo-deny {VERSION} (some minutes, once)");
        setup::cargo_install(workspace, &label, &root, &["cargo-deny", "--version", VERSION], None)?;
    }
    // Not `advisories`: its database is a Git repository beside the registry, so the result would depend on
    // what the machine can reach.
    let status = std::process::Command::new(&binary)
        .args(["--workspace", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"])
        .current_dir(workspace.root())
        .status()
        .with_context(|| format!("could not start {}", binary.display()))?;
    if !status.success() {
        bail!("cargo-deny found violations of deny.toml");
    }
    Ok(())
}
