//! A real server: a small HTTP/1.1 server and a UDP server that say who they are.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /` | `Real 1\n`, the server's name |
//! | `GET /bytes/<n>` | `n` bytes of [`crate::stream`] |
//! | `GET /sum/<n>` | their SHA-256 |
//! | `POST /upload` | length and SHA-256 of the body |
//! | a UDP datagram | the server's name, a space, the datagram |
//!
//! Every HTTP answer has the headers `X-Real` (name), `X-Peer` and `X-Local` (the two ends of the connection), and
//! closes the connection.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    Netns,
    stream::{self, Stream},
    udp,
};

/// A connection on which nothing moves for so long is given up.
const IDLE: Duration = Duration::from_mins(2);

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    sockets: Vec<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
    open: Arc<AtomicUsize>,
}

impl Server {
    /// Starts a server named `name` in `netns`, on every address, IPv4 and IPv6, and on each of `ports` for both
    /// TCP and UDP.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn start(netns: &Netns, name: &str, ports: &[u16]) -> Result<Self> {
        netns.enter(|| Self::start_here(name, ports))
    }

    /// The same, in the namespace of the calling thread.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn start_here(name: &str, ports: &[u16]) -> Result<Self> {
        let mut server =
            Self { stop: Arc::default(), sockets: Vec::new(), threads: Vec::new(), open: Arc::default() };
        for port in ports {
            // Linux serves IPv4 on this socket too.
            let any = (Ipv6Addr::UNSPECIFIED, *port);
            let tcp = TcpListener::bind(any).with_context(|| format!("TCP port {port}"))?;
            let udp = UdpSocket::bind(any).with_context(|| format!("UDP port {port}"))?;
            udp::receive_local_addresses(&udp)?;
            server.sockets.push(tcp.as_fd().try_clone_to_owned()?);
            server.sockets.push(udp.as_fd().try_clone_to_owned()?);
            server.spawn(name, move |name, stop, open| serve_tcp(&tcp, name, stop, open));
            server.spawn(name, move |name, stop, _| serve_udp(&udp, name, stop));
        }
        Ok(server)
    }

    /// How many TCP connections the server has open now.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce(&str, &AtomicBool, &Arc<AtomicUsize>) + Send + 'static,
    ) {
        let (name, stop, open) = (name.to_owned(), Arc::clone(&self.stop), Arc::clone(&self.open));
        self.threads.push(thread::spawn(move || work(&name, &stop, &open)));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for socket in &self.sockets {
            // Wakes the thread that waits on the socket. An unconnected UDP socket reports an error and wakes too.
            let _ = nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            // A panic there was printed already, and the test has seen a missing answer.
            let _ = thread.join();
        }
    }
}

fn serve_tcp(listener: &TcpListener, name: &str, stop: &AtomicBool, open: &Arc<AtomicUsize>) {
    for connection in listener.incoming() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(connection) = connection else { continue };
        let (name, open) = (name.to_owned(), Arc::clone(open));
        open.fetch_add(1, Ordering::Relaxed);
        thread::spawn(move || {
            // A client that goes away early is not the server's error.
            let _ = answer(&connection, &name);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn answer(connection: &TcpStream, name: &str) -> io::Result<()> {
    connection.set_read_timeout(Some(IDLE))?;
    connection.set_write_timeout(Some(IDLE))?;
    let mut input = BufReader::new(connection);
    let request = Request::read(&mut input)?;
    let mut reply = Reply { connection, name };
    let path: Vec<&str> = request.path.split('/').skip(1).collect();
    match (request.method.as_str(), path.as_slice()) {
        ("GET", [""]) => reply.text(200, &format!("{name}\n")),
        ("GET", ["bytes", len]) => match len.parse() {
            Ok(len) => reply.body(len, &mut Stream::new(len)),
            Err(_) => reply.text(400, "not a number\n"),
        },
        ("GET", ["sum", len]) => match len.parse() {
            Ok(len) => {
                let (_, sum) = stream::checksum(&mut Stream::new(len))?;
                reply.text(200, &format!("{sum}\n"))
            }
            Err(_) => reply.text(400, "not a number\n"),
        },
        ("POST", ["upload"]) => {
            if request.expects_continue {
                reply.connection.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let (len, sum) = stream::checksum(&mut input.take(request.content_length))?;
            reply.text(200, &format!("{len} {sum}\n"))
        }
        _ => reply.text(404, "not found\n"),
    }?;
    connection.shutdown(Shutdown::Write)?;
    // The client closes; closing first with unread input would reset the connection.
    io::copy(&mut Read::by_ref(&mut { connection }).take(1024), &mut io::sink()).map(drop)
}

struct Request {
    method: String,
    path: String,
    content_length: u64,
    expects_continue: bool,
}

impl Request {
    fn read(input: &mut BufReader<&TcpStream>) -> io::Result<Self> {
        let mut line = String::new();
        input.take(4096).read_line(&mut line)?;
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut request = Self { method, path, content_length: 0, expects_continue: false };
        for _ in 0..100 {
            let mut line = String::new();
            input.take(4096).read_line(&mut line)?;
            let Some((key, value)) = line.trim_end().split_once(':') else { break };
            match key.to_ascii_lowercase().as_str() {
                "content-length" => request.content_length = value.trim().parse().unwrap_or(0),
                "expect" => request.expects_continue = true,
                _ => {}
            }
        }
        Ok(request)
    }
}

struct Reply<'a> {
    connection: &'a TcpStream,
    name: &'a str,
}

impl Reply<'_> {
    fn text(&mut self, status: u16, text: &str) -> io::Result<()> {
        self.send(status, text.len() as u64, &mut text.as_bytes())
    }

    fn body(&mut self, len: u64, body: &mut impl Read) -> io::Result<()> {
        self.send(200, len, body)
    }

    fn send(&mut self, status: u16, len: u64, body: &mut impl Read) -> io::Result<()> {
        let reason = if status == 200 { "OK" } else { "Error" };
        let mut answer = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Length: {len}\r\nContent-Type: text/plain\r\n\
             X-Real: {}\r\nX-Peer: {}\r\nX-Local: {}\r\nConnection: close\r\n\r\n",
            self.name,
            plain(self.connection.peer_addr()?),
            plain(self.connection.local_addr()?),
        )
        .into_bytes();
        // A short answer is one segment.
        if len < 1024 {
            io::copy(body, &mut answer)?;
            return self.connection.write_all(&answer);
        }
        self.connection.write_all(&answer)?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let count = body.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.connection.write_all(&buffer[..count])?;
        }
    }
}

/// An IPv4 address as such, not as the IPv6 socket shows it.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn serve_udp(socket: &UdpSocket, name: &str, stop: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        // An ICMP error about an earlier answer shows up here and ends nothing.
        let Ok((len, ends)) = udp::receive(socket, &mut buffer) else { continue };
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let answer = [name.as_bytes(), b" ", &buffer[..len]].concat();
        let _ = udp::send(socket, &answer, &ends);
    }
}
