//! HTTPS.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{super::*, certificates::Certificate, servers::*};

#[tokio::test]
async fn certificates() {
    let web = Server::start(Some(Certificate::Web), false, |_| ok("x")).await;
    let expired = Server::start(Some(Certificate::Expired), false, |_| ok("x")).await;
    let trusted = TlsClients::with_roots(vec![Certificate::Web.der()]);
    let others = TlsClients::with_roots(vec![Certificate::Other.der()]);
    for (server, check, roots, expected) in [
        (&web, https(None, false), &none(), Ok(())),
        (&expired, https(None, false), &none(), Ok(())),
        (&web, https(Some("any.example"), false), &none(), Ok(())),
        (&web, https(None, true), &trusted, Ok(())),
        (&web, https(Some("web.example"), true), &trusted, Ok(())),
        (&web, https(Some("any.example"), true), &trusted, Err("certificate is not for any.example")),
        (&expired, https(None, true), &trusted, Err("certificate expired")),
        (&web, https(None, true), &others, Err("certificate of an unknown issuer")),
        (&web, https(Some("a b"), false), &none(), Err("a b is no server name")),
        (
            &web,
            https(None, true),
            &none(),
            Err(
                "this machine has no certificates to verify others with: no root trust anchors were provided",
            ),
        ),
    ] {
        let outcome = bounded(&check, &server.way, roots).await.map(|passed| passed.detail);
        assert_eq!(outcome, expected.map(|()| "HTTP 200".to_owned()).map_err(ToOwned::to_owned), "{check:?}");
    }
}

#[tokio::test]
async fn the_server_name_of_the_handshake() {
    let server = Server::start(Some(Certificate::Web), false, |_| ok("x")).await;
    bounded(&https(Some("any.example"), false), &server.way, &none()).await.unwrap();
    bounded(&https(None, false), &server.way, &none()).await.unwrap();
    let seen = server.seen.lock().unwrap();
    assert_eq!(seen[0].sni.as_deref(), Some("any.example"));
    assert_eq!(seen[1].sni, None);
    // The name of the handshake is not that of the request.
    assert!(seen[0].head.contains(&format!("host: {}\r\n", server.way.connect)));
}

#[tokio::test]
async fn tls_keeps_and_closes_its_connection() {
    for last in ["x", ""] {
        let (listener, way) = listen().await;
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor(Certificate::Web).accept(stream).await.unwrap();
            for body in ["x", last] {
                read_head(&mut stream).await.unwrap();
                stream.write_all(&ok(body)).await.unwrap();
            }
            // An end without TLS's own word for it is an error here.
            stream.read(&mut [0]).await
        });
        let check = Http { requests: vec![get("/a"), get("/b")], ..https(None, false) };
        bounded(&check, &way, &none()).await.unwrap();
        assert_eq!(server.await.unwrap().unwrap(), 0, "{last:?}");
    }
}

#[tokio::test]
async fn plain_and_tls_confused() {
    let plain = Server::plain(|_| ok("x")).await;
    let (listener, way) = listen().await;
    let greets = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = stream.read(&mut [0; 64]).await;
    });
    assert_eq!(bounded(&https(None, false), &way, &none()).await.unwrap_err(), "no TLS in the answer");
    greets.await.unwrap();
    assert!(plain.attempt(&http([get("/")])).await.is_ok());

    let tls = Server::start(Some(Certificate::Web), false, |_| ok("x")).await;
    let error = tls.attempt(&http([get("/")])).await.unwrap_err();
    assert!(error.starts_with("no HTTP in the answer: ") || error == "connection reset", "{error}");
}
