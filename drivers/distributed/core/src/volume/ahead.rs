// SPDX-License-Identifier: Apache-2.0
//! Where moves that are under way lead, for whoever plans in the middle of them.

use super::{
    Volume,
    state::{Goal, Move, MoveStage, Role},
};
use crate::{ShardMap, SlotSet, extents::ExtentSet};

impl Volume {
    /// The shard map as it is best counted on while shards move: one whose move is being recorded is where it goes, and so
    /// is one that has less to copy until it is there than the replicas lack which it leaves. Any other is where it is.
    pub fn map_ahead(&self) -> ShardMap {
        let mut map = self.map.clone();
        for m in &self.moves {
            let set = if self.is_nearly_there(m) { m.new } else { m.old };
            // Of sets that make too many the map keeps what it has, which is as true.
            let _ = map.change(m.shard, set);
        }
        map
    }

    fn is_nearly_there(&self, m: &Move) -> bool {
        if m.stage == MoveStage::Recording {
            return true;
        }
        let left = m.lacks.iter().map(|(_, lacks, issued)| lacks.bytes() + issued.bytes());
        let left: u64 = left.sum();
        let lacks = |dirty: &ExtentSet| dirty.within(m.start, m.end);
        let leaves = m.old.without(m.new).iter();
        let missing: u64 = leaves.map(|slot| lacks(&self.bricks[slot.index()].dirty)).sum();
        // Where nothing is gained there is nothing to go on with.
        !m.gains.is_empty() && left <= missing
    }

    /// How many copies the shard has left that has the fewest of those which are to be copied to where they move.
    pub(super) fn most_urgent_fill(&self) -> Option<u32> {
        let in_sync = self.with_role(Role::InSync);
        let lacks = |m: &&Move| m.lacks.iter().any(|(_, lacks, _)| !lacks.is_empty());
        let filling = self.moves.iter().filter(|m| m.stage == MoveStage::Filling);
        filling.filter(lacks).map(|m| m.old.and(in_sync).len()).min()
    }

    /// Ends moves that lead elsewhere than the goal, but for those that are being recorded.
    pub(super) fn keep_moves_to(&mut self, goal: &Goal) {
        let wanted = |m: &Move| -> SlotSet { goal.wanted(m.start) };
        self.moves.retain(|m| m.stage == MoveStage::Recording || m.new == wanted(m));
        self.try_sweeps = true;
    }
}
