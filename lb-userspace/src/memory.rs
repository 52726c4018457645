//! The allocator's ways: one heap, and memory that is given back when much of it was needed for a short time.

/// One heap for all threads: what one of them frees another can have. They seldom want memory at the same time. To be called
/// before there are other threads.
pub fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a setting of the allocator, made before there are other threads.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Has the allocator give back what is free. Takes some milliseconds: not for the agent's loop.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
