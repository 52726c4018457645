//! The XDP program's entry: one packet in, one verdict, one action.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::{
        macros::{cgroup_sock_addr, xdp},
        programs::{SockAddrContext, XdpContext},
    };

    #[xdp]
    fn xdirector(ctx: XdpContext) -> u32 {
        lb_ebpf::run(&ctx)
    }

    #[xdp]
    fn clock(ctx: XdpContext) -> u32 {
        lb_ebpf::clock(&ctx)
    }

    #[cgroup_sock_addr(connect4)]
    fn connect4(ctx: SockAddrContext) -> i32 {
        lb_ebpf::local::connect(&ctx, false)
    }

    #[cgroup_sock_addr(connect6)]
    fn connect6(ctx: SockAddrContext) -> i32 {
        lb_ebpf::local::connect(&ctx, true)
    }

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        // Nothing in the program can panic; should the compiler think otherwise, the verifier refuses this loop.
        loop {}
    }

    /// Helpers that are open to GPL-compatible programs only are used, so the kernel wants to know.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this is an eBPF program; `cargo xtask build` builds it for the kernel");
}
