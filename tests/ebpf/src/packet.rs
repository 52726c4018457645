//! The only module with raw packet pointers.

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_xdp_adjust_head, programs::XdpContext};

/// A copy of the `N` bytes at `offset`, or `None` where the packet is shorter.
#[inline(always)]
pub fn read<const N: usize>(ctx: &XdpContext, offset: usize) -> Option<[u8; N]> {
    let start = ctx.data() + offset;
    if start + N > ctx.data_end() {
        return None;
    }
    // SAFETY: the bytes lie between `data` and `data_end`, as compared above; a byte array has no alignment.
    Some(unsafe { *(start as *const [u8; N]) })
}

/// Writes `bytes` at `offset`; `None` where the packet is shorter.
#[inline(always)]
pub fn write<const N: usize>(ctx: &XdpContext, offset: usize, bytes: [u8; N]) -> Option<()> {
    let start = ctx.data() + offset;
    if start + N > ctx.data_end() {
        return None;
    }
    // SAFETY: the bytes lie between `data` and `data_end`, as compared above; a byte array has no alignment.
    unsafe { *(start as *mut [u8; N]) = bytes };
    Some(())
}

/// Removes the first `len` bytes of the packet.
#[inline(always)]
pub fn cut_front(ctx: &XdpContext, len: usize) -> Option<()> {
    let raw: *mut xdp_md = ctx.ctx;
    // SAFETY: `raw` is the context that the kernel gave to this program; no packet pointer outlives the call.
    match unsafe { bpf_xdp_adjust_head(raw, len as i32) } {
        0 => Some(()),
        _ => None,
    }
}
