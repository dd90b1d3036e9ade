// SPDX-License-Identifier: Apache-2.0
//! What NFSv4's status codes mean: for the mount, and for the operator.

use driver_api::{Error, ErrorKind};

use crate::error::{Fault, invalid};

/// A status that is no success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Status(pub u32);

macro_rules! statuses {
    ($($name:ident = $value:literal),* $(,)?) => {
        impl Status {
            $(pub const $name: Self = Self($value);)*

            fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    PERM = 1, NOENT = 2, IO = 5, NXIO = 6, ACCESS = 13, EXIST = 17, XDEV = 18, NOTDIR = 20, ISDIR = 21, INVAL = 22,
    FBIG = 27, NOSPC = 28, ROFS = 30, NAMETOOLONG = 63, NOTEMPTY = 66, DQUOT = 69, STALE = 70, BADHANDLE = 10001,
    NOTSUPP = 10004, TOOSMALL = 10005, SERVERFAULT = 10006, BADTYPE = 10007, DELAY = 10008, DENIED = 10010,
    EXPIRED = 10011, LOCKED = 10012, GRACE = 10013, FHEXPIRED = 10014, SHARE_DENIED = 10015, WRONGSEC = 10016,
    CLID_INUSE = 10017, RESOURCE = 10018, MOVED = 10019, NOFILEHANDLE = 10020, MINOR_VERS_MISMATCH = 10021,
    STALE_CLIENTID = 10022, STALE_STATEID = 10023, OLD_STATEID = 10024, BAD_STATEID = 10025, BAD_SEQID = 10026,
    SYMLINK = 10029, LEASE_MOVED = 10031, ATTRNOTSUPP = 10032, BADXDR = 10036, LOCKS_HELD = 10037, OPENMODE = 10038,
    FILE_OPEN = 10046, ADMIN_REVOKED = 10047, BADSESSION = 10052, BADSLOT = 10053, CONN_NOT_BOUND_TO_SESSION = 10055,
    SEQ_MISORDERED = 10063, OP_NOT_IN_SESSION = 10071, DEADSESSION = 10078, WRONG_TYPE = 10083, OP_ILLEGAL = 10044,
    UNION_NOTSUPP = 10090, OFFLOAD_NO_REQS = 10094,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => write!(f, "NFS4ERR_{name}"),
            None => write!(f, "NFS4 status {}", self.0),
        }
    }
}

/// Why a compound did not end well.
#[derive(Debug)]
pub(super) enum Failed {
    /// The call itself failed, or its answer made no sense.
    Call(Fault),
    /// The server refused an operation.
    Status(Status),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Call(fault)
    }
}

impl Failed {
    /// What is made of it where `what` was to be done, on `object`.
    pub fn told(self, what: &str, object: &str) -> Fault {
        match self {
            Self::Call(fault) => fault,
            Self::Status(status) => refused(status, what, object),
        }
    }

    /// The status, if it is one.
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::Call(_) => None,
            Self::Status(status) => Some(*status),
        }
    }
}

impl Status {
    /// The client's state on the server, all that it had opened and locked, is gone or in doubt.
    pub fn ends_session(self) -> bool {
        use Status as S;
        [
            S::EXPIRED,
            S::STALE_CLIENTID,
            S::STALE_STATEID,
            S::BAD_STATEID,
            S::BAD_SEQID,
            S::ADMIN_REVOKED,
            S::LEASE_MOVED,
            S::MOVED,
            S::BADSESSION,
            S::BADSLOT,
            S::CONN_NOT_BOUND_TO_SESSION,
            S::SEQ_MISORDERED,
            S::DEADSESSION,
        ]
        .contains(&self)
    }

    /// Whether another client has the file.
    pub fn is_conflict(self) -> bool {
        [Self::SHARE_DENIED, Self::DENIED, Self::LOCKED].contains(&self)
    }

    /// Whether an open-owner's sequence number is used up by an operation that ended so (RFC 7530, 9.1.7).
    pub fn consumes_seqid(self) -> bool {
        use Status as S;
        ![
            S::STALE_CLIENTID,
            S::STALE_STATEID,
            S::BAD_STATEID,
            S::BAD_SEQID,
            S::BADXDR,
            S::RESOURCE,
            S::NOFILEHANDLE,
            S::MOVED,
        ]
        .contains(&self)
    }
}

