// SPDX-License-Identifier: Apache-2.0
//! The cluster ability: nodes, replicas and shards, as operators and tools see them.

use std::sync::Arc;

use distributed_core::{
    BrickId, BrickState, ClientOp, Descriptor, Node, NodeId, Phase, ShardMap, Slot, SlotSet,
    Status, VolumeState,
};
use driver_api::{
    Error, ErrorKind, IoBuf, Op, OpContext, ROption, RVec, Result, WriteFlags,
    ext::{
        Cluster, Comparison, NodeChange, NodeInfo, NodeSpec, PIECE, RecoveredVolume, ReplicaInfo,
        ReplicaState, ReplicationInfo, ReplicationState, ShardInfo,
    },
};

use crate::{
    driver::DistributedBackend,
    engine::Engine,
    error::no_volume,
    names::base,
    nodes::{no_node, volumes_on},
    recover::Wish,
};

impl Cluster for DistributedBackend {
    fn nodes(&self, _cx: &OpContext) -> Op<RVec<NodeInfo>> {
        self.on(async move |backend| {
            let mut nodes = backend.0.catalog.nodes().await?.all();
            nodes.sort_by(|one, other| one.name.cmp(&other.name));
            let load = Load::of(&backend).await?;
            let mut infos = RVec::new();
            for node in &nodes {
                infos.push(backend.describe_node(node, &load).await);
            }
            Ok(infos)
        })
    }

    fn add_node(&self, _cx: &OpContext, spec: NodeSpec) -> Op<NodeInfo> {
        self.on(async move |backend| {
            let new = node_of(&spec);
            // A backend that is not configured, not open, or this one, cannot be a node.
            backend.0.nodes.driver_of(&new)?;
            backend.0.nodes.backend(&new).await?;
            let added = backend.0.catalog.change_nodes(|nodes| match nodes.named(&new.name) {
                None => Ok(nodes.add(new.clone())),
                Some(known) if (Node { id: known.id, ..new.clone() }) == known => Ok(known),
                Some(_) => Err(Error::new(
                    ErrorKind::ALREADY_EXISTS,
                    "the backend is a node already, of which other things are said",
                )
                .with("node", &new.name)
                .remedy("change them with: novastor node set")),
            });
            let added = added.await?;
            Ok(backend.describe_node(&added, &Load::of(&backend).await?).await)
        })
    }

    fn set_node(&self, _cx: &OpContext, name: &str, change: NodeChange) -> Op<NodeInfo> {
        let name = name.to_owned();
        self.on(async move |backend| {
            let changed = backend.0.catalog.change_nodes(|nodes| {
                let mut node = nodes.named(&name).ok_or_else(|| no_node(&name))?;
                apply(&change, &mut node);
                nodes.replace(&node);
                Ok(node)
            });
            let changed = changed.await?;
            Ok(backend.describe_node(&changed, &Load::of(&backend).await?).await)
        })
    }

    fn remove_node(&self, _cx: &OpContext, name: &str) -> Op<()> {
        let name = name.to_owned();
        self.on(async move |backend| {
            let node =
                backend.0.catalog.nodes().await?.named(&name).ok_or_else(|| no_node(&name))?;
            // Volumes that are made meanwhile find the node unavailable.
            let retire = |nodes: &mut crate::catalog::Nodes| {
                nodes.replace(&Node { available: false, ..node.clone() });
                Ok(())
            };
            backend.0.catalog.change_nodes(retire).await?;
            let volumes = backend.0.catalog.volumes().await?;
            let holding = volumes_on(node.id, &volumes);
            if !holding.is_empty() {
                backend
                    .0
                    .catalog
                    .change_nodes(|nodes| {
                        nodes.replace(&node);
                        Ok(())
                    })
                    .await?;
                return Err(Error::new(ErrorKind::IN_USE, "volumes have bricks on the node")
                    .with("node", &name)
                    .with("volumes", holding.join(", "))
                    .remedy("delete those volumes first; this version cannot move bricks"));
            }
            backend
                .0
                .catalog
                .change_nodes(|nodes| {
                    nodes.remove(node.id);
                    Ok(())
                })
                .await
        })
    }

    fn recover(
        &self,
        _cx: &OpContext,
        volume: &str,
        accept_missing: bool,
        dry_run: bool,
    ) -> Op<RVec<RecoveredVolume>> {
        let wish = Wish { volume: volume.to_owned(), accept_missing, dry_run };
        self.on(async move |backend| backend.recover_volumes(wish).await)
    }

