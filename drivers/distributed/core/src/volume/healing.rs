// SPDX-License-Identifier: Apache-2.0
//! How hard healing may work, and which nodes it leaves alone.

use super::{
    Volume,
    state::{Brick, Phase, Role},
};
use crate::{NodeId, Slot, Time};

/// Of so many setbacks in a row each doubles the time until the next attempt.
const MOST_SETBACKS: u32 = 6;

/// What a volume has to heal: replicas that lack something, shards on their way, what is left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Healing {
    /// Whether something is being healed, or would be if copies were allowed.
    pub is_wanted: bool,
    /// Copies in sync of the shard that has the fewest.
    pub fewest: u32,
    /// Whether a shard has fewer than writes need: clients wait for the healing itself.
    pub is_short: bool,
}

impl Volume {
    /// What there is to heal. Costs little: it looks at bricks and at replica sets, not at shards.
    pub fn healing(&self) -> Healing {
        // A follower is a copy, too: writes count it.
        let in_sync = self.with_role(Role::InSync).or(self.following());
        let fewest = self.map.sets().map(|set| set.and(in_sync).len()).min().unwrap_or_default();
        let receives =
            |slot: Slot| self.takes_copies(slot) && !self.bricks[slot.index()].dirty.is_empty();
        let is_wanted = self.is_serving()
            && (self.copies > 0
                || self.slots().any(receives)
                || !self.moves.is_empty()
                || !self.litter.is_empty()
                || self.scrub.is_wanted()
                || self.keepers.replay.is_some());
        Healing { is_wanted, fewest, is_short: fewest < self.settings.min_in_sync }
    }

    /// Lets so many copies be under way from now on, each of at most so many bytes, and so many bytes a second. Those that
    /// are more come to their end.
    pub(super) fn throttle(&mut self, copies: u32, bytes: u32, rate: Option<u64>) {
        self.budget.set(self.now, rate);
        self.settings.copies_in_flight = copies;
        self.settings.copy_bytes = bytes;
        // Whoever found no room waits for the end of a copy, and there may be none under way.
        self.try_sweeps = true;
    }

    /// Whether another copy may begin.
    pub(super) fn may_copy(&mut self) -> bool {
        self.copies < self.settings.copies_in_flight && self.budget.allows(self.now)
    }

    /// A copy of so many bytes is under way.
    pub(super) fn copy_begins(&mut self, bytes: u64) {
        self.copies += 1;
        self.budget.spend(bytes);
    }

    /// When copies go on that had to wait for more bytes to be allowed.
    pub(super) fn copies_due(&self) -> Option<Time> {
        self.budget.next().filter(|_| self.phase == Phase::Serving && !self.is_paused())
    }

    /// Goes on with them.
    pub(super) fn retry_copies(&mut self) {
        if self.copies_due().is_some_and(|due| due <= self.now) {
            self.try_sweeps |= self.budget.allows(self.now);
        }
    }

    /// Whether healing stands still until it is allowed copies again.
    pub(super) fn is_paused(&self) -> bool {
        self.settings.copies_in_flight == 0
    }

    /// Leaves closed bricks of a node closed for a time.
    pub(super) fn hold(&mut self, node: NodeId, nanoseconds: u64) {
        self.held_nodes.insert(node, self.now.after(nanoseconds));
    }

    /// When a brick that is given up may be opened again: soon if it was in sync, or took a copy since it was opened, and
    /// else later each time that it fails while it is brought back. A node that takes what it is sent and answers nothing would else cost a fresh brick each
    /// time, and the beginning of a copy of everything.
    pub(super) fn retry_after_setback(&mut self, slot: Slot) -> Time {
        let brick = &self.bricks[slot.index()];
        let so_far = self.setbacks.get(&brick.node).copied().unwrap_or_default();
        let before = match brick.role {
            Role::InSync => 0,
            _ if brick.receiving && brick.copied > 0 => 0,
            _ if brick.receiving => (so_far + 1).min(MOST_SETBACKS),
            _ => so_far,
        };
        self.setbacks.insert(brick.node, before);
        self.now.after(self.settings.retry_ns << before)
    }

    /// When a brick may be opened next.
    pub(super) fn opens_at(&self, brick: &Brick) -> Time {
        let held = self.held_nodes.get(&brick.node).copied().unwrap_or_default();
        held.max(brick.retry_at)
    }

    /// Has reads and copies prefer other replicas, or no more.
    pub(super) fn shun(&mut self, node: NodeId, is_shunned: bool) {
        if is_shunned {
            self.shunned.insert(node);
        } else {
            self.shunned.remove(&node);
        }
    }
}
