// SPDX-License-Identifier: Apache-2.0
//! Sparse bytes that are cheap to copy.

use std::{collections::BTreeMap, sync::Arc};

pub const PAGE: u64 = 4096;

/// Pages by number; a page that is not there reads zeros.
#[derive(Clone, Default)]
pub struct Content(pub BTreeMap<u64, Arc<[u8]>>);

/// The parts of a range, as (page, first byte in it, length).
fn parts(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + len;
    (offset / PAGE..end.div_ceil(PAGE)).filter_map(move |page| {
        let from = offset.max(page * PAGE);
        let to = end.min((page + 1) * PAGE);
        (from < to).then(|| (page, (from - page * PAGE) as usize, (to - from) as usize))
    })
}

impl Content {
    pub fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        let mut at = 0;
        for (page, from, part) in parts(offset, len) {
            if let Some(held) = self.0.get(&page) {
                bytes[at..at + part].copy_from_slice(&held[from..from + part]);
            }
            at += part;
        }
        bytes
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let mut at = 0;
        for (page, from, part) in parts(offset, data.len() as u64) {
            let held = self.0.entry(page).or_insert_with(|| vec![0; PAGE as usize].into());
            Arc::make_mut(held)[from..from + part].copy_from_slice(&data[at..at + part]);
            at += part;
        }
    }

    /// Zeros; whole pages become holes unless `keep`.
    pub fn zero(&mut self, offset: u64, len: u64, keep: bool) {
        if keep {
            return self.write(offset, &vec![0; len as usize]);
        }
        let end = offset.saturating_add(len);
        let whole = offset.div_ceil(PAGE)..end / PAGE;
        let touched: Vec<u64> =
            self.0.range(offset / PAGE..end.div_ceil(PAGE)).map(|(page, _)| *page).collect();
        for page in touched {
            if whole.contains(&page) {
                self.0.remove(&page);
            } else {
                let from = offset.max(page * PAGE);
                let to = end.min((page + 1) * PAGE);
                self.write(from, &vec![0; (to - from) as usize]);
            }
        }
    }

    pub fn truncate(&mut self, size: u64) {
        self.zero(size, u64::MAX - size, false);
    }

    pub fn used(&self) -> u64 {
        self.0.len() as u64 * PAGE
    }
}
