// SPDX-License-Identifier: Apache-2.0
//! What a raw volume's file holds where.

use std::{
    fs::File,
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::io::Errno;

use crate::{client, error::is_unsupported, fiemap};

/// What a run of a file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holds {
    Data,
    /// Blocks that were never written: they read zeros.
    Reserved,
    /// No blocks.
    Nothing,
}

/// A run of bytes of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub start: u64,
    pub end: u64,
    pub holds: Holds,
}

/// A list of runs that follow each other.
struct Runs {
    list: Vec<Run>,
    limit: usize,
}

impl Runs {
    /// Adds a run up to `end`; whether there was room.
    fn push(&mut self, start: u64, end: u64, holds: Holds) -> bool {
        if start >= end {
            return true;
        }
        let full = self.list.len() == self.limit;
        match self.list.last_mut() {
            Some(last) if last.holds == holds => last.end = end,
            _ if full => return false,
            _ => self.list.push(Run { start, end, holds }),
        }
        true
    }
}

/// The runs of `[offset, end)`, at most `limit`. `reserves`: whether the file system tells reserved blocks, as far as is known.
///
/// What seeking calls data is data: it knows of pages not yet on disk. What it calls a hole may have blocks, and a
/// client that reserved them must not be told that they are gone.
pub(crate) fn runs(
    file: &File,
    reserves: &AtomicBool,
    mut offset: u64,
    end: u64,
    limit: usize,
) -> io::Result<Vec<Run>> {
    let mut runs = Runs { list: Vec::new(), limit };
    while offset < end {
        let (start, stop) = client::next_data(file, offset, end)?.unwrap_or((end, end));
        let room = split_hole(file, reserves, offset, start, &mut runs)?
            && runs.push(start, stop, Holds::Data);
        if !room {
            break;
        }
        offset = stop;
    }
    Ok(runs.list)
}

fn split_hole(
    file: &File,
    reserves: &AtomicBool,
    mut offset: u64,
    end: u64,
    runs: &mut Runs,
) -> io::Result<bool> {
    while offset < end && reserves.load(Ordering::Relaxed) {
        let found = match fiemap::allocated(file, offset, end) {
            Ok(found) => found,
            Err(error) if Errno::from_io_error(&error).is_some_and(is_unsupported) => {
                reserves.store(false, Ordering::Relaxed);
                break;
            }
            Err(error) => return Err(error),
        };
        if found.is_empty() {
            break;
        }
        for extent in found {
            // Written, but a hole a moment ago: a write came between the two questions.
            let holds = if extent.unwritten { Holds::Reserved } else { Holds::Data };
            let room = runs.push(offset, extent.start, Holds::Nothing)
                && runs.push(extent.start, extent.end, holds);
            if !room {
                return Ok(false);
            }
            offset = extent.end;
        }
    }
    Ok(runs.push(offset, end, Holds::Nothing))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use rustix::fs::{FallocateFlags, fallocate};

    use super::*;

    fn run(start: u64, end: u64, holds: Holds) -> Run {
        Run { start, end, holds }
    }

    #[test]
    fn what_is_reserved_is_no_hole_where_the_file_system_says_so() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).expect("a file");
        let (end, reserves) = (1 << 20, AtomicBool::new(true));
        file.set_len(end).expect("sized");
        file.write_all_at(&[1; 65536], 65536).expect("written");
        if fallocate(&file, FallocateFlags::KEEP_SIZE, 131_072, 65536).is_err() {
            return;
        }
        let wanted = [
            run(0, 65536, Holds::Nothing),
            run(65536, 131_072, Holds::Data),
            run(131_072, 196_608, Holds::Reserved),
            run(196_608, end, Holds::Nothing),
        ];
        let found = runs(&file, &reserves, 0, end, 100).expect("asked");
        if reserves.load(Ordering::Relaxed) {
            assert_eq!(found, wanted);
        }
        for limit in 1..4 {
            let found = runs(&file, &reserves, 0, end, limit).expect("asked");
            assert!(!reserves.load(Ordering::Relaxed) || found == wanted[..limit]);
        }
        reserves.store(false, Ordering::Relaxed);
        let found = runs(&file, &reserves, 0, end, 100).expect("asked");
        let hole = run(131_072, end, Holds::Nothing);
        assert_eq!(found, [wanted[0], wanted[1], hole], "without, seeking's answer stands");
    }
}
