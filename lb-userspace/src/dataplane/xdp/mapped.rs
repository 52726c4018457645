//! An array map in the agent's own memory (`BPF_F_MMAPABLE`): what the program and the agent change together.

use std::{
    io,
    marker::PhantomData,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// `len` elements of `T`, shared with the kernel.
#[derive(Debug)]
pub struct Mapped<T> {
    base: NonNull<T>,
    len: u32,
    _elements: PhantomData<T>,
}

// SAFETY: the memory is the kernel's and stays mapped until drop; all access is atomic or volatile.
unsafe impl<T> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mapped<T> {}

impl<T: aya::Pod> Mapped<T> {
    /// Maps an array map of `len` elements; their size must be that of `T`, a multiple of 8.
    ///
    /// # Errors
    /// When the kernel refuses to map it.
    pub fn new(map: impl AsFd, len: u32) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        // SAFETY: asks the kernel for the size of a page.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let bytes = (len as usize * size_of::<T>()).next_multiple_of(page);
        let bytes = NonZeroUsize::new(bytes).ok_or_else(|| io::Error::other("an empty map"))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { base: base.cast(), len, _elements: PhantomData })
    }

    /// Number of elements.
    pub fn len(&self) -> u32 {
        self.len
    }

    fn element(&self, index: u32) -> *mut T {
        assert!(index < self.len, "element {index} of {}", self.len);
        // SAFETY: just checked to lie inside the mapping.
        unsafe { self.base.as_ptr().add(index as usize) }
    }

    /// A copy of one element, which others may be changing: each word of it is one that stood there.
    pub fn copy(&self, index: u32) -> T {
        // SAFETY: inside the mapping; volatile because others write it, and any bytes are a `T`.
        unsafe { self.element(index).read_volatile() }
    }

    /// Writes one element in words of eight bytes, each of them at once. Who reads it meanwhile sees the words of the old and the
    /// new one mixed, as with the kernel's own update of an array.
    pub fn store(&self, index: u32, value: &T) {
        const { assert!(align_of::<T>() <= 8) };
        let target = self.element(index).cast::<u64>();
        let source = (&raw const *value).cast::<u64>();
        for word in 0..size_of::<T>() / 8 {
            // SAFETY: inside both, since the size is a multiple of 8; the target is aligned to 8 as the kernel's elements are,
            // and shared by atomic access only.
            unsafe {
                AtomicU64::from_ptr(target.add(word)).store(source.add(word).read_unaligned(), Relaxed);
            };
        }
        std::sync::atomic::fence(SeqCst);
    }

    /// Writes the elements of another map, as many as both have.
    pub fn copy_from(&self, other: &Self) {
        for index in 0..self.len.min(other.len) {
            self.store(index, &other.copy(index));
        }
    }

    /// The 32-bit word at `offset` bytes into an element.
    pub fn word(&self, index: u32, offset: usize) -> &AtomicU32 {
        assert!(offset + 4 <= size_of::<T>() && offset.is_multiple_of(4), "word at {offset}");
        // SAFETY: inside the element, aligned, and shared by atomic access only.
        unsafe { AtomicU32::from_ptr(self.element(index).cast::<u8>().add(offset).cast()) }
    }
}

impl Mapped<u64> {
    /// One element.
    pub fn cell(&self, index: u32) -> &AtomicU64 {
        // SAFETY: inside the mapping, aligned, shared by atomic access only.
        unsafe { AtomicU64::from_ptr(self.element(index)) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        let bytes = self.len as usize * size_of::<T>();
        // SAFETY: the mapping made in `new`; nothing borrows it any more.
        if let Err(error) = unsafe { munmap(self.base.cast(), bytes) } {
            tracing::warn!("cannot unmap a map: {error}");
        }
    }
}
