// SPDX-License-Identifier: Apache-2.0
//! What the state store knows of a volume: small, and changed only when membership changes.

use crate::{
    BrickId, DecodeError, Generation, Mode, NodeId, ShardMap, Slot, SlotSet, Snapshot,
    codec::{FOLLOWERS, MOVES, Reader, SNAPSHOTS, SPLIT, Writer},
};

const MAGIC: [u8; 8] = *b"NVDSDSC\0";

/// Where a volume is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Its bricks are being created; if the creator died, they are to be deleted.
    Creating,
    /// It can be attached.
    Ready,
    /// Its bricks are being deleted.
    Deleting,
}

/// A brick as the state knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BrickEntry {
    /// The brick.
    pub brick: BrickId,
    /// Its node.
    pub node: NodeId,
    /// Whether it never had all data: nothing of it may be believed until a full resync.
    pub fresh: bool,
    /// The last generation that it surely had as a member of the in-sync set; an older companion was rolled back.
    pub left: Generation,
    /// The slot holds no brick: the one that it names was emptied and condemned. Another node may get the slot.
    pub vacant: bool,
}

/// Shards that have another replica set than the stored map says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moved {
    /// The first of them.
    pub first: u64,
    /// How many.
    pub count: u32,
    /// The slots that hold them.
    pub set: SlotSet,
}

/// Shards of which a brick may hold something although it is no replica of them: they were moved away, or were to be
/// moved here. It is to be freed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Litter {
    /// The brick's slot.
    pub slot: Slot,
    /// The first of them.
    pub first: u64,
    /// How many.
    pub count: u32,
}

impl Litter {
    /// Its shards, with their brick's slot.
    pub(crate) fn shards(&self) -> impl Iterator<Item = (Slot, u64)> + use<> {
        let slot = self.slot;
        let shards = self.first..self.first.saturating_add(u64::from(self.count));
        shards.map(move |shard| (slot, shard))
    }

    /// Adds a shard to litter that is in order.
    pub(crate) fn push(listed: &mut Vec<Self>, slot: Slot, shard: u64) {
        match listed.last_mut() {
            Some(last)
                if last.slot == slot
                    && last.first + u64::from(last.count) == shard
                    && last.count < u32::MAX =>
            {
                last.count += 1;
            }
            _ => listed.push(Self { slot, first: shard, count: 1 }),
        }
    }
}

/// A volume as the state store keeps it, under one key; the shard map is kept beside it, see
/// [`ShardMap::encode`](crate::ShardMap::encode).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// The volume's name.
    pub volume: String,
    /// A number that no other volume has, also not one that had the name before.
    pub identity: u64,
    /// Where it is in its life.
    pub phase: Phase,
    /// The epoch of the last attachment.
    pub epoch: u64,
    /// A number that only the last attachment has; the attacher draws it at random.
    pub holder: u64,
    /// Whether the last attachment ended in order: nothing of it can still be under way.
    pub clean: bool,
    /// The generation of the membership below.
    pub generation: Generation,
    /// The generation before, which all in-sync companions and the state had before this one was begun. A member of
    /// the in-sync set whose companion is older was rolled back behind our back.
    pub settled: Generation,
    /// Size in bytes.
    pub size: u64,
    /// Bytes of a region: the unit of intent and of durable dirty maps.
    pub region_size: u32,
    /// The bricks; a slot is an index here.
    pub bricks: Vec<BrickEntry>,
    /// The slots whose bricks have every acknowledged write.
    pub in_sync: SlotSet,
    /// Bricks that were replaced and are still to be deleted.
    pub condemned: Vec<(BrickId, NodeId)>,
    /// The number that the next fresh brick gets.
    pub next_brick: u32,
    /// Which of the stored shard maps counts: the one written under this name. Zero: the one of the volume's creation.
    pub map: Generation,
    /// What changed since that map was stored.
    pub moved: Vec<Moved>,
    /// What is to be freed.
    pub litter: Vec<Litter>,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// The number that the next snapshot gets.
    pub next_snapshot: u32,
    /// Bricks that hold only snapshots: those of bricks that were emptied or lost.
    pub keepers: Vec<(BrickId, NodeId)>,
    /// Bytes of a shard, if it is not what it was at the volume's creation; else zero. The stored map has the same.
    pub shard_size: u64,
    /// When writes are acknowledged; in asynchronous mode the in-sync set is the acknowledging brick.
    pub mode: Mode,
    /// Followers that are behind by no more than the settings allow. Before writes go on that would make one more, a
    /// record says that it is none of these: only these may be promoted by a later attachment.
    pub following: SlotSet,
    /// Those that followed before and do no more. As long as it is not known that this generation holds, another attachment
    /// may have gone on from the one before, and promoted one of them.
    pub followed: SlotSet,
}

