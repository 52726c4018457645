//! HTTP/1.1 over TCP or TLS (RFC 9110, RFC 9112). Redirects are answers as any others and nothing compressed is asked
//! for.
//!
//! The MD5 is that of the body after its transfer coding is undone. genhash of keepalived asks in HTTP/1.0 and hashes
//! what follows the header, which is the same wherever the server sends the same body to both.

mod exchange;
#[cfg(test)]
mod tests;
mod tls;

use std::{fmt::Write as _, net::SocketAddr};

use md5::{Digest, Md5};

use super::{Outcome, Passed, Way, words};
use crate::config::check::{Http, HttpRequest, body_regex};

pub use exchange::{Client, Head, MAX_BODY};
pub use tls::TlsClients;

/// One attempt: all requests, one after the other, over one connection for as long as the server keeps it.
///
/// # Errors
/// The first answer that is not right, or why there is none.
pub async fn attempt(http: &Http, way: &Way, tls: &TlsClients) -> Outcome {
    let mut client = Client::new(way, http.tls.as_ref(), tls);
    let mut codes = Vec::new();
    for (index, request) in http.requests.iter().enumerate() {
        let head = client.send(request, index + 1 == http.requests.len()).await?;
        judge_status(request, head.status)?;
        codes.push(head.status);
        if request.md5.is_some() || request.regex.is_some() {
            judge_body(request, &client.body().await?)?;
        } else {
            client.skip_body().await?;
        }
    }
    codes.dedup();
    let codes: Vec<_> = codes.iter().map(ToString::to_string).collect();
    Ok(Passed { detail: format!("HTTP {}", codes.join(", ")), ..Passed::default() })
}

/// Judges the status code of an answer.
///
/// # Errors
/// When the request expects others.
pub fn judge_status(request: &HttpRequest, status: u16) -> Result<(), String> {
    if request.status.iter().any(|range| range.contains(&status)) {
        return Ok(());
    }
    let expected: Vec<_> = request
        .status
        .iter()
        .map(|range| match (range.start(), range.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        })
        .collect();
    Err(format!("HTTP {status} for {}, expected {}", shown(request), expected.join(", ")))
}

/// Judges the body of an answer.
///
/// # Errors
/// When its MD5 is another or the expression matches nowhere in it, or is none.
pub fn judge_body(request: &HttpRequest, body: &[u8]) -> Result<(), String> {
    if let Some(expected) = &request.md5 {
        let md5 = digest(body);
        if md5 != *expected {
            return Err(format!("MD5 of {} is {}, expected {}", shown(request), hex(&md5), hex(expected)));
        }
    }
    if let Some(pattern) = &request.regex {
        let regex = body_regex(pattern)
            .map_err(|_| format!("\"{}\" is no regular expression", words::quoted(pattern.as_bytes())))?;
        if !regex.is_match(body) {
            return Err(format!(
                "no match for \"{}\" in {}",
                words::quoted(pattern.as_bytes()),
                shown(request)
            ));
        }
    }
    Ok(())
}

/// The MD5 that [`HttpRequest::md5`] is compared with.
pub fn digest(body: &[u8]) -> [u8; 16] {
    Md5::digest(body).into()
}

/// Sixteen bytes as 32 hexadecimal digits.
pub fn hex(digest: &[u8; 16]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

/// The `Host` of a server without a name: address and port, the latter unless it is the scheme's own (RFC 9110 section
/// 7.2).
pub fn host(server: SocketAddr, is_tls: bool) -> String {
    match (server.port(), is_tls) {
        (80, false) | (443, true) if server.is_ipv4() => server.ip().to_string(),
        (80, false) | (443, true) => format!("[{}]", server.ip()),
        (port, _) if server.is_ipv4() => format!("{}:{port}", server.ip()),
        (port, _) => format!("[{}]:{port}", server.ip()),
    }
}

fn shown(request: &HttpRequest) -> String {
    words::quoted(request.path.as_bytes())
}
