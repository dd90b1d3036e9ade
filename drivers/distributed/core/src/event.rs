// SPDX-License-Identifier: Apache-2.0
//! What the driver tells a volume.

use crate::{Configuration, IoId, NodeId, RequestId, ShardMap, Slot, View};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client asks for something; answered by exactly one [`Action::Reply`](crate::Action::Reply).
    Request {
        /// The caller's number of this request, not used by another that is under way.
        request: RequestId,
        /// What is asked.
        op: ClientOp,
    },
    /// An action ended, or the driver stopped waiting for it.
    ///
    /// An action answered with [`Outcome::Unknown`] is answered a second time once its true end is known: any other
    /// outcome then proves that it can no longer land. What arrives for an action that no longer matters is ignored.
    Done {
        /// The action.
        io: IoId,
        /// The storage incarnation of the brick, read after the action ended; of the target for a copy. Zero where the
        /// action has no brick.
        incarnation: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// An operator wants shards to be elsewhere; answered by one [`Action::Reply`](crate::Action::Reply) when they are,
    /// or when another arrangement is asked for. It is forgotten when the attachment ends: what has moved by then stays
    /// where it is.
    Arrange {
        /// The caller's number of this request, not used by another that is under way.
        request: RequestId,
        /// Where all shards are to be.
        arrangement: Arrangement,
    },
    /// Somebody wants a snapshot: all that was acknowledged before, and nothing that is asked for after the answer.
    Snapshot {
        /// The caller's number of this request.
        request: RequestId,
        /// A name that no snapshot of the volume has.
        name: String,
        /// The time of now, in seconds since 1970, for those who list it.
        unix_secs: u64,
    },
    /// Somebody wants a snapshot no more; [`Status::snapshots`](crate::Status) has the numbers.
    DeleteSnapshot {
        /// The caller's number of this request.
        request: RequestId,
        /// Which.
        number: u32,
    },
    /// The volume is to behave otherwise; answered when it does. A change of mode waits for everything under way, and is
    /// refused, with the reason, where it cannot be.
    Configure {
        /// The caller's number of this request.
        request: RequestId,
        /// How.
        configuration: Configuration,
    },
    /// The acknowledging brick is gone, and a follower is to take its place. What that loses is told with
    /// [`Notice::Promoted`](crate::Notice::Promoted) before the answer.
    Promote {
        /// The caller's number of this request.
        request: RequestId,
        /// The follower's node.
        node: NodeId,
        /// Not to give it first what the host still remembers for it.
        at_once: bool,
    },
    /// A node answers its health check again.
    NodeUp(NodeId),
    /// A node failed its health check: its bricks are given up at once instead of with their next error; but not one
    /// that is the last in-sync copy of a shard.
    NodeDown(NodeId),
    /// A node cannot be relied on: its bricks that are closed are not opened before this time has passed, or
    /// [`Event::NodeUp`]. Said again it counts from then.
    Hold {
        /// The node.
        node: NodeId,
        /// For how long.
        nanoseconds: u64,
    },
    /// Whether reads and the sources of copies are to be other replicas than those of a node, where there are some in
    /// sync.
    Shun {
        /// The node.
        node: NodeId,
        /// Whether it is to be avoided.
        is_shunned: bool,
    },
    /// How hard healing may work from now on. It concerns resyncs, moves, and the freeing of what they leave; not what an
    /// attachment has to make equal before it serves. What is under way comes to its end.
    Throttle {
        /// Copies that are under way at once, for the whole volume; zero: none begins.
        copies: u32,
        /// Bytes that one copy moves at most.
        bytes: u32,
        /// Bytes that all copies together move in a second; `None`: as many as they can.
        rate: Option<u64>,
    },
    /// Look at all that is at rest: whether replicas are equal, and what they were; [`Volume::scrub`](crate::Volume::scrub)
    /// tells how far it is. One that is under way goes on. Ignored while the volume does not serve.
    Scrub {
        /// Whether bad replicas are mended where it is known what is right.
        repairs: bool,
        /// The wall clock, in milliseconds since 1970; kept for the operator.
        started: u64,
    },
    /// End the scrub that is under way.
    EndScrub,
    /// Whether each read is answered only if two replicas agree, where two are in sync.
    VerifyReads(bool),
    /// Time passed. Due whenever [`Volume::next_tick`](crate::Volume::next_tick) is reached; more often is harmless.
    Tick,
}

/// Where the shards of a volume are to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrangement {
    /// The nodes that are to have a brick, each once, at most [`MAX_BRICKS`](crate::MAX_BRICKS). Those that the volume
    /// has besides lose theirs.
    pub nodes: Vec<NodeId>,
    /// The replica set of every shard; a [`Slot`] is an index into `nodes` here. With smaller shards than the volume's
    /// these are split before they are moved, with larger ones they are merged after that; one size divides the other.
    pub map: ShardMap,
}

/// What a client asks for. Offsets and lengths in bytes, lengths at least one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientOp {
    /// Read a range.
    Read {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        len: u32,
        /// How old what it sees may be.
        view: View,
    },
    /// Write a range from the request's buffer.
    Write {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        len: u32,
        /// Durable once acknowledged.
        fua: bool,
    },
    /// Make a range read zeros.
    Zero {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        len: u64,
        /// How.
        how: ZeroKind,
        /// Durable once acknowledged.
        fua: bool,
    },
    /// Make everything acknowledged before durable.
    Flush,
    /// Change the volume's size. Waits for everything under way. Data past a smaller size is gone.
    Resize {
        /// The new size.
        size: u64,
    },
    /// Compare the in-sync replicas of a range; answered with [`Failure::Differs`](crate::Failure::Differs) if they
    /// are not equal.
    Verify {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        len: u32,
    },
    /// Make the in-sync replicas of a range equal to the one in `source`, which must be in sync.
    Repair {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        len: u32,
        /// The replica that is right.
        source: Slot,
    },
    /// End the attachment: waits for everything under way, flushes, and leaves companions without intent.
    Detach,
}

/// How a range is made to read zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ZeroKind {
    /// Write zeros; freeing is allowed.
    Zero,
    /// Write zeros; the range stays allocated.
    Allocated,
    /// Free the range; it reads zeros afterwards.
    Discard,
}

/// How an action ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// As asked.
    Ok,
    /// `Open`: a session exists.
    Opened {
        /// Proof that no operation of an earlier session, of this host or any other, can land any more.
        fenced: bool,
    },
    /// `ReadCompanion`: the bytes of its two slots, each [`SLOT_BYTES`](crate::SLOT_BYTES) or fewer if what is left out
    /// reads zeros.
    Companion([Vec<u8>; 2]),
    /// `Copy`: the source could not be read, or has another incarnation; nothing was written to the target.
    SourceFailed,
    /// `Digest`, and `Read` if it asks for it: the digest of what was read.
    Digest(crate::Digest),
    /// `Compare`: the replicas that differ from the lowest one.
    Differs(crate::SlotSet),
    /// `Read`, `Digest`: the storage does not give this range back, and the rest of it does.
    Damaged,
    /// Did not happen, or not all of it, and can no longer land. Each sector is old or new.
    Failed,
    /// The node is full. Each sector is old or new. Not a failure of the node.
    NoSpace,
    /// The brick or companion does not exist.
    NotFound,
    /// Somebody with a later epoch holds the brick: this host has lost the volume.
    Fenced,
    /// `SwapState`: something else is stored: another host has the volume, or got it first.
    Conflict,
    /// No answer in time: it may have happened, or may happen at any later time.
    Unknown,
}
