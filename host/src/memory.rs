// SPDX-License-Identifier: Apache-2.0
//! How the C library's allocator treats a process with many short-lived threads.

use libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, c_int};

/// Heaps beside each other. One per thread, as is the default for a few dozen, keeps what each thread's rare large
/// buffers have left between small ones.
const ARENAS: c_int = 2;
/// From this length on a buffer is a mapping of its own, which goes back to the system whole. The default rises to the
/// longest buffer that was ever freed.
const LARGE: c_int = 128 << 10;

/// Has freed memory given back. To be called before there are threads.
pub fn give_back_what_is_freed() {
    for (parameter, value) in
        [(M_ARENA_MAX, ARENAS), (M_MMAP_THRESHOLD, LARGE), (M_TRIM_THRESHOLD, LARGE)]
    {
        // SAFETY: mallopt takes two numbers and touches the allocator's parameters alone. It fails only for numbers
        // that it does not know; then memory is kept longer.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives back what is freed between memory in use, which the allocator else keeps. It looks at all of its memory, for
/// some milliseconds.
pub fn trim() {
    // SAFETY: malloc_trim takes a number, and changes nothing that is in use. Whether there was anything to give back
    // does not matter.
    unsafe { libc::malloc_trim(0) };
}
