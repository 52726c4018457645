//! One datagram. A server that speaks no protocol of which the director knows an answer is at least heard when it
//! refuses: its kernel says that nobody listens (ICMP port unreachable).

use std::{io, time::Duration};

use tokio::time::timeout_at;

use super::{Outcome, Passed, Way, words};

/// One attempt, which takes up to `timeout`. Sends `payload` (may be empty) and passes when the first datagram of the
/// server begins with `expect` (empty: any), or after silence unless `require_reply`.
///
/// # Errors
/// A refusal, another answer, silence with `require_reply`, or a socket that cannot be made.
pub async fn attempt(
    payload: &[u8],
    expect: &[u8],
    require_reply: bool,
    way: &Way,
    timeout: Duration,
) -> Outcome {
    let end = tokio::time::Instant::now() + timeout;
    match timeout_at(end, exchange(payload, expect.len(), way)).await {
        Ok(Ok(answer)) => judge(expect, &answer),
        Ok(Err(error)) => Err(words::datagram(&error)),
        Err(_) if require_reply => Err(format!("no answer within {} s", timeout.as_secs_f64())),
        Err(_) => Ok(Passed { detail: "no refusal".into(), ..Passed::default() }),
    }
}

/// Judges an answer of which the beginning is known, at least as many bytes of it as `expect` has if there were so many.
///
/// # Errors
/// When it begins otherwise.
pub fn judge(expect: &[u8], answer: &[u8]) -> Outcome {
    if answer.starts_with(expect) {
        return Ok(Passed { detail: "answer".into(), ..Passed::default() });
    }
    let shown = &answer[..answer.len().min(expect.len())];
    Err(format!("answer begins with \"{}\", expected \"{}\"", words::quoted(shown), words::quoted(expect)))
}

/// Sends, and returns the first `length` bytes of what comes back; the kernel drops the rest.
async fn exchange(payload: &[u8], length: usize, way: &Way) -> io::Result<Vec<u8>> {
    let socket = way.udp().await?;
    socket.send(payload).await?;
    let mut answer = vec![0; length.max(1)];
    let received = socket.recv(&mut answer).await?;
    answer.truncate(received);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::UdpSocket;

    use super::*;

    /// Longer than a loopback answer takes on any machine; only what waits in vain takes it all.
    const LONG: Duration = Duration::from_secs(20);
    /// For attempts that are to end by silence.
    const SHORT: Duration = Duration::from_millis(100);

    /// A server that answers each datagram with `PREFIX + datagram`, and its address.
    async fn echo(prefix: &'static [u8]) -> Way {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let way = way(socket.local_addr().unwrap());
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                socket.send_to(&[prefix, &buffer[..length]].concat(), from).await.unwrap();
            }
        });
        way
    }

    fn way(connect: SocketAddr) -> Way {
        Way { connect, bind: None, fwmark: 0, through: None }
    }

    #[tokio::test]
    async fn answers() {
        let way = echo(b"<").await;
        for (payload, expect) in [("ping", ""), ("ping", "<"), ("ping", "<pi"), ("ping", "<ping"), ("", "<")]
        {
            let outcome = attempt(payload.as_bytes(), expect.as_bytes(), true, &way, LONG).await;
            assert_eq!(outcome.unwrap().detail, "answer", "{payload} {expect}");
        }
        for expect in ["<pong", "<ping-"] {
            let error = attempt(b"ping", expect.as_bytes(), false, &way, LONG).await.unwrap_err();
            assert_eq!(error, format!("answer begins with \"<ping\", expected \"{expect}\""));
        }
    }

    #[tokio::test]
    async fn an_empty_datagram_is_an_answer() {
        let way = echo(b"").await;
        assert_eq!(attempt(b"", b"", true, &way, LONG).await.unwrap().detail, "answer");
        assert_eq!(
            attempt(b"", b"x", true, &way, LONG).await.unwrap_err(),
            "answer begins with \"\", expected \"x\""
        );
    }

    #[tokio::test]
    async fn silence() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let way = way(socket.local_addr().unwrap());
        assert_eq!(attempt(b"x", b"y", false, &way, SHORT).await.unwrap().detail, "no refusal");
        assert_eq!(attempt(b"x", b"", true, &way, SHORT).await.unwrap_err(), "no answer within 0.1 s");
        let mut buffer = [0; 8];
        for _ in 0..2 {
            assert_eq!(socket.recv(&mut buffer).await.unwrap(), 1, "the payload was sent");
        }
    }

    #[tokio::test]
    async fn refusal() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = UdpSocket::bind(address).await else {
                println!("SKIPPED {address}: no such address here");
                continue;
            };
            let way = way(socket.local_addr().unwrap());
            drop(socket);
            assert_eq!(attempt(b"x", b"", false, &way, LONG).await.unwrap_err(), "port unreachable");
        }
    }

    #[tokio::test]
    async fn a_stranger_is_not_heard() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let way = way(socket.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let mut buffer = [0; 8];
            let (_, from) = socket.recv_from(&mut buffer).await.unwrap();
            stranger.send_to(b"wrong", from).await.unwrap();
            socket.send_to(b"right", from).await.unwrap();
        });
        assert!(attempt(b"x", b"right", true, &way, LONG).await.is_ok());
        server.await.unwrap();
    }
}
