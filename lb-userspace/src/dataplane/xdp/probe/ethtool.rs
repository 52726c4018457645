//! The features of an interface, by the ioctl of ethtool(8).

use std::{io, mem, os::fd::AsRawFd as _};

/// include/uapi/linux/sockios.h; the libc crate has it for Android only.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
// include/uapi/linux/ethtool.h
/// Unfinished checksums on sent frames.
pub const STXCSUM: u32 = 0x17;
/// Joining received packets.
pub const SGRO: u32 = 0x2c;

/// `struct ethtool_value`
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Sets one feature of an interface in the calling thread's namespace.
///
/// # Errors
/// The kernel's.
pub fn set(device: &str, command: u32, on: bool) -> io::Result<()> {
    let mut value = Value { command, data: on.into() };
    // SAFETY: an ifreq is plain data; all zeroes is a valid one.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: the request names an ethtool_value, which the kernel reads and writes; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
