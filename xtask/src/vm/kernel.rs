//! Kernels of Debian's, unpacked below `target`: never installed, so that the machine's own boot stays as it is.

use std::{
    cmp::Ordering,
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::{packages, progress, unpack, workspace::Workspace};

/// What must be loaded to reach the root file system; what these need is loaded before them.
const BOOT: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
/// Where set-up puts them, in the order of loading.
const BOOT_DIRECTORY: &str = "boot-modules";

/// A series of kernels in Debian's archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Series {
    /// Debian 13, and the backport to 12
    #[value(name = "6.12")]
    V6_12,
    /// Debian 12
    #[value(name = "6.1")]
    V6_1,
}

impl Series {
    pub fn name(self) -> &'static str {
        match self {
            Self::V6_12 => "6.12",
            Self::V6_1 => "6.1",
        }
    }
}

/// A kernel that can be booted.
pub struct Kernel {
    /// What `uname -r` says in it.
    pub release: String,
    pub image: PathBuf,
    /// The directory that belongs at /lib/modules/RELEASE.
    pub modules: PathBuf,
    /// What the first file system needs to reach the root, in the order of loading.
    pub boot_modules: Vec<PathBuf>,
}

impl Kernel {
    /// The kernel of a series: the one that is unpacked already, or else the newest in the archive.
    ///
    /// It stays the same until somebody removes it, so that measurements can be compared.
    pub fn ensure(workspace: &Workspace, series: Series) -> Result<Self> {
        let directory = workspace.vm().join(format!("kernel-{}", series.name()));
        let what = format!("Debian's kernel {}", series.name());
        let names = || {
            let output = Command::new("apt-cache")
                .args(["pkgnames", &format!("linux-image-{}.", series.name())])
                .stdin(Stdio::null())
                .output()
                .context("could not start apt-cache")?;
            let names = String::from_utf8_lossy(&output.stdout);
            let newest = newest(&names, series).with_context(|| {
                format!("no package source of this machine has a kernel {} (amd64)", series.name())
            })?;
            Ok(vec![newest.to_owned()])
        };
        unpack::ensure(workspace, &what, &directory, names, |content| prepare(workspace, &what, content))?;
        Self::read(&directory)
    }

    fn read(directory: &Path) -> Result<Self> {
        let modules_root = modules_root(directory)?;
        let release = only_entry(&modules_root)?;
        let release =
            release.into_string().map_err(|name| anyhow::anyhow!("{} is no release", name.display()))?;
        let boot = directory.join(BOOT_DIRECTORY);
        Ok(Self {
            image: directory.join("boot").join(format!("vmlinuz-{release}")),
            modules: modules_root.join(&release),
            boot_modules: entries(&boot)?.into_iter().map(|name| boot.join(name)).collect(),
            release,
        })
    }
}

/// The name of the newest package with a kernel of the series for ordinary machines, without a debugger's symbols.
fn newest(names: &str, series: Series) -> Option<&str> {
    let prefix = format!("linux-image-{}.", series.name());
    names
        .lines()
        .filter(|name| {
            // Others are called ...-cloud-amd64, ...-rt-amd64, ...-amd64-dbg, ...-amd64-unsigned.
            name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix("-amd64")).is_some_and(|version| {
                version.split(['.', '-', '+', '~']).all(|part| {
                    let number = part.trim_start_matches("deb").trim_start_matches("bpo");
                    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
                })
            })
        })
        .max_by(|a, b| by_version(a, b))
}

/// The order of names in which runs of digits count as numbers.
fn by_version(a: &str, b: &str) -> Ordering {
    let numbers = |name: &str| -> Vec<u64> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b)).then_with(|| a.cmp(b))
}

/// Makes the lists that modprobe reads, and lays out what is needed at boot.
fn prepare(workspace: &Workspace, what: &str, content: &Path) -> Result<()> {
    let modules_root = modules_root(content)?;
    let release = only_entry(&modules_root)?;
    let depmod = packages::find_command("depmod").context("depmod is missing; install the package kmod")?;
    // depmod looks for lib/modules below this, also when the package says usr/lib.
    let base = modules_root.parent().and_then(Path::parent).unwrap_or(content);
    let mut command = Command::new(depmod);
    command.arg("--basedir").arg(base).arg(&release);
    progress::run(&format!("Listing the modules of {what}"), &mut command, &workspace.log("depmod"))?;
    let modules = modules_root.join(&release);
    let list = modules.join("modules.dep");
    let text = fs::read_to_string(&list).with_context(|| format!("could not read {}", list.display()))?;
    let boot = content.join(BOOT_DIRECTORY);
    fs::create_dir_all(&boot).with_context(|| format!("could not make {}", boot.display()))?;
    for (number, module) in load_order(&text, &BOOT).into_iter().enumerate() {
        let name = format!("{number:02}-{}.ko", module_name(module));
        decompress(&modules.join(module), &boot.join(name))?;
    }
    Ok(())
}

