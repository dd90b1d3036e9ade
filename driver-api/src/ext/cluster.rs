// SPDX-License-Identifier: Apache-2.0
use abi_stable::{
    StableAbi,
    std_types::{ROption, RString, RVec, Tuple2},
};

use super::{
    asynchronous::{Promote, Promotion, no_promotion},
    movement::{Movement, MovementPlan, NodeStep, Rebalancing, no_movement},
    recovery::{RecoveredVolume, no_recovery},
    scrubbing::{Scrubbing, no_scrubs},
};
use crate::{Health, IoBuf, Op, OpContext, WriteFlags};

/// Nodes, and volumes whose shards have replicas on them. Since 1.2.
///
/// Nodes have names: those of the backends that they are. Volumes have the names that [`Backend`](crate::Backend) gave
/// them. A node or volume that is not there: `NotFound`.
///
/// What touches a volume's bytes (`read_shard`, `write_shard`, `verify`, `repair`) goes through its attachment, in the
/// same order as the attachment's own operations: the host attaches the volume first and keeps it so. A volume that this
/// backend has not attached is refused with `InvalidArgument`, and a mutation of one attached read-only with
/// `PermissionDenied`.
pub trait Cluster: Send + Sync {
    /// All nodes, by name. `[any thread · backend open]`
    fn nodes(&self, cx: &OpContext) -> Op<RVec<NodeInfo>>;

    /// Makes a backend of the host a node. The same node again is the same node: success; one of that name with other
    /// properties: `AlreadyExists`. A backend that cannot be a node, or holds another cluster's bricks: refused, and
    /// nothing is written. `[any thread · backend open]`
    fn add_node(&self, cx: &OpContext, node: NodeSpec) -> Op<NodeInfo>;

    /// Changes what is said of a node, durably. Bricks stay where they are. `[any thread · backend open]`
    fn set_node(&self, cx: &OpContext, name: &str, change: NodeChange) -> Op<NodeInfo>;

    /// Takes a node out. `InUse` while bricks are on it; the error's context `volumes` names the volumes that have
    /// them. `[any thread · backend open]`
    fn remove_node(&self, cx: &OpContext, name: &str) -> Op<()>;

    /// How a volume's replicas are: now if it is attached, otherwise as it was detached. `[any thread · backend open]`
    fn replication(&self, cx: &OpContext, volume: &str) -> Op<ReplicationInfo>;

    /// A volume's shards from the one numbered `first` on, in order, at most `limit`; fewer only at the volume's end.
    /// `[any thread · backend open]`
    fn shards(&self, cx: &OpContext, volume: &str, first: u64, limit: u32) -> Op<RVec<ShardInfo>>;

    /// Reads `len` bytes at `offset` within a shard, at most [`max_io`](crate::Capabilities::max_io) of them. The reply
    /// has exactly `len` bytes. Past the shard's end: `OutOfRange`. `[any thread · volume attached]`
    fn read_shard(
        &self,
        cx: &OpContext,
        volume: &str,
        shard: u64,
        offset: u64,
        len: u32,
    ) -> Op<IoBuf>;

    /// Writes to every in-sync replica, as a write of the volume does: `data` at `offset` within a shard, at most
    /// [`max_io`](crate::Capabilities::max_io) bytes. `flags` know [`WriteFlags::FUA`]. Past the shard's end:
    /// `OutOfRange`. `[any thread · volume attached]`
    fn write_shard(
        &self,
        cx: &OpContext,
        volume: &str,
        shard: u64,
        offset: u64,
        data: IoBuf,
        flags: WriteFlags,
    ) -> Op<()>;

    /// Compares the in-sync replicas of `len` bytes at `offset` of the volume, with no write of that range under way.
    /// The range is one piece: not empty, at most [`PIECE`] bytes, inside one shard. `[any thread · volume attached]`
    fn verify(&self, cx: &OpContext, volume: &str, offset: u64, len: u32) -> Op<Comparison>;

    /// Makes the in-sync replicas of one piece, as in [`Cluster::verify`], equal to the one on the node `source`,
    /// durably. A source that is not in sync is refused with `InvalidArgument`. `[any thread · volume attached]`
    fn repair(&self, cx: &OpContext, volume: &str, offset: u64, len: u32, source: &str) -> Op<()>;

    /// Makes volumes whose state is lost anew from what their bricks say of themselves: the one named, or all that are
    /// found if `volume` is empty. A named one of which nothing is found: `NotFound`.
    ///
    /// A volume that the state knows is left as it is, but for bricks of it that are back on a node. One that cannot be
    /// made anew is told with the reason, and the others are made. With `accept_missing`, bricks that were not found
    /// and may have later writes are given up. With `dry_run` nothing is changed, and nobody who has a volume attached
    /// is disturbed. What was made anew is to be attached as any other. Since 1.3. `[any thread · backend open]`
    fn recover(
        &self,
        _cx: &OpContext,
        _volume: &str,
        _accept_missing: bool,
        _dry_run: bool,
    ) -> Op<RVec<RecoveredVolume>> {
        Op::err(no_recovery())
    }

