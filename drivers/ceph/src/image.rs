// SPDX-License-Identifier: Apache-2.0
//! An open RBD image: librbd's blocking calls, for threads that may wait.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    ptr,
};

use driver_api::Result;

use crate::{
    answers::Answers,
    cluster::{Connection, c_text, check},
    error::{failed, kind_of},
    ffi,
    protection::protected,
};

/// Hears of progress, and never ends the work. librbd calls it without asking whether there is one.
pub(crate) extern "C" fn no_progress(_offset: u64, _total: u64, _data: *mut c_void) -> c_int {
    0
}

/// An open image. It must be closed before its connection ends; whoever has it sees to both.
#[derive(Clone, Copy)]
pub(crate) struct Image(pub ffi::Image);

/// A snapshot that a user made.
pub(crate) struct Snapshot {
    pub id: u64,
    pub size: u64,
    pub name: String,
}

/// A run of bytes with data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub start: u64,
    pub end: u64,
}

/// Asks with a larger buffer until the answer fits: `ask` gives the code and what it wants room for.
pub(crate) fn grown<T>(
    what: &str,
    mut ask: impl FnMut(usize) -> (c_int, usize, T),
) -> Result<(c_int, T)> {
    let mut room = 64;
    loop {
        let (code, wanted, answer) = ask(room);
        if code == -libc::ERANGE {
            room = wanted.max(room * 2);
            continue;
        }
        return Ok((check(what, code)?, answer));
    }
}

/// A text that a call of librbd gave.
///
/// # Safety
/// It is null, or ends with a zero and stays for the call.
pub(crate) unsafe fn text(from: *const c_char) -> String {
    if from.is_null() {
        return String::new();
    }
    // SAFETY: the caller promises it.
    unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned()
}

/// The identities and names of all images of the pool and namespace.
pub(crate) fn entries(connection: &Connection) -> Result<Vec<(String, String)>> {
    let mut names = Vec::new();
    grown("cannot list the images", |room| {
        let mut specs = Vec::with_capacity(room);
        specs.resize_with(room, || ffi::ImageSpec { id: ptr::null_mut(), name: ptr::null_mut() });
        let mut count = room;
        // SAFETY: the ioctx is open, the list has room for count entries.
        let code = unsafe { ffi::rbd_list2(connection.io(), specs.as_mut_ptr(), &mut count) };
        if code >= 0 {
            // SAFETY: the call filled count entries with texts, which are freed once, after they were copied.
            unsafe {
                let entry = |spec: &ffi::ImageSpec| (text(spec.id), text(spec.name));
                names = specs[..count].iter().map(entry).collect();
                ffi::rbd_image_spec_list_cleanup(specs.as_mut_ptr(), count);
            }
        }
        (code, count, ())
    })?;
    Ok(names)
}

/// Opens an image for one piece of work, and closes it.
pub(crate) fn with<T>(
    connection: &Connection,
    name: &str,
    writable: bool,
    work: impl FnOnce(&Image) -> Result<T>,
) -> Result<T> {
    let image = Image::open(connection, name, writable)?;
    let done = work(&image);
    let closed = image.close(connection.answers());
    done.and_then(|done| closed.map(|()| done))
}

impl Image {
    /// Opens an image; `NotFound` if there is none of this name.
    pub fn open(connection: &Connection, name: &str, writable: bool) -> Result<Self> {
        let text = c_text(name)?;
        let mut image = ptr::null_mut();
        let open = if writable { ffi::rbd_open } else { ffi::rbd_open_read_only };
        // SAFETY: the ioctx is open, the pointers are valid for the call.
        let opened = unsafe { open(connection.io(), text.as_ptr(), &mut image, ptr::null()) };
        if opened < 0 && kind_of(opened.into()) == driver_api::ErrorKind::NOT_FOUND {
            return Err(crate::error::not_found("volume", name));
        }
        check("cannot open the image", opened).map_err(|error| error.with("volume", name))?;
        Ok(Self(image))
    }

    /// Opens the image of this identity for writing.
    pub fn open_id(connection: &Connection, id: &str) -> Result<Self> {
        let (id, mut image) = (c_text(id)?, ptr::null_mut());
        // SAFETY: the ioctx is open, the pointers are valid for the call.
        let opened =
            unsafe { ffi::rbd_open_by_id(connection.io(), id.as_ptr(), &mut image, ptr::null()) };
        check("cannot open the image", opened)?;
        Ok(Self(image))
    }

