// SPDX-License-Identifier: Apache-2.0
//! A backend in memory that survives its host, fails on request, and a state that stops at a chosen commit.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use driver_api::{
    export::export_backend,
    ext::{AllocationMap, Clones, Flattening, Resize, Snapshots},
    host::NoServices,
    state::{Committed, Entry, Transaction},
    *,
};
use novastor::{
    jobs::{Jobs, ReplicaJobs, Transfers},
    plugins::GuardedBackend,
    volumes::{Backends, Boxed, Opened, Opener, Volumes},
};
use tokio::sync::{Notify, Semaphore};

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The storage: what survives a crash of the host.
#[derive(Clone, Default)]
pub struct Storage(Arc<Inner>);

#[derive(Default)]
struct Inner {
    disks: Mutex<BTreeMap<String, Arc<Disk>>>,
    session: AtomicU64,
    faults: Mutex<HashMap<&'static str, ErrorKind>>,
    slow_writes: Mutex<Option<Arc<Semaphore>>>,
    slow_snapshots: Mutex<HashMap<String, Arc<Semaphore>>>,
    closed: Mutex<Vec<String>>,
    /// What it is not able to, of what it could be.
    lacks: Mutex<Abilities>,
}

#[derive(Default)]
pub struct Disk {
    pub bytes: Mutex<Vec<u8>>,
    pub snapshots: Mutex<BTreeMap<String, Vec<u8>>>,
    pub protected: Mutex<BTreeSet<String>>,
    pub flattening: Mutex<Flattening>,
    holder: Mutex<Option<u64>>,
    /// Others who have it, until it is taken from them.
    others: Mutex<Vec<String>>,
}

impl Storage {
    pub fn disk(&self, name: &str) -> Option<Arc<Disk>> {
        lock(&self.0.disks).get(name).cloned()
    }

    pub fn has(&self, name: &str) -> bool {
        self.disk(name).is_some()
    }

    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let disk = Disk { bytes: Mutex::new(bytes), ..Disk::default() };
        lock(&self.0.disks).insert(name.to_owned(), Arc::new(disk));
    }

    pub fn is_held(&self, name: &str) -> bool {
        self.disk(name).is_some_and(|disk| lock(&disk.holder).is_some())
    }

    /// Others have it.
    pub fn hold_for(&self, name: &str, others: &[&str]) {
        let disk = self.disk(name).expect("a disk");
        *lock(&disk.others) = others.iter().map(|&other| other.to_owned()).collect();
    }

    /// Each later `operation` fails so, until [`Storage::heal`].
    pub fn fail(&self, operation: &'static str, kind: ErrorKind) {
        lock(&self.0.faults).insert(operation, kind);
    }

    pub fn heal(&self) {
        lock(&self.0.faults).clear();
    }

    /// It is not able to do these any more.
    pub fn lack(&self, abilities: Abilities) {
        *lock(&self.0.lacks) = abilities;
    }

    /// The names of all disks.
    pub fn names(&self) -> Vec<String> {
        lock(&self.0.disks).keys().cloned().collect()
    }

    fn capabilities(&self) -> Capabilities {
        let all = capabilities();
        Capabilities { abilities: all.abilities.without(*lock(&self.0.lacks)), ..all }
    }

    /// "rename" fails it before it is done, "rename answer" after.
    fn rename(&self, name: &str, to: &str) -> Result<()> {
        self.fault("rename")?;
        let disk = self.find(name)?;
        if lock(&disk.holder).is_some() {
            return Err(Error::new(ErrorKind::IN_USE, "it is attached"));
        }
        let mut disks = lock(&self.0.disks);
        if disks.contains_key(to) {
            return Err(Error::new(ErrorKind::ALREADY_EXISTS, "the name is taken"));
        }
        disks.remove(name);
        disks.insert(to.to_owned(), disk);
        drop(disks);
        self.fault("rename answer")
    }

    /// The backends that were closed, in order.
    pub fn closed(&self) -> Vec<String> {
        lock(&self.0.closed).clone()
    }

    /// Writes wait for permits of this semaphore.
    pub fn slow_writes(&self) -> Arc<Semaphore> {
        let permits = Arc::new(Semaphore::new(0));
        *lock(&self.0.slow_writes) = Some(permits.clone());
        permits
    }

    /// Snapshots of this disk wait for permits of this semaphore.
    pub fn slow_snapshots(&self, disk: &str) -> Arc<Semaphore> {
        let permits = Arc::new(Semaphore::new(0));
        lock(&self.0.slow_snapshots).insert(disk.to_owned(), permits.clone());
        permits
    }

    /// The permits that a snapshot of this disk waits for.
    pub fn snapshot_permits(&self, disk: &str) -> Option<Arc<Semaphore>> {
        lock(&self.0.slow_snapshots).get(disk).cloned()
    }

    pub fn fault(&self, operation: &'static str) -> Result<()> {
        match lock(&self.0.faults).get(operation) {
            Some(kind) => Err(Error::new(*kind, format!("{operation} was told to fail"))),
            None => Ok(()),
        }
    }

    fn find(&self, name: &str) -> Result<Arc<Disk>> {
        self.disk(name).ok_or_else(|| Error::new(ErrorKind::NOT_FOUND, "no such disk"))
    }
}

