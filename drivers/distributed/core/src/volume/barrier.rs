// SPDX-License-Identifier: Apache-2.0
//! What needs everything else to have ended: another size, and the end of the attachment.

use super::{
    Volume,
    state::{Barrier, BarrierKind, BarrierStage, Io, IoKind, Link, Phase},
};
use crate::{Action, Failure, RequestId, Time};

impl Volume {
    pub(super) fn begin_resize(&mut self, request: RequestId, size: u64) {
        let regions = size.div_ceil(u64::from(self.descriptor.region_size));
        if size == 0 || regions > u64::from(u32::MAX) {
            let reason = "a volume has at least one byte, and at most 2^32 regions".into();
            return self.reply(request, Err(Failure::Refused(reason)));
        }
        self.begin_barrier(request, BarrierKind::Resize { size });
    }

    pub(super) fn begin_detach(&mut self, request: RequestId) {
        self.begin_barrier(request, BarrierKind::Detach);
    }

    pub(super) fn begin_barrier(&mut self, request: RequestId, kind: BarrierKind) {
        let stage = BarrierStage::Draining;
        if matches!(kind, BarrierKind::Snapshot { .. }) {
            let (outstanding, full, resized) = (0, false, false);
            self.barrier = Some(Barrier { request, kind, stage, outstanding, full, resized });
            return;
        }
        self.abort_moves();
        if kind == BarrierKind::Detach {
            self.end_goal(Err(Failure::Refused("the volume is being detached".into())));
            self.refuse_snapshots();
        }
        // They could wait for a replica that is not taken back while everything stops.
        for key in std::mem::take(&mut self.short) {
            self.finish(key, Err(Failure::ReadOnly));
        }
        self.barrier =
            Some(Barrier { request, kind, stage, outstanding: 0, full: false, resized: false });
    }

    /// Goes on once nothing else is under way.
    pub(super) fn pump_barrier(&mut self) {
        let Some(barrier) = &mut self.barrier else { return };
        if let BarrierKind::Snapshot { number, .. } = barrier.kind {
            // Writes that wait for replicas were never begun.
            let waiting = self.short.len() + self.lagging.len();
            let idle = self.ops.iter().count() == waiting
                && self.round.is_none()
                && self.commit.is_none()
                && !self.want_membership;
            if idle && barrier.stage == BarrierStage::Draining {
                self.take_snapshot(number);
            }
            return;
        }
        // Those that wait for replicas were never begun. With another size, or without an attachment, they cannot go on.
        let is_change = matches!(barrier.kind, BarrierKind::Configure { .. });
        let waiting = if is_change { self.short.len() } else { 0 };
        let idle = self.ops.iter().count() == waiting
            && self.round.is_none()
            && self.flush_requests.is_empty()
            && self.commit.is_none()
            && !self.bricks.iter().any(|b| matches!(b.link, Link::Opening | Link::Checking));
        if !idle || barrier.stage != BarrierStage::Draining || !self.followers_are_ready() {
            return;
        }
        let Some(barrier) = &mut self.barrier else { return };
        match barrier.kind {
            BarrierKind::Snapshot { .. } => {}
            BarrierKind::Configure { configuration } => self.change_mode(&configuration),
            BarrierKind::Detach => {
                barrier.stage = BarrierStage::Flushing;
                self.pump_flush();
            }
            BarrierKind::Resize { size } if size < self.descriptor.size => {
                // Nobody may need bytes that a brick has dropped already.
                barrier.stage = BarrierStage::Recording;
                self.void(size, u64::MAX);
                self.descriptor.size = size;
                self.want_membership = true;
            }
            BarrierKind::Resize { size } => {
                let shards = size.div_ceil(self.map.shard_size());
                if self.map.covers(shards) {
                    return self.grow_bricks();
                }
                barrier.stage = BarrierStage::Mapping;
                self.map_room = size;
                self.want_map = true;
                self.pump_maps();
            }
        }
    }

    /// The shard map says of every shard to come where it is.
    pub(super) fn grow_bricks(&mut self) {
        let Some(barrier) = &mut self.barrier else { return };
        if let BarrierKind::Resize { size } = barrier.kind {
            barrier.stage = BarrierStage::Bricks;
            self.resize_bricks(size);
        }
    }

    /// Every open brick has the new, larger size.
    fn grown(&mut self, size: u64) {
        let old = std::mem::replace(&mut self.descriptor.size, size);
        self.digests.resize(size);
        self.want_membership = true;
        for slot in self.slots() {
            if self.bricks[slot.index()].link == Link::Open {
                continue;
            }
            // It may have missed that the volume was larger once, and hold what was there.
            self.brick(slot).dirty.insert(old, size);
            self.note_litter_within(slot, old, size);
        }
    }

