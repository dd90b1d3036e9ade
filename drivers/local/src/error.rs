// SPDX-License-Identifier: Apache-2.0
//! The only place that knows the operating system's errors: turns them into [`driver_api::Error`].

use std::{any::Any, io, path::Path};

use driver_api::{Error, ErrorKind, Retry};
use rustix::io::Errno;

const AGAIN: &str = "detach the volume and attach it again; report the failure with the host's log";

/// A failed call on a file or directory: what was to be done, on which path, and why it failed.
pub(crate) fn on_path(what: &str, path: &Path, error: &io::Error) -> Error {
    let remedy = match ErrorKind::of_io(error) {
        ErrorKind::NO_SPACE => "free space on the file system, or delete volumes or snapshots",
        ErrorKind::PERMISSION_DENIED => "give the host's user read and write access to the path",
        ErrorKind::NOT_FOUND => "check that the file system is mounted and the path exists",
        _ => "look into the kernel's log (dmesg) for what the disk reports",
    };
    Error::from_io(format!("{what}: {error}"), error).with("path", path.display()).remedy(remedy)
}

/// A failed read or write of a volume's data.
pub(crate) fn on_data(what: &str, error: &io::Error) -> Error {
    let failed = Error::from_io(format!("{what}: {error}"), error);
    match failed.kind() {
        ErrorKind::NO_SPACE => failed.remedy("free space in the backend's directory"),
        _ => failed.remedy("look into the kernel's log (dmesg) for what the disk reports"),
    }
}

/// A failed read of a volume's data. A disk that does not give a range back may give back all others.
pub(crate) fn on_read(error: &io::Error) -> Error {
    if error.raw_os_error() != Some(Errno::IO.raw_os_error()) {
        return on_data("the read failed", error);
    }
    Error::new(ErrorKind::CORRUPTED, format!("the disk cannot read the range: {error}"))
        .remedy("look into the kernel's log (dmesg) for what the disk reports")
}

/// The attachment was taken over: nothing of it may land any more.
pub(crate) fn fenced(volume: &str) -> Error {
    Error::new(ErrorKind::FENCED, "another attachment took this volume over")
        .with("volume", volume)
        .remedy("attach the volume again; what was not flushed may be lost")
}

/// Acknowledged writes were lost, so that no flush of this attachment can be true any more.
pub(crate) fn lost(volume: &str) -> Error {
    Error::new(ErrorKind::CORRUPTED, "an earlier flush failed, acknowledged writes may be lost")
        .with("volume", volume)
        .remedy("detach the volume, check the disk, attach it again")
}

/// The driver's own code panicked during an operation, whose outcome nobody knows.
pub(crate) fn panicked(volume: &str, payload: Box<dyn Any + Send>) -> Error {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "without a text",
    };
    let error = Error::new(ErrorKind::PANIC, format!("the driver panicked: {text}"));
    // A payload may panic again when it is dropped.
    std::mem::forget(payload);
    error.with("volume", volume).remedy(AGAIN)
}

/// What the driver knows of a volume may be wrong: nothing is done with it any more.
pub(crate) fn given_up(volume: &str) -> Error {
    Error::new(ErrorKind::INTERNAL, "the volume was given up after a failure in the driver")
        .with("volume", volume)
        .remedy(AGAIN)
}

/// The volume was detached.
pub(crate) fn detached(volume: &str) -> Error {
    Error::new(ErrorKind::UNAVAILABLE, "the volume is detached")
        .with_retry(Retry::PERMANENT)
        .with("volume", volume)
        .remedy("attach it again")
}

/// A volume or snapshot that does not exist.
pub(crate) fn not_found(what: &str, name: &str) -> Error {
    Error::new(ErrorKind::NOT_FOUND, format!("there is no {what} of this name")).with(what, name)
}

/// A request that can never succeed.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, message)
}

/// A defect of this driver.
pub(crate) fn internal(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::INTERNAL, message).remedy("report it with the host's log")
}

/// Whether the file system does not know the request at all.
pub(crate) fn is_unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NOTTY | Errno::XDEV)
}

/// Errors of this driver on their way through code that knows only the operating system's.
pub(crate) fn into_io(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::NO_SPACE => io::ErrorKind::StorageFull,
        ErrorKind::INVALID_ARGUMENT => io::ErrorKind::InvalidInput,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// The way back of [`into_io`].
pub(crate) fn from_io(what: &str, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(foreign) => on_data(what, &foreign),
    }
}
