//! Small programs for the lab: each stands in for a device or a property that the lab's kernel lacks.
//!
//! | Program | Hook | What it is for |
//! |---|---|---|
//! | `pass` | XDP | A veth takes XDP_TX and redirected frames only when its peer runs an XDP program |
//! | `decap` | XDP | A real server's `tunl0` or `ip6tnl0`: takes the outer IP header off |
//! | `reflect` | XDP | Sends UDP datagrams to port 7 back with XDP_TX: proves that a lab carries such frames |
//! | `vlan_push` | tc egress | Tags IP packets as an 802.1Q device would |
//! | `vlan_pop` | tc ingress | Takes the tag off again |
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]

#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod programs;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here can panic: the verifier would refuse an endless loop.
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
