// SPDX-License-Identifier: Apache-2.0
//! A layer that forwards every operation as it is: what a layer costs, and the pattern for others.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use driver_api::{ext, *};

struct Forward;

/// A volume, and what was asked of the one below it.
#[derive(Clone)]
struct Passed(Arc<Below>);

struct Below {
    volume: VolumeHandle,
    capabilities: Capabilities,
    snapshots: Option<Arc<dyn ext::Snapshots>>,
    resize: Option<Arc<dyn ext::Resize>>,
    allocation_map: Option<Arc<dyn ext::AllocationMap>>,
    sessions: Option<SessionsHandle>,
    /// What `volume` is of, if it is a session's.
    session: Option<SessionHandle>,
    /// The last that was told.
    size: AtomicU64,
    incarnation: AtomicU64,
}

impl Layer for Forward {
    type Volume = Passed;

    fn describe() -> DriverInfo {
        DriverInfo::new("Forwards every operation as it is")
    }

    async fn wrap(_host: Host, _config: BackendConfig, inner: VolumeHandle) -> Result<Passed> {
        Passed::over(inner, None)
    }
}

impl Passed {
    fn over(inner: VolumeHandle, session: Option<SessionHandle>) -> Result<Self> {
        Ok(Self(Arc::new(Below {
            capabilities: inner.capabilities()?,
            snapshots: inner.snapshots()?.map(|handle| Arc::new(handle) as _),
            resize: inner.resize()?.map(|handle| Arc::new(handle) as _),
            allocation_map: inner.allocation_map()?.map(|handle| Arc::new(handle) as _),
            sessions: inner.sessions()?,
            session,
            size: AtomicU64::new(inner.size()?),
            incarnation: AtomicU64::new(inner.incarnation()?),
            volume: inner,
        })))
    }
}

/// The answer, which becomes the last one; or the last one, if there is none now.
fn or_last(what: &'static str, answer: Result<u64>, last: &AtomicU64) -> u64 {
    match answer {
        Ok(value) => {
            last.store(value, Ordering::Relaxed);
            value
        }
        Err(error) => {
            tracing::warn!(what, %error, "the volume below does not answer, the last answer stands");
            last.load(Ordering::Relaxed)
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Volume for Passed {
    fn size(&self) -> u64 {
        or_last("size", self.0.volume.size(), &self.0.size)
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities
    }

    fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        self.0.volume.read(cx, offset, len)
    }

    fn write(&self, cx: &OpContext, offset: u64, data: IoBuf, flags: WriteFlags) -> Op<()> {
        self.0.volume.write(cx, offset, data, flags)
    }

    fn flush(&self, cx: &OpContext) -> Op<()> {
        self.0.volume.flush(cx)
    }

    fn discard(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        self.0.volume.discard(cx, offset, len)
    }

    fn write_zeroes(&self, cx: &OpContext, offset: u64, len: u64, flags: WriteFlags) -> Op<()> {
        self.0.volume.write_zeroes(cx, offset, len, flags)
    }

    fn prefetch(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        self.0.volume.prefetch(cx, offset, len)
    }

    fn detach(&self, cx: &OpContext) -> Op<()> {
        self.0.volume.detach(cx)
    }

    fn stats(&self) -> Stats {
        self.0.volume.stats().unwrap_or_else(|error| {
            tracing::warn!(%error, "the volume below has no figures now");
            Stats::new()
        })
    }

    fn incarnation(&self) -> u64 {
        or_last("incarnation", self.0.volume.incarnation(), &self.0.incarnation)
    }

    fn snapshots(&self) -> Option<Arc<dyn ext::Snapshots>> {
        self.0.snapshots.clone()
    }

    fn resize(&self) -> Option<Arc<dyn ext::Resize>> {
        self.0.resize.clone()
    }

    fn allocation_map(&self) -> Option<Arc<dyn ext::AllocationMap>> {
        self.0.allocation_map.clone()
    }

    fn sessions(&self) -> Option<Arc<dyn ext::Sessions<Self>>> {
        self.0.sessions.clone().map(|handle| Arc::new(Sessions(handle)) as _)
    }
}

/// Sessions with the volume below, each of which is passed through as that volume is.
struct Sessions(SessionsHandle);

impl ext::Sessions<Passed> for Sessions {
    fn consistency(&self) -> Result<ext::Consistency> {
        self.0.consistency()
    }

    fn open(&self, token: &str) -> Result<Passed> {
        let session = self.0.open(token)?;
        Passed::over(session.volume()?, Some(session))
    }

    fn token(&self, session: &Passed) -> Result<String> {
        match &session.0.session {
            Some(session) => Ok(session.token()?.into()),
            None => Err(Error::new(ErrorKind::INVALID_ARGUMENT, "the volume is no session's")),
        }
    }
}

export_layer!(Forward, "forward");

#[cfg(test)]
mod tests;
