// SPDX-License-Identifier: Apache-2.0
//! A volume whose blocks are in files of one length each, its extents, so that a server that cannot free ranges of files gets
//! the space of whole ones back.
//!
//! | file | |
//! |---|---|
//! | `NAME.raw` | as long as the volume, and empty; open, and locked where a server locks, for as long as the volume is attached |
//! | `NAME.novastor-ID-xN-E-C-R.raw` | extent N: as long as every other one; without it, or if it is empty, the extent reads zeros |
//!
//! An extent's file is made before the first write to it, empty, and then gets its length, durably; before that it does not
//! count. It is discarded by being cut to nothing, durably, through the handle that a server may have let go of for somebody
//! else; that it is then removed only tidies up. No name is used twice, and no file that was discarded is written again. So
//! whatever a crash leaves, or a dead connection does late:
//!
//! | what | what it leaves |
//! |---|---|
//! | a crash between making a file and its length, or between cutting and removing it | an empty file, which does not count |
//! | a crash between the length and the first write | zeros |
//! | a file that is made, or cut, once more, late | an empty file, which does not count |
//! | a file that is removed once more, late | nothing: the extent has a file of another name by then |
//! | a length that is set once more, late | a file of zeros, older than the one that the extent has by then |

mod data;
mod space;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use driver_api::{Error, ErrorKind, Result};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use crate::{
    disk::{Disk, aligned_steps},
    error::{Fault, internal, replaced},
    file::OpenFile,
    layers::files::Shelf,
    mounts::Mount,
    names::{ExtentFile, FileName, extent_file, extent_of, short_id},
    share::{Kind, Listed},
    standing::Standing,
    verified,
};

/// Files that are open at once, but for those that have something to be made durable.
const MOST_OPEN: usize = 64;
/// Extents that something is done with at once.
const AT_ONCE: usize = 8;

/// The extents of an attached volume.
pub(crate) struct Extents {
    shelf: Shelf,
    standing: Arc<Standing>,
    /// How long each is.
    pub extent_size: u64,
    /// Those that have, or had, a file.
    slots: RwLock<BTreeMap<u64, Arc<Slot>>>,
    /// Those whose file is open. It changes under the extent's own lock.
    open: Mutex<BTreeMap<u64, Arc<Disk>>>,
    /// Files that were made, or seen, of this volume.
    count: AtomicU64,
    /// Moments, to tell which file was not used for longest.
    clock: AtomicU64,
    /// Bytes that were written since everything was made durable.
    unflushed: AtomicU64,
}

/// An extent.
struct Slot {
    number: u64,
    /// Shared by whoever uses its file; alone by who makes, opens, closes or removes it.
    state: Arc<tokio::sync::RwLock<State>>,
    used: AtomicU64,
}

enum State {
    /// It has no file, and reads zeros.
    Missing,
    /// Its file is not open.
    Closed(FileName),
    Open(Arc<Disk>),
    /// Its file is open, and may have been cut to nothing.
    Leaving(Arc<Disk>),
}

impl Slot {
    fn new(number: u64, state: State) -> Arc<Self> {
        let state = Arc::new(tokio::sync::RwLock::new(state));
        Arc::new(Self { number, state, used: AtomicU64::new(0) })
    }
}

/// An extent's file in use: nobody closes or removes it meanwhile.
type InUse = OwnedRwLockReadGuard<State, Disk>;

/// What is to be done with an extent that has no file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum If {
    /// Nothing.
    There,
    /// Make one.
    Needed,
}

/// Part of an extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    /// Which extent.
    number: u64,
    /// Where it begins in the extent.
    at: u64,
    len: u64,
    /// Where that is in the volume.
    offset: u64,
}

/// A range of the volume by extents.
fn pieces(extent_size: u64, offset: u64, len: u64) -> impl Iterator<Item = Piece> {
    aligned_steps(offset, len, extent_size).map(move |(offset, len)| {
        let (number, at) = (offset / extent_size, offset % extent_size);
        Piece { number, at, len, offset }
    })
}

/// The files of a volume's extents among those that are listed: the newest of each extent that counts.
async fn found(
    mount: &Mount,
    id: &str,
    listed: &[Listed],
    until: Instant,
) -> Result<BTreeMap<u64, (ExtentFile, FileName)>, Fault> {
    let mut found: BTreeMap<u64, (ExtentFile, FileName)> = BTreeMap::new();
    for entry in listed {
        let Some((_, extent)) = extent_of(&entry.name).filter(|(of, _)| *of == short_id(id)) else {
            continue;
        };
        let name = FileName::new(&entry.name)?;
        // Directories may be slow to tell what became of a file.
        let facts = match entry.facts {
            Some(facts) if facts.size > 0 => Some(facts),
            _ => verified::look(mount, &name, until).await?.map(|found| found.facts),
        };
        if !facts.is_some_and(|facts| facts.kind == Kind::Regular && facts.size > 0) {
            continue;
        }
        let age = |extent: &ExtentFile| (extent.epoch, extent.count);
        let is_newer = found.get(&extent.number).is_none_or(|(other, _)| age(other) < age(&extent));
        if is_newer {
            found.insert(extent.number, (extent, name));
        }
    }
    Ok(found)
}

