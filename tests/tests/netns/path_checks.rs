//! Health checks through the data plane: they find what clients would find.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director,
    configuration::VirtualServer,
    httpd::Server,
    registry::wait_until,
    require_director,
    topology::{self, Mode, Options, PORTS, Scene},
};
use lb_userspace::api::types::{RealServerState, RealServerStatus};

use crate::support::{configuration, connections, fill, forward, status};

/// Longer than checks take to notice anything.
const SOON: Duration = Duration::from_secs(15);

/// A check of some kind, as the configuration has it.
fn check(kind: &str, via: &str) -> String {
    format!(
        "\n  [[virtual_server.health_check]]\n  {kind}\n  via = \"{via}\"\n  interval = \"300ms\"\n  timeout = \"1s\"\n  \
         rise = 1\n  fall = 1\n  retry = 1\n  delay_before_retry = \"100ms\"\n"
    )
}

const HTTP: &str = "type = \"http\"\n  paths = [\"/\"]";

fn virtual_server(scene: &Scene, ipv6: bool, port: u16, check: &str) -> VirtualServer {
    let vip = if ipv6 { topology::vip6(port) } else { topology::vip4(port) };
    let name = format!("web-{port}");
    let forward = forward(scene.mode);
    fill(VirtualServer::tcp(&name, vip).forward(forward).line(check), scene, ipv6, port, &[1, 1, 1])
}

/// The real servers of a virtual server, by its place in the configuration.
fn servers(director: &Director, virtual_server: usize) -> Result<Vec<RealServerStatus>> {
    let mut status = status(director)?;
    ensure!(virtual_server < status.virtual_servers.len());
    Ok(status.virtual_servers.swap_remove(virtual_server).real_servers)
}

/// Waits until the checks say this of the real servers.
fn wait_for(director: &Director, virtual_server: usize, wanted: &[RealServerState]) -> Result<()> {
    let are = |servers: &[RealServerStatus]| -> bool {
        servers.len() == wanted.len()
            && servers.iter().zip(wanted).all(|(server, wanted)| {
                server.state == *wanted
                    && server.checks.iter().all(|check| check.up == Some(*wanted == RealServerState::Up))
            })
    };
    let reached = wait_until(SOON, || servers(director, virtual_server).is_ok_and(|servers| are(&servers)));
    ensure!(
        reached,
        "virtual server {virtual_server}: {wanted:?} wanted: {:#?}\n{}",
        servers(director, virtual_server)?,
        director.log()
    );
    Ok(())
}

const UP: RealServerState = RealServerState::Up;
const DOWN: RealServerState = RealServerState::Down;

#[test]
fn a_check_takes_the_way_of_clients() -> Result<()> {
    require_director!("a_check_takes_the_way_of_clients");
    for (mode, ipv6, label) in [
        (Mode::Nat, false, "path-nat"),
        (Mode::Nat, true, "path-nat6"),
        (Mode::Dr, false, "path-dr"),
        (Mode::Dr, true, "path-dr6"),
        (Mode::Tun, false, "path-tun"),
        (Mode::Tun, true, "path-tun6"),
    ] {
        let mut scene = topology::build(mode, &Options::new(label))?;
        let configuration =
            configuration(&scene).serve(&virtual_server(&scene, ipv6, 80, &check(HTTP, "dataplane")));
        let mut director = Director::start(&scene.director, configuration.text())?;
        wait_for(&director, 0, &[UP; 3])?;
        let found = servers(&director, 0)?;
        ensure!(
            found.iter().all(|one| {
                one.checks[0].detail.as_deref().is_some_and(|detail| detail.starts_with("HTTP 200"))
            }),
            "{label}: {found:#?}"
        );
        // They are nobody's connections.
        ensure!(connections(&director)?.is_empty(), "{label}: {:?}", connections(&director)?);
        ensure!(found.iter().all(|one| one.stats.connections == 0 && one.active + one.inactive == 0));

        scene.servers[0].http = None;
        wait_for(&director, 0, &[DOWN, UP, UP])?;
        let vip = if ipv6 { topology::vip6(80) } else { topology::vip4(80) };
        let counts = scene.client().http_counts(vip, 6)?;
        ensure!(counts.len() == 2, "{label}: {counts:?}");

        // A server without a part in the schedule is checked all the same.
        let (netns, name) = (scene.servers[0].netns.clone(), scene.servers[0].name.clone());
        scene.servers[0].http = Some(Server::start(&netns, &name, &PORTS)?);
        wait_for(&director, 0, &[UP; 3])?;
        let counts = scene.client().http_counts(vip, 6)?;
        ensure!(counts.len() == 3, "{label}: {counts:?}");
        director.detach()?;
    }
    Ok(())
}

