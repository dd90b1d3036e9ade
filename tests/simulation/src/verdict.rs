// SPDX-License-Identifier: Apache-2.0
//! Runs a seed: faults, then peace, then the question whether everything is as it must be.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use distributed_core::{BrickId, NodeId, Protections, Slot};

use crate::{
    clients::CallKind,
    deeds::Deeds,
    matrix::Matrix,
    operator::is_rotten,
    plan::Era,
    world::{MS, Next, US, World},
};

/// How long peace may take to heal everything.
const PATIENCE: u64 = 4_000 * MS;

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// What was wrong, if anything.
    pub violation: Option<String>,
    /// Of all that happened, in order.
    pub hash: u64,
    /// Things that happened.
    pub events: u64,
    /// Faults by replica state.
    pub matrix: Matrix,
    /// What operators did.
    pub deeds: Deeds,
    /// What happened, if asked for.
    pub trace: Vec<String>,
}

/// Runs one seed.
pub fn run(seed: u64, protections: Protections, era: Era, trace: bool) -> Verdict {
    let mut world = World::new(seed, protections, era, trace);
    world.live(seed);
    Verdict {
        seed,
        violation: world.violation,
        hash: world.hash,
        events: world.handled,
        matrix: world.matrix,
        deeds: world.deeds,
        trace: world.trace.unwrap_or_default(),
    }
}

impl World {
    fn live(&mut self, seed: u64) {
        while self.now < self.chaos_until {
            if !self.step() {
                return;
            }
        }
        self.make_peace();
        // A backend that restarted unnoticed is noticed by the flush, and resynced.
        if !self.heal("after the faults") || !self.flush() || !self.heal("after a flush") {
            return;
        }
        if !self.scrub() || !self.flush() || !self.heal("after repairs") {
            return;
        }
        self.read_everything();
        self.compare_replicas();
        if self.violation.is_some() {
            return;
        }
        if self.plan.scrubs && !self.scrub_in_peace() {
            return;
        }
        // After a detachment in order nothing is leveled or copied, and nothing may be missing.
        if self.rng.bool() {
            if !self.ask_in_peace(CallKind::Detach, 0..0) || !self.heal("after a detachment") {
                return;
            }
            self.read_everything();
            self.compare_replicas();
        }
        if !self.roll_back_in_peace(seed) {
            return;
        }
        // What was flushed must outlive everybody's crash.
        self.crash_host(self.current);
        for node in 0..self.nodes.len() {
            self.nodes[node].crash(&mut self.rng);
        }
        self.after(MS, Next::Orchestrate);
        if self.heal("after the last crash") && self.flush() && self.heal("after the last flush") {
            self.read_everything();
            self.compare_replicas();
        }
    }

    fn make_peace(&mut self) {
        self.note(|| "peace".to_owned());
        self.chaos = false;
        self.after(MS, Next::Orchestrate);
        for node in 0..self.nodes.len() {
            self.nodes[node].paused_until = 0;
            self.revive(node);
            self.relieve(node);
        }
        for host in 0..self.hosts.len() {
            self.hosts[host].paused_until = 0;
            if host != self.current {
                self.end_instance(host);
            }
        }
        self.acquit();
    }

    /// Waits until all replicas are in sync, nobody waits, and no fault shows its effect only now.
    pub fn heal(&mut self, when: &str) -> bool {
        let limit = self.now + PATIENCE;
        while !self.is_whole() || self.has_old_trouble() {
            if !self.step() || self.now > limit {
                let status = self.hosts[self.current].volume.as_ref().map(|v| v.status());
                let waiting = self.clients.iter().filter(|client| client.call.is_some()).count();
                self.fail(format!("stuck {when}: {waiting} clients wait, {status:?}"));
                return false;
            }
        }
        true
    }

    fn is_whole(&self) -> bool {
        let Some(volume) = &self.hosts[self.current].volume else { return false };
        let busy = self.clients.iter().any(|client| client.call.is_some());
        volume.is_serving() && !busy && volume.is_whole()
    }

    fn flush(&mut self) -> bool {
        self.ask_in_peace(CallKind::Flush, 0..0)
    }

    pub fn read_everything(&mut self) {
        let size = self.sectors_at(self.current);
        for first in (0..size).step_by(16) {
            let sectors = first..size.min(first + 16);
            if self.violation.is_some() || !self.ask_in_peace(CallKind::Read, sectors) {
                return;
            }
        }
    }

    /// Asks, and waits for the answer.
    pub fn ask_in_peace(&mut self, kind: CallKind, sectors: Range<usize>) -> bool {
        self.clients[0].host = self.current;
        self.ask(0, kind, sectors, false);
        let limit = self.now + 200 * MS;
        while self.clients[0].call.is_some() {
            if !self.step() || self.now > limit {
                self.fail(format!("a {kind:?} in peace was not answered"));
                return false;
            }
        }
        true
    }

