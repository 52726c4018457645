//! Against small servers on loopback.

mod certificates;
mod limits;
mod servers;
mod tls;

use std::net::SocketAddr;

use servers::*;

use super::*;

/// Or no runtime with several threads could run it.
#[test]
fn an_attempt_may_change_threads() {
    fn send(_: impl Send) {}
    let way = Way { connect: ([127, 0, 0, 1], 9).into(), bind: None, fwmark: 0, through: None };
    send(attempt(&http([get("/")]), &way, &none()));
}

#[tokio::test]
async fn status() {
    let server = Server::plain(|head| {
        let code = &head["GET /".len()..][..3];
        format!("HTTP/1.1 {code} Whatever\r\nContent-Length: 0\r\n\r\n").into()
    })
    .await;
    let with =
        |path: &str, status: Vec<std::ops::RangeInclusive<u16>>| http([HttpRequest { status, ..get(path) }]);
    assert_eq!(server.attempt(&http([get("/200")])).await.unwrap().detail, "HTTP 200");
    assert_eq!(
        server.attempt(&http([get("/503")])).await.unwrap_err(),
        "HTTP 503 for /503, expected 200-299"
    );
    // Redirects are not followed.
    assert_eq!(server.attempt(&with("/302", vec![302..=302])).await.unwrap().detail, "HTTP 302");
    assert_eq!(
        server.attempt(&with("/404", vec![200..=200, 300..=399])).await.unwrap_err(),
        "HTTP 404 for /404, expected 200, 300-399"
    );
    assert_eq!(
        server.attempt(&http([get("/200"), get("/201"), get("/201")])).await.unwrap().detail,
        "HTTP 200, 201"
    );
    // The first wrong answer ends it.
    let before = server.heads().len();
    assert!(server.attempt(&http([get("/200"), get("/500"), get("/200")])).await.is_err());
    assert_eq!(server.heads().len() - before, 2);
}

#[tokio::test]
async fn requests_are_what_was_configured() {
    let server = Server::plain(|_| ok("")).await;
    let agent = concat!("user-agent: xdirector/", env!("CARGO_PKG_VERSION"), "\r\n");
    server.attempt(&http([get("/a?b=c")])).await.unwrap();
    assert_eq!(
        server.heads().pop().unwrap(),
        format!("GET /a?b=c HTTP/1.1\r\nhost: {}\r\n{agent}connection: close\r\n\r\n", server.way.connect)
    );
    let full = HttpRequest {
        method: "OPTIONS".into(),
        host: Some("www.example".into()),
        headers: vec![
            ("X-One".into(), "1".into()),
            ("User-Agent".into(), "me".into()),
            ("X-One".into(), "2".into()),
        ],
        ..get("/")
    };
    server.attempt(&http([full])).await.unwrap();
    let head = server.heads().pop().unwrap();
    assert!(head.starts_with("OPTIONS / HTTP/1.1\r\nhost: www.example\r\nuser-agent: me\r\n"), "{head}");
    assert!(head.contains("x-one: 1\r\nx-one: 2\r\n"), "{head}");

    for (request, error) in [
        (get("/a b"), "the path cannot be sent"),
        (HttpRequest { method: "A B".into(), ..get("/") }, "the method cannot be sent"),
        (HttpRequest { host: Some("a\nb".into()), ..get("/") }, "the host cannot be sent"),
        (
            HttpRequest { headers: vec![("a".into(), "b\r\nc: d".into())], ..get("/") },
            "the header a cannot be sent",
        ),
    ] {
        assert_eq!(server.attempt(&http([request])).await.unwrap_err(), error);
    }
}

#[test]
fn hosts() {
    for (server, is_tls, expected) in [
        ("192.0.2.1:80", false, "192.0.2.1"),
        ("192.0.2.1:80", true, "192.0.2.1:80"),
        ("192.0.2.1:443", true, "192.0.2.1"),
        ("[2001:db8::1]:80", false, "[2001:db8::1]"),
        ("[2001:db8::1]:8080", false, "[2001:db8::1]:8080"),
    ] {
        assert_eq!(host(server.parse::<SocketAddr>().unwrap(), is_tls), expected);
    }
}

#[tokio::test]
async fn md5() {
    const HELLO: [u8; 16] = 0x5d41402abc4b2a76b9719d911017c592_u128.to_be_bytes();
    let check = http([HttpRequest { md5: Some(HELLO), ..get("/") }]);
    for answer in [
        (|_| ok("hello")) as fn(&str) -> Vec<u8>,
        |_| {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: r\r\n\r\n".into()
        },
        |_| b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nhello".into(),
        |_| b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".into(),
    ] {
        let server = Server::plain(answer).await;
        assert_eq!(server.attempt(&check).await.unwrap().detail, "HTTP 200");
    }
    let other = Server::plain(|_| ok("hello\n")).await;
    assert_eq!(
        other.attempt(&check).await.unwrap_err(),
        "MD5 of / is b1946ac92492d2347c6235b4d2611184, expected 5d41402abc4b2a76b9719d911017c592"
    );
    // The status comes first.
    let missing = Server::plain(|_| b"HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\nhello".into()).await;
    assert_eq!(missing.attempt(&check).await.unwrap_err(), "HTTP 404 for /, expected 200-299");
}

#[tokio::test]
async fn regular_expressions() {
    let server = Server::plain(|_| [&ok("all 17 systems up \n")[..], b"\xff"].concat()).await;
    assert!(server.attempt(&http([matching(r"\d+ systems up")])).await.is_ok());
    assert_eq!(
        server.attempt(&http([matching("systems down")])).await.unwrap_err(),
        "no match for \"systems down\" in /"
    );
    let bytes = Server::plain(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xffok".into()).await;
    assert!(bytes.attempt(&http([matching(r"(?-u:^\xff)ok$")])).await.is_ok());
}

#[tokio::test]
async fn head_has_no_body() {
    let server =
        Server::plain(|head| if head.starts_with("HEAD") { ok("hello")[..38].into() } else { ok("x") }).await;
    assert_eq!(&ok("hello")[..38], b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    let head = HttpRequest { method: "HEAD".into(), md5: Some(digest(b"")), ..get("/") };
    server.attempt(&http([head.clone(), get("/"), head])).await.unwrap();
    assert_eq!(server.connections(), [0, 0, 0]);
}

#[tokio::test]
async fn one_connection_while_the_server_keeps_it() {
    let three = [get("/a"), matching(""), get("/c")];
    let keeps = Server::plain(|_| ok("x")).await;
    keeps.attempt(&http(three.clone())).await.unwrap();
    assert_eq!(keeps.connections(), [0, 0, 0]);
    let closing: Vec<_> = keeps.heads().iter().map(|head| head.contains("connection: close")).collect();
    assert_eq!(closing, [false, false, true]);

    let says_so =
        Server::plain(|_| b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into()).await;
    says_so.attempt(&http(three.clone())).await.unwrap();
    assert_eq!(says_so.connections(), [0, 1, 2]);

    let just_closes = Server::start(None, true, |_| ok("x")).await;
    just_closes.attempt(&http(three)).await.unwrap();
    assert_eq!(just_closes.connections(), [0, 1, 2]);
}

#[tokio::test]
async fn what_may_not_be_repeated_gets_a_new_connection() {
    let server = Server::plain(|_| ok("x")).await;
    let post = HttpRequest { method: "POST".into(), ..get("/") };
    server.attempt(&http([get("/"), post.clone(), get("/"), post])).await.unwrap();
    assert_eq!(server.connections(), [0, 1, 1, 2]);
}
