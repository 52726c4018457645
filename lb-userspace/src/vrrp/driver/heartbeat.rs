//! Heartbeats of fast detection: pure.
//!
//! A master with `fast_detection` sends them beside its adverts, much more often, from UDP port [`PORT`] to [`PORT`] at the
//! group of the adverts or at each unicast peer, with TTL 255. Who does not know them, as keepalived, has nobody at that port: a
//! multicast datagram is dropped without a word, and a unicast one is answered with an ICMP port unreachable, which is ignored
//! here. All numbers are big-endian.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                        Magic "xdhb"                           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Version = 1  | Virtual Rtr ID|  Family 4, 6  |  0 0 0 0 0 0 0|L|
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                   Lasts, in microseconds                      |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                                                               |
//! +                          Sequence                             +
//! |                                                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |        Code (16 bytes; only with authentication)              |
//! +                            ...                                +
//! ```
//!
//! L: the sender ends its heartbeats in good order. Lasts: without another heartbeat for so long the sender is gone. Sequence:
//! grows with each heartbeat of a sender. Code: the first 16 bytes of HMAC-SHA256, with the instance's key or password, over the
//! sender's address (IPv4: four bytes and twelve zeros) and the 20 bytes before the code.

use std::{net::IpAddr, time::Duration};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::config::vrrp::{Authentication, Family, HmacMode};

/// UDP port.
pub const PORT: u16 = 3112;
/// Without a code.
const LEN: usize = 20;
/// Of the code.
const CODE_LEN: usize = 16;
const MAGIC: [u8; 4] = *b"xdhb";
const VERSION: u8 = 1;
const LAST: u8 = 1;
/// The longest that a configuration can have: 100 times 10 s.
const LONGEST: Duration = Duration::from_secs(1000);

/// What a heartbeat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Of which virtual router.
    pub vrid: u8,
    /// Of which family.
    pub family: Family,
    /// Whether it is the last one.
    pub last: bool,
    /// Without another one for so long the sender is gone. Whole microseconds.
    pub lasts: Duration,
    /// Grows.
    pub sequence: u64,
}

/// Why a heartbeat is thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Discard {
    /// TTL or hop limit is not 255.
    Ttl,
    /// From none of the unicast peers.
    UnknownPeer,
    /// Too short or too long, something else, or another version of it.
    Format,
    /// The code is missing or wrong.
    Authentication,
    /// A repetition of an old one.
    Replay,
}

impl Discard {
    /// For counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ttl => "heartbeat-ttl",
            Self::UnknownPeer => "heartbeat-unknown-peer",
            Self::Format => "heartbeat-format",
            Self::Authentication => "heartbeat-authentication",
            Self::Replay => "heartbeat-replay",
        }
    }
}

