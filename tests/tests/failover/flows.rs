//! Flows over a failover, and a director that is not master.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use anyhow::{Result, ensure};
use lab::{
    Director,
    configuration::VirtualServer,
    failover::{Balanced, Instance},
    require_director,
    topology::{self, Mode, VIP4},
};

use crate::{
    balanced::{URL, await_answers, await_side, forward, start_both},
    support::measured,
};

/// Connections that are open while the director dies.
const FLOWS: usize = 300;

fn file(scene: &Balanced, side: usize, priority: u8, scheduler: &str) -> String {
    let web = VirtualServer::tcp("web", topology::vip4(80)).forward(forward(scene.mode)).scheduler(scheduler);
    let flags =
        if scheduler == "rr" { String::new() } else { format!("scheduler_flags = [\"{scheduler}-port\"]") };
    let web = web.line("bind_to = \"VI_50\"").line(&flags);
    let web = scene.servers.iter().fold(web, |web, real| web.real((real.ipv4, 80).into(), 1));
    let mut instance = Instance::new(50, priority).address(&format!("{VIP4}/32"));
    if scene.mode == Mode::Nat {
        instance = instance.address_on(&format!("{}/24", Balanced::GATEWAY), "eth1");
    }
    scene.configuration(side).lines(&instance.to_toml()).serve(&web).text().to_owned()
}

/// Makes a test of each line: its name, how packets are forwarded, the scheduler.
macro_rules! keeps {
    ($($name:ident: $mode:ident, $scheduler:literal;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            require_director!(stringify!($name));
            keeps_flows(stringify!($name), Mode::$mode, $scheduler)
        }
    )*};
}

keeps! {
    sh_keeps_flows_with_dr: Dr, "sh";
    mh_keeps_flows_with_dr: Dr, "mh";
    sh_keeps_flows_with_nat: Nat, "sh";
    mh_keeps_flows_with_nat: Nat, "mh";
    mh_keeps_flows_with_tun: Tun, "mh";
}

/// Connections of which the servers know, and the second director does not: each must reach the server that has it, for any other
/// resets it.
fn keeps_flows(name: &str, mode: Mode, scheduler: &str) -> Result<()> {
    let scene = Balanced::new(mode, &name.replace('_', "-"), 4)?;
    let texts = [file(&scene, 0, 150, scheduler), file(&scene, 1, 100, scheduler)];
    let holders = scene.holders()?;
    let mut directors = start_both(&scene, &texts)?;
    await_side(&holders, 0, &directors)?;
    await_answers(&scene, 4, &directors)?;
    let mut open = Vec::new();
    for _ in 0..FLOWS {
        open.push(scene.client.connect(topology::vip4(80))?);
    }
    directors[0].kill()?;
    await_side(&holders, 1, &directors)?;
    let answered = open.iter().filter(|stream| answers(stream)).count();
    measured(&format!("{name}_flows_kept"), format!("{answered} of {FLOWS}"));
    ensure!(answered * 100 >= FLOWS * 99, "{answered} of {FLOWS} flows were kept\n{}", directors[1].log());
    directors[1].stop()
}

fn answers(mut stream: &TcpStream) -> bool {
    let request = b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n";
    let mut answer = String::new();
    stream.write_all(request).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200 ")
}

/// A packet that comes to the wrong director, because somebody's ARP table is old, is not forwarded by it.
#[test]
fn a_standby_forwards_nothing() -> Result<()> {
    require_director!("a_standby_forwards_nothing");
    let scene = Balanced::new(Mode::Dr, "standby", 2)?;
    let texts = [file(&scene, 0, 150, "rr"), file(&scene, 1, 100, "rr")];
    // Its kernel would hand the packet on to the master.
    scene.sides[1].netns.sysctl(&[("ipv4/ip_forward", "0")])?;
    let holders = scene.holders()?;
    let mut directors = start_both(&scene, &texts)?;
    await_side(&holders, 0, &directors)?;
    await_answers(&scene, 2, &directors)?;
    let mac: Vec<String> =
        scene.sides[1].netns.mac("eth0")?.iter().map(|byte| format!("{byte:02x}")).collect();
    let entry = format!("192.168.10.50 lladdr {} dev eth0 nud permanent", mac.join(":"));
    scene.client.netns.ip([format!("neigh replace {entry}")])?;
    let answer = scene.client.curl_with(&["--connect-timeout", "1"], URL);
    ensure!(answer.is_err(), "the standby serves: {answer:?}");
    // As soon as it is master it does.
    directors[0].kill()?;
    await_side(&holders, 1, &directors)?;
    await_answers(&scene, 2, &directors)?;
    directors.iter_mut().try_for_each(Director::stop)
}

/// With its real servers gone for one director only, the other one serves; and gives back what it has taken.
#[test]
fn a_director_without_living_servers_lets_the_other_one_serve() -> Result<()> {
    require_director!("a_director_without_living_servers_lets_the_other_one_serve");
    let scene = Balanced::new(Mode::Dr, "unserved", 2)?;
    let states = tempfile::tempdir()?;
    let path = |side: usize| states.path().join(format!("state-{side}"));
    let text = |side: usize, priority: u8| -> Result<String> {
        std::fs::write(path(side), "up\n")?;
        let check = format!(
            "health_check = [{{ type = \"file\", path = \"{}\", interval = \"100ms\", rise = 1, fall = 1 }}]",
            path(side).display()
        );
        let track = "track_virtual_servers = [{ name = \"web\", weight = -60 }]";
        let instance = Instance::new(50, priority).address(&format!("{VIP4}/32")).toml_line(track);
        let web = VirtualServer::tcp("web", topology::vip4(80)).forward(forward(scene.mode)).scheduler("rr");
        let web = web.line("bind_to = \"VI_50\"").line(&check);
        let web = scene.servers.iter().fold(web, |web, real| web.real((real.ipv4, 80).into(), 1));
        Ok(scene.configuration(side).lines(&instance.to_toml()).serve(&web).text().to_owned())
    };
    let texts = [text(0, 150)?, text(1, 100)?];
    let holders = scene.holders()?;
    let mut directors = start_both(&scene, &texts)?;
    await_side(&holders, 0, &directors)?;
    await_answers(&scene, 2, &directors)?;
    std::fs::write(path(0), "down\n")?;
    await_side(&holders, 1, &directors)?;
    await_answers(&scene, 2, &directors)?;
    std::fs::write(path(0), "up\n")?;
    await_side(&holders, 0, &directors)?;
    await_answers(&scene, 2, &directors)?;
    directors.iter_mut().try_for_each(Director::stop)
}
