//! Authentication: the password of version 2, and keepalived's `auth_hmac`.
//!
//! The password (RFC 2338 5.3.6, 10.2) travels in clear text. It keeps a machine with a wrong configuration out, nobody else.
//!
//! `auth_hmac` (keepalived 2.4.0) puts 28 bytes behind the message. Over IPv4 the message's checksum does not cover them, over
//! IPv6 it does:
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   Type = 1    |    Key ID     |          Reserved = 0         |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                            Seconds                            |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |     1/65536 of a second       |            Counter            |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |     HMAC-SHA256, the first 16 bytes                           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! The code is over 4 or 6, version, id, 0 and the source (16 bytes, padded on the right), the message with a checksum of
//! zero, the trailer up to the code, and a code of zeros.

use std::{hint::black_box, net::IpAddr};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::{CHECKSUM_AT, Discard, HEADER, Stamp, number};
use crate::config::vrrp::{Authentication, HmacSettings, Version};

/// Length of version 2's authentication data.
pub(super) const DATA: usize = 8;
/// Length of the trailer.
pub(super) const TRAILER: usize = SIGNED + CODE;

/// Length of what is before the code.
const SIGNED: usize = 12;
/// Length of the code.
const CODE: usize = 16;
/// The trailer's type: HMAC-SHA256.
const HMAC_SHA256: u8 = 1;

/// Version 2's authentication type (RFC 3768 5.3.6, RFC 2338 5.3.6).
pub(super) const fn kind(authentication: &Authentication) -> u8 {
    match authentication {
        Authentication::None | Authentication::Hmac(_) => 0,
        Authentication::Pass(_) => 1,
    }
}

/// Version 2's authentication data.
pub(super) const fn data(authentication: &Authentication) -> [u8; DATA] {
    match authentication {
        Authentication::None | Authentication::Hmac(_) => [0; DATA],
        Authentication::Pass(password) => *password,
    }
}

/// Checks type and data of a message of version 2 with whole authentication data at its end. Without a password the data
/// says nothing.
pub(super) fn check_data(authentication: &Authentication, kind: u8, signed: &[u8]) -> Result<(), Discard> {
    if kind != self::kind(authentication) {
        return Err(Discard::AuthenticationType);
    }
    match (authentication, signed.last_chunk()) {
        (Authentication::Pass(password), data) if !data.is_some_and(|data| is_equal(data, password)) => {
            Err(Discard::Authentication)
        }
        _ => Ok(()),
    }
}

/// Takes as long for a password that differs in its first byte as for one that differs in its last.
fn is_equal(ours: &[u8; DATA], theirs: &[u8; DATA]) -> bool {
    let differences = ours.iter().zip(theirs).fold(0, |all, (our, their)| black_box(all | (our ^ their)));
    differences == 0
}

/// The trailer for a message, whose checksum does not matter.
pub(super) fn trailer(
    key: &[u8],
    id: u8,
    stamp: Stamp,
    version: Version,
    source: IpAddr,
    message: &[u8],
) -> [u8; TRAILER] {
    let mut trailer = [0; TRAILER];
    let (signed, code) = trailer.split_at_mut(SIGNED);
    signed[..2].copy_from_slice(&[HMAC_SHA256, id]);
    signed[4..].copy_from_slice(&stamp.to_bytes());
    let full = hmac(key, version, source, message, signed).finalize().into_bytes();
    code.copy_from_slice(&full[..CODE]);
    trailer
}

/// Checks a trailer. Returns its key's number and its stamp.
pub(super) fn check_trailer(
    settings: &HmacSettings,
    trailer: &[u8; TRAILER],
    version: Version,
    source: IpAddr,
    message: &[u8],
) -> Result<(u8, Stamp), Discard> {
    let (signed, code) = trailer.split_at(SIGNED);
    let &[kind, id, 0, 0, ref stamp @ ..] = signed else { return Err(Discard::AuthenticationType) };
    if kind != HMAC_SHA256 {
        return Err(Discard::AuthenticationType);
    }
    let key = settings.keys.iter().find(|(number, _)| *number == id).map(|(_, key)| key);
    let key = key.ok_or(Discard::Authentication)?;
    // Compares in constant time.
    hmac(key, version, source, message, signed)
        .verify_truncated_left(code)
        .map_err(|_| Discard::Authentication)?;
    let stamp = stamp.first_chunk().map(|bytes| Stamp::from_bytes(*bytes));
    Ok((id, stamp.unwrap_or_default()))
}

fn hmac(key: &[u8], version: Version, source: IpAddr, message: &[u8], signed: &[u8]) -> Hmac<Sha256> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
    let mut padded = [0; 16];
    let family = match source {
        IpAddr::V4(source) => {
            padded[..4].copy_from_slice(&source.octets());
            4
        }
        IpAddr::V6(source) => {
            padded = source.octets();
            6
        }
    };
    hmac.update(&[family, number(version), message[1], 0]);
    hmac.update(&padded);
    hmac.update(&message[..CHECKSUM_AT]);
    hmac.update(&[0; HEADER - CHECKSUM_AT]);
    hmac.update(&message[HEADER..]);
    hmac.update(signed);
    hmac.update(&[0; CODE]);
    hmac
}
