// SPDX-License-Identifier: Apache-2.0
//! Bricks that hold only snapshots: which are wanted, where, and when they have done.
//!
//! A snapshot is on the bricks that took it. When one of them is emptied or lost, `replay` fills a keeper in its place.

use std::collections::BTreeMap;

use super::{
    Volume,
    replay::Replay,
    state::{Goal, Io, IoKind, Link, Role},
};
use crate::{Action, BrickId, Generation, NodeId, Outcome, Session, ShardMap, Slot, SlotSet, Time};

/// Attempts for an arrangement, until its brick is left where it is.
const MOST_TRIES: u32 = 3;
/// Each attempt waits twice as long as the one before, so many times.
const DOUBLINGS: u32 = 6;

/// Keepers of an attachment.
#[derive(Debug, Default)]
pub(super) struct Keepers {
    pub(super) replay: Option<Replay>,
    /// Attempts for bricks that came to nothing, and when to try again if that is later.
    tries: BTreeMap<BrickId, (u32, Option<Time>)>,
    /// Bricks that an arrangement wants emptied of snapshots.
    leavers: Vec<BrickId>,
    /// Names of snapshots that keep a brick where it is.
    kept: Vec<String>,
    links: BTreeMap<BrickId, KeeperLink>,
    /// Whether something may be begun that could not before.
    pub(super) look: bool,
}

/// The way to a keeper: only to drop snapshots of it.
#[derive(Debug, Default)]
struct KeeperLink {
    opening: u32,
    is_opening: bool,
    is_open: bool,
    retry_at: Option<Time>,
}

/// What becomes of a brick that an arrangement does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leave {
    /// It may go.
    Now,
    /// When its snapshots are on a keeper.
    Later,
    /// It stays: its snapshots can be nowhere else.
    Never,
}

/// A brick's snapshots, and where they may go.
struct Wanted {
    old: BrickId,
    node: NodeId,
    numbers: Vec<u32>,
    /// Whether the node has other replicas of all of these shards.
    is_in_vain: bool,
}

impl Volume {
    /// The replica sets that occur in a snapshot.
    pub(super) fn sets_of(&self, number: u32) -> Option<Vec<SlotSet>> {
        if !self.protections.snapshot_map {
            return Some(self.map.sets().collect());
        }
        self.frozen.get(&number).cloned()
    }

    /// Whether a brick is there to be read: in a slot, or a keeper.
    pub(super) fn lives(&self, brick: BrickId) -> bool {
        self.bricks.iter().any(|b| b.id == brick && b.role != Role::Vacant)
            || self.descriptor.keepers.iter().any(|(keeper, _)| *keeper == brick)
    }

    pub(super) fn node_of(&self, brick: BrickId) -> Option<NodeId> {
        let here = self.bricks.iter().find(|b| b.id == brick && b.role != Role::Vacant);
        let mut beside = self.descriptor.keepers.iter().chain(&self.descriptor.condemned);
        let beside = || beside.find(|(other, _)| *other == brick).map(|(_, node)| *node);
        here.map(|b| b.node).or_else(beside)
    }

    /// The snapshots, oldest first, in which a brick has shards that no other brick has in its place.
    fn only_here(&self, brick: BrickId) -> Vec<u32> {
        let taken = self.descriptor.snapshots.iter().filter(|s| s.is_taken && self.counts(s));
        let here = taken.filter(|snapshot| {
            let mine = snapshot.holders.iter().find(|(_, holder)| *holder == brick);
            let Some((slot, _)) = mine else { return false };
            let has_heir = snapshot
                .holders
                .iter()
                .any(|(other, holder)| other == slot && *holder != brick && self.lives(*holder));
            let sets = self.sets_of(snapshot.number).unwrap_or_default();
            !has_heir && sets.iter().any(|set| set.has(*slot))
        });
        here.map(|snapshot| snapshot.number).collect()
    }

