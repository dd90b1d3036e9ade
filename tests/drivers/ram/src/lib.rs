// SPDX-License-Identifier: Apache-2.0
//! Volumes in memory that hand over what they hold: a read within one block counts a reference and copies nothing.
//! The ABI and the exports are measured against it.

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use driver_api::*;

const BLOCK: u64 = 4096;
static ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];

struct Ram;

#[derive(Clone, Default)]
struct Room(Arc<Mutex<BTreeMap<String, Arc<Disk>>>>);

struct Disk {
    info: VolumeInfo,
    tenancy: Tenancy,
    blocks: Vec<Mutex<Block>>,
}

/// A block; nothing for zeros that were never written. A write changes the memory where it lies unless somebody who read
/// it has it still: then it goes on with a copy.
type Block = Option<Arc<Page>>;

/// Apart from its bytes, so that the counts that every read changes lie side by side.
#[derive(Clone)]
struct Page(Box<[u8; BLOCK as usize]>);

/// A part of a block, as it is now and stays.
fn view(block: &Block, start: usize, len: usize) -> IoBuf {
    let Some(page) = block else { return IoBuf::from_static(&ZEROS[..len]) };
    let data = page.0[start..start + len].as_ptr();
    // SAFETY: the owner is a reference to the page, which is not changed while there is more than one.
    unsafe { IoBuf::from_raw_parts(data, len, Arc::into_raw(page.clone()).cast(), &COUNTED) }
}

static COUNTED: BufferVTable = BufferVTable { retain, release, is_unique, reserved: [0; 3] };

unsafe extern "C" fn retain(page: *const ()) {
    // SAFETY: the caller holds a reference that came from Arc::into_raw.
    unsafe { Arc::increment_strong_count(page.cast::<Page>()) };
}

unsafe extern "C" fn release(page: *const ()) {
    // SAFETY: the caller gives up a reference that came from Arc::into_raw.
    unsafe { Arc::decrement_strong_count(page.cast::<Page>()) };
}

unsafe extern "C" fn is_unique(page: *const ()) -> bool {
    // SAFETY: the caller's reference, which came from Arc::into_raw, is looked at and not given up.
    Arc::strong_count(&ManuallyDrop::new(unsafe { Arc::from_raw(page.cast::<Page>()) })) == 1
}

#[derive(Clone)]
struct Attached(Arc<Disk>, Attach);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver for Ram {
    type Backend = Room;

    fn describe() -> DriverInfo {
        DriverInfo::new("Volumes in memory that hand over what they hold")
    }

    async fn open(_host: Host, _config: BackendConfig) -> Result<Room> {
        Ok(Room::default())
    }
}

fn find(disks: &BTreeMap<String, Arc<Disk>>, name: &str) -> Result<Arc<Disk>> {
    let disk = disks.get(name).cloned();
    disk.ok_or_else(|| Error::new(ErrorKind::NOT_FOUND, "no such volume").with("volume", name))
}

const fn capabilities() -> Capabilities {
    let zeros = Abilities::DISCARD.and(Abilities::WRITE_ZEROES).and(Abilities::FAST_ZERO);
    Capabilities {
        fencing: Fencing::EXCLUSIVE_LOCK,
        max_volume_size: 64 << 30,
        ..Capabilities::new(Abilities::WRITE.and(Abilities::FUA).and(zeros))
    }
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
            let blocks = (0..info.size.div_ceil(BLOCK)).map(|_| Mutex::default()).collect();
            Arc::new(Disk { info: info.clone(), tenancy: Tenancy::default(), blocks })
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

/// A part of a range that lies in one block: the block, the start within it, the start within the range, the length.
type Piece = (usize, usize, usize, usize);

fn pieces(offset: u64, len: u64) -> impl Iterator<Item = Piece> {
    let end = offset + len;
    (offset / BLOCK..end.div_ceil(BLOCK)).map(move |block| {
        let from = offset.max(block * BLOCK);
        let to = end.min((block + 1) * BLOCK);
        (block as usize, (from % BLOCK) as usize, (from - offset) as usize, (to - from) as usize)
    })
}

impl Attached {
    fn fetch(&self, cx: &OpContext, offset: u64, len: u32) -> Result<IoBuf> {
        let _held = self.0.tenancy.enter(&self.1)?;
        let (start, len) = ((offset % BLOCK) as usize, len as usize);
        if len > 0 && start + len <= BLOCK as usize {
            return Ok(view(&lock(&self.0.blocks[(offset / BLOCK) as usize]), start, len));
        }
        let mut reply = cx.buffer(len);
        for (block, start, at, len) in pieces(offset, len as u64) {
            let part = &mut reply[at..at + len];
            match &*lock(&self.0.blocks[block]) {
                Some(page) => part.copy_from_slice(&page.0[start..start + len]),
                None => part.fill(0),
            }
        }
        Ok(reply.freeze())
    }

    fn change(&self, (block, start, _, len): Piece, change: impl FnOnce(&mut [u8])) {
        let mut block = lock(&self.0.blocks[block]);
        let page = block.get_or_insert_with(|| Arc::new(Page(Box::new(ZEROS))));
        change(&mut Arc::make_mut(page).0[start..start + len]);
    }

    fn store(&self, offset: u64, data: &[u8]) -> Result<()> {
        let _held = self.0.tenancy.enter(&self.1)?;
        for piece @ (_, _, at, len) in pieces(offset, data.len() as u64) {
            self.change(piece, |part| part.copy_from_slice(&data[at..at + len]));
        }
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let _held = self.0.tenancy.enter(&self.1)?;
        for piece @ (block, _, _, len) in pieces(offset, len) {
            if len < BLOCK as usize {
                self.change(piece, |part| part.fill(0));
            } else {
                *lock(&self.0.blocks[block]) = None;
            }
        }
        Ok(())
    }
}

impl Volume for Attached {
    fn size(&self) -> u64 {
        self.0.info.size
    }

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        self.fetch(cx, offset, len).into()
    }

    fn write(&self, _cx: &OpContext, offset: u64, data: IoBuf, _flags: WriteFlags) -> Op<()> {
        self.store(offset, &data).into()
    }

    fn flush(&self, _cx: &OpContext) -> Op<()> {
        self.0.tenancy.enter(&self.1).map(drop).into()
    }

    fn discard(&self, _cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        self.zero(offset, len).into()
    }

    fn write_zeroes(&self, _cx: &OpContext, offset: u64, len: u64, _flags: WriteFlags) -> Op<()> {
        self.zero(offset, len).into()
    }

    fn detach(&self, _cx: &OpContext) -> Op<()> {
        self.0.tenancy.release(&self.1).into()
    }
}

export_driver!(Ram, "ram");
