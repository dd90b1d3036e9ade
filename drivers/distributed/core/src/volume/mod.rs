// SPDX-License-Identifier: Apache-2.0
//! One attached volume: the state machine drawn on the crate's front page.
//!
//! `requests` takes clients' wishes and orders them by range, `run` issues them to bricks, `done` takes answers,
//! `commit` writes records, `flush` flushes, `members` gives bricks up and takes them back, `attaching` recovers,
//! `barrier` resizes and detaches, `scrub` looks for damage and mends it, `doubt` compares what is read, `moves` gives
//! shards other replicas, with `ahead` for where they lead, `slots` for these replicas and `litter` for what is left behind,
//! `snapshots` takes them, `keepers` and `replay` keep those of bricks that go; `maps` stores the shard map, `reshard` in
//! shards of another size; `healing` holds healing back; `status` tells.
//!
//! Of asynchronous mode: `log` has the order of mutations, `followers` get it in `batches` and within a `bound`, `views`
//! serve reads from them, `head` goes on when the acknowledging brick is gone, `inherit` when the host is gone with it,
//! `configure` changes the mode.

mod ahead;
mod attaching;
mod barrier;
mod batches;
mod bound;
mod commit;
mod configure;
mod done;
mod doubt;
mod flush;
mod followers;
mod head;
mod healing;
mod inherit;
mod keepers;
mod litter;
mod log;
mod maps;
mod members;
mod moves;
mod replay;
mod requests;
mod reshard;
mod resync;
mod run;
mod scrub;
mod slots;
mod snapshots;
mod state;
mod status;
mod views;

#[cfg(test)]
mod volume_tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
};

use crate::{
    Action, BrickId, ClientOp, Descriptor, Event, Failure, Generation, IoId, NodeId, Notice,
    Protections, RequestId, Settings, ShardMap, Slot, SlotSet, Time, budget::Budget, descriptor,
    digest::Digests, intent::IntentLog, slab::Slab,
};
use followers::Follower;
use head::{Headless, Promotion};
pub use healing::Healing;
use inherit::Inheritance;
use log::Log;
use reshard::Resharding;
use state::{
    Barrier, Brick, Commit, Goal, Held, Io, IoKind, Link, MapWrite, Move, Op, Phase, Rest, Role,
    Round, Snapping,
};
pub use status::{BrickState, BrickStatus, Status, VolumeState};

