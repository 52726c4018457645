//! `bench ipvs`: what a packet costs the director by the kernel's IPVS and by XDP, in instructions.
//!
//! ```text
//! client eth0 === eth0 director eth1 === eth0 server, where an XDP program drops
//! ```
//!
//! It wants a machine in which an instruction is a nanosecond (`cargo xtask vm --counted`, which `cargo xtask bench ipvs` boots):
//! the elapsed time is the number of instructions then, of everything that the packet makes the one processor do. The same with an
//! XDP program that drops at the director's first interface is the generator's share, and is taken off. Both data planes are left with
//! the cost of the cable to the server, and of the drop there.

mod wire;

use std::{collections::BTreeMap, fmt::Write as _, fs, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use lab::{Director, registry, requirements};
use serde_json::{Value, json};

use wire::Wire;

/// Packets of one measurement.
const PACKETS: u32 = 20_000;
/// Measurements; the least counts, since nothing makes a packet cheaper than it is.
const RUNS: usize = 5;

/// Options of `bench ipvs`.
#[derive(Debug, Args)]
pub struct Options {
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

const KINDS: [&str; 3] = ["nat", "dr", "tun"];
const DATA_PLANES: [&str; 2] = ["ipvs", "xdp"];

/// Instructions a packet, the generator's share among them.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    /// Of a flow that is known.
    known: f64,
    /// Of the first packet of a flow.
    new: f64,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    if let Some(why) = requirements::missing_for_ipvs() {
        bail!("{why}; `cargo xtask bench ipvs` measures there");
    }
    registry::install();
    crate::cpu::pin(None)?;
    let baseline = {
        eprintln!("The generator alone");
        let mut wire = Wire::new("none")?;
        wire.drop_at_the_director()?;
        let known = wire.cheapest(RUNS, PACKETS, 1)?;
        Cost { known, new: wire.cheapest(RUNS, PACKETS, wire::FLOWS)? }
    };
    let mut costs = BTreeMap::new();
    for dataplane in DATA_PLANES {
        for kind in KINDS {
            eprintln!("{dataplane}, {kind}");
            let cost = measure(dataplane, kind).with_context(|| format!("{dataplane}, {kind}"))?;
            costs.insert(
                (dataplane, kind),
                Cost { known: cost.known - baseline.known, new: cost.new - baseline.new },
            );
        }
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&document(&kernel, baseline, &costs))?);
    } else {
        print!("{}", table(&kernel, baseline, &costs));
    }
    Ok(())
}

fn measure(dataplane: &str, kind: &str) -> Result<Cost> {
    let mut wire = Wire::new(&format!("{dataplane}-{kind}"))?;
    let mut director = Director::start(&wire.director, &wire.configuration(dataplane, kind))?;
    let known = wire.cheapest(RUNS, PACKETS, 1)?;
    let new = wire.cheapest(RUNS, PACKETS, wire::FLOWS)?;
    let flows = u64::from(PACKETS) * RUNS as u64;
    // IPVS adds its counters up every two seconds.
    let are_counted = registry::wait_until(Duration::from_secs(20), || {
        let status = director.status().unwrap_or_default();
        status["totals"]["stats"]["connections"].as_u64().is_some_and(|connections| connections >= flows)
    });
    ensure!(are_counted, "fewer than {flows} connections were scheduled: {}", director.status()?["totals"]);
    director.command(&["stop", "--detach"])?;
    director.stop()?;
    Ok(Cost { known, new })
}

type Costs = BTreeMap<(&'static str, &'static str), Cost>;

fn ratio(costs: &Costs, kind: &'static str, of: impl Fn(&Cost) -> f64) -> f64 {
    of(&costs[&("ipvs", kind)]) / of(&costs[&("xdp", kind)])
}

fn document(kernel: &str, baseline: Cost, costs: &Costs) -> Value {
    let round = |value: f64| (value * 100.0).round() / 100.0;
    let of = |dataplane: &'static str, of: fn(&Cost) -> f64| -> Value {
        KINDS
            .iter()
            .map(|kind| ((*kind).to_owned(), json!(round(of(&costs[&(dataplane, *kind)])))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let ratios = |of: fn(&Cost) -> f64| -> Value {
        KINDS
            .iter()
            .map(|kind| ((*kind).to_owned(), json!(round(ratio(costs, kind, of)))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    json!({
        "kernel": kernel,
        "packets": PACKETS,
        "baseline": { "known": round(baseline.known), "new": round(baseline.new) },
        "ipvs": of("ipvs", |cost| cost.known),
        "xdp": of("xdp", |cost| cost.known),
        "ratio": ratios(|cost| cost.known),
        "new_flows": {
            "ipvs": of("ipvs", |cost| cost.new),
            "xdp": of("xdp", |cost| cost.new),
            "ratio": ratios(|cost| cost.new),
        },
    })
}

fn table(kernel: &str, baseline: Cost, costs: &Costs) -> String {
    let mut text = format!(
        "Instructions a packet at the director, Linux {kernel}\n(the generator's {:.0} and {:.0} are taken off)\n\n\
         {:<10} {:>8} {:>8} {:>8}\n",
        baseline.known, baseline.new, "", "IPVS", "XDP", "ratio"
    );
    for (title, of) in
        [("known flow", (|cost| cost.known) as fn(&Cost) -> f64), ("new flow", |cost| cost.new)]
    {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{title}");
        for kind in KINDS {
            let (ipvs, xdp) = (of(&costs[&("ipvs", kind)]), of(&costs[&("xdp", kind)]));
            let _ = writeln!(text, "  {kind:<8} {ipvs:>8.0} {xdp:>8.0} {:>8.1}", ipvs / xdp);
        }
    }
    text
}
