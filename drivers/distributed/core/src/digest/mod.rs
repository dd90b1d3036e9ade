// SPDX-License-Identifier: Apache-2.0
//! Digests of what all replicas hold at rest: with them the bad one of two replicas can be told.
//!
//! ```text
//!   memory:      a digest per unit, or none      <--- taken by scrubs; void with the first write
//!   state:       checkpoints, by their names     <--- stored when enough was taken, and at the end of a scrub
//!   companions:  the name of the checkpoint that counts, and which units are void since
//! ```
//! A unit lies within one region of the intent log and within one shard. A write goes to the bricks once all in-sync
//! companions name its region in the log; the same record says that the region's units are void, so it costs no I/O of
//! its own. A checkpoint that is lost costs coverage; one that is found is believed only as far as the companions say.

mod report;
mod voids;

use crate::{
    DecodeError, Generation, Run,
    codec::{Reader, Writer},
};
pub use report::{Finding, Judged, Repaired, ScrubStatus, Verdict};
pub(crate) use report::{MOST_FINDINGS, read_status, write_status};
pub(crate) use voids::Voids;

const MAGIC: [u8; 8] = *b"NVDSDIG\0";

/// A digest of 128 bits; the driver chooses which. Zeros stand for none.
pub type Digest = [u8; 16];

const NONE: Digest = [0; 16];

/// A checkpoint that is being stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) version: Generation,
    /// The state has it, and only a record is missing that names it.
    pub(crate) is_stored: bool,
    /// What became void since it was made.
    void: Voids,
}

