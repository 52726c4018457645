//! The page as text, read by a small reader of the OpenMetrics format; and the listener over TCP.

mod openmetrics;

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path};

use lb_common::verdict::{Event, Verdict};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::api::{Status, samples, types::RealServerStatus};

fn page(status: Status) -> String {
    let mut text = String::new();
    write_page(status, &mut text).unwrap();
    text
}

fn document(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

#[test]
fn the_page_of_a_small_director() {
    let text = page(samples::status());
    openmetrics::check(&text).unwrap();
    insta::assert_snapshot!(text);
}

#[test]
fn a_director_without_servers_has_a_page() {
    let mut status = samples::status();
    status.virtual_servers.clear();
    status.interfaces.clear();
    status.configuration.last_reload = None;
    openmetrics::check(&page(status)).unwrap();
}

#[test]
fn every_verdict_and_event_is_there_once() {
    let samples = openmetrics::check(&page(samples::status())).unwrap();
    let of = |name: &str| samples.iter().filter(|sample| sample.name == name).count();
    assert_eq!(of("xdirector_packets_total"), Verdict::ALL.len());
    assert_eq!(of("xdirector_events_total"), Event::ALL.len());
}

#[test]
fn a_server_that_is_there_twice_is_written_once() {
    let mut status = samples::status();
    let servers = &mut status.virtual_servers[0].real_servers;
    let removed = RealServerStatus { configured_weight: None, weight: 77, ..servers[0].clone() };
    servers.push(removed);
    let samples = openmetrics::check(&page(status)).unwrap();
    let weights: Vec<_> =
        samples.iter().filter(|sample| sample.name == "xdirector_real_server_weight").collect();
    assert_eq!(weights.len(), 2);
    assert!(weights.iter().all(|sample| sample.value != "77"));
}

#[test]
fn the_document_names_every_family_and_no_other() {
    let document = document("docs/metrics.md");
    let documented: BTreeSet<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `xdirector"))
        .map(|rest| &rest[..rest.find(['`', '{']).unwrap()])
        .collect();
    let samples = openmetrics::check(&page(samples::status())).unwrap();
    let families: BTreeSet<&str> =
        samples.iter().map(|sample| sample.documented.strip_prefix("xdirector").unwrap()).collect();
    assert_eq!(documented, families);
}

#[test]
fn the_document_names_every_label() {
    let document = document("docs/metrics.md");
    for sample in openmetrics::check(&page(samples::status())).unwrap() {
        let prefix = format!("| `{}", sample.documented);
        let line = document
            .lines()
            .find(|line| line.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with(['`', '{'])))
            .unwrap_or_else(|| panic!("{} is not in the document", sample.documented));
        let names = line.split('`').nth(1).unwrap();
        let listed: Vec<&str> = names
            .split_once('{')
            .map_or(Vec::new(), |(_, rest)| rest.trim_end_matches('}').split(", ").collect());
        let labels: Vec<&str> =
            sample.labels.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "le").collect();
        assert_eq!(listed, labels, "{}", sample.documented);
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_are_there() {
    let samples = openmetrics::check(&page(samples::status())).unwrap();
    let known: BTreeSet<&str> = samples.iter().map(|sample| sample.name.as_str()).collect();
    let dashboard: serde_json::Value =
        serde_json::from_str(&document("examples/grafana-dashboard.json")).unwrap();
    let mut expressions = Vec::new();
    collect_expressions(&dashboard, &mut expressions);
    let asked: BTreeSet<&str> = expressions.iter().flat_map(|text| metrics_in(text)).collect();
    let missing: Vec<_> = asked.difference(&known).collect();
    assert!(missing.is_empty(), "no such metrics: {missing:?}");
    for wanted in [
        "xdirector_connections",
        "xdirector_connections_capacity",
        "xdirector_virtual_server_connections",
        "xdirector_virtual_server_bytes_total",
        "xdirector_real_server_state",
        "xdirector_check_duration_seconds_sum",
        "xdirector_packets_total",
        "xdirector_reloads_total",
    ] {
        assert!(asked.contains(wanted), "the dashboard does not show {wanted}");
    }
}

#[test]
fn the_alerts_ask_for_metrics_that_are_there() {
    let samples = openmetrics::check(&page(samples::status())).unwrap();
    let rules = document("examples/prometheus-rules.yml");
    let mut asked = 0;
    for metric in metrics_in(&rules) {
        assert!(samples.iter().any(|sample| sample.name == metric), "no such metric: {metric}");
        asked += 1;
    }
    assert!(asked > 5, "{asked} metrics");
}

/// The names of metrics in a query.
fn metrics_in(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("xdirector_"))
}

/// Every text under the key `expr`, and the queries of variables.
fn collect_expressions<'a>(value: &'a serde_json::Value, found: &mut Vec<&'a str>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if matches!(name.as_str(), "expr" | "query" | "definition") => {
                        found.push(text);
                    }
                    _ => collect_expressions(value, found),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect_expressions(value, found)),
        _ => {}
    }
}

