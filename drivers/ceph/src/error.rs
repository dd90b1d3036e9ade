// SPDX-License-Identifier: Apache-2.0
//! The only place that knows librbd's and librados' errors: turns them into [`driver_api::Error`].

use std::io;

use driver_api::{Error, ErrorKind, Retry};

/// A request that can never succeed.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, message)
}

/// The kind of a failed call, from what it returned.
#[cfg(librbd)]
pub(crate) fn kind_of(code: i64) -> ErrorKind {
    match i32::try_from(-code).unwrap_or(libc::EIO) {
        libc::ENOENT => ErrorKind::NOT_FOUND,
        libc::EEXIST => ErrorKind::ALREADY_EXISTS,
        libc::EBUSY | libc::ENOTEMPTY => ErrorKind::IN_USE,
        libc::EINVAL | libc::EDOM | libc::ENAMETOOLONG => ErrorKind::INVALID_ARGUMENT,
        libc::ENOSPC | libc::EDQUOT => ErrorKind::NO_SPACE,
        libc::EACCES => ErrorKind::UNAUTHENTICATED,
        libc::EPERM => ErrorKind::PERMISSION_DENIED,
        libc::ETIMEDOUT => ErrorKind::TIMED_OUT,
        libc::ENOTCONN | libc::ECONNREFUSED | libc::ECONNRESET | libc::EHOSTUNREACH => {
            ErrorKind::UNAVAILABLE
        }
        // librados: this client is on the blocklist. librbd: the exclusive lock is elsewhere.
        libc::ESHUTDOWN | libc::EROFS => ErrorKind::FENCED,
        libc::EOPNOTSUPP | libc::ENOSYS => ErrorKind::UNSUPPORTED,
        libc::EILSEQ => ErrorKind::CORRUPTED,
        _ => ErrorKind::INTERNAL,
    }
}

/// A failed call of librbd or librados: what was to be done, and what it returned.
#[cfg(librbd)]
pub(crate) fn failed(what: &str, code: i64) -> Error {
    let cause = io::Error::from_raw_os_error(i32::try_from(-code).unwrap_or(libc::EIO));
    let kind = kind_of(code);
    let remedy = match kind {
        ErrorKind::NO_SPACE => {
            "free space: delete volumes or snapshots, raise the pool's quota, or add OSDs (ceph df)"
        }
        ErrorKind::TIMED_OUT => {
            "look whether OSDs are down or placement groups inactive (ceph -s); \
             the call may still have its effect"
        }
        ErrorKind::UNAUTHENTICATED => "check the user's name and key (ceph auth get)",
        ErrorKind::PERMISSION_DENIED => {
            "give the user `mon 'profile rbd' osd 'profile rbd pool=POOL'` (ceph auth caps)"
        }
        ErrorKind::UNAVAILABLE => "look how the cluster is (ceph -s)",
        ErrorKind::IN_USE => "look who has the image open (rbd status)",
        ErrorKind::FENCED => {
            "this client was put on the blocklist, or lost the exclusive lock: attach the volume again"
        }
        _ => "look at the cluster's log (ceph log last) and the host's",
    };
    let error = Error::new(kind, format!("{what}: {cause}")).remedy(remedy);
    if kind == ErrorKind::TIMED_OUT { error.with_retry(Retry::TEMPORARY) } else { error }
}

/// The attachment was taken over: nothing of it may land any more.
#[cfg(librbd)]
pub(crate) fn fenced(volume: &str) -> Error {
    Error::new(ErrorKind::FENCED, "another attachment took this volume over")
        .with("volume", volume)
        .remedy("attach the volume again")
}

/// A write failed or its outcome is unknown, and it may still land.
#[cfg(librbd)]
pub(crate) fn in_doubt(volume: &str) -> Error {
    Error::new(
        ErrorKind::CORRUPTED,
        "an earlier write failed or timed out, and may or may not land: no flush can be vouched for yet",
    )
    .with("volume", volume)
    .remedy(
        "see that the cluster is well (ceph -s): the driver then fences the client that wrote, and the volume works again",
    )
}

/// The volume was detached while a write's outcome is unknown.
#[cfg(librbd)]
pub(crate) fn left_in_doubt(volume: &str) -> Error {
    Error::new(
        ErrorKind::CORRUPTED,
        "the volume is detached, and a write before failed or timed out: it may still land until the volume is attached again",
    )
    .with("volume", volume)
    .remedy("see that the cluster is well (ceph -s), and attach the volume again: that fences the client that wrote")
}

