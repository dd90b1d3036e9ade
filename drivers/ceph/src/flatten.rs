// SPDX-License-Identifier: Apache-2.0
//! Flattening of attached volumes, on a thread that may wait for hours, and with the attachment's own image, which has the
//! exclusive lock. Clients go on meanwhile.
//!
//! ```text
//!   idle --> making missing objects --> detaching --> flat | failed | ended
//!                (copyup.rs)            |       ^
//!                                       v       |
//!                                        paused     while a snapshot is taken or the volume rolled back
//! ```
//! librbd's own flattening comes last, when it has nothing to copy any more, and takes the source away. It ends before its end
//! when its progress callback answers with an error.
//!
//! **No snapshot may be taken while librbd flattens**: it goes on with the snapshots that it knew when it began, and what it
//! copies then is not in the new snapshot, which reads zeros there (seen with 16.2.15).

use std::{
    ffi::{c_int, c_void},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use driver_api::{Error, ErrorKind, Result, ext::Flattening};

use crate::{
    attached::Attached,
    cluster::check,
    copyup,
    error::{failed, internal},
    ffi,
    image::{Image, text},
};

/// What an attachment knows of its flattening.
#[derive(Default)]
pub(crate) struct Flatten {
    state: Mutex<State>,
    changed: Condvar,
    /// It is to end at the next object.
    ends: AtomicBool,
    /// How many want it to stand still.
    pauses: AtomicUsize,
    done: AtomicU64,
    total: AtomicU64,
}

#[derive(Default)]
struct State {
    running: bool,
    /// librbd is at it.
    copying: bool,
    reason: String,
}

impl Flatten {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has it end where it is.
    pub fn end(&self) {
        let _state = self.lock();
        self.ends.store(true, Ordering::SeqCst);
        self.changed.notify_all();
    }

    /// Waits until librbd copies nothing, and keeps it so until the pause is dropped.
    pub fn pause(&self) -> Pause<'_> {
        let state = self.lock();
        self.pauses.fetch_add(1, Ordering::SeqCst);
        let waited = self.changed.wait_while(state, |state| state.copying);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        Pause(self)
    }

    /// Waits while somebody wants it to stand still; false if it is to end instead.
    fn begin_copying(&self) -> bool {
        let stands = |_: &mut State| self.pauses.load(Ordering::SeqCst) > 0 && !self.is_ending();
        let waited = self.changed.wait_while(self.lock(), stands);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.copying = !self.is_ending();
        state.copying
    }

    fn is_ending(&self) -> bool {
        self.ends.load(Ordering::SeqCst)
    }
}

/// While there is one, librbd copies nothing.
pub(crate) struct Pause<'a>(&'a Flatten);

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        let _state = self.0.lock();
        self.0.pauses.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_all();
    }
}

/// Begins to flatten an attached volume, unless it needs no other.
pub(crate) fn begin(attached: &Arc<Attached>) -> Result<()> {
    let overlap = attached.with(|image| match image.parent()? {
        None => Ok(None),
        Some(_) => image.overlap().map(Some),
    })?;
    let flatten = &attached.flatten;
    let mut state = flatten.lock();
    flatten.ends.store(false, Ordering::SeqCst);
    if state.running {
        return Ok(());
    }
    state.reason.clear();
    flatten.done.store(0, Ordering::Relaxed);
    flatten.total.store(overlap.unwrap_or(0), Ordering::Relaxed);
    if overlap.is_none() {
        return Ok(());
    }
    let flattened = Arc::clone(attached);
    let started =
        std::thread::Builder::new().name("nova-ceph-flat".into()).spawn(move || run(&flattened));
    started.map_err(|error| {
        Error::from_io("there is no thread to flatten the volume with", &error)
            .remedy("raise the limit on threads")
    })?;
    state.running = true;
    Ok(())
}

/// How far it is.
pub(crate) fn told(attached: &Attached) -> Result<Flattening> {
    let flatten = &attached.flatten;
    let (running, reason) = {
        let state = flatten.lock();
        (state.running, state.reason.clone())
    };
    // Asked after the state: what has ended by then has changed what the image needs.
    let needs = attached.with(Image::parent)?.unwrap_or_default();
    Ok(Flattening {
        running,
        done: flatten.done.load(Ordering::Relaxed),
        total: flatten.total.load(Ordering::Relaxed),
        needs: needs.into(),
        reason: reason.into(),
        reserved: [0; 4],
    })
}