    fn replication(&self, _cx: &OpContext, volume: &str) -> Op<ReplicationInfo> {
        let volume = volume.to_owned();
        self.on(async move |backend| {
            let (descriptor, map) = backend.look_up(&volume).await?;
            let registered = backend.0.catalog.nodes().await?.all();
            let name = |id: NodeId| {
                let node = registered.iter().find(|node| node.id == id);
                node.map_or_else(|| id.to_string(), |node| node.name.clone())
            };
            Ok(match backend.engine(&volume) {
                Some(engine) => attached_info(&descriptor, &map, &engine.status()?, &name),
                None => detached_info(&descriptor, &map, &name),
            })
        })
    }

    fn shards(&self, _cx: &OpContext, volume: &str, first: u64, limit: u32) -> Op<RVec<ShardInfo>> {
        let volume = volume.to_owned();
        self.on(async move |backend| {
            let (descriptor, map) = backend.look_up(&volume).await?;
            let registered = backend.0.catalog.nodes().await?.all();
            let size = map.shard_size();
            let count = descriptor.size.div_ceil(size);
            let until = count.min(first.saturating_add(u64::from(limit)));
            let shards = (first..until).map(|index| ShardInfo {
                index,
                offset: index * size,
                len: size.min(descriptor.size - index * size),
                nodes: node_names(&descriptor, &registered, map.set(index)),
                reserved: [0; 4],
            });
            Ok(shards.collect())
        })
    }

    fn read_shard(
        &self,
        cx: &OpContext,
        volume: &str,
        shard: u64,
        offset: u64,
        len: u32,
    ) -> Op<IoBuf> {
        let placed = self.within(volume, shard, offset, u64::from(len));
        match placed {
            Ok(_) if len == 0 => Op::ok(IoBuf::empty()),
            Ok((engine, offset)) => {
                engine.submit(cx, ClientOp::Read { offset, len }, IoBuf::empty())
            }
            Err(error) => Op::err(error),
        }
    }

    fn write_shard(
        &self,
        cx: &OpContext,
        volume: &str,
        shard: u64,
        offset: u64,
        data: IoBuf,
        flags: WriteFlags,
    ) -> Op<()> {
        let len = data.len() as u32;
        let fua = flags.has(WriteFlags::FUA);
        let placed = self.within(volume, shard, offset, u64::from(len));
        match placed.and_then(|(engine, offset)| Ok((writable(engine)?, offset))) {
            Ok(_) if len == 0 => Op::ok(()),
            Ok((engine, offset)) => engine
                .submit(cx, ClientOp::Write { offset, len, fua }, data)
                .map(|done| done.map(drop)),
            Err(error) => Op::err(error),
        }
    }

    fn verify(&self, cx: &OpContext, volume: &str, offset: u64, len: u32) -> Op<Comparison> {
        let (backend, cx, volume) = (self.clone(), *cx, volume.to_owned());
        Op::run(async move {
            let engine = backend.attached_engine(&volume)?;
            let (descriptor, map) = backend.look_up(&volume).await?;
            check_piece(&map, offset, len)?;
            let registered = backend.0.catalog.nodes().await?.all();
            let set = map.set(offset / map.shard_size());
            let in_sync = in_sync(&engine.status()?).and(set);
            let compared = node_names(&descriptor, &registered, in_sync);
            let differing = match engine.compare(&cx, offset, len).await? {
                None => RVec::new(),
                Some(differing) => node_names(&descriptor, &registered, differing),
            };
            Ok(Comparison { compared, differing, reserved: [0; 4] })
        })
    }

    fn repair(&self, cx: &OpContext, volume: &str, offset: u64, len: u32, source: &str) -> Op<()> {
        let (backend, cx) = (self.clone(), *cx);
        let (volume, source) = (volume.to_owned(), source.to_owned());
        Op::run(async move {
            let engine = writable(backend.attached_engine(&volume)?)?;
            let (_, map) = backend.look_up(&volume).await?;
            check_piece(&map, offset, len)?;
            let node = backend.0.catalog.nodes().await?.named(&source);
            let node = node.ok_or_else(|| no_node(&source))?;
            let status = engine.status()?;
            let brick = status.bricks.iter().find(|brick| brick.node == node.id);
            let slot =
                brick.filter(|brick| brick.state == BrickState::InSync).map(|brick| brick.slot);
            let source = slot.ok_or_else(|| {
                Error::new(ErrorKind::INVALID_ARGUMENT, "the node has no replica that is in sync")
                    .with("node", &source)
                    .with("volume", &volume)
                    .remedy(format!("choose another one: novastor volume replicas {volume}"))
            })?;
            engine.submit(&cx, ClientOp::Repair { offset, len, source }, IoBuf::empty()).await?;
            engine.submit(&cx, ClientOp::Flush, IoBuf::empty()).await.map(drop)
        })
    }
}

