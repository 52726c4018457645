//! Running xdirector: what it shows, how it ends, what it refuses.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director, Packet,
    configuration::VirtualServer,
    director::binary_path,
    programs::XdpProgram,
    registry::wait_until,
    require_director,
    topology::{self, Mode, Options, Scene},
    wire::Wire,
};
use lb_userspace::api::types::{DataPlaneKind, Forward, Protocol, RealServerState, XdpMode};

use crate::support::{configuration, connections, ensure_in_turn, fill, forward, status};

/// Longer than the agent takes to notice anything.
const SOON: Duration = Duration::from_secs(5);

fn web(scene: &Scene, mode: Mode) -> VirtualServer {
    fill(VirtualServer::tcp("web", topology::vip4(80)).forward(forward(mode)), scene, false, 80, &[1, 1, 1])
}

#[test]
fn status_counts_connections() -> Result<()> {
    require_director!("status_counts_connections");
    let scene = topology::nat(&Options::new("status"))?;
    let configuration = configuration(&scene).serve(&web(&scene, Mode::Nat));
    let mut director = Director::start(&scene.director, configuration.text())?;
    let vip = topology::vip4(80);
    let counts = scene.client().http_counts(vip, 9)?;
    let held = [scene.client().connect(vip)?, scene.client().connect(vip)?, scene.client().connect(vip)?];

    let settled = wait_until(SOON, || {
        status(&director).is_ok_and(|status| status.totals.active == 3 && status.totals.inactive == 9)
    });
    let status = status(&director)?;
    ensure!(settled, "3 open and 9 closed connections: {:?}", status.totals);
    ensure!(status.dataplane == DataPlaneKind::Xdp);
    ensure!(Some(status.pid) == director.pid());
    let interfaces: Vec<_> = status.interfaces.iter().map(|it| (it.name.as_str(), it.mode)).collect();
    ensure!(interfaces == [("eth0", XdpMode::Native), ("eth1", XdpMode::Native)], "{interfaces:?}");
    ensure!(status.connections.entries == 12, "{:?}", status.connections);

    let [web] = status.virtual_servers.as_slice() else { anyhow::bail!("{:?}", status.virtual_servers) };
    ensure!((web.name.as_str(), web.address, web.protocol) == ("web", vip, Protocol::Tcp));
    ensure!(web.stats.connections == 12, "{:?}", web.stats);
    ensure!(web.stats.packets_in >= 12 * 2 && web.stats.packets_out >= 12, "{:?}", web.stats);
    ensure!(web.stats.bytes_in >= 40 * web.stats.packets_in, "{:?}", web.stats);
    ensure!(web.real_servers.len() == 3);
    for (server, real) in scene.servers.iter().zip(&web.real_servers) {
        ensure!(real.address.ip() == server.ipv4, "{real:?}");
        ensure!(
            (real.weight, real.forward, real.state) == (1, Forward::Nat, RealServerState::Up),
            "{real:?}"
        );
        ensure!((real.active, real.inactive) == (1, 3), "{real:?}");
        ensure!(real.stats.connections == 4 && counts[&server.name] == 3, "{real:?}, {counts:?}");
        let hop = real.next_hop.as_ref().context("no next hop")?;
        let mac = server.netns.mac("eth0")?.map(|byte| format!("{byte:02x}")).join(":");
        ensure!(
            (hop.interface.as_str(), hop.gateway, hop.mac.as_deref()) == ("eth1", None, Some(mac.as_str()))
        );
    }
    ensure!(director.command(&["status"])?.contains("192.168.1.101:80"), "the table for people");
    drop(held);
    director.stop()
}

