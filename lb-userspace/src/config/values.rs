//! What a single value may be: each function turns one TOML value into its typed form or says what is wrong.

use std::{
    net::{IpAddr, Ipv6Addr},
    ops::RangeInclusive,
    time::Duration,
};

use toml::de::DeValue;

use super::{Dataplane, Forward, Protocol, Scheduler, XdpMode, diagnostic::Problem};

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_hours(31 * 24);

/// Words of keepalived and ipvsadm, and what they are called here.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("lb_algo", "scheduler"),
    ("lvs_sched", "scheduler"),
    ("lb_kind", "forward"),
    ("lvs_method", "forward"),
    ("masq", "nat"),
    ("masquerading", "nat"),
    ("route", "dr"),
    ("gate", "dr"),
    ("dsr", "dr"),
    ("direct", "dr"),
    ("ipip", "tun"),
    ("tunnel", "tun"),
    ("round-robin", "rr"),
    ("roundrobin", "rr"),
    ("leastconn", "lc"),
    ("maglev", "mh"),
    ("skb", "generic"),
    ("driver", "native"),
];

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

/// `virtual_server.name`.
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
    let text = string(value, &one_of(&words(Dataplane::ALL, Dataplane::as_str)))?;
    if matches!(text, "ipvs" | "auto") {
        return Err(Problem::new("not available yet").expected("\"xdp\""));
    }
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

/// `forward`.
pub(super) fn forward(value: &DeValue<'_>) -> Result<Forward, Problem> {
    word(value, "kind of forwarding", Forward::ALL, Forward::as_str)
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

/// A time: whole seconds, or a text of numbers with units, the larger unit first: `1h30m`.
pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, Problem> {
    let expected = "a time from \"1s\" to \"31d\", such as \"15m\", \"90s\" or \"1h30m\", or whole seconds";
    let wrong = |what: &str| Problem::new(what).expected(expected);
    let time = match value {
        DeValue::Integer(number) => {
            let seconds = i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX);
            let seconds = seconds.clamp(0, i128::from(u32::MAX));
            Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX))
        }
        DeValue::String(text) => units(text).map_err(wrong)?,
        other => return Err(wrong_type(other, expected)),
    };
    if time < SHORTEST {
        Err(wrong("too short"))
    } else if time > LONGEST {
        Err(wrong("too long"))
    } else {
        Ok(time)
    }
}

/// The address of a virtual server: address and port.
pub(super) fn virtual_address(value: &DeValue<'_>) -> Result<(IpAddr, u16), Problem> {
    let expected =
        "ADDRESS:PORT, such as \"192.168.10.50:80\" or \"[2001:db8::50]:443\"; port 0 is every port";
    match endpoint(value, expected)? {
        (address, Some(port)) => Ok((address, port)),
        (_, None) => Err(Problem::new("no port").expected(expected)),
    }
}

/// The address of a real server: the port may be left out.
pub(super) fn real_address(value: &DeValue<'_>) -> Result<(IpAddr, Option<u16>), Problem> {
    let expected = "ADDRESS or ADDRESS:PORT, such as \"192.168.1.101:8080\" or \"[2001:db8::101]:8080\"";
    endpoint(value, expected)
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

/// `one of "a", "b"`, or just `"a"`.
pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    if quoted.len() == 1 { quoted.concat() } else { format!("one of {}", quoted.join(", ")) }
}

/// The known word that `word` is probably meant to be.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    // Longer than any known word by far: no typing mistake, and the comparison would cost.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_ascii_lowercase();
    if let Some((_, ours)) = OTHER_WORDS.iter().find(|(theirs, _)| *theirs == word)
        && let Some(known) = known.iter().find(|known| *known == ours)
    {
        return Some(known);
    }
    let slips = |known: &&&str| strsim::damerau_levenshtein(&word, known);
    let closest = known.iter().min_by_key(slips).copied()?;
    if slips(&&closest) <= (closest.len() / 3).max(1) {
        return Some(closest);
    }
    // Shortened words: "max_conns" for "max_connections".
    let likeness = |known: &str| strsim::jaro_winkler(&word, known);
    let alike = known.iter().copied().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (word.len() > 3 && likeness(alike) > 0.85).then_some(alike)
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

