// SPDX-License-Identifier: Apache-2.0
//! The trash of a pool: images that are out of the way, and can be had back until they are removed.

use std::{
    ptr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use driver_api::{Error, ErrorKind, Result};
use serde::Serialize;

use crate::{
    cluster::{Connection, c_text, check},
    error::invalid,
    ffi_pool as pool,
    groups::group_of,
    image::{self, Image, grown, no_progress, text},
    store::Store,
};

/// Longer than any trash is kept: its end is still a date.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// An image in the trash.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Discarded {
    pub id: String,
    pub name: String,
    /// Who put it there.
    pub source: &'static str,
    pub moved_unix_secs: u64,
    /// Until when it is kept.
    pub expires_unix_secs: u64,
    pub expired: bool,
}

/// What became of an image in the trash.
#[derive(Debug, Serialize)]
pub(crate) struct Purged {
    pub id: String,
    pub name: String,
    pub outcome: &'static str,
    /// Why it was skipped.
    pub why: String,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn source(code: i32) -> &'static str {
    match code {
        pool::TRASH_USER => "user",
        pool::TRASH_MIRRORING => "mirroring",
        pool::TRASH_MIGRATION => "migration",
        pool::TRASH_REMOVING => "removing",
        pool::TRASH_USER_PARENT => "parent",
        _ => "unknown",
    }
}

fn list(connection: &Connection) -> Result<Vec<Discarded>> {
    let mut found = Vec::new();
    let now = now();
    grown("cannot list the trash", |room| {
        let mut entries: Vec<pool::TrashInfo> = Vec::with_capacity(room);
        // SAFETY: all fields are numbers or pointers, for which zeros are values.
        entries.resize_with(room, || unsafe { std::mem::zeroed() });
        let mut count = room;
        // SAFETY: the ioctx is open, the list has room for count entries.
        let code =
            unsafe { pool::rbd_trash_list(connection.io(), entries.as_mut_ptr(), &mut count) };
        if code >= 0 {
            let all = entries[..count].iter().map(|one| {
                let expires = u64::try_from(one.deferment_end_time).unwrap_or(0);
                Discarded {
                    // SAFETY: the call filled it with texts, which are freed below.
                    id: unsafe { text(one.id) },
                    // SAFETY: as above.
                    name: unsafe { text(one.name) },
                    source: source(one.source),
                    moved_unix_secs: u64::try_from(one.deletion_time).unwrap_or(0),
                    expires_unix_secs: expires,
                    expired: expires <= now,
                }
            });
            found = all.collect();
            // SAFETY: the call filled count entries with texts, which are freed once, after they were copied.
            unsafe { pool::rbd_trash_list_cleanup(entries.as_mut_ptr(), count) };
        }
        (code, count, ())
    })?;
    found.sort_by(|one, next| (&one.name, &one.id).cmp(&(&next.name, &next.id)));
    Ok(found)
}

fn find(connection: &Connection, id: &str) -> Result<Discarded> {
    let found = list(connection)?.into_iter().find(|one| one.id == id);
    found.ok_or_else(|| {
        Error::new(ErrorKind::NOT_FOUND, "the trash has no image of this id")
            .with("id", id)
            .remedy("trash-list shows what it has")
    })
}

/// Moves an image into the trash; it is nobody's, and no clone needs it.
pub(crate) fn move_there(connection: &Connection, name: &str, keep: Duration) -> Result<()> {
    let text = c_text(name)?;
    // SAFETY: the ioctx is open, the text is valid for the call.
    let moved = unsafe { pool::rbd_trash_move(connection.io(), text.as_ptr(), keep.as_secs()) };
    check("the image cannot be moved into the trash", moved).map(|_| ())
}

/// Removes an image for good, with its snapshots.
fn remove(connection: &Connection, found: &Discarded) -> Result<()> {
    let id = c_text(&found.id)?;
    // What was half removed before cannot be opened any more; librbd goes on with it.
    if found.source != "removing" {
        let mut opened = ptr::null_mut();
        // SAFETY: the ioctx is open, the pointers are valid for the call.
        let code =
            unsafe { pool::rbd_open_by_id(connection.io(), id.as_ptr(), &mut opened, ptr::null()) };
        check("cannot open the image in the trash", code)?;
        let image = Image(opened);
        let emptied = remove_snapshots(&image, &found.name);
        emptied.and(image.close(connection.answers()))?;
    }
    // SAFETY: the ioctx is open, the text is valid for the call.
    let removed = unsafe {
        pool::rbd_trash_remove_with_progress(
            connection.io(),
            id.as_ptr(),
            true,
            no_progress,
            ptr::null_mut(),
        )
    };
    check("the image cannot be removed from the trash", removed).map(|_| ())
}

