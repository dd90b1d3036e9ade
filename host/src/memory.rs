// SPDX-License-Identifier: Apache-2.0
//! How the C library's allocator treats a process with many short-lived threads.

use libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, c_int};

/// Heaps beside each other. One per thread, as is the default for a few dozen, keeps what each thread's rare large
/// buffers have left between small ones.
const ARENAS: c_int = 2;
/// From this length on a buffer is a mapping of its own. Shorter ones are used again without the system: page faults of a
/// buffer of some MiB, as drivers' libraries take for each operation, cost more than its copying.
const LARGE: c_int = 16 << 20;
/// What a heap keeps at its end.
const KEPT: c_int = 32 << 20;

/// Bounds what is kept of freed memory. To be called before there are threads.
pub fn bound_what_is_kept() {
    for (parameter, value) in
        [(M_ARENA_MAX, ARENAS), (M_MMAP_THRESHOLD, LARGE), (M_TRIM_THRESHOLD, KEPT)]
    {
        // SAFETY: mallopt takes two numbers and touches the allocator's parameters alone. It fails only for numbers
        // that it does not know; then memory is kept longer.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives back what is freed, at heaps' ends and between memory in use. It looks at all of its memory, for
/// some milliseconds.
pub fn trim() {
    // SAFETY: malloc_trim takes a number, and changes nothing that is in use. Whether there was anything to give back
    // does not matter.
    unsafe { libc::malloc_trim(0) };
}