fn capabilities() -> Capabilities {
    Capabilities::new(
        Abilities::WRITE
            | Abilities::FUA
            | Abilities::GROW
            | Abilities::SHRINK
            | Abilities::CLONE
            | Abilities::SNAPSHOT
            | Abilities::ALLOCATION_MAP
            | Abilities::CHANGES
            | Abilities::PROTECT
            | Abilities::FLATTEN
            | Abilities::RENAME,
    )
}

/// One opening of the storage; an earlier one's locks are gone, as after the death of its process.
#[derive(Clone)]
struct Room {
    name: String,
    storage: Storage,
    session: u64,
}

impl Backend for Room {
    type Volume = Attached;

    fn capabilities(&self) -> Capabilities {
        self.storage.capabilities()
    }

    fn rename(&self, cx: &OpContext, name: &str, to: &str) -> Op<VolumeInfo> {
        match self.storage.rename(name, to) {
            Ok(()) => self.show(cx, to),
            Err(error) => Op::err(error),
        }
    }

    fn create(&self, _cx: &OpContext, spec: VolumeSpec) -> Op<VolumeInfo> {
        if let Err(error) = self.storage.fault("create") {
            return Op::err(error);
        }
        if !self.storage.has(&spec.name) {
            self.storage.put(&spec.name, vec![0; spec.size as usize]);
        }
        self.show(&OpContext::new(), &spec.name)
    }

    fn delete(&self, _cx: &OpContext, name: &str) -> Op<()> {
        let deleted = self.storage.fault("delete").and_then(|()| {
            let disk = self.storage.find(name)?;
            if lock(&disk.holder).is_some() {
                return Err(Error::new(ErrorKind::IN_USE, "it is attached"));
            }
            lock(&self.storage.0.disks).remove(name);
            Ok(())
        });
        deleted.into()
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        let disks = lock(&self.storage.0.disks);
        let info = |(name, disk): (&String, &Arc<Disk>)| {
            let size = lock(&disk.bytes).len() as u64;
            VolumeInfo::new(name, size, size)
        };
        Op::ok(disks.iter().map(info).collect())
    }

    fn show(&self, _cx: &OpContext, name: &str) -> Op<VolumeInfo> {
        let found = self.storage.find(name).map(|disk| {
            let size = lock(&disk.bytes).len() as u64;
            VolumeInfo::new(name, size, size)
        });
        found.into()
    }

    fn attach(&self, _cx: &OpContext, name: &str, attach: Attach) -> Op<Attached> {
        let attached = self.storage.fault("attach").and_then(|()| {
            let disk = self.storage.find(name)?;
            let mut others = lock(&disk.others);
            if !others.is_empty() && !attach.force {
                let refused = Error::new(ErrorKind::IN_USE, "others hold it");
                return Err(others
                    .iter()
                    .fold(refused, |error, other| error.with("holder", other)));
            }
            others.clear();
            drop(others);
            let mut holder = lock(&disk.holder);
            if holder.is_some() && !attach.force {
                return Err(Error::new(ErrorKind::IN_USE, "somebody holds it"));
            }
            *holder = Some(self.session);
            drop(holder);
            Ok(Attached { storage: self.storage.clone(), name: name.to_owned(), disk })
        });
        attached.into()
    }

    fn usage(&self, _cx: &OpContext) -> Op<Usage> {
        Op::ok(Usage::default())
    }

    fn health(&self, _cx: &OpContext) -> Op<Health> {
        Op::ok(Health::healthy())
    }

