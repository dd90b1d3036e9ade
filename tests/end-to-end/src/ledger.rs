// SPDX-License-Identifier: Apache-2.0
//! What a client was promised, sector by sector.
//!
//! Each sector that is written holds its own number and a version, and the rest follows from both: a torn or a foreign
//! sector cannot look whole. A sector may hold its durable version or any later one that was sent; nothing else.
//!
//! ```text
//!   written(v)  -> later: [.., v]       sent, perhaps acknowledged: v or anything before it may be there
//!   flushed()   -> durable: last later  acknowledged, then a flush or its own FUA was: nothing older may be there
//!   observed(v) -> durable: v           read after a crash, then flushed
//! ```

use std::{collections::BTreeSet, fmt, ops::Range};

use crate::random::mix;

/// Bytes in a sector.
pub const SECTOR: u32 = 512;
const SECTOR_LEN: usize = 512;
const MAGIC: [u8; 8] = *b"novaSECT";

/// What a sector holds: zero for zeros, otherwise the number of a write.
pub type Version = u64;

/// Why a sector is wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which sector.
    pub sector: u64,
    /// What is there, and what should be.
    pub reason: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sector {}: {}", self.sector, self.reason)
    }
}

#[derive(Clone, Debug, Default)]
struct Entry {
    durable: Version,
    later: Vec<Sent>,
}

/// A write that may be there.
#[derive(Clone, Copy, Debug)]
struct Sent {
    version: Version,
    /// It failed: nothing is promised, and it may be there.
    refused: bool,
}

/// The promises about a range of sectors that one writer owns.
#[derive(Clone, Debug)]
pub struct Ledger {
    sectors: Range<u64>,
    entries: Vec<Entry>,
    /// Sectors with later versions, so that a flush need not look at all.
    unsettled: BTreeSet<u64>,
    last: Version,
}

impl Ledger {
    /// A ledger of a range that reads zeros.
    pub fn new(sectors: Range<u64>) -> Self {
        let entries = sectors.clone().map(|_| Entry::default()).collect();
        Self { sectors, entries, unsettled: BTreeSet::new(), last: 0 }
    }

    /// Its sectors.
    pub fn sectors(&self) -> Range<u64> {
        self.sectors.clone()
    }

    fn entry(&mut self, sector: u64) -> Option<&mut Entry> {
        let index = sector.checked_sub(self.sectors.start)?;
        self.entries.get_mut(usize::try_from(index).ok()?)
    }

    /// A version for the next write.
    pub fn next_version(&mut self) -> Version {
        self.last += 1;
        self.last
    }

    /// A write of this version, or of zeros, is about to be sent.
    pub fn written(&mut self, sectors: Range<u64>, version: Version) {
        for sector in sectors {
            if let Some(entry) = self.entry(sector) {
                entry.later.push(Sent { version, refused: false });
                self.unsettled.insert(sector);
            }
        }
    }

    /// The last write of these sectors, which was of this version, failed: each of them is as before or has it.
    pub fn refused(&mut self, sectors: Range<u64>, version: Version) {
        for sector in sectors {
            if let Some(entry) = self.entry(sector)
                && let Some(sent) = entry.later.iter_mut().rfind(|sent| sent.version == version)
            {
                sent.refused = true;
            }
        }
    }

    /// The last write of these sectors was acknowledged with FUA.
    pub fn settled(&mut self, sectors: Range<u64>) {
        for sector in sectors {
            self.unsettled.remove(&sector);
            self.settle(sector);
        }
    }

    /// A flush was acknowledged that was sent after all writes were.
    pub fn flushed(&mut self) {
        for sector in std::mem::take(&mut self.unsettled) {
            self.settle(sector);
        }
    }

    /// What was acknowledged last is durable; what failed after it may still be there.
    fn settle(&mut self, sector: u64) {
        let Some(entry) = self.entry(sector) else { return };
        if let Some(last) = entry.later.iter().rposition(|sent| !sent.refused) {
            entry.durable = entry.later[last].version;
            entry.later.drain(..=last);
        }
        if !entry.later.is_empty() {
            self.unsettled.insert(sector);
        }
    }

    /// Compares sectors read after a restart, the first of them `first`, with the promises, and takes what is there as
    /// durable: the caller flushes before the next write.
    ///
    /// # Errors
    /// At the first sector that is older than promised, torn or foreign.
    pub fn observed(&mut self, first: u64, bytes: &[u8]) -> Result<(), Broken> {
        for (sector, data) in (first..).zip(bytes.chunks(SECTOR_LEN)) {
            let version = decode(sector, data).map_err(|reason| Broken { sector, reason })?;
            let Some(entry) = self.entry(sector) else { continue };
            let later: Vec<Version> = entry.later.iter().map(|sent| sent.version).collect();
            if version != entry.durable && !later.contains(&version) {
                let reason = format!(
                    "holds version {version}, promised was {} or one of {later:?}",
                    entry.durable
                );
                return Err(Broken { sector, reason });
            }
            *entry = Entry { durable: version, later: Vec::new() };
            self.unsettled.remove(&sector);
        }
        Ok(())
    }
}

