// SPDX-License-Identifier: Apache-2.0
//! Whether a qcow2 image that was not closed in good order may be written again.
//!
//! imago makes a new table known before it counts the table's own cluster, and a machine that loses power may keep a later
//! write and lose an earlier one. Either way a table refers to a cluster whose reference count says that it is free, and the
//! next allocation would hand it out again. So after such a life every reference is compared with its count, before anything is written.
//!
//! A free cluster with exactly one reference is counted, which loses nothing: nobody else can mean it. Everything else is refused.

use std::{fs::File, io, os::unix::fs::FileExt};

use driver_api::Error;

use crate::{
    bytes::{ReadAt, long, read_or_zeros, read_whole},
    header::{Header, WANTED, damaged},
};

const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;

/// A file that can be written, too.
pub trait WriteAt: ReadAt {
    /// Writes all of `data`.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
}

impl WriteAt for File {
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Why an image is not written again.
#[derive(Debug)]
pub enum Trouble {
    /// The image is damaged, or is none that can be served.
    Refused(Error),
    /// The file cannot be read or written.
    Failed(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::Refused(damaged(&error.to_string()))
            }
            _ => Self::Failed(error),
        }
    }
}

/// A cluster that is referred to more often than its count says.
struct Undercounted {
    /// Where in the file its count can be set to one, if that is right.
    at: Option<u64>,
}

/// Counts what is in use but counted as free, durably, and says how many clusters those were; refuses an image in which
/// a cluster has other references than its count says.
pub fn recount(file: &impl WriteAt) -> Result<usize, Trouble> {
    let header = read_header(file)?;
    let found = undercounted(file, &header)?;
    if found.is_empty() {
        return Ok(0);
    }
    let places: Vec<u64> = found.iter().filter_map(|cluster| cluster.at).collect();
    if places.len() < found.len() {
        let why = format!("{} clusters are in use but not counted as such", found.len());
        return Err(Trouble::Refused(damaged(&why)));
    }
    let one = 1_u64.to_be_bytes();
    let one = &one[8 - header.count_bytes()..];
    places.iter().try_for_each(|at| file.write_at(one, *at)).map_err(Trouble::Failed)?;
    file.sync().map_err(Trouble::Failed)?;
    Ok(places.len())
}

/// The header of the image in a file, judged.
pub fn read_header(file: &impl ReadAt) -> Result<Header, Trouble> {
    let mut beginning = vec![0; WANTED];
    read_or_zeros(file, &mut beginning, 0)?;
    Header::parse(&beginning).map_err(Trouble::Refused)
}

fn undercounted(file: &impl ReadAt, header: &Header) -> io::Result<Vec<Undercounted>> {
    let (references, simple) = references(file, header)?;
    let per_block = (header.cluster() as u64 * 8) >> header.refcount_order;
    let mut found = Vec::new();
    for (number, chunk) in references.chunks(per_block as usize).enumerate() {
        if chunk.iter().all(|&count| count == 0) {
            continue;
        }
        let mut entry = [0; 8];
        if (number as u64) < header.refcount_entries {
            read_whole(file, &mut entry, header.refcount_table + number as u64 * 8)?;
        }
        let at = u64::from_be_bytes(entry) & OFFSET_MASK;
        let mut block = vec![0; header.cluster()];
        if at != 0 {
            read_or_zeros(file, &mut block, at)?;
        }
        for (index, &wanted) in chunk.iter().enumerate() {
            let counted = refcount(&block, index, header.refcount_order);
            if counted < wanted.into() {
                let settable = simple && at != 0 && header.refcount_order >= 3;
                let lone = settable && counted == 0 && wanted == 1;
                let at = lone.then(|| at + (index * header.count_bytes()) as u64);
                found.push(Undercounted { at });
            }
        }
    }
    Ok(found)
}

/// How often the active tables refer to each cluster of the file, up to 255, and whether that is all there is to know.
fn references(file: &impl ReadAt, header: &Header) -> io::Result<(Vec<u8>, bool)> {
    let (mut counts, mut simple) = (Vec::new(), header.snapshots == 0);
    let mut table = vec![0; header.cluster()];
    refer_own(&mut counts, file, header)?;
    let mut l1 = vec![0; header.l1_entries as usize * 8];
    read_or_zeros(file, &mut l1, header.l1_offset)?;
    for entry in l1.chunks_exact(8).map(|entry| long(entry, 0) & OFFSET_MASK) {
        if entry == 0 {
            continue;
        }
        refer(&mut counts, entry >> header.cluster_bits)?;
        read_or_zeros(file, &mut table, entry)?;
        for entry in table.chunks_exact(8).map(|entry| long(entry, 0)) {
            simple &= entry & COMPRESSED == 0;
            let at = if entry & COMPRESSED == 0 {
                entry & OFFSET_MASK
            } else {
                entry & ((1 << (62 - (header.cluster_bits - 8))) - 1)
            };
            // Several compressed clusters share one of the file, so those are only looked at once.
            let cluster = at >> header.cluster_bits;
            if at != 0 && (entry & COMPRESSED == 0 || counts.get(cluster as usize) != Some(&1)) {
                refer(&mut counts, cluster)?;
            }
        }
    }
    Ok((counts, simple))
}

/// The image's own structures: a cluster of theirs that a table refers to as well must not pass for one that is merely uncounted.
fn refer_own(counts: &mut Vec<u8>, file: &impl ReadAt, header: &Header) -> io::Result<()> {
    refer(counts, 0)?;
    let mut range = |at: u64, len: u64| {
        let at = at & OFFSET_MASK;
        let clusters = at >> header.cluster_bits..(at + len).div_ceil(header.cluster() as u64);
        clusters.into_iter().try_for_each(|cluster| refer(counts, cluster))
    };
    range(header.l1_offset, header.l1_entries * 8)?;
    range(header.refcount_table, header.refcount_entries * 8)?;
    let mut blocks = vec![0; header.refcount_entries as usize * 8];
    read_or_zeros(file, &mut blocks, header.refcount_table)?;
    let blocks = blocks.chunks_exact(8).map(|entry| long(entry, 0) & OFFSET_MASK);
    blocks.filter(|at| *at != 0).try_for_each(|at| range(at, 1))
}

fn refer(counts: &mut Vec<u8>, cluster: u64) -> io::Result<()> {
    const MOST: u64 = 1 << 32;
    if cluster >= MOST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a table refers to nowhere"));
    }
    let cluster = cluster as usize;
    if counts.len() <= cluster {
        counts.resize(cluster + 1, 0);
    }
    counts[cluster] = counts[cluster].saturating_add(1);
    Ok(())
}

fn refcount(block: &[u8], index: usize, order: u32) -> u64 {
    if order < 3 {
        let bits = 1 << order;
        let at = index * bits;
        return u64::from(block[at / 8] >> (at % 8)) & ((1 << bits) - 1);
    }
    let bytes = 1 << (order - 3);
    let entry = &block[index * bytes..(index + 1) * bytes];
    entry.iter().fold(0, |value, &byte| (value << 8) | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_every_width_are_read() {
        assert_eq!(refcount(&[0b1000_0010], 1, 0), 1);
        assert_eq!(refcount(&[0b1000_0010], 2, 0), 0);
        assert_eq!(refcount(&[0b1000_0010], 3, 1), 2);
        assert_eq!(refcount(&[0x5a], 1, 2), 5);
        assert_eq!(refcount(&[1, 2, 3, 4], 1, 4), 0x0304);
        assert_eq!(refcount(&[0, 0, 0, 1, 0, 0, 1, 0], 1, 5), 256);
    }
}
