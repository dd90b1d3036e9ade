// SPDX-License-Identifier: Apache-2.0
//! A volume over bricks that answer at once, unless a test says otherwise.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Action, Attach, AttachError, BrickId, BrickState, ClientOp, DecodeError, Descriptor, Digest,
    Event, Failure, Generation, IoId, MAP_OFFSET, NodeId, Outcome, Phase, Protections, Record,
    RequestId, Settings, ShardMap, Shortage, Slot, SlotSet, Time, Volume, VolumeState, ZeroKind,
    rebuild,
};

#[path = "async_tests.rs"]
mod async_tests;
#[path = "healing_tests.rs"]
mod healing_tests;
#[path = "reshard_tests.rs"]
mod reshard_tests;
#[path = "scrub_tests.rs"]
mod scrub_tests;

const SIZE: u64 = 64 << 20;

/// A driver with its bricks and its state store.
struct Desk {
    volume: Volume,
    state: Arc<[u8]>,
    companions: BTreeMap<BrickId, [Vec<u8>; 2]>,
    /// What was done, one line each.
    log: Vec<String>,
    replies: Vec<(u64, Result<(), Failure>)>,
    /// Actions whose text contains one of these are answered so.
    spoiled: Vec<(&'static str, Outcome)>,
    /// Actions whose text contains this are not answered until they are let go.
    held: Option<&'static str>,
    unanswered: Vec<(IoId, Outcome)>,
    now: u64,
    /// Checkpoints that the state has.
    digests: BTreeMap<Generation, Arc<[u8]>>,
    /// Bytes of bricks that are not what was written.
    rotten: Vec<(BrickId, u64)>,
}

fn descriptor() -> Descriptor {
    let nodes: Vec<NodeId> = (0..3).map(NodeId).collect();
    let mut descriptor = Descriptor::new("web", 77, SIZE, &nodes);
    descriptor.phase = Phase::Ready;
    descriptor
}

fn map() -> ShardMap {
    ShardMap::uniform(64 << 20, 1, SlotSet(7))
}

fn attach(state: &Arc<[u8]>, settings: &Settings) -> Result<Volume, AttachError> {
    attach_with(state, settings, BTreeMap::new())
}

fn attach_with(
    state: &Arc<[u8]>,
    settings: &Settings,
    digests: BTreeMap<Generation, Arc<[u8]>>,
) -> Result<Volume, AttachError> {
    let attach = Attach {
        digests,
        state: Arc::clone(state),
        maps: BTreeMap::from([(Generation::default(), map())]),
        settings: settings.clone(),
        protections: Protections::default(),
        holder: 1,
        node_names: BTreeMap::from([(NodeId(1), "nas1".to_owned())]),
        promote: None,
    };
    Volume::attach(attach, Time(0))
}

impl Desk {
    fn new(settings: &Settings) -> Self {
        let descriptor = descriptor();
        let state: Arc<[u8]> = descriptor.encode().into();
        let companions = (0..3).filter_map(|slot| {
            let record = Record::initial(&descriptor, Slot(slot), 100)?;
            Some((record.brick, [record.encode(), Vec::new()]))
        });
        let companions = companions.collect();
        let volume = attach(&state, settings).unwrap();
        let mut desk = Self {
            volume,
            state,
            companions,
            log: Vec::new(),
            replies: Vec::new(),
            spoiled: Vec::new(),
            held: None,
            unanswered: Vec::new(),
            now: 0,
            digests: BTreeMap::new(),
            rotten: Vec::new(),
        };
        desk.work();
        desk
    }

    fn attach_again(&mut self, settings: &Settings) {
        self.volume = attach_with(&self.state, settings, self.digests.clone()).unwrap();
        self.work();
    }

    fn digest(&self, brick: BrickId, offset: u64, len: u64) -> Digest {
        let here =
            |entry: &&(BrickId, u64)| entry.0 == brick && (offset..offset + len).contains(&entry.1);
        let rotten = self.rotten.iter().filter(here);
        rotten.fold([7; 16], |digest, (_, at)| digest.map(|byte| byte ^ (1 + (at % 251) as u8)))
    }

