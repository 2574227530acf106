//! What the C library's allocator keeps for itself (mallopt(3), malloc_trim(3)).
//!
//! Must not know what the memory was used for.

#[cfg(target_env = "gnu")]
use nix::libc;

/// Let all threads share few heaps, so that memory that one has freed serves the others. Before other threads start.
pub fn few_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers; a parameter that it does not know has no effect.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Give freed memory back to the system. Takes milliseconds where much was freed.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
