//! The server's side of the socket: paths, and replies of the agent turned into JSON.

use std::{error::Error, io, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{Query, State, rejection::QueryRejection},
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use futures_util::stream;
use http_body_util::LengthLimitError;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    ConnectionBatch, Request,
    types::{Connection, ErrorBody, Stop},
    vrrp::VrrpOrder,
};
use crate::{memory, metrics};

/// The interface's description for programs.
pub(super) const OPENAPI: &str = include_str!("../../../docs/openapi.json");
/// The largest body of a request.
const BODY_BYTES: usize = 64 * 1024;
/// How long a body may take.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// After a longer answer the memory that it took is given back: it is too much to be kept for the next one.
const MUCH: usize = 4 << 20;

/// Batches of connections that may wait for a slow client before the agent's sender does.
const BATCHES_IN_FLIGHT: usize = 4;

/// Answers clients until the future is dropped; an accept error is retried, never returned.
///
/// # Errors
///
/// None at present; the type is that of `axum::serve`.
pub async fn serve(listener: UnixListener, agent: mpsc::Sender<Request>) -> io::Result<()> {
    axum::serve(listener, router(agent)).await
}

type Agent = mpsc::Sender<Request>;

/// A path and the methods that it takes.
type Route = (&'static str, fn() -> MethodRouter<Agent>);

/// Every path; docs/openapi.json has the same.
pub(super) const ROUTES: &[Route] = &[
    ("/v1/status", || get(status)),
    ("/v1/connections", || get(connections)),
    ("/v1/events", || get(events)),
    ("/v1/reload", || post(reload)),
    ("/v1/servers", || post(order)),
    ("/v1/dataplane", || post(dataplane)),
    ("/v1/vrrp", || get(vrrp)),
    ("/v1/vrrp/handover", || post(handover)),
    ("/v1/vrrp/resume", || post(resume)),
    ("/v1/stop", || post(stop)),
    ("/v1/openapi.json", || get(openapi)),
    ("/metrics", || get(metrics::answer)),
];

fn router(agent: Agent) -> Router {
    let routes = ROUTES.iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods()));
    routes.fallback(unknown_path).method_not_allowed_fallback(wrong_method).with_state(agent)
}

