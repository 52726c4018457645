//! A TCP connection.

use super::{Outcome, Passed, Way, way};

/// One attempt: connects and closes. The close is an ordinary one (FIN), as servers log a reset as a client's fault;
/// only a check with a source port of its own resets ([`Way::socket`]).
///
/// So each check leaves a TIME_WAIT here for a minute. It holds a port towards that one server and port only:
/// with the usual 28,000 ports about 470 checks a second of the same one, from one source address.
pub async fn attempt(way: &Way) -> Outcome {
    match way.tcp().await {
        Ok(_closed) => Ok(Passed { detail: "connected".to_owned(), ..Passed::default() }),
        Err(error) => Err(way::reason(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::probe::tests::Port;

    #[tokio::test]
    async fn a_listener_passes_and_its_end_fails() {
        let port = Port::new();
        let way = Way { connect: port.address, bind: None, fwmark: 0, through: None };
        let listener = port.listen();
        assert_eq!(attempt(&way).await.expect("it listens").detail, "connected");
        drop(listener);
        assert_eq!(attempt(&way).await, Err("connection refused".to_owned()));
    }

    #[tokio::test]
    async fn ipv6() {
        let listener = match std::net::TcpListener::bind("[::1]:0") {
            Ok(listener) => listener,
            Err(error) => {
                println!("SKIPPED ipv6: {error}");
                return;
            }
        };
        let way =
            Way { connect: listener.local_addr().expect("bound"), bind: None, fwmark: 0, through: None };
        assert_eq!(attempt(&way).await.expect("it listens").detail, "connected");
    }
}
