//! Where things are, and how a child process is kept from inheriting what cargo meant for this one.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The project's directory.
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace that this xtask belongs to.
    pub fn find() -> Result<Self> {
        // `cargo run` sets the variable; the compiled-in path serves a binary that was started by hand.
        let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest)
            .parent()
            .filter(|root| root.join("lb-ebpf/Cargo.toml").is_file())
            .with_context(|| format!("{} is not in xdirector's workspace", manifest.display()))?;
        Ok(Self { root: root.to_owned() })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The tools which set-up builds; inside `target`, so that nothing outside the clone changes.
    pub fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// Where a long step's output goes.
    pub fn log(&self, step: &str) -> PathBuf {
        self.root.join("target/log").join(step).with_extension("log")
    }

    /// The target directory of the eBPF build. Always here, also under CARGO_TARGET_DIR: the agent's build
    /// script and the tests look for the objects in this place.
    pub fn bpf_target(&self) -> PathBuf {
        self.root.join("target/bpf")
    }

    /// The target directory of the fuzz targets, whose compiler flags are their own.
    pub fn fuzz_target(&self) -> PathBuf {
        self.root.join("target/fuzz")
    }

    /// What `cargo xtask vm` unpacks and shares with its machines.
    pub fn vm(&self) -> PathBuf {
        self.root.join("target/vm")
    }

    /// `cargo` of the host toolchain, started in the root with a closed standard input.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        remove_cargo_run_variables(&mut command);
        command.current_dir(&self.root).stdin(Stdio::null());
        command
    }

    /// `cargo metadata --no-deps`: the workspace's packages, their targets and direct dependencies.
    pub fn metadata(&self) -> Result<Value> {
        let output = self
            .cargo()
            .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
            .output()
            .context("could not start `cargo metadata`")?;
        if !output.status.success() {
            bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).context("`cargo metadata` printed something else than JSON")
    }

    /// Where cargo builds.
    pub fn target(&self) -> Result<PathBuf> {
        let metadata = self.metadata()?;
        let target = metadata["target_directory"].as_str().context("cargo metadata: no target_directory")?;
        Ok(target.into())
    }

    /// The path of a program that `cargo build --release` makes.
    pub fn release_binary(&self, name: &str) -> Result<PathBuf> {
        Ok(self.target()?.join("release").join(name))
    }
}

/// Whether this process may install packages, make namespaces and load programs.
pub fn is_root() -> bool {
    // The owner of /proc/self is the effective user.
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Stops with the command line to use when this process is not root's.
pub fn require_root(command: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    bail!(
        "`cargo xtask {command}` makes network namespaces and loads eBPF programs, so it must run as root:\n\
         \n    {}\n\
         \nFiles in target/ then belong to root.",
        sudo_hint(&format!("cargo xtask {command}"), |name| env::var_os(name))
    )
}

/// A `sudo` command line that keeps this user's Rust installation.
fn sudo_hint(command: &str, variable: impl Fn(&str) -> Option<OsString>) -> String {
    let home = PathBuf::from(variable("HOME").unwrap_or_default());
    let directory = |name, default: &str| {
        variable(name).map_or_else(|| home.join(default), PathBuf::from).display().to_string()
    };
    format!(
        "sudo env \"PATH=$PATH\" CARGO_HOME={} RUSTUP_HOME={} {command}",
        directory("CARGO_HOME", ".cargo"),
        directory("RUSTUP_HOME", ".rustup"),
    )
}

/// Removes what `cargo run` set for this process, so that a child sees the user's own environment.
///
/// Otherwise a build started from here and one started by hand would differ and rebuild each other's work.
pub fn remove_cargo_run_variables(command: &mut Command) {
    for (name, value) in env::vars_os() {
        match name.to_str() {
            Some("LD_LIBRARY_PATH") => {
                match library_path_without_cargo(&value) {
                    Some(rest) => command.env(name, rest),
                    None => command.env_remove(name),
                };
            }
            Some(known) if is_cargo_run_variable(known) => {
                command.env_remove(name);
            }
            _ => {}
        }
    }
}

/// Removes everything that was meant for the host's compiler, for a child that uses another toolchain.
pub fn remove_host_toolchain_variables(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_host_toolchain_variable) {
            command.env_remove(name);
        }
    }
}

fn is_cargo_run_variable(name: &str) -> bool {
    name == "OUT_DIR"
        || name == "CARGO_CRATE_NAME"
        || name == "CARGO_PRIMARY_PACKAGE"
        || ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix))
}

fn is_host_toolchain_variable(name: &str) -> bool {
    // What a user needs to reach the registry, or to find their installation, is kept.
    const KEPT: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "RUSTUP_HOME",
    ];
    if KEPT.iter().any(|prefix| name.starts_with(prefix)) {
        return false;
    }
    name == "CARGO"
        || name == "RUSTUP_TOOLCHAIN"
        || name == "LD_LIBRARY_PATH"
        || ["CARGO_", "RUSTC", "RUSTDOC", "RUSTFLAGS"].iter().any(|prefix| name.starts_with(prefix))
}

/// `cargo run` and rustup prepend the target directory and the toolchain's libraries.
fn library_path_without_cargo(value: &OsStr) -> Option<OsString> {
    let ours = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let rest: Vec<_> = env::split_paths(value)
        .filter(|path| !path.as_os_str().is_empty())
        .filter(|path| !ours.as_ref().is_some_and(|ours| path.starts_with(ours)))
        .filter(|path| !path.iter().any(|part| part == "rustlib" || part == "toolchains"))
        .collect();
    if rest.is_empty() { None } else { env::join_paths(rest).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_toolchain_is_removed_but_not_the_way_to_the_registry() {
        for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
            assert!(is_host_toolchain_variable(name), "{name}");
        }
        for name in ["RUSTC_WRAPPER", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "CARGO_PROFILE_RELEASE_DEBUG"]
        {
            assert!(is_host_toolchain_variable(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY", "RUSTUP_HOME", "PATH", "HOME"] {
            assert!(!is_host_toolchain_variable(name), "{name}");
        }
    }

    #[test]
    fn the_users_own_library_path_survives() {
        let value = OsStr::new("/home/u/.rustup/toolchains/stable/lib:/opt/lib:/x/lib/rustlib/host/lib");
        assert_eq!(library_path_without_cargo(value), Some("/opt/lib".into()));
        assert_eq!(library_path_without_cargo(OsStr::new("/u/toolchains/stable/lib")), None);
    }

    #[test]
    fn the_sudo_hint_names_the_users_own_rust() {
        let hint = sudo_hint("cargo xtask demo", |name| (name == "HOME").then(|| "/home/ann".into()));
        assert_eq!(
            hint,
            "sudo env \"PATH=$PATH\" CARGO_HOME=/home/ann/.cargo RUSTUP_HOME=/home/ann/.rustup cargo xtask demo"
        );
        let moved = sudo_hint("c", |name| (name == "CARGO_HOME").then(|| "/opt/cargo".into()));
        assert!(moved.contains("CARGO_HOME=/opt/cargo "), "{moved}");
    }
}
