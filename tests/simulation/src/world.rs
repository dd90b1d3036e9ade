// SPDX-License-Identifier: Apache-2.0
//! Everything there is, and one queue of what happens when.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::Arc,
};

use distributed_core::{
    Arrangement, BrickId, BrickState, Descriptor, Digest, Event, Generation, IoId, Mode, NodeId,
    Outcome, Point, Protections, Record, RequestId, Slot, SlotSet,
};
use fastrand::Rng;

use crate::{
    clients::Client,
    deeds::Deeds,
    hosts::Host,
    matrix::{Fault, Matrix},
    network::{Message, Sender},
    operator::{Rot, Sizes},
    oracle::Oracle,
    order::Order,
    plan::{Era, MOST_SECTORS, Plan},
    snapper::{Frozen, Wish},
    storage::{Answer, Brick, Node, Request, SECTOR, Tag},
    store::Stored,
};

/// Nanoseconds of a microsecond and a millisecond.
pub const US: u64 = 1_000;
pub const MS: u64 = 1_000_000;

/// Makes of a seed another one, for what operators do.
const OPERATORS: u64 = 0x6f70_6572_6174_6f72;

/// And another one, for what moves shards.
const MOVERS: u64 = 0x6d6f_7665_6420_6f66;

/// And one for what splits and merges them.
const CUTTERS: u64 = 0x6375_7420_7570_2e2e;
/// And another one, for what scrubs.
const SCRUBBERS: u64 = 0x7363_7275_6262_6564;
/// And one for asynchronous mode.
const FOLLOWERS: u64 = 0x666f_6c6c_6f77_6572;
/// And one for resizes in it.
const SIZES: u64 = 0x7369_7a65_7320_6f66;

/// A run that has more events than this does not come to an end.
const MOST_EVENTS: u64 = 1_000_000;

/// What happens next.
#[derive(Clone, Debug)]
pub enum Next {
    Arrive(Message),
    /// The rest of a write that began; not if the node restarted in between.
    Finish(Message, u64),
    Answer {
        sender: Sender,
        node: usize,
        incarnation: u64,
        answer: Answer,
    },
    Timeout {
        host: usize,
        instance: u32,
        io: IoId,
    },
    State {
        host: usize,
        instance: u32,
        io: IoId,
        expected: Arc<[u8]>,
        bytes: Arc<[u8]>,
    },
    /// A shard map for the state.
    Map {
        host: usize,
        instance: u32,
        io: IoId,
        version: Generation,
        bytes: Arc<[u8]>,
    },
    /// A checkpoint of digests for the state.
    Digests {
        host: usize,
        instance: u32,
        io: IoId,
        version: Generation,
        bytes: Arc<[u8]>,
    },
    StateAnswer {
        host: usize,
        instance: u32,
        io: IoId,
        outcome: Outcome,
    },
    Deliver {
        host: usize,
        instance: u32,
        event: Event,
    },
    Health {
        host: usize,
        node: usize,
        is_up: bool,
    },
    Tick {
        host: usize,
        instance: u32,
    },
    Client(usize),
    Fault,
    Revive(usize),
    /// A node's backend restarts without telling.
    Restart(usize),
    Relieve(usize),
    Orchestrate,
}

/// Everything.
pub struct World {
    pub rng: Rng,
    pub plan: Plan,
    pub now: u64,
    /// When, the how manieth, and where in `events`.
    queue: BinaryHeap<Reverse<(u64, u64, u32)>>,
    events: Vec<Option<Next>>,
    free_events: Vec<u32>,
    issued: u64,
    pub nodes: Vec<Node>,
    pub hosts: Vec<Host>,
    pub current: usize,
    pub stored: Stored,
    pub oracle: Oracle,
    /// If there is an operator, it is the last.
    pub clients: Vec<Client>,
    pub calls: BTreeMap<RequestId, usize>,
    /// Orders of where shards are to be, by who was asked.
    pub arranging: BTreeMap<RequestId, usize>,
    /// What was ordered last, and by which request.
    pub arranged: Option<(RequestId, Arrangement)>,
    /// Wishes for snapshots, and who was asked.
    pub snapping: BTreeMap<RequestId, (usize, Wish)>,
    /// Wishes for another mode or head, and who was asked.
    pub wishing: BTreeMap<RequestId, usize>,
    pub order: Order,
    /// Attachments, one after the other, that ended before they served.
    pub failed_attaches: u32,
    /// The highest epoch in which an attachment served.
    pub begun: u64,
    /// When the last promotion lost writes, and after which point.
    pub lost_at: u64,
    pub lost_after: Point,
    /// The last epoch that began with a follower; what hosts of earlier ones acknowledge since is lost.
    pub inherited_in: u64,
    /// The bricks that counted when the last attachment ended that served.
    pub heads: BTreeSet<BrickId>,
    /// The node whose follower the next attachment is to promote.
    pub heir: Option<NodeId>,
    /// Nodes whose followers attachments were to promote since then.
    pub heirs: BTreeSet<NodeId>,
    /// When somebody looks after the volume next.
    pub next_look: u64,
    /// One is just beginning so.
    pub inherits: bool,
    /// What snapshots have to hold, by their names.
    pub frozen: BTreeMap<String, Frozen>,
    /// The state was made anew without bricks that may have had the only copy of something.
    pub has_lost_bricks: bool,
    pub next_request: u64,
    pub next_tag: Tag,
    pub matrix: Matrix,
    pub deeds: Deeds,
    pub sizes: Sizes,
    /// By their values.
    pub rots: Vec<Rot>,
    /// What digests are of.
    pub contents: BTreeMap<Digest, Vec<Tag>>,
    pub protections: Protections,
    /// Whether faults are thrown.
    pub chaos: bool,
    /// Until when, in nanoseconds.
    pub chaos_until: u64,
    pub clean: bool,
    pub violation: Option<String>,
    pub hash: u64,
    pub handled: u64,
    pub trace: Option<Vec<String>>,
}

