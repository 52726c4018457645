//! The benchmarks' eBPF programs: the data plane as it is, the same wrapped for repeated runs, and what to compare
//! them with.
//!
//! BPF_PROG_TEST_RUN does not restore the packet between repeats, so a program that changes it would see its own output
//! from the second repeat on. `wrapped` puts back what the data plane changed.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod plan;
#[cfg(target_arch = "bpf")]
mod programs;
#[cfg(target_arch = "bpf")]
mod restore;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here can panic; should the compiler think otherwise, the verifier refuses this loop.
    loop {}
}

/// Helpers that are open to GPL-compatible programs only are used, so the kernel wants to know.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("these are eBPF programs; `cargo xtask build` builds them for the kernel");
}
