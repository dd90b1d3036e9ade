// SPDX-License-Identifier: Apache-2.0
//! Volumes come and go.
//!
//! ```text
//!  create: refuse what cannot be -> descriptor "creating" -> map -> bricks -> first records -> descriptor "ready"
//!  delete: descriptor "deleting" -> bricks -> forget
//! ```
//! Whoever dies on the way leaves a descriptor that says so: creating or deleting the volume again goes on from there.

use distributed_core::{
    Capacity, Descriptor, Mode, Node, NodeId, Outcome, Phase, Record, Session, Slot, SlotSet, place,
};
use driver_api::{Abilities, Error, ErrorKind, Result, VolumeInfo, VolumeSpec};

use crate::{
    catalog::{Catalog, Nodes as Registered},
    client::{NewBrick, Nodes, on_node},
    clones::Sources,
    config::{Chosen, Config},
    error::no_volume,
    mode,
    names::base,
    nodes::no_node,
    promote::head_of,
    readers,
};

/// What creation and deletion work with.
pub(crate) struct Maker<'a> {
    pub config: &'a Config,
    pub catalog: &'a Catalog,
    pub nodes: &'a Nodes,
}

impl Maker<'_> {
    /// Creates a volume that reads zeros. The same volume again is the same volume.
    pub async fn create(&self, spec: &VolumeSpec) -> Result<VolumeInfo> {
        let name = spec.name.as_str();
        let options = spec.options.iter().map(|pair| (pair.0.to_string(), pair.1.to_string()));
        let options: Vec<(String, String)> = options.collect();
        let chosen = Chosen::new(self.config, spec.size, &options)?;
        if let Some(existing) = self.catalog.volume(name).await? {
            return self.same(&existing, spec, &chosen, &self.catalog.nodes().await?).await;
        }
        let registered = self.catalog.nodes().await?;
        let nodes = self.usable(&chosen).await?;
        let identity = random()?;
        // An asynchronous volume is placed as one shard.
        let is_whole = mode::is_whole(&chosen);
        let unit = if is_whole { spec.size.max(1) } else { chosen.shard_size };
        let (policy, factor) = (chosen.placement.into(), chosen.replication_factor);
        let placement = place(policy, &nodes, factor, spec.size, unit, identity);
        let mut placement =
            placement.map_err(|why| invalid(&why.to_string()).with("volume", name))?;
        let mut descriptor = Descriptor::new(name, identity, spec.size, &placement.nodes);
        if is_whole {
            placement.map = mode::uniform(chosen.shard_size, spec.size, placement.nodes.len());
            descriptor.mode = Mode::Asynchronous;
            descriptor.in_sync = SlotSet::only(Slot(0));
        }
        let members = members(&descriptor, &nodes)?;
        for (slot, node) in members.iter().enumerate() {
            self.check_node(node, spec.size, &chosen).await?;
            let brick = descriptor.bricks[slot].brick;
            self.nodes.check_free(node, &base(name, identity), brick).await?;
        }
        let limit = self.config.max_capacity;
        let replicas = chosen.replication_factor;
        let account = |provisioned| {
            let mut capacity = Capacity { limit, provisioned };
            capacity.provision(spec.size, replicas).map_err(|why| {
                Error::new(ErrorKind::NO_SPACE, why.to_string()).with("volume", name)
            })?;
            Ok(capacity.provisioned)
        };
        self.catalog.begin(&descriptor, &chosen, account).await?;
        let made = async {
            self.make(&descriptor, &placement.map, &chosen, &members, None).await?;
            self.ready(&descriptor).await
        };
        if let Err(error) = made.await {
            // What was begun is taken back as far as the nodes let it; the rest is left to a deletion.
            if let Err(left) = self.delete(name).await {
                tracing::warn!(volume = name, %left, "an unfinished volume is left to be deleted");
            }
            return Err(error);
        }
        Ok(info(&descriptor, &chosen, &registered))
    }

    async fn same(
        &self,
        existing: &Descriptor,
        spec: &VolumeSpec,
        chosen: &Chosen,
        registered: &Registered,
    ) -> Result<VolumeInfo> {
        let name = spec.name.as_str();
        let mut chosen = chosen.clone();
        let has = self.catalog.chosen(name).await?;
        if !spec.options.iter().any(|pair| pair.0 == "shard_size") {
            // Any will do, also one that was chosen by another rule, or later.
            chosen.shard_size = has.shard_size;
        }
        let same = existing.size == spec.size && has == chosen;
        if same && existing.phase == Phase::Ready {
            return Ok(info(existing, &chosen, registered));
        }
        let error = Error::new(ErrorKind::ALREADY_EXISTS, "another volume has this name")
            .with("volume", name);
        Err(if existing.phase == Phase::Ready {
            error.remedy("choose another name, or delete that volume")
        } else {
            error.remedy(format!(
                "its creation or deletion did not end: novastor volume delete {name}"
            ))
        })
    }

    /// The nodes that a volume may have bricks on.
    async fn usable(&self, chosen: &Chosen) -> Result<Vec<Node>> {
        let mut nodes = self.named(chosen).await?;
        if chosen.drivers.is_empty() {
            return Ok(nodes);
        }
        let mut drivers = Vec::new();
        for node in &nodes {
            drivers.push(self.nodes.driver_of(node)?);
        }
        for wanted in &chosen.drivers {
            if !drivers.contains(wanted) {
                let mut there = drivers.clone();
                there.sort();
                there.dedup();
                return Err(invalid("no node is a backend of this driver")
                    .with("driver", wanted)
                    .remedy(format!(
                        "add one with novastor node add, or choose among: {}",
                        there.join(", ")
                    )));
            }
        }
        let mut drivers = drivers.into_iter();
        nodes.retain(|_| drivers.next().is_some_and(|driver| chosen.drivers.contains(&driver)));
        Ok(nodes)
    }

    /// The nodes that are named, or all.
    async fn named(&self, chosen: &Chosen) -> Result<Vec<Node>> {
        let registered = self.catalog.nodes().await?.placeable();
        if chosen.nodes.is_empty() {
            return Ok(registered);
        }
        let mut nodes: Vec<Node> = Vec::new();
        for name in &chosen.nodes {
            let node = registered.iter().find(|node| node.name == *name);
            let node = node.ok_or_else(|| no_node(name))?.clone();
            if nodes.iter().any(|other| other.id == node.id) {
                return Err(
                    invalid("a node is named twice, but holds one replica").with("node", name)
                );
            }
            nodes.push(node);
        }
        Ok(nodes)
    }

    /// Refuses a node that cannot hold a brick of such a volume.
    pub async fn check_node(&self, node: &Node, size: u64, chosen: &Chosen) -> Result<()> {
        let capabilities = self.nodes.backend(node).await?.capabilities()?;
        let refuse = |why: &str| Err(invalid(why).with("node", &node.name));
        if !capabilities.has(Abilities::WRITE) {
            return refuse("the node's backend cannot be written");
        }
        if size > capabilities.max_volume_size {
            return refuse("the volume is larger than the node's backend can hold");
        }
        let block = u64::from(capabilities.min_block.max(1));
        if block > 4096 || !chosen.shard_size.is_multiple_of(block) {
            return refuse("the node's blocks are longer than 4096 bytes");
        }
        Ok(())
    }

    /// Makes the bricks of a volume that is being created, empty ones or clones of others.
    pub async fn make(
        &self,
        descriptor: &Descriptor,
        map: &distributed_core::ShardMap,
        chosen: &Chosen,
        members: &[Node],
        sources: Option<&Sources>,
    ) -> Result<()> {
        let name = descriptor.volume.as_str();
        let base = base(name, descriptor.identity);
        let encoded = map.encode();
        self.catalog.put_map(name, descriptor.map, &encoded).await?;
        for (index, node) in members.iter().enumerate() {
            let slot = Slot(index as u8);
            let record = Record::initial(descriptor, slot, encoded.len() as u32);
            let record = record.ok_or_else(|| invalid("a slot has no brick"))?;
            let new = NewBrick {
                base: &base,
                brick: record.brick,
                size: descriptor.size,
                map_bytes: encoded.len(),
                shard_size: chosen.shard_size,
            };
            match sources {
                None => self.nodes.create(node, &new).await?,
                Some(sources) => self.nodes.clone_brick(node, &new, sources, index).await?,
            }
            let session = Session { epoch: descriptor.epoch, opening: 1 };
            let open = self.nodes.open(node, &base, record.brick, session, descriptor.size).await;
            let open = open.map_err(on_node(node))?;
            let cx = self.nodes.context();
            if sources.is_some() {
                open.free_beside(&cx, map, slot, descriptor.size).await.map_err(on_node(node))?;
            }
            let begun = open.begin(&cx, &encoded, &record).await;
            begun.and(open.close(&cx).await).map_err(on_node(node))?;
        }
        Ok(())
    }

    /// The volume can be attached.
    pub async fn ready(&self, descriptor: &Descriptor) -> Result<()> {
        let ready = Descriptor { phase: Phase::Ready, ..descriptor.clone() };
        self.settle(descriptor, &ready).await
    }

    async fn settle(&self, before: &Descriptor, descriptor: &Descriptor) -> Result<()> {
        let (before, after) = (before.encode(), descriptor.encode());
        match self.catalog.swap(&descriptor.volume, &before, &after).await {
            Outcome::Ok => Ok(()),
            Outcome::Conflict => Err(Error::new(
                ErrorKind::IN_USE,
                "somebody else attached or changed the volume meanwhile",
            )
            .with("volume", &descriptor.volume)
            .remedy("try again")),
            _ => Err(Error::new(ErrorKind::UNAVAILABLE, "the host's state cannot be written")
                .with("volume", &descriptor.volume)
                .remedy("look at the host's log, then try again")),
        }
    }

    /// Deletes clones of bricks that were made to be read: a brick may not be deleted before.
    async fn sweep_readers(&self, node: &Node, base: &str) -> Result<()> {
        let listed = self.nodes.backend(node).await?.list(&self.nodes.context()).await?;
        let names = listed.iter().map(|volume| volume.name.to_string());
        readers::sweep(self.nodes, node, base, names, None).await
    }

    /// Deletes a volume that is not attached, or goes on deleting it.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let descriptor = self.catalog.volume(name).await?.ok_or_else(|| no_volume(name))?;
        let chosen = self.catalog.chosen(name).await?;
        if let Some(claim) = self.catalog.claim(name).await? {
            claim.check_free(name)?;
        }
        // A host that has the volume attached loses it here: what it expects in the state is gone.
        let deleting = Descriptor { phase: Phase::Deleting, ..descriptor.clone() };
        self.settle(&descriptor, &deleting).await?;
        let registered = self.catalog.nodes().await?.all();
        let base = base(name, descriptor.identity);
        let bricks = descriptor.bricks.iter().filter(|entry| !entry.vacant);
        let bricks = bricks.map(|entry| (entry.brick, entry.node));
        let others = descriptor.condemned.iter().chain(&descriptor.keepers).copied();
        for (brick, node) in bricks.chain(others) {
            let node = find(&registered, node).ok_or_else(|| lost_node(node, name))?;
            self.sweep_readers(node, &base).await?;
            self.nodes.delete(node, &base, brick).await?;
        }
        let bytes = descriptor.size.saturating_mul(u64::from(chosen.replication_factor));
        self.catalog.forget(name, bytes).await
    }
}

