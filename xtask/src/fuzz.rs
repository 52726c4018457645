//! `cargo xtask fuzz`: libFuzzer on everything that reads what others wrote (`fuzz/`).
//!
//! The directory is laid out as cargo-fuzz expects it. cargo-fuzz itself needs a nightly toolchain for its sanitizers;
//! safe Rust needs none to find panics, so here the stable compiler only adds the coverage that libFuzzer steers by.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::Args;

use crate::{
    progress,
    setup::{self, Need},
    test_output::Counts,
    workspace::Workspace,
};

/// Each target, and the longest input in bytes that is worth its time.
const TARGETS: [(&str, u32); 9] = [
    ("config", 8192),
    ("datagram_answer", 600),
    ("http_answer", 4096),
    ("http_judgement", 1024),
    ("order", 1024),
    ("orders_file", 4096),
    ("smtp_answer", 4096),
    ("socket_request", 4096),
    ("vrrp_message", 1100),
];

/// What the compiler adds for libFuzzer: counters of edges, and calls at comparisons.
const COVERAGE: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg",
    "fuzzing",
];

/// What a test run tries of each target: so many inputs, or as many as fit the time.
const TEST_RUNS: u32 = 20_000;
const TEST_TIME: Duration = Duration::from_secs(5);

/// Which targets, for how long.
#[derive(Args)]
pub struct Options {
    /// One of the programs in fuzz/fuzz_targets; all of them, one after the other, unless given
    target: Option<String>,
    /// How long each runs
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

/// Fuzzes for some time. What reached new code is kept in `target/fuzz/corpus` for the next time.
///
/// # Errors
/// What a target found, or why there is none.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let targets = chosen(options.target.as_deref())?;
    let programs = build(workspace)?;
    for (name, longest) in targets {
        let kept = workspace.fuzz_target().join("corpus").join(name);
        let limit = format!("-max_total_time={}", options.seconds);
        let runs = fuzz(workspace, &programs, name, longest, &kept, &[&limit])?;
        println!("{name}: {runs} runs, nothing found");
    }
    Ok(())
}

/// A short run of each target, from the seeds alone and with the same random numbers each time.
///
/// # Errors
/// Why there is nothing to run; what a target finds is in the counts.
pub fn test(workspace: &Workspace) -> Result<Counts> {
    let programs = build(workspace)?;
    let mut counts = Counts::default();
    for (name, longest) in TARGETS {
        let scratch = workspace.fuzz_target().join("test-corpus").join(name);
        if scratch.exists() {
            fs::remove_dir_all(&scratch)
                .with_context(|| format!("could not remove {}", scratch.display()))?;
        }
        let limits =
            ["-seed=1", &format!("-runs={TEST_RUNS}"), &format!("-max_total_time={}", TEST_TIME.as_secs())];
        let label = format!("fuzz: {name}");
        match fuzz(workspace, &programs, name, longest, &scratch, &limits) {
            Ok(runs) => {
                println!("{label}: {runs} runs");
                counts.add(Counts::single(&label, true));
            }
            Err(error) => {
                println!("{error:#}");
                counts.add(Counts::single(&label, false));
            }
        }
    }
    Ok(counts)
}

fn chosen(name: Option<&str>) -> Result<Vec<(&'static str, u32)>> {
    let Some(name) = name else { return Ok(TARGETS.to_vec()) };
    let found: Vec<_> = TARGETS.into_iter().filter(|(target, _)| *target == name).collect();
    if found.is_empty() {
        let names = TARGETS.map(|(target, _)| target).join(", ");
        bail!("there is no fuzz target `{name}`; there are {names}");
    }
    Ok(found)
}

/// Builds all targets; returns the directory of the programs.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    setup::ensure_packages(workspace, &[Need::Fuzz])?;
    let host = host()?;
    let mut command = workspace.cargo();
    command
        .args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml"])
        // With a target of its own, cargo keeps the flags away from build scripts, which could not be linked with them.
        .args(["--target", &host, "--target-dir"])
        .arg(workspace.fuzz_target())
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"))
        .env_remove("RUSTFLAGS");
    progress::run("Building the fuzz targets", &mut command, &workspace.log("fuzz-build"))?;
    Ok(workspace.fuzz_target().join(host).join("release"))
}

fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("could not start `rustc -vV`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(ToOwned::to_owned)
        .with_context(|| format!("`rustc -vV` names no host: {text}"))
}

