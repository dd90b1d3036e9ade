// SPDX-License-Identifier: Apache-2.0
//! What goes wrong: on the network, on nodes, in the state store, with hosts and their clocks.

use distributed_core::{BrickId, BrickState};

use crate::{
    matrix::Fault,
    network::Message,
    storage::Request,
    world::{MS, Next, US, World},
};

/// Faults of one node.
const NODE_FAULTS: [Fault; 8] = [
    Fault::Kill,
    Fault::Restart,
    Fault::Pause,
    Fault::Partition,
    Fault::Slow,
    Fault::Full,
    Fault::FailData,
    Fault::RefuseFlush,
];

impl World {
    pub fn count(&mut self, fault: Fault, brick: BrickId) {
        if let Some(state) = self.brick_state(brick) {
            self.matrix.count(fault, state);
        }
        self.note(|| format!("fault {fault:?} at {brick}"));
    }

    /// Counts a fault that every replica of the volume meets.
    pub fn count_for_all(&mut self, fault: Fault) {
        let Some(volume) = &self.hosts[self.current].volume else { return };
        for brick in volume.status().bricks {
            self.matrix.count(fault, brick.state);
        }
        self.note(|| format!("fault {fault:?}"));
    }

    /// Counts a fault of a node, for its replica.
    fn count_at(&mut self, fault: Fault, node: usize) {
        let Some(volume) = &self.hosts[self.current].volume else { return };
        for brick in volume.status().bricks.iter().filter(|b| b.node.0 as usize == node) {
            self.matrix.count(fault, brick.state);
        }
        self.note(|| format!("fault {fault:?} at node {node}"));
    }

    /// A message has come to its node; or something happens to it.
    pub fn arrive(&mut self, message: Message) {
        let node = message.node;
        if self.nodes[node].paused_until > self.now {
            let delay = self.nodes[node].paused_until - self.now + self.rng.u64(0..300 * US);
            return self.after(delay, Next::Arrive(message));
        }
        let is_cut = self.hosts[message.sender.host].unreachable & (1 << node) != 0;
        if is_cut && !message.is_late {
            return;
        }
        let host = &self.hosts[message.sender.host];
        let is_orphaned =
            host.instance != message.sender.instance || host.epoch != self.stored.epoch;
        if is_orphaned && matches!(message.request, Request::Create { .. }) {
            // Of a host that died or lost the volume. Drivers sweep what it leaves; here it does not happen.
            return;
        }
        if !self.nodes[node].is_up {
            if self.rng.bool() && !message.is_echo {
                self.refuse(message);
            }
            return;
        }
        let may_fail = self.chaos && !message.is_late && !message.is_echo;
        if let Some(fault) = may_fail.then(|| self.network_fault(&message)).flatten() {
            return self.hit(message, fault);
        }
        if message.is_late {
            self.count(Fault::Late, message.brick);
        }
        if message.request.writes() && self.rng.u32(0..8) == 0 {
            // Not at once: others may read in between.
            if self.nodes[node].admits(message.brick, message.session, &message.request).is_ok()
                && !self.nodes[node].is_full
            {
                self.nodes[node].tear(message.brick, &message.request, &mut self.rng);
            }
            let incarnation = self.nodes[node].incarnation;
            let delay = self.rng.u64(10 * US..300 * US);
            return self.after(delay, Next::Finish(message, incarnation));
        }
        self.execute(message);
    }

    fn hit(&mut self, mut message: Message, fault: Fault) {
        message.is_late = true;
        match fault {
            Fault::Lost => self.count(fault, message.brick),
            Fault::Late => {
                let delay = self.rng.u64(2 * MS..60 * MS);
                self.after(delay, Next::Arrive(message));
            }
            Fault::Torn => self.tear(message),
            Fault::Duplicated => {
                self.count(fault, message.brick);
                let echo = Message { is_echo: true, ..message.clone() };
                self.execute(echo);
                let delay = self.rng.u64(10 * US..2 * MS);
                self.after(delay, Next::Arrive(message));
            }
            _ => {
                self.count(fault, message.brick);
                let delay = self.rng.u64(200 * US..3 * MS);
                self.after(delay, Next::Arrive(message));
            }
        }
    }

