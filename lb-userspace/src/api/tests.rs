//! A real socket in a directory of its own, a real server, a real client; only the agent is a stand-in.

mod openapi;
mod requests;

use std::{
    fs,
    io::{self, Read, Write},
    net::SocketAddr,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::{UnixListener as StdListener, UnixStream as StdStream},
    },
    path::{Path, PathBuf},
    thread,
};

use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::{
    client::ClientError,
    samples::{status, vrrp},
    socket::SocketError,
    types::{ErrorBody, Forward, Protocol},
    *,
};

fn connection(index: usize) -> Connection {
    Connection {
        protocol: Protocol::Tcp,
        expires_seconds: 899,
        state: "ESTABLISHED".into(),
        client: SocketAddr::from(([203, 0, 113, (index >> 16) as u8], index as u16)),
        virtual_address: "192.0.2.1:80".parse().unwrap(),
        real: "10.0.0.1:8080".parse().unwrap(),
        forward: Forward::Nat,
    }
}

fn batches(count: usize, size: usize) -> Vec<ConnectionBatch> {
    let all: Vec<_> = (0..count).map(connection).collect();
    all.chunks(size).map(|chunk| ConnectionBatch::Entries(chunk.to_vec())).collect()
}

/// Runs `work` where the command line's client runs: on a thread that no runtime knows.
async fn outside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = oneshot::channel();
    thread::spawn(move || drop(done.send(work())));
    result.await.expect("the work did not panic")
}

/// A server on a socket of its own, and a stand-in for the agent. The command line's tests use it too.
pub(crate) struct Server {
    directory: TempDir,
    _file: SocketFile,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// The agent answers every request for connections with `answers`.
    fn start(answers: impl Fn() -> Vec<ConnectionBatch> + Send + 'static) -> Self {
        Self::with_agent(move |request| {
            let answers = if matches!(request, Request::Connections { .. }) { answers() } else { Vec::new() };
            async move {
                match request {
                    Request::Status(reply) => drop(reply.send(status())),
                    Request::Connections { reply, .. } => {
                        for batch in answers {
                            if reply.send(batch).await.is_err() {
                                break;
                            }
                        }
                    }
                    other => panic!("nobody asks for {other:?} here"),
                }
            }
        })
    }

    /// The agent is a function that answers one request after the other.
    pub(crate) fn with_agent<F: Future<Output = ()> + Send>(
        agent: impl Fn(Request) -> F + Send + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let BoundSocket { listener, file } = bind(&directory.path().join("x.sock"), "test").unwrap();
        let (sender, mut requests) = mpsc::channel(1);
        let server = tokio::spawn(async move { serve(listener, sender).await.unwrap() });
        let agent = tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                agent(request).await;
            }
        });
        Self { directory, _file: file, tasks: vec![server, agent] }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("x.sock")
    }

    pub(crate) async fn ask<T: Send + 'static>(&self, ask: impl FnOnce(Client) -> T + Send + 'static) -> T {
        let client = Client::new(self.socket()).unwrap();
        outside(move || ask(client)).await
    }

    /// Status code and body of a request written by hand. All answers are JSON.
    async fn raw(&self, request: &str) -> (u16, String) {
        let (status, head, body) = self.send(request, "").await;
        assert!(head.contains("content-type: application/json"), "{head}");
        (status, body)
    }

    /// Status code, head and body of the answer to a request with this body.
    async fn send(&self, request: &str, body: &str) -> (u16, String, String) {
        let socket = self.socket();
        let length = body.len();
        let request = format!(
            "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        outside(move || {
            let mut stream = StdStream::connect(socket).unwrap();
            // A server that has refused the head may close before it has read the rest.
            let _ = stream.write_all(request.as_bytes());
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
        })
        .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn collect(client: &Client, limit: Option<usize>) -> Result<Vec<Connection>, ClientError> {
    let mut all = Vec::new();
    client.connections(limit, |connection| {
        all.push(connection);
        Ok(())
    })?;
    Ok(all)
}

#[tokio::test]
async fn status_arrives_whole() {
    let server = Server::start(Vec::new);
    assert_eq!(server.ask(|client| client.status().unwrap()).await, status());
}

