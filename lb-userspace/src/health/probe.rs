//! The probes: one attempt each.

pub mod dns;
pub mod file;
pub mod http;
pub mod path;
pub mod ping;
pub mod script;
pub mod smtp;
pub mod tcp;
pub mod udp;
pub mod way;
mod words;

pub use way::Way;

use std::sync::{Arc, LazyLock};

use futures_util::FutureExt as _;

use crate::{
    config::check::{HealthCheck, Probe, Via},
    desired::ServerId,
    process::User,
};

/// What a right answer says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Passed {
    /// The answer in a few words, as `HTTP 200`.
    pub detail: String,
    /// The weight that it sets (script, file).
    pub weight: Option<u32>,
    /// The file probe: no new connections, the old ones go on.
    pub drain: bool,
}

/// How one attempt ended; `Err`: why it failed, in a few words without the server's address.
pub type Outcome = Result<Passed, String>;

/// What probes share.
#[derive(Debug)]
pub struct Tools {
    /// The user as whom scripts run.
    pub user: Option<User>,
    /// TLS clients, made for the first HTTP check: reading certificates takes a while.
    pub tls: LazyLock<http::TlsClients>,
    /// The way through the data plane.
    pub path: Option<Arc<dyn path::Path>>,
}

impl Tools {
    /// Tools of a set of checks.
    pub fn new(user: Option<User>, path: Option<Arc<dyn path::Path>>) -> Self {
        Self { user, tls: LazyLock::new(http::TlsClients::new), path }
    }
}

/// Makes one attempt of a check of `server`; [`HealthCheck::timeout`] is kept here. Dropping the future ends the attempt.
pub async fn attempt(server: &ServerId, check: &HealthCheck, tools: &Tools) -> Outcome {
    let through = match (check.via, &tools.path) {
        (Via::Direct, _) => None,
        (Via::Dataplane, Some(path)) => Some(path::Through::new(Arc::clone(path), *server)),
        (Via::Dataplane, None) => return Err("there is no data plane".to_owned()),
    };
    let way = Way { connect: check.connect, bind: check.bind, fwmark: check.fwmark, through };
    // The large futures are on the heap: a TCP check should not take as much memory as an HTTPS one.
    let attempt = async {
        match &check.probe {
            Probe::Tcp => tcp::attempt(&way).await,
            Probe::Http(http) => http::attempt(http, &way, &tools.tls).boxed().await,
            Probe::Smtp { helo } => smtp::attempt(helo, &way).boxed().await,
            Probe::Dns { record, name } => dns::attempt(record, name, &way).boxed().await,
            Probe::Udp { payload, expect, require_reply } => {
                udp::attempt(payload, expect, *require_reply, &way, check.timeout).boxed().await
            }
            Probe::Ping => ping::attempt(&way).boxed().await,
            Probe::Script { command, dynamic } => {
                script::attempt(command, *dynamic, &way, tools.user.as_ref(), check.timeout).boxed().await
            }
            Probe::File { path } => file::attempt(path).boxed().await,
        }
    };
    // Script and UDP keep the time themselves: the one has to say what it killed, the other takes silence for an answer.
    let outcome = match &check.probe {
        Probe::Script { .. } | Probe::Udp { .. } => attempt.await,
        _ => match tokio::time::timeout(check.timeout, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {} s", check.timeout.as_secs_f64())),
        },
    };
    match outcome {
        Ok(passed) => Ok(Passed { detail: tidy(passed.detail), ..passed }),
        Err(detail) => Err(tidy(detail)),
    }
}

/// Details hold servers' words, and end in logs and on terminals: printable and short whatever a probe made of them.
pub(crate) fn tidy(mut detail: String) -> String {
    if detail.chars().any(char::is_control) {
        detail = detail.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    }
    if let Some((end, _)) = detail.char_indices().nth(LONGEST_DETAIL) {
        detail.truncate(end);
        detail.push_str("...");
    }
    detail
}

/// In characters.
const LONGEST_DETAIL: usize = 200;

#[cfg(test)]
pub(super) mod tests {
    use std::{
        net::{SocketAddr, TcpListener},
        time::Duration,
    };

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::{config::Protocol, desired::ServiceId};

    /// A TCP port of loopback that is ours as long as this lives, whether somebody listens there or not.
    pub struct Port {
        _holder: Socket,
        pub address: SocketAddr,
    }

