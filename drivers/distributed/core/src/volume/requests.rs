// SPDX-License-Identifier: Apache-2.0
//! What clients ask for, and the order in which it may touch the same sectors.

use std::sync::Arc;

use super::{
    Volume,
    log::EntryState,
    state::{BarrierKind, Held, Kind, Op, Phase, Stage},
};
use crate::{Action, ClientOp, Failure, RequestId, Shortage, SlotSet, View, intent::Acquired};

impl Volume {
    pub(super) fn request(&mut self, request: RequestId, op: ClientOp) {
        match &self.phase {
            Phase::Serving if self.barrier.is_none() => {}
            Phase::Stopped(reason) => {
                let reason = Arc::clone(reason);
                return self.reply(request, Err(Failure::Stopped(reason)));
            }
            Phase::Fenced => return self.reply(request, Err(Failure::Fenced)),
            Phase::Detached => {
                let reason: Arc<str> = "the volume was detached: attach it again".into();
                return self.reply(request, Err(Failure::Stopped(reason)));
            }
            _ => return self.early.push_back((request, op)),
        }
        if self.is_headless() && op == ClientOp::Detach {
            self.reply(request, Err(self.headless_failure()));
            return self.stop_headless();
        }
        let view = match op {
            ClientOp::Read { view, .. } => view,
            _ => View::Latest,
        };
        let (kind, offset, len) = match op {
            ClientOp::Read { offset, len, .. } => (Kind::Read, offset, u64::from(len)),
            ClientOp::Write { offset, len, fua } => (Kind::Write { fua }, offset, u64::from(len)),
            ClientOp::Zero { offset, len, how, fua } => (Kind::Zero { how, fua }, offset, len),
            ClientOp::Verify { offset, len } => (Kind::Verify, offset, u64::from(len)),
            ClientOp::Repair { offset, len, source } => {
                (Kind::Repair { source }, offset, u64::from(len))
            }
            ClientOp::Flush => {
                self.flush_requests.push(request);
                return self.refuse_flushes();
            }
            ClientOp::Resize { .. } if self.is_headless() => {
                return self.reply(request, Err(self.headless_failure()));
            }
            ClientOp::Resize { size } => return self.begin_resize(request, size),
            ClientOp::Detach => return self.begin_detach(request),
        };
        let fits =
            len > 0 && offset.checked_add(len).is_some_and(|end| end <= self.descriptor.size);
        if !fits {
            return self.reply(request, Err(Failure::OutOfRange));
        }
        if let Kind::Repair { source } = kind
            && (source.index() >= self.bricks.len()
                || self.map.pieces(offset, len).any(|(_, _, set)| !set.has(source)))
        {
            let reason = format!(
                "slot {} has no replica of all of the range: choose one that has",
                source.0
            );
            return self.reply(request, Err(Failure::Refused(reason.into())));
        }
        if matches!(kind, Kind::Repair { .. }) && self.is_asynchronous() {
            let reason = "in asynchronous mode one replica counts: switch to synchronous first";
            return self.reply(request, Err(Failure::Refused(reason.into())));
        }
        let mut op = Op::new(kind, Some(request), offset, len);
        op.view = view;
        self.submit(op);
    }

    /// Starts an operation, or lets it wait for its range.
    pub(super) fn submit(&mut self, op: Op) -> u64 {
        let is_view = op.kind == Kind::Read && op.view != View::Latest;
        let waits = self.conflicts(&op, self.waiting.len());
        let key = self.ops.insert(op);
        if is_view && self.read_follower(key) {
            return key;
        }
        if waits {
            self.waiting.push_back(key);
        } else {
            self.begin(key);
        }
        key
    }

