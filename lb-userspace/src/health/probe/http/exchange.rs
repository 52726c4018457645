//! Requests and answers on a connection.

use std::{
    error::Error as _,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::Poll,
};

use http_body_util::{BodyExt, Empty};
use hyper::{
    HeaderMap, Method, Request, Response, Uri,
    body::{Body, Bytes, Incoming},
    client::conn::http1,
    header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::{TlsClients, Way, host, tls, words};
use crate::config::check::{HttpRequest, Tls};

/// Bytes of a body; a longer one fails.
pub const MAX_BODY: usize = 1 << 20;
/// Bytes of an answer's header, and of it and what was read beyond it.
const MAX_HEADER: usize = 32 * 1024;
const MAX_BUFFER: usize = 64 * 1024;
/// Fields of an answer's header.
const MAX_FIELDS: usize = 100;
/// A body of a known length up to this is read even if nobody needs it: the server gets rid of it, and the connection can
/// be used again.
const MAX_SKIPPED: u64 = 64 * 1024;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Http1 = http1::Connection<TokioIo<Box<dyn Stream>>, Empty<Bytes>>;

/// What an answer begins with.
#[derive(Debug, Clone)]
pub struct Head {
    /// 100 to 999.
    pub status: u16,
    /// Its fields.
    pub fields: HeaderMap,
}

/// Makes the requests of one attempt. Dropping it drops the connection.
pub struct Client<'a> {
    way: &'a Way,
    tls: Option<&'a Tls>,
    clients: &'a TlsClients,
    session: Option<Session>,
}

impl<'a> Client<'a> {
    /// A client that has not connected yet.
    pub fn new(way: &'a Way, tls: Option<&'a Tls>, clients: &'a TlsClients) -> Self {
        Self { way, tls, clients, session: None }
    }

    /// Sends a request and reads the answer's header. Connects first unless a connection is left from the last request;
    /// a server may close that at any time, so a request that fails on it is made once more on a new one. `is_last`: the
    /// server is asked to close afterwards.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn send(&mut self, request: &HttpRequest, is_last: bool) -> Result<Head, String> {
        let message = self.message(request, is_last)?;
        // RFC 9110 section 9.2.2: only such a method may be repeated.
        if let Some(mut session) = self.session.take_if(|_| message.method().is_idempotent())
            && let Ok(head) = session.send(message.clone()).await
        {
            self.session = Some(session);
            return Ok(head);
        }
        let mut session = self.connect().await?;
        let head = session.send(message).await.map_err(|error| fault(&error))?;
        self.session = Some(session);
        Ok(head)
    }

    /// Reads the body of the last answer.
    ///
    /// # Errors
    /// When it is longer than [`MAX_BODY`] or ends early.
    pub async fn body(&mut self) -> Result<Vec<u8>, String> {
        let Some(mut session) = self.session.take() else { return Ok(Vec::new()) };
        let body = session.body().await?;
        self.session = Some(session);
        Ok(body)
    }

    /// Gets rid of the body of the last answer: reads it if it is short, else gives up the connection.
    ///
    /// # Errors
    /// When a short one ends early.
    pub async fn skip_body(&mut self) -> Result<(), String> {
        if self.session.as_ref().is_some_and(Session::has_short_body) {
            return self.body().await.map(drop);
        }
        self.session = None;
        Ok(())
    }

    fn message(&self, request: &HttpRequest, is_last: bool) -> Result<Request<Empty<Bytes>>, String> {
        let invalid = |what: &str| format!("{what} cannot be sent");
        let mut message = Request::new(Empty::new());
        *message.method_mut() =
            Method::from_bytes(request.method.as_bytes()).map_err(|_| invalid("the method"))?;
        *message.uri_mut() = request.path.parse::<Uri>().map_err(|_| invalid("the path"))?;
        let fields = message.headers_mut();
        let host = request.host.clone().unwrap_or_else(|| host(self.way.connect, self.tls.is_some()));
        fields.insert(HOST, HeaderValue::from_str(&host).map_err(|_| invalid("the host"))?);
        let agent = concat!("xdirector/", env!("CARGO_PKG_VERSION"));
        fields.insert(USER_AGENT, HeaderValue::from_static(agent));
        if is_last {
            fields.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let mut given = HeaderMap::new();
        for (name, value) in &request.headers {
            let field = (HeaderName::try_from(name), HeaderValue::from_str(value));
            let (Ok(name), Ok(value)) = field else { return Err(invalid(&format!("the header {name}"))) };
            given.append(name, value);
        }
        // A given field replaces one of ours, and may itself be there twice.
        fields.extend(given);
        Ok(message)
    }

    async fn connect(&mut self) -> Result<Session, String> {
        let stream = self.way.tcp().await.map_err(|error| words::io(&error))?;
        let Some(tls) = self.tls else { return Session::open(Box::new(stream)).await };
        let name = match &tls.sni {
            Some(name) => {
                ServerName::try_from(name.clone()).map_err(|_| format!("{name} is no server name"))?
            }
            // rustls sends no server name that is an address (RFC 6066 section 3).
            None => ServerName::from(self.way.connect.ip()),
        };
        let connector = TlsConnector::from(self.clients.config(tls)?);
        let stream = connector.connect(name, stream).await.map_err(|error| io_fault(&error))?;
        Session::open(Box::new(stream)).await
    }
}