impl Extents {
    /// Finds the extents of a volume that nobody else changes any more.
    pub async fn find(
        shelf: &Shelf,
        standing: &Arc<Standing>,
        extent_size: u64,
        until: Instant,
    ) -> Result<Self> {
        let looking = async {
            let listed = verified::list(&shelf.mount, until).await?;
            let ours = listed.iter().filter_map(|entry| extent_of(&entry.name));
            let ours = ours.filter(|(id, _)| *id == short_id(&shelf.id));
            let count = ours.map(|(_, extent)| extent.count + 1).max().unwrap_or(0);
            Ok((found(&shelf.mount, &shelf.id, &listed, until).await?, count))
        };
        let (found, count) = looking.await.map_err(|fault: Fault| {
            let error = fault.told("the volume's extents cannot be listed");
            error.with("volume", &shelf.volume)
        })?;
        let slots = found
            .into_iter()
            .map(|(number, (_, name))| (number, Slot::new(number, State::Closed(name))));
        Ok(Self {
            shelf: shelf.clone(),
            standing: Arc::clone(standing),
            extent_size,
            slots: RwLock::new(slots.collect()),
            open: Mutex::default(),
            count: AtomicU64::new(count),
            clock: AtomicU64::default(),
            unflushed: AtomicU64::default(),
        })
    }

    /// The open files.
    pub fn disks(&self) -> Vec<Arc<Disk>> {
        self.open().values().cloned().collect()
    }