impl World {
    pub fn new(seed: u64, protections: Protections, era: Era, trace: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut plan = Plan::draw(&mut rng, &mut Rng::with_seed(seed ^ OPERATORS));
        if era == Era::Scrubbing {
            plan.draw_scrubs(&mut Rng::with_seed(seed ^ SCRUBBERS));
        }
        if era != Era::Staying {
            plan.draw_moves(&mut Rng::with_seed(seed ^ MOVERS));
        }
        if matches!(era, Era::Cutting | Era::Scrubbing) {
            plan.draw_cuts(&mut Rng::with_seed(seed ^ CUTTERS));
        }
        if matches!(era, Era::Following | Era::Resizing) {
            plan.draw_followers(&mut Rng::with_seed(seed ^ FOLLOWERS));
        }
        if era == Era::Resizing {
            plan.draw_sizes(&mut Rng::with_seed(seed ^ SIZES));
        }
        let is_operated = plan.switches
            || plan.resizes
            || plan.checks
            || plan.arranges
            || plan.snaps
            || plan.scrubs;
        let ids: Vec<NodeId> = (0..plan.nodes).map(|id| NodeId(id as u32)).collect();
        let size = plan.sectors as u64 * SECTOR;
        let mut descriptor = Descriptor::new("v", seed | 1, size, &ids);
        descriptor.region_size = plan.region_size;
        descriptor.phase = distributed_core::Phase::Ready;
        if plan.begins_asynchronous {
            descriptor.mode = Mode::Asynchronous;
            descriptor.in_sync = SlotSet::only(Slot(0));
        }
        let map = plan.map();
        let encoded = map.encode();
        let mut nodes: Vec<Node> =
            (0..plan.nodes + plan.spares).map(|_| Node::new(plan.fences)).collect();
        for (index, node) in nodes.iter_mut().enumerate() {
            let Some(entry) = descriptor.bricks.get(index) else { continue };
            let record = Record::initial(&descriptor, Slot(index as u8), encoded.len() as u32);
            let bytes = record.map(|record| record.encode()).unwrap_or_default();
            node.bricks
                .insert(entry.brick, Brick::with_record(plan.sectors, bytes, encoded.clone()));
        }
        let maps = BTreeMap::from([(descriptor.map, map)]);
        let stored =
            Stored { bytes: descriptor.encode().into(), epoch: 0, maps, digests: BTreeMap::new() };
        let mut world = Self {
            now: 1,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free_events: Vec::new(),
            issued: 0,
            nodes,
            hosts: (0..plan.hosts).map(|_| Host::new()).collect(),
            current: 0,
            stored,
            arranging: BTreeMap::new(),
            arranged: None,
            snapping: BTreeMap::new(),
            frozen: BTreeMap::new(),
            wishing: BTreeMap::new(),
            order: Order::default(),
            failed_attaches: 0,
            begun: 0,
            lost_at: 0,
            lost_after: Point::default(),
            inherited_in: 0,
            inherits: false,
            heads: BTreeSet::new(),
            heir: None,
            heirs: BTreeSet::new(),
            next_look: 0,
            has_lost_bricks: false,
            oracle: Oracle::new(if plan.resizes { MOST_SECTORS } else { plan.sectors }),
            clients: (0..plan.clients + usize::from(is_operated))
                .map(|_| Client::default())
                .collect(),
            calls: BTreeMap::new(),
            next_request: 1,
            next_tag: 1,
            matrix: Matrix::default(),
            deeds: Deeds::default(),
            sizes: Sizes { known: plan.sectors, asked: Vec::new() },
            rots: Vec::new(),
            contents: BTreeMap::new(),
            protections,
            chaos: true,
            chaos_until: plan.chaos_ms * MS,
            clean: true,
            violation: None,
            hash: seed,
            handled: 0,
            trace: trace.then(Vec::new),
            rng,
            plan,
        };
        world.after(0, Next::Orchestrate);
        world.after(MS, Next::Fault);
        for client in 0..world.clients.len() {
            world.after(MS, Next::Client(client));
        }
        world
    }

