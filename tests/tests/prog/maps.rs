//! The program's maps and the names by which user space knows them.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use lb_common::map_name;

use crate::setup::Setup;

/// Maps that only the program itself uses.
const INTERNAL: [&str; 4] = ["BUDGETS", "KERNEL_HOP", "NEW_PLACE", "OPENING"];
/// Maps that the toolchain adds: read-only data, and the ring buffer and level of aya-log.
const TOOLCHAIN: [&str; 2] = [".rodata", "AYA_LOGS"];

/// Fails unless the object has exactly these maps. Those that user space has taken for itself are no longer in the
/// object; that the program was loaded proves them.
pub fn are_known() -> Result<()> {
    let object = aya_obj_maps()?;
    let known: BTreeSet<String> = map_name::ALL
        .iter()
        .chain(&INTERNAL)
        .chain(&TOOLCHAIN)
        .map(|name| (*name).to_owned())
        .collect();
    let unknown: Vec<_> = object.difference(&known).collect();
    let missing: Vec<_> = known.difference(&object).collect();
    ensure!(unknown.is_empty() && missing.is_empty(), "unknown: {unknown:?}; missing: {missing:?}");
    Ok(())
}

fn aya_obj_maps() -> Result<BTreeSet<String>> {
    // The maps as the object defines them: loaded apart from the agent's code, which takes some out.
    Setup::Small.with(|_| {
        let ebpf = aya::EbpfLoader::new().load(lb_userspace::dataplane::xdp::OBJECT)?;
        Ok(ebpf.maps().map(|(name, _)| name.to_owned()).collect())
    })
}