/// The digests of a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Digests {
    unit: u64,
    size: u64,
    table: Vec<Digest>,
    known: u32,
    /// Taken since the last checkpoint was made.
    fresh: u32,
    /// The stored checkpoint that records name.
    base: Option<Generation>,
    /// What became void since that one was made.
    void: Voids,
    next: Option<Checkpoint>,
    /// Counts what became void, so that a record is known to say it.
    pub(crate) voided: u64,
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl Digests {
    /// None yet, for a volume of `size` bytes.
    pub(crate) fn new(size: u64, region_size: u32, shard_size: u64) -> Self {
        let unit = greatest_common_divisor(u64::from(region_size), shard_size.max(1)).max(1);
        let mut digests = Self {
            unit,
            size: 0,
            table: Vec::new(),
            known: 0,
            fresh: 0,
            base: None,
            void: Voids::default(),
            next: None,
            voided: 0,
        };
        digests.resize(size);
        digests
    }

    /// Bytes of a unit.
    pub(crate) fn unit(&self) -> u64 {
        self.unit
    }

    pub(crate) fn units(&self) -> u32 {
        self.table.len() as u32
    }

    pub(crate) fn known(&self) -> u32 {
        self.known
    }

    pub(crate) fn fresh(&self) -> u32 {
        self.fresh
    }

    /// The bytes of a unit: where it begins, and past its end.
    pub(crate) fn range(&self, unit: u32) -> (u64, u64) {
        let start = u64::from(unit) * self.unit;
        (start, (start + self.unit).min(self.size))
    }

    /// The digest of a unit that counts.
    pub(crate) fn get(&self, unit: u32) -> Option<Digest> {
        self.table.get(unit as usize).copied().filter(|digest| *digest != NONE)
    }

    /// All replicas of a unit hold this, at rest.
    pub(crate) fn take(&mut self, unit: u32, digest: Digest) {
        let Some(entry) = self.table.get_mut(unit as usize).filter(|entry| **entry == NONE) else {
            return;
        };
        if digest != NONE {
            *entry = digest;
            self.known += 1;
            self.fresh += 1;
        }
    }

    /// No digest that touches `start..end` counts any more. Nothing may be changed there before a record says so that
    /// knows [`Digests::voided`]; whether there was any.
    pub(crate) fn void(&mut self, start: u64, end: u64) -> bool {
        let first = (start / self.unit).min(u64::from(self.units())) as u32;
        let end = end.div_ceil(self.unit).min(u64::from(self.units())) as u32;
        let before = self.voided;
        for unit in first..end {
            let entry = &mut self.table[unit as usize];
            if *entry == NONE {
                continue;
            }
            *entry = NONE;
            self.known -= 1;
            self.voided += 1;
            if self.base.is_some() {
                self.void.insert(unit, unit + 1);
            }
            if let Some(next) = &mut self.next {
                next.void.insert(unit, unit + 1);
            }
        }
        before != self.voided
    }

    /// The volume gets another size: what lies past the smaller one is void, and the unit that it cuts.
    pub(crate) fn resize(&mut self, size: u64) {
        self.void(self.size.min(size), u64::MAX);
        self.size = size;
        let units = u32::try_from(size.div_ceil(self.unit)).unwrap_or(u32::MAX);
        self.table.resize(units as usize, NONE);
    }

    /// Makes a checkpoint under this name: its bytes, with how far a scrub is.
    pub(crate) fn checkpoint(
        &mut self,
        version: Generation,
        scrub: Option<&ScrubStatus>,
    ) -> Vec<u8> {
        self.fresh = 0;
        self.next = Some(Checkpoint { version, is_stored: false, void: Voids::default() });
        let mut writer = Writer::new(MAGIC);
        writer.u64(self.unit);
        writer.u32(self.units());
        let runs = self.table.chunk_by(|a, b| (*a == NONE) == (*b == NONE));
        let mut first = 0;
        let runs = runs.map(|run| {
            first += run.len() as u32;
            (first - run.len() as u32, run)
        });
        let known: Vec<(u32, &[Digest])> =
            runs.filter(|(_, run)| run.first().is_some_and(|digest| *digest != NONE)).collect();
        writer.len(known.len());
        for (first, run) in known {
            writer.u32(first);
            writer.len(run.len());
            run.iter().for_each(|digest| writer.raw(digest));
        }
        write_status(&mut writer, scrub);
        writer.finish()
    }

    /// A checkpoint on its way.
    pub(crate) fn next(&mut self) -> Option<&mut Checkpoint> {
        self.next.as_mut()
    }

    /// What the next record says: the checkpoint that counts from then on, and what is void of it.
    pub(crate) fn named(&self) -> Option<(Generation, Vec<Run>)> {
        match self.next.as_ref().filter(|next| next.is_stored) {
            Some(next) => Some((next.version, next.void.runs())),
            None => self.base.map(|base| (base, self.void.runs())),
        }
    }

    /// All in-sync companions have a record that names this checkpoint; whether it is new.
    pub(crate) fn recorded(&mut self, version: Option<Generation>) -> bool {
        let Some(next) = self.next.take_if(|next| Some(next.version) == version) else {
            return false;
        };
        self.base = Some(next.version);
        self.void = next.void;
        true
    }

    /// Puts in what a checkpoint says and the companions do not call void; how far the scrub was. Nothing if it is not
    /// one of this volume.
    ///
    /// # Errors
    /// When the bytes are no checkpoint.
    pub(crate) fn restore(
        &mut self,
        version: Generation,
        void: &[Run],
        bytes: &[u8],
    ) -> Result<Option<ScrubStatus>, DecodeError> {
        let mut reader = Reader::new(MAGIC, bytes)?;
        let (unit, units) = (reader.u64()?, reader.u32()?);
        let void = Voids::from_runs(void);
        let mut found = Vec::new();
        for _ in 0..reader.count(8)? {
            let first = reader.u32()?;
            for at in 0..reader.count(16)? as u32 {
                let unit = first.checked_add(at).filter(|unit| *unit < units);
                found.push((unit.ok_or(DecodeError::Malformed)?, reader.raw()?));
            }
        }
        let scrub = read_status(&mut reader)?;
        if unit != self.unit {
            return Ok(None);
        }
        let counts = |unit: &u32| !void.has(*unit) && *unit < self.units();
        for (unit, digest) in found.into_iter().filter(|(unit, _)| counts(unit)).collect::<Vec<_>>()
        {
            self.take(unit, digest);
        }
        (self.base, self.void, self.fresh) = (Some(version), void, 0);
        // A volume that was smaller meanwhile has nothing there that was digested.
        Ok(scrub)
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, Digests};
    use crate::Generation;

    const UNIT: u64 = 1 << 20;
    const FIRST: Generation = Generation { epoch: 1, change: 1 };

    fn digest(of: u8) -> Digest {
        [of; 16]
    }

    fn some() -> Digests {
        let mut digests = Digests::new(10 * UNIT - 1, 4 << 20, 5 << 20);
        assert_eq!((digests.unit(), digests.units()), (UNIT, 10));
        for unit in [0, 1, 2, 5, 9] {
            digests.take(unit, digest(unit as u8 + 1));
        }
        digests
    }

    #[test]
    fn a_checkpoint_counts_but_for_what_was_written_since() {
        let mut digests = some();
        let bytes = digests.checkpoint(FIRST, None);
        digests.void(UNIT + 5, UNIT + 6);
        assert_eq!(digests.named(), None, "nobody may look for what is not stored");
        digests.next().unwrap().is_stored = true;
        let (version, void) = digests.named().unwrap();
        assert_eq!((version, void.as_slice()), (FIRST, [(1, 1)].as_slice()));
        assert!(digests.recorded(Some(FIRST)) && !digests.recorded(Some(FIRST)));
        digests.void(5 * UNIT, 7 * UNIT);
        let void = digests.named().unwrap().1;
        let mut restored = Digests::new(10 * UNIT - 1, 4 << 20, 5 << 20);
        restored.restore(FIRST, &void, &bytes).unwrap();
        let known: Vec<u32> = (0..10).filter(|unit| restored.get(*unit).is_some()).collect();
        assert_eq!((known.as_slice(), restored.known()), ([0, 2, 9].as_slice(), 3));
        assert_eq!(restored.get(9), Some(digest(10)));
        assert_eq!(restored.named().unwrap().1, void, "what is void must stay so");
        let mut damaged = bytes.clone();
        damaged[60] ^= 1;
        assert!(restored.restore(FIRST, &[], &damaged).is_err());
    }

    #[test]
    fn another_size_voids_what_it_cuts() {
        let mut digests = some();
        digests.checkpoint(FIRST, None);
        digests.next().unwrap().is_stored = true;
        digests.recorded(Some(FIRST));
        digests.resize(2 * UNIT + 1);
        assert_eq!((digests.units(), digests.get(2)), (3, None));
        digests.resize(20 * UNIT);
        assert_eq!((digests.known(), digests.get(5), digests.get(9)), (2, None, None));
        assert_eq!(digests.named().unwrap().1, [(2, 1), (5, 1), (9, 1)]);
    }
}
