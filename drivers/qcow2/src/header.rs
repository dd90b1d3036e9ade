// SPDX-License-Identifier: Apache-2.0
//! What an image says of itself. It may come from anywhere: nothing of it is believed before it was judged here.

use std::ops::Range;

use driver_api::{Error, ErrorKind, Result};

use crate::{
    blank::Base,
    bytes::{long, word},
};

/// Bytes at the beginning of a file that [`Header::parse`] wants to see, as far as the file has them: the largest cluster
/// that a header with its extensions and the name of a backing file can lie in is longer, but they are not.
pub const WANTED: usize = 64 << 10;

const MAGIC: &[u8; 4] = b"QFI\xfb";
/// As qemu has it: 32 MiB of L1 table.
const MOST_ENTRIES: u64 = 4 << 20;
const LONGEST_NAME: u32 = 1023;
const BACKING_FORMAT: u32 = 0xe279_2aca;
/// Bytes that a backing file's format has in its extension.
const FORMAT_ROOM: usize = 8;
/// Bytes that a disk writes as a whole or not at all.
const SECTOR: usize = 512;

/// Incompatible features, by bit: what they are, and what takes them away.
const FEATURES: &[(&str, &str)] = &[
    ("it was not closed in good order (dirty)", "run `qemu-img check -r all` on it"),
    ("it is marked as corrupt", "run `qemu-img check -r all` on it"),
    ("its data is in another file", CONVERT),
    ("it is compressed in another way than by deflate", CONVERT),
    ("it has extended L2 entries", CONVERT),
];
const CONVERT: &str = "convert it: qemu-img convert -O qcow2 OLD NEW";

/// The header of an image that was judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The size of the disk in the image, in bytes.
    pub size: u64,
    /// The logarithm of a cluster's bytes.
    pub cluster_bits: u32,
    /// The file that clusters come from which the image does not have.
    pub backing: Option<Backing>,
    /// Snapshots inside the image.
    pub snapshots: u32,
    /// The version of the format.
    pub version: u32,
    pub(crate) l1_entries: u64,
    pub(crate) l1_offset: u64,
    pub(crate) refcount_table: u64,
    pub(crate) refcount_entries: u64,
    pub(crate) refcount_order: u32,
}

/// What an image names as its backing file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backing {
    /// The name, as it is.
    pub name: String,
    /// The format, if it is told.
    pub format: Option<String>,
}

impl Header {
    /// Judges the beginning of a file: an error tells what it is that cannot be served, and what to do about it.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() < 104 || bytes[..4] != *MAGIC {
            return Err(damaged("it does not begin as qcow2 images do"));
        }
        let version = word(bytes, 4);
        if !(2..=3).contains(&version) {
            return Err(refused(&format!("it has version {version}"), CONVERT));
        }
        if word(bytes, 32) != 0 {
            return Err(refused(
                "it is encrypted",
                "convert it: qemu-img convert --image-opts ... -O qcow2 NEW",
            ));
        }
        if version == 3 {
            refuse_features(long(bytes, 72))?;
        }
        let cluster_bits = word(bytes, 20);
        let refcount_order = if version == 3 { word(bytes, 96) } else { 4 };
        if !(9..=21).contains(&cluster_bits) || refcount_order > 6 {
            return Err(damaged("its header makes no sense"));
        }
        let header = Self {
            size: long(bytes, 24),
            cluster_bits,
            backing: backing(bytes, version, cluster_bits)?,
            snapshots: word(bytes, 60),
            version,
            l1_entries: word(bytes, 36).into(),
            l1_offset: long(bytes, 40),
            refcount_table: long(bytes, 48),
            refcount_entries: (u64::from(word(bytes, 56)) << cluster_bits) / 8,
            refcount_order,
        };
        header.judge()?;
        Ok(header)
    }

    /// Bytes of a cluster.
    pub fn cluster(&self) -> usize {
        1 << self.cluster_bits
    }

    /// Bytes of one count, where it has whole bytes.
    pub(crate) fn count_bytes(&self) -> usize {
        1 << self.refcount_order.saturating_sub(3)
    }

    fn judge(&self) -> Result<()> {
        if self.size > i64::MAX as u64 {
            return Err(damaged("its size makes no sense"));
        }
        if self.l1_entries > MOST_ENTRIES || self.refcount_entries > MOST_ENTRIES {
            return Err(damaged("a table is absurdly long"));
        }
        let cluster = 1_u64 << self.cluster_bits;
        let misplaced = |at: u64| !at.is_multiple_of(cluster) || at > i64::MAX as u64;
        if misplaced(self.l1_offset) || misplaced(self.refcount_table) || self.refcount_table == 0 {
            return Err(damaged("a table is where none can be"));
        }
        // One entry is one table of a cluster, each of whose entries is one cluster.
        let needed = self.size.div_ceil(cluster * cluster / 8);
        if self.l1_entries < needed {
            return Err(damaged("its table is too short for its size"));
        }
        Ok(())
    }
}