#[test]
fn connections_are_listed() -> Result<()> {
    require_director!("connections_are_listed");
    for (mode, label) in [(Mode::Nat, "list-nat"), (Mode::Dr, "list-dr"), (Mode::Tun, "list-tun")] {
        let scene = topology::build(mode, &Options::new(label))?;
        let udp = VirtualServer::udp("echo", topology::vip4(80)).forward(forward(mode));
        let configuration =
            configuration(&scene).serve(&web(&scene, mode)).serve(&fill(udp, &scene, false, 80, &[1, 1, 1]));
        let mut director = Director::start(&scene.director, configuration.text())?;
        let held = scene.client().connect(topology::vip4(80))?;
        scene.client().udp_counts(topology::vip4(80), 1)?;
        let list = connections(&director)?;
        ensure!(list.len() == 2, "{label}: {list:?}");
        let tcp = list.iter().find(|entry| entry.protocol == Protocol::Tcp).context("no TCP entry")?;
        ensure!(tcp.client == held.local_addr()?, "{label}: {tcp:?}");
        ensure!(tcp.virtual_address == topology::vip4(80), "{label}: {tcp:?}");
        ensure!(scene.servers.iter().any(|server| tcp.real.ip() == server.ipv4), "{label}: {tcp:?}");
        ensure!(tcp.state == "ESTABLISHED", "{label}: {tcp:?}");
        ensure!((1..=900).contains(&tcp.expires_seconds), "{label}: {tcp:?}");
        let udp = list.iter().find(|entry| entry.protocol == Protocol::Udp).context("no UDP entry")?;
        ensure!(udp.state == "UDP" && (1..=300).contains(&udp.expires_seconds), "{label}: {udp:?}");
        director.stop()?;
    }
    Ok(())
}

#[test]
fn an_expired_connection_is_forgotten() -> Result<()> {
    require_director!("an_expired_connection_is_forgotten");
    let scene = topology::nat(&Options::new("expiry"))?;
    let udp = fill(VirtualServer::udp("echo", topology::vip4(80)), &scene, false, 80, &[1, 1, 1]);
    let configuration = configuration(&scene).lines("\n[timeouts]\nudp = \"1s\"").serve(&udp);
    let mut director = Director::start(&scene.director, configuration.text())?;
    scene.client().udp_counts(topology::vip4(80), 30)?;
    ensure!(status(&director)?.virtual_servers[0].stats.connections == 30);
    let gone = wait_until(Duration::from_secs(20), || {
        status(&director).is_ok_and(|status| status.connections.entries == 0 && status.totals.inactive == 0)
    });
    ensure!(gone, "{:?}", status(&director)?.totals);
    ensure!(connections(&director)?.is_empty());
    director.stop()
}

#[test]
fn nothing_stays_attached_after_the_end() -> Result<()> {
    require_director!("nothing_stays_attached_after_the_end");
    let scene = topology::nat(&Options::new("detach"))?;
    let configuration = configuration(&scene).serve(&web(&scene, Mode::Nat));
    for round in 0..2 {
        let mut director = Director::start(&scene.director, configuration.text())?;
        for device in scene.interfaces {
            ensure!(scene.director.xdp(device)?.as_deref() == Some("xdp"), "round {round}: {device}");
        }
        ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 3)?, 3)?;
        let socket = director.socket();
        director.detach()?;
        for device in scene.interfaces {
            ensure!(scene.director.xdp(device)?.is_none(), "round {round}: XDP is left on {device}");
        }
        ensure!(!socket.exists(), "round {round}: the socket is left");
    }
    Ok(())
}

#[test]
fn it_starts_again_after_being_killed() -> Result<()> {
    require_director!("it_starts_again_after_being_killed");
    let scene = topology::nat(&Options::new("killed"))?;
    let configuration = configuration(&scene).serve(&web(&scene, Mode::Nat));
    Director::start(&scene.director, configuration.text())?.kill()?;
    let mut director = Director::start(&scene.director, configuration.text())?;
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 3)?, 3)?;
    director.stop()
}

#[test]
fn two_instances_do_not_meet() -> Result<()> {
    require_director!("two_instances_do_not_meet");
    let scenes = [topology::nat(&Options::new("one"))?, topology::nat(&Options::new("two"))?];
    let start = |scene: &Scene| {
        Director::start(&scene.director, configuration(scene).serve(&web(scene, Mode::Nat)).text())
    };
    let mut directors = [start(&scenes[0])?, start(&scenes[1])?];
    for (scene, count) in scenes.iter().zip([6, 9]) {
        ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", count)?, 3)?;
    }
    for (director, count) in directors.iter().zip([6, 9]) {
        let total = status(director)?.totals.stats.connections;
        ensure!(total == count, "{total} connections, not {count}");
    }
    directors[0].stop()?;
    ensure_in_turn(&scenes[1].client().curl_each("http://192.168.10.50/", 3)?, 3)?;
    directors[1].stop()
}

