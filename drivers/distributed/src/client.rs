// SPDX-License-Identifier: Apache-2.0
//! Bricks on their nodes: the only place that calls other backends.
//!
//! A brick and its companion are volumes of the node's backend. A session with a brick is an attachment of both by force,
//! at an epoch above every earlier one: a backend that can fence then lets nothing of an earlier session land.

mod journal;

use std::{ops::Range, sync::Arc, time::Duration};

use distributed_core::{
    BrickId, MAP_OFFSET, Node, RECORD_ALIGNMENT, Record, SLOT_BYTES, Session, ShardMap, Slot,
    ZeroKind,
};
use driver_api::{
    Abilities, Attach, AttachMode, BackendHandle, Capabilities, Error, ErrorKind, Fencing, Host,
    IoBuf, IoBufMut, Op, OpContext, Result, VolumeHandle, WriteFlags,
    ext::{Resize, Snapshots},
};

use crate::{
    error,
    meters::{Meter, Meters},
};

/// Openings within one attach epoch that its number leaves room for.
const OPENINGS: u32 = 1 << 20;
/// Zeros that are copied stay a hole in pieces of so many bytes.
pub(crate) const GRAIN: usize = 64 << 10;
/// Bytes that are written into a companion at once.
const PIECE: usize = 1 << 20;
/// The least piece of a companion's room for the shard map, in bytes.
pub(crate) const MAP_ROOM: u64 = 1 << 20;

/// Room for a follower's two journals, which a backend that cannot grow volumes gives at creation or never. In bytes, of
/// which nothing is occupied until they are written.
pub(crate) const JOURNAL_ROOM: u64 = 3 << 20;

/// How nodes are reached.
#[derive(Clone, Debug)]
pub(crate) struct Nodes {
    host: Host,
    /// How long any one call may take.
    timeout: Duration,
    meters: Meters,
}

/// Whether a volume of so many bytes can be a companion.
pub(crate) fn is_companion_size(bytes: u64) -> bool {
    bytes > MAP_OFFSET && (bytes - MAP_OFFSET).is_multiple_of(MAP_ROOM)
}

/// A brick to be made.
pub(crate) struct NewBrick<'a> {
    /// What the names of the volume's bricks begin with.
    pub base: &'a str,
    /// Its number.
    pub brick: BrickId,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes of the shard map that its companion has to hold.
    pub map_bytes: usize,
    /// Bytes of a shard.
    pub shard_size: u64,
}

/// A session with a brick and its companion.
#[derive(Debug)]
pub(crate) struct OpenBrick {
    brick: VolumeHandle,
    companion: VolumeHandle,
    /// Whether nothing of earlier sessions can land any more.
    pub fenced: bool,
    /// What the brick can do.
    pub capabilities: Capabilities,
    /// Counts what is done on its node.
    pub meter: Arc<Meter>,
}

impl Nodes {
    /// Nodes are backends that this host lends.
    pub fn new(host: Host, timeout: Duration) -> Self {
        Self { host, timeout, meters: Meters::default() }
    }

    /// What is done on nodes.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// A context for one call.
    pub fn context(&self) -> OpContext {
        OpContext::new().with_timeout(self.timeout)
    }

    /// The backend behind a node. One that the host does not have now is unavailable: of the bricks on it nothing is
    /// known, least of all that they do not exist.
    pub async fn backend(&self, node: &Node) -> Result<BackendHandle> {
        self.host.backend(&node.name).await.map_err(|error| {
            let kind = match error.kind() {
                ErrorKind::NOT_FOUND => ErrorKind::UNAVAILABLE,
                kind => kind,
            };
            Error::new(kind, "the node's backend is not open")
                .with("node", &node.name)
                .with_retry(error.retry())
                .remedy("novastor backend list shows why")
                .caused_by(&error)
        })
    }

    /// The driver of the backend behind a node.
    pub fn driver_of(&self, node: &Node) -> Result<String> {
        self.host.driver_of(&node.name).map_err(|error| error.with("node", &node.name))
    }

