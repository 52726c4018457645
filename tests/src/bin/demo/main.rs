//! `cargo xtask demo`: watch xdirector balance real connections, in a lab of network namespaces.

mod control;
mod scenario;
mod servers;
mod show;

use std::{process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use lab::{
    Director,
    network::remove_kept,
    registry, requirements,
    topology::{self, PORTS, Scene},
};

use scenario::Scenario;
use servers::Servers;

/// Watch xdirector balance real connections, in a lab of network namespaces
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo", version)]
struct Arguments {
    /// What to show; all of them by default
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// Leave the lab up at the end, to play with
    #[arg(long, conflicts_with = "clean")]
    keep: bool,
    /// Remove the labs that --keep left
    #[arg(long)]
    clean: bool,
    /// Be the real server of this name (the demo starts itself so, for --keep)
    #[arg(long, hide = true, value_name = "NAME", conflicts_with_all = ["keep", "clean", "scenarios"])]
    serve: Option<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if let Some(name) = &arguments.serve {
        return servers::serve_forever(name);
    }
    if arguments.clean {
        return clean();
    }
    if let Some(why) = requirements::missing_for_director() {
        bail!("the demo cannot run here: {why}");
    }
    registry::install();
    let start = Instant::now();
    let wanted = if arguments.scenarios.is_empty() { Scenario::ALL.as_slice() } else { &arguments.scenarios };
    for scenario in wanted {
        play(*scenario, arguments.keep).with_context(|| format!("{} failed", scenario.title()))?;
    }
    show::end(start.elapsed(), wanted.len(), arguments.keep);
    Ok(())
}

fn play(scenario: Scenario, keep: bool) -> Result<()> {
    show::heading(scenario);
    if keep {
        // The names of a kept lab are the same in every run.
        remove_kept(scenario.label())?;
    }
    let options =
        topology::Options { fixed_name: keep, serve: !keep, ..topology::Options::new(scenario.label()) };
    let mut scene = topology::build(scenario.mode(), &options)?;
    let servers = if keep { Servers::start(&scene)? } else { Servers::default() };
    let configuration = scenario.configuration(&scene);
    show::configuration(scenario, &scene);
    let mut director = Director::start(&scene.director, configuration.text())?;
    show::attached(&director)?;
    match scenario {
        Scenario::S11 => control::play(&mut scene, &mut director, !keep)?,
        _ => traffic(scenario, &scene, &director)?,
    }
    if keep {
        scene.lab.keep()?;
        servers.keep();
        let directory = director.keep();
        show::how_to_play(&scene, &directory);
    } else {
        director.stop()?;
        drop(scene);
    }
    Ok(())
}

fn traffic(scenario: Scenario, scene: &Scene, director: &Director) -> Result<()> {
    let client = scene.client();
    let weights = scenario.weights();
    let round = weights.iter().sum::<u32>() as usize;
    for address in [topology::vip4(80), topology::vip6(80)] {
        let url = format!("http://{}/", show::without_default_port(address));
        let answers = client.curl_each(&url, round)?;
        show::answers(&url, &answers);
    }
    let count = round * 100;
    let counts = client.http_counts(topology::vip4(80), count)?;
    show::distribution(&format!("{count} TCP connections"), &counts, &scene.servers, weights)?;
    let counts = client.udp_counts(topology::vip4(PORTS[0]), count)?;
    show::distribution(&format!("{count} UDP datagrams"), &counts, &scene.servers, weights)?;
    let start = Instant::now();
    let sum = client.download(&topology::VIP4.to_string(), scenario::DOWNLOAD)?;
    show::download(scenario::DOWNLOAD, start.elapsed(), &sum);
    show::command_output("xdirector status", &director.command(&["status"])?, usize::MAX);
    show::command_output("xdirector connections", &director.command(&["connections"])?, 9);
    Ok(())
}

fn clean() -> Result<()> {
    let mut found = false;
    for scenario in Scenario::ALL {
        if remove_kept(scenario.label())? {
            println!("removed the lab of {}", scenario.title());
            found = true;
        }
    }
    if !found {
        println!("no lab to remove");
    }
    Ok(())
}
