// SPDX-License-Identifier: Apache-2.0
//! What companions and state together say after a crash: who is in sync, what may differ, what a replica lacks.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    BrickId, DecodeError, Descriptor, Follow, Generation, Mode, NodeId, Record, Run, ShardMap,
    Slot, SlotSet,
};

/// What a volume starts from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Recovered {
    /// The membership of the highest generation.
    pub(crate) descriptor: Descriptor,
    /// Members of its in-sync set that were reached and can be believed.
    pub(crate) members: SlotSet,
    /// Bricks that were reached and must be replaced: companion lost, foreign, or rolled back.
    pub(crate) distrusted: SlotSet,
    /// Regions that may differ between members.
    pub(crate) intent: Vec<u32>,
    /// Regions that others lack, besides `intent`.
    pub(crate) dirty: Vec<(Slot, Vec<Run>)>,
    /// Where its shards are.
    pub(crate) map: ShardMap,
    /// The checkpoint of digests that counts, and what is void of it.
    pub(crate) digests: Option<(Generation, Vec<Run>)>,
}

/// Why a volume is not recovered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// A shard has no member that was reached; these slots are the in-sync set, of these nodes.
    NoMember(Vec<NodeId>),
    /// A companion was written by a newer version.
    TooNew(NodeId),
    /// The shard map that counts is not among those that were given.
    NoMap(Generation),
}

/// Decides from the state and the companions of the bricks that could be opened, by slot of `state`.
pub(crate) fn recover(
    state: &Descriptor,
    maps: &BTreeMap<Generation, ShardMap>,
    companions: &[(Slot, Result<Record, DecodeError>)],
) -> Result<Recovered, Refusal> {
    let node = |slot: Slot| state.bricks.get(slot.index()).map_or(NodeId(u32::MAX), |b| b.node);
    let newer = companions.iter().find(|(_, r)| matches!(r, Err(DecodeError::TooNew)));
    if let Some((slot, _)) = newer {
        return Err(Refusal::TooNew(node(*slot)));
    }
    let records = records_of(state, companions);
    let (descriptor, least) = newest_of(state, &records);
    let stored = maps.get(&descriptor.map);
    let map = stored.and_then(|stored| descriptor.map_from(stored));
    let Some(map) = map else { return Err(Refusal::NoMap(descriptor.map)) };
    let mut members = SlotSet::EMPTY;
    let mut distrusted = SlotSet::EMPTY;
    for (slot, _) in companions {
        let Some(entry) = descriptor.bricks.get(slot.index()) else { continue };
        let same_brick = state.bricks.get(slot.index()).is_some_and(|b| b.brick == entry.brick);
        if entry.fresh || entry.vacant || !same_brick {
            continue;
        }
        let in_sync = descriptor.in_sync.has(*slot);
        let needed = if in_sync { least } else { entry.left };
        match records.get(slot) {
            Some(record) if record.descriptor.generation >= needed => {
                if in_sync {
                    members.insert(*slot);
                }
            }
            _ => distrusted.insert(*slot),
        }
    }
    let uncovered = map.sets().find(|set| set.and(members).is_empty());
    if let Some(set) = uncovered {
        let nodes = set.and(descriptor.in_sync).iter();
        let nodes = nodes.filter_map(|slot| Some(descriptor.bricks.get(slot.index())?.node));
        return Err(Refusal::NoMember(nodes.collect()));
    }
    let witnesses = || members.iter().filter_map(|slot| records.get(&slot));
    let intent: BTreeSet<u32> =
        witnesses().flat_map(|record| record.intent.iter().copied()).collect();
    let newest = witnesses().map(|record| record.descriptor.generation).max();
    let current = members.iter().filter_map(|slot| Some((slot, records.get(&slot)?)));
    let current = current.filter(|(_, record)| Some(record.descriptor.generation) == newest);
    // What a follower's companion says is of itself alone, and it may have become a member since.
    let mut told = current.filter(|(slot, record)| record.descriptor.in_sync.has(*slot)).peekable();
    let dirty = if told.peek().is_some() {
        let mut dirty: BTreeMap<Slot, Vec<Run>> = BTreeMap::new();
        for (slot, runs) in told.flat_map(|(_, record)| &record.dirty) {
            dirty.entry(*slot).or_default().extend(runs);
        }
        dirty.into_iter().collect()
    } else {
        everything_but(&descriptor, members)
    };
    // Records are written one after the other: one that names a later checkpoint says all that those before say. Of the
    // same checkpoint the later record says more.
    let named = || {
        let current = witnesses().filter(|record| Some(record.descriptor.generation) == newest);
        current.filter_map(|record| record.digests.as_ref())
    };
    let digests = named().map(|(version, _)| *version).max().map(|version| {
        let same = named().filter(|(other, _)| *other == version);
        (version, same.flat_map(|(_, void)| void.iter().copied()).collect())
    });
    Ok(Recovered {
        digests,
        descriptor,
        members,
        distrusted,
        intent: intent.into_iter().collect(),
        dirty,
        map,
    })
}