    /// What the network does to a message, if anything. Where replicas pass quickly, few messages meet them, so more of
    /// those are hit.
    fn network_fault(&mut self, message: &Message) -> Option<Fault> {
        let usual = self.plan.network_permille;
        let state = self.brick_state(message.brick);
        let permille = match state {
            Some(BrickState::Failing) => 1000,
            Some(BrickState::Joining) => 250,
            Some(BrickState::Resyncing) => 6 * usual + 30,
            Some(BrickState::Stale) => 6 * usual + 20,
            _ => usual,
        };
        if self.rng.u32(0..1000) >= permille {
            return None;
        }
        let most = match state {
            Some(BrickState::Failing) if message.request.writes() => 16,
            _ if message.request.writes() => 14,
            _ => 9,
        };
        Some(match self.rng.u32(0..most) {
            0..3 => Fault::Lost,
            3..6 => Fault::Duplicated,
            // Those that are overtaken come late, too.
            6 if state != Some(BrickState::Failing) => Fault::Late,
            6..9 => Fault::Reordered,
            _ => Fault::Torn,
        })
    }

    fn refuse(&mut self, message: Message) {
        let Message { sender, node, .. } = message;
        let incarnation = self.nodes[node].incarnation;
        let answer = (distributed_core::Outcome::Failed, Vec::new());
        self.after(100 * US, Next::Answer { sender, node, incarnation, answer });
    }

    /// The node dies in the middle of a write.
    fn tear(&mut self, message: Message) {
        let node = message.node;
        if self.nodes[node].admits(message.brick, message.session, &message.request).is_ok() {
            self.count(Fault::Torn, message.brick);
            self.nodes[node].tear(message.brick, &message.request, &mut self.rng);
        }
        self.kill(node);
    }

    pub fn kill(&mut self, node: usize) {
        if !self.nodes[node].is_up {
            return;
        }
        self.count_at(Fault::Kill, node);
        self.nodes[node].crash(&mut self.rng);
        self.nodes[node].is_up = false;
        self.audit("as a node dies");
        self.tell_health(node, false);
        let delay = self.rng.u64(MS..25 * MS);
        self.after(delay, Next::Revive(node));
    }

    fn tell_health(&mut self, node: usize, is_up: bool) {
        for host in 0..self.hosts.len() {
            if self.rng.u32(0..3) == 0 {
                let delay = self.rng.u64(100 * US..3 * MS);
                self.after(delay, Next::Health { host, node, is_up });
            }
        }
    }

    pub fn revive(&mut self, node: usize) {
        self.nodes[node].is_up = true;
        self.note(|| format!("node {node} is back"));
        self.tell_health(node, true);
    }

    /// A node's faults that last are over.
    pub fn relieve(&mut self, node: usize) {
        let entry = &mut self.nodes[node];
        entry.is_full = false;
        entry.fails = false;
        entry.refuses_flush = false;
        entry.slowness = 1;
        for host in &mut self.hosts {
            host.unreachable &= !(1 << node);
        }
        self.note(|| format!("node {node} is well"));
        self.tell_health(node, true);
    }

    /// Something goes wrong, and something else will.
    pub fn throw_fault(&mut self) {
        if !self.chaos {
            return;
        }
        if self.plan.rots && self.rng.u32(0..8) == 0 {
            self.rot();
        }
        if self.plan.judges && self.rng.u32(0..3) == 0 {
            self.judge();
        }
        if self.plan.beheads && self.rng.u32(0..3) == 0 {
            self.behead();
        }
        let mean = self.plan.fault_every_us * US;
        let delay = self.rng.u64(mean / 4..mean * 2);
        self.after(delay, Next::Fault);
        match self.rng.u32(0..100) {
            0..70 => {
                let node = self.rng.usize(0..self.nodes.len());
                let fault = NODE_FAULTS[self.rng.usize(0..NODE_FAULTS.len())];
                self.afflict(node, fault);
            }
            70..76 => {
                // The power of everything goes at once.
                for node in 0..self.nodes.len() {
                    self.kill(node);
                }
                if self.rng.bool() {
                    self.crash_host(self.current);
                }
            }
            76..84 => {
                let host = self.rng.usize(0..self.hosts.len());
                self.crash_host(host);
            }
            84..90 => self.take_over(),
            90..95 => self.jump_clock(),
            95..97 if self.plan.forgets => {
                self.forget();
                if self.rng.bool() {
                    self.crash_host(self.current);
                }
            }
            _ => {
                let host = self.rng.usize(0..self.hosts.len());
                self.hosts[host].paused_until = self.now + self.rng.u64(MS..30 * MS);
                self.note(|| format!("host {host} freezes"));
            }
        }
    }