    /// Refuses a node on which a volume has the name that the brick or its companion will have.
    pub async fn check_free(&self, node: &Node, base: &str, brick: BrickId) -> Result<()> {
        let backend = self.backend(node).await?;
        for name in [brick.name(base), brick.companion_name(base)] {
            match backend.show(&self.context(), &name).await {
                Err(error) if error.kind() == ErrorKind::NOT_FOUND => {}
                Err(error) => return Err(error.with("node", &node.name)),
                Ok(_) => {
                    return Err(Error::new(
                        ErrorKind::ALREADY_EXISTS,
                        "the node has a volume of the brick's name, which belongs to somebody else",
                    )
                    .with("node", &node.name)
                    .with("volume", &name)
                    .remedy("choose another name, or delete that volume if nobody needs it"));
                }
            }
        }
        Ok(())
    }

    /// Opens a brick and its companion in a session of their own, and gives the brick this size.
    pub async fn open(
        &self,
        node: &Node,
        base: &str,
        brick: BrickId,
        session: Session,
        size: u64,
    ) -> Result<OpenBrick> {
        let backend = self.backend(node).await?;
        let epoch = session.epoch * u64::from(OPENINGS) + u64::from(session.opening % OPENINGS);
        let attach = Attach::new(AttachMode::EXCLUSIVE, epoch, base).force();
        let attached =
            async |name: String| backend.attach(&self.context(), &name, attach.clone()).await;
        let companion = attached(brick.companion_name(base)).await?;
        let data = attached(brick.name(base)).await?;
        let capabilities = data.capabilities()?;
        let fences = |fencing: Fencing| fencing != Fencing::NONE;
        let open = OpenBrick {
            fenced: fences(capabilities.fencing) && fences(companion.capabilities()?.fencing),
            brick: data,
            companion,
            capabilities,
            meter: self.meters.of(node.id),
        };
        open.give_size(&self.context(), size).await?;
        Ok(open)
    }

    /// Whether a node answers, and is not failed.
    pub async fn check(&self, node: &Node) -> Result<()> {
        let backend = self.backend(node).await?;
        let asked =
            tokio::time::timeout(self.timeout, async { backend.health(&self.context()).await });
        let health = asked.await.map_err(|_| {
            Error::new(ErrorKind::TIMED_OUT, "the node does not answer").with("node", &node.name)
        })??;
        if health.state == driver_api::HealthState::FAILED {
            return Err(Error::new(ErrorKind::UNAVAILABLE, health.reason.to_string())
                .with("node", &node.name));
        }
        Ok(())
    }
}

impl OpenBrick {
    /// The storage incarnation, now.
    pub fn incarnation(&self) -> Result<u64> {
        Ok(self.brick.incarnation()?.wrapping_add(self.companion.incarnation()?))
    }

    /// Makes the brick this long.
    pub async fn give_size(&self, cx: &OpContext, size: u64) -> Result<()> {
        let now = self.brick.size()?;
        if now == size {
            return Ok(());
        }
        let resize = self.brick.resize()?.ok_or_else(|| driver_api::ext::unsupported("resize"))?;
        resize.resize(cx, size, size < now).await
    }

