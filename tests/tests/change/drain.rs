//! Real servers go in and out of service, by order and by the file.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director, Load,
    configuration::VirtualServer,
    load::Options as LoadOptions,
    registry::wait_until,
    require_director,
    topology::{self, Options, Scene},
};
use lb_userspace::api::types::{Override, RealServerState, StateEvent};
use nix::sys::socket::{setsockopt, sockopt};

use crate::{
    common::{SOON, address, events, measured, real, service, wait_for_event, wait_for_status, web},
    support::{configuration, connections, fill, status},
};

/// A connection through the virtual server that has begun a request.
struct Held {
    socket: TcpStream,
    real: SocketAddr,
}

impl Held {
    /// Goes on, to the answer.
    fn finish(mut self) -> Result<String> {
        self.socket.write_all(b"Host: lab\r\n\r\n")?;
        let mut answer = String::new();
        self.socket.read_to_string(&mut answer)?;
        self.reset()?;
        Ok(answer)
    }

    /// Ends it with a reset, after which it is forgotten within 10 s instead of two minutes.
    fn reset(self) -> Result<()> {
        let now = libc::linger { l_onoff: 1, l_linger: 0 };
        Ok(setsockopt(&self.socket.as_fd(), sockopt::Linger, &now)?)
    }

    /// Whether its server still answers.
    fn has_died(self) -> bool {
        !self.finish().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    }
}

/// Two for each of the scene's three real servers.
fn hold(scene: &Scene, director: &Director, port: u16) -> Result<Vec<Held>> {
    let sockets: Vec<TcpStream> =
        (0..6).map(|_| scene.client().connect(topology::vip4(port))).collect::<Result<_>>()?;
    let list = connections(director)?;
    sockets
        .into_iter()
        .map(|mut socket| {
            socket.write_all(b"GET / HTTP/1.1\r\n")?;
            let local = socket.local_addr()?;
            let there = list.iter().find(|one| one.client == local).context("a connection is not listed")?;
            Ok(Held { socket, real: there.real })
        })
        .collect()
}

/// Takes those of one server out of `held`.
fn take(held: &mut Vec<Held>, server: &str) -> Result<Vec<Held>> {
    let server: SocketAddr = server.parse()?;
    let (there, rest) = std::mem::take(held).into_iter().partition(|one| one.real == server);
    *held = rest;
    Ok(there)
}

fn ensure_avoided(scene: &Scene) -> Result<()> {
    let counts = scene.client().http_counts(topology::vip4(80), 8)?;
    ensure!(counts.len() == 2 && !counts.contains_key("Real 3"), "{counts:?}");
    Ok(())
}

#[test]
fn a_drained_server_finishes_what_it_has() -> Result<()> {
    require_director!("a_drained_server_finishes_what_it_has");
    let scene = topology::nat(&Options::new("drain"))?;
    let file = configuration(&scene).serve(&web(&scene, &[1, 1, 1]));
    let mut director = Director::start(&scene.director, file.text())?;
    let mut held = hold(&scene, &director, 80)?;
    let third = address(&scene, 2);
    let mut theirs = take(&mut held, &third)?;
    ensure!(theirs.len() == 2);

    let said = director.command(&["drain", &third])?;
    ensure!(said.contains("2 connections"), "{said}");
    let draining = |what: &str, director: &Director| {
        wait_for_status(director, what, |status| {
            real(status, &scene, 2).is_ok_and(|one| {
                one.state == RealServerState::Draining
                    && one.ordered == Some(Override::Drain { until: None })
                    && one.active == 2
            })
        })?;
        ensure_avoided(&scene)
    };
    draining("draining", &director)?;
    director.reload(file.text())?;
    draining("draining after a reload", &director)?;
    director.kill()?;
    director.restart()?;
    draining("draining after a kill", &director)?;
    let answer = theirs.pop().context("two of them")?.finish()?;
    ensure!(answer.contains("Real 3"), "{answer}");
    director.stop()?;
    director.restart()?;
    ensure_avoided(&scene)?;
    let waiter = director.spawn_command(&["drain", &format!("web/{third}"), "--wait"])?;
    let answer = theirs.pop().context("two of them")?.finish()?;
    ensure!(answer.contains("Real 3"), "{answer}");
    let output = waiter.wait_with_output()?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(output.status.success() && said.contains("drained"), "{said} {:?}", output.stderr);
    wait_for_event(&director, &format!("web/{third}"), "drained")?;
    ensure!(director.log().contains(&format!("web/{third}: drained")), "{}", director.log());
    ensure!(real(&status(&director)?, &scene, 2)?.state == RealServerState::Drained);

    director.command(&["enable", &third])?;
    ensure!(real(&status(&director)?, &scene, 2)?.state == RealServerState::Up);
    ensure!(scene.client().http_counts(topology::vip4(80), 6)?.len() == 3);
    for one in held {
        one.finish()?;
    }
    director.stop()
}