    /// Opens the image of this identity as it was in a snapshot.
    pub fn open_snapshot(connection: &Connection, id: &str, snapshot: &str) -> Result<Self> {
        let (id, name) = (c_text(id)?, c_text(snapshot)?);
        let mut image = ptr::null_mut();
        // SAFETY: the ioctx is open, the pointers are valid for the call.
        let opened = unsafe {
            ffi::rbd_open_by_id_read_only(connection.io(), id.as_ptr(), &mut image, name.as_ptr())
        };
        check("cannot open the snapshot", opened)
            .map_err(|error| error.with("snapshot", snapshot))?;
        Ok(Self(image))
    }

    /// Closes it, with the answers to its client. Nobody uses it any more, and the caller is none of librbd's threads.
    pub fn close(self, answers: Answers) -> Result<()> {
        if let Err(error) = answers.settle() {
            tracing::warn!(%error, "an image is closed while librbd may be busy with it");
        }
        // SAFETY: the image is open, and the caller gives it up.
        check("cannot close the image", unsafe { ffi::rbd_close(self.0) }).map(|_| ())
    }

    fn number(
        &self,
        what: &str,
        ask: unsafe extern "C" fn(ffi::Image, *mut u64) -> c_int,
    ) -> Result<u64> {
        let mut number = 0;
        // SAFETY: the image is open, the pointer is valid for the call.
        check(what, unsafe { ask(self.0, &mut number) })?;
        Ok(number)
    }

    pub fn size(&self) -> Result<u64> {
        self.number("cannot ask for the image's size", ffi::rbd_get_size)
    }

    pub fn features(&self) -> Result<u64> {
        self.number("cannot ask for the image's features", ffi::rbd_get_features)
    }

    /// Unit and count of its stripes.
    pub fn stripes(&self) -> Result<(u64, u64)> {
        let unit = self.number("cannot ask for the image's stripes", ffi::rbd_get_stripe_unit)?;
        let count = self.number("cannot ask for the image's stripes", ffi::rbd_get_stripe_count)?;
        Ok((unit, count))
    }

    /// The pool of its data.
    pub fn data_pool(&self) -> i64 {
        // SAFETY: the image is open.
        unsafe { ffi::rbd_get_data_pool_id(self.0) }
    }

    pub fn object_size(&self) -> Result<u64> {
        // SAFETY: all fields are numbers or texts, for which zeros are values.
        let mut info: ffi::ImageInfo = unsafe { std::mem::zeroed() };
        // SAFETY: the image is open, the pointer is valid for the call, with its size.
        let asked = unsafe { ffi::rbd_stat(self.0, &mut info, size_of::<ffi::ImageInfo>()) };
        check("cannot ask for the image's objects", asked)?;
        Ok(info.object_size)
    }

    /// The identity that no other image of the pool has.
    pub fn id(&self) -> Result<String> {
        let mut id = [0 as c_char; 128];
        // SAFETY: the image is open, the buffer has its length.
        let asked = unsafe { ffi::rbd_get_id(self.0, id.as_mut_ptr(), id.len()) };
        check("cannot ask for the image's identity", asked)?;
        // SAFETY: the call succeeded, and ended the text with a zero.
        Ok(unsafe { text(id.as_ptr()) })
    }

    /// The addresses of the clients that have it open for writing.
    pub fn watchers(&self) -> Result<Vec<String>> {
        let mut addresses = Vec::new();
        grown("cannot ask who has the image open", |room| {
            let mut watchers = Vec::with_capacity(room);
            let empty = || ffi::Watcher { addr: ptr::null_mut(), id: 0, cookie: 0 };
            watchers.resize_with(room, empty);
            let mut count = room;
            // SAFETY: the image is open, the list has room for count entries.
            let code = unsafe { ffi::rbd_watchers_list(self.0, watchers.as_mut_ptr(), &mut count) };
            if code >= 0 {
                // SAFETY: the call filled count entries with texts, which are freed once, after they were copied.
                unsafe {
                    addresses = watchers[..count].iter().map(|one| text(one.addr)).collect();
                    ffi::rbd_watchers_list_cleanup(watchers.as_mut_ptr(), count);
                }
            }
            (code, count, ())
        })?;
        Ok(addresses)
    }

