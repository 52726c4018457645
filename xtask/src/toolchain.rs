//! Which Rust toolchain builds the eBPF programs: one with the source of `core`.
//!
//! The decision ([`choose`]) is a pure function of what was found ([`Facts`]); set-up acts on it.

use std::{
    cmp::Reverse,
    env,
    fmt::{self, Display, Formatter},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{linker, packages};

/// The variable by which a user names a toolchain of their own.
pub const VARIABLE: &str = "XDIRECTOR_BPF_TOOLCHAIN";
/// The rustup name under which Debian's compiler in /usr is linked.
pub const DEBIAN_NAME: &str = "xdirector-bpf";
/// Debian's newest compiler and its library's source; it is updated with the browsers that need it.
pub const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// A rustup toolchain that can build `core` for eBPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// Its rustup name.
    pub name: String,
    pub compiler: Compiler,
}

impl Display for Toolchain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} (rustc {}, LLVM {})", self.name, self.compiler.release, self.compiler.llvm)
    }
}

/// What `rustc -vV` says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    pub release: String,
    pub llvm: u32,
}

impl Compiler {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        Some(Self {
            release: field("release: ")?.to_owned(),
            llvm: field("LLVM version: ")?.split('.').next()?.parse().ok()?,
        })
    }

    fn minor(&self) -> u32 {
        self.release.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
    }
}

/// One toolchain as it was found.
#[derive(Clone, Debug)]
pub struct Probe {
    pub name: String,
    pub compiler: Option<Compiler>,
    /// Whether `lib/rustlib/src/rust/library` is there.
    pub has_source: bool,
}

/// Everything the decision depends on.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The value of [`VARIABLE`].
    pub requested: Option<String>,
    /// rustup's toolchains.
    pub installed: Vec<Probe>,
    /// The compiler in /usr, if there is one, under the name [`DEBIAN_NAME`].
    pub debian: Option<Probe>,
    /// Whether [`DEBIAN_NAME`] is already known to rustup.
    pub debian_linked: bool,
    /// Whether apt-get can install.
    pub apt: bool,
}

/// What set-up has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    /// Nothing: this one is ready.
    Use(Toolchain),
    /// Tell rustup about the compiler in /usr.
    LinkDebian(Toolchain),
    /// Install [`DEBIAN_PACKAGES`], then look again.
    InstallDebian,
    /// Nothing that can be done here; the text says what to install.
    Stop(String),
}

/// Decides: the requested toolchain, else a nightly with its source, else another of Rust's own with its
/// source, else Debian's.
pub fn choose(facts: &Facts) -> Choice {
    if let Some(name) = &facts.requested {
        let probe = facts.installed.iter().find(|probe| {
            // rustup lets a user leave out the host: `nightly` for `nightly-x86_64-unknown-linux-gnu`.
            probe.name == *name || probe.name.strip_prefix(name.as_str()).is_some_and(|r| r.starts_with('-'))
        });
        return match probe.map_or_else(|| Err("is not installed".into()), usable) {
            Ok(toolchain) => Choice::Use(toolchain),
            Err(why) => Choice::Stop(format!("{VARIABLE} names the toolchain `{name}`, which {why}")),
        };
    }
    let mut own: Vec<_> = facts.installed.iter().filter(|probe| rank(&probe.name).is_some()).collect();
    own.sort_by_key(|probe| (rank(&probe.name), Reverse(&probe.name)));
    if let Some(toolchain) = own.iter().find_map(|probe| usable(probe).ok()) {
        return Choice::Use(toolchain);
    }
    match facts.debian.as_ref().map(usable) {
        Some(Ok(toolchain)) if facts.debian_linked => Choice::Use(toolchain),
        Some(Ok(toolchain)) => Choice::LinkDebian(toolchain),
        _ if facts.apt => Choice::InstallDebian,
        _ => Choice::Stop(nothing_usable(facts)),
    }
}

