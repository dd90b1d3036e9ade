// SPDX-License-Identifier: Apache-2.0
//! A volume in memory whose operations finish when the test says so.

use std::{
    future::poll_fn,
    sync::{
        Arc, Condvar, Mutex, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use driver_api::{
    Abilities, Capabilities, Error, ErrorKind, Host, IoBuf, Op, OpContext, Result, Stats, Volume,
    WriteFlags, export::export_volume, host::NoServices,
};
use novastor::{
    access::Peer,
    export::nbd::{Export, ExportSource},
    plugins::GuardedVolume,
};
use tokio::sync::oneshot;

pub const ALL: Abilities = Abilities::WRITE
    .and(Abilities::FUA)
    .and(Abilities::DISCARD)
    .and(Abilities::WRITE_ZEROES)
    .and(Abilities::FAST_ZERO);

/// How operations go on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Finished at once.
    Ready,
    /// Pending until [`TestVolume::release`].
    Held,
    /// Wakes itself at every poll until [`TestVolume::release`] of it.
    Busy,
    /// Panics.
    Panic,
}

/// An operation as the driver saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub what: &'static str,
    pub offset: u64,
    pub flags: u32,
}

#[derive(Clone)]
pub struct TestVolume(Arc<Inner>);

struct Inner {
    data: RwLock<Vec<u8>>,
    capabilities: Capabilities,
    state: Mutex<State>,
    changed: Condvar,
    dropped: AtomicUsize,
    leases: AtomicUsize,
    read_only: AtomicBool,
}

struct State {
    mode: Mode,
    fail: Option<ErrorKind>,
    log: bool,
    seen: Vec<Seen>,
    held: Vec<(Seen, oneshot::Sender<()>)>,
    most_held: usize,
}

/// Counts a future that was dropped before its end.
struct Unfinished(Option<Arc<Inner>>);

impl Unfinished {
    fn finish(&mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(inner) = self.0.take() {
            let state = inner.state.lock().unwrap();
            inner.dropped.fetch_add(1, Ordering::SeqCst);
            drop(state);
            inner.changed.notify_all();
        }
    }
}

/// Held by connections; the volume counts them.
struct Lease(Arc<Inner>);

impl Drop for Lease {
    fn drop(&mut self) {
        let state = self.0.state.lock().unwrap();
        self.0.leases.fetch_sub(1, Ordering::SeqCst);
        drop(state);
        self.0.changed.notify_all();
    }
}

impl TestVolume {
    pub fn new(size: usize) -> Self {
        Self::with(size, Capabilities::new(ALL))
    }

    pub fn with(size: usize, capabilities: Capabilities) -> Self {
        let state = State {
            mode: Mode::Ready,
            fail: None,
            log: true,
            seen: Vec::new(),
            held: Vec::new(),
            most_held: 0,
        };
        Self(Arc::new(Inner {
            data: RwLock::new(vec![0; size]),
            capabilities,
            state: Mutex::new(state),
            changed: Condvar::new(),
            dropped: AtomicUsize::new(0),
            leases: AtomicUsize::new(0),
            read_only: AtomicBool::new(false),
        }))
    }

    pub fn set_mode(&self, mode: Mode) {
        self.0.state.lock().unwrap().mode = mode;
    }

    pub fn set_fail(&self, kind: Option<ErrorKind>) {
        self.0.state.lock().unwrap().fail = kind;
    }

    pub fn set_read_only(&self) {
        self.0.read_only.store(true, Ordering::SeqCst);
    }

    pub fn without_log(self) -> Self {
        self.0.state.lock().unwrap().log = false;
        self
    }

    pub fn data(&self) -> Vec<u8> {
        self.0.data.read().unwrap().clone()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.0.state.lock().unwrap().seen.clone()
    }

    pub fn most_held(&self) -> usize {
        self.0.state.lock().unwrap().most_held
    }

    pub fn dropped(&self) -> usize {
        self.0.dropped.load(Ordering::SeqCst)
    }

    pub fn leases(&self) -> usize {
        self.0.leases.load(Ordering::SeqCst)
    }

    fn wait_for(&self, what: &str, mut met: impl FnMut(&State) -> bool) {
        let state = self.0.state.lock().unwrap();
        let limit = Duration::from_secs(20);
        let (_state, time) =
            self.0.changed.wait_timeout_while(state, limit, |state| !met(state)).unwrap();
        assert!(!time.timed_out(), "waited in vain for {what}");
    }

    pub fn wait_held(&self, count: usize) {
        self.wait_for("held operations", |state| state.held.len() >= count);
    }

    pub fn wait_dropped(&self, count: usize) {
        self.wait_for("dropped futures", |_| self.dropped() >= count);
    }

    pub fn wait_no_lease(&self) {
        self.wait_for("the end of the lease", |_| self.leases() == 0);
    }

