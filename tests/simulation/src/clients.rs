// SPDX-License-Identifier: Apache-2.0
//! Clients: each asks for one thing at a time, and tells the judge what it saw.

use std::{collections::BTreeMap, ops::Range};

use distributed_core::{ClientOp, Event, Failure, Point, RequestId, Slot, View, ZeroKind};

use crate::{
    operator::Before,
    oracle::Snapshot,
    plan::MOST_SECTORS,
    storage::{SECTOR, Tag},
    world::{MS, Next, US, World},
};

/// A client.
#[derive(Clone, Debug, Default)]
pub struct Client {
    pub host: usize,
    pub call: Option<Call>,
    /// Its session's token.
    pub token: Point,
    /// Where that stands which it saw last of a sector, or wrote.
    pub seen: BTreeMap<usize, Point>,
}

/// What a client waits for.
#[derive(Clone, Debug)]
pub struct Call {
    pub request: RequestId,
    pub host: usize,
    pub kind: CallKind,
    pub sectors: Range<usize>,
    pub tag: Tag,
    pub id: u32,
    pub called: u64,
    /// When it was called; `called` is moved to when all that went before was lost.
    pub asked: u64,
    pub snapshot: Snapshot,
    pub before: Before,
    /// How old what a read gets may be.
    pub view: View,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    Read,
    Write { fua: bool },
    Flush,
    Detach,
    Resize,
    Verify,
    Repair { source: Slot },
}

impl World {
    /// A client has thought; it asks, if it can.
    pub fn client_turn(&mut self, client: usize) {
        if self.clients[client].call.is_some() {
            return;
        }
        if !self.hosts[self.clients[client].host].serving {
            self.clients[client].host = self.current;
        }
        let host = self.clients[client].host;
        if !self.hosts[host].serving {
            if self.chaos {
                self.after(MS, Next::Client(client));
            }
            return;
        }
        if self.chaos && client == self.plan.clients {
            self.operate(client);
        } else if self.chaos {
            self.ask_something(client);
        }
    }

    fn ask_something(&mut self, client: usize) {
        let (kind, is_zero) = match self.rng.u32(0..100) {
            0..40 => (CallKind::Read, false),
            40..82 => (CallKind::Write { fua: self.rng.u32(0..12) == 0 }, false),
            82..87 => (CallKind::Write { fua: false }, true),
            _ => (CallKind::Flush, false),
        };
        let all = self.sectors_at(self.clients[client].host);
        let hot = self.plan.hot_sectors.min(all);
        let bound = if self.rng.u32(0..4) == 0 { all } else { hot };
        let first = self.rng.usize(0..bound);
        let most = if is_zero && self.rng.bool() { all } else { 12 };
        let count = self.rng.usize(1..=most).min(all - first);
        self.ask(client, kind, first..first + count, is_zero);
    }