#[test]
fn orders_take_effect_at_once() -> Result<()> {
    require_director!("orders_take_effect_at_once");
    let scene = topology::nat(&Options::new("orders"))?;
    let file = configuration(&scene).serve(&web(&scene, &[1, 1, 1]).scheduler("wrr"));
    let mut director = Director::start(&scene.director, file.text())?;
    let third = address(&scene, 2);
    let mut held = hold(&scene, &director, 80)?;
    let theirs = take(&mut held, &third)?;
    director.command(&["drain", &third, "--timeout", "1s"])?;
    wait_for_status(&director, "taken out", |status| {
        real(status, &scene, 2).is_ok_and(|one| one.state == RealServerState::Disabled)
    })?;
    for one in theirs {
        ensure!(one.has_died(), "a connection outlived the drain's time");
    }
    ensure_avoided(&scene)?;
    director.command(&["weight", &third, "4"])?;
    let counts = scene.client().http_counts(topology::vip4(80), 12)?;
    ensure!(counts.get("Real 3") == Some(&8), "{counts:?}");
    director.stop()?;
    director.restart()?;
    let now = status(&director)?;
    ensure!(real(&now, &scene, 2)?.ordered == Some(Override::Weight { weight: 4 }), "{now:?}");
    director.command(&["weight", &third, "0"])?;
    ensure_avoided(&scene)?;
    director.command(&["disable", &third])?;
    ensure_avoided(&scene)?;
    director.command(&["enable", &third])?;
    let counts = scene.client().http_counts(topology::vip4(80), 6)?;
    ensure!(counts.get("Real 3") == Some(&2), "{counts:?}");
    let refused = director.output(&["drain", "192.0.2.99"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1) && said.contains(&third), "{said}");
    for one in held {
        ensure!(!one.has_died(), "a connection of another server is lost");
    }
    director.stop()
}

#[test]
fn what_leaves_the_file_drains_or_is_dropped() -> Result<()> {
    require_director!("what_leaves_the_file_drains_or_is_dropped");
    let scene = topology::nat(&Options::new("remove"))?;
    let third = address(&scene, 2);
    let other = fill(VirtualServer::tcp("other", topology::vip4(8080)), &scene, false, 8080, &[1, 1, 1]);
    let base = || configuration(&scene);
    let all = base().serve(&web(&scene, &[1, 1, 1])).serve(&other);
    let mut director = Director::start(&scene.director, all.text())?;

    let (mut webs, mut others) = (hold(&scene, &director, 80)?, hold(&scene, &director, 8080)?);
    let mut theirs = take(&mut webs, &third)?;
    director.reload(base().serve(&web(&scene, &[1, 1])).text())?;
    let now = status(&director)?;
    ensure!(real(&now, &scene, 2)?.state == RealServerState::Removed, "{now:?}");
    ensure!(real(&now, &scene, 2)?.active == 2, "{now:?}");
    ensure_avoided(&scene)?;
    director.command(&["reload"])?;
    let told =
        |event: &&StateEvent| event.subject == format!("web/{third}") && event.text.contains("draining");
    ensure!(events(&director)?.iter().filter(told).count() == 1, "{:?}", events(&director)?);
    ensure!(scene.client().connect(topology::vip4(8080)).is_err(), "a new connection to what is removed");
    director.kill()?;
    director.restart()?;
    let answer = theirs.pop().context("two")?.finish()?;
    ensure!(answer.contains("Real 3"), "{answer}");
    let answer = others.pop().context("six")?.finish()?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for one in theirs.into_iter().chain(others) {
        one.reset()?;
    }
    wait_for_status(&director, "without what is removed", |status| {
        real(status, &scene, 2).is_err() && status.virtual_servers.len() == 1
    })?;

    // Back, and away again without patience.
    let (web, other) = (web(&scene, &[1, 1, 1]), other.line("on_remove = \"drop\""));
    let all = base().serve(&web.clone().line("on_remove = \"drop\"")).serve(&other);
    director.reload(all.text())?;
    let mut again = hold(&scene, &director, 80)?;
    let others = hold(&scene, &director, 8080)?;
    let theirs = take(&mut again, &third)?;
    let two = crate::common::web(&scene, &[1, 1]).line("on_remove = \"drop\"");
    director.reload(base().serve(&two).text())?;
    let now = status(&director)?;
    ensure!(now.virtual_servers.len() == 1 && real(&now, &scene, 2).is_err(), "{now:?}");
    for one in theirs.into_iter().chain(others) {
        ensure!(one.has_died(), "a connection outlived on_remove = \"drop\"");
    }
    for one in webs.into_iter().chain(again) {
        ensure!(!one.has_died(), "a connection of a server that stays is lost");
    }
    director.stop()
}