/// What an attachment begins with.
#[derive(Clone, Debug)]
pub struct Attach {
    /// The volume's [`Descriptor`] exactly as the state has it.
    pub state: Arc<[u8]>,
    /// Its shard maps by their names; the descriptor, or that of a companion, says which counts. All that the state
    /// has, read after the descriptor.
    pub maps: BTreeMap<Generation, ShardMap>,
    /// Checkpoints of its digests by their names, all that the state has; none is as good, but for what scrubs know.
    pub digests: BTreeMap<Generation, Arc<[u8]>>,
    /// The operator's choices.
    pub settings: Settings,
    /// All, but in tests.
    pub protections: Protections,
    /// A number that no other attachment has; draw it at random.
    pub holder: u64,
    /// Names of nodes, for texts.
    pub node_names: BTreeMap<NodeId, String>,
    /// Asynchronous mode: the node whose follower is to acknowledge, because the brick that did cannot be reached. What
    /// it has not is lost; refused while that brick can be reached.
    pub promote: Option<NodeId>,
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
    /// The shard maps that the attachment began with, until it is known which of them counts.
    maps: BTreeMap<Generation, ShardMap>,
    /// The stored shard map that counts, and its name.
    base: (Generation, Arc<[u8]>),
    /// Stored maps that only snapshots name.
    old_maps: BTreeMap<Generation, Arc<[u8]>>,
    /// One that is being stored, whether one is to be, for how many bytes, and how many there were.
    map_write: Option<MapWrite>,
    want_map: bool,
    map_room: u64,
    map_writes: u32,
    /// What records that count say that changed since `base`.
    settled_moved: Vec<crate::Moved>,
    /// What they say of the shard size.
    settled_shard_size: u64,
    resharding: Option<Resharding>,
    snapshot_queue: VecDeque<(RequestId, String, u64)>,
    snapping: Option<Snapping>,
    /// Who wants to hear that a snapshot is deleted, and whether the record under way says so.
    snapshot_deletions: Vec<(RequestId, bool)>,
    /// Snapshots that the record under way does not show, and those that no record shows.
    collected: Vec<u32>,
    may_drop: BTreeSet<u32>,
    /// What is being dropped, or when to try again.
    dropping: BTreeMap<(BrickId, u32), Option<Time>>,
    /// Snapshots of bricks whose end is unknown.
    unknown_snapshots: BTreeMap<(BrickId, u32), u32>,
    /// The replica sets of each snapshot's shards.
    frozen: BTreeMap<u32, Vec<SlotSet>>,
    keepers: keepers::Keepers,
    goal: Option<Goal>,
    moves: Vec<Move>,
    litter: BTreeMap<(Slot, u64), Rest>,
    /// Whether something may be begun that could not before.
    try_moves: bool,
    try_sweeps: bool,
    moves_retry_at: Option<Time>,
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
    /// Bytes that copies may move.
    budget: Budget,
    /// Nodes whose closed bricks stay closed until then.
    held_nodes: BTreeMap<NodeId, Time>,
    /// Nodes that are read from only if no other has it.
    shunned: BTreeSet<NodeId>,
    /// How often in a row a node's brick was given up while it was brought back.
    setbacks: BTreeMap<NodeId, u32>,
    digests: Digests,
    scrub: scrub::Scrub,
    doubts: doubt::Doubts,
    /// The order of mutations, with what followers lack of it.
    log: Log,
    /// Membership as the state has it.
    recorded: Descriptor,
    /// Set while the acknowledging brick is gone.
    headless: Option<Headless>,
    promotion: Option<Promotion>,
    inheritance: Option<Inheritance>,
    /// Writes that wait for followers.
    lagging: VecDeque<u64>,
    /// Reads that wait for followers while there is no acknowledging brick.
    viewers: VecDeque<u64>,
    /// Bytes of writes that were begun and are not in the log yet.
    admitted: u64,
}

