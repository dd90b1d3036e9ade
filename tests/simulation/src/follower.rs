// SPDX-License-Identifier: Apache-2.0
//! Asynchronous mode: the operator switches it and promotes followers; the judge looks at every follower's brick.

use std::collections::BTreeSet;

use distributed_core::{
    BrickId, BrickState, BrickStatus, Configuration, Descriptor, Event, Failure, Loss, MAP_OFFSET,
    Mode, NodeId, Point, Record, RequestId, Slot, View,
};

use crate::{
    clients::Call,
    deeds::Deed,
    matrix::Fault,
    operator::{is_rotten, set_of},
    storage::{Brick, SECTOR, Tag},
    world::{MS, Next, World},
};

impl World {
    /// The operator has the mode changed, or the bounds.
    pub fn reconfigure(&mut self, host: usize) {
        let Some(volume) = &self.hosts[host].volume else { return };
        let status = volume.status();
        let other = match status.mode {
            Mode::Synchronous => Mode::Asynchronous,
            Mode::Asynchronous => Mode::Synchronous,
        };
        let mode = if self.rng.bool() { other } else { status.mode };
        let configuration = Configuration {
            mode,
            acknowledging: None,
            min_in_sync: self.plan.min_in_sync,
            shortage: self.plan.shortage,
            most_behind_bytes: self.plan.most_behind_bytes,
            most_behind_ns: self.plan.most_behind_ns,
        };
        self.deeds.count(Deed::Configured);
        self.wish(host, |request| Event::Configure { request, configuration });
    }

    fn wish(&mut self, host: usize, event: impl FnOnce(RequestId) -> Event) {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.wishing.insert(request, host);
        let instance = self.hosts[host].instance;
        self.deliver(host, instance, event(request));
    }

    /// A host answered such a wish.
    pub fn wished(&mut self, result: &Result<(), Failure>) {
        if let Err(failure) = result
            && !matches!(
                failure,
                Failure::Refused(_)
                    | Failure::Stopped(_)
                    | Failure::Fenced
                    | Failure::Headless(_)
                    | Failure::ReadOnly
            )
        {
            self.fail(format!("a wish failed: {failure:?}"));
        }
    }

    /// Nobody acknowledges: a follower is promoted, or the volume attached anew.
    pub fn look_after_head(&mut self) {
        let host = self.current;
        let Some(volume) = &self.hosts[host].volume else { return };
        let status = volume.status();
        if !status.is_headless || self.rng.u32(0..3) == 0 {
            return;
        }
        let followers: Vec<NodeId> = status
            .bricks
            .iter()
            .filter(|brick| brick.state == BrickState::Following)
            .map(|brick| brick.node)
            .collect();
        match self.rng.choice(&followers).copied() {
            Some(node) if self.rng.u32(0..4) != 0 => {
                let at_once = self.rng.bool();
                self.heirs.insert(node);
                self.wish(host, |request| Event::Promote { request, node, at_once });
            }
            _ => self.end_instance(host),
        }
    }

    /// The acknowledging brick goes while others follow it: its node alone, or with the host.
    pub fn behead(&mut self) {
        let Some(volume) = &self.hosts[self.current].volume else { return };
        let status = volume.status();
        let Some(head) = status.acknowledging.map(|node| node.0 as usize) else { return };
        let follows = |brick: &&BrickStatus| brick.state == BrickState::Following;
        let followers: Vec<NodeId> =
            status.bricks.iter().filter(follows).map(|brick| brick.node).collect();
        let Some(follower) = self.rng.choice(&followers).copied() else { return };
        if self.rng.bool() {
            let faults = [Fault::Kill, Fault::Restart, Fault::FailData, Fault::RefuseFlush];
            let fault = faults[self.rng.usize(0..faults.len())];
            return self.afflict(head, fault);
        }
        for host in &mut self.hosts {
            host.unreachable |= 1 << head;
        }
        let delay = self.rng.u64(15 * MS..50 * MS);
        self.after(delay, Next::Relieve(head));
        self.kill(head);
        self.crash_host(self.current);
        self.heir = Some(follower);
    }

