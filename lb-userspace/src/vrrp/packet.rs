//! VRRP's messages: pure. Bytes in, an [`Advert`] or a reason to discard it out, and the other way round.
//!
//! Version 2 (RFC 3768 5.1), IPv4 only; the authentication data is always there:
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |Version| Type  | Virtual Rtr ID|   Priority    | Count IP Addrs|
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   Auth Type   | Adver Int (s) |          Checksum             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                       IP addresses, 4 each                    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                     Authentication data, 8                    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! Version 3 (RFC 9568 5.1); of the reserved bits nothing is expected:
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |Version| Type  | Virtual Rtr ID|   Priority    |IPvX Addr Count|
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |Reserve| Max Advertise Int (cs)|          Checksum             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                    IPvX addresses, 4 or 16 each               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! keepalived's `auth_hmac` puts a trailer (`auth.rs`) behind either.

mod auth;
mod checksum;
mod ipv4;
pub mod receive;
pub mod stamp;

use std::net::IpAddr;

use crate::config::vrrp::{Authentication, Checksum, HmacMode, HmacSettings, Version};

pub use ipv4::{with_ipv4_header, without_ipv4_header};
pub use receive::{Receiver, receive};
pub use stamp::{ReplayGuard, Stamp, Stamper};

/// IP protocol number.
pub const PROTOCOL: u8 = 112;
/// Where adverts go (RFC 3768 5.2.2).
pub const GROUP_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(224, 0, 0, 18);
/// Where adverts go (RFC 9568 5.1.2.2).
pub const GROUP_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// TTL or hop limit of what is sent, and of what is taken (RFC 9568 5.1.1.3, 5.1.2.3).
pub const TTL: u8 = 255;

/// What an advert says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advert {
    /// Of the protocol.
    pub version: Version,
    /// Virtual router id.
    pub vrid: u8,
    /// 0: the sender gives up.
    pub priority: u8,
    /// In milliseconds: version 2 has whole seconds, version 3 hundredths.
    pub interval_ms: u32,
    /// The virtual addresses, in the sender's order.
    pub addresses: Vec<IpAddr>,
}

/// How an instance's adverts are sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Authentication.
    pub authentication: Authentication,
    /// Version 3 over IPv4 only.
    pub checksum: Checksum,
}

/// Where an advert is sent from and to; both of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    /// From.
    pub source: IpAddr,
    /// To.
    pub destination: IpAddr,
}

/// What a receiving instance expects.
#[derive(Debug, Clone)]
pub struct Expectation<'a> {
    /// Its version.
    pub version: Version,
    /// Its id.
    pub vrid: u8,
    /// Its seal.
    pub seal: &'a Seal,
}

/// A message that is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What it says.
    pub advert: Advert,
    /// Which of the two checksums it has; `None` where there is one only.
    pub checksum: Option<Checksum>,
    /// Key and stamp of its auth_hmac trailer, which has been verified; the caller compares it with the sender's last.
    pub stamp: Option<(u8, Stamp)>,
}

/// Why a message is thrown away. The order is that of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discard {
    /// TTL or hop limit is not 255 (or not within a unicast peer's limits): it may come from afar.
    Ttl,
    /// To the group although the instance has unicast peers, or to one address although it has none (keepalived).
    Destination,
    /// From none of the unicast peers.
    UnknownPeer,
    /// Another version.
    Version,
    /// Not an advertisement.
    Type,
    /// Shorter than it has to be, or longer, or without any address. What is too short to say its version is this, too.
    Length,
    /// Checksum.
    Checksum,
    /// No virtual router of ours.
    Vrid,
    /// Another kind of authentication.
    AuthenticationType,
    /// The password or the code is wrong.
    Authentication,
    /// A repetition of an old one.
    Replay,
    /// An interval of zero.
    Interval,
}

impl Discard {
    /// Every reason, in the order of the checks.
    pub const ALL: [Self; 12] = [
        Self::Ttl,
        Self::Destination,
        Self::UnknownPeer,
        Self::Version,
        Self::Type,
        Self::Length,
        Self::Checksum,
        Self::Vrid,
        Self::AuthenticationType,
        Self::Authentication,
        Self::Replay,
        Self::Interval,
    ];

