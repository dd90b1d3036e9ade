// SPDX-License-Identifier: Apache-2.0
//! Wakers across the ABI: the poller's waker is borrowed for a poll, and cloned only by a future that waits.

use std::{
    mem::ManuallyDrop,
    ptr,
    task::{RawWaker, RawWakerVTable, Waker},
};

use abi_stable::StableAbi;

/// A waker of the other side, borrowed from its owner for the length of a poll.
#[repr(C)]
#[derive(StableAbi)]
pub struct WakerRef {
    waker: *const (),
    clone: unsafe extern "C" fn(*const ()) -> OwnedWaker,
    wake: unsafe extern "C" fn(*const ()),
    reserved: usize,
}

/// A waker of the other side, kept by a future that waits.
#[repr(C)]
#[derive(StableAbi)]
pub struct OwnedWaker {
    waker: *const (),
    clone: unsafe extern "C" fn(*const ()) -> OwnedWaker,
    wake: unsafe extern "C" fn(*const ()),
    release: unsafe extern "C" fn(*const ()),
}

impl WakerRef {
    pub(crate) fn new(waker: &Waker) -> Self {
        Self {
            waker: ptr::from_ref(waker).cast(),
            clone: clone_waker,
            wake: wake_by_ref,
            reserved: 0,
        }
    }
}

unsafe extern "C" fn clone_waker(waker: *const ()) -> OwnedWaker {
    // SAFETY: waker points to a live Waker, borrowed or boxed, of this side.
    let waker = unsafe { &*waker.cast::<Waker>() };
    let cloned =
        crate::panic::or_else("clone of a waker", || waker.clone(), || Waker::noop().clone());
    OwnedWaker {
        waker: Box::into_raw(Box::new(cloned)).cast_const().cast(),
        clone: clone_waker,
        wake: wake_by_ref,
        release: release_waker,
    }
}

unsafe extern "C" fn wake_by_ref(waker: *const ()) {
    // SAFETY: as in clone_waker.
    let waker = unsafe { &*waker.cast::<Waker>() };
    crate::panic::contain("wake", || waker.wake_by_ref());
}

unsafe extern "C" fn release_waker(waker: *const ()) {
    // SAFETY: waker came from the Box in clone_waker and is released once.
    let waker = unsafe { Box::from_raw(waker.cast_mut().cast::<Waker>()) };
    crate::panic::contain("drop of a waker", || drop(waker));
}

/// Calls `poll` with a standard waker that borrows `foreign`.
pub(crate) fn with_waker<R>(foreign: &WakerRef, poll: impl FnOnce(&Waker) -> R) -> R {
    let raw = RawWaker::new(ptr::from_ref(foreign).cast(), &BORROWED);
    // SAFETY: BORROWED keeps the contract, and ManuallyDrop together with the borrow keeps `foreign` alive.
    let waker = ManuallyDrop::new(unsafe { Waker::from_raw(raw) });
    poll(&waker)
}

static BORROWED: RawWakerVTable =
    RawWakerVTable::new(borrowed_clone, borrowed_wake, borrowed_wake, |_| {});

unsafe fn borrowed_clone(data: *const ()) -> RawWaker {
    // SAFETY: data is the WakerRef of with_waker, alive during the poll.
    let foreign = unsafe { &*data.cast::<WakerRef>() };
    // SAFETY: the foreign side made both fields for each other.
    let owned = unsafe { (foreign.clone)(foreign.waker) };
    RawWaker::new(Box::into_raw(Box::new(owned)).cast_const().cast(), &OWNED)
}

unsafe fn borrowed_wake(data: *const ()) {
    // SAFETY: as in borrowed_clone.
    let foreign = unsafe { &*data.cast::<WakerRef>() };
    // SAFETY: the foreign side made both fields for each other.
    unsafe { (foreign.wake)(foreign.waker) };
}

static OWNED: RawWakerVTable =
    RawWakerVTable::new(owned_clone, owned_wake, owned_wake_by_ref, owned_drop);

unsafe fn owned_clone(data: *const ()) -> RawWaker {
    // SAFETY: data is the boxed OwnedWaker of borrowed_clone or of this function.
    let owned = unsafe { &*data.cast::<OwnedWaker>() };
    // SAFETY: the foreign side made both fields for each other.
    let cloned = unsafe { (owned.clone)(owned.waker) };
    RawWaker::new(Box::into_raw(Box::new(cloned)).cast_const().cast(), &OWNED)
}

unsafe fn owned_wake(data: *const ()) {
    // SAFETY: wake by value is wake, then drop.
    unsafe {
        owned_wake_by_ref(data);
        owned_drop(data);
    }
}

unsafe fn owned_wake_by_ref(data: *const ()) {
    // SAFETY: as in owned_clone.
    let owned = unsafe { &*data.cast::<OwnedWaker>() };
    // SAFETY: the foreign side made both fields for each other.
    unsafe { (owned.wake)(owned.waker) };
}

unsafe fn owned_drop(data: *const ()) {
    // SAFETY: data came from Box::into_raw and is dropped once.
    let owned = unsafe { Box::from_raw(data.cast_mut().cast::<OwnedWaker>()) };
    // SAFETY: the foreign side made both fields for each other.
    unsafe { (owned.release)(owned.waker) };
}