#[test]
fn a_udp_check_takes_the_way_of_clients() -> Result<()> {
    require_director!("a_udp_check_takes_the_way_of_clients");
    for (mode, label) in [(Mode::Nat, "path-udp-nat"), (Mode::Dr, "path-udp-dr")] {
        let mut scene = topology::build(mode, &Options::new(label))?;
        let check = check("type = \"udp\"\n  payload = \"hello\"\n  require_reply = true", "dataplane");
        let udp = VirtualServer::udp("echo", topology::vip4(80)).forward(forward(mode)).line(&check);
        let configuration = configuration(&scene).serve(&fill(udp, &scene, false, 80, &[1, 1, 1]));
        let mut director = Director::start(&scene.director, configuration.text())?;
        wait_for(&director, 0, &[UP; 3])?;
        scene.servers[2].http = None;
        wait_for(&director, 0, &[UP, UP, DOWN])?;
        let detail = servers(&director, 0)?[2].checks[0].detail.clone().context("a detail")?;
        ensure!(detail.contains("unreachable"), "the refusal does not come through: {detail}");
        director.stop()?;
    }
    Ok(())
}

/// Two virtual servers with the same real servers: the first is checked through the data plane, the second directly.
fn both_ways(scene: &Scene) -> Result<Director> {
    let configuration = configuration(scene)
        .serve(&virtual_server(scene, false, 80, &check(HTTP, "dataplane")))
        .serve(&virtual_server(scene, false, 8080, &check(HTTP, "direct")));
    let director = Director::start(&scene.director, configuration.text())?;
    wait_for(&director, 0, &[UP; 3])?;
    wait_for(&director, 1, &[UP; 3])?;
    Ok(director)
}

#[test]
fn a_real_server_without_the_virtual_address_is_found() -> Result<()> {
    require_director!("a_real_server_without_the_virtual_address_is_found");
    for (mode, label) in [(Mode::Dr, "path-lost-dr"), (Mode::Tun, "path-lost-tun")] {
        let scene = topology::build(mode, &Options::new(label))?;
        let mut director = both_ways(&scene)?;
        scene.servers[1].netns.ip([format!("address del {}/32 dev lo", topology::VIP4)])?;
        wait_for(&director, 0, &[UP, DOWN, UP])?;
        wait_for(&director, 1, &[UP; 3])?;
        director.stop()?;
    }
    Ok(())
}

#[test]
fn a_real_server_without_a_tunnels_end_is_found() -> Result<()> {
    require_director!("a_real_server_without_a_tunnels_end_is_found");
    let mut scene = topology::build(Mode::Tun, &Options::new("path-decap").servers(2))?;
    // Everything but the tunnel's end.
    let odd = scene.lab.host("odd")?;
    odd.sysctl(&[("ipv4/conf/all/arp_ignore", "1"), ("ipv4/conf/all/arp_announce", "2")])?;
    odd.ip([format!("address add {}/32 dev lo", topology::VIP4)])?;
    let outside = scene.outside.clone();
    scene.lab.plug(&odd, "eth0", &outside, &["192.168.10.104/24"])?;
    let _http = Server::start(&odd, "Odd", &PORTS)?;
    let odd_at = |port: u16| std::net::SocketAddr::from(([192, 168, 10, 104], port));
    let with_odd =
        |port: u16, via: &str| virtual_server(&scene, false, port, &check(HTTP, via)).real(odd_at(port), 1);
    let configuration =
        configuration(&scene).serve(&with_odd(80, "dataplane")).serve(&with_odd(8080, "direct"));
    let mut director = Director::start(&scene.director, configuration.text())?;
    wait_for(&director, 0, &[UP, UP, DOWN])?;
    wait_for(&director, 1, &[UP; 3])?;
    director.stop()
}

#[test]
fn checks_go_on_when_the_data_plane_is_replaced() -> Result<()> {
    require_director!("checks_go_on_when_the_data_plane_is_replaced");
    let scene = topology::dr(&Options::new("path-reload"))?;
    let of_size = |size: u32| {
        configuration(&scene).lines(&format!("max_connections = {size}")).serve(&virtual_server(
            &scene,
            false,
            80,
            &check(HTTP, "dataplane"),
        ))
    };
    let mut director = Director::start(&scene.director, of_size(4096).text())?;
    wait_for(&director, 0, &[UP; 3])?;
    for restart in [false, true] {
        director.write_configuration(of_size(if restart { 4096 } else { 8192 }).text())?;
        if restart {
            director.kill()?;
            director.restart()?;
        } else {
            director.command(&["reload"])?;
        }
        let passed = |server: &RealServerStatus| server.checks[0].passed;
        let before: Vec<u64> = servers(&director, 0)?.iter().map(passed).collect();
        let go_on = wait_until(SOON, || {
            servers(&director, 0).is_ok_and(|servers| {
                servers.iter().zip(&before).all(|(server, before)| passed(server) >= before + 3)
            })
        });
        let after = servers(&director, 0)?;
        ensure!(go_on && after.iter().all(|server| server.checks[0].failed == 0), "{after:#?}");
    }
    // The last such check takes the namespace with it.
    let text = configuration(&scene).serve(&virtual_server(&scene, false, 80, &check(HTTP, "direct")));
    director.write_configuration(text.text())?;
    director.command(&["reload"])?;
    let is_gone =
        || scene.director.ip_json(&["link"]).is_ok_and(|links| !links.to_string().contains("xdprobe"));
    ensure!(wait_until(SOON, is_gone), "the veth of the probe namespace is left");
    director.stop()
}
