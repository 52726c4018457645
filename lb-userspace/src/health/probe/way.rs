//! Sockets of the probes: from where, to where, with which mark.

use std::{io, net::SocketAddr, time::Duration};

use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt},
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::path::Through;

/// The way of a check's packets.
#[derive(Debug, Clone)]
pub struct Way {
    /// To where.
    pub connect: SocketAddr,
    /// From where; port 0: any.
    pub bind: Option<SocketAddr>,
    /// Firewall mark (`SO_MARK`); 0: none.
    pub fwmark: u32,
    /// Through the data plane; `None`: as any packets of this machine.
    pub through: Option<Through>,
}

impl Way {
    /// A TCP connection.
    ///
    /// # Errors
    /// Those of the kernel; and a connection to itself, which comes about when nobody listens on a port of this machine
    /// and the kernel happens to choose that port as the source.
    pub async fn tcp(&self) -> io::Result<TcpStream> {
        let socket = self.socket(Type::STREAM, Protocol::TCP)?;
        let stream = TcpSocket::from_std_stream(socket.into()).connect(self.connect).await?;
        if stream.local_addr()? == self.connect {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(stream)
    }

    /// A connected UDP socket: it hears of refusals.
    ///
    /// # Errors
    /// Those of the kernel.
    pub async fn udp(&self) -> io::Result<UdpSocket> {
        let socket = UdpSocket::from_std(self.socket(Type::DGRAM, Protocol::UDP)?.into())?;
        socket.connect(self.connect).await?;
        Ok(socket)
    }

    /// A socket that is not connected yet and does not block.
    ///
    /// # Errors
    /// Those of the kernel; a mark needs CAP_NET_ADMIN. Those of [`Through::socket`].
    pub fn socket(&self, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        if let Some(through) = &self.through {
            return through.socket(self.connect, self.bind, kind);
        }
        let socket = Socket::new(Domain::for_address(self.connect), kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        if self.fwmark != 0 {
            socket.set_mark(self.fwmark)?;
        }
        if let Some(bind) = self.bind {
            let is_icmp = matches!(protocol, Protocol::ICMPV4 | Protocol::ICMPV6);
            if kind == Type::STREAM && bind.port() == 0 {
                // The port is chosen in connect(), where it need be free towards this destination only. Older kernels
                // do without.
                let _ = setsockopt(&socket, sockopt::IpBindAddressNoPort, &true);
            } else if kind == Type::STREAM {
                // One port for all checks of a server: it must be free again for the next one, so the end is a reset
                // and no TIME_WAIT.
                socket.set_reuse_address(true)?;
                socket.set_linger(Some(Duration::ZERO))?;
            }
            // ICMP has no ports. Where a socket for it takes one, it means something else.
            let port = if is_icmp { 0 } else { bind.port() };
            socket.bind(&SockAddr::from(SocketAddr::new(bind.ip(), port)))?;
        }
        Ok(socket)
    }
}

/// A kernel's error in a few words, as a check's detail.
pub fn reason(error: &io::Error) -> String {
    let words = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) => "connection refused",
        Some(Errno::ECONNRESET) => "connection reset",
        Some(Errno::EPIPE) => "connection closed",
        Some(Errno::ETIMEDOUT) => "no answer",
        Some(Errno::EHOSTUNREACH) => "host unreachable",
        Some(Errno::ENETUNREACH) => "network unreachable",
        Some(Errno::EADDRNOTAVAIL) => "the source address is not this machine's, or has no free port",
        Some(Errno::EADDRINUSE) => "the source port is in use",
        Some(Errno::EACCES | Errno::EPERM) => "not permitted here (firewall, route or capabilities)",
        Some(Errno::EMFILE | Errno::ENFILE) => "this machine has no free file descriptor",
        Some(errno) => errno.desc(),
        None => return error.to_string(),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpListener, UdpSocket as StdUdpSocket};

    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::health::probe::tests::Port;

    fn to(connect: SocketAddr) -> Way {
        Way { connect, bind: None, fwmark: 0, through: None }
    }

    #[tokio::test]
    async fn connects_from_the_address_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let connect = listener.local_addr().expect("bound");
        let way = Way { bind: Some(([127, 0, 0, 77], 0).into()), ..to(connect) };
        let stream = way.tcp().await.expect("someone listens");
        assert_eq!(listener.accept().expect("it has connected").1, stream.local_addr().expect("connected"));
        assert_eq!(stream.local_addr().expect("connected").ip(), IpAddr::from([127, 0, 0, 77]));
    }

    #[tokio::test]
    async fn a_source_port_is_free_again_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let source = Port::new();
        let way = Way { bind: Some(source.address), ..to(listener.local_addr().expect("bound")) };
        for _ in 0..20 {
            let stream = way.tcp().await.expect("the port is free");
            assert_eq!(listener.accept().expect("it has connected").1, source.address);
            drop(stream);
        }
    }

    #[tokio::test]
    async fn without_a_source_port_the_end_is_not_a_reset() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let way = Way { bind: Some(([127, 0, 0, 1], 0).into()), ..to(listener.local_addr().expect("bound")) };
        drop(way.tcp().await.expect("someone listens"));
        let (mut stream, _) = listener.accept().await.expect("it has connected");
        assert_eq!(stream.read(&mut [0; 1]).await.expect("the end, not a reset"), 0);
    }

    #[tokio::test]
    async fn says_who_refused() {
        let port = Port::new();
        let closed = port.address;
        assert_eq!(reason(&to(closed).tcp().await.expect_err("nobody listens")), "connection refused");
        let foreign = Way { bind: Some("203.0.113.1:0".parse().expect("an address")), ..to(closed) };
        let error = foreign.tcp().await.expect_err("not an address of this machine");
        assert_eq!(reason(&error), "the source address is not this machine's, or has no free port");
    }

    #[tokio::test]
    async fn a_connection_to_itself_is_refused() {
        // The source port asked for is the one that the kernel would have to hit by chance.
        let port = Port::new();
        let way = Way { bind: Some(port.address), ..to(port.address) };
        assert_eq!(way.tcp().await.expect_err("nobody listens").kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn udp_hears_of_refusals() {
        let port = StdUdpSocket::bind("127.0.0.1:0").expect("bind").local_addr().expect("bound");
        let socket = to(port).udp().await.expect("a socket");
        socket.send(b"x").await.expect("sent");
        let error = socket.recv(&mut [0; 1]).await.expect_err("nobody is there");
        assert_eq!(reason(&error), "connection refused");
    }

    #[test]
    fn other_errors_keep_their_words() {
        assert_eq!(reason(&io::Error::other("odd")), "odd");
        assert_eq!(reason(&io::Error::from_raw_os_error(libc::ENOBUFS)), "No buffer space available");
    }
}