    pub fn after(&mut self, delay: u64, next: Next) {
        self.issued += 1;
        let place = self.free_events.pop().unwrap_or_else(|| {
            self.events.push(None);
            (self.events.len() - 1) as u32
        });
        self.events[place as usize] = Some(next);
        self.queue.push(Reverse((self.now + delay, self.issued, place)));
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3} ms  {}", self.now as f64 / MS as f64, text()));
        }
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    pub fn fail(&mut self, text: String) {
        self.note(|| format!("VIOLATION {text}"));
        self.violation.get_or_insert(text);
    }

    /// Does the next thing; false when there is none, or something is wrong.
    pub fn step(&mut self) -> bool {
        let Some(Reverse((at, number, place))) = self.queue.pop() else { return false };
        let Some(next) = self.events[place as usize].take() else { return false };
        self.free_events.push(place);
        self.now = self.now.max(at);
        self.handled += 1;
        if self.handled > MOST_EVENTS {
            self.fail("it goes round and round: far more happened than can be meant".into());
        }
        self.mix(at);
        self.mix(number);
        self.happen(next);
        self.violation.is_none()
    }

    /// Whether something of the faults is still on its way: what a host was told while it was frozen, that a node was
    /// down, a restart, a host's late wish to have a brick that is another host's by now. It may end an attachment, and
    /// nobody answers what is asked right after that.
    pub fn has_old_trouble(&self) -> bool {
        let is_trouble = |next: &Next| match next {
            Next::Deliver { .. } | Next::Restart(_) => true,
            Next::Arrive(Message { sender, request: Request::Open { .. }, .. }) => {
                sender.host != self.current || sender.instance != self.hosts[sender.host].instance
            }
            Next::Health { is_up, .. } => !is_up,
            _ => false,
        };
        self.events.iter().flatten().any(is_trouble)
    }

    fn happen(&mut self, next: Next) {
        match next {
            Next::Arrive(message) => self.arrive(message),
            Next::Finish(message, incarnation) => {
                if self.nodes[message.node].incarnation == incarnation {
                    self.execute(message);
                }
            }
            Next::Answer { sender, node, incarnation, answer } => {
                if self.hosts[sender.host].unreachable & (1 << node) == 0 {
                    self.answered(sender, incarnation, answer);
                }
            }
            Next::Timeout { host, instance, io } => self.timed_out(host, instance, io),
            Next::State { host, instance, io, expected, bytes } => {
                self.state_arrived(host, instance, io, &expected, bytes);
            }
            Next::Map { host, instance, io, version, bytes } => {
                self.map_arrived(host, instance, io, version, bytes);
            }
            Next::Digests { host, instance, io, version, bytes } => {
                self.digests_arrived((host, instance), io, version, bytes);
            }
            Next::StateAnswer { host, instance, io, outcome } => {
                self.deliver(host, instance, Event::Done { io, incarnation: 0, outcome });
            }
            Next::Deliver { host, instance, event } => self.deliver(host, instance, event),
            Next::Health { host, node, is_up } => {
                let (id, instance) = (NodeId(node as u32), self.hosts[host].instance);
                let event = if is_up { Event::NodeUp(id) } else { Event::NodeDown(id) };
                self.deliver(host, instance, event);
            }
            Next::Tick { host, instance } => {
                self.hosts[host].tick_at = u64::MAX;
                self.deliver(host, instance, Event::Tick);
            }
            Next::Client(client) => self.client_turn(client),
            Next::Fault => self.throw_fault(),
            Next::Revive(node) => self.revive(node),
            Next::Restart(node) => self.afflict(node, Fault::Restart),
            Next::Relieve(node) => self.relieve(node),
            Next::Orchestrate => self.orchestrate(),
        }
    }

    /// The state of a brick, as the current host sees it.
    pub fn brick_state(&self, brick: BrickId) -> Option<BrickState> {
        self.hosts[self.current].volume.as_ref().and_then(|volume| volume.brick_state(brick))
    }
}