    /// The bricks from which a snapshot's shards of a set can be read: the one whose place is to be taken first, then
    /// those that answer.
    pub(super) fn sources(
        &self,
        number: u32,
        set: SlotSet,
        old: BrickId,
    ) -> Vec<(BrickId, NodeId)> {
        let Some(snapshot) = self.descriptor.snapshots.iter().find(|s| s.number == number) else {
            return Vec::new();
        };
        let holders = snapshot.holders.iter().filter(|(slot, _)| set.has(*slot));
        let readable = holders.filter(|(_, brick)| *brick == old || self.lives(*brick));
        let mut found: Vec<_> =
            readable.filter_map(|(_, brick)| Some((*brick, self.node_of(*brick)?))).collect();
        let is_away = |brick: BrickId| {
            let here = self.bricks.iter().find(|b| b.id == brick);
            here.is_some_and(|b| b.link != Link::Open)
        };
        found.sort_by_key(|(brick, _)| (is_away(*brick), *brick != old));
        found
    }

    /// How a brick's snapshots could be replayed; `None` if there is nothing to replay, or nowhere to or from.
    fn wanted_for(&self, old: BrickId, nodes: Option<&[NodeId]>) -> Option<Wanted> {
        let numbers = self.only_here(old);
        if numbers.is_empty() {
            return None;
        }
        let mut sets: Vec<(u32, SlotSet)> = Vec::new();
        for number in &numbers {
            let snapshot = self.descriptor.snapshots.iter().find(|s| s.number == *number)?;
            let (slot, _) = snapshot.holders.iter().find(|(_, holder)| *holder == old)?;
            let all = self.sets_of(*number)?;
            sets.extend(all.iter().filter(|set| set.has(*slot)).map(|set| (*number, *set)));
        }
        if sets.iter().any(|(number, set)| self.sources(*number, *set, old).is_empty()) {
            return None;
        }
        let leaves = self.lives(old).then(|| self.node_of(old)).flatten();
        let able = self.bricks.iter().filter(|b| b.role == Role::InSync && b.link == Link::Open);
        let able = able.map(|b| b.node).filter(|node| Some(*node) != leaves);
        let able = able.filter(|node| nodes.is_none_or(|nodes| nodes.contains(node)));
        // Replicas of one shard on one node are lost together.
        let clashes = |node: NodeId| {
            let others = |(number, set): &&(u32, SlotSet)| {
                let sources = self.sources(*number, *set, old);
                sources.iter().any(|(brick, other)| *brick != old && *other == node)
            };
            sets.iter().filter(others).count()
        };
        let keepers = &self.descriptor.keepers;
        let keeps = |node: NodeId| keepers.iter().filter(|(_, other)| *other == node).count();
        let mut able: Vec<(usize, usize, NodeId)> =
            able.map(|node| (clashes(node), keeps(node), node)).collect();
        able.sort_unstable();
        let (tries, _) = self.keepers.tries.get(&old).copied().unwrap_or_default();
        let (clashes, _, node) = *able.get(tries as usize % able.len().max(1))?;
        Some(Wanted { old, node, numbers, is_in_vain: clashes == sets.len() })
    }

    fn is_worth_it(&self, wanted: &Wanted) -> bool {
        !wanted.is_in_vain || self.is_needed(wanted.old)
    }

    /// What an arrangement does with a brick that it does not have.
    pub(super) fn leave(&mut self, brick: BrickId, goal: &Goal) -> Leave {
        let is_replayed = self.keepers.replay.as_ref().is_some_and(|replay| replay.old == brick);
        if !is_replayed {
            let wanted = self.wanted_for(brick, Some(&goal.nodes));
            let worth = wanted.is_some_and(|wanted| self.is_worth_it(&wanted));
            let tries = self.keepers.tries.get(&brick).map_or(0, |(tries, _)| *tries);
            if !worth && !self.is_needed(brick) {
                return Leave::Now;
            }
            if !worth || tries >= MOST_TRIES {
                let numbers = self.only_here(brick);
                let snapshots = self.descriptor.snapshots.iter();
                let names = snapshots.filter(|s| numbers.contains(&s.number)).map(|s| &s.name);
                self.keepers.kept.extend(names.cloned());
                return Leave::Never;
            }
        }
        self.keepers.leavers.push(brick);
        self.keepers.look = true;
        Leave::Later
    }

