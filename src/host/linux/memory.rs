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

/// Ask the system for memory in large steps, and keep what is freed: for a program that makes many small things and ends
/// soon. What is not used stays with the system.
pub fn large_steps() {
    #[cfg(target_env = "gnu")]
    for (parameter, bytes) in [(libc::M_TOP_PAD, 16 << 20), (libc::M_TRIM_THRESHOLD, 64 << 20)] {
        // SAFETY: mallopt takes two numbers; a parameter that it does not know has no effect.
        unsafe {
            libc::mallopt(parameter, bytes);
        }
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

/// The C library's account of its heaps, as XML (malloc_info(3)); None where it has none.
pub fn account() -> Option<String> {
    #[cfg(target_env = "gnu")]
    {
        use std::io::{Read, Seek};
        use std::os::fd::{AsRawFd, IntoRawFd};
        let name = c"malloc_info";
        let mut file =
            std::fs::File::from(nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::MFD_CLOEXEC).ok()?);
        let copy = file.try_clone().ok()?;
        // SAFETY: the descriptor is open and the mode is a C string; on success the stream owns the descriptor.
        let stream = unsafe { libc::fdopen(copy.as_raw_fd(), c"w".as_ptr()) };
        if stream.is_null() {
            return None;
        }
        let _owned_by_the_stream = copy.into_raw_fd();
        // SAFETY: the stream is open; malloc_info may be called at any time by any thread.
        let written = unsafe { libc::malloc_info(0, stream) };
        // SAFETY: the stream is open and not used afterwards.
        let closed = unsafe { libc::fclose(stream) };
        if written != 0 || closed != 0 {
            return None;
        }
        let mut text = String::new();
        file.rewind().ok()?;
        file.read_to_string(&mut text).ok()?;
        Some(text)
    }
    #[cfg(not(target_env = "gnu"))]
    None
}
