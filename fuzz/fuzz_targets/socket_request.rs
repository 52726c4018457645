//! Requests on the admin socket and on the port for Prometheus: whatever a client sends, it gets an answer or the end of
//! the connection at once.

#![no_main]

use std::time::Duration;

use lb_userspace::{
    api::{
        self, Connection, Request,
        types::{Forward, Protocol},
    },
    metrics,
};
use libfuzzer_sys::fuzz_target;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    runtime::Runtime,
    sync::mpsc,
    time::timeout,
};

struct World {
    runtime: Runtime,
    _folder: tempfile::TempDir,
    socket: std::path::PathBuf,
    metrics: std::net::SocketAddr,
}

thread_local! {
    static WORLD: World = World::new();
}

// Which of the two (one byte), what the client sends.
fuzz_target!(|bytes: &[u8]| {
    let Some((which, sent)) = bytes.split_first() else { return };
    WORLD.with(|world| {
        world.runtime.block_on(async {
            if which % 2 == 0 {
                let stream = UnixStream::connect(&world.socket).await.expect("somebody listens");
                exchange(stream, sent).await;
            } else {
                let stream = TcpStream::connect(world.metrics).await.expect("somebody listens");
                exchange(stream, sent).await;
            }
        });
    });
});

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("socket");
        let metrics = runtime.block_on(async {
            let (sender, requests) = mpsc::channel(4);
            tokio::spawn(agent(requests));
            tokio::spawn(api::serve(UnixListener::bind(&socket).expect("our folder"), sender.clone()));
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("bound");
            tokio::spawn(metrics::serve(listener, sender));
            address
        });
        Self { runtime, _folder: folder, socket, metrics }
    }
}

/// Answers what depends on the request; the others get 503.
async fn agent(mut requests: mpsc::Receiver<Request>) {
    while let Some(request) = requests.recv().await {
        match request {
            Request::Order { order, reply } => drop(reply.send(Err(format!("no {}", order.server)))),
            Request::Stop { reply, .. } => drop(reply.send(())),
            Request::Reload(reply) => drop(reply.send(Err("a mistake".into()))),
            Request::Connections { reply, .. } => {
                let _ = reply.send(api::ConnectionBatch::Entries(vec![connection(), connection()])).await;
                let _ = reply.send(api::ConnectionBatch::End).await;
            }
            Request::DataPlane { order, reply } => drop(reply.send(Ok(order))),
            Request::VrrpOrder { instance, reply, .. } => drop(reply.send(Err(format!("no {instance}")))),
            Request::Status(_) | Request::Events(_) | Request::Vrrp(_) => {}
        }
    }
}

fn connection() -> Connection {
    let address = ([192, 0, 2, 1], 80).into();
    Connection {
        protocol: Protocol::Tcp,
        expires_seconds: 60,
        state: "ESTABLISHED".into(),
        client: address,
        virtual_address: address,
        real: address,
        forward: Forward::Nat,
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, sent: &[u8]) {
    let mut answer = Vec::new();
    let exchange = async {
        // The server may have enough of it at any time.
        let _ = stream.write_all(sent).await;
        let _ = stream.shutdown().await;
        let _ = stream.take(1 << 20).read_to_end(&mut answer).await;
    };
    timeout(Duration::from_secs(4), exchange).await.expect("it ends at once");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
    assert!(answer.len() < 1 << 20);
}
