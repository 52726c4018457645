//! Atomic operations on words that other CPUs and the agent change at the same time.
//!
//! `core::sync::atomic` offers eBPF no read-modify-write operations although the instruction set has them
//! (since v3), so these go to the compiler's intrinsics; on the host they are the standard ones.

#[cfg(target_arch = "bpf")]
mod imp {
    use core::intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg, atomic_xadd, atomic_xchg};

    #[inline(always)]
    pub unsafe fn compare_exchange(word: *mut u32, old: u32, new: u32) -> bool {
        // SAFETY: the caller vouches for the pointer.
        unsafe { atomic_cxchg::<u32, { SeqCst }, { SeqCst }>(word, old, new).1 }
    }

    #[inline(always)]
    pub unsafe fn swap(word: *mut u32, new: u32) -> u32 {
        // SAFETY: as above.
        unsafe { atomic_xchg::<u32, { SeqCst }>(word, new) }
    }

    #[inline(always)]
    pub unsafe fn fetch_add(word: *mut u32, by: u32) -> u32 {
        // SAFETY: as above.
        unsafe { atomic_xadd::<u32, u32, { SeqCst }>(word, by) }
    }
}

#[cfg(not(target_arch = "bpf"))]
mod imp {
    use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

    pub unsafe fn compare_exchange(word: *mut u32, old: u32, new: u32) -> bool {
        // SAFETY: the caller vouches for the pointer.
        unsafe { AtomicU32::from_ptr(word) }.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }

    pub unsafe fn swap(word: *mut u32, new: u32) -> u32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(word) }.swap(new, SeqCst)
    }

    pub unsafe fn fetch_add(word: *mut u32, by: u32) -> u32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(word) }.fetch_add(by, SeqCst)
    }
}

/// A word that is changed atomically: a pointer into a map's value.
#[derive(Clone, Copy)]
pub struct Atomic(*mut u32);

impl Atomic {
    /// # Safety
    /// `word` points to an aligned `u32` inside a map's value, which lives as long as the program runs.
    #[inline(always)]
    pub unsafe fn new(word: *mut u32) -> Self {
        Self(word)
    }

    /// The value now.
    #[inline(always)]
    pub fn load(self) -> u32 {
        // SAFETY: by the contract of `new`; volatile, because others write it.
        unsafe { self.0.read_volatile() }
    }

    /// Writes without asking what was there: for words of which only the last value counts.
    #[inline(always)]
    pub fn store(self, value: u32) {
        // SAFETY: by the contract of `new`.
        unsafe { self.0.write_volatile(value) }
    }

    /// Changes `old` to `new`; false when it was not `old`.
    #[inline(always)]
    pub fn compare_exchange(self, old: u32, new: u32) -> bool {
        // SAFETY: by the contract of `new`.
        unsafe { imp::compare_exchange(self.0, old, new) }
    }

    /// Sets `new`, after everything that was written before (a full barrier).
    #[inline(always)]
    pub fn publish(self, new: u32) {
        // SAFETY: by the contract of `new`.
        unsafe { imp::swap(self.0, new) };
    }

    /// Adds `by`, wrapping; gives the value before.
    #[inline(always)]
    pub fn fetch_add(self, by: u32) -> u32 {
        // SAFETY: by the contract of `new`.
        unsafe { imp::fetch_add(self.0, by) }
    }
}
