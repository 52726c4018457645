//! A new configuration comes into force while traffic flows.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::{
    Director, Load,
    configuration::{Configuration, VirtualServer},
    load::Options as LoadOptions,
    require_director,
    stall::Mark,
    topology::{self, Options, Scene},
};
use lb_common::{
    map_name,
    server::{Server, next_hop_flag},
};
use lb_userspace::api::{Client, types::XdpMode};

use crate::{
    common::{address, echo, judged, measured, ms, service, wait_for_status, web, with_echo},
    drift::array,
    support::{configuration, fill, status},
};

const RELOADS: usize = 200;
/// In which 99 of 100 should be in force (docs/reliability.md).
const RELOAD: Duration = Duration::from_millis(50);

/// One of the files that follow each other; each differs from the last in one thing, or in none.
fn variant(scene: &Scene, number: usize) -> Configuration {
    let servers = if number % 10 == 3 { 2 } else { 3 };
    let weights = [1, if number % 10 < 2 { 1 } else { 3 }, 2];
    let flags = if number % 10 < 8 { "scheduler_flags = [\"sh-port\"]" } else { "" };
    let hash = fill(VirtualServer::tcp("hash", topology::vip4(8080)), scene, false, 8080, &[1, 1, 1]);
    let file = configuration(scene)
        .serve(&web(scene, &weights[..servers]).scheduler("wrr"))
        .serve(&hash.scheduler("sh").line(flags))
        .serve(&echo(scene));
    match number % 10 {
        5..=6 => {
            file.serve(&fill(VirtualServer::tcp("six", topology::vip6(80)), scene, true, 80, &[1, 1, 1]))
        }
        _ => file,
    }
}

#[test]
fn two_hundred_reloads_lose_nothing() -> Result<()> {
    require_director!("two_hundred_reloads_lose_nothing");
    let scene = topology::nat(&Options::new("reloads"))?;
    let mut director = Director::start(&scene.director, variant(&scene, 0).text())?;
    let load = Load::start(scene.client(), topology::vip4(80), with_echo())?;
    let hash = LoadOptions { held: 4, workers: 1, ..LoadOptions::default() };
    let hash = Load::start(scene.client(), topology::vip4(8080), hash)?;
    let client = Client::new(director.socket())?;
    let mut times = Vec::new();
    let mark = Mark::now();
    for number in 1..=RELOADS {
        director.write_configuration(variant(&scene, number).text())?;
        let begun = Instant::now();
        client.reload()?;
        times.push(begun.elapsed());
        // Traffic that flows between two of them, and has to outlive the next.
        load.wait_for(3)?;
    }
    load.wait_for(20)?;
    let reports = [("web", load.stop()), ("hash", hash.stop())];
    let now = status(&director)?;
    let counted = (service(&now, "web")?.stats, service(&now, "echo")?.stats);
    ensure!(counted.0.connections >= reports[0].1.ok, "counters began anew: {counted:?} {reports:?}");
    ensure!(counted.1.packets_in >= reports[0].1.echo_sent, "counters began anew: {counted:?} {reports:?}");
    ensure!(counted.1.connections == 1, "the datagrams changed their server: {counted:?}");
    for (name, report) in reports {
        measured(&format!("reloads_{name}_connections"), report.ok);
        measured(&format!("reloads_{name}_failed"), report.failed);
        measured(&format!("reloads_{name}_resets"), report.resets);
        measured(
            &format!("reloads_{name}_datagrams_lost"),
            format!("{} of {}", report.echo_lost, report.echo_sent),
        );
        measured(&format!("reloads_{name}_slowest_ms"), report.slowest.as_millis());
        report.ensure_clean()?;
        ensure!(report.by_server.len() == 3, "{report:?}");
    }
    times.sort();
    measured("reload_p50", ms(times[RELOADS / 2]));
    judged("reload_p99", times[RELOADS * 99 / 100 - 1], RELOAD, mark)?;
    ensure!(now.work.reloads_succeeded == RELOADS as u64, "{:?}", now.work);
    ensure!(now.work.repairs == 0 && now.work.operations_failed == 0, "{:?}", now.work);
    director.stop()
}

/// A connection that has been idle has an answer: it came all this way.
fn ask(connection: &mut std::net::TcpStream) -> Result<String> {
    connection.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(answer)
}

#[test]
fn settings_of_the_program_change_under_load() -> Result<()> {
    require_director!("settings_of_the_program_change_under_load");
    let mut scene = topology::nat(&Options::new("settings"))?;
    let third = scene.lab.network("third")?;
    let machine = scene.director.clone();
    scene.lab.plug(&machine, "eth2", &third, &["192.168.3.1/24"])?;
    let file = |interfaces: &[&str], more: &str| {
        let head = configuration(&scene)
            .text()
            .replace("interfaces = [\"eth0\", \"eth1\"]", &format!("interfaces = {interfaces:?}"));
        let rest = web(&scene, &[1, 1, 1]).text() + "\n" + &echo(&scene).text();
        format!("{head}{more}\n{rest}")
    };
    let two = ["eth0", "eth1"];
    let mut director = Director::start(&scene.director, &file(&two, ""))?;
    let load = Load::start(scene.client(), topology::vip4(80), with_echo())?;
    let mut counted = 0;
    let mut step = |text: String| -> Result<()> {
        director.reload(&text)?;
        load.wait_for(20)?;
        let status = status(&director)?;
        let connections = service(&status, "web")?.stats.connections;
        ensure!(connections > counted, "the counters began anew: {connections} after {counted}");
        counted = connections;
        Ok(())
    };
    step(file(&two, "[timeouts]\ntcp = \"700s\"\nudp = \"70s\""))?;
    step(file(&["eth0", "eth1", "eth2"], ""))?;
    ensure!(scene.director.xdp("eth2")?.is_some(), "no program on the new interface");
    step(file(&["eth0", "eth1"], ""))?;
    ensure!(scene.director.xdp("eth2")?.is_none(), "the program is left on eth2");
    let report = load.stop();
    measured("settings_connections", report.ok);
    measured("settings_failed", report.failed);
    measured("settings_datagrams_lost", format!("{} of {}", report.echo_lost, report.echo_sent));
    report.ensure_clean()?;
    director.stop()
}

