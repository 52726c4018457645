//! What stands in the kernel.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use lab::{
    Director, Load,
    configuration::VirtualServer,
    dataplane::with,
    load::Options as LoadOptions,
    registry::wait_until,
    require_ipvs,
    topology::{self, Options},
};
use lb_userspace::api::types::RealServerState;

use super::{
    common::{address, real, wait_for_event, wait_for_status, web},
    ensure_is, ipvsadm,
    support::{configuration, ensure_in_turn, fill},
};

/// Longer than an audit of everything takes.
const AUDIT: Duration = Duration::from_secs(25);

#[test]
fn ipvsadm_shows_what_the_file_says() -> Result<()> {
    require_ipvs!("ipvsadm_shows_what_the_file_says");
    let scene = topology::nat(&Options::new("shows"))?;
    let four = |port: u16| topology::vip4(port);
    let file = configuration(&scene)
        .serve(
            &fill(VirtualServer::tcp("web", four(80)), &scene, false, 8080, &[3, 1, 0])
                .scheduler("wrr")
                .line("persistence_timeout = \"6m\"\npersistence_granularity = \"255.255.255.0\"")
                .line("upper_threshold = 100\nlower_threshold = 60"),
        )
        .serve(
            &fill(VirtualServer::tcp("tun", four(81)), &scene, false, 81, &[1])
                .forward("tun")
                .scheduler("mh")
                .line("scheduler_flags = [\"mh-port\"]\ntunnel = { type = \"gue\", port = 6080, checksum = \"remote\" }"),
        )
        .serve(
            &fill(VirtualServer::udp("dns", topology::vip6(53)), &scene, true, 53, &[1])
                .forward("dr")
                .scheduler("sed")
                .line("one_packet = true"),
        )
        .lines("[timeouts]\ntcp = \"10m\"\ntcp_fin = \"1m\"\nudp = \"2m\"");
    let mut director = Director::start(&scene.director, &with(file.text(), "ipvs"))?;
    ensure_is(&director, "ipvs")?;
    let expected = "\
        -A -t 192.168.10.50:80 -s wrr -p 360 -M 255.255.255.0\n\
        -a -t 192.168.10.50:80 -r 192.168.1.101:8080 -m -w 3\n\
        -a -t 192.168.10.50:80 -r 192.168.1.102:8080 -m -w 1\n\
        -a -t 192.168.10.50:80 -r 192.168.1.103:8080 -m -w 0\n\
        -A -t 192.168.10.50:81 -s mh -b mh-port\n\
        -a -t 192.168.10.50:81 -r 192.168.1.101:81 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum\n\
        -A -u [fd00:10::50]:53 -s sed -o\n\
        -a -u [fd00:10::50]:53 -r [fd00:1::101]:53 -g -w 1\n";
    let saved = ipvsadm(&scene, &["-Sn"])?;
    ensure!(saved == expected, "{saved}\nshould be\n{expected}");
    let thresholds = ipvsadm(&scene, &["-Ln", "--thresholds"])?;
    ensure!(thresholds.matches(" 100        60 ").count() == 3, "{thresholds}");
    let timeouts = ipvsadm(&scene, &["-Ln", "--timeout"])?;
    ensure!(timeouts.trim() == "Timeout (tcp tcpfin udp): 600 60 120", "{timeouts}");
    director.reload(&with(&file.text().replace("tcp = \"10m\"", "tcp = \"20m\""), "ipvs"))?;
    let timeouts = ipvsadm(&scene, &["-Ln", "--timeout"])?;
    ensure!(timeouts.trim() == "Timeout (tcp tcpfin udp): 1200 60 120", "{timeouts}");
    director.stop()
}

