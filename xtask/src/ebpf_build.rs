//! `cargo xtask build`: the eBPF programs with their own toolchain, then everything that runs on the host.

use std::{path::Path, process::Command, process::Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{
    setup::{self, EbpfTools},
    workspace::{self, Workspace},
};

/// The target triple of the eBPF programs: the little-endian machines that XDP runs on.
const TARGET: &str = "bpfel-unknown-none";
/// The crates that hold eBPF programs, each with the object it must produce.
const PROGRAMS: [(&str, &str); 3] =
    [("lb-ebpf", "xdirector-xdp"), ("lab-ebpf", "xdirector-lab"), ("bench-ebpf", "xdirector-bench")];

/// Builds everything in release mode.
pub fn build(workspace: &Workspace) -> Result<()> {
    let tools = setup::ensure_ebpf(workspace)?;
    println!("Building the eBPF programs with {}", tools.toolchain);
    run(&mut ebpf_command(workspace, &tools), "the eBPF build")?;
    for (_, object) in PROGRAMS {
        let path = workspace.bpf_target().join(TARGET).join("release").join(object);
        if !path.is_file() {
            bail!("the eBPF build succeeded but did not make {}", path.display());
        }
    }
    println!("Building the agent and the tools");
    run(workspace.cargo().args(["build", "--release"]), "the host build")
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("could not start {what}"))?;
    if !status.success() {
        bail!("{what} failed");
    }
    Ok(())
}

fn ebpf_command(workspace: &Workspace, tools: &EbpfTools) -> Command {
    let mut command = Command::new("rustup");
    workspace::remove_host_toolchain_variables(&mut command);
    workspace::remove_cargo_run_variables(&mut command);
    command
        .current_dir(workspace.root())
        .stdin(Stdio::null())
        .args(["run", &tools.toolchain.name, "cargo", "build", "--release", "--target", TARGET])
        .args(["-Zbuild-std=core", "--target-dir"])
        .arg(workspace.bpf_target())
        // `-Zbuild-std` also with a toolchain that is not a nightly.
        .env("RUSTC_BOOTSTRAP", "1")
        // The encoded variable goes before every configuration file, so no user's flags reach the programs.
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&tools.linker.path).join("\x1f"));
    for (package, _) in PROGRAMS {
        command.args(["-p", package]);
    }
    command
}

fn flags(linker: &Path) -> Vec<String> {
    vec![
        format!("-Clinker={}", linker.display()),
        // v3: 32-bit jumps, and atomics that return the old value (compare-and-swap on connection entries).
        // rustc passes it on to the linker, which generates the code.
        "-Ctarget-cpu=v3".into(),
        // The linker makes BTF, which names the maps' types and the lines in the verifier's log, from the
        // full debug information only.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{linker::Linker, toolchain::Compiler, toolchain::Toolchain};

    #[test]
    fn the_ebpf_build_does_not_inherit_the_hosts_toolchain() {
        let tools = EbpfTools {
            toolchain: Toolchain {
                name: "some".into(),
                compiler: Compiler { release: "1.96.0".into(), llvm: 22 },
            },
            linker: Linker { path: "/with space/bpf-linker".into(), llvm: 22 },
        };
        let command = ebpf_command(&Workspace::find().unwrap(), &tools);
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        assert_eq!(args[..3], ["run", "some", "cargo"]);
        let value = |name: &str| {
            command.get_envs().find(|(key, _)| *key == name).map(|(_, value)| value.map(ToOwned::to_owned))
        };
        // cargo sets CARGO for its tests, so its removal shows here.
        assert_eq!(value("CARGO"), Some(None));
        let flags = value("CARGO_ENCODED_RUSTFLAGS").flatten().unwrap().into_string().unwrap();
        assert!(flags.split('\x1f').any(|flag| flag == "-Clinker=/with space/bpf-linker"), "{flags}");
    }
}