/// Runs one target from its seeds and what `kept` holds, where new finds are added. Returns the number of runs.
fn fuzz(
    workspace: &Workspace,
    programs: &Path,
    name: &str,
    longest: u32,
    kept: &Path,
    limits: &[&str],
) -> Result<u64> {
    let folder = workspace.root().join("fuzz");
    // The name that cargo-fuzz gives it.
    let artifacts = folder.join("artifacts").join(name);
    for directory in [kept, &artifacts] {
        fs::create_dir_all(directory).with_context(|| format!("could not make {}", directory.display()))?;
    }
    let mut command = Command::new(programs.join(name));
    command
        .current_dir(&folder)
        .arg(kept)
        .arg(Path::new("corpus").join(name))
        .args(limits)
        .args([&format!("-max_len={longest}"), "-rss_limit_mb=512", "-timeout=5"])
        .arg(format!("-artifact_prefix={}/", artifacts.display()));
    let words = Path::new("dictionaries").join(name).with_extension("dict");
    if folder.join(&words).is_file() {
        command.arg(format!("-dict={}", words.display()));
    }
    let log = workspace.log(&format!("fuzz-{name}"));
    progress::run(&format!("Fuzzing {name}"), &mut command, &log).map_err(|error| {
        let program = programs.join(name);
        anyhow!("{error:#}\n\nTo try what it found once more: {} FILE", program.display())
    })?;
    let text = fs::read(&log).with_context(|| format!("could not read {}", log.display()))?;
    let runs = runs(&String::from_utf8_lossy(&text));
    // A program that tried nothing found nothing, which must not look like a result.
    ensure!(runs.is_some_and(|runs| runs > 0), "{name} ran nothing; see {}", log.display());
    Ok(runs.unwrap_or_default())
}

/// The number in libFuzzer's last words, `Done 20000 runs in 3 second(s)`.
fn runs(output: &str) -> Option<u64> {
    let line = output.lines().rev().find_map(|line| line.strip_prefix("Done "))?;
    line.split_once(" runs ")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn read(path: &str) -> String {
        fs::read_to_string(Workspace::find().unwrap().root().join(path)).unwrap()
    }

    #[test]
    fn every_target_is_run_and_has_seeds() {
        let folder = Workspace::find().unwrap().root().join("fuzz");
        let sources = fs::read_dir(folder.join("fuzz_targets")).unwrap().map(|entry| {
            let path = entry.unwrap().path();
            path.file_stem().unwrap().to_str().unwrap().to_owned()
        });
        let names = TARGETS.map(|(name, _)| name.to_owned());
        assert_eq!(sources.collect::<BTreeSet<_>>(), BTreeSet::from(names));
        let manifest = read("fuzz/Cargo.toml");
        for (name, longest) in TARGETS {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not built");
            let mut seeds = fs::read_dir(folder.join("corpus").join(name)).unwrap();
            // libFuzzer would cut a longer one.
            assert!(seeds.all(|seed| seed.unwrap().metadata().unwrap().len() <= longest.into()), "{name}");
        }
        assert!(chosen(None).unwrap().len() == TARGETS.len() && chosen(Some("config")).unwrap().len() == 1);
        assert!(chosen(Some("confi")).unwrap_err().to_string().contains("config, datagram_answer"));
    }

    /// What is fuzzed must be what is shipped.
    #[test]
    fn the_lock_files_agree() {
        let versions = |path: &str| {
            let text = read(path);
            let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            let mut lines = text.lines();
            while let Some(line) = lines.next() {
                if let Some(name) = line.strip_prefix("name = ") {
                    let version = lines.next().unwrap().to_owned();
                    versions.entry(name.to_owned()).or_default().insert(version);
                }
            }
            versions
        };
        let ours = versions("Cargo.lock");
        for (name, fuzzed) in versions("fuzz/Cargo.lock") {
            if let Some(shipped) = ours.get(&name) {
                assert!(
                    fuzzed.is_subset(shipped),
                    "{name}: fuzz/Cargo.lock has {fuzzed:?}, Cargo.lock {shipped:?}; copy Cargo.lock to fuzz/ and \
                     run `cargo metadata --manifest-path fuzz/Cargo.toml`"
                );
            }
        }
    }

    #[test]
    fn the_runs_are_counted() {
        assert_eq!(runs("#20000\tDONE cov: 12\nDone 20000 runs in 3 second(s)\nstat: x\n"), Some(20_000));
        assert_eq!(runs("INFO: Seed: 1\n"), None);
    }
}
