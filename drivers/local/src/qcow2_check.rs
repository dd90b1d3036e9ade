// SPDX-License-Identifier: Apache-2.0
//! Whether a qcow2 image that was not closed in good order may be written again.
//!
//! imago makes a new table known before it counts the table's own cluster, and a machine that loses power may keep a later
//! write and lose an earlier one. Either way a table refers to a cluster whose reference count says that it is free, and the
//! next allocation would hand it out again. So after such a life every reference is compared with its count, before anything is written.
//!
//! A free cluster with exactly one reference is counted, which loses nothing: nobody else can mean it. Everything else is refused.

use std::{fs::File, io, os::unix::fs::FileExt};

use driver_api::{Error, ErrorKind, Result};

use crate::error::on_data;

const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// As qemu has it: 32 MiB of L1 table.
const MOST_ENTRIES: u64 = 4 << 20;
const COMPRESSED: u64 = 1 << 62;

/// What the check needs of the header.
struct Header {
    cluster_bits: u32,
    l1_entries: u64,
    l1_offset: u64,
    refcount_table: u64,
    refcount_entries: u64,
    refcount_order: u32,
    snapshots: u32,
}

impl Header {
    fn read(file: &File) -> io::Result<Self> {
        let mut bytes = [0; 104];
        file.read_exact_at(&mut bytes, 0)?;
        let version = word(&bytes, 4);
        let cluster_bits = word(&bytes, 20);
        let refcount_order = if version >= 3 { word(&bytes, 96) } else { 4 };
        if !(9..=21).contains(&cluster_bits) || refcount_order > 6 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the header makes no sense"));
        }
        let l1_entries = word(&bytes, 36).into();
        let refcount_entries = (u64::from(word(&bytes, 56)) << cluster_bits) / 8;
        if l1_entries > MOST_ENTRIES || refcount_entries > MOST_ENTRIES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a table is absurdly long"));
        }
        Ok(Self {
            cluster_bits,
            l1_entries,
            l1_offset: long(&bytes, 40),
            refcount_table: long(&bytes, 48),
            refcount_entries,
            refcount_order,
            snapshots: word(&bytes, 60),
        })
    }

    /// Bytes of one count, where it has whole bytes.
    fn count_bytes(&self) -> usize {
        1 << self.refcount_order.saturating_sub(3)
    }

    fn cluster(&self) -> usize {
        1 << self.cluster_bits
    }
}

/// A cluster that is referred to more often than its count says.
struct Undercounted {
    /// Where in the file its count can be set to one, if that is right.
    at: Option<u64>,
}

/// Counts what is in use but counted as free, durably; refuses an image in which a cluster has other references than its count says.
/// `file` does not bypass the page cache.
pub(crate) fn recount(volume: &str, file: &File) -> Result<()> {
    let found = Header::read(file).and_then(|header| Ok((undercounted(file, &header)?, header)));
    let (found, header) = match found {
        Ok(found) => found,
        Err(error) => match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                return Err(damaged(volume, &error.to_string()));
            }
            _ => return Err(on_data("the image cannot be checked", &error)),
        },
    };
    if found.is_empty() {
        return Ok(());
    }
    let places: Vec<u64> = found.iter().filter_map(|cluster| cluster.at).collect();
    if places.len() < found.len() {
        let count = found.len();
        return Err(damaged(
            volume,
            &format!("{count} clusters are in use but not counted as such"),
        ));
    }
    tracing::warn!(
        volume,
        clusters = places.len(),
        "counting clusters that an earlier life left uncounted"
    );
    let one = 1_u64.to_be_bytes();
    let one = &one[8 - header.count_bytes()..];
    let counted = places.iter().try_for_each(|at| file.write_all_at(one, *at));
    counted
        .and_then(|()| file.sync_data())
        .map_err(|error| on_data("the image's reference counts cannot be written", &error))
}

fn damaged(volume: &str, why: &str) -> Error {
    Error::new(ErrorKind::CORRUPTED, format!("the qcow2 image is damaged: {why}"))
        .with("volume", volume)
        .remedy("run `qemu-img check -r all` on the volume's disk.qcow2, then attach it again")
}

fn undercounted(file: &File, header: &Header) -> io::Result<Vec<Undercounted>> {
    let (references, simple) = references(file, header)?;
    let per_block = (header.cluster() as u64 * 8) >> header.refcount_order;
    let mut found = Vec::new();
    for (number, chunk) in references.chunks(per_block as usize).enumerate() {
        if chunk.iter().all(|&count| count == 0) {
            continue;
        }
        let mut entry = [0; 8];
        if (number as u64) < header.refcount_entries {
            file.read_exact_at(&mut entry, header.refcount_table + number as u64 * 8)?;
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
fn references(file: &File, header: &Header) -> io::Result<(Vec<u8>, bool)> {
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
fn refer_own(counts: &mut Vec<u8>, file: &File, header: &Header) -> io::Result<()> {
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

fn read_or_zeros(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset)? {
            0 => {
                buffer.fill(0);
                return Ok(());
            }
            read => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
        }
    }
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    (u64::from(word(bytes, at)) << 32) | u64::from(word(bytes, at + 4))
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
