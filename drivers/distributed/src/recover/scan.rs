// SPDX-License-Identifier: Apache-2.0
//! Looks for companions on all nodes, and reads them as a guest: read-only, without force, and at an epoch that leaves
//! no later one of their owner behind.

use std::{collections::BTreeMap, time::Duration};

use distributed_core::{
    BrickId, DecodeError, Generation, MAP_OFFSET, Node, Record, SLOT_BYTES, ShardMap,
};
use driver_api::{
    Attach, AttachMode, BackendHandle, Error, ErrorKind, OpContext, Result, VolumeHandle,
};

use crate::client::Nodes;

/// Who reads, for those whose volume it is.
const OWNER: &str = "recovery";
/// How often an epoch is tried that the backend takes: zero, the one that it remembers, the next.
const TRIES: usize = 3;
/// The longest shard map that is believed, in bytes: 64 Ki sets, and a number for each of 64 Mi shards.
const MOST_MAP: u32 = 256 << 20;
/// Bytes of a map that are read at once.
const PIECE: u32 = 1 << 20;

/// A volume of a node that has the name of a companion.
#[derive(Debug)]
pub(super) struct Seen {
    pub node: Node,
    /// What the names of the volume's bricks begin with.
    pub base: String,
    pub brick: BrickId,
    pub content: Content,
}

/// Shard maps that snapshots name, by their names.
pub(super) type Frozen = BTreeMap<Generation, ShardMap>;

/// What a companion says.
#[derive(Debug)]
pub(super) enum Content {
    /// It was not asked: the state knows the brick.
    Known,
    /// Its newest record, and its shard map, or why that cannot be read.
    /// The third: the maps that only its snapshots name, as far as they can be read.
    Record(Box<Record>, std::result::Result<ShardMap, String>, Frozen),
    /// Nothing was ever written there.
    Empty,
    /// Somebody has it attached: who, in words.
    InUse(String),
    /// A newer version wrote it.
    TooNew,
    /// Why it cannot be read.
    Unreadable(String),
}

/// What was found, and which nodes did not answer and why.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub seen: Vec<Seen>,
    pub silent: Vec<(Node, String)>,
}

/// What a companion's name says of it: what its volume's bricks begin with, and its brick.
pub(super) fn companion(name: &str) -> Option<(&str, BrickId)> {
    let (base, number) = name.strip_suffix(".c")?.rsplit_once(".b")?;
    let brick = BrickId(number.parse().ok()?);
    (!base.is_empty() && brick.companion_name(base) == name).then_some((base, brick))
}

/// Looks on all these nodes at once for companions whose base `wanted` takes; `known` ones are not opened.
pub(super) async fn scan(
    nodes: &Nodes,
    registered: &[Node],
    wanted: impl Fn(&str) -> bool,
    known: impl Fn(&Node, &str, BrickId) -> bool,
) -> Scan {
    let (wanted, known) = (&wanted, &known);
    let looks = registered.iter().map(|node| async move {
        match look(nodes, node, wanted, known).await {
            Ok(seen) => Ok(seen),
            Err(error) => Err((node.clone(), told(&error))),
        }
    });
    let mut scan = Scan::default();
    for looked in futures_util::future::join_all(looks).await {
        match looked {
            Ok(seen) => scan.seen.extend(seen),
            Err(silent) => scan.silent.push(silent),
        }
    }
    scan
}

/// What a person is told of an error.
fn told(error: &Error) -> String {
    error.message().to_owned()
}

async fn look(
    nodes: &Nodes,
    node: &Node,
    wanted: &impl Fn(&str) -> bool,
    known: &impl Fn(&Node, &str, BrickId) -> bool,
) -> Result<Vec<Seen>> {
    let backend = nodes.backend(node).await?;
    let cx = nodes.context();
    let patience = cx.time_left().unwrap_or(Duration::MAX);
    let volumes = tokio::time::timeout(patience, async { backend.list(&cx).await })
        .await
        .map_err(|_| Error::new(ErrorKind::TIMED_OUT, "the node does not answer"))??;
    let mut found = Vec::new();
    for volume in &volumes {
        let Some((base, brick)) = companion(&volume.name) else { continue };
        if !wanted(base) {
            continue;
        }
        let content = if known(node, base, brick) {
            Content::Known
        } else {
            let reading = read(&backend, nodes.context(), &volume.name, volume.size);
            match tokio::time::timeout(patience, reading).await {
                Ok(Ok(content)) => content,
                Ok(Err(error)) if error.kind() == ErrorKind::IN_USE => Content::InUse(told(&error)),
                Ok(Err(error)) => Content::Unreadable(told(&error)),
                Err(_) => Content::Unreadable("it was not read in time".to_owned()),
            }
        };
        found.push(Seen { node: node.clone(), base: base.to_owned(), brick, content });
    }
    Ok(found)
}

