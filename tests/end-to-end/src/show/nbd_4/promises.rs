// SPDX-License-Identifier: Apache-2.0
//! What several connections to one volume were promised together, sector by sector.
//!
//! ```text
//!   floor     covered by a flush that was sent after its write was acknowledged, or acknowledged with FUA:
//!             nothing older may be found
//!   ceiling   sent before a flush was acknowledged, or with FUA: nothing newer can be found
//! ```

use std::ops::Range;

use crate::{
    failure::{Context, Outcome, ensure},
    ledger::{Version, decode},
};

const SECTOR_LEN: usize = 512;

#[derive(Clone, Copy, Default)]
struct Sector {
    sent: Version,
    acknowledged: Version,
    in_flight: bool,
    floor: Version,
    ceiling: Version,
}

/// The promises about a volume that began with zeros.
pub struct Promises {
    sectors: Vec<Sector>,
    last: Version,
}

/// A write on its way.
pub struct Write {
    sectors: Range<usize>,
    version: Version,
    fua: bool,
}

/// What was acknowledged when a flush was sent.
pub struct Covered(Vec<Version>);

/// What a lost volume was found to hold.
#[derive(Default)]
pub struct Found {
    /// Sectors that a flush or FUA had made safe.
    pub safe: u64,
    /// Sectors whose last write is gone, as it may.
    pub gone: u64,
}

impl Promises {
    /// The promises about so many sectors.
    pub fn new(sectors: usize) -> Self {
        Self { sectors: vec![Sector::default(); sectors], last: 0 }
    }

    /// Takes note of a write that is about to be sent; `None` where it would overlap one in flight.
    pub fn write(&mut self, sectors: Range<usize>, fua: bool) -> Option<Write> {
        let touched = &mut self.sectors[sectors.clone()];
        if touched.iter().any(|sector| sector.in_flight) {
            return None;
        }
        self.last += 1;
        for sector in touched {
            sector.sent = self.last;
            sector.in_flight = true;
            if fua {
                sector.ceiling = self.last;
            }
        }
        Some(Write { sectors, version: self.last, fua })
    }

    /// A write was acknowledged.
    pub fn written(&mut self, write: &Write) {
        for sector in &mut self.sectors[write.sectors.clone()] {
            sector.acknowledged = write.version;
            sector.in_flight = false;
            if write.fua {
                sector.floor = write.version;
            }
        }
    }

    /// A flush is about to be sent.
    pub fn flush(&self) -> Covered {
        Covered(self.sectors.iter().map(|sector| sector.acknowledged).collect())
    }

    /// A flush was acknowledged.
    pub fn flushed(&mut self, covered: &Covered) {
        for (sector, version) in self.sectors.iter_mut().zip(&covered.0) {
            sector.floor = sector.floor.max(*version);
            sector.ceiling = sector.sent;
        }
    }

    /// Compares what is left after a loss with the promises.
    ///
    /// # Errors
    /// When a sector is older than promised, newer than possible, torn or foreign.
    pub fn check(&self, bytes: &[u8]) -> Outcome<Found> {
        let mut found = Found::default();
        for (index, (sector, data)) in
            (0_u64..).zip(self.sectors.iter().zip(bytes.chunks(SECTOR_LEN)))
        {
            let version = decode(index, data).context(format!("sector {index}"))?;
            ensure((sector.floor..=sector.ceiling).contains(&version), || {
                format!(
                    "sector {index} holds version {version}, but {} was made durable and {} could be",
                    sector.floor, sector.ceiling
                )
            })?;
            found.safe += u64::from(sector.floor > 0);
            found.gone += u64::from(version < sector.sent);
        }
        Ok(found)
    }
}

impl Write {
    /// Its sectors.
    pub fn sectors(&self) -> Range<u64> {
        self.sectors.start as u64..self.sectors.end as u64
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::Promises;
    use crate::ledger::content;

    fn holds(promises: &Promises, version: u64) -> bool {
        let bytes = if version == 0 { vec![0; 512] } else { content(0..1, version) };
        promises.check(&bytes).is_ok()
    }

    fn allowed(promises: &Promises) -> Vec<u64> {
        (0..6).filter(|version| holds(promises, *version)).collect()
    }

    #[test]
    fn a_flush_covers_what_was_acknowledged_when_it_was_sent() {
        let mut promises = Promises::new(1);
        let first = promises.write(0..1, false).unwrap();
        assert!(promises.write(0..1, false).is_none(), "it would overlap");
        assert_eq!(allowed(&promises), [0]);
        promises.written(&first);
        assert_eq!(allowed(&promises), [0]);
        let covered = promises.flush();
        let second = promises.write(0..1, false).unwrap();
        promises.written(&second);
        promises.flushed(&covered);
        assert_eq!(allowed(&promises), [1, 2]);
        let third = promises.write(0..1, true).unwrap();
        assert_eq!(allowed(&promises), [1, 2, 3]);
        promises.written(&third);
        assert_eq!(allowed(&promises), [3]);
    }
}
