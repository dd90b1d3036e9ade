// SPDX-License-Identifier: Apache-2.0
//! What the companions of one volume make of it. Without I/O.

use std::collections::{BTreeMap, BTreeSet};

use distributed_core::{BrickId, Descriptor, Generation, NodeId, Phase, Record, ShardMap, rebuild};

/// A companion that was read: all in one list are of volumes with one name and identity.
#[derive(Debug)]
pub(super) struct Companion<'a> {
    /// The node where it was found, by its present number.
    pub node: NodeId,
    pub record: &'a Record,
    /// `None` if it cannot be read.
    pub map: Option<&'a ShardMap>,
    /// Those that only snapshots name.
    pub frozen: &'a BTreeMap<Generation, ShardMap>,
}

/// A brick and the number that its node had when the companions were written.
pub(super) type Missing = (BrickId, NodeId);

/// What is known before anything is decided.
#[derive(Debug)]
pub(super) struct Findings<'a> {
    /// The companions, one for each brick.
    companions: Vec<&'a Companion<'a>>,
    /// The membership of the highest generation.
    pub newest: &'a Descriptor,
    /// Bricks of that membership that were not found.
    pub missing: Vec<Missing>,
}

/// A volume as it is to be stored, but for the numbers of its nodes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rebuilt {
    pub descriptor: Descriptor,
    pub map: ShardMap,
    /// What was given up, because the operator accepts it.
    pub given_up: Vec<Missing>,
    /// Where the nodes are that the descriptor names; those that were not found are absent.
    pub nodes: BTreeMap<NodeId, NodeId>,
}

impl<'a> Findings<'a> {
    /// Sorts what was found; `Ok(None)` if that is nothing.
    ///
    /// # Errors
    /// Why nothing can be decided: the same brick is on several nodes.
    pub fn new(all: &'a [Companion<'a>]) -> Result<Option<Self>, String> {
        let generation = |companion: &Companion<'_>| companion.record.descriptor.generation;
        let mut companions: BTreeMap<BrickId, &Companion<'_>> = BTreeMap::new();
        for companion in all {
            let brick = companion.record.brick;
            match companions.get(&brick) {
                Some(other) if generation(other) == generation(companion) => {
                    return Err(format!(
                        "brick {brick} is on two of its nodes, and one is a copy: disconnect the copy"
                    ));
                }
                Some(other) if generation(other) > generation(companion) => {}
                _ => _ = companions.insert(brick, companion),
            }
        }
        let companions: Vec<_> = companions.into_values().collect();
        let newest = companions.iter().max_by_key(|companion| generation(companion));
        let Some(newest) = newest.map(|companion| &companion.record.descriptor) else {
            return Ok(None);
        };
        let found: BTreeSet<BrickId> = companions.iter().map(|one| one.record.brick).collect();
        let missing = newest.bricks.iter().filter(|entry| !entry.vacant);
        let missing = missing.filter(|entry| !found.contains(&entry.brick));
        let missing = missing.map(|entry| (entry.brick, entry.node)).collect();
        Ok(Some(Self { companions, newest, missing }))
    }

    /// The newest generation that was found.
    pub fn generation(&self) -> Generation {
        self.newest.generation
    }

    /// The stored shard map that a descriptor of the volume names, from any companion that has it.
    pub fn map(&self, descriptor: &Descriptor) -> Option<ShardMap> {
        let named = |companion: &&&Companion<'_>| companion.record.descriptor.map == descriptor.map;
        let fits = |map: &&ShardMap| descriptor.map_from(map).is_some();
        let mut maps = self.companions.iter().filter(named).filter_map(|companion| companion.map);
        maps.find(fits).cloned()
    }

    /// The shard maps that a descriptor's snapshots name, as far as a companion has them.
    pub fn frozen(&self, descriptor: &Descriptor) -> BTreeMap<Generation, ShardMap> {
        let mut found = BTreeMap::new();
        for version in descriptor.snapshots.iter().map(|snapshot| snapshot.map) {
            let named = self.companions.iter().filter(|c| c.record.descriptor.map == version);
            let maps =
                self.companions.iter().filter_map(|companion| companion.frozen.get(&version));
            let mut maps = maps.chain(named.filter_map(|companion| companion.map));
            if let Some(map) = maps.next() {
                found.insert(version, map.clone());
            }
        }
        found
    }

    /// Decides. `unix_millis` is the wall clock, in milliseconds since 1970.
    ///
    /// # Errors
    /// Why the volume cannot be made anew, for the operator.
    pub fn rebuild(&self, accept_missing: bool, unix_millis: u64) -> Result<Rebuilt, String> {
        let records: Vec<Record> = self.companions.iter().map(|one| one.record.clone()).collect();
        let descriptor = rebuild(&records, accept_missing, unix_millis)?;
        let stored = self.map(&descriptor);
        let map = stored.as_ref().and_then(|stored| descriptor.map_from(stored));
        let (Some(stored), Some(map)) = (stored, map) else {
            return Err("no companion that was found has a shard map that can be read: \
                        connect further nodes of the volume"
                .to_owned());
        };
        let uncovered = map.sets().find(|set| set.and(descriptor.in_sync).is_empty());
        if let Some(set) = uncovered {
            let nodes = set.iter().filter_map(|slot| self.newest.bricks.get(slot.index()));
            let nodes: Vec<String> = nodes.map(|e| format!("{} ({})", e.node, e.brick)).collect();
            return Err(format!(
                "of some of its shards no replica with all of their data was found, which no acceptance \
                 replaces; they were on: {}",
                nodes.join(", ")
            ));
        }
        let before = self.newest.bricks.iter();
        let given_up = before
            .zip(&descriptor.bricks)
            .filter(|(before, now)| before.brick != now.brick)
            .map(|(before, _)| (before.brick, before.node))
            .collect();
        let at: BTreeMap<BrickId, NodeId> =
            self.companions.iter().map(|one| (one.record.brick, one.node)).collect();
        let was_on = self.newest.bricks.iter().map(|entry| (entry.brick, entry.node));
        let beside = self.newest.condemned.iter().chain(&self.newest.keepers).copied();
        let was_on = beside.chain(was_on);
        let nodes = was_on.filter_map(|(brick, node)| Some((node, *at.get(&brick)?))).collect();
        // Companions have the phase of their volume's last attachment, and one that was never attached is made by now.
        let descriptor = Descriptor { phase: Phase::Ready, ..descriptor };
        Ok(Rebuilt { descriptor, map: stored, given_up, nodes })
    }
}