fn remove_snapshots(image: &Image, name: &str) -> Result<()> {
    refuse_parent(image, name)?;
    for snapshot in image.snapshots()? {
        image.remove_snapshot(&snapshot.name)?;
    }
    Ok(())
}

/// Refuses what a clone needs.
pub(crate) fn refuse_parent(image: &Image, name: &str) -> Result<()> {
    match image.children()?.first() {
        None => Ok(()),
        Some(child) => Err(Error::new(ErrorKind::IN_USE, "a clone needs the volume")
            .with("volume", name)
            .with("clone", child)
            .remedy(format!("delete the clone first, or: novastor volume flatten {child}"))),
    }
}

impl Store {
    /// What the trash has.
    pub fn trash_list(&self) -> Result<Vec<Discarded>> {
        self.cluster.with(list)
    }

    /// Moves a volume into the trash, and keeps it there for so long.
    pub fn trash_move(&self, name: &str, keep: Duration) -> Result<Discarded> {
        if keep > LONGEST {
            return Err(invalid("`keep_secs` is longer than a hundred years")
                .with("keep_secs", keep.as_secs()));
        }
        let _alone = self.alone(name);
        self.cluster.with(|connection| {
            let id = image::with(connection, name, false, |image| {
                self.refuse_held(connection, name, image)?;
                refuse_parent(image, name)?;
                if let Some(group) = group_of(image)? {
                    return Err(in_group(name, &group));
                }
                image.id()
            })?;
            move_there(connection, name, keep).map_err(|error| error.with("volume", name))?;
            find(connection, &id)
        })
    }

    /// Gives an image from the trash its old name back, or another one.
    pub fn trash_restore(&self, id: &str, name: Option<&str>) -> Result<String> {
        self.cluster.with(|connection| {
            let found = find(connection, id)?;
            let name = name.unwrap_or(&found.name);
            let (text, id) = (c_text(name)?, c_text(id)?);
            // SAFETY: the ioctx is open, the texts are valid for the call.
            let restored =
                unsafe { pool::rbd_trash_restore(connection.io(), id.as_ptr(), text.as_ptr()) };
            if restored == -libc::EEXIST {
                return Err(Error::new(ErrorKind::ALREADY_EXISTS, "a volume of this name exists")
                    .with("volume", name)
                    .remedy("give the one from the trash another name: \"name\": \"…\""));
            }
            check("the image cannot be restored", restored)?;
            Ok(name.to_owned())
        })
    }

    /// Removes an image from the trash for good; before its time only by force.
    pub fn trash_remove(&self, id: &str, force: bool) -> Result<Discarded> {
        self.cluster.with(|connection| {
            let found = find(connection, id)?;
            if let Some(why) = kept(&found, force) {
                return Err(Error::new(ErrorKind::IN_USE, why)
                    .with("id", id)
                    .with("volume", &found.name)
                    .remedy("wait, or add \"force\": true, after which nobody can have it back"));
            }
            remove(connection, &found).map_err(|error| error.with("id", id))?;
            Ok(found)
        })
    }

    /// Removes what has expired, or had at that moment, or everything; what is skipped says why.
    pub fn trash_purge(&self, all: bool, before: Option<u64>) -> Result<Vec<Purged>> {
        if before.is_some_and(|before| all || before > now()) {
            return Err(invalid("what has not expired yet did not expire before that moment")
                .remedy("name a moment that has passed, or write {\"all\":true} alone"));
        }
        self.cluster.with(|connection| {
            let mut purged = Vec::new();
            for found in list(connection)? {
                let late = before.filter(|before| found.expires_unix_secs > *before);
                let late = late.map(|before| format!("it had not expired at {before}"));
                let removed = match kept(&found, all).or(late) {
                    Some(why) => Err(why),
                    None => match remove(connection, &found) {
                        Err(error) if error.kind() == ErrorKind::FENCED => return Err(error),
                        removed => removed.map_err(|error| format!("{error:#}")),
                    },
                };
                let outcome = if removed.is_ok() { "removed" } else { "skipped" };
                let why = removed.err().unwrap_or_default();
                purged.push(Purged { id: found.id, name: found.name, outcome, why });
            }
            Ok(purged)
        })
    }
}

/// Why an image in the trash is not to be removed.
fn kept(found: &Discarded, force: bool) -> Option<String> {
    match found.source {
        "mirroring" | "migration" => {
            Some(format!("it is there for {}, which needs it", found.source))
        }
        _ if !found.expired && !force => {
            Some(format!("it is kept until {} (seconds since 1970)", found.expires_unix_secs))
        }
        _ => None,
    }
}

/// Refuses to take a volume out of its group by the way.
pub(crate) fn in_group(volume: &str, group: &str) -> Error {
    Error::new(ErrorKind::IN_USE, "the volume is in a consistency group")
        .with("volume", volume)
        .with("group", group)
        .remedy("take it out first: the command group-remove")
}
