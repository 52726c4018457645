//! `bench failover`: two directors share an address, one of them fails, and a client asks every millisecond who is there. The same
//! script with two xdirectors and with two keepaliveds, run by run in turn, so that whatever else this machine does hits both.
//!
//! | Failure | What counts |
//! |---|---|
//! | silent cut | longest time without an answer; the master's cable is pulled out behind a switch |
//! | link down | the same; the master's own interface goes down |
//! | graceful stop | the same; SIGTERM |
//! | failback | the same; the stopped one starts again and takes over (not where the backup has priority 254 and keeps it) |
//! | kill -9 takeover | from SIGKILL until the other one answers; a dead master's address may go on answering |
//! | kill -9 doubled | for how long after it both machines have the address, at most [`WINDOW`] |
//! | SIGSTOP doubled | the master stands still for [`STANDSTILL`]: for how long both machines have the address |
//! | SIGSTOP outage | the same: longest time without an answer |

mod busy;
mod report;
mod script;

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use lab::{
    failover::{Instance, Kind, missing_for_keepalived},
    registry, requirements,
};

use report::{Cell, Report};
use script::{Failure, Pair};

/// For how long the address is watched after a SIGKILL's takeover.
pub const WINDOW: Duration = Duration::from_secs(1);
/// For how long the master is stopped.
pub const STANDSTILL: Duration = Duration::from_millis(1500);

/// Options of `bench failover`.
#[derive(Debug, Args)]
pub struct Options {
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// How often each failure happens to each program; all of it with 20 takes about an hour
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Only these configurations
    #[arg(long, value_enum, value_delimiter = ',')]
    config: Vec<Config>,
    /// Only this program
    #[arg(long, value_enum)]
    program: Option<Program>,
    /// How long the busy loops run, in seconds; 600 for the long version
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    busy_seconds: u64,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Program {
    /// This project's
    Xdirector,
    /// The one to compare with
    Keepalived,
}

impl Program {
    const ALL: [Self; 2] = [Self::Xdirector, Self::Keepalived];

    const fn kind(self) -> Kind {
        match self {
            Self::Xdirector => Kind::Xdirector,
            Self::Keepalived => Kind::Keepalived,
        }
    }

    fn missing(self) -> Option<String> {
        match self {
            Self::Xdirector => requirements::missing_for_director(),
            Self::Keepalived => missing_for_keepalived(),
        }
    }
}

/// What both directors run. The master's priority is 150.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Config {
    /// Version 2, an advert every second, the backup has priority 100
    #[value(name = "v2-1s")]
    V2,
    /// Version 3, an advert every 100 ms
    #[value(name = "v3-100ms")]
    V3,
    /// Version 3, an advert every 10 ms
    #[value(name = "v3-10ms")]
    V3Fast,
    /// As v2-1s, but the backup has priority 254 and nopreempt: the shortest skew that a backup can have
    #[value(name = "v2-1s-254")]
    V2High,
    /// As v3-100ms, with 254
    #[value(name = "v3-100ms-254")]
    V3High,
    /// As v3-10ms, with 254
    #[value(name = "v3-10ms-254")]
    V3FastHigh,
}

impl Config {
    const ALL: [Self; 6] = [Self::V2, Self::V3, Self::V3Fast, Self::V2High, Self::V3High, Self::V3FastHigh];

    const fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2 1s",
            Self::V3 => "v3 0.1s",
            Self::V3Fast => "v3 0.01s",
            Self::V2High => "v2 1s 254",
            Self::V3High => "v3 0.1s 254",
            Self::V3FastHigh => "v3 0.01s 254",
        }
    }

    const fn interval(self) -> Duration {
        match self {
            Self::V2 | Self::V2High => Duration::from_secs(1),
            Self::V3 | Self::V3High => Duration::from_millis(100),
            Self::V3Fast | Self::V3FastHigh => Duration::from_millis(10),
        }
    }

    /// Whether the backup keeps the address once it has it.
    const fn keeps(self) -> bool {
        matches!(self, Self::V2High | Self::V3High | Self::V3FastHigh)
    }

    fn instances(self) -> [Instance; 2] {
        let instance = |priority| {
            let instance = Instance::ipv4(50, priority);
            let is_v2 = matches!(self, Self::V2 | Self::V2High);
            if is_v2 { instance.v2() } else { instance.every(self.interval()) }
        };
        let backup = if self.keeps() { instance(254).nopreempt() } else { instance(100) };
        [instance(150), backup]
    }
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    let programs: Vec<Program> =
        Program::ALL.into_iter().filter(|one| options.program.is_none_or(|only| only == *one)).collect();
    for program in &programs {
        if let Some(why) = program.missing() {
            bail!("the lab cannot run here: {why}");
        }
    }
    registry::install();
    let configs: Vec<Config> = Config::ALL
        .into_iter()
        .filter(|one| options.config.is_empty() || options.config.contains(one))
        .collect();
    let mut report = Report::new(options.runs);
    let mut progress = Progress::default();
    for (position, config) in configs.iter().enumerate() {
        let where_we_are = format!("{} ({} of {})", config.name(), position + 1, configs.len());
        measure(*config, &programs, options.runs, &mut report, |text| {
            progress.say(&format!("{where_we_are}: {text}"));
        })
        .with_context(|| config.name())?;
    }
    for program in &programs {
        progress.say(&format!("busy loops, {} s: {}", options.busy_seconds, program.kind()));
        let seen = busy::run(program.kind(), Duration::from_secs(options.busy_seconds))?;
        report.busy.insert(program.kind(), seen);
    }
    progress.end();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report.json())?);
    } else {
        print!("{report}");
    }
    Ok(())
}

fn measure(
    config: Config,
    programs: &[Program],
    runs: u32,
    report: &mut Report,
    mut say: impl FnMut(&str),
) -> Result<()> {
    let mut pairs: BTreeMap<Program, Pair> = BTreeMap::new();
    for program in programs {
        pairs.insert(*program, Pair::start(program.kind(), config)?);
    }
    for run in 0..runs {
        for failure in Failure::ALL {
            for (program, pair) in &mut pairs {
                say(&format!("run {} of {runs}, {}, {}", run + 1, failure.name(), program.kind()));
                // Spread over the interval between two adverts.
                let phase = config.interval() * (2 * run + 1) / (2 * runs);
                let figures = pair
                    .run(failure, phase)
                    .with_context(|| format!("{} of {}, run {}", failure.name(), program.kind(), run + 1))?;
                for (name, time) in figures {
                    report.add(Cell { config: config.name(), failure: name }, program.kind(), time);
                }
            }
        }
    }
    pairs.into_values().try_for_each(Pair::stop)
}

/// One line that changes on a terminal; elsewhere a line for each ten seconds.
#[derive(Default)]
struct Progress {
    last: Option<Instant>,
}

impl Progress {
    fn say(&mut self, text: &str) {
        if std::io::stderr().is_terminal() {
            eprint!("\r{text:<79.79}");
            // Nothing depends on it.
            let _ = std::io::stderr().flush();
        } else if self.last.is_none_or(|last| last.elapsed() > Duration::from_secs(10)) {
            eprintln!("{text}");
            self.last = Some(Instant::now());
        }
    }

    fn end(&self) {
        if std::io::stderr().is_terminal() {
            eprintln!();
        }
    }
}
