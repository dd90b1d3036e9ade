// SPDX-License-Identifier: Apache-2.0
//! Numbered places for things under way; a number is never given twice, so a late answer finds nothing.

/// Values by key; keys hold an index and how often it was used.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, value: T) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push((0, None));
            self.entries.len() as u32 - 1
        });
        let entry = &mut self.entries[index as usize];
        entry.1 = Some(value);
        u64::from(entry.0) << 32 | u64::from(index)
    }

    fn entry(&self, key: u64) -> Option<usize> {
        let index = key as u32 as usize;
        let entry = self.entries.get(index)?;
        (u64::from(entry.0) == key >> 32).then_some(index)
    }

    pub(crate) fn get(&self, key: u64) -> Option<&T> {
        self.entry(key).and_then(|index| self.entries[index].1.as_ref())
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        self.entry(key).and_then(|index| self.entries[index].1.as_mut())
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        let index = self.entry(key)?;
        let entry = &mut self.entries[index];
        let value = entry.1.take()?;
        entry.0 = entry.0.wrapping_add(1);
        self.free.push(index as u32);
        Some(value)
    }

    /// What is under way, by index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        (0_u64..).zip(&self.entries).filter_map(|(index, (round, value))| {
            value.as_ref().map(|value| (u64::from(*round) << 32 | index, value))
        })
    }
}