/// An operation that the server answered with an error.
pub(super) fn refused(status: Status, what: &str, object: &str) -> Fault {
    use Status as S;
    let (kind, remedy) = match status {
        S::NOENT => return Fault::NotFound,
        S::EXIST => return Fault::Exists,
        S::STALE | S::BADHANDLE | S::FHEXPIRED => return Fault::Stale,
        // An older state of a file that was opened once more meanwhile: the next attempt has the newer one.
        S::DELAY | S::GRACE | S::RESOURCE | S::OLD_STATEID | S::FILE_OPEN => return Fault::Later,
        S::SYMLINK | S::ISDIR | S::WRONG_TYPE => {
            let error = invalid("this is no regular file; symbolic links are not followed");
            return error.with("file", object).remedy("put the image itself on the share").into();
        }
        status if status.ends_session() => {
            let why = format!("{what}: the server answered {status}: this client's state is gone");
            return Fault::Lost { sent: false, why: why.into() };
        }
        status if status.is_conflict() => (
            ErrorKind::IN_USE,
            "another client has the file open for writing: end it there; if its host is gone, try again when its lease on the server is over",
        ),
        S::PERM | S::ACCESS => (
            ErrorKind::PERMISSION_DENIED,
            "give the user of `uid` and `gid` read and write access on the server, or export with `no_root_squash`",
        ),
        S::WRONGSEC => (
            ErrorKind::UNAUTHENTICATED,
            "the export must allow sec=sys for this host; the export needs `insecure` (ganesha: PrivilegedPort = false), or set `reserved_port = true`",
        ),
        S::CLID_INUSE => (
            ErrorKind::IN_USE,
            "another user of this host has the same client name on the server: use one `uid`, or wait until its lease is over",
        ),
        S::ROFS => {
            (ErrorKind::PERMISSION_DENIED, "the export is read-only: export it for writing (`rw`)")
        }
        S::NOSPC => (ErrorKind::NO_SPACE, "free space on the server, or delete volumes"),
        S::DQUOT => {
            (ErrorKind::NO_SPACE, "raise this user's quota on the server, or delete volumes")
        }
        S::FBIG => (
            ErrorKind::INVALID_ARGUMENT,
            "the file system on the server takes no file of that size: choose a smaller one",
        ),
        S::NAMETOOLONG => (ErrorKind::INVALID_ARGUMENT, "choose a shorter name"),
        S::INVAL | S::BADTYPE | S::NOTDIR | S::XDEV => {
            (ErrorKind::INVALID_ARGUMENT, "look on the server what has that name, and at its log")
        }
        S::MINOR_VERS_MISMATCH => (
            ErrorKind::UNSUPPORTED,
            "allow that version on the server, or name another one in `versions`",
        ),
        S::NOTSUPP | S::ATTRNOTSUPP | S::OP_ILLEGAL | S::UNION_NOTSUPP | S::OFFLOAD_NO_REQS => {
            (ErrorKind::UNSUPPORTED, "use an export of a file system that can do it")
        }
        S::NOTEMPTY => (ErrorKind::IN_USE, "look on the server what is in the directory"),
        S::IO | S::NXIO => {
            (ErrorKind::INTERNAL, "the server's disk failed: look at the server's log")
        }
        _ => (ErrorKind::INTERNAL, "look at the server's log"),
    };
    let error = Error::new(kind, format!("{what}: the server answered {status}"));
    Fault::Refused(error.with("file", object).remedy(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_gets_its_kind_and_a_remedy() {
        for (status, kind) in [
            (Status::NOSPC, ErrorKind::NO_SPACE),
            (Status::DQUOT, ErrorKind::NO_SPACE),
            (Status::ROFS, ErrorKind::PERMISSION_DENIED),
            (Status::ACCESS, ErrorKind::PERMISSION_DENIED),
            (Status::WRONGSEC, ErrorKind::UNAUTHENTICATED),
            (Status::FBIG, ErrorKind::INVALID_ARGUMENT),
            (Status::SYMLINK, ErrorKind::INVALID_ARGUMENT),
            (Status::NOTSUPP, ErrorKind::UNSUPPORTED),
            (Status::SHARE_DENIED, ErrorKind::IN_USE),
            (Status::DENIED, ErrorKind::IN_USE),
            (Status::IO, ErrorKind::INTERNAL),
        ] {
            let Fault::Refused(error) = refused(status, "write", "f") else {
                panic!("{status} is no error for the operator");
            };
            assert_eq!(error.kind(), kind, "{status}");
            assert!(!error.remedy_text().is_empty(), "{status}");
        }
        assert!(matches!(refused(Status::STALE, "", ""), Fault::Stale));
        assert!(matches!(refused(Status::DELAY, "", ""), Fault::Later));
        assert!(matches!(refused(Status::GRACE, "", ""), Fault::Later));
        assert!(matches!(refused(Status::EXIST, "", ""), Fault::Exists));
        assert!(matches!(refused(Status::NOENT, "", ""), Fault::NotFound));
    }

    #[test]
    fn lost_state_ends_the_mount() {
        for status in [Status::EXPIRED, Status::BAD_STATEID, Status::BADSESSION] {
            assert!(matches!(refused(status, "", ""), Fault::Lost { sent: false, .. }), "{status}");
        }
    }
}
