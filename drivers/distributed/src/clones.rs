// SPDX-License-Identifier: Apache-2.0
//! New volumes with the content of others: each brick is a clone that its node makes of the source's brick there.
//!
//! ```text
//!  a snapshot: its bricks, by its frozen map ------------------------+
//!  the present: attached --> a snapshot of its own for this moment --+--> descriptor "creating" -> map -> cloned
//!               at rest ---> the bricks in sync, if nobody attaches -+    bricks -> first records -> "ready"
//!                            the volume meanwhile
//! ```
//! So a clone is as quick and as thin as the nodes make it. Its shards are where the source's were.

use std::collections::BTreeMap;

use distributed_core::{BrickId, Capacity, Descriptor, Node, Origin, Template};
use driver_api::{
    Abilities, Error, ErrorKind, Op, OpContext, Result, VolumeInfo, VolumeSpec, ext::Clones,
};

use crate::{
    client::snapshot_name,
    config::Chosen,
    create::{info, members, random},
    driver::DistributedBackend,
    error::no_volume,
    names::base,
    snapshots::{is_own, no_snapshot, own_name},
};

/// What the bricks of a new volume are clones of.
pub(crate) struct Sources {
    /// What the names of the bricks begin with.
    pub base: String,
    /// The brick for each slot.
    pub bricks: Vec<BrickId>,
    /// The bricks' own snapshot; empty: what they hold now.
    pub snapshot: String,
}

impl Clones for DistributedBackend {
    fn clone_volume(
        &self,
        _cx: &OpContext,
        source: &str,
        snapshot: &str,
        target: VolumeSpec,
    ) -> Op<VolumeInfo> {
        let (source, snapshot) = (source.to_owned(), snapshot.to_owned());
        self.on(async move |backend| {
            let _turn = backend.0.turns.take(&target.name).await;
            let cloned = backend.clone_to(&source, &snapshot, &target).await;
            cloned.map_err(|error| error.during("clone"))
        })
    }
}

impl DistributedBackend {
    async fn clone_to(
        &self,
        source: &str,
        snapshot: &str,
        target: &VolumeSpec,
    ) -> Result<VolumeInfo> {
        let catalog = &self.0.catalog;
        if catalog.volume(&target.name).await?.is_some() {
            return Err(Error::new(ErrorKind::ALREADY_EXISTS, "a volume of this name exists")
                .with("volume", &target.name)
                .remedy("choose another name, or delete that volume"));
        }
        if !snapshot.is_empty() {
            return self.clone_snapshot(source, snapshot, target).await;
        }
        let Some(engine) = self.engine(source) else {
            return self.clone_resting(source, target).await;
        };
        let cx = self.0.nodes.context();
        let own = own_name(&target.name);
        // One of an attempt that died.
        if let Some(old) = engine.snapshot_named(&own)? {
            engine.delete_snapshot(&cx, old.number).await?;
        }
        let taken = self.snapshot(&cx, &engine, &own).await?;
        let cloned = self.clone_snapshot(source, &own, target).await;
        if let Err(error) = engine.delete_snapshot(&cx, taken.number).await {
            // The next attachment deletes it.
            tracing::warn!(source, %error, "the snapshot that a clone was made of is left");
        }
        cloned
    }

    async fn clone_snapshot(
        &self,
        source: &str,
        snapshot: &str,
        target: &VolumeSpec,
    ) -> Result<VolumeInfo> {
        let (_, descriptor) = self.source(source).await?;
        let known = descriptor.snapshots.iter().find(|s| s.name == snapshot && s.is_taken);
        let number = known.ok_or_else(|| no_snapshot(source, snapshot))?.number;
        let maps = self.0.catalog.maps(source).await?;
        let origin = descriptor.origin(Some(number), &maps);
        let origin = origin.ok_or_else(|| no_origin(source, "the snapshot's shard map is lost"))?;
        let sources = (snapshot_name(number), &descriptor);
        self.clone_origin(&origin, sources, target, || async { Ok(()) }).await
    }

    /// Clones a volume that nobody has attached, and that nobody attaches meanwhile.
    async fn clone_resting(&self, source: &str, target: &VolumeSpec) -> Result<VolumeInfo> {
        let (before, descriptor) = self.source(source).await?;
        if let Some(claim) = self.0.catalog.claim(source).await? {
            claim.check_free(source)?;
        }
        let maps = self.0.catalog.maps(source).await?;
        let origin = descriptor.origin(None, &maps).ok_or_else(|| {
            no_origin(source, "it was not detached in order, so its replicas may differ")
                .remedy("attach it, and clone it then")
        })?;
        let unchanged = async || {
            // Whoever attaches it changes its epoch.
            let now = self.0.catalog.stored(source).await?;
            match now.as_deref() == Some(&before[..]) {
                true => Ok(()),
                false => Err(no_origin(source, "it was attached meanwhile").remedy("try again")),
            }
        };
        self.clone_origin(&origin, (String::new(), &descriptor), target, unchanged).await
    }

