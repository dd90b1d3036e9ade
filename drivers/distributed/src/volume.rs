// SPDX-License-Identifier: Apache-2.0
//! An attached volume: the data path, on its way to the engine.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use distributed_core::{BrickState, ClientOp, Mode, Status, View, ZeroKind};
use driver_api::{
    Abilities, Capabilities, Fencing, IoBuf, Op, OpContext, Result, Stats, Volume, WriteFlags, ext,
};

use crate::{driver::DistributedBackend, engine::Engine, session::Session};

/// What every volume can do.
pub(crate) const ABILITIES: Abilities = Abilities::from_bits(
    Abilities::WRITE.bits()
        | Abilities::FUA.bits()
        | Abilities::DISCARD.bits()
        | Abilities::WRITE_ZEROES.bits()
        | Abilities::GROW.bits()
        | Abilities::SHRINK.bits()
        | Abilities::PERSISTENT.bits()
        | Abilities::SESSIONS.bits(),
);

/// An attached volume, as everybody has it or as a session does.
#[derive(Clone)]
pub struct DistributedVolume {
    pub(crate) attached: Arc<Attached>,
    pub(crate) session: Option<Arc<Session>>,
}

/// What all handles to an attached volume share.
pub(crate) struct Attached {
    pub backend: DistributedBackend,
    /// Another one after a roll back.
    engine: RwLock<Arc<Engine>>,
    pub epoch: u64,
    pub capabilities: Capabilities,
    pub size: AtomicU64,
}

/// What a volume on these bricks can do: no more than its weakest.
pub(crate) fn capabilities<'a>(bricks: impl Iterator<Item = &'a Capabilities>) -> Capabilities {
    let abilities = ABILITIES.and(Abilities::SNAPSHOT);
    let mut all = Capabilities { fencing: Fencing::EXCLUSIVE_LOCK, ..Capabilities::new(abilities) };
    for brick in bricks {
        if !brick.has(Abilities::SNAPSHOT) {
            all.abilities = all.abilities.without(Abilities::SNAPSHOT);
        }
        all.min_block = all.min_block.max(brick.min_block);
        all.preferred_block = all.preferred_block.max(brick.preferred_block);
        all.max_io = all.max_io.min(brick.max_io);
        all.max_volume_size = all.max_volume_size.min(brick.max_volume_size);
        if brick.fencing == Fencing::NONE {
            all.fencing = Fencing::NONE;
        }
    }
    all
}

impl Attached {
    /// What all handles to a volume share that is attached by this engine.
    pub async fn new(backend: DistributedBackend, engine: Arc<Engine>, epoch: u64) -> Result<Self> {
        let sessions = engine.sessions()?;
        let mut own = capabilities(sessions.iter().map(|session| &session.capabilities));
        if own.has(Abilities::SNAPSHOT) && backend.nodes_clone(&engine).await? {
            own.abilities = own.abilities.and(Abilities::ROLLBACK);
        }
        Ok(Self {
            capabilities: own,
            size: AtomicU64::new(engine.size()?),
            backend,
            epoch,
            engine: RwLock::new(engine),
        })
    }

    /// The engine that has the volume now.
    pub fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another engine has the volume from now on.
    pub fn renew(&self, engine: Arc<Engine>) -> Result<()> {
        self.size.store(engine.size()?, Ordering::Release);
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = engine;
        Ok(())
    }

    fn change(
        &self,
        cx: &OpContext,
        op: ClientOp,
        data: IoBuf,
        session: Option<&Arc<Session>>,
    ) -> Op<()> {
        match self.engine().submit_in(cx, op, data, session) {
            Op::Ready(result) => Op::ready(result.into_result().map(drop)),
            Op::Pending(future) => Op::run(async move { future.await.map(drop) }),
        }
    }

    async fn detach(self: Arc<Self>, cx: OpContext) -> Result<()> {
        self.backend.detach(&self.engine(), self.epoch, &cx).await
    }
}

impl Volume for DistributedVolume {
    fn size(&self) -> u64 {
        self.attached.size.load(Ordering::Acquire)
    }

    fn capabilities(&self) -> Capabilities {
        self.attached.capabilities
    }

    fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        if len == 0 {
            return Op::ok(IoBuf::empty());
        }
        let session = self.session.as_ref();
        let view = session.map_or(View::Latest, |session| session.view());
        let op = ClientOp::Read { offset, len, view };
        self.attached.engine().submit_in(cx, op, IoBuf::empty(), session)
    }

    fn write(&self, cx: &OpContext, offset: u64, data: IoBuf, flags: WriteFlags) -> Op<()> {
        let fua = flags.has(WriteFlags::FUA);
        match data.len() as u32 {
            0 if fua => self.flush(cx),
            0 => Op::ok(()),
            len => self.change(cx, ClientOp::Write { offset, len, fua }, data),
        }
    }

    fn flush(&self, cx: &OpContext) -> Op<()> {
        self.change(cx, ClientOp::Flush, IoBuf::empty())
    }

    fn discard(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        self.zero(cx, offset, len, ZeroKind::Discard, false)
    }

    fn write_zeroes(&self, cx: &OpContext, offset: u64, len: u64, flags: WriteFlags) -> Op<()> {
        if flags.has(WriteFlags::FAST_ONLY) {
            return Op::err(ext::unsupported("write_zeroes, fast only"));
        }
        let how = if flags.has(WriteFlags::NO_HOLE) { ZeroKind::Allocated } else { ZeroKind::Zero };
        self.zero(cx, offset, len, how, flags.has(WriteFlags::FUA))
    }

    fn detach(&self, cx: &OpContext) -> Op<()> {
        let (attached, cx) = (Arc::clone(&self.attached), *cx);
        // It goes on to its end whether or not anybody waits: a volume half detached serves nobody.
        let detached = tokio::spawn(attached.detach(cx));
        Op::run(async move {
            detached.await.map_err(|error| {
                driver_api::Error::new(driver_api::ErrorKind::PANIC, error.to_string())
            })?
        })
    }

    fn stats(&self) -> Stats {
        let engine = self.attached.engine();
        let Ok(status) = engine.status() else { return Stats::new() };
        let in_state = |state| status.bricks.iter().filter(|brick| brick.state == state).count();
        let sum = |figure: fn(&distributed_core::BrickStatus) -> u64| -> u64 {
            status.bricks.iter().map(figure).sum()
        };
        let stats = Stats::new()
            .gauge("replicas", status.bricks.len() as f64)
            .gauge("replicas_in_sync", in_state(BrickState::InSync) as f64)
            .gauge("resync_bytes_left", sum(|brick| brick.dirty_bytes) as f64)
            .counter("resync_bytes_copied", sum(|brick| brick.copied_bytes));
        lags(&engine, &status, stats)
    }

    fn snapshots(&self) -> Option<Arc<dyn ext::Snapshots>> {
        self.attached
            .capabilities
            .has(Abilities::SNAPSHOT)
            .then(|| Arc::new(self.clone()) as Arc<_>)
    }

    fn resize(&self) -> Option<Arc<dyn ext::Resize>> {
        Some(Arc::new(self.clone()))
    }

    fn sessions(&self) -> Option<Arc<dyn ext::Sessions<Self>>> {
        Some(Arc::new(self.clone()))
    }
}

/// Adds how far the replicas of an asynchronous volume are behind, by node.
fn lags(engine: &Engine, status: &Status, mut stats: Stats) -> Stats {
    if status.mode == Mode::Synchronous {
        return stats;
    }
    stats = stats.gauge("headless", f64::from(u8::from(status.is_headless)));
    for brick in &status.bricks {
        let Some(behind) = brick.behind else { continue };
        let node = engine.node(brick.node).map_or_else(|| brick.node.to_string(), |n| n.name);
        stats = stats
            .gauge_of("behind_writes", ("node", &node), behind.writes as f64)
            .gauge_of("behind_bytes", ("node", &node), behind.bytes as f64)
            .gauge_of("behind_seconds", ("node", &node), behind.nanoseconds as f64 / 1e9);
    }
    stats
}

impl DistributedVolume {
    fn change(&self, cx: &OpContext, op: ClientOp, data: IoBuf) -> Op<()> {
        self.attached.change(cx, op, data, self.session.as_ref())
    }

    fn zero(&self, cx: &OpContext, offset: u64, len: u64, how: ZeroKind, fua: bool) -> Op<()> {
        if len == 0 {
            return Op::ok(());
        }
        self.change(cx, ClientOp::Zero { offset, len, how, fua }, IoBuf::empty())
    }
}

impl ext::Resize for DistributedVolume {
    fn resize(&self, cx: &OpContext, size: u64, shrink: bool) -> Op<()> {
        let now = self.size();
        if size < now && !shrink {
            let error = driver_api::Error::new(
                driver_api::ErrorKind::INVALID_ARGUMENT,
                "a smaller size cuts data off, and that was not asked for",
            );
            return Op::err(error.with("size", now).with("asked", size));
        }
        let (attached, cx) = (Arc::clone(&self.attached), *cx);
        Op::run(async move {
            let engine = attached.engine();
            // A factor that is changed meanwhile would be accounted for another size.
            let _turn = attached.backend.0.turns.take(engine.volume()).await;
            attached.backend.account_resize(engine.volume(), now, size).await?;
            let resized =
                attached.change(&cx, ClientOp::Resize { size }, IoBuf::empty(), None).await;
            let size_now = engine.size()?;
            attached.size.store(size_now, Ordering::Release);
            if resized.is_err() {
                attached.backend.account_resize(engine.volume(), size, size_now).await?;
            }
            resized
        })
    }
}
