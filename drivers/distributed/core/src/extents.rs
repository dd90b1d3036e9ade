// SPDX-License-Identifier: Apache-2.0
//! A set of bytes of a volume, kept as ranges.

use std::collections::BTreeMap;

/// More ranges than this are merged over gaps: more is copied then, never less.
const MOST: usize = 1 << 16;

/// Ranges `start..end`, apart from each other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ExtentSet {
    ranges: BTreeMap<u64, u64>,
    /// Gaps shorter than this are not kept.
    grain: u64,
}

impl ExtentSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Bytes in the set.
    pub(crate) fn bytes(&self) -> u64 {
        self.ranges.iter().map(|(start, end)| end - start).sum()
    }

    /// Bytes of `start..end` in the set.
    pub(crate) fn within(&self, start: u64, end: u64) -> u64 {
        let before = self.ranges.range(..start).next_back();
        let touching = before.into_iter().chain(self.ranges.range(start..end));
        touching.map(|(from, to)| end.min(*to).saturating_sub(start.max(*from))).sum()
    }

    pub(crate) fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (mut start, mut end) = (start, end);
        let reach = end.saturating_add(self.grain);
        while let Some((&from, &to)) = self.ranges.range(..=reach).next_back() {
            if to.saturating_add(self.grain) < start {
                break;
            }
            start = start.min(from);
            end = end.max(to);
            self.ranges.remove(&from);
        }
        self.ranges.insert(start, end);
        if self.ranges.len() > MOST {
            self.coarsen();
        }
    }

    fn coarsen(&mut self) {
        while self.ranges.len() > MOST / 2 {
            self.grain = (self.grain * 2).max(4096);
            for (start, end) in std::mem::take(&mut self.ranges) {
                match self.ranges.last_entry() {
                    Some(mut last) if start - *last.get() <= self.grain => *last.get_mut() = end,
                    _ => {
                        self.ranges.insert(start, end);
                    }
                }
            }
        }
    }

    pub(crate) fn remove(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        while let Some((&from, &to)) = self.ranges.range(..end).next_back() {
            if to <= start {
                break;
            }
            self.ranges.remove(&from);
            if to > end {
                self.ranges.insert(end, to);
            }
            if from < start {
                self.ranges.insert(from, start);
            }
        }
        if self.ranges.is_empty() {
            self.grain = 0;
        }
    }

    /// Whether any byte of `start..end` is in the set.
    pub(crate) fn touches(&self, start: u64, end: u64) -> bool {
        self.ranges.range(..end).next_back().is_some_and(|(_, to)| *to > start)
    }

    /// Moves everything of `other` here.
    pub(crate) fn absorb(&mut self, other: &mut Self) {
        for (start, end) in std::mem::take(&mut other.ranges) {
            self.insert(start, end);
        }
        other.grain = 0;
    }

    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
        self.grain = 0;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(start, end)| (*start, *end))
    }

    /// The first range that ends after `at`, from `at` on.
    pub(crate) fn next_from(&self, at: u64) -> Option<(u64, u64)> {
        let before = self.ranges.range(..=at).next_back().filter(|(_, end)| **end > at);
        let (start, end) = before.or_else(|| self.ranges.range(at..).next())?;
        Some((at.max(*start), *end))
    }
}

#[cfg(test)]
mod tests {
    use super::{ExtentSet, MOST};

    fn ranges(set: &ExtentSet) -> Vec<(u64, u64)> {
        set.iter().collect()
    }

    #[test]
    fn ranges_merge_and_split() {
        let mut set = ExtentSet::default();
        for (start, end) in [(10, 20), (30, 40), (20, 25), (5, 6), (38, 50), (7, 7)] {
            set.insert(start, end);
        }
        assert_eq!(ranges(&set), [(5, 6), (10, 25), (30, 50)]);
        assert_eq!(set.bytes(), 36);
        assert_eq!((set.within(12, 35), set.within(0, 9), set.within(60, 70)), (18, 1, 0));
        set.remove(12, 35);
        assert_eq!(ranges(&set), [(5, 6), (10, 12), (35, 50)]);
        assert!(set.touches(11, 12) && !set.touches(12, 35) && set.touches(0, 100));
        assert_eq!(set.next_from(6), Some((10, 12)));
        assert_eq!(set.next_from(40), Some((40, 50)));
        assert_eq!(set.next_from(50), None);
        set.insert(0, 100);
        assert_eq!(ranges(&set), [(0, 100)]);
    }

    #[test]
    fn too_many_ranges_become_fewer_and_lose_nothing() {
        let mut set = ExtentSet::default();
        let count = MOST as u64 + 1;
        for index in 0..count {
            set.insert(index * 8192, index * 8192 + 512);
        }
        assert!(set.iter().count() <= MOST / 2);
        assert!((0..count).all(|index| set.touches(index * 8192, index * 8192 + 1)));
    }
}