    /// Sends a client's request to its host.
    pub fn ask(&mut self, client: usize, kind: CallKind, sectors: Range<usize>, is_zero: bool) {
        let host = self.clients[client].host;
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let id = self.next_tag;
        let tag = if is_zero { 0 } else { id };
        let (offset, len) = (sectors.start as u64 * SECTOR, sectors.len() as u64 * SECTOR);
        let is_peaceful = !self.chaos;
        let view = match kind {
            CallKind::Read if !is_peaceful => self.draw_view(client),
            _ => View::Latest,
        };
        let (op, snapshot) = match kind {
            CallKind::Read => (
                ClientOp::Read { offset, len: len as u32, view },
                self.oracle.read_called(sectors.clone()),
            ),
            CallKind::Flush => (ClientOp::Flush, self.oracle.flush_called()),
            CallKind::Detach => (ClientOp::Detach, self.oracle.flush_called()),
            CallKind::Resize => {
                self.next_tag += 1;
                self.sizes.asked.push(sectors.end);
                // Until it has ended, a brick may lack what comes past its new end.
                self.order.called(self.now, id, sectors.end..MOST_SECTORS, 0);
                (ClientOp::Resize { size: len }, Snapshot::new())
            }
            CallKind::Verify => (ClientOp::Verify { offset, len: len as u32 }, Snapshot::new()),
            CallKind::Repair { source } => {
                (ClientOp::Repair { offset, len: len as u32, source }, Snapshot::new())
            }
            CallKind::Write { fua } => {
                self.next_tag += 1;
                self.oracle.write_called(self.now, sectors.clone(), tag, id);
                self.order.called(self.now, id, sectors.clone(), tag);
                let how = if self.rng.bool() { ZeroKind::Discard } else { ZeroKind::Zero };
                let write = if is_zero {
                    ClientOp::Zero { offset, len, how, fua }
                } else {
                    ClientOp::Write { offset, len: len as u32, fua }
                };
                (write, Snapshot::new())
            }
        };
        let instance = self.hosts[host].instance;
        let (called, asked) = (self.now, self.now);
        let before = match kind {
            CallKind::Verify | CallKind::Repair { .. } => self.before(),
            CallKind::Read if self.plan.verifies => self.before(),
            _ => Before::default(),
        };
        let call =
            Call { request, host, kind, sectors, tag, id, called, asked, snapshot, before, view };
        self.clients[client].call = Some(call);
        self.calls.insert(request, client);
        self.deliver(host, instance, Event::Request { request, op });
    }

    pub fn tag_of(&self, request: RequestId) -> Tag {
        let call = self.calls.get(&request).and_then(|client| self.clients[*client].call.as_ref());
        call.map(|call| call.tag).unwrap_or_default()
    }

    /// What a host's buffer of a request holds.
    pub fn tag_at(&self, host: usize, request: RequestId) -> Tag {
        let kept = self.hosts[host].kept.get(&request).copied();
        kept.unwrap_or_else(|| self.tag_of(request))
    }

    /// Whether a request begins with this sector.
    pub fn begins_at(&self, request: RequestId, sector: usize) -> bool {
        let call = self.calls.get(&request).and_then(|client| self.clients[*client].call.as_ref());
        call.is_some_and(|call| call.sectors.start == sector)
    }