/// Finds out what is there. Costs a few milliseconds for each toolchain that has the source.
pub fn facts() -> Result<Facts> {
    let Some(rustup) = packages::find_command("rustup") else {
        bail!("rustup is missing (https://rustup.rs): set-up uses it to name the eBPF toolchain");
    };
    let output = Command::new(rustup)
        .args(["toolchain", "list", "-v"])
        .stdin(Stdio::null())
        .output()
        .context("could not start rustup")?;
    let list = String::from_utf8_lossy(&output.stdout);
    let installed: Vec<_> =
        list.lines().filter_map(parse_listed).map(|(name, path)| probe(name, Path::new(path))).collect();
    let debian = Path::new("/usr/bin/rustc").exists().then(|| probe(DEBIAN_NAME, Path::new("/usr")));
    Ok(Facts {
        requested: env::var(VARIABLE).ok().filter(|name| !name.is_empty()),
        debian_linked: list.lines().filter_map(parse_listed).any(|listed| listed == (DEBIAN_NAME, "/usr")),
        installed,
        debian,
        apt: packages::is_debian(),
    })
}

/// Makes Debian's compiler known to rustup as [`DEBIAN_NAME`].
pub fn link_debian() -> Result<()> {
    let output = Command::new("rustup")
        .args(["toolchain", "link", DEBIAN_NAME, "/usr"])
        .stdin(Stdio::null())
        .output()
        .context("could not start rustup")?;
    if !output.status.success() {
        bail!("`rustup toolchain link` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The text for a system where nothing usable was found.
pub fn nothing_usable(facts: &Facts) -> String {
    let mut text = String::from("no Rust toolchain here can build eBPF programs:\n");
    for probe in facts.installed.iter().chain(&facts.debian) {
        if let Err(why) = usable(probe) {
            text += &format!("  {} {why}\n", probe.name);
        }
    }
    text += &format!(
        "Install one of these, then run the command again:\n  \
         any system:  rustup toolchain install nightly --component rust-src\n  \
         Debian 12:   apt-get install {}  (from the security archive)\n\
         Or name a toolchain that has rust-src in {VARIABLE}.",
        DEBIAN_PACKAGES.join(" ")
    );
    text
}

/// The order in which Rust's own toolchains are tried; `None` for a name that someone made up.
fn rank(name: &str) -> Option<u8> {
    match name.split('-').next()? {
        "nightly" => Some(0),
        "stable" | "beta" => Some(1),
        version if version.starts_with("1.") => Some(2),
        _ => None,
    }
}

/// The toolchain, or why it cannot be used, as the end of a sentence.
fn usable(probe: &Probe) -> Result<Toolchain, String> {
    if !probe.has_source {
        return Err(format!(
            "has no library source (rustup component add rust-src --toolchain {})",
            probe.name
        ));
    }
    let compiler = probe.compiler.clone().ok_or("has a rustc that does not run")?;
    let needed: u32 = env!("CARGO_PKG_RUST_VERSION")
        .split('.')
        .nth(1)
        .and_then(|minor| minor.parse().ok())
        .expect("the workspace states its rust-version as 1.N");
    if compiler.minor() < needed {
        return Err(format!("is rustc {}; 1.{needed} or newer is needed", compiler.release));
    }
    let (oldest, newest) = (linker::LLVM[0], linker::LLVM[linker::LLVM.len() - 1]);
    if !(oldest..=newest).contains(&compiler.llvm) {
        return Err(format!(
            "has LLVM {}; bpf-linker {} knows LLVM {oldest} to {newest}",
            compiler.llvm,
            linker::VERSION
        ));
    }
    Ok(Toolchain { name: probe.name.clone(), compiler })
}

fn probe(name: &str, sysroot: &Path) -> Probe {
    let has_source = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file();
    // Without the source the version does not matter, and asking costs time.
    let compiler = has_source.then(|| compiler(&sysroot.join("bin/rustc"))).flatten();
    Probe { name: name.to_owned(), compiler, has_source }
}

fn compiler(rustc: &Path) -> Option<Compiler> {
    let output = Command::new(rustc).arg("-vV").env_remove("LD_LIBRARY_PATH").output().ok()?;
    Compiler::parse(&String::from_utf8_lossy(&output.stdout))
}

/// `name (active, default) /path` or `name /path`.
fn parse_listed(line: &str) -> Option<(&str, &str)> {
    let path = line.find('/')?;
    Some((line.split_whitespace().next()?, line[path..].trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, release: &str, llvm: u32, has_source: bool) -> Probe {
        let compiler = Some(Compiler { release: release.into(), llvm });
        Probe { name: name.into(), compiler, has_source }
    }

    fn used(choice: Choice) -> String {
        match choice {
            Choice::Use(toolchain) => toolchain.name,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_nightly_without_source_is_passed_over_for_debian() {
        let mut facts = Facts {
            installed: vec![
                found("stable-x86_64-unknown-linux-gnu", "1.95.0", 22, false),
                found("nightly-x86_64-unknown-linux-gnu", "1.97.0-nightly", 22, false),
            ],
            apt: true,
            ..Facts::default()
        };
        assert_eq!(choose(&facts), Choice::InstallDebian);
        facts.debian = Some(found(DEBIAN_NAME, "1.96.0", 22, true));
        assert!(matches!(choose(&facts), Choice::LinkDebian(_)));
        facts.debian_linked = true;
        assert_eq!(used(choose(&facts)), DEBIAN_NAME);
    }

    #[test]
    fn a_nightly_with_source_comes_before_stable_and_debian() {
        let facts = Facts {
            installed: vec![
                found("stable-x86_64-unknown-linux-gnu", "1.95.0", 22, true),
                found("nightly-2026-01-01-x86_64-unknown-linux-gnu", "1.96.0-nightly", 22, true),
                found("nightly-x86_64-unknown-linux-gnu", "1.98.0-nightly", 23, true),
            ],
            debian: Some(found(DEBIAN_NAME, "1.96.0", 22, true)),
            debian_linked: true,
            apt: true,
            requested: None,
        };
        assert_eq!(used(choose(&facts)), "nightly-x86_64-unknown-linux-gnu");
    }

    #[test]
    fn a_stable_with_source_serves_when_no_nightly_does() {
        let facts = Facts {
            installed: vec![
                found("nightly-x86_64-unknown-linux-gnu", "1.99.0-nightly", 99, true),
                found("stable-x86_64-unknown-linux-gnu", "1.95.0", 22, true),
            ],
            ..Facts::default()
        };
        assert_eq!(used(choose(&facts)), "stable-x86_64-unknown-linux-gnu");
    }

    #[test]
    fn the_request_wins_and_is_never_replaced_silently() {
        let mut facts = Facts {
            requested: Some("mine".into()),
            installed: vec![
                found("mine", "1.96.0", 22, true),
                found("nightly-x86_64-unknown-linux-gnu", "1.97.0-nightly", 22, true),
            ],
            apt: true,
            ..Facts::default()
        };
        assert_eq!(used(choose(&facts)), "mine");
        facts.requested = Some("nightly".into());
        assert_eq!(used(choose(&facts)), "nightly-x86_64-unknown-linux-gnu");
        facts.requested = Some("absent".into());
        let Choice::Stop(why) = choose(&facts) else { panic!("an absent toolchain was replaced") };
        assert!(why.contains("`absent`") && why.contains("not installed"), "{why}");
        facts.installed[0].has_source = false;
        facts.requested = Some("mine".into());
        let Choice::Stop(why) = choose(&facts) else { panic!("a toolchain without source was taken") };
        assert!(why.contains("rust-src"), "{why}");
    }

    #[test]
    fn names_that_someone_made_up_are_used_only_on_request() {
        let facts = Facts { installed: vec![found("bpf", "1.96.0", 22, true)], ..Facts::default() };
        assert!(matches!(choose(&facts), Choice::Stop(_)));
    }

    #[test]
    fn an_old_debian_compiler_is_refused_with_its_version() {
        let facts =
            Facts { debian: Some(found(DEBIAN_NAME, "1.85.0", 19, true)), apt: false, ..Facts::default() };
        let Choice::Stop(why) = choose(&facts) else { panic!("1.85 was taken") };
        assert!(why.contains("is rustc 1.85.0; 1.95 or newer"), "{why}");
        assert!(why.contains("rustup toolchain install nightly --component rust-src"), "{why}");
        assert!(why.contains("apt-get install rustc-web cargo-web rust-web-src"), "{why}");
    }

    #[test]
    fn rustc_and_rustup_are_read() {
        let text = "rustc 1.97.0-nightly (e50 2026-05-19)\nbinary: rustc\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        let compiler = Compiler::parse(text).unwrap();
        assert_eq!((compiler.minor(), compiler.llvm), (97, 22));
        assert_eq!(Compiler::parse("error: no such file"), None);
        let listed = parse_listed("stable-x86_64 (active, default) /home/u/.rustup/toolchains/stable-x86_64");
        assert_eq!(listed, Some(("stable-x86_64", "/home/u/.rustup/toolchains/stable-x86_64")));
        assert_eq!(parse_listed("bpf /usr"), Some(("bpf", "/usr")));
        assert_eq!(parse_listed("no installed toolchains"), None);
    }
}
