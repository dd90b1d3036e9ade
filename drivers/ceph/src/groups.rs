// SPDX-License-Identifier: Apache-2.0
//! Consistency groups: several images with snapshots of one moment.
//!
//! For such a snapshot RBD takes the exclusive lock of each image from whoever has it. An attachment does not give it up, so
//! that groups are for volumes that nobody has attached; of volumes in use the host takes snapshots of one moment itself.

use std::ptr;

use driver_api::{Error, ErrorKind, Result};
use serde::Serialize;

use crate::{
    cluster::{Connection, c_text, check},
    error::{failed, not_found},
    ffi_pool as pool, holders,
    image::{self, Image, grown, text},
    store::Store,
    trash::in_group,
};

/// A group and its volumes.
#[derive(Debug, Serialize)]
pub(crate) struct Group {
    pub group: String,
    pub volumes: Vec<String>,
}

/// A snapshot of a group.
#[derive(Debug, Serialize)]
pub(crate) struct GroupSnapshot {
    pub group: String,
    pub snapshot: String,
    /// `complete`, or `incomplete` if taking it was cut off.
    pub state: &'static str,
}

/// The group that an image is in.
pub(crate) fn group_of(image: &Image) -> Result<Option<String>> {
    let size = size_of::<pool::GroupInfo>();
    let mut info = pool::GroupInfo { name: ptr::null_mut(), pool: 0 };
    // SAFETY: the image is open, the pointer is valid for the call, with its size.
    let asked = unsafe { pool::rbd_get_group(image.0, &mut info, size) };
    check("cannot ask for the image's group", asked)?;
    // SAFETY: the call gave a text or null; it is freed once, after it was copied.
    let name = unsafe {
        let name = text(info.name);
        pool::rbd_group_info_cleanup(&mut info, size);
        name
    };
    Ok(Some(name).filter(|name| !name.is_empty()))
}

fn names(connection: &Connection) -> Result<Vec<String>> {
    let mut bytes = Vec::new();
    let (len, ()) = grown("cannot list the groups", |room| {
        // One byte more than is told: the call ends the list with a zero.
        bytes = vec![0_u8; room + 1];
        let mut size = room;
        let list = bytes.as_mut_ptr().cast();
        // SAFETY: the ioctx is open, the buffer has more than its length.
        let code = unsafe { pool::rbd_group_list(connection.io(), list, &mut size) };
        (code, size, ())
    })?;
    let used = &bytes[..bytes.len().min(len as usize)];
    let texts = used.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut names: Vec<_> = texts.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    names.sort();
    Ok(names)
}

fn no_group(group: &str) -> Error {
    not_found("group", group).remedy("group-list shows the groups, group-create makes one")
}

/// The error of a call on a group.
fn said(what: &str, code: i32, group: &str) -> Result<()> {
    match code {
        code if code >= 0 => Ok(()),
        code if code == -libc::EROFS || code == -libc::EBUSY => {
            Err(Error::new(ErrorKind::IN_USE, format!("{what}: an image of the group is in use"))
                .with("group", group)
                .remedy("detach its volumes; look who has them open (rbd status)"))
        }
        code => Err(failed(what, code.into()).with("group", group)),
    }
}

/// The names of a group's volumes.
fn members(connection: &Connection, group: &str) -> Result<Vec<String>> {
    let (name, size) = (c_text(group)?, size_of::<pool::GroupImage>());
    let mut found = Vec::new();
    let listed = grown("cannot list the group", |room| {
        let mut images: Vec<pool::GroupImage> = Vec::with_capacity(room);
        let empty = || pool::GroupImage { name: ptr::null_mut(), pool: 0, state: 0 };
        images.resize_with(room, empty);
        let mut count = room;
        // SAFETY: the ioctx is open, the list has room for count entries of this size.
        let code = unsafe {
            let list = images.as_mut_ptr();
            pool::rbd_group_image_list(connection.io(), name.as_ptr(), list, size, &mut count)
        };
        if code >= 0 {
            // SAFETY: the call filled count entries with texts, which are freed once, after they were copied.
            unsafe {
                found = images[..count].iter().map(|one| text(one.name)).collect();
                pool::rbd_group_image_list_cleanup(images.as_mut_ptr(), size, count);
            }
        }
        (code, count, ())
    });
    listed.map_err(|error| error.with("group", group))?;
    // Of a group that is not there librbd says that it has no images.
    if found.is_empty() && !names(connection)?.iter().any(|name| name == group) {
        return Err(no_group(group));
    }
    found.sort();
    Ok(found)
}

