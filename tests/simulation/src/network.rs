// SPDX-License-Identifier: Apache-2.0
//! The network between hosts and nodes: requests on their way, answers on their way back, and who waits for them.

use distributed_core::{BrickId, Event, IoId, Outcome, RequestId, Session, Slot, SlotSet};

use crate::{
    storage::{Answer, Request, Tag},
    world::{MS, Next, US, World},
};

/// How long a driver waits for an answer.
pub const TIMEOUT: u64 = 12 * MS;

/// Who sent a message, and waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    pub host: usize,
    pub instance: u32,
    pub io: IoId,
    /// Which of several messages of one action.
    pub part: usize,
}

/// A request on its way to a node.
#[derive(Clone, Debug)]
pub struct Message {
    pub sender: Sender,
    pub node: usize,
    pub brick: BrickId,
    pub session: Session,
    pub request: Request,
    /// Its second copy on the network: carried out, but not answered.
    pub is_echo: bool,
    /// Faults were thrown already.
    pub is_late: bool,
}

/// Where a copy goes, and what its source must be.
#[derive(Clone, Copy, Debug)]
pub struct CopyTarget {
    pub brick: BrickId,
    /// Its node and session when the copy began: one that was given up since is not written to in a newer session.
    pub session: (usize, Session),
    pub sector: usize,
    pub source_incarnation: Option<u64>,
}

/// Replicas that are compared.
#[derive(Clone, Debug)]
pub struct Comparison {
    slots: Vec<Slot>,
    /// What each of them holds, as far as known.
    data: Vec<Option<Vec<Tag>>>,
    /// One of them could not be read.
    failed: bool,
}

impl Comparison {
    /// What is to be told, once every replica has answered.
    fn outcome(&self) -> Option<Outcome> {
        if self.failed {
            return Some(Outcome::Failed);
        }
        let first = self.data.first()?.as_ref()?;
        let mut differing = SlotSet::EMPTY;
        for (slot, data) in self.slots.iter().zip(&self.data) {
            if data.as_ref()? != first {
                differing.insert(*slot);
            }
        }
        Some(if differing.is_empty() { Outcome::Ok } else { Outcome::Differs(differing) })
    }
}

/// What a host waits for.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    /// Replicas that are being read to be compared.
    pub comparison: Option<Comparison>,
    /// A copy that is still reading: where it goes then.
    pub copy: Option<CopyTarget>,
    /// A read's request and place.
    pub read: Option<(RequestId, usize)>,
    pub timed_out: bool,
    /// Only the digest of what is read matters.
    pub is_digest: bool,
}

impl World {
    /// Sends a request about a brick, and waits for the answer.
    pub fn send(
        &mut self,
        host: usize,
        io: IoId,
        brick: BrickId,
        request: Request,
        pending: Pending,
    ) {
        let instance = self.hosts[host].instance;
        self.hosts[host].pending.insert(io, pending);
        self.after(TIMEOUT, Next::Timeout { host, instance, io });
        self.transmit(Sender { host, instance, io, part: 0 }, brick, request);
    }

    /// Reads a range of several bricks.
    pub fn compare(&mut self, host: usize, io: IoId, bricks: &[(Slot, BrickId)], ask: &Request) {
        let instance = self.hosts[host].instance;
        let slots = bricks.iter().map(|(slot, _)| *slot).collect();
        let comparison = Comparison { slots, data: vec![None; bricks.len()], failed: false };
        let pending = Pending { comparison: Some(comparison), ..Pending::default() };
        self.hosts[host].pending.insert(io, pending);
        self.after(TIMEOUT, Next::Timeout { host, instance, io });
        for (part, (_, brick)) in bricks.iter().enumerate() {
            self.transmit(Sender { host, instance, io, part }, *brick, ask.clone());
        }
    }

    pub fn latency(&mut self, node: usize) -> u64 {
        self.rng.u64(40 * US..250 * US) * self.nodes[node].slowness
    }

    /// Puts a message on the network.
    fn transmit(&mut self, sender: Sender, brick: BrickId, request: Request) {
        let Some((node, session)) = self.hosts[sender.host].sessions.get(&brick).copied() else {
            let host = sender.host;
            return self.fail(format!("host {host} uses brick {brick} that it did not open"));
        };
        self.transmit_in((node, session), sender, brick, request);
    }

