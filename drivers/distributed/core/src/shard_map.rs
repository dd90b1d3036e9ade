// SPDX-License-Identifier: Apache-2.0
//! Which slots hold each shard. Two bytes a shard: a number into a table of the sets that occur.

use crate::{
    DecodeError, SlotSet,
    codec::{Reader, Writer},
};

const MAGIC: [u8; 8] = *b"NVDSMAP\0";

/// The replica set of every shard of a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardMap {
    shard_size: u64,
    /// The sets that occur.
    sets: Vec<SlotSet>,
    shards: Shards,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Shards {
    /// All have set 0.
    Uniform(u64),
    /// Numbers into `sets`.
    Each(Vec<u16>),
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
            Shards::Each(shards)
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
            Shards::Each(shards) => shards.len() as u64,
        }
    }

    /// Whether there is no shard.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slots that hold a shard. Past the end the map begins again, so that a volume that grew needs no other.
    pub fn set(&self, shard: u64) -> SlotSet {
        let number = match &self.shards {
            Shards::Each(shards) if !shards.is_empty() => {
                usize::from(shards[(shard % shards.len() as u64) as usize])
            }
            _ => 0,
        };
        self.sets.get(number).copied().unwrap_or_default()
    }

    /// The sets that occur.
    pub fn sets(&self) -> &[SlotSet] {
        &self.sets
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
            Shards::Each(shards) => {
                writer.u8(1);
                writer.len(shards.len());
                shards.iter().for_each(|number| writer.u16(*number));
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
            0 => Shards::Uniform(reader.u64()?),
            1 => {
                Shards::Each((0..reader.count(2)?).map(|_| reader.u16()).collect::<Result<_, _>>()?)
            }
            _ => return Err(DecodeError::Malformed),
        };
        let known = match &shards {
            Shards::Uniform(_) => !sets.is_empty(),
            Shards::Each(each) => {
                !each.is_empty() && each.iter().all(|number| usize::from(*number) < sets.len())
            }
        };
        if shard_size == 0 || !known || sets.iter().any(|set| set.is_empty()) {
            return Err(DecodeError::Malformed);
        }
        Ok(Self { shard_size, sets, shards })
    }

    /// Bytes of memory that the map occupies.
    pub fn memory(&self) -> usize {
        let shards = match &self.shards {
            Shards::Uniform(_) => 0,
            Shards::Each(shards) => shards.capacity() * 2,
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
}