    /// Another arrangement, or none: it says anew who is to leave.
    pub(super) fn forget_leavers(&mut self) {
        self.keepers.leavers.clear();
        self.keepers.kept.clear();
    }

    /// An arrangement is wanted: what was in vain for the one before is tried again.
    pub(super) fn try_leavers_again(&mut self) {
        self.forget_leavers();
        self.keepers.tries.clear();
        self.keepers.look = true;
    }

    /// Why bricks stay that an arrangement does not have.
    pub(super) fn why_kept(&mut self) -> Option<String> {
        let mut names = std::mem::take(&mut self.keepers.kept);
        names.sort();
        names.dedup();
        (!names.is_empty()).then(|| {
            format!(
                "nodes that have no shards any more keep these snapshots, which could not be copied to others: {}; \
                 delete them, or see to the room and the backends of the others, and rebalance again",
                names.join(", ")
            )
        })
    }

    /// Whether there are snapshots to be replayed that an arrangement has nothing to do with.
    pub(super) fn has_lost_holders(&self) -> bool {
        self.lost_holders().iter().any(|brick| {
            self.wanted_for(*brick, None).is_some_and(|wanted| self.is_worth_it(&wanted))
        })
    }

    /// Bricks that have snapshots and are gone, or are to be deleted.
    fn lost_holders(&self) -> Vec<BrickId> {
        let taken = self.descriptor.snapshots.iter().filter(|snapshot| snapshot.is_taken);
        let holders = taken.flat_map(|snapshot| snapshot.holders.iter().map(|(_, brick)| *brick));
        let mut lost: Vec<BrickId> = holders.filter(|brick| !self.lives(*brick)).collect();
        lost.sort_unstable();
        lost.dedup();
        lost
    }

    /// Begins what can be begun, and goes on with it.
    pub(super) fn pump_keepers(&mut self) {
        if self.barrier.is_some() {
            return;
        }
        if std::mem::take(&mut self.keepers.look) {
            if self.keepers.replay.is_none()
                && let Some(wanted) = self.next_wanted()
            {
                self.begin_replay(wanted.old, wanted.node, wanted.numbers);
            }
            self.condemn_keepers();
        }
        self.go_on_replaying();
    }

    fn next_wanted(&self) -> Option<Wanted> {
        let waits = |brick: &BrickId| {
            self.keepers.tries.get(brick).is_some_and(|(_, retry_at)| retry_at.is_some())
        };
        let nodes = self.goal.as_ref().map(|goal| &goal.nodes[..]);
        let all = self.keepers.leavers.iter().copied().chain(self.lost_holders());
        let due = all.filter(|brick| !waits(brick));
        let mut wanted = due.filter_map(|brick| self.wanted_for(brick, nodes));
        wanted.find(|wanted| self.is_worth_it(wanted))
    }

    /// Keepers of which no snapshot has anything any more are deleted.
    fn condemn_keepers(&mut self) {
        let snapshots = &self.descriptor.snapshots;
        let used = |brick: BrickId| {
            snapshots.iter().any(|s| s.holders.iter().any(|(_, holder)| *holder == brick))
        };
        let unused: Vec<(BrickId, NodeId)> =
            self.descriptor.keepers.iter().filter(|(brick, _)| !used(*brick)).copied().collect();
        for (brick, node) in unused {
            self.descriptor.keepers.retain(|(other, _)| *other != brick);
            self.descriptor.condemned.push((brick, node));
            self.keepers.links.remove(&brick);
            self.want_membership = true;
        }
    }

    /// How often a brick's replay came to nothing.
    pub(super) fn tries_for(&self, old: BrickId) -> u32 {
        self.keepers.tries.get(&old).map_or(0, |(tries, _)| *tries)
    }

