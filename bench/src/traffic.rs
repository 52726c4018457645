//! `bench traffic`: what goes through a lab with NAT in a second, by xdirector and by others in its place.
//!
//! ```text
//! a client each --- wan --- eth0 director eth1 --- lan --- three real servers
//! ```
//!
//! All machines of the lab share this machine's processors, so the figures say little by themselves: what counts is how
//! they compare. "routing" is the director's kernel without any balancing.

mod balancer;
mod load;
mod report;

use std::fmt;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use lab::{
    registry, requirements,
    topology::{self, Scene},
};

use balancer::{Balancer, Kind};
use report::Report;

/// Rounds, each through all balancers; the median counts.
const ROUNDS: usize = 3;

/// Options of `bench traffic`.
#[derive(Debug, Args)]
pub struct Options {
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// What was measured through one balancer.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// HTTP requests a second, each on its own TCP connection.
    pub connections: f64,
    /// Bytes a second of one download.
    pub bytes: f64,
    /// Smallest UDP packets a second that arrived; `None` for one that takes TCP only.
    pub packets: Option<f64>,
}

impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.0} connections/s, {:.0} MB/s", self.connections, self.bytes / 1e6)?;
        match self.packets {
            Some(packets) => write!(out, ", {packets:.0} packets/s"),
            None => Ok(()),
        }
    }
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    if let Some(why) = requirements::missing_for_director() {
        bail!("the lab cannot run here: {why}");
    }
    registry::install();
    let clients = u8::try_from(Kind::ALL.len())?;
    let scene = topology::nat(&topology::Options::new("traffic").clients(clients))?;
    let sinks = load::sinks(&scene)?;
    let mut generator = load::Generator::load()?;
    let mut report = Report::default();
    for round in 1..=ROUNDS {
        // A client of its own for each, so that none meets the remains of another's connections.
        for (kind, client) in Kind::ALL.into_iter().zip(&scene.clients) {
            eprintln!("Round {round} of {ROUNDS}: {}", kind.name());
            let balancer = Balancer::start(kind, &scene)?;
            let figures = measure(&balancer, &scene, client, &mut generator)
                .with_context(|| format!("measuring {}", kind.name()))?;
            balancer.stop()?;
            eprintln!("  {figures}");
            report.add(kind, figures);
        }
    }
    drop(sinks);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report.json())?);
    } else {
        print!("{report}");
    }
    Ok(())
}

fn measure(
    balancer: &Balancer,
    scene: &Scene,
    client: &lab::Client,
    generator: &mut load::Generator,
) -> Result<Figures> {
    let (connections, counts) = load::connections(client, balancer.web(scene)?)?;
    if balancer.kind() != Kind::Routing {
        let even = load::CONNECTIONS / scene.servers.len();
        ensure!(
            counts.len() == scene.servers.len()
                && counts.values().all(|count| count.abs_diff(even) <= even / 10),
            "the connections were not spread evenly: {counts:?}"
        );
    }
    let bytes = load::download(client, balancer.web(scene)?)?;
    let packets = match balancer.discard(scene)? {
        Some(target) => Some(generator.packets(scene, client, target)?),
        None => None,
    };
    Ok(Figures { connections, bytes, packets })
}
