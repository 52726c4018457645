//! Metrics for Prometheus, made of the director's [`Status`](crate::api::types::Status): docs/metrics.md lists them, change both together.
//!
//! The page has no state of its own. A scrape asks the agent for one status and writes the page on a thread of its own,
//! piece by piece, as fast as the reader takes it: the page of tens of thousands of real servers is too large to be
//! held as a whole.

mod labels;
mod listener;
mod page;
mod servers;
mod vrrp;

use std::{fmt, io};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use tokio::sync::{mpsc, oneshot};

pub use self::{listener::serve, page::write_page};
use crate::api::Request;

/// What prometheus-client's text encoder writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bytes of the page that are sent at once.
const PIECE: usize = 64 * 1024;
/// Pieces that may wait for a slow reader.
const PIECES_IN_FLIGHT: usize = 4;

/// Answers `GET /metrics`: asks the agent and sends the page while it is written. An answer that breaks off lacks the
/// last line of the format, `# EOF`, so that nobody takes it for a whole one.
pub async fn answer(State(agent): State<mpsc::Sender<Request>>) -> Response {
    let stopping = || (StatusCode::SERVICE_UNAVAILABLE, "xdirector is stopping\n").into_response();
    let (reply, status) = oneshot::channel();
    if agent.send(Request::Status(reply)).await.is_err() {
        return stopping();
    }
    let Ok(status) = status.await else { return stopping() };
    let (sender, mut pieces) = mpsc::channel(PIECES_IN_FLIGHT);
    tokio::task::spawn_blocking(move || {
        let mut out = Pieces { piece: String::with_capacity(PIECE), sender };
        // It fails only when the reader has left.
        if write_page(status, &mut out).is_ok() {
            let _ = out.send();
        }
    });
    let body = stream::poll_fn(move |context| pieces.poll_recv(context)).map(Ok::<_, io::Error>);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::from_stream(body)).into_response()
}

/// Text on its way to the reader. Waits for a slow one, so it belongs on a thread that may block.
struct Pieces {
    piece: String,
    sender: mpsc::Sender<Bytes>,
}

impl Pieces {
    fn send(&mut self) -> fmt::Result {
        let piece = std::mem::replace(&mut self.piece, String::with_capacity(PIECE));
        self.sender.blocking_send(piece.into()).map_err(|_| fmt::Error)
    }
}

impl fmt::Write for Pieces {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.piece.len() + text.len() > PIECE {
            self.send()?;
        }
        self.piece.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
