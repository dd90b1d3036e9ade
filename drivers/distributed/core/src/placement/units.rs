// SPDX-License-Identifier: Apache-2.0
//! What a volume has now, in the units that a plan moves: a shard, or neighbouring shards that stay together.

use std::collections::BTreeMap;

use super::{hash::mix, plan::Present, sites::Sites};
use crate::{Slot, SlotSet};

/// What the shards of a unit have: each set that occurs, and how many shards have it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held(pub Vec<(SlotSet, u32)>);

impl Held {
    /// How many shards would have to be copied for this slot to have them all.
    pub fn missing(&self, slot: Slot) -> u32 {
        self.0.iter().filter(|(set, _)| !set.has(slot)).map(|(_, shards)| *shards).sum()
    }

    /// The slots that have all.
    pub fn whole(&self) -> SlotSet {
        self.0.iter().fold(SlotSet(u64::MAX), |whole, (set, _)| whole.and(*set))
    }

    /// The slots that may hold such a unit.
    pub fn candidates(&self, sites: &Sites) -> SlotSet {
        sites.gaining.or(sites.keeping.and(self.whole()))
    }
}

/// A volume's units in order.
pub(super) struct Units {
    /// Shards of a unit; the last may have fewer.
    pub len: u32,
    /// What units have, each once.
    pub held: Vec<Held>,
    /// Numbers into `held`, and how many units in a row have it.
    pub runs: Vec<(u32, u32)>,
}

impl Units {
    /// The units of a volume of this many shards.
    pub fn of(present: &Present<'_>, shards: u64, len: u32) -> Self {
        let occupied = (0..).map(Slot).zip(present.slots).filter(|(_, node)| node.is_some());
        let taken: SlotSet = occupied.map(|(slot, _)| slot).collect();
        let mut made = Making {
            units: Self { len, held: Vec::new(), runs: Vec::new() },
            known: BTreeMap::new(),
            alike: Alike::default(),
            open: Vec::new(),
            filled: 0,
        };
        let shard_size = present.map.shard_size();
        let mut seen = 0;
        for (offset, bytes, set) in present.map.pieces(0, present.size) {
            let end = (offset + bytes).div_ceil(shard_size).min(shards);
            made.add(set.and(taken), end - seen);
            seen = end;
        }
        made.end()
    }

    /// How many units there are.
    pub fn count(&self) -> u64 {
        self.runs.iter().map(|(_, units)| u64::from(*units)).sum()
    }
}

/// The numbers that sets were last given, at the places that their hashes say. One that was pushed out is found in the
/// map of all.
struct Alike(Vec<(SlotSet, u32)>);

impl Default for Alike {
    fn default() -> Self {
        Self(vec![(SlotSet::EMPTY, u32::MAX); 1 << 16])
    }
}

impl Alike {
    fn place(set: SlotSet) -> usize {
        (mix(set.0) >> 48) as usize
    }

    fn number(&self, set: SlotSet) -> Option<u32> {
        let (known, number) = self.0[Self::place(set)];
        (known == set && number != u32::MAX).then_some(number)
    }

    fn remember(&mut self, set: SlotSet, number: u32) {
        self.0[Self::place(set)] = (set, number);
    }
}

struct Making {
    units: Units,
    known: BTreeMap<Vec<(SlotSet, u32)>, u32>,
    alike: Alike,
    /// The unit that is not full yet.
    open: Vec<(SlotSet, u32)>,
    filled: u32,
}

impl Making {
    fn add(&mut self, set: SlotSet, shards: u64) {
        let len = self.units.len;
        let mut rest = shards;
        while rest > 0 {
            if self.filled == 0 && rest >= u64::from(len) {
                self.push_alike(set, (rest / u64::from(len)) as u32);
                rest %= u64::from(len);
                continue;
            }
            let part = rest.min(u64::from(len - self.filled)) as u32;
            match self.open.iter_mut().find(|(other, _)| *other == set) {
                Some((_, shards)) => *shards += part,
                None => self.open.push((set, part)),
            }
            self.filled += part;
            rest -= u64::from(part);
            if self.filled == len {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        let mut unit = std::mem::take(&mut self.open);
        unit.sort_unstable();
        self.filled = 0;
        let number = self.number(&unit);
        self.append(number, 1);
    }

    /// Units of one set each, which are most.
    fn push_alike(&mut self, set: SlotSet, units: u32) {
        let number = match self.alike.number(set) {
            Some(number) => number,
            None => {
                let number = self.number(&[(set, self.units.len)]);
                self.alike.remember(set, number);
                number
            }
        };
        self.append(number, units);
    }

    fn number(&mut self, held: &[(SlotSet, u32)]) -> u32 {
        match self.known.get(held) {
            Some(number) => *number,
            None => {
                let number = self.units.held.len() as u32;
                self.known.insert(held.to_vec(), number);
                self.units.held.push(Held(held.to_vec()));
                number
            }
        }
    }

    fn append(&mut self, number: u32, units: u32) {
        match self.units.runs.last_mut() {
            Some((last, run)) if *last == number => *run += units,
            _ => self.units.runs.push((number, units)),
        }
    }

    fn end(mut self) -> Units {
        if self.filled > 0 {
            self.close();
        }
        self.units
    }
}
