// SPDX-License-Identifier: Apache-2.0
//! One attached volume: the state machine drawn on the crate's front page.
//!
//! `requests` takes clients' wishes and orders them by range, `run` issues them to bricks, `done` takes answers,
//! `commit` writes records, `flush` flushes, `members` gives bricks up and takes them back, `attaching` recovers,
//! `barrier` resizes and detaches; `status` tells.

mod attaching;
mod barrier;
mod commit;
mod done;
mod flush;
mod members;
mod requests;
mod resync;
mod run;
mod state;
mod status;

#[cfg(test)]
mod volume_tests;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
};

use crate::{
    Action, BrickId, ClientOp, Descriptor, Event, Failure, Generation, IoId, NodeId, Notice,
    Protections, RequestId, Settings, ShardMap, Slot, SlotSet, Time, descriptor, intent::IntentLog,
    slab::Slab,
};
use state::{Barrier, Brick, Commit, Held, Io, IoKind, Link, Op, Phase, Role, Round};
pub use status::{BrickState, BrickStatus, Status, VolumeState};

/// What an attachment begins with.
#[derive(Clone, Debug)]
pub struct Attach {
    /// The volume's [`Descriptor`] exactly as the state has it.
    pub state: Arc<[u8]>,
    /// Its shard map.
    pub map: ShardMap,
    /// The operator's choices.
    pub settings: Settings,
    /// All, but in tests.
    pub protections: Protections,
    /// A number that no other attachment has; draw it at random.
    pub holder: u64,
    /// Names of nodes, for texts.
    pub node_names: BTreeMap<NodeId, String>,
}

/// Why an attachment is refused before anything is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AttachError {
    /// The state holds no descriptor.
    State(crate::DecodeError),
    /// The volume is being created or deleted.
    Phase(descriptor::Phase),
    /// The shard map names slots that the volume does not have.
    Map,
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(reason) => {
                write!(f, "the volume's state cannot be read ({reason}): rebuild it from the companions")
            }
            Self::Phase(phase) => {
                write!(f, "the volume is {phase:?}: its creation or deletion did not end; delete it")
            }
            Self::Map => f.write_str(
                "the shard map does not fit the volume: restore it from the companion of an in-sync brick",
            ),
        }
    }
}

impl std::error::Error for AttachError {}

/// One attached volume.
#[derive(Debug)]
pub struct Volume {
    settings: Settings,
    protections: Protections,
    node_names: BTreeMap<NodeId, String>,
    map: ShardMap,
    /// Membership as the next record will say it.
    descriptor: Descriptor,
    /// The last generation that all in-sync companions and the state had.
    settled: Generation,
    phase: Phase,
    now: Time,
    bricks: Vec<Brick>,
    ios: Slab<Io>,
    ops: Slab<Op>,
    actions: VecDeque<Action>,
    /// Ranges that mutations have for themselves.
    held: Vec<Held>,
    /// Operations that wait for a range, in order.
    waiting: VecDeque<u64>,
    /// Operations whose regions the commit under way, or the next one, will name.
    pending_intent: Vec<u64>,
    /// Operations for whose regions the log has no room.
    no_room: VecDeque<u64>,
    /// Operations that wait for the record of who missed them.
    settling: Vec<u64>,
    /// Writes that wait for `min_in_sync`.
    short: VecDeque<u64>,
    /// Requests that came while the volume was attaching, or behind a barrier.
    early: VecDeque<(RequestId, ClientOp)>,
    intent: IntentLog,
    commit: Option<Commit>,
    want_intent: bool,
    want_membership: bool,
    round: Option<Round>,
    flush_requests: Vec<RequestId>,
    barrier: Option<Barrier>,
    /// Members of the in-sync set in that generation.
    members: SlotSet,
    /// Creations whose end is unknown.
    creating: BTreeMap<BrickId, u32>,
    /// Bytes of the shard map in the companions.
    map_bytes: u32,
    /// Condemned bricks whose deletion is under way, or when to try again.
    deleting: BTreeMap<BrickId, Option<Time>>,
    /// Ranges that recovery still has to level, and the round of leveling.
    level: VecDeque<(u64, u64)>,
    level_round: u32,
    /// The regions that recovery levels.
    level_regions: Vec<u32>,
    /// Bricks that recovery found to be worth nothing.
    distrusted: SlotSet,
    /// The bytes of the claim, and when to try it again.
    claim: Option<(Arc<[u8]>, Option<Time>)>,
    /// What the state holds, as far as this attachment knows.
    stored: Arc<[u8]>,
    companions: Vec<(Slot, Result<crate::Record, crate::DecodeError>)>,
    /// Chooses between equally busy bricks.
    turn: u64,
    copies: u32,
}

