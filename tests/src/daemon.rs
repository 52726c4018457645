//! The frame of the lab's small servers: a socket in a namespace, a thread that waits on it, and its end.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::Netns;

/// A connection on which nothing moves for so long is given up.
const IDLE: Duration = Duration::from_mins(2);
/// How often something that was told to wait looks whether it still should.
const LOOK: Duration = Duration::from_millis(5);

/// A running server. Dropping it closes its port; connections that it has taken go on.
#[derive(Debug)]
pub(crate) struct Daemon {
    stop: Stop,
    socket: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

/// Whether the server has been dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Waits while `held` says so and the server lives.
    pub fn hold_while(&self, held: impl Fn() -> bool) {
        while !self.is_over() && held() {
            thread::sleep(LOOK);
        }
    }

    /// Whether it has been dropped.
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Daemon {
    /// Listens on an IPv4 TCP port of `netns`; `serve` gets each connection on a thread of its own. What goes wrong with
    /// one is its client's to notice.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn tcp(
        netns: &Netns,
        port: u16,
        serve: impl Fn(TcpStream, &Stop) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = netns.enter(|| {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| format!("TCP port {port}"))
        })?;
        let (stop, socket) = (Stop::default(), listener.as_fd().try_clone_to_owned()?);
        let (serve, stopped) = (Arc::new(serve), stop.clone());
        let thread = thread::spawn(move || {
            for connection in listener.incoming() {
                if stopped.is_over() {
                    return;
                }
                let Ok(connection) = connection else { continue };
                let (serve, stopped) = (Arc::clone(&serve), stopped.clone());
                thread::spawn(move || {
                    let prepared = connection
                        .set_read_timeout(Some(IDLE))
                        .and_then(|()| connection.set_write_timeout(Some(IDLE)));
                    // A client that goes away early is not the server's error.
                    let _ = prepared.and_then(|()| serve(connection, &stopped));
                });
            }
        });
        Ok(Self { stop, socket, thread: Some(thread) })
    }

    /// Takes datagrams on an IPv4 UDP port of `netns`; `answer` makes the answer to each, if there is one.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn udp(
        netns: &Netns,
        port: u16,
        answer: impl Fn(&[u8], SocketAddr) -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<Self> {
        let receiver = netns.enter(|| {
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| format!("UDP port {port}"))
        })?;
        let (stop, socket) = (Stop::default(), receiver.as_fd().try_clone_to_owned()?);
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stopped.is_over() {
                // An ICMP error about an earlier answer shows up here and ends nothing.
                let Ok((len, from)) = receiver.recv_from(&mut buffer) else { continue };
                if stopped.is_over() {
                    return;
                }
                if let Some(answer) = answer(&buffer[..len], from) {
                    let _ = receiver.send_to(&answer, from);
                }
            }
        });
        Ok(Self { stop, socket, thread: Some(thread) })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.0.store(true, Ordering::Relaxed);
        // Wakes the thread that waits on the socket. An unconnected UDP socket reports an error and wakes too.
        let _ = nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // A panic there was printed already, and the test has seen a missing answer.
            let _ = thread.join();
        }
    }
}
