// SPDX-License-Identifier: Apache-2.0
//! The state store: one key and the shard maps beside it, which errs, forgets, and is rebuilt from companions.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use distributed_core::{Descriptor, Generation, IoId, Outcome, Record, ShardMap, rebuild};

use crate::{
    deeds::Deed,
    matrix::Fault,
    network::TIMEOUT,
    plan::SHARD_SECTORS,
    storage::SECTOR,
    world::{MS, Next, US, World},
};

/// The state store.
#[derive(Clone, Debug)]
pub struct Stored {
    pub bytes: Arc<[u8]>,
    pub epoch: u64,
    /// Shard maps by their names.
    pub maps: BTreeMap<Generation, ShardMap>,
    /// Checkpoints of digests by their names.
    pub digests: BTreeMap<Generation, Arc<[u8]>>,
}

impl Stored {
    /// Whether the store has forgotten the volume.
    pub fn is_lost(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl World {
    /// The state store is asked for a swap.
    pub fn state_arrived(
        &mut self,
        host: usize,
        instance: u32,
        io: IoId,
        expected: &Arc<[u8]>,
        bytes: Arc<[u8]>,
    ) {
        let luck = if self.chaos { self.rng.u32(0..100) } else { 100 };
        let (refused, lost, untold) = if self.plan.sick_state { (12, 18, 40) } else { (4, 6, 12) };
        if luck < untold {
            self.count_for_all(Fault::StateError);
        }
        if luck < refused {
            let outcome = Outcome::Failed;
            return self.after(100 * US, Next::StateAnswer { host, instance, io, outcome });
        }
        if luck < lost {
            // It arrives when nobody expects it.
            let expected = Arc::clone(expected);
            let late = Next::State { host, instance, io, expected, bytes };
            let delay = self.rng.u64(MS..100 * MS);
            self.after(delay, late);
            let outcome = Outcome::Unknown;
            return self.after(TIMEOUT, Next::StateAnswer { host, instance, io, outcome });
        }
        let epoch = self.hosts_epoch(&bytes);
        let outcome = if self.stored.bytes == bytes {
            Outcome::Ok
        } else if self.stored.bytes == *expected {
            self.count_cuts(&bytes);
            (self.stored.bytes, self.stored.epoch) = (bytes, epoch);
            Outcome::Ok
        } else {
            Outcome::Conflict
        };
        let outcome = if luck < untold { Outcome::Unknown } else { outcome };
        let slow = if self.plan.sick_state && self.chaos { 80 } else { 1 };
        let delay = self.rng.u64(50 * US..300 * US) * slow;
        self.after(delay, Next::StateAnswer { host, instance, io, outcome });
    }

    fn count_cuts(&mut self, bytes: &[u8]) {
        let size = |bytes: &[u8]| Descriptor::decode(bytes).map_or(0, |volume| volume.shard_size);
        let of_creation = SHARD_SECTORS as u64 * SECTOR;
        let known = |size: u64| if size == 0 { of_creation } else { size };
        let (had, has) = (known(size(&self.stored.bytes)), known(size(bytes)));
        match has.cmp(&had) {
            Ordering::Less => self.deeds.count(Deed::Split),
            Ordering::Greater => self.deeds.count(Deed::Merged),
            Ordering::Equal => {}
        }
    }

    /// The state store is given a shard map.
    pub fn map_arrived(
        &mut self,
        host: usize,
        instance: u32,
        io: IoId,
        version: Generation,
        bytes: Arc<[u8]>,
    ) {
        let luck = if self.chaos { self.rng.u32(0..100) } else { 100 };
        let outcome = match luck {
            0..8 => Outcome::Failed,
            8..16 => {
                let late = Next::Map { host, instance, io, version, bytes };
                let delay = self.rng.u64(MS..100 * MS);
                self.after(delay, late);
                let outcome = Outcome::Unknown;
                return self.after(TIMEOUT, Next::StateAnswer { host, instance, io, outcome });
            }
            _ => {
                match ShardMap::decode(&bytes) {
                    // A state that was lost does not get it back.
                    Ok(map) if !self.stored.is_lost() => {
                        self.stored.maps.insert(version, map);
                    }
                    Ok(_) => {}
                    Err(reason) => return self.fail(format!("a shard map is {reason}")),
                }
                self.deeds.count(Deed::Mapped);
                if luck < 24 { Outcome::Unknown } else { Outcome::Ok }
            }
        };
        let delay = self.rng.u64(50 * US..300 * US);
        self.after(delay, Next::StateAnswer { host, instance, io, outcome });
    }

    /// The state store is given a checkpoint of digests.
    pub fn digests_arrived(
        &mut self,
        (host, instance): (usize, u32),
        io: IoId,
        version: Generation,
        bytes: Arc<[u8]>,
    ) {
        let luck = if self.chaos { self.rng.u32(0..100) } else { 100 };
        let outcome = match luck {
            0..8 => Outcome::Failed,
            8..16 => {
                let late = Next::Digests { host, instance, io, version, bytes };
                let delay = self.rng.u64(MS..100 * MS);
                self.after(delay, late);
                let outcome = Outcome::Unknown;
                return self.after(TIMEOUT, Next::StateAnswer { host, instance, io, outcome });
            }
            _ => {
                if !self.stored.is_lost() {
                    self.stored.digests.insert(version, bytes);
                }
                self.deeds.count(Deed::Digested);
                if luck < 24 { Outcome::Unknown } else { Outcome::Ok }
            }
        };
        let delay = self.rng.u64(50 * US..300 * US);
        self.after(delay, Next::StateAnswer { host, instance, io, outcome });
    }

    /// The store forgets the volume. Whoever has it learns it with its next commit.
    pub fn forget(&mut self) {
        if !self.stored.is_lost() {
            self.stored.bytes = Arc::from([]);
            self.stored.maps.clear();
            self.stored.digests.clear();
            self.deeds.count(Deed::Forgotten);
            self.note(|| "the state is lost".to_owned());
        }
    }

    /// Makes the state anew from the companions that can be reached; false if that has to wait.
    pub fn rebuild(&mut self) -> bool {
        let reachable =
            self.nodes.iter().filter(|node| node.is_up && node.paused_until <= self.now);
        let mut maps = BTreeMap::new();
        let mut records: Vec<Record> = Vec::new();
        for brick in reachable.flat_map(|node| node.bricks.values()) {
            let Ok(record) = Record::newest(&brick.companion) else { continue };
            maps.extend(brick.shard_maps(&record));
            records.push(record);
        }
        // With every node there, one that knows less than others cannot know more.
        for Record { brick, descriptor, .. } in &records {
            let (newest, before, in_sync) =
                (descriptor.generation, descriptor.settled, descriptor.in_sync.0);
            self.note(|| format!("{brick} says {newest} after {before}, in sync {in_sync:b}"));
        }
        // Finer than the milliseconds of a wall clock, as time is here.
        let clock = (1 << 40) + self.now / US;
        let with_all = rebuild(&records, false, clock);
        let is_whole = with_all.is_ok();
        let rebuilt = if self.chaos {
            with_all
        } else {
            with_all.or_else(|_| rebuild(&records, true, clock))
        };
        match rebuilt {
            Ok(descriptor) => {
                if !maps.contains_key(&descriptor.map) {
                    let text = format!("no companion has the shard map {}", descriptor.map);
                    self.fail(text);
                }
                self.stored.bytes = descriptor.encode().into();
                self.stored.maps = maps;
                self.has_lost_bricks |= !is_whole;
                self.deeds.count(if is_whole { Deed::Rebuilt } else { Deed::RebuiltWithout });
                self.note(|| format!("the state is rebuilt: {descriptor:?}"));
                true
            }
            Err(reason) => {
                if !self.chaos {
                    self.fail(reason);
                }
                false
            }
        }
    }

    fn hosts_epoch(&self, bytes: &[u8]) -> u64 {
        Descriptor::decode(bytes).map(|descriptor| descriptor.epoch).unwrap_or_default()
    }
}
