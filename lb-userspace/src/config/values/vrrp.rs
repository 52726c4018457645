//! Values of VRRP.

use std::{ops::RangeInclusive, time::Duration};

use toml::de::DeValue;

use super::{
    super::vrrp::{Checksum, HmacMode, Version},
    Problem, byte, http, interface, name, string, text, time, word, wrong_type,
};

/// The words of `authentication.type`.
const AUTHENTICATION: &[&str] = &["pass", "hmac"];
/// Weights that an effective priority, 1 to 254, can make use of.
const WEIGHTS: RangeInclusive<i64> = -253..=253;
/// keepalived's limits of a key of `auth_hmac`, in bytes.
const KEY: RangeInclusive<usize> = 32..=64;

/// `vrrp_instance.vmac`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) enum Vmac {
    /// None.
    Off,
    /// One with a name that tells its virtual router.
    On,
    /// One with this name.
    Named(String),
}

/// `vrrp_instance.version`.
pub(in crate::config) fn version(value: &DeValue<'_>) -> Result<Version, Problem> {
    Ok(if byte(value, 2..=3)? == 2 { Version::V2 } else { Version::V3 })
}

/// `vrrp_instance.advert_interval`, for any version.
pub(in crate::config) fn advert_interval(value: &DeValue<'_>) -> Result<Duration, Problem> {
    let expected = "a time from \"10ms\" to \"255s\", such as \"1s\", or whole seconds";
    time::time(value, Duration::from_millis(10), Duration::from_secs(255), expected)
}

/// Whether adverts of this version can tell the interval.
pub(in crate::config) fn exact_interval(interval: Duration, version: Version) -> Result<(), Problem> {
    let (step, most, expected) = match version {
        Version::V2 => (1000, 255_000, "whole seconds from \"1s\" to \"255s\", or version = 3"),
        // Twelve bits of hundredths of a second (RFC 9568 section 5.2.7).
        Version::V3 => (10, 40_950, "a time from \"10ms\" to \"40s950ms\" in steps of 10 ms"),
    };
    let millis = interval.as_millis();
    let wrong = |what: &str| Err(Problem::new(format!("{what} version {version}")).expected(expected));
    if millis > most {
        wrong("too long for")
    } else if millis < step {
        wrong("too short for")
    } else if !millis.is_multiple_of(step) {
        wrong("not to be told in adverts of")
    } else {
        Ok(())
    }
}

/// `vrrp_instance.state`: whether it is `MASTER`.
pub(in crate::config) fn state(value: &DeValue<'_>) -> Result<bool, Problem> {
    word(value, "state", &[true, false], |is_master| if is_master { "MASTER" } else { "BACKUP" })
}

/// `vrrp_instance.checksum`.
pub(in crate::config) fn checksum(value: &DeValue<'_>) -> Result<Checksum, Problem> {
    word(value, "checksum", Checksum::ALL, Checksum::as_str)
}

/// `authentication.type`.
pub(in crate::config) fn authentication(value: &DeValue<'_>) -> Result<&'static str, Problem> {
    word(value, "type of authentication", AUTHENTICATION, |one| one)
}

/// `authentication.password`; a longer one than there is room for is the caller's affair. The problem never holds any of it.
pub(in crate::config) fn short_password(value: &DeValue<'_>) -> Result<String, Problem> {
    text::password(value)
        .map_err(|problem| problem.expected("a text of 1 to 8 bytes without control characters"))
}

/// `authentication.mode`.
pub(in crate::config) fn hmac_mode(value: &DeValue<'_>) -> Result<HmacMode, Problem> {
    word(value, "mode", HmacMode::ALL, HmacMode::as_str)
}

/// `authentication.key`. The problem never holds any of it.
pub(in crate::config) fn hmac_key(value: &DeValue<'_>) -> Result<Vec<u8>, Problem> {
    let expected = format!("{} to {} hexadecimal digits", 2 * KEY.start(), 2 * KEY.end());
    let text = string(value, &expected)?;
    match http::digits(text) {
        None => Err(Problem::new("not pairs of hexadecimal digits").expected(expected)),
        Some(key) if key.len() < *KEY.start() => Err(Problem::new("too short").expected(expected)),
        Some(key) if key.len() > *KEY.end() => Err(Problem::new("too long").expected(expected)),
        Some(key) => Ok(key),
    }
}

/// `vrrp_instance.vmac`.
pub(in crate::config) fn vmac(value: &DeValue<'_>) -> Result<Vmac, Problem> {
    let expected =
        "true, false, or a name for the new interface: 1 to 15 bytes without spaces, \"/\" and \":\"";
    match value {
        DeValue::Boolean(true) => Ok(Vmac::On),
        DeValue::Boolean(false) => Ok(Vmac::Off),
        DeValue::String(_) => interface(value).map(Vmac::Named).map_err(|problem| problem.expected(expected)),
        other => Err(wrong_type(other, expected)),
    }
}

/// `label` of an address (IFNAMSIZ of the kernel).
pub(in crate::config) fn label(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = "1 to 15 visible ASCII characters, such as \"eth0:1\"";
    name(value, 15, |byte| byte.is_ascii_graphic(), expected)
}

/// `vrrp_track_process.process`.
pub(in crate::config) fn process(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = "the name of a program without its folder, such as \"haproxy\"";
    let text = string(value, expected)?;
    if text.contains('/') {
        return Err(Problem::new("a path").expected(expected));
    }
    if text.is_empty() || text.len() > text::LONGEST_NAME || text.chars().any(char::is_control) {
        return Err(Problem::new("not the name of a program").expected(expected));
    }
    Ok(text.to_owned())
}

/// `weight` of something tracked.
pub(in crate::config) fn weight(value: &DeValue<'_>) -> Result<i32, Problem> {
    let expected = format!("a whole number from {} to {}", WEIGHTS.start(), WEIGHTS.end());
    let DeValue::Integer(number) = value else { return Err(wrong_type(value, &expected)) };
    let known = i64::from_str_radix(number.as_str(), number.radix()).ok();
    let known = known.filter(|number| WEIGHTS.contains(number)).and_then(|number| i32::try_from(number).ok());
    known.ok_or_else(|| Problem::new("out of range").expected(expected))
}