fn units(text: &str) -> Result<Duration, &'static str> {
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let mut left = text;
    let mut larger = u64::MAX;
    let mut total: u64 = 0;
    if text.is_empty() {
        return Err("empty");
    }
    while !left.is_empty() {
        let digits = left.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err("not a time");
        }
        let (number, rest) = left.split_at(digits);
        let unit_end = rest.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(unit_end);
        if unit.is_empty() {
            return Err(if rest.is_empty() { "no unit" } else { "not a time" });
        }
        let Some((_, factor)) = UNITS.iter().find(|(word, _)| *word == unit) else {
            return Err("unknown unit of time; the units are d, h, m, s and ms");
        };
        if *factor >= larger {
            return Err("the larger unit of time comes first, each once");
        }
        larger = *factor;
        let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
        total = millis.and_then(|millis| total.checked_add(millis)).ok_or("too long")?;
        left = rest;
    }
    Ok(Duration::from_millis(total))
}

/// Splits `ADDRESS`, `ADDRESS:PORT`, `[V6]` and `[V6]:PORT`.
fn endpoint(value: &DeValue<'_>, expected: &str) -> Result<(IpAddr, Option<u16>), Problem> {
    let text = string(value, expected)?;
    let wrong = |what: String| Problem::new(what).expected(expected);
    let (address, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((inner, rest)) = rest.split_once(']') else {
            return Err(wrong("\"[\" without \"]\"".to_owned()));
        };
        let inner: Ipv6Addr =
            inner.parse().map_err(|_| wrong("not an IPv6 address between the brackets".to_owned()))?;
        match rest.strip_prefix(':') {
            Some(port) => (IpAddr::V6(inner), Some(port)),
            None if rest.is_empty() => (IpAddr::V6(inner), None),
            None => return Err(wrong("something other than \":PORT\" after the \"]\"".to_owned())),
        }
    } else if let Ok(address) = text.parse::<IpAddr>() {
        (address, None)
    } else {
        let (address, port) = match text.rsplit_once(':') {
            Some((address, port)) => (address, Some(port)),
            None => (text, None),
        };
        match address.parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) => return Err(wrong("an IPv6 address with a port needs brackets".to_owned())),
            Ok(address) => (address, port),
            Err(_) => return Err(wrong("not an IP address (names are not looked up)".to_owned())),
        }
    };
    let port = match port {
        None => None,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let port = digits.parse::<u16>();
            Some(port.map_err(|_| wrong("the port is larger than 65535".to_owned()))?)
        }
        Some(_) => return Err(wrong("the port is not a number".to_owned())),
    };
    match special(address) {
        Some(kind) => {
            Err(Problem::new(format!("{kind} address")).expected("the unicast address of a machine"))
        }
        None => Ok((address, port)),
    }
}

/// Why packets cannot be sent to an address of this kind through a director.
fn special(address: IpAddr) -> Option<&'static str> {
    let kinds = match address {
        IpAddr::V4(v4) => [
            // RFC 1122 section 3.2.1.3: all of 0/8 means "this network", not a destination.
            (v4.octets()[0] == 0, "an unspecified"),
            (v4.is_loopback(), "a loopback"),
            (v4.is_multicast(), "a multicast"),
            (v4.is_broadcast(), "a broadcast"),
            (false, ""),
        ],
        IpAddr::V6(v6) => [
            (v6.is_unspecified(), "an unspecified"),
            (v6.is_loopback(), "a loopback"),
            (v6.is_multicast(), "a multicast"),
            // Never on the wire (RFC 4291 section 2.5.5.2): it means the IPv4 address.
            (v6.to_ipv4_mapped().is_some(), "an IPv4-mapped"),
            // It would need an interface beside it; IPVS refuses it as well.
            (v6.is_unicast_link_local(), "a link-local"),
        ],
    };
    kinds.into_iter().find(|(is, _)| *is).map(|(_, kind)| kind)
}
