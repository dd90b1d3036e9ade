// SPDX-License-Identifier: Apache-2.0
//! What a volume remembers of things under way.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    BrickId, Cause, Configuration, Generation, MapPlace, NodeId, Point, RequestId, ShardMap, Slot,
    SlotSet, Time, View, ZeroKind, extents::ExtentSet,
};

use super::followers::Follower;

/// Where the attachment is; drawn on the crate's front page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Claiming,
    Opening,
    Leveling,
    Recording,
    Serving,
    Detached,
    Stopped(Arc<str>),
    Fenced,
}

/// Whether a brick counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    InSync,
    /// A record that lists it as in sync may exist; it will be by the commit that is under way.
    Joining,
    /// It lacks something, and a record that lists it as in sync may exist.
    Failing,
    /// Every record that counts says that it is not in sync.
    Stale,
    /// There is no brick in this slot.
    Vacant,
}

/// The way to a brick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Link {
    Closed,
    Creating,
    Opening,
    /// Its companion is being read.
    Checking,
    Open,
}

/// A slot's present brick.
#[derive(Debug)]
pub(super) struct Brick {
    pub(super) id: BrickId,
    pub(super) node: NodeId,
    pub(super) role: Role,
    pub(super) link: Link,
    /// Counts openings in this epoch.
    pub(super) opening: u32,
    /// Mutations of earlier openings count no more: the backend proved that they cannot land.
    pub(super) fenced_before: u32,
    /// Another attachment may still have operations under way.
    pub(super) foreign: bool,
    /// The last incarnation that was believed.
    pub(super) incarnation: Option<u64>,
    /// Mutations of this epoch that may yet land.
    pub(super) unknown: u32,
    /// Stale, but gets new writes where it lacks nothing.
    pub(super) receiving: bool,
    /// Nothing was dirty when the flush under way began.
    pub(super) whole_at_flush: bool,
    /// To be listed as in sync by the next commit.
    pub(super) join: bool,
    /// What it lacks.
    pub(super) dirty: ExtentSet,
    /// What it got and has not flushed. While it is in sync only repairs: of writes the intent log knows.
    pub(super) volatile: ExtentSet,
    /// The part of `volatile` that the flush under way covers.
    pub(super) flushing: ExtentSet,
    pub(super) copies: u32,
    /// How many copies those shards have left that are copied now, and from where on.
    pub(super) copy_cursor: (u32, u64),
    pub(super) copied: u64,
    pub(super) reads: u32,
    /// The sequence of the next companion record.
    pub(super) sequence: u64,
    pub(super) retry_at: Time,
    /// A fresh brick that the state does not know yet.
    pub(super) unrecorded: bool,
    /// The generation that first lists it.
    pub(super) listed_in: Generation,
    /// It exists, as far as this attachment knows.
    pub(super) created: bool,
    pub(super) cause: Option<(Cause, Time)>,
    /// A record may exist that lists it as in sync and that the state does not have.
    pub(super) may_be_listed: bool,
    /// It is empty, and its slot is to be vacated.
    pub(super) leaving: bool,
    /// Where its companion has shard maps that records name, or will name.
    pub(super) kept: Vec<MapPlace>,
    /// One that is being written.
    pub(super) keeping: Option<MapPlace>,
    /// What it is in asynchronous mode, outside the in-sync set.
    pub(super) follower: Follower,
}

/// A shard map that is being stored.
#[derive(Debug)]
pub(super) struct MapWrite {
    pub(super) version: Generation,
    pub(super) bytes: Arc<[u8]>,
    /// For how many shards it says where they are.
    pub(super) shards: u64,
    pub(super) is_stored: bool,
    /// When to ask the state again; `None` while it is asked.
    pub(super) retry_at: Option<Time>,
}

/// Where an operator wants the shards.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) request: RequestId,
    pub(super) nodes: Vec<NodeId>,
    /// The slots of this map are indices of `slots`.
    pub(super) map: ShardMap,
    /// The slots of `nodes`, as far as they have one.
    pub(super) slots: Vec<Slot>,
    /// Shards that are to move.
    pub(super) queue: VecDeque<u64>,
    pub(super) is_queued: bool,
}

impl Goal {
    /// Where the shard is to be that has this byte.
    pub(super) fn wanted(&self, offset: u64) -> SlotSet {
        self.map
            .set(offset / self.map.shard_size())
            .iter()
            .filter_map(|slot| self.slots.get(slot.index()))
            .copied()
            .collect()
    }
}