    fn work(&mut self) {
        while let Some(action) = self.volume.poll_action() {
            let text = format!("{action:?}");
            let spoiled = self.spoiled.iter().find(|(part, _)| text.contains(part));
            let spoiled = spoiled.map(|(_, outcome)| outcome.clone());
            let is_held = self.held.is_some_and(|part| text.contains(part));
            self.log.push(text);
            let (io, outcome) = match action {
                Action::Reply { request, result, .. } => {
                    self.replies.push((request.0, result));
                    continue;
                }
                Action::Report(_)
                | Action::ForgetMaps { .. }
                | Action::ForgetDigests { .. }
                | Action::Keep { .. }
                | Action::Release { .. } => continue,
                Action::StoreDigests { io, version, bytes } => {
                    self.digests.insert(version, bytes);
                    (io, Outcome::Ok)
                }
                Action::Digest { io, brick, offset, len, .. } => {
                    (io, Outcome::Digest(self.digest(brick, offset, len)))
                }
                Action::Read { io, brick, offset, len, wants_digest: true, .. } => {
                    (io, Outcome::Digest(self.digest(brick, offset, u64::from(len))))
                }
                Action::Copy { io, to, offset, len, .. } => {
                    self.rotten.retain(|(brick, at)| {
                        *brick != to || !(offset..offset + u64::from(len)).contains(at)
                    });
                    (io, Outcome::Ok)
                }
                Action::StoreMap { io, .. } => (io, Outcome::Ok),
                Action::Open { io, .. } => (io, Outcome::Opened { fenced: true }),
                Action::ReadCompanion { io, brick } => {
                    let slots = self.companions.get(&brick).cloned();
                    (io, slots.map_or(Outcome::NotFound, Outcome::Companion))
                }
                Action::WriteCompanion { io, brick, offset, bytes } => {
                    if spoiled.is_none() && offset < MAP_OFFSET {
                        let slots = self.companions.entry(brick).or_default();
                        slots[usize::from(offset != 0)] = bytes.to_vec();
                    }
                    (io, Outcome::Ok)
                }
                Action::SwapState { io, expected, bytes } => {
                    let fits = self.state == expected || self.state == bytes;
                    if fits {
                        self.state = bytes;
                    }
                    (io, if fits { Outcome::Ok } else { Outcome::Conflict })
                }
                Action::Read { io, .. }
                | Action::Write { io, .. }
                | Action::WriteJournal { io, .. }
                | Action::ReplayJournal { io, .. }
                | Action::Snapshot { io, .. }
                | Action::DropSnapshot { io, .. }
                | Action::CopySnapshot { io, .. }
                | Action::Zero { io, .. }
                | Action::Flush { io, .. }
                | Action::Compare { io, .. }
                | Action::Create { io, .. }
                | Action::ResizeBrick { io, .. }
                | Action::Delete { io, .. } => (io, Outcome::Ok),
            };
            let outcome = spoiled.unwrap_or(outcome);
            if is_held {
                self.unanswered.push((io, outcome));
                continue;
            }
            self.volume.handle(Time(self.now), Event::Done { io, incarnation: 1, outcome });
        }
    }

    /// Answers what was held, and holds nothing any more.
    fn let_go(&mut self) {
        self.held = None;
        for (io, outcome) in std::mem::take(&mut self.unanswered) {
            self.volume.handle(Time(self.now), Event::Done { io, incarnation: 1, outcome });
        }
        self.work();
    }

    fn ask(&mut self, request: u64, op: ClientOp) -> Option<Result<(), Failure>> {
        self.volume.handle(Time(self.now), Event::Request { request: RequestId(request), op });
        self.work();
        self.replies.iter().find(|(other, _)| *other == request).map(|(_, result)| result.clone())
    }

    fn write(&mut self, request: u64, offset: u64) -> Option<Result<(), Failure>> {
        self.ask(request, ClientOp::Write { offset, len: 4096, fua: false })
    }

