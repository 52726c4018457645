//! What a single value may be: each function turns one TOML value into its typed form or says what is wrong.

use std::{net::Ipv4Addr, ops::RangeInclusive};

use toml::de::DeValue;

use super::{
    Dataplane, Forward, MailTls, OnFailure, OnRemove, Protocol, Scheduler, TunnelChecksum, TunnelKind,
    XdpMode,
    check::{Probe, Via},
    diagnostic::Problem,
};

mod address;
mod http;
mod text;
mod time;
mod vrrp;
mod words;

pub(super) use address::{
    check_address, instance_address, listen, neighbour, network, port, real_address, service, virtual_address,
};
pub(super) use http::{
    header_name, header_value, hex, host, md5, method, name_in_host, regex, request_path, status,
};
pub(super) use text::{
    absolute_path, command, dns_name, helo, host_name, mail_address, mail_server, password, payload, record,
    user, user_name,
};
pub(super) use time::{delay, duration, heartbeat, pace, patience, pause, silence};
pub(super) use vrrp::{
    Vmac, advert_interval, authentication, checksum, exact_interval, hmac_key, hmac_mode, label, process,
    short_password, state, version, vmac, weight,
};
pub(super) use words::{nearest, nearest_name, one_of};

/// A flag of `scheduler_flags`: the scheduler it belongs to and what it switches on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flag {
    pub(super) word: &'static str,
    pub(super) scheduler: Scheduler,
    pub(super) kind: FlagKind,
}

/// The two things that a flag can switch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlagKind {
    Port,
    Fallback,
}

/// Every flag.
pub(super) const FLAGS: &[Flag] = &[
    Flag { word: "sh-port", scheduler: Scheduler::Sh, kind: FlagKind::Port },
    Flag { word: "sh-fallback", scheduler: Scheduler::Sh, kind: FlagKind::Fallback },
    Flag { word: "mh-port", scheduler: Scheduler::Mh, kind: FlagKind::Port },
    Flag { word: "mh-fallback", scheduler: Scheduler::Mh, kind: FlagKind::Fallback },
];

/// `director.instance`.
pub(super) fn instance(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = "1 to 32 of a-z, 0-9, \"_\" and \"-\"";
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    name(value, 32, allowed, expected)
}

/// `virtual_server.name`, and names of everything about VRRP.
pub(super) fn server_name(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = "1 to 64 of A-Z, a-z, 0-9, \".\", \"_\" and \"-\"";
    name(value, 64, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'), expected)
}

/// `director.router_id`.
pub(super) fn router_id(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = "1 to 64 visible ASCII characters and spaces";
    name(value, 64, |byte| byte == b' ' || byte.is_ascii_graphic(), expected)
}

/// An element of `director.interfaces`. The rules are the kernel's (`dev_valid_name` in net/core/dev.c).
pub(super) fn interface(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected =
        "the name of a network interface, such as \"eth0\": 1 to 15 bytes without spaces, \"/\" and \":\"";
    let text = string(value, expected)?;
    if text == "." || text == ".." {
        return Err(Problem::new("not an interface name").expected(expected));
    }
    if text.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
        return Err(Problem::new("a space or control character in it").expected(expected));
    }
    name(value, 15, |byte| !matches!(byte, b'/' | b':'), expected)
}

/// `director.dataplane`.
pub(super) fn dataplane(value: &DeValue<'_>) -> Result<Dataplane, Problem> {
    word(value, "data plane", Dataplane::ALL, Dataplane::as_str)
}

/// `director.xdp_mode`.
pub(super) fn xdp_mode(value: &DeValue<'_>) -> Result<XdpMode, Problem> {
    word(value, "mode", XdpMode::ALL, XdpMode::as_str)
}

/// `virtual_server.protocol`.
pub(super) fn protocol(value: &DeValue<'_>) -> Result<Protocol, Problem> {
    word(value, "protocol", Protocol::ALL, Protocol::as_str)
}

/// `virtual_server.scheduler`.
pub(super) fn scheduler(value: &DeValue<'_>) -> Result<Scheduler, Problem> {
    word(value, "scheduler", Scheduler::ALL, Scheduler::as_str)
}

/// `tunnel.type`.
pub(super) fn tunnel_kind(value: &DeValue<'_>) -> Result<TunnelKind, Problem> {
    word(value, "kind of tunnel", TunnelKind::ALL, TunnelKind::as_str)
}

/// `tunnel.checksum`.
pub(super) fn tunnel_checksum(value: &DeValue<'_>) -> Result<TunnelChecksum, Problem> {
    word(value, "choice", TunnelChecksum::ALL, TunnelChecksum::as_str)
}