async fn read(backend: &BackendHandle, cx: OpContext, name: &str, size: u64) -> Result<Content> {
    let companion = guest(backend, &cx, name).await?;
    let content = read_open(&companion, &cx, size).await;
    if let Err(error) = companion.detach(&cx).await {
        // It was only read, and is taken by force when its volume is attached.
        tracing::warn!(name, error = format!("{error:#}"), "a companion is not given back");
    }
    content
}

/// Attaches a volume to read it.
///
/// A backend refuses epochs that lie before those of its volume's owner, which nobody here knows: it tells the latest.
/// That one, or the next, is below all that the owner's next attachment may use.
async fn guest(backend: &BackendHandle, cx: &OpContext, name: &str) -> Result<VolumeHandle> {
    let mut epoch = 0;
    for _ in 1..TRIES {
        let attach = Attach::new(AttachMode::READ_ONLY, epoch, OWNER);
        match backend.attach(cx, name, attach).await {
            Err(error) if error.kind() == ErrorKind::FENCED => match latest_epoch(&error) {
                Some(latest) if latest > epoch => epoch = latest,
                Some(_) => epoch += 1,
                None => return Err(error),
            },
            attached => return attached,
        }
    }
    backend.attach(cx, name, Attach::new(AttachMode::READ_ONLY, epoch, OWNER)).await
}

fn latest_epoch(error: &Error) -> Option<u64> {
    error.context().find(|(key, _)| *key == "latest_epoch")?.1.parse().ok()
}

async fn read_open(companion: &VolumeHandle, cx: &OpContext, size: u64) -> Result<Content> {
    if size < MAP_OFFSET {
        return Ok(Content::Unreadable("it is too short for a companion".to_owned()));
    }
    let slot = async |number: u64| {
        let offset = number * SLOT_BYTES as u64;
        Ok::<_, Error>(companion.read(cx, offset, SLOT_BYTES as u32).await?.to_vec())
    };
    let record = match Record::newest(&[slot(0).await?, slot(1).await?]) {
        Ok(record) => record,
        Err(DecodeError::Empty) => return Ok(Content::Empty),
        Err(DecodeError::TooNew) => return Ok(Content::TooNew),
        Err(why) => return Ok(Content::Unreadable(why.to_string())),
    };
    let map = read_map(companion, cx, (record.map_at, record.map_bytes), size).await;
    let mut frozen = Frozen::new();
    for place in &record.snapshot_maps {
        match read_map(companion, cx, (place.at, place.bytes), size).await {
            Ok(map) => _ = frozen.insert(place.version, map),
            // Another companion has it, too.
            Err(why) => {
                tracing::warn!(version = %place.version, why, "a snapshot's shard map cannot be read")
            }
        }
    }
    Ok(Content::Record(Box::new(record), map, frozen))
}

async fn read_map(
    companion: &VolumeHandle,
    cx: &OpContext,
    (start, len): (u64, u32),
    size: u64,
) -> std::result::Result<ShardMap, String> {
    if len == 0 || len > MOST_MAP || start.saturating_add(u64::from(len)) > size {
        return Err(format!("it cannot have {len} bytes"));
    }
    let mut bytes = Vec::new();
    for at in (0..len).step_by(PIECE as usize) {
        let piece = companion.read(cx, start + u64::from(at), PIECE.min(len - at)).await;
        bytes.extend_from_slice(&piece.map_err(|error| told(&error))?);
    }
    ShardMap::decode(&bytes).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_are_those_of_companions() {
        assert_eq!(companion("disk.b0.c"), Some(("disk", BrickId(0))));
        assert_eq!(companion("a.b1.c.b12.c"), Some(("a.b1.c", BrickId(12))));
        for other in ["disk.b0", "disk.b.c", "disk.b07.c", ".b1.c", "disk.c", "disk.b-1.c", "b1.c"]
        {
            assert_eq!(companion(other), None, "{other}");
        }
    }
}