    /// The names of the images that were cloned from it.
    pub fn children(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        grown("cannot ask for the image's clones", |room| {
            let mut children: Vec<ffi::LinkedImage> = Vec::with_capacity(room);
            // SAFETY: all fields are numbers, pointers or false, for which zeros are values.
            children.resize_with(room, || unsafe { std::mem::zeroed() });
            let mut count = room;
            // SAFETY: the image is open, the list has room for count entries.
            let code =
                unsafe { ffi::rbd_list_children3(self.0, children.as_mut_ptr(), &mut count) };
            if code >= 0 {
                // SAFETY: the call filled count entries with texts, which are freed once, after they were copied.
                unsafe {
                    names = children[..count].iter().map(|one| text(one.image_name)).collect();
                    ffi::rbd_linked_image_spec_list_cleanup(children.as_mut_ptr(), count);
                }
            }
            (code, count, ())
        })?;
        Ok(names)
    }

    pub fn metadata(&self, key: &str) -> Result<Option<String>> {
        let key = c_text(key)?;
        let mut value = vec![0_u8; 4096];
        loop {
            let mut len = value.len();
            // SAFETY: the image is open, the buffer has its length.
            let asked = unsafe {
                ffi::rbd_metadata_get(self.0, key.as_ptr(), value.as_mut_ptr().cast(), &mut len)
            };
            match asked {
                code if code == -libc::ENOENT => return Ok(None),
                code if code == -libc::ERANGE && len > value.len() => value.resize(len, 0),
                code => {
                    check("cannot read the image's metadata", code)?;
                    let bytes = CStr::from_bytes_until_nul(&value);
                    return Ok(bytes.ok().map(|text| text.to_string_lossy().into_owned()));
                }
            }
        }
    }

    pub fn set_metadata(&self, key: &str, value: &str) -> Result<()> {
        let (key, value) = (c_text(key)?, c_text(value)?);
        // SAFETY: the image is open, the texts are valid for the call.
        let set = unsafe { ffi::rbd_metadata_set(self.0, key.as_ptr(), value.as_ptr()) };
        check("cannot write the image's metadata", set).map(|_| ())
    }

    pub fn resize(&self, size: u64, shrink: bool) -> Result<()> {
        // SAFETY: the image is open.
        let resized =
            unsafe { ffi::rbd_resize2(self.0, size, shrink, no_progress, ptr::null_mut()) };
        check("the image cannot be resized", resized).map(|_| ())
    }

    /// The clients that have librbd's exclusive lock: one at most.
    pub fn lock_owners(&self) -> Result<Vec<String>> {
        let (mut mode, mut owners, mut count) = (0, [ptr::null_mut(); 8], 8);
        // SAFETY: the image is open, the list has room for count entries.
        let asked =
            unsafe { ffi::rbd_lock_get_owners(self.0, &mut mode, owners.as_mut_ptr(), &mut count) };
        if asked == -libc::ENOENT {
            return Ok(Vec::new());
        }
        check("cannot ask for the exclusive lock", asked)?;
        // SAFETY: the call filled count entries with texts, which are freed once, after they were copied.
        unsafe {
            let names = owners[..count].iter().map(|one| text(*one)).collect();
            ffi::rbd_lock_get_owners_cleanup(owners.as_mut_ptr(), count);
            Ok(names)
        }
    }

    /// Takes librbd's exclusive lock, which is kept until it is broken or the image closed.
    pub fn lock(&self) -> Result<()> {
        // SAFETY: the image is open.
        let locked = unsafe { ffi::rbd_lock_acquire(self.0, ffi::LOCK_EXCLUSIVE) };
        check("cannot take the exclusive lock", locked).map(|_| ())
    }

    /// Takes the lock from its owner, who is put on the blocklist first.
    pub fn break_lock(&self, owner: &str) -> Result<()> {
        let owner = c_text(owner)?;
        // SAFETY: the image is open, the text is valid for the call.
        let broken = unsafe { ffi::rbd_lock_break(self.0, ffi::LOCK_EXCLUSIVE, owner.as_ptr()) };
        if broken == -libc::ENOENT {
            return Ok(());
        }
        check("cannot break the exclusive lock", broken).map(|_| ())
    }