/// `persistence_granularity`: an IPv4 mask, or the length of a prefix; which of them.
pub(super) fn granularity(value: &DeValue<'_>) -> Result<Granularity, Problem> {
    let expected = "a mask such as \"255.255.255.0\", or for both families a number of bits such as 24 or 64";
    match value {
        DeValue::Integer(_) => {
            byte(value, 1..=128).map(Granularity::Prefix).map_err(|problem| problem.expected(expected))
        }
        _ => {
            let mask: Ipv4Addr = string(value, expected)?
                .parse()
                .map_err(|_| Problem::new("not an IPv4 mask").expected(expected))?;
            let (bits, ones) = (u32::from(mask), u32::from(mask).leading_ones());
            if ones == 0 || bits.count_ones() != ones {
                return Err(Problem::new("not a mask of leading ones").expected(expected));
            }
            Ok(Granularity::Mask(u8::try_from(ones).expect("at most 32")))
        }
    }
}

/// How `persistence_granularity` was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Granularity {
    /// An IPv4 mask, with so many ones.
    Mask(u8),
    /// A number of bits.
    Prefix(u8),
}

/// `forward`.
pub(super) fn forward(value: &DeValue<'_>) -> Result<Forward, Problem> {
    word(value, "kind of forwarding", Forward::ALL, Forward::as_str)
}

/// `on_failure`.
pub(super) fn on_failure(value: &DeValue<'_>) -> Result<OnFailure, Problem> {
    word(value, "choice", OnFailure::ALL, OnFailure::as_str)
}

/// `virtual_server.on_remove`.
pub(super) fn on_remove(value: &DeValue<'_>) -> Result<OnRemove, Problem> {
    word(value, "choice", OnRemove::ALL, OnRemove::as_str)
}

/// `mail.tls`.
pub(super) fn mail_tls(value: &DeValue<'_>) -> Result<MailTls, Problem> {
    word(value, "choice", MailTls::ALL, MailTls::as_str)
}

/// `health_check.type`.
pub(super) fn check_type(value: &DeValue<'_>) -> Result<&'static str, Problem> {
    word(value, "type of check", Probe::TYPES, |one| one)
}

/// `health_check.via`.
pub(super) fn via(value: &DeValue<'_>) -> Result<Via, Problem> {
    word(value, "way", Via::ALL, Via::as_str)
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Problem> {
    value.as_bool().ok_or_else(|| wrong_type(value, "true or false, without quotes"))
}

/// An element of `virtual_server.scheduler_flags`.
pub(super) fn flag(value: &DeValue<'_>) -> Result<Flag, Problem> {
    word(value, "flag", FLAGS, |flag| flag.word)
}

/// An integer in a range.
pub(super) fn integer(value: &DeValue<'_>, range: RangeInclusive<u32>) -> Result<u32, Problem> {
    let expected = format!("a whole number from {} to {}", range.start(), range.end());
    let DeValue::Integer(number) = value else { return Err(wrong_type(value, &expected)) };
    let known = i128::from_str_radix(number.as_str(), number.radix()).ok();
    match known.and_then(|number| u32::try_from(number).ok()).filter(|number| range.contains(number)) {
        Some(number) => Ok(number),
        None => Err(Problem::new("out of range").expected(expected)),
    }
}

/// An integer in a range within a byte.
pub(super) fn byte(value: &DeValue<'_>, range: RangeInclusive<u8>) -> Result<u8, Problem> {
    let number = integer(value, u32::from(*range.start())..=u32::from(*range.end()))?;
    Ok(u8::try_from(number).expect("the range says so"))
}

/// A value of the wrong TOML type.
pub(super) fn wrong_type(value: &DeValue<'_>, expected: &str) -> Problem {
    let what = match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    Problem::new(format!("wrong type, {what}")).expected(expected)
}

fn string<'v>(value: &'v DeValue<'_>, expected: &str) -> Result<&'v str, Problem> {
    value.as_str().ok_or_else(|| wrong_type(value, expected))
}

fn name(
    value: &DeValue<'_>,
    most: usize,
    allowed: impl Fn(u8) -> bool,
    expected: &str,
) -> Result<String, Problem> {
    let text = string(value, expected)?;
    let wrong = |what: String| Err(Problem::new(what).expected(expected));
    if text.is_empty() {
        wrong("empty".to_owned())
    } else if text.len() > most {
        wrong(format!("too long, {} bytes", text.len()))
    } else if let Some(letter) = text.chars().find(|letter| !letter.to_string().bytes().all(&allowed)) {
        wrong(format!("{letter:?} is not allowed"))
    } else {
        Ok(text.to_owned())
    }
}

fn words<T: Copy>(all: &[T], as_str: impl Fn(T) -> &'static str) -> Vec<&'static str> {
    all.iter().map(|one| as_str(*one)).collect()
}

fn word<T: Copy>(
    value: &DeValue<'_>,
    what: &str,
    all: &[T],
    as_str: impl Fn(T) -> &'static str,
) -> Result<T, Problem> {
    let words = words(all, as_str);
    let expected = one_of(&words);
    let text = string(value, &expected)?;
    let found = words.iter().zip(all).find(|(word, _)| **word == text);
    found.map(|(_, one)| *one).ok_or_else(|| {
        Problem::new(format!("unknown {what}")).expected(expected).suggest(nearest(text, &words))
    })
}
