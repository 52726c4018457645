//! Networks that differ from the three scenarios.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director,
    configuration::VirtualServer,
    programs::XdpProgram,
    require_director, require_xdp,
    topology::{self, Options},
};

use crate::support::{configuration, ensure_in_turn, fill};

/// Client and servers tag their packets; the director has no VLAN device and passes the tag on.
#[test]
fn dr_within_a_vlan() -> Result<()> {
    require_director!("dr_within_a_vlan");
    require_xdp!("dr_within_a_vlan");
    let mut scene = topology::dr(&Options::new("vlan"))?;
    let members: Vec<_> = scene.clients.iter().map(|client| client.netns.clone()).collect();
    for member in members.iter().chain(scene.servers.iter().map(|server| &server.netns)) {
        scene.lab.attach_vlan(member, "eth0", 10)?;
    }
    let (vip4, vip6) = (topology::vip4(80), topology::vip6(80));
    let web = fill(VirtualServer::tcp("web", vip4).forward("dr"), &scene, false, 80, &[1, 1, 1]);
    let web6 = fill(VirtualServer::tcp("web-ipv6", vip6).forward("dr"), &scene, true, 80, &[1, 1, 1]);
    let mut director =
        Director::start(&scene.director, configuration(&scene).serve(&web).serve(&web6).text())?;
    for vip in [vip4, vip6] {
        let answers = scene.client().curl_each(&format!("http://{vip}/"), 6)?;
        ensure_in_turn(&answers, 3).with_context(|| format!("HTTP to {vip}"))?;
    }
    scene.client().download(&vip4.to_string(), 5_000_000)?;
    director.stop()
}

#[test]
fn real_servers_on_different_ports() -> Result<()> {
    require_director!("real_servers_on_different_ports");
    let scene = topology::nat(&Options::new("ports").servers(2))?;
    let [first, second] = [(0, 80), (1, 8080)]
        .map(|(index, port)| SocketAddr::new(IpAddr::V4(scene.servers[index].ipv4), port));
    let web = VirtualServer::tcp("web", topology::vip4(8000)).real(first, 1).real(second, 1);
    let mut director = Director::start(&scene.director, configuration(&scene).serve(&web).text())?;
    let answers: Vec<String> = (0..4)
        .map(|_| scene.client().curl_with(&["--include"], "http://192.168.10.50:8000/"))
        .collect::<Result<_>>()?;
    for address in [first, second] {
        let times =
            answers.iter().filter(|answer| answer.contains(&format!("X-Local: {address}\r\n"))).count();
        ensure!(times == 2, "{address} was asked {times} times: {answers:?}");
    }
    director.stop()
}

/// The tunnel may be of the other IP version than what it carries.
#[test]
fn tun_between_ip_versions() -> Result<()> {
    require_director!("tun_between_ip_versions");
    let scene = topology::tun(&Options::new("4in6"))?;
    let (vip4, vip6) = (topology::vip4(80), topology::vip6(80));
    let in_ipv6 = fill(VirtualServer::tcp("4-in-6", vip4).forward("tun"), &scene, true, 80, &[1, 1, 1]);
    let in_ipv4 = fill(VirtualServer::tcp("6-in-4", vip6).forward("tun"), &scene, false, 80, &[1, 1, 1]);
    let mut director =
        Director::start(&scene.director, configuration(&scene).serve(&in_ipv6).serve(&in_ipv4).text())?;
    for vip in [vip4, vip6] {
        let answers = scene.client().curl_each(&format!("http://{vip}/"), 6)?;
        ensure_in_turn(&answers, 3).with_context(|| format!("HTTP to {vip}"))?;
        scene.client().upload(&vip.to_string(), 3_000_000).with_context(|| format!("upload to {vip}"))?;
    }
    director.stop()
}

#[test]
fn one_virtual_server_with_dr_and_tun() -> Result<()> {
    require_director!("one_virtual_server_with_dr_and_tun");
    let mut scene = topology::dr(&Options::new("mixed").servers(2))?;
    let tunnelled = scene.servers[1].netns.clone();
    scene.lab.attach_xdp(&tunnelled, "eth0", XdpProgram::Decap)?;
    let web = VirtualServer::tcp("web", topology::vip4(80)).forward("dr");
    let web = fill(web, &scene, false, 80, &[1, 1]);
    // The last real server is the tunnelled one; its table is open at the end of the text.
    let configuration = configuration(&scene).serve(&web).lines("  forward = \"tun\"");
    let mut director = Director::start(&scene.director, configuration.text())?;
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 2)?;
    director.stop()
}

#[test]
fn port_0_serves_every_port() -> Result<()> {
    require_director!("port_0_serves_every_port");
    require_xdp!("port_0_serves_every_port");
    let scene = topology::dr(&Options::new("port0"))?;
    let web = VirtualServer::tcp("all", topology::vip4(0)).forward("dr");
    let web = fill(web, &scene, false, 0, &[1, 1, 1]);
    let mut director = Director::start(&scene.director, configuration(&scene).serve(&web).text())?;
    for port in topology::PORTS {
        let answers = scene.client().curl_each(&format!("http://192.168.10.50:{port}/"), 3)?;
        ensure!(answers.iter().all(|answer| answer.starts_with("Real ")), "port {port}: {answers:?}");
    }
    director.stop()
}

/// Clients and servers in one network on one interface of the director; the servers send everything to the director.
#[test]
fn nat_on_one_interface() -> Result<()> {
    require_director!("nat_on_one_interface");
    let scene = topology::dr(&Options::new("one-arm"))?;
    for server in &scene.servers {
        server.netns.ip([
            "address del 192.168.10.50/32 dev lo",
            "route add 192.168.10.1/32 dev eth0",
            "route del 192.168.10.0/24 dev eth0",
        ])?;
    }
    let web = fill(VirtualServer::tcp("web", topology::vip4(80)), &scene, false, 8080, &[1, 1, 1]);
    let mut director = Director::start(&scene.director, configuration(&scene).serve(&web).text())?;
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 3)?;
    scene.client().download("192.168.10.50", 5_000_000)?;
    director.stop()
}

/// What is for no virtual server goes its way through the director's kernel.
#[test]
fn other_traffic_passes() -> Result<()> {
    require_director!("other_traffic_passes");
    let scene = topology::nat(&Options::new("other"))?;
    let web = fill(VirtualServer::tcp("web", topology::vip4(8000)), &scene, false, 80, &[1, 1, 1]);
    let mut director = Director::start(&scene.director, configuration(&scene).serve(&web).text())?;
    for server in &scene.servers {
        for url in [format!("http://{}/", server.ipv4), format!("http://[{}]/", server.ipv6)] {
            ensure!(scene.client().curl(&url)? == server.name, "{url}");
        }
    }
    scene.client().download(&scene.servers[0].ipv4.to_string(), 5_000_000)?;
    director.stop()
}
