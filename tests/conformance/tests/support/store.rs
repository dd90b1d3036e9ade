// SPDX-License-Identifier: Apache-2.0
//! The storage behind all openings of the reference: it outlives them, and holds what was flushed apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use driver_api::{
    Abilities, AttachMode, Capabilities, Error, ErrorKind, Fencing, Result, VolumeInfo,
    ext::Flattening,
};

use super::{content::Content, defect::Defect};

pub struct Store {
    pub abilities: Abilities,
    pub fencing: Fencing,
    pub defect: Option<Defect>,
    pub min_block: u32,
    pub max_io: u32,
    pub disks: Mutex<BTreeMap<String, Disk>>,
    pub fenced: Mutex<BTreeSet<u64>>,
    pub tokens: AtomicU64,
    pub operations: AtomicU64,
    pub buried: Mutex<BTreeMap<String, Content>>,
    /// Pages that reads lent out, and that a broken write goes on to change: volume, offset, address, length.
    pub lent: Mutex<Vec<(String, u64, usize, usize)>>,
}

#[derive(Clone, Default)]
pub struct Disk {
    pub size: u64,
    pub live: Content,
    /// What survives an attachment that ends without a word.
    pub stable: Content,
    /// How many changes were begun, ever.
    pub changes: u64,
    pub epoch: u64,
    pub holders: Vec<Holder>,
    pub snapshots: Vec<Snapshot>,
    pub clone_of: Option<String>,
    /// The volume whose deletion would harm this one.
    pub needs: Option<String>,
    pub flattening: Flattening,
}

#[derive(Clone)]
pub struct Holder {
    pub token: u64,
    pub opening: u64,
    pub mode: AttachMode,
    pub owner: String,
}

#[derive(Clone)]
pub struct Snapshot {
    pub name: String,
    pub size: u64,
    pub content: Content,
    pub protected: bool,
}

impl Store {
    pub fn new(abilities: Abilities, fencing: Fencing, defect: Option<Defect>) -> Self {
        Self {
            abilities,
            fencing,
            defect,
            min_block: 512,
            max_io: 1 << 20,
            disks: Mutex::default(),
            fenced: Mutex::default(),
            tokens: AtomicU64::new(1),
            operations: AtomicU64::new(0),
            buried: Mutex::default(),
            lent: Mutex::default(),
        }
    }

    pub fn is(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    pub fn has(&self, ability: Abilities) -> bool {
        self.abilities.has(ability)
    }

    pub fn disks(&self) -> MutexGuard<'_, BTreeMap<String, Disk>> {
        // A defect may panic under it.
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn count(&self) -> u64 {
        self.operations.fetch_add(1, Ordering::SeqCst)
    }

    pub fn capabilities(&self) -> Capabilities {
        let mut caps = Capabilities::new(self.abilities);
        caps.fencing = self.fencing;
        caps.min_block = self.min_block;
        caps.max_io = self.max_io;
        caps.max_volume_size = 2 << 40;
        caps
    }

    pub fn error(&self, kind: ErrorKind, message: &str) -> Error {
        if self.is(Defect::ErrorsMute) {
            return Error::new(kind, "");
        }
        let wrong = self.is(Defect::WrongKind) && kind == ErrorKind::NOT_FOUND;
        Error::new(if wrong { ErrorKind::INTERNAL } else { kind }, message)
    }

    pub fn missing(&self, name: &str) -> Error {
        self.error(ErrorKind::NOT_FOUND, "there is no such volume").with("volume", name)
    }

    /// Works on one disk.
    pub fn on<R>(&self, name: &str, work: impl FnOnce(&mut Disk) -> Result<R>) -> Result<R> {
        self.disks().get_mut(name).map_or_else(|| Err(self.missing(name)), work)
    }

    pub fn info(&self, name: &str, disk: &Disk) -> VolumeInfo {
        let name =
            if self.is(Defect::NamesLowered) { name.to_lowercase() } else { name.to_owned() };
        VolumeInfo::new(&name, disk.size, disk.live.used())
    }

    /// An opening ended: what its holders had not flushed is lost.
    pub fn abandon(&self, opening: u64) {
        for disk in self.disks().values_mut() {
            let held = disk.holders.len();
            disk.holders.retain(|holder| holder.opening != opening);
            if disk.holders.len() < held {
                disk.live = disk.stable.clone();
            }
        }
    }

    /// What a second life of the storage may have forgotten.
    pub fn reopened(&self) {
        let mut disks = self.disks();
        if self.is(Defect::ReopenForgetsVolumes) {
            disks.clear();
        }
        if self.is(Defect::SnapshotsForgotten) {
            disks.values_mut().for_each(|disk| disk.snapshots.clear());
        }
        if self.is(Defect::ProtectForgotten) {
            let snapshots = disks.values_mut().flat_map(|disk| &mut disk.snapshots);
            snapshots.for_each(|snapshot| snapshot.protected = false);
        }
    }
}
