// SPDX-License-Identifier: Apache-2.0
//! What a client of the cluster is told, which librados tells one after the other.
//!
//! When librbd has opened or renewed an image, the thread that heard the cluster's last word says so, and only then takes the
//! image's lock once more. Who closes the image in between takes the lock from under it: the process aborts, or that thread
//! waits for ever in memory that is somebody else's by now (librbd 16). So nobody closes an image before that thread is done
//! with what it was told.

use std::{ffi::c_void, ptr};

use driver_api::Result;

use crate::{cluster::check, ffi};

/// The answers to one client; it is connected for as long as anybody has this.
#[derive(Clone, Copy)]
pub(crate) struct Answers(ffi::rados_ioctx_t);

extern "C" fn told(_completion: ffi::rados_completion_t, _arg: *mut c_void) {}

impl Answers {
    /// Those to the client of an open ioctx.
    pub fn of(io: ffi::rados_ioctx_t) -> Self {
        Self(io)
    }

    /// Waits until everything that was answered so far has been told, and dealt with. The caller is a thread that may wait, none
    /// of librados' own.
    ///
    /// It asks for something itself and takes that back at once, so that it does not depend on the cluster: what matters is
    /// that librados tells of its end after everything else.
    pub fn settle(self) -> Result<()> {
        let mut completion = ptr::null_mut();
        // SAFETY: the pointer is valid for the call, the function takes what librados gives it.
        let made = unsafe {
            ffi::rados_aio_create_completion(ptr::null_mut(), Some(told), None, &mut completion)
        };
        check("cannot wait for answers", made)?;
        let (mut size, mut time) = (0, 0);
        // SAFETY: the ioctx is open; name and variables outlive the question, whose end is waited for if it was asked.
        // The completion is released once, after that.
        let asked = unsafe {
            let asked =
                ffi::rados_aio_stat(self.0, c"novastor".as_ptr(), completion, &mut size, &mut time);
            if asked >= 0 {
                // Whatever it returns: it may have been answered already.
                ffi::rados_aio_cancel(self.0, completion);
                ffi::rados_aio_wait_for_complete_and_cb(completion);
            }
            ffi::rados_aio_release(completion);
            asked
        };
        check("cannot wait for answers", asked).map(|_| ())
    }
}
