// SPDX-License-Identifier: Apache-2.0
//! Nodes with their disks: what they hold in memory, what is durable, and what a crash leaves.
//!
//! A sector's content is the number of the write that it comes from; zero is never written.

use std::collections::BTreeMap;

use distributed_core::{
    BrickId, Generation, MAP_OFFSET, MapPlace, Outcome, Record, SLOT_BYTES, Session, ShardMap,
};
use fastrand::Rng;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;

/// A write's number; zero for none.
pub type Tag = u32;

/// What a host asks of a node.
#[derive(Clone, Debug)]
pub enum Request {
    Read {
        sector: usize,
        count: usize,
    },
    ReadSnapshot {
        number: u32,
        sector: usize,
        count: usize,
    },
    Write {
        sector: usize,
        data: Vec<Tag>,
        durable: bool,
    },
    Flush,
    WriteCompanion {
        offset: u64,
        bytes: std::sync::Arc<[u8]>,
    },
    /// Copies sectors of the companion, from byte `journal` of what follows its records.
    Replay {
        journal: u64,
        sector: usize,
        count: usize,
    },
    ReadCompanion,
    Open {
        sectors: usize,
    },
    Create {
        sectors: usize,
    },
    Resize {
        sectors: usize,
    },
    Delete,
    Snapshot {
        number: u32,
    },
    DropSnapshot {
        number: u32,
    },
}

impl Request {
    /// Whether it changes what a brick holds.
    pub fn writes(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::WriteCompanion { .. } | Self::Replay { .. })
    }
}

/// A brick and its companion.
#[derive(Clone, Debug, Default)]
pub struct Brick {
    /// What reads see.
    pub memory: Vec<Tag>,
    /// What a crash leaves at least.
    pub durable: Vec<Tag>,
    /// The slots of its records.
    pub companion: [Vec<u8>; 2],
    /// What follows them in the companion: shard maps.
    pub maps: Vec<u8>,
    /// What the brick held when each was taken.
    pub snapshots: BTreeMap<u32, Vec<Tag>>,
    session: Session,
    /// The node's incarnation when it was opened last.
    pub opened_in: u64,
}

/// A backend.
#[derive(Clone, Debug)]
pub struct Node {
    pub bricks: BTreeMap<BrickId, Brick>,
    /// Changes when what was not flushed may be gone.
    pub incarnation: u64,
    pub is_up: bool,
    /// Nothing is carried out before this time, in nanoseconds.
    pub paused_until: u64,
    /// Messages take this many times as long.
    pub slowness: u64,
    pub is_full: bool,
    /// Data operations fail, at random.
    pub fails: bool,
    pub refuses_flush: bool,
    /// Whether opening ends older sessions of the same epoch. Older epochs are always ended.
    pub fences: bool,
}

/// An answer: how it ended, and data for reads.
pub type Answer = (Outcome, Vec<Tag>);

impl Node {
    pub fn new(fences: bool) -> Self {
        Self {
            bricks: BTreeMap::new(),
            incarnation: 1,
            is_up: true,
            paused_until: 0,
            slowness: 1,
            is_full: false,
            fails: false,
            refuses_flush: false,
            fences,
        }
    }

    /// Loses what was not flushed: each sector that was written since is old or new.
    pub fn crash(&mut self, rng: &mut Rng) {
        self.incarnation += 1;
        let luck = rng.u32(0..3);
        for brick in self.bricks.values_mut() {
            for (memory, durable) in brick.memory.iter_mut().zip(&mut brick.durable) {
                if memory != durable {
                    let survives = luck == 0 && rng.bool();
                    if survives {
                        *durable = *memory;
                    } else {
                        *memory = *durable;
                    }
                }
            }
        }
    }

