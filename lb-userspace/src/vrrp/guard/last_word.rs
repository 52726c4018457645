//! Sends adverts that are ready made.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd,
};

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, SockaddrIn6, sendmsg};
use socket2::{Domain, Protocol, Socket, Type};

use crate::vrrp::packet::PROTOCOL;

/// TTL, hop limit (RFC 9568 5.1.1.3, 5.1.2.3).
const HOPS: u32 = 255;
/// Internetwork control, as keepalived has it.
const TRAFFIC_CLASS: u32 = 0xc0;

/// Raw sockets, which never wait.
#[derive(Debug)]
pub struct Mouth {
    ipv4: Socket,
    /// `None`: this machine has no IPv6.
    ipv6: Option<Socket>,
}

impl Mouth {
    /// Opens them. Needs CAP_NET_RAW.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let kind = Type::RAW.nonblocking().cloexec();
        // IPPROTO_RAW only sends, so nothing that others say piles up here. Its packets bring their own header.
        let ipv4 = Socket::new(Domain::IPV4, kind, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        ipv4.set_multicast_loop_v4(false)?;
        let ipv6 = match Socket::new(Domain::IPV6, kind, Some(Protocol::from(i32::from(PROTOCOL)))) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            socket => {
                let socket = socket?;
                socket.set_unicast_hops_v6(HOPS)?;
                socket.set_multicast_hops_v6(HOPS)?;
                socket.set_multicast_loop_v6(false)?;
                socket.set_tclass_v6(TRAFFIC_CLASS)?;
                // It need not hear anything either: no room for more than the least that the kernel gives.
                socket.set_recv_buffer_size(0)?;
                Some(socket)
            }
        };
        Ok(Self { ipv4, ipv6 })
    }

    /// Sends out of an interface: over IPv4 a packet with its header, over IPv6 a message to which the kernel makes the header,
    /// with `source` in it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn say(&self, interface: u32, source: Option<IpAddr>, to: IpAddr, message: &[u8]) -> io::Result<()> {
        match to {
            IpAddr::V4(to) => self.say_v4(interface, to, message),
            IpAddr::V6(to) => self.say_v6(interface, source, to, message),
        }
    }

    fn say_v4(&self, interface: u32, to: Ipv4Addr, packet: &[u8]) -> io::Result<()> {
        let info = libc::in_pktinfo {
            ipi_ifindex: index(interface)?,
            ipi_spec_dst: libc::in_addr { s_addr: 0 },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
        sendmsg(self.ipv4.as_raw_fd(), &[IoSlice::new(packet)], &control, MsgFlags::empty(), Some(&to))?;
        Ok(())
    }

    fn say_v6(&self, interface: u32, source: Option<IpAddr>, to: Ipv6Addr, message: &[u8]) -> io::Result<()> {
        let socket = self.ipv6.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let source = match source {
            Some(IpAddr::V6(source)) => source,
            // The kernel chooses.
            _ => Ipv6Addr::UNSPECIFIED,
        };
        let info = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
            ipi6_ifindex: interface,
        };
        let control = [ControlMessage::Ipv6PacketInfo(&info)];
        // A scope is needed where the destination is link-local.
        let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, interface));
        sendmsg(socket.as_raw_fd(), &[IoSlice::new(message)], &control, MsgFlags::empty(), Some(&to))?;
        Ok(())
    }
}

fn index(interface: u32) -> io::Result<i32> {
    i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, process::Command, thread, time::Duration};

    use nix::{
        net::if_::if_nametoindex,
        sched::{CloneFlags, unshare},
        sys::socket::{LinkAddr, SockaddrLike as _},
        unistd::Uid,
    };

    use super::*;

    /// Every frame, also our own.
    const ETH_P_ALL: u16 = 0x0003;

    fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
        assert!(status.success(), "ip {arguments}");
    }

    /// A packet socket on an interface.
    fn tap(interface: u32) -> Socket {
        let protocol = i32::from(ETH_P_ALL.to_be());
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(protocol))).unwrap();
        // SAFETY: an all-zero address is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ETH_P_ALL.to_be();
        address.sll_ifindex = interface as i32;
        // SAFETY: the pointer is that of an address of the given length.
        let address =
            unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(size_of_val(&address) as u32)) };
        nix::sys::socket::bind(socket.as_raw_fd(), &address.unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    /// The next frame of VRRP: neighbour discovery and the like are skipped.
    fn next_advert(socket: &mut Socket) -> Vec<u8> {
        for _ in 0..1000 {
            let mut frame = [0; 2048];
            let len = socket.read(&mut frame).unwrap();
            let protocol = match frame[12..14] {
                [0x08, 0x00] => frame[14 + 9],
                [0x86, 0xdd] => frame[14 + 6],
                _ => 0,
            };
            if protocol == PROTOCOL {
                return frame[..len].to_vec();
            }
        }
        panic!("no advert in 1000 frames")
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn what_is_said_stands_on_the_wire() {
        if !Uid::effective().is_root() {
            println!("SKIPPED what_is_said_stands_on_the_wire: needs root");
            return;
        }
        // The namespace goes with the thread.
        thread::spawn(on_the_wire).join().unwrap();
    }

    fn on_the_wire() {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link add v0 address 02:66:00:00:00:01 type veth peer name v1");
        ip("link add v2 type veth peer name v3");
        for interface in ["v0", "v1", "v2", "v3"] {
            ip(&format!("link set {interface} addrgenmode none"));
            ip(&format!("link set {interface} up"));
        }
        // The same network twice: only the interface that is asked for is right.
        ip("addr add 10.66.0.9/24 dev v2");
        ip("addr add 10.66.0.1/24 dev v0");
        ip("addr add fe80::66:2/64 dev v0 nodad");
        ip("addr add fe80::66:1/64 dev v0 nodad");
        let (v0, v1) = (if_nametoindex("v0").unwrap(), if_nametoindex("v1").unwrap());
        let mut tap = tap(v1);
        let mouth = Mouth::open().unwrap();

        // keepalived 2.2.7, version 2 without authentication, at its end.
        let packet = "45c0002800010000ff70d04f0a420001e0000012213400010001d4230a4200640000000000000000";
        mouth.say(v0, None, Ipv4Addr::new(224, 0, 0, 18).into(), &unhex(packet)).unwrap();
        assert_eq!(hex(&next_advert(&mut tap)), format!("01005e0000120266000000010800{packet}"));

        let message = "3136000100643c80fe800000000000000000000000660100";
        let source: Ipv6Addr = "fe80::66:1".parse().unwrap();
        let group: Ipv6Addr = "ff02::12".parse().unwrap();
        mouth.say(v0, Some(source.into()), group.into(), &unhex(message)).unwrap();
        let frame = hex(&next_advert(&mut tap));
        let (ethernet, rest) = frame.split_at(28);
        assert_eq!(ethernet, "33330000001202660000000186dd");
        // Version 6, class c0, a flow label of the kernel's.
        assert_eq!(&rest[..3], "6c0");
        let addresses = [source.octets(), group.octets()].concat();
        assert_eq!(&rest[8..], format!("001870ff{}{message}", hex(&addresses)));

        // A source that is not this machine's is an error, not another source.
        let stranger: Ipv6Addr = "fe80::66:3".parse().unwrap();
        assert!(mouth.say(v0, Some(stranger.into()), group.into(), &unhex(message)).is_err());
        let gone = mouth.say(u32::MAX, None, Ipv4Addr::new(224, 0, 0, 18).into(), &unhex(packet));
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
