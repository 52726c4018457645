//! A greeting and HELO (RFC 5321), as keepalived's SMTP_CHECK: 220, `HELO name`, 250, `QUIT`. A server that greets with
//! 554 or 421 refuses service and fails.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Outcome, Passed, Way, words};

/// Longest line of a reply in bytes, with its end. RFC 5321 section 4.5.3.1.5 allows 512, servers send more.
const MAX_LINE: usize = 1024;
/// Most lines of a reply.
const MAX_LINES: usize = 100;

/// One attempt. The answer to `QUIT` may be any, or just the end of the connection.
///
/// # Errors
/// No connection, another code, or what is no SMTP.
pub async fn attempt(helo: &str, way: &Way) -> Outcome {
    let stream = way.tcp().await.map_err(|error| words::io(&error))?;
    let mut dialogue = Dialogue { stream, received: Vec::new() };
    let greeting = dialogue.read("the greeting").await?;
    expect("the greeting", 220, &greeting)?;
    let hello = dialogue.ask(&format!("HELO {helo}\r\n"), "HELO").await?;
    expect("HELO", 250, &hello)?;
    // The server's last word; it has shown by now that it serves, so a connection that just ends is fine.
    let _ = dialogue.ask("QUIT\r\n", "QUIT").await;
    Ok(Passed { detail: "SMTP 250".into(), ..Passed::default() })
}

fn expect(step: &str, code: u16, reply: &Reply) -> Result<(), String> {
    if reply.code == code {
        return Ok(());
    }
    Err(format!("SMTP {} to {step}, expected {code}: {}", reply.code, words::quoted(&reply.text)))
}

struct Dialogue {
    stream: TcpStream,
    /// What was read and is no part of a reply yet.
    received: Vec<u8>,
}

impl Dialogue {
    async fn ask(&mut self, command: &str, step: &str) -> Result<Reply, String> {
        self.stream.write_all(command.as_bytes()).await.map_err(|error| words::io(&error))?;
        self.read(step).await
    }

    async fn read(&mut self, step: &str) -> Result<Reply, String> {
        loop {
            if let Some((found, length)) = reply(&self.received)? {
                self.received.drain(..length);
                return Ok(found);
            }
            let mut buffer = [0; MAX_LINE];
            match self.stream.read(&mut buffer).await {
                Ok(0) => return Err(format!("connection closed before the answer to {step}")),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) => return Err(words::io(&error)),
            }
        }
    }
}

/// A reply (RFC 5321 section 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// The last line's text.
    pub text: Vec<u8>,
}

/// Reads one reply from the beginning of `received`: the reply and the number of its bytes, or `None` while it is not
/// complete. A line may end without carriage return. Never asks for more than 100 lines of 1024 bytes.
///
/// # Errors
/// When this is no reply, whatever may follow; in a few words.
pub fn reply(received: &[u8]) -> Result<Option<(Reply, usize)>, String> {
    let mut first = None;
    let mut begin = 0;
    for _ in 0..MAX_LINES {
        let rest = &received[begin..];
        let window = &rest[..rest.len().min(MAX_LINE)];
        let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
            return if rest.len() < MAX_LINE {
                Ok(None)
            } else {
                Err(format!("a line of more than {MAX_LINE} bytes instead of an SMTP reply"))
            };
        };
        begin += end + 1;
        let line = window[..end].strip_suffix(b"\r").unwrap_or(&window[..end]);
        let (code, is_last, text) = split(line).ok_or_else(|| no_reply(line))?;
        if *first.get_or_insert(code) != code {
            return Err(no_reply(line));
        }
        if is_last {
            return Ok(Some((Reply { code, text: text.to_vec() }, begin)));
        }
    }
    Err(format!("an SMTP reply of more than {MAX_LINES} lines"))
}

/// Code, whether the line is its reply's last, text.
fn split(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    if !matches!(digits[0], b'2'..=b'5') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b' ', text)) => Some((code, true, text)),
        Some((b'-', text)) => Some((code, false, text)),
        Some(_) => None,
    }
}