    /// Whether a session may still use a brick.
    pub fn admits(&self, id: BrickId, session: Session, request: &Request) -> Result<(), Outcome> {
        let asks_nobody =
            |request: &Request| matches!(request, Request::Create { .. } | Request::Delete);
        if asks_nobody(request) || matches!(request, Request::ReadSnapshot { .. }) {
            return Ok(());
        }
        let brick = self.bricks.get(&id).ok_or(Outcome::NotFound)?;
        if session.epoch < brick.session.epoch {
            return Err(Outcome::Fenced);
        }
        let is_old = session < brick.session;
        if is_old && (self.fences || matches!(request, Request::Open { .. })) {
            return Err(Outcome::Failed);
        }
        Ok(())
    }

    /// A disk changes a sector; whether it has it.
    pub fn rot(&mut self, id: BrickId, sector: usize, tag: Tag) -> bool {
        let brick = self.bricks.get_mut(&id);
        brick.is_some_and(|brick| brick.put(sector, tag, true))
    }

    /// Does a part of a write, as a crash in its midst would leave it.
    pub fn tear(&mut self, id: BrickId, request: &Request, rng: &mut Rng) {
        let Some(brick) = self.bricks.get_mut(&id) else { return };
        match request {
            Request::Write { sector, data, durable } => {
                for (at, tag) in (*sector..).zip(data) {
                    if rng.bool() {
                        brick.put(at, *tag, *durable);
                    }
                }
            }
            Request::Replay { journal, sector, count } => {
                for index in 0..*count {
                    let tag = brick.journaled(journal + index as u64 * SECTOR);
                    if rng.bool() {
                        brick.put(sector + index, tag, false);
                    }
                }
            }
            Request::WriteCompanion { offset, bytes } => {
                let cut = rng.usize(0..bytes.len() / 512) * 512;
                brick.put_in_companion(*offset, &bytes[..cut]);
            }
            _ => {}
        }
    }

    /// Carries a request out.
    pub fn execute(
        &mut self,
        id: BrickId,
        session: Session,
        request: &Request,
        rng: &mut Rng,
    ) -> Answer {
        if let Err(refusal) = self.admits(id, session, request) {
            return (refusal, Vec::new());
        }
        let (fences, incarnation) = (self.fences, self.incarnation);
        let (is_full, fails) = (self.is_full && rng.bool(), self.fails && rng.u32(0..4) == 0);
        let refuses_flush = self.refuses_flush;
        let plain = |outcome| (outcome, Vec::new());
        match request {
            Request::Create { sectors } => {
                if is_full {
                    return plain(Outcome::NoSpace);
                }
                self.bricks.entry(id).or_insert_with(|| Brick {
                    memory: vec![0; *sectors],
                    durable: vec![0; *sectors],
                    ..Brick::default()
                });
                return plain(Outcome::Ok);
            }
            Request::Delete => {
                return plain(self.bricks.remove(&id).map_or(Outcome::NotFound, |_| Outcome::Ok));
            }
            Request::Write { .. } | Request::Replay { .. } if is_full => {
                self.tear(id, request, rng);
                return plain(Outcome::NoSpace);
            }
            Request::Write { .. }
            | Request::Replay { .. }
            | Request::Read { .. }
            | Request::ReadSnapshot { .. }
                if fails =>
            {
                self.tear(id, request, rng);
                return plain(Outcome::Failed);
            }
            Request::Flush if refuses_flush => return plain(Outcome::Failed),
            _ => {}
        }
        let Some(brick) = self.bricks.get_mut(&id) else { return plain(Outcome::NotFound) };
        match request {
            Request::Resize { sectors } if is_full && *sectors > brick.memory.len() => {
                return plain(Outcome::NoSpace);
            }
            Request::Read { sector, count } => {
                let data = brick.memory.get(*sector..sector + count);
                return data.map_or(plain(Outcome::Failed), |data| (Outcome::Ok, data.to_vec()));
            }
            Request::ReadSnapshot { number, sector, count } => {
                let Some(taken) = brick.snapshots.get(number) else {
                    return plain(Outcome::NotFound);
                };
                let data = taken.get(*sector..sector + count);
                return data.map_or(plain(Outcome::Failed), |data| (Outcome::Ok, data.to_vec()));
            }
            Request::Write { sector, data, durable } => {
                if sector + data.len() > brick.memory.len() {
                    return plain(Outcome::Failed);
                }
                for (at, tag) in (*sector..).zip(data) {
                    brick.put(at, *tag, *durable);
                }
            }
            Request::Replay { journal, sector, count } => {
                if sector + count > brick.memory.len() {
                    return plain(Outcome::Failed);
                }
                for index in 0..*count {
                    let tag = brick.journaled(journal + index as u64 * SECTOR);
                    brick.put(sector + index, tag, false);
                }
            }
            Request::Flush => brick.durable.clone_from(&brick.memory),
            Request::WriteCompanion { offset, bytes } => brick.put_in_companion(*offset, bytes),
            Request::ReadCompanion => {
                return plain(Outcome::Companion(brick.companion.clone()));
            }
            Request::Open { sectors } => {
                let fenced = fences || session.epoch > brick.session.epoch;
                brick.session = session;
                brick.opened_in = incarnation;
                brick.resize(*sectors);
                return plain(Outcome::Opened { fenced });
            }
            Request::Resize { sectors } => brick.resize(*sectors),
            Request::Snapshot { .. } if is_full => return plain(Outcome::NoSpace),
            Request::Snapshot { number } => {
                brick.snapshots.insert(*number, brick.memory.clone());
            }
            Request::DropSnapshot { number } => {
                let dropped = brick.snapshots.remove(number);
                return plain(dropped.map_or(Outcome::NotFound, |_| Outcome::Ok));
            }
            Request::Create { .. } | Request::Delete => {}
        }
        plain(Outcome::Ok)
    }
}

