//! Raw sockets for VRRP's adverts: one for each interface and family.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockFilter, Socket, Type};

use super::{
    error::{Capability::NetRaw, Refusal},
    link,
};
use crate::{
    config::vrrp::Family,
    vrrp::packet::{GROUP_V4, GROUP_V6, PROTOCOL},
};

/// Hop limit of what is sent (RFC 9568 5.1.2.3); IPv4 packets have it in their header.
const HOP_LIMIT: u32 = 255;
/// Traffic class of what is sent: "internetwork control", as keepalived has it in TOS and traffic class.
const TRAFFIC_CLASS: u32 = 0xc0;
/// `TC_PRIO_CONTROL`, and the highest that needs no privilege (include/uapi/linux/pkt_sched.h).
const QUEUE_PRIORITIES: [i32; 2] = [7, 6];
/// `IPV6_MULTICAST_ALL` (include/uapi/linux/in6.h).
const IPV6_MULTICAST_ALL: libc::c_int = 29;

const OPEN: &str = "cannot open a VRRP socket";

/// A socket that sends and hears VRRP on one interface. Never blocks.
///
/// It stays with the interface of its index: when that goes away, so does the group's membership, and a new socket is needed.
/// An interface that goes down and up again is all right.
#[derive(Debug)]
pub struct VrrpSocket {
    socket: Socket,
    interface: u32,
    name: String,
    family: Family,
}

/// A packet of protocol 112, without any check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received<'a> {
    /// IPv4.
    Ipv4 {
        /// From its IP header on.
        packet: &'a [u8],
    },
    /// IPv6.
    Ipv6 {
        /// What follows the IP header (and extension headers).
        message: &'a [u8],
        /// From whom.
        source: Ipv6Addr,
        /// To whom.
        destination: Ipv6Addr,
        /// As it arrived.
        hop_limit: u8,
    },
}

/// Bytes that wait to be read: thousands of adverts, so that a burst of forged ones does not push out the master's.
const ROOM: usize = 4 << 20;

/// As much room as the kernel gives: past its limit only with CAP_NET_ADMIN.
fn make_room(socket: &Socket) {
    use nix::sys::socket::{setsockopt, sockopt};
    if setsockopt(socket, sockopt::RcvBufForce, &ROOM).is_err() {
        // What there is has to do.
        let _ = socket.set_recv_buffer_size(ROOM);
    }
}

impl VrrpSocket {
    /// Opens a socket that hears what comes in on an interface (index) to the group of its family, or to this machine.
    ///
    /// # Errors
    /// What the kernel says, with the interface's name: `ENODEV` when it is not there, or has no IPv4 or IPv6.
    pub fn open(interface: u32, family: Family) -> io::Result<Self> {
        Self::make(interface, family, |socket| join(socket, interface, family))
    }