fn run(attached: &Arc<Attached>) {
    loop {
        let (flatten, renewals) = (&attached.flatten, attached.renewals());
        let done = match attached.with(|image| make_missing(image, attached)) {
            Ok(true) if flatten.begin_copying() => attached.with(|image| image.flatten(attached)),
            Ok(_) => Ok(false),
            Err(error) => Err(error),
        };
        let mut state = flatten.lock();
        state.copying = false;
        flatten.changed.notify_all();
        let goes_on = !flatten.is_ending() && !attached.is_closed() && !is_forgotten(attached);
        state.reason = match done {
            // It is to stand still, or somebody asked for it again while it was ending.
            Ok(false) if goes_on => continue,
            // It met the end of the client that it was begun with, or waits for the next one.
            Err(_) if goes_on && (attached.is_renewing() || attached.renewals() > renewals) => {
                continue;
            }
            Ok(false) => "it was ended before its end".to_owned(),
            Ok(true) => String::new(),
            Err(error) => {
                tracing::warn!(volume = attached.name, %error, "flattening ended before its end");
                format!("{error:#}")
            }
        };
        state.running = false;
        return;
    }
}

/// Copies what the image shares; false if it was ended before its end.
fn make_missing(image: &Image, attached: &Arc<Attached>) -> Result<bool> {
    let flatten = &attached.flatten;
    let ends = || flatten.is_ending() || is_forgotten(attached);
    // It begins anew after a pause, and soon is where it was.
    let reached = |at| {
        flatten.done.fetch_max(at, Ordering::Relaxed);
    };
    copyup::make_missing(image, image.overlap()?, ends, reached)
}

/// Nobody but its flattening has the volume any more: it was dropped without a detach.
fn is_forgotten(attached: &Arc<Attached>) -> bool {
    Arc::strong_count(attached) == 1
}

/// Whether librbd goes on.
extern "C" fn progress(_at: u64, _of: u64, data: *mut c_void) -> c_int {
    // SAFETY: data is the reference of the call that this is called from, which lives longer.
    let attached = unsafe { &*data.cast::<Arc<Attached>>() };
    let flatten = &attached.flatten;
    let is_paused = flatten.pauses.load(Ordering::SeqCst) > 0;
    let stops = is_paused || flatten.is_ending() || is_forgotten(attached);
    if stops { -libc::ECANCELED } else { 0 }
}

impl Image {
    /// The image that this one was cloned from and still needs, with the snapshot if that has a name of its own.
    pub fn parent(&self) -> Result<Option<String>> {
        // SAFETY: all fields are numbers, pointers or false, for which zeros are values.
        let (mut image, mut snapshot): (ffi::LinkedImage, ffi::SnapshotSpec) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        // SAFETY: the image is open, the pointers are valid for the call.
        let asked = unsafe { ffi::rbd_get_parent(self.0, &mut image, &mut snapshot) };
        if asked == -libc::ENOENT {
            return Ok(None);
        }
        check("cannot ask what the image was cloned from", asked)?;
        // SAFETY: the call filled both with texts, which are freed once, after they were copied.
        let (name, at) = unsafe {
            let texts = (text(image.image_name), text(snapshot.name));
            ffi::rbd_linked_image_spec_cleanup(&mut image);
            ffi::rbd_snap_spec_cleanup(&mut snapshot);
            texts
        };
        let named = snapshot.kind == ffi::SNAPSHOT_OF_USER && !at.starts_with('.');
        Ok(Some(if named { format!("{name}@{at}") } else { name }))
    }

    /// Bytes from the start that it may share with the image it was cloned from.
    pub fn overlap(&self) -> Result<u64> {
        let mut overlap = 0;
        // SAFETY: the image is open, the pointer is valid for the call.
        let asked = unsafe { ffi::rbd_get_overlap(self.0, &mut overlap) };
        check("cannot ask what the image shares", asked)?;
        Ok(overlap)
    }

    /// Copies what it shares; false if it was ended before its end.
    fn flatten(&self, attached: &Arc<Attached>) -> Result<bool> {
        let data = std::ptr::from_ref(attached).cast_mut().cast();
        // SAFETY: the image is open; the reference outlives the call, and is only read.
        let flattened = unsafe { ffi::rbd_flatten_with_progress(self.0, progress, data) };
        match flattened {
            code if code == -libc::ECANCELED => Ok(false),
            // It was flattened by others meanwhile.
            code if code == -libc::EINVAL && self.parent()?.is_none() => Ok(true),
            code if code < 0 => Err(failed("the image cannot be flattened", code.into())),
            _ => {
                let total = attached.flatten.total.load(Ordering::Relaxed);
                attached.flatten.done.store(total, Ordering::Relaxed);
                match self.parent()? {
                    None => Ok(true),
                    Some(parent) => {
                        Err(internal("librbd has flattened the image, which still needs another")
                            .with("parent", parent))
                    }
                }
            }
        }
    }
}

/// Refuses what needs an attachment.
pub(crate) fn not_attached(volume: &str) -> Error {
    Error::new(
        ErrorKind::INVALID_ARGUMENT,
        "the volume is not attached for writing by this backend",
    )
    .with("volume", volume)
    .remedy("attach it first")
}
