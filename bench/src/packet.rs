//! `bench packet`: nanoseconds a packet by BPF_PROG_TEST_RUN, on one CPU. docs/performance.md tells the method.

mod frames;
mod measure;
mod memory;
mod plane;
mod report;
mod target;

use anyhow::Result;
use clap::Args;
use lb_common::Verdict;

use frames::{Frames, Kind};
use measure::{Measurement, Runs};
use plane::Plane;
use report::Report;

/// Connections of the table on which everything is measured.
const MAX_CONNECTIONS: u32 = 1 << 20;
/// New flows in one run: the table stays half empty.
const NEW_FLOWS: u32 = 500_000;
/// How many known flows the sweep takes turns over.
const SWEEP: [u32; 3] = [1 << 12, 1 << 16, 1 << 20];

/// Options of `bench packet`.
#[derive(Debug, Args)]
pub struct Options {
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Fewer and shorter runs: a look while working on the program, not for publishing
    #[arg(long)]
    quick: bool,
    /// The CPU to stay on; the last one by default
    #[arg(long, value_name = "NUMBER")]
    cpu: Option<usize>,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    let cpu = crate::cpu::pin(options.cpu)?;
    let report = measure_all(if options.quick { Runs::QUICK } else { Runs::FULL }, cpu)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report.json())?);
    } else {
        print!("{report}");
    }
    Ok(())
}

fn measure_all(runs: Runs, cpu: usize) -> Result<Report> {
    eprintln!("Loading the data plane with room for {MAX_CONNECTIONS} NAT connections");
    let mut plane = Plane::load(MAX_CONNECTIONS)?;
    let mut report = Report::new(runs, cpu, plane.bytes_per_connection(MAX_CONNECTIONS)?);

    eprintln!("Measuring an empty program, the floor, and single flows");
    report.empty = plane.bare("empty", runs)?;
    report.floor = plane.bare("floor", runs)?;
    let stranger = Frames::to_nobody();
    report.path("pass_ns", plane.unchanged(&stranger, Verdict::PassNotOurs, runs)?);
    for (kind, name, verdict) in
        [(Kind::Dr, "dr_hit_ns", Verdict::ForwardDr), (Kind::Tun, "tun_hit_ns", Verdict::ForwardTun)]
    {
        plane.clear()?;
        let frames = plane.establish(kind)?;
        report.path(name, plane.changed(kind, &frames, verdict, runs)?);
    }
    plane.clear()?;
    let forward = plane.establish(Kind::Nat)?;
    report.path("nat_forward_ns", plane.changed(Kind::Nat, &forward, Verdict::ForwardNat, runs)?);
    let reverse = forward.answer()?;
    report.path("nat_reverse_ns", plane.changed(Kind::Nat, &reverse, Verdict::ReverseNat, runs)?);
    for kind in [Kind::Dr, Kind::Tun, Kind::Nat] {
        report.restore.insert(kind.name(), plane.restore_alone(kind, runs)?);
    }

    for (kind, name) in [(Kind::Tun, "new_flow_ns"), (Kind::Nat, "new_flow_nat_ns")] {
        eprintln!(
            "Measuring new flows ({}): {NEW_FLOWS} in each run, then the table is cleared",
            kind.name()
        );
        report.path(name, plane.new_flows(kind, NEW_FLOWS, runs)?);
    }
    for flows in SWEEP {
        eprintln!("Measuring {flows} known flows in turn");
        report.sweep.insert(flows, plane.known_flows(flows, runs)?);
    }
    eprintln!("Measuring the floor again");
    report.floor_after = plane.bare("floor", runs)?;
    Ok(report)
}

impl Plane {
    /// A program that needs no plan and no tables.
    fn bare(&mut self, program: &'static str, runs: Runs) -> Result<Measurement> {
        let frames = Frames::to_nobody();
        runs.measure(runs.repeats, |repeats| self.run(program, &frames.input, repeats))
    }
}