    pub fn transmit_in(
        &mut self,
        (node, session): (usize, Session),
        sender: Sender,
        brick: BrickId,
        request: Request,
    ) {
        let delay = self.latency(node);
        let (is_echo, is_late) = (false, false);
        let message = Message { sender, node, brick, session, request, is_echo, is_late };
        self.after(delay, Next::Arrive(message));
    }

    /// Carries a request out on its node, and sends the answer.
    pub fn execute(&mut self, message: Message) {
        let Message { sender, node, brick, session, request, is_echo, .. } = message;
        let rng = &mut self.rng;
        let answer = self.nodes[node].execute(brick, session, &request, rng);
        let incarnation = self.nodes[node].incarnation;
        if self.plan.lurks && answer.0 == Outcome::NoSpace {
            self.lurk_at_full(brick, node);
        }
        if self.trace.is_some() {
            let Sender { host, io, .. } = sender;
            let text =
                format!("node {node} {brick} {request:?} of host {host} {io:?}: {:?}", answer.0);
            self.note(|| text.chars().take(200).collect());
        }
        if !is_echo {
            let delay = self.latency(node);
            self.after(delay, Next::Answer { sender, node, incarnation, answer });
        }
    }

    /// An answer has come back to a host's driver.
    pub fn answered(&mut self, sender: Sender, incarnation: u64, answer: Answer) {
        let Sender { host, instance, io, part } = sender;
        let entry = &mut self.hosts[host];
        if entry.instance != instance {
            return;
        }
        let (mut outcome, data) = answer;
        let mut digested = None;
        if let Some(pending) = entry.pending.get_mut(&io) {
            if let Some(target) = pending.copy.take() {
                if pending.timed_out {
                    entry.pending.remove(&io);
                    return;
                }
                return self.source_read(sender, target, incarnation, outcome, data);
            }
            if let Some(comparison) = &mut pending.comparison {
                comparison.failed |= outcome != Outcome::Ok;
                comparison.data[part] = Some(data);
                let Some(verdict) = comparison.outcome() else { return };
                outcome = verdict;
            } else {
                if pending.is_digest {
                    digested = Some(data.clone());
                }
                if let Some(place) = pending.read
                    && let Some(buffer) = entry.reads.get_mut(&place)
                    && buffer.0 == io
                {
                    buffer.1 = data;
                }
            }
            entry.pending.remove(&io);
        }
        if let Some(data) = digested.filter(|_| outcome == Outcome::Ok) {
            outcome = Outcome::Digest(self.digest_of(data));
        }
        self.deliver(host, instance, Event::Done { io, incarnation, outcome });
    }

    /// The source of a copy was read: the target gets it.
    fn source_read(
        &mut self,
        sender: Sender,
        target: CopyTarget,
        incarnation: u64,
        outcome: Outcome,
        data: Vec<Tag>,
    ) {
        let Sender { host, instance, io, .. } = sender;
        let is_other = target.source_incarnation.is_some_and(|one| one != incarnation);
        if outcome != Outcome::Ok || is_other {
            self.hosts[host].pending.remove(&io);
            let outcome = Outcome::SourceFailed;
            return self.deliver(host, instance, Event::Done { io, incarnation, outcome });
        }
        self.note_spread(&data);
        let request = Request::Write { sector: target.sector, data, durable: false };
        self.transmit_in(target.session, sender, target.brick, request);
    }

    /// A driver waits no longer.
    pub fn timed_out(&mut self, host: usize, instance: u32, io: IoId) {
        let entry = &mut self.hosts[host];
        if entry.instance != instance {
            return;
        }
        let Some(pending) = entry.pending.get_mut(&io) else { return };
        pending.timed_out = true;
        // A source that does not answer has written nothing to the target.
        let outcome = if pending.copy.is_some() { Outcome::SourceFailed } else { Outcome::Unknown };
        self.deliver(host, instance, Event::Done { io, incarnation: 1, outcome });
    }
}
