// SPDX-License-Identifier: Apache-2.0
//! What operators see of a volume's replicas.

use distributed_core::{
    Behind, BrickState, Descriptor, Mode, NodeId, ShardMap, Slot, Status, VolumeState,
};
use driver_api::{
    RVec,
    ext::{Lag, ReplicaInfo, ReplicaState, ReplicationInfo, ReplicationState},
};

use crate::{names::base, promote::head_of};

fn replica_state(state: BrickState) -> ReplicaState {
    match state {
        BrickState::InSync => ReplicaState::IN_SYNC,
        BrickState::Failing => ReplicaState::FAILING,
        BrickState::Stale => ReplicaState::STALE,
        BrickState::Resyncing => ReplicaState::RESYNCING,
        BrickState::Joining => ReplicaState::JOINING,
        BrickState::Following => ReplicaState::FOLLOWING,
    }
}

fn info(descriptor: &Descriptor, map: &ShardMap, state: ReplicationState) -> ReplicationInfo {
    ReplicationInfo {
        state,
        reason: "".into(),
        generation: descriptor.generation.to_string().into(),
        size: descriptor.size,
        shard_size: map.shard_size(),
        shards: descriptor.size.div_ceil(map.shard_size()),
        replicas: RVec::new(),
        reserved: [0; 4],
    }
}

/// Of a volume that is attached here.
pub(super) fn attached_info(
    descriptor: &Descriptor,
    map: &ShardMap,
    status: &Status,
    name: &impl Fn(NodeId) -> String,
) -> ReplicationInfo {
    let base = base(&descriptor.volume, descriptor.identity);
    let state = match &status.state {
        VolumeState::Attaching => ReplicationState::ATTACHING,
        VolumeState::Serving => ReplicationState::SERVING,
        VolumeState::Detached => ReplicationState::DETACHED,
        VolumeState::Stopped(_) => ReplicationState::STOPPED,
        VolumeState::Fenced => ReplicationState::FENCED,
    };
    let mut info = info(descriptor, map, state);
    if let VolumeState::Stopped(why) = &status.state {
        info.reason = (&**why).into();
    }
    info.generation = status.generation.to_string().into();
    info.size = status.size;
    for brick in &status.bricks {
        let replica = ReplicaInfo {
            node: name(brick.node).into(),
            brick: brick.brick.name(&base).into(),
            state: replica_state(brick.state),
            dirty: brick.dirty_bytes,
            copied: brick.copied_bytes,
            cause: brick.cause.map(|(cause, _)| cause.to_string()).unwrap_or_default().into(),
            reserved: [0; 4],
        };
        let replica = match brick.behind {
            Some(Behind { writes, bytes, nanoseconds, .. }) => {
                replica.behind(Lag { writes, bytes, age_ns: nanoseconds })
            }
            None => replica,
        };
        let acknowledges = status.acknowledging == Some(brick.node);
        info.replicas.push(if acknowledges { replica.acknowledging() } else { replica });
    }
    for (brick, node) in &status.condemned {
        info.replicas.push(plain(name(*node), brick.name(&base), ReplicaState::CONDEMNED));
    }
    for (brick, node) in &status.keepers {
        info.replicas.push(plain(name(*node), brick.name(&base), ReplicaState::KEEPER));
    }
    info
}

/// Of one that is not: as it was left.
pub(super) fn detached_info(
    descriptor: &Descriptor,
    map: &ShardMap,
    name: &impl Fn(NodeId) -> String,
) -> ReplicationInfo {
    let base = base(&descriptor.volume, descriptor.identity);
    let mut info = info(descriptor, map, ReplicationState::DETACHED);
    let slots = (0..).map(Slot).zip(&descriptor.bricks).filter(|(_, entry)| !entry.vacant);
    let head = head_of(descriptor).filter(|_| descriptor.mode == Mode::Asynchronous);
    for (slot, entry) in slots {
        let state =
            if descriptor.in_sync.has(slot) { ReplicaState::IN_SYNC } else { ReplicaState::STALE };
        let replica = plain(name(entry.node), entry.brick.name(&base), state);
        let acknowledges = head == Some(entry.node);
        info.replicas.push(if acknowledges { replica.acknowledging() } else { replica });
    }
    for (brick, node) in &descriptor.condemned {
        info.replicas.push(plain(name(*node), brick.name(&base), ReplicaState::CONDEMNED));
    }
    for (brick, node) in &descriptor.keepers {
        info.replicas.push(plain(name(*node), brick.name(&base), ReplicaState::KEEPER));
    }
    info
}

fn plain(node: String, brick: String, state: ReplicaState) -> ReplicaInfo {
    ReplicaInfo {
        node: node.into(),
        brick: brick.into(),
        state,
        dirty: 0,
        copied: 0,
        cause: "".into(),
        reserved: [0; 4],
    }
}