/// Builds a datagram that is sent from `source`.
pub fn encode(heartbeat: &Heartbeat, authentication: &Authentication, source: IpAddr) -> Vec<u8> {
    let family = match heartbeat.family {
        Family::Ipv4 => 4,
        Family::Ipv6 => 6,
    };
    let lasts = u32::try_from(heartbeat.lasts.min(LONGEST).as_micros()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(LEN + CODE_LEN);
    message.extend(MAGIC);
    message.extend([VERSION, heartbeat.vrid, family, if heartbeat.last { LAST } else { 0 }]);
    message.extend(lasts.to_be_bytes());
    message.extend(heartbeat.sequence.to_be_bytes());
    let key = match authentication {
        Authentication::None => None,
        Authentication::Pass(password) => Some(&password[..]),
        Authentication::Hmac(settings) if settings.mode == HmacMode::ReceiveOnly => None,
        Authentication::Hmac(settings) => settings.keys.first().map(|(_, key)| &key[..]),
    };
    if let Some(key) = key {
        let code = code(key, source, &message).finalize().into_bytes();
        message.extend(&code[..CODE_LEN]);
    }
    message
}

/// For which virtual router and family a datagram is, without any check of the code.
pub fn peek(message: &[u8]) -> Option<(u8, Family)> {
    read(message).map(|heartbeat| (heartbeat.vrid, heartbeat.family))
}

/// Reads a datagram that came from `source`; whether it had a code that is right. Its sequence, TTL and sender are the caller's.
///
/// # Errors
/// [`Discard::Format`] and [`Discard::Authentication`].
pub fn decode(
    message: &[u8],
    authentication: &Authentication,
    source: IpAddr,
) -> Result<(Heartbeat, bool), Discard> {
    let heartbeat = read(message).ok_or(Discard::Format)?;
    let (signed, given) = message.split_at(LEN);
    let (keys, is_needed): (Vec<&[u8]>, bool) = match authentication {
        Authentication::None => (Vec::new(), false),
        Authentication::Pass(password) => (vec![password], true),
        Authentication::Hmac(settings) => {
            (settings.keys.iter().map(|(_, key)| &key[..]).collect(), settings.mode == HmacMode::Enforce)
        }
    };
    if given.is_empty() {
        return if is_needed { Err(Discard::Authentication) } else { Ok((heartbeat, false)) };
    }
    // `verify_truncated_left` compares in constant time.
    let is_right = keys.iter().any(|key| code(key, source, signed).verify_truncated_left(given).is_ok());
    if is_right { Ok((heartbeat, true)) } else { Err(Discard::Authentication) }
}

fn read(message: &[u8]) -> Option<Heartbeat> {
    if message.len() != LEN && message.len() != LEN + CODE_LEN {
        return None;
    }
    let &[a, b, c, d, version, vrid, family, flags, ref rest @ ..] = message else { return None };
    if [a, b, c, d] != MAGIC || version != VERSION {
        return None;
    }
    let family = match family {
        4 => Family::Ipv4,
        6 => Family::Ipv6,
        _ => return None,
    };
    let (lasts, rest) = rest.split_first_chunk::<4>()?;
    let (sequence, _) = rest.split_first_chunk::<8>()?;
    Some(Heartbeat {
        vrid,
        family,
        last: flags & LAST != 0,
        lasts: Duration::from_micros(u32::from_be_bytes(*lasts).into()).min(LONGEST),
        sequence: u64::from_be_bytes(*sequence),
    })
}

fn code(key: &[u8], source: IpAddr, message: &[u8]) -> Hmac<Sha256> {
    let mut address = [0; 16];
    match source {
        IpAddr::V4(source) => address[..4].copy_from_slice(&source.octets()),
        IpAddr::V6(source) => address = source.octets(),
    }
    let mut code = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    code.update(&address);
    code.update(message);
    code
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::vrrp::HmacSettings;

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const SAMPLE: Heartbeat = Heartbeat {
        vrid: 50,
        family: Family::Ipv4,
        last: false,
        lasts: Duration::from_millis(30),
        sequence: 0x0102_0304_0506_0708,
    };

    fn hmac(mode: HmacMode, keys: &[u8]) -> Authentication {
        let keys = keys.iter().map(|&id| (id, vec![id; 32])).collect();
        Authentication::Hmac(HmacSettings { keys, mode })
    }

    #[test]
    fn the_layout_is_as_drawn() {
        let bytes = encode(&SAMPLE, &Authentication::None, SOURCE);
        assert_eq!(
            bytes,
            [b'x', b'd', b'h', b'b', 1, 50, 4, 0, 0, 0, 0x75, 0x30, 1, 2, 3, 4, 5, 6, 7, 8],
            "30000 us = 0x7530"
        );
        let last = Heartbeat { last: true, family: Family::Ipv6, ..SAMPLE };
        assert_eq!(encode(&last, &Authentication::None, SOURCE)[6..8], [6, 1]);
        assert_eq!(peek(&bytes), Some((50, Family::Ipv4)));
    }

    #[test]
    fn a_code_is_checked_with_the_senders_address() {
        for authentication in [Authentication::Pass(*b"secret\0\0"), hmac(HmacMode::Enforce, &[1])] {
            let bytes = encode(&SAMPLE, &authentication, SOURCE);
            assert_eq!(bytes.len(), LEN + CODE_LEN);
            assert_eq!(decode(&bytes, &authentication, SOURCE), Ok((SAMPLE, true)));
            let stranger = IpAddr::from([10, 0, 0, 2]);
            assert_eq!(decode(&bytes, &authentication, stranger), Err(Discard::Authentication));
            assert_eq!(decode(&bytes[..LEN], &authentication, SOURCE), Err(Discard::Authentication));
            for position in 8..bytes.len() {
                let mut forged = bytes.clone();
                forged[position] ^= 1;
                assert_eq!(decode(&forged, &authentication, SOURCE), Err(Discard::Authentication));
            }
        }
    }

    #[test]
    fn keys_can_be_changed_one_machine_after_the_other() {
        let plain = encode(&SAMPLE, &hmac(HmacMode::ReceiveOnly, &[1]), SOURCE);
        assert_eq!(plain.len(), LEN);
        assert_eq!(decode(&plain, &hmac(HmacMode::Permissive, &[1]), SOURCE), Ok((SAMPLE, false)));
        assert_eq!(decode(&plain, &hmac(HmacMode::Enforce, &[1]), SOURCE), Err(Discard::Authentication));
        let second = encode(&SAMPLE, &hmac(HmacMode::Enforce, &[2]), SOURCE);
        assert_eq!(decode(&second, &hmac(HmacMode::ReceiveOnly, &[1, 2]), SOURCE), Ok((SAMPLE, true)));
        assert_eq!(decode(&second, &hmac(HmacMode::Permissive, &[1]), SOURCE), Err(Discard::Authentication));
        assert_eq!(decode(&second, &Authentication::None, SOURCE), Err(Discard::Authentication));
    }

    proptest! {
        #[test]
        fn nothing_that_comes_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes, &Authentication::Pass(*b"password"), SOURCE);
            prop_assert_eq!(peek(&bytes).is_some(), decode(&bytes, &hmac(HmacMode::Permissive, &[1]), SOURCE) != Err(Discard::Format));
        }

        #[test]
        fn what_is_sent_is_what_is_read(vrid: u8, six: bool, last: bool, lasts in 0u32..1_000_000_000, sequence: u64) {
            let family = if six { Family::Ipv6 } else { Family::Ipv4 };
            let heartbeat = Heartbeat { vrid, family, last, lasts: Duration::from_micros(lasts.into()), sequence };
            let bytes = encode(&heartbeat, &Authentication::None, SOURCE);
            prop_assert_eq!(decode(&bytes, &Authentication::None, SOURCE), Ok((heartbeat, false)));
        }
    }
}
