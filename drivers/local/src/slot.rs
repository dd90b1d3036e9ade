// SPDX-License-Identifier: Apache-2.0
//! One attachment's file under `holders/`: a lock that dies with its process, and a page that other processes see.
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | `NOVAHOLD` |
//! | 8..12 | version, 1 |
//! | 16..20 | `revoked`: 1 once the attachment was taken over |
//! | 24..32 | `in_flight`: mutations that passed the check of `revoked` and may still reach the disk |
//! | 60..64 | length of the holder's description |
//! | 64.. | the holder's description, JSON |

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use driver_api::{AttachMode, Result};
use rustix::{
    fs::FlockOperation,
    mm::{MapFlags, ProtFlags, mmap, munmap},
};
use serde::{Deserialize, Serialize};

use crate::{
    client,
    error::{fenced, internal, on_path},
};

const PAGE: usize = 4096;
const MAGIC: &[u8; 8] = b"NOVAHOLD";
const REVOKED_AT: usize = 16;
const IN_FLIGHT_AT: usize = 24;
const TEXT_LEN_AT: u64 = 60;
const TEXT_AT: u64 = 64;

/// Who holds an attachment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub owner: String,
    pub pid: u32,
    pub epoch: u64,
    pub writer: bool,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mode = if self.writer { "writer" } else { "reader" };
        write!(f, "{} (process {}, {mode}, epoch {})", self.owner, self.pid, self.epoch)
    }
}

/// A slot's page, mapped and shared with every process that maps the same file.
struct Page(NonNull<u8>);

// SAFETY: the page is only touched through atomics.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    fn map(file: &File, path: &Path) -> Result<Self> {
        // SAFETY: a new mapping anywhere; the file has a whole page, and slots are never truncated.
        let mapped = unsafe {
            mmap(
                std::ptr::null_mut(),
                PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )
        };
        let address =
            mapped.map_err(|errno| on_path("cannot map the lock", path, &errno.into()))?;
        NonNull::new(address.cast()).map(Self).ok_or_else(|| internal("mmap gave no address"))
    }

    fn revoked(&self) -> &AtomicU32 {
        // SAFETY: inside the page, aligned, and all processes use it as an atomic only.
        unsafe { self.0.add(REVOKED_AT).cast::<AtomicU32>().as_ref() }
    }

    fn in_flight(&self) -> &AtomicU64 {
        // SAFETY: as above.
        unsafe { self.0.add(IN_FLIGHT_AT).cast::<AtomicU64>().as_ref() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and references into it do not outlive it.
        let unmapped = unsafe { munmap(self.0.as_ptr().cast(), PAGE) };
        if let Err(errno) = unmapped {
            tracing::warn!(%errno, "a lock's page stays mapped");
        }
    }
}

/// This process's own attachment. Dropping it gives the lock up; the file is left for the next attacher to collect.
pub(crate) struct Slot {
    volume: String,
    path: PathBuf,
    page: Page,
    /// Holds the lock.
    _file: File,
}

/// Evidence that a mutation may reach the disk: while it lives, a take-over does not call the volume its own.
pub(crate) struct InFlight<'a>(&'a Slot);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.page.in_flight().fetch_sub(1, Ordering::SeqCst);
    }
}

impl Slot {
    /// Makes a slot for `holder`. The caller is behind the volume's door.
    pub fn create(volume: &str, holders: &Path, holder: &Holder) -> Result<Self> {
        let text = serde_json::to_vec(holder)
            .map_err(|error| internal(format!("a holder cannot be encoded: {error}")))?;
        if text.len() > PAGE - TEXT_AT as usize {
            return Err(crate::error::invalid("the owner's description is too long"));
        }
        let mut number = 0;
        let path = loop {
            let path = holders.join(number.to_string());
            if !path.exists() {
                break path;
            }
            number += 1;
        };
        let file = client::create_new(&path)?;
        let locked = client::try_lock(&file, FlockOperation::NonBlockingLockExclusive);
        let prepared = locked.and_then(|_| {
            file.set_len(PAGE as u64)?;
            file.write_all_at(MAGIC, 0)?;
            file.write_all_at(&1_u32.to_ne_bytes(), 8)?;
            file.write_all_at(&(text.len() as u32).to_ne_bytes(), TEXT_LEN_AT)?;
            file.write_all_at(&text, TEXT_AT)
        });
        prepared.map_err(|error| on_path("cannot prepare the lock", &path, &error))?;
        let page = Page::map(&file, &path)?;
        Ok(Self { volume: volume.into(), path, page, _file: file })
    }

    /// Fails once the attachment was taken over.
    pub fn check(&self) -> Result<()> {
        match self.page.revoked().load(Ordering::SeqCst) {
            0 => Ok(()),
            _ => Err(fenced(&self.volume)),
        }
    }

    /// Announces a mutation, then checks: a taker raises `revoked` first and then reads `in_flight`, so one of both sees the other.
    pub fn enter(&self) -> Result<InFlight<'_>> {
        self.page.in_flight().fetch_add(1, Ordering::SeqCst);
        let entered = InFlight(self);
        self.check()?;
        Ok(entered)
    }

    /// The slot's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Somebody's attachment, as a process sees it that wants one too.
pub(crate) struct Other {
    pub path: PathBuf,
    pub holder: Holder,
    page: Page,
    file: File,
}

impl Other {
    /// Reads a slot; `None` if nobody holds it any more.
    pub fn inspect(path: &Path) -> Result<Option<Self>> {
        let file = client::open(path, true, false)?;
        let whole = file.metadata().map(|metadata| metadata.len() >= PAGE as u64);
        let free = client::try_lock(&file, FlockOperation::NonBlockingLockExclusive);
        let (whole, free) = whole
            .and_then(|whole| Ok((whole, free?)))
            .map_err(|error| on_path("cannot look at the lock", path, &error))?;
        if free {
            return Ok(None);
        }
        if !whole {
            return Err(internal("a lock is held but has no content").with("path", path.display()));
        }
        let holder = read_holder(&file).unwrap_or_else(|| Holder {
            owner: "unknown".into(),
            pid: 0,
            epoch: 0,
            writer: true,
        });
        let page = Page::map(&file, path)?;
        Ok(Some(Self { path: path.into(), holder, page, file }))
    }

    /// Forbids it every mutation that has not been announced yet.
    pub fn revoke(&self) {
        self.page.revoked().store(1, Ordering::SeqCst);
    }

    /// Whether it was taken over before.
    pub fn is_revoked(&self) -> bool {
        self.page.revoked().load(Ordering::SeqCst) != 0
    }

    /// Whether none of its mutations can reach the disk any more: all ended, or the kernel has released the dead
    /// process's lock, which it does after the last of its threads has left the kernel.
    pub fn is_drained(&self) -> bool {
        self.page.in_flight().load(Ordering::SeqCst) == 0
            || matches!(
                client::try_lock(&self.file, FlockOperation::NonBlockingLockExclusive),
                Ok(true)
            )
    }
}

fn read_holder(file: &File) -> Option<Holder> {
    let mut page = [0; PAGE];
    file.read_exact_at(&mut page, 0).ok()?;
    let len = u32::from_ne_bytes(page[60..64].try_into().ok()?) as usize;
    serde_json::from_slice(page.get(TEXT_AT as usize..TEXT_AT as usize + len)?).ok()
}

impl Holder {
    /// Describes this process.
    pub fn this(owner: &str, epoch: u64, mode: AttachMode) -> Self {
        Self {
            owner: owner.into(),
            pid: std::process::id(),
            epoch,
            writer: mode != AttachMode::READ_ONLY,
        }
    }
}
