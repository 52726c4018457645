//! The configuration file.

#![no_main]

use lb_userspace::{config, desired};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match config::parse("fuzz.toml", text) {
        Ok((config, _)) => drop(desired::desired(&config)),
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
});
