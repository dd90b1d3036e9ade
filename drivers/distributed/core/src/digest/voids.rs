// SPDX-License-Identifier: Apache-2.0
//! Units whose stored digests count no more, as few runs as a record has room for.

use std::collections::BTreeMap;

use crate::Run;

/// More runs than this are merged over their smallest gaps: more is void then, never less.
const MOST: usize = 1024;

/// A set of units, by first and past the last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Voids {
    runs: BTreeMap<u32, u32>,
}

impl Voids {
    pub(crate) fn from_runs(runs: &[Run]) -> Self {
        let mut voids = Self::default();
        runs.iter().for_each(|(first, count)| voids.insert(*first, first.saturating_add(*count)));
        voids
    }

    /// Puts the units `first..end` in.
    pub(crate) fn insert(&mut self, first: u32, end: u32) {
        if first >= end {
            return;
        }
        let (mut first, mut end) = (first, end);
        while let Some((&from, &to)) = self.runs.range(..=end).next_back() {
            if to < first {
                break;
            }
            first = first.min(from);
            end = end.max(to);
            self.runs.remove(&from);
        }
        self.runs.insert(first, end);
        if self.runs.len() > MOST {
            self.merge();
        }
    }

    /// Leaves half of the most runs, those with the widest gaps between them.
    fn merge(&mut self) {
        let starts = self.runs.keys().skip(1);
        let mut gaps: Vec<u32> =
            starts.zip(self.runs.values()).map(|(start, end)| start - end).collect();
        gaps.sort_unstable();
        gaps.truncate(self.runs.len() - MOST / 2);
        let Some(&widest) = gaps.last() else { return };
        let mut as_wide = gaps.iter().filter(|gap| **gap == widest).count();
        for (first, end) in std::mem::take(&mut self.runs) {
            let gap = self.runs.last_key_value().map(|(_, last)| first - last);
            let is_closed = match gap {
                Some(gap) if gap == widest && as_wide > 0 => {
                    as_wide -= 1;
                    true
                }
                gap => gap.is_some_and(|gap| gap < widest),
            };
            match self.runs.last_entry() {
                Some(mut last) if is_closed => *last.get_mut() = end,
                _ => {
                    self.runs.insert(first, end);
                }
            }
        }
    }

    pub(crate) fn has(&self, unit: u32) -> bool {
        self.runs.range(..=unit).next_back().is_some_and(|(_, end)| *end > unit)
    }

    /// The runs for a record, in order.
    pub(crate) fn runs(&self) -> Vec<Run> {
        self.runs.iter().map(|(first, end)| (*first, end - first)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, Voids};

    #[test]
    fn runs_merge() {
        let mut voids = Voids::default();
        for (first, end) in [(10, 20), (30, 40), (20, 25), (5, 6), (38, 50), (7, 7)] {
            voids.insert(first, end);
        }
        assert_eq!(voids.runs(), [(5, 1), (10, 15), (30, 20)]);
        assert!(voids.has(5) && !voids.has(6) && voids.has(24) && !voids.has(25));
        assert_eq!(Voids::from_runs(&voids.runs()), voids);
    }

    #[test]
    fn too_many_runs_become_fewer_and_lose_nothing() {
        let mut voids = Voids::default();
        // Gaps of two sizes: the small ones go first.
        for index in 0..600 {
            voids.insert(index * 100, index * 100 + 1);
            voids.insert(index * 100 + 3, index * 100 + 4);
        }
        assert!(voids.runs().len() <= MOST);
        assert!((0..600).all(|at| voids.has(at * 100) && voids.has(at * 100 + 3)));
        let closed = (0..600).filter(|at| voids.has(at * 100 + 50)).count();
        assert!(closed <= 1, "{closed} wide gaps were closed while there were narrow ones");
    }

    #[test]
    fn gaps_that_are_as_wide_are_not_all_closed() {
        let mut voids = Voids::default();
        (0..=MOST as u32).for_each(|index| voids.insert(index * 10, index * 10 + 1));
        assert_eq!(voids.runs().len(), MOST / 2);
    }
}
