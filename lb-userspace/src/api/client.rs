//! The client's side of the socket, for the command line and for tests: blocking, one request per connection.

use std::{
    cell::Cell,
    fmt,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    body::{Body, Bytes, Incoming},
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{
    Deserializer, Serialize,
    de::{self, DeserializeOwned, SeqAccess, Visitor},
};
use tokio::{net::UnixStream, runtime::Runtime, time::timeout};

use super::{
    types::{Connection, DataPlaneOrder, ErrorBody, Order, Ordered, Reloaded, StateEvent, Status, Stop},
    vrrp::{VrrpOrder, VrrpStatus},
};

/// An agent that is silent for longer than this hangs; a status of ten thousand virtual servers takes far less.
const PATIENCE: Duration = Duration::from_secs(10);
/// A reload reads a file of any size, resolves its servers' next hops and changes the data plane before it answers.
const RELOAD_PATIENCE: Duration = Duration::from_secs(60);
/// More of an error's body than this is not shown. The mistakes of a refused file come in one.
const ERROR_BYTES: u64 = 1024 * 1024;
const COPY_BYTES: usize = 64 * 1024;

/// Talks to one agent. Has its own small runtime, so it must not be used inside another one
/// (`tokio::task::spawn_blocking` is a way there).
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket, or nobody listens on it.
    #[error("no xdirector is running here ({}: {reason}){hint}", socket.display())]
    NotRunning {
        /// Where it was looked for.
        socket: PathBuf,
        /// The system's word for it.
        reason: &'static str,
        /// What to try.
        hint: &'static str,
    },
    /// The socket is for root.
    #[error("{}: permission denied; the socket is open to root only (mode 0600), so run this as root", .0.display())]
    Permission(PathBuf),
    /// The agent accepted the connection and then said nothing.
    #[error("no answer from {} for {} s", socket.display(), waited.as_secs())]
    Silent {
        /// The socket in use.
        socket: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The agent answered with an error.
    #[error("{message} (HTTP status {})", status.as_u16())]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// The answer's `error`.
        message: String,
    },
    /// Any other failure of the connection.
    #[error("cannot talk to xdirector ({})", socket.display())]
    Transport {
        /// The socket in use.
        socket: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// What came is not what docs/api.md describes, or only the beginning of it.
    #[error("cannot read xdirector's answer")]
    Answer(#[source] serde_json::Error),
    /// The caller's function failed; unchanged.
    #[error(transparent)]
    Output(io::Error),
}

impl Client {
    /// A client of the agent at `socket`. Does not connect yet.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptors left for a runtime.
    pub fn new(socket: impl Into<PathBuf>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { socket: socket.into(), runtime })
    }

    /// `GET /v1/status`.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn status(&self) -> Result<Status, ClientError> {
        self.parsed(self.get("/v1/status")?)
    }

    /// `GET /v1/events`, oldest first.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn events(&self) -> Result<Vec<StateEvent>, ClientError> {
        self.parsed(self.get("/v1/events")?)
    }

    /// `POST /v1/reload`; a file with a mistake is [`ClientError::Refused`] with all its mistakes.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn reload(&self) -> Result<Reloaded, ClientError> {
        self.parsed(self.ask(Method::POST, "/v1/reload", Bytes::new(), RELOAD_PATIENCE)?)
    }

    /// `POST /v1/servers`.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn order(&self, order: &Order) -> Result<Ordered, ClientError> {
        self.parsed(self.post("/v1/servers", order)?)
    }

    /// `POST /v1/dataplane`. Gives which is in force then.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn set_dataplane(&self, order: DataPlaneOrder) -> Result<DataPlaneOrder, ClientError> {
        self.parsed(self.post("/v1/dataplane", &order)?)
    }

    /// `GET /v1/vrrp`.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn vrrp(&self) -> Result<VrrpStatus, ClientError> {
        self.parsed(self.get("/v1/vrrp")?)
    }

    /// `POST /v1/vrrp/handover`, or `/v1/vrrp/resume`. Gives how VRRP is then.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn vrrp_order(&self, order: &VrrpOrder, resume: bool) -> Result<VrrpStatus, ClientError> {
        let path = if resume { "/v1/vrrp/resume" } else { "/v1/vrrp/handover" };
        self.parsed(self.post(path, order)?)
    }

    /// `POST /v1/stop`. The agent ends after its answer, so its socket may still be there for a moment.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn stop(&self, stop: Stop) -> Result<(), ClientError> {
        self.post("/v1/stop", &stop).map(drop)
    }

    /// `GET /v1/connections`: calls `each` for every connection, in the table's order, as they come; at most `limit`.
    /// Needs memory for one connection, however many there are.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; an error of `each` ends the walk and comes back as [`ClientError::Output`].
    pub fn connections(
        &self,
        limit: Option<usize>,
        each: impl FnMut(Connection) -> io::Result<()>,
    ) -> Result<(), ClientError> {
        let body = io::BufReader::new(self.connections_body(limit)?);
        let failure = Cell::new(None);
        let mut json = serde_json::Deserializer::from_reader(body);
        let walked =
            json.deserialize_seq(EachConnection { each, failure: &failure }).and_then(|()| json.end());
        match (walked, failure.take()) {
            (_, Some(error)) => Err(ClientError::Output(error)),
            (Err(error), None) if error.is_io() => Err(self.transport(error.into())),
            (Err(error), None) => Err(ClientError::Answer(error)),
            (Ok(()), None) => Ok(()),
        }
    }

    /// `GET /v1/connections`, copied to `out` as it comes.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; an error of `out` is [`ClientError::Output`].
    pub fn copy_connections(&self, limit: Option<usize>, out: &mut impl Write) -> Result<(), ClientError> {
        let mut body = self.connections_body(limit)?;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let filled = match body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(filled) => filled,
                Err(error) => return Err(self.transport(error)),
            };
            out.write_all(&buffer[..filled]).map_err(ClientError::Output)?;
        }
    }

    fn connections_body(&self, limit: Option<usize>) -> Result<BodyReader<'_>, ClientError> {
        match limit {
            Some(limit) => self.get(&format!("/v1/connections?limit={limit}")),
            None => self.get("/v1/connections"),
        }
    }

    fn get(&self, path: &str) -> Result<BodyReader<'_>, ClientError> {
        self.ask(Method::GET, path, Bytes::new(), PATIENCE)
    }

    fn post(&self, path: &str, body: &impl Serialize) -> Result<BodyReader<'_>, ClientError> {
        // serde_json fails only where a map's key is no text; no request has a map.
        let body = serde_json::to_vec(body).map_err(ClientError::Answer)?;
        self.ask(Method::POST, path, body.into(), PATIENCE)
    }

    fn parsed<T: DeserializeOwned>(&self, mut answer: BodyReader<'_>) -> Result<T, ClientError> {
        let mut body = Vec::new();
        answer.read_to_end(&mut body).map_err(|error| self.transport(error))?;
        serde_json::from_slice(&body).map_err(ClientError::Answer)
    }

    /// Sends a request and waits for the answer's head; an answer other than a success is an error.
    fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<BodyReader<'_>, ClientError> {
        // The timer is made inside: outside the runtime there is none to register it with.
        let response = self
            .runtime
            .block_on(async { timeout(patience, self.send(method, path, body)).await })
            .map_err(|_| ClientError::Silent { socket: self.socket.clone(), waited: patience })??;
        let status = response.status();
        let mut body = BodyReader { runtime: &self.runtime, body: response.into_body(), rest: Bytes::new() };
        if status.is_success() {
            return Ok(body);
        }
        let mut text = Vec::new();
        body.by_ref().take(ERROR_BYTES).read_to_end(&mut text).map_err(|error| self.transport(error))?;
        let message = serde_json::from_slice::<ErrorBody>(&text)
            .map_or_else(|_| String::from_utf8_lossy(&text).trim().to_owned(), |body| body.error);
        Err(ClientError::Refused { status, message })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<hyper::Response<Incoming>, ClientError> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|error| not_connected(&self.socket, error))?;
        let http = |error: hyper::Error| self.transport(io::Error::other(error));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        // Runs whenever this client waits; its error also comes out of the request or the body.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "xdirector")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body));
        let request = request.map_err(|error| self.transport(io::Error::other(error)))?;
        sender.send_request(request).await.map_err(http)
    }

    fn transport(&self, source: io::Error) -> ClientError {
        if source.kind() == io::ErrorKind::TimedOut {
            return ClientError::Silent { socket: self.socket.clone(), waited: PATIENCE };
        }
        ClientError::Transport { socket: self.socket.clone(), source }
    }
}