/// All regions, of each brick that is none of these.
fn everything_but(descriptor: &Descriptor, but: SlotSet) -> Vec<(Slot, Vec<Run>)> {
    let regions = descriptor.size.div_ceil(u64::from(descriptor.region_size)) as u32;
    let entries = (0..).map(Slot).zip(&descriptor.bricks);
    let others = entries.filter(|(slot, entry)| !but.has(*slot) && !entry.vacant);
    others.map(|(slot, _)| (slot, vec![(0, regions)])).collect()
}

/// The records of the volume's own bricks.
fn records_of<'a>(
    state: &Descriptor,
    companions: &'a [(Slot, Result<Record, DecodeError>)],
) -> BTreeMap<Slot, &'a Record> {
    let ours = |slot: Slot, record: &Record| {
        record.descriptor.identity == state.identity
            && state.bricks.get(slot.index()).is_some_and(|entry| entry.brick == record.brick)
    };
    companions
        .iter()
        .filter_map(|(slot, record)| Some((*slot, record.as_ref().ok()?)))
        .filter(|(slot, record)| ours(*slot, record))
        .collect()
}

/// The membership that counts, and the generation that its members have at least.
fn newest_of(state: &Descriptor, records: &BTreeMap<Slot, &Record>) -> (Descriptor, Generation) {
    let highest = records.values().map(|record| &record.descriptor);
    let highest = highest.max_by_key(|descriptor| descriptor.generation);
    match highest.filter(|descriptor| descriptor.generation > state.generation) {
        Some(ahead) => {
            let descriptor = Descriptor {
                phase: state.phase,
                epoch: state.epoch,
                holder: state.holder,
                clean: state.clean,
                // Bricks have it already, and no resize was answered before the state had it.
                size: state.size,
                ..ahead.clone()
            };
            (descriptor, ahead.settled)
        }
        None => (state.clone(), state.everybody_has()),
    }
}

/// Decides what a volume starts from whose acknowledging brick is gone and whose follower on a node is to take its place.
///
/// # Errors
/// Why it cannot, for the operator.
pub(crate) fn inherit(
    state: &Descriptor,
    maps: &BTreeMap<Generation, ShardMap>,
    companions: &[(Slot, Result<Record, DecodeError>)],
    node: NodeId,
) -> Result<(Slot, Follow, Recovered), String> {
    if companions.iter().any(|(_, record)| matches!(record, Err(DecodeError::TooNew))) {
        return Err("a companion was written by a newer version: use that version".into());
    }
    let records = records_of(state, companions);
    let (descriptor, _) = newest_of(state, &records);
    if descriptor.mode != Mode::Asynchronous {
        return Err("the volume is synchronous: there are no followers".into());
    }
    let map = maps.get(&descriptor.map).and_then(|stored| descriptor.map_from(stored));
    let Some(map) = map else {
        return Err(format!("the shard map {} is not in the host's state", descriptor.map));
    };
    let entries = (0..).map(Slot).zip(&descriptor.bricks);
    let entry = entries.clone().find(|(_, entry)| entry.node == node && !entry.vacant);
    let Some((slot, entry)) = entry else { return Err("it has no brick of the volume".into()) };
    let Some(record) = records.get(&slot).filter(|record| record.brick == entry.brick) else {
        return Err("its brick could not be opened, or its companion cannot be read".into());
    };
    let follows = descriptor.following.has(slot) && record.follow.point.is_some();
    if !follows || entry.fresh || record.descriptor.generation < entry.left {
        return Err("it is at no consistent point: promote another one".into());
    }
    let others = entries.filter(|(other, entry)| *other != slot && !entry.vacant);
    let dirty = everything_but(&descriptor, SlotSet::only(slot));
    let reached = |other: Slot| companions.iter().any(|(slot, _)| *slot == other);
    let sound = |other: Slot, entry: &crate::BrickEntry| {
        let record = records.get(&other).filter(|record| record.brick == entry.brick);
        record.is_some_and(|record| record.descriptor.generation >= entry.left)
    };
    let distrusted =
        others.filter(|(other, entry)| reached(*other) && !entry.fresh && !sound(*other, entry));
    let recovered = Recovered {
        members: SlotSet::only(slot),
        distrusted: distrusted.map(|(other, _)| other).collect(),
        intent: Vec::new(),
        dirty,
        map,
        // They are of what the one before had, which this one may lack.
        digests: None,
        descriptor: descriptor.clone(),
    };
    Ok((slot, record.follow.clone(), recovered))
}

/// How far, at least, a rebuilt state leaves the epochs of the companions behind. An attachment that ended before it
/// recorded anything raised the epoch in the lost state alone, and no epoch may be given twice.
const UNRECORDED_EPOCHS: u64 = 1 << 20;
/// How many bricks, at least, members that were given up may have made that no companion tells of. None of their
/// numbers may be given to another brick.
const UNRECORDED_BRICKS: u32 = 1000;