/// Sends a request and waits for its answer; an agent that drops either is stopping.
async fn ask<T>(agent: &Agent, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Refusal> {
    let (reply, answer) = oneshot::channel();
    agent.send(request(reply)).await.map_err(|_| Refusal::stopping())?;
    answer.await.map_err(|_| Refusal::stopping())
}

async fn status(State(agent): State<Agent>) -> Result<Response, Refusal> {
    let status = ask(&agent, Request::Status).await?;
    // Ten thousand virtual servers make tens of megabytes: not on the thread that runs the agent.
    let in_json = move || {
        let body = serde_json::to_vec(&status);
        drop(status);
        if body.as_ref().is_ok_and(|body| body.len() > MUCH) {
            memory::give_back();
        }
        body
    };
    let body = tokio::task::spawn_blocking(in_json)
        .await
        .map_err(|error| Refusal::internal(error.to_string()))?
        .map_err(|error| Refusal::internal(error.to_string()))?;
    Ok(json(Body::from(body)))
}

async fn events(State(agent): State<Agent>) -> Result<Response, Refusal> {
    Ok(Json(ask(&agent, Request::Events).await?).into_response())
}

async fn reload(State(agent): State<Agent>) -> Result<Response, Refusal> {
    let reloaded = ask(&agent, Request::Reload).await?;
    let reloaded = reloaded.map_err(|mistakes| Refusal(StatusCode::UNPROCESSABLE_ENTITY, mistakes))?;
    Ok(Json(reloaded).into_response())
}

async fn order(State(agent): State<Agent>, body: Body) -> Result<Response, Refusal> {
    let expected = "an object with server, action (drain, disable, enable or weight) and perhaps virtual_server, \
                    timeout_seconds or weight";
    let order = parsed(&body_of(body).await?, expected)?;
    let ordered = ask(&agent, |reply| Request::Order { order, reply }).await?;
    let ordered = ordered.map_err(|reason| Refusal(StatusCode::NOT_FOUND, reason))?;
    Ok(Json(ordered).into_response())
}

async fn dataplane(State(agent): State<Agent>, body: Body) -> Result<Response, Refusal> {
    let order = parsed(&body_of(body).await?, "an object with dataplane (xdp or ipvs)")?;
    let done = ask(&agent, |reply| Request::DataPlane { order, reply }).await?;
    Ok(Json(done.map_err(|reason| Refusal(StatusCode::CONFLICT, reason))?).into_response())
}

async fn vrrp(State(agent): State<Agent>) -> Result<Response, Refusal> {
    Ok(Json(ask(&agent, Request::Vrrp).await?).into_response())
}

async fn handover(State(agent): State<Agent>, body: Body) -> Result<Response, Refusal> {
    vrrp_order(&agent, body, false).await
}

async fn resume(State(agent): State<Agent>, body: Body) -> Result<Response, Refusal> {
    vrrp_order(&agent, body, true).await
}

async fn vrrp_order(agent: &Agent, body: Body, resume: bool) -> Result<Response, Refusal> {
    let VrrpOrder { instance } = parsed(&body_of(body).await?, "an object with instance")?;
    let done = ask(agent, |reply| Request::VrrpOrder { instance, resume, reply }).await?;
    Ok(Json(done.map_err(|reason| Refusal(StatusCode::CONFLICT, reason))?).into_response())
}

async fn stop(State(agent): State<Agent>, body: Body) -> Result<Response, Refusal> {
    let body = body_of(body).await?;
    let stop =
        if body.is_empty() { Stop::default() } else { parsed(&body, "no body, or an object with detach")? };
    ask(&agent, |reply| Request::Stop { stop, reply }).await?;
    Ok((StatusCode::ACCEPTED, Json(stop)).into_response())
}

async fn openapi() -> Response {
    json(Body::from(OPENAPI))
}

/// The whole of a request's body, bounded in size and time.
async fn body_of(body: Body) -> Result<Bytes, Refusal> {
    match timeout(BODY_PATIENCE, to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.source().is_some_and(|source| source.is::<LengthLimitError>()) => {
            Err(Refusal(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is larger than {} KiB", BODY_BYTES / 1024),
            ))
        }
        Ok(Err(error)) => Err(Refusal(StatusCode::BAD_REQUEST, format!("cannot read the body: {error}"))),
        Err(_) => Err(Refusal(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not come within {} s", BODY_PATIENCE.as_secs()),
        )),
    }
}

fn parsed<T: DeserializeOwned>(body: &[u8], expected: &str) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal(StatusCode::BAD_REQUEST, format!("cannot use the body: {error}; expected {expected}"))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectionsQuery {
    limit: Option<usize>,
}

async fn connections(
    State(agent): State<Agent>,
    query: Result<Query<ConnectionsQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(ConnectionsQuery { limit }) =
        query.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.body_text()))?;
    let (reply, mut batches) = mpsc::channel(BATCHES_IN_FLIGHT);
    agent.send(Request::Connections { limit, reply }).await.map_err(|_| Refusal::stopping())?;
    // The first batch before the status line: a table that cannot be read at all is a 500, not a broken 200.
    let first = match batches.recv().await {
        None => return Err(Refusal::stopping()),
        Some(ConnectionBatch::Failed(reason)) => return Err(Refusal::internal(reason)),
        Some(batch) => batch,
    };
    let writer = ArrayWriter { left: limit.unwrap_or(usize::MAX), started: false };
    let body = stream::unfold(Some((writer, Some(first), batches)), async |state| {
        let (mut writer, first, mut batches) = state?;
        let batch = match first {
            Some(batch) => Some(batch),
            None => batches.recv().await,
        };
        match writer.write(batch) {
            Ok(Piece { bytes, last: false }) => Some((Ok(bytes), Some((writer, None, batches)))),
            Ok(Piece { bytes, last: true }) => Some((Ok(bytes), None)),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(json(Body::from_stream(body)))
}

/// Writes a JSON array piece by piece, one element per line.
struct ArrayWriter {
    left: usize,
    started: bool,
}

struct Piece {
    bytes: Bytes,
    last: bool,
}

impl ArrayWriter {
    fn write(&mut self, batch: Option<ConnectionBatch>) -> io::Result<Piece> {
        let mut bytes = Vec::new();
        let ended = match batch {
            Some(ConnectionBatch::Entries(entries)) => {
                for connection in entries.iter().take(self.left) {
                    self.element(&mut bytes, connection)?;
                }
                self.left = self.left.saturating_sub(entries.len());
                false
            }
            Some(ConnectionBatch::End) => true,
            Some(ConnectionBatch::Failed(reason)) => return Err(io::Error::other(reason)),
            None => return Err(io::Error::other("the agent stopped in the middle of the connection table")),
        };
        let last = ended || self.left == 0;
        if last {
            bytes.extend_from_slice(if self.started { b"\n]\n" } else { b"[]\n" });
        }
        Ok(Piece { bytes: bytes.into(), last })
    }

    fn element(&mut self, bytes: &mut Vec<u8>, connection: &Connection) -> io::Result<()> {
        bytes.extend_from_slice(if self.started { b",\n" } else { b"[\n" });
        self.started = true;
        serde_json::to_writer(bytes, connection).map_err(io::Error::from)
    }
}

async fn unknown_path(uri: Uri) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, format!("no such path: {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    Refusal(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not possible on {}", uri.path()))
}

fn json(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// An answer other than 200.
struct Refusal(StatusCode, String);

impl Refusal {
    fn stopping() -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, "xdirector is stopping".into())
    }

    fn internal(reason: String) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, reason)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorBody { error: self.1 })).into_response()
    }
}
