//! Short connections, and datagrams with numbers.

use std::{
    collections::BTreeSet,
    io,
    net::{SocketAddr, UdpSocket},
    sync::atomic::Ordering::Relaxed,
    thread,
    time::{Duration, Instant},
};

use super::Shared;
use crate::client::http_get;

/// How often a datagram is sent.
pub(super) const BEAT: Duration = Duration::from_millis(5);
/// How long the last answers are waited for.
const LAST: Duration = Duration::from_secs(2);

/// One after the other, until the load ends.
pub(super) fn connections(shared: &Shared) {
    while !shared.is_over() && shared.begun.fetch_add(1, Relaxed) < shared.options.most {
        let started = Instant::now();
        let answer = http_get(shared.server);
        let took = started.elapsed();
        shared.report(|report| {
            report.slowest = report.slowest.max(took);
            match answer {
                Ok(name) => *report.by_server.entry(name).or_default() += 1,
                Err(error) => {
                    report.failed += 1;
                    let is_reset = error
                        .downcast_ref::<io::Error>()
                        .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
                    report.resets += u64::from(is_reset);
                    report.first_error.get_or_insert_with(|| format!("after {took:?}: {error:#}"));
                    return;
                }
            }
            shared.ok.fetch_add(1, Relaxed);
        });
        thread::sleep(shared.options.pause);
    }
}

/// Sends a number every few milliseconds and notes which come back.
pub(super) fn echo(shared: &Shared, server: SocketAddr) {
    if let Err(error) = try_echo(shared, server) {
        shared.report(|report| {
            report.failed += 1;
            report.first_error.get_or_insert_with(|| format!("datagrams: {error}"));
        });
    }
}

fn try_echo(shared: &Shared, server: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(BEAT))?;
    let mut missing = BTreeSet::new();
    let mut sent = 0u64;
    let mut next = Instant::now();
    while !shared.is_over() {
        // A refusal of an earlier one shows up here; that one is missing then.
        let _ = socket.send(sent.to_string().as_bytes());
        missing.insert(sent);
        sent += 1;
        next += BEAT;
        while Instant::now() < next {
            take(&socket, &mut missing);
        }
    }
    let end = Instant::now() + LAST;
    while Instant::now() < end && !missing.is_empty() {
        take(&socket, &mut missing);
    }
    shared.report(|report| {
        report.echo_sent = sent;
        report.echo_lost = missing.len() as u64;
    });
    Ok(())
}

fn take(socket: &UdpSocket, missing: &mut BTreeSet<u64>) {
    let mut buffer = [0; 256];
    let Ok(len) = socket.recv(&mut buffer) else { return };
    let text = String::from_utf8_lossy(&buffer[..len]);
    if let Some(number) = text.rsplit(' ').next().and_then(|word| word.parse().ok()) {
        missing.remove(&number);
    }
}