    fn tick(&mut self, seconds: u64) {
        self.now += seconds * 1_000_000_000;
        self.volume.handle(Time(self.now), Event::Tick);
        self.work();
    }

    fn done(&self, part: &str) -> usize {
        self.log.iter().filter(|line| line.starts_with(part)).count()
    }

    fn states(&self) -> Vec<BrickState> {
        self.volume.status().bricks.iter().map(|brick| brick.state).collect()
    }
}

#[test]
fn hot_writes_cost_no_record() {
    let mut desk = Desk::new(&Settings::default());
    assert!(desk.volume.is_serving());
    assert_eq!(desk.write(1, 0), Some(Ok(())));
    let records = desk.done("WriteCompanion");
    for request in 2..200 {
        assert_eq!(desk.write(request, request % 900 * 4096), Some(Ok(())));
    }
    assert_eq!(desk.done("WriteCompanion"), records, "the region was named already");
    assert_eq!(desk.done("Write {"), 199 * 3);
    assert_eq!(desk.ask(500, ClientOp::Flush), Some(Ok(())));
    desk.tick(60);
    assert_eq!(desk.done("WriteCompanion"), records + 3, "a region at rest leaves the log");
}

#[test]
fn data_waits_for_the_record_that_names_its_region() {
    let mut desk = Desk::new(&Settings::default());
    desk.log.clear();
    desk.write(1, 8 << 20);
    let order: Vec<&str> = desk.log.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(
        order[..6],
        ["WriteCompanion", "WriteCompanion", "WriteCompanion", "Write", "Write", "Write"]
    );
}

#[test]
fn a_failed_replica_is_recorded_before_the_answer_and_comes_back_with_what_it_missed() {
    let mut desk = Desk::new(&Settings::default());
    assert_eq!(desk.write(1, 0), Some(Ok(())));
    desk.log.clear();
    desk.spoiled.push(("brick: BrickId(1)", Outcome::Failed));
    assert_eq!(desk.write(2, 4096), Some(Ok(())));
    let at = |part: &str| desk.log.iter().position(|line| line.starts_with(part));
    assert!(
        at("WriteCompanion") < at("SwapState") && at("SwapState") < at("Reply"),
        "{:#?}",
        desk.log
    );
    assert_eq!(desk.states()[1], BrickState::Stale);
    assert!(!Descriptor::decode(&desk.state).unwrap().in_sync.has(Slot(1)));

    assert_eq!(desk.write(3, 1 << 20), Some(Ok(())));
    desk.spoiled.clear();
    desk.log.clear();
    desk.tick(2);
    assert_eq!(desk.states(), [BrickState::InSync; 3]);
    let copied: Vec<&String> = desk.log.iter().filter(|line| line.starts_with("Copy")).collect();
    assert_eq!(copied.len(), 2, "one for each write that it missed: {copied:#?}");
    assert!(copied.iter().all(|line| line.ends_with("len: 4096 }")), "{copied:#?}");
}

#[test]
fn the_last_copy_stops_the_volume_with_a_text() {
    let mut desk = Desk::new(&Settings::default());
    desk.spoiled = vec![("Write {", Outcome::Unknown)];
    desk.write(1, 0);
    let VolumeState::Stopped(text) = desk.volume.state() else {
        panic!("{:?}", desk.volume.state())
    };
    for part in ["\"web\"", "node", "nas1", "0 s after it was attached", "At risk", "attach again"]
    {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(matches!(&desk.replies[..], [(1, Err(Failure::Stopped(_)))]));
    assert!(matches!(desk.write(2, 0), Some(Err(Failure::Stopped(_)))));
    desk.spoiled.clear();
    desk.attach_again(&Settings::default());
    assert_eq!(desk.write(3, 0), Some(Ok(())));
}

#[test]
fn a_full_node_fails_the_write_and_keeps_the_replica() {
    let mut desk = Desk::new(&Settings::default());
    desk.log.clear();
    desk.spoiled = vec![("brick: BrickId(2), request", Outcome::NoSpace)];
    assert_eq!(desk.write(1, 0), Some(Err(Failure::NoSpace)));
    assert_eq!(desk.states(), [BrickState::InSync; 3]);
    let copies = desk.log.iter().filter(|line| line.contains("from: BrickId(2)")).count();
    assert_eq!(copies, 2, "the others get what the full one has");
}

#[test]
fn too_few_replicas_refuse_or_wait() {
    let spoil = [("brick: BrickId(1)", Outcome::Failed), ("brick: BrickId(2)", Outcome::Failed)];
    for shortage in [Shortage::ReadOnly, Shortage::Wait] {
        let settings = Settings { min_in_sync: 2, shortage, ..Settings::default() };
        let mut desk = Desk::new(&settings);
        desk.spoiled = spoil.to_vec();
        desk.write(1, 0);
        let answer = desk.write(2, 0);
        assert_eq!(
            desk.ask(3, ClientOp::Read { offset: 0, len: 512, view: crate::View::Latest }),
            Some(Ok(()))
        );
        match shortage {
            Shortage::ReadOnly => assert_eq!(answer, Some(Err(Failure::ReadOnly))),
            Shortage::Wait => {
                assert_eq!(answer, None);
                desk.spoiled.clear();
                desk.tick(2);
                assert!(desk.replies.contains(&(2, Ok(()))));
            }
        }
    }
}

#[test]
fn volumes_grow_shrink_and_detach() {
    let mut desk = Desk::new(&Settings::default());
    assert_eq!(desk.ask(1, ClientOp::Resize { size: 2 * SIZE }), Some(Ok(())));
    assert_eq!(Descriptor::decode(&desk.state).unwrap().size, 2 * SIZE);
    assert_eq!(desk.write(2, SIZE), Some(Ok(())));
    assert_eq!(desk.ask(3, ClientOp::Resize { size: SIZE }), Some(Ok(())));
    assert_eq!(desk.write(4, SIZE), Some(Err(Failure::OutOfRange)));
    assert_eq!(desk.done("ResizeBrick"), 6);
    let zero = ClientOp::Zero { offset: 0, len: SIZE, how: ZeroKind::Discard, fua: false };
    assert_eq!(desk.ask(5, zero), Some(Ok(())));
    assert_eq!(desk.ask(6, ClientOp::Detach), Some(Ok(())));
    assert_eq!(desk.volume.state(), VolumeState::Detached);
    assert!(Descriptor::decode(&desk.state).unwrap().clean);
    for slots in desk.companions.values() {
        assert!(Record::newest(slots).unwrap().intent.is_empty());
    }
    desk.attach_again(&Settings::default());
    assert_eq!(desk.done("Copy"), 0, "nothing to level after a detachment in order");
}

#[test]
fn a_replica_that_was_away_while_the_volume_shrank_reads_zeros_where_it_grew() {
    let mut desk = Desk::new(&Settings::default());
    assert_eq!(desk.write(1, SIZE - 4096), Some(Ok(())));
    desk.spoiled.push(("brick: BrickId(1)", Outcome::Failed));
    assert_eq!(desk.ask(2, ClientOp::Resize { size: SIZE / 2 }), Some(Ok(())));
    assert_eq!(desk.states()[1], BrickState::Stale);
    assert_eq!(desk.ask(3, ClientOp::Resize { size: SIZE }), Some(Ok(())));
    desk.spoiled.clear();
    desk.log.clear();
    desk.tick(2);
    assert_eq!(desk.states(), [BrickState::InSync; 3]);
    let copied = desk.done("Copy") as u64 * u64::from(Settings::default().copy_bytes);
    assert!(copied >= SIZE / 2, "{copied} bytes");
}

#[test]
fn a_resize_that_the_state_did_not_get_never_was() {
    for size in [SIZE / 2, 2 * SIZE] {
        let mut desk = Desk::new(&Settings::default());
        assert_eq!(desk.write(1, SIZE - 4096), Some(Ok(())));
        desk.spoiled.push(("SwapState", Outcome::Failed));
        let state = Arc::clone(&desk.state);
        assert_eq!(desk.ask(2, ClientOp::Resize { size }), None);
        // The companions have it.
        desk.state = state;
        desk.spoiled.clear();
        desk.log.clear();
        desk.attach_again(&Settings::default());
        assert_eq!(desk.volume.size(), SIZE);
        let last = format!("offset: {}, len: {}", SIZE - (1 << 20), 1 << 20);
        let leveled =
            desk.log.iter().filter(|line| line.starts_with("Copy") && line.contains(&last));
        assert_eq!(leveled.count(), 2, "what lies past the smaller end still has its intent");
        assert_eq!(desk.write(3, SIZE - 4096), Some(Ok(())));
    }
}

#[test]
fn a_resize_ends_with_its_own_record_and_not_with_one_under_way() {
    let mut desk = Desk::new(&Settings::default());
    desk.volume.handle(
        Time(0),
        Event::Request { request: RequestId(1), op: ClientOp::Resize { size: 2 * SIZE } },
    );
    let mut asked = Vec::new();
    while let Some(action) = desk.volume.poll_action() {
        let Action::ResizeBrick { io, .. } = action else { panic!("{action:?}") };
        asked.push(io);
    }
    let done = |io, outcome| Event::Done { io, incarnation: 1, outcome };
    // The record that leaves this brick out is begun at once, with the old size.
    desk.volume.handle(Time(0), done(asked[1], Outcome::Failed));
    desk.volume.handle(Time(0), done(asked[0], Outcome::Ok));
    desk.volume.handle(Time(0), done(asked[2], Outcome::Ok));
    desk.work();
    assert_eq!(desk.replies, [(1, Ok(()))]);
    assert_eq!(Descriptor::decode(&desk.state).unwrap().size, 2 * SIZE);
    let at = |part: &str| desk.log.iter().rposition(|line| line.starts_with(part));
    assert!(at("SwapState") < at("Reply"), "{:#?}", desk.log);
    assert_eq!(desk.done("SwapState"), 4, "claimed, attached, left out, resized");
}

#[test]
fn replicas_are_compared_and_repaired() {
    let mut desk = Desk::new(&Settings::default());
    let verify = ClientOp::Verify { offset: 0, len: 65536 };
    assert_eq!(desk.ask(1, verify), Some(Ok(())));
    let differs = SlotSet::only(Slot(2));
    desk.spoiled = vec![("Compare", Outcome::Differs(differs))];
    assert_eq!(desk.ask(2, verify), Some(Err(Failure::Differs(differs))));
    let repair = ClientOp::Repair { offset: 0, len: 65536, source: Slot(1) };
    assert_eq!(desk.ask(3, repair), Some(Ok(())));
    assert_eq!(
        desk.done("WriteCompanion"),
        3,
        "a crash must not level a region from a replica that is bad"
    );
    let nobody = ClientOp::Repair { offset: 0, len: 512, source: Slot(200) };
    assert!(matches!(desk.ask(4, nobody), Some(Err(Failure::Refused(_)))));
    assert_eq!(desk.log.iter().filter(|line| line.contains("from: BrickId(1)")).count(), 2);
}

#[test]
fn a_crash_levels_what_had_intent() {
    let mut desk = Desk::new(&Settings::default());
    desk.write(1, 0);
    desk.log.clear();
    desk.attach_again(&Settings::default());
    let leveled: u64 = desk.done("Copy") as u64 * u64::from(Settings::default().copy_bytes);
    assert_eq!(leveled, 2 * u64::from(crate::MIN_REGION), "one region, to two replicas");
    assert!(desk.volume.is_serving());
}

#[test]
fn a_lost_state_is_rebuilt_from_companions() {
    let mut desk = Desk::new(&Settings::default());
    desk.spoiled.push(("brick: BrickId(1)", Outcome::Failed));
    desk.write(1, 0);
    let records = |desk: &Desk| -> Vec<Record> {
        desk.companions.values().map(|slots| Record::newest(slots).unwrap()).collect()
    };
    let all = records(&desk);
    let stored = Descriptor::decode(&desk.state).unwrap();
    let rebuilt = rebuild(&all, false, 5).unwrap();
    assert_eq!((rebuilt.in_sync, &rebuilt.bricks), (stored.in_sync, &stored.bricks));
    assert!(rebuilt.settled < stored.generation, "nobody says yet that the newest record holds");
    assert!(rebuilt.epoch > stored.epoch + 1000, "epochs of attachments that recorded nothing");
    let refusal = rebuild(&all[..2], false, 5).unwrap_err();
    assert!(refusal.contains("node 2") && refusal.contains("b2"), "{refusal}");
    assert!(rebuild(&all[..2], true, 5).is_ok());
    assert!(rebuild(&[], false, 5).is_err());

    // If the newest record came to nothing, the one it leaves out may be the one that others went on with.
    let left_out = [all[0].clone(), all[2].clone()];
    let refusal = rebuild(&left_out, false, 5).unwrap_err();
    assert!(refusal.contains("node 1") && refusal.contains("b1"), "{refusal}");
    desk.write(2, 8 << 20);
    let mut left_out = records(&desk);
    left_out.remove(1);
    let rebuilt = rebuild(&left_out, false, 5).unwrap();
    assert_eq!((rebuilt.settled, rebuilt.in_sync), (stored.generation, stored.in_sync));
    assert!(rebuilt.generation > stored.generation);
    desk.state = rebuilt.encode().into();
    desk.attach_again(&Settings::default());
    assert!(desk.volume.is_serving());
}

#[test]
fn records_survive_encoding_and_damage_is_seen() {
    let descriptor = descriptor();
    let mut record = Record::initial(&descriptor, Slot(1), 9).unwrap();
    record.sequence = 5;
    record.intent = vec![1, 5, 9];
    record.dirty = vec![(Slot(2), vec![(0, 3), (7, 1)])];
    let bytes = record.encode();
    assert_eq!(bytes.len() % crate::RECORD_ALIGNMENT, 0);
    assert_eq!(Record::decode(&bytes).unwrap(), record);
    let mut torn = bytes.clone();
    torn[64..].fill(0);
    assert_eq!(Record::decode(&torn), Err(DecodeError::Checksum));
    let older = Record { sequence: 4, ..record.clone() };
    assert_eq!(Record::newest(&[older.encode(), torn.clone()]).unwrap(), older);
    assert_eq!(Record::newest(&[older.encode(), bytes]).unwrap(), record);
    assert_eq!(Record::newest(&[Vec::new(), vec![0; 4096]]), Err(DecodeError::Empty));
    assert_eq!(Record::newest(&[vec![7; 4096], Vec::new()]), Err(DecodeError::Foreign));
    let many = (0..200_000).map(|run| (run * 3, 1 + run % 2)).collect();
    record.dirty = vec![(Slot(2), many)];
    let bytes = record.encode();
    assert!(bytes.len() <= crate::SLOT_BYTES);
    let merged = &Record::decode(&bytes).unwrap().dirty[0].1;
    let covers =
        |region: u32| merged.iter().any(|(first, n)| (*first..first + n).contains(&region));
    assert!((0..200_000).step_by(1777).all(|run| covers(run * 3)), "merging lost a region");
}

#[test]
fn what_is_wrong_is_refused_before_anything_is_done() {
    let mut wrong = descriptor();
    wrong.phase = Phase::Creating;
    let refusal = attach(&wrong.encode().into(), &Settings::default()).unwrap_err();
    assert_eq!(refusal, AttachError::Phase(Phase::Creating));
    let refusal = attach(&vec![1; 99].into(), &Settings::default()).unwrap_err();
    assert_eq!(refusal, AttachError::State(DecodeError::Foreign));
    let mut small = descriptor();
    small.bricks.pop();
    small.in_sync = SlotSet(3);
    let refusal = attach(&small.encode().into(), &Settings::default()).unwrap_err();
    assert_eq!(refusal, AttachError::Map);
}