/// A shard on its way to another replica set; drawn in `moves`.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) shard: u64,
    /// Its bytes.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) old: SlotSet,
    pub(super) new: SlotSet,
    /// Those of `new` that are not in `old`.
    pub(super) gains: SlotSet,
    /// What each of these lacks, and what is being copied to it.
    pub(super) lacks: Vec<(Slot, ExtentSet, ExtentSet)>,
    pub(super) stage: MoveStage,
}

impl Move {
    pub(super) fn lacks_nothing(&self) -> bool {
        self.lacks.iter().all(|(_, lacks, issued)| lacks.is_empty() && issued.is_empty())
    }

    /// Whether the record under way, or the next one, says that it is done.
    pub(super) fn is_recorded(&self) -> bool {
        self.stage == MoveStage::Recording
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MoveStage {
    /// No record says yet that its gains have litter.
    Unlisted,
    /// The one under way does.
    Listing,
    Filling,
    /// Nothing was lacking when the flush under way began.
    Flushing,
    Ready,
    /// The record under way says that the new set counts.
    Recording,
}

/// What a brick holds of a shard that it is no replica of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    pub(super) stage: RestStage,
    /// Bytes of the shard that were freed, from its beginning.
    pub(super) done: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum RestStage {
    #[default]
    Waiting,
    /// A piece is being freed.
    Sweeping,
    /// All is freed, and records still list it.
    Swept,
    /// The record under way does not list it any more.
    Dropping,
}

impl Brick {
    pub(super) fn new(id: BrickId, node: NodeId, role: Role) -> Self {
        Self {
            id,
            node,
            role,
            link: Link::Closed,
            opening: 0,
            fenced_before: 0,
            foreign: true,
            incarnation: None,
            unknown: 0,
            receiving: false,
            whole_at_flush: false,
            join: false,
            dirty: ExtentSet::default(),
            volatile: ExtentSet::default(),
            flushing: ExtentSet::default(),
            copies: 0,
            copy_cursor: (0, 0),
            copied: 0,
            reads: 0,
            sequence: 0,
            retry_at: Time(0),
            unrecorded: false,
            listed_in: Generation::default(),
            created: true,
            cause: None,
            may_be_listed: false,
            leaving: false,
            kept: Vec::new(),
            keeping: None,
            follower: Follower::default(),
        }
    }

    /// Whether writes go to it and must have reached it before they are acknowledged.
    pub(super) fn counts(&self) -> bool {
        matches!(self.role, Role::InSync | Role::Joining)
    }

    /// What a record says that it lacks, besides the intent.
    pub(super) fn lacks(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.dirty.iter().chain(self.volatile.iter()).chain(self.flushing.iter())
    }
}

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Read,
    Write {
        fua: bool,
    },
    Zero {
        how: ZeroKind,
        fua: bool,
    },
    Verify,
    Repair {
        source: Slot,
    },
    /// A read whose replicas differ: it has its range for itself.
    Doubt,
    /// Reads a unit of all replicas.
    Digest,
    /// Copies to bad replicas what a good one has.
    Mend {
        source: Slot,
        bad: SlotSet,
    },
    Resync {
        slot: Slot,
    },
    /// Copies a piece of a shard to a brick that gains it.
    Fill {
        slot: Slot,
        shard: u64,
    },
    /// Frees a piece of a shard on a brick that has it no longer.
    Sweep {
        slot: Slot,
        shard: u64,
    },
    Level {
        round: u32,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Waits for its range, its turn, or enough replicas.
    Queued,
    /// Waits for its regions to be committed.
    Intent,
    Running,
    /// A brick was full: the others get what that one has.
    Leveling,
    /// Waits for the record that says who missed it.
    Settling,
}

/// An operation on a range.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) kind: Kind,
    pub(super) stage: Stage,
    pub(super) request: Option<RequestId>,
    pub(super) offset: u64,
    pub(super) len: u64,
    /// The step under way: where it begins and how long it is.
    pub(super) at: u64,
    pub(super) step: u64,
    /// Whether the step's regions are held.
    pub(super) holds: bool,
    pub(super) outstanding: u32,
    pub(super) missed: SlotSet,
    pub(super) full: SlotSet,
    pub(super) differs: SlotSet,
    pub(super) retry: bool,
    /// How old what a read sees may be, and where the follower was that it went to.
    pub(super) view: View,
    pub(super) point: Option<Point>,
    /// Bytes with which it counts as not in the log yet.
    pub(super) admitted: u64,
    /// Its first number in the order, the first of the step, and the last; zero: none.
    pub(super) first_entry: u64,
    pub(super) step_entry: u64,
    pub(super) last_entry: u64,
}

impl Op {
    pub(super) fn new(kind: Kind, request: Option<RequestId>, offset: u64, len: u64) -> Self {
        Self {
            kind,
            stage: Stage::Queued,
            request,
            offset,
            len,
            at: offset,
            step: 0,
            holds: false,
            outstanding: 0,
            missed: SlotSet::EMPTY,
            full: SlotSet::EMPTY,
            differs: SlotSet::EMPTY,
            retry: false,
            view: View::Latest,
            point: None,
            admitted: 0,
            first_entry: 0,
            step_entry: 0,
            last_entry: 0,
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.offset + self.len
    }
}

/// A range that an operation has for itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) op: u64,
    /// Whether in-sync replicas may differ there.
    pub(super) hides: bool,
    /// Whether a client wrote it.
    pub(super) client: bool,
}

/// What an issued action was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum IoKind {
    Read,
    Mutate,
    Copy {
        from: Slot,
    },
    Compare,
    /// Reads for a digest.
    Digest,
    Flush,
    Companion,
    /// A step of a follower's batch, and the flush of it.
    Follow,
    FollowFlush,
    Snapshot {
        number: u32,
    },
    DropSnapshot {
        number: u32,
    },
    /// A step of the replay of snapshots.
    Replay,
    /// A shard map, into a companion.
    Map,
    /// A shard map, into the state.
    MapState,
    /// Digests, into the state.
    DigestState,
    Check,
    Open,
    Create,
    Resize,
    Delete,
    State,
}

