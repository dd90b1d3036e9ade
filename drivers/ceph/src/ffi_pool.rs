// SPDX-License-Identifier: Apache-2.0
//! librbd's functions on what a pool has besides images: trash, groups, mirroring; as `rbd/librbd.h` declares them
//! since Ceph 16.

use std::ffi::{c_char, c_int, c_void};

use libc::{size_t, time_t};

use crate::ffi::{Image, Progress, rados_ioctx_t};

/// `rbd_trash_image_source_t`: who put an image there.
pub(crate) const TRASH_USER: c_int = 0;
pub(crate) const TRASH_MIRRORING: c_int = 1;
pub(crate) const TRASH_MIGRATION: c_int = 2;
pub(crate) const TRASH_REMOVING: c_int = 3;
pub(crate) const TRASH_USER_PARENT: c_int = 4;

pub(crate) const MIRROR_DISABLED: c_int = 0;
pub(crate) const MIRROR_IMAGE: c_int = 1;
pub(crate) const MIRROR_POOL: c_int = 2;

#[repr(C)]
pub(crate) struct TrashInfo {
    pub id: *mut c_char,
    pub name: *mut c_char,
    pub source: c_int,
    pub deletion_time: time_t,
    pub deferment_end_time: time_t,
}

#[repr(C)]
pub(crate) struct GroupInfo {
    pub name: *mut c_char,
    pub pool: i64,
}

#[repr(C)]
pub(crate) struct GroupImage {
    pub name: *mut c_char,
    pub pool: i64,
    pub state: c_int,
}

#[repr(C)]
pub(crate) struct GroupSnapshot {
    pub name: *mut c_char,
    pub state: c_int,
}

#[repr(C)]
pub(crate) struct MirrorInfo {
    pub global_id: *mut c_char,
    pub state: c_int,
    pub primary: bool,
}

#[repr(C)]
pub(crate) struct MirrorSite {
    pub mirror_uuid: *mut c_char,
    pub state: c_int,
    pub description: *mut c_char,
    pub last_update: time_t,
    pub up: bool,
}

#[repr(C)]
pub(crate) struct MirrorStatus {
    pub name: *mut c_char,
    pub info: MirrorInfo,
    pub site_count: u32,
    pub sites: *mut MirrorSite,
}

// SAFETY: as librbd.h declares them.
#[link(name = "rbd", kind = "dylib")]
unsafe extern "C" {
    pub(crate) fn rbd_open_by_id(
        io: rados_ioctx_t,
        id: *const c_char,
        image: *mut Image,
        snapshot: *const c_char,
    ) -> c_int;
    pub(crate) fn rbd_get_group(image: Image, info: *mut GroupInfo, info_size: size_t) -> c_int;
    pub(crate) fn rbd_group_info_cleanup(info: *mut GroupInfo, info_size: size_t) -> c_int;

    pub(crate) fn rbd_trash_move(io: rados_ioctx_t, name: *const c_char, delay: u64) -> c_int;
    pub(crate) fn rbd_trash_list(
        io: rados_ioctx_t,
        entries: *mut TrashInfo,
        count: *mut size_t,
    ) -> c_int;
    pub(crate) fn rbd_trash_list_cleanup(entries: *mut TrashInfo, count: size_t);
    pub(crate) fn rbd_trash_remove_with_progress(
        io: rados_ioctx_t,
        id: *const c_char,
        force: bool,
        progress: Progress,
        data: *mut c_void,
    ) -> c_int;
    pub(crate) fn rbd_trash_restore(
        io: rados_ioctx_t,
        id: *const c_char,
        name: *const c_char,
    ) -> c_int;

    pub(crate) fn rbd_group_create(io: rados_ioctx_t, name: *const c_char) -> c_int;
    pub(crate) fn rbd_group_remove(io: rados_ioctx_t, name: *const c_char) -> c_int;
    pub(crate) fn rbd_group_list(io: rados_ioctx_t, names: *mut c_char, size: *mut size_t)
    -> c_int;
    pub(crate) fn rbd_group_image_add(
        group_io: rados_ioctx_t,
        group: *const c_char,
        image_io: rados_ioctx_t,
        image: *const c_char,
    ) -> c_int;
    pub(crate) fn rbd_group_image_remove(
        group_io: rados_ioctx_t,
        group: *const c_char,
        image_io: rados_ioctx_t,
        image: *const c_char,
    ) -> c_int;
    pub(crate) fn rbd_group_image_list(
        group_io: rados_ioctx_t,
        group: *const c_char,
        images: *mut GroupImage,
        info_size: size_t,
        count: *mut size_t,
    ) -> c_int;
    pub(crate) fn rbd_group_image_list_cleanup(
        images: *mut GroupImage,
        info_size: size_t,
        count: size_t,
    ) -> c_int;
    pub(crate) fn rbd_group_snap_create(
        group_io: rados_ioctx_t,
        group: *const c_char,
        snapshot: *const c_char,
    ) -> c_int;
    pub(crate) fn rbd_group_snap_remove(
        group_io: rados_ioctx_t,
        group: *const c_char,
        snapshot: *const c_char,
    ) -> c_int;
    pub(crate) fn rbd_group_snap_list(
        group_io: rados_ioctx_t,
        group: *const c_char,
        snapshots: *mut GroupSnapshot,
        info_size: size_t,
        count: *mut size_t,
    ) -> c_int;
    pub(crate) fn rbd_group_snap_list_cleanup(
        snapshots: *mut GroupSnapshot,
        info_size: size_t,
        count: size_t,
    ) -> c_int;
    pub(crate) fn rbd_group_snap_rollback(
        group_io: rados_ioctx_t,
        group: *const c_char,
        snapshot: *const c_char,
    ) -> c_int;

    pub(crate) fn rbd_mirror_mode_get(io: rados_ioctx_t, mode: *mut c_int) -> c_int;
    pub(crate) fn rbd_mirror_image_get_mode(image: Image, mode: *mut c_int) -> c_int;
    pub(crate) fn rbd_mirror_image_get_info(
        image: Image,
        info: *mut MirrorInfo,
        info_size: size_t,
    ) -> c_int;
    pub(crate) fn rbd_mirror_image_get_info_cleanup(info: *mut MirrorInfo);
    pub(crate) fn rbd_mirror_image_get_global_status(
        image: Image,
        status: *mut MirrorStatus,
        status_size: size_t,
    ) -> c_int;
    pub(crate) fn rbd_mirror_image_global_status_cleanup(status: *mut MirrorStatus);
    pub(crate) fn rbd_mirror_image_global_status_list(
        io: rados_ioctx_t,
        start_id: *const c_char,
        max: size_t,
        image_ids: *mut *mut c_char,
        images: *mut MirrorStatus,
        count: *mut size_t,
    ) -> c_int;
    pub(crate) fn rbd_mirror_image_global_status_list_cleanup(
        image_ids: *mut *mut c_char,
        images: *mut MirrorStatus,
        count: size_t,
    );
}