    fn stats(&self) -> Stats {
        Stats::new().counter("opened_total", 1)
    }

    fn close(&self, _cx: &OpContext) -> Op<()> {
        lock(&self.storage.0.closed).push(self.name.clone());
        Op::ok(())
    }

    fn clones(&self) -> Option<Arc<dyn Clones>> {
        Some(Arc::new(self.clone()))
    }
}

impl Clones for Room {
    fn clone_volume(
        &self,
        cx: &OpContext,
        source: &str,
        _snapshot: &str,
        target: VolumeSpec,
    ) -> Op<VolumeInfo> {
        let cloned = self.storage.fault("clone").and_then(|()| {
            let bytes = lock(&self.storage.find(source)?.bytes).clone();
            let needs = Flattening { needs: source.into(), ..Flattening::default() };
            self.storage.put(&target.name, bytes);
            *lock(&self.storage.find(&target.name)?.flattening) = needs;
            Ok(())
        });
        match cloned {
            Ok(()) => self.show(cx, &target.name),
            Err(error) => Op::err(error),
        }
    }

    fn flatten(&self, _cx: &OpContext, volume: &str, on: bool) -> Op<()> {
        let set = self.storage.fault("flatten").and_then(|()| {
            let disk = self.storage.find(volume)?;
            let mut now = lock(&disk.flattening);
            now.running = on && !now.needs.is_empty();
            now.reason = if on { RString::new() } else { "it was ended".into() };
            (now.done, now.total) = (0, lock(&disk.bytes).len() as u64);
            Ok(())
        });
        set.into()
    }

    /// Each question brings it a quarter further, unless "copy" fails: a fault ends it, and TIMED_OUT holds it.
    fn flattening(&self, _cx: &OpContext, volume: &str) -> Op<Flattening> {
        let told = self.storage.find(volume).map(|disk| {
            let mut now = lock(&disk.flattening);
            match self.storage.fault("copy") {
                _ if !now.running => {}
                Ok(()) => now.done = (now.done + now.total / 4).min(now.total),
                Err(error) if error.kind() == ErrorKind::TIMED_OUT => {}
                Err(error) => (now.running, now.reason) = (false, error.message().into()),
            }
            if now.running && now.done == now.total {
                (now.running, now.needs) = (false, RString::new());
            }
            now.clone()
        });
        told.into()
    }
}

#[derive(Clone)]
pub struct Attached {
    pub storage: Storage,
    pub name: String,
    pub disk: Arc<Disk>,
}

impl Volume for Attached {
    fn size(&self) -> u64 {
        lock(&self.disk.bytes).len() as u64
    }

    fn capabilities(&self) -> Capabilities {
        self.storage.capabilities()
    }

    fn allocation_map(&self) -> Option<Arc<dyn AllocationMap>> {
        Some(Arc::new(self.clone()))
    }

    fn read(&self, _cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        let range = offset as usize..offset as usize + len as usize;
        Op::ok(IoBuf::copy_from(&lock(&self.disk.bytes)[range]))
    }

    fn write(&self, _cx: &OpContext, offset: u64, data: IoBuf, _flags: WriteFlags) -> Op<()> {
        if let Err(error) = self.storage.fault("write") {
            return Op::err(error);
        }
        let disk = self.disk.clone();
        let permits = lock(&self.storage.0.slow_writes).clone();
        Op::run(async move {
            if let Some(permits) = permits {
                let permit = permits.acquire().await;
                permit.expect("the semaphore is never closed").forget();
            }
            let range = offset as usize..offset as usize + data.len();
            lock(&disk.bytes)[range].copy_from_slice(&data);
            Ok(())
        })
    }

    fn flush(&self, _cx: &OpContext) -> Op<()> {
        self.storage.fault("flush").into()
    }

    fn detach(&self, _cx: &OpContext) -> Op<()> {
        let detached = self.storage.fault("detach").map(|()| *lock(&self.disk.holder) = None);
        detached.into()
    }

    fn stats(&self) -> Stats {
        Stats::new().counter("reads_total", 7)
    }

    fn resize(&self) -> Option<Arc<dyn Resize>> {
        Some(Arc::new(self.clone()))
    }

    fn snapshots(&self) -> Option<Arc<dyn Snapshots>> {
        Some(Arc::new(self.clone()))
    }
}

