//! The lab proves itself with the kernel's own forwarding, before xdirector is trusted in it.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Client, Lab, Packet,
    client::authority,
    httpd::Server,
    programs::XdpProgram,
    registry, require_lab,
    topology::{self, Options, VIP4},
    wire::Wire,
};

#[test]
fn clients_reach_every_real_server_through_the_director() -> Result<()> {
    require_lab!("clients_reach_every_real_server_through_the_director");
    let scene = topology::nat(&Options::new("routed").clients(2))?;
    for client in &scene.clients {
        for server in &scene.servers {
            for address in [IpAddr::V4(server.ipv4), IpAddr::V6(server.ipv6)] {
                let url = format!("http://{}/", authority(address, 8080));
                ensure!(client.curl(&url)? == server.name, "{url}");
            }
        }
    }
    let address = SocketAddr::new(IpAddr::V4(scene.servers[0].ipv4), 80);
    ensure!(scene.client().http_counts(address, 200)?["Real 1"] == 200);
    ensure!(scene.client().udp_counts(address, 20)?["Real 1"] == 20);
    scene.client().download(&address.to_string(), 10_000_001)?;
    scene.client().upload(&address.to_string(), 3_000_001)?;
    Ok(())
}

#[test]
fn only_the_director_speaks_for_the_virtual_address() -> Result<()> {
    require_lab!("only_the_director_speaks_for_the_virtual_address");
    let scene = topology::dr(&Options::new("quiet"))?;
    let director = Server::start(&scene.director, "Director", &[80])?;
    for address in [topology::vip4(80), topology::vip6(80)] {
        ensure!(scene.client().http_counts(address, 20)?["Director"] == 20, "{address}");
    }
    drop(director);
    let mac = scene.director.mac("eth0")?.map(|byte| format!("{byte:02x}")).join(":");
    let neighbours = scene.client().netns.ip_json(&["neigh", "show"])?;
    for vip in [topology::vip4(80).ip().to_string(), topology::vip6(80).ip().to_string()] {
        let entry =
            neighbours.as_array().and_then(|list| list.iter().find(|entry| entry["dst"] == vip.as_str()));
        ensure!(
            entry.is_some_and(|entry| entry["lladdr"] == mac.as_str()),
            "{vip}: {entry:?}, director {mac}"
        );
    }
    Ok(())
}

#[test]
fn frames_sent_by_xdp_arrive_through_the_switch() -> Result<()> {
    require_lab!("frames_sent_by_xdp_arrive_through_the_switch");
    let mut lab = Lab::new("reflect")?;
    let network = lab.network("lan")?;
    let (client, mirror) = (lab.host("client")?, lab.host("mirror")?);
    lab.plug(&client, "eth0", &network, &["10.9.0.1/24"])?;
    lab.plug(&mirror, "eth0", &network, &["10.9.0.2/24"])?;
    lab.attach_xdp(&mirror, "eth0", XdpProgram::Reflect)?;
    ensure!(mirror.xdp("eth0")?.as_deref() == Some("xdp"), "not in native mode");
    client.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.connect("10.9.0.2:7")?;
        for number in 0..100 {
            let question = format!("reflect {number}");
            socket.send(question.as_bytes())?;
            let mut buffer = [0; 64];
            let len = socket.recv(&mut buffer).with_context(|| format!("datagram {number}"))?;
            ensure!(&buffer[..len] == question.as_bytes(), "another answer to datagram {number}");
        }
        Ok(())
    })
}

#[test]
fn a_real_server_takes_tunnel_packets() -> Result<()> {
    require_lab!("a_real_server_takes_tunnel_packets");
    let scene = topology::tun(&Options::new("decap").servers(1))?;
    let client = scene.client();
    let answer = client.netns.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(socket)
    })?;
    let port = answer.local_addr()?.port();
    let router = scene.router.as_ref().context("a TUN scene has a router")?;
    let server = &scene.servers[0];
    let frame = Packet::eth(router.mac("eth1")?, server.netns.mac("eth0")?)
        .ipv4([192, 168, 10, 1], server.ipv4)
        .ipv4([192, 168, 10, 11], VIP4)
        .udp(port, 80)
        .payload(b"tunnelled")
        .build();
    Wire::open(router, "eth1")?.send(&frame)?;
    let mut buffer = [0; 64];
    let (len, from) = answer.recv_from(&mut buffer)?;
    ensure!(from == topology::vip4(80), "the answer came from {from}");
    ensure!(&buffer[..len] == b"Real 1 tunnelled");
    Ok(())
}

#[test]
fn a_vlan_separates_its_members() -> Result<()> {
    require_lab!("a_vlan_separates_its_members");
    let mut lab = Lab::new("vlan")?;
    let network = lab.network("lan")?;
    let mut hosts = Vec::new();
    for (number, vlan) in [(1, Some(10)), (2, Some(10)), (3, Some(20)), (4, None)] {
        let host = lab.host(&format!("host{number}"))?;
        lab.plug(&host, "eth0", &network, &[&format!("10.9.0.{number}/24"), &format!("fd09::{number}/64")])?;
        if let Some(vlan) = vlan {
            lab.attach_vlan(&host, "eth0", vlan)?;
        }
        hosts.push(Client::new(host));
    }
    let _server = Server::start(&hosts[0].netns, "Tagged", &[80])?;
    for address in ["10.9.0.1", "[fd09::1]"] {
        let url = format!("http://{address}/");
        ensure!(hosts[1].curl(&url)? == "Tagged", "{url} within the VLAN");
        for outsider in &hosts[2..] {
            ensure!(outsider.curl_with(&["--connect-timeout", "1"], &url).is_err(), "{url} from outside");
        }
    }
    hosts[1].download("10.9.0.1", 3_000_000)?;
    Ok(())
}

#[test]
fn path_mtu_discovery_works_without_xdirector() -> Result<()> {
    require_lab!("path_mtu_discovery_works_without_xdirector");
    let mut scene = topology::nat(&Options::new("narrow").servers(1))?;
    let far = scene.add_narrow_client()?;
    let server = &scene.servers[0];
    for address in [IpAddr::V4(server.ipv4), IpAddr::V6(server.ipv6)] {
        far.download(&authority(address, 80), 3_000_000)?;
        let route = server.netns.ip_json(&[
            "route",
            "get",
            if address.is_ipv4() { "10.8.0.2" } else { "fd00:8::2" },
        ])?;
        ensure!(route[0]["metrics"][0]["mtu"] == 1300, "{address} has not learnt the path's MTU: {route}");
    }
    Ok(())
}

#[test]
fn nothing_is_left_behind() -> Result<()> {
    require_lab!("nothing_is_left_behind");
    let scene = topology::nat(&Options::new("cleanup"))?;
    let mine = format!("xd{}-cleanup-", std::process::id());
    let left = || registry::namespaces().into_iter().filter(|name| name.starts_with(&mine)).count();
    ensure!(left() == 6, "{} namespaces", left());
    drop(scene);
    ensure!(left() == 0, "{} namespaces", left());
    Ok(())
}