/// What nodes carry.
struct Load(Vec<(Descriptor, ShardMap)>);

impl Load {
    async fn of(backend: &DistributedBackend) -> Result<Self> {
        let mut volumes = Vec::new();
        for descriptor in backend.0.catalog.volumes().await? {
            // One that is being made or deleted may have no map.
            if descriptor.phase == Phase::Ready {
                let map = backend.0.catalog.map(&descriptor).await?;
                volumes.push((descriptor, map));
            }
        }
        Ok(Self(volumes))
    }

    /// Bytes of the shards that a node has.
    fn on(&self, node: NodeId) -> u64 {
        let of_volume = |(descriptor, map): &(Descriptor, ShardMap)| -> u64 {
            let slots = (0..).map(Slot).zip(&descriptor.bricks);
            let here = slots
                .filter(|(_, entry)| entry.node == node && !entry.vacant)
                .map(|(slot, _)| slot);
            let here: SlotSet = here.collect();
            let pieces = map.pieces(0, descriptor.size);
            pieces.filter(|(_, _, set)| !set.and(here).is_empty()).map(|(_, len, _)| len).sum()
        };
        self.0.iter().map(of_volume).sum()
    }
}

impl DistributedBackend {
    async fn describe_node(&self, node: &Node, load: &Load) -> NodeInfo {
        let provisioned = load.on(node.id);
        // A node that does not answer has bricks of which nothing is known.
        let used = self.used_on(node, load).await.unwrap_or_default();
        NodeInfo {
            id: node.id.0,
            spec: spec_of(node),
            health: self.0.checks.health(node.id),
            used,
            provisioned,
            reserved: [0; 4],
        }
    }

    async fn used_on(&self, node: &Node, load: &Load) -> Result<u64> {
        let lent = self.0.nodes.backend(node).await?;
        let bases = load.0.iter().map(|(volume, _)| base(&volume.volume, volume.identity));
        let bases: Vec<String> = bases.collect();
        let volumes = lent.list(&self.0.nodes.context()).await?;
        let ours = volumes.iter().filter(|volume| {
            bases.iter().any(|base| BrickId::from_name(base, &volume.name).is_some())
        });
        Ok(ours.map(|volume| volume.used).sum())
    }

    async fn look_up(&self, volume: &str) -> Result<(Descriptor, ShardMap)> {
        let descriptor = self.0.catalog.volume(volume).await?.ok_or_else(|| no_volume(volume))?;
        let map = self.0.catalog.map(&descriptor).await?;
        Ok((descriptor, map))
    }

    fn attached_engine(&self, volume: &str) -> Result<Arc<Engine>> {
        self.engine(volume).ok_or_else(|| {
            Error::new(ErrorKind::INVALID_ARGUMENT, "the volume is not attached here")
                .with("volume", volume)
                .remedy("attach it first")
        })
    }

    /// The engine of an attached volume, and where a range of one of its shards lies in the volume.
    fn within(
        &self,
        volume: &str,
        shard: u64,
        offset: u64,
        len: u64,
    ) -> Result<(Arc<Engine>, u64)> {
        let engine = self.attached_engine(volume)?;
        let (shard_size, size) = (engine.shard_size(), engine.size()?);
        let first = shard.checked_mul(shard_size).filter(|first| *first < size);
        let room = first.map(|first| shard_size.min(size - first));
        match (first, room, offset.checked_add(len)) {
            (Some(first), Some(room), Some(end)) if end <= room => Ok((engine, first + offset)),
            _ => Err(Error::new(ErrorKind::OUT_OF_RANGE, "the range is not within the shard")
                .with("volume", volume)
                .with("shard", shard)
                .with("offset", offset)
                .with("length", len)),
        }
    }
}