    /// Finishes the held operation at this offset.
    pub fn release(&self, offset: u64) {
        let mut state = self.0.state.lock().unwrap();
        let at = state.held.iter().position(|(seen, _)| seen.offset == offset).expect("held");
        let (_, sender) = state.held.remove(at);
        drop(state);
        sender.send(()).ok();
    }

    pub fn release_all(&self) {
        let held = std::mem::take(&mut self.0.state.lock().unwrap().held);
        for (_, sender) in held {
            sender.send(()).ok();
        }
    }

    fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        offset: u64,
        flags: u32,
        act: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> Op<T> {
        let mut state = self.0.state.lock().unwrap();
        let seen = Seen { what, offset, flags };
        if state.log {
            state.seen.push(seen.clone());
        }
        if let Some(kind) = state.fail {
            return Op::err(Error::new(kind, "the test wants it so"));
        }
        let mode = state.mode;
        if mode == Mode::Ready {
            drop(state);
            return Op::ok(act(&self.0));
        }
        assert!(mode != Mode::Panic, "the test wants a panic");
        let (sender, mut receiver) = oneshot::channel();
        state.held.push((seen, sender));
        state.most_held = state.most_held.max(state.held.len());
        drop(state);
        self.0.changed.notify_all();
        let inner = Arc::clone(&self.0);
        let mut unfinished = Unfinished(Some(Arc::clone(&inner)));
        Op::run(async move {
            if mode == Mode::Busy {
                poll_fn(|cx| {
                    if receiver.try_recv().is_ok() {
                        return Poll::Ready(());
                    }
                    cx.waker().wake_by_ref();
                    Poll::Pending
                })
                .await;
            } else {
                receiver.await.map_err(|_| Error::new(ErrorKind::INTERNAL, "the test ended"))?;
            }
            unfinished.finish();
            Ok(act(&inner))
        })
    }
}

impl Inner {
    fn fill(&self, offset: u64, len: u64) {
        self.data.write().unwrap()[offset as usize..][..len as usize].fill(0);
    }
}

impl Volume for TestVolume {
    fn size(&self) -> u64 {
        self.0.data.read().unwrap().len() as u64
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities
    }

    fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        let mut buffer = cx.buffer(len as usize);
        self.run("read", offset, 0, move |inner| {
            buffer.copy_from_slice(&inner.data.read().unwrap()[offset as usize..][..len as usize]);
            buffer.freeze()
        })
    }

    fn write(&self, _: &OpContext, offset: u64, data: IoBuf, flags: WriteFlags) -> Op<()> {
        self.run("write", offset, flags.bits(), move |inner| {
            inner.data.write().unwrap()[offset as usize..][..data.len()].copy_from_slice(&data);
        })
    }

    fn flush(&self, _: &OpContext) -> Op<()> {
        self.run("flush", 0, 0, |_| ())
    }

    fn discard(&self, _: &OpContext, offset: u64, len: u64) -> Op<()> {
        self.run("discard", offset, 0, move |inner| inner.fill(offset, len))
    }

    fn write_zeroes(&self, _: &OpContext, offset: u64, len: u64, flags: WriteFlags) -> Op<()> {
        self.run("write_zeroes", offset, flags.bits(), move |inner| inner.fill(offset, len))
    }

    fn detach(&self, _: &OpContext) -> Op<()> {
        Op::ok(())
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }
}

/// Exports of test volumes; the first is the default one.
pub struct Exports(pub Vec<(&'static str, TestVolume)>);

impl Exports {
    fn known(&self, name: &str) -> Result<&(&'static str, TestVolume)> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.ok_or_else(|| Error::new(ErrorKind::NOT_FOUND, "there is no such export"))
    }
}

impl ExportSource for Exports {
    fn list(&self, _: &Peer) -> Vec<String> {
        self.0.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    fn default_name(&self) -> Result<String> {
        let first = self.0.first().map(|(name, _)| (*name).to_owned());
        first.ok_or_else(|| Error::new(ErrorKind::NOT_FOUND, "there is no default export"))
    }

    fn find(&self, name: &str, _: &Peer) -> Result<()> {
        self.known(name).map(|_| ())
    }

    fn open(&self, name: &str, _: &Peer) -> Result<Export> {
        let (name, volume) = self.known(name)?;
        volume.0.leases.fetch_add(1, Ordering::SeqCst);
        Ok(Export {
            coherent: true,
            name: (*name).to_owned(),
            description: format!("test volume {name}"),
            volume: GuardedVolume::new(export_volume(volume.clone(), Host::new(NoServices))),
            backend: "test".to_owned(),
            read_only: volume.0.read_only.load(Ordering::SeqCst),
            lease: Box::new(Lease(Arc::clone(&volume.0))),
        })
    }
}
