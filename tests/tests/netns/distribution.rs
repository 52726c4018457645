//! Who gets how many connections.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{
    Director,
    client::Counts,
    configuration::VirtualServer,
    httpd::Server,
    registry::wait_until,
    require_director,
    topology::{self, Mode, Options, Scene},
};

use crate::support::{configuration, fill, forward};

const CONNECTIONS: usize = 2000;

/// Weights 3, 2 and 1 make the cycle 3 2 1 1 2 1 as the kernel's IPVS has it (docs/schedulers.md): 333 of them, and
/// the first two again.
fn wrr_of_2000() -> Counts {
    [("Real 1", 999), ("Real 2", 667), ("Real 3", 334)].map(|(name, count)| (name.to_owned(), count)).into()
}

#[test]
fn nat_keeps_the_weights_over_2000_connections() -> Result<()> {
    require_director!("nat_keeps_the_weights_over_2000_connections");
    keeps_the_weights(Mode::Nat, "nat-2000")
}

#[test]
fn dr_keeps_the_weights_over_2000_connections() -> Result<()> {
    require_director!("dr_keeps_the_weights_over_2000_connections");
    keeps_the_weights(Mode::Dr, "dr-2000")
}

#[test]
fn tun_keeps_the_weights_over_2000_connections() -> Result<()> {
    require_director!("tun_keeps_the_weights_over_2000_connections");
    keeps_the_weights(Mode::Tun, "tun-2000")
}

fn keeps_the_weights(mode: Mode, label: &str) -> Result<()> {
    let scene = topology::build(mode, &Options::new(label))?;
    let mut director = start(&scene, mode, "wrr", "", &[3, 2, 1])?;
    let counts = scene.client().http_counts(topology::vip4(80), CONNECTIONS)?;
    ensure!(counts == wrr_of_2000(), "{counts:?}");
    director.stop()
}

#[test]
fn weight_0_gets_nothing_new() -> Result<()> {
    require_director!("weight_0_gets_nothing_new");
    for scheduler in ["wrr", "wlc", "lc", "rr"] {
        let scene = topology::nat(&Options::new(&format!("zero-{scheduler}")))?;
        let mut director = start(&scene, Mode::Nat, scheduler, "", &[1, 0, 1])?;
        let counts = scene.client().http_counts(topology::vip4(80), 100)?;
        ensure!(!counts.contains_key("Real 2"), "{scheduler}: {counts:?}");
        ensure!(counts.len() == 2, "{scheduler}: {counts:?}");
        director.stop()?;
    }
    Ok(())
}

#[test]
fn least_connection_prefers_the_idle_server() -> Result<()> {
    require_director!("least_connection_prefers_the_idle_server");
    let scene = topology::nat(&Options::new("lc"))?;
    let mut director = start(&scene, Mode::Nat, "lc", "", &[1, 1, 1])?;
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(scene.client().connect(topology::vip4(80))?);
    }
    let open = || -> Vec<usize> {
        scene.servers.iter().map(|server| server.http.as_ref().map_or(0, Server::open_connections)).collect()
    };
    // The handshake is over before a server's thread has seen the connection.
    wait_until(Duration::from_secs(5), || open().iter().sum::<usize>() == held.len());
    let open = open();
    ensure!(open == [10, 10, 10], "open connections per server: {open:?}");
    drop(held);
    director.stop()
}

#[test]
fn source_hashing_keeps_a_client_at_one_server() -> Result<()> {
    require_director!("source_hashing_keeps_a_client_at_one_server");
    for scheduler in ["sh", "mh"] {
        let scene = topology::nat(&Options::new(scheduler).clients(4))?;
        let mut director = start(&scene, Mode::Nat, scheduler, "", &[1, 1, 1])?;
        for client in &scene.clients {
            let counts = client.http_counts(topology::vip4(80), 50)?;
            ensure!(counts.len() == 1, "{scheduler}: {}: {counts:?}", client.netns.name());
        }
        director.stop()?;
    }
    Ok(())
}

#[test]
fn hashing_with_ports_uses_every_server() -> Result<()> {
    require_director!("hashing_with_ports_uses_every_server");
    for (scheduler, flag) in [("sh", "sh-port"), ("mh", "mh-port")] {
        let scene = topology::nat(&Options::new(flag))?;
        let mut director = start(&scene, Mode::Nat, scheduler, flag, &[1, 1, 1])?;
        let counts = scene.client().http_counts(topology::vip4(80), 300)?;
        ensure!(counts.len() == 3, "{flag}: {counts:?}");
        director.stop()?;
    }
    Ok(())
}

fn start(scene: &Scene, mode: Mode, scheduler: &str, flag: &str, weights: &[u32]) -> Result<Director> {
    let web = VirtualServer::tcp("web", topology::vip4(80)).scheduler(scheduler).forward(forward(mode));
    let web = if flag.is_empty() { web } else { web.line(&format!("scheduler_flags = [\"{flag}\"]")) };
    let web = fill(web, scene, false, 80, weights);
    Director::start(&scene.director, configuration(scene).serve(&web).text())
}
