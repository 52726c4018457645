//! One network namespace, and running things in it.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    net::IpAddr,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    panic,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::registry;

/// A network namespace: a machine of the lab. Clones are the same namespace.
///
/// Only the network is separate. `ip netns exec` would also mount a fresh /sys, which hides /sys/fs/bpf.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
    file: Arc<File>,
}

impl Netns {
    /// Makes the namespace `name` with `lo` up.
    ///
    /// # Errors
    /// When the name is taken or the process may not make namespaces.
    pub fn create(name: &str) -> Result<Self> {
        {
            let mut registry = registry::lock();
            let out =
                Command::new("ip").args(["netns", "add", name]).output().context("`ip` cannot be run")?;
            if !out.status.success() {
                bail!("ip netns add {name}: {}", String::from_utf8_lossy(&out.stderr).trim());
            }
            registry.namespaces.insert(name.to_owned());
        }
        let netns = Self::open(name)?;
        netns.ip(["link set lo up"])?;
        Ok(netns)
    }

    /// The namespace `name`, made by somebody else.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(name: &str) -> Result<Self> {
        let path = Path::new(registry::NETNS_DIR).join(name);
        let file = File::open(&path).with_context(|| format!("no namespace {}", path.display()))?;
        Ok(Self { name: name.to_owned(), file: Arc::new(file) })
    }

    /// The name, as `ip netns list` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run in this namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let file = Arc::clone(&self.file);
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
        unsafe { command.pre_exec(move || Ok(setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?)) };
        command
    }

    /// Runs `work` on a thread of its own inside this namespace. Sockets that it opens stay in the namespace,
    /// wherever they are used later.
    ///
    /// # Errors
    /// The error of `work`, or that the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter the namespace {}", self.name))?;
                work()
            });
            worker.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
        })
    }

    /// Runs lines of `ip` in this namespace, for example `"addr add 10.0.0.1/24 dev eth0"`.
    ///
    /// # Errors
    /// The first line that fails, with what `ip` says about it.
    pub fn ip<L: AsRef<str>>(&self, lines: impl IntoIterator<Item = L>) -> Result<()> {
        let batch: Vec<String> = lines.into_iter().map(|line| line.as_ref().to_owned()).collect();
        let mut child = self
            .command("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("`ip` cannot be run")?;
        child.stdin.take().context("no pipe")?.write_all((batch.join("\n") + "\n").as_bytes())?;
        let out = child.wait_with_output()?;
        if !out.status.success() {
            bail!(
                "in {}: ip {}: {}",
                self.name,
                batch.join("; "),
                String::from_utf8_lossy(&out.stderr).trim()
            );
        }
        Ok(())
    }

    /// Sets kernel parameters: `("ipv4/ip_forward", "1")` and so on, below /proc/sys/net.
    ///
    /// # Errors
    /// When one does not exist or does not take the value.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (key, value) in settings {
                let path = Path::new("/proc/sys/net").join(key);
                fs::write(&path, value).with_context(|| format!("{} = {value}", path.display()))?;
            }
            Ok(())
        })
    }

    /// The MAC address of an interface.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn mac(&self, device: &str) -> Result<[u8; 6]> {
        let link = &self.ip_json(&["link", "show", "dev", device])?[0];
        read_mac(link["address"].as_str().with_context(|| format!("{device} has no address"))?)
    }

    /// The MAC address that its neighbour table has for an address; `None` when it has none.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn neighbour(&self, address: impl Into<IpAddr>, device: &str) -> Result<Option<[u8; 6]>> {
        let address = address.into().to_string();
        let shown = self.ip_json(&["neigh", "show", "to", &address, "dev", device])?;
        shown[0]["lladdr"].as_str().map(read_mac).transpose()
    }

    /// The name of the XDP program's mode on an interface (`"xdp"` for native, `"xdpgeneric"`), `None` without one.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn xdp(&self, device: &str) -> Result<Option<String>> {
        let link = &self.ip_json(&["-details", "link", "show", "dev", device])?[0];
        let Some(xdp) = link.get("xdp") else { return Ok(None) };
        Ok(Some(match xdp["mode"].as_u64() {
            Some(1) => "xdp".to_owned(),
            Some(2) => "xdpgeneric".to_owned(),
            other => format!("{other:?}"),
        }))
    }

    /// The JSON output of an `ip` command in this namespace.
    ///
    /// # Errors
    /// When the command fails.
    pub fn ip_json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let out = self.command("ip").arg("-json").args(arguments).output()?;
        if !out.status.success() {
            bail!(
                "in {}: ip {}: {}",
                self.name,
                arguments.join(" "),
                String::from_utf8_lossy(&out.stderr).trim()
            );
        }
        Ok(serde_json::from_slice(&out.stdout)?)
    }
}

/// `02:66:00:00:00:01`.
fn read_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("{text} is not a MAC address"))
}
