//! The servers, and the checks of them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{super::*, certificates::Certificate};
use crate::config::check::Tls;

/// What a server has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub connection: usize,
    pub head: String,
    pub sni: Option<String>,
}

pub struct Server {
    pub way: Way,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// A server that answers every request with the bytes that `answer` makes of its head, and closes after an answer
    /// with `Connection: close`, or always with `one_each`.
    pub async fn start(tls: Option<Certificate>, one_each: bool, answer: fn(&str) -> Vec<u8>) -> Self {
        let (listener, way) = listen().await;
        let seen = Arc::default();
        let acceptor = tls.map(acceptor);
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    let Some(acceptor) = acceptor else {
                        return serve(stream, connection, None, one_each, answer, &log).await;
                    };
                    // A client that does not trust us ends here.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let sni = stream.get_ref().1.server_name().map(ToOwned::to_owned);
                    serve(stream, connection, sni, one_each, answer, &log).await;
                });
            }
        });
        Self { way, seen }
    }

    pub async fn plain(answer: fn(&str) -> Vec<u8>) -> Self {
        Self::start(None, false, answer).await
    }

    pub async fn attempt(&self, http: &Http) -> Outcome {
        bounded(http, &self.way, &none()).await
    }

    pub fn heads(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|seen| seen.head.clone()).collect()
    }

    pub fn connections(&self) -> Vec<usize> {
        self.seen.lock().unwrap().iter().map(|seen| seen.connection).collect()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: usize,
    sni: Option<String>,
    one_each: bool,
    answer: fn(&str) -> Vec<u8>,
    log: &Mutex<Vec<Seen>>,
) {
    while let Some(head) = read_head(&mut stream).await {
        let bytes = answer(&head);
        log.lock().unwrap().push(Seen { connection, head, sni: sni.clone() });
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
        if one_each || bytes.windows(17).any(|part| part == b"Connection: close") {
            break;
        }
    }
    let _ = stream.shutdown().await;
}

pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

pub async fn listen() -> (TcpListener, Way) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let way = Way { connect: listener.local_addr().unwrap(), bind: None, fwmark: 0, through: None };
    (listener, way)
}

/// A server for one connection, from after the first request on.
pub async fn once<F>(then: impl FnOnce(TcpStream) -> F + Send + 'static) -> (Way, JoinHandle<()>)
where
    F: Future<Output = ()> + Send,
{
    let (listener, way) = listen().await;
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await.unwrap();
        then(stream).await;
    });
    (way, task)
}

pub fn acceptor(certificate: Certificate) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der()], certificate.key())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

pub fn none() -> TlsClients {
    TlsClients::with_roots(Vec::new())
}

/// Every attempt here ends by itself; the bound only keeps a broken one from hanging.
pub async fn bounded(http: &Http, way: &Way, tls: &TlsClients) -> Outcome {
    tokio::time::timeout(Duration::from_secs(30), attempt(http, way, tls)).await.expect("it ends by itself")
}

pub fn get(path: &str) -> HttpRequest {
    HttpRequest {
        path: path.into(),
        method: "GET".into(),
        host: None,
        headers: Vec::new(),
        status: vec![200..=299],
        md5: None,
        regex: None,
    }
}

pub fn matching(pattern: &str) -> HttpRequest {
    HttpRequest { regex: Some(pattern.into()), ..get("/") }
}

pub fn http(requests: impl Into<Vec<HttpRequest>>) -> Http {
    Http { tls: None, requests: requests.into() }
}

pub fn https(sni: Option<&str>, verify: bool) -> Http {
    Http { tls: Some(Tls { sni: sni.map(Into::into), verify }), requests: vec![get("/")] }
}

pub fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
}