#[test]
fn what_others_change_is_put_right_and_what_others_have_is_left_alone() -> Result<()> {
    require_ipvs!("what_others_change_is_put_right_and_what_others_have_is_left_alone");
    let scene = topology::nat(&Options::new("drift"))?;
    let file = with(configuration(&scene).serve(&web(&scene, &[1, 1, 1])).text(), "ipvs");
    ipvsadm(&scene, &["-A", "-t", "192.168.10.50:7", "-s", "lc"])?;
    let mut director = Director::start(&scene.director, &file)?;
    let whole = ipvsadm(&scene, &["-Sn"])?;
    ipvsadm(&scene, &["-d", "-t", "192.168.10.50:80", "-r", "192.168.1.102:80"])?;
    ipvsadm(&scene, &["-e", "-t", "192.168.10.50:80", "-r", "192.168.1.103:80", "-m", "-w", "9"])?;
    ipvsadm(&scene, &["-a", "-t", "192.168.10.50:80", "-r", "192.168.1.9:80", "-m"])?;
    ipvsadm(&scene, &["-E", "-t", "192.168.10.50:80", "-s", "wlc"])?;
    ensure!(wait_until(AUDIT, || ipvsadm(&scene, &["-Sn"]).is_ok_and(|now| now == whole)), "drift stays");
    ensure!(whole.contains("-A -t 192.168.10.50:7 -s lc\n"), "{whole}");
    wait_for_event(&director, "web", "was not in the kernel as it should be: put right")?;
    // All of it gone at once, and a reload does not wait for the audit.
    ipvsadm(&scene, &["-D", "-t", "192.168.10.50:80"])?;
    director.reload(&file)?;
    let now = ipvsadm(&scene, &["-Sn"])?;
    ensure!(now == whole, "{now}");
    director.command(&["stop", "--detach"])?;
    let left = ipvsadm(&scene, &["-Sn"])?;
    ensure!(left == "-A -t 192.168.10.50:7 -s lc\n", "{left}");
    director.stop()
}

#[test]
fn an_agent_that_is_killed_is_missed_by_nobody() -> Result<()> {
    require_ipvs!("an_agent_that_is_killed_is_missed_by_nobody");
    let scene = topology::nat(&Options::new("killed"))?;
    let other = fill(VirtualServer::tcp("other", topology::vip4(8080)), &scene, false, 8080, &[1]);
    let file = configuration(&scene).serve(&web(&scene, &[1, 1, 1]));
    let one = with(file.text(), "ipvs");
    let both = with(file.serve(&other).text(), "ipvs");
    let mut director = Director::start(&scene.director, &both)?;
    let load =
        Load::start(scene.client(), topology::vip4(80), LoadOptions { held: 2, ..LoadOptions::default() })?;
    director.kill()?;
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50:8080/", 2)?, 1)?;
    // The next one has another configuration: it knows what the dead one had made.
    director.write_configuration(&one)?;
    director.restart()?;
    let status = director.status()?;
    ensure!(status["persistence"]["adopted"] == true, "{status}");
    // It drains: what was closed is remembered for two minutes.
    let saved = ipvsadm(&scene, &["-Sn"])?;
    ensure!(saved.contains("-a -t 192.168.10.50:8080 -r 192.168.1.101:8080 -m -w 0\n"), "{saved}");
    wait_for_event(
        &director,
        "192.168.10.50:8080 tcp/192.168.1.101:8080",
        "drained: all its connections have ended",
    )?;
    load.stop().ensure_clean()?;
    director.stop()
}

/// S9 and S10: one client, one server, on all ports.
#[test]
fn persistence_keeps_a_client_on_all_ports() -> Result<()> {
    require_ipvs!("persistence_keeps_a_client_on_all_ports");
    let scene = topology::nat(&Options::new("persist").clients(3))?;
    let all = fill(VirtualServer::tcp("all", topology::vip4(0)), &scene, false, 0, &[1, 1, 1])
        .line("persistence_timeout = \"5s\"");
    let file = with(configuration(&scene).serve(&all).text(), "ipvs");
    let mut director = Director::start(&scene.director, &file)?;
    let mut servers = std::collections::BTreeSet::new();
    for client in &scene.clients {
        let first = client.curl("http://192.168.10.50/")?;
        for port in [80, 8080, 80, 8080] {
            let again = client.curl(&format!("http://192.168.10.50:{port}/"))?;
            ensure!(again == first, "{again} after {first}");
        }
        servers.insert(first);
    }
    ensure!(servers.len() == 3, "rr gives three clients three servers: {servers:?}");
    director.reload(&file.replace("\"5s\"", "\"10s\""))?;
    let saved = ipvsadm(&scene, &["-Sn"])?;
    ensure!(saved.starts_with("-A -t 192.168.10.50:0 -s rr -p 10\n"), "{saved}");
    director.stop()
}

