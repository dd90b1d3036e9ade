// SPDX-License-Identifier: Apache-2.0
//! What a brick's companion says: whose it is, who is in sync, what may differ.
//!
//! ```text
//! 0            512 KiB       1 MiB          MAP_OFFSET = 1 MiB          + MAP_BYTES
//! | slot 0       | slot 1       | shard maps, where the record says: of now, of snapshots, and one to come;
//!                               | among them a follower's journal, in two halves that take turns
//! ```
//! A record goes to the slot of its sequence's parity, so that a torn write leaves the one before it. The companions
//! of all in-sync bricks get the same membership, intent and dirty maps; together with the rule that nothing depends
//! on a record before all of them have it, any one of them tells the truth or more.

use crate::{
    BrickId, DecodeError, Descriptor, Follow, Generation, JournalPiece, Point, Slot, ZeroKind,
    codec::{DIGESTS, FOLLOWERS, MOVES, Reader, SNAPSHOTS, Writer},
};

const MAGIC: [u8; 8] = *b"NVDSREC\0";

/// Bytes of one of the two slots.
pub const SLOT_BYTES: usize = 512 << 10;
/// Bytes of both slots: what [`Action::ReadCompanion`](crate::Action::ReadCompanion) reads.
pub const COMPANION_BYTES: usize = 2 * SLOT_BYTES;
/// Where the companion keeps the shard map, in bytes.
pub const MAP_OFFSET: u64 = COMPANION_BYTES as u64;
/// Records are padded to a multiple of this many bytes.
pub const RECORD_ALIGNMENT: usize = 4096;

/// A run of regions: the first and how many.
pub type Run = (u32, u32);

/// One record of a companion.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The brick whose companion this is.
    pub brick: BrickId,
    /// Grows by one with every record written to this companion; its parity chooses the slot.
    pub sequence: u64,
    /// Membership, as in the state; with it a lost state is rebuilt.
    pub descriptor: Descriptor,
    /// Regions that may differ between in-sync bricks, in order.
    pub intent: Vec<u32>,
    /// Regions that a brick outside the in-sync set lacks, besides those in `intent`.
    pub dirty: Vec<(Slot, Vec<Run>)>,
    /// Where the companion keeps the shard map that the descriptor names, in bytes.
    pub map_at: u64,
    /// How long the map is there, in bytes; zero: this companion does not have it.
    pub map_bytes: u32,
    /// Where it keeps those that only snapshots name.
    pub snapshot_maps: Vec<MapPlace>,
    /// The checkpoint of digests that counts, and which units of it are void; `None`: there is none.
    pub digests: Option<(Generation, Vec<Run>)>,
    /// What the brick is as a follower; kept only in asynchronous mode.
    pub follow: Follow,
}

/// A shard map in a companion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapPlace {
    /// Its name.
    pub version: Generation,
    /// Where it begins, in bytes.
    pub at: u64,
    /// How long it is, in bytes.
    pub bytes: u32,
}

impl Record {
    /// The first record of a new volume's brick.
    pub fn initial(descriptor: &Descriptor, slot: Slot, map_bytes: u32) -> Option<Self> {
        let brick = descriptor.bricks.get(slot.index())?.brick;
        Some(Self {
            brick,
            sequence: 0,
            descriptor: descriptor.clone(),
            intent: Vec::new(),
            dirty: Vec::new(),
            map_at: MAP_OFFSET,
            map_bytes,
            snapshot_maps: Vec::new(),
            digests: None,
            follow: Follow::default(),
        })
    }

    /// Where the record goes in the companion, in bytes.
    pub fn offset(&self) -> u64 {
        (self.sequence % 2) * SLOT_BYTES as u64
    }

    /// The record as bytes, padded to [`RECORD_ALIGNMENT`]. Runs are merged over their smallest gaps until it fits
    /// [`SLOT_BYTES`]: more is copied then, never less.
    pub fn encode(&self) -> Vec<u8> {
        let mut room = SLOT_BYTES / 8;
        loop {
            let bytes = self.encode_within(room);
            if bytes.len() <= SLOT_BYTES || room <= 64 {
                return bytes;
            }
            room /= 2;
        }
    }

