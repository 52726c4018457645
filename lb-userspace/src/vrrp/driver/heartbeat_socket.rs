//! UDP sockets for [heartbeats](super::heartbeat): one for each interface and family.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use super::{
    heartbeat::PORT,
    network::{Arrival, Channel},
};
use crate::{
    config::vrrp::Family,
    vrrp::packet::{GROUP_V4, GROUP_V6, TTL},
};

/// Sends and hears heartbeats on one interface. Never blocks.
#[derive(Debug)]
pub struct HeartbeatSocket {
    socket: Socket,
    interface: u32,
}

impl HeartbeatSocket {
    /// Opens a socket that hears what comes in on an interface (index) to the group of its family, or to this machine.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(interface: u32, family: Family) -> io::Result<Self> {
        let domain = match family {
            Family::Ipv4 => Domain::IPV4,
            Family::Ipv6 => Domain::IPV6,
        };
        let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        // One socket for each interface, all on this port.
        socket.set_reuse_address(true)?;
        let mut name = [0; libc::IF_NAMESIZE];
        socket.bind_device(Some(interface_name(interface, &mut name)?))?;
        match family {
            Family::Ipv4 => set_up_ipv4(&socket, interface)?,
            Family::Ipv6 => set_up_ipv6(&socket, interface)?,
        }
        Ok(Self { socket, interface })
    }

    /// The next datagram; `None` when there is none; `Some(None)`: it is not known from whom.
    ///
    /// # Errors
    /// What the kernel says: also that a peer has nobody at the port.
    pub fn receive(&self, channel: Channel, buffer: &mut [u8]) -> io::Result<Option<Option<Arrival>>> {
        let received = match self.receive_one(buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let (len, source, destination, ttl) = received;
        let arrival = |(source, destination)| Arrival {
            channel,
            source,
            destination,
            ttl,
            message: buffer[..len].to_vec(),
        };
        Ok(Some(source.zip(destination).map(arrival)))
    }

    fn receive_one(&self, buffer: &mut [u8]) -> io::Result<(usize, Option<IpAddr>, Option<IpAddr>, u8)> {
        let mut control = nix::cmsg_space!(libc::in6_pktinfo, libc::c_int);
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let (mut destination, mut ttl) = (None, 0);
        for message in received.cmsgs()? {
            match message {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    destination = Some(IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr))));
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    destination = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                }
                ControlMessageOwned::Ipv4Ttl(limit) | ControlMessageOwned::Ipv6HopLimit(limit) => {
                    ttl = u8::try_from(limit).unwrap_or(0);
                }
                _ => {}
            }
        }
        let source = received.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        });
        Ok((received.bytes, source, destination, ttl))
    }

    /// Sends a datagram through the interface.
    ///
    /// # Errors
    /// What the kernel says; `InvalidInput` when the addresses are of different families.
    pub fn send(&self, message: &[u8], source: IpAddr, destination: IpAddr) -> io::Result<()> {
        let (fd, parts) = (self.socket.as_raw_fd(), [IoSlice::new(message)]);
        let flags = MsgFlags::MSG_DONTWAIT;
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: i32::try_from(self.interface).map_err(io::Error::other)?,
                    ipi_spec_dst: libc::in_addr { s_addr: source.to_bits().to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let to = SockaddrStorage::from(SocketAddr::from((destination, PORT)));
                sendmsg(fd, &parts, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))?;
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
                    ipi6_ifindex: self.interface,
                };
                let to = SockaddrStorage::from(SocketAddrV6::new(destination, PORT, 0, self.interface));
                sendmsg(fd, &parts, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))?;
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        Ok(())
    }
}

impl AsFd for HeartbeatSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn interface_name(index: u32, name: &mut [libc::c_char; libc::IF_NAMESIZE]) -> io::Result<&[u8]> {
    // SAFETY: `if_indextoname` writes at most IF_NAMESIZE bytes, which the buffer has, with a NUL at their end.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if found.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it succeeded, so the buffer holds a NUL-terminated string; it outlives the reference.
    Ok(unsafe { std::ffi::CStr::from_ptr(found) }.to_bytes())
}

fn set_up_ipv4(socket: &Socket, interface: u32) -> io::Result<()> {
    socket.set_multicast_loop_v4(false)?;
    socket.set_multicast_ttl_v4(TTL.into())?;
    socket.set_ttl_v4(TTL.into())?;
    socket.set_tos_v4(0xc0)?;
    setsockopt(socket, sockopt::Ipv4RecvTtl, &true)?;
    setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(interface))
}

fn set_up_ipv6(socket: &Socket, interface: u32) -> io::Result<()> {
    socket.set_only_v6(true)?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_multicast_hops_v6(TTL.into())?;
    socket.set_unicast_hops_v6(TTL.into())?;
    socket.set_tclass_v6(0xc0)?;
    setsockopt(socket, sockopt::Ipv6RecvHopLimit, &true)?;
    setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).into())?;
    socket.join_multicast_v6(&GROUP_V6, interface)
}