#[test]
fn an_occupied_interface_is_refused() -> Result<()> {
    require_director!("an_occupied_interface_is_refused");
    let mut scene = topology::nat(&Options::new("occupied"))?;
    let machine = scene.director.clone();
    scene.lab.attach_xdp(&machine, "eth1", XdpProgram::Pass)?;
    let configuration = configuration(&scene).serve(&web(&scene, Mode::Nat));
    let (exit, log) = Director::expect_refusal(&machine, configuration.text())?;
    ensure!(!exit.success());
    ensure!(log.contains("eth1") && log.contains("pass"), "neither interface nor program is named:\n{log}");
    ensure!(machine.xdp("eth0")?.is_none(), "XDP is left on eth0");
    ensure!(machine.xdp("eth1")?.is_some(), "the other program is gone");
    Ok(())
}

#[test]
fn a_missing_interface_is_refused() -> Result<()> {
    require_director!("a_missing_interface_is_refused");
    let scene = topology::nat(&Options::new("missing"))?;
    let configuration = configuration(&scene).serve(&web(&scene, Mode::Nat));
    let text = configuration.text().replace("\"eth1\"", "\"eth9\"");
    let (exit, log) = Director::expect_refusal(&scene.director, &text)?;
    ensure!(!exit.success());
    ensure!(log.contains("eth9"), "the interface is not named:\n{log}");
    ensure!(scene.director.xdp("eth0")?.is_none(), "XDP is left on eth0");
    Ok(())
}

#[test]
fn a_wrong_configuration_changes_nothing() -> Result<()> {
    require_director!("a_wrong_configuration_changes_nothing");
    let scene = topology::nat(&Options::new("wrong"))?;
    let text =
        configuration(&scene).serve(&web(&scene, Mode::Nat)).text().replace("\"rr\"", "\"round-robin\"");
    let (exit, log) = Director::expect_refusal(&scene.director, &text)?;
    ensure!(exit.code() == Some(1), "{exit}");
    ensure!(log.contains("round-robin") && log.contains("scheduler"), "{log}");
    for device in scene.interfaces {
        ensure!(scene.director.xdp(device)?.is_none(), "XDP on {device}");
    }
    Ok(())
}

#[test]
fn tracing_tells_of_connections_and_drops() -> Result<()> {
    require_director!("tracing_tells_of_connections_and_drops");
    let scene = topology::nat(&Options::new("trace"))?;
    let text = configuration(&scene).serve(&web(&scene, Mode::Nat));
    let mut director = Director::start_with(&scene.director, text.text(), &["--trace"])?;
    scene.client().curl("http://192.168.10.50/")?;
    // A TCP header that is shorter than TCP's shortest.
    let wire = Wire::open(&scene.client().netns, "eth0")?;
    let (client, director_mac) = (scene.client().netns.mac("eth0")?, scene.director.mac("eth0")?);
    let broken = Packet::eth(client, director_mac)
        .ipv4([192, 168, 10, 11], [192, 168, 10, 50])
        .tcp(40_000, 80)
        .header_length(4);
    wire.send(&broken.build())?;
    let seen = wait_until(Duration::from_secs(5), || {
        let log = director.log();
        log.contains("connection protocol 6") && log.contains("drop verdict 33")
    });
    ensure!(seen, "not in the log:\n{}", director.log());
    director.stop()
}

#[test]
fn without_rights_it_says_which_are_missing() -> Result<()> {
    require_director!("without_rights_it_says_which_are_missing");
    let scene = topology::nat(&Options::new("rights"))?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("web.toml");
    fs::write(&file, configuration(&scene).serve(&web(&scene, Mode::Nat)).text())?;
    let run = scene
        .director
        .command("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(binary_path())
        .arg("run")
        .arg("--config")
        .arg(&file)
        .arg("--socket")
        .arg(folder.path().join("socket"))
        // Not where this machine's own directors have theirs.
        .arg("--pins")
        .arg(folder.path().join("pins"))
        .output()?;
    let said = String::from_utf8_lossy(&run.stderr);
    ensure!(run.status.code() == Some(1), "{}: {said}", run.status);
    ensure!(said.contains("CAP_BPF") && said.contains("root"), "{said}");
    Ok(())
}