#[test]
fn a_drained_server_is_said_to_be_done() -> Result<()> {
    require_ipvs!("a_drained_server_is_said_to_be_done");
    let scene = topology::nat(&Options::new("drain"))?;
    let file = configuration(&scene).serve(&web(&scene, &[1, 1, 1]).scheduler("sh"));
    let mut director = Director::start(&scene.director, &with(file.text(), "ipvs"))?;
    let held = scene.client().connect(topology::vip4(80))?;
    let list = director.connections()?;
    let theirs = list[0]["real"].as_str().unwrap_or_default().to_owned();
    let number = (0..3).find(|number| address(&scene, *number) == theirs);
    let number = number.ok_or_else(|| anyhow::anyhow!("{theirs} is no server: {list}"))?;
    director.command(&["drain", &theirs])?;
    // Its clients find another server meanwhile.
    let answer = scene.client().curl("http://192.168.10.50/")?;
    ensure!(answer != format!("Real {}", number + 1), "{answer} drains");
    wait_for_status(&director, "draining", |status| {
        real(status, &scene, number)
            .is_ok_and(|one| one.state == RealServerState::Draining && one.active == 1)
    })?;
    drop(held);
    wait_for_status(&director, "drained", |status| {
        real(status, &scene, number).is_ok_and(|one| one.state == RealServerState::Drained)
    })?;
    director.command(&["enable", &theirs])?;
    ensure!(scene.client().curl("http://192.168.10.50/")? == format!("Real {}", number + 1));
    let weights = ipvsadm(&scene, &["-Sn"])?;
    ensure!(weights.starts_with("-A -t 192.168.10.50:80 -s sh\n") && !weights.contains("-w 0"), "{weights}");
    director.stop()
}

#[test]
fn a_server_that_fails_leaves_and_comes_back() -> Result<()> {
    require_ipvs!("a_server_that_fails_leaves_and_comes_back");
    let mut scene = topology::nat(&Options::new("fails"))?;
    let check = "sorry_server = \"192.168.1.103:8080\"\n[[virtual_server.health_check]]\ntype = \"tcp\"\n\
                 interval = \"300ms\"\ntimeout = \"5s\"\nrise = 1\nfall = 1";
    let web = fill(VirtualServer::tcp("web", topology::vip4(80)), &scene, false, 80, &[1, 1]).line(check);
    let mut director =
        Director::start(&scene.director, &with(configuration(&scene).serve(&web).text(), "ipvs"))?;
    let is = |director: &Director, number: usize, state: RealServerState| {
        wait_for_status(director, "the check", |status| {
            real_of(status, IpAddr::V4([192, 168, 1, 101 + u8::try_from(number).unwrap_or(0)].into()))
                == Some(state)
        })
    };
    is(&director, 1, RealServerState::Up)?;
    scene.servers[0].http = None;
    is(&director, 0, RealServerState::Down)?;
    ensure!(scene.client().curl_each("http://192.168.10.50/", 3)?.iter().all(|answer| answer == "Real 2"));
    scene.servers[1].http = None;
    is(&director, 1, RealServerState::Down)?;
    ensure!(scene.client().curl("http://192.168.10.50/")? == "Real 3", "the sorry server");
    let server = lab::httpd::Server::start(&scene.servers[0].netns, "Real 1", &topology::PORTS)?;
    scene.servers[0].http = Some(server);
    is(&director, 0, RealServerState::Up)?;
    ensure!(scene.client().curl_each("http://192.168.10.50/", 3)?.iter().all(|answer| answer == "Real 1"));
    director.stop()
}

/// The kernel takes the service and refuses one of its servers: what is there all the same goes with the rest.
#[test]
fn what_the_kernel_refuses_half_way_does_not_stay() -> Result<()> {
    require_ipvs!("what_the_kernel_refuses_half_way_does_not_stay");
    let scene = topology::nat(&Options::new("half"))?;
    // A broadcast address of the servers' network.
    let broken = fill(VirtualServer::tcp("broken", topology::vip4(81)), &scene, false, 80, &[1])
        .real("192.168.1.255:80".parse()?, 1);
    let good = configuration(&scene).serve(&web(&scene, &[1, 1, 1]));
    let both = with(good.clone().serve(&broken).text(), "ipvs");
    let mut director = Director::start(&scene.director, &both)?;
    wait_for_event(&director, "broken", "the kernel refuses a change")?;
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 3)?;
    director.reload(&with(good.text(), "ipvs"))?;
    let gone = wait_until(AUDIT, || ipvsadm(&scene, &["-Sn"]).is_ok_and(|now| !now.contains(":81 ")));
    ensure!(gone, "{}", ipvsadm(&scene, &["-Sn"])?);
    director.reload(&both)?;
    // Somebody has removed one of ours a moment before.
    ipvsadm(&scene, &["-D", "-t", "192.168.10.50:80"])?;
    director.command(&["stop", "--detach"])?;
    let left = ipvsadm(&scene, &["-Sn"])?;
    ensure!(left.is_empty(), "{left}");
    director.stop()
}

fn real_of(status: &lb_userspace::api::Status, address: IpAddr) -> Option<RealServerState> {
    let all = status.virtual_servers.iter().flat_map(|one| &one.real_servers);
    all.into_iter().find(|server| server.address.ip() == address).map(|server| server.state)
}
