//! The connection table's memory: how much it is, and clearing it between runs.

use std::{
    fs,
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use anyhow::{Context as _, Result};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes of kernel memory that a map takes, by its entry in /proc.
pub fn charged(map: BorrowedFd<'_>) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:")).context("no memlock")?;
    Ok(bytes.trim().parse()?)
}

/// Overwrites a map that can be mapped into memory with zeroes. `bytes`: of its values.
pub fn clear(map: impl AsFd, bytes: usize) -> Result<()> {
    // SAFETY: asks the kernel for the size of a page.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })?;
    let len = NonZeroUsize::new(bytes.next_multiple_of(page)).context("an empty map")?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let base = unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, map, 0) }?;
    // SAFETY: the mapping is that long, and nobody else looks at it: no packet runs now.
    unsafe { base.cast::<u8>().write_bytes(0, bytes) };
    // SAFETY: the mapping from above.
    unsafe { munmap(base, len.get()) }?;
    Ok(())
}
