// SPDX-License-Identifier: Apache-2.0
//! Hosts, nodes, the network between them, and one queue of what happens when.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
};

use distributed_core::{
    Action, Attach, BrickId, BrickState, Descriptor, Event, IoId, NodeId, Outcome, Protections,
    Record, RequestId, Session, Settings, ShardMap, Slot, Time, Volume, VolumeState,
};
use fastrand::Rng;

use crate::{
    clients::Client,
    matrix::{Fault, Matrix},
    oracle::Oracle,
    plan::Plan,
    storage::{Answer, Brick, Node, Request, SECTOR, Tag},
};

/// Nanoseconds of a microsecond and a millisecond.
pub const US: u64 = 1_000;
pub const MS: u64 = 1_000_000;

/// How long a driver waits for an answer.
const TIMEOUT: u64 = 12 * MS;

/// A run that has more events than this does not come to an end.
const MOST_EVENTS: u64 = 1_000_000;

/// A request on its way to a node.
#[derive(Clone, Debug)]
pub struct Message {
    pub host: usize,
    pub instance: u32,
    pub io: IoId,
    pub node: usize,
    pub brick: BrickId,
    pub session: Session,
    pub request: Request,
    /// Its second copy on the network: carried out, but not answered.
    pub is_echo: bool,
    /// Faults were thrown already.
    pub is_late: bool,
}

