//! Names, programs, files and mail addresses.

use std::{net::IpAddr, path::PathBuf};

use toml::de::DeValue;

use super::{super::Command, Problem, name, one_of, string, wrong_type};

/// The most bytes of `payload` and `expect`: what fits into one packet on every way.
pub(super) const MOST_PAYLOAD: usize = 1024;
/// The most elements of a command, the program included.
const MOST_ARGUMENTS: usize = 64;
/// The longest element of a command, and the longest path (`PATH_MAX` of Linux).
const LONGEST_ARGUMENT: usize = 4095;
/// The longest name of a file (`NAME_MAX` of Linux).
pub(super) const LONGEST_NAME: usize = 255;
/// Record types of DNS that a check can ask for.
const RECORDS: [&str; 12] =
    ["SOA", "A", "AAAA", "CNAME", "MX", "NS", "PTR", "SRV", "TXT", "CAA", "DS", "DNSKEY"];

/// `director.script_user`. Whether there is such a user is found out where the scripts run.
pub(in crate::config) fn user_name(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = "the name of a user, such as \"nobody\": 1 to 32 of A-Z, a-z, 0-9, \".\", \"_\" and \"-\"";
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let user = name(value, 32, allowed, expected)?;
    let is_number = user.bytes().all(|byte| byte.is_ascii_digit());
    if is_number || user.starts_with('-') {
        return Err(Problem::new("not the name of a user").expected(expected));
    }
    Ok(user)
}

/// A program with its arguments. `None` for an empty array.
pub(in crate::config) fn command(value: &DeValue<'_>) -> Result<Option<Command>, Problem> {
    let expected = "an array of texts, the first one the program's absolute path, such as \
                    [\"/etc/xdirector/up.sh\", \"web\"]";
    let wrong = |what: String| Problem::new(what).expected(expected);
    let elements = value.as_array().ok_or_else(|| wrong_type(value, expected))?;
    if elements.len() > MOST_ARGUMENTS {
        return Err(wrong(format!("{} elements, at most {MOST_ARGUMENTS} are allowed", elements.len())));
    }
    let mut words = Vec::with_capacity(elements.len());
    for (index, element) in elements.iter().enumerate() {
        let word =
            element.get_ref().as_str().ok_or_else(|| wrong(format!("element {index} is not a text")))?;
        if word.len() > LONGEST_ARGUMENT {
            return Err(wrong(format!("element {index} is too long, {} bytes", word.len())));
        }
        if word.contains('\0') {
            return Err(wrong(format!("element {index} has a zero byte in it")));
        }
        words.push(word.to_owned());
    }
    match words.first() {
        None => Ok(None),
        Some(program) if program.starts_with('/') && !program.ends_with('/') => Ok(Some(Command(words))),
        Some(program) => Err(wrong(format!("\"{program}\" is not the absolute path of a program"))),
    }
}

/// The absolute path of a file.
pub(in crate::config) fn absolute_path(value: &DeValue<'_>) -> Result<PathBuf, Problem> {
    let expected = "the absolute path of a file, such as \"/etc/xdirector/web.state\"";
    let text = string(value, expected)?;
    if !text.starts_with('/') || text.ends_with('/') {
        Err(Problem::new("not the absolute path of a file").expected(expected))
    } else if text.contains('\0') || text.len() > LONGEST_ARGUMENT {
        Err(Problem::new("not a path").expected(expected))
    } else {
        Ok(PathBuf::from(text))
    }
}

/// The name of a host as DNS has it.
pub(in crate::config) fn host_name(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = "a host name, such as \"www.example.org\"";
    let text = string(value, expected)?;
    if is_host_name(text) {
        Ok(text.to_owned())
    } else {
        Err(Problem::new("not a host name").expected(expected))
    }
}

/// `mail.server`: a host name or an address.
pub(in crate::config) fn mail_server(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = "a host name or an address, such as \"mail.example.org\"";
    let text = string(value, expected)?;
    let wrong = |what: &str| Err(Problem::new(what).expected(expected));
    match text.rsplit_once(':') {
        _ if is_host_name(text) || text.parse::<IpAddr>().is_ok() => Ok(text.to_owned()),
        Some((host, port)) if !host.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            wrong("a port, which has a key of its own")
        }
        _ => wrong("neither a host name nor an address"),
    }
}

/// `helo` of an SMTP check: a host name, or an address in brackets (RFC 5321 section 4.1.3).
pub(in crate::config) fn helo(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = "a host name, such as \"director.example.org\", or an address in brackets";
    let text = string(value, expected)?;
    let literal = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_literal = literal.is_some_and(|inner| {
        inner.strip_prefix("IPv6:").unwrap_or(inner).parse::<IpAddr>().is_ok_and(|address| {
            // An IPv6 address is marked as such.
            address.is_ipv6() == inner.starts_with("IPv6:")
        })
    });
    if is_literal || is_host_name(text) {
        Ok(text.to_owned())
    } else {
        Err(Problem::new("not a host name").expected(expected))
    }
}