/// lib/modules, or usr/lib/modules in packages for systems where /lib is a link.
fn modules_root(content: &Path) -> Result<PathBuf> {
    ["lib/modules", "usr/lib/modules"]
        .iter()
        .map(|path| content.join(path))
        .find(|path| path.is_dir())
        .with_context(|| format!("{} has no modules; remove it and try again", content.display()))
}

/// Copies a module; a compressed one as it is inside. The host does that faster than the emulated machine at each boot.
fn decompress(from: &Path, to: &Path) -> Result<()> {
    if from.extension().is_some_and(|extension| extension == "ko") {
        fs::copy(from, to).with_context(|| format!("could not copy {}", from.display()))?;
        return Ok(());
    }
    ensure!(
        from.extension().is_some_and(|extension| extension == "xz"),
        "{} is compressed in a way that is unknown here",
        from.display()
    );
    let output = File::create(to).with_context(|| format!("could not write {}", to.display()))?;
    let status = Command::new("xz")
        .args(["--decompress", "--stdout"])
        .arg(from)
        .stdin(Stdio::null())
        .stdout(output)
        .status()
        .context("could not start xz")?;
    if !status.success() {
        bail!("xz could not read {}", from.display());
    }
    Ok(())
}

/// The files of `wanted` and of what they need, each after what it needs. One that is not listed is built in.
fn load_order<'a>(modules_dep: &'a str, wanted: &[&str]) -> Vec<&'a str> {
    let mut order = Vec::new();
    for name in wanted {
        let line = modules_dep
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(file, _)| module_name(file) == *name);
        let Some((file, needs)) = line else { continue };
        // depmod writes them in the order of unloading.
        for file in needs.split_whitespace().rev().chain([file]) {
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    order
}

fn module_name(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name)
}

fn only_entry(directory: &Path) -> Result<OsString> {
    let mut names = entries(directory)?;
    ensure!(names.len() == 1, "{} should hold one thing, not {}", directory.display(), names.len());
    names.pop().context("no entry")
}

fn entries(directory: &Path) -> Result<Vec<OsString>> {
    let failed = || format!("could not list {}; remove its parent and try again", directory.display());
    let mut names = fs::read_dir(directory)
        .with_context(failed)?
        .map(|entry| Ok(entry.with_context(failed)?.file_name()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_ordinary_kernel_is_taken() {
        let names = "linux-image-6.12.100+deb12-amd64\nlinux-image-6.12.9+deb12-amd64\n\
                     linux-image-6.12.117+deb12-cloud-amd64\nlinux-image-6.12.117+deb12-amd64-dbg\n\
                     linux-image-6.12.117+deb12-rt-amd64\nlinux-image-6.12.117+deb12-amd64-unsigned\n\
                     linux-image-6.12.90+deb12-amd64\nlinux-image-6.12-amd64-dbg\n";
        assert_eq!(newest(names, Series::V6_12), Some("linux-image-6.12.100+deb12-amd64"));
        let names = "linux-image-6.1.0-9-amd64\nlinux-image-6.1.0-57-amd64\nlinux-image-6.1.0-57-arm64\n\
             linux-image-6.12.1+deb12-amd64\nlinux-image-6.1.0-0.deb11.58-amd64-dbg\n";
        assert_eq!(newest(names, Series::V6_1), Some("linux-image-6.1.0-57-amd64"));
        assert_eq!(newest("", Series::V6_1), None);
    }

    #[test]
    fn modules_are_loaded_after_what_they_need() {
        let list = "kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz\n\
                    kernel/net/9p/9pnet.ko.xz:\n\
                    kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz\n";
        let order: Vec<_> = load_order(list, &BOOT).into_iter().map(module_name).collect();
        assert_eq!(order, ["9pnet", "9pnet_virtio", "netfs", "9p"]);
    }

    #[test]
    fn an_unpacked_kernel_is_read() {
        let directory = tempfile::tempdir().unwrap();
        for path in ["usr/lib/modules/6.12.9-amd64", BOOT_DIRECTORY] {
            fs::create_dir_all(directory.path().join(path)).unwrap();
        }
        for name in ["10-b.ko", "02-a.ko"] {
            fs::write(directory.path().join(BOOT_DIRECTORY).join(name), "").unwrap();
        }
        let kernel = Kernel::read(directory.path()).unwrap();
        assert_eq!(kernel.release, "6.12.9-amd64");
        assert!(kernel.image.ends_with("boot/vmlinuz-6.12.9-amd64"));
        assert!(kernel.boot_modules[0].ends_with("02-a.ko") && kernel.boot_modules.len() == 2);
        let empty = tempfile::tempdir().unwrap();
        assert!(Kernel::read(empty.path()).is_err());
    }
}
