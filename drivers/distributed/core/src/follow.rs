// SPDX-License-Identifier: Apache-2.0
//! Words of asynchronous replication: one brick acknowledges, others follow it in order, each at a point.

use crate::{NodeId, RequestId, Shortage, ZeroKind};

/// When a write is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// When every replica in sync has it.
    #[default]
    Synchronous,
    /// When the one acknowledging brick has it; the others follow in the same order, within a bound.
    Asynchronous,
}

/// A place in the order of a volume's mutations: all up to it have happened, and none after it.
///
/// A token of a session is the highest point that it wrote or saw. A host that died leaves points of its epoch behind;
/// those of the next attachment are higher.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Point {
    /// The attach epoch in which the mutation was issued.
    pub epoch: u64,
    /// Its number within that epoch, from one.
    pub sequence: u64,
}

/// How old what a read sees may be. In synchronous mode every read sees the latest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum View {
    /// Every acknowledged write.
    #[default]
    Latest,
    /// At least everything up to this point.
    AtLeast(Point),
    /// Everything up to some point, which is behind by no more than the settings allow.
    Consistent,
}

/// A part of a follower's journal: bytes of a request's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JournalPart {
    /// Whose buffer; the driver was told to keep it.
    pub request: RequestId,
    /// The first byte in the volume.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
}

/// What a promotion loses: writes that were acknowledged and that the promoted follower does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The host that acknowledged them still knows them all.
    Exact {
        /// How many there are.
        writes: u64,
        /// Their bytes together; those that make zeros have none.
        bytes: u64,
        /// How many ranges, apart from each other, they touch.
        ranges: u64,
        /// The point that the promoted follower has.
        from: Point,
        /// The point of the last acknowledged write.
        to: Point,
        /// How long ago the oldest of them was acknowledged, in nanoseconds.
        oldest_ns: u64,
    },
    /// That host is gone, too: it is not known, and at most what the settings allow.
    AtMost {
        /// Bytes that a follower may have been behind.
        bytes: u64,
        /// Nanoseconds that it may have been behind.
        nanoseconds: u64,
    },
}

/// How a volume is to behave from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Configuration {
    /// When writes are acknowledged.
    pub mode: Mode,
    /// The node whose brick is to acknowledge; `None`: any, or the one that does.
    pub acknowledging: Option<NodeId>,
    /// See [`Settings::min_in_sync`](crate::Settings::min_in_sync).
    pub min_in_sync: u32,
    /// What a write does while there are fewer.
    pub shortage: Shortage,
    /// See [`Settings::most_behind_bytes`](crate::Settings::most_behind_bytes).
    pub most_behind_bytes: u64,
    /// See [`Settings::most_behind_ns`](crate::Settings::most_behind_ns).
    pub most_behind_ns: u64,
}

/// How far a follower is behind the acknowledging brick.
///
/// Its bytes never pass the bound. Its age may, while the follower finishes a batch or does not answer: then no write
/// begins. So what a promotion of it would lose was issued within the bound, and is older than the bound only because
/// time goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Behind {
    /// Where it is.
    pub point: Point,
    /// Writes that it lacks.
    pub writes: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long ago the oldest of them was issued, in nanoseconds.
    pub nanoseconds: u64,
}

/// What a companion says of its brick as a follower.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Follow {
    /// The point at which the brick is once its journal was replayed; `None`: it is at none.
    pub point: Option<Point>,
    /// Where the journal is in the companion, in bytes.
    pub journal_at: u64,
    /// What is in it; the data lies there in this order, without gaps.
    pub journal: Vec<JournalPiece>,
}

/// A range that the journal has. Pieces do not overlap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JournalPiece {
    /// The first byte in the brick.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// `None`: its data is in the journal; otherwise it reads zeros.
    pub zero: Option<ZeroKind>,
}