    /// Whether an operation must wait for ranges that others have, or for one of the first `ahead` that wait.
    fn conflicts(&self, op: &Op, ahead: usize) -> bool {
        let overlaps = |start: u64, end: u64| op.offset < end && start < op.end();
        if op.kind == Kind::Read {
            // A read that went to a replica that has the write, before one that went to a replica that has it not,
            // would show the sector going back.
            return self.protections.pinned_reads
                && self.held.iter().any(|held| held.hides && overlaps(held.start, held.end));
        }
        let by_client = is_client_write(op.kind);
        let ordered = self.protections.ordered_overlaps;
        let held = self
            .held
            .iter()
            .any(|held| (ordered || !(held.client && by_client)) && overlaps(held.start, held.end));
        held || self.waiting.iter().take(ahead).filter_map(|key| self.ops.get(*key)).any(|other| {
            other.kind != Kind::Read
                && (ordered || !(is_client_write(other.kind) && by_client))
                && overlaps(other.offset, other.end())
        })
    }

    fn begin(&mut self, key: u64) {
        let Some(op) = self.ops.get(key) else { return };
        if op.kind == Kind::Read {
            return self.issue_read(key);
        }
        if self.is_headless() && !matches!(op.kind, Kind::Resync { .. }) {
            return self.retry_headless(key);
        }
        if self.is_short(op) {
            // Without its range: healing may need it.
            match self.settings.shortage {
                Shortage::Wait if self.may_wait_for_replicas() => self.short.push_back(key),
                _ => self.finish(key, Err(Failure::ReadOnly)),
            }
            return;
        }
        if is_client_write(op.kind) && self.is_asynchronous() && !self.admit(key) {
            return;
        }
        let Some(op) = self.ops.get(key) else { return };
        let hides = matches!(
            op.kind,
            Kind::Write { .. }
                | Kind::Zero { .. }
                | Kind::Repair { .. }
                | Kind::Mend { .. }
                | Kind::Level { .. }
        );
        let client = is_client_write(op.kind);
        self.held.push(Held { start: op.offset, end: op.end(), op: key, hides, client });
        self.begin_step(key);
    }

    /// Whether a write may begin; otherwise it waits for followers, without its range.
    fn admit(&mut self, key: u64) -> bool {
        let Some(op) = self.ops.get(key) else { return false };
        let (len, is_write) = (op.len, matches!(op.kind, Kind::Write { .. }));
        let len = if is_write { len } else { 0 };
        if self.is_too_far(len) {
            self.lagging.push_back(key);
            return false;
        }
        if let Some(op) = self.ops.get_mut(key) {
            op.admitted = len;
        }
        self.admitted += len;
        true
    }

    /// Whether a write may wait until enough replicas are in sync: not while a barrier waits for it.
    fn may_wait_for_replicas(&self) -> bool {
        let kind = self.barrier.as_ref().map(|barrier| barrier.kind);
        matches!(kind, None | Some(BarrierKind::Configure { .. }))
    }

    /// Whether a client's mutation would touch a shard with too few replicas in sync.
    fn is_short(&self, op: &Op) -> bool {
        let counts = is_client_write(op.kind) || matches!(op.kind, Kind::Repair { .. });
        let members = self.counting().or(self.following());
        let mut pieces = self.map.pieces(op.offset, op.len);
        counts && pieces.any(|(_, _, set)| set.and(members).len() < self.settings.min_in_sync)
    }

    /// Starts the next step of a mutation: as much as the intent log has room for.
    pub(super) fn begin_step(&mut self, key: u64) {
        let limit = self.intent.step_bytes();
        let Some(op) = self.ops.get_mut(key) else { return };
        op.step = limit.min(op.end() - op.at);
        op.missed = SlotSet::EMPTY;
        op.full = SlotSet::EMPTY;
        let kind = op.kind;
        match kind {
            Kind::Resync { slot } => return self.issue_resync(key, slot),
            Kind::Verify => return self.issue_compare(key),
            Kind::Fill { slot, shard } => return self.issue_fill(key, slot, shard),
            Kind::Sweep { slot, shard } => return self.issue_sweep(key, slot, shard),
            Kind::Level { .. } => return self.issue_level(key),
            Kind::Repair { source } => {
                if !self.void_first(key) {
                    self.issue_repair(key, source);
                }
                return;
            }
            Kind::Mend { source, bad } => return self.issue_mend(key, source, bad),
            Kind::Doubt => return self.begin_doubt(key),
            Kind::Read | Kind::Digest => return,
            Kind::Write { .. } | Kind::Zero { .. } => {}
        }
        self.acquire_intent(key, self.no_room.is_empty());
    }

