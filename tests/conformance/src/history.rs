// SPDX-License-Identifier: Apache-2.0
//! What a sector may hold, given when each write of it began and was acknowledged.
//!
//! Times are ticks of one counter, taken before an operation is started and after it was answered. A version may be
//! read unless another write began after this one was acknowledged, and was itself acknowledged before the read began.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{pattern::version_of, volume::Checked, volume::broken};

#[derive(Clone, Copy)]
struct Written {
    version: u64,
    began: u64,
    acknowledged: u64,
}

/// Every write of every sector.
#[derive(Default)]
pub(crate) struct History {
    clock: AtomicU64,
    sectors: Mutex<BTreeMap<u64, Vec<Written>>>,
}

impl History {
    pub(crate) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn change<R>(&self, change: impl FnOnce(&mut BTreeMap<u64, Vec<Written>>) -> R) -> R {
        change(&mut self.sectors.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Write `version` of these sectors is about to begin. Version zero is zeros, however they come about.
    pub(crate) fn begin(&self, first: u64, count: u64, version: u64) -> u64 {
        let began = self.tick();
        self.change(|sectors| {
            for sector in first..first + count {
                let written = Written { version, began, acknowledged: u64::MAX };
                sectors.entry(sector).or_default().push(written);
            }
        });
        began
    }

    /// The write that began then was acknowledged.
    pub(crate) fn acknowledge(&self, first: u64, count: u64, began: u64) {
        let now = self.tick();
        self.change(|sectors| {
            for sector in first..first + count {
                let all = sectors.entry(sector).or_default().iter_mut();
                all.filter(|written| written.began == began)
                    .for_each(|written| written.acknowledged = now);
            }
        });
    }

    /// Whether a read that began and ended then may have seen `bytes` at this sector.
    pub(crate) fn check(&self, sector: u64, bytes: &[u8], began: u64, ended: u64) -> Checked {
        self.change(|sectors| {
            let none = Vec::new();
            let all = sectors.get(&sector).unwrap_or(&none);
            let Some(version) = version_of(sector, bytes) else {
                // A read may see half of a write that is under way.
                let under_way = |w: &Written| w.began < ended && w.acknowledged > began;
                if all.iter().any(under_way) {
                    return Ok(());
                }
                return broken(format!("sector {sector} holds what no single write left there"));
            };
            let nothing = Written { version: 0, began: 0, acknowledged: 0 };
            let mut candidates =
                all.iter().chain([&nothing]).filter(|w| w.version == version && w.began < ended);
            let overwritten = |candidate: &Written| {
                all.iter().any(|w| w.began > candidate.acknowledged && w.acknowledged < began)
            };
            if candidates.any(|candidate| !overwritten(candidate)) {
                return Ok(());
            }
            broken(format!(
                "sector {sector} was read as write {version} left it, {}",
                if all.iter().any(|w| w.version == version) {
                    "but a later write was acknowledged before the read"
                } else if version == 0 {
                    "zeros, but a write was acknowledged before the read"
                } else {
                    "which was never written there"
                }
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::stamped;

    fn reads(history: &History, version: u64) -> bool {
        let now = history.tick();
        history.check(7, &stamped(7, version, 512), now, history.tick()).is_ok()
    }

    #[test]
    fn only_the_last_acknowledged_write_may_be_read() {
        let history = History::default();
        assert!(reads(&history, 0) && !reads(&history, 1));
        let first = history.begin(7, 1, 1);
        assert!(reads(&history, 0) && reads(&history, 1));
        history.acknowledge(7, 1, first);
        assert!(!reads(&history, 0) && reads(&history, 1));
    }

    #[test]
    fn of_two_overlapping_writes_either_may_win() {
        let history = History::default();
        let (first, second) = (history.begin(7, 1, 1), history.begin(7, 1, 2));
        history.acknowledge(7, 1, first);
        history.acknowledge(7, 1, second);
        assert!(reads(&history, 1) && reads(&history, 2) && !reads(&history, 0));
        let third = history.begin(7, 1, 3);
        history.acknowledge(7, 1, third);
        assert!(!reads(&history, 1) && !reads(&history, 2) && reads(&history, 3));
    }

    #[test]
    fn a_torn_sector_is_refused_unless_a_write_is_under_way() {
        let history = History::default();
        let mut torn = stamped(7, 1, 512);
        torn[300..].fill(0);
        let now = history.tick();
        assert!(history.check(7, &torn, now, history.tick()).is_err());
        history.begin(7, 1, 1);
        let now = history.tick();
        assert!(history.check(7, &torn, now, history.tick()).is_ok());
    }
}
