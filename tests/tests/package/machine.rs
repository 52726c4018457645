//! A machine to install packages on: this one's files under an overlay, in namespaces of its own. What happens there
//! is gone with it.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use lab::registry::{self, wait_until};
use nix::sys::{prctl::set_pdeathsig, signal::Signal};
use tempfile::TempDir;

/// What becomes process 1.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// Nothing of use: as in a chroot or a container.
    None,
    /// systemd, with a journal and no other service.
    Systemd,
}

/// How long a machine may take to start.
const START: Duration = Duration::from_secs(30);

/// The exit code of [`SETUP`] when the kernel does not mount the overlay.
const NO_OVERLAY: i32 = 77;

/// Runs in the new namespaces: `$1` is an empty directory, the rest becomes process 1.
const SETUP: &str = r#"
set -e
base=$1; shift
mount --make-rprivate /
mount -t tmpfs tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$base/root" || exit 77
cd "$base/root"
mount -t proc proc proc
# Neither systemd nor a script may set anything for the real machine.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs sysfs sys
# A BPF file system of its own.
mount -t bpf bpf sys/fs/bpf
if mountpoint -q sys/fs/cgroup; then umount sys/fs/cgroup; fi
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
for device in kmsg console; do
    touch "dev/$device"
    mount --bind /dev/null "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
# An interface for a configuration to name.
ip link set lo up
ip link add eth0 type veth peer name eth1
ip address add 192.0.2.1/24 dev eth0
ip link set eth0 up
ip link set eth1 up
rm -f etc/systemd/system/multi-user.target.wants/xdirector.service
printf '[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service\n' > etc/systemd/system/package-test.target
touch ready
exec chroot . /usr/bin/env -i container=package-test PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
"#;

/// A running machine; dropping it ends it.
pub struct Machine {
    /// `unshare`, the parent of process 1.
    child: Child,
    /// Process 1, by this machine's count.
    init: u32,
    cgroup: PathBuf,
    _directory: TempDir,
}

impl Machine {
    /// Starts a machine; `Err(why)` inside when this kernel or system cannot have one.
    pub fn start(name: &str, init: Init) -> Result<std::result::Result<Self, String>> {
        registry::install();
        let directory =
            tempfile::Builder::new().prefix(&format!("xd{}-{name}-", std::process::id())).tempdir()?;
        let Some(cgroup) = make_cgroup(name)? else {
            return Ok(Err("no cgroup2 file system is mounted".into()));
        };
        let log_path = directory.path().join("log");
        let log = File::create(&log_path)?;
        let base = directory.path().join("machine");
        fs::create_dir(&base)?;
        let first: &[&str] = match init {
            Init::None => &["/bin/sleep", "infinity"],
            Init::Systemd => &["/lib/systemd/systemd", "--system", "--unit=package-test.target"],
        };
        let mut command = Command::new("sh");
        command
            // The control group must be entered before it becomes the root of a namespace.
            .args(["-c", "echo $$ > \"$1/cgroup.procs\" && shift && exec unshare \"$@\"", "sh"])
            .arg(&cgroup)
            .args(["--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--fork", "--kill-child"])
            .args(["sh", "-c", SETUP, "sh"])
            .arg(&base)
            .args(first)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        // SAFETY: one system call between fork and exec. Nobody else ends process 1 if this process is killed.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        let mut registry = registry::lock();
        let child = command.spawn().context("`unshare` cannot be run")?;
        registry.children.insert(child.id());
        drop(registry);
        let mut machine = Self { child, init: 0, cgroup, _directory: directory };
        let mut ended = None;
        let ready = wait_until(START, || {
            ended = machine.child.try_wait().ok().flatten();
            ended.is_some() || machine.find_init() && machine.is_up(init)
        });
        match ended.map(|status| status.code()) {
            Some(Some(NO_OVERLAY)) => Ok(Err("no overlay can be mounted over /".into())),
            Some(_) => bail!("the machine did not start:\n{}", fs::read_to_string(&log_path)?),
            None if !ready => bail!("the machine does not come up:\n{}", fs::read_to_string(&log_path)?),
            None => Ok(Ok(machine)),
        }
    }

    fn find_init(&mut self) -> bool {
        let pid = self.child.id();
        // `sh` became `unshare`, whose only child is process 1.
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        self.init = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or(0);
        self.init != 0 && self.path("/ready").exists()
    }

    fn is_up(&self, init: Init) -> bool {
        init == Init::None
            || self.run(["systemctl", "is-system-running"]).is_ok_and(|output| {
                matches!(String::from_utf8_lossy(&output.stdout).trim(), "running" | "degraded")
            })
    }

    /// A file of the machine, as this process reaches it.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// Writes a file and makes the directories above it.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path(path);
        fs::create_dir_all(path.parent().context("a file in a directory")?)?;
        fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))
    }

    /// Writes a program.
    pub fn write_program(&self, path: &str, text: &str) -> Result<()> {
        // A link, as /sbin/something may be, would lead out of the machine when it is followed from here.
        let _ = fs::remove_file(self.path(path));
        self.write(path, text)?;
        self.ok(["chmod", "755", path]).map(drop)
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Copies a file of this machine there.
    pub fn bring(&self, file: &Path, to: &str) -> Result<()> {
        fs::copy(file, self.path(to)).with_context(|| format!("could not copy {}", file.display()))?;
        Ok(())
    }

    /// Runs a command on the machine.
    pub fn run<const N: usize>(&self, command: [&str; N]) -> Result<Output> {
        Command::new("nsenter")
            .args(["--target", &self.init.to_string(), "--mount", "--pid", "--net", "--ipc", "--uts"])
            .args(["--cgroup", "--root", "--wd=/", "--", "/usr/bin/env", "-i"])
            .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"])
            .args(command)
            .stdin(Stdio::null())
            .output()
            .context("`nsenter` cannot be run")
    }

    /// Runs a command that must succeed; returns what it printed, errors behind.
    pub fn ok<const N: usize>(&self, command: [&str; N]) -> Result<String> {
        let output = self.run(command)?;
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{}: {}\n{text}", command.join(" "), output.status);
        Ok(text)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // `--kill-child` ends process 1, and with it everything in its namespace.
        let _ = self.child.kill();
        let _ = self.child.wait();
        registry::lock().children.remove(&self.child.id());
        // The kernel empties the groups a moment after their processes ended.
        wait_until(Duration::from_secs(5), || {
            remove_cgroup(&self.cgroup);
            !self.cgroup.exists()
        });
    }
}

/// A control group below this process' own; `None` without cgroup2.
fn make_cgroup(name: &str) -> Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let root = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then_some(path)
    });
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::"));
    let (Some(root), Some(own)) = (root, own) else { return Ok(None) };
    let path =
        Path::new(root).join(own.trim_start_matches('/')).join(format!("xd{}-{name}", std::process::id()));
    fs::create_dir(&path).with_context(|| format!("could not make {}", path.display()))?;
    Ok(Some(path))
}

fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}
