// SPDX-License-Identifier: Apache-2.0
//! Snapshots that cannot be deleted.

use driver_api::{Error, ErrorKind, Result};

use crate::{
    cluster::{c_text, check},
    ffi,
    image::Image,
};

/// Refuses to delete a snapshot.
pub(crate) fn protected(name: &str) -> Error {
    Error::new(ErrorKind::IN_USE, "the snapshot is protected").with("snapshot", name).remedy(
        format!(
            "if it may go, take the protection away: novastor snapshot protect VOLUME {name} --undo"
        ),
    )
}

impl Image {
    pub fn is_protected(&self, snapshot: &str) -> Result<bool> {
        let name = c_text(snapshot)?;
        let mut protected = 0;
        // SAFETY: the image is open, the pointers are valid for the call.
        let asked = unsafe { ffi::rbd_snap_is_protected(self.0, name.as_ptr(), &mut protected) };
        check("cannot ask for the snapshot", asked)?;
        Ok(protected != 0)
    }

    /// Protects a snapshot or ends that; one that is so already stays so.
    pub fn protect(&self, snapshot: &str, on: bool) -> Result<()> {
        if self.is_protected(snapshot)? == on {
            return Ok(());
        }
        let name = c_text(snapshot)?;
        // SAFETY: the image is open, the text is valid for the call.
        let done = unsafe {
            match on {
                true => ffi::rbd_snap_protect(self.0, name.as_ptr()),
                false => ffi::rbd_snap_unprotect(self.0, name.as_ptr()),
            }
        };
        match done {
            code if code == -libc::EBUSY && !on => {
                Err(Error::new(ErrorKind::IN_USE, "a clone of version 1 needs the snapshot")
                    .with("snapshot", snapshot)
                    .remedy("flatten the clones first, or delete them (rbd children)"))
            }
            code => check("the snapshot's protection cannot be changed", code).map(|_| ()),
        }
    }
}
