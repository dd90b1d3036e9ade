// SPDX-License-Identifier: Apache-2.0
//! Hosts: what their drivers do for the core.

use std::{collections::BTreeMap, sync::Arc};

use distributed_core::{
    Action, Attach, BrickId, BrickState, Descriptor, Event, IoId, MAP_OFFSET, Notice, RequestId,
    Session, Settings, Time, Volume, VolumeState,
};

use crate::{
    deeds::Deed,
    network::{CopyTarget, Pending, Sender, TIMEOUT},
    order::PIECE_SECTORS,
    storage::{Request, SECTOR, Tag},
    world::{MS, Next, US, World},
};

/// A machine that runs the driver.
#[derive(Debug)]
pub struct Host {
    pub volume: Option<Volume>,
    pub instance: u32,
    pub epoch: u64,
    pub serving: bool,
    /// Its present attachment has served.
    pub has_served: bool,
    pub pending: BTreeMap<IoId, Pending>,
    /// Sessions and nodes of bricks.
    pub sessions: BTreeMap<BrickId, (usize, Session)>,
    /// Data of reads, by request and first sector: the newest action counts.
    pub reads: BTreeMap<(RequestId, usize), (IoId, Vec<Tag>)>,
    /// Buffers that are kept beyond their requests' answers.
    pub kept: BTreeMap<RequestId, Tag>,
    /// The brick that acknowledged, once it is gone, until a follower is promoted.
    pub lost_head: Option<BrickId>,
    /// Reads that went to a follower, and to which.
    pub followed: BTreeMap<RequestId, BrickId>,
    pub clock: u64,
    pub tick_at: u64,
    pub paused_until: u64,
    pub unreachable: u64,
}

impl Host {
    pub fn new() -> Self {
        Self {
            volume: None,
            instance: 0,
            epoch: 0,
            serving: false,
            has_served: false,
            pending: BTreeMap::new(),
            sessions: BTreeMap::new(),
            reads: BTreeMap::new(),
            kept: BTreeMap::new(),
            lost_head: None,
            followed: BTreeMap::new(),
            clock: 1_000 * MS,
            tick_at: u64::MAX,
            paused_until: 0,
            unreachable: 0,
        }
    }
}

