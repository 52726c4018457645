//! The kernel's notifications.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockFilter, SockRef};

use super::{
    ROUTE_PROTOCOL,
    error::{Capability::NetAdmin, Refusal},
    link,
    netlink::{HEADER, Message, messages},
};

/// `RTNLGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV4_RULE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`, `_IPV6_RULE`
/// (include/uapi/linux/rtnetlink.h).
const GROUPS: [u32; 7] = [1, 5, 7, 8, 9, 11, 19];
/// Room for notifications in bytes, so that a burst seldom costs a full look.
const RECEIVE_BUFFER: usize = 8 << 20;
/// A notification is much shorter.
const NOTIFICATION_SIZE: usize = 1 << 16;
/// Most notifications taken at once; the rest waits for the next call.
const MAX_AT_ONCE: usize = 4096;

/// Kinds of messages (`RTM_*`).
mod kind {
    pub const NEW_LINK: u16 = 16;
    pub const DEL_LINK: u16 = 17;
    pub const NEW_ADDRESS: u16 = 20;
    pub const DEL_ADDRESS: u16 = 21;
    pub const NEW_ROUTE: u16 = 24;
    pub const DEL_ROUTE: u16 = 25;
    pub const NEW_RULE: u16 = 32;
    pub const DEL_RULE: u16 = 33;
}

/// Hears of interfaces and addresses that change. Never blocks.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    buffer: Vec<u8>,
}

/// What has changed: the caller looks at [`super::Kernel::interfaces`] again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An interface came, went or changed.
    Link {
        /// Its index.
        index: u32,
    },
    /// An address came or went.
    Address {
        /// Index of its interface.
        interface: u32,
        /// The address.
        address: IpAddr,
        /// Whether it is there now.
        is_there: bool,
    },
    /// A route with protocol [`ROUTE_PROTOCOL`] or any rule went or came. The kernel does not say that a route goes with its
    /// interface or its preferred source address: that is a [`Change::Link`] or [`Change::Address`] only.
    Route,
    /// The kernel dropped notifications: anything may have changed.
    Overrun,
}

impl Monitor {
    /// Opens the socket. Needs no privilege; with CAP_NET_ADMIN it has more room for bursts.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let open = || -> io::Result<Self> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.set_non_blocking(true)?;
            // Before the groups are joined, so that nothing passes it by.
            SockRef::from(&socket).attach_filter(&filter())?;
            socket.bind_auto()?;
            for group in GROUPS {
                socket.add_membership(group)?;
            }
            if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
                setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
            }
            Ok(Self { socket, buffer: Vec::with_capacity(NOTIFICATION_SIZE) })
        };
        open().map_err(|error| {
            Refusal::from(error).during("cannot listen to netlink's notifications", NetAdmin)
        })
    }

    /// What has come since the last call; empty when nothing has. At most some thousand changes at once: the descriptor stays
    /// readable when there are more. What was just said is not repeated.
    ///
    /// # Errors
    /// What the kernel says, other than an overrun.
    pub fn read(&mut self) -> io::Result<Vec<Change>> {
        let mut changes = vec![];
        for _ in 0..MAX_AT_ONCE {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, libc::MSG_DONTWAIT) {
                // Any process may send to a netlink socket.
                Ok((_, sender)) if sender.port_number() != 0 => {}
                Ok(_) => {
                    for change in messages(&self.buffer).filter_map(|message| change(&message)) {
                        note(&mut changes, change);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    note(&mut changes, Change::Overrun);
                }
                Err(error) => {
                    return Err(Refusal::from(error).during("cannot read netlink's notifications", NetAdmin));
                }
            }
        }
        Ok(changes)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn note(changes: &mut Vec<Change>, change: Change) {
    // These say the same however often they come; only the last state of an address counts.
    let is_known = match &change {
        Change::Route | Change::Overrun => changes.contains(&change),
        Change::Link { .. } | Change::Address { .. } => changes.last() == Some(&change),
    };
    if !is_known {
        changes.push(change);
    }
}

fn change(message: &Message<'_>) -> Option<Change> {
    match message.kind {
        kind::NEW_LINK | kind::DEL_LINK => {
            link::link_index(message.payload).map(|index| Change::Link { index })
        }
        kind::NEW_ADDRESS | kind::DEL_ADDRESS => {
            let changed = link::any_address(message.payload)?;
            Some(Change::Address {
                interface: changed.interface,
                address: changed.address,
                is_there: message.kind == kind::NEW_ADDRESS,
            })
        }
        kind::NEW_ROUTE | kind::DEL_ROUTE | kind::NEW_RULE | kind::DEL_RULE => Some(Change::Route),
        _ => None,
    }
}

/// Lets other routes' notifications not even get here: a router's table may change thousands of times in a second.
///
/// A notification is one message, so its type is at offset 4 and `rtm_protocol` at 16 + 5.
fn filter() -> [SockFilter; 7] {
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // BPF loads big-endian numbers, netlink has the machine's.
    let [new, del] =
        [kind::NEW_ROUTE, kind::DEL_ROUTE].map(|kind| u16::from_be_bytes(kind.to_ne_bytes()).into());
    [
        SockFilter::new(LOAD_HALF, 0, 0, 4),
        SockFilter::new(IF_EQUAL, 1, 0, new),
        SockFilter::new(IF_EQUAL, 0, 2, del),
        SockFilter::new(LOAD_BYTE, 0, 0, HEADER as u32 + 5),
        SockFilter::new(IF_EQUAL, 0, 1, ROUTE_PROTOCOL.into()),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