    /// What would move if these steps were taken, in their order, and then `volume`, or every volume if that is empty,
    /// was rebalanced; with no step, what rebalancing would move now. Nothing is changed. A node of a step that is not
    /// there, or is there already: refused. A volume that cannot be placed so is told with the reason, and the others
    /// are planned. Since 1.3. `[any thread · backend open]`
    fn plan(&self, _cx: &OpContext, _volume: &str, _steps: RVec<NodeStep>) -> Op<MovementPlan> {
        Op::err(no_movement("plan"))
    }

    /// Marks a node, durably: it gets no shards, and the next rebalancing of a volume takes those that it has. With `on`
    /// false the mark is taken away. Since 1.3. `[any thread · backend open]`
    fn drain(&self, _cx: &OpContext, _name: &str, _on: bool) -> Op<NodeInfo> {
        Op::err(no_movement("drain"))
    }

    /// Begins to move a volume's shards to where its options and the nodes of now say, with the least copies, and to split
    /// or merge them where its options say another size; the volume serves meanwhile. With `on` false, stops where it is; shards that are half way stay where they were. It
    /// ends with the attachment, and goes on when it is asked for anew; asked for while it is under way, it is planned
    /// anew. Since 1.3. `[any thread · volume attached]`
    fn rebalance(&self, _cx: &OpContext, _volume: &str, _on: bool) -> Op<()> {
        Op::err(no_movement("rebalance"))
    }

    /// How far a volume's rebalancing is. Since 1.3. `[any thread · volume attached]`
    fn rebalancing(&self, _cx: &OpContext, _volume: &str) -> Op<Rebalancing> {
        Op::err(no_movement("rebalancing"))
    }

    /// Changes options that a volume was created with, durably, all of them or none. Shards are where they were until
    /// the volume is rebalanced. One that cannot be changed, has no such value, or with which the volume could not be
    /// placed: refused with `InvalidArgument`. Since 1.3. `[any thread · backend open]`
    fn configure(
        &self,
        _cx: &OpContext,
        _volume: &str,
        _options: RVec<Tuple2<RString, RString>>,
    ) -> Op<()> {
        Op::err(no_movement("configure"))
    }

    /// What would move if these options were changed, and the volume rebalanced then. Nothing is changed; refused is what
    /// [`Cluster::configure`] would refuse. Since 1.3. `[any thread · backend open]`
    fn plan_options(
        &self,
        _cx: &OpContext,
        _volume: &str,
        _options: RVec<Tuple2<RString, RString>>,
    ) -> Op<Movement> {
        Op::err(no_movement("plan_options"))
    }

    /// Begins to compare the replicas of all that is at rest with each other and with their digests, and takes digests of
    /// what has none; the volume serves meanwhile. With `repair`, bad replicas are given what a good one has, where it
    /// is known which is good, and read back. Asked for while one is under way: that one goes on, and repairs from now
    /// on if `repair` says so. With `on` false, ends the one under way. It goes on in the volume's next attachment.
    /// Since 1.3. `[any thread · volume attached]`
    fn scrub(&self, _cx: &OpContext, _volume: &str, _on: bool, _repair: bool) -> Op<()> {
        Op::err(no_scrubs("scrub"))
    }

    /// How far a volume's scrub is, and what it found. Since 1.3. `[any thread · volume attached]`
    fn scrubbing(&self, _cx: &OpContext, _volume: &str) -> Op<Scrubbing> {
        Op::err(no_scrubs("scrubbing"))
    }

    /// Has another node of an asynchronous volume acknowledge writes from now on, and the others follow it. What only
    /// the node before has is lost, and told; while that one answers it is refused. With `dry_run` nothing is changed: the
    /// answer says what would be lost by now.
    ///
    /// An attached volume goes on serving. Of one that is not, the node is noted, and its next attachment through this
    /// backend promotes it. A node that has no replica, or one with gaps, is refused with `InvalidArgument`, and a volume that
    /// replicates synchronously, too. Since 1.3. `[any thread · backend open]`
    fn promote(&self, _cx: &OpContext, _volume: &str, _how: Promote) -> Op<Promotion> {
        Op::err(no_promotion())
    }
}

/// The longest range that is verified or repaired at once, in bytes.
pub const PIECE: u32 = 1 << 20;

/// A node to be.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// The name of the backend that it is.
    pub name: RString,
    /// What it is for, such as `storage`; free text.
    pub role: RString,
    /// Where it is, for the operator; the backend knows how to reach it.
    pub address: RString,
    /// Its port, for the operator; zero for none.
    pub port: u16,
    /// The failure zone; empty: a zone of its own.
    pub zone: RString,
    /// Its share of new shards relative to others; zero: none.
    pub weight: u32,
    /// Whether new shards may be placed on it.
    pub available: bool,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

impl NodeSpec {
    /// The backend of this name as an available node for `storage`, of weight 100, in a zone of its own.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            role: "storage".into(),
            address: RString::new(),
            port: 0,
            zone: RString::new(),
            weight: 100,
            available: true,
            reserved: [0; 4],
        }
    }
}

