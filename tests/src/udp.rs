//! UDP answers that come from the address that was asked. A real server in DR or TUN mode is asked on an address
//! of `lo`; the kernel would answer from that of the outgoing interface.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::UdpSocket,
    os::fd::AsRawFd as _,
};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt, sockopt,
};

/// The two ends of a datagram that was received.
pub(crate) struct Ends {
    peer: SockaddrIn6,
    local: libc::in6_pktinfo,
}

/// Makes the kernel say to which address each datagram came.
pub(crate) fn receive_local_addresses(socket: &UdpSocket) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?)
}

/// Waits for a datagram: its length and its ends.
pub(crate) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Ends)> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(buffer)];
    let message =
        recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
    let local = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(info),
        _ => None,
    });
    match (message.address, local) {
        (Some(peer), Some(local)) => Ok((message.bytes, Ends { peer, local })),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Sends an answer back the way the datagram with `ends` came.
pub(crate) fn send(socket: &UdpSocket, answer: &[u8], ends: &Ends) -> io::Result<()> {
    // Interface 0: the route decides, as it does for TCP.
    let from = libc::in6_pktinfo { ipi6_addr: ends.local.ipi6_addr, ipi6_ifindex: 0 };
    let control = [ControlMessage::Ipv6PacketInfo(&from)];
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(answer)], &control, MsgFlags::empty(), Some(&ends.peer))?;
    Ok(())
}
