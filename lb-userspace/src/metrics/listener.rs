//! Where Prometheus asks: plain HTTP on a TCP port, for `GET /metrics` and nothing else.

use std::{convert::Infallible, io, time::Duration};

use axum::{
    extract::State,
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::answer;
use crate::api::Request;

/// Connections at a time; more wait in the kernel.
pub(super) const CONNECTIONS: usize = 8;
/// How long a request's head may take.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// The longest head.
const HEAD_BYTES: usize = 16 * 1024;
/// How long a connection may take in all. Prometheus itself gives up after 10 s unless it is told otherwise.
const PATIENCE: Duration = Duration::from_secs(60);
/// A failed accept is about the process (no file descriptors left): it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Answers scrapes until the future is dropped, which ends the open ones. One request for each connection, a bounded
/// number of connections, each with a bounded time.
///
/// # Errors
///
/// None at present: a failed accept is logged and tried again.
pub async fn serve(listener: TcpListener, agent: mpsc::Sender<Request>) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, agent.clone()))),
                Err(error) => {
                    tracing::warn!("metrics: cannot accept a connection: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, agent: mpsc::Sender<Request>) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let agent = agent.clone();
        async move { Ok::<_, Infallible>(route(request.method(), request.uri().path(), agent).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
    server.max_buf_size(HEAD_BYTES).keep_alive(false);
    // Errors are the client's: a head that is none or too long, or a client that left.
    if let Ok(Err(error)) = timeout(PATIENCE, server.serve_connection(TokioIo::new(stream), service)).await {
        tracing::debug!("metrics: {error}");
    }
}

async fn route(method: &Method, path: &str, agent: mpsc::Sender<Request>) -> Response {
    match (path, method) {
        ("/metrics", &Method::GET) => answer(State(agent)).await,
        ("/metrics", _) => {
            let allow = [(header::ALLOW, "GET")];
            (StatusCode::METHOD_NOT_ALLOWED, allow, "only GET is possible here\n").into_response()
        }
        _ => (StatusCode::NOT_FOUND, "the metrics are at /metrics\n").into_response(),
    }
}