    /// The snapshots that users made, oldest first; not those that clones keep.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let mut found = Vec::new();
        grown("cannot list the snapshots", |room| {
            let mut infos = Vec::with_capacity(room);
            infos.resize_with(room, || ffi::SnapshotInfo { id: 0, size: 0, name: ptr::null() });
            let mut count = c_int::try_from(room).unwrap_or(c_int::MAX);
            // SAFETY: the image is open, the list has room for count entries.
            let code = unsafe { ffi::rbd_snap_list(self.0, infos.as_mut_ptr(), &mut count) };
            if code >= 0 {
                // SAFETY: the call filled code entries with texts, which are freed once, after they were copied.
                unsafe {
                    found = infos[..code as usize]
                        .iter()
                        .map(|one| Snapshot { id: one.id, size: one.size, name: text(one.name) })
                        .collect();
                    ffi::rbd_snap_list_end(infos.as_mut_ptr());
                }
            }
            (code, count.unsigned_abs() as usize, ())
        })?;
        let mut of_users = Vec::new();
        for snapshot in found {
            let mut kind = 0;
            // SAFETY: the image is open, the pointer is valid for the call.
            let asked = unsafe { ffi::rbd_snap_get_namespace_type(self.0, snapshot.id, &mut kind) };
            // It may have been removed since it was listed.
            if asked != -libc::ENOENT {
                check("cannot ask for a snapshot", asked)?;
                if kind == ffi::SNAPSHOT_OF_USER {
                    of_users.push(snapshot);
                }
            }
        }
        of_users.sort_by_key(|snapshot| snapshot.id);
        Ok(of_users)
    }

    /// When a snapshot was taken, in seconds since 1970.
    pub fn snapshot_time(&self, id: u64) -> Result<u64> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the image is open, the pointer is valid for the call.
        let asked = unsafe { ffi::rbd_snap_get_timestamp(self.0, id, &mut time) };
        check("cannot ask for a snapshot's time", asked)?;
        Ok(u64::try_from(time.tv_sec).unwrap_or(0))
    }

    pub fn create_snapshot(&self, name: &str) -> Result<()> {
        let name = c_text(name)?;
        // SAFETY: the image is open, the text is valid for the call.
        let made = unsafe { ffi::rbd_snap_create(self.0, name.as_ptr()) };
        check("the snapshot cannot be taken", made).map(|_| ())
    }

    /// Removes a snapshot that is not protected; clones keep what they need of it.
    pub fn remove_snapshot(&self, name: &str) -> Result<()> {
        let text = c_text(name)?;
        if self.is_protected(name)? {
            return Err(protected(name));
        }
        // SAFETY: the image is open, the text is valid for the call.
        let removed = unsafe { ffi::rbd_snap_remove(self.0, text.as_ptr()) };
        check("the snapshot cannot be removed", removed).map(|_| ())
    }

    pub fn roll_back(&self, name: &str) -> Result<()> {
        let name = c_text(name)?;
        // SAFETY: the image is open, the text is valid for the call.
        let done = unsafe {
            ffi::rbd_snap_rollback_with_progress(
                self.0,
                name.as_ptr(),
                no_progress,
                ptr::null_mut(),
            )
        };
        check("the image cannot be rolled back", done).map(|_| ())
    }

    /// Where it has data in a range; with `objects` whole objects, which fast-diff tells without asking for each.
    pub fn data(&self, offset: u64, len: u64, objects: bool) -> Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        // SAFETY: the image is open; the list outlives the call, which alone uses it.
        let asked = unsafe {
            ffi::rbd_diff_iterate2(
                self.0,
                ptr::null(),
                offset,
                len,
                1,
                objects.into(),
                add_run,
                ptr::from_mut(&mut runs).cast(),
            )
        };
        check("cannot ask where the image has data", asked)?;
        runs.sort_by_key(|run| run.start);
        Ok(runs)
    }

    /// Bytes that it occupies, in whole objects; none if the cluster cannot tell quickly.
    pub fn used(&self) -> Result<Option<u64>> {
        let flags = self.number("cannot ask for the image's flags", ffi::rbd_get_flags)?;
        let fast = self.features()? & ffi::FEATURE_FAST_DIFF != 0
            && flags & ffi::FLAG_FAST_DIFF_INVALID == 0;
        if !fast {
            return Ok(None);
        }
        let runs = self.data(0, self.size()?, true)?;
        Ok(Some(runs.iter().map(|run| run.end - run.start).sum()))
    }
}

