//! S4 to S6: two directors before real servers, with NAT, DR and TUN.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director,
    configuration::VirtualServer,
    failover::{Balanced, Instance},
    httpd::Server,
    registry::wait_until,
    require_director,
    stall::Mark,
    topology::{self, Mode, PORTS, VIP4},
};

use crate::{
    balanced::{URL, await_answers, await_side, ensure_all_serve, forward, start_both},
    support::{SOON, judged},
};

/// For how long nobody may answer when the master is stopped, with version 2 (docs/reliability.md).
const OUTAGE: Duration = Duration::from_millis(20);

#[test]
fn s4_nat() -> Result<()> {
    require_director!("s4_nat");
    two_directors(Mode::Nat, "s4")
}

#[test]
fn s5_dr() -> Result<()> {
    require_director!("s5_dr");
    two_directors(Mode::Dr, "s5")
}

#[test]
fn s6_tun() -> Result<()> {
    require_director!("s6_tun");
    two_directors(Mode::Tun, "s6")
}

/// The file of one side: three real servers, and a fourth that answers when they are all dead.
fn file(scene: &Balanced, side: usize, priority: u8) -> String {
    let port = if scene.mode == Mode::Nat { 8080 } else { 80 };
    let check = "{ type = \"tcp\", interval = \"200ms\", timeout = \"5s\", warmup = \"100ms\", fall = 3 }";
    let web = VirtualServer::tcp("web", topology::vip4(80)).forward(forward(scene.mode));
    let web = web.line("bind_to = \"VI_50\"").line(&format!("health_check = [{check}]"));
    let web = web.line(&format!("sorry_server = \"{}:{port}\"", scene.servers[3].ipv4));
    let web = scene.servers.iter().take(3).fold(web, |web, real| web.real((real.ipv4, port).into(), 1));
    let mut instance = Instance::new(50, priority).v2().password("123456").address(&format!("{VIP4}/32"));
    if scene.mode == Mode::Nat {
        instance = instance.address_on(&format!("{}/24", Balanced::GATEWAY), "eth1");
    }
    scene.configuration(side).lines(&instance.to_toml()).serve(&web).text().to_owned()
}

fn two_directors(mode: Mode, label: &str) -> Result<()> {
    let mut scene = Balanced::new(mode, label, 4)?;
    let texts = [file(&scene, 0, 100), file(&scene, 1, 90)];
    let holders = scene.holders()?;
    let mut directors = start_both(&scene, &texts)?;
    await_side(&holders, 0, &directors)?;
    await_answers(&scene, 3, &directors)?;
    let probe = scene.probe()?;

    // Stopped.
    let (begun, mark) = (Instant::now(), Mark::now());
    directors[0].stop()?;
    await_side(&holders, 1, &directors)?;
    ensure_all_serve(&scene, 1, 3, &directors)?;
    directors[0].restart()?;
    await_side(&holders, 0, &directors)?;
    ensure_all_serve(&scene, 0, 3, &directors).context("back again")?;
    judged(&format!("{label}_stop_outage"), probe.stop()?.outage(begun), OUTAGE, mark)?;

    // Cut: the machine loses all of its cables.
    let cables = |scene: &Balanced, cut: bool| -> Result<()> {
        let side = &scene.sides[0];
        for port in [Some(&side.outside), side.inside.as_ref()].into_iter().flatten() {
            if cut { port.cut()? } else { port.mend()? }
        }
        Ok(())
    };
    cables(&scene, true)?;
    ensure!(wait_until(SOON, || holders.now() == [0, 1]), "{:?}", holders.now());
    await_answers(&scene, 3, &directors).context("the first one is cut off")?;
    cables(&scene, false)?;
    await_side(&holders, 0, &directors)?;
    await_answers(&scene, 3, &directors).context("mended")?;

    // Killed.
    directors[0].kill()?;
    await_side(&holders, 1, &directors)?;
    await_answers(&scene, 3, &directors).context("the first one is dead")?;
    directors[0].restart()?;
    await_side(&holders, 0, &directors)?;
    await_answers(&scene, 3, &directors)?;

    dead_servers(&mut scene, &directors)?;
    directors.iter_mut().try_for_each(Director::stop)
}

/// A dead web server leaves and comes back; when all are dead the sorry server answers.
fn dead_servers(scene: &mut Balanced, directors: &[Director]) -> Result<()> {
    scene.servers[0].http = None;
    await_answers(scene, 2, directors).context("Real 1 is dead")?;
    let answers = scene.client.curl_each(URL, 6)?;
    ensure!(!answers.contains(&"Real 1".to_owned()), "the dead one answers: {answers:?}");
    for server in scene.servers.iter_mut().take(3) {
        server.http = None;
    }
    let sorry = || {
        let answers = scene.client.curl_each(URL, 3);
        answers.is_ok_and(|answers| answers.iter().all(|answer| answer == "Real 4"))
    };
    ensure!(wait_until(SOON, sorry), "the sorry server does not answer: {}", directors[0].log());
    for server in scene.servers.iter_mut().take(3) {
        server.http = Some(Server::start(&server.netns, &server.name, &PORTS)?);
    }
    await_answers(scene, 3, directors).context("all are back")
}

/// The scene itself: whichever side has the addresses serves, without any VRRP.
#[test]
fn lab_either_side_serves() -> Result<()> {
    require_director!("lab_either_side_serves");
    for (mode, label) in [(Mode::Nat, "sides-nat"), (Mode::Dr, "sides-dr"), (Mode::Tun, "sides-tun")] {
        let scene = Balanced::new(mode, label, 3)?;
        for side in 0..2 {
            let web = VirtualServer::tcp("web", topology::vip4(80)).forward(forward(mode));
            let web = scene.servers.iter().fold(web, |web, real| web.real((real.ipv4, 80).into(), 1));
            let netns = &scene.sides[side].netns;
            let mut addresses = vec![format!("{VIP4}/32 dev eth0")];
            if mode == Mode::Nat {
                addresses.push(format!("{}/24 dev eth1", Balanced::GATEWAY));
            }
            netns.ip(addresses.iter().map(|address| format!("addr add {address}")))?;
            // As if they had been announced.
            scene.client.netns.ip(["neigh flush dev eth0"])?;
            for server in &scene.servers {
                server.netns.ip(["neigh flush dev eth0"])?;
            }
            let mut director = Director::start(netns, scene.configuration(side).serve(&web).text())?;
            await_answers(&scene, 3, std::slice::from_ref(&director)).with_context(|| label.to_owned())?;
            director.detach()?;
            netns.ip(addresses.iter().map(|address| format!("addr del {address}")))?;
        }
    }
    Ok(())
}
