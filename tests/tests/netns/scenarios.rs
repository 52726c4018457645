//! S1 to S3: the classic set-ups with one director.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director,
    client::authority,
    configuration::VirtualServer,
    dataplane::{self, DataPlane},
    require_director, require_xdp,
    topology::{self, Mode, Options, Scene},
};

use crate::support::{configuration, ensure_in_turn, fill, forward};

#[test]
fn s1_nat() -> Result<()> {
    require_director!("s1_nat");
    serves(Mode::Nat, "s1", 8080)
}

#[test]
fn s2_dr() -> Result<()> {
    require_director!("s2_dr");
    serves(Mode::Dr, "s2", 80)
}

#[test]
fn s3_tun() -> Result<()> {
    require_director!("s3_tun");
    serves(Mode::Tun, "s3", 80)
}

#[test]
fn generic_mode_serves_too() -> Result<()> {
    require_director!("generic_mode_serves_too");
    require_xdp!("generic_mode_serves_too");
    let scene = topology::nat(&Options::new("generic"))?;
    let configuration = configuration(&scene).lines("xdp_mode = \"generic\"");
    let web = fill(VirtualServer::tcp("web", topology::vip4(80)), &scene, false, 80, &[1, 1, 1]);
    let mut director = Director::start(&scene.director, configuration.serve(&web).text())?;
    ensure!(scene.director.xdp("eth0")?.as_deref() == Some("xdpgeneric"));
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 3)?;
    director.stop()
}

/// curl and UDP over IPv4 and IPv6: the servers take turns, see the client's address, and answer from the VIP.
fn serves(mode: Mode, label: &str, port: u16) -> Result<()> {
    let scene = topology::build(mode, &Options::new(label).clients(2))?;
    let mut director = Director::start(&scene.director, &four_virtual_servers(&scene, mode, port))?;
    let program = scene.director.xdp("eth0")?;
    match dataplane::tried() {
        DataPlane::Xdp => ensure!(program.as_deref() == Some("xdp"), "not in native mode"),
        DataPlane::Ipvs => ensure!(program.is_none(), "there should be no program"),
    }
    for vip in [topology::vip4(80), topology::vip6(80)] {
        for client in &scene.clients {
            let answers = client.curl_each(&format!("http://{vip}/"), 6)?;
            ensure_in_turn(&answers, 3).with_context(|| format!("HTTP to {vip}"))?;
        }
        let counts = scene.client().udp_counts(vip, 30)?;
        ensure!(counts.len() == 3 && counts.values().all(|count| *count == 10), "UDP to {vip}: {counts:?}");
        ends_are_right(&scene, mode, vip, port)?;
    }
    director.stop()
}

fn four_virtual_servers(scene: &Scene, mode: Mode, port: u16) -> String {
    let (vip4, vip6) = (topology::vip4(80), topology::vip6(80));
    let servers = [
        (VirtualServer::tcp("web", vip4), false),
        (VirtualServer::tcp("web-ipv6", vip6), true),
        (VirtualServer::udp("echo", vip4), false),
        (VirtualServer::udp("echo-ipv6", vip6), true),
    ];
    let configuration = servers.into_iter().fold(configuration(scene), |configuration, (server, ipv6)| {
        configuration.serve(&fill(server.forward(forward(mode)), scene, ipv6, port, &[1, 1, 1]))
    });
    configuration.text().to_owned()
}

/// What the real server says about the connection's two ends.
fn ends_are_right(scene: &Scene, mode: Mode, vip: std::net::SocketAddr, port: u16) -> Result<()> {
    let answer = scene.client().curl_with(&["--include"], &format!("http://{vip}/"))?;
    let header = |name: &str| {
        answer.lines().find_map(|line| line.trim_end().strip_prefix(name)).map(str::trim).unwrap_or_default()
    };
    let client = if vip.is_ipv4() { "192.168.10.11:" } else { "[fd00:10::11]:" };
    ensure!(header("X-Peer:").starts_with(client), "the server sees another client: {answer}");
    let server = scene.servers.iter().find(|server| server.name == header("X-Real:"));
    let server = server.with_context(|| format!("no such server: {answer}"))?;
    let local = match mode {
        Mode::Nat if vip.is_ipv4() => authority(server.ipv4.into(), port),
        Mode::Nat => authority(server.ipv6.into(), port),
        Mode::Dr | Mode::Tun => vip.to_string(),
    };
    ensure!(header("X-Local:") == local, "the server was asked on another address than {local}: {answer}");
    Ok(())
}

#[test]
fn the_example_for_nat_works_as_it_is() -> Result<()> {
    require_director!("the_example_for_nat_works_as_it_is");
    example_works(Mode::Nat, "s1-nat.toml", |text| text)
}

#[test]
fn the_example_for_dr_works_as_it_is() -> Result<()> {
    require_director!("the_example_for_dr_works_as_it_is");
    example_works(Mode::Dr, "s2-dr.toml", |text| text)
}

#[test]
fn the_example_for_tun_works_with_servers_in_another_network() -> Result<()> {
    require_director!("the_example_for_tun_works_with_servers_in_another_network");
    example_works(Mode::Tun, "s3-tun.toml", |text| text.replace("\"192.168.10.10", "\"192.168.1.10"))
}

fn example_works(mode: Mode, file: &str, change: impl Fn(String) -> String) -> Result<()> {
    let scene = topology::build(mode, &Options::new(file.trim_end_matches(".toml")).servers(2))?;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/").to_owned() + file;
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    // Tests run side by side on one machine; an instance's name is unique there.
    let instance = format!("instance = \"{}\"", scene.director.name());
    ensure!(text.contains("instance = \"default\""), "{path} names another instance");
    let text = change(text.replace("instance = \"default\"", &instance));
    let mut director = Director::start(&scene.director, &text)?;
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 2)?;
    director.stop()
}
