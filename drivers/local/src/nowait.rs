// SPDX-License-Identifier: Apache-2.0
//! What is done on the caller's thread: reads and writes that most likely need not wait for the disk.

use std::{
    fs::File,
    io::{IoSlice, IoSliceMut},
    os::unix::fs::FileExt,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};

use crate::error::is_unsupported;

const PAGE: u64 = 4096;
/// The largest write on the caller's thread: some 20 us of copying.
const INLINE_MOST: usize = 64 << 10;
/// A write into the page cache that takes longer has waited for the disk.
const SLOW: Duration = Duration::from_millis(1);
/// How many writes go to the threads after a slow one.
const DETOUR: u32 = 256;

/// How a write is tried on the caller's thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// The kernel promises not to wait.
    Promised,
    /// It only copies into the page cache, most likely.
    Cached,
}

/// What one file allows, as far as is known.
pub(crate) struct NoWait {
    cached: bool,
    reads: AtomicBool,
    writes: AtomicBool,
    /// So many writes go to a thread, because one that did not was slow.
    detour: AtomicU32,
}

impl NoWait {
    /// Of a file that uses the page cache, or (`cached` is false) bypasses it: then every access waits for the disk.
    pub fn new(cached: bool) -> Self {
        Self {
            cached,
            reads: AtomicBool::new(cached),
            writes: AtomicBool::new(cached),
            detour: AtomicU32::new(0),
        }
    }

    /// Reads what needs no waiting; `false` if that is not all.
    pub fn read(&self, file: &File, buffer: &mut [u8], offset: u64) -> bool {
        if !self.reads.load(Ordering::Relaxed) {
            return false;
        }
        let len = buffer.len();
        match preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => read == len,
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(errno) if is_unsupported(errno) => {
                self.reads.store(false, Ordering::Relaxed);
                false
            }
            // Whatever it is, the thorough read finds out and reports it.
            Err(_) => false,
        }
    }

    /// How a write of `len` bytes at `offset` is tried; `None` if it goes to a thread.
    pub fn way(&self, len: usize, offset: u64) -> Option<Way> {
        if self.writes.load(Ordering::Relaxed) {
            return Some(Way::Promised);
        }
        self.memory_speed(len, offset).then_some(Way::Cached)
    }

    /// Whether a write only copies into the page cache, most likely. Whole pages need not be read first.
    ///
    /// For file systems that cannot promise it (ext4 has no `RWF_NOWAIT` for buffered writes). A thread and back cost more
    /// than the copy: over NBD on ext4, writes of 4 KiB took 29 us here and 66 us there at depth 1, and at depth 32 99,000
    /// passed a second instead of 46,000. Such a write waits only for the journal, or where the kernel throttles writers
    /// until dirty pages are on disk: then the next writes go to the threads, so that not every caller is held up.
    fn memory_speed(&self, len: usize, offset: u64) -> bool {
        let whole_pages = (len as u64 | offset).is_multiple_of(PAGE);
        if !self.cached || !whole_pages || len > INLINE_MOST {
            return false;
        }
        let detour = self.detour.load(Ordering::Relaxed);
        // Lost updates of two callers at once do no harm: a few writes more or less take the detour.
        self.detour.store(detour.saturating_sub(1), Ordering::Relaxed);
        detour == 0
    }

    /// Writes; `false` if not all of it was written, and all must be written again.
    pub fn write(&self, way: Way, file: &File, data: &[u8], offset: u64) -> bool {
        if way == Way::Cached {
            return self.write_cached(file, data, offset);
        }
        match pwritev2(file, &[IoSlice::new(data)], offset, ReadWriteFlags::NOWAIT) {
            Ok(written) => written == data.len(),
            Err(errno) if is_unsupported(errno) => {
                self.writes.store(false, Ordering::Relaxed);
                false
            }
            // Whatever it is, the thorough write finds out and reports it.
            Err(_) => false,
        }
    }

    fn write_cached(&self, file: &File, data: &[u8], offset: u64) -> bool {
        let begun = Instant::now();
        let written = file.write_all_at(data, offset);
        if begun.elapsed() > SLOW {
            self.detour.store(DETOUR, Ordering::Relaxed);
        }
        // Whatever it is, the thorough write finds out and reports it.
        written.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_promises_not_to_wait_small_whole_pages_are_written_at_once() {
        let file = tempfile::tempfile().expect("a file");
        let nowait = NoWait::new(true);
        nowait.writes.store(false, Ordering::Relaxed);
        assert_eq!(nowait.way(8192, 4096), Some(Way::Cached));
        assert!(nowait.write(Way::Cached, &file, &[3; 8192], 4096));
        let mut buffer = [0; 8192];
        file.read_exact_at(&mut buffer, 4096).expect("read");
        assert_eq!(buffer, [3; 8192]);
        for (len, offset) in [(512, 0), (4096, 512), (INLINE_MOST + 4096, 0)] {
            assert_eq!(nowait.way(len, offset), None, "left to a thread");
        }
        nowait.detour.store(2, Ordering::Relaxed);
        let ways = [(); 3].map(|()| nowait.way(4096, 0));
        assert_eq!(ways, [None, None, Some(Way::Cached)], "after a slow write some go to a thread");
    }

    #[test]
    fn a_file_that_bypasses_the_page_cache_always_goes_to_a_thread() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(4096).expect("sized");
        let nowait = NoWait::new(false);
        assert_eq!(nowait.way(4096, 0), None);
        assert!(!nowait.read(&file, &mut [0; 4096], 0));
    }
}