/// What happens next.
#[derive(Clone, Debug)]
pub enum Next {
    Arrive(Message),
    /// The rest of a write that began; not if the node restarted in between.
    Finish(Message, u64),
    Answer {
        host: usize,
        instance: u32,
        io: IoId,
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
    Relieve(usize),
    Orchestrate,
}

/// Where a copy goes, and what its source must be.
#[derive(Clone, Copy, Debug)]
pub struct CopyTarget {
    pub node: usize,
    pub brick: BrickId,
    pub sector: usize,
    pub source_incarnation: Option<u64>,
}

/// What a host waits for.
#[derive(Clone, Debug)]
pub struct Pending {
    pub node: usize,
    /// A copy that is still reading: where it goes then.
    pub copy: Option<CopyTarget>,
    /// A read's request and place.
    pub read: Option<(RequestId, usize)>,
    pub timed_out: bool,
}

/// A machine that runs the driver.
#[derive(Debug)]
pub struct Host {
    pub volume: Option<Volume>,
    pub instance: u32,
    pub epoch: u64,
    pub serving: bool,
    pub pending: BTreeMap<IoId, Pending>,
    /// Sessions and nodes of bricks.
    pub sessions: BTreeMap<BrickId, (usize, Session)>,
    /// Data of reads, by request and first sector: the newest action counts.
    pub reads: BTreeMap<(RequestId, usize), (IoId, Vec<Tag>)>,
    pub clock: u64,
    pub tick_at: u64,
    pub paused_until: u64,
    pub unreachable: u64,
}

/// The state store: one key.
#[derive(Clone, Debug)]
pub struct Stored {
    pub bytes: Arc<[u8]>,
    pub epoch: u64,
}

/// Everything.
pub struct World {
    pub rng: Rng,
    pub plan: Plan,
    pub now: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Next>,
    issued: u64,
    pub nodes: Vec<Node>,
    pub hosts: Vec<Host>,
    pub current: usize,
    pub stored: Stored,
    pub map: ShardMap,
    pub oracle: Oracle,
    pub clients: Vec<Client>,
    pub calls: BTreeMap<RequestId, usize>,
    pub next_request: u64,
    pub next_tag: Tag,
    pub matrix: Matrix,
    pub protections: Protections,
    /// Whether faults are thrown.
    pub chaos: bool,
    pub clean: bool,
    pub violation: Option<String>,
    pub hash: u64,
    pub handled: u64,
    pub trace: Option<Vec<String>>,
}

impl World {
    pub fn new(seed: u64, protections: Protections, trace: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::draw(&mut rng);
        let ids: Vec<NodeId> = (0..plan.nodes).map(|id| NodeId(id as u32)).collect();
        let size = plan.sectors as u64 * SECTOR;
        let mut descriptor = Descriptor::new("v", seed | 1, size, &ids);
        descriptor.region_size = plan.region_size;
        descriptor.phase = distributed_core::Phase::Ready;
        let map = plan.map();
        let mut nodes: Vec<Node> = (0..plan.nodes).map(|_| Node::new(plan.fences)).collect();
        for (index, node) in nodes.iter_mut().enumerate() {
            let record = Record::initial(&descriptor, Slot(index as u8), 0);
            let bytes = record.map(|record| record.encode()).unwrap_or_default();
            let brick = descriptor.bricks[index].brick;
            node.bricks.insert(brick, Brick::with_record(plan.sectors, bytes));
        }
        let host = || Host {
            volume: None,
            instance: 0,
            epoch: 0,
            serving: false,
            pending: BTreeMap::new(),
            sessions: BTreeMap::new(),
            reads: BTreeMap::new(),
            clock: 1_000 * MS,
            tick_at: u64::MAX,
            paused_until: 0,
            unreachable: 0,
        };
        let stored = Stored { bytes: descriptor.encode().into(), epoch: 0 };
        let mut world = Self {
            now: 1,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            issued: 0,
            nodes,
            hosts: (0..plan.hosts).map(|_| host()).collect(),
            current: 0,
            stored,
            map,
            oracle: Oracle::new(plan.sectors),
            clients: (0..plan.clients).map(|_| Client::default()).collect(),
            calls: BTreeMap::new(),
            next_request: 1,
            next_tag: 1,
            matrix: Matrix::default(),
            protections,
            chaos: true,
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
        self.queue.push(Reverse((self.now + delay, self.issued)));
        self.events.insert(self.issued, next);
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
        let Some(Reverse((at, number))) = self.queue.pop() else { return false };
        let Some(next) = self.events.remove(&number) else { return false };
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

    fn happen(&mut self, next: Next) {
        match next {
            Next::Arrive(message) => self.arrive(message),
            Next::Finish(message, incarnation) => {
                if self.nodes[message.node].incarnation == incarnation {
                    self.execute(message);
                }
            }
            Next::Answer { host, instance, io, node, incarnation, answer } => {
                if self.hosts[host].unreachable & (1 << node) == 0 {
                    self.answered(host, instance, io, incarnation, answer);
                }
            }
            Next::Timeout { host, instance, io } => self.timed_out(host, instance, io),
            Next::State { host, instance, io, expected, bytes } => {
                self.state_arrived(host, instance, io, &expected, bytes);
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
            Next::Relieve(node) => self.relieve(node),
            Next::Orchestrate => self.orchestrate(),
        }
    }

    /// Attaches the volume on a host; whoever had it is not asked.
    pub fn attach(&mut self, host: usize) {
        let Ok(descriptor) = Descriptor::decode(&self.stored.bytes) else {
            return self.fail("the state holds no descriptor".into());
        };
        self.clean = descriptor.clean;
        let plan = &self.plan;
        let settings = Settings {
            min_in_sync: plan.min_in_sync,
            shortage: plan.shortage,
            intent_regions: 8,
            intent_idle_ns: 20 * MS,
            copy_bytes: 4096,
            copies_in_flight: 3,
            retry_ns: 3 * MS,
            accept_unfenced: false,
        };
        self.hosts[host].epoch = descriptor.epoch + 1;
        let holder = self.rng.u64(1..);
        let attach = Attach {
            state: Arc::clone(&self.stored.bytes),
            map: self.map.clone(),
            settings,
            protections: self.protections,
            holder,
            node_names: BTreeMap::new(),
        };
        let entry = &mut self.hosts[host];
        entry.instance += 1;
        entry.serving = false;
        entry.pending.clear();
        entry.sessions.clear();
        entry.reads.clear();
        let now = Time(self.now + entry.clock);
        match Volume::attach(attach, now) {
            Ok(volume) => entry.volume = Some(volume),
            Err(error) => return self.fail(format!("attach: {error}")),
        }
        self.current = host;
        self.note(|| format!("host {host} attaches"));
        self.act(host);
    }

    /// Gives an event to a host's volume, if it still is the one it was for.
    pub fn deliver(&mut self, host: usize, instance: u32, event: Event) {
        let entry = &mut self.hosts[host];
        if entry.instance != instance || entry.volume.is_none() {
            return;
        }
        if entry.paused_until > self.now {
            // A frozen host handles it when it thaws.
            let delay = entry.paused_until - self.now + self.rng.u64(0..US);
            return self.after(delay, Next::Deliver { host, instance, event });
        }
        let now = Time(self.now + entry.clock);
        if self.trace.is_some() {
            let text = format!("host {host} <- {event:?}");
            self.note(|| text.chars().take(300).collect());
        }
        if let Some(volume) = &mut self.hosts[host].volume {
            volume.handle(now, event);
        }
        self.act(host);
    }

    /// Does what a volume asks for.
    fn act(&mut self, host: usize) {
        while let Some(action) = self.hosts[host].volume.as_mut().and_then(Volume::poll_action) {
            if self.trace.is_some() {
                let text = format!("host {host} -> {action:?}");
                self.note(|| text.chars().take(300).collect());
            }
            self.carry_out(host, action);
        }
        let instance = self.hosts[host].instance;
        let Some(volume) = &self.hosts[host].volume else { return };
        let serving = volume.is_serving();
        let tick = volume.next_tick();
        let is_over = matches!(
            volume.state(),
            VolumeState::Stopped(_) | VolumeState::Fenced | VolumeState::Detached
        );
        if serving && !self.hosts[host].serving {
            self.began_to_serve(host);
        }
        self.hosts[host].serving = serving;
        if is_over {
            self.end_instance(host);
            return;
        }
        let clock = self.now + self.hosts[host].clock;
        if let Some(at) = tick {
            let delay = at.0.saturating_sub(clock).clamp(100 * US, 30 * MS);
            if self.now + delay < self.hosts[host].tick_at {
                self.hosts[host].tick_at = self.now + delay;
                self.after(delay, Next::Tick { host, instance });
            }
        }
        self.tempt_rare_states(host);
    }

    fn carry_out(&mut self, host: usize, action: Action) {
        let sector = |offset: u64| (offset / SECTOR) as usize;
        match action {
            Action::Read { io, brick, request, offset, len } => {
                let place = (request, sector(offset));
                self.hosts[host].reads.insert(place, (io, Vec::new()));
                let ask = Request::Read { sector: sector(offset), count: sector(u64::from(len)) };
                self.send(host, io, brick, ask, Some(place), None);
            }
            Action::Write { io, brick, request, offset, len, fua } => {
                let tag = self.tag_of(request);
                let data = vec![tag; sector(u64::from(len))];
                let ask = Request::Write { sector: sector(offset), data, durable: fua };
                self.send(host, io, brick, ask, None, None);
            }
            Action::Zero { io, brick, offset, len, fua, .. } => {
                let data = vec![0; sector(len)];
                let ask = Request::Write { sector: sector(offset), data, durable: fua };
                self.send(host, io, brick, ask, None, None);
            }
            Action::Flush { io, brick } => self.send(host, io, brick, Request::Flush, None, None),
            Action::Copy { io, from, source_incarnation, to, offset, len } => {
                let ask = Request::Read { sector: sector(offset), count: sector(u64::from(len)) };
                let Some((node, _)) = self.hosts[host].sessions.get(&to).copied() else { return };
                let sector = sector(offset);
                let target = CopyTarget { node, brick: to, sector, source_incarnation };
                self.send(host, io, from, ask, None, Some(target));
            }
            Action::WriteCompanion { io, brick, offset, bytes } => {
                let half = usize::from(offset != 0);
                self.send(host, io, brick, Request::WriteCompanion { half, bytes }, None, None);
            }
            Action::ReadCompanion { io, brick } => {
                self.send(host, io, brick, Request::ReadCompanion, None, None);
            }
            Action::Open { io, brick, node, session, size } => {
                self.hosts[host].sessions.insert(brick, (node.0 as usize, session));
                self.send(host, io, brick, Request::Open { sectors: sector(size) }, None, None);
            }
            Action::Create { io, brick, node, size } => {
                let session = Session { epoch: self.hosts[host].epoch, opening: 0 };
                self.hosts[host].sessions.insert(brick, (node.0 as usize, session));
                self.send(host, io, brick, Request::Create { sectors: sector(size) }, None, None);
            }
            Action::Delete { io, brick, node } => {
                let session = Session { epoch: self.hosts[host].epoch, opening: 0 };
                self.hosts[host].sessions.insert(brick, (node.0 as usize, session));
                self.send(host, io, brick, Request::Delete, None, None);
            }
            Action::ResizeBrick { io, brick, size } => {
                self.send(host, io, brick, Request::Resize { sectors: sector(size) }, None, None);
            }
            Action::Compare { .. } | Action::Report(_) => {}
            Action::SwapState { io, expected, bytes } => {
                let instance = self.hosts[host].instance;
                let delay = self.rng.u64(50 * US..300 * US);
                let next = Next::State { host, instance, io, expected, bytes };
                self.after(delay, next);
            }
            Action::Reply { request, result } => self.replied(host, request, result),
        }
    }

    fn send(
        &mut self,
        host: usize,
        io: IoId,
        brick: BrickId,
        request: Request,
        read: Option<(RequestId, usize)>,
        copy: Option<CopyTarget>,
    ) {
        let entry = &mut self.hosts[host];
        let instance = entry.instance;
        let Some((node, session)) = entry.sessions.get(&brick).copied() else {
            return self.fail(format!("host {host} uses brick {brick} that it did not open"));
        };
        let pending = Pending { node, copy, read, timed_out: false };
        entry.pending.insert(io, pending);
        self.after(TIMEOUT, Next::Timeout { host, instance, io });
        self.transmit(Message {
            host,
            instance,
            io,
            node,
            brick,
            session,
            request,
            is_echo: false,
            is_late: false,
        });
    }

    pub fn latency(&mut self, node: usize) -> u64 {
        self.rng.u64(40 * US..250 * US) * self.nodes[node].slowness
    }

    fn transmit(&mut self, message: Message) {
        let delay = self.latency(message.node);
        self.after(delay, Next::Arrive(message));
    }

    /// Carries a request out on its node, and sends the answer.
    pub fn execute(&mut self, message: Message) {
        let Message { host, instance, io, node, brick, session, request, is_echo, .. } = message;
        let rng = &mut self.rng;
        let answer = self.nodes[node].execute(brick, session, &request, rng);
        let incarnation = self.nodes[node].incarnation;
        if self.trace.is_some() {
            let text =
                format!("node {node} {brick} {request:?} of host {host} {io:?}: {:?}", answer.0);
            self.note(|| text.chars().take(200).collect());
        }
        if !is_echo {
            let delay = self.latency(node);
            self.after(delay, Next::Answer { host, instance, io, node, incarnation, answer });
        }
    }

    /// An answer has come back to a host's driver.
    fn answered(&mut self, host: usize, instance: u32, io: IoId, incarnation: u64, answer: Answer) {
        let entry = &mut self.hosts[host];
        if entry.instance != instance {
            return;
        }
        let (outcome, data) = answer;
        if let Some(pending) = entry.pending.get_mut(&io) {
            if let Some(target) = pending.copy.take() {
                let CopyTarget { node, brick, sector, source_incarnation } = target;
                if pending.timed_out {
                    entry.pending.remove(&io);
                    return;
                }
                let is_other = source_incarnation.is_some_and(|one| one != incarnation);
                if outcome != Outcome::Ok || is_other {
                    entry.pending.remove(&io);
                    let outcome = Outcome::SourceFailed;
                    return self.deliver(host, instance, Event::Done { io, incarnation, outcome });
                }
                pending.node = node;
                let Some((_, session)) = entry.sessions.get(&brick).copied() else { return };
                let request = Request::Write { sector, data, durable: false };
                return self.transmit(Message {
                    host,
                    instance,
                    io,
                    node,
                    brick,
                    session,
                    request,
                    is_echo: false,
                    is_late: false,
                });
            }
            if let Some(place) = pending.read
                && let Some(buffer) = entry.reads.get_mut(&place)
                && buffer.0 == io
            {
                buffer.1 = data;
            }
            entry.pending.remove(&io);
        }
        self.deliver(host, instance, Event::Done { io, incarnation, outcome });
    }

    fn timed_out(&mut self, host: usize, instance: u32, io: IoId) {
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

    /// The state store is asked for a swap.
    fn state_arrived(
        &mut self,
        host: usize,
        instance: u32,
        io: IoId,
        expected: &Arc<[u8]>,
        bytes: Arc<[u8]>,
    ) {
        let luck = if self.chaos { self.rng.u32(0..100) } else { 100 };
        let (refused, lost, untold) = if self.plan.sick_state { (12, 18, 40) } else { (4, 6, 12) };
        if luck < untold {
            self.count_for_all(Fault::StateError);
        }
        if luck < refused {
            let outcome = Outcome::Failed;
            return self.after(100 * US, Next::StateAnswer { host, instance, io, outcome });
        }
        if luck < lost {
            // It arrives when nobody expects it.
            let expected = Arc::clone(expected);
            let late = Next::State { host, instance, io, expected, bytes };
            let delay = self.rng.u64(MS..100 * MS);
            self.after(delay, late);
            let outcome = Outcome::Unknown;
            return self.after(TIMEOUT, Next::StateAnswer { host, instance, io, outcome });
        }
        let epoch = self.hosts_epoch(&bytes);
        let outcome = if self.stored.bytes == bytes {
            Outcome::Ok
        } else if self.stored.bytes == *expected {
            self.stored = Stored { bytes, epoch };
            Outcome::Ok
        } else {
            Outcome::Conflict
        };
        let outcome = if luck < untold { Outcome::Unknown } else { outcome };
        let slow = if self.plan.sick_state && self.chaos { 80 } else { 1 };
        let delay = self.rng.u64(50 * US..300 * US) * slow;
        self.after(delay, Next::StateAnswer { host, instance, io, outcome });
    }

    fn hosts_epoch(&self, bytes: &[u8]) -> u64 {
        Descriptor::decode(bytes).map(|descriptor| descriptor.epoch).unwrap_or_default()
    }

    /// The state of a brick, as the current host sees it.
    pub fn brick_state(&self, brick: BrickId) -> Option<BrickState> {
        self.hosts[self.current].volume.as_ref().and_then(|volume| volume.brick_state(brick))
    }
}
