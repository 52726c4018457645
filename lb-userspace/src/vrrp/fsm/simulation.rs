//! A simulated network of directors, from a seed: whatever happens to it, it must find back to one master.
//!
//! Each seed draws a configuration (2 to 5 nodes, 1 to 3 virtual routers, in a sync group or not) and a time of disturbances:
//! lost, doubled, late and reordered packets, partitions (one-way ones too), nodes that stand still and wake, crash (with and
//! without a guard) and start again, interfaces that fail, priorities that change, handovers. Then the network heals. The
//! [rules] hold all the time, or from then on. Every node's clock has a rate of its own.
//!
//! `XDIRECTOR_SIMULATION_SEEDS=1000000` is how many seeds are run, [`SEEDS`] unless given. `XDIRECTOR_SIMULATION_SEED=7` runs
//! one and prints what happens in it.

mod plan;
mod rules;
mod world;

use std::{
    env, fmt,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use self::{plan::Plan, world::World};

/// How many seeds are run.
const SEEDS: u64 = 100_000;
/// Threads that share them.
const THREADS: usize = 2;

/// A seed that breaks a rule, with all that happened.
struct Failure {
    seed: u64,
    rule: String,
    trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, rule, trace } = self;
        writeln!(f, "{}", trace.join("\n"))?;
        writeln!(f, "seed {seed} breaks a rule: {rule}")?;
        write!(
            f,
            "again: XDIRECTOR_SIMULATION_SEED={seed} cargo test -p lb-userspace --lib vrrp::fsm::simulation -- --nocapture"
        )
    }
}

/// Runs one seed; on failure a second time, with a trace.
fn run(seed: u64) -> Result<(), Failure> {
    if World::new(Plan::new(seed), false).run().is_ok() {
        return Ok(());
    }
    let mut world = World::new(Plan::new(seed), true);
    let rule = world.run().err().unwrap_or_else(|| "the second run differs from the first".to_owned());
    Err(Failure { seed, rule, trace: world.trace() })
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

/// RFC 3768 and RFC 9568 6.4 as a whole: one master, the right one, in time, and then quiet.
#[test]
fn after_any_disturbance_there_is_one_master_and_quiet() {
    if let Some(seed) = number("XDIRECTOR_SIMULATION_SEED") {
        let mut world = World::new(Plan::new(seed), true);
        let end = world.run();
        println!("{}", world.trace().join("\n"));
        return end.unwrap_or_else(|rule| panic!("seed {seed} breaks a rule: {rule}"));
    }
    let seeds = number("XDIRECTOR_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds {
            return Ok::<(), Failure>(());
        }
        run(seed).inspect_err(|_| next.store(seeds, Ordering::Relaxed))?;
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            if let Err(failure) = worker.join().expect("a machine has panicked") {
                panic!("{failure}");
            }
        }
    });
}

/// A seed is worth nothing if it does not lead to the same again.
#[test]
fn a_seed_replays() {
    for seed in 0..20 {
        let [first, second] = [(); 2].map(|()| {
            let mut world = World::new(Plan::new(seed), true);
            world.run().map(|()| world.trace())
        });
        assert!(first.as_ref().is_ok_and(|trace| !trace.is_empty()), "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
    }
}