    /// The word for counters and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ttl => "ttl",
            Self::Destination => "destination",
            Self::UnknownPeer => "unknown-peer",
            Self::Version => "version",
            Self::Type => "type",
            Self::Length => "length",
            Self::Checksum => "checksum",
            Self::Vrid => "vrid",
            Self::AuthenticationType => "authentication-type",
            Self::Authentication => "authentication",
            Self::Replay => "replay",
            Self::Interval => "interval",
        }
    }
}

/// The fixed part of a message, in bytes.
const HEADER: usize = 8;
/// The only type there is: ADVERTISEMENT.
const ADVERTISEMENT: u8 = 1;
/// Where the checksum is in a message.
const CHECKSUM_AT: usize = 6;
/// Longest interval of version 3, in hundredths of a second: twelve bits.
const LONGEST_INTERVAL: u16 = 0x0fff;

/// Builds the VRRP message (the IP payload).
///
/// `stamp` is needed with auth_hmac unless it is receive-only. What the configuration rules out has a place here, too: an
/// interval that does not fit becomes the longest one, addresses of another family than the endpoints' and those beyond 255
/// are left out.
pub fn encode(advert: &Advert, seal: &Seal, endpoints: Endpoints, stamp: Stamp) -> Vec<u8> {
    let Advert { version, vrid, priority, interval_ms, ref addresses } = *advert;
    let is_ipv6 = endpoints.source.is_ipv6();
    let addresses =
        addresses.iter().filter(|address| address.is_ipv6() == is_ipv6).take(usize::from(u8::MAX));
    let mut message = vec![number(version) << 4 | ADVERTISEMENT, vrid, priority, 0];
    message.extend(match version {
        Version::V2 => {
            [auth::kind(&seal.authentication), u8::try_from(interval_ms / 1000).unwrap_or(u8::MAX)]
        }
        Version::V3 => {
            u16::try_from(interval_ms / 10).unwrap_or(u16::MAX).min(LONGEST_INTERVAL).to_be_bytes()
        }
    });
    message.extend([0; 2]);
    for address in addresses {
        message[3] += 1;
        match address {
            IpAddr::V4(address) => message.extend(address.octets()),
            IpAddr::V6(address) => message.extend(address.octets()),
        }
    }
    if version == Version::V2 {
        message.extend(auth::data(&seal.authentication));
    }
    let signed = message.len();
    if let Authentication::Hmac(settings) = &seal.authentication
        && settings.mode != HmacMode::ReceiveOnly
        && let Some((id, key)) = settings.keys.first()
    {
        let trailer = auth::trailer(key, *id, stamp, version, endpoints.source, &message);
        message.extend(trailer);
    }
    let covered = if is_ipv6 { message.len() } else { signed };
    let kind = checksum::Kind::of(version, seal.checksum, endpoints);
    let sum = checksum::sum(&message[..covered], kind);
    message[CHECKSUM_AT..HEADER].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The id in a message, to find whose it is, without any check.
pub fn peek_vrid(message: &[u8]) -> Option<u8> {
    message.get(1).copied()
}

/// Reads a message.
///
/// # Errors
/// Why it has to be discarded (RFC 3768 7.1, RFC 9568 7.1), but for what [`receive()`] looks at.
pub fn decode(message: &[u8], expected: &Expectation<'_>, endpoints: Endpoints) -> Result<Received, Discard> {
    let &[version_type, vrid, priority, count, fifth, sixth, _, _] =
        message.first_chunk::<HEADER>().ok_or(Discard::Length)?;
    let version = expected.version;
    let is_ipv6 = endpoints.source.is_ipv6();
    // Version 2 knows no IPv6.
    if version_type >> 4 != number(version) || (version == Version::V2 && is_ipv6) {
        return Err(Discard::Version);
    }
    if version_type & 0x0f != ADVERTISEMENT {
        return Err(Discard::Type);
    }
    let (signed, trailer) = parts(message, version, count, is_ipv6)?;
    let checksum = check(if is_ipv6 { message } else { signed }, expected, endpoints)?;
    if vrid != expected.vrid {
        return Err(Discard::Vrid);
    }
    let authentication = &expected.seal.authentication;
    match version {
        Version::V2 => auth::check_data(authentication, fifth, signed)?,
        // It has no field for a password, so none can be right.
        Version::V3 if matches!(authentication, Authentication::Pass(_)) => {
            return Err(Discard::AuthenticationType);
        }
        Version::V3 => {}
    }
    let stamp = match (hmac(authentication), trailer) {
        (None, None) => None,
        (None, Some(_)) => return Err(Discard::AuthenticationType),
        (Some(settings), None) if settings.mode == HmacMode::Enforce => {
            return Err(Discard::AuthenticationType);
        }
        (Some(_), None) => None,
        (Some(settings), Some(trailer)) => {
            Some(auth::check_trailer(settings, trailer, version, endpoints.source, signed)?)
        }
    };
    let interval_ms = match version {
        Version::V2 => u32::from(sixth) * 1000,
        Version::V3 => u32::from(u16::from_be_bytes([fifth, sixth]) & LONGEST_INTERVAL) * 10,
    };
    let addresses = &signed[HEADER..][..usize::from(count) * address_length(is_ipv6)];
    let addresses = addresses_in(addresses, is_ipv6);
    let advert = Advert { version, vrid, priority, interval_ms, addresses };
    Ok(Received { advert, checksum, stamp })
}

fn hmac(authentication: &Authentication) -> Option<&HmacSettings> {
    match authentication {
        Authentication::Hmac(settings) => Some(settings),
        Authentication::None | Authentication::Pass(_) => None,
    }
}

const fn number(version: Version) -> u8 {
    match version {
        Version::V2 => 2,
        Version::V3 => 3,
    }
}

const fn address_length(is_ipv6: bool) -> usize {
    if is_ipv6 { 16 } else { 4 }
}

fn addresses_in(bytes: &[u8], is_ipv6: bool) -> Vec<IpAddr> {
    if is_ipv6 {
        bytes.as_chunks::<16>().0.iter().map(|octets| IpAddr::from(*octets)).collect()
    } else {
        bytes.as_chunks::<4>().0.iter().map(|octets| IpAddr::from(*octets)).collect()
    }
}

/// The message proper and its auth_hmac trailer. As in keepalived, the length alone tells whether there is one.
fn parts(
    message: &[u8],
    version: Version,
    count: u8,
    is_ipv6: bool,
) -> Result<(&[u8], Option<&[u8; auth::TRAILER]>), Discard> {
    // RFC 9568 5.2.5: an advert without an address is ignored.
    if count == 0 {
        return Err(Discard::Length);
    }
    let data = if version == Version::V2 { auth::DATA } else { 0 };
    let length = HEADER + usize::from(count) * address_length(is_ipv6) + data;
    let (signed, rest) = message.split_at_checked(length).ok_or(Discard::Length)?;
    match rest {
        [] => Ok((signed, None)),
        rest => rest.try_into().map(|trailer| (signed, Some(trailer))).map_err(|_| Discard::Length),
    }
}

/// Checks the checksum. Says which it is where there are two.
fn check(
    covered: &[u8],
    expected: &Expectation<'_>,
    endpoints: Endpoints,
) -> Result<Option<Checksum>, Discard> {
    let ours = expected.seal.checksum;
    let other = match ours {
        Checksum::PseudoHeader => Checksum::Rfc9568,
        Checksum::Rfc9568 => Checksum::PseudoHeader,
    };
    let is_right = |checksum: &Checksum| {
        checksum::is_right(covered, checksum::Kind::of(expected.version, *checksum, endpoints))
    };
    // Ours first: where addresses and lengths happen to add up to nothing, the two are one.
    let found = [ours, other].into_iter().find(is_right).ok_or(Discard::Checksum)?;
    let has_two = expected.version == Version::V3 && endpoints.source.is_ipv4();
    Ok(has_two.then_some(found))
}

#[cfg(test)]
mod tests;
