//! Whole frames in and out of an interface of the lab, by a packet socket.

use std::{
    io, mem,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    net::if_::if_nametoindex,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
            sockopt,
        },
        time::TimeVal,
    },
};

use crate::Netns;

/// One interface, for sending and watching frames.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// Opens `device` in `netns`.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn open(netns: &Netns, device: &str) -> Result<Self> {
        netns.enter(|| {
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                Some(SockProtocol::EthAll),
            )?;
            bind(&socket, if_nametoindex(device).with_context(|| device.to_owned())?)?;
            Ok(Self { socket })
        })
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// When the interface is down or the frame is longer than its MTU allows.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::empty())?;
        ensure!(sent == frame.len(), "{sent} of {} bytes were sent", frame.len());
        Ok(())
    }

    /// The next frame, sent or received, that `wanted` accepts; `None` when none comes within `limit`.
    ///
    /// # Errors
    /// When the interface goes away.
    pub fn find(&self, limit: Duration, mut wanted: impl FnMut(&[u8]) -> bool) -> Result<Option<Vec<u8>>> {
        let end = std::time::Instant::now() + limit;
        let mut buffer = vec![0; 65_536];
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            // Zero would mean no limit.
            let left = TimeVal::new(left.as_secs().cast_signed(), left.subsec_micros().max(1).into());
            setsockopt(&self.socket, sockopt::ReceiveTimeout, &left)?;
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(len) if wanted(&buffer[..len]) => return Ok(Some(buffer[..len].to_vec())),
                Ok(_) | Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn bind(socket: &OwnedFd, index: u32) -> io::Result<()> {
    // SAFETY: a sockaddr_ll is plain data; all zeroes is a valid one.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    let len = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is a sockaddr_ll of `len` bytes that outlives the call.
    match unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
