// SPDX-License-Identifier: Apache-2.0
//! What NFSv3's and the MOUNT protocol's status codes mean for the operator.

use driver_api::{Error, ErrorKind};
use nfs3_types::{mount::mountstat3, nfs3::nfsstat3};

use crate::error::Fault;

/// A call that the server answered with an error. `what` was to be done, on `object`.
pub(crate) fn refused(status: nfsstat3, what: &str, object: &str) -> Fault {
    use nfsstat3 as N;
    let (kind, remedy) = match status {
        N::NFS3ERR_NOENT => return Fault::NotFound,
        N::NFS3ERR_EXIST => return Fault::Exists,
        N::NFS3ERR_STALE | N::NFS3ERR_BADHANDLE => return Fault::Stale,
        N::NFS3ERR_JUKEBOX => return Fault::Later,
        N::NFS3ERR_PERM | N::NFS3ERR_ACCES => (
            ErrorKind::PERMISSION_DENIED,
            "give the user of `uid` and `gid` read and write access on the server, or export with `no_root_squash`",
        ),
        N::NFS3ERR_ROFS => {
            (ErrorKind::PERMISSION_DENIED, "the export is read-only: export it for writing (`rw`)")
        }
        N::NFS3ERR_NOSPC => (ErrorKind::NO_SPACE, "free space on the server, or delete volumes"),
        N::NFS3ERR_DQUOT => {
            (ErrorKind::NO_SPACE, "raise this user's quota on the server, or delete volumes")
        }
        N::NFS3ERR_FBIG => (
            ErrorKind::INVALID_ARGUMENT,
            "the file system on the server takes no file of that size: choose a smaller one",
        ),
        N::NFS3ERR_NAMETOOLONG => (ErrorKind::INVALID_ARGUMENT, "choose a shorter name"),
        N::NFS3ERR_INVAL | N::NFS3ERR_BADTYPE | N::NFS3ERR_ISDIR | N::NFS3ERR_NOTDIR => {
            (ErrorKind::INVALID_ARGUMENT, "look on the server what has that name, and at its log")
        }
        N::NFS3ERR_NOTSUPP => {
            (ErrorKind::UNSUPPORTED, "use an export of a file system that can do it")
        }
        N::NFS3ERR_NOTEMPTY => (ErrorKind::IN_USE, "look on the server what is in the directory"),
        N::NFS3ERR_IO | N::NFS3ERR_NXIO | N::NFS3ERR_NODEV => {
            (ErrorKind::INTERNAL, "the server's disk failed: look at the server's log")
        }
        _ => (ErrorKind::INTERNAL, "look at the server's log"),
    };
    let error = Error::new(kind, format!("{what}: the server answered {status}"));
    Fault::Refused(error.with("file", object).remedy(remedy))
}

/// A mount that the server refused. `known`: what it exports, if it says so.
pub(crate) fn not_mounted(
    status: mountstat3,
    export: &str,
    known: Option<&[(String, Vec<String>)]>,
) -> Fault {
    use mountstat3 as M;
    // A directory inside an export may be mounted as well.
    let is_in = |path: &str| {
        let rest = export.strip_prefix(path.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let is_known = known.is_none_or(|known| known.iter().any(|(path, _)| is_in(path)));
    let listed = "novastor backend run BACKEND exports '{}'";
    let (kind, remedy) = match status {
        M::MNT3ERR_ACCES | M::MNT3ERR_PERM if is_known => (
            ErrorKind::PERMISSION_DENIED,
            "export it to this host; the export needs `insecure` (ganesha: PrivilegedPort = false), or set `reserved_port = true`".to_owned(),
        ),
        M::MNT3ERR_ACCES
        | M::MNT3ERR_PERM
        | M::MNT3ERR_NOENT
        | M::MNT3ERR_NOTDIR
        | M::MNT3ERR_INVAL
        | M::MNT3ERR_NAMETOOLONG => {
            (ErrorKind::NOT_FOUND, format!("name one of the server's exports in `share`: {listed}"))
        }
        M::MNT3ERR_NOTSUPP => (
            ErrorKind::UNSUPPORTED,
            "let the server serve this export by NFSv3, or name other `versions`".to_owned(),
        ),
        _ => (ErrorKind::UNAVAILABLE, "look at the server's log".to_owned()),
    };
    let what = if is_known { "" } else { ", which it does not list" };
    let error =
        Error::new(kind, format!("the server does not let the export be mounted{what}: {status}"));
    Fault::Refused(error.with("export", export).remedy(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_gets_its_kind_and_a_remedy() {
        for (status, kind) in [
            (nfsstat3::NFS3ERR_NOSPC, ErrorKind::NO_SPACE),
            (nfsstat3::NFS3ERR_DQUOT, ErrorKind::NO_SPACE),
            (nfsstat3::NFS3ERR_ROFS, ErrorKind::PERMISSION_DENIED),
            (nfsstat3::NFS3ERR_ACCES, ErrorKind::PERMISSION_DENIED),
            (nfsstat3::NFS3ERR_FBIG, ErrorKind::INVALID_ARGUMENT),
            (nfsstat3::NFS3ERR_NOTSUPP, ErrorKind::UNSUPPORTED),
            (nfsstat3::NFS3ERR_IO, ErrorKind::INTERNAL),
        ] {
            let Fault::Refused(error) = refused(status, "write", "f") else {
                panic!("{status} is no error for the operator");
            };
            assert_eq!(error.kind(), kind, "{status}");
            assert!(!error.remedy_text().is_empty(), "{status}");
        }
        assert!(matches!(refused(nfsstat3::NFS3ERR_STALE, "", ""), Fault::Stale));
        assert!(matches!(refused(nfsstat3::NFS3ERR_JUKEBOX, "", ""), Fault::Later));
        assert!(matches!(refused(nfsstat3::NFS3ERR_EXIST, "", ""), Fault::Exists));
        assert!(matches!(refused(nfsstat3::NFS3ERR_NOENT, "", ""), Fault::NotFound));
    }
}