    /// A volume answered a client.
    pub fn replied(
        &mut self,
        host: usize,
        request: RequestId,
        result: Result<(), Failure>,
        point: Point,
    ) {
        if self.wishing.remove(&request).is_some() {
            return self.wished(&result);
        }
        if let Some(host) = self.arranging.remove(&request) {
            if result.is_ok() {
                self.check_arranged(request, host);
            }
            return self.arranged(&result);
        }
        if let Some((_, wish)) = self.snapping.remove(&request) {
            return self.snapped(wish, &result);
        }
        let data = self.take_data(host, request);
        let is_followed = self.hosts[host].followed.remove(&request).is_some();
        let is_lost = self.hosts[host].epoch < self.inherited_in;
        let Some(client) = self.calls.remove(&request) else {
            return self.fail(format!("request {request:?} was answered twice, or never asked"));
        };
        let Some(call) = self.clients[client].call.take() else { return };
        let is_operator = client == self.plan.clients;
        let think = self.rng.u64(10 * US..600 * US) * if is_operator { 8 } else { 1 };
        self.after(think, Next::Client(client));
        let sectors = call.sectors.clone();
        match (call.kind, result) {
            (CallKind::Read, Ok(())) => {
                // Who has lost the volume without knowing may still show its clients what was.
                if self.hosts[host].epoch != self.stored.epoch {
                    return;
                }
                if data.len() != sectors.len() {
                    return self.fail(format!("a read of {sectors:?} got {} sectors", data.len()));
                }
                if is_followed {
                    self.judge_follower_read(&call, point, &data);
                } else {
                    self.judge_read(&call, &data);
                    self.judge_comparison(&call, &data);
                }
                self.judge_session(client, &call, &data);
                self.note_seen(client, &call, point, &data);
            }
            (CallKind::Write { fua }, Ok(())) => {
                self.order.acknowledged(self.now, call.id, point);
                let written = vec![call.tag; sectors.len()];
                self.note_seen(client, &call, point, &written);
                if is_lost {
                    return self.oracle.write_ended(self.now, sectors, call.id);
                }
                self.oracle.write_acknowledged(self.now, sectors, call.id, fua);
            }
            (CallKind::Flush | CallKind::Detach, Ok(())) if is_lost => {}
            (CallKind::Flush | CallKind::Detach, Ok(())) => {
                self.oracle.flush_answered(&call.snapshot);
                self.note_healed();
            }
            (CallKind::Resize, Ok(())) => {
                self.order.ended(self.now, call.id);
                // Who has lost the volume learns late what another host knows already.
                if self.hosts[host].epoch == self.stored.epoch {
                    self.resized(call.called, sectors.end);
                }
            }
            (_, Err(Failure::Stopped(_) | Failure::Fenced)) => {
                self.clients[client].host = self.current;
            }
            (CallKind::Read | CallKind::Write { .. }, Err(Failure::OutOfRange))
                if sectors.end > self.sectors_at(host) =>
            {
                if call.kind != CallKind::Read {
                    self.order.refused(call.id);
                    self.oracle.write_refused(sectors, call.id);
                }
            }
            (CallKind::Read, Err(Failure::Damaged(text))) => self.judge_refusal(&call, &text),
            (CallKind::Verify | CallKind::Repair { .. }, Err(Failure::OutOfRange))
                if sectors.end > self.sectors_at(host) => {}
            (CallKind::Verify, Err(Failure::Headless(_))) if self.plan.follows => {}
            (CallKind::Verify | CallKind::Repair { .. }, result) => {
                self.check_answered(&call, &result);
            }
            (CallKind::Resize, Err(Failure::NoSpace | Failure::Refused(_))) => {
                self.order.ended(self.now, call.id);
                self.sizes.asked.retain(|size| *size != sectors.end);
            }
            (CallKind::Write { .. }, Err(_)) => {
                self.order.ended(self.now, call.id);
                self.oracle.write_failed(self.now, sectors, call.id);
                self.lower_snapshots();
            }
            (_, Err(Failure::Headless(_))) if self.plan.follows => {}
            (kind, Err(failure)) => self.fail(format!("{kind:?} failed: {failure:?}")),
        }
    }

    /// Judges what a read got, apart from what rotted.
    fn judge_read(&mut self, call: &Call, data: &[Tag]) {
        let is_rot: Vec<bool> = (call.sectors.start..)
            .zip(data)
            .map(|(sector, tag)| self.is_rot(sector, *tag, call.called))
            .collect();
        let seen = self.oracle.read_answered(
            call.called,
            self.now,
            call.sectors.start,
            &call.snapshot,
            data,
            &is_rot,
        );
        if let Err(text) = seen {
            self.fail(text);
        }
    }

    /// Floors that came down hold for reads under way, too.
    fn lower_snapshots(&mut self) {
        let calls = self.clients.iter_mut().filter_map(|client| client.call.as_mut());
        for call in calls.filter(|call| call.kind == CallKind::Read) {
            let floors = self.oracle.read_called(call.sectors.clone());
            for (floor, now) in call.snapshot.iter_mut().zip(floors) {
                *floor = now.min(*floor);
            }
        }
    }

    /// Puts a read's pieces together.
    fn take_data(&mut self, host: usize, request: RequestId) -> Vec<Tag> {
        let reads = &mut self.hosts[host].reads;
        let pieces: Vec<_> =
            reads.range((request, 0)..=(request, usize::MAX)).map(|(place, _)| *place).collect();
        pieces.iter().filter_map(|place| reads.remove(place)).flat_map(|piece| piece.1).collect()
    }
}