fn not_connected(socket: &Path, error: io::Error) -> ClientError {
    let socket = socket.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => ClientError::NotRunning {
            socket,
            reason: "no such file",
            hint: "; --socket PATH or --instance NAME asks another one",
        },
        io::ErrorKind::ConnectionRefused => ClientError::NotRunning {
            socket,
            reason: "connection refused",
            hint: "; the socket is left from one that died",
        },
        io::ErrorKind::PermissionDenied => ClientError::Permission(socket),
        _ => ClientError::Transport { socket, source: error },
    }
}

/// A body as a blocking reader, so that serde can parse it while it comes.
struct BodyReader<'a> {
    runtime: &'a Runtime,
    body: Incoming,
    rest: Bytes,
}

impl Read for BodyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.body.is_end_stream() {
            match self.runtime.block_on(async { timeout(PATIENCE, self.body.frame()).await }) {
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(None) => break,
                Ok(Some(frame)) => {
                    self.rest = frame.map_err(io::Error::other)?.into_data().unwrap_or_default();
                }
            }
        }
        let taken = self.rest.split_to(self.rest.len().min(buffer.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

/// Hands over the elements of an array one by one instead of collecting them.
struct EachConnection<'a, F> {
    each: F,
    failure: &'a Cell<Option<io::Error>>,
}

impl<'de, F: FnMut(Connection) -> io::Result<()>> Visitor<'de> for EachConnection<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of connections")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(connection) = elements.next_element()? {
            if let Err(error) = (self.each)(connection) {
                // serde's errors are text: the real one goes round it, so that a closed pipe is still seen as one.
                self.failure.set(Some(error));
                return Err(de::Error::custom("stopped by the caller"));
            }
        }
        Ok(())
    }
}
