//! One cable between a host and the switch, and what happens to cables: pulled out behind a switch, or an interface that
//! goes down. By `ioctl`, so that the moment is known to some microseconds.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    net::if_::if_nametoindex,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use crate::Netns;

/// include/uapi/linux/sockios.h; the libc crate has neither.
const SIOCBRADDIF: libc::Ioctl = 0x89a2;
const SIOCBRDELIF: libc::Ioctl = 0x89a3;

/// The switch's end of a cable.
#[derive(Debug)]
pub struct Port {
    name: String,
    bridge: String,
    device: String,
    index: u32,
    switch: OwnedFd,
    host: OwnedFd,
}

impl Port {
    pub(super) fn new(switch: &Netns, name: String, bridge: String, host: (&Netns, &str)) -> Result<Self> {
        let (index, inside) = switch.enter(|| {
            let index = if_nametoindex(name.as_str()).with_context(|| name.clone())?;
            Ok((index, control_socket()?))
        })?;
        let outside = host.0.enter(control_socket)?;
        Ok(Self { name, bridge, device: host.1.to_owned(), index, switch: inside, host: outside })
    }

    /// Its name in the lab's switch.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes the port out of its bridge: nothing goes through any more, and neither end can see that.
    ///
    /// # Errors
    /// When it is not in its bridge.
    pub fn cut(&self) -> Result<()> {
        self.bridge_request(SIOCBRDELIF).with_context(|| format!("cutting {}", self.name))
    }

    /// Puts it back.
    ///
    /// # Errors
    /// When it is there already.
    pub fn mend(&self) -> Result<()> {
        self.bridge_request(SIOCBRADDIF).with_context(|| format!("mending {}", self.name))
    }

    /// Switches the host's own interface on or off.
    ///
    /// # Errors
    /// When there is no such interface any more.
    pub fn set_link(&self, up: bool) -> Result<()> {
        let mut request = named(&self.device)?;
        ioctl(&self.host, libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: SIOCGIFFLAGS has filled in this member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let bit = libc::IFF_UP as libc::c_short;
        request.ifr_ifru.ifru_flags = if up { flags | bit } else { flags & !bit };
        ioctl(&self.host, libc::SIOCSIFFLAGS, &mut request).with_context(|| self.device.clone())
    }

    fn bridge_request(&self, request: libc::Ioctl) -> Result<()> {
        let mut argument = named(&self.bridge)?;
        argument.ifr_ifru.ifru_ifindex = self.index.cast_signed();
        ioctl(&self.switch, request, &mut argument)
    }
}

fn control_socket() -> Result<OwnedFd> {
    Ok(socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

fn named(device: &str) -> Result<libc::ifreq> {
    // SAFETY: an ifreq is plain data; all zeroes is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(device.len() < request.ifr_name.len(), "{device} is no interface's name");
    for (place, byte) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *place = byte as libc::c_char;
    }
    Ok(request)
}

fn ioctl(socket: &OwnedFd, request: libc::Ioctl, argument: &mut libc::ifreq) -> Result<()> {
    // SAFETY: all requests here take an ifreq, which outlives the call.
    match unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), request, &raw mut *argument) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().into()),
    }
}
