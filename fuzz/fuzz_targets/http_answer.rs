//! An HTTP check against a server on loopback that says anything.

#![no_main]

use std::time::Duration;

use lb_userspace::{
    config::check::{Http, HttpRequest},
    health::probe::{
        Way,
        http::{TlsClients, attempt},
    },
};
use libfuzzer_sys::fuzz_target;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    time::timeout,
};

struct World {
    runtime: Runtime,
    listener: TcpListener,
    way: Way,
    tls: TlsClients,
}

thread_local! {
    static WORLD: World = World::new();
}

// How the check asks and how the server cuts its answer (one byte), the answer.
fuzz_target!(|bytes: &[u8]| {
    let Some((how, answer)) = bytes.split_first() else { return };
    WORLD.with(|world| world.check(*how, answer));
});

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let way =
            Way { connect: listener.local_addr().expect("bound"), bind: None, fwmark: 0, through: None };
        Self { runtime, listener, way, tls: TlsClients::with_roots(Vec::new()) }
    }

    fn check(&self, how: u8, answer: &[u8]) {
        let request = |bit: u8| HttpRequest {
            path: "/health?of=it".into(),
            method: if how & bit == 0 { "GET" } else { "HEAD" }.into(),
            host: None,
            headers: Vec::new(),
            status: vec![200..=299],
            md5: None,
            regex: (how & 4 != 0).then(|| "ok".to_owned()),
        };
        let http = Http { tls: None, requests: vec![request(1), request(2)] };
        // In two pieces, so that the reader also meets an end in the middle of a word.
        let pieces = answer.split_at(answer.len() * usize::from(how >> 3) / 32);
        let serve = async {
            loop {
                let (stream, _) = self.listener.accept().await.expect("a connection");
                serve(stream, pieces).await;
            }
        };
        self.runtime.block_on(async {
            tokio::select! {
                // The answer is there at once and then ends: nothing is left to wait for.
                outcome = timeout(Duration::from_secs(4), attempt(&http, &self.way, &self.tls)) => {
                    let _ = outcome.expect("it ends by itself");
                }
                () = serve => unreachable!("it serves for ever"),
            }
        });
    }
}

/// The client may leave at any time.
async fn serve(mut stream: TcpStream, (first, second): (&[u8], &[u8])) {
    let _ = stream.read(&mut [0; 1024]).await;
    let _ = stream.write_all(first).await;
    tokio::task::yield_now().await;
    let _ = stream.write_all(second).await;
    let _ = stream.shutdown().await;
}