fn no_reply(line: &[u8]) -> String {
    format!("no SMTP reply: \"{}\"", words::quoted(line))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::{
        io::{AsyncBufReadExt, BufReader},
        net::TcpListener,
        task::JoinHandle,
    };

    use super::*;

    /// A server that says `greeting`, then to each line it reads the next of `answers`, then closes. Returns what it
    /// read.
    async fn server(
        greeting: &'static str,
        answers: &'static [&'static str],
    ) -> (Way, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = Way { connect: listener.local_addr().unwrap(), bind: None, fwmark: 0, through: None };
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            // The client may be gone after the first wrong word.
            let _ = stream.write_all(greeting.as_bytes()).await;
            let mut lines = Vec::new();
            for answer in answers {
                let mut line = String::new();
                if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
                    break;
                }
                lines.push(line);
                let _ = stream.write_all(answer.as_bytes()).await;
            }
            lines
        });
        (way, task)
    }

    #[tokio::test]
    async fn right_answers() {
        for (greeting, answers) in [
            ("220 ready\r\n", ["250 hello\r\n", "221 bye\r\n"]),
            ("220\r\n", ["250\r\n", ""]),
            ("220-one\r\n220-\r\n220 three\r\n", ["250-a\n250 b\n", "nonsense\r\n"]),
        ] {
            let (way, server) = server(greeting, Vec::leak(answers.to_vec())).await;
            assert_eq!(attempt("lb1.example", &way).await.unwrap().detail, "SMTP 250");
            assert_eq!(server.await.unwrap(), ["HELO lb1.example\r\n", "QUIT\r\n"]);
        }
    }

    #[tokio::test]
    async fn wrong_answers() {
        for (greeting, answers, error) in [
            ("554 go away\r\n", &[][..], "SMTP 554 to the greeting, expected 220: go away"),
            ("421-a\r\n421 b\r\n", &[], "SMTP 421 to the greeting, expected 220: b"),
            ("220 a\r\n", &["550 who\x1b?\r\n"], r"SMTP 550 to HELO, expected 250: who\x1b?"),
            ("HTTP/1.1 400 Bad Request\r\n", &[], "no SMTP reply: \"HTTP/1.1 400 Bad Request\""),
            ("", &[], "connection closed before the answer to the greeting"),
            ("220-unfinished\r\n", &[], "connection closed before the answer to the greeting"),
            ("220 a\r\n", &["250-b\r\n251 c\r\n"], "no SMTP reply: \"251 c\""),
        ] {
            let (way, server) = server(greeting, answers).await;
            assert_eq!(attempt("lb1.example", &way).await.unwrap_err(), error);
            server.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_flood_ends_by_itself() {
        for (line, error) in [
            ("x", "a line of more than 1024 bytes instead of an SMTP reply"),
            ("220-more\r\n", "an SMTP reply of more than 100 lines"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let way = Way { connect: listener.local_addr().unwrap(), bind: None, fwmark: 0, through: None };
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                while stream.write_all(line.as_bytes()).await.is_ok() {}
            });
            let outcome = tokio::time::timeout(Duration::from_secs(20), attempt("a", &way)).await;
            assert_eq!(outcome.expect("the bound ends it").unwrap_err(), error);
            server.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_silent_server_is_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = Way { connect: listener.local_addr().unwrap(), bind: None, fwmark: 0, through: None };
        // The kernel accepts; nobody speaks.
        assert!(tokio::time::timeout(Duration::from_millis(100), attempt("a", &way)).await.is_err());
        drop(listener);
        assert_eq!(attempt("a", &way).await.unwrap_err(), "connection refused");
    }

    #[test]
    fn several_replies_in_one_read() {
        let bytes = b"220-a\r\n220 b\r\n250 c\r\n2";
        let (first, length) = reply(bytes).unwrap().unwrap();
        assert_eq!((first.code, &first.text[..], length), (220, &b"b"[..], 14));
        let (second, length) = reply(&bytes[14..]).unwrap().unwrap();
        assert_eq!((second.code, length), (250, 7));
        assert_eq!(reply(&bytes[21..]), Ok(None));
    }

    #[test]
    fn codes() {
        for bad in ["", "22", "2200 a", "120 a", "620 a", "2x0 a", "+20 a", "220_a", "\u{ff12}20 a"] {
            assert!(reply(format!("{bad}\r\n").as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            if let Ok(Some((reply, length))) = reply(&bytes) {
                prop_assert!(length <= bytes.len());
                prop_assert!((200..=599).contains(&reply.code));
            }
        }

        /// What was judged does not change with what comes later.
        #[test]
        fn more_bytes_change_nothing(
            bytes in prop::collection::vec(prop::sample::select(&b"2205- \r\nx"[..]), 0..60),
            more in prop::collection::vec(prop::sample::select(&b"2205- \r\nx"[..]), 0..60),
        ) {
            let before = reply(&bytes);
            if before != Ok(None) {
                prop_assert_eq!(before, reply(&[bytes, more].concat()));
            }
        }
    }
}