/// Makes the descriptor of a volume whose state is lost, from the companions that were found. Store it under the
/// volume's key, expecting nothing, then attach.
///
/// The highest generation wins. Unless `accept_missing`, every member of its in-sync set must be among the records, and
/// of the set before unless a record says that the state had the newest: a missing one may know a later generation, in
/// which others are stale. One that is accepted as missing may return with writes that the others never had, of which no
/// dirty map tells: a fresh brick takes its place, and it is condemned.
///
/// `unix_millis` is the wall clock, in milliseconds since 1970. A state that is lost again before anything was recorded
/// gets later epochs from it than the one before; a clock that was set back costs refused openings, since nodes hold to
/// the later epoch.
///
/// # Errors
/// The reason, for the operator: no record at all, records of several volumes, or members that are missing.
pub fn rebuild(
    records: &[Record],
    accept_missing: bool,
    unix_millis: u64,
) -> Result<Descriptor, String> {
    let age = |record: &&Record| (record.descriptor.generation, record.descriptor.settled);
    let highest = records.iter().max_by_key(age);
    let Some(highest) = highest.map(|record| &record.descriptor) else {
        return Err("no companion of the volume was found: connect its nodes and try again".into());
    };
    if let Some(other) = records.iter().find(|r| r.descriptor.identity != highest.identity) {
        return Err(format!(
            "companions of two volumes named {:?} were found (identities {:x} and {:x}): give those of one",
            highest.volume, highest.identity, other.descriptor.identity
        ));
    }
    let known = |slot: &Slot| {
        let brick = highest.bricks.get(slot.index()).map(|entry| entry.brick);
        records.iter().any(|record| {
            Some(record.brick) == brick && record.descriptor.generation >= highest.settled
        })
    };
    // The newest record may have come to nothing, because its writer lost the volume. Then others went on from the one
    // before, perhaps with just those whom the newest leaves out: members, or such as were joining.
    let left_last = (0..).map(Slot).zip(&highest.bricks);
    let left_last = left_last.filter(|(_, entry)| !entry.fresh && entry.left == highest.settled);
    let witnesses = highest.in_sync.or(left_last.map(|(slot, _)| slot).collect());
    let unknown: SlotSet = witnesses.iter().filter(|slot| !known(slot)).collect();
    // A follower may have been promoted without the one that acknowledged before. Then its record is newer, whatever else
    // it says: the record of one that only follows is as old as the last it got. Until the newest record is known to hold,
    // also one that followed before.
    let followers = highest.following.or(highest.followed);
    let is_found = |slot: &Slot| {
        let brick = highest.bricks.get(slot.index()).map(|entry| entry.brick);
        records.iter().any(|record| Some(record.brick) == brick)
    };
    let unknown = unknown.or(followers.iter().filter(|slot| !is_found(slot)).collect());
    if !unknown.is_empty() && !accept_missing {
        let missing = unknown.iter().filter_map(|slot| highest.bricks.get(slot.index()));
        let missing = missing.map(|entry| format!("{} (brick {})", entry.node, entry.brick));
        let missing: Vec<String> = missing.collect();
        return Err(format!(
            "the state of volume {:?} is lost, and generation {} names in-sync bricks that were not found: {}; \
             they may have later writes: connect them, or accept the loss of what only they have",
            highest.volume,
            highest.generation,
            missing.join(", ")
        ));
    }
    let epoch = records.iter().map(|record| record.descriptor.epoch).max().unwrap_or_default();
    let epoch = epoch.saturating_add(UNRECORDED_EPOCHS).max(unix_millis);
    let generation = Generation { epoch, change: 0 };
    let mut rebuilt = Descriptor { epoch, clean: false, generation, ..highest.clone() };
    if !unknown.is_empty() {
        rebuilt.next_brick = rebuilt.next_brick.saturating_add(UNRECORDED_BRICKS);
    }
    rebuilt.in_sync = rebuilt.in_sync.without(unknown);
    for slot in unknown.iter() {
        let Some(entry) = rebuilt.bricks.get_mut(slot.index()).filter(|entry| !entry.vacant) else {
            continue;
        };
        rebuilt.litter.retain(|litter| litter.slot != slot);
        rebuilt.condemned.push((entry.brick, entry.node));
        entry.brick = BrickId(rebuilt.next_brick);
        entry.fresh = true;
        entry.left = Generation::default();
        rebuilt.next_brick += 1;
    }
    Ok(rebuilt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_given_up_is_never_believed_again() {
        let volume = Descriptor::new("v", 7, 1 << 30, &[NodeId(4), NodeId(5), NodeId(6)]);
        let old = Record::initial(&volume, Slot(2), 0).unwrap();
        assert!(rebuild(std::slice::from_ref(&old), false, 5).is_err());
        let rebuilt = rebuild(&[old], true, 5).unwrap();
        assert_eq!(rebuilt.in_sync, SlotSet::only(Slot(2)));
        assert_eq!(rebuilt.bricks[2], volume.bricks[2]);
        for slot in [0, 1] {
            let (before, now) = (volume.bricks[slot], rebuilt.bricks[slot]);
            assert!(now.fresh && now.node == before.node && now.brick.0 > 100, "{now:?}");
            assert!(rebuilt.condemned.contains(&(before.brick, before.node)));
        }
    }
}