fn refuse_features(features: u64) -> Result<()> {
    if features == 0 {
        return Ok(());
    }
    let bit = features.trailing_zeros() as usize;
    match FEATURES.get(bit) {
        Some((what, remedy)) => Err(refused(what, remedy)),
        None => Err(refused(&format!("it has the unknown incompatible feature {bit}"), CONVERT)),
    }
}

fn backing(bytes: &[u8], version: u32, cluster_bits: u32) -> Result<Option<Backing>> {
    let (at, len) = (long(bytes, 8), word(bytes, 16));
    if at == 0 || len == 0 {
        return Ok(None);
    }
    if len > LONGEST_NAME || at.saturating_add(len.into()) > 1 << cluster_bits {
        return Err(damaged("the name of its backing file is where none can be"));
    }
    let name = bytes.get(at as usize..at as usize + len as usize);
    let name = name.and_then(|name| std::str::from_utf8(name).ok());
    let Some(name) = name else {
        return Err(damaged("the name of its backing file cannot be read"));
    };
    let format = if version == 3 { backing_format(bytes)? } else { None };
    Ok(Some(Backing { name: name.to_owned(), format }))
}

fn backing_format(bytes: &[u8]) -> Result<Option<String>> {
    let content = extension(bytes, BACKING_FORMAT)?.and_then(|content| bytes.get(content));
    Ok(content.map(|content| String::from_utf8_lossy(content).into_owned()))
}

/// Where the content of a header extension is.
fn extension(bytes: &[u8], wanted: u32) -> Result<Option<Range<usize>>> {
    let mut at = word(bytes, 100) as usize;
    while let Some(extension) = bytes.get(at..at.saturating_add(8)) {
        let (kind, len) = (word(extension, 0), word(extension, 4) as usize);
        let content = at + 8..(at + 8).saturating_add(len);
        if bytes.get(content.clone()).is_none() {
            break;
        }
        match kind {
            0 => return Ok(None),
            kind if kind == wanted => return Ok(Some(content)),
            _ => at += 8 + len.next_multiple_of(8),
        }
    }
    Err(damaged("its header has no end"))
}

/// What has to be written where, in this order, so that an image that begins with `bytes` says that it lies on `base`;
/// nothing if it does. The name is put where none was. The second write, of less than a sector, then leads there: wherever it ends,
/// the image says the one or the other.
pub fn rebased(bytes: &[u8], base: Base<'_>) -> Result<Vec<(u64, Vec<u8>)>> {
    let header = Header::parse(bytes)?;
    let wanted = Backing { name: base.name.to_owned(), format: Some(base.format.to_owned()) };
    if header.backing.as_ref() == Some(&wanted) {
        return Ok(Vec::new());
    }
    let format = match header.version {
        3 => extension(bytes, BACKING_FORMAT)?,
        _ => None,
    };
    let room = header.cluster() / 4;
    let format = format.filter(|at| at.start + FORMAT_ROOM <= SECTOR);
    let (Some(at), true) = (format, base.format.len() <= FORMAT_ROOM && base.name.len() < room)
    else {
        return Err(refused(
            "its header has no room for the name of another backing file",
            CONVERT,
        ));
    };
    let (one, other) = (2 * room as u64, 3 * room as u64);
    let place = if long(bytes, 8) == one { other } else { one };
    let mut beginning = bytes[..at.start + FORMAT_ROOM].to_vec();
    beginning[8..16].copy_from_slice(&place.to_be_bytes());
    beginning[16..20].copy_from_slice(&(base.name.len() as u32).to_be_bytes());
    beginning[at.start - 4..at.start].copy_from_slice(&(base.format.len() as u32).to_be_bytes());
    beginning[at.start..].fill(0);
    beginning[at.start..at.start + base.format.len()].copy_from_slice(base.format.as_bytes());
    Ok(vec![(place, base.name.as_bytes().to_vec()), (0, beginning)])
}