/// A write failed or its outcome is unknown, and it does not land any more.
#[cfg(librbd)]
pub(crate) fn settled(volume: &str) -> Error {
    Error::new(
        ErrorKind::CORRUPTED,
        "a write since the last flush failed or timed out, and has landed or never will; the volume works again",
    )
    .with("volume", volume)
    .remedy(
        "read again what was written since the last flush that succeeded, and write what is not there; flushes vouch again",
    )
}

/// What an operation ends with that waited for a new client until its deadline.
#[cfg(librbd)]
pub(crate) fn no_client_yet(volume: &str, tried: bool) -> Error {
    let outcome = match tried {
        true => "it was begun with the old one, and may or may not have had its effect",
        false => "it was not begun",
    };
    Error::new(
        ErrorKind::TIMED_OUT,
        format!("the volume's client is being replaced, after a write whose outcome is not known: {outcome}"),
    )
    .with("volume", volume)
    .with_retry(Retry::TEMPORARY)
    .remedy("see that the cluster is well (ceph -s): the volume then works again by itself")
}

/// What was under way when the client was replaced.
#[cfg(librbd)]
pub(crate) fn interrupted(volume: &str) -> Error {
    Error::new(
        ErrorKind::TIMED_OUT,
        "the volume's client was replaced meanwhile, after a write whose outcome is not known: what was asked may or may not have been done",
    )
    .with("volume", volume)
    .with_retry(Retry::TEMPORARY)
    .remedy("look whether it was done, and repeat it if not")
}

/// The volume was detached.
#[cfg(librbd)]
pub(crate) fn detached(volume: &str) -> Error {
    Error::new(ErrorKind::UNAVAILABLE, "the volume is detached")
        .with_retry(Retry::PERMANENT)
        .with("volume", volume)
        .remedy("attach it again")
}

/// A volume or snapshot that does not exist.
#[cfg(librbd)]
pub(crate) fn not_found(what: &str, name: &str) -> Error {
    Error::new(ErrorKind::NOT_FOUND, format!("there is no {what} of this name")).with(what, name)
}

/// A defect of this driver.
#[cfg(librbd)]
pub(crate) fn internal(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::INTERNAL, message).remedy("report it with the host's log")
}

/// This library was built where librbd was not.
#[cfg(not(librbd))]
pub(crate) fn built_without() -> Error {
    Error::new(
        ErrorKind::UNSUPPORTED,
        "this ceph driver was built without librbd and librados, and cannot reach a cluster",
    )
    .with_retry(Retry::PERMANENT)
    .caused_by(&io::Error::other("librbd or librados could not be linked when it was built"))
    .remedy(
        "install librbd-dev and librados-dev (Debian: apt-get install librbd-dev librados-dev), \
         then build the driver again",
    )
}

#[cfg(all(test, librbd))]
mod tests {
    use super::*;

    #[test]
    fn what_the_cluster_says_gets_its_kind() {
        for (errno, kind) in [
            (libc::ESHUTDOWN, ErrorKind::FENCED),
            (libc::EROFS, ErrorKind::FENCED),
            (libc::EDQUOT, ErrorKind::NO_SPACE),
            (libc::ENOSPC, ErrorKind::NO_SPACE),
            (libc::ETIMEDOUT, ErrorKind::TIMED_OUT),
            (libc::ENOENT, ErrorKind::NOT_FOUND),
            (libc::EEXIST, ErrorKind::ALREADY_EXISTS),
            (libc::EBUSY, ErrorKind::IN_USE),
            (libc::EINVAL, ErrorKind::INVALID_ARGUMENT),
            (libc::EACCES, ErrorKind::UNAUTHENTICATED),
            (libc::EPERM, ErrorKind::PERMISSION_DENIED),
            (libc::ENOTCONN, ErrorKind::UNAVAILABLE),
            (libc::EOPNOTSUPP, ErrorKind::UNSUPPORTED),
            (libc::EILSEQ, ErrorKind::CORRUPTED),
            (libc::EIO, ErrorKind::INTERNAL),
        ] {
            let error = failed("the write failed", -i64::from(errno));
            assert_eq!(error.kind(), kind, "{errno}");
            assert!(!error.remedy_text().is_empty());
        }
    }
}