    pub fn afflict(&mut self, node: usize, fault: Fault) {
        if !self.nodes[node].is_up {
            return;
        }
        match fault {
            Fault::Kill => return self.kill(node),
            Fault::Restart => {
                self.nodes[node].crash(&mut self.rng);
                self.audit("as a node restarts");
            }
            Fault::Pause => {
                self.nodes[node].paused_until = self.now + self.rng.u64(MS..40 * MS);
                if self.rng.u32(0..4) == 0 {
                    self.tell_health(node, false);
                }
            }
            Fault::Partition => {
                let hosts = self.rng.u32(1..1 << self.hosts.len());
                for (index, host) in self.hosts.iter_mut().enumerate() {
                    if hosts >> index & 1 == 1 {
                        host.unreachable |= 1 << node;
                    }
                }
            }
            Fault::Slow => self.nodes[node].slowness = self.rng.u64(5..60),
            Fault::Full => self.nodes[node].is_full = true,
            Fault::FailData => self.nodes[node].fails = true,
            _ => self.nodes[node].refuses_flush = true,
        }
        self.count_at(fault, node);
        let delay = self.rng.u64(MS..25 * MS);
        self.after(delay, Next::Relieve(node));
    }

    pub fn crash_host(&mut self, host: usize) {
        if self.hosts[host].volume.is_none() {
            return;
        }
        if host == self.current {
            self.count_for_all(Fault::HostCrash);
        }
        self.audit("as a host dies");
        self.note(|| format!("host {host} dies"));
        self.compare_snapshots(false);
        self.end_instance(host);
    }

    fn take_over(&mut self) {
        let host = self.rng.usize(0..self.hosts.len());
        let can_attach = self.hosts[host].paused_until <= self.now && !self.stored.is_lost();
        if host != self.current && can_attach {
            self.count_for_all(Fault::TakeOver);
            self.end_instance(host);
            self.attach(host);
        }
    }

    fn jump_clock(&mut self) {
        self.count_for_all(Fault::ClockJump);
        let host = self.current;
        let clock = self.rng.u64(0..3_000 * MS);
        self.hosts[host].clock = clock;
        self.note(|| format!("the clock of host {host} jumps to {clock}"));
    }

    /// Waits for the moments between a brick's last flush and its being in sync: what a full node makes of a write then
    /// is the hardest to get right.
    fn lurk(&mut self, host: usize) {
        let Some(volume) = &self.hosts[host].volume else { return };
        let (about_to, passing) = (volume.brick_about_to_join(), volume.brick_in_transition());
        if let Some(joining) = about_to
            && self.rng.u32(0..8) == 0
        {
            // A write will be taken back from the brick that is about to join, because another one is full.
            for node in (0..self.nodes.len()).filter(|node| *node != joining.0 as usize) {
                self.afflict(node, Fault::Full);
            }
            self.may_end_soon();
        } else if let Some((node, BrickState::Joining)) = passing
            && self.rng.u32(0..8) == 0
        {
            self.afflict(node.0 as usize, Fault::Full);
        }
    }

    /// A full node took a part of a write, or nothing. If its brick is joining, it forgets that part after a while.
    pub fn lurk_at_full(&mut self, brick: BrickId, node: usize) {
        if self.chaos && self.brick_state(brick) == Some(BrickState::Joining) {
            // When the others have what it took, and it is still joining.
            let delay = self.rng.u64(400 * US..4 * MS);
            self.after(delay, Next::Restart(node));
            self.may_end_soon();
        }
    }

    /// More faults would heal what has just gone wrong, if it has.
    fn may_end_soon(&mut self) {
        if self.rng.bool() {
            let end = self.now + self.rng.u64(4 * MS..12 * MS);
            self.chaos_until = self.chaos_until.min(end);
        }
    }

    /// States that pass quickly would hardly ever meet a fault by chance.
    pub fn tempt_rare_states(&mut self, host: usize) {
        if !self.chaos || host != self.current {
            return;
        }
        if self.plan.lurks {
            self.lurk(host);
        }
        let Some(volume) = &self.hosts[host].volume else { return };
        let node = match volume.brick_in_transition() {
            Some((node, _)) if self.rng.u32(0..9) == 0 => node.0 as usize,
            None if self.rng.u32(0..150) == 0 => {
                let bricks = volume.status().bricks;
                let resyncing = bricks.iter().find(|b| b.state == BrickState::Resyncing);
                let Some(brick) = resyncing else { return };
                brick.node.0 as usize
            }
            _ => return,
        };
        match self.rng.u32(0..12) {
            index @ 0..8 => self.afflict(node, NODE_FAULTS[index as usize]),
            8 => self.jump_clock(),
            9 => self.crash_host(host),
            10 => self.take_over(),
            _ => {}
        }
    }
}
