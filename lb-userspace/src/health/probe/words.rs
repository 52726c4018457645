//! The words of failures: short, in one line, and safe to print whatever a server sent.

use std::io::{self, ErrorKind};

/// Characters of a server's text that a message quotes.
const QUOTED: usize = 80;

/// What the kernel says, without the number.
pub fn io(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".into(),
        ErrorKind::ConnectionReset => "connection reset".into(),
        ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => "connection closed".into(),
        ErrorKind::HostUnreachable => "no route to host".into(),
        ErrorKind::NetworkUnreachable => "network unreachable".into(),
        ErrorKind::TimedOut => "connection timed out".into(),
        _ => {
            let text = error.to_string();
            text.split(" (os error ").next().unwrap_or_default().into()
        }
    }
}

/// The same for a datagram socket, where a refusal is the server's ICMP error.
pub fn datagram(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "port unreachable".into(),
        _ => io(error),
    }
}

/// Text of a server for a message: its beginning, with everything escaped that is not visible ASCII or a space.
pub fn quoted(text: &[u8]) -> String {
    let text = text.trim_ascii();
    let shown = text[..text.len().min(QUOTED)].escape_ascii().to_string();
    if text.len() > QUOTED { format!("{shown}...") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_without_numbers() {
        assert_eq!(io(&io::Error::from_raw_os_error(libc::ECONNREFUSED)), "connection refused");
        assert_eq!(datagram(&io::Error::from_raw_os_error(libc::ECONNREFUSED)), "port unreachable");
        assert_eq!(datagram(&io::Error::from_raw_os_error(libc::ENETUNREACH)), "network unreachable");
        assert_eq!(io(&io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)), "Cannot assign requested address");
        assert_eq!(io(&io::Error::other("certificate expired")), "certificate expired");
    }

    #[test]
    fn quotes_are_short_and_printable() {
        assert_eq!(quoted(b"  ready\r\n"), "ready");
        assert_eq!(quoted(b"a\x1b[2J\nb\xff"), r"a\x1b[2J\nb\xff");
        let long = quoted(&[b'x'; 500]);
        assert_eq!(long, format!("{}...", "x".repeat(80)));
    }
}
