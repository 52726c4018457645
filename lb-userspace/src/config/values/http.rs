//! What a request of HTTP holds (RFC 9110), what its answer must, and bytes.

use std::ops::RangeInclusive;

use toml::de::DeValue;

use super::{
    super::check,
    Problem, one_of, string,
    text::{MOST_PAYLOAD, is_host_name},
    wrong_type,
};

/// The longest path and the longest regular expression.
const LONGEST: usize = 2048;
/// The longest value of a header.
const LONGEST_HEADER: usize = 4096;
/// The most ranges of status codes.
const MOST_RANGES: usize = 16;
/// Methods that ask and change nothing, and `POST` for services that take nothing else.
const METHODS: [&str; 4] = ["GET", "HEAD", "OPTIONS", "POST"];
/// Headers that the check writes itself, in small letters.
const OWN_HEADERS: [&str; 7] =
    ["connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"];

/// An element of `paths`, and `path` of a request.
pub(in crate::config) fn request_path(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = "a path with or without a query, such as \"/health?full=1\"";
    let text = string(value, expected)?;
    let wrong = |what: String| Err(Problem::new(what).expected(expected));
    if !text.starts_with('/') {
        wrong("does not begin with \"/\"".to_owned())
    } else if text.len() > LONGEST {
        wrong(format!("too long, {} bytes of at most {LONGEST}", text.len()))
    } else if let Some(letter) = text.chars().find(|letter| !letter.is_ascii_graphic() || *letter == '#') {
        wrong(format!("{letter:?} is not allowed; other characters are written as %XX"))
    } else {
        Ok(text.to_owned())
    }
}

/// `method`.
pub(in crate::config) fn method(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = one_of(&METHODS);
    let text = string(value, &expected)?;
    if METHODS.contains(&text) {
        return Ok(text.to_owned());
    }
    let suggestion = METHODS.into_iter().find(|method| method.eq_ignore_ascii_case(text));
    Err(Problem::new("unknown method").expected(expected).suggest(suggestion))
}

/// `host`: what stands in the `Host` header, with or without a port.
pub(in crate::config) fn host(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = "a host name or address with or without a port, such as \"www.example.org\" or \
                    \"[2001:db8::1]:8080\"";
    let text = string(value, expected)?;
    if host_of(text).is_some() {
        Ok(text.to_owned())
    } else {
        Err(Problem::new("not a host").expected(expected))
    }
}

/// The name in a `host`; `None` where that is an address.
pub(in crate::config) fn name_in_host(host: &str) -> Option<&str> {
    host_of(host).filter(|host| is_host_name(host))
}

/// The part of a `Host` header before the port; `None` when it is none.
fn host_of(text: &str) -> Option<&str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inner, rest) = rest.split_once(']')?;
            inner.parse::<std::net::Ipv6Addr>().ok()?;
            match rest.strip_prefix(':') {
                None if !rest.is_empty() => return None,
                port => (inner, port),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
    };
    let is_host = text.starts_with('[') || is_host_name(host) || host.parse::<std::net::Ipv4Addr>().is_ok();
    (is_host && port.is_none_or(is_port)).then_some(host)
}

/// The name of a header: a token, and none of those that the check writes itself.
pub(in crate::config) fn header_name(name: &str) -> Result<(), Problem> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let lower = name.to_ascii_lowercase();
    if !(1..=256).contains(&name.len()) || !name.bytes().all(token) {
        Err(Problem::new("not the name of a header")
            .expected("letters, digits and \"-\", such as \"X-Check\""))
    } else if lower == "host" {
        Err(Problem::new("the Host header has a key of its own").expected("host = \"...\""))
    } else if OWN_HEADERS.contains(&lower.as_str()) {
        Err(Problem::new("the check writes this header itself").expected("another header"))
    } else {
        Ok(())
    }
}

/// The value of a header.
pub(in crate::config) fn header_value(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = "a text of visible ASCII characters and spaces between them";
    let text = string(value, expected)?;
    let wrong = |what: &str| Err(Problem::new(what).expected(expected));
    if text.len() > LONGEST_HEADER {
        wrong("too long")
    } else if !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        wrong("a character that a header cannot have")
    } else if text.trim() != text {
        wrong("a space at its beginning or end")
    } else {
        Ok(text.to_owned())
    }
}

/// `status`: a code, a range, or an array of both.
pub(in crate::config) fn status(value: &DeValue<'_>) -> Result<Vec<RangeInclusive<u16>>, Problem> {
    const EXPECTED: &str =
        "codes from 100 to 599, such as 200, \"200-299\" or [200, \"301-302\"], at most 16 of them";
    let one = |value: &DeValue<'_>| {
        let code = |text: &str| text.parse::<u16>().ok().filter(|code| (100..=599).contains(code));
        let range = match value {
            DeValue::Integer(number) if number.radix() == 10 => code(number.as_str()).map(|code| code..=code),
            DeValue::String(text) => match text.split_once('-') {
                Some((from, to)) => code(from).zip(code(to)).map(|(from, to)| from..=to),
                None => code(text).map(|code| code..=code),
            },
            DeValue::Integer(_) => None,
            other => return Err(wrong_type(other, EXPECTED)),
        };
        match range {
            None => Err(Problem::new("not a status code or range").expected(EXPECTED)),
            Some(range) if range.is_empty() => {
                Err(Problem::new("a range that ends before it begins").expected(EXPECTED))
            }
            Some(range) => Ok(range),
        }
    };
    match value.as_array() {
        None => one(value).map(|range| vec![range]),
        Some(all) if (1..=MOST_RANGES).contains(&all.len()) => {
            all.iter().map(|element| one(element.get_ref())).collect()
        }
        Some(all) => Err(Problem::new(format!("{} elements", all.len())).expected(EXPECTED)),
    }
}

