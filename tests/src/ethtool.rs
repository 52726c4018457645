//! The few interface features that the lab turns off, by the same ioctl that ethtool(8) uses.

use std::{io, mem, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::Netns;

/// include/uapi/linux/sockios.h; the libc crate has it for Android only.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
// include/uapi/linux/ethtool.h
const ETHTOOL_SRXCSUM: u32 = 0x15;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_SGRO: u32 = 0x2c;
const ETH_FLAG_TXVLAN: u32 = 1 << 7;

/// Which of an interface's features stay on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offloads {
    /// Checksums are complete, packets have the size they have on a wire, VLAN tags are in the packet.
    #[default]
    Off,
    /// As `Off`, but segmentation and receive offloads stay as the kernel made them.
    Segmentation,
}

/// Sets the features of one interface. Transmit checksums go off in both cases: a frame from a local socket
/// otherwise carries a partial checksum over a veth, which an XDP program cannot complete.
///
/// # Errors
/// When there is no such interface.
pub fn apply(netns: &Netns, device: &str, offloads: Offloads) -> Result<()> {
    netns.enter(|| {
        set(device, ETHTOOL_STXCSUM, 0)?;
        let flags = call(device, ETHTOOL_GFLAGS, 0)?;
        set(device, ETHTOOL_SFLAGS, flags & !ETH_FLAG_TXVLAN)?;
        if offloads == Offloads::Off {
            for feature in [ETHTOOL_SRXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO] {
                set(device, feature, 0)?;
            }
        }
        Ok(())
    })
}

fn set(device: &str, command: u32, value: u32) -> Result<()> {
    call(device, command, value).map(drop)
}

/// `struct ethtool_value`
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

fn call(device: &str, command: u32, data: u32) -> Result<u32> {
    let mut value = EthtoolValue { command, data };
    // SAFETY: an ifreq is plain data; all zeroes is a valid one.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        bail!("the interface name {device} is too long");
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: the request names an ethtool_value, which the kernel reads and writes; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error())
            .with_context(|| format!("ethtool command {command:#x} on {device}"));
    }
    Ok(value.data)
}
