// SPDX-License-Identifier: Apache-2.0
//! Bricks' own snapshots, opened to be read: each as a clone that its node makes for that and that is deleted afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
};

use distributed_core::{BrickId, Node, ZeroKind};
use driver_api::{
    Attach, AttachMode, BackendHandle, ErrorKind, IoBuf, OpContext, Result, VolumeHandle,
    VolumeSpec, ext::Clones,
};
use tokio::sync::Mutex;

use crate::client::{GRAIN, Nodes, OpenBrick, is_zero, snapshot_name};

/// Which brick is being filled from which snapshot of which brick.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Reading {
    /// The brick that is filled.
    pub to: BrickId,
    /// The brick whose snapshot is read.
    pub from: BrickId,
    /// The snapshot's number.
    pub number: u32,
}

impl Reading {
    fn name(&self, base: &str) -> String {
        format!("{}.r{}", self.from.name(base), self.number)
    }
}

/// Whether a volume of this name is a clone that was made to be read.
fn is_reader(base: &str, name: &str) -> bool {
    let number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let brick = name.rsplit_once(".r").filter(|(_, digits)| number(digits));
    brick.is_some_and(|(brick, _)| BrickId::from_name(base, brick).is_some())
}

struct Reader {
    backend: BackendHandle,
    name: String,
    volume: VolumeHandle,
}

/// The snapshots that are open. Half-made ones are never among them.
#[derive(Default)]
pub(crate) struct Readers {
    open: Mutex<BTreeMap<Reading, Arc<Reader>>>,
    /// The bricks that are being filled. Those of other bricks do not wait while a clone is made.
    filling: std::sync::Mutex<BTreeSet<BrickId>>,
}

impl Readers {
    /// Reads a range of a snapshot; the first time, has it cloned.
    pub async fn read(
        &self,
        nodes: &Nodes,
        (reading, node, base): (Reading, &Node, &str),
        offset: u64,
        len: u32,
    ) -> Result<IoBuf> {
        self.filling().insert(reading.to);
        let reader = {
            // One is made at a time: the others wait for the same one.
            let mut readers = self.open.lock().await;
            match readers.get(&reading) {
                Some(reader) => Arc::clone(reader),
                None => {
                    let reader = Arc::new(open(nodes, reading, node, base).await?);
                    readers.insert(reading, Arc::clone(&reader));
                    reader
                }
            }
        };
        reader.volume.read(&nodes.context(), offset, len).await
    }

    /// Ends those that this brick is filled from, or all.
    pub async fn end(&self, nodes: &Nodes, to: Option<BrickId>) {
        let is_filled = |to: BrickId| self.filling().remove(&to);
        if to.is_some_and(|to| !is_filled(to)) {
            return;
        }
        let mut readers = self.open.lock().await;
        let ended: Vec<Reading> =
            readers.keys().filter(|one| to.is_none_or(|to| one.to == to)).copied().collect();
        for reading in ended {
            let Some(reader) = readers.remove(&reading) else { continue };
            let cx = nodes.context();
            let closed = reader.volume.detach(&cx).await;
            if let Err(error) = closed.and(reader.backend.delete(&cx, &reader.name).await) {
                // The next attachment deletes it.
                let name = &reader.name;
                tracing::info!(name, error = format!("{error:#}"), "what was read is left");
            }
        }
    }

    fn filling(&self) -> std::sync::MutexGuard<'_, BTreeSet<BrickId>> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn has(&self, name: &str) -> bool {
        self.open.lock().await.values().any(|reader| reader.name == name)
    }
}

async fn open(nodes: &Nodes, reading: Reading, node: &Node, base: &str) -> Result<Reader> {
    let backend = nodes.backend(node).await?;
    let name = reading.name(base);
    // One of an attachment that died.
    match backend.delete(&nodes.context(), &name).await {
        Err(error) if error.kind() != ErrorKind::NOT_FOUND => return Err(error),
        _ => {}
    }
    let clones = backend.clones()?.ok_or_else(|| driver_api::ext::unsupported("clone"))?;
    let (source, snapshot) = (reading.from.name(base), snapshot_name(reading.number));
    // A full copy takes as long as it takes.
    let cx = OpContext::new();
    clones.clone_volume(&cx, &source, &snapshot, VolumeSpec::new(&name, 0)).await?;
    let attach = Attach::new(AttachMode::READ_ONLY, 1, base);
    let volume = backend.attach(&nodes.context(), &name, attach).await?;
    Ok(Reader { backend, name, volume })
}

/// Writes what differs from what the brick holds; what reads zeros occupies nothing afterwards.
pub(crate) async fn write_differences(
    cx: &OpContext,
    to: &OpenBrick,
    offset: u64,
    data: IoBuf,
) -> Result<()> {
    let held = to.read(cx, offset, data.len() as u32).await?;
    for start in (0..data.len()).step_by(GRAIN) {
        let len = GRAIN.min(data.len() - start);
        let (wanted, at) = (&data[start..start + len], offset + start as u64);
        if held.get(start..start + len) == Some(wanted) {
            continue;
        }
        if is_zero(wanted) {
            to.zero(cx, at, len as u64, ZeroKind::Discard, false).await?;
        } else {
            to.write(cx, at, data.slice(start, len), false).await?;
        }
    }
    Ok(())
}

/// Deletes what an attachment that died has left of this on a node; `volumes` are the names that the node has.
pub(crate) async fn sweep(
    nodes: &Nodes,
    node: &Node,
    base: &str,
    volumes: impl Iterator<Item = String>,
    readers: Option<&Readers>,
) -> Result<()> {
    let backend = nodes.backend(node).await?;
    for name in volumes.filter(|name| is_reader(base, name)) {
        let is_read = match readers {
            Some(readers) => readers.has(&name).await,
            None => false,
        };
        if is_read {
            continue;
        }
        match backend.delete(&nodes.context(), &name).await {
            Err(error) if error.kind() != ErrorKind::NOT_FOUND => return Err(error),
            _ => tracing::info!(
                name,
                node = node.name,
                "a clone that was made to be read is deleted"
            ),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clones_of_bricks_of_this_volume_are_swept() {
        let reading = Reading { to: BrickId(9), from: BrickId(4), number: 12 };
        assert_eq!(reading.name("web"), "web.b4.r12");
        assert!(is_reader("web", "web.b4.r12"));
        for other in ["web.b4", "web.b4.c", "web.b4.r", "web.b4.rx", "web.r12", "wob.b4.r12", "web"]
        {
            assert!(!is_reader("web", other), "{other}");
        }
    }
}
