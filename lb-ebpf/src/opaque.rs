//! A word between the compiler and what it knows.

/// The same word, of which the compiler no longer knows how it came about.
#[inline(always)]
pub fn opaque(word: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let same: usize;
        // SAFETY: copies a register. (No instruction at all would do, but then two lines of the source would share one
        // offset in the BTF line table, which the kernel refuses.)
        unsafe {
            core::arch::asm!("{0} = {1}", out(reg) same, in(reg) word, options(pure, nomem, nostack, preserves_flags));
        }
        same
    }
    #[cfg(not(target_arch = "bpf"))]
    word
}

/// [`opaque`], in the order in which the program says it: without that the compiler begins a long row of computations all at
/// once and needs a stack to hold them.
#[inline(always)]
pub fn opaque_in_order(word: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let same: usize;
        // SAFETY: as in `opaque`.
        unsafe {
            core::arch::asm!("{0} = {1}", out(reg) same, in(reg) word, options(nostack, preserves_flags))
        };
        same
    }
    #[cfg(not(target_arch = "bpf"))]
    word
}
