//! The benchmarks' eBPF programs, as `cargo xtask build` made them.

use std::{env, ffi::OsString, fs, path::PathBuf};

use anyhow::{Result, anyhow};

/// Names another object file than the one that `cargo xtask build` makes.
const VARIABLE: &str = "XDIRECTOR_BENCH_OBJECT";
const BUILT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/bpfel-unknown-none/release/xdirector-bench");

/// The object file.
pub fn read() -> Result<Vec<u8>> {
    let path = PathBuf::from(env::var_os(VARIABLE).unwrap_or_else(|| OsString::from(BUILT)));
    fs::read(&path).map_err(|error| anyhow!("{}: {error}; `cargo xtask build` makes it", path.display()))
}
