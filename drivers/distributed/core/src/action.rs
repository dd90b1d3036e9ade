// SPDX-License-Identifier: Apache-2.0
//! What a volume asks of its driver.

use std::{fmt, sync::Arc};

use crate::{
    BrickId, Finding, Generation, IoId, JournalPart, Loss, NodeId, Point, RequestId, Session,
    SlotSet, ZeroKind,
};

/// Something to do. Everything with an `io` is answered by [`Event::Done`](crate::Event::Done), in any order.
///
/// Actions on one brick may be carried out concurrently: whatever must not overtake is not issued at the same time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Read a range of a brick for a request. The data goes to the client only with [`Action::Reply`]: a read that is
    /// not believed, or whose brick was given up, is issued again, perhaps in other pieces: the one at the request's
    /// first byte comes first and begins it anew. So data belongs to an `io`, and what an older one brings is dropped.
    Read {
        /// Names the answer.
        io: IoId,
        /// From here.
        brick: BrickId,
        /// For this request.
        request: RequestId,
        /// First byte, in the brick and in the volume.
        offset: u64,
        /// Bytes.
        len: u32,
        /// Whether to answer with [`Outcome::Digest`](crate::Outcome::Digest): another brick is read, too, and the data
        /// of either is as good if the digests are equal.
        wants_digest: bool,
    },
    /// Write a part of the request's buffer to the same offset of a brick.
    Write {
        /// Names the answer.
        io: IoId,
        /// To here.
        brick: BrickId,
        /// From this request's buffer.
        request: RequestId,
        /// First byte, in the brick and in the volume.
        offset: u64,
        /// Bytes.
        len: u32,
        /// Durable once answered.
        fua: bool,
    },
    /// Make a range of a brick read zeros.
    Zero {
        /// Names the answer.
        io: IoId,
        /// Where.
        brick: BrickId,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// How.
        how: ZeroKind,
        /// Durable once answered.
        fua: bool,
    },
    /// Make everything that the brick answered in its present session durable.
    Flush {
        /// Names the answer.
        io: IoId,
        /// Where.
        brick: BrickId,
    },
    /// Copy a range from one brick to the same place of another: afterwards the target reads what the source does.
    ///
    /// What a restarted source reads may be too old, and the target may be in sync: so if `source_incarnation` is given,
    /// look at the source's incarnation after reading and before writing, and answer
    /// [`Outcome::SourceFailed`](crate::Outcome::SourceFailed) if it is another one.
    Copy {
        /// Names the answer.
        io: IoId,
        /// The source.
        from: BrickId,
        /// The incarnation that the source must have.
        source_incarnation: Option<u64>,
        /// The target.
        to: BrickId,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// Read a range of a brick, in pieces of at most `chunk` bytes, and answer with
    /// [`Outcome::Digest`](crate::Outcome::Digest). Ranges of the same content have the same digest, whatever the pieces.
    Digest {
        /// Names the answer.
        io: IoId,
        /// From here.
        brick: BrickId,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Bytes of a piece at most.
        chunk: u32,
    },
    /// Compare a range of several bricks.
    Compare {
        /// Names the answer.
        io: IoId,
        /// The bricks with their slots, lowest slot first.
        bricks: Vec<(crate::Slot, BrickId)>,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// Write a record or shard map into a brick's companion, durably; one that is too small for it grows.
    WriteCompanion {
        /// Names the answer.
        io: IoId,
        /// Whose companion.
        brick: BrickId,
        /// Offset in the companion, in bytes.
        offset: u64,
        /// A multiple of 4096 bytes.
        bytes: Arc<[u8]>,
    },
    /// Read both slots of a brick's companion.
    ReadCompanion {
        /// Names the answer.
        io: IoId,
        /// Whose companion.
        brick: BrickId,
    },
    /// Open a brick and its companion in a new session, ending earlier ones where the backend can (attach with force
    /// at `session.epoch`), and give the brick `size`. Answer [`Outcome::Opened`](crate::Outcome::Opened) with the
    /// incarnation of the new session.
    Open {
        /// Names the answer.
        io: IoId,
        /// The brick.
        brick: BrickId,
        /// Its node.
        node: NodeId,
        /// The new session; higher than any before.
        session: Session,
        /// Size in bytes; a brick that missed a resize gets it now.
        size: u64,
    },
    /// Create a brick of this size and its companion, both reading zeros. One that exists under this name is of an
    /// earlier attempt, never had data, and is as good.
    Create {
        /// Names the answer.
        io: IoId,
        /// The brick.
        brick: BrickId,
        /// Its node.
        node: NodeId,
        /// Size in bytes.
        size: u64,
    },
    /// Change a brick's size.
    ResizeBrick {
        /// Names the answer.
        io: IoId,
        /// The brick.
        brick: BrickId,
        /// Size in bytes.
        size: u64,
    },
    /// Delete a brick and its companion; none is as good.
    Delete {
        /// Names the answer.
        io: IoId,
        /// The brick; it is not used any more.
        brick: BrickId,
        /// Its node.
        node: NodeId,
    },
    /// Take a snapshot of a brick under this number: all that the brick answered before, durably.
    Snapshot {
        /// Names the answer.
        io: IoId,
        /// The brick.
        brick: BrickId,
        /// The snapshot's number.
        number: u32,
    },
    /// Delete a snapshot of a brick; none is as good.
    DropSnapshot {
        /// Names the answer.
        io: IoId,
        /// The brick.
        brick: BrickId,
        /// The snapshot's number.
        number: u32,
    },
    /// Copy a range of a brick's own snapshot to another brick, where it becomes what the brick holds. The source is not
    /// opened: it may be condemned, or a keeper. Its failure is [`Outcome::SourceFailed`](crate::Outcome::SourceFailed).
    CopySnapshot {
        /// The operation.
        io: IoId,
        /// The brick whose snapshot is read.
        from: BrickId,
        /// Its node.
        from_node: NodeId,
        /// The snapshot's number.
        number: u32,
        /// The brick that gets it.
        to: BrickId,
        /// Where the range begins in both, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        len: u32,
    },
    /// Store this descriptor if what is stored now is exactly `expected`. If it is `bytes` already, that is as good (an
    /// attempt of unknown outcome was carried out). If it is anything else, answer
    /// [`Outcome::Conflict`](crate::Outcome::Conflict) and store nothing.
    SwapState {
        /// Names the answer.
        io: IoId,
        /// What must be stored now.
        expected: Arc<[u8]>,
        /// The descriptor.
        bytes: Arc<[u8]>,
    },
    /// Store a shard map in the state under this name, beside those that are there. Nobody else uses the name.
    StoreMap {
        /// Names the answer.
        io: IoId,
        /// The map's name.
        version: Generation,
        /// The map, see [`ShardMap::decode`](crate::ShardMap::decode).
        bytes: Arc<[u8]>,
    },
    /// Shard maps with smaller names count no more: delete them from the state, whenever. Not answered.
    ForgetMaps {
        /// The name of the one that counts.
        before: Generation,
        /// But these: snapshots have them.
        but: Vec<Generation>,
    },
    /// Store a checkpoint of digests in the state under this name, beside those that are there. Nobody else uses the name.
    StoreDigests {
        /// Names the answer.
        io: IoId,
        /// The checkpoint's name.
        version: Generation,
        /// The checkpoint.
        bytes: Arc<[u8]>,
    },
    /// Checkpoints of digests with smaller names count no more: delete them from the state, whenever. Not answered.
    ForgetDigests {
        /// The name of the one that counts.
        before: Generation,
    },
    /// Answer a client. The last action that concerns this request, apart from abandoned ones.
    Reply {
        /// Whose answer.
        request: RequestId,
        /// How it ended.
        result: Result<(), Failure>,
        /// Where a write stands in the order, or what a read saw at most: a session's token rises to it.
        point: Point,
    },
    /// Keep the buffer of a write beyond its [`Action::Reply`], and give its number to no other request, until
    /// [`Action::Release`]. When the attachment is over nothing is kept any more.
    Keep {
        /// Whose buffer.
        request: RequestId,
    },
    /// The buffer may go, once the actions that name it have ended.
    Release {
        /// Whose buffer.
        request: RequestId,
    },
    /// Write parts of kept buffers into a brick's companion, durably, one after the other without gaps, then zeros up to
    /// a multiple of 4096 bytes; a companion that is too small for it grows.
    WriteJournal {
        /// Names the answer.
        io: IoId,
        /// Whose companion.
        brick: BrickId,
        /// Offset in the companion, in bytes.
        offset: u64,
        /// What.
        parts: Vec<JournalPart>,
    },
    /// Copy a range of a brick's companion into the brick.
    ReplayJournal {
        /// Names the answer.
        io: IoId,
        /// The brick.
        brick: BrickId,
        /// Where it is in the companion, in bytes.
        journal: u64,
        /// First byte in the brick.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// Tell the operator.
    Report(Notice),
}

/// Why a request failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The range lies outside the volume, or is empty.
    OutOfRange,
    /// A node that holds a replica is full. The volume is consistent; each sector is old or new.
    NoSpace,
    /// Fewer replicas are in sync than `min_in_sync`.
    ReadOnly,
    /// The volume stopped; the text says why and what to do. A write's outcome is unknown.
    Stopped(Arc<str>),
    /// Another host has the volume. A write's outcome is unknown.
    Fenced,
    /// Asynchronous mode: the acknowledging brick is gone; the text says what to do. The outcome of a write is unknown, and
    /// that of a promotion.
    Headless(Arc<str>),
    /// `Verify`: these replicas differ from the lowest one.
    Differs(SlotSet),
    /// `Read`: replicas differ, or cannot be read, and nothing tells what is right; the text names the nodes.
    Damaged(Arc<str>),
    /// `Verify`, `Repair`, `Resize`, [`Event::Arrange`](crate::Event::Arrange): could not be done; the text says why. Nothing else changed.
    Refused(Arc<str>),
}

/// What an operator should know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A replica was given up: what it missed will be copied when it is back.
    Stale {
        /// The brick.
        brick: BrickId,
        /// Its node.
        node: NodeId,
        /// Why.
        cause: Cause,
    },
    /// A resync began.
    ResyncStarted {
        /// The brick.
        brick: BrickId,
        /// Bytes to be copied.
        bytes: u64,
    },
    /// A replica is in sync again.
    InSync {
        /// The brick.
        brick: BrickId,
        /// Bytes copied since the resync started.
        copied: u64,
    },
    /// A brick is replaced by a fresh one on the same node.
    Replaced {
        /// The brick that is given up and will be deleted.
        old: BrickId,
        /// The fresh one.
        new: BrickId,
        /// The node of both.
        node: NodeId,
        /// Why.
        cause: Cause,
    },
    /// Replicas are not what they must be.
    Damaged(Arc<Finding>),
    /// Bad replicas were mended, or could not be.
    Mended(Arc<Finding>),
    /// Asynchronous mode: the acknowledging brick is gone. Followers serve what they have until one is promoted.
    HeadLost {
        /// The brick.
        brick: BrickId,
        /// Its node.
        node: NodeId,
        /// Why.
        cause: Cause,
    },
    /// A brick follows: it is at a point, and gets what comes after it in order.
    Following {
        /// The brick.
        brick: BrickId,
        /// Its node.
        node: NodeId,
        /// Where it is.
        point: Point,
    },
    /// A follower cannot go on from where it is: it has to be resynced, and is at no point until then.
    FellOut {
        /// The brick.
        brick: BrickId,
        /// Its node.
        node: NodeId,
    },
    /// A follower acknowledges from now on.
    Promoted {
        /// The brick.
        brick: BrickId,
        /// Its node.
        node: NodeId,
        /// What is lost by it.
        loss: Loss,
    },
    /// The volume serves.
    Serving,
    /// The volume stopped.
    Stopped(Arc<str>),
}

/// Why a replica was given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// An operation failed.
    Failed,
    /// An operation was not answered in time; it may still land.
    Unknown,
    /// The backend restarted and may have lost what was not flushed.
    Restarted,
    /// The health check failed.
    NodeDown,
    /// It does not exist.
    NotFound,
    /// Its companion is missing, damaged, of another volume, or older than it must be.
    Companion,
    /// It could not be made equal because its node is full.
    NoSpace,
    /// It could not be opened when the volume was attached.
    Unreachable,
    /// It holds no shard any more, and will be deleted.
    Emptied,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed => "an operation failed",
            Self::Unknown => "an operation was not answered in time",
            Self::Restarted => "the backend restarted",
            Self::NodeDown => "the node failed its health check",
            Self::NotFound => "the brick does not exist",
            Self::Companion => "its companion is not what it must be",
            Self::NoSpace => "the node is full",
            Self::Unreachable => "it could not be opened",
            Self::Emptied => "its shards were moved away",
        })
    }
}