    impl Port {
        pub fn new() -> Self {
            let holder = bound(([127, 0, 0, 1], 0).into());
            let address = holder.local_addr().expect("bound").as_socket().expect("an IP address");
            Self { _holder: holder, address }
        }

        pub fn listen(&self) -> TcpListener {
            let listener = bound(self.address);
            listener.listen(1024).expect("listen");
            listener.into()
        }
    }

    fn bound(address: SocketAddr) -> Socket {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("an option");
        socket.bind(&address.into()).expect("bind");
        socket
    }

    fn check(probe: Probe, connect: SocketAddr, timeout: Duration) -> HealthCheck {
        HealthCheck {
            probe,
            interval: Duration::from_secs(1),
            timeout,
            rise: 1,
            fall: 1,
            retry: 0,
            delay_before_retry: Duration::ZERO,
            warmup: Duration::ZERO,
            connect,
            bind: None,
            fwmark: 0,
            via: Via::Direct,
        }
    }

    fn server() -> ServerId {
        let service = ServiceId { address: [192, 0, 2, 1].into(), port: 80, protocol: Protocol::Tcp };
        ServerId { service, address: [10, 0, 0, 1].into(), port: 8080 }
    }

    /// Leads everything to one place.
    #[derive(Debug)]
    struct Detour {
        held: Arc<()>,
    }

    impl path::Path for Detour {
        fn open(
            &self,
            to: &ServerId,
            connect: SocketAddr,
            bind: Option<SocketAddr>,
            kind: Type,
        ) -> Result<path::Opened, String> {
            assert_eq!((*to, bind, kind), (server(), None, Type::STREAM));
            if connect.port() == 9 {
                return Err("no way".to_owned());
            }
            let socket = bound(([127, 0, 0, 42], 0).into());
            socket.set_nonblocking(true).expect("an option");
            Ok(path::Opened { socket, hold: Box::new(Arc::clone(&self.held)) })
        }
    }

    #[tokio::test]
    async fn a_check_through_the_data_plane_begins_where_that_says() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let held = Arc::new(());
        let tools = Tools::new(None, Some(Arc::new(Detour { held: Arc::clone(&held) })));
        let mut check = check(Probe::Tcp, listener.local_addr().expect("bound"), Duration::from_secs(20));
        check.via = Via::Dataplane;
        assert!(attempt(&server(), &check, &tools).await.is_ok());
        assert_eq!(listener.accept().expect("it has connected").1.ip().to_string(), "127.0.0.42");
        drop(tools);
        assert_eq!(Arc::strong_count(&held), 1, "the way is still held");
    }

    #[tokio::test]
    async fn without_a_way_through_the_data_plane_a_check_fails() {
        let mut check = check(Probe::Tcp, ([127, 0, 0, 1], 9).into(), Duration::from_secs(20));
        check.via = Via::Dataplane;
        let tools = Tools::new(None, Some(Arc::new(Detour { held: Arc::default() })));
        assert_eq!(attempt(&server(), &check, &tools).await, Err("no way".to_owned()));
        let outcome = attempt(&server(), &check, &Tools::new(None, None)).await;
        assert_eq!(outcome, Err("there is no data plane".to_owned()));
    }

    #[tokio::test]
    async fn connects_where_it_should() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let connect = listener.local_addr().expect("bound");
        let check = check(Probe::Tcp, connect, Duration::from_secs(20));
        let outcome = attempt(&server(), &check, &Tools::new(None, None)).await;
        assert_eq!(outcome.expect("it listens").detail, "connected");
    }

    #[tokio::test]
    async fn the_timeout_ends_an_attempt() {
        // A queue for one connection, which is full: the second gets no answer.
        let listener = bound(([127, 0, 0, 1], 0).into());
        listener.listen(0).expect("listen");
        let connect = listener.local_addr().expect("bound").as_socket().expect("an IP address");
        let _queued = std::net::TcpStream::connect(connect).expect("one fits");
        let check = check(Probe::Tcp, connect, Duration::from_millis(50));
        let outcome = attempt(&server(), &check, &Tools::new(None, None)).await;
        assert_eq!(outcome, Err("no answer within 0.05 s".to_owned()));
    }

    #[test]
    fn details_are_short_and_printable() {
        assert_eq!(tidy("HTTP 200".to_owned()), "HTTP 200");
        assert_eq!(tidy("a\x1b[2J\r\nb".to_owned()), "a [2J  b");
        assert_eq!(tidy("\u{e9}".repeat(300)), format!("{}...", "\u{e9}".repeat(200)));
    }
}