/// Who answers a datagram from each of these ports; from the virtual server on port 8080.
fn owners(scene: &Scene, ports: std::ops::Range<u16>) -> Result<Vec<String>> {
    scene.client().netns.enter(|| {
        ports
            .map(|port| {
                let socket = UdpSocket::bind(("0.0.0.0", port))?;
                socket.connect(topology::vip4(8080))?;
                let ask = |patience: u64| -> Result<String> {
                    socket.set_read_timeout(Some(Duration::from_secs(patience)))?;
                    socket.send(b"who")?;
                    let mut buffer = [0; 64];
                    let len = socket.recv(&mut buffer)?;
                    Ok(String::from_utf8_lossy(&buffer[..len]).replace(" who", ""))
                };
                // Of thousands of datagrams a busy machine may lose one. The same port is the same flow.
                ask(1).or_else(|_| ask(5)).with_context(|| format!("from port {port}"))
            })
            .collect()
    })
}

#[test]
fn with_mh_a_removed_server_disturbs_nobody_else() -> Result<()> {
    require_director!("with_mh_a_removed_server_disturbs_nobody_else");
    const PORTS: std::ops::Range<u16> = 20_000..22_000;
    let scene = topology::nat(&Options::new("maglev").servers(4))?;
    let mh = |server: VirtualServer| server.scheduler("mh").line("scheduler_flags = [\"mh-port\"]");
    let file = |weights: &[u32]| {
        let flows = fill(VirtualServer::udp("flows", topology::vip4(8080)), &scene, false, 8080, weights);
        configuration(&scene)
            .lines("\n[timeouts]\nudp = \"1s\"")
            .serve(&mh(web(&scene, weights)))
            .serve(&mh(flows))
    };
    let mut director = Director::start(&scene.director, file(&[1, 1, 1, 1]).text())?;
    let load = LoadOptions { held: 12, ..LoadOptions::default() };
    let load = Load::start(scene.client(), topology::vip4(80), load)?;
    let before = owners(&scene, PORTS)?;
    director.reload(file(&[1, 1, 1]).text())?;
    load.wait_for(50)?;
    let forgotten = || {
        let now = status(&director)?;
        let flows = service(&now, "flows")?;
        Ok::<_, anyhow::Error>(flows.active + flows.inactive == 0 && flows.real_servers.len() == 3)
    };
    ensure!(wait_until(SOON, || forgotten().unwrap_or(false)), "{:?}", status(&director)?);
    let after = owners(&scene, PORTS)?;
    let report = load.stop();
    let moved = before.iter().zip(&after).filter(|(one, other)| one != other).count();
    let needless =
        before.iter().zip(&after).filter(|(one, other)| one != other && one.as_str() != "Real 4").count();
    let share = moved as f64 / before.len() as f64;
    measured("mh_moved_share", format!("{share:.4}"));
    measured("mh_moved_needlessly", format!("{needless} of {}", before.len()));
    measured("mh_resets", report.resets);
    ensure!(!after.iter().any(|name| name == "Real 4"), "Real 4 still answers");
    ensure!(share <= 0.25 + 0.01, "{share} of the flows have moved");
    report.ensure_clean()?;
    director.stop()
}
