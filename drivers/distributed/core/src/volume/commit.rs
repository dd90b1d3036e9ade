// SPDX-License-Identifier: Apache-2.0
//! Writes records: to the companions of all in-sync bricks, and with a change of membership to the state.
//!
//! ```text
//!   wanted --> companions --all of them have it--> state (only with a change of membership) --> effects
//!     ^            | one of them failed
//!     +------------+ (void: without the failed one, as a change of membership)
//! ```
//! One commit at a time; what is wanted meanwhile is in the next one. Who joins gets the record after all others have
//! it: a crash may leave it believed, and then whoever finds another companion must learn that there is this one.

use std::sync::Arc;

use super::{
    Volume,
    state::{BarrierStage, Change, Commit, IoKind, Phase, Role},
};
use crate::{Action, Notice, Outcome, Record, Run, Slot, SlotSet};

impl Volume {
    pub(super) fn pump_commit(&mut self) {
        let ready = matches!(self.phase, Phase::Serving | Phase::Recording);
        let is_held = self.is_headless() && !self.is_promoting();
        if !ready || is_held || self.commit.is_some() || !(self.want_intent || self.want_membership)
        {
            return;
        }
        if self.phase == Phase::Recording && !self.maps_are_kept() {
            return;
        }
        let change = std::mem::take(&mut self.want_membership).then(|| self.change_membership());
        self.want_intent = false;
        let regions = self.intent.regions();
        let joined = change.map_or(SlotSet::EMPTY, |change| change.joined);
        let targets = self.counting().without(joined);
        let record = self.record();
        let bytes: Arc<[u8]> = self.descriptor.encode().into();
        let ends_barrier = change.is_some()
            && self.barrier.as_ref().is_some_and(|b| b.stage == BarrierStage::Recording);
        self.commit = Some(Commit {
            ends_barrier,
            regions,
            pending: targets,
            joining: (!joined.is_empty()).then(|| (joined, record.clone())),
            void: false,
            digests: record.digests.as_ref().map(|(version, _)| *version),
            voided: self.digests.voided,
            change,
            bytes,
            storing: false,
            retry_at: None,
        });
        self.write_companions(targets, record);
        // A promoted follower has nobody beside it: it gets the record as one that joins.
        if targets.is_empty() {
            self.companions_answered();
        }
    }

    /// Writes the next generation's membership into the descriptor.
    fn change_membership(&mut self) -> Change {
        let excluded = self.with_role(Role::Failing);
        let clean_join = self.protections.clean_join;
        let mut joined = SlotSet::EMPTY;
        for slot in self.slots() {
            let brick = self.brick(slot);
            // A write that was taken back because a node is full may have left it behind again.
            if std::mem::take(&mut brick.join) && (brick.dirty.is_empty() || !clean_join) {
                brick.role = Role::Joining;
            }
            if brick.role == Role::Joining {
                joined.insert(slot);
            }
        }
        self.record_vacancies();
        self.record_moves();
        self.record_map();
        self.record_snapshots();
        self.descriptor.settled = self.settled;
        self.descriptor.generation = self.descriptor.generation.next();
        let members = self.members;
        self.descriptor.in_sync = self.counting();
        let followed = self.recorded.following.or(self.descriptor.following);
        let followed = followed.or(self.descriptor.followed);
        self.descriptor.following = self.with_a_point();
        self.descriptor.followed = followed.without(self.descriptor.following);
        for (slot, entry) in (0..).map(Slot).zip(&mut self.descriptor.bricks) {
            if joined.has(slot) {
                entry.fresh = false;
            }
            let was_listed = members.has(slot) || self.bricks[slot.index()].may_be_listed;
            if excluded.has(slot) && was_listed {
                entry.left = entry.left.max(self.settled);
            }
        }
        Change { excluded, joined }
    }

    /// What the companions are to say now; brick and sequence are each one's own.
    fn record(&self) -> Record {
        let intent = if self.protections.intent_log { self.intent.regions() } else { Vec::new() };
        Record {
            brick: crate::BrickId(0),
            sequence: 0,
            descriptor: self.descriptor.clone(),
            intent,
            dirty: self.dirty_maps(),
            map_at: 0,
            map_bytes: 0,
            snapshot_maps: Vec::new(),
            digests: self.digests.named(),
            follow: crate::Follow::default(),
        }
    }

    fn write_companions(&mut self, targets: SlotSet, mut record: Record) {
        for slot in targets.iter() {
            self.place_maps(slot, &mut record);
            let brick = self.brick(slot);
            record.brick = brick.id;
            record.sequence = brick.sequence;
            brick.sequence += 1;
            let (brick, offset, bytes) = (brick.id, record.offset(), record.encode());
            let io = self.io(IoKind::Companion, slot, 0, offset, bytes.len() as u64);
            self.actions.push_back(Action::WriteCompanion {
                io,
                brick,
                offset,
                bytes: bytes.into(),
            });
        }
    }

    /// What each brick outside the in-sync set lacks, in regions.
    fn dirty_maps(&self) -> Vec<(Slot, Vec<Run>)> {
        let size = u64::from(self.descriptor.region_size);
        let mut maps = Vec::new();
        for (slot, brick) in (0..).map(Slot).zip(&self.bricks) {
            if brick.counts() || brick.role == Role::Vacant {
                continue;
            }
            let logged = self.logged_for(slot);
            let mut spans: Vec<(u32, u32)> = brick
                .lacks()
                .chain(logged.iter())
                .map(|(start, end)| ((start / size) as u32, end.div_ceil(size) as u32))
                .collect();
            spans.sort_unstable();
            let mut runs: Vec<Run> = Vec::new();
            for (first, end) in spans {
                match runs.last_mut() {
                    Some(run) if first <= run.0 + run.1 => run.1 = run.1.max(end - run.0),
                    _ => runs.push((first, end - first)),
                }
            }
            maps.push((slot, runs));
        }
        maps
    }

