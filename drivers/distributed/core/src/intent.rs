// SPDX-License-Identifier: Apache-2.0
//! The write-intent log: regions that may differ between in-sync bricks, and what of them is not flushed.
//!
//! ```text
//!   absent --acquire--> pending --all in-sync companions name it--> committed --(clean) evict--> absent
//! ```
//! Each region remembers what was written since the last flush began (`current`) and before it (`previous`), in 1024
//! blocks. A region is clean when neither has a block and no write is in flight; only clean regions are evicted.

use std::collections::BTreeMap;

use crate::{Time, extents::ExtentSet};

const BLOCKS: u64 = 1024;
const WORDS: usize = BLOCKS as usize / 64;

#[derive(Clone, PartialEq, Eq, Debug)]
struct Region {
    committed: bool,
    in_flight: u32,
    used: u64,
    touched: Time,
    unflushed: bool,
    current: [u64; WORDS],
    previous: [u64; WORDS],
}

impl Region {
    fn is_clean(&self) -> bool {
        self.in_flight == 0 && !self.unflushed
    }
}

/// What [`IntentLog::acquire`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Acquired {
    /// All companions name the regions.
    Committed,
    /// They are held, but must be committed first.
    Pending,
    /// There is no room; nothing is held. Evict, or flush first.
    Full,
}

/// Bytes of a block: never below a sector.
fn block_size(region_size: u64) -> u64 {
    (region_size / BLOCKS).max(512)
}

#[derive(Debug)]
pub(crate) struct IntentLog {
    regions: BTreeMap<u32, Region>,
    capacity: usize,
    region_size: u64,
    clock: u64,
    /// No clean region was written before this; `None`: none is clean.
    idle_since: Option<Time>,
}

impl IntentLog {
    pub(crate) fn new(capacity: u32, region_size: u32) -> Self {
        let capacity = (capacity as usize).max(8);
        let region_size = u64::from(region_size);
        Self { regions: BTreeMap::new(), capacity, region_size, clock: 0, idle_since: None }
    }

    /// Bytes that one step of an operation may cover: a quarter of the log, so that several fit.
    pub(crate) fn step_bytes(&self) -> u64 {
        self.region_size * (self.capacity as u64 / 4).max(1)
    }

    fn span(&self, offset: u64, len: u64) -> std::ops::RangeInclusive<u32> {
        let first = offset / self.region_size;
        let last = (offset + len.max(1) - 1) / self.region_size;
        first as u32..=last as u32
    }

    /// Whether a region of a range is in the log: it may have been written, or will be.
    pub(crate) fn has_any(&self, offset: u64, len: u64) -> bool {
        self.regions.range(self.span(offset, len)).next().is_some()
    }

    /// The bytes of the regions that a range touches.
    pub(crate) fn around(&self, offset: u64, len: u64) -> (u64, u64) {
        let span = self.span(offset, len);
        (
            u64::from(*span.start()) * self.region_size,
            (u64::from(*span.end()) + 1) * self.region_size,
        )
    }

    /// Holds the regions of a range for a write, until [`IntentLog::release`].
    pub(crate) fn acquire(&mut self, now: Time, offset: u64, len: u64) -> Acquired {
        self.clock += 1;
        let span = self.span(offset, len);
        let missing = span.clone().filter(|region| !self.regions.contains_key(region)).count();
        let mut committed = missing == 0;
        if missing > 0 && !self.make_room(missing, &span) {
            return Acquired::Full;
        }
        let clock = self.clock;
        for number in span {
            let region = self.regions.entry(number).or_insert_with(|| Region {
                committed: false,
                in_flight: 0,
                used: 0,
                touched: now,
                unflushed: false,
                current: [0; WORDS],
                previous: [0; WORDS],
            });
            region.in_flight += 1;
            region.used = clock;
            region.touched = now;
            committed &= region.committed;
        }
        if committed { Acquired::Committed } else { Acquired::Pending }
    }

    /// Evicts the regions used longest ago, an eighth of the log at once so that many share one record.
    fn make_room(&mut self, missing: usize, keep: &std::ops::RangeInclusive<u32>) -> bool {
        let room = self.capacity.saturating_sub(self.regions.len());
        if room >= missing {
            return true;
        }
        let clean = self
            .regions
            .iter()
            .filter(|(number, region)| region.is_clean() && !keep.contains(number));
        let mut clean: Vec<(u64, u32)> =
            clean.map(|(number, region)| (region.used, *number)).collect();
        if clean.len() + room < missing {
            return false;
        }
        clean.sort_unstable();
        clean.truncate((missing - room).max(self.capacity / 8));
        for (_, number) in clean {
            self.regions.remove(&number);
        }
        true
    }

    /// Whether all regions of a range are named by all companions.
    pub(crate) fn is_committed(&self, offset: u64, len: u64) -> bool {
        self.span(offset, len)
            .all(|number| self.regions.get(&number).is_some_and(|region| region.committed))
    }

