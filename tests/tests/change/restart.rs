//! The agent goes and comes while traffic flows.

use std::{
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::{
    Director, Load,
    configuration::VirtualServer,
    director::binary_path,
    load::Report,
    require_director,
    stall::Mark,
    topology::{self, Options},
};

use crate::{
    common::{echo, judged, measured, web, with_echo},
    support::{configuration, status},
};

const WORDS: [&str; 2] = ["took over", "serving"];
/// How long after its start an agent may take to say so (docs/reliability.md).
const TAKEN_OVER: Duration = Duration::from_secs(1);

#[test]
fn restarts_and_an_upgrade_lose_nothing() -> Result<()> {
    require_director!("restarts_and_an_upgrade_lose_nothing");
    let scene = topology::nat(&Options::new("again"))?;
    let text = configuration(&scene).serve(&web(&scene, &[1, 1, 1])).serve(&echo(&scene));
    let mut director = Director::start(&scene.director, text.text())?;
    let load = Load::start(scene.client(), topology::vip4(80), with_echo())?;
    for _ in 0..3 {
        director.stop()?;
        load.wait_for(20)?;
        director.restart()?;
        load.wait_for(20)?;
    }
    let newer = director.directory().join("xdirector-newer");
    fs::copy(binary_path(), &newer)?;
    director.stop()?;
    director.set_binary(&newer);
    director.restart()?;
    load.wait_for(20)?;
    let report = load.stop();
    print("restarts", &report);
    report.ensure_clean()?;
    let status = status(&director)?;
    ensure!(status.persistence.adopted, "{:?}", status.persistence);
    ensure!(status.virtual_servers[0].stats.connections >= report.ok, "{:?}, {report:?}", status.totals);
    director.stop()
}

#[test]
fn a_killed_agent_is_missed_by_nobody() -> Result<()> {
    require_director!("a_killed_agent_is_missed_by_nobody");
    let scene = topology::nat(&Options::new("murder"))?;
    let text = configuration(&scene).serve(&web(&scene, &[1, 1, 1])).serve(&echo(&scene));
    let mut director = Director::start(&scene.director, text.text())?;
    let load = Load::start(scene.client(), topology::vip4(80), with_echo())?;
    let mut times = Vec::new();
    let mark = Mark::now();
    for _ in 0..3 {
        director.kill()?;
        load.wait_for(30)?;
        times.push(director.restart_timed(&WORDS)?);
        load.wait_for(20)?;
    }
    let report = load.stop();
    print("kill", &report);
    for (word, number) in WORDS.iter().zip(0..) {
        let worst = times.iter().map(|one| one[number]).max().unwrap_or(Duration::MAX);
        judged(&format!("kill_exec_to_{}", word.replace(' ', "_")), worst, TAKEN_OVER, mark)?;
    }
    report.ensure_clean()?;
    ensure!(status(&director)?.persistence.adopted);
    director.stop()
}

/// Wherever it dies, the next one finds something that it can go on with.
#[test]
fn it_may_be_killed_while_it_takes_over() -> Result<()> {
    require_director!("it_may_be_killed_while_it_takes_over");
    let scene = topology::nat(&Options::new("midway"))?;
    let file = |seconds: u64| {
        configuration(&scene)
            .lines(&format!("\n[timeouts]\ntcp = \"{seconds}s\""))
            .serve(&web(&scene, &[1, 1, 1]))
            .serve(&echo(&scene))
    };
    let mut director = Director::start(&scene.director, file(600).text())?;
    let load = Load::start(scene.client(), topology::vip4(80), with_echo())?;
    let begun = Instant::now();
    director.reload(file(601).text())?;
    let whole = begun.elapsed();
    for part in 0..8u32 {
        // Another program is loaded for it; that is where most of the time goes.
        director.write_configuration(file(610 + u64::from(part)).text())?;
        let mut reload = director.spawn_command(&["reload"])?;
        thread::sleep(whole * (part + 1) / 8);
        director.kill()?;
        reload.wait()?;
        load.wait_for(5)?;
        director.restart()?;
        ensure!(status(&director)?.persistence.adopted, "{}", director.log());
    }
    load.wait_for(20)?;
    let report = load.stop();
    print("midway", &report);
    report.ensure_clean()?;
    let generations = fs::read_dir(director.pins().join(format!("v{}", lb_common::ABI_VERSION)))?.count();
    ensure!(generations == 3, "links, cgroup and one generation, not {generations}");
    director.stop()
}

/// The same while larger maps take the place of those that are too small, by a reload or by the next agent.
#[test]
fn it_may_be_killed_while_the_maps_grow() -> Result<()> {
    require_director!("it_may_be_killed_while_the_maps_grow");
    let scene = topology::nat(&Options::new("growing"))?;
    let file = |more: u16| {
        let mut text =
            configuration(&scene).serve(&web(&scene, &[1, 1, 1])).serve(&echo(&scene)).text().to_owned();
        for number in 0..more {
            let real = SocketAddr::new(scene.servers[0].ipv4.into(), 10_000 + number);
            let one =
                VirtualServer::tcp(&format!("more-{number}"), topology::vip4(10_000 + number)).real(real, 1);
            text += &one.text();
        }
        text
    };
    let mut director = Director::start(&scene.director, &file(0))?;
    let load = Load::start(scene.client(), topology::vip4(80), with_echo())?;
    for (part, more) in (1..).zip([200, 400, 800, 1600]) {
        director.write_configuration(&file(more))?;
        let mut reload = director.spawn_command(&["reload"])?;
        thread::sleep(Duration::from_millis(200) * part);
        director.kill()?;
        reload.wait()?;
        load.wait_for(5)?;
        director.restart()?;
        let now = status(&director)?;
        ensure!(
            now.persistence.adopted && now.virtual_servers.len() == usize::from(more) + 2,
            "{}",
            director.log()
        );
    }
    load.wait_for(20)?;
    let report = load.stop();
    print("growing", &report);
    report.ensure_clean()?;
    director.stop()
}

fn print(name: &str, report: &Report) {
    measured(&format!("{name}_connections"), report.ok);
    measured(&format!("{name}_failed"), report.failed);
    measured(&format!("{name}_resets"), report.resets);
    measured(&format!("{name}_held"), format!("{} broken of {}", report.held_broken, report.held));
    measured(&format!("{name}_datagrams_lost"), format!("{} of {}", report.echo_lost, report.echo_sent));
    measured(&format!("{name}_slowest_ms"), report.slowest.as_millis());
}
