// SPDX-License-Identifier: Apache-2.0
//! How a call to a server can end badly, and what the operator reads of it.

use std::{fmt, io, sync::Arc};

use driver_api::{Error, ErrorKind, Retry};

/// Why a call did not end well: what the code that called has to tell apart.
#[derive(Clone)]
pub(crate) enum Fault {
    /// The connection ended before the answer came. `sent`: the server may have done what was asked.
    Lost {
        /// Whether the call had left.
        sent: bool,
        /// Why the connection ended.
        why: Arc<str>,
    },
    /// No answer before the deadline. `sent` as above.
    TimedOut {
        /// Whether the call had left.
        sent: bool,
        /// What was waited for.
        why: Arc<str>,
    },
    /// The server asks to be asked again later.
    Later,
    /// The server does not know the handle any more.
    Stale,
    /// There is no such file.
    NotFound,
    /// There is a file of that name already.
    Exists,
    /// Everything else, in words for the operator.
    Refused(Error),
}

impl Fault {
    /// Whether the server may have done, or may yet do, what was asked.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Lost { sent: true, .. } | Self::TimedOut { sent: true, .. })
    }

    /// The error for the operator: what failed, at `what`.
    pub fn told(self, what: &str) -> Error {
        match self {
            Self::Lost { why, .. } => {
                Error::new(ErrorKind::UNAVAILABLE, format!("{what}: the connection ended: {why}"))
                    .remedy(UNREACHABLE)
            }
            Self::TimedOut { sent, why } => {
                let outcome = if sent { "; it may still have its effect" } else { "" };
                Error::new(ErrorKind::TIMED_OUT, format!("{what}: {why}{outcome}"))
                    .remedy(UNREACHABLE)
            }
            Self::Later => Error::new(
                ErrorKind::UNAVAILABLE,
                format!("{what}: the server goes on asking for patience"),
            )
            .remedy("look whether the server is busy or in its grace period, then try again"),
            Self::Stale => Error::new(
                ErrorKind::CORRUPTED,
                format!("{what}: the server does not know the file any more"),
            )
            .remedy("look whether the file was removed or the export replaced on the server"),
            Self::NotFound => {
                Error::new(ErrorKind::NOT_FOUND, format!("{what}: there is no such file"))
                    .remedy("look on the server whether it was removed or renamed")
            }
            Self::Exists => Error::new(
                ErrorKind::ALREADY_EXISTS,
                format!("{what}: there is a file of that name"),
            )
            .remedy("choose another name, or move that file away"),
            Self::Refused(error) => error,
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { sent, why } => write!(f, "Lost(sent {sent}: {why})"),
            Self::TimedOut { sent, why } => write!(f, "TimedOut(sent {sent}: {why})"),
            Self::Later => f.write_str("Later"),
            Self::Stale => f.write_str("Stale"),
            Self::NotFound => f.write_str("NotFound"),
            Self::Exists => f.write_str("Exists"),
            Self::Refused(error) => write!(f, "Refused({error:#})"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Fault {}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

const UNREACHABLE: &str =
    "look whether the server runs and its network is up; the mount comes back by itself";

/// A request that can never succeed.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, message)
}

/// A defect of this driver.
pub(crate) fn internal(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::INTERNAL, message).remedy("report it with the host's log")
}

/// A server that does not keep to its protocol.
pub(crate) fn broken_server(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::CORRUPTED, message)
        .remedy("look at the server's log; its answer does not fit the protocol")
}

/// The attachment was taken over: nothing of it may land any more.
pub(crate) fn fenced(volume: &str) -> Error {
    Error::new(ErrorKind::FENCED, "another attachment took this volume over")
        .with("volume", volume)
        .remedy("attach the volume again")
}

/// A write's outcome is unknown, so that no flush of this attachment can be true any more.
pub(crate) fn in_doubt(volume: &str) -> Error {
    Error::new(
        ErrorKind::CORRUPTED,
        "an earlier write was not answered in time, and may or may not land: no flush can be vouched for",
    )
    .with("volume", volume)
    .remedy("detach the volume, see that the server answers, attach it again")
}

/// Another file lies where the volume's was.
pub(crate) fn replaced(volume: &str, file: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::CORRUPTED,
        format!("the volume's file is not the one that was attached: {why}"),
    )
    .with("volume", volume)
    .with("file", file)
    .remedy("put the file back, or detach the volume and attach it again to use what is there now")
}

/// The volume was detached.
pub(crate) fn detached(volume: &str) -> Error {
    Error::new(ErrorKind::UNAVAILABLE, "the volume is detached")
        .with_retry(Retry::PERMANENT)
        .with("volume", volume)
        .remedy("attach it again")
}

/// A volume that does not exist.
pub(crate) fn not_found(name: &str) -> Error {
    Error::new(ErrorKind::NOT_FOUND, "there is no volume of this name").with("volume", name)
}

/// What the driver knows of a volume's image may be wrong: nothing is done with it any more.
pub(crate) fn given_up(volume: &str) -> Error {
    Error::new(ErrorKind::INTERNAL, "the volume was given up after a failure in the driver")
        .with("volume", volume)
        .remedy("detach the volume and attach it again; report the failure with the host's log")
}

/// Errors of this driver on their way through code that knows only the operating system's.
pub(crate) fn into_io(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::NO_SPACE => io::ErrorKind::StorageFull,
        ErrorKind::FENCED => io::ErrorKind::PermissionDenied,
        ErrorKind::TIMED_OUT => io::ErrorKind::TimedOut,
        ErrorKind::CORRUPTED => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// The way back of [`into_io`].
pub(crate) fn from_io(what: &str, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(foreign) => Error::from_io(format!("{what}: {foreign}"), &foreign),
    }
}