/// What is to be said of a node from now on; what is absent stays.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeChange {
    /// See [`NodeSpec::role`].
    pub role: ROption<RString>,
    /// See [`NodeSpec::address`].
    pub address: ROption<RString>,
    /// See [`NodeSpec::port`].
    pub port: ROption<u16>,
    /// See [`NodeSpec::zone`].
    pub zone: ROption<RString>,
    /// See [`NodeSpec::weight`].
    pub weight: ROption<u32>,
    /// See [`NodeSpec::available`].
    pub available: ROption<bool>,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// A node.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct NodeInfo {
    /// Its number, which no other node gets, nor the same backend added again.
    pub id: u32,
    /// What is said of it.
    pub spec: NodeSpec,
    /// How its last health check found it.
    pub health: Health,
    /// Bytes that this cluster's bricks and their companions occupy on it, as far as known.
    pub used: u64,
    /// Bytes that volumes provision on it: the sizes of its shards, whatever is written.
    pub provisioned: u64,
    /// The first word: [`NodeInfo::DRAINING`] or zero, since 1.3. The others: zero in this version.
    pub reserved: [u64; 4],
}

impl NodeInfo {
    /// The bit of a node that is to be emptied. Since 1.3.
    pub const DRAINING: u64 = 1;

    /// Whether the node gets no shards and is to be emptied: see [`Cluster::drain`]. Since 1.3.
    pub fn is_draining(&self) -> bool {
        self.reserved[0] & Self::DRAINING != 0
    }
}

/// Where a replica is in its life.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaState(u32);

impl ReplicaState {
    /// It has every acknowledged write.
    pub const IN_SYNC: Self = Self(0);
    /// It failed, and is being recorded as stale.
    pub const FAILING: Self = Self(1);
    /// It lacks something and is not being resynced.
    pub const STALE: Self = Self(2);
    /// It lacks something, which is being copied.
    pub const RESYNCING: Self = Self(3);
    /// It lacks nothing and is being recorded as in sync.
    pub const JOINING: Self = Self(4);
    /// It was replaced by a fresh brick and is still to be deleted.
    pub const CONDEMNED: Self = Self(5);
    /// It has only snapshots: those of a replica that was emptied or lost. Since 1.3.
    pub const KEEPER: Self = Self(6);

    /// Of a volume that replicates asynchronously: it gets what was acknowledged in order, and is at a consistent point.
    /// Since 1.3.
    pub const FOLLOWING: Self = Self(7);

    /// The state's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::IN_SYNC => "in-sync",
            Self::FAILING => "failing",
            Self::STALE => "stale",
            Self::RESYNCING => "resyncing",
            Self::JOINING => "joining",
            Self::CONDEMNED => "condemned",
            Self::KEEPER => "keeper",
            Self::FOLLOWING => "following",
            _ => "unknown",
        }
    }
}

/// A replica: what one node has of a volume.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct ReplicaInfo {
    /// The node's name.
    pub node: RString,
    /// The name of the brick, a volume of that backend.
    pub brick: RString,
    /// Where it is in its life.
    pub state: ReplicaState,
    /// Bytes that it lacks, as far as known.
    pub dirty: u64,
    /// Bytes copied to it since its resync began.
    pub copied: u64,
    /// Why it was given up last; empty if it never was.
    pub cause: RString,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// Where a replicated volume is.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicationState(u32);

impl ReplicationState {
    /// It is not attached here.
    pub const DETACHED: Self = Self(0);
    /// It is being attached; operations wait.
    pub const ATTACHING: Self = Self(1);
    /// It serves.
    pub const SERVING: Self = Self(2);
    /// It refuses everything, for the reason given, until it is attached anew.
    pub const STOPPED: Self = Self(3);
    /// Another host has taken it.
    pub const FENCED: Self = Self(4);

    /// The state's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::DETACHED => "detached",
            Self::ATTACHING => "attaching",
            Self::SERVING => "serving",
            Self::STOPPED => "stopped",
            Self::FENCED => "fenced",
            _ => "unknown",
        }
    }
}

/// A volume's replication.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct ReplicationInfo {
    /// Where the volume is.
    pub state: ReplicationState,
    /// Why it does not serve, and what to do; empty where there is nothing to say.
    pub reason: RString,
    /// The generation of its membership, as text; a later one knows better.
    pub generation: RString,
    /// The volume's size in bytes.
    pub size: u64,
    /// Bytes of a shard; the last one may be shorter.
    pub shard_size: u64,
    /// How many shards there are.
    pub shards: u64,
    /// Its replicas, in the volume's order.
    pub replicas: RVec<ReplicaInfo>,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// A shard: a fixed range of a volume, and where its replicas are.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct ShardInfo {
    /// Its number, from zero.
    pub index: u64,
    /// Its first byte in the volume.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// The names of the nodes that hold it, in the volume's order.
    pub nodes: RVec<RString>,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// What comparing the replicas of one piece gave.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The nodes whose replicas were compared, in the volume's order; those of the piece that are not in sync are absent.
    pub compared: RVec<RString>,
    /// Those of them whose bytes differ from the first one's.
    pub differing: RVec<RString>,
    /// Zero in this version.
    pub reserved: [u64; 4],
}
