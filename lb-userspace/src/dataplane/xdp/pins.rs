//! Where the data plane outlives the agent: pins in a BPF file system.
//!
//! ```text
//! DIRECTORY/v3/17/maps/SERVICES ...   the maps of generation 17
//! DIRECTORY/v3/17/program             the program that uses them; pinned last, so a generation with one is complete
//! DIRECTORY/v3/links/eth0 ...         what holds the program on an interface
//! DIRECTORY/v3/cgroup/connect4 ...    and on the control groups
//! ```
//!
//! Every agent makes a new generation. Maps that still fit are pinned in it again (a map can have many names), the others are
//! new. When the links lead to the new program the old generation is removed. Whenever the agent dies in between, the
//! newest complete generation is what the next one finds, and it removes the rest.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use lb_common::ABI_VERSION;
use nix::{
    fcntl::{Flock, FlockArg},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::geteuid,
};

/// Where instances have their pins.
pub const ROOT: &str = "/sys/fs/bpf/xdirector";

/// The pins of one instance.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    /// The generation in force, left by an earlier agent or an earlier load of this one.
    previous: Option<u64>,
    /// The generation that is being made.
    next: u64,
}

/// The default directory of an instance.
pub fn default_directory(instance: &str) -> PathBuf {
    Path::new(ROOT).join(instance)
}

impl Pins {
    /// Looks at a directory and begins a new generation in it. Removes what is incomplete.
    ///
    /// # Errors
    /// Why nothing can be pinned there, in words.
    pub fn open(directory: &Path) -> Result<Self, String> {
        is_on_bpffs(directory)?;
        let pins = |error: io::Error| format!("{}: {error}", directory.display());
        let version = version_directory(directory, ABI_VERSION);
        for name in ["links", "cgroup"] {
            make_directory(&version.join(name)).map_err(pins)?;
        }
        check_owner(directory)?;
        check_owner(&version)?;
        let generations = generations(&version).map_err(pins)?;
        let complete = generations.iter().copied().filter(|&number| is_complete(&version, number)).max();
        for number in generations.iter().copied().filter(|&number| Some(number) != complete) {
            fs::remove_dir_all(version.join(number.to_string())).map_err(pins)?;
        }
        let next = generations.iter().max().map_or(1, |newest| newest + 1);
        make_directory(&version.join(next.to_string()).join("maps")).map_err(pins)?;
        Ok(Self { directory: directory.to_owned(), previous: complete, next })
    }

    /// The instance's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A map of the generation in force; `None` without one.
    pub fn previous_map(&self, name: &str) -> Option<PathBuf> {
        Some(self.generation(self.previous?).join("maps").join(name))
    }

    /// The program of the generation in force; `None` without one.
    pub fn previous_program(&self) -> Option<PathBuf> {
        Some(self.generation(self.previous?).join("program"))
    }

    /// A map of the generation that is being made.
    pub fn map(&self, name: &str) -> PathBuf {
        self.generation(self.next).join("maps").join(name)
    }

    /// Its program; once this is pinned the generation is complete.
    pub fn program(&self) -> PathBuf {
        self.generation(self.next).join("program")
    }

    /// The link of an interface.
    pub fn link(&self, interface: &str) -> PathBuf {
        self.version().join("links").join(encode(interface))
    }

    /// The link of a program on the control groups.
    pub fn cgroup(&self, program: &str) -> PathBuf {
        self.version().join("cgroup").join(program)
    }

    /// Interfaces that have a link.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn linked_interfaces(&self) -> io::Result<Vec<String>> {
        Ok(names(&self.version().join("links"))?.iter().map(|name| decode(name)).collect())
    }

    /// Links that agents with another ABI have left, by interface.
    pub fn foreign_links(&self) -> BTreeMap<String, PathBuf> {
        let mut found = BTreeMap::new();
        for version in self.foreign_versions() {
            let links = version.join("links");
            for name in names(&links).unwrap_or_default() {
                found.insert(decode(&name), links.join(name));
            }
        }
        found
    }

    /// Removes every generation but the new one, and all that agents with another ABI have left.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn commit(&mut self) -> io::Result<()> {
        let version = self.version();
        for number in generations(&version)?.into_iter().filter(|&number| number != self.next) {
            fs::remove_dir_all(version.join(number.to_string()))?;
        }
        for version in self.foreign_versions() {
            fs::remove_dir_all(version)?;
        }
        self.previous = Some(self.next);
        Ok(())
    }

    /// Removes the generation that is being made: it will not be.
    pub fn abandon(&self) {
        if self.previous != Some(self.next) {
            // What stays is removed by the next agent.
            let _ = fs::remove_dir_all(self.generation(self.next));
        }
    }

    fn foreign_versions(&self) -> Vec<PathBuf> {
        let own = self.version();
        let all = names(&self.directory).unwrap_or_default();
        all.iter()
            .filter(|name| is_version(name))
            .map(|name| self.directory.join(name))
            .filter(|path| *path != own)
            .collect()
    }

    fn version(&self) -> PathBuf {
        version_directory(&self.directory, ABI_VERSION)
    }

    fn generation(&self, number: u64) -> PathBuf {
        self.version().join(number.to_string())
    }
}

