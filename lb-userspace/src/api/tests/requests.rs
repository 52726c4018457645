//! Requests that change something, and events.

use super::*;
use crate::api::{
    order::Action,
    types::{DataPlaneKind, DataPlaneOrder, OrderedServer, StateEvent},
};

fn events() -> Vec<StateEvent> {
    (0..3).map(|at| StateEvent { at, subject: "web/192.168.1.101:80".into(), text: "up".into() }).collect()
}

fn reloaded() -> Reloaded {
    Reloaded {
        added: 1,
        changed: 2,
        removed: 3,
        warnings: vec!["web.toml:1: warning: doubtful".into()],
        needs_restart: vec!["director.max_connections".into()],
    }
}

/// Takes any order for the real server 192.168.1.101 and says back what it has understood.
fn agent() -> Server {
    Server::with_agent(async |request| match request {
        Request::Status(reply) => drop(reply.send(status())),
        Request::Events(reply) => drop(reply.send(events())),
        Request::Reload(reply) => drop(reply.send(Ok(reloaded()))),
        Request::Order { order, reply } => {
            let known: SocketAddr = "192.168.1.101:80".parse().unwrap();
            let answer = if order.server.parse::<ServerAddress>().unwrap().matches(known) {
                let virtual_server = order.virtual_server.clone().unwrap_or_else(|| "web".into());
                let servers = vec![OrderedServer { virtual_server, address: known, connections: 12 }];
                Ok(Ordered { servers, not_kept: Some(format!("{:?}", order.action)) })
            } else {
                Err(format!("no real server {}; there are 192.168.1.101:80", order.server))
            };
            drop(reply.send(answer));
        }
        Request::Stop { stop, reply } => {
            assert!(stop.detach, "the only stop that is sent here");
            reply.send(()).unwrap();
        }
        Request::DataPlane { order, reply } => {
            let answer = match order.dataplane {
                DataPlaneKind::Ipvs => Ok(order),
                DataPlaneKind::Xdp => Err("XDP has no persistence".to_owned()),
            };
            drop(reply.send(answer));
        }
        Request::Vrrp(reply) => drop(reply.send(vrrp())),
        Request::VrrpOrder { instance, resume, reply } => {
            let answer = if instance == "VI_50" {
                Ok(VrrpStatus { unknown_vrid: resume.into(), ..vrrp() })
            } else {
                Err(format!("there is no VRRP instance \"{instance}\"; there are VI_50"))
            };
            drop(reply.send(answer));
        }
        Request::Connections { .. } => panic!("nobody asks for connections here"),
    })
}

#[tokio::test]
async fn events_arrive_in_order() {
    assert_eq!(agent().ask(|client| client.events().unwrap()).await, events());
}

#[tokio::test]
async fn a_reload_says_what_changed() {
    assert_eq!(agent().ask(|client| client.reload().unwrap()).await, reloaded());
}

#[tokio::test]
async fn a_refused_file_comes_back_with_all_its_mistakes() {
    let mistakes = "web.toml:3: a: wrong\nweb.toml:9: b: wrong\n2 errors";
    let server = Server::with_agent(async move |request| match request {
        Request::Reload(reply) => drop(reply.send(Err(mistakes.into()))),
        other => panic!("nobody asks for {other:?} here"),
    });
    let error = server.ask(|client| client.reload().unwrap_err()).await;
    let ClientError::Refused { status, message } = error else { panic!("{error:?}") };
    assert_eq!((status.as_u16(), message.as_str()), (422, mistakes));
}

#[tokio::test]
async fn orders_reach_the_agent_whole() {
    let server = agent();
    for action in [
        Action::Drain { timeout_seconds: Some(600) },
        Action::Drain { timeout_seconds: None },
        Action::Disable,
        Action::Enable,
        Action::Weight { weight: 7 },
    ] {
        let order = Order { server: "192.168.1.101".into(), virtual_server: Some("dns".into()), action };
        let ordered = server.ask(move |client| client.order(&order).unwrap()).await;
        assert_eq!(ordered.not_kept, Some(format!("{action:?}")));
        assert_eq!(ordered.servers[0].virtual_server, "dns");
        assert_eq!(ordered.servers[0].connections, 12);
    }
}

#[tokio::test]
async fn vrrp_and_its_orders_reach_the_agent() {
    let server = agent();
    assert_eq!(server.ask(|client| client.vrrp().unwrap()).await, vrrp());
    for resume in [false, true] {
        let order = VrrpOrder { instance: "VI_50".into() };
        let status = server.ask(move |client| client.vrrp_order(&order, resume).unwrap()).await;
        assert_eq!(status.unknown_vrid, u64::from(resume));
    }
    let order = VrrpOrder { instance: "VI_51".into() };
    let error = server.ask(move |client| client.vrrp_order(&order, false).unwrap_err()).await;
    let ClientError::Refused { status, message } = error else { panic!("{error:?}") };
    assert_eq!(status.as_u16(), 409);
    assert!(message.contains("there are VI_50"), "{message}");
}

