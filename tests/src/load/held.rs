//! Connections that stay: slow transfers of the lab's stream.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    sync::atomic::Ordering::Relaxed,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};
use sha2::{Digest as _, Sha256};

use super::Shared;
use crate::stream::Stream;

/// How much each connection moves at once, and how often. The receive buffer is small, so that no more is on its way and
/// packets go all the time.
pub(super) const PIECE: usize = 1024;
const PERIOD: Duration = Duration::from_millis(15);
const RECEIVE_BUFFER: usize = 4096;
/// How long the last piece may take: longer than a lost packet is waited for, also on a machine that stands still in between.
const LAST: Duration = Duration::from_secs(30);
/// More than moves in the time that a load may take.
const ENDLESS: u64 = 1 << 40;

/// All of them.
pub(super) struct Held(Vec<Transfer>);

struct Transfer {
    socket: TcpStream,
    kind: Kind,
    moved: u64,
    broken: Option<io::Error>,
}

enum Kind {
    Download(Stream),
    Upload {
        source: Stream,
        hash: Sha256,
        /// Read from the source and not taken by the socket yet.
        pending: Vec<u8>,
    },
}

impl Held {
    /// Opens them, in the namespace of the calling thread.
    pub fn open(shared: &Shared) -> Result<Self> {
        let open = |number: usize| {
            let upload = number % 2 == 1;
            Transfer::open(shared.server, upload).with_context(|| format!("held connection {number}"))
        };
        Ok(Self((0..shared.options.held).map(open).collect::<Result<_>>()?))
    }

    /// Moves data on all of them until the load ends, then sees which live.
    pub fn run(mut self, shared: &Shared) {
        while !shared.is_over() {
            for transfer in &mut self.0 {
                transfer.turn(shared);
            }
            thread::sleep(PERIOD);
        }
        let marks: Vec<u64> = self.0.iter().map(|one| one.moved + PIECE as u64).collect();
        let end = Instant::now() + LAST;
        let lags = |(one, mark): (&Transfer, &u64)| one.broken.is_none() && one.moved < *mark;
        while Instant::now() < end && self.0.iter().zip(&marks).any(lags) {
            for transfer in &mut self.0 {
                transfer.turn(shared);
            }
            thread::sleep(PERIOD);
        }
        for (number, (transfer, mark)) in self.0.into_iter().zip(marks).enumerate() {
            let local = transfer.socket.local_addr();
            let moved = transfer.moved;
            let (is_reset, ended) = transfer.finish(mark);
            shared.report(|report| {
                report.held += 1;
                if let Err(error) = ended {
                    report.held_broken += 1;
                    report.resets += u64::from(is_reset);
                    let text = format!("held connection {number} {local:?} after {moved} bytes: {error:#}");
                    report.first_error.get_or_insert(text);
                }
            });
        }
    }
}

impl Transfer {
    fn open(server: SocketAddr, upload: bool) -> Result<Self> {
        let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // Before the connection is made: later the window would be larger already.
        setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        connect(fd.as_raw_fd(), &SockaddrStorage::from(server)).context("cannot connect")?;
        let mut socket = TcpStream::from(fd);
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let kind = if upload {
            write!(socket, "POST /upload HTTP/1.1\r\nHost: lab\r\nContent-Length: {ENDLESS}\r\n\r\n")?;
            Kind::Upload { source: Stream::new(ENDLESS), hash: Sha256::new(), pending: Vec::new() }
        } else {
            write!(socket, "GET /bytes/{ENDLESS} HTTP/1.1\r\nHost: lab\r\n\r\n")?;
            // Byte by byte: what follows the headers belongs to the stream.
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte)?;
                head.push(byte[0]);
                ensure!(head.len() < 4096, "no end of the headers");
            }
            Kind::Download(Stream::new(ENDLESS))
        };
        socket.set_nonblocking(true)?;
        Ok(Self { socket, kind, moved: 0, broken: None })
    }

    fn turn(&mut self, shared: &Shared) {
        if self.broken.is_some() {
            return;
        }
        match self.step() {
            Ok(count) => {
                self.moved += count as u64;
                shared.moved.fetch_add(count as u64, Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.broken = Some(error),
        }
    }

    fn step(&mut self) -> io::Result<usize> {
        let mut buffer = [0; PIECE];
        match &mut self.kind {
            Kind::Download(expected) => {
                let count = self.socket.read(&mut buffer)?;
                if count == 0 {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server ended it"));
                }
                let mut wanted = vec![0; count];
                expected.read_exact(&mut wanted)?;
                if wanted != buffer[..count] {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "other data than was sent"));
                }
                Ok(count)
            }
            Kind::Upload { source, hash, pending } => {
                if pending.is_empty() {
                    source.read_exact(&mut buffer)?;
                    pending.extend_from_slice(&buffer);
                }
                let count = self.socket.write(pending)?;
                hash.update(&pending[..count]);
                pending.drain(..count);
                Ok(count)
            }
        }
    }

    /// Whether it was reset, and why it does not count as whole.
    fn finish(self, mark: u64) -> (bool, Result<()>) {
        if let Some(error) = self.broken {
            return (error.kind() == io::ErrorKind::ConnectionReset, Err(error.into()));
        }
        if self.moved < mark {
            return (false, Err(anyhow::anyhow!("stood still")));
        }
        let Kind::Upload { hash, .. } = self.kind else { return (false, Ok(())) };
        let sum: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let received = answer_to_upload(&self.socket);
        (
            false,
            received.and_then(|received| {
                let sent = format!("{} {sum}", self.moved);
                ensure!(received == sent, "sent {sent}, the server received {received}");
                Ok(())
            }),
        )
    }
}

/// Length and checksum of what the server received up to here.
fn answer_to_upload(socket: &TcpStream) -> Result<String> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(LAST))?;
    socket.shutdown(Shutdown::Write)?;
    let body = BufReader::new(socket).lines().last().context("no answer")??;
    Ok(body.trim().to_owned())
}