/// Regions are at least this long, in bytes.
pub const MIN_REGION: u32 = 4 << 20;
/// A volume has at most this many regions; a larger one has larger regions.
const MAX_REGIONS: u64 = 1 << 20;

/// Bytes of a region of a new volume of `size` bytes.
pub fn region_size(size: u64) -> u32 {
    let mut region_size = u64::from(MIN_REGION);
    while size.div_ceil(region_size) > MAX_REGIONS && region_size < 1 << 31 {
        region_size *= 2;
    }
    region_size as u32
}

impl Descriptor {
    /// A volume to be created, with one brick on each of these nodes, in the order of slots.
    ///
    /// Creation goes: store this (expecting nothing), create each brick with its companion, write
    /// [`Record::initial`](crate::Record::initial) and the shard map into each companion, then store it again with
    /// [`Phase::Ready`]. A descriptor found in [`Phase::Creating`] belongs to a creation that died: delete its bricks by
    /// name, then the key.
    pub fn new(volume: &str, identity: u64, size: u64, nodes: &[NodeId]) -> Self {
        let bricks = (0..).zip(nodes).map(|(number, node)| BrickEntry {
            brick: BrickId(number),
            node: *node,
            fresh: false,
            left: Generation::default(),
            vacant: false,
        });
        Self {
            volume: volume.to_owned(),
            identity,
            phase: Phase::Creating,
            epoch: 0,
            holder: 0,
            clean: true,
            generation: Generation { epoch: 0, change: 1 },
            settled: Generation::default(),
            size,
            region_size: region_size(size),
            bricks: bricks.collect(),
            in_sync: (0..nodes.len()).map(|index| Slot(index as u8)).collect(),
            condemned: Vec::new(),
            next_brick: nodes.len() as u32,
            map: Generation::default(),
            moved: Vec::new(),
            litter: Vec::new(),
            snapshots: Vec::new(),
            next_snapshot: 0,
            keepers: Vec::new(),
            shard_size: 0,
            mode: Mode::default(),
            following: SlotSet::EMPTY,
            followed: SlotSet::EMPTY,
        }
    }

    /// The newest generation that all in-sync companions surely have, if this is what the state has. With a rebuilt state,
    /// whose generation has change zero, that is the one before: whether the newest record that was found had reached
    /// everybody is unknown.
    pub(crate) fn everybody_has(&self) -> Generation {
        if self.generation.change == 0 { self.settled } else { self.generation }
    }

    /// Whether the volume has this brick, or has still to delete it. One that it does not know is an orphan: of a
    /// creation by a host that died or lost the volume, after the brick was given up. The driver deletes those that it
    /// finds when it attaches.
    pub fn knows(&self, brick: BrickId) -> bool {
        self.bricks.iter().any(|entry| entry.brick == brick && !entry.vacant)
            || self.condemned.iter().chain(&self.keepers).any(|(other, _)| *other == brick)
    }