impl Rebuilt {
    /// Gives nodes that were not found the registered one with their number, if `is_free` and nothing of the volume was
    /// found there: most often it is the same node, registered in the same order. If it is another one, the brick is not
    /// there and gets made anew.
    pub fn guess(&mut self, is_free: impl Fn(NodeId) -> bool) {
        for node in self.named() {
            let taken = self.nodes.values().any(|present| *present == node);
            if !self.nodes.contains_key(&node) && !taken && is_free(node) {
                self.nodes.insert(node, node);
            }
        }
    }

    /// The nodes that are nowhere yet.
    pub fn lost(&self) -> Vec<NodeId> {
        self.named().into_iter().filter(|node| !self.nodes.contains_key(node)).collect()
    }

    fn named(&self) -> BTreeSet<NodeId> {
        let beside = self.descriptor.condemned.iter().chain(&self.descriptor.keepers);
        let condemned = beside.map(|(_, node)| *node);
        let bricks = self.descriptor.bricks.iter().filter(|entry| !entry.vacant);
        bricks.map(|entry| entry.node).chain(condemned).collect()
    }

    /// The descriptor with the present numbers of all nodes.
    pub fn renumbered(&self) -> Descriptor {
        renumbered(&self.descriptor, &self.nodes)
    }
}

/// A descriptor with other numbers for some nodes.
pub(super) fn renumbered(
    descriptor: &Descriptor,
    numbers: &BTreeMap<NodeId, NodeId>,
) -> Descriptor {
    let mut descriptor = descriptor.clone();
    let now = |node: NodeId| numbers.get(&node).copied().unwrap_or(node);
    descriptor.bricks.iter_mut().for_each(|entry| entry.node = now(entry.node));
    let beside = descriptor.condemned.iter_mut().chain(&mut descriptor.keepers);
    beside.for_each(|(_, node)| *node = now(*node));
    descriptor
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
