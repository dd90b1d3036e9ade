// SPDX-License-Identifier: Apache-2.0
//! Which slots hold each shard. Two bytes a shard: a number into a table of the sets that occur.

mod sizes;

pub(crate) use sizes::MAX_SHARDS;

use crate::{
    DecodeError, Moved, Slot, SlotSet,
    codec::{Reader, Writer},
};

const MAGIC: [u8; 8] = *b"NVDSMAP\0";

/// The replica set of every shard of a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardMap {
    shard_size: u64,
    /// The sets that occur; one that occurs no more is empty until its place is taken.
    sets: Vec<SlotSet>,
    shards: Shards,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Shards {
    /// All have set 0.
    Uniform(u64),
    /// Numbers into `sets`, and how often each occurs.
    Each { numbers: Vec<u16>, uses: Vec<u64> },
}

impl Shards {
    fn each(numbers: Vec<u16>, sets: usize) -> Self {
        let mut uses = vec![0; sets];
        for number in &numbers {
            uses[usize::from(*number)] += 1;
        }
        Self::Each { numbers, uses }
    }
}

impl ShardMap {
    /// Every shard has the same replica set: a fully replicated volume.
    pub fn uniform(shard_size: u64, shards: u64, set: SlotSet) -> Self {
        Self { shard_size: shard_size.max(1), sets: vec![set], shards: Shards::Uniform(shards) }
    }

    /// A map of these sets, shard by shard; `None` if more than 65536 different sets occur.
    pub fn from_sets(shard_size: u64, each: impl IntoIterator<Item = SlotSet>) -> Option<Self> {
        let mut numbers = std::collections::BTreeMap::new();
        let mut sets = Vec::new();
        let mut shards = Vec::new();
        for set in each {
            let number = *numbers.entry(set).or_insert_with(|| {
                sets.push(set);
                sets.len() - 1
            });
            shards.push(u16::try_from(number).ok()?);
        }
        let shards = if sets.len() <= 1 {
            Shards::Uniform(shards.len() as u64)
        } else {
            Shards::each(shards, sets.len())
        };
        Some(Self { shard_size: shard_size.max(1), sets, shards })
    }

    /// Bytes of a shard.
    pub fn shard_size(&self) -> u64 {
        self.shard_size
    }

    /// How many shards it was made for.
    pub fn len(&self) -> u64 {
        match &self.shards {
            Shards::Uniform(count) => *count,
            Shards::Each { numbers, .. } => numbers.len() as u64,
        }
    }

    /// Whether there is no shard.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slots that hold a shard. Past the end the map begins again, so that a volume that grew needs no other.
    pub fn set(&self, shard: u64) -> SlotSet {
        let number = match &self.shards {
            Shards::Each { numbers, .. } if !numbers.is_empty() => {
                usize::from(numbers[(shard % numbers.len() as u64) as usize])
            }
            _ => 0,
        };
        self.sets.get(number).copied().unwrap_or_default()
    }

    /// The same with other slots; those for which there is none are left out. No two become one.
    #[must_use]
    pub fn renumbered(&self, slot: impl Fn(Slot) -> Option<Slot>) -> Self {
        let sets = self.sets.iter().map(|set| set.iter().filter_map(&slot).collect());
        Self { sets: sets.collect(), ..self.clone() }
    }

