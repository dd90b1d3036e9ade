// SPDX-License-Identifier: Apache-2.0
//! Who may touch a volume, among the processes of one machine.
//!
//! # The protocol
//!
//! - **The door** is the file `lock`, flocked exclusively for the short time in which attachments or records change.
//!   Whoever passes it checks that the directory still has this very file (the volume may have been deleted meanwhile).
//! - **A slot** is a file under `holders/`, one per attachment ([`crate::slot`]). Its holder keeps it flocked, so
//!   the kernel says whether the holder lives: a lock that can be taken belongs to the dead, and its file is removed.
//!   Locks belong to open files, not to processes, so two attachments in one process obey the same rules.
//! - **A mutation** (write, discard, zeroing, resizing) adds one to its slot's `in_flight`, then checks `revoked`,
//!   then makes its system calls, then subtracts one: each in this order, sequentially consistent. Reads check `revoked`.
//! - **Records and renames** (snapshots, rollback, resize, detach) happen behind the door, after a check of `revoked`.
//! - **Taking over** happens behind the door: `revoked` of each conflicting slot is set, then its `in_flight` awaited. Every later
//!   mutation of the old holder sees `revoked` and fails; every earlier one was counted.
//! - **A holder that does not drain** is stopped (SIGSTOP) or hangs in the kernel, and its counted system calls may still come,
//!   minutes later. Then the volume moves: its content is put into a new file (shared blocks where the file system has
//!   them, else a copy), which replaces the old one by rename. What the old holder has open has no name any more: nothing it writes is ever seen.
//!   A write of its that lands while the content is copied was in flight and never acknowledged, so either outcome is right.
//! - If the deadline passes, or the copy fails, the answer is an error. The old holder stays revoked: it gets `Fenced`, detaches,
//!   and the next attacher finds the volume free. Nothing else has changed.
//! - A process that is stopped behind the door keeps it: attaching fails with `TimedOut` and names the process, which must be continued
//!   or ended. For this alone the one who passes the door writes its process id into the file; the lock itself is the kernel's.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use driver_api::{AttachMode, Error, ErrorKind, Result};

use crate::{
    client,
    error::{fenced, not_found, on_path},
    layout::{HALF_MADE, VolumeDir},
    metadata::{self, VolumeRecord},
    slot::{Holder, Other, Slot},
};

/// How long a holder has to finish what it has in flight, before the volume is moved away from it.
const DRAIN: Duration = Duration::from_secs(2);
/// How long to wait at the door when the caller has no deadline.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a process id in a door's file: always as many, so that a shorter one leaves nothing of a longer one.
const SIGNATURE: usize = 16;

/// An open door: attachments and records may be changed while it lives.
pub(crate) struct Door {
    _lock: File,
}

impl Door {
    /// Waits for the door of `dir` until `deadline`.
    pub fn open(dir: &VolumeDir, deadline: Instant) -> Result<Self> {
        let path = dir.door();
        loop {
            if !dir.path.is_dir() {
                return Err(not_found("volume", &dir.name));
            }
            let lock = client::open_lock(&path)?;
            client::lock_until(&lock, &path, false, deadline, || stuck_behind(&lock))?;
            let same = lock.metadata().and_then(|held| Ok((held, fs::metadata(&path)?)));
            match same {
                Ok((held, named)) if held.ino() == named.ino() && held.dev() == named.dev() => {
                    sign(&lock, &path);
                    return Ok(Self { _lock: lock });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(on_path("cannot look at the lock", &path, &error)),
            }
        }
    }
}

/// Notes who is behind the door. On a full disk it stays unsigned: that is no reason to stay outside.
fn sign(lock: &File, path: &Path) {
    let name = format!("{:<width$}\n", std::process::id(), width = SIGNATURE - 1);
    if let Err(error) = lock.write_all_at(name.as_bytes(), 0) {
        tracing::warn!(path = %path.display(), %error, "the lock does not say who holds it");
    }
}

fn stuck_behind(lock: &File) -> Error {
    let mut name = [0; SIGNATURE];
    let signed = lock.read_exact_at(&mut name, 0).ok();
    let pid = signed.and_then(|()| std::str::from_utf8(&name).ok()?.trim().parse::<u32>().ok());
    let what =
        |who: &str| Error::new(ErrorKind::TIMED_OUT, format!("{who} keeps the volume locked"));
    match pid {
        Some(pid) => what(&format!("process {pid}")).with("pid", pid).remedy(format!(
            "if process {pid} is stopped, let it go on (kill -CONT {pid}); if it hangs, end it; then try again"
        )),
        None => what("another process")
            .remedy("find it with `fuser -v` on this path; let it go on or end it, then try again"),
    }
}

/// What an attacher wants.
pub(crate) struct Wish<'a> {
    pub mode: AttachMode,
    pub force: bool,
    /// `None`: as a guest of the host's own (a clone's source), at whatever epoch the volume has.
    pub epoch: Option<u64>,
    pub owner: &'a str,
    pub deadline: Instant,
}

/// A slot that was taken.
pub(crate) struct Acquired {
    pub slot: Arc<Slot>,
    /// As it stands now.
    pub record: VolumeRecord,
    /// Whether the last writer detached in good order.
    pub was_clean: bool,
}