    /// A node whose follower a new attachment is to promote, now and then when others came to nothing.
    pub fn heir(&mut self) -> Option<NodeId> {
        if let Some(node) = self.heir.take() {
            self.heirs.insert(node);
            return Some(node);
        }
        if !self.plan.follows || self.failed_attaches < 2 || self.rng.u32(0..2) == 0 {
            return None;
        }
        let node = NodeId(self.rng.usize(0..self.nodes.len()) as u32);
        self.heirs.insert(node);
        Some(node)
    }

    /// What the brick of a node holds now.
    fn held_by(&self, brick: BrickId, node: NodeId) -> Vec<Tag> {
        let node = &self.nodes[node.0 as usize];
        node.bricks.get(&brick).map(|brick| brick.memory.clone()).unwrap_or_default()
    }

    /// A follower acknowledges from now on.
    pub fn promoted(&mut self, host: usize, brick: BrickId, node: NodeId, loss: Loss) {
        self.hosts[host].lost_head = None;
        // It is recorded, also if another host has asked for the volume since; but not if that one serves.
        if self.hosts[host].epoch < self.begun {
            return;
        }
        self.deeds.count(Deed::Promoted);
        self.hosts[host].followed.retain(|_, followed| *followed != brick);
        self.heirs.remove(&node);
        if !self.heads.is_empty() {
            self.heads = BTreeSet::from([brick]);
        }
        let held = self.held_by(brick, node);
        match loss {
            Loss::Exact { writes, bytes, ranges, from, to, .. } => {
                let lost = self.order.after(from);
                let is_exact = lost.writes == writes
                    && lost.bytes == bytes
                    && lost.ranges.is_none_or(|known| known == ranges)
                    && lost.to.unwrap_or(from.sequence) == to.sequence;
                if !is_exact {
                    self.fail(format!("a promotion told of {loss:?}, but lost {lost:?}"));
                }
                if writes > 0 {
                    self.deeds.count(Deed::Lost);
                }
                if let Some(complaint) = self.complaint_of(from, &held) {
                    self.fail(format!("a promoted brick is not at its point: {complaint}"));
                }
                self.order.lose_after(from);
                (self.lost_at, self.lost_after) = (self.now, from);
                for client in &mut self.clients {
                    client.seen.retain(|_, seen| *seen <= from);
                }
                self.roll_back(held);
            }
            Loss::AtMost { .. } => self.inherited(host, &held),
        }
    }

    /// An attachment that served is over: these bricks may have everything that it acknowledged.
    pub fn note_heads(&mut self, host: usize) {
        let entry = &self.hosts[host];
        let Some(volume) = entry.volume.as_ref().filter(|_| entry.has_served) else { return };
        if entry.epoch != self.begun {
            return;
        }
        // Who was to be promoted instead may be joining or failing as well, and has less.
        if let Some(head) = entry.lost_head {
            self.heads = BTreeSet::from([head]);
            return;
        }
        let status = volume.status();
        let counts = [BrickState::InSync, BrickState::Failing, BrickState::Joining];
        let bricks = status.bricks.iter().filter(|brick| counts.contains(&brick.state));
        self.heads = bricks.map(|brick| brick.brick).collect();
    }

    /// An attachment begins with a follower.
    fn inherited(&mut self, host: usize, held: &[Tag]) {
        self.deeds.count(Deed::Inherited);
        let (epoch, most) = (self.hosts[host].epoch, self.plan.most_behind_bytes);
        match self.order.place_of(held, epoch) {
            Some(point) => {
                let lost = self.order.after(point).bytes;
                if lost > most {
                    self.fail(format!("{lost} bytes are lost from {point:?}, not {most}"));
                }
            }
            None => self.fail("an heir is at no point that ever was".into()),
        }
        self.inherited_in = epoch;
        self.inherits = true;
    }

