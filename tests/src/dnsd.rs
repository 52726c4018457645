//! A name server of one answer: each query comes back as a response with the code that was set (RFC 1035).

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use anyhow::Result;

use crate::{Netns, daemon::Daemon};

/// The response codes that are of use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// No error.
    NoError = 0,
    /// The server failed.
    ServFail = 2,
    /// No such name.
    NxDomain = 3,
}

/// A running name server; dropping it makes its machine refuse.
#[derive(Debug)]
pub struct Responder {
    code: Arc<AtomicU8>,
    _daemon: Daemon,
}

impl Responder {
    /// Answers queries on an IPv4 UDP port of `netns`, without an error.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(netns: &Netns, port: u16) -> Result<Self> {
        let code = Arc::<AtomicU8>::default();
        let shared = Arc::clone(&code);
        let daemon = Daemon::udp(netns, port, move |query, _| {
            let mut answer = query.get(..12).map(|_| query.to_vec())?;
            // QR, and the code in place of the query's zero.
            answer[2] |= 0x80;
            answer[3] = answer[3] & 0xf0 | shared.load(Ordering::Relaxed);
            Some(answer)
        })?;
        Ok(Self { code, _daemon: daemon })
    }

    /// Answers with another code from now on.
    pub fn set(&self, code: Code) {
        self.code.store(code as u8, Ordering::Relaxed);
    }
}
