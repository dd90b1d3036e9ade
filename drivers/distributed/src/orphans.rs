// SPDX-License-Identifier: Apache-2.0
//! Bricks that nobody knows: a host died, or a node answered late, after they were made and before they were of use.

use std::sync::Arc;

use distributed_core::{BrickId, Descriptor, Node};
use driver_api::Result;

use crate::{client::is_companion_size, driver::DistributedBackend, names::base, readers};

/// Deletes the bricks of a volume that its descriptor does not know, on all nodes that answer.
pub(crate) async fn collect(backend: DistributedBackend, volume: String) {
    if let Err(error) = backend.forget_own_snapshots(&volume).await {
        tracing::info!(volume, %error, "a snapshot that a clone was made of may be left");
    }
    let nodes = match backend.0.catalog.nodes().await {
        Ok(nodes) => nodes.all(),
        Err(error) => {
            tracing::warn!(volume, %error, "unknown bricks are left: the host's state cannot be read");
            return;
        }
    };
    for node in nodes {
        if let Err(error) = collect_on(&backend, &node, &volume).await {
            // The next attachment looks again.
            let error = format!("{error:#}");
            tracing::info!(volume, node = node.name, error, "unknown bricks may be left");
        }
    }
}

async fn collect_on(backend: &DistributedBackend, node: &Node, volume: &str) -> Result<()> {
    let shared = Arc::clone(&backend.0);
    let lent = shared.nodes.backend(node).await?;
    let volumes = lent.list(&shared.nodes.context()).await?;
    // Read after the list: what was made since then is not in it.
    let Some(descriptor) = shared.catalog.volume(volume).await? else { return Ok(()) };
    let base = base(volume, descriptor.identity);
    let engine = backend.engine(volume);
    let names = volumes.iter().map(|volume| volume.name.to_string());
    let readers = engine.as_ref().map(|engine| &engine.readers);
    readers::sweep(&shared.nodes, node, &base, names, readers).await?;
    for brick in unknown(&descriptor, &base, volumes.iter().map(|volume| volume.name.as_str())) {
        let companion = brick.companion_name(&base);
        let is_ours =
            volumes.iter().any(|volume| volume.name == companion && is_companion_size(volume.size));
        if !is_ours {
            let name = brick.name(&base);
            tracing::warn!(
                volume,
                node = node.name,
                name,
                "a volume looks like a brick, but is none"
            );
            continue;
        }
        shared.nodes.delete(node, &base, brick).await?;
        tracing::info!(volume, node = node.name, %brick, "a brick that nobody knows is deleted");
    }
    Ok(())
}

fn unknown<'a>(
    descriptor: &Descriptor,
    base: &str,
    names: impl Iterator<Item = &'a str>,
) -> Vec<BrickId> {
    let bricks = names.filter_map(|name| BrickId::from_name(base, name));
    let mut bricks: Vec<BrickId> = bricks.filter(|brick| !descriptor.knows(*brick)).collect();
    bricks.sort_unstable();
    bricks.dedup();
    bricks
}

#[cfg(test)]
mod tests {
    use distributed_core::NodeId;

    use super::*;

    #[test]
    fn only_bricks_of_this_volume_that_are_not_known_are_unknown() {
        let descriptor = Descriptor::new("v", 1, 1 << 30, &[NodeId(0), NodeId(1)]);
        let names = ["v.b0", "v.b0.c", "v.b7.c", "v.b7", "v.b9.c", "w.b7", "v.b", "v.bx", "v"];
        let found = unknown(&descriptor, "v", names.into_iter());
        assert_eq!(found, [BrickId(7), BrickId(9)]);
    }
}
