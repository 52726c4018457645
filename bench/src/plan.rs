//! The plan by which the eBPF programs put a packet back.

use anyhow::{Context as _, Result};
use aya::{Ebpf, maps::Array};

/// The layout that the programs share with this file.
#[path = "../ebpf/src/plan.rs"]
mod layout;
pub use layout::Plan;

/// The name of the plan's map.
const MAP: &str = "PLAN";

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Value(Plan);
// SAFETY: integers without padding.
unsafe impl aya::Pod for Value {}

/// Puts back `packet`, TCP or UDP over IPv4 without options, in all fields but those of the flow.
pub fn of(packet: &[u8]) -> Result<Plan> {
    let word = |at: usize| -> Result<u32> {
        Ok(u32::from_ne_bytes(packet.get(at..at + 4).context("a short packet")?.try_into()?))
    };
    let half = |at: usize| -> Result<u16> {
        Ok(u16::from_ne_bytes(packet.get(at..at + 2).context("a short packet")?.try_into()?))
    };
    Ok(Plan {
        macs: [word(0)?, word(4)?, word(8)?],
        header: [word(14)?, word(18)?, word(22)?, word(26)?, word(30)?],
        ports: word(34)?,
        ethertype: half(12)?,
        checksum: half(50)?,
        ..Plan::default()
    })
}

/// Sets the plan of the next runs.
pub fn set(ebpf: &mut Ebpf, plan: Plan) -> Result<()> {
    let map = ebpf.map_mut(MAP).context("the benchmark's object has no plan")?;
    Array::<_, Value>::try_from(map)?.set(0, Value(plan), 0)?;
    Ok(())
}