    /// Has the step's regions named in the companions before anything is issued.
    fn acquire_intent(&mut self, key: u64, may_evict: bool) -> bool {
        let Some(op) = self.ops.get_mut(key) else { return true };
        // Who waits for room must not be overtaken by others who take it.
        if !may_evict && !self.intent.is_committed(op.at, op.step) {
            self.no_room.push_back(key);
            return false;
        }
        match self.intent.acquire(self.now, op.at, op.step) {
            Acquired::Full => {
                op.stage = Stage::Intent;
                self.no_room.push_back(key);
                return false;
            }
            Acquired::Committed => {
                op.holds = true;
                self.run(key);
            }
            Acquired::Pending => {
                op.holds = true;
                op.stage = Stage::Intent;
                let (start, end) = self.intent.around(op.at, op.step);
                self.void(start, end);
                if self.protections.intent_log {
                    self.want_intent = true;
                    self.pending_intent.push(key);
                } else {
                    self.run(key);
                }
            }
        }
        true
    }

    /// A record was committed: whoever waited for it goes on.
    pub(super) fn wake_committed(&mut self) {
        for key in std::mem::take(&mut self.pending_intent) {
            let Some(op) = self.ops.get(key) else { continue };
            if self.intent.is_committed(op.at, op.step) {
                self.run(key);
            } else {
                self.want_intent = true;
                self.pending_intent.push(key);
            }
        }
    }

    /// Regions may have become clean: whoever waits for room tries again, in order.
    pub(super) fn wake_no_room(&mut self) {
        for _ in 0..self.no_room.len() {
            let Some(key) = self.no_room.pop_front() else { return };
            if !self.acquire_intent(key, true) {
                // It went to the back: put it where it was.
                self.no_room.rotate_right(1);
                return;
            }
        }
    }

    /// Enough replicas may be in sync now.
    pub(super) fn wake_short(&mut self) {
        // While a snapshot is taken nothing is written. They are woken again when that is over.
        if self.barrier.is_some() {
            return;
        }
        for key in std::mem::take(&mut self.short) {
            self.waiting.push_back(key);
        }
        self.wake_waiting();
    }

    /// A range became free: whoever waits for nothing else starts, in order.
    pub(super) fn wake_waiting(&mut self) {
        let mut index = 0;
        while let Some(key) = self.waiting.get(index).copied() {
            let waits = self.ops.get(key).is_some_and(|op| self.conflicts(op, index));
            if waits {
                index += 1;
            } else {
                self.waiting.remove(index);
                self.begin(key);
            }
        }
    }

    /// Ends an operation and answers its client.
    pub(super) fn finish(&mut self, key: u64, result: Result<(), Failure>) {
        let Some(op) = self.ops.remove(key) else { return };
        self.admitted -= op.admitted;
        if is_client_write(op.kind) && op.first_entry != 0 {
            match (&result, op.request) {
                (Ok(()), Some(request)) => {
                    self.log.acknowledged(key, op.first_entry, op.last_entry, request);
                }
                _ => {
                    let all = (op.first_entry, op.last_entry);
                    self.log.ended(key, all, EntryState::Broken, self.now);
                }
            }
        }
        let point = self.point_of(&op);
        if op.holds {
            self.intent.release(op.at, op.step, true);
        }
        let held = self.held.len();
        self.held.retain(|held| held.op != key);
        if let Some(request) = op.request {
            self.actions.push_back(Action::Reply { request, result, point });
        }
        if held != self.held.len() && !self.waiting.is_empty() {
            self.wake_waiting();
        }
    }
}

fn is_client_write(kind: Kind) -> bool {
    matches!(kind, Kind::Write { .. } | Kind::Zero { .. })
}