/// The nodes of a volume's slots.
pub(crate) fn members(descriptor: &Descriptor, registered: &[Node]) -> Result<Vec<Node>> {
    let node =
        |id: NodeId| find(registered, id).cloned().ok_or_else(|| lost_node(id, &descriptor.volume));
    let bricks = descriptor.bricks.iter().filter(|entry| !entry.vacant);
    bricks.map(|entry| node(entry.node)).collect()
}

fn find(nodes: &[Node], id: NodeId) -> Option<&Node> {
    nodes.iter().find(|node| node.id == id)
}

fn lost_node(id: NodeId, volume: &str) -> Error {
    Error::new(ErrorKind::NOT_FOUND, "a node that holds bricks of the volume is not registered")
        .with("node", id)
        .with("volume", volume)
        .remedy("register it again: novastor node add")
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, why.to_owned())
}

/// A number that nobody else draws.
pub(crate) fn random() -> Result<u64> {
    getrandom::u64().map_err(|error| {
        Error::new(ErrorKind::INTERNAL, format!("the system gives no random numbers: {error}"))
    })
}

/// A volume, as the host shows it.
pub(crate) fn info(descriptor: &Descriptor, chosen: &Chosen, nodes: &Registered) -> VolumeInfo {
    let used = descriptor.size.saturating_mul(u64::from(chosen.replication_factor));
    let is_synchronous = descriptor.mode == Mode::Synchronous;
    let consistency = if is_synchronous { "strong" } else { chosen.consistency.name() };
    let info = VolumeInfo::new(&descriptor.volume, descriptor.size, used)
        .label("replication_factor", &chosen.replication_factor.to_string())
        .label("shard_size", &chosen.shard_size.to_string())
        .label("pattern", chosen.pattern.name())
        .label("placement", chosen.placement.name())
        .label("consistency", consistency)
        .label("synchronous_replication", if is_synchronous { "true" } else { "false" })
        .label("generation", &descriptor.generation.to_string())
        .label("replicas_in_sync", &descriptor.in_sync.len().to_string());
    match head_of(descriptor).filter(|_| !is_synchronous) {
        Some(head) => info.label("flush_is_durable_on", &format!("{} only", nodes.name_of(head))),
        None => info,
    }
}