    /// The record says that the volume is smaller. Until then what lies past its end must not be forgotten: the record
    /// may yet come to nothing.
    fn forget_past_end(&mut self) {
        let size = self.descriptor.size;
        self.intent.shrink(size);
        self.digests.resize(size);
        self.forget_litter_past_end();
        for brick in &mut self.bricks {
            for set in [&mut brick.dirty, &mut brick.volatile, &mut brick.flushing] {
                set.remove(size, u64::MAX);
            }
        }
    }

    fn resize_bricks(&mut self, size: u64) {
        let mut outstanding = 0;
        for slot in self.slots() {
            let brick = self.brick(slot);
            if brick.link != Link::Open {
                continue;
            }
            let brick = brick.id;
            let io = self.io(IoKind::Resize, slot, 0, 0, 0);
            self.actions.push_back(Action::ResizeBrick { io, brick, size });
            outstanding += 1;
        }
        if let Some(barrier) = &mut self.barrier {
            barrier.outstanding = outstanding;
        }
        // Nobody is open when the acknowledging brick was lost while the state was asked.
        if outstanding == 0 {
            self.bricks_resized();
        }
    }

    pub(super) fn resize_answered(&mut self, _io: &Io, full: bool) {
        let Some(barrier) = &mut self.barrier else { return };
        barrier.outstanding = barrier.outstanding.saturating_sub(1);
        barrier.full |= full;
        if barrier.outstanding == 0 {
            self.bricks_resized();
        }
    }

    /// Every open brick has answered.
    fn bricks_resized(&mut self) {
        let is_headless = self.is_headless();
        let Some(barrier) = &mut self.barrier else { return };
        let (request, full) = (barrier.request, barrier.full);
        let BarrierKind::Resize { size } = barrier.kind else { return };
        barrier.resized = true;
        if full {
            // Bricks that grew already are larger than the volume, which harms nobody.
            self.end_barrier(request, Err(Failure::NoSpace));
        } else if size == self.descriptor.size {
            self.end_barrier(request, Ok(()));
        } else if is_headless {
            self.end_barrier(request, Err(self.headless_failure()));
        } else {
            barrier.stage = BarrierStage::Recording;
            self.grown(size);
        }
    }

    /// Whether bricks, or the state, are about to answer what a resize asked of them, though nobody acknowledges any more.
    pub(super) fn resize_outlives_head(&self) -> bool {
        let Some(barrier) = &self.barrier else { return false };
        let is_stored = self.commit.as_ref().is_some_and(|commit| commit.storing);
        matches!(barrier.kind, BarrierKind::Resize { .. })
            && (barrier.outstanding > 0 || (barrier.stage == BarrierStage::Recording && is_stored))
    }

    /// A resize that is not recorded comes to nothing: the volume has the size again that it had. No brick may be opened
    /// with a smaller one, which would cut it off.
    pub(super) fn take_size_back(&mut self) {
        if self.descriptor.size != self.recorded.size && !self.resize_outlives_head() {
            self.descriptor.size = self.recorded.size;
            self.forget_past_end();
        }
    }

    pub(super) fn barrier_flushed(&mut self) {
        let Some(barrier) = &mut self.barrier else { return };
        if barrier.stage == BarrierStage::Flushing {
            barrier.stage = BarrierStage::Recording;
            self.intent.trim(Time(u64::MAX));
            let under_way = self.bricks.iter().any(|brick| brick.unknown > 0 || brick.foreign);
            self.descriptor.clean = !under_way && self.ios.iter().all(|(_, io)| !io.abandoned);
            self.want_membership = true;
        }
    }

    pub(super) fn barrier_recorded(&mut self) {
        let Some(barrier) = &mut self.barrier else { return };
        let request = barrier.request;
        match barrier.kind {
            BarrierKind::Detach => {
                self.reply(request, Ok(()));
                self.barrier = None;
                self.stop(Phase::Detached);
            }
            BarrierKind::Resize { size } if !barrier.resized => {
                barrier.stage = BarrierStage::Bricks;
                self.forget_past_end();
                self.resize_bricks(size);
            }
            BarrierKind::Resize { .. } => self.end_barrier(request, Ok(())),
            BarrierKind::Configure { configuration } => {
                self.end_barrier(request, Ok(()));
                self.mode_changed(&configuration);
            }
            BarrierKind::Snapshot { .. } => {}
        }
    }

    fn end_barrier(&mut self, request: RequestId, result: Result<(), Failure>) {
        self.reply(request, result);
        self.lift_barrier();
    }

    /// Whether what is to come finds followers with everything, and with nothing in their journals.
    pub(super) fn barrier_wants_followers(&self) -> bool {
        let barrier = self.barrier.as_ref();
        barrier.is_some_and(|barrier| !matches!(barrier.kind, BarrierKind::Snapshot { .. }))
    }

    /// Lets those go on that came meanwhile.
    pub(super) fn lift_barrier(&mut self) {
        self.barrier = None;
        self.wake_short();
        for (request, op) in std::mem::take(&mut self.early) {
            self.request(request, op);
        }
    }
}