/// A connection and the answer that is on it.
struct Session {
    requests: http1::SendRequest<Empty<Bytes>>,
    connection: Connection,
    body: Option<Incoming>,
}

impl Session {
    async fn open(stream: Box<dyn Stream>) -> Result<Self, String> {
        let (requests, connection) = http1::Builder::new()
            .max_headers(MAX_FIELDS)
            .max_header_size(MAX_HEADER)
            .max_buf_size(MAX_BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| fault(&error))?;
        Ok(Self { requests, connection: Connection(Some(Box::pin(connection))), body: None })
    }

    async fn send(&mut self, message: Request<Empty<Bytes>>) -> hyper::Result<Head> {
        let requests = &mut self.requests;
        let answer = async move {
            requests.ready().await?;
            requests.send_request(message).await
        };
        let answer: Response<Incoming> = self.connection.drive(answer).await?;
        let (parts, body) = answer.into_parts();
        self.body = Some(body);
        Ok(Head { status: parts.status.as_u16(), fields: parts.headers })
    }

    fn has_short_body(&self) -> bool {
        let length = self.body.as_ref().map(|body| body.size_hint().exact());
        matches!(length, Some(Some(..=MAX_SKIPPED)))
    }

    async fn body(&mut self) -> Result<Vec<u8>, String> {
        let too_long = || format!("body longer than {} KiB", MAX_BODY / 1024);
        let Some(mut body) = self.body.take() else { return Ok(Vec::new()) };
        if body.size_hint().lower() > MAX_BODY as u64 {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        while let Some(frame) = self.connection.drive(body.frame()).await {
            // The other kind of frame is trailers.
            let Ok(data) = frame.map_err(|error| fault(&error))?.into_data() else { continue };
            if bytes.len() + data.len() > MAX_BODY {
                return Err(too_long());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    }
}

/// The reading and writing half of a session: a future that ends with the connection.
struct Connection(Option<Pin<Box<Http1>>>);

impl Connection {
    /// Waits for what depends on the connection while working it. No task of its own: whoever gives up the attempt gives up
    /// all of it.
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            // Its errors also reach whoever waits for an answer.
            if self.0.as_mut().is_some_and(|connection| connection.as_mut().poll(context).is_ready()) {
                self.0 = None;
            }
            match work.as_mut().poll(context) {
                Poll::Ready(result) => Poll::Ready(result),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

/// Why an exchange failed, in a few words.
fn fault(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        return format!("HTTP header of more than {} KiB or {MAX_FIELDS} fields", MAX_HEADER / 1024);
    }
    if error.is_parse() {
        return format!("no HTTP in the answer: {error}");
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return io_fault(error);
        }
        source = cause.source();
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return "connection closed before the answer was complete".into();
    }
    error.to_string()
}

/// The same for the connection below, where TLS hides its errors inside the kernel's.
fn io_fault(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => tls::words(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "connection closed before the answer was complete".into()
        }
        None => words::io(error),
    }
}