impl World {
    /// Attaches the volume on a host; whoever had it is not asked.
    pub fn attach(&mut self, host: usize) {
        let Ok(descriptor) = Descriptor::decode(&self.stored.bytes) else {
            return self.fail("the state holds no descriptor".into());
        };
        self.clean = descriptor.clean;
        self.note_heads(self.current);
        let plan = &self.plan;
        let settings = Settings {
            min_in_sync: plan.min_in_sync,
            shortage: plan.shortage,
            intent_regions: 8,
            intent_idle_ns: 20 * MS,
            copy_bytes: 4096,
            copies_in_flight: 3,
            retry_ns: 3 * MS,
            snapshot_deadline_ns: 4 * MS,
            most_behind_bytes: plan.most_behind_bytes,
            batch_bytes: (PIECE_SECTORS as u64 * SECTOR) as u32,
            most_behind_ns: plan.most_behind_ns,
            accept_unfenced: false,
            verify_reads: plan.verifies,
        };
        self.hosts[host].epoch = descriptor.epoch + 1;
        let holder = self.rng.u64(1..);
        let attach = Attach {
            state: Arc::clone(&self.stored.bytes),
            maps: self.stored.maps.clone(),
            digests: self.stored.digests.clone(),
            settings,
            protections: self.protections,
            holder,
            node_names: BTreeMap::new(),
            promote: self.heir(),
        };
        let entry = &mut self.hosts[host];
        entry.instance += 1;
        entry.serving = false;
        entry.has_served = false;
        entry.pending.clear();
        entry.sessions.clear();
        entry.reads.clear();
        entry.kept.clear();
        entry.followed.clear();
        entry.lost_head = None;
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
            Action::Read { io, brick, request, offset, len, wants_digest } => {
                let place = (request, sector(offset));
                if self.begins_at(request, place.1) {
                    self.hosts[host].reads.retain(|(other, _), _| *other != request);
                }
                self.hosts[host].reads.insert(place, (io, Vec::new()));
                let volume = self.hosts[host].volume.as_ref();
                let is_headless = volume.is_some_and(|v| v.status().is_headless);
                let follows = |state| match state {
                    BrickState::Following => true,
                    // It is being promoted since the read was issued.
                    BrickState::Joining => is_headless,
                    _ => false,
                };
                if volume.and_then(|v| v.brick_state(brick)).is_some_and(follows) {
                    self.hosts[host].followed.insert(request, brick);
                } else {
                    self.hosts[host].followed.remove(&request);
                }
                let ask = Request::Read { sector: sector(offset), count: sector(u64::from(len)) };
                let pending =
                    Pending { read: Some(place), is_digest: wants_digest, ..Pending::default() };
                self.send(host, io, brick, ask, pending);
            }
            Action::Write { io, brick, request, offset, len, fua } => {
                let tag = self.tag_at(host, request);
                let data = vec![tag; sector(u64::from(len))];
                let ask = Request::Write { sector: sector(offset), data, durable: fua };
                self.send(host, io, brick, ask, Pending::default());
            }
            Action::Zero { io, brick, offset, len, fua, .. } => {
                let data = vec![0; sector(len)];
                let ask = Request::Write { sector: sector(offset), data, durable: fua };
                self.send(host, io, brick, ask, Pending::default());
            }
            Action::Flush { io, brick } => {
                self.send(host, io, brick, Request::Flush, Pending::default())
            }
            Action::Copy { io, from, source_incarnation, to, offset, len } => {
                let ask = Request::Read { sector: sector(offset), count: sector(u64::from(len)) };
                let Some(session) = self.hosts[host].sessions.get(&to).copied() else {
                    return self
                        .fail(format!("host {host} copies to brick {to} that it did not open"));
                };
                let sector = sector(offset);
                let target = CopyTarget { brick: to, session, sector, source_incarnation };
                let pending = Pending { copy: Some(target), ..Pending::default() };
                self.send(host, io, from, ask, pending);
            }
            Action::WriteCompanion { io, brick, offset, bytes } => {
                let ask = Request::WriteCompanion { offset, bytes };
                self.send(host, io, brick, ask, Pending::default());
            }
            Action::ReadCompanion { io, brick } => {
                self.send(host, io, brick, Request::ReadCompanion, Pending::default());
            }
            Action::Open { io, brick, node, session, size } => {
                self.hosts[host].sessions.insert(brick, (node.0 as usize, session));
                self.send(
                    host,
                    io,
                    brick,
                    Request::Open { sectors: sector(size) },
                    Pending::default(),
                );
            }
            Action::Create { io, brick, node, size } => {
                let session = Session { epoch: self.hosts[host].epoch, opening: 0 };
                self.hosts[host].sessions.insert(brick, (node.0 as usize, session));
                self.send(
                    host,
                    io,
                    brick,
                    Request::Create { sectors: sector(size) },
                    Pending::default(),
                );
            }
            Action::Delete { io, brick, node } => {
                let session = Session { epoch: self.hosts[host].epoch, opening: 0 };
                self.hosts[host].sessions.insert(brick, (node.0 as usize, session));
                self.send(host, io, brick, Request::Delete, Pending::default());
            }
            Action::ResizeBrick { io, brick, size } => {
                self.send(
                    host,
                    io,
                    brick,
                    Request::Resize { sectors: sector(size) },
                    Pending::default(),
                );
            }
            Action::Compare { io, bricks, offset, len } => {
                let ask = Request::Read { sector: sector(offset), count: sector(u64::from(len)) };
                self.compare(host, io, &bricks, &ask);
            }
            Action::Digest { io, brick, offset, len, .. } => {
                let ask = Request::Read { sector: sector(offset), count: sector(len) };
                let pending = Pending { is_digest: true, ..Pending::default() };
                self.send(host, io, brick, ask, pending);
            }
            Action::StoreDigests { io, version, bytes } => {
                let instance = self.hosts[host].instance;
                let delay = self.rng.u64(50 * US..300 * US);
                self.after(delay, Next::Digests { host, instance, io, version, bytes });
            }
            Action::ForgetDigests { before } => {
                self.stored.digests.retain(|version, _| *version >= before);
            }
            Action::Report(Notice::Damaged(finding)) => self.damage_told(host, &finding),
            Action::Report(Notice::Mended(finding)) => self.mend_told(&finding),
            Action::Keep { request } => {
                let tag = self.tag_of(request);
                self.hosts[host].kept.insert(request, tag);
            }
            Action::Release { request } => {
                self.hosts[host].kept.remove(&request);
            }
            Action::WriteJournal { io, brick, offset, parts } => {
                let mut bytes = Vec::new();
                for part in parts {
                    let mut one = [0; SECTOR as usize];
                    one[..4].copy_from_slice(&self.tag_at(host, part.request).to_le_bytes());
                    (0..sector(u64::from(part.len))).for_each(|_| bytes.extend(one));
                }
                bytes.resize(bytes.len().next_multiple_of(4096), 0);
                let ask = Request::WriteCompanion { offset, bytes: bytes.into() };
                self.send(host, io, brick, ask, Pending::default());
            }
            Action::ReplayJournal { io, brick, journal, offset, len } => {
                let (sector, count) = (sector(offset), sector(u64::from(len)));
                let ask = Request::Replay { journal: journal - MAP_OFFSET, sector, count };
                self.send(host, io, brick, ask, Pending::default());
            }
            Action::Report(Notice::Promoted { brick, node, loss }) => {
                self.promoted(host, brick, node, loss);
            }
            Action::Report(Notice::HeadLost { brick, .. }) => {
                self.hosts[host].lost_head = Some(brick);
                // Before followers have got what the host remembers.
                let delay = self.rng.u64(0..400 * US);
                self.after(delay, Next::Orchestrate);
            }
            Action::Report(_) => {}
            Action::SwapState { io, expected, bytes } => {
                let instance = self.hosts[host].instance;
                let delay = self.rng.u64(50 * US..300 * US);
                let next = Next::State { host, instance, io, expected, bytes };
                self.after(delay, next);
            }
            Action::Snapshot { io, brick, number } => {
                self.snapshot_begins(host, number, brick);
                self.send(host, io, brick, Request::Snapshot { number }, Pending::default());
            }
            Action::DropSnapshot { io, brick, number } => {
                self.send(host, io, brick, Request::DropSnapshot { number }, Pending::default());
            }
            Action::CopySnapshot { io, from, from_node, number, to, offset, len } => {
                let Some(session) = self.hosts[host].sessions.get(&to).copied() else {
                    return self
                        .fail(format!("host {host} replays to brick {to} that it did not open"));
                };
                let (first, count) = (sector(offset), sector(u64::from(len)));
                let ask = Request::ReadSnapshot { number, sector: first, count };
                let target =
                    CopyTarget { brick: to, session, sector: first, source_incarnation: None };
                let instance = self.hosts[host].instance;
                let pending = Pending { copy: Some(target), ..Pending::default() };
                self.hosts[host].pending.insert(io, pending);
                self.after(TIMEOUT, Next::Timeout { host, instance, io });
                // A node reads it for whoever asks: there is no session with it.
                let asks = Session { epoch: self.hosts[host].epoch, opening: 0 };
                let sender = Sender { host, instance, io, part: 0 };
                self.transmit_in((from_node.0 as usize, asks), sender, from, ask);
                self.deeds.count(Deed::Replayed);
            }
            Action::StoreMap { io, version, bytes } => {
                let instance = self.hosts[host].instance;
                let delay = self.rng.u64(50 * US..300 * US);
                self.after(delay, Next::Map { host, instance, io, version, bytes });
            }
            Action::ForgetMaps { before, but } => {
                self.stored.maps.retain(|version, _| *version >= before || but.contains(version))
            }
            Action::Reply { request, result, point } => self.replied(host, request, result, point),
        }
    }
}