#[tokio::test]
async fn another_data_plane_is_ordered_or_refused() {
    let server = agent();
    let ipvs = DataPlaneOrder { dataplane: DataPlaneKind::Ipvs };
    assert_eq!(server.ask(move |client| client.set_dataplane(ipvs).unwrap()).await, ipvs);
    let xdp = DataPlaneOrder { dataplane: DataPlaneKind::Xdp };
    let error = server.ask(move |client| client.set_dataplane(xdp).unwrap_err()).await;
    let ClientError::Refused { status, message } = error else { panic!("{error:?}") };
    assert_eq!((status.as_u16(), message.as_str()), (409, "XDP has no persistence"));
}

#[tokio::test]
async fn an_unknown_server_is_404_with_those_that_there_are() {
    let order = Order { server: "192.168.1.9:80".into(), virtual_server: None, action: Action::Disable };
    let error = agent().ask(move |client| client.order(&order).unwrap_err()).await;
    let ClientError::Refused { status, message } = error else { panic!("{error:?}") };
    assert_eq!(status.as_u16(), 404);
    assert_eq!(message, "no real server 192.168.1.9:80; there are 192.168.1.101:80");
}

#[tokio::test]
async fn a_stop_is_accepted() {
    let server = agent();
    server.ask(|client| client.stop(Stop { detach: true }).unwrap()).await;
    let (status, _, body) = server.send("POST /v1/stop", r#"{"detach":true}"#).await;
    assert_eq!((status, body.as_str()), (202, r#"{"detach":true}"#));
}

#[tokio::test]
async fn a_stop_without_a_body_does_not_detach() {
    let (stopped, mut stops) = mpsc::channel(4);
    let server = Server::with_agent(move |request| {
        let stopped = stopped.clone();
        async move {
            let Request::Stop { stop, reply } = request else { panic!("{request:?}") };
            stopped.send(stop).await.unwrap();
            reply.send(()).unwrap();
        }
    });
    for body in ["", "{}"] {
        assert_eq!(server.send("POST /v1/stop", body).await.0, 202);
        assert_eq!(stops.recv().await, Some(Stop { detach: false }));
    }
}

#[tokio::test]
async fn a_wrong_body_is_refused_and_reaches_nobody() {
    let server = Server::with_agent(async |request| panic!("{request:?} came"));
    let large = format!(r#"{{"server":"{}","action":"disable"}}"#, "1".repeat(64 * 1024));
    for (path, body, status, word) in [
        ("/v1/servers", "", 400, "expected an object with server, action"),
        ("/v1/servers", "{", 400, "EOF"),
        ("/v1/servers", r#"{"server":"192.0.2.1","action":"stop"}"#, 400, "unknown variant `stop`"),
        ("/v1/servers", r#"{"server":"192.0.2.1","action":"weight"}"#, 400, "needs weight"),
        ("/v1/servers", r#"{"server":"www","action":"disable"}"#, 400, "not the address"),
        ("/v1/servers", &large, 413, "64 KiB"),
        ("/v1/stop", r#"{"detatch":true}"#, 400, "unknown field `detatch`"),
        ("/v1/stop", "detach", 400, "expected no body, or"),
        ("/v1/stop", &large, 413, "64 KiB"),
    ] {
        let (answered, head, answer) = server.send(&format!("POST {path}"), body).await;
        assert_eq!(answered, status, "{path} {answer}");
        assert!(head.contains("content-type: application/json"), "{head}");
        let ErrorBody { error } = serde_json::from_str(&answer).unwrap();
        assert!(error.contains(word), "{error}");
    }
}

#[tokio::test]
async fn methods_are_kept_apart() {
    let server = Server::with_agent(async |request| panic!("{request:?} came"));
    for (request, word) in [
        ("GET /v1/reload", "GET"),
        ("GET /v1/servers", "GET"),
        ("DELETE /v1/servers", "DELETE"),
        ("PUT /v1/stop", "PUT"),
        ("GET /v1/stop", "GET"),
        ("POST /v1/events", "POST"),
        ("POST /metrics", "POST"),
    ] {
        let (status, body) = server.raw(request).await;
        assert_eq!(status, 405, "{request}: {body}");
        assert!(body.contains(word), "{body}");
    }
}

#[tokio::test]
async fn an_agent_that_stops_meanwhile_answers_503() {
    // It drops every reply.
    let server = Server::with_agent(async |request| drop(request));
    for request in ["GET /v1/status", "GET /v1/events", "POST /v1/reload", "POST /v1/stop"] {
        let (status, body) = server.raw(request).await;
        assert_eq!(status, 503, "{request}: {body}");
        assert!(body.contains("stopping"), "{body}");
    }
    let order = r#"{"server":"192.0.2.1","action":"disable"}"#;
    assert_eq!(server.send("POST /v1/servers", order).await.0, 503);
    assert_eq!(server.send("GET /metrics", "").await.0, 503);
}

#[tokio::test]
async fn metrics_are_on_the_socket_too() {
    let (status, head, body) = agent().send("GET /metrics", "").await;
    assert_eq!(status, 200);
    assert!(head.contains(&format!("content-type: {}", crate::metrics::CONTENT_TYPE)), "{head}");
    assert!(body.contains("xdirector_uptime_seconds 61\n") && body.contains("# EOF\n"), "{body}");
}
