//! QEMU: where it is, and how it is called.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{packages, unpack, workspace::Workspace};

/// QEMU's program for x86-64, and the Debian package that has it.
const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// The kernel's command line.
///
/// A panic ends the machine (with `-no-reboot`), and what would become one later is one at once. Only warnings and worse
/// are written out, because the serial line is slow. Protection against processes that spy on each other costs emulated
/// time, and grace periods that are hurried save it.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 loglevel=5 panic=-1 oops=panic nokaslr mitigations=off \
                                tsc=reliable rcupdate.rcu_expedited=1 no_timer_check";

/// An emulator that can be started.
pub struct Qemu {
    program: PathBuf,
    /// Where it is unpacked, when it is not the machine's own.
    unpacked: Option<PathBuf>,
}

/// A virtual machine, as QEMU must know it.
pub struct Machine<'a> {
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    pub memory: &'a str,
    pub cpus: u32,
    /// Time passes by instructions, not by the host's clock.
    pub counted: bool,
    /// How fast its time-stamp counter runs.
    pub tsc_kilohertz: u64,
    /// Where the kernel's messages go.
    pub console: &'a Path,
    /// The directory for the command's output.
    pub run: &'a Path,
    /// Directories that the guest may write to.
    pub shares: &'a [PathBuf],
}

impl Qemu {
    /// The machine's own QEMU, or else Debian's, unpacked below `target`.
    ///
    /// It is not installed: it would push out QEMU's other tools on machines that have them in another version.
    pub fn ensure(workspace: &Workspace) -> Result<Self> {
        if let Some(program) = packages::find_command(PROGRAM) {
            return Ok(Self { program, unpacked: None });
        }
        let directory = workspace.vm().join("qemu");
        unpack::ensure(workspace, "QEMU", &directory, missing_packages, |content| {
            let qemu = Self::unpacked(content);
            let output = qemu.command().arg("--version").output().context("could not start QEMU")?;
            if !output.status.success() {
                bail!("the unpacked QEMU does not run: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
            Ok(())
        })?;
        Ok(Self::unpacked(&directory))
    }

    fn unpacked(directory: &Path) -> Self {
        Self { program: directory.join("usr/bin").join(PROGRAM), unpacked: Some(directory.to_owned()) }
    }

    /// QEMU without arguments for the machine; the kernel ends it when this process ends, whatever ends this one.
    pub fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program).stdin(Stdio::null());
        // cargo's, for the host's compiler.
        command.env_remove("LD_LIBRARY_PATH");
        if let Some(directory) = &self.unpacked {
            let libraries: Vec<_> = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
                .iter()
                .map(|path| directory.join(path).into_os_string())
                .collect();
            command.env("LD_LIBRARY_PATH", libraries.join(OsStr::new(":")));
            for firmware in ["usr/share/qemu", "usr/share/seabios"] {
                command.arg("-L").arg(directory.join(firmware));
            }
        }
        command
    }
}

