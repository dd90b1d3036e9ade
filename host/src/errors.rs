// SPDX-License-Identifier: Apache-2.0
//! What each kind of error looks like to those outside: one table for NBD, the management API and the shell.
//!
//! | kind | NBD | HTTP | exit | why |
//! |---|---|---|---|---|
//! | NotFound | EIO | 404 | 3 | on an open export it means that storage vanished |
//! | AlreadyExists | EIO | 409 | 4 | |
//! | InUse | EIO | 409 | 5 | |
//! | InvalidArgument | EINVAL | 400 | 2 | the shell's number for wrong usage |
//! | OutOfRange | EINVAL | 400 | 6 | a write past the end is refused earlier, with ENOSPC |
//! | NoSpace | ENOSPC | 507 | 7 | a guest may pause on ENOSPC and go on later |
//! | PermissionDenied | EPERM | 403 | 8 | |
//! | Unauthenticated | EPERM | 401 | 9 | |
//! | Unavailable | EIO | 503 | 10 | |
//! | TimedOut | EIO | 504 | 11 | |
//! | Corrupted | EIO | 500 | 12 | |
//! | Fenced | ESHUTDOWN | 409 | 13 | this way in is over for good; another writer has the volume |
//! | Unsupported | ENOTSUP | 501 | 14 | |
//! | Panic | EIO | 500 | 15 | |
//! | Internal | EIO | 500 | 1 | |
//! | Conflict | EIO | 412 | 16 | an object is not as the request's condition says |
//!
//! A kind that only a newer driver knows is treated as Internal.

use driver_api::ErrorKind;
use nbd_protocol::Errno;

/// How one kind of error shows outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outward {
    /// The kind.
    pub kind: ErrorKind,
    /// The error of an NBD reply.
    pub nbd: Errno,
    /// The status of an HTTP answer.
    pub http: u16,
    /// The exit code of the command line.
    pub exit: u8,
}

const fn row(kind: ErrorKind, nbd: Errno, http: u16, exit: u8) -> Outward {
    Outward { kind, nbd, http, exit }
}

/// The table of the module's page.
pub const TABLE: &[Outward] = &[
    row(ErrorKind::NOT_FOUND, Errno::Io, 404, 3),
    row(ErrorKind::ALREADY_EXISTS, Errno::Io, 409, 4),
    row(ErrorKind::IN_USE, Errno::Io, 409, 5),
    row(ErrorKind::INVALID_ARGUMENT, Errno::Inval, 400, 2),
    row(ErrorKind::OUT_OF_RANGE, Errno::Inval, 400, 6),
    row(ErrorKind::NO_SPACE, Errno::NoSpc, 507, 7),
    row(ErrorKind::PERMISSION_DENIED, Errno::Perm, 403, 8),
    row(ErrorKind::UNAUTHENTICATED, Errno::Perm, 401, 9),
    row(ErrorKind::UNAVAILABLE, Errno::Io, 503, 10),
    row(ErrorKind::TIMED_OUT, Errno::Io, 504, 11),
    row(ErrorKind::CORRUPTED, Errno::Io, 500, 12),
    row(ErrorKind::FENCED, Errno::Shutdown, 409, 13),
    row(ErrorKind::UNSUPPORTED, Errno::NotSup, 501, 14),
    row(ErrorKind::PANIC, Errno::Io, 500, 15),
    row(ErrorKind::INTERNAL, Errno::Io, 500, 1),
    row(ErrorKind::CONFLICT, Errno::Io, 412, 16),
];

/// How `kind` shows outside.
pub fn outward(kind: ErrorKind) -> Outward {
    let known = TABLE.iter().find(|row| row.kind == kind).copied();
    known.unwrap_or(row(kind, Errno::Io, 500, 1))
}

/// The NBD error for `kind`.
pub fn nbd_errno(kind: ErrorKind) -> Errno {
    outward(kind).nbd
}

/// The HTTP status for `kind`.
pub fn http_status(kind: ErrorKind) -> u16 {
    outward(kind).http
}

/// The exit code for `kind`.
pub fn exit_code(kind: ErrorKind) -> u8 {
    outward(kind).exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_exactly_one_row() {
        for kind in ErrorKind::ALL {
            let rows = TABLE.iter().filter(|row| row.kind == *kind).count();
            assert_eq!(rows, 1, "{kind}");
        }
        assert_eq!(TABLE.len(), ErrorKind::ALL.len());
    }

    #[test]
    fn exit_codes_tell_kinds_apart_and_are_never_success() {
        for row in TABLE {
            assert_ne!(row.exit, 0, "{}", row.kind);
            let same = TABLE.iter().filter(|other| other.exit == row.exit).count();
            assert_eq!(same, 1, "{}", row.kind);
        }
    }

    #[test]
    fn the_page_shows_the_table() {
        let page = include_str!("errors.rs");
        for row in TABLE {
            let nbd = match row.nbd {
                Errno::Perm => "EPERM",
                Errno::Io => "EIO",
                Errno::Inval => "EINVAL",
                Errno::NoSpc => "ENOSPC",
                Errno::NotSup => "ENOTSUP",
                Errno::Shutdown => "ESHUTDOWN",
            };
            let line = format!("//! | {} | {nbd} | {} | {} |", row.kind, row.http, row.exit);
            assert!(page.contains(&line), "missing in the page: {line}");
        }
    }

    #[test]
    fn an_unknown_kind_is_a_failure() {
        let strange = outward(ErrorKind::from_code(9999));
        assert_eq!((strange.nbd, strange.http, strange.exit), (Errno::Io, 500, 1));
    }
}