    /// Where the volume's shards are: the stored map that the descriptor names, with what moved since. `None` if it
    /// cannot be the volume's.
    pub fn map_from(&self, stored: &ShardMap) -> Option<ShardMap> {
        if self.shard_size != 0 && self.shard_size != stored.shard_size() {
            return None;
        }
        let all: SlotSet = (0..self.bricks.len()).map(|index| Slot(index as u8)).collect();
        let map = stored.with(&self.moved, self.size.div_ceil(stored.shard_size()))?;
        let fits = !map.is_empty() && map.sets().all(|set| set.without(all).is_empty());
        fits.then_some(map)
    }

    /// The descriptor as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        self.write(&mut writer);
        writer.finish()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.text(&self.volume);
        writer.u64(self.identity);
        writer.u8(match self.phase {
            Phase::Creating => 0,
            Phase::Ready => 1,
            Phase::Deleting => 2,
        });
        writer.u64(self.epoch);
        writer.u64(self.holder);
        writer.u8(u8::from(self.clean));
        writer.u64(self.generation.epoch);
        writer.u32(self.generation.change);
        writer.u64(self.settled.epoch);
        writer.u32(self.settled.change);
        writer.u64(self.size);
        writer.u32(self.region_size);
        writer.len(self.bricks.len());
        for entry in &self.bricks {
            writer.u32(entry.brick.0);
            writer.u32(entry.node.0);
            writer.u8(u8::from(entry.fresh));
            writer.u64(entry.left.epoch);
            writer.u32(entry.left.change);
        }
        writer.u64(self.in_sync.0);
        writer.len(self.condemned.len());
        for (brick, node) in &self.condemned {
            writer.u32(brick.0);
            writer.u32(node.0);
        }
        writer.u32(self.next_brick);
        if self.has_moves() {
            self.write_moves(writer);
        }
        if self.has_snapshots() {
            self.write_snapshots(writer);
        }
        if self.shard_size != 0 {
            writer.need(SPLIT);
            writer.u64(self.shard_size);
        }
        if self.has_followers() {
            writer.need(FOLLOWERS);
            writer.u8(u8::from(self.mode == Mode::Asynchronous));
            writer.u64(self.following.0);
            writer.u64(self.followed.0);
        }
    }

    /// Whether it says anything that a volume which stays where it was created has not to say.
    pub(crate) fn has_moves(&self) -> bool {
        self.map != Generation::default()
            || !self.moved.is_empty()
            || !self.litter.is_empty()
            || self.bricks.iter().any(|entry| entry.vacant)
    }

    /// Whether it says anything of followers.
    pub(crate) fn has_followers(&self) -> bool {
        self.mode == Mode::Asynchronous || !self.followed.is_empty()
    }

    fn write_moves(&self, writer: &mut Writer) {
        writer.need(MOVES);
        writer.u64(self.map.epoch);
        writer.u32(self.map.change);
        write_moved(writer, &self.moved);
        writer.len(self.litter.len());
        for litter in &self.litter {
            writer.u8(litter.slot.0);
            writer.u64(litter.first);
            writer.u32(litter.count);
        }
        let slots = (0..).map(Slot).zip(&self.bricks);
        let vacant: SlotSet =
            slots.filter(|(_, entry)| entry.vacant).map(|(slot, _)| slot).collect();
        writer.u64(vacant.0);
    }

    fn read_moves(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.map = Generation { epoch: reader.u64()?, change: reader.u32()? };
        let all: SlotSet = (0..self.bricks.len()).map(|index| Slot(index as u8)).collect();
        self.moved = read_moved(reader)?;
        if self.moved.iter().any(|moved| !moved.set.without(all).is_empty()) {
            return Err(DecodeError::Malformed);
        }
        for _ in 0..reader.count(13)? {
            let (slot, first, count) = (Slot(reader.u8()?), reader.u64()?, reader.u32()?);
            if !all.has(slot) {
                return Err(DecodeError::Malformed);
            }
            self.litter.push(Litter { slot, first, count });
        }
        let vacant = SlotSet(reader.u64()?);
        for slot in vacant.iter() {
            let entry = self.bricks.get_mut(slot.index()).ok_or(DecodeError::Malformed)?;
            entry.vacant = true;
        }
        Ok(())
    }

    /// The descriptor that these bytes hold.
    ///
    /// # Errors
    /// When they hold none.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(MAGIC, bytes)?)
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let volume = reader.text()?;
        let identity = reader.u64()?;
        let phase = match reader.u8()? {
            0 => Phase::Creating,
            1 => Phase::Ready,
            2 => Phase::Deleting,
            _ => return Err(DecodeError::Malformed),
        };
        let epoch = reader.u64()?;
        let (holder, clean) = (reader.u64()?, reader.u8()? != 0);
        let generation = Generation { epoch: reader.u64()?, change: reader.u32()? };
        let settled = Generation { epoch: reader.u64()?, change: reader.u32()? };
        let (size, region_size) = (reader.u64()?, reader.u32()?);
        let mut bricks = Vec::new();
        for _ in 0..reader.count(21)? {
            let (brick, node) = (BrickId(reader.u32()?), NodeId(reader.u32()?));
            let fresh = reader.u8()? != 0;
            let left = Generation { epoch: reader.u64()?, change: reader.u32()? };
            bricks.push(BrickEntry { brick, node, fresh, left, vacant: false });
        }
        let in_sync = SlotSet(reader.u64()?);
        let mut condemned = Vec::new();
        for _ in 0..reader.count(8)? {
            condemned.push((BrickId(reader.u32()?), NodeId(reader.u32()?)));
        }
        let next_brick = reader.u32()?;
        let all: SlotSet =
            (0..bricks.len().min(crate::MAX_BRICKS)).map(|i| Slot(i as u8)).collect();
        let sound = bricks.len() <= crate::MAX_BRICKS
            && region_size != 0
            && size.div_ceil(u64::from(region_size)) <= u64::from(u32::MAX)
            && in_sync.without(all).is_empty();
        if !sound {
            return Err(DecodeError::Malformed);
        }
        let mut descriptor = Self {
            volume,
            identity,
            phase,
            epoch,
            holder,
            clean,
            generation,
            settled,
            size,
            region_size,
            bricks,
            in_sync,
            condemned,
            next_brick,
            map: Generation::default(),
            moved: Vec::new(),
            litter: Vec::new(),
            snapshots: Vec::new(),
            next_snapshot: 0,
            keepers: Vec::new(),
            shard_size: 0,
            mode: Mode::default(),
            following: SlotSet::EMPTY,
            followed: SlotSet::EMPTY,
        };
        if reader.has(MOVES) {
            descriptor.read_moves(reader)?;
        }
        if reader.has(SNAPSHOTS) {
            descriptor.read_snapshots(reader)?;
        }
        if reader.has(SPLIT) {
            descriptor.shard_size = reader.u64()?;
        }
        if reader.has(FOLLOWERS) {
            descriptor.mode = match reader.u8()? {
                0 => Mode::Synchronous,
                1 => Mode::Asynchronous,
                _ => return Err(DecodeError::Malformed),
            };
            descriptor.following = SlotSet(reader.u64()?);
            descriptor.followed = SlotSet(reader.u64()?);
            let named = descriptor.following.or(descriptor.followed);
            if !named.without(all).is_empty() {
                return Err(DecodeError::Malformed);
            }
        }
        Ok(descriptor)
    }
}

pub(crate) fn write_moved(writer: &mut Writer, all: &[Moved]) {
    writer.len(all.len());
    for moved in all {
        writer.u64(moved.first);
        writer.u32(moved.count);
        writer.u64(moved.set.0);
    }
}

pub(crate) fn read_moved(reader: &mut Reader<'_>) -> Result<Vec<Moved>, DecodeError> {
    let mut all = Vec::new();
    for _ in 0..reader.count(20)? {
        let (first, count) = (reader.u64()?, reader.u32()?);
        let set = SlotSet(reader.u64()?);
        if set.is_empty() {
            return Err(DecodeError::Malformed);
        }
        all.push(Moved { first, count, set });
    }
    Ok(all)
}