impl Volume {
    /// Begins to attach a volume.
    ///
    /// # Errors
    /// When it is not in a state to be attached; nothing was done.
    pub fn attach(attach: Attach, now: Time) -> Result<Self, AttachError> {
        let Attach {
            state,
            maps,
            digests: found,
            settings,
            protections,
            holder,
            node_names,
            promote,
        } = attach;
        let descriptor = Descriptor::decode(&state).map_err(AttachError::State)?;
        if descriptor.phase != descriptor::Phase::Ready {
            return Err(AttachError::Phase(descriptor.phase));
        }
        let base = maps.get(&descriptor.map).ok_or(AttachError::Map)?;
        let map = descriptor.map_from(base).ok_or(AttachError::Map)?;
        let base = (descriptor.map, base.encode().into());
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
            maps,
            base,
            old_maps: BTreeMap::new(),
            map_write: None,
            want_map: false,
            map_room: 0,
            map_writes: 0,
            settled_moved: Vec::new(),
            settled_shard_size: 0,
            resharding: None,
            snapshot_queue: VecDeque::new(),
            snapping: None,
            snapshot_deletions: Vec::new(),
            collected: Vec::new(),
            may_drop: BTreeSet::new(),
            dropping: BTreeMap::new(),
            unknown_snapshots: BTreeMap::new(),
            frozen: BTreeMap::new(),
            keepers: keepers::Keepers::default(),
            goal: None,
            moves: Vec::new(),
            litter: BTreeMap::new(),
            try_moves: false,
            try_sweeps: false,
            moves_retry_at: None,
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
            budget: Budget::unlimited(),
            held_nodes: BTreeMap::new(),
            shunned: BTreeSet::new(),
            setbacks: BTreeMap::new(),
            digests: Digests::new(descriptor.size, descriptor.region_size, map.shard_size()),
            scrub: scrub::Scrub::new(found),
            doubts: doubt::Doubts::default(),
            log: Log::default(),
            recorded: descriptor.clone(),
            headless: None,
            promotion: None,
            inheritance: promote.map(Inheritance::new),
            lagging: VecDeque::new(),
            viewers: VecDeque::new(),
            admitted: 0,
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
            self.moves_retry_at = self.moves_retry_at.map(|_| now);
            self.held_nodes.clear();
            self.log.forget_times();
        }
        self.now = now;
        match event {
            Event::Request { request, op } => self.request(request, op),
            Event::Done { io, incarnation, outcome } => self.done(io, incarnation, outcome),
            Event::Arrange { request, arrangement } => self.arrange(request, arrangement),
            Event::Snapshot { request, name, unix_secs } => {
                self.snapshot(request, name, unix_secs);
            }
            Event::DeleteSnapshot { request, number } => self.delete_snapshot(request, number),
            Event::Configure { request, configuration } => self.configure(request, configuration),
            Event::Promote { request, node, at_once } => self.promote(request, node, at_once),
            Event::NodeUp(node) => self.node_up(node),
            Event::NodeDown(node) => self.node_down(node),
            Event::Hold { node, nanoseconds } => self.hold(node, nanoseconds),
            Event::Shun { node, is_shunned } => self.shun(node, is_shunned),
            Event::Throttle { copies, bytes, rate } => self.throttle(copies, bytes, rate),
            Event::Scrub { repairs, started } => self.begin_scrub(repairs, started),
            Event::EndScrub => self.end_scrub(),
            Event::VerifyReads(on) => self.verify_reads(on),
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
        let retries = retries.map(|brick| self.opens_at(brick));
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
        let map = self.map_write.as_ref().and_then(|write| write.retry_at);
        let until = self.barrier.as_ref().and_then(|barrier| match barrier.kind {
            state::BarrierKind::Snapshot { until, .. } => Some(until),
            _ => None,
        });
        let dropping = self.dropping.values().filter_map(|at| *at);
        let state = commit
            .into_iter()
            .chain(claim)
            .chain(map)
            .chain(until)
            .chain(dropping)
            .chain(self.keepers_due())
            .chain(self.copies_due());
        let scrub = self.scrub.next_tick();
        retries
            .chain(deleting)
            .chain(idle)
            .chain(state)
            .chain(self.moves_retry_at)
            .chain(scrub)
            .min()
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
        let point = self.point(self.log.issued());
        self.actions.push_back(Action::Reply { request, result, point });
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
                self.pump_maps();
                if self.is_asynchronous() {
                    self.pump_followers();
                }
                self.pump_resync();
            }
            if self.goal.is_some() || !self.moves.is_empty() || !self.litter.is_empty() {
                self.pump_moves();
                self.pump_sweeps();
            }
            if self.want_map || self.map_write.is_some() || !self.settled_moved.is_empty() {
                self.pump_maps();
            }
            if !self.snapshot_queue.is_empty()
                || !self.descriptor.snapshots.is_empty()
                || !self.descriptor.keepers.is_empty()
                || self.keepers.replay.is_some()
            {
                self.pump_snapshots();
                self.pump_keepers();
            }
            self.pump_scrub();
            self.pump_flush();
            self.pump_barrier();
        }
        self.pump_commit();
    }

    fn tick(&mut self) {
        self.retry_claim();
        self.retry_state();
        self.retry_map();
        self.retry_moves();
        self.retry_snapshots();
        self.retry_keepers();
        self.retry_scrub();
        self.retry_copies();
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
        requests.extend(self.goal.take().map(|goal| goal.request));
        requests.extend(self.promotion.take().map(|promotion| promotion.request()));
        // One that is being taken is the barrier's.
        let snapping = self.snapping.take().map(|snapping| snapping.request);
        requests.extend(snapping.filter(|request| !requests.contains(request)));
        requests.extend(self.snapshot_queue.drain(..).map(|(request, _, _)| request));
        requests.extend(self.snapshot_deletions.drain(..).map(|(request, _)| request));
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
        self.lagging.clear();
        self.viewers.clear();
        self.level.clear();
        self.commit = None;
        self.claim = None;
        self.map_write = None;
        self.resharding = None;
        self.scrub.clear();
        self.doubts.clear();
        self.moves.clear();
        self.litter.clear();
        self.keepers = keepers::Keepers::default();
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
            && !brick.leaving
    }
}