    /// Opens a socket that sends only.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_to_send(interface: u32, family: Family) -> io::Result<Self> {
        let nothing = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
        Self::make(interface, family, |socket| socket.attach_filter(&[nothing]))
    }

    fn make(
        interface: u32,
        family: Family,
        prepare: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> io::Result<Self> {
        let gone = || named(io::Error::from_raw_os_error(libc::ENODEV), OPEN, &link::name(interface), family);
        let name = link::known_name(interface).ok_or_else(gone)?;
        let open = || -> io::Result<Socket> {
            let domain = match family {
                Family::Ipv4 => Domain::IPV4,
                Family::Ipv6 => Domain::IPV6,
            };
            let kind = Type::RAW.nonblocking();
            let socket = Socket::new(domain, kind, Some(Protocol::from(i32::from(PROTOCOL))))?;
            bind(&socket, interface)?;
            match family {
                Family::Ipv4 => set_up_ipv4(&socket, interface)?,
                Family::Ipv6 => set_up_ipv6(&socket, interface)?,
            }
            make_room(&socket);
            prepare(&socket)?;
            Ok(socket)
        };
        match open() {
            Ok(socket) => Ok(Self { socket, interface, name, family }),
            Err(error) => Err(named(error, OPEN, &name, family)),
        }
    }

    /// Index of its interface.
    pub const fn interface(&self) -> u32 {
        self.interface
    }

    /// Which packets it sends and hears.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The next packet, in `buffer`; `None` when there is none. What does not fit is cut off. Of several calls the caller
    /// limits the number: somebody may send faster than it reads.
    ///
    /// # Errors
    /// What the kernel says, with the interface's name.
    pub fn recv<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<Received<'a>>> {
        let received = match self.family {
            Family::Ipv4 => self.recv_ipv4(buffer),
            Family::Ipv6 => self.recv_ipv6(buffer),
        };
        match received {
            Ok(received) => Ok(Some(received)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(None)
            }
            Err(error) => Err(named(error, "cannot receive VRRP", &self.name, self.family)),
        }
    }

    fn recv_ipv4<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Received<'a>> {
        let len = nix::sys::socket::recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?;
        Ok(Received::Ipv4 { packet: &buffer[..len] })
    }

    fn recv_ipv6<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Received<'a>> {
        let (mut destination, mut hop_limit) = (Ipv6Addr::UNSPECIFIED, 0);
        let (len, source) = {
            let mut control = nix::cmsg_space!(libc::in6_pktinfo, libc::c_int);
            let mut parts = [IoSliceMut::new(&mut *buffer)];
            let received = recvmsg::<SockaddrIn6>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT,
            )?;
            for message in received.cmsgs()? {
                match message {
                    ControlMessageOwned::Ipv6PacketInfo(info) => {
                        destination = info.ipi6_addr.s6_addr.into();
                    }
                    ControlMessageOwned::Ipv6HopLimit(limit) => hop_limit = u8::try_from(limit).unwrap_or(0),
                    _ => {}
                }
            }
            (received.bytes, received.address.map_or(Ipv6Addr::UNSPECIFIED, |address| address.ip()))
        };
        Ok(Received::Ipv6 { message: &buffer[..len], source, destination, hop_limit })
    }

    /// Sends an advert on the interface, to the group or a peer. `packet`: of IPv4 with its IP header, in which `source` is
    /// also; of IPv6 the message alone, whose checksum the caller has made. The source need not be an address of the
    /// interface (with a VMAC it is one of the interface below).
    ///
    /// # Errors
    /// What the kernel says, with the interface's name; `InvalidInput` when an address is of the other family.
    pub fn send(&self, packet: &[u8], source: IpAddr, destination: IpAddr) -> io::Result<()> {
        let sent = match (self.family, source, destination) {
            (Family::Ipv4, IpAddr::V4(_), IpAddr::V4(destination)) => self.send_ipv4(packet, destination),
            (Family::Ipv6, IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.send_ipv6(packet, source, destination)
            }
            _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        sent.map_err(|error| {
            let what = format!("cannot send VRRP from {source} to {destination}");
            named(error, &what, &self.name, self.family)
        })
    }

    fn send_ipv4(&self, packet: &[u8], destination: Ipv4Addr) -> io::Result<()> {
        let to = SockAddr::from(std::net::SocketAddr::from((destination, 0)));
        self.socket.send_to_with_flags(packet, &to, libc::MSG_DONTWAIT).map(|_| ())
    }

    fn send_ipv6(&self, message: &[u8], source: Ipv6Addr, destination: Ipv6Addr) -> io::Result<()> {
        let info = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
            ipi6_ifindex: self.interface,
        };
        let to = SockaddrIn6::from(SocketAddrV6::new(destination, 0, 0, self.interface));
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(message)],
            &[ControlMessage::Ipv6PacketInfo(&info)],
            MsgFlags::MSG_DONTWAIT,
            Some(&to),
        )?;
        Ok(())
    }
}

impl AsFd for VrrpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn named(error: io::Error, what: &str, interface: &str, family: Family) -> io::Error {
    let family = match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    };
    Refusal::from(error).during(format_args!("{what} on {interface} ({family})"), NetRaw)
}

/// By index: a name may be another interface's tomorrow.
fn bind(socket: &Socket, interface: u32) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, &interface.cast_signed())?;
    // In the queue of an interface that is full, adverts go first. Without the privilege for that it is not as sure.
    let _ = QUEUE_PRIORITIES.iter().any(|priority| setsockopt(socket, sockopt::Priority, priority).is_ok());
    Ok(())
}

fn set_up_ipv4(socket: &Socket, interface: u32) -> io::Result<()> {
    // The caller's header, with its source, TTL and TOS.
    socket.set_header_included_v4(true)?;
    socket.set_multicast_loop_v4(false)?;
    socket.set_multicast_all_v4(false)?;
    let on = libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: 0 },
        imr_address: libc::in_addr { s_addr: 0 },
        imr_ifindex: interface.cast_signed(),
    };
    set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &on)
}

fn set_up_ipv6(socket: &Socket, interface: u32) -> io::Result<()> {
    socket.set_multicast_if_v6(interface)?;
    socket.set_multicast_hops_v6(HOP_LIMIT)?;
    socket.set_unicast_hops_v6(HOP_LIMIT)?;
    socket.set_tclass_v6(TRAFFIC_CLASS)?;
    socket.set_multicast_loop_v6(false)?;
    set_option(socket, libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL, &0i32)?;
    socket.set_recv_hoplimit_v6(true)?;
    setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    // The source may be an address of the interface below a VMAC, or one that is still tentative.
    socket.set_freebind_v6(true)
}

fn join(socket: &Socket, interface: u32, family: Family) -> io::Result<()> {
    match family {
        Family::Ipv4 => socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(interface)),
        Family::Ipv6 => socket.join_multicast_v6(&GROUP_V6, interface),
    }
}

fn set_option<T: Copy>(socket: &Socket, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is plain data of `len` bytes that outlives the call.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