fn writable(engine: Arc<Engine>) -> Result<Arc<Engine>> {
    if engine.writable {
        return Ok(engine);
    }
    Err(Error::new(ErrorKind::PERMISSION_DENIED, "the volume is attached read-only")
        .with("volume", engine.volume())
        .remedy("attach it for writing"))
}

fn check_piece(map: &ShardMap, offset: u64, len: u32) -> Result<()> {
    let size = map.shard_size();
    let end = offset.checked_add(u64::from(len));
    let within = end.is_some_and(|end| len > 0 && (end - 1) / size == offset / size);
    if within && len <= PIECE {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::INVALID_ARGUMENT,
        "a piece is not empty, at most 1 MiB, and in one shard",
    )
    .with("offset", offset)
    .with("length", len))
}

fn node_of(spec: &NodeSpec) -> Node {
    Node {
        id: NodeId(0),
        name: spec.name.to_string(),
        role: spec.role.to_string(),
        address: spec.address.to_string(),
        port: spec.port,
        zone: spec.zone.to_string(),
        weight: spec.weight,
        available: spec.available,
    }
}

fn spec_of(node: &Node) -> NodeSpec {
    NodeSpec {
        role: node.role.as_str().into(),
        address: node.address.as_str().into(),
        port: node.port,
        zone: node.zone.as_str().into(),
        weight: node.weight,
        available: node.available,
        ..NodeSpec::new(&node.name)
    }
}

fn apply(change: &NodeChange, node: &mut Node) {
    fn set<T: Clone, U: From<T>>(to: &ROption<T>, field: &mut U) {
        if let ROption::RSome(value) = to {
            *field = value.clone().into();
        }
    }
    set(&change.role, &mut node.role);
    set(&change.address, &mut node.address);
    set(&change.port, &mut node.port);
    set(&change.zone, &mut node.zone);
    set(&change.weight, &mut node.weight);
    set(&change.available, &mut node.available);
}

fn node_names(
    descriptor: &Descriptor,
    registered: &[Node],
    set: SlotSet,
) -> RVec<driver_api::RString> {
    let name = |slot: Slot| {
        let id = descriptor.bricks.get(slot.index())?.node;
        let node = registered.iter().find(|node| node.id == id);
        Some(node.map_or_else(|| id.to_string(), |node| node.name.clone()).into())
    };
    set.iter().filter_map(name).collect()
}

fn in_sync(status: &Status) -> SlotSet {
    let in_sync = status.bricks.iter().filter(|brick| brick.state == BrickState::InSync);
    in_sync.map(|brick| brick.slot).collect()
}

fn replica_state(state: BrickState) -> ReplicaState {
    match state {
        BrickState::InSync => ReplicaState::IN_SYNC,
        BrickState::Failing => ReplicaState::FAILING,
        BrickState::Stale => ReplicaState::STALE,
        BrickState::Resyncing => ReplicaState::RESYNCING,
        BrickState::Joining => ReplicaState::JOINING,
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

fn attached_info(
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
        info.replicas.push(ReplicaInfo {
            node: name(brick.node).into(),
            brick: brick.brick.name(&base).into(),
            state: replica_state(brick.state),
            dirty: brick.dirty_bytes,
            copied: brick.copied_bytes,
            cause: brick.cause.map(|(cause, _)| cause.to_string()).unwrap_or_default().into(),
            reserved: [0; 4],
        });
    }
    for (brick, node) in &status.condemned {
        info.replicas.push(plain(name(*node), brick.name(&base), ReplicaState::CONDEMNED));
    }
    info
}

fn detached_info(
    descriptor: &Descriptor,
    map: &ShardMap,
    name: &impl Fn(NodeId) -> String,
) -> ReplicationInfo {
    let base = base(&descriptor.volume, descriptor.identity);
    let mut info = info(descriptor, map, ReplicationState::DETACHED);
    let slots = (0..).map(Slot).zip(&descriptor.bricks).filter(|(_, entry)| !entry.vacant);
    for (slot, entry) in slots {
        let state =
            if descriptor.in_sync.has(slot) { ReplicaState::IN_SYNC } else { ReplicaState::STALE };
        info.replicas.push(plain(name(entry.node), entry.brick.name(&base), state));
    }
    for (brick, node) in &descriptor.condemned {
        info.replicas.push(plain(name(*node), brick.name(&base), ReplicaState::CONDEMNED));
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