#[test]
fn another_mode_keeps_connections() -> Result<()> {
    require_director!("another_mode_keeps_connections");
    let scene = topology::nat(&Options::new("mode"))?;
    let file = |mode: &str| {
        configuration(&scene).lines(&format!("xdp_mode = \"{mode}\"")).serve(&web(&scene, &[1, 1, 1]))
    };
    let mut director = Director::start(&scene.director, file("native").text())?;
    // Between one mode and the other an interface has no program, as the kernel does not take both; so these are silent.
    let mut held: Vec<_> =
        (0..6).map(|_| scene.client().connect(topology::vip4(80))).collect::<Result<_>>()?;
    let (native, generic) = (("native", XdpMode::Native), ("generic", XdpMode::Generic));
    for (restart, (mode, attached)) in [(false, generic), (false, native), (true, generic), (true, native)] {
        if restart {
            director.stop()?;
            director.write_configuration(file(mode).text())?;
            director.restart()?;
        } else {
            director.reload(file(mode).text())?;
        }
        let status = status(&director)?;
        ensure!(status.interfaces.iter().all(|one| one.mode == attached), "{:?}", status.interfaces);
        for connection in held.drain(..3) {
            ask(&mut { connection })?;
        }
        held.extend((0..3).map(|_| scene.client().connect(topology::vip4(80))).collect::<Result<Vec<_>>>()?);
        ensure!(scene.client().http_counts(topology::vip4(80), 6)?.len() == 3);
    }
    director.stop()
}

#[test]
fn more_servers_than_the_maps_hold() -> Result<()> {
    require_director!("more_servers_than_the_maps_hold");
    const MANY: u16 = 2000;
    let scene = topology::nat(&Options::new("growth"))?;
    let small = configuration(&scene).serve(&web(&scene, &[1, 1, 1])).serve(&echo(&scene));
    let mut large = small.text().to_owned();
    for number in 0..MANY {
        let virtual_address = topology::vip4(10_000 + number);
        let real = SocketAddr::new(scene.servers[usize::from(number % 3)].ipv4.into(), 80);
        let one = VirtualServer::tcp(&format!("many-{number}"), virtual_address)
            .real(real, 1)
            .real(SocketAddr::new(scene.servers[usize::from((number + 1) % 3)].ipv4.into(), 80), 1);
        write!(large, "\n{}", one.text())?;
    }
    let mut director = Director::start(&scene.director, small.text())?;
    let load = Load::start(scene.client(), topology::vip4(80), with_echo())?;
    load.wait_for(50)?;
    let before = service(&status(&director)?, "web")?.stats;
    let begun = Instant::now();
    director.reload(&large)?;
    measured("growth_reload_ms", begun.elapsed().as_millis());
    ensure!(director.log().contains("made larger"), "{}", director.log());
    load.wait_for(50)?;
    let after = service(&status(&director)?, "web")?.stats;
    ensure!(
        after.connections > before.connections && after.bytes_in > before.bytes_in,
        "{before:?} {after:?}"
    );
    for number in [0, MANY / 2, MANY - 1] {
        scene.client().http_counts(topology::vip4(10_000 + number), 2)?;
    }
    director.reload(small.text())?;
    load.wait_for(50)?;
    let report = load.stop();
    measured("growth_failed", report.failed);
    measured("growth_resets", report.resets);
    measured("growth_datagrams_lost", format!("{} of {}", report.echo_lost, report.echo_sent));
    report.ensure_clean()?;
    // Nothing was counted in the maps that went and missed in those that came.
    wait_for_status(&director, "as many connections at the servers as in the table", |status| {
        status.totals.active == 0 && status.totals.inactive == status.connections.entries
    })?;
    director.stop()
}

#[test]
fn what_was_out_of_service_comes_back_after_the_program_was_loaded_again() -> Result<()> {
    require_director!("what_was_out_of_service_comes_back_after_the_program_was_loaded_again");
    let scene = topology::nat(&Options::new("comeback"))?;
    let file = |more: &str| configuration(&scene).lines(more).serve(&web(&scene, &[1, 1, 1]));
    let mut director = Director::start(&scene.director, file("").text())?;
    let third = address(&scene, 2);
    director.command(&["disable", &third])?;
    // The next one makes its maps without it.
    director.detach()?;
    director.restart()?;
    director.reload(file("[timeouts]\ntcp = \"800s\"").text())?;
    director.command(&["enable", &third])?;
    let counts = scene.client().http_counts(topology::vip4(80), 9)?;
    ensure!(counts.len() == 3 && counts.values().all(|count| *count == 3), "{counts:?}");
    // Without its next hop the program would look its way up for every packet.
    let servers = array::<Server>(&director, map_name::SERVERS)?;
    let used: Vec<_> = servers.iter().filter_map(Result::ok).filter(|one| one.forwarding != 0).collect();
    ensure!(used.len() == 3, "{used:?}");
    ensure!(used.iter().all(|one| one.next_hop.flags & next_hop_flag::RESOLVED != 0), "{used:?}");
    director.stop()
}