    fn encode_within(&self, runs_in_all: usize) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        writer.u32(self.brick.0);
        writer.u64(self.sequence);
        self.descriptor.write(&mut writer);
        writer.u32(self.map_bytes);
        if self.descriptor.has_moves() {
            writer.u64(self.map_at);
        }
        if self.descriptor.has_snapshots() {
            writer.len(self.snapshot_maps.len());
            for place in &self.snapshot_maps {
                writer.u64(place.version.epoch);
                writer.u32(place.version.change);
                writer.u64(place.at);
                writer.u32(place.bytes);
            }
        }
        if self.descriptor.has_followers() {
            write_follow(&mut writer, &self.follow);
        }
        writer.len(self.intent.len());
        self.intent.iter().for_each(|region| writer.u32(*region));
        writer.len(self.dirty.len());
        let each = runs_in_all / self.dirty.len().max(1);
        for (slot, runs) in &self.dirty {
            let runs = merged(runs, each.max(1));
            writer.u8(slot.0);
            writer.len(runs.len());
            for (first, count) in runs {
                writer.u32(first);
                writer.u32(count);
            }
        }
        if let Some((version, void)) = &self.digests {
            writer.need(DIGESTS);
            writer.u64(version.epoch);
            writer.u32(version.change);
            writer.len(void.len());
            for (first, count) in void {
                writer.u32(*first);
                writer.u32(*count);
            }
        }
        let mut bytes = writer.finish();
        bytes.resize(bytes.len().next_multiple_of(RECORD_ALIGNMENT), 0);
        bytes
    }

    /// The record that one slot's bytes hold.
    ///
    /// # Errors
    /// When they hold none.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(MAGIC, bytes)?;
        let brick = BrickId(reader.u32()?);
        let sequence = reader.u64()?;
        let descriptor = Descriptor::read(&mut reader)?;
        let map_bytes = reader.u32()?;
        let map_at = if reader.has(MOVES) { reader.u64()? } else { MAP_OFFSET };
        let mut snapshot_maps = Vec::new();
        if reader.has(SNAPSHOTS) {
            for _ in 0..reader.count(24)? {
                let version = Generation { epoch: reader.u64()?, change: reader.u32()? };
                snapshot_maps.push(MapPlace { version, at: reader.u64()?, bytes: reader.u32()? });
            }
        }
        let mut follow = Follow::default();
        if reader.has(FOLLOWERS) {
            follow = read_follow(&mut reader)?;
        }
        let intent = reader.numbers()?;
        let mut dirty = Vec::new();
        for _ in 0..reader.count(5)? {
            let slot = Slot(reader.u8()?);
            let mut runs = Vec::new();
            for _ in 0..reader.count(8)? {
                runs.push((reader.u32()?, reader.u32()?));
            }
            if slot.index() >= descriptor.bricks.len() {
                return Err(DecodeError::Malformed);
            }
            dirty.push((slot, runs));
        }
        let digests = reader.has(DIGESTS).then(|| read_digests(&mut reader)).transpose()?;
        Ok(Self {
            brick,
            sequence,
            descriptor,
            intent,
            dirty,
            map_at,
            map_bytes,
            snapshot_maps,
            digests,
            follow,
        })
    }

    /// The newest record in a companion's slots, or why neither slot holds one; the worse reason wins.
    ///
    /// # Errors
    /// When neither slot holds a record.
    pub fn newest(companion: &[Vec<u8>; 2]) -> Result<Self, DecodeError> {
        match (Self::decode(&companion[0]), Self::decode(&companion[1])) {
            (Ok(a), Ok(b)) => Ok(if a.sequence > b.sequence { a } else { b }),
            // A slot of a newer version means that an older host must keep its hands off.
            (Err(DecodeError::TooNew), _) | (_, Err(DecodeError::TooNew)) => {
                Err(DecodeError::TooNew)
            }
            (Ok(record), Err(_)) | (Err(_), Ok(record)) => Ok(record),
            (Err(DecodeError::Empty), Err(reason)) | (Err(reason), Err(_)) => Err(reason),
        }
    }
}

fn read_digests(reader: &mut Reader<'_>) -> Result<(Generation, Vec<Run>), DecodeError> {
    let version = Generation { epoch: reader.u64()?, change: reader.u32()? };
    let mut void = Vec::new();
    for _ in 0..reader.count(8)? {
        void.push((reader.u32()?, reader.u32()?));
    }
    Ok((version, void))
}

fn write_follow(writer: &mut Writer, follow: &Follow) {
    writer.u8(u8::from(follow.point.is_some()));
    let point = follow.point.unwrap_or_default();
    writer.u64(point.epoch);
    writer.u64(point.sequence);
    writer.u64(follow.journal_at);
    writer.len(follow.journal.len());
    for piece in &follow.journal {
        writer.u64(piece.offset);
        writer.u64(piece.len);
        writer.u8(match piece.zero {
            None => 0,
            Some(ZeroKind::Zero) => 1,
            Some(ZeroKind::Allocated) => 2,
            Some(ZeroKind::Discard) => 3,
        });
    }
}

fn read_follow(reader: &mut Reader<'_>) -> Result<Follow, DecodeError> {
    let is_at_point = reader.u8()? != 0;
    let point = Point { epoch: reader.u64()?, sequence: reader.u64()? };
    let journal_at = reader.u64()?;
    let mut journal = Vec::new();
    for _ in 0..reader.count(17)? {
        let (offset, len) = (reader.u64()?, reader.u64()?);
        let zero = match reader.u8()? {
            0 => None,
            1 => Some(ZeroKind::Zero),
            2 => Some(ZeroKind::Allocated),
            3 => Some(ZeroKind::Discard),
            _ => return Err(DecodeError::Malformed),
        };
        journal.push(JournalPiece { offset, len, zero });
    }
    Ok(Follow { point: is_at_point.then_some(point), journal_at, journal })
}

/// At most `most` runs that cover `runs`: those with the smallest gaps between them are merged.
fn merged(runs: &[Run], most: usize) -> Vec<Run> {
    if runs.len() <= most {
        return runs.to_vec();
    }
    let gap = |pair: &[Run]| pair[1].0 - (pair[0].0 + pair[0].1);
    let mut gaps: Vec<u32> = runs.windows(2).map(gap).collect();
    gaps.sort_unstable();
    let widest = gaps[runs.len() - most - 1];
    let mut result: Vec<Run> = Vec::new();
    for &(first, count) in runs {
        match result.last_mut() {
            Some(last) if first - (last.0 + last.1) <= widest => last.1 = first + count - last.0,
            _ => result.push((first, count)),
        }
    }
    result
}