    fn roll_back(&mut self, held: Vec<Tag>) {
        self.oracle.taken_over(self.now, &held);
        for client in 0..self.clients.len() {
            let Some(call) = self.clients[client].call.as_ref() else { continue };
            let sectors = call.sectors.clone();
            let snapshot = self.oracle.read_called(sectors);
            let flushed = self.oracle.flush_called();
            let now = self.now;
            let Some(call) = self.clients[client].call.as_mut() else { continue };
            match call.kind {
                crate::clients::CallKind::Read => {
                    (call.snapshot, call.called) = (snapshot, now);
                }
                crate::clients::CallKind::Flush | crate::clients::CallKind::Detach => {
                    call.snapshot = flushed;
                }
                _ => {}
            }
        }
    }

    /// An attachment begins: from here on its points count.
    pub fn epoch_begins(&mut self, host: usize) {
        let epoch = self.hosts[host].epoch;
        self.begun = epoch;
        let Some(volume) = &self.hosts[host].volume else { return };
        let status = volume.status();
        let head = status.bricks.iter().find(|brick| brick.state == BrickState::InSync);
        let Some((brick, node)) = head.map(|brick| (brick.brick, brick.node)) else { return };
        // In synchronous mode one brick may have some shards only.
        let in_sync = |other: &&BrickStatus| other.state == BrickState::InSync;
        let of_sector = |sector: usize| {
            let set = set_of(volume.map(), sector);
            let has: Vec<&BrickStatus> = status
                .bricks
                .iter()
                .filter(|brick| in_sync(brick) && set.has(brick.slot))
                .collect();
            // One that died since it was opened may lack what was not flushed.
            let lives = has.iter().find(|brick| self.lives(brick.brick, brick.node.0 as usize));
            lives
                .or(has.first())
                .and_then(|has| self.held(has.brick, has.node.0 as usize, sector))
                .unwrap_or_default()
        };
        let held: Vec<Tag> = (0..self.sectors_at(host)).map(of_sector).collect();
        // The host that promoted it may have died before it could tell, or another one have lost the volume to it.
        let is_other = !self.heads.is_empty() && !self.heads.contains(&brick);
        if is_other
            && status.mode == Mode::Asynchronous
            && self.heirs.contains(&node)
            && !self.inherits
        {
            self.inherited(host, &held);
        }
        self.heads.clear();
        self.heirs.clear();
        let calls = self.clients.iter().filter_map(|client| client.call.as_ref());
        let still: Vec<u32> = calls.filter(|call| call.host == host).map(|call| call.id).collect();
        if std::mem::take(&mut self.inherits) {
            self.roll_back(held.clone());
        }
        self.order.begins(self.now, epoch, held, &still);
        self.order.forget_before(epoch.saturating_sub(40));
    }

    /// How old what a client reads may be.
    pub fn draw_view(&mut self, client: usize) -> View {
        if !self.plan.follows {
            return View::Latest;
        }
        match self.rng.u32(0..10) {
            0..4 => View::Latest,
            4..7 => View::AtLeast(self.clients[client].token),
            _ => View::Consistent,
        }
    }

    /// Judges what a read got from a follower.
    pub fn judge_follower_read(&mut self, call: &Call, point: Point, data: &[Tag]) {
        self.deeds.count(Deed::Followed);
        // It came before the promotion that lost what it saw.
        if call.asked < self.lost_at && point > self.lost_after {
            return;
        }
        if let Some(complaint) = self.order.complaint(point, call.sectors.start, data) {
            return self.fail(format!("a read of a follower, {:?}: {complaint}", call.view));
        }
        if point.epoch != self.hosts[call.host].epoch || call.view != View::Consistent {
            return;
        }
        let behind = self.order.bytes_behind(point, call.asked);
        if behind > self.plan.most_behind_bytes {
            return self.fail(format!("a read is {behind} bytes behind at {point:?}"));
        }
        let since = call.asked.saturating_sub(self.plan.most_behind_ns);
        if self.order.is_behind_since(point, since) {
            self.fail(format!("a read called at {} is too far behind at {point:?}", call.asked));
        }
    }