    /// Ends a hold. With `written`, the range counts as not flushed.
    pub(crate) fn release(&mut self, offset: u64, len: u64, written: bool) {
        let (size, block) = (self.region_size, block_size(self.region_size));
        for number in self.span(offset, len) {
            let Some(region) = self.regions.get_mut(&number) else { continue };
            region.in_flight = region.in_flight.saturating_sub(1);
            if !written {
                if region.is_clean() {
                    self.idle_since = earlier(self.idle_since, region.touched);
                }
                continue;
            }
            let start = u64::from(number) * size;
            let first = offset.max(start) - start;
            let last = (offset + len).min(start + size) - 1 - start;
            for index in first / block..=(last / block).min(BLOCKS - 1) {
                region.current[index as usize / 64] |= 1 << (index % 64);
            }
            region.unflushed = true;
        }
    }

    /// Puts in regions that recovery found; all of each counts as not flushed.
    pub(crate) fn restore(&mut self, now: Time, regions: &[u32]) {
        for number in regions {
            let region = Region {
                committed: true,
                in_flight: 0,
                used: 0,
                touched: now,
                unflushed: true,
                current: [u64::MAX; WORDS],
                previous: [0; WORDS],
            };
            self.regions.insert(*number, region);
        }
    }

    /// A flush of all bricks begins: what was written up to now will be flushed by it.
    pub(crate) fn flush_begins(&mut self) {
        for region in self.regions.values_mut().filter(|region| region.unflushed) {
            for (previous, current) in region.previous.iter_mut().zip(&mut region.current) {
                *previous |= std::mem::take(current);
            }
        }
    }

    /// That flush has ended on every in-sync brick.
    pub(crate) fn flush_ended(&mut self) {
        for region in self.regions.values_mut().filter(|region| region.unflushed) {
            region.previous = [0; WORDS];
            region.unflushed = region.current != [0; WORDS];
            if region.is_clean() {
                self.idle_since = earlier(self.idle_since, region.touched);
            }
        }
    }

    /// Everything that is not flushed on every brick, without what is in flight.
    pub(crate) fn unflushed(&self) -> ExtentSet {
        let mut set = ExtentSet::default();
        let block = block_size(self.region_size);
        for (number, region) in self.regions.iter().filter(|(_, region)| region.unflushed) {
            let start = u64::from(*number) * self.region_size;
            let words = region.current.iter().zip(&region.previous).map(|(a, b)| a | b);
            for (first, mut word) in (0_u64..).step_by(64).zip(words) {
                while word != 0 {
                    let skipped = word.trailing_zeros();
                    let run = (word >> skipped).trailing_ones();
                    let from = first + u64::from(skipped);
                    let to = (from + u64::from(run)) * block;
                    set.insert(start + from * block, start + to.min(self.region_size));
                    let below = skipped + run;
                    word = if below == 64 { 0 } else { word >> below << below };
                }
            }
        }
        set
    }

    /// The regions for a record, in order, with those that are pending.
    pub(crate) fn regions(&self) -> Vec<u32> {
        self.regions.keys().copied().collect()
    }

    /// All companions name these regions now.
    pub(crate) fn committed(&mut self, regions: &[u32]) {
        for number in regions {
            if let Some(region) = self.regions.get_mut(number) {
                region.committed = true;
            }
        }
    }

    /// Evicts clean regions that were not written since `before`; whether there were any.
    pub(crate) fn trim(&mut self, before: Time) -> bool {
        let count = self.regions.len();
        self.regions.retain(|_, region| !region.is_clean() || region.touched > before);
        let clean = self.regions.values().filter(|region| region.is_clean());
        self.idle_since = clean.map(|region| region.touched).min();
        count != self.regions.len()
    }

    /// No region was written later than now: the clock may have jumped back, and would keep regions here until then.
    pub(crate) fn clock_is(&mut self, now: Time) {
        self.regions.values_mut().for_each(|region| region.touched = region.touched.min(now));
        self.idle_since = self.idle_since.map(|since| since.min(now));
    }

    /// Forgets regions past the end of a smaller volume.
    pub(crate) fn shrink(&mut self, size: u64) {
        let end = size.div_ceil(self.region_size);
        self.regions.retain(|number, _| u64::from(*number) < end);
    }

    pub(crate) fn has_unflushed(&self) -> bool {
        self.regions.values().any(|region| region.unflushed)
    }

    /// No clean region was last written before this. It may be too early after a region was written again, until
    /// [`IntentLog::trim`] looks at all of them; so it costs nothing to ask.
    pub(crate) fn idle_since(&self) -> Option<Time> {
        self.idle_since
    }
}

fn earlier(known: Option<Time>, other: Time) -> Option<Time> {
    Some(known.map_or(other, |known| known.min(other)))
}
