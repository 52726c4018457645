//! Servers that break off, babble or never end.

use std::time::Duration;

use tokio::{io::AsyncWriteExt, task::JoinHandle};

use super::{super::*, servers::*};

#[tokio::test]
async fn an_answer_that_ends_early() {
    for answer in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let (way, server) = once(move |mut stream| async move {
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let error = bounded(&http([matching("")]), &way, &none()).await.unwrap_err();
        assert_eq!(error, "connection closed before the answer was complete", "{answer}");
        server.await.unwrap();
    }
}

#[tokio::test]
async fn no_http() {
    for answer in [
        "SSH-2.0-OpenSSH\r\n",
        "220 mail ready\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ] {
        let (way, server) = once(move |mut stream| async move {
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let error = bounded(&http([get("/")]), &way, &none()).await.unwrap_err();
        assert!(error.starts_with("no HTTP in the answer: "), "{answer}: {error}");
        server.await.unwrap();
    }
}

#[tokio::test]
async fn reset_and_refused() {
    let (way, server) = once(|stream| async move {
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    })
    .await;
    assert_eq!(bounded(&http([get("/")]), &way, &none()).await.unwrap_err(), "connection reset");
    server.await.unwrap();
    assert_eq!(bounded(&http([get("/")]), &way, &none()).await.unwrap_err(), "connection refused");
}

/// Writes `part` until the client has gone: the client must go by itself.
async fn flood(head: &'static str, part: &'static [u8]) -> (Way, JoinHandle<()>) {
    once(move |mut stream| async move {
        let _ = stream.write_all(head.as_bytes()).await;
        while stream.write_all(part).await.is_ok() {}
    })
    .await
}

#[tokio::test]
async fn endless_headers() {
    for part in
        [&b"X: y\r\n"[..], b"x", b"X-Long: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n"]
    {
        let (way, server) = flood("HTTP/1.1 200 OK\r\n", part).await;
        assert_eq!(
            bounded(&http([get("/")]), &way, &none()).await.unwrap_err(),
            "HTTP header of more than 32 KiB or 100 fields"
        );
        server.await.unwrap();
    }
}

#[tokio::test]
async fn a_long_header() {
    let fields = |count: usize, length: usize| {
        let field = format!("X-Field: {}\r\n", "y".repeat(length));
        format!("HTTP/1.1 204 OK\r\n{}\r\n", field.repeat(count))
    };
    for (count, length, fits) in [(99, 200, true), (101, 1, false), (1, 40_000, false)] {
        let answer = fields(count, length);
        let (way, server) = once(move |mut stream| async move {
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await;
        let outcome = bounded(&http([get("/")]), &way, &none()).await;
        assert_eq!(outcome.is_ok(), fits, "{count} of {length}: {outcome:?}");
        server.await.unwrap();
    }
}

#[tokio::test]
async fn huge_bodies() {
    const PART: &[u8] = &[b'x'; 65_536];
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n",
    ] {
        let (way, server) = flood(head, PART).await;
        assert_eq!(
            bounded(&http([matching("y")]), &way, &none()).await.unwrap_err(),
            "body longer than 1024 KiB"
        );
        server.await.unwrap();
        // Who needs no body is not bothered by it.
        let (way, server) = flood(head, PART).await;
        assert!(bounded(&http([get("/")]), &way, &none()).await.is_ok());
        server.await.unwrap();
    }
    for (length, fits) in [(MAX_BODY, true), (MAX_BODY + 1, false)] {
        let (way, server) = once(move |mut stream| async move {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            let _ = stream.write_all(&vec![b'x'; length]).await;
        })
        .await;
        let outcome = bounded(&http([matching("x$")]), &way, &none()).await;
        assert_eq!(outcome.is_ok(), fits, "{length}: {outcome:?}");
        server.await.unwrap();
    }
}

#[tokio::test]
async fn a_dripping_body_is_given_up_with_its_connection() {
    let (way, server) = once(|mut stream| async move {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n";
        let _ = stream.write_all(head).await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let check = http([matching("y")]);
    let outcome = tokio::time::timeout(Duration::from_millis(100), attempt(&check, &way, &none())).await;
    assert!(outcome.is_err(), "{outcome:?}");
    tokio::time::timeout(Duration::from_secs(20), server).await.expect("the connection was closed").unwrap();
}

#[tokio::test]
async fn endless_interim_answers_do_not_outlast_the_timeout() {
    let (way, server) = flood("", b"HTTP/1.1 103 Early Hints\r\n\r\n").await;
    let check = http([get("/")]);
    let outcome = tokio::time::timeout(Duration::from_millis(100), attempt(&check, &way, &none())).await;
    assert!(outcome.is_err(), "{outcome:?}");
    server.await.unwrap();
}
