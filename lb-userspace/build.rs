//! Finds the eBPF object that `cargo xtask build` made, so that the agent carries its own data plane.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=XDIRECTOR_XDP_OBJECT");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("xdirector-xdp.o");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let object = env::var_os("XDIRECTOR_XDP_OBJECT").map_or_else(
        || manifest.join("../target/bpf/bpfel-unknown-none/release/xdirector-xdp"),
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", object.display());
    // Without the object everything but `run` works (`check`, `status`, unit tests, clippy), and `run` says
    // what to do; failing here would keep an editor from checking the crate.
    let bytes = fs::read(&object).unwrap_or_else(|_| {
        println!("cargo::warning=no eBPF object yet; `cargo xtask build` makes it");
        Vec::new()
    });
    fs::write(&out, bytes).expect("OUT_DIR is writable");
    println!("cargo::rustc-env=XDIRECTOR_XDP_OBJECT_COPY={}", out.display());
}
