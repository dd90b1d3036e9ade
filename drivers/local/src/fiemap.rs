// SPDX-License-Identifier: Apache-2.0
//! Blocks that a file has reserved but never written, which `SEEK_DATA` cannot tell from holes.

use std::{fs::File, io};

use rustix::ioctl::{Updater, ioctl, opcode};

/// Extents asked for in one call.
const BATCH: usize = 64;
/// `FIEMAP_EXTENT_UNWRITTEN`: the extent occupies space and reads zeros.
const UNWRITTEN: u32 = 0x800;

/// `struct fiemap` without its array.
#[repr(C)]
#[derive(Default)]
struct Head {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Found {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

#[repr(C)]
struct Request {
    head: Head,
    extents: [Found; BATCH],
}

/// What the file system has in a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Allocated {
    pub start: u64,
    pub end: u64,
    /// Never written: it reads zeros.
    pub unwritten: bool,
}

/// The allocated extents of `[offset, end)`, in order, cut to the range; perhaps not all, but all before the end of the last.
/// None where nothing, or nothing more, is allocated.
pub(crate) fn allocated(file: &File, offset: u64, end: u64) -> io::Result<Vec<Allocated>> {
    let mut request = Request {
        head: Head {
            start: offset,
            length: end - offset,
            extent_count: BATCH as u32,
            ..Head::default()
        },
        extents: [Found::default(); BATCH],
    };
    // SAFETY: the number is FS_IOC_FIEMAP, whose argument is `struct fiemap` with room for `extent_count` extents behind it.
    unsafe {
        let call = Updater::<{ opcode::read_write::<Head>(b'f', 11) }, Request>::new(&mut request);
        ioctl(file, call)?;
    }
    let mapped = (request.head.mapped_extents as usize).min(BATCH);
    let cut = request.extents[..mapped].iter().map(|found| Allocated {
        start: found.logical.max(offset),
        end: found.logical.saturating_add(found.length).min(end),
        unwritten: found.flags & UNWRITTEN != 0,
    });
    Ok(cut.filter(|extent| extent.start < extent.end).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use rustix::fs::{FallocateFlags, fallocate};

    use super::*;

    #[test]
    fn reserved_blocks_are_told_from_written_ones_and_from_holes() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).expect("a file");
        file.set_len(1 << 20).expect("sized");
        file.write_all_at(&[1; 65536], 0).expect("written");
        file.sync_all().expect("synced");
        match fallocate(&file, FallocateFlags::KEEP_SIZE, 131_072, 65536) {
            Err(rustix::io::Errno::OPNOTSUPP) => return,
            reserved => reserved.expect("reserved"),
        }
        let found = match allocated(&file, 4096, 1 << 20) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return,
            found => found.expect("asked"),
        };
        let (written, reserved) = (found[0], found[found.len() - 1]);
        assert_eq!((written.start, written.unwritten), (4096, false));
        let wanted = Allocated { start: 131_072, end: 196_608, unwritten: true };
        assert_eq!(reserved, wanted);
        assert!(allocated(&file, 262_144, 1 << 20).expect("asked").is_empty());
    }
}