/// `md5`: what `genhash` of keepalived prints.
pub(in crate::config) fn md5(value: &DeValue<'_>) -> Result<[u8; 16], Problem> {
    let expected = "32 hexadecimal digits, as md5sum prints them";
    let text = string(value, expected)?;
    let bytes = digits(text).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    bytes.ok_or_else(|| Problem::new("not an MD5 sum").expected(expected))
}

/// `regex`.
pub(in crate::config) fn regex(value: &DeValue<'_>) -> Result<String, Problem> {
    let expected = "a regular expression of at most 2048 bytes, such as \"status: *ok\"";
    let text = string(value, expected)?;
    let wrong = |what: String| Err(Problem::new(what).expected(expected));
    if text.is_empty() {
        return wrong("empty".to_owned());
    }
    if text.len() > LONGEST {
        return wrong(format!("too long, {} bytes", text.len()));
    }
    match check::body_regex(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(regex::Error::CompiledTooBig(_)) => wrong("would take too much memory".to_owned()),
        Err(error) => {
            // The library draws a picture of several lines; the last one says what is wrong.
            let error = error.to_string();
            let last = error.lines().last().unwrap_or_default();
            wrong(format!("not a regular expression: {}", last.trim_start_matches("error: ")))
        }
    }
}

/// `payload_hex` and `expect_hex`: bytes as pairs of hexadecimal digits; spaces between pairs are for the reader.
pub(in crate::config) fn hex(value: &DeValue<'_>) -> Result<Vec<u8>, Problem> {
    let expected = format!("at most {MOST_PAYLOAD} pairs of hexadecimal digits, such as \"de ad be ef\"");
    let text = string(value, &expected)?;
    let bytes: Option<Vec<_>> = text.split_ascii_whitespace().map(digits).collect();
    match bytes.map(|bytes| bytes.concat()) {
        None => Err(Problem::new("not pairs of hexadecimal digits").expected(expected)),
        Some(bytes) if bytes.len() > MOST_PAYLOAD => {
            Err(Problem::new(format!("too long, {} bytes", bytes.len())).expected(expected))
        }
        Some(bytes) => Ok(bytes),
    }
}

/// Pairs of hexadecimal digits and nothing else.
pub(super) fn digits(text: &str) -> Option<Vec<u8>> {
    let value = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let pair = |[high, low]: &[u8; 2]| u8::try_from(value(*high)? * 16 + value(*low)?).ok();
    rest.is_empty().then(|| pairs.iter().map(pair).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> DeValue<'_> {
        DeValue::String(text.into())
    }

    #[test]
    fn hosts() {
        for good in
            ["www.example.org", "a:8080", "192.0.2.1", "192.0.2.1:80", "[2001:db8::1]", "[2001:db8::1]:80"]
        {
            assert_eq!(host(&text(good)).as_deref(), Ok(good));
        }
        for bad in [
            "",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "2001:db8::1",
            "[a]",
            "[::1]80",
            "a b",
            "a\r\nX: y",
            "a/b",
        ] {
            assert!(host(&text(bad)).is_err(), "{bad}");
        }
        assert_eq!(name_in_host("www.example.org:8443"), Some("www.example.org"));
        assert_eq!(name_in_host("192.0.2.1:8443"), None);
        assert_eq!(name_in_host("[2001:db8::1]"), None);
    }

    #[test]
    fn bytes() {
        assert_eq!(hex(&text("de ad\tBEEF")), Ok(vec![0xde, 0xad, 0xbe, 0xef]));
        assert_eq!(hex(&text("")), Ok(vec![]));
        for bad in ["d", "d e", "0x00", "zz", "+1", "é"] {
            assert!(hex(&text(bad)).is_err(), "{bad}");
        }
        assert!(hex(&text(&"00".repeat(1024))).is_ok());
        assert!(hex(&text(&"00".repeat(1025))).is_err());
        assert_eq!(md5(&text("d41d8cd98f00b204e9800998ECF8427E")).map(|sum| sum[15]), Ok(0x7e));
        assert!(md5(&text("d41d8cd98f00b204e9800998ecf842")).is_err());
    }

    #[test]
    fn regular_expressions() {
        let problem = |pattern: &str| format!("{:?}", regex(&text(pattern)).expect_err(pattern));
        assert!(regex(&text("^ok|\\bfine\\b")).is_ok());
        assert!(problem("(").contains("not a regular expression: unclosed group"));
        assert!(problem("\\w{1000}{1000}").contains("would take too much memory"));
        assert!(problem("").contains("empty"));
    }

    #[test]
    fn headers() {
        assert!(header_name("X-Check").is_ok());
        for bad in ["", "a b", "a:", "Host", "content-length", "Transfer-Encoding", "a\r\nb", "é"] {
            assert!(header_name(bad).is_err(), "{bad}");
        }
        assert!(header_value(&text("a b; c")).is_ok());
        for bad in [" a", "a ", "a\r\nb", "a\tb", "é", "\0"] {
            assert!(header_value(&text(bad)).is_err(), "{bad:?}");
        }
    }
}