    /// Bytes that are written and not durable.
    pub fn not_durable(&self) -> u64 {
        self.open().values().map(|disk| disk.ledger().bytes()).sum()
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Disk>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, number: u64) -> Option<Arc<Slot>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.get(&number).cloned()
    }

    /// The slot of an extent that is about to have a file.
    fn slot_for(&self, number: u64) -> Arc<Slot> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(number).or_insert_with(|| Slot::new(number, State::Missing)))
    }

    fn slots(&self, numbers: impl std::ops::RangeBounds<u64>) -> Vec<Arc<Slot>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.range(numbers).map(|(_, slot)| Arc::clone(slot)).collect()
    }

    async fn alone(&self, slot: &Slot, until: Instant) -> Result<OwnedRwLockWriteGuard<State>> {
        let waiting = Arc::clone(&slot.state).write_owned();
        let waited = tokio::time::timeout_at(until.into(), waiting).await;
        let state = waited.map_err(|_| self.standing.stuck())?;
        self.standing.admit()?;
        Ok(state)
    }

    /// An extent's file, open; `None` if it has none and needs none.
    async fn enter(&self, number: u64, wanted: If, until: Instant) -> Result<Option<InUse>> {
        let slot = match (self.slot(number), wanted) {
            (Some(slot), _) => slot,
            (None, If::There) => return Ok(None),
            (None, If::Needed) => self.slot_for(number),
        };
        slot.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let state = match Arc::clone(&slot.state).try_read_owned() {
            Ok(state) => state,
            Err(_) => {
                let waiting = Arc::clone(&slot.state).read_owned();
                let waited = tokio::time::timeout_at(until.into(), waiting).await;
                waited.map_err(|_| self.standing.stuck())?
            }
        };
        self.standing.admit()?;
        match (&*state, wanted) {
            (State::Open(_), _) => return in_use(state).map(Some),
            (State::Missing, If::There) => return Ok(None),
            _ => drop(state),
        }
        let mut state = self.alone(&slot, until).await?;
        if let State::Leaving(disk) = &*state {
            let disk = Arc::clone(disk);
            self.cut(&slot, &mut state, &disk, until).await?;
        }
        match (&*state, wanted) {
            (State::Missing, If::There) => return Ok(None),
            (State::Missing, If::Needed) => {
                let disk = self.make(number, until).await?;
                self.opened(&slot, &mut state, disk);
            }
            (State::Closed(name), _) => {
                let disk = self.open_file(&name.clone(), until).await?;
                self.opened(&slot, &mut state, disk);
            }
            (State::Open(_) | State::Leaving(_), _) => {}
        }
        let entered = in_use(state.downgrade())?;
        self.close_idle(until).await;
        Ok(Some(entered))
    }

    fn opened(&self, slot: &Slot, state: &mut State, disk: Arc<Disk>) {
        self.open().insert(slot.number, Arc::clone(&disk));
        *state = State::Open(disk);
    }

    /// Opens the file of an extent, which has its length.
    async fn open_file(&self, name: &FileName, until: Instant) -> Result<Arc<Disk>> {
        let Shelf { mount, volume, opener, .. } = &self.shelf;
        let file = mount.place.shown_file(name);
        let (opened, facts) = match OpenFile::open(mount, volume, name, opener, until).await {
            Err(Fault::NotFound) => {
                return Err(replaced(volume, &file, "nothing has its name any more"));
            }
            opened => opened
                .map_err(|fault| self.told(fault, "an extent's file cannot be opened", name))?,
        };
        let disk =
            Disk::new(&self.standing, opened, self.extent_size, false, self.shelf.most_unstable);
        let judged = match disk.file.admit_epoch(until).await {
            Err(fault) => Err(self.told(fault, "an extent's file cannot be opened", name)),
            Ok(()) if facts.size == self.extent_size => Ok(()),
            Ok(()) => Err(Error::new(
                ErrorKind::CORRUPTED,
                "the file of an extent does not have the extent's length",
            )
            .with("volume", volume)
            .with("file", file)
            .with("length", facts.size)
            .with("expected", self.extent_size)
            .remedy("put the file back, from a backup if there is no other")),
        };
        match judged {
            Ok(()) => Ok(Arc::new(disk)),
            Err(error) => {
                disk.leave(until).await;
                Err(error)
            }
        }
    }

    /// Makes a file for an extent that has none.
    async fn make(&self, number: u64, until: Instant) -> Result<Arc<Disk>> {
        self.standing.admit_writer()?;
        let Shelf { mount, volume, id, opener, .. } = &self.shelf;
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let name = extent_file(volume, id, ExtentFile { number, epoch: opener.epoch, count })?;
        let what = "an extent's file cannot be made";
        match verified::create(mount, &name, until).await {
            // An earlier call made it, and its answer was lost: nobody else makes a file of this name.
            Ok(_) | Err(Fault::Exists) => {}
            Err(fault) => return Err(self.told(fault, what, &name)),
        }
        let made = async {
            // From here on it counts.
            let sized = verified::set_size(mount, &name, self.extent_size, until).await;
            sized.map_err(|fault| self.told(fault, what, &name))?;
            self.open_file(&name, until).await
        };
        let made = made.await;
        if made.is_err() {
            self.forget(&name, until).await;
        }
        made
    }

    /// Gives the space of an extent back, whatever is in it.
    async fn remove(&self, number: u64, until: Instant) -> Result<()> {
        self.standing.admit_writer()?;
        let Some(slot) = self.slot(number) else { return Ok(()) };
        let mut state = self.alone(&slot, until).await?;
        let disk = match &*state {
            State::Missing => return Ok(()),
            State::Closed(name) => {
                let disk = self.open_file(&name.clone(), until).await?;
                self.opened(&slot, &mut state, Arc::clone(&disk));
                disk
            }
            State::Open(disk) | State::Leaving(disk) => Arc::clone(disk),
        };
        self.cut(&slot, &mut state, &disk, until).await
    }

    /// Cuts a file to nothing, which makes it none of the volume's; then removes it.
    async fn cut(
        &self,
        slot: &Slot,
        state: &mut State,
        disk: &Arc<Disk>,
        until: Instant,
    ) -> Result<()> {
        if let Err(error) = disk.set_size(0, until).await {
            // What is known not to have happened leaves everything as it was.
            if self.standing.is_in_doubt() {
                *state = State::Leaving(Arc::clone(disk));
            }
            return Err(error);
        }
        *state = State::Missing;
        self.open().remove(&slot.number);
        disk.leave(until).await;
        self.forget(&disk.file.name, until).await;
        Ok(())
    }

    /// Removes a file that does not count. If it stays, it is removed with the volume.
    async fn forget(&self, name: &FileName, until: Instant) {
        let mount = &self.shelf.mount;
        if let Err(fault) = verified::remove_if_there(mount, name, until).await {
            let (volume, file) = (&self.shelf.volume, mount.place.shown_file(name));
            tracing::warn!(volume, file, %fault, "an empty file stays until the volume is deleted");
        }
    }

    /// Closes files that were not used for longest, as long as there are too many, and some that nobody uses.
    async fn close_idle(&self, until: Instant) {
        loop {
            let numbers: Vec<u64> = {
                let open = self.open();
                if open.len() <= MOST_OPEN {
                    return;
                }
                open.keys().copied().collect()
            };
            let mut slots: Vec<_> =
                numbers.iter().filter_map(|number| self.slot(*number)).collect();
            slots.sort_by_key(|slot| slot.used.load(Ordering::Relaxed));
            let idle = slots.iter().find_map(|slot| {
                let state = Arc::clone(&slot.state).try_write_owned().ok()?;
                let State::Open(disk) = &*state else { return None };
                let disk = Arc::clone(disk);
                let is_clean = disk.ledger().bytes() == 0;
                is_clean.then_some((slot, state, disk))
            });
            let Some((slot, mut state, disk)) = idle else { return };
            *state = State::Closed(disk.file.name.clone());
            self.open().remove(&slot.number);
            disk.leave(until).await;
        }
    }

    fn told(&self, fault: Fault, what: &str, name: &FileName) -> Error {
        let file = self.shelf.mount.place.shown_file(name);
        fault.told(what).with("volume", &self.shelf.volume).with("file", file)
    }
}

fn in_use(state: OwnedRwLockReadGuard<State>) -> Result<InUse> {
    let file = |state: &State| matches!(state, State::Open(_));
    if !file(&state) {
        return Err(internal("the file of an extent is not open"));
    }
    OwnedRwLockReadGuard::try_map(state, |state| match state {
        State::Open(disk) => Some(&**disk),
        _ => None,
    })
    .map_err(|_| internal("the file of an extent is not open"))
}