/// `name` of a DNS check; `.` is the root.
pub(in crate::config) fn dns_name(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = "a name in the DNS, such as \"example.org\", or \".\"";
    let text = string(value, expected)?;
    if text == "." || is_dns_name(text.strip_suffix('.').unwrap_or(text)) {
        Ok(text.to_owned())
    } else {
        Err(Problem::new("not a name in the DNS").expected(expected))
    }
}

/// `record` of a DNS check, in capitals.
pub(in crate::config) fn record(value: &DeValue<'_>) -> Result<String, Problem> {
    let all: Vec<_> = RECORDS.iter().copied().chain(["ANY"]).collect();
    let expected = one_of(&all);
    let text = string(value, &expected)?.to_ascii_uppercase();
    if all.contains(&text.as_str()) {
        return Ok(text);
    }
    Err(Problem::new("unknown record type").expected(expected))
}

/// `payload` and `expect`: the bytes of a text.
pub(in crate::config) fn payload(value: &DeValue<'_>) -> Result<Vec<u8>, Problem> {
    let expected = format!("a text of at most {MOST_PAYLOAD} bytes");
    let text = string(value, &expected)?;
    if text.len() > MOST_PAYLOAD {
        return Err(Problem::new(format!("too long, {} bytes", text.len())).expected(expected));
    }
    Ok(text.as_bytes().to_vec())
}

/// A mail address without a name before it.
pub(in crate::config) fn mail_address(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = "a mail address, such as \"admin@example.org\"";
    let text = string(value, expected)?;
    // RFC 5321 section 4.5.3.1.3: 256 bytes with the angle brackets.
    if text.len() <= 254 && text.is_ascii() && text.parse::<lettre::Address>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err(Problem::new("not a mail address").expected(expected))
    }
}

/// `mail.user`.
pub(in crate::config) fn user(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = "1 to 255 bytes without control characters";
    let text = string(value, expected)?;
    if (1..=255).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(Problem::new("not a user name").expected(expected))
    }
}

/// `mail.password`. The problem never holds any of it.
pub(in crate::config) fn password(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = "a text of 1 to 1024 bytes without control characters";
    let text = string(value, expected)?;
    if (1..=1024).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(Problem::new("empty, too long, or a control character in it").expected(expected))
    }
}

/// Labels of letters, digits, `-` and (against RFC 1123, but common) `_`; the last one is not a number.
pub(super) fn is_host_name(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or_default();
    is_dns_name(text)
        && text.split('.').all(|label| !label.starts_with('-') && !label.ends_with('-'))
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Without the dot at the end. RFC 1035 section 2.3.4: labels up to 63 bytes, 255 in all as they are sent.
fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> DeValue<'_> {
        DeValue::String(text.into())
    }

    #[test]
    fn host_names() {
        for good in ["a", "www.example.org", "x-1.example", "mail_1.example", "1.example"] {
            assert!(is_host_name(good), "{good}");
        }
        let long = "a.".repeat(127) + "a";
        for bad in
            ["", ".", "a..b", "a.", "-a", "a-", "a b", "192.0.2.1", "192.0.2.256", "é.example", "a:1", &long]
        {
            assert!(!is_host_name(bad), "{bad}");
        }
        assert!(is_host_name("a.".repeat(126).trim_end_matches('.')));
    }

    #[test]
    fn names_in_greetings() {
        for good in ["director", "[192.0.2.1]", "[IPv6:2001:db8::1]"] {
            assert_eq!(helo(&text(good)).as_deref(), Ok(good));
        }
        for bad in ["192.0.2.1", "[2001:db8::1]", "[IPv6:192.0.2.1]", "[]", "a\r\nQUIT", "director 01"] {
            assert!(helo(&text(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn mail_addresses() {
        for good in ["a@example.org", "first.last+tag@[192.0.2.1]", "root@localhost"] {
            assert_eq!(mail_address(&text(good)).as_deref(), Ok(good));
        }
        for bad in ["", "a", "@b", "a@", "A <a@example.org>", "a@b\r\nRCPT TO:<c@d>", "a b@example.org"] {
            assert!(mail_address(&text(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn records_and_names_of_the_dns() {
        assert_eq!(record(&text("aaaa")).as_deref(), Ok("AAAA"));
        assert!(record(&text("AXFR")).is_err());
        for good in [".", "example.org", "example.org.", "_sip._udp.example.org"] {
            assert_eq!(dns_name(&text(good)).as_deref(), Ok(good));
        }
        for bad in ["", "..", "a..b", ".org", "a b"] {
            assert!(dns_name(&text(bad)).is_err(), "{bad}");
        }
    }
}