    /// The sets that occur.
    pub fn sets(&self) -> impl Iterator<Item = SlotSet> + '_ {
        self.sets.iter().copied().filter(|set| !set.is_empty())
    }

    /// Whether it says for each of so many shards where it is, without beginning again.
    pub(crate) fn covers(&self, shards: u64) -> bool {
        matches!(self.shards, Shards::Uniform(_)) || self.len() >= shards
    }

    /// Has it say for each of so many shards where it is: just where it says now.
    pub(crate) fn extend(&mut self, shards: u64) {
        match &mut self.shards {
            Shards::Uniform(count) => *count = shards.max(*count),
            Shards::Each { numbers, uses } => {
                let known = numbers.len();
                for shard in known..shards as usize {
                    let number = numbers[shard % known];
                    uses[usize::from(number)] += 1;
                    numbers.push(number);
                }
            }
        }
    }

    /// Gives a shard, which the map covers, another replica set; false if the map has no room for one more set.
    pub(crate) fn change(&mut self, shard: u64, set: SlotSet) -> bool {
        if let Shards::Uniform(count) = self.shards {
            if self.sets.first() == Some(&set) {
                return true;
            }
            self.shards = Shards::each(vec![0; count.max(shard + 1) as usize], 1);
        }
        let known = self.sets.iter().position(|other| *other == set);
        let vacant = || self.sets.iter().position(|other| other.is_empty());
        let number = match known.or_else(vacant) {
            Some(number) => number,
            None if self.sets.len() > usize::from(u16::MAX) => return false,
            None => {
                self.sets.push(SlotSet::EMPTY);
                self.sets.len() - 1
            }
        };
        let Shards::Each { numbers, uses } = &mut self.shards else { return false };
        let Some(place) = numbers.get_mut(shard as usize) else { return false };
        self.sets[number] = set;
        uses.resize(self.sets.len(), 0);
        uses[number] += 1;
        let old = usize::from(std::mem::replace(place, number as u16));
        uses[old] -= 1;
        if uses[old] == 0 {
            self.sets[old] = SlotSet::EMPTY;
        }
        true
    }

    /// This map with what changed since it was stored, for a volume of so many shards; `None` if it cannot be of it.
    pub(crate) fn with(&self, moved: &[Moved], shards: u64) -> Option<Self> {
        let mut map = self.clone();
        if moved.is_empty() {
            return Some(map);
        }
        if matches!(map.shards, Shards::Uniform(_)) {
            // The volume may have been larger when they moved.
            let past = |moved: &Moved| moved.first.saturating_add(u64::from(moved.count));
            map.extend(moved.iter().map(past).max().unwrap_or_default().max(shards));
        }
        let each = |moved: &Moved| {
            let set = moved.set;
            (moved.first..moved.first.saturating_add(u64::from(moved.count))).map(move |n| (n, set))
        };
        moved.iter().flat_map(each).all(|(shard, set)| map.change(shard, set)).then_some(map)
    }

    /// The pieces of a byte range that have one replica set each: `(offset, len, set)`.
    pub fn pieces(&self, offset: u64, len: u64) -> impl Iterator<Item = (u64, u64, SlotSet)> + '_ {
        let end = offset.saturating_add(len);
        let mut at = offset;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let start = at;
            let mut shard = at / self.shard_size;
            let set = self.set(shard);
            if matches!(self.shards, Shards::Uniform(_)) {
                at = end;
            } else {
                while at < end && self.set(shard) == set {
                    shard += 1;
                    at = shard.saturating_mul(self.shard_size).min(end);
                }
            }
            Some((start, at - start, set))
        })
    }

    /// The map as bytes, for the state and for the companions' map area.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        writer.u64(self.shard_size);
        writer.len(self.sets.len());
        self.sets.iter().for_each(|set| writer.u64(set.0));
        match &self.shards {
            Shards::Uniform(count) => {
                writer.u8(0);
                writer.u64(*count);
            }
            Shards::Each { numbers, .. } => {
                writer.u8(1);
                writer.len(numbers.len());
                numbers.iter().for_each(|number| writer.u16(*number));
            }
        }
        writer.finish()
    }

    /// The map that these bytes hold.
    ///
    /// # Errors
    /// When they hold none.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(MAGIC, bytes)?;
        let shard_size = reader.u64()?;
        let sets: Vec<SlotSet> =
            (0..reader.count(8)?).map(|_| reader.u64().map(SlotSet)).collect::<Result<_, _>>()?;
        let shards = match reader.u8()? {
            0 if sets.len() == 1 => Shards::Uniform(reader.u64()?),
            1 => {
                let numbers: Vec<u16> =
                    (0..reader.count(2)?).map(|_| reader.u16()).collect::<Result<_, _>>()?;
                let known = numbers.iter().all(|number| usize::from(*number) < sets.len());
                if numbers.is_empty() || !known {
                    return Err(DecodeError::Malformed);
                }
                Shards::each(numbers, sets.len())
            }
            _ => return Err(DecodeError::Malformed),
        };
        let map = Self { shard_size, sets, shards };
        if shard_size == 0 || map.occurs(SlotSet::EMPTY) {
            return Err(DecodeError::Malformed);
        }
        Ok(map)
    }

    fn occurs(&self, set: SlotSet) -> bool {
        let uses = |number: usize| match &self.shards {
            Shards::Uniform(_) => 1,
            Shards::Each { uses, .. } => uses[number],
        };
        (0..self.sets.len()).any(|number| self.sets[number] == set && uses(number) > 0)
    }

    /// Bytes of memory that the map occupies.
    pub fn memory(&self) -> usize {
        let shards = match &self.shards {
            Shards::Uniform(_) => 0,
            Shards::Each { numbers, uses } => numbers.capacity() * 2 + uses.capacity() * 8,
        };
        size_of::<Self>() + self.sets.capacity() * size_of::<SlotSet>() + shards
    }
}