/// The package and what of its dependencies this machine lacks, from what apt would install.
///
/// It would also remove what conflicts; that is the reason why nothing is installed.
fn missing_packages() -> Result<Vec<String>> {
    let output = packages::apt_get()
        .args(["install", "--simulate", "--no-install-recommends", PACKAGE])
        .output()
        .context("could not start apt-get")?;
    let names = to_install(&String::from_utf8_lossy(&output.stdout));
    if !output.status.success() || names.is_empty() {
        bail!("apt-get cannot install {PACKAGE}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(names)
}

/// The names in lines like `Inst seabios (1.16.2-1 Debian:12.15/oldstable [all])`.
fn to_install(simulation: &str) -> Vec<String> {
    simulation
        .lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next())
        .map(ToOwned::to_owned)
        .collect()
}

/// What QEMU is told about the machine.
pub fn arguments(machine: &Machine<'_>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35"]
            .iter()
            .map(OsString::from)
            .collect();
    let mut add = |name: &str, value: OsString| arguments.extend([name.into(), value]);
    // Not the host's processor: hardware acceleration is rare where tests run, and on some machines only seems to work.
    add("-accel", if machine.counted { "tcg,thread=single" } else { "tcg,thread=multi" }.into());
    if machine.counted {
        // One instruction is one nanosecond, and idle time passes at once.
        add("-icount", "shift=0,sleep=off".into());
    }
    add("-cpu", "max".into());
    add("-smp", machine.cpus.to_string().into());
    add("-m", machine.memory.into());
    add("-kernel", machine.kernel.into());
    add("-initrd", machine.initramfs.into());
    add("-append", format!("{KERNEL_ARGUMENTS} tsc_early_khz={}", machine.tsc_kilohertz).into());
    add("-serial", with_path("file:", machine.console));
    let root = [("root".to_owned(), Path::new("/"), ",readonly=on")];
    let run = [("run".to_owned(), machine.run, "")];
    let shares = machine.shares.iter().enumerate();
    let shares = shares.map(|(number, path)| (format!("share{number}"), path.as_path(), ""));
    for (tag, path, access) in root.into_iter().chain(run).chain(shares) {
        // Owners and permissions as they are; files of several of the host's file systems get different numbers.
        let export =
            with_path(&format!("local,id={tag},security_model=none,multidevs=remap{access},path="), path);
        add("-fsdev", export);
        add("-device", format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}").into());
    }
    arguments
}

/// A path at the end of one of QEMU's options, in which a comma is written twice.
fn with_path(option: &str, path: &Path) -> OsString {
    let mut bytes = option.as_bytes().to_vec();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

/// A static busybox, which is all that the first file system has of programs; unpacked for the same reason.
pub fn busybox(workspace: &Workspace) -> Result<Vec<u8>> {
    let directory = workspace.vm().join("busybox");
    unpack::ensure(workspace, "busybox", &directory, || Ok(vec!["busybox-static".into()]), |_| Ok(()))?;
    for path in ["bin/busybox", "usr/bin/busybox"] {
        let path = directory.join(path);
        if path.is_file() {
            return fs::read(&path).with_context(|| format!("could not read {}", path.display()));
        }
    }
    bail!("{} has no busybox; remove it and try again", directory.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_would_install_is_read() {
        let simulation = "The following NEW packages will be installed:\n  seabios\n\
                          Remv qemu-utils [1:10.0]\n\
                          Inst seabios (1.16.2-1 Debian:12.15/oldstable [all])\n\
                          Inst libfdt1 [1.6.0] (1.6.1-4+b1 Debian:12.15/oldstable [amd64])\n\
                          Conf seabios (1.16.2-1 Debian:12.15/oldstable [all])\n";
        assert_eq!(to_install(simulation), ["seabios", "libfdt1"]);
    }

    #[test]
    fn the_host_is_exported_read_only_and_shares_are_not() {
        let shares = [PathBuf::from("/a,b/target")];
        let machine = Machine {
            kernel: Path::new("/k"),
            initramfs: Path::new("/i"),
            memory: "1G",
            cpus: 1,
            counted: true,
            tsc_kilohertz: 1_000_000,
            console: Path::new("/log"),
            run: Path::new("/r"),
            shares: &shares,
        };
        let line = arguments(&machine).join(OsStr::new(" ")).into_string().unwrap();
        for part in [
            "-fsdev local,id=root,security_model=none,multidevs=remap,readonly=on,path=/ ",
            "-fsdev local,id=share0,security_model=none,multidevs=remap,path=/a,,b/target ",
            "-icount shift=0,sleep=off",
            "-accel tcg,thread=single",
            "tsc_early_khz=1000000",
            "-smp 1",
            "-serial file:/log",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        let line = arguments(&Machine { counted: false, cpus: 2, ..machine }).join(OsStr::new(" "));
        let line = line.into_string().unwrap();
        assert!(
            line.contains("thread=multi") && line.contains("-smp 2") && !line.contains("icount"),
            "{line}"
        );
    }
}
