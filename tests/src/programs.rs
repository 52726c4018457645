//! Loads the lab's own eBPF programs and attaches them inside namespaces.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    programs::{
        SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
    },
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::Netns;

const BPFFS: &str = "/sys/fs/bpf";

/// Names another object file than the one that `cargo xtask build` makes.
pub const OBJECT_VARIABLE: &str = "XDIRECTOR_LAB_OBJECT";

/// An XDP program of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum XdpProgram {
    /// Lets everything through. On the peer of a veth it makes XDP_TX and redirect into that veth work.
    Pass,
    /// Takes the outer header off tunnel packets: a real server's tunnel device.
    Decap,
    /// Answers UDP datagrams to port 7 from the driver.
    Reflect,
}

impl XdpProgram {
    const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Decap => "decap",
            Self::Reflect => "reflect",
        }
    }
}

/// The loaded programs of one lab. Dropping it detaches them all.
#[derive(Default)]
pub struct Programs {
    xdp: Option<Ebpf>,
    loaded: BTreeSet<XdpProgram>,
    links: Vec<FdLink>,
    vlans: Vec<Ebpf>,
}

impl Programs {
    /// Attaches an XDP program in native mode.
    ///
    /// # Errors
    /// When the object file is missing, or the interface is missing or has an XDP program already.
    pub fn attach_xdp(&mut self, netns: &Netns, device: &str, program: XdpProgram) -> Result<()> {
        if self.xdp.is_none() {
            self.xdp = Some(EbpfLoader::new().load(&object()?)?);
        }
        let ebpf = self.xdp.as_mut().context("just loaded")?;
        let xdp: &mut Xdp =
            ebpf.program_mut(program.name()).context("not in the lab's object")?.try_into()?;
        if self.loaded.insert(program) {
            xdp.load()?;
        }
        let link = netns
            .enter(|| {
                let id = xdp.attach(device, XdpMode::Driver)?;
                Ok(FdLink::try_from(xdp.take_link(id)?)?)
            })
            .with_context(|| format!("XDP program {} on {device} in {}", program.name(), netns.name()))?;
        self.links.push(link);
        Ok(())
    }

    /// Makes an interface send and take IP packets with the 802.1Q tag `vlan` only.
    ///
    /// # Errors
    /// When the object file or the interface is missing, or the kernel has no TCX (before 6.6).
    pub fn attach_vlan(&mut self, netns: &Netns, device: &str, vlan: u16) -> Result<()> {
        let mut ebpf = EbpfLoader::new().override_global("VLAN_ID", &vlan, true).load(&object()?)?;
        for (name, direction) in [("vlan_push", TcAttachType::Egress), ("vlan_pop", TcAttachType::Ingress)] {
            let classifier: &mut SchedClassifier =
                ebpf.program_mut(name).context("not in the lab's object")?.try_into()?;
            classifier.load()?;
            netns
                .enter(|| Ok(classifier.attach(device, direction)?))
                .with_context(|| format!("tc program {name} on {device} in {}", netns.name()))?;
        }
        self.vlans.push(ebpf);
        Ok(())
    }

    /// Keeps the XDP programs attached after this process has ended, by pins in the directory `name` of /sys/fs/bpf.
    /// Mounts a bpffs there if there is none, as systemd does at boot.
    ///
    /// # Errors
    /// When the directory or the pins cannot be made.
    pub fn pin(&mut self, name: &str) -> Result<()> {
        ensure_bpffs()?;
        let directory = pin_directory(name);
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        for (number, link) in self.links.drain(..).enumerate() {
            let path = directory.join(format!("link{number}"));
            // The pin keeps the program attached, not this value.
            let _: PinnedLink = link.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
        }
        Ok(())
    }
}

/// Where the object file is looked for.
#[must_use]
pub fn object_path() -> PathBuf {
    env::var_os(OBJECT_VARIABLE).map_or_else(
        || {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../target/bpf/bpfel-unknown-none/release/xdirector-lab")
        },
        PathBuf::from,
    )
}

/// Where [`Programs::pin`] puts its pins.
#[must_use]
pub fn pin_directory(name: &str) -> PathBuf {
    Path::new(BPFFS).join(name)
}

fn ensure_bpffs() -> Result<()> {
    if statfs(BPFFS)?.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount a bpffs on {BPFFS}"))
}

fn object() -> Result<Vec<u8>> {
    let path = object_path();
    fs::read(&path).map_err(|error| anyhow!("{}: {error}; `cargo xtask build` makes it", path.display()))
}
