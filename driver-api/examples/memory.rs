// SPDX-License-Identifier: Apache-2.0
//! A complete driver: volumes in memory, gone with the process.
//! `cargo build --release --example memory`, then drop `libmemory.so` into `plugins.d`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use driver_api::*;

struct Memory;

#[derive(Clone, Default)]
struct Room(Arc<Mutex<BTreeMap<String, Arc<Disk>>>>);

struct Disk {
    info: VolumeInfo,
    tenancy: Tenancy,
    bytes: Mutex<Vec<u8>>,
}

#[derive(Clone)]
struct Attached(Arc<Disk>, Attach);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn capabilities() -> Capabilities {
    let limits = Capabilities::new(Abilities::WRITE | Abilities::FUA);
    Capabilities { fencing: Fencing::EXCLUSIVE_LOCK, max_volume_size: 64 << 30, ..limits }
}

impl Driver for Memory {
    type Backend = Room;

    fn describe() -> DriverInfo {
        DriverInfo::new("Volumes in memory, gone with the process")
    }

    async fn open(_host: Host, _config: BackendConfig) -> Result<Room> {
        Ok(Room::default())
    }
}

fn find(disks: &BTreeMap<String, Arc<Disk>>, name: &str) -> Result<Arc<Disk>> {
    let disk = disks.get(name).cloned();
    disk.ok_or_else(|| Error::new(ErrorKind::NOT_FOUND, "no such volume").with("volume", name))
}

impl Backend for Room {
    type Volume = Attached;

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn create(&self, _cx: &OpContext, spec: VolumeSpec) -> Op<VolumeInfo> {
        let info = VolumeInfo::new(&spec.name, spec.size, spec.size);
        let mut disks = lock(&self.0);
        let disk = disks.entry(spec.name.into_string()).or_insert_with(|| {
            let bytes = Mutex::new(vec![0; info.size as usize]);
            Arc::new(Disk { info: info.clone(), tenancy: Tenancy::default(), bytes })
        });
        if disk.info != info {
            return Error::new(ErrorKind::ALREADY_EXISTS, "it has another size").into();
        }
        Op::ok(info)
    }

    fn delete(&self, _cx: &OpContext, name: &str) -> Op<()> {
        let mut disks = lock(&self.0);
        let unused = find(&disks, name).and_then(|disk| disk.tenancy.check_free());
        unused.map(|()| drop(disks.remove(name))).into()
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        Op::ok(lock(&self.0).values().map(|disk| disk.info.clone()).collect())
    }

    fn show(&self, _cx: &OpContext, name: &str) -> Op<VolumeInfo> {
        find(&lock(&self.0), name).map(|disk| disk.info.clone()).into()
    }

    fn attach(&self, _cx: &OpContext, name: &str, attach: Attach) -> Op<Attached> {
        // Held on: a delete must not come between finding and holding.
        let disks = lock(&self.0);
        let held = find(&disks, name).and_then(|disk| disk.tenancy.hold(&attach).map(|()| disk));
        held.map(|disk| Attached(disk, attach)).into()
    }
}

impl Volume for Attached {
    fn size(&self) -> u64 {
        self.0.info.size
    }

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn read(&self, _cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        let range = offset as usize..offset as usize + len as usize;
        let held = self.0.tenancy.enter(&self.1);
        held.map(|_held| IoBuf::copy_from(&lock(&self.0.bytes)[range])).into()
    }

    fn write(&self, _cx: &OpContext, offset: u64, data: IoBuf, _flags: WriteFlags) -> Op<()> {
        let range = offset as usize..offset as usize + data.len();
        let held = self.0.tenancy.enter(&self.1);
        held.map(|_held| lock(&self.0.bytes)[range].copy_from_slice(&data)).into()
    }

    fn flush(&self, _cx: &OpContext) -> Op<()> {
        self.0.tenancy.enter(&self.1).map(drop).into()
    }

    fn detach(&self, _cx: &OpContext) -> Op<()> {
        self.0.tenancy.release(&self.1).into()
    }
}

export_driver!(Memory, "memory");