fn snapshots(connection: &Connection, group: &str) -> Result<Vec<GroupSnapshot>> {
    // That says so if there is no such group.
    members(connection, group)?;
    let (name, size) = (c_text(group)?, size_of::<pool::GroupSnapshot>());
    let mut found = Vec::new();
    grown("cannot list the group's snapshots", |room| {
        let mut all: Vec<pool::GroupSnapshot> = Vec::with_capacity(room);
        all.resize_with(room, || pool::GroupSnapshot { name: ptr::null_mut(), state: 0 });
        let mut count = room;
        // SAFETY: the ioctx is open, the list has room for count entries of this size.
        let code = unsafe {
            let list = all.as_mut_ptr();
            pool::rbd_group_snap_list(connection.io(), name.as_ptr(), list, size, &mut count)
        };
        if code >= 0 {
            let copied = all[..count].iter().map(|one| GroupSnapshot {
                group: group.to_owned(),
                // SAFETY: the call filled it with texts, which are freed below.
                snapshot: unsafe { text(one.name) },
                state: if one.state == 1 { "complete" } else { "incomplete" },
            });
            found = copied.collect();
            // SAFETY: the call filled count entries with texts, which are freed once, after they were copied.
            unsafe { pool::rbd_group_snap_list_cleanup(all.as_mut_ptr(), size, count) };
        }
        (code, count, ())
    })?;
    found.sort_by(|one, next| one.snapshot.cmp(&next.snapshot));
    Ok(found)
}

fn snapshot_of(connection: &Connection, group: &str, snapshot: &str) -> Result<GroupSnapshot> {
    let found = snapshots(connection, group)?.into_iter().find(|one| one.snapshot == snapshot);
    found.ok_or_else(|| {
        not_found("snapshot", snapshot)
            .with("group", group)
            .remedy("group-snapshots shows what there is")
    })
}

impl Store {
    /// Refuses a volume that anybody has attached or open for writing.
    pub(crate) fn refuse_held(
        &self,
        connection: &Connection,
        name: &str,
        image: &Image,
    ) -> Result<()> {
        if let Some(holder) = holders::living(connection, image)? {
            return Err(holders::in_use(name, &holder));
        }
        if let Some(address) = image.watchers()?.first() {
            return Err(Error::new(
                ErrorKind::IN_USE,
                format!("another program has the image open, at {address}"),
            )
            .with("volume", name)
            .remedy("end it (rbd status shows who it is)"));
        }
        Ok(())
    }

    /// Refuses a group of which a volume is attached.
    fn refuse_attached_group(&self, connection: &Connection, group: &str) -> Result<Vec<String>> {
        let members = members(connection, group)?;
        for name in &members {
            image::with(connection, name, false, |image| self.refuse_held(connection, name, image))
                .map_err(|error| error.with("group", group))?;
        }
        Ok(members)
    }

    /// All groups.
    pub fn group_list(&self) -> Result<Vec<Group>> {
        self.cluster.with(|connection| {
            let names = names(connection)?.into_iter();
            names.map(|group| Ok(Group { volumes: members(connection, &group)?, group })).collect()
        })
    }

    /// Makes an empty group.
    pub fn group_create(&self, group: &str) -> Result<Group> {
        self.cluster.with(|connection| {
            let name = c_text(group)?;
            // SAFETY: the ioctx is open, the text is valid for the call.
            let made = unsafe { pool::rbd_group_create(connection.io(), name.as_ptr()) };
            if made == -libc::EEXIST {
                let error = Error::new(ErrorKind::ALREADY_EXISTS, "a group of this name exists");
                return Err(error.with("group", group).remedy("choose another name"));
            }
            said("the group cannot be made", made, group)?;
            Ok(Group { group: group.to_owned(), volumes: Vec::new() })
        })
    }

    /// Removes a group, not its volumes.
    pub fn group_delete(&self, group: &str) -> Result<Group> {
        self.cluster.with(|connection| {
            let volumes = self.refuse_attached_group(connection, group)?;
            refuse_with_snapshots(connection, group)?;
            let name = c_text(group)?;
            // SAFETY: the ioctx is open, the text is valid for the call.
            let removed = unsafe { pool::rbd_group_remove(connection.io(), name.as_ptr()) };
            said("the group cannot be removed", removed, group)?;
            Ok(Group { group: group.to_owned(), volumes })
        })
    }

    /// Puts a volume into a group.
    pub fn group_add(&self, group: &str, volume: &str) -> Result<Group> {
        self.cluster.with(|connection| {
            if members(connection, group)?.iter().any(|member| member == volume) {
                return Ok(Group { group: group.to_owned(), volumes: members(connection, group)? });
            }
            image::with(connection, volume, false, |image| {
                self.refuse_held(connection, volume, image)?;
                group_of(image)?.map_or(Ok(()), |other| Err(in_group(volume, &other)))
            })?;
            let (name, image, io) = (c_text(group)?, c_text(volume)?, connection.io());
            // SAFETY: the ioctx is open, the texts are valid for the call.
            let added = unsafe { pool::rbd_group_image_add(io, name.as_ptr(), io, image.as_ptr()) };
            said("the volume cannot be put into the group", added, group)?;
            Ok(Group { group: group.to_owned(), volumes: members(connection, group)? })
        })
    }