extern "C" fn add_run(offset: u64, len: usize, exists: c_int, arg: *mut c_void) -> c_int {
    if exists != 0 && len > 0 {
        // SAFETY: arg is the list of the call that this is called from.
        let runs = unsafe { &mut *arg.cast::<Vec<Run>>() };
        let end = offset + len as u64;
        match runs.last_mut() {
            Some(last) if last.end == offset => last.end = end,
            _ => runs.push(Run { start: offset, end }),
        }
    }
    0
}

/// Options for a new image.
pub(crate) struct Options(ffi::ImageOptions);

impl Options {
    pub fn new() -> Self {
        let mut options = ptr::null_mut();
        // SAFETY: the pointer is valid for the call.
        unsafe { ffi::rbd_image_options_create(&mut options) };
        Self(options)
    }

    pub fn number(self, option: c_int, value: u64) -> Result<Self> {
        // SAFETY: the options exist.
        let set = unsafe { ffi::rbd_image_options_set_uint64(self.0, option, value) };
        check("cannot set an option of the image", set)?;
        Ok(self)
    }

    pub fn text(self, option: c_int, value: &str) -> Result<Self> {
        let value = c_text(value)?;
        // SAFETY: the options exist, the text is valid for the call.
        let set = unsafe { ffi::rbd_image_options_set_string(self.0, option, value.as_ptr()) };
        check("cannot set an option of the image", set)?;
        Ok(self)
    }

    /// Makes an image; whether there was none of this name.
    pub fn create(&self, connection: &Connection, name: &str, size: u64) -> Result<bool> {
        let name = c_text(name)?;
        // SAFETY: the ioctx is open, the options exist, the text is valid for the call.
        let made = unsafe { ffi::rbd_create4(connection.io(), name.as_ptr(), size, self.0) };
        made_new("the image cannot be made", made)
    }

    /// Makes a clone of a snapshot; whether there was no image of its name.
    pub fn clone_of(
        &self,
        connection: &Connection,
        (parent, snapshot): (&str, &str),
        name: &str,
    ) -> Result<bool> {
        let (parent, snapshot, name) = (c_text(parent)?, c_text(snapshot)?, c_text(name)?);
        // SAFETY: the ioctx is open, the options exist, the texts are valid for the call.
        let made = unsafe {
            ffi::rbd_clone3(
                connection.io(),
                parent.as_ptr(),
                snapshot.as_ptr(),
                connection.io(),
                name.as_ptr(),
                self.0,
            )
        };
        made_new("the clone cannot be made", made)
    }
}

fn made_new(what: &str, code: c_int) -> Result<bool> {
    match code {
        code if code == -libc::EEXIST => Ok(false),
        code if code < 0 => Err(failed(what, code.into())),
        _ => Ok(true),
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: the options exist, and are used no more.
        unsafe { ffi::rbd_image_options_destroy(self.0) };
    }
}

/// Gives an image another name; whether that was free.
pub(crate) fn rename(connection: &Connection, from: &str, to: &str) -> Result<bool> {
    let (from, to) = (c_text(from)?, c_text(to)?);
    // SAFETY: the ioctx is open, the texts are valid for the call.
    let renamed = unsafe { ffi::rbd_rename(connection.io(), from.as_ptr(), to.as_ptr()) };
    made_new("the image cannot be renamed", renamed)
}

/// Removes an image without snapshots that nobody has open.
pub(crate) fn remove(connection: &Connection, name: &str) -> Result<()> {
    let text = c_text(name)?;
    // SAFETY: the ioctx is open, the text is valid for the call.
    let removed = unsafe {
        ffi::rbd_remove_with_progress(connection.io(), text.as_ptr(), no_progress, ptr::null_mut())
    };
    check("the image cannot be removed", removed).map(|_| ())
}