impl Volume {
    /// Begins to attach a volume.
    ///
    /// # Errors
    /// When it is not in a state to be attached; nothing was done.
    pub fn attach(attach: Attach, now: Time) -> Result<Self, AttachError> {
        let Attach { state, map, settings, protections, holder, node_names } = attach;
        let descriptor = Descriptor::decode(&state).map_err(AttachError::State)?;
        if descriptor.phase != descriptor::Phase::Ready {
            return Err(AttachError::Phase(descriptor.phase));
        }
        let all: SlotSet = (0..descriptor.bricks.len()).map(|index| Slot(index as u8)).collect();
        let fits = |set: &SlotSet| !set.is_empty() && set.without(all).is_empty();
        if map.sets().is_empty() || !map.sets().iter().all(fits) {
            return Err(AttachError::Map);
        }
        let intent = IntentLog::new(settings.intent_regions, descriptor.region_size);
        let mut volume = Self {
            settings,
            protections,
            node_names,
            settled: descriptor.generation,
            phase: Phase::Claiming,
            now,
            bricks: Vec::new(),
            ios: Slab::new(),
            ops: Slab::new(),
            actions: VecDeque::new(),
            held: Vec::new(),
            waiting: VecDeque::new(),
            pending_intent: Vec::new(),
            no_room: VecDeque::new(),
            settling: Vec::new(),
            short: VecDeque::new(),
            early: VecDeque::new(),
            intent,
            commit: None,
            want_intent: false,
            want_membership: false,
            round: None,
            flush_requests: Vec::new(),
            barrier: None,
            members: descriptor.in_sync,
            creating: BTreeMap::new(),
            map_bytes: map.encode().len() as u32,
            deleting: BTreeMap::new(),
            level: VecDeque::new(),
            level_round: 0,
            level_regions: Vec::new(),
            distrusted: SlotSet::EMPTY,
            claim: None,
            stored: state,
            companions: Vec::new(),
            turn: 0,
            copies: 0,
            map,
            descriptor,
        };
        // The first key must not be zero: zero stands for "no operation".
        let unused = volume.ops.insert(Op::new(state::Kind::Read, None, 0, 0));
        volume.ops.remove(unused);
        volume.begin_claim(holder);
        Ok(volume)
    }

