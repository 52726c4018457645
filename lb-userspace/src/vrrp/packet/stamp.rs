//! The stamps of auth_hmac: made so that each is later than the one before, and judged by that.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::Discard;

/// Time and counter of a sealed advert (auth_hmac): never the same twice, never going back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp {
    /// Seconds.
    pub seconds: u32,
    /// 1/65536 of a second.
    pub fraction: u16,
    /// Counter within that.
    pub counter: u16,
}

impl Stamp {
    /// As in the trailer: one number of 64 bits.
    pub(super) fn to_bytes(self) -> [u8; 8] {
        self.number().to_be_bytes()
    }

    pub(super) const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self::from_number(u64::from_be_bytes(bytes))
    }

    fn number(self) -> u64 {
        u64::from(self.seconds) << 32 | u64::from(self.fraction) << 16 | u64::from(self.counter)
    }

    const fn from_number(number: u64) -> Self {
        Self { seconds: (number >> 32) as u32, fraction: (number >> 16) as u16, counter: number as u16 }
    }

    /// In serial number arithmetic (RFC 1982), as in keepalived: the seconds begin anew in 2106.
    fn is_after(self, other: Self) -> bool {
        let ahead = self.number().wrapping_sub(other.number());
        ahead != 0 && ahead < 1 << 63
    }
}

/// Makes the stamps of one sender.
#[derive(Debug, Clone, Default)]
pub struct Stamper {
    last: Option<Stamp>,
}

impl Stamper {
    /// The next stamp: `since_epoch` (the wall clock: receivers know nothing of our start), or the one after the last when
    /// the clock has not gone on, or back.
    pub fn next(&mut self, since_epoch: Duration) -> Stamp {
        let clock = Stamp {
            // The field's 32 bits are those that count.
            seconds: since_epoch.as_secs() as u32,
            // Below 65536.
            fraction: ((u64::from(since_epoch.subsec_nanos()) << 16) / 1_000_000_000) as u16,
            counter: 0,
        };
        let stamp = match self.last {
            Some(last) if !clock.is_after(last) => Stamp::from_number(last.number().wrapping_add(1)),
            _ => clock,
        };
        self.last = Some(stamp);
        stamp
    }
}

/// The most (sender, key) pairs that a guard remembers; the one that was silent for longest is forgotten. Only who has a key
/// gets in.
const MOST_SENDERS: usize = 64;

/// Remembers the last stamp of each sender and key of an instance.
#[derive(Debug, Clone, Default)]
pub struct ReplayGuard {
    last: BTreeMap<(IpAddr, u8), Last>,
    turn: u64,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    stamp: Stamp,
    /// When, in accepted stamps.
    turn: u64,
}

impl ReplayGuard {
    /// Takes the stamp of a trailer that has been verified.
    ///
    /// # Errors
    /// [`Discard::Replay`] when it is not later than the sender's last with this key.
    pub fn accept(&mut self, source: IpAddr, key: u8, stamp: Stamp) -> Result<(), Discard> {
        let known = self.last.get(&(source, key));
        if known.is_some_and(|last| !stamp.is_after(last.stamp)) {
            return Err(Discard::Replay);
        }
        if known.is_none()
            && self.last.len() >= MOST_SENDERS
            && let Some(oldest) =
                self.last.iter().min_by_key(|(_, last)| last.turn).map(|(sender, _)| *sender)
        {
            self.last.remove(&oldest);
        }
        self.turn += 1;
        self.last.insert((source, key), Last { stamp, turn: self.turn });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
