//! The adverts on a wire, with the time at which each was seen.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};

use crate::{Netns, registry::wait_until, wire::Wire};

/// IP protocol number of VRRP.
const VRRP: u8 = 112;

/// One advert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// When it was seen.
    pub at: Instant,
    /// Who sent it.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// The whole frame.
    pub frame: Vec<u8>,
    /// Where in it the IP header begins.
    ip: usize,
    /// Where in it the VRRP message begins.
    message: usize,
}

impl Advert {
    /// The advert in a frame; `None` for other frames.
    #[must_use]
    pub fn read(frame: &[u8], at: Instant) -> Option<Self> {
        let ip = 14;
        let header = frame.get(ip..)?;
        let (source, destination, message): (IpAddr, IpAddr, usize) = match frame.get(12..14)? {
            [0x08, 0x00] if *header.get(9)? == VRRP => {
                let address = |at: usize| -> Option<IpAddr> {
                    Some(<[u8; 4]>::try_from(header.get(at..at + 4)?).ok()?.into())
                };
                (address(12)?, address(16)?, ip + usize::from(header.first()? & 0xf) * 4)
            }
            [0x86, 0xdd] if *header.get(6)? == VRRP => {
                let address = |at: usize| -> Option<IpAddr> {
                    Some(<[u8; 16]>::try_from(header.get(at..at + 16)?).ok()?.into())
                };
                (address(8)?, address(24)?, ip + 40)
            }
            _ => return None,
        };
        frame.get(message..message + 8)?;
        Some(Self { at, source, destination, frame: frame.to_owned(), ip, message })
    }

    /// The IP header.
    #[must_use]
    pub fn ip_header(&self) -> &[u8] {
        &self.frame[self.ip..self.message]
    }

    /// The VRRP message.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.frame[self.message..]
    }

    /// Its virtual router.
    #[must_use]
    pub fn vrid(&self) -> u8 {
        self.message()[1]
    }

    /// Its priority.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.message()[2]
    }
}

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Advert>>>,
    thread: Option<JoinHandle<()>>,
}

/// What a watch has seen, in its order.
#[derive(Clone, Debug, Default)]
pub struct Adverts(pub Vec<Advert>);

impl Watch {
    /// Watches an interface.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn start(netns: &Netns, device: &str) -> Result<Self> {
        let wire = Wire::open(netns, device)?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stopped, into) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let found = wire.find(Duration::from_millis(50), |frame| {
                    if let Some(advert) = Advert::read(frame, Instant::now()) {
                        into.lock().unwrap_or_else(PoisonError::into_inner).push(advert);
                    }
                    false
                });
                if found.is_err() {
                    // The interface is gone, and the lab with it.
                    return;
                }
            }
        });
        Ok(Self { stop, seen, thread: Some(thread) })
    }

    /// What it has seen so far.
    #[must_use]
    pub fn seen(&self) -> Adverts {
        Adverts(self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Waits for an advert that `wanted` accepts, also among those seen already.
    ///
    /// # Errors
    /// When none comes within `limit`.
    pub fn await_one(&self, limit: Duration, wanted: impl Fn(&Advert) -> bool) -> Result<Advert> {
        let mut found = None;
        wait_until(limit, || {
            found = self.seen().0.into_iter().find(&wanted);
            found.is_some()
        });
        found.ok_or_else(|| {
            anyhow!("no such advert among {} on the wire", self.seen.lock().map_or(0, |seen| seen.len()))
        })
    }

    /// Ends it.
    #[must_use]
    pub fn stop(mut self) -> Adverts {
        self.end();
        self.seen()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

impl Adverts {
    /// Fails if, after `from`, anybody but `source` says that it is master.
    ///
    /// # Errors
    /// Names the other one.
    pub fn ensure_only(&self, source: IpAddr, from: Instant) -> Result<()> {
        let other = self.0.iter().find(|one| one.at >= from && one.source != source && one.priority() != 0);
        ensure!(other.is_none(), "not only {source} is master: {other:?}");
        Ok(())
    }

    /// How often the sender changed after `from`; adverts of priority 0 do not count.
    #[must_use]
    pub fn changes(&self, from: Instant) -> usize {
        let senders: Vec<IpAddr> =
            self.0.iter().filter(|one| one.at >= from && one.priority() != 0).map(|one| one.source).collect();
        senders.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    /// The longest time between two adverts of one sender.
    #[must_use]
    pub fn longest_gap(&self, source: IpAddr) -> Duration {
        let times: Vec<Instant> =
            self.0.iter().filter(|one| one.source == source).map(|one| one.at).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advert_is_found_in_its_frame() {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0xc0, 0, 32, 0, 1, 0, 0, 255, 112, 0, 0, 10, 66, 0, 1, 224, 0, 0, 18]);
        frame.extend([0x31, 53, 150, 1, 0, 50, 0x43, 0x1f, 10, 66, 0, 100]);
        let advert = Advert::read(&frame, Instant::now()).unwrap();
        assert_eq!((advert.vrid(), advert.priority(), advert.message().len()), (53, 150, 12));
        assert_eq!(advert.source, IpAddr::from([10, 66, 0, 1]));
        frame[23] = 17;
        assert_eq!(Advert::read(&frame, Instant::now()), None);
        assert_eq!(Advert::read(&frame[..20], Instant::now()), None);
    }
}
