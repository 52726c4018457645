//! Attaching the programs for connections that the director itself opens (`lb-ebpf/src/local.rs`).

use std::{
    fs::{self, File},
    net::UdpSocket,
    os::fd::AsRawFd,
};

use anyhow::Context;
use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSockAddr, links::FdLink},
};

use super::pins::Pins;

/// The programs, for IPv4 and IPv6.
const PROGRAMS: [&str; 2] = ["connect4", "connect6"];

/// Attaches the programs to the root of the control groups: they see every process, and look at those of this network
/// namespace only. Without pins they are detached with the object.
///
/// # Errors
/// When there is no cgroup2 file system, or the kernel refuses. Packets from outside are balanced all the same.
pub fn attach(ebpf: &mut Ebpf, pins: Option<&Pins>) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    let root =
        cgroup_root(&mounts).context("no cgroup2 file system is mounted (mount -t cgroup2 none PATH)")?;
    let group = File::open(root).with_context(|| format!("cannot open {root}"))?;
    for name in PROGRAMS {
        let Some(program) = ebpf.program_mut(name) else { continue };
        let program: &mut CgroupSockAddr = program.try_into()?;
        // A BPF link takes no flags, and leaves room for other programs by itself.
        let id = program
            .attach(&group, CgroupAttachMode::Single)
            .with_context(|| format!("cannot attach {name}"))?;
        if let Some(pins) = pins {
            let link = FdLink::try_from(program.take_link(id)?)?;
            // In the place of the one that an earlier agent has pinned. For a moment both are attached: the second finds an
            // address that is no virtual server's any more.
            let new = pins.cgroup(&format!("{name}-new"));
            let _ = fs::remove_file(&new);
            link.pin(&new)?;
            fs::rename(&new, pins.cgroup(name))?;
        }
    }
    Ok(())
}

/// Where the cgroup2 file system is mounted.
fn cgroup_root(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then_some(path)
    })
}

/// The number by which the kernel knows this network namespace, lower half first; zeros where it tells none (before Linux
/// 5.14), which matches no namespace.
pub fn netns_cookie() -> [u32; 2] {
    // Any socket will do.
    let Ok(socket) = UdpSocket::bind(("0.0.0.0", 0)) else { return [0; 2] };
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: an open socket, and a value of the length that is told.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result == 0 { [cookie as u32, (cookie >> 32) as u32] } else { [0; 2] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cgroup2_mount_is_taken() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup_root(mounts), Some("/sys/fs/cgroup/unified"));
        assert_eq!(cgroup_root("proc /proc proc rw 0 0\n"), None);
    }
}