/// Removes everything that an instance has pinned: the program leaves the interfaces, unless an agent still runs. Says
/// whether there was anything.
///
/// # Errors
/// When something cannot be removed; what can be is.
pub fn remove_pinned(directory: &Path) -> io::Result<bool> {
    if !directory.exists() {
        return Ok(false);
    }
    if let Err(reason) = is_on_bpffs(directory) {
        return Err(io::Error::other(reason));
    }
    // Links first: the program stops before its maps lose their names.
    let versions: Vec<PathBuf> =
        names(directory)?.iter().filter(|name| is_version(name)).map(|name| directory.join(name)).collect();
    for version in &versions {
        for kind in ["links", "cgroup"] {
            let links = version.join(kind);
            if links.is_dir() {
                fs::remove_dir_all(links)?;
            }
        }
    }
    for version in &versions {
        fs::remove_dir_all(version)?;
    }
    match fs::remove_dir(directory) {
        // Somebody else has something there.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
        removed => removed?,
    }
    Ok(!versions.is_empty())
}

/// Takes an instance's pins for one process: two agents over the same maps would undo each other's work. The lock ends with
/// what is given.
///
/// # Errors
/// When another process has it, or there is no such directory and it cannot be made.
pub fn lock(directory: &Path) -> anyhow::Result<Flock<fs::File>> {
    make_directory(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let file = fs::File::open(directory).with_context(|| format!("cannot open {}", directory.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| anyhow!("another xdirector uses {}: {error}", directory.display()))
}

/// Nobody else has a business there.
fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A BPF file system may be open to everybody, like /tmp: what somebody else has put there is not ours.
fn check_owner(path: &Path) -> Result<(), String> {
    let data = fs::symlink_metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if data.is_dir() && data.uid() == geteuid().as_raw() && data.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(format!("{} is not a directory of this user alone", path.display()))
}

fn is_version(name: &str) -> bool {
    name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok())
}

fn version_directory(directory: &Path, version: u32) -> PathBuf {
    directory.join(format!("v{version}"))
}

/// Whether the nearest part of a path that is there lies on a BPF file system.
///
/// # Errors
/// That it does not, in words.
pub fn is_on_bpffs(path: &Path) -> Result<(), String> {
    let there = path.ancestors().find(|part| part.exists()).unwrap_or(Path::new("/"));
    let what = statfs(there).map_err(|error| format!("{}: {error}", there.display()))?;
    if what.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    Err(format!("{} is on no BPF file system (mount -t bpf bpf /sys/fs/bpf)", path.display()))
}

fn is_complete(version: &Path, number: u64) -> bool {
    version.join(number.to_string()).join("program").exists()
}

fn generations(version: &Path) -> io::Result<Vec<u64>> {
    Ok(names(version)?.iter().filter_map(|name| name.parse().ok()).collect())
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name().into_string().map_err(not_text)?);
    }
    names.sort();
    Ok(names)
}

/// An interface's name as a file's: a BPF file system takes no dots.
fn encode(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

fn decode(name: &str) -> String {
    name.replace("%2e", ".").replace("%25", "%")
}

fn not_text(name: OsString) -> io::Error {
    io::Error::other(format!("{} is no name of ours", name.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces_survive() {
        for name in ["eth0", "eth0.100", "a%2eb", "%", "br-lan"] {
            assert!(!encode(name).contains('.'));
            assert_eq!(decode(&encode(name)), name);
        }
    }

    #[test]
    fn nothing_is_pinned_outside_a_bpf_file_system() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let reason = Pins::open(&folder.path().join("web")).expect_err("an ordinary file system");
        assert!(reason.contains("no BPF file system"), "{reason}");
        assert!(!folder.path().join("web").exists());
        assert!(!remove_pinned(&folder.path().join("web")).expect("nothing to do"));
    }
}
