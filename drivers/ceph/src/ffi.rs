// SPDX-License-Identifier: Apache-2.0
//! librbd's functions, as `rbd/librbd.h` declares them since Ceph 16, and those of librados that crate `ceph` lacks.

use std::ffi::{c_char, c_int, c_void};

pub(crate) use ceph_rust::rados::{
    rados_aio_cancel, rados_aio_create_completion, rados_aio_release, rados_aio_stat,
    rados_aio_wait_for_complete_and_cb, rados_break_lock, rados_buffer_free, rados_cluster_fsid,
    rados_completion_t, rados_conf_read_file, rados_conf_set, rados_connect, rados_create_write_op,
    rados_create2, rados_get_instance_id, rados_getxattr, rados_ioctx_create, rados_ioctx_destroy,
    rados_ioctx_get_id, rados_ioctx_set_namespace, rados_ioctx_t, rados_list_lockers,
    rados_lock_exclusive, rados_lock_shared, rados_mon_command, rados_pool_lookup,
    rados_pool_reverse_lookup, rados_release_write_op, rados_remove, rados_rmxattr, rados_setxattr,
    rados_shutdown, rados_t, rados_unlock, rados_wait_for_latest_osdmap, rados_write_op_cmpxattr,
    rados_write_op_operate, rados_write_op_rmxattr, rados_write_op_setxattr, rados_write_op_t,
};
use libc::{size_t, ssize_t, timespec};

pub(crate) type Image = *mut c_void;
pub(crate) type Completion = *mut c_void;
pub(crate) type ImageOptions = *mut c_void;
pub(crate) type Progress = extern "C" fn(offset: u64, total: u64, data: *mut c_void) -> c_int;
pub(crate) type Completed = extern "C" fn(completion: Completion, arg: *mut c_void);
pub(crate) type DiffPart =
    extern "C" fn(offset: u64, len: size_t, exists: c_int, arg: *mut c_void) -> c_int;

/// `rbd_image_options_set_*`: what is set.
pub(crate) const OPTION_FEATURES: c_int = 1;
pub(crate) const OPTION_ORDER: c_int = 2;
pub(crate) const OPTION_STRIPE_UNIT: c_int = 3;
pub(crate) const OPTION_STRIPE_COUNT: c_int = 4;
pub(crate) const OPTION_DATA_POOL: c_int = 10;
pub(crate) const OPTION_CLONE_FORMAT: c_int = 12;

pub(crate) const LOCK_EXCLUSIVE: c_int = 0;
/// `rbd_aio_write_zeroes`: what is zeroed stays allocated.
pub(crate) const ZEROES_THICK: c_int = 1;
/// A snapshot that a user made.
pub(crate) const SNAPSHOT_OF_USER: c_int = 0;

pub(crate) const FEATURE_EXCLUSIVE_LOCK: u64 = 1 << 2;
pub(crate) const FEATURE_FAST_DIFF: u64 = 1 << 4;
/// `rados_write_op_cmpxattr`: the rest is done only if the attribute has this value.
pub(crate) const COMPARE_EQUAL: u8 = 1;
/// `rbd_get_flags`: the map that fast-diff reads is not to be trusted.
pub(crate) const FLAG_FAST_DIFF_INVALID: u64 = 1 << 1;

#[repr(C)]
pub(crate) struct ImageSpec {
    pub id: *mut c_char,
    pub name: *mut c_char,
}

#[repr(C)]
pub(crate) struct SnapshotInfo {
    pub id: u64,
    pub size: u64,
    pub name: *const c_char,
}

#[repr(C)]
pub(crate) struct Watcher {
    pub addr: *mut c_char,
    pub id: i64,
    pub cookie: u64,
}

#[repr(C)]
pub(crate) struct LinkedImage {
    pub pool_id: i64,
    pub pool_name: *mut c_char,
    pub pool_namespace: *mut c_char,
    pub image_id: *mut c_char,
    pub image_name: *mut c_char,
    pub trash: bool,
}

#[repr(C)]
pub(crate) struct SnapshotSpec {
    pub id: u64,
    pub kind: c_int,
    pub name: *mut c_char,
}

#[repr(C)]
pub(crate) struct ImageInfo {
    pub size: u64,
    pub object_size: u64,
    pub objects: u64,
    pub order: c_int,
    pub block_name_prefix: [c_char; 24],
    pub parent_pool: i64,
    pub parent_name: [c_char; 96],
}

