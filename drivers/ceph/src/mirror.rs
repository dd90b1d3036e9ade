// SPDX-License-Identifier: Apache-2.0
//! What RBD's mirroring between clusters says of the pool's images.

use std::{ffi::CString, ptr, slice};

use driver_api::{ErrorKind, Result};
use serde::Serialize;

use crate::{
    cluster::{Connection, c_text, check},
    ffi_pool as pool,
    image::{self, Image, text},
    store::Store,
};

/// Images that one question is answered for.
const PAGE: usize = 64;

/// How a pool is mirrored.
#[derive(Debug, Serialize)]
pub(crate) struct Mirroring {
    pub pool: String,
    /// `disabled`, `image` (those that are chosen) or `pool` (all that are journaled).
    pub mode: &'static str,
    /// What to do where it is disabled.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub note: &'static str,
    pub images: Vec<Mirrored>,
}

/// How an image is mirrored, at one of the sites that have it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Mirrored {
    pub volume: String,
    /// `journal` or `snapshot`.
    pub mode: &'static str,
    pub primary: bool,
    /// `local`, or the other site's identity.
    pub site: String,
    pub state: &'static str,
    pub up: bool,
    pub description: String,
    /// Zero if nobody has told yet.
    pub last_update_unix_secs: u64,
}

fn state(code: i32) -> &'static str {
    match code {
        1 => "error",
        2 => "syncing",
        3 => "starting_replay",
        4 => "replaying",
        5 => "stopping_replay",
        6 => "stopped",
        _ => "unknown",
    }
}

/// How an image is mirrored, and whether it is the primary one: a list does not tell that.
pub(crate) fn mode_and_role(image: &Image) -> Result<(&'static str, bool)> {
    let mut mode = 0;
    // SAFETY: the image is open, the pointer is valid for the call.
    let asked = unsafe { pool::rbd_mirror_image_get_mode(image.0, &mut mode) };
    check("cannot ask how the image is mirrored", asked)?;
    let mut info = pool::MirrorInfo { global_id: ptr::null_mut(), state: 0, primary: false };
    let size = size_of::<pool::MirrorInfo>();
    // SAFETY: the image is open, the pointer is valid for the call, with its size.
    let asked = unsafe { pool::rbd_mirror_image_get_info(image.0, &mut info, size) };
    check("cannot ask whether the image is primary", asked)?;
    // SAFETY: the call succeeded, and the text that it gave is used no more.
    unsafe { pool::rbd_mirror_image_get_info_cleanup(&mut info) };
    Ok((if mode == 1 { "snapshot" } else { "journal" }, info.primary))
}

fn of_listed(connection: &Connection, name: &str) -> Result<(&'static str, bool)> {
    match image::with(connection, name, false, mode_and_role) {
        // It was deleted, or is mirrored no more, since it was listed.
        Err(error) if error.kind() == ErrorKind::NOT_FOUND => Ok(("gone", false)),
        other => other,
    }
}

/// The sites of one image, as the call told them.
///
/// # Safety
/// The status was filled by librbd and is not freed yet.
pub(crate) unsafe fn sites(status: &pool::MirrorStatus) -> Vec<Mirrored> {
    // SAFETY: the caller promises it.
    let volume = unsafe { text(status.name) };
    let (all, count) = (status.sites, status.site_count as usize);
    let none: &[pool::MirrorSite] = &[];
    // SAFETY: the call gave count entries at this address.
    let all = if all.is_null() { none } else { unsafe { slice::from_raw_parts(all, count) } };
    let told = all.iter().map(|site| {
        // SAFETY: as above.
        let (uuid, description) = unsafe { (text(site.mirror_uuid), text(site.description)) };
        Mirrored {
            volume: volume.clone(),
            mode: "",
            primary: false,
            site: if uuid.is_empty() { "local".to_owned() } else { uuid },
            state: state(site.state),
            up: site.up,
            description,
            last_update_unix_secs: u64::try_from(site.last_update).unwrap_or(0),
        }
    });
    let mut told: Vec<_> = told.collect();
    if told.is_empty() {
        told.push(Mirrored {
            volume,
            mode: "",
            primary: false,
            site: "local".to_owned(),
            state: "unknown",
            up: false,
            description: "no daemon has told how it is".to_owned(),
            last_update_unix_secs: 0,
        });
    }
    told
}

fn page(connection: &Connection, after: &CString) -> Result<(Vec<Mirrored>, Option<CString>)> {
    let mut ids = vec![ptr::null_mut(); PAGE];
    let mut list: Vec<pool::MirrorStatus> = Vec::with_capacity(PAGE);
    // SAFETY: all fields are numbers, pointers or false, for which zeros are values.
    list.resize_with(PAGE, || unsafe { std::mem::zeroed() });
    let mut count = PAGE;
    let (io, after) = (connection.io(), after.as_ptr());
    // SAFETY: the ioctx is open, the text is valid for the call, both lists have room for count entries.
    let listed = unsafe {
        pool::rbd_mirror_image_global_status_list(
            io,
            after,
            PAGE,
            ids.as_mut_ptr(),
            list.as_mut_ptr(),
            &mut count,
        )
    };
    check("cannot ask how the images are mirrored", listed)?;
    // SAFETY: the call filled count entries with texts, which are freed once, after they were copied.
    let (found, last) = unsafe {
        let found: Vec<_> = list[..count].iter().flat_map(|status| sites(status)).collect();
        let last = ids[..count].last().map(|id| text(*id));
        let (ids, list) = (ids.as_mut_ptr(), list.as_mut_ptr());
        pool::rbd_mirror_image_global_status_list_cleanup(ids, list, count);
        (found, last)
    };
    let next = last.filter(|_| count == PAGE).map(|id| c_text(&id)).transpose()?;
    Ok((found, next))
}

impl Store {
    /// How the pool is mirrored, and each of its images.
    pub fn mirror_status(&self) -> Result<Mirroring> {
        let name = self.cluster.config.pool.clone();
        self.cluster.with(|connection| {
            let mut mode = 0;
            // SAFETY: the ioctx is open, the pointer is valid for the call.
            let asked = unsafe { pool::rbd_mirror_mode_get(connection.io(), &mut mode) };
            check("cannot ask whether the pool is mirrored", asked)?;
            let (mode, note) = match mode {
                pool::MIRROR_DISABLED => (
                    "disabled",
                    "mirroring is not enabled for this pool and namespace; rbd mirror pool enable POOL image enables it",
                ),
                pool::MIRROR_IMAGE => ("image", ""),
                pool::MIRROR_POOL => ("pool", ""),
                _ => ("unknown", ""),
            };
            let mut images = Vec::new();
            let mut after = (mode != "disabled").then(CString::default);
            while let Some(last) = after {
                let (found, next) = page(connection, &last)?;
                images.extend(found);
                after = next;
            }
            for image in &mut images {
                (image.mode, image.primary) = of_listed(connection, &image.volume)?;
            }
            images.sort_by(|one, next| (&one.volume, &one.site).cmp(&(&next.volume, &next.site)));
            Ok(Mirroring { pool: name.clone(), mode, note, images })
        })
    }
}
