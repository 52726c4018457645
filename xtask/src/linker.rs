//! bpf-linker: it reads the compiler's LLVM bitcode, so its LLVM must not be older than the compiler's.
//!
//! As with the toolchain, [`choose`] is pure and set-up acts on it.

use std::{
    env,
    fmt::{self, Display, Formatter},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    packages::{self, Package, ShownBy},
    workspace::Workspace,
};

/// The release that set-up builds.
pub const VERSION: &str = "0.13.0";
/// The LLVM versions which that release has a feature for, oldest first.
pub const LLVM: [u32; 3] = [21, 22, 23];

/// A bpf-linker that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linker {
    pub path: PathBuf,
    /// The major version of the LLVM inside it.
    pub llvm: u32,
}

impl Display for Linker {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} (LLVM {})", self.path.display(), self.llvm)
    }
}

/// An LLVM with headers and libraries that a linker can be built with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Llvm {
    pub prefix: PathBuf,
    pub version: u32,
}

/// What set-up has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    /// Nothing: this one fits.
    Use(Linker),
    /// Build [`VERSION`] with this LLVM.
    Build(Llvm),
    /// Install the Debian package of this LLVM version, then look again.
    InstallLlvm(u32),
    /// The text says what to install.
    Stop(String),
}

/// Decides for a compiler with LLVM `wanted`: the nearest LLVM that is not older, built before to be built.
pub fn choose(wanted: u32, linkers: &[Linker], llvms: &[Llvm], apt: bool) -> Choice {
    if let Some(linker) = linkers.iter().filter(|linker| linker.llvm >= wanted).min_by_key(|l| l.llvm) {
        return Choice::Use(linker.clone());
    }
    let buildable = |llvm: &&Llvm| llvm.version >= wanted && LLVM.contains(&llvm.version);
    if let Some(llvm) = llvms.iter().filter(buildable).min_by_key(|llvm| llvm.version) {
        return Choice::Build(llvm.clone());
    }
    if apt && LLVM.contains(&wanted) {
        return Choice::InstallLlvm(wanted);
    }
    let mut text = format!("the eBPF toolchain has LLVM {wanted}, and no bpf-linker with it is here.");
    for linker in linkers {
        text += &format!("\n  {linker} is too old");
    }
    text += &format!(
        "\nInstall one of these, then run the command again:\n  \
         a released bpf-linker:  cargo binstall bpf-linker\n  \
         LLVM {wanted} itself:        its development package; set-up then builds bpf-linker {VERSION} with it\n\
         LLVM_PREFIX names an LLVM that is not in /usr/lib/llvm-{wanted}."
    );
    Choice::Stop(text)
}

/// Where set-up puts the linker that it builds with one LLVM version.
pub fn own_root(workspace: &Workspace, llvm: u32) -> PathBuf {
    workspace.tools().join(format!("bpf-linker-{VERSION}-llvm-{llvm}"))
}

/// The linkers that are here and run: set-up's own, then the one on PATH.
pub fn found(workspace: &Workspace) -> Vec<Linker> {
    LLVM.iter()
        .map(|llvm| own_root(workspace, *llvm).join("bin/bpf-linker"))
        .chain(packages::find_command("bpf-linker"))
        .filter(|path| path.is_file())
        .filter_map(|path| Some(Linker { llvm: llvm_of(&path)?, path }))
        .collect()
}

/// The LLVM installations that are here: LLVM_PREFIX, then Debian's places.
pub fn llvms() -> Vec<Llvm> {
    let named = env::var_os("LLVM_PREFIX").map(PathBuf::from).and_then(|prefix| {
        let output = Command::new(prefix.join("bin/llvm-config")).arg("--version").output().ok()?;
        let version = major(&String::from_utf8_lossy(&output.stdout))?;
        Some(Llvm { prefix, version })
    });
    let debian = LLVM
        .iter()
        .filter(|version| debian_library(**version).exists())
        .map(|version| Llvm { prefix: debian_prefix(*version), version: *version });
    named.into_iter().chain(debian).collect()
}

/// The Debian package that [`llvms`] finds when it is installed.
pub fn debian_package(llvm: u32) -> Package {
    Package { name: format!("llvm-{llvm}-dev"), shown_by: ShownBy::File(debian_library(llvm)) }
}

fn debian_prefix(llvm: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{llvm}"))
}

fn debian_library(llvm: u32) -> PathBuf {
    debian_prefix(llvm).join("lib/libLLVM.so")
}

/// Asks a linker for its LLVM's version; `None` when it does not run, for instance as libLLVM is gone.
fn llvm_of(linker: &Path) -> Option<u32> {
    // `--version` is bpf-linker's own; LLVM's option of that name prints and exits before any input is read.
    let output = Command::new(linker)
        .args(["--llvm-args=--version", "-o", "/dev/null", "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().find_map(|line| major(line.split_once("LLVM version ")?.1))
}

fn major(version: &str) -> Option<u32> {
    version.trim().split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linker(llvm: u32) -> Linker {
        Linker { path: format!("/tools/{llvm}").into(), llvm }
    }

    fn llvm(version: u32) -> Llvm {
        Llvm { prefix: debian_prefix(version), version }
    }

    #[test]
    fn the_nearest_linker_that_is_not_older_is_used() {
        let here = [linker(21), linker(23), linker(22)];
        assert_eq!(choose(22, &here, &[], true), Choice::Use(linker(22)));
        assert_eq!(choose(22, &here[..2], &[llvm(22)], true), Choice::Use(linker(23)));
    }

    #[test]
    fn an_older_linker_is_never_used() {
        assert_eq!(choose(22, &[linker(21)], &[llvm(21), llvm(22)], true), Choice::Build(llvm(22)));
        assert_eq!(choose(22, &[linker(21)], &[llvm(21)], true), Choice::InstallLlvm(22));
    }

    #[test]
    fn without_a_way_the_missing_thing_is_named() {
        let Choice::Stop(text) = choose(22, &[linker(21)], &[], false) else { panic!("no stop") };
        assert!(text.contains("LLVM 22") && text.contains("/tools/21 (LLVM 21) is too old"), "{text}");
        assert!(text.contains("cargo binstall bpf-linker"), "{text}");
        // An LLVM that this bpf-linker has no feature for is not built with, and not installed.
        assert!(matches!(choose(24, &[], &[llvm(24)], true), Choice::Stop(_)));
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(major("22.1.8\n"), Some(22));
        assert_eq!(major("23.0.0git"), Some(23));
        assert_eq!(major("unknown"), None);
    }
}
