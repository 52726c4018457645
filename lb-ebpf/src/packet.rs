//! The packet's bytes: the only place with raw packet pointers.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};

use crate::opaque::opaque;

/// A type that packets hold: any bytes are a value of it, and it has no padding.
///
/// Headers lie at odd addresses in a frame. The compiler is told that they are aligned all the same, as every eBPF program
/// in C tells its own: it then emits one instruction for each word, which the kernel runs at any address on every
/// architecture with efficient unaligned access and refuses to load on others. Told the truth it would put every word
/// together byte by byte (and LLVM 22's feature `allows-misaligned-mem-access`, meant for this, joins words on the stack as
/// well, where the verifier insists on alignment).
///
/// # Safety
/// Any bytes are a value of the type, it has no padding, and its address is never looked at.
pub unsafe trait Wire: Copy {}

macro_rules! wire {
    ($($t:ty),+) => {$(
        // SAFETY: integers and arrays of them hold any bits.
        unsafe impl Wire for $t {}
    )+};
}
// No single bytes: the comparison that guards one tells the verifier nothing (`find_good_pkt_pointers`).
wire!(u16, u32, u64, [u8; 2], [u8; 4], [u8; 6], [u32; 3], [u32; 4]);

/// One packet on its way through the program.
#[derive(Clone, Copy)]
pub struct Packet {
    ctx: *mut xdp_md,
}

/// The packet's bytes between two changes of its length.
#[derive(Clone, Copy)]
pub struct Window {
    start: usize,
    end: usize,
}

impl Packet {
    /// The packet for which the program runs.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self { ctx: ctx.ctx }
    }

    /// The packet of a context.
    ///
    /// # Safety
    /// `ctx` is the context that the kernel gave the program.
    #[inline(always)]
    pub unsafe fn from_raw(ctx: *mut xdp_md) -> Self {
        Self { ctx }
    }

    /// The kernel's context, for helpers.
    #[inline(always)]
    pub fn raw(self) -> *mut xdp_md {
        self.ctx
    }

    /// The bytes as they are now; every change of the length needs a new window.
    #[inline(always)]
    pub fn window(self) -> Window {
        // SAFETY: the kernel passes a valid context for the whole run of the program.
        // The fields are 32 bits wide for the compiler and pointers for the verifier. So that the compiler does not pass or
        // keep them as 32 bits, which would make them plain numbers, it must read them here and may not know their width.
        unsafe {
            let start = (&raw const (*self.ctx).data).read_volatile() as usize;
            let end = (&raw const (*self.ctx).data_end).read_volatile() as usize;
            Window { start: opaque(start), end: opaque(end) }
        }
    }

    /// Index of the interface that received the packet.
    #[inline(always)]
    pub fn ingress(self) -> u32 {
        // SAFETY: as in `window`.
        unsafe { (&raw const (*self.ctx).ingress_ifindex).read_volatile() }
    }

    /// The same number, of which the verifier no longer knows anything.
    ///
    /// For numbers that come out of many branches: the verifier follows what comes after once for each value it knows,
    /// and once for all that it does not know.
    #[inline(always)]
    pub fn forget(self, number: u64) -> u64 {
        // SAFETY: as in `window`. The verifier takes the field for any number.
        let any = unsafe { (&raw const (*self.ctx).rx_queue_index).read_volatile() } as usize;
        let any = opaque(any | any << 32);
        (opaque(number as usize ^ any) ^ any) as u64
    }

    /// Makes room for `bytes` in front (negative: cuts them off); `None` when the driver left no room.
    #[inline(always)]
    pub fn grow_front(self, bytes: i32) -> Option<Window> {
        // SAFETY: the context is valid; the helper checks the amount.
        let failed = unsafe { bpf_xdp_adjust_head(self.ctx, -bytes) } != 0;
        if failed { None } else { Some(self.window()) }
    }

    /// Changes the length at the end by `bytes`; `None` when that cannot be.
    #[inline(always)]
    pub fn grow_back(self, bytes: i32) -> Option<Window> {
        // SAFETY: as above.
        let failed = unsafe { bpf_xdp_adjust_tail(self.ctx, bytes) } != 0;
        if failed { None } else { Some(self.window()) }
    }
}

impl Window {
    /// Length in bytes.
    #[inline(always)]
    pub fn len(self) -> usize {
        self.end - self.start
    }

    /// The bytes from `offset` on.
    ///
    /// Offsets that the packet itself determines belong here, constant ones into `read` and `write`: then every access
    /// to a header starts from one register, whose bounds the verifier keeps, and the compiler does not compute the
    /// address that is checked apart from the one that is used.
    #[inline(always)]
    pub fn from(self, offset: usize) -> Self {
        Self { start: opaque(self.start + offset), end: self.end }
    }

    #[inline(always)]
    fn at<T: Wire>(self, offset: usize) -> Option<*mut T> {
        let pointer = self.start + offset;
        if pointer + size_of::<T>() > self.end { None } else { Some(pointer as *mut T) }
    }

    /// The value at `offset`; `None` when the packet ends before.
    #[inline(always)]
    pub fn read<T: Wire>(self, offset: usize) -> Option<T> {
        // SAFETY: `at` checked that all of it lies inside the packet; for its alignment see `Wire`.
        self.at(offset).map(|pointer: *mut T| unsafe { pointer.read() })
    }

    /// Writes `value` at `offset`; `None` when the packet ends before.
    #[inline(always)]
    pub fn write<T: Wire>(self, offset: usize, value: T) -> Option<()> {
        // SAFETY: `at` checked that all of it lies inside the packet, which is ours alone; for its alignment see `Wire`.
        self.at(offset).map(|pointer: *mut T| unsafe { pointer.write(value) })
    }
}