    /// A replay came to nothing: when to try again.
    pub(super) fn note_failed_replay(&mut self, old: BrickId) {
        let (tries, _) = self.keepers.tries.get(&old).copied().unwrap_or_default();
        let wait = self.settings.retry_ns << tries.min(DOUBLINGS);
        self.keepers.tries.insert(old, (tries + 1, Some(self.now.after(wait))));
        self.keepers.look = true;
        self.try_moves = true;
    }

    /// A brick has an heir, which is open.
    pub(super) fn note_replayed(&mut self, old: BrickId, keeper: BrickId) {
        self.keepers.tries.remove(&old);
        let link = KeeperLink { opening: 1, is_open: true, ..KeeperLink::default() };
        self.keepers.links.insert(keeper, link);
        self.keepers.look = true;
        self.try_moves = true;
    }

    pub(super) fn keepers_due(&self) -> Option<Time> {
        let tries = self.keepers.tries.values().filter_map(|(_, at)| *at);
        tries.chain(self.keepers.links.values().filter_map(|link| link.retry_at)).min()
    }

    pub(super) fn retry_keepers(&mut self) {
        let longest = self.now.after(self.settings.retry_ns << DOUBLINGS);
        let now = self.now;
        let is_due = |at: Time| at <= now || at > longest;
        let tries = self.keepers.tries.values_mut().map(|(_, at)| at);
        let links = self.keepers.links.values_mut().map(|link| &mut link.retry_at);
        for at in tries.chain(links).filter(|at| at.is_some_and(is_due)) {
            *at = None;
            self.keepers.look = true;
            self.try_moves = true;
        }
    }

    /// Whether a keeper can be asked; if not, it is opened.
    pub(super) fn is_keeper_open(&mut self, brick: BrickId) -> bool {
        let Some(node) = self.node_of(brick) else { return false };
        let (epoch, size) = (self.descriptor.epoch, self.descriptor.size);
        let link = self.keepers.links.entry(brick).or_default();
        if link.is_open || link.is_opening || link.retry_at.is_some() {
            return link.is_open;
        }
        link.is_opening = true;
        link.opening += 1;
        let session = Session { epoch, opening: link.opening };
        let io = self.io_beside(IoKind::Open, brick, None, 0);
        self.actions.push_back(Action::Open { io, brick, node, session, size });
        false
    }

    /// A brick that is in no slot was opened, or not.
    pub(super) fn keeper_opened(&mut self, io: &Io, incarnation: u64, outcome: &Outcome) {
        if self.replay_opened(io, incarnation, outcome) {
            return;
        }
        let retry_at = self.retry_time();
        let Some(link) = self.keepers.links.get_mut(&io.brick) else { return };
        link.is_opening = false;
        match outcome {
            Outcome::Opened { .. } => link.is_open = true,
            Outcome::NotFound => {
                // It took its snapshots along.
                for entry in self.descriptor.snapshots.iter_mut().filter(|entry| !entry.is_taken) {
                    entry.holders.retain(|(_, brick)| *brick != io.brick);
                }
                self.keepers.look = true;
            }
            _ => link.retry_at = Some(retry_at),
        }
    }

    /// A keeper did not do what it was asked: it is opened anew.
    pub(super) fn keeper_failed(&mut self, brick: BrickId) {
        let retry_at = self.retry_time();
        if let Some(link) = self.keepers.links.get_mut(&brick) {
            link.is_open = false;
            link.retry_at = Some(retry_at);
        }
    }

    /// The stored shard map of this name, if it is known.
    pub(super) fn stored_map(&self, version: Generation) -> Option<ShardMap> {
        let bytes = match version == self.base.0 {
            true => &self.base.1,
            false => self.old_maps.get(&version)?,
        };
        ShardMap::decode(bytes).ok()
    }

    /// An operation of a brick that is in no slot.
    pub(super) fn io_beside(
        &mut self,
        kind: IoKind,
        brick: BrickId,
        incarnation: Option<u64>,
        len: u64,
    ) -> crate::IoId {
        crate::IoId(self.ios.insert(Io {
            kind,
            op: 0,
            slot: Slot(0),
            brick,
            opening: 0,
            incarnation,
            offset: 0,
            len,
            abandoned: false,
        }))
    }
}
