//! The program's maps and the names by which user space knows them.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use aya::EbpfLoader;
use lb_common::map_name;
use lb_userspace::dataplane::xdp::OBJECT;

/// Maps that only the program itself uses.
const INTERNAL: [&str; 4] = ["BUDGETS", "KERNEL_HOP", "NEW_PLACE", "OPENING"];
/// Maps that the toolchain adds: read-only data, and aya-log's ring buffer.
const TOOLCHAIN: [&str; 2] = [".rodata", "AYA_LOGS"];

/// Fails unless the object has exactly these maps.
pub fn are_known() -> Result<()> {
    // Loaded apart from the agent's code, which takes some maps out of what it loads.
    let ebpf = EbpfLoader::new().load(OBJECT)?;
    let there: BTreeSet<&str> = ebpf.maps().map(|(name, _)| name).collect();
    let known: BTreeSet<&str> =
        map_name::ALL.iter().chain(&INTERNAL).chain(&TOOLCHAIN).map(|name| &**name).collect();
    let unknown: Vec<_> = there.difference(&known).collect();
    let missing: Vec<_> = known.difference(&there).collect();
    ensure!(unknown.is_empty() && missing.is_empty(), "unknown: {unknown:?}; missing: {missing:?}");
    Ok(())
}
