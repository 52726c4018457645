//! The agent goes and comes; packets do not notice.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Result, ensure};
use lab::{
    Director,
    configuration::VirtualServer,
    registry::wait_until,
    require_director, require_xdp,
    topology::{self, Mode, Options, Scene},
};
use lb_userspace::api::types::RealServerStatus;

use crate::support::{configuration, connections, ensure_in_turn, fill, forward, status};

/// Longer than the agent takes to notice anything.
const SOON: Duration = Duration::from_secs(5);

fn web(scene: &Scene, mode: Mode) -> VirtualServer {
    fill(VirtualServer::tcp("web", topology::vip4(80)).forward(forward(mode)), scene, false, 80, &[1, 1, 1])
}

#[test]
fn packets_go_on_without_an_agent_and_the_next_one_takes_over() -> Result<()> {
    require_director!("packets_go_on_without_an_agent_and_the_next_one_takes_over");
    for kill in [false, true] {
        let scene = topology::nat(&Options::new(if kill { "restart-kill" } else { "restart-term" }))?;
        let configuration = configuration(&scene).serve(&web(&scene, Mode::Nat));
        let mut director = Director::start(&scene.director, configuration.text())?;
        let held: Vec<_> =
            (0..6).map(|_| scene.client().connect(topology::vip4(80))).collect::<Result<_>>()?;
        let before = connections(&director)?;
        ensure!(before.len() == 6, "{before:?}");
        if kill {
            director.kill()?;
        } else {
            director.stop()?;
        }
        ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 3)?;
        director.restart()?;
        ensure!(director.log().contains("took over"), "{}", director.log());
        let after = connections(&director)?;
        for connection in &before {
            ensure!(
                after.iter().any(|one| (one.client, one.real) == (connection.client, connection.real)),
                "{connection:?} is not in {after:?}"
            );
        }
        let status = status(&director)?;
        ensure!(status.persistence.adopted && status.totals.stats.connections == 12, "{status:?}");
        drop(held);
        ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 3)?;
        director.detach()?;
        for device in scene.interfaces {
            ensure!(scene.director.xdp(device)?.is_none(), "XDP is left on {device}");
        }
    }
    Ok(())
}

#[test]
fn connections_move_to_a_table_of_another_size() -> Result<()> {
    require_director!("connections_move_to_a_table_of_another_size");
    require_xdp!("connections_move_to_a_table_of_another_size");
    for (mode, restart, label) in [
        (Mode::Nat, false, "resize-nat"),
        (Mode::Nat, true, "resize-nat2"),
        (Mode::Dr, false, "resize-dr"),
        (Mode::Dr, true, "resize-dr2"),
    ] {
        let scene = topology::build(mode, &Options::new(label))?;
        let of_size = |size: u32| {
            configuration(&scene).lines(&format!("max_connections = {size}")).serve(&web(&scene, mode))
        };
        let mut director = Director::start(&scene.director, of_size(4096).text())?;
        let held: Vec<_> =
            (0..200).map(|_| scene.client().connect(topology::vip4(80))).collect::<Result<_>>()?;
        wait_for_counts(&director, [67, 67, 66], [0; 3])?;
        let before = connections(&director)?;

        director.write_configuration(of_size(8192).text())?;
        if restart {
            director.kill()?;
            director.restart()?;
        } else {
            director.command(&["reload"])?;
        }
        let said = "the connection table is made anew: 200 connections have moved there";
        ensure!(director.log().contains(said), "{label}: {}", director.log());
        ensure!(status(&director)?.connections.capacity == 8192, "{label}");
        let after = connections(&director)?;
        ensure!(after.len() == 200, "{label}: {} connections", after.len());
        for connection in &before {
            let goes_on = after.iter().any(|one| {
                (one.client, one.real, &one.state) == (connection.client, connection.real, &connection.state)
            });
            ensure!(goes_on, "{label}: {connection:?} is not among those after");
        }
        wait_for_counts(&director, [67, 67, 66], [0; 3])?;

        // Each still leads to the server where it began, to its end; and is counted out there.
        for stream in held {
            let answer = ask(stream)?;
            ensure!(answer.starts_with("HTTP/1.1 200 "), "{label}: {answer}");
        }
        wait_for_counts(&director, [0; 3], [67, 67, 66])?;
        ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 3)?;
        director.detach()?;
    }
    Ok(())
}

#[test]
fn connections_stay_when_more_servers_need_larger_maps() -> Result<()> {
    require_director!("connections_stay_when_more_servers_need_larger_maps");
    require_xdp!("connections_stay_when_more_servers_need_larger_maps");
    let scene = topology::nat(&Options::new("larger-maps"))?;
    let before = configuration(&scene).serve(&web(&scene, Mode::Nat));
    // More than fit into the smallest maps; nobody asks them anything.
    let many = (0..700).fold(VirtualServer::tcp("many", topology::vip4(81)), |many, number| {
        many.real((scene.servers[0].ipv4, 10_000 + number).into(), 1)
    });
    let after = before.clone().serve(&many);
    let mut director = Director::start(&scene.director, before.text())?;
    let held: Vec<_> = (0..60).map(|_| scene.client().connect(topology::vip4(80))).collect::<Result<_>>()?;
    wait_for_counts(&director, [20; 3], [0; 3])?;
    director.write_configuration(after.text())?;
    director.command(&["reload"])?;
    let log = director.log();
    ensure!(log.contains("are made larger"), "{log}");
    wait_for_counts(&director, [20; 3], [0; 3])?;
    for stream in held {
        let answer = ask(stream)?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    wait_for_counts(&director, [0; 3], [20; 3])?;
    director.detach()
}

/// One request on a connection that is open, and all of its answer.
fn ask(mut stream: TcpStream) -> Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Waits until the real servers have so many active and inactive connections, in any order.
fn wait_for_counts(director: &Director, active: [u64; 3], inactive: [u64; 3]) -> Result<()> {
    let sorted = |mut counts: Vec<u64>| {
        counts.sort_unstable();
        counts.reverse();
        counts
    };
    let counts = || -> Result<(Vec<u64>, Vec<u64>)> {
        let status = status(director)?;
        let servers = &status.virtual_servers[0].real_servers;
        let of = |count: fn(&RealServerStatus) -> u64| sorted(servers.iter().map(count).collect());
        Ok((of(|server| server.active), of(|server| server.inactive)))
    };
    let reached =
        wait_until(SOON, || counts().is_ok_and(|counts| counts == (active.to_vec(), inactive.to_vec())));
    ensure!(reached, "{active:?} active and {inactive:?} inactive connections wanted: {:?}", counts()?);
    Ok(())
}
