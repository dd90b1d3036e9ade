// SPDX-License-Identifier: Apache-2.0
//! Other names for images. An image has its name twice in the pool: in the directory of all images, and in an object
//! `rbd_id.NAME` that leads to it. librbd makes the new object, changes the directory, and removes the old object; what dies in
//! between leaves an object that is not in the directory, and stands in the way of the next attempt.

use driver_api::{Error, ErrorKind, Result, VolumeInfo};

use crate::{
    cluster::{Connection, c_text, check},
    error::{invalid, not_found},
    ffi, holders,
    image::{self, Image},
    store::{Store, show},
};

impl Store {
    /// Gives a volume that nobody has attached another name.
    pub fn rename(&self, name: &str, to: &str) -> Result<VolumeInfo> {
        if [name, to].iter().any(|name| name.starts_with('.')) || name == to {
            return Err(invalid("a volume cannot get this name")
                .with("volume", name)
                .with("to", to));
        }
        self.refuse_attached(name)?;
        let _alone = self.alone(name);
        self.cluster.with(|connection| {
            if finish_half(connection, name, to)? {
                return show(connection, to);
            }
            // Opened as a reader, which takes no lock from anybody.
            image::with(connection, name, false, |image| {
                match holders::living(connection, image)? {
                    Some(holder) => Err(holders::in_use(name, &holder)),
                    None => Ok(()),
                }
            })?;
            match image::rename(connection, name, to) {
                Ok(true) => show(connection, to),
                Ok(false) => {
                    Err(Error::new(ErrorKind::ALREADY_EXISTS, "there is a volume of the new name")
                        .with("volume", name)
                        .with("to", to)
                        .remedy("choose another name, or delete that volume"))
                }
                Err(error) if error.kind() == ErrorKind::NOT_FOUND => {
                    Err(not_found("volume", name))
                }
                Err(error) => Err(error.with("volume", name)),
            }
        })
    }
}

/// Takes away what an attempt that died has left; whether it had come so far that the image has its new name.
fn finish_half(connection: &Connection, name: &str, to: &str) -> Result<bool> {
    let entries = image::entries(connection)?;
    let listed = |name: &str| {
        let entry = entries.iter().find(|(_, listed)| listed == name);
        entry.map(|(id, _)| id.clone())
    };
    match (listed(name), listed(to)) {
        (Some(id), None) if leads_to(connection, to)?.as_ref() == Some(&id) => {
            remove_leading_object(connection, to)?;
            Ok(false)
        }
        (None, Some(id)) if leads_to(connection, name)?.as_ref() == Some(&id) => {
            remove_leading_object(connection, name)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// The identity of the image that a name leads to, whether or not the directory has it.
fn leads_to(connection: &Connection, name: &str) -> Result<Option<String>> {
    match image::with(connection, name, false, Image::id) {
        Ok(id) => Ok(Some(id)),
        Err(error) if error.kind() == ErrorKind::NOT_FOUND => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove_leading_object(connection: &Connection, name: &str) -> Result<()> {
    tracing::warn!(name, "removing what an interrupted renaming left behind");
    let object = c_text(&format!("rbd_id.{name}"))?;
    // SAFETY: the ioctx is open, the text is valid for the call.
    let removed = unsafe { ffi::rados_remove(connection.io(), object.as_ptr()) };
    match removed {
        code if code == -libc::ENOENT => Ok(()),
        code => check("cannot remove what an interrupted renaming left behind", code).map(|_| ()),
    }
}
