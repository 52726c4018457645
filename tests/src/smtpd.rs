//! A mail server that keeps what it gets (RFC 5321): for checks, and to see which mails the director sends.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::TcpStream,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;

use crate::{
    Netns,
    daemon::{Daemon, Stop},
};

/// Most bytes of a line, and most lines of a session.
const LIMIT: u64 = 4096;

/// How it behaves from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Takes every mail.
    Serving,
    /// Greets with 554: no service here.
    Refusing,
    /// Says nothing. A client that waits is greeted when this changes.
    Hanging,
}

/// A running mail server; dropping it makes its machine refuse.
#[derive(Debug)]
pub struct Sink {
    shared: Arc<Mutex<Shared>>,
    _daemon: Daemon,
}

#[derive(Debug)]
struct Shared {
    manner: Manner,
    sessions: usize,
    mails: Vec<String>,
}

impl Sink {
    /// Serves SMTP on an IPv4 port of `netns`.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(netns: &Netns, port: u16) -> Result<Self> {
        let shared = Arc::new(Mutex::new(Shared { manner: Manner::Serving, sessions: 0, mails: Vec::new() }));
        let inside = Arc::clone(&shared);
        let daemon = Daemon::tcp(netns, port, move |connection, stop| session(&connection, &inside, stop))?;
        Ok(Self { shared, _daemon: daemon })
    }

    /// Behaves otherwise from now on.
    pub fn set(&self, manner: Manner) {
        lock(&self.shared).manner = manner;
    }

    /// How many connections have come.
    #[must_use]
    pub fn sessions(&self) -> usize {
        lock(&self.shared).sessions
    }

    /// The mails so far, each with its headers.
    #[must_use]
    pub fn mails(&self) -> Vec<String> {
        lock(&self.shared).mails.clone()
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn session(connection: &TcpStream, shared: &Mutex<Shared>, stop: &Stop) -> io::Result<()> {
    lock(shared).sessions += 1;
    stop.hold_while(|| lock(shared).manner == Manner::Hanging);
    let say = |line: &str| (&mut { connection }).write_all(format!("{line}\r\n").as_bytes());
    if lock(shared).manner == Manner::Refusing {
        return say("554 no mail service here");
    }
    say("220 sink.example ESMTP")?;
    let mut lines = Lines(BufReader::new(connection));
    for _ in 0..LIMIT {
        let Some(line) = lines.next()? else { return Ok(()) };
        let command = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        match command.as_str() {
            "DATA" => {
                say("354 go on")?;
                let mail = lines.mail()?;
                lock(shared).mails.push(mail);
                say("250 taken")?;
            }
            "QUIT" => return say("221 bye"),
            _ => say("250 sink.example")?,
        }
    }
    Ok(())
}

struct Lines<'a>(BufReader<&'a TcpStream>);

impl Lines<'_> {
    /// The next line without its end; `None` when the client has gone.
    fn next(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        let read = io::Read::take(&mut self.0, LIMIT).read_line(&mut line)?;
        Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// All lines to the one with a dot alone.
    fn mail(&mut self) -> io::Result<String> {
        let mut mail = String::new();
        for _ in 0..LIMIT {
            match self.next()? {
                Some(line) if line == "." => return Ok(mail),
                Some(line) => {
                    // RFC 5321 section 4.5.2: a dot at the beginning was doubled.
                    mail += line.strip_prefix('.').unwrap_or(&line);
                    mail.push('\n');
                }
                None => break,
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
