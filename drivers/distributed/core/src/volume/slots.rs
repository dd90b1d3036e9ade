// SPDX-License-Identifier: Apache-2.0
//! Gives slots to nodes that the volume did not have, and takes them from those that it has no longer.

use super::{
    Volume,
    state::{Brick, Goal, Role},
};
use crate::{BrickEntry, BrickId, Generation, MAX_BRICKS, NodeId, Slot};

impl Volume {
    /// Finds a slot for each node of the goal; false while one is missing.
    pub(super) fn give_slots(&mut self, goal: &mut Goal) -> bool {
        while let Some(node) = goal.nodes.get(goal.slots.len()).copied() {
            let here = |slot: &Slot| {
                let brick = &self.bricks[slot.index()];
                brick.node == node && brick.role != Role::Vacant && !brick.leaving
            };
            let slot = self.slots().find(here);
            let Some(slot) = slot.or_else(|| self.add_slot(node)) else { return false };
            goal.slots.push(slot);
        }
        true
    }

    /// A slot with a fresh brick on a node; none while all are taken.
    fn add_slot(&mut self, node: NodeId) -> Option<Slot> {
        let vacant = self.slots().find(|slot| self.bricks[slot.index()].role == Role::Vacant);
        let slot = vacant.unwrap_or(Slot(self.bricks.len() as u8));
        if slot.index() >= MAX_BRICKS {
            return None;
        }
        let id = BrickId(self.descriptor.next_brick);
        self.descriptor.next_brick += 1;
        let left = Generation::default();
        let entry = BrickEntry { brick: id, node, fresh: true, left, vacant: false };
        let mut brick = Brick::new(id, node, Role::Stale);
        brick.foreign = false;
        brick.created = false;
        brick.unrecorded = true;
        brick.listed_in = self.descriptor.generation.next();
        match self.bricks.get_mut(slot.index()) {
            Some(place) => {
                *place = brick;
                self.descriptor.bricks[slot.index()] = entry;
            }
            None => {
                self.bricks.push(brick);
                self.descriptor.bricks.push(entry);
            }
        }
        self.want_membership = true;
        Some(slot)
    }

    /// Writes into the descriptor who leaves.
    pub(super) fn record_vacancies(&mut self) {
        for (brick, entry) in self.bricks.iter().zip(&mut self.descriptor.bricks) {
            let gone = brick.leaving && matches!(brick.role, Role::Failing | Role::Stale);
            if gone && !entry.vacant {
                entry.vacant = true;
                self.descriptor.condemned.push((entry.brick, entry.node));
            }
        }
    }

    /// The record that says who left is everywhere.
    pub(super) fn vacancies_recorded(&mut self) {
        for slot in self.slots() {
            let is_vacant = self.descriptor.bricks[slot.index()].vacant;
            let brick = self.brick(slot);
            if is_vacant && brick.role == Role::Stale {
                brick.role = Role::Vacant;
                brick.leaving = false;
                self.forget_litter_of(slot);
                // The next record tells that this one holds, so that nobody looks for the brick any more.
                self.want_intent = true;
            }
        }
    }
}