/// An issued action.
#[derive(Clone, Copy, Debug)]
pub(super) struct Io {
    pub(super) kind: IoKind,
    /// Zero where there is none.
    pub(super) op: u64,
    pub(super) slot: Slot,
    pub(super) brick: BrickId,
    pub(super) opening: u32,
    pub(super) incarnation: Option<u64>,
    pub(super) offset: u64,
    pub(super) len: u64,
    /// Nobody waits for it any more; it may yet land.
    pub(super) abandoned: bool,
}

impl Io {
    /// Whether it may change a brick long after nobody waits for it.
    pub(super) fn mutates(&self) -> bool {
        matches!(
            self.kind,
            IoKind::Mutate
                | IoKind::Copy { .. }
                | IoKind::Companion
                | IoKind::Follow
                | IoKind::Map
                | IoKind::Resize
        )
    }
}

/// A record on its way into companions and state.
#[derive(Debug)]
pub(super) struct Commit {
    /// The regions that it names.
    pub(super) regions: Vec<u32>,
    /// The in-sync companions that have not answered.
    pub(super) pending: SlotSet,
    /// Those that join: they get the record when all others have it.
    pub(super) joining: Option<(SlotSet, crate::Record)>,
    /// A brick failed that had not answered: the record must be written again without it.
    pub(super) void: bool,
    /// It says what the barrier wants recorded; one that began earlier does not.
    pub(super) ends_barrier: bool,
    /// The checkpoint of digests that it names, and how much had become void.
    pub(super) digests: Option<Generation>,
    pub(super) voided: u64,
    /// Set if membership changes.
    pub(super) change: Option<Change>,
    /// Membership as the state will get it.
    pub(super) bytes: Arc<[u8]>,
    /// The companions have it, and the state is asked.
    pub(super) storing: bool,
    /// When to try the state again; `None` while it is asked.
    pub(super) retry_at: Option<Time>,
}

/// A change of membership.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    pub(super) excluded: SlotSet,
    pub(super) joined: SlotSet,
}

/// A flush of all bricks, for everybody who waited when it began.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) requests: Vec<RequestId>,
    pub(super) outstanding: SlotSet,
    pub(super) missed: SlotSet,
    pub(super) settling: bool,
}

/// Something that needs everything else to have ended.
#[derive(Debug)]
pub(super) struct Barrier {
    pub(super) request: RequestId,
    pub(super) kind: BarrierKind,
    pub(super) stage: BarrierStage,
    pub(super) outstanding: u32,
    pub(super) full: bool,
    /// The bricks have the new size.
    pub(super) resized: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BarrierKind {
    Resize {
        size: u64,
    },
    Detach,
    Configure {
        configuration: Configuration,
    },
    /// Until this time.
    Snapshot {
        number: u32,
        until: Time,
    },
}

/// A snapshot that is being taken.
#[derive(Debug)]
pub(super) struct Snapping {
    pub(super) request: RequestId,
    pub(super) number: u32,
    pub(super) stage: SnappingStage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SnappingStage {
    /// No record names it yet.
    Unlisted,
    /// The one under way does.
    Listing,
    Listed,
    /// Writes wait.
    Taking,
    /// All bricks have it, and no record says so yet.
    Taken,
    /// The one under way does.
    Recording,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BarrierStage {
    Draining,
    /// The shard map is stored anew, so that it says of every shard to come where it is.
    Mapping,
    Flushing,
    Bricks,
    Recording,
}