    /// Reads a range of the brick.
    pub fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        self.brick.read(cx, offset, len)
    }

    /// Writes to the brick.
    pub fn write(&self, cx: &OpContext, offset: u64, data: IoBuf, fua: bool) -> Op<()> {
        if fua && !self.capabilities.has(Abilities::FUA) {
            let (brick, cx) = (self.brick.clone(), *cx);
            return Op::run(async move {
                brick.write(&cx, offset, data, WriteFlags::NONE).await?;
                brick.flush(&cx).await
            });
        }
        let flags = if fua { WriteFlags::FUA } else { WriteFlags::NONE };
        self.brick.write(cx, offset, data, flags)
    }

    /// Makes a range of the brick read zeros, whatever the backend has for it.
    pub fn zero(&self, cx: &OpContext, offset: u64, len: u64, how: ZeroKind, fua: bool) -> Op<()> {
        let can = |ability| self.capabilities.has(ability);
        let zeroed = if how == ZeroKind::Discard && can(Abilities::DISCARD) {
            self.brick.discard(cx, offset, len)
        } else if can(Abilities::WRITE_ZEROES) {
            let flags =
                if how == ZeroKind::Allocated { WriteFlags::NO_HOLE } else { WriteFlags::NONE };
            self.brick.write_zeroes(cx, offset, len, flags)
        } else {
            let (brick, cx) = (self.brick.clone(), *cx);
            let piece = u64::from(self.capabilities.max_io).min(1 << 20);
            Op::run(async move {
                for start in (offset..offset + len).step_by(piece as usize) {
                    let len = piece.min(offset + len - start);
                    let zeros = IoBufMut::zeroed(len as usize).freeze();
                    brick.write(&cx, start, zeros, WriteFlags::NONE).await?;
                }
                Ok(())
            })
        };
        if !fua {
            return zeroed;
        }
        let (brick, cx) = (self.brick.clone(), *cx);
        Op::run(async move {
            zeroed.await?;
            brick.flush(&cx).await
        })
    }

    /// Frees what a brick that was just cloned, of `size` bytes, has beside its slot's shards. Where the backend cannot
    /// free anything it stays, which costs room and nothing else.
    pub async fn free_beside(
        &self,
        cx: &OpContext,
        map: &ShardMap,
        slot: Slot,
        size: u64,
    ) -> Result<()> {
        if !self.capabilities.has(Abilities::DISCARD) {
            return Ok(());
        }
        let ranges = map.beside(slot, size);
        for (offset, len) in &ranges {
            self.brick.discard(cx, *offset, *len).await?;
        }
        if ranges.is_empty() { Ok(()) } else { self.brick.flush(cx).await }
    }

    /// Takes a snapshot of the brick; one of this number is of the same attempt.
    pub async fn snapshot(&self, cx: &OpContext, number: u32) -> Result<()> {
        match self.snapshots()?.create(cx, &snapshot_name(number)).await {
            Err(error) if error.kind() != ErrorKind::ALREADY_EXISTS => Err(error),
            _ => Ok(()),
        }
    }

    /// Deletes a snapshot of the brick; none is as good.
    pub async fn drop_snapshot(&self, cx: &OpContext, number: u32) -> Result<()> {
        match self.snapshots()?.delete(cx, &snapshot_name(number)).await {
            Err(error) if error.kind() != ErrorKind::NOT_FOUND => Err(error),
            _ => Ok(()),
        }
    }

    fn snapshots(&self) -> Result<driver_api::SnapshotsHandle> {
        self.brick.snapshots()?.ok_or_else(|| driver_api::ext::unsupported("snapshots"))
    }

    /// Makes everything that the brick answered durable.
    pub fn flush(&self, cx: &OpContext) -> Op<()> {
        self.brick.flush(cx)
    }

    /// Writes into the companion, durably; one that is too small grows.
    pub async fn write_companion(&self, cx: &OpContext, offset: u64, data: IoBuf) -> Result<()> {
        let end = offset + data.len() as u64;
        if end > self.companion.size()? {
            let resize = self.companion.resize()?;
            let resize = resize.ok_or_else(|| driver_api::ext::unsupported("resize"))?;
            resize.resize(cx, end.next_multiple_of(MAP_ROOM), false).await?;
        }
        for start in (0..data.len()).step_by(PIECE) {
            let piece = data.slice(start, PIECE.min(data.len() - start));
            self.companion.write(cx, offset + start as u64, piece, WriteFlags::NONE).await?;
        }
        self.companion.flush(cx).await
    }

    /// The two slots of the companion's records.
    pub async fn read_companion(&self, cx: &OpContext) -> Result<[Vec<u8>; 2]> {
        let slot = async |number: u64| {
            let offset = number * SLOT_BYTES as u64;
            Ok::<_, Error>(self.companion.read(cx, offset, SLOT_BYTES as u32).await?.to_vec())
        };
        Ok([slot(0).await?, slot(1).await?])
    }

    /// Writes the shard map and the first record of a volume's brick.
    pub async fn begin(&self, cx: &OpContext, map: &[u8], record: &Record) -> Result<()> {
        self.write_companion(cx, record.map_at, IoBuf::copy_from(&padded(map))).await?;
        self.write_companion(cx, record.offset(), IoBuf::copy_from(&record.encode())).await
    }

    /// Ends the session.
    pub async fn close(&self, cx: &OpContext) -> Result<()> {
        let brick = self.brick.detach(cx).await;
        let companion = self.companion.detach(cx).await;
        brick.and(companion)
    }
}