/// As many servers as a director can have: a page like this must neither take quadratic time nor be held whole.
#[test]
fn a_large_director_is_written_in_pieces() {
    let mut status = samples::status();
    let template = status.virtual_servers[0].real_servers[0].clone();
    let servers = 20_000_u32;
    status.virtual_servers[0].real_servers = (0..servers)
        .map(|index| {
            let address = SocketAddr::from(([10, 0, (index >> 8) as u8, index as u8], 80));
            RealServerStatus { address, ..template.clone() }
        })
        .collect();
    struct Counter {
        lines: u32,
        longest: usize,
    }
    impl fmt::Write for Counter {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.lines += text.matches('\n').count() as u32;
            self.longest = self.longest.max(text.len());
            Ok(())
        }
    }
    let mut out = Counter { lines: 0, longest: 0 };
    write_page(status, &mut out).unwrap();
    assert!(out.lines > 20 * servers, "{} lines", out.lines);
    assert!(out.longest < 1024, "a piece of {} bytes", out.longest);
}

/// A listener with a stand-in for the agent; gives its address.
async fn listening(status: impl Fn() -> Status + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mut requests) = mpsc::channel(1);
    tokio::spawn(serve(listener, sender));
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            match request {
                Request::Status(reply) => drop(reply.send(status())),
                other => panic!("nobody asks for {other:?} here"),
            }
        }
    });
    address
}

/// Head and body of the answer.
async fn ask(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    // The server closes the connection after its answer.
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

/// The contents of a chunked body; fails when the last chunk is missing.
fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n").expect("a chunk");
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return whole;
        }
        whole.push_str(&rest[..length]);
        body = rest[length..].strip_prefix("\r\n").unwrap();
    }
}

#[tokio::test]
async fn a_scrape_gets_the_page() {
    let address = listening(samples::status).await;
    let (head, body) = ask(address, "GET /metrics").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(head.contains(&format!("content-type: {CONTENT_TYPE}")), "{head}");
    assert_eq!(unchunked(&body), page(samples::status()));
}

#[tokio::test]
async fn nothing_else_is_answered() {
    let address = listening(|| panic!("the agent is not asked")).await;
    for (request, status) in [
        ("GET /", "404"),
        ("GET /v1/status", "404"),
        ("POST /v1/stop", "404"),
        ("GET /metrics/", "404"),
        ("POST /metrics", "405"),
        ("HEAD /metrics", "405"),
    ] {
        let (head, _) = ask(address, request).await;
        assert_eq!(head.split(' ').nth(1), Some(status), "{request}: {head}");
    }
    let (head, _) = ask(address, &format!("GET /metrics?{}", "x".repeat(64 * 1024))).await;
    assert!(head.starts_with("http/1.1 4"), "{head}");
}

#[tokio::test]
async fn silent_connections_do_not_shut_others_out() {
    let address = listening(samples::status).await;
    let mut silent = Vec::new();
    for _ in 0..listener::CONNECTIONS {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // Waits until the others have used up the time for their heads.
    let (head, _) = ask(address, "GET /metrics").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
}

#[tokio::test]
async fn an_agent_that_is_gone_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = mpsc::channel(1);
    drop(requests);
    tokio::spawn(serve(listener, sender));
    let (head, body) = ask(address, "GET /metrics").await;
    assert!(head.starts_with("http/1.1 503 "), "{head}");
    assert_eq!(body, "xdirector is stopping\n");
}