/// Writes what `sector` holds at `version` into `data`.
fn encode(sector: u64, version: Version, data: &mut [u8]) {
    let seed = mix(sector) ^ mix(version.wrapping_add(0x5851_f42d_4c95_7f2d));
    for (index, word) in (0_u64..).zip(data.chunks_mut(8)) {
        let value = match index {
            0 => MAGIC,
            1 => sector.to_be_bytes(),
            2 => version.to_be_bytes(),
            _ => mix(seed.wrapping_add(index)).to_be_bytes(),
        };
        word.copy_from_slice(&value[..word.len()]);
    }
}

/// The bytes of a write of `version` to these sectors.
pub fn content(sectors: Range<u64>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    for sector in sectors {
        let start = bytes.len();
        bytes.resize(start + SECTOR_LEN, 0);
        encode(sector, version, &mut bytes[start..]);
    }
    bytes
}

/// The version that a sector's bytes are.
///
/// # Errors
/// When they are torn, or not of this sector.
pub fn decode(sector: u64, data: &[u8]) -> Result<Version, String> {
    if data.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    let word = |index: usize| {
        let bytes =
            data.get(index * 8..index * 8 + 8).and_then(|word| <[u8; 8]>::try_from(word).ok());
        bytes.unwrap_or_default()
    };
    if word(0) != MAGIC {
        return Err("torn or never written by us".to_owned());
    }
    let (owner, version) = (u64::from_be_bytes(word(1)), u64::from_be_bytes(word(2)));
    if owner != sector {
        return Err(format!("foreign: it belongs to sector {owner}"));
    }
    if content(sector..sector + 1, version) != data {
        return Err(format!("torn: it begins as version {version}"));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::{Ledger, content};

    const ZEROS: [u8; 512] = [0; 512];

    fn holds(ledger: &Ledger, version: u64) -> bool {
        let bytes = if version == 0 { ZEROS.to_vec() } else { content(5..6, version) };
        ledger.clone().observed(5, &bytes).is_ok()
    }

    fn allowed(ledger: &Ledger) -> Vec<u64> {
        (0..5).filter(|version| holds(ledger, *version)).collect()
    }

    #[test]
    fn old_or_new_until_flushed() {
        let mut ledger = Ledger::new(4..8);
        assert_eq!(allowed(&ledger), [0]);
        ledger.written(5..6, 1);
        ledger.written(4..8, 2);
        assert_eq!(allowed(&ledger), [0, 1, 2]);
        ledger.flushed();
        assert_eq!(allowed(&ledger), [2]);
        ledger.written(5..6, 3);
        ledger.settled(5..6);
        assert_eq!(allowed(&ledger), [3]);
        ledger.written(5..7, 0);
        assert_eq!(allowed(&ledger), [0, 3]);
        ledger.observed(5, &ZEROS).unwrap();
        assert_eq!(allowed(&ledger), [0]);
    }

    #[test]
    fn what_failed_may_be_there_until_it_is_overwritten() {
        let mut ledger = Ledger::new(4..8);
        ledger.written(5..6, 1);
        ledger.written(5..6, 2);
        ledger.refused(5..6, 2);
        assert_eq!(allowed(&ledger), [0, 1, 2]);
        ledger.flushed();
        assert_eq!(
            allowed(&ledger),
            [1, 2],
            "the acknowledged one is durable, the other may be there"
        );
        ledger.flushed();
        assert_eq!(allowed(&ledger), [1, 2]);
        ledger.written(5..6, 3);
        ledger.flushed();
        assert_eq!(allowed(&ledger), [3]);
    }

    #[test]
    fn torn_and_foreign_sectors_are_told() {
        let mut ledger = Ledger::new(4..8);
        ledger.written(4..8, 1);
        let mut torn = content(5..6, 1);
        torn[256..].fill(0);
        assert!(ledger.observed(5, &torn).unwrap_err().reason.contains("torn"));
        assert!(ledger.observed(5, &content(6..7, 1)).unwrap_err().reason.contains("foreign"));
        assert!(ledger.observed(5, &[7; 512]).unwrap_err().reason.contains("never written"));
        let broken =
            ledger.observed(4, &[content(4..5, 1), content(5..6, 2)].concat()).unwrap_err();
        assert_eq!(broken.sector, 5);
    }

    #[test]
    fn versions_are_not_given_twice() {
        let mut ledger = Ledger::new(0..1);
        assert_eq!([ledger.next_version(), ledger.next_version()], [1, 2]);
    }
}