pub(crate) fn damaged(why: &str) -> Error {
    Error::new(ErrorKind::CORRUPTED, format!("the qcow2 image is damaged: {why}"))
        .remedy("run `qemu-img check -r all` on the image, then attach the volume again")
}

fn refused(why: &str, remedy: &str) -> Error {
    Error::new(ErrorKind::UNSUPPORTED, format!("the qcow2 image cannot be served: {why}"))
        .remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blank::{Base, blank};

    fn image() -> Vec<u8> {
        blank(1 << 30, None).expect("an image")
    }

    fn with(change: impl Fn(&mut Vec<u8>)) -> Error {
        let mut image = image();
        change(&mut image);
        Header::parse(&image).expect_err("refused")
    }

    fn put(image: &mut [u8], at: usize, value: &[u8]) {
        image[at..at + value.len()].copy_from_slice(value);
    }

    #[test]
    fn an_image_of_ours_is_taken() {
        let header = Header::parse(&image()).expect("good");
        assert_eq!((header.size, header.cluster_bits, header.backing), (1 << 30, 16, None));
        // The table has a whole cluster, however short it may be.
        assert_eq!(header.l1_entries, (64 << 10) / 8);
    }

    #[test]
    fn a_backing_file_is_told() {
        let base = Base { name: "v.raw", format: "raw" };
        let image = blank(1 << 20, Some(base)).expect("an image");
        let backing = Header::parse(&image).expect("good").backing.expect("one");
        assert_eq!((&*backing.name, backing.format.as_deref()), ("v.raw", Some("raw")));
    }

    #[test]
    fn a_header_says_what_else_the_image_lies_on() {
        let raw = Base { name: "v.raw", format: "raw" };
        let long = "n".repeat(200);
        let mut image = blank(1 << 20, Some(raw)).expect("an image");
        assert!(rebased(&image, raw).expect("the same").is_empty());
        let (other, wide) =
            (Base { name: "w.qcow2", format: "qcow2" }, Base { name: &long, format: "raw" });
        for base in [other, raw, wide, other] {
            let before = Header::parse(&image).expect("good").backing;
            let writes = rebased(&image, base).expect("changed");
            assert!(writes[1].1.len() <= SECTOR);
            for (number, (at, bytes)) in writes.into_iter().enumerate() {
                put(&mut image, at as usize, &bytes);
                let backing = Header::parse(&image).expect("good").backing;
                let wanted = Backing { name: base.name.into(), format: Some(base.format.into()) };
                assert_eq!(backing, if number == 0 { before.clone() } else { Some(wanted) });
            }
        }
        let huge = "n".repeat(20_000);
        assert!(rebased(&image, Base { name: &huge, format: "raw" }).is_err());
        assert!(rebased(&blank(1 << 20, None).expect("an image"), raw).is_err());
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_a_remedy() {
        for (bit, remedy) in
            [(0, "check"), (1, "check"), (2, "convert"), (3, "convert"), (40, "convert")]
        {
            let error = with(|image| put(image, 72, &(1_u64 << bit).to_be_bytes()));
            assert_eq!(error.kind(), ErrorKind::UNSUPPORTED);
            assert!(error.remedy_text().contains(remedy), "{error:#}");
        }
        assert_eq!(with(|image| put(image, 32, &[0, 0, 0, 2])).kind(), ErrorKind::UNSUPPORTED);
        assert_eq!(with(|image| put(image, 4, &[0, 0, 0, 4])).kind(), ErrorKind::UNSUPPORTED);
    }

    #[test]
    fn what_makes_no_sense_is_damage() {
        let changes: [(usize, &[u8]); 9] = [
            (0, b"QFI "),
            (20, &[0, 0, 0, 8]),
            (24, &[0x80]),
            (24, &[0, 0, 4]),
            (36, &[0, 0, 0, 1]),
            (36, &[0xff]),
            (47, &[1]),
            (48, &[0; 8]),
            (99, &[7]),
        ];
        for (at, bytes) in changes {
            let error = with(|image| put(image, at, bytes));
            assert_eq!(error.kind(), ErrorKind::CORRUPTED, "{at}: {error:#}");
        }
        assert_eq!(with(|image| image.truncate(50)).kind(), ErrorKind::CORRUPTED);
        let named = |image: &mut Vec<u8>| {
            put(image, 8, &65_530_u64.to_be_bytes());
            put(image, 16, &100_u32.to_be_bytes());
        };
        assert_eq!(with(named).kind(), ErrorKind::CORRUPTED);
    }
}
