//! What a process without privileges is told.

use std::io;

use anyhow::{Result, ensure};
use lab::require_lab;
use lb_userspace::{
    config::vrrp::Family,
    netif::{Announcer, Kernel, Monitor, VrrpSocket},
};

use crate::{Pair, index, vip};

/// Takes the privileges of this thread alone, which ends soon after. (The C library's function would take everybody's.)
fn become_nobody() -> io::Result<()> {
    const NOBODY: libc::c_long = 65_534;
    // SAFETY: the call takes three numbers and touches no memory.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[test]
fn a_missing_capability_is_named() -> Result<()> {
    require_lab!("a_missing_capability_is_named");
    let pair = Pair::new("npriv")?;
    let eth0 = index(&pair.a, "eth0")?;
    pair.a.enter(|| {
        become_nobody()?;
        let mut kernel = Kernel::open()?;
        ensure!(kernel.interfaces()?.iter().any(|interface| interface.index == eth0));
        ensure!(Monitor::open()?.read()?.is_empty());
        for (error, capability) in [
            (kernel.add_address(eth0, &vip("10.66.0.100/32")).expect_err("added"), "CAP_NET_ADMIN"),
            (kernel.remove_address(eth0, &vip("10.66.0.1/24")).expect_err("removed"), "CAP_NET_ADMIN"),
            (kernel.add_macvlan(eth0, "vrrp.50", [0, 0, 0x5e, 0, 1, 50]).expect_err("made"), "CAP_NET_ADMIN"),
            (Announcer::open().expect_err("opened"), "CAP_NET_RAW"),
            (VrrpSocket::open(eth0, Family::Ipv4).expect_err("opened"), "CAP_NET_RAW"),
            (VrrpSocket::open_to_send(eth0, Family::Ipv6).expect_err("opened"), "CAP_NET_RAW"),
        ] {
            ensure!(error.kind() == io::ErrorKind::PermissionDenied, "{error}");
            ensure!(error.to_string().ends_with(&format!("this needs {capability}")), "{error}");
        }
        Ok(())
    })
}