    /// All in-sync replicas hold the same, nothing foreign, and no brick is left that nobody knows.
    pub fn compare_replicas(&mut self) {
        self.audit("in the end");
        let Some(volume) = &self.hosts[self.current].volume else { return };
        let status = volume.status();
        let bricks: BTreeMap<Slot, (BrickId, NodeId)> =
            status.bricks.iter().map(|brick| (brick.slot, (brick.brick, brick.node))).collect();
        let mut complaints = Vec::new();
        for sector in 0..self.sectors_at(self.current) {
            let set = self.set_of(sector);
            let held = |slot: Slot| {
                let (brick, node) = bricks.get(&slot)?;
                self.nodes[node.0 as usize].bricks.get(brick)?.memory.get(sector).copied()
            };
            let beside = bricks.keys().copied().filter(|slot| !set.has(*slot));
            let littered =
                beside.filter(|slot| held(*slot).is_some_and(|tag| tag != 0 && !is_rotten(tag)));
            for slot in littered {
                complaints.push(format!("{slot:?} holds {:?} in sector {sector}", held(slot)));
            }
            let values: Vec<_> = set.iter().map(held).collect();
            let Some(Some(first)) = values.first() else {
                complaints.push(format!("sector {sector} is on no brick"));
                continue;
            };
            if values.iter().any(|value| value != &Some(*first)) {
                complaints.push(format!("replicas of sector {sector} differ: {values:?}"));
            }
            if !self.is_rot(sector, *first, self.now) && !self.oracle.may_hold(sector, *first) {
                complaints.push(format!("sector {sector} holds {first}, which it may not"));
            }
        }
        let known: BTreeSet<(BrickId, NodeId)> =
            bricks.into_values().chain(status.condemned).chain(status.keepers).collect();
        for (index, node) in self.nodes.iter().enumerate() {
            for brick in node.bricks.keys() {
                if !known.contains(&(*brick, NodeId(index as u32))) {
                    complaints.push(format!("brick {brick} on node {index} is an orphan"));
                }
            }
        }
        if let Some(complaint) = complaints.into_iter().next() {
            self.fail(complaint);
        }
        self.compare_snapshots(true);
        self.check_digests(self.current);
    }

    /// Sees to it that somebody has the volume.
    pub fn orchestrate(&mut self) {
        if self.chaos || self.plan.follows {
            self.plan_orchestration();
        }
        if self.hosts[self.current].volume.is_some() {
            return self.look_after_head();
        }
        if self.stored.is_lost() && !self.rebuild() {
            if !self.chaos {
                self.after(MS, Next::Orchestrate);
            }
            return;
        }
        let host = self.rng.usize(0..self.hosts.len());
        if self.hosts[host].volume.is_some() {
            self.end_instance(host);
        }
        if self.hosts[host].paused_until <= self.now {
            self.attach(host);
        } else if !self.chaos {
            self.after(MS, Next::Orchestrate);
        }
    }

    /// One look after the volume follows the other.
    fn plan_orchestration(&mut self) {
        if !self.plan.follows || self.next_look <= self.now {
            self.next_look = self.now + 2 * MS;
            self.after(2 * MS, Next::Orchestrate);
        }
    }

    /// A host's attachment is over: it died, stopped, or lost the volume.
    pub fn end_instance(&mut self, host: usize) {
        self.note_heads(host);
        let entry = &mut self.hosts[host];
        if entry.volume.take().is_none() {
            return;
        }
        if !entry.has_served {
            self.failed_attaches += 1;
        }
        let entry = &mut self.hosts[host];
        entry.instance += 1;
        entry.serving = false;
        entry.tick_at = u64::MAX;
        self.arranging.retain(|_, asked| *asked != host);
        self.wishing.retain(|_, asked| *asked != host);
        self.snapping.retain(|_, (asked, _)| *asked != host);
        for client in 0..self.clients.len() {
            let calls_it = self.clients[client].call.as_ref().is_some_and(|call| call.host == host);
            if calls_it && let Some(call) = self.clients[client].call.take() {
                self.calls.remove(&call.request);
                self.order.ended(self.now, call.id);
                self.after(MS, Next::Client(client));
            }
        }
        // While there are faults, somebody looks after it anyway.
        if host == self.current && !self.chaos {
            let delay = self.rng.u64(500 * US..6 * MS);
            self.after(delay, Next::Orchestrate);
        }
    }

    /// What was called before a crash, and is answered after it, is judged by what is true after it.
    fn renew_snapshots(&mut self, host: usize) {
        for client in &mut self.clients {
            let Some(call) = client.call.as_mut().filter(|call| call.host == host) else {
                continue;
            };
            match call.kind {
                CallKind::Read => {
                    call.snapshot = self.oracle.read_called(call.sectors.clone());
                    call.called = self.now;
                }
                CallKind::Flush => call.snapshot = self.oracle.flush_called(),
                _ => {}
            }
        }
    }

    /// A volume serves for the first time: what was not flushed may be old now.
    pub fn began_to_serve(&mut self, host: usize) {
        self.note(|| format!("host {host} serves"));
        self.failed_attaches = 0;
        self.hosts[host].has_served = true;
        if self.hosts[host].epoch > 1 && !self.clean {
            // One that learns late that it may serve has lost the volume already: others write by now.
            if self.hosts[host].epoch == self.stored.epoch {
                self.oracle.attachment_ended(self.now);
            }
            self.oracle.crashed();
            self.renew_snapshots(host);
        }
        if self.hosts[host].epoch == self.stored.epoch {
            self.settle_size(host);
            self.check_digests(host);
        }
        // Also if another host has asked for the volume since: what it acknowledges until that one serves, counts.
        if self.plan.follows && self.hosts[host].epoch > self.begun {
            self.epoch_begins(host);
        }
    }
}
