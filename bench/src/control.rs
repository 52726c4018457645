//! `bench control`: how fast the agent is with ten thousand virtual servers. docs/performance.md tells the method.

mod agent;
mod checks;
mod file;
mod report;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use lab::{Lab, Netns, registry, requirements};

use agent::Agent;
use file::File;
use report::{Memory, Report};

/// Starts from nothing.
const STARTS: usize = 3;
/// Reloads, each with another weight changed.
const RELOADS: usize = 10;
/// Changes of checks' results.
const CHANGES: usize = 400;
/// From one of them to the next. With the reading of counters every two and the audit every ten seconds.
const BETWEEN_CHANGES: Duration = Duration::from_millis(30);
/// How long the last of them may take to be in force.
const LAST_CHANGE: Duration = Duration::from_secs(5);

/// Options of `bench control`.
#[derive(Debug, Args)]
pub struct Options {
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    if let Some(why) = requirements::missing_for_director() {
        bail!("the lab cannot run here: {why}");
    }
    registry::install();
    let mut lab = Lab::new("control")?;
    let host = machine(&mut lab)?;
    let mut report = Report::default();

    let mut file = File::new();
    for start in 1..=STARTS {
        eprintln!("Start {start} of {STARTS} with {} x {} servers", file::SERVICES, file::SERVERS);
        let (agent, took) = Agent::start(&host, &file.text())?;
        eprintln!("  {:.0} ms", took.as_secs_f64() * 1e3);
        report.starts.push(took);
        report.start_processor.push(agent.processor_time()?);
        if start < STARTS {
            agent.stop()?;
            continue;
        }
        let status = agent.client().status().context("no status")?;
        let servers: usize = status.virtual_servers.iter().map(|one| one.real_servers.len()).sum();
        ensure!(servers == file::SERVICES * file::SERVERS, "only {servers} real servers are there");
        report.memory = Memory::of(agent.pid())?;
        reloads(&agent, &mut file, &mut report)?;
        report.memory_after_reloads = Memory::of(agent.pid())?;
        agent.stop()?;
    }

    eprintln!("{CHANGES} changes of file checks on {} of the servers", file::CHECKED);
    report.changes = changes(&host)?;
    eprintln!("TCP checks on one CPU");
    report.checks = checks::sustained(&host)?;
    if options.json {
        println!("{}", report.json());
    } else {
        print!("{report}");
    }
    Ok(())
}

/// A director whose real servers are all behind one router, which needs no answer to be known.
fn machine(lab: &mut Lab) -> Result<Netns> {
    let (host, router) = (lab.host("director")?, lab.host("router")?);
    lab.cable((&host, "eth0"), (&router, "eth0"))?;
    host.ip(["addr add 192.168.9.1/24 dev eth0".to_owned()])?;
    host.ip(file::virtual_addresses().map(|address| format!("addr add {address}/32 dev eth0")))?;
    host.ip([
        "neigh add 192.168.9.2 lladdr 02:00:00:00:00:02 dev eth0",
        "route add 10.0.0.0/8 via 192.168.9.2",
    ])?;
    // Listeners and connections of the checks.
    host.sysctl(&[("core/somaxconn", "65535"), ("ipv4/tcp_max_syn_backlog", "65535")])?;
    Ok(host)
}

fn reloads(agent: &Agent, file: &mut File, report: &mut Report) -> Result<()> {
    eprintln!("{RELOADS} reloads, each with the weight of one server changed");
    for number in 0..RELOADS {
        file.change(number * 977 % file::SERVICES);
        agent.write(&file.text())?;
        let client = agent.client();
        let started = Instant::now();
        let done = client.reload().context("the file was refused")?;
        report.reloads.push(started.elapsed());
        ensure!((done.added, done.changed, done.removed) == (0, 1, 0), "not one change: {done:?}");
        // What a reload leaves to do afterwards belongs to no other one.
        thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

/// Times from a check's result to the maps, as the agent says them.
fn changes(host: &Netns) -> Result<Vec<Duration>> {
    let directory = tempfile::Builder::new().prefix(&format!("{}-checks-", host.name())).tempdir()?;
    let mut file = File::new();
    file.check_files(directory.path());
    let (agent, _) = Agent::start(host, &file.text())?;
    // The first results of all checks are reports too.
    ensure!(
        registry::wait_until(LAST_CHANGE, || agent.latencies().len() >= file::CHECKED),
        "the checks say nothing; the agent's log:\n{}",
        agent.log()
    );
    let before = agent.latencies().len();
    for number in 0..CHANGES {
        let word = if (number / file::CHECKED).is_multiple_of(2) { "down" } else { "up" };
        let path = file::checked_file(directory.path(), number % file::CHECKED);
        let new = path.with_extension("new");
        fs::write(&new, word)?;
        fs::rename(new, path)?;
        thread::sleep(BETWEEN_CHANGES);
    }
    let are_all_there = || agent.latencies().len() >= before + CHANGES;
    ensure!(
        registry::wait_until(LAST_CHANGE, are_all_there),
        "changes are missing; the agent's log:\n{}",
        agent.log()
    );
    let latencies = agent.latencies().split_off(before);
    agent.stop()?;
    Ok(latencies)
}
