//! The program's maps and the names by which user space knows them, and loading the program in other ways than the cases.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result, ensure};
use aya::{EbpfLoader, maps::Map, programs::Program};
use lb_common::{map_name, settings::TRACE};
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

/// Fails unless the kernel would map the maps that the agent has in its memory.
pub fn can_be_mapped() -> Result<()> {
    const BPF_F_MMAPABLE: u32 = 1 << 10;
    let ebpf = EbpfLoader::new().load(OBJECT)?;
    for name in [
        map_name::CURSORS,
        map_name::SLOTS,
        map_name::SERVERS,
        map_name::LOADS,
        map_name::TAGS,
        map_name::CONNECTIONS,
        map_name::FILTER,
        map_name::ROLES,
    ] {
        let Some(Map::Array(data)) = ebpf.map(name) else { anyhow::bail!("{name} is no array map") };
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd()))?;
        let flags = info.lines().find_map(|line| line.strip_prefix("map_flags:")).context("no flags")?;
        let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16)?;
        ensure!(flags & BPF_F_MMAPABLE != 0, "{name} has the flags {flags:#x}");
    }
    Ok(())
}

/// Fails unless the verifier takes the program with its debug events, which need more of the stack, and far from the million
/// instructions at which it gives up: other kernels need several times as many as this one for what they know less of.
pub fn load_with_events() -> Result<()> {
    const MOST: u32 = 250_000;
    let mut ebpf = EbpfLoader::new().override_global(TRACE, &1u8, true).load(OBJECT)?;
    for (name, program) in ebpf.programs_mut() {
        let info = match program {
            Program::Xdp(program) => {
                program.load()?;
                program.info()?
            }
            Program::CgroupSockAddr(program) => {
                program.load()?;
                program.info()?
            }
            _ => continue,
        };
        // Kernels before 5.16 do not tell.
        if let Some(followed) = info.verified_instruction_count() {
            ensure!(followed <= MOST, "the verifier followed {followed} instructions of {name}");
        }
    }
    Ok(())
}