/// Takes a slot in the volume, fencing others if the wish says so.
pub(crate) fn acquire(dir: &VolumeDir, wish: &Wish<'_>) -> Result<Acquired> {
    let _door = Door::open(dir, wish.deadline)?;
    let mut record: VolumeRecord = metadata::read(&dir.record())?;
    let epoch = wish.epoch.unwrap_or(record.epoch);
    if epoch < record.epoch {
        return Err(fenced(&dir.name).with("epoch", epoch).with("latest_epoch", record.epoch));
    }
    let writer = wish.mode != AttachMode::READ_ONLY;
    let conflicting: Vec<Other> = holders(dir)?
        .into_iter()
        .filter(|other| writer || other.holder.writer)
        .filter(|other| !(other.is_revoked() && other.is_drained()))
        .collect();
    if !conflicting.is_empty() {
        if !wish.force {
            return Err(in_use(dir, &conflicting[0].holder));
        }
        take_over(dir, &record, &conflicting, wish.deadline)?;
    }
    if writer {
        collect_half_made(dir)?;
    }
    let holder = Holder::this(wish.owner, epoch, wish.mode);
    let slot = Slot::create(&dir.name, &dir.holders(), &holder)?;
    let was_clean = record.clean;
    if writer {
        if !was_clean {
            record.incarnation += 1;
        }
        record.clean = false;
    }
    record.epoch = epoch;
    if wish.epoch.is_some() {
        metadata::write(&dir.record(), &record)?;
    }
    Ok(Acquired { slot: Arc::new(slot), record, was_clean })
}

/// Gives a slot back. The record says that the last writer ended in good order if it did.
pub(crate) fn release(dir: &VolumeDir, slot: &Slot, clean: bool) -> Result<()> {
    let _door = Door::open(dir, Instant::now() + PATIENCE)?;
    slot.check()?;
    if clean {
        let mut record: VolumeRecord = metadata::read(&dir.record())?;
        record.clean = true;
        metadata::write(&dir.record(), &record)?;
    }
    client::remove(slot.path())
}

/// Refuses while anybody holds the volume. The caller is behind the door.
pub(crate) fn refuse_holders(dir: &VolumeDir) -> Result<()> {
    let mut living = holders(dir)?.into_iter().filter(|other| !other.is_revoked());
    living.next().map_or(Ok(()), |other| Err(in_use(dir, &other.holder)))
}

fn in_use(dir: &VolumeDir, holder: &Holder) -> Error {
    Error::new(ErrorKind::IN_USE, format!("the volume is attached by {holder}"))
        .with("volume", &dir.name)
        .with("holder", &holder.owner)
        .with("pid", holder.pid)
        .remedy("detach it there, or attach with --take-over")
}

/// The living holders; what the dead left is removed.
fn holders(dir: &VolumeDir) -> Result<Vec<Other>> {
    let path = dir.holders();
    client::make_dir(&path)?;
    let mut living = Vec::new();
    for entry in entries(&path)? {
        match Other::inspect(&entry)? {
            Some(other) => living.push(other),
            None => client::remove(&entry)?,
        }
    }
    Ok(living)
}

fn take_over(
    dir: &VolumeDir,
    record: &VolumeRecord,
    conflicting: &[Other],
    deadline: Instant,
) -> Result<()> {
    for other in conflicting {
        tracing::warn!(volume = dir.name, holder = %other.holder, "taking the volume over");
        other.revoke();
    }
    // The other half is for moving the volume.
    let half = deadline.saturating_duration_since(Instant::now()) / 2;
    let patience = Instant::now() + half.min(DRAIN);
    let undrained = || conflicting.iter().find(|other| !other.is_drained());
    while undrained().is_some() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
    let Some(stuck) = undrained() else { return Ok(()) };
    tracing::warn!(
        volume = dir.name,
        holder = %stuck.holder,
        slot = %stuck.path.display(),
        "the holder does not finish its operations, moving the volume to a new file"
    );
    relocate(dir, record, deadline).map_err(|error| {
        Error::new(
            ErrorKind::TIMED_OUT,
            format!("{} has operations in flight that do not end", stuck.holder),
        )
        .with("volume", &dir.name)
        .with("pid", stuck.holder.pid)
        .caused_by(&error)
        .remedy(format!("end process {} and attach again", stuck.holder.pid))
    })
}

/// Gives the volume a new file with the same content.
fn relocate(dir: &VolumeDir, record: &VolumeRecord, deadline: Instant) -> Result<()> {
    let (path, next) = (dir.disk(record.format), dir.next_disk(record.format));
    client::remove(&next)?;
    let source = client::open(&path, false, false)?;
    let target = client::create_new(&next)?;
    let copied = copy_whole(&source, &target, deadline);
    if let Err(error) = copied {
        client::remove(&next)?;
        return Err(on_path("cannot move the volume to a new file", &next, &error));
    }
    client::rename(&next, &path)
}

fn copy_whole(source: &File, target: &File, deadline: Instant) -> io::Result<()> {
    if !client::reflink(source, target)? {
        let len = source.metadata()?.len();
        target.set_len(len)?;
        client::copy_data(source, target, 0, len, || {
            if Instant::now() < deadline { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
        })?;
    }
    target.sync_all()
}

/// Removes what a crash left half made: files under passing names, and a snapshot's blocks without its record.
fn collect_half_made(dir: &VolumeDir) -> Result<()> {
    for place in [&dir.path, &dir.snapshots()] {
        for entry in entries(place)? {
            let name = entry.file_name().map(|name| name.to_string_lossy().into_owned());
            if name.is_some_and(|name| name.starts_with(HALF_MADE)) {
                client::remove(&entry)?;
            }
        }
    }
    for entry in entries(&dir.snapshots())? {
        // Names may hold dots, so the extension is all that follows the last one.
        if !entry.with_extension("json").exists() {
            client::remove(&entry)?;
        }
    }
    Ok(())
}

fn entries(path: &Path) -> Result<Vec<std::path::PathBuf>> {
    let listed = fs::read_dir(path).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    });
    listed.map_err(|error| on_path("cannot list the directory", path, &error))
}

#[cfg(test)]
#[path = "fence_tests.rs"]
mod tests;