    async fn source(&self, name: &str) -> Result<(Vec<u8>, Descriptor)> {
        let stored = self.0.catalog.stored(name).await?.ok_or_else(|| no_volume(name))?;
        let descriptor = Descriptor::decode(&stored).map_err(|why| {
            crate::error::damaged(format!("the volume's descriptor cannot be read: {why}"))
                .with("volume", name)
        })?;
        Ok((stored, descriptor))
    }

    async fn clone_origin<F: Future<Output = Result<()>>>(
        &self,
        origin: &Origin,
        (snapshot, from): (String, &Descriptor),
        target: &VolumeSpec,
        still_holds: impl FnOnce() -> F,
    ) -> Result<VolumeInfo> {
        let name = target.name.as_str();
        let size = if target.size == 0 { origin.size } else { target.size };
        if size < origin.size {
            return Err(Error::new(
                ErrorKind::INVALID_ARGUMENT,
                "a clone cannot be smaller than its source",
            )
            .with("size", size)
            .with("source", origin.size)
            .remedy("clone it whole, then shrink the clone"));
        }
        let chosen = self.choices(from, target).await?;
        let template = origin.template(name, random()?, size).ok_or_else(|| {
            no_origin(&from.volume, "of some of its shards no node has a copy")
                .remedy("bring the nodes back that had them")
        })?;
        let Template { descriptor, map, sources: bricks } = template;
        let registered = self.0.catalog.nodes().await?.all();
        let members = members(&descriptor, &registered)?;
        self.check_cloning(&descriptor, &members, &chosen).await?;
        let sources = Sources { base: base(&from.volume, from.identity), bricks, snapshot };
        let maker = self.maker();
        self.begin_clone(&descriptor, &chosen).await?;
        let made = async {
            maker.make(&descriptor, &map, &chosen, &members, Some(&sources)).await?;
            still_holds().await?;
            maker.ready(&descriptor).await
        };
        if let Err(error) = made.await {
            if let Err(left) = maker.delete(name).await {
                tracing::warn!(volume = name, %left, "an unfinished clone is left to be deleted");
            }
            return Err(error);
        }
        Ok(info(&descriptor, &chosen, &self.0.catalog.nodes().await?))
    }

    /// What the clone is to have: the source's choices, with the options that are given.
    async fn choices(&self, from: &Descriptor, target: &VolumeSpec) -> Result<Chosen> {
        let chosen = self.0.catalog.chosen(&from.volume).await?;
        let mut options: BTreeMap<String, String> = BTreeMap::new();
        for pair in &target.options {
            options.insert(pair.0.to_string(), pair.1.to_string());
        }
        // What a volume has since its creation, a clone has from its source.
        options.retain(|key, value| !chosen.is_so(key, value));
        let options: Vec<(String, String)> = options.into_iter().collect();
        chosen.changed(&self.0.config, from.size, &options)
    }

    async fn check_cloning(
        &self,
        descriptor: &Descriptor,
        members: &[Node],
        chosen: &Chosen,
    ) -> Result<()> {
        for (node, entry) in members.iter().zip(&descriptor.bricks) {
            if !self.0.nodes.backend(node).await?.capabilities()?.has(Abilities::CLONE) {
                return Err(Error::new(ErrorKind::UNSUPPORTED, "a node's backend cannot clone")
                    .with("node", &node.name)
                    .remedy(
                        "make a volume and copy into it: novastor volume create, then volume import",
                    ));
            }
            self.maker().check_node(node, descriptor.size, chosen).await?;
            let base = base(&descriptor.volume, descriptor.identity);
            self.0.nodes.check_free(node, &base, entry.brick).await?;
        }
        Ok(())
    }

    async fn begin_clone(&self, descriptor: &Descriptor, chosen: &Chosen) -> Result<()> {
        let limit = self.0.config.max_capacity;
        let account = |provisioned| {
            let mut capacity = Capacity { limit, provisioned };
            capacity.provision(descriptor.size, chosen.replication_factor).map_err(|why| {
                Error::new(ErrorKind::NO_SPACE, why.to_string()).with("volume", &descriptor.volume)
            })?;
            Ok(capacity.provisioned)
        };
        self.0.catalog.begin(descriptor, chosen, account).await
    }

    /// Deletes the snapshots that clones were being made of when a host died.
    pub(crate) async fn forget_own_snapshots(&self, volume: &str) -> Result<()> {
        let Some(engine) = self.engine(volume) else { return Ok(()) };
        for snapshot in engine.snapshots()?.iter().filter(|snapshot| is_own(&snapshot.name)) {
            let target = snapshot.name.strip_prefix(&own_name("")).unwrap_or_default();
            // Whoever makes the clone right now has its turn.
            let _turn = self.0.turns.take(target).await;
            if engine.snapshot_named(&snapshot.name)?.is_some() {
                engine.delete_snapshot(&self.0.nodes.context(), snapshot.number).await?;
            }
        }
        Ok(())
    }
}

fn no_origin(volume: &str, why: &str) -> Error {
    Error::new(ErrorKind::UNAVAILABLE, format!("the volume cannot be cloned: {why}"))
        .with("volume", volume)
        .with_retry(driver_api::Retry::TEMPORARY)
}
