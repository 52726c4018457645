//! A web server that does what it is told: the right page, a wrong one, an error, nothing for a while. Also inside of
//! TLS, for who brings that along.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    Netns,
    daemon::{Daemon, Stop},
};

/// How it answers from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mood {
    /// 200 with this body.
    Page(String),
    /// This status, with a body that says so.
    Status(u16),
    /// 200 with this body, after this time.
    Slow(Duration, String),
    /// Not at all. A request that waits is answered when the mood changes.
    Silent,
    /// 200 and 503 in turn, whatever is asked for.
    Alternating,
}

/// What runs over a connection: bytes in both directions.
pub trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Makes the server's side of a connection: TLS, for example.
pub type Wrap = Box<dyn Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync>;

/// A running server; dropping it makes its machine refuse.
#[derive(Debug)]
pub struct Moody {
    mood: Arc<Mutex<Mood>>,
    asked: Arc<AtomicUsize>,
    _daemon: Daemon,
}

impl Moody {
    /// Serves HTTP/1.1 on an IPv4 port of `netns`.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(netns: &Netns, port: u16, mood: Mood) -> Result<Self> {
        Self::start_inside(netns, port, mood, Box::new(|connection| Ok(Box::new(connection))))
    }

    /// The same inside of what `wrap` makes.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start_inside(netns: &Netns, port: u16, mood: Mood, wrap: Wrap) -> Result<Self> {
        let (mood, asked) = (Arc::new(Mutex::new(mood)), Arc::<AtomicUsize>::default());
        let (shared, count) = (Arc::clone(&mood), Arc::clone(&asked));
        let daemon = Daemon::tcp(netns, port, move |connection, stop| {
            let mut stream = wrap(connection)?;
            read_request(&mut stream)?;
            let number = count.fetch_add(1, Ordering::Relaxed);
            answer(&mut stream, &shared, number, stop)
        })?;
        Ok(Self { mood, asked, _daemon: daemon })
    }

    /// Answers otherwise from now on.
    pub fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    /// How many requests have come.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn read_request(stream: &mut dyn Stream) -> io::Result<()> {
    let mut input = BufReader::new(stream.take(16 * 1024));
    let mut line = String::new();
    while input.read_line(&mut line)? > 2 {
        line.clear();
    }
    Ok(())
}

fn answer(stream: &mut dyn Stream, mood: &Mutex<Mood>, number: usize, stop: &Stop) -> io::Result<()> {
    let now = || mood.lock().unwrap_or_else(PoisonError::into_inner).clone();
    stop.hold_while(|| now() == Mood::Silent);
    match now() {
        Mood::Page(body) => send(stream, 200, &body),
        Mood::Status(status) => send(stream, status, &format!("status {status}\n")),
        Mood::Slow(wait, body) => {
            let end = Instant::now() + wait;
            stop.hold_while(|| Instant::now() < end);
            send(stream, 200, &body)
        }
        Mood::Alternating if number.is_multiple_of(2) => send(stream, 200, "for once\n"),
        Mood::Alternating => send(stream, 503, "not now\n"),
        // It is about to end.
        Mood::Silent => Ok(()),
    }
}

fn send(stream: &mut dyn Stream, status: u16, body: &str) -> io::Result<()> {
    let reason = if status == 200 { "OK" } else { "Error" };
    write!(
        stream,
        "HTTP/1.1 {status} {reason}\r\nContent-Length: {}\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()
}