    /// Judges that a session sees what it saw.
    pub fn judge_session(&mut self, client: usize, call: &Call, data: &[Tag]) {
        let View::AtLeast(token) = call.view else { return };
        let epoch = self.hosts[call.host].epoch;
        for (sector, tag) in call.sectors.clone().zip(data) {
            let seen = self.clients[client].seen.get(&sector).filter(|seen| seen.epoch == epoch);
            let Some(sequence) = self.order.sequence_of(epoch, sector, *tag) else { continue };
            if seen.is_some_and(|seen| sequence < seen.sequence) {
                return self.fail(format!(
                    "a session saw {seen:?} in sector {sector}, and then {tag} of {sequence}; its token is {token:?}"
                ));
            }
        }
    }

    /// A session saw something, or wrote it.
    pub fn note_seen(&mut self, client: usize, call: &Call, point: Point, data: &[Tag]) {
        let epoch = self.hosts[call.host].epoch;
        for (sector, tag) in call.sectors.clone().zip(data) {
            if let Some(sequence) = self.order.sequence_of(epoch, sector, *tag) {
                let place = self.clients[client].seen.entry(sector).or_default();
                *place = (*place).max(Point { epoch, sequence });
            }
        }
        let token = &mut self.clients[client].token;
        *token = (*token).max(point);
    }

    fn complaint_of(&self, point: Point, held: &[Tag]) -> Option<String> {
        let wrong = |at: usize, tag: Tag| !is_rotten(tag) && !self.order.admits(point, at, tag);
        let found = held.iter().enumerate().find(|(at, tag)| wrong(*at, **tag));
        found.map(|(at, tag)| format!("sector {at} holds {tag}, which it does not at {point:?}"))
    }

    /// Every brick whose companion says that it is at a point is there.
    pub fn audit(&mut self, when: &str) {
        if !self.plan.follows {
            return;
        }
        let Ok(descriptor) = Descriptor::decode(&self.stored.bytes) else { return };
        let mut complaints = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            for (id, brick) in &node.bricks {
                let mut entries = (0..).map(Slot).zip(&descriptor.bricks);
                let Some((slot, entry)) = entries.find(|(_, entry)| entry.brick == *id) else {
                    continue;
                };
                // Who fell out is never promoted, whatever its companion still says.
                if entry.vacant || !descriptor.following.has(slot) {
                    continue;
                }
                let Ok(record) = Record::newest(&brick.companion) else { continue };
                let (Some(point), true) =
                    (record.follow.point, record.descriptor.generation >= entry.left)
                else {
                    continue;
                };
                let mut held = replayed(brick, &record);
                // One that was away when the volume got smaller is cut off before anybody uses it.
                held.truncate((descriptor.size / SECTOR) as usize);
                if let Some(complaint) = self.complaint_of(point, &held) {
                    complaints.push(format!("{id} on node {index}, {when}: {complaint}"));
                }
            }
        }
        if let Some(complaint) = complaints.into_iter().next() {
            self.fail(complaint);
        }
    }
}

/// What a brick holds once its journal was replayed.
fn replayed(brick: &Brick, record: &Record) -> Vec<Tag> {
    let mut held = brick.memory.clone();
    let mut at = record.follow.journal_at;
    for piece in &record.follow.journal {
        let first = (piece.offset / SECTOR) as usize;
        for index in 0..(piece.len / SECTOR) as usize {
            let tag = match piece.zero {
                Some(_) => 0,
                None => brick.journaled(at + index as u64 * SECTOR - MAP_OFFSET),
            };
            if let Some(sector) = held.get_mut(first + index) {
                *sector = tag;
            }
        }
        at += if piece.zero.is_none() { piece.len } else { 0 };
    }
    held
}