// SAFETY: as librados.h declares them.
#[link(name = "rados", kind = "dylib")]
unsafe extern "C" {
    pub(crate) fn rados_blocklist_add(
        cluster: rados_t,
        address: *mut c_char,
        expire_seconds: u32,
    ) -> c_int;
    /// The text is freed with `free`.
    pub(crate) fn rados_getaddrs(cluster: rados_t, addresses: *mut *mut c_char) -> c_int;
    pub(crate) fn rados_set_pool_full_try(io: rados_ioctx_t);
}

// SAFETY: as librbd.h declares them.
#[link(name = "rbd", kind = "dylib")]
unsafe extern "C" {
    pub(crate) fn rbd_image_options_create(options: *mut ImageOptions);
    pub(crate) fn rbd_image_options_destroy(options: ImageOptions);
    pub(crate) fn rbd_image_options_set_string(
        options: ImageOptions,
        option: c_int,
        value: *const c_char,
    ) -> c_int;
    pub(crate) fn rbd_image_options_set_uint64(
        options: ImageOptions,
        option: c_int,
        value: u64,
    ) -> c_int;

    pub(crate) fn rbd_list2(
        io: rados_ioctx_t,
        images: *mut ImageSpec,
        max_images: *mut size_t,
    ) -> c_int;
    pub(crate) fn rbd_image_spec_list_cleanup(images: *mut ImageSpec, count: size_t);
    pub(crate) fn rbd_create4(
        io: rados_ioctx_t,
        name: *const c_char,
        size: u64,
        options: ImageOptions,
    ) -> c_int;
    pub(crate) fn rbd_clone3(
        parent_io: rados_ioctx_t,
        parent: *const c_char,
        snapshot: *const c_char,
        child_io: rados_ioctx_t,
        child: *const c_char,
        options: ImageOptions,
    ) -> c_int;
    pub(crate) fn rbd_remove_with_progress(
        io: rados_ioctx_t,
        name: *const c_char,
        progress: Progress,
        data: *mut c_void,
    ) -> c_int;
    pub(crate) fn rbd_rename(io: rados_ioctx_t, from: *const c_char, to: *const c_char) -> c_int;
    pub(crate) fn rbd_namespace_exists(
        io: rados_ioctx_t,
        name: *const c_char,
        exists: *mut bool,
    ) -> c_int;

    pub(crate) fn rbd_open(
        io: rados_ioctx_t,
        name: *const c_char,
        image: *mut Image,
        snapshot: *const c_char,
    ) -> c_int;
    pub(crate) fn rbd_open_read_only(
        io: rados_ioctx_t,
        name: *const c_char,
        image: *mut Image,
        snapshot: *const c_char,
    ) -> c_int;
    pub(crate) fn rbd_open_by_id(
        io: rados_ioctx_t,
        id: *const c_char,
        image: *mut Image,
        snapshot: *const c_char,
    ) -> c_int;
    pub(crate) fn rbd_open_by_id_read_only(
        io: rados_ioctx_t,
        id: *const c_char,
        image: *mut Image,
        snapshot: *const c_char,
    ) -> c_int;
    pub(crate) fn rbd_close(image: Image) -> c_int;
    pub(crate) fn rbd_get_overlap(image: Image, overlap: *mut u64) -> c_int;
    pub(crate) fn rbd_get_parent(
        image: Image,
        parent: *mut LinkedImage,
        snapshot: *mut SnapshotSpec,
    ) -> c_int;
    pub(crate) fn rbd_linked_image_spec_cleanup(image: *mut LinkedImage);
    pub(crate) fn rbd_snap_spec_cleanup(snapshot: *mut SnapshotSpec);
    pub(crate) fn rbd_flatten_with_progress(
        image: Image,
        progress: Progress,
        data: *mut c_void,
    ) -> c_int;
    pub(crate) fn rbd_stat(image: Image, info: *mut ImageInfo, info_size: size_t) -> c_int;
    pub(crate) fn rbd_get_size(image: Image, size: *mut u64) -> c_int;
    pub(crate) fn rbd_get_id(image: Image, id: *mut c_char, id_len: size_t) -> c_int;
    pub(crate) fn rbd_get_features(image: Image, features: *mut u64) -> c_int;
    pub(crate) fn rbd_get_data_pool_id(image: Image) -> i64;
    pub(crate) fn rbd_get_flags(image: Image, flags: *mut u64) -> c_int;
    pub(crate) fn rbd_get_stripe_unit(image: Image, unit: *mut u64) -> c_int;
    pub(crate) fn rbd_get_stripe_count(image: Image, count: *mut u64) -> c_int;
    pub(crate) fn rbd_resize2(
        image: Image,
        size: u64,
        allow_shrink: bool,
        progress: Progress,
        data: *mut c_void,
    ) -> c_int;
    pub(crate) fn rbd_watchers_list(
        image: Image,
        watchers: *mut Watcher,
        max_watchers: *mut size_t,
    ) -> c_int;
    pub(crate) fn rbd_watchers_list_cleanup(watchers: *mut Watcher, count: size_t);
    pub(crate) fn rbd_list_children3(
        image: Image,
        images: *mut LinkedImage,
        max_images: *mut size_t,
    ) -> c_int;
    pub(crate) fn rbd_linked_image_spec_list_cleanup(images: *mut LinkedImage, count: size_t);
    pub(crate) fn rbd_metadata_get(
        image: Image,
        key: *const c_char,
        value: *mut c_char,
        value_len: *mut size_t,
    ) -> c_int;
    pub(crate) fn rbd_metadata_set(image: Image, key: *const c_char, value: *const c_char)
    -> c_int;

    pub(crate) fn rbd_lock_acquire(image: Image, mode: c_int) -> c_int;
    pub(crate) fn rbd_lock_get_owners(
        image: Image,
        mode: *mut c_int,
        owners: *mut *mut c_char,
        max_owners: *mut size_t,
    ) -> c_int;
    pub(crate) fn rbd_lock_get_owners_cleanup(owners: *mut *mut c_char, count: size_t);
    pub(crate) fn rbd_lock_break(image: Image, mode: c_int, owner: *const c_char) -> c_int;

    pub(crate) fn rbd_snap_list(
        image: Image,
        snapshots: *mut SnapshotInfo,
        max_snapshots: *mut c_int,
    ) -> c_int;
    pub(crate) fn rbd_snap_list_end(snapshots: *mut SnapshotInfo);
    pub(crate) fn rbd_snap_create(image: Image, name: *const c_char) -> c_int;
    pub(crate) fn rbd_snap_remove(image: Image, name: *const c_char) -> c_int;
    pub(crate) fn rbd_snap_rollback_with_progress(
        image: Image,
        name: *const c_char,
        progress: Progress,
        data: *mut c_void,
    ) -> c_int;
    pub(crate) fn rbd_snap_get_timestamp(image: Image, id: u64, time: *mut timespec) -> c_int;
    pub(crate) fn rbd_snap_get_namespace_type(image: Image, id: u64, kind: *mut c_int) -> c_int;
    pub(crate) fn rbd_snap_is_protected(
        image: Image,
        name: *const c_char,
        is_protected: *mut c_int,
    ) -> c_int;
    pub(crate) fn rbd_snap_protect(image: Image, name: *const c_char) -> c_int;
    pub(crate) fn rbd_snap_unprotect(image: Image, name: *const c_char) -> c_int;

    pub(crate) fn rbd_diff_iterate2(
        image: Image,
        from_snapshot: *const c_char,
        offset: u64,
        len: u64,
        include_parent: u8,
        whole_object: u8,
        part: DiffPart,
        arg: *mut c_void,
    ) -> c_int;

    pub(crate) fn rbd_read(image: Image, offset: u64, len: size_t, buffer: *mut c_char) -> ssize_t;
    pub(crate) fn rbd_compare_and_write(
        image: Image,
        offset: u64,
        len: size_t,
        wanted: *const c_char,
        data: *const c_char,
        mismatch: *mut u64,
        flags: c_int,
    ) -> ssize_t;

    pub(crate) fn rbd_aio_create_completion(
        arg: *mut c_void,
        completed: Completed,
        completion: *mut Completion,
    ) -> c_int;
    pub(crate) fn rbd_aio_get_return_value(completion: Completion) -> ssize_t;
    pub(crate) fn rbd_aio_release(completion: Completion);
    pub(crate) fn rbd_aio_read(
        image: Image,
        offset: u64,
        len: size_t,
        buffer: *mut c_char,
        completion: Completion,
    ) -> c_int;
    pub(crate) fn rbd_aio_write(
        image: Image,
        offset: u64,
        len: size_t,
        buffer: *const c_char,
        completion: Completion,
    ) -> c_int;
    pub(crate) fn rbd_aio_write_zeroes(
        image: Image,
        offset: u64,
        len: size_t,
        completion: Completion,
        zero_flags: c_int,
        op_flags: c_int,
    ) -> c_int;
    pub(crate) fn rbd_aio_flush(image: Image, completion: Completion) -> c_int;
}
