//! Set-up: what a command needs and does not find, it installs, or says exactly what is missing.

use std::path::Path;

use anyhow::{Result, bail};

use crate::{
    linker::{self, Linker},
    packages::{self, Package, Refresh},
    progress,
    toolchain::{self, Toolchain},
    workspace::{self, Workspace},
};

/// A group of Debian packages that commands ask for.
#[derive(Clone, Copy)]
pub enum Need {
    /// The lab of namespaces: demo, test and bench.
    Lab,
    /// What `bench traffic` compares xdirector with.
    Bench,
    /// The other routers of the failover suite, and what they serve: test and bench.
    Failover,
    /// libFuzzer, which is C++.
    Fuzz,
    /// What is used of this machine's programs in a virtual machine, and for making its parts.
    Vm,
    /// Debian packages: the libraries that a program needs, and its symbols.
    Package,
}

/// What builds the eBPF programs.
pub struct EbpfTools {
    pub toolchain: Toolchain,
    pub linker: Linker,
}

/// Installs the packages of some groups, as far as their programs are missing.
pub fn ensure_packages(workspace: &Workspace, needs: &[Need]) -> Result<()> {
    let wanted: Vec<_> = needs
        .iter()
        .flat_map(|need| match need {
            Need::Lab => [("iproute2", "ip"), ("ethtool", "ethtool"), ("curl", "curl")].as_slice(),
            Need::Bench => [("nftables", "nft"), ("haproxy", "haproxy")].as_slice(),
            Need::Failover => {
                [("keepalived", "keepalived"), ("frr", "/usr/lib/frr/vrrpd"), ("haproxy", "haproxy")]
                    .as_slice()
            }
            Need::Fuzz => [("g++", "c++")].as_slice(),
            // modprobe and depmod are the same program.
            Need::Vm => [("kmod", "depmod"), ("xz-utils", "xz"), ("ipvsadm", "ipvsadm")].as_slice(),
            Need::Package => [("dpkg-dev", "dpkg-shlibdeps"), ("binutils", "strip")].as_slice(),
        })
        .map(|(package, shown_by)| Package::shown_by(package, shown_by))
        .collect();
    packages::ensure(workspace, &wanted)
}

/// Finds or installs the eBPF toolchain and its linker.
pub fn ensure_ebpf(workspace: &Workspace) -> Result<EbpfTools> {
    let toolchain = ensure_toolchain(workspace)?;
    let linker = ensure_linker(workspace, toolchain.compiler.llvm)?;
    Ok(EbpfTools { toolchain, linker })
}

/// Installs a program from crates.io into a directory of the project's own.
///
/// `llvm` is where bpf-linker's build script looks for LLVM.
pub fn cargo_install(
    workspace: &Workspace,
    label: &str,
    root: &Path,
    args: &[&str],
    llvm: Option<&Path>,
) -> Result<()> {
    let mut command = workspace.cargo();
    // These would change where the program is built, or how.
    for name in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(name);
    }
    if let Some(prefix) = llvm {
        command.env("LLVM_PREFIX", prefix);
    }
    command.args(["install", "--locked", "--root"]).arg(root).args(args);
    progress::run(label, &mut command, &workspace.log("cargo-install"))
}

fn ensure_toolchain(workspace: &Workspace) -> Result<Toolchain> {
    let mut facts = toolchain::facts()?;
    let mut choice = toolchain::choose(&facts);
    if choice == toolchain::Choice::InstallDebian {
        if !workspace::is_root() {
            // A user has the choice between root's way and their own rustup.
            bail!(toolchain::nothing_usable(&facts));
        }
        println!(
            "No rustup toolchain here has rust-src; Debian's own compiler builds the eBPF programs instead."
        );
        packages::install(workspace, &toolchain::DEBIAN_PACKAGES, Refresh::First)?;
        facts = toolchain::facts()?;
        choice = toolchain::choose(&facts);
    }
    match choice {
        toolchain::Choice::Use(toolchain) => Ok(toolchain),
        toolchain::Choice::LinkDebian(toolchain) => {
            println!("Linking Debian's compiler as the rustup toolchain `{}`", toolchain::DEBIAN_NAME);
            toolchain::link_debian()?;
            Ok(toolchain)
        }
        // Installed a moment ago and still not usable: an archive without the security suite has an old one.
        toolchain::Choice::InstallDebian => bail!(toolchain::nothing_usable(&facts)),
        toolchain::Choice::Stop(text) => bail!(text),
    }
}

fn ensure_linker(workspace: &Workspace, llvm: u32) -> Result<Linker> {
    let apt = packages::is_debian();
    let mut choice = linker::choose(llvm, &linker::found(workspace), &linker::llvms(), apt);
    if let linker::Choice::InstallLlvm(version) = choice {
        packages::ensure(workspace, &[linker::debian_package(version)])?;
        choice = linker::choose(llvm, &linker::found(workspace), &linker::llvms(), false);
    }
    if let linker::Choice::Build(with) = choice {
        let feature = format!("llvm-{}", with.version);
        let args =
            ["bpf-linker", "--version", linker::VERSION, "--no-default-features", "--features", &feature];
        let root = linker::own_root(workspace, with.version);
        let label = format!("Building bpf-linker {} with LLVM {}", linker::VERSION, with.version);
        cargo_install(workspace, &label, &root, &args, Some(&with.prefix))?;
        choice = linker::choose(llvm, &linker::found(workspace), &[], false);
    }
    match choice {
        linker::Choice::Use(linker) => Ok(linker),
        linker::Choice::Stop(text) => bail!(text),
        linker::Choice::Build(_) | linker::Choice::InstallLlvm(_) => {
            bail!("bpf-linker was built but does not run; see target/log/cargo-install.log")
        }
    }
}