impl Brick {
    /// A brick with an initial record and a shard map in its companion.
    pub fn with_record(sectors: usize, record: Vec<u8>, maps: Vec<u8>) -> Self {
        let zeros = vec![0; sectors];
        let companion = [record, Vec::new()];
        Self { memory: zeros.clone(), durable: zeros, companion, maps, ..Self::default() }
    }

    /// The sector at this byte of what follows the records.
    pub fn journaled(&self, at: u64) -> Tag {
        let bytes = self.maps.get(at as usize..).and_then(|bytes| bytes.first_chunk::<4>());
        bytes.map_or(0, |bytes| Tag::from_le_bytes(*bytes))
    }

    /// The shard maps that a record says are there.
    pub fn shard_maps(&self, record: &Record) -> Vec<(Generation, ShardMap)> {
        let (version, at, bytes) = (record.descriptor.map, record.map_at, record.map_bytes);
        let base = (bytes > 0).then_some(MapPlace { version, at, bytes });
        let places = base.iter().chain(&record.snapshot_maps);
        let read = |place: &MapPlace| {
            let start = (place.at - MAP_OFFSET) as usize;
            let bytes = self.maps.get(start..start + place.bytes as usize)?;
            Some((place.version, ShardMap::decode(bytes).ok()?))
        };
        places.filter_map(read).collect()
    }

    fn put_in_companion(&mut self, offset: u64, bytes: &[u8]) {
        let (place, start) = match offset.checked_sub(MAP_OFFSET) {
            Some(start) => (&mut self.maps, start as usize),
            None => (&mut self.companion[(offset / SLOT_BYTES as u64) as usize], 0),
        };
        let end = start + bytes.len();
        if place.len() < end {
            place.resize(end, 0);
        }
        place[start..end].copy_from_slice(bytes);
    }

    /// Whether it has the sector.
    fn put(&mut self, at: usize, tag: Tag, durable: bool) -> bool {
        let Some(sector) = self.memory.get_mut(at) else { return false };
        *sector = tag;
        if durable {
            self.durable[at] = tag;
        }
        true
    }

    fn resize(&mut self, sectors: usize) {
        self.memory.resize(sectors, 0);
        self.durable.resize(sectors, 0);
    }
}