#[cfg(test)]
mod tests {
    use super::ShardMap;
    use crate::{Slot, SlotSet};

    fn set(slots: &[u8]) -> SlotSet {
        slots.iter().map(|slot| Slot(*slot)).collect()
    }

    #[test]
    fn pieces_end_where_the_replica_set_changes() {
        let sets = [set(&[0, 1]), set(&[0, 1]), set(&[1, 2]), set(&[0, 2])];
        let map = ShardMap::from_sets(100, sets).unwrap();
        let pieces: Vec<_> = map.pieces(50, 260).collect();
        assert_eq!(pieces, [(50, 150, sets[0]), (200, 100, sets[2]), (300, 10, sets[3])]);
        let uniform = ShardMap::uniform(100, 4, sets[0]);
        assert_eq!(uniform.pieces(50, 260).collect::<Vec<_>>(), [(50, 260, sets[0])]);
        assert_eq!(map.set(6), sets[2]);
    }

    #[test]
    fn maps_survive_encoding_and_damage_is_seen() {
        let sets = [set(&[0, 1]), set(&[1, 2])];
        let map = ShardMap::from_sets(4096, (0..1000).map(|n| sets[n % 2])).unwrap();
        let bytes = map.encode();
        assert_eq!(ShardMap::decode(&bytes).unwrap(), map);
        for at in (0..bytes.len()).step_by(97) {
            let mut broken = bytes.clone();
            broken[at] ^= 4;
            assert!(ShardMap::decode(&broken).is_err(), "byte {at}");
        }
        let uniform = ShardMap::uniform(64 << 20, 1 << 20, sets[0]);
        assert_eq!(ShardMap::decode(&uniform.encode()).unwrap(), uniform);
    }

    #[test]
    fn changed_maps_know_which_sets_occur() {
        let (a, b, c) = (set(&[0, 1]), set(&[1, 2]), set(&[0, 2]));
        let mut map = ShardMap::uniform(4096, 3, a);
        assert!(map.change(1, b) && map.change(2, b));
        assert_eq!(map.sets().collect::<Vec<_>>(), [a, b]);
        assert!(map.change(0, b) && map.change(2, c));
        assert_eq!(map.sets().collect::<Vec<_>>(), [c, b]);
        assert_eq!((map.set(0), map.set(1), map.set(2)), (b, b, c));
        assert_eq!(ShardMap::decode(&map.encode()).unwrap(), map);
        assert!(!map.covers(4));
        map.extend(5);
        assert_eq!((map.set(3), map.set(4), map.len()), (b, b, 5));
        assert!(!map.change(9, a), "it does not cover that shard");
    }
}