impl Resize for Attached {
    fn resize(&self, _cx: &OpContext, size: u64, _shrink: bool) -> Op<()> {
        let resized = self.storage.fault("resize");
        resized.map(|()| lock(&self.disk.bytes).resize(size as usize, 0)).into()
    }
}

pub struct OpenStorage(pub Storage);

impl Opener for OpenStorage {
    fn open(&self, name: &str) -> Boxed<Result<Opened>> {
        let (storage, name) = (self.0.clone(), name.to_owned());
        Box::pin(async move {
            storage.fault("open")?;
            let session = storage.0.session.fetch_add(1, Ordering::Relaxed) + 1;
            for disk in lock(&storage.0.disks).values() {
                *lock(&disk.holder) = None;
            }
            let handle = export_backend(Room { name, storage, session }, Host::new(NoServices));
            Ok(Opened {
                version: "1.0".to_owned(),
                handle: GuardedBackend::unwatched(handle),
                options: BTreeMap::new(),
                volume_options: Vec::new(),
            })
        })
    }
}

/// A host of one life: restart it by starting another over the same state and storage.
#[derive(Clone)]
pub struct House {
    pub volumes: Volumes,
    pub jobs: Jobs,
    pub transfers: Transfers,
    pub replicas: ReplicaJobs,
}

pub async fn start(state: &StateHandle, storage: &Storage) -> House {
    start_as(state, storage, "this test").await
}

pub async fn start_as(state: &StateHandle, storage: &Storage, owner: &str) -> House {
    let drivers = BTreeMap::from([("mem".to_owned(), "test".to_owned())]);
    let opener = OpenStorage(storage.clone());
    let backends = Backends::new(Some("mem".to_owned()), drivers, opener);
    let volumes = Volumes::new(state.clone(), backends, owner);
    volumes.begin().await.expect("a state that can be read");
    let jobs = Jobs::begin(state.clone()).await.expect("jobs that can be read");
    volumes.open_backends().await.expect("recovery");
    let transfers = Transfers::new(volumes.clone(), jobs.clone());
    let replicas = ReplicaJobs::new(volumes.clone(), jobs.clone());
    House { volumes, jobs, transfers, replicas }
}

/// A state whose process "dies" at a chosen commit: it never answers again.
pub struct Mortal {
    state: StateHandle,
    lives: AtomicI64,
    before: bool,
    death: Arc<Notify>,
}

impl Mortal {
    /// Dies at commit number `lives`, before or after it is made.
    pub fn dying(state: &StateHandle, lives: i64, before: bool) -> (StateHandle, Arc<Notify>) {
        let death = Arc::new(Notify::new());
        let mortal =
            Self { state: state.clone(), lives: lives.into(), before, death: death.clone() };
        (StateHandle::new(mortal), death)
    }
}

impl StateService for Mortal {
    fn get(&self, key: &str) -> Op<ROption<Entry>> {
        self.state.get(key)
    }

    fn range(&self, prefix: &str, after: &str, limit: u32) -> Op<RVec<Entry>> {
        self.state.range(prefix, after, limit)
    }

    fn commit(&self, transaction: Transaction) -> Op<Committed> {
        if self.lives.fetch_sub(1, Ordering::Relaxed) > 0 {
            return self.state.commit(transaction);
        }
        let last = (!self.before && self.lives.load(Ordering::Relaxed) == -1)
            .then(|| self.state.commit(transaction));
        let death = self.death.clone();
        Op::run(async move {
            if let Some(last) = last {
                last.await?;
            }
            death.notify_one();
            std::future::pending().await
        })
    }

    fn watch(&self, prefix: &str, after_revision: u64) -> Result<WatchHandle> {
        self.state.watch(prefix, after_revision)
    }

    fn grant_lease(&self, ttl_ms: u64) -> Op<u64> {
        self.state.grant_lease(ttl_ms)
    }

    fn keep_lease(&self, lease: u64) -> Op<()> {
        self.state.keep_lease(lease)
    }

    fn revoke_lease(&self, lease: u64) -> Op<()> {
        self.state.revoke_lease(lease)
    }
}

/// A state in a file of its own.
pub fn state() -> (StateHandle, tempfile::TempDir) {
    let room = tempfile::tempdir().expect("a directory");
    let engine = novastor::state::open_embedded(&room.path().join("state.redb"));
    (StateHandle::new(engine.expect("a new state")), room)
}