    pub(super) fn companion_written(&mut self, slot: Slot) {
        if let Some(commit) = &mut self.commit {
            commit.pending.remove(slot);
        }
        self.companions_answered();
    }

    pub(super) fn companion_missed(&mut self, slot: Slot) {
        if let Some(commit) = &mut self.commit
            && commit.pending.has(slot)
        {
            commit.pending.remove(slot);
            commit.void = true;
        }
    }

    /// A brick that was to join is given up before its turn came.
    pub(super) fn joins_no_more(&mut self, slot: Slot) {
        if let Some(commit) = &mut self.commit
            && commit.joining.as_ref().is_some_and(|(joining, _)| joining.has(slot))
        {
            commit.void = true;
        }
    }

    pub(super) fn companions_answered(&mut self) {
        let Some(commit) = &mut self.commit else { return };
        if !commit.pending.is_empty() || commit.storing {
            return;
        }
        if commit.void {
            self.commit = None;
            self.want_membership = true;
            self.want_intent = true;
            return;
        }
        if let Some((joining, record)) = commit.joining.take() {
            commit.pending = joining;
            joining.iter().for_each(|slot| self.brick(slot).may_be_listed = true);
            return self.write_companions(joining, record);
        }
        if commit.change.is_none() {
            return self.committed();
        }
        commit.storing = true;
        self.store();
    }

    fn store(&mut self) {
        let Some(commit) = &mut self.commit else { return };
        let bytes = Arc::clone(&commit.bytes);
        commit.retry_at = None;
        let expected = Arc::clone(&self.stored);
        let io = self.io(IoKind::State, Slot(0), 0, 0, 0);
        self.actions.push_back(Action::SwapState { io, expected, bytes });
    }

    /// The state store answered.
    pub(super) fn stored(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Conflict | Outcome::Fenced => self.stop(Phase::Fenced),
            _ if self.claim.is_some() => self.claimed(&outcome),
            Outcome::Ok => self.committed(),
            _ => {
                let at = self.now.after(self.settings.retry_ns);
                if let Some(commit) = &mut self.commit {
                    commit.retry_at = Some(at);
                }
            }
        }
    }

    pub(super) fn retry_state(&mut self) {
        let due = self.commit.as_ref().and_then(|commit| commit.retry_at);
        if due.is_some_and(|at| at <= self.now || at > self.now.after(self.settings.retry_ns)) {
            self.store();
        }
    }

    /// Everybody has the record: what waited for it happens.
    fn committed(&mut self) {
        let Some(commit) = self.commit.take() else { return };
        self.intent.committed(&commit.regions);
        self.digests_recorded(commit.voided, commit.digests);
        if let Some(change) = commit.change {
            self.stored = Arc::clone(&commit.bytes);
            match crate::Descriptor::decode(&commit.bytes) {
                Ok(recorded) => self.recorded = recorded,
                Err(reason) => {
                    let reason =
                        format!("the record that was just written is {reason}: attach again");
                    return self.stop(Phase::Stopped(reason.into()));
                }
            }
            self.membership_changed(change);
            if self.is_over() {
                return;
            }
        }
        self.try_moves = true;
        if self.phase == Phase::Recording {
            self.serve();
        }
        self.wake_committed();
        self.wake_settling();
        if commit.ends_barrier {
            self.barrier_recorded();
        }
    }

    fn membership_changed(&mut self, change: Change) {
        self.settled = self.descriptor.generation;
        self.bricks.iter_mut().for_each(|brick| brick.may_be_listed = false);
        // The next record, if only of intent, tells that this one holds.
        self.descriptor.settled = self.settled;
        self.descriptor.followed = SlotSet::EMPTY;
        for slot in change.excluded.iter() {
            let brick = self.brick(slot);
            if brick.role == Role::Failing {
                brick.role = Role::Stale;
            }
        }
        for slot in change.joined.iter() {
            let brick = self.brick(slot);
            if brick.role != Role::Joining {
                continue;
            }
            brick.role = Role::InSync;
            brick.receiving = false;
            let (brick, copied) = (brick.id, brick.copied);
            self.report(Notice::InSync { brick, copied });
        }
        for brick in &mut self.bricks {
            // A fresh brick is in the record just stored if it was in the descriptor when that was written.
            brick.unrecorded &= brick.listed_in > self.descriptor.generation;
        }
        self.members = self.descriptor.in_sync;
        self.promoted(change.joined);
        for slot in change.joined.iter() {
            self.brick(slot).follower = super::Follower::default();
        }
        self.vacancies_recorded();
        if !self.moves_recorded() {
            let reason = format!(
                "volume {:?}: a shard was moved, and the nodes that have it now failed before it was known: attach again",
                self.descriptor.volume
            );
            return self.stop(Phase::Stopped(reason.into()));
        }
        self.map_recorded();
        self.snapshots_recorded();
        self.delete_condemned();
        self.wake_short();
    }

    fn wake_settling(&mut self) {
        for key in std::mem::take(&mut self.settling) {
            self.settle(key);
        }
        self.settle_flush();
    }

    /// Lets regions that rest leave the log, so that little is leveled after a crash.
    pub(super) fn trim_intent(&mut self) {
        let idle = self.settings.intent_idle_ns;
        if self.commit.is_none() && self.intent.trim(crate::Time(self.now.0.saturating_sub(idle))) {
            self.want_intent = true;
        }
    }
}
