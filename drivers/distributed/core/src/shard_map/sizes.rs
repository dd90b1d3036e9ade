// SPDX-License-Identifier: Apache-2.0
//! The same places, said of shards of another size.

use super::{ShardMap, Shards};
use crate::SlotSet;

/// Most shards that a map can hold.
pub(crate) const MAX_SHARDS: u64 = 1 << 31;

impl ShardMap {
    /// Whether a map of a volume of `size` bytes can be said in shards of this size: one size divides the other.
    pub fn can_have(&self, shard_size: u64, size: u64) -> bool {
        let (has, gets) = (self.shard_size, shard_size);
        gets > 0
            && (has.is_multiple_of(gets) || gets.is_multiple_of(has))
            && size.div_ceil(gets) <= MAX_SHARDS
    }

    /// Where the same bytes are, in shards of another size, for a volume of `size` bytes: a smaller shard is where the
    /// larger one is. `None` if neither size divides the other, or shards that would be one have different replica sets.
    pub fn in_shards_of(&self, shard_size: u64, size: u64) -> Option<Self> {
        if !self.can_have(shard_size, size) {
            return None;
        }
        let shards = size.div_ceil(shard_size);
        let known = match &self.shards {
            Shards::Each { numbers, .. } if !numbers.is_empty() => numbers,
            Shards::Each { .. } => return None,
            Shards::Uniform(_) => {
                let shards = Shards::Uniform(shards);
                return Some(Self { shard_size, sets: self.sets.clone(), shards });
            }
        };
        let number = |shard: u64| known[(shard % known.len() as u64) as usize];
        let set = |shard: u64| self.sets.get(usize::from(number(shard)));
        let in_all = size.div_ceil(self.shard_size);
        let mut numbers = Vec::with_capacity(usize::try_from(shards).ok()?);
        for shard in 0..shards {
            let first = shard * shard_size / self.shard_size;
            let end = ((shard + 1) * shard_size / self.shard_size).min(in_all);
            if (first + 1..end).any(|other| set(other) != set(first)) {
                return None;
            }
            numbers.push(number(first));
        }
        let mut sets = self.sets.clone();
        let shards = Shards::each(numbers, sets.len());
        if let Shards::Each { uses, .. } = &shards {
            let unused = sets.iter_mut().zip(uses).filter(|(_, uses)| **uses == 0);
            unused.for_each(|(set, _)| *set = SlotSet::EMPTY);
        }
        Some(Self { shard_size, sets, shards })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Slot;

    fn set(slots: &[u8]) -> SlotSet {
        slots.iter().map(|slot| Slot(*slot)).collect()
    }

    #[test]
    fn a_split_leaves_every_byte_where_it_is() {
        let (a, b, c) = (set(&[0, 1]), set(&[1, 2]), set(&[0, 2]));
        let map = ShardMap::from_sets(400, [a, b, a, c]).unwrap();
        let size = 1450;
        let split = map.in_shards_of(100, size).unwrap();
        assert_eq!((split.shard_size(), split.len()), (100, 15));
        for at in 0..size {
            assert_eq!(split.set(at / 100), map.set(at / 400), "byte {at}");
        }
        assert_eq!(split.in_shards_of(400, size).unwrap(), map);
        assert_eq!(ShardMap::decode(&split.encode()).unwrap(), split);
    }

    #[test]
    fn only_shards_of_one_set_are_merged() {
        let (a, b) = (set(&[0, 1]), set(&[1, 2]));
        let map = ShardMap::from_sets(100, [a, a, b, b, b]).unwrap();
        let merged = map.in_shards_of(200, 450).unwrap();
        assert_eq!((0..3).map(|shard| merged.set(shard)).collect::<Vec<_>>(), [a, b, b]);
        assert_eq!(map.in_shards_of(300, 450), None, "the first group has both");
        assert_eq!(map.in_shards_of(150, 450), None, "no size divides the other");
        // What lies past the end counts no more.
        let cut = ShardMap::from_sets(100, [a, a, b]).unwrap().in_shards_of(200, 200).unwrap();
        assert_eq!((cut.len(), cut.sets().collect::<Vec<_>>()), (1, vec![a]));
    }

    #[test]
    fn a_map_that_begins_again_goes_on_to_do_so_within_the_volume() {
        let (a, b) = (set(&[0, 1]), set(&[1, 2]));
        let map = ShardMap::from_sets(200, [a, b]).unwrap();
        let split = map.in_shards_of(100, 600).unwrap();
        assert_eq!((0..6).map(|shard| split.set(shard)).collect::<Vec<_>>(), [a, a, b, b, a, a]);
        let uniform = ShardMap::uniform(200, 2, a).in_shards_of(100, 600).unwrap();
        assert_eq!(uniform, ShardMap::uniform(100, 6, a));
    }
}
