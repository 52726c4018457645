//! The server's side of the socket: paths, and replies of the agent turned into JSON.

use std::io;

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, State, rejection::QueryRejection},
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::stream;
use serde::Deserialize;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
};

use super::{
    ConnectionBatch, Request,
    types::{Connection, ErrorBody},
};

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

fn router(agent: mpsc::Sender<Request>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/connections", get(connections))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(agent)
}

async fn status(State(agent): State<mpsc::Sender<Request>>) -> Result<Response, Refusal> {
    let (reply, answer) = oneshot::channel();
    agent.send(Request::Status(reply)).await.map_err(|_| Refusal::stopping())?;
    let status = answer.await.map_err(|_| Refusal::stopping())?;
    // Ten thousand virtual servers make tens of megabytes: not on the thread that runs the agent.
    let body = tokio::task::spawn_blocking(move || serde_json::to_vec(&status))
        .await
        .map_err(|error| Refusal::internal(error.to_string()))?
        .map_err(|error| Refusal::internal(error.to_string()))?;
    Ok(json(Body::from(body)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectionsQuery {
    limit: Option<usize>,
}

async fn connections(
    State(agent): State<mpsc::Sender<Request>>,
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
