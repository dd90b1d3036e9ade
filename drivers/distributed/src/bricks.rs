// SPDX-License-Identifier: Apache-2.0
//! Bricks come and go: empty ones, clones of others, and what must be deleted before a brick can be.

use distributed_core::{BrickId, MAP_OFFSET, Node};
use driver_api::{
    Abilities, Attach, AttachMode, BackendHandle, Error, ErrorKind, OpContext, Result, VolumeSpec,
    ext::{Clones, Snapshots},
};

use crate::{
    client::{JOURNAL_ROOM, MAP_ROOM, NewBrick, Nodes},
    clones::Sources,
};

/// Above every epoch that an attachment gives: who deletes a brick is its last owner.
const LAST_EPOCH: u64 = 1 << 62;

impl NewBrick<'_> {
    fn spec(&self, backend: &BackendHandle) -> Result<VolumeSpec> {
        let mut spec = VolumeSpec::new(&self.brick.name(self.base), self.size);
        if !backend.capabilities()?.has(Abilities::DISCARD) {
            spec.extent_size = self.shard_size;
        }
        Ok(spec)
    }

    fn companion(&self) -> VolumeSpec {
        let room = (self.map_bytes as u64).next_multiple_of(MAP_ROOM).max(MAP_ROOM);
        let room = MAP_OFFSET + room + JOURNAL_ROOM;
        VolumeSpec::new(&self.brick.companion_name(self.base), room)
    }
}

impl Nodes {
    /// Makes a brick and its companion. Ones that are there already are of an earlier attempt.
    pub async fn create(&self, node: &Node, new: &NewBrick<'_>) -> Result<()> {
        let backend = self.backend(node).await?;
        let brick = backend.create(&self.context(), new.spec(&backend)?).await;
        made(brick.map(drop)).map_err(|error| error.with("node", &node.name))?;
        self.create_companion(&backend, node, new).await
    }

    /// Makes a brick from one of another volume on the same node, and its companion. A full copy takes as long as it
    /// takes.
    pub async fn clone_brick(
        &self,
        node: &Node,
        new: &NewBrick<'_>,
        sources: &Sources,
        slot: usize,
    ) -> Result<()> {
        let backend = self.backend(node).await?;
        let source = sources
            .bricks
            .get(slot)
            .ok_or_else(|| Error::new(ErrorKind::INTERNAL, "a slot of the clone has no source"))?;
        let (source, spec) = (source.name(&sources.base), new.spec(&backend)?);
        let cx = OpContext::new();
        let clones = backend.clones()?.ok_or_else(|| driver_api::ext::unsupported("clone"))?;
        let cloned = clones.clone_volume(&cx, &source, &sources.snapshot, spec).await;
        cloned.map_err(|error| error.with("node", &node.name).with("brick", &source))?;
        self.create_companion(&backend, node, new).await
    }

    async fn create_companion(
        &self,
        backend: &BackendHandle,
        node: &Node,
        new: &NewBrick<'_>,
    ) -> Result<()> {
        let companion = backend.create(&self.context(), new.companion()).await;
        made(companion.map(drop)).map_err(|error| error.with("node", &node.name))
    }

    /// Deletes a brick with its snapshots, and its companion; none is as good.
    pub async fn delete(&self, node: &Node, base: &str, brick: BrickId) -> Result<()> {
        let backend = self.backend(node).await?;
        // The companion last: it shows whose the brick was.
        for name in [brick.name(base), brick.companion_name(base)] {
            let mut deleted = backend.delete(&self.context(), &name).await;
            let depends = |error: &Error| error.kind() == ErrorKind::IN_USE;
            if deleted.as_ref().is_err_and(depends) {
                deleted = match self.delete_snapshots(&backend, base, &name).await {
                    Ok(()) => backend.delete(&self.context(), &name).await,
                    Err(error) => Err(error),
                };
            }
            match deleted {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NOT_FOUND => {}
                Err(error) => return Err(error.with("node", &node.name)),
            }
        }
        Ok(())
    }

    /// Deletes the snapshots of a brick that is to be deleted: some backends refuse otherwise.
    async fn delete_snapshots(
        &self,
        backend: &BackendHandle,
        base: &str,
        name: &str,
    ) -> Result<()> {
        let cx = self.context();
        let attach = Attach::new(AttachMode::EXCLUSIVE, LAST_EPOCH, base).force();
        let brick = backend.attach(&cx, name, attach).await?;
        let deleted = async {
            let Some(snapshots) = brick.snapshots()? else { return Ok(()) };
            for snapshot in snapshots.list(&cx).await? {
                snapshots.delete(&cx, &snapshot.name).await?;
            }
            Ok(())
        };
        let deleted = deleted.await;
        deleted.and(brick.detach(&cx).await)
    }
}

/// What is there already is of an earlier attempt.
fn made(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::ALREADY_EXISTS => Ok(()),
        other => other,
    }
}