    /// Takes what happened. Then take every action that [`Volume::poll_action`] has.
    pub fn handle(&mut self, now: Time, event: Event) {
        if now < self.now {
            // The clock jumped back: no retry may wait for a time that is far off now.
            self.bricks.iter_mut().for_each(|brick| brick.retry_at = now);
            self.deleting.values_mut().flatten().for_each(|at| *at = now);
        }
        self.now = now;
        match event {
            Event::Request { request, op } => self.request(request, op),
            Event::Done { io, incarnation, outcome } => self.done(io, incarnation, outcome),
            Event::NodeUp(node) => self.node_up(node),
            Event::NodeDown(node) => self.node_down(node),
            Event::Tick => self.tick(),
        }
        self.pump();
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When the next [`Event::Tick`] is due; `None`: something else has to happen first.
    pub fn next_tick(&self) -> Option<Time> {
        let retries = self.bricks.iter().filter(|brick| self.wants_opening(brick));
        let retries = retries.map(|brick| brick.retry_at);
        // While a record is being written nothing leaves the log.
        let idle = self
            .intent
            .idle_since()
            .filter(|_| self.phase == Phase::Serving && self.commit.is_none());
        let idle = idle.map(|touched| touched.after(self.settings.intent_idle_ns));
        let commit = self.commit.as_ref().and_then(|commit| commit.retry_at);
        let claim = self.claim.as_ref().and_then(|claim| claim.1);
        let deleting = self.deleting.values().filter_map(|at| *at);
        if matches!(self.phase, Phase::Stopped(_) | Phase::Fenced | Phase::Detached) {
            return None;
        }
        retries.chain(deleting).chain(idle).chain(commit).chain(claim).min()
    }

    fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.bricks.len() as u8).map(Slot)
    }

    fn brick(&mut self, slot: Slot) -> &mut Brick {
        &mut self.bricks[slot.index()]
    }

    fn with_role(&self, role: Role) -> SlotSet {
        self.slots().filter(|slot| self.bricks[slot.index()].role == role).collect()
    }

    /// Bricks that writes must reach.
    fn counting(&self) -> SlotSet {
        self.slots().filter(|slot| self.bricks[slot.index()].counts()).collect()
    }

    fn io(&mut self, kind: IoKind, slot: Slot, op: u64, offset: u64, len: u64) -> IoId {
        let brick = &self.bricks[slot.index()];
        let (brick, opening, incarnation) = (brick.id, brick.opening, brick.incarnation);
        let abandoned = false;
        IoId(self.ios.insert(Io {
            kind,
            op,
            slot,
            brick,
            opening,
            incarnation,
            offset,
            len,
            abandoned,
        }))
    }

    fn reply(&mut self, request: RequestId, result: Result<(), Failure>) {
        self.actions.push_back(Action::Reply { request, result });
    }

    fn report(&mut self, notice: Notice) {
        self.actions.push_back(Action::Report(notice));
    }

    /// Does whatever has become possible.
    fn pump(&mut self) {
        if self.phase == Phase::Serving {
            // Nearly always there is nothing to heal, and this is done at each event.
            if self.bricks.iter().any(|brick| brick.role != Role::InSync) {
                self.open_bricks();
                self.pump_resync();
            }
            self.pump_flush();
            self.pump_barrier();
        }
        self.pump_commit();
    }

    fn tick(&mut self) {
        self.retry_claim();
        self.retry_state();
        if self.phase == Phase::Serving {
            self.delete_condemned();
            self.trim_intent();
        }
    }

    /// Ends the attachment: everything is answered with the reason, and nothing more is issued.
    fn stop(&mut self, phase: Phase) {
        let failure = match &phase {
            Phase::Stopped(reason) => {
                self.actions.retain(|a| matches!(a, Action::Reply { .. } | Action::Report(_)));
                self.report(Notice::Stopped(Arc::clone(reason)));
                Failure::Stopped(Arc::clone(reason))
            }
            _ => {
                self.actions.retain(|a| matches!(a, Action::Reply { .. } | Action::Report(_)));
                Failure::Fenced
            }
        };
        self.phase = phase;
        let mut requests: Vec<RequestId> =
            self.ops.iter().filter_map(|(_, op)| op.request).collect();
        requests.extend(self.round.take().into_iter().flat_map(|round| round.requests));
        requests.append(&mut self.flush_requests);
        requests.extend(self.early.drain(..).map(|(request, _)| request));
        requests.extend(self.barrier.take().map(|barrier| barrier.request));
        for request in requests {
            self.reply(request, Err(failure.clone()));
        }
        self.ops = Slab::new();
        self.held.clear();
        self.waiting.clear();
        self.pending_intent.clear();
        self.no_room.clear();
        self.settling.clear();
        self.short.clear();
        self.level.clear();
        self.commit = None;
        self.claim = None;
        self.want_intent = false;
        self.want_membership = false;
    }

    fn node_name(&self, node: NodeId) -> String {
        self.node_names.get(&node).cloned().unwrap_or_else(|| node.to_string())
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Stopped(_) | Phase::Fenced | Phase::Detached)
    }

    fn wants_opening(&self, brick: &Brick) -> bool {
        self.phase == Phase::Serving
            && brick.role == Role::Stale
            && brick.link == Link::Closed
            && !brick.unrecorded
    }
}