#[tokio::test]
async fn connections_arrive_in_order() {
    for (count, size) in [(0, 1), (1, 1), (2, 1), (1000, 7), (70_000, 1000)] {
        let server = Server::start(move || {
            let mut answer = batches(count, size);
            answer.insert(0, ConnectionBatch::Entries(Vec::new()));
            answer.push(ConnectionBatch::End);
            answer
        });
        let all = server.ask(|client| collect(&client, None).unwrap()).await;
        assert_eq!(all, (0..count).map(connection).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn limit_holds_even_if_the_agent_sends_more() {
    for (limit, expected) in [(0, 0), (1, 1), (10, 10), (11, 11), (99, 99), (100, 100), (500, 100)] {
        let server = Server::start(|| {
            let mut answer = batches(100, 10);
            answer.push(ConnectionBatch::End);
            answer
        });
        let all = server.ask(move |client| collect(&client, Some(limit)).unwrap()).await;
        assert_eq!(all, (0..expected).map(connection).collect::<Vec<_>>(), "limit {limit}");
    }
}

#[tokio::test]
async fn copied_json_is_json_with_one_element_per_line() {
    let server = Server::start(|| {
        let mut answer = batches(5, 2);
        answer.push(ConnectionBatch::End);
        answer
    });
    let copied = server
        .ask(|client| {
            let mut out = Vec::new();
            client.copy_connections(None, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        })
        .await;
    let parsed: Vec<Connection> = serde_json::from_str(&copied).unwrap();
    assert_eq!(parsed, (0..5).map(connection).collect::<Vec<_>>());
    assert_eq!(copied.lines().count(), 7, "{copied}");
    let first = copied.lines().nth(1).unwrap();
    assert_eq!(
        first,
        r#"{"protocol":"tcp","expires_seconds":899,"state":"ESTABLISHED","client":"203.0.113.0:0","virtual":"192.0.2.1:80","real":"10.0.0.1:8080","forward":"nat"},"#
    );
}

#[tokio::test]
async fn a_table_that_cannot_be_read_is_an_error_with_its_reason() {
    let server = Server::start(|| vec![ConnectionBatch::Failed("no memory".into())]);
    let error = server.ask(|client| collect(&client, None).unwrap_err()).await;
    assert_eq!(error.to_string(), "no memory (HTTP status 500)");
}

#[tokio::test]
async fn a_table_that_breaks_off_is_an_error_not_a_short_table() {
    let failed = || {
        let mut answer = batches(20, 10);
        answer.push(ConnectionBatch::Failed("no memory".into()));
        answer
    };
    let stopped = || batches(20, 10);
    for server in [Server::start(failed), Server::start(stopped)] {
        let error = server.ask(|client| collect(&client, None).unwrap_err()).await;
        assert!(matches!(error, ClientError::Transport { .. }), "{error:?}");
        let error = server.ask(|client| client.copy_connections(None, &mut Vec::new()).unwrap_err()).await;
        assert!(matches!(error, ClientError::Transport { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn the_callers_error_comes_back() {
    let server = Server::start(|| {
        let mut answer = batches(20, 10);
        answer.push(ConnectionBatch::End);
        answer
    });
    let error = server
        .ask(|client| client.connections(None, |_| Err(io::ErrorKind::BrokenPipe.into())).unwrap_err())
        .await;
    let ClientError::Output(error) = error else { panic!("{error:?}") };
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn every_refusal_is_json() {
    let server = Server::start(Vec::new);
    for (request, status, word) in [
        ("GET /v2/status", 404, "/v2/status"),
        ("GET /", 404, "/"),
        ("POST /v1/status", 405, "POST"),
        ("GET /v1/connections?limit=ten", 400, "limit"),
        ("GET /v1/connections?limits=10", 400, "limits"),
        ("GET /v1/connections", 503, "stopping"),
    ] {
        let (answered, body) = server.raw(request).await;
        assert_eq!(answered, status, "{request}: {body}");
        let ErrorBody { error } = serde_json::from_str(&body).unwrap();
        assert!(error.contains(word), "{request}: {error}");
    }
}

#[tokio::test]
async fn an_agent_that_is_gone_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let BoundSocket { listener, file: _file } = bind(&path, "test").unwrap();
    let (sender, requests) = mpsc::channel(1);
    drop(requests);
    let server = tokio::spawn(serve(listener, sender));
    let client = Client::new(path).unwrap();
    let error = outside(move || client.status().unwrap_err()).await;
    assert_eq!(error.to_string(), "xdirector is stopping (HTTP status 503)");
    server.abort();
}

#[tokio::test]
async fn no_socket_and_dead_sockets_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let ask = |path: &Path| {
        let client = Client::new(path).unwrap();
        outside(move || client.status().unwrap_err().to_string())
    };
    assert_eq!(
        ask(&path).await,
        format!(
            "no xdirector is running here ({}: no such file); --socket PATH or --instance NAME asks another one",
            path.display()
        )
    );
    drop(StdListener::bind(&path).unwrap());
    assert_eq!(
        ask(&path).await,
        format!(
            "no xdirector is running here ({}: connection refused); the socket is left from one that died",
            path.display()
        )
    );
}

#[tokio::test]
async fn the_socket_is_private_and_its_directory_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/xdirector/x.sock");
    let bound = bind(&path, "test").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&directory.path().join("run/xdirector/x.sock.lock")), 0o600);
    assert_eq!(mode(path.parent().unwrap()) & 0o022, 0, "nobody else may replace the socket");
    assert_eq!(bound.file.path(), path);
    drop(bound);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0, "nothing is left");
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    drop(StdListener::bind(&path).unwrap());
    // What `kill -9` leaves.
    fs::write(directory.path().join("x.sock.lock"), "").unwrap();
    let bound = bind(&path, "test").unwrap();
    StdStream::connect(&path).unwrap();
    drop(bound);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_second_agent_is_refused_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let first = bind(&path, "blue").unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    for _ in 0..2 {
        let error = bind(&path, "blue").unwrap_err();
        assert!(matches!(error, SocketError::Running { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!("another xdirector instance blue is running (socket {})", path.display())
        );
    }
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    StdStream::connect(&path).unwrap();
    drop(first);
    bind(&path, "blue").unwrap();
}

#[tokio::test]
async fn a_live_socket_without_a_lock_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let _other = StdListener::bind(&path).unwrap();
    assert!(matches!(bind(&path, "test").unwrap_err(), SocketError::Running { .. }));
    StdStream::connect(&path).unwrap();
}

#[tokio::test]
async fn another_kind_of_file_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(bind(&path, "test").unwrap_err(), SocketError::NotASocket(_)));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no lock is left");
}

#[tokio::test]
async fn only_the_own_file_is_removed_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let bound = bind(&path, "test").unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    drop(bound);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn a_path_that_is_too_long_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x".repeat(120));
    let error = bind(&path, "test").unwrap_err();
    assert!(error.to_string().starts_with("cannot listen on "), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left");
}