    /// Takes a volume out of a group.
    pub fn group_remove(&self, group: &str, volume: &str) -> Result<Group> {
        self.cluster.with(|connection| {
            if !members(connection, group)?.iter().any(|member| member == volume) {
                return Err(not_found("volume", volume)
                    .with("group", group)
                    .remedy("group-list shows which volumes are in it"));
            }
            image::with(connection, volume, false, |image| {
                self.refuse_held(connection, volume, image)
            })?;
            refuse_with_snapshots(connection, group)?;
            let (name, image, io) = (c_text(group)?, c_text(volume)?, connection.io());
            // SAFETY: the ioctx is open, the texts are valid for the call.
            let removed =
                unsafe { pool::rbd_group_image_remove(io, name.as_ptr(), io, image.as_ptr()) };
            said("the volume cannot be taken out of the group", removed, group)?;
            Ok(Group { group: group.to_owned(), volumes: members(connection, group)? })
        })
    }

    /// Takes a snapshot of all volumes of a group.
    pub fn group_snapshot(&self, group: &str, snapshot: &str) -> Result<GroupSnapshot> {
        self.cluster.with(|connection| {
            let members = self.refuse_attached_group(connection, group).map_err(|error| {
                match error.kind() {
                    ErrorKind::IN_USE => error.remedy(
                        "detach its volumes; of volumes in use the host takes snapshots of one moment: novastor snapshot create VOLUME NAME --with VOLUME",
                    ),
                    _ => error,
                }
            })?;
            if members.is_empty() {
                let error = Error::new(ErrorKind::INVALID_ARGUMENT, "the group has no volumes");
                return Err(error.with("group", group).remedy("group-add puts volumes into it"));
            }
            if snapshots(connection, group)?.iter().any(|one| one.snapshot == snapshot) {
                let why = "the group has a snapshot of this name";
                return Err(Error::new(ErrorKind::ALREADY_EXISTS, why)
                    .with("group", group)
                    .with("snapshot", snapshot)
                    .remedy("choose another name"));
            }
            let (name, new) = (c_text(group)?, c_text(snapshot)?);
            // SAFETY: the ioctx is open, the texts are valid for the call.
            let taken = unsafe {
                pool::rbd_group_snap_create(connection.io(), name.as_ptr(), new.as_ptr())
            };
            said("the snapshot of the group cannot be taken", taken, group)?;
            snapshot_of(connection, group, snapshot)
        })
    }

    /// The snapshots of a group.
    pub fn group_snapshots(&self, group: &str) -> Result<Vec<GroupSnapshot>> {
        self.cluster.with(|connection| snapshots(connection, group))
    }

    /// Removes a snapshot of a group.
    pub fn group_snapshot_delete(&self, group: &str, snapshot: &str) -> Result<GroupSnapshot> {
        self.cluster.with(|connection| {
            let found = snapshot_of(connection, group, snapshot)?;
            self.refuse_attached_group(connection, group)?;
            let (name, old) = (c_text(group)?, c_text(snapshot)?);
            // SAFETY: the ioctx is open, the texts are valid for the call.
            let removed = unsafe {
                pool::rbd_group_snap_remove(connection.io(), name.as_ptr(), old.as_ptr())
            };
            said("the snapshot of the group cannot be removed", removed, group)?;
            Ok(found)
        })
    }

    /// Makes all volumes of a group what they were.
    pub fn group_snapshot_rollback(&self, group: &str, snapshot: &str) -> Result<GroupSnapshot> {
        self.cluster.with(|connection| {
            let found = snapshot_of(connection, group, snapshot)?;
            if found.state != "complete" {
                let why = "the snapshot is not whole: taking it was cut off";
                return Err(Error::new(ErrorKind::CORRUPTED, why)
                    .with("snapshot", snapshot)
                    .remedy("remove it: group-snapshot-delete"));
            }
            self.refuse_attached_group(connection, group)?;
            let (name, old) = (c_text(group)?, c_text(snapshot)?);
            // SAFETY: the ioctx is open, the texts are valid for the call.
            let done = unsafe {
                pool::rbd_group_snap_rollback(connection.io(), name.as_ptr(), old.as_ptr())
            };
            said("the group cannot be rolled back", done, group)?;
            Ok(found)
        })
    }
}

/// Refuses a group whose snapshots would not be whole any more.
fn refuse_with_snapshots(connection: &Connection, group: &str) -> Result<()> {
    match snapshots(connection, group)?.first() {
        None => Ok(()),
        Some(found) => Err(Error::new(ErrorKind::IN_USE, "the group has snapshots")
            .with("group", group)
            .with("snapshot", &found.snapshot)
            .remedy("remove them first: the command group-snapshot-delete")),
    }
}