/// Copies a range between bricks, from a source that must have this incarnation after it was read; what reads zeros
/// occupies nothing afterwards.
pub(crate) async fn copy(
    cx: &OpContext,
    from: &OpenBrick,
    must_be: Option<u64>,
    to: &OpenBrick,
    offset: u64,
    len: u32,
) -> Copied {
    let data = match from.read(cx, offset, len).await {
        Ok(data) => data,
        Err(error) => return Copied::SourceFailed(error),
    };
    match from.incarnation() {
        Ok(incarnation) if must_be.is_none_or(|must_be| must_be == incarnation) => {}
        Ok(_) => return Copied::SourceFailed(restarted()),
        Err(error) => return Copied::SourceFailed(error),
    }
    for (zero, run) in runs(&data) {
        let (at, bytes) = (offset + run.start as u64, run.len() as u64);
        let written = if zero {
            to.zero(cx, at, bytes, ZeroKind::Discard, false).await
        } else {
            to.write(cx, at, data.slice(run.start, run.len()), false).await
        };
        if written.is_err() {
            return Copied::Written(written);
        }
    }
    Copied::Written(Ok(()))
}

/// A shard map as companions keep it: whole blocks.
fn padded(map: &[u8]) -> Vec<u8> {
    let mut padded = map.to_vec();
    padded.resize(map.len().next_multiple_of(RECORD_ALIGNMENT), 0);
    padded
}

pub(crate) fn is_zero(data: &[u8]) -> bool {
    // Without a way out in the middle, which lets the compiler take many bytes at a time.
    data.iter().fold(0, |all, byte| all | byte) == 0
}

/// The longest ranges in which either all grains are zero (`true`), or none is.
fn runs(data: &[u8]) -> Vec<(bool, Range<usize>)> {
    let mut runs: Vec<(bool, Range<usize>)> = Vec::new();
    for (index, grain) in data.chunks(GRAIN).enumerate() {
        let (zero, start) = (is_zero(grain), index * GRAIN);
        let end = start + grain.len();
        match runs.last_mut() {
            Some((same, run)) if *same == zero => run.end = end,
            _ => runs.push((zero, start..end)),
        }
    }
    runs
}

/// What became of a copy.
pub(crate) enum Copied {
    /// The source could not be read; nothing was written.
    SourceFailed(Error),
    /// The target's answer.
    Written(Result<()>),
}

fn restarted() -> Error {
    Error::new(ErrorKind::UNAVAILABLE, "the source restarted while it was read")
}

/// The replicas whose range is not that of the first one.
pub(crate) async fn compare(
    cx: &OpContext,
    bricks: &[(Slot, Arc<OpenBrick>)],
    offset: u64,
    len: u32,
) -> Result<distributed_core::SlotSet> {
    let mut differ = distributed_core::SlotSet::EMPTY;
    let mut first: Option<IoBuf> = None;
    for (slot, brick) in bricks {
        let data = brick.read(cx, offset, len).await?;
        match &first {
            None => first = Some(data),
            Some(first) if **first == *data => {}
            Some(_) => differ.insert(*slot),
        }
    }
    Ok(differ)
}

/// What a volume's snapshot is called on its bricks.
pub(crate) fn snapshot_name(number: u32) -> String {
    format!("s{number}")
}

/// An error of a node, with the node's name.
pub(crate) fn on_node(node: &Node) -> impl Fn(Error) -> Error + '_ {
    move |error| error.with("node", &node.name)
}

/// The answer to a change, for the core.
pub(crate) use error::changed;

#[cfg(test)]
mod tests {
    use super::{GRAIN, runs};

    #[test]
    fn zeros_are_told_from_data_grain_by_grain() {
        let ends =
            |data: &[u8]| runs(data).iter().map(|(zero, run)| (*zero, run.end)).collect::<Vec<_>>();
        let mut data = vec![0; 5 * GRAIN + 512];
        assert_eq!(ends(&data), [(true, data.len())]);
        data[2 * GRAIN] = 1;
        data[4 * GRAIN - 1] = 1;
        assert_eq!(ends(&data), [(true, 2 * GRAIN), (false, 4 * GRAIN), (true, data.len())]);
        assert_eq!(runs(&data)[1].1.start, 2 * GRAIN);
        data.fill(1);
        assert_eq!(ends(&data), [(false, data.len())]);
        assert!(runs(&[]).is_empty());
    }
}
