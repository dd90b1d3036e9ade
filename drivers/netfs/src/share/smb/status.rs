// SPDX-License-Identifier: Apache-2.0
//! What SMB's status codes, and the failures of a connection, mean for the operator.

use driver_api::{Error, ErrorKind};
use smb2::types::status::NtStatus;

use super::mux::Frame;
use crate::error::{Fault, broken_server};

/// Codes that crate `smb2` has no names for.
pub(super) const LOCK_NOT_GRANTED: NtStatus = NtStatus(0xC000_0055);
const MEDIA_WRITE_PROTECTED: NtStatus = NtStatus(0xC000_00A2);
const QUOTA_EXCEEDED: NtStatus = NtStatus(0xC000_0044);
const IO_DEVICE_ERROR: NtStatus = NtStatus(0xC000_0185);
const INVALID_HANDLE: NtStatus = NtStatus(0xC000_0008);
const SERVER_UNAVAILABLE: NtStatus = NtStatus(0xC000_0466);
const FILE_NOT_AVAILABLE: NtStatus = NtStatus(0xC000_0467);
const REPARSE_TAG_NOT_HANDLED: NtStatus = NtStatus(0xC000_0279);
const TIMED_OUT: NtStatus = NtStatus(0xC000_00B5);
const NO_SUCH_USER: NtStatus = NtStatus(0xC000_0064);
const WRONG_PASSWORD: NtStatus = NtStatus(0xC000_006A);

/// Fails where the server did not do what a message asked.
pub(super) fn accept(answer: &Frame, what: &str, object: &str) -> Result<(), Fault> {
    match answer.header.status {
        NtStatus::SUCCESS => Ok(()),
        status => Err(refused(status, what, object)),
    }
}

/// The same where a longer answer than there is room for is good enough.
pub(super) fn accept_part(answer: &Frame, what: &str, object: &str) -> Result<(), Fault> {
    match answer.header.status {
        NtStatus::BUFFER_OVERFLOW => Ok(()),
        _ => accept(answer, what, object),
    }
}

/// A call that the server answered with an error. `what` was to be done, on `object`.
pub(super) fn refused(status: NtStatus, what: &str, object: &str) -> Fault {
    use NtStatus as N;
    let (kind, remedy) = match status {
        N::OBJECT_NAME_NOT_FOUND | N::NO_SUCH_FILE | N::NOT_FOUND => return Fault::NotFound,
        N::OBJECT_NAME_COLLISION => return Fault::Exists,
        N::FILE_CLOSED | INVALID_HANDLE => return Fault::Stale,
        // The name is free once whoever still has the removed file open has closed it.
        N::DELETE_PENDING
        | N::INSUFF_SERVER_RESOURCES
        | N::INSUFFICIENT_RESOURCES
        | N::REQUEST_NOT_ACCEPTED
        | SERVER_UNAVAILABLE
        | FILE_NOT_AVAILABLE
        | TIMED_OUT => return Fault::Later,
        // The server refuses the session, so that it has done nothing of what was asked.
        N::USER_SESSION_DELETED | N::NETWORK_NAME_DELETED | N::NETWORK_SESSION_EXPIRED => {
            return Fault::Lost {
                sent: false,
                why: format!("the server answered {status}").into(),
            };
        }
        N::SHARING_VIOLATION | N::FILE_LOCK_CONFLICT | LOCK_NOT_GRANTED => (
            ErrorKind::IN_USE,
            "another client has the file open: detach it there; the server's list is `smbstatus -L` (Samba) or `Get-SmbOpenFile` (Windows)",
        ),
        N::ACCESS_DENIED | N::CANNOT_DELETE => (
            ErrorKind::PERMISSION_DENIED,
            "give `user` read and write access to the share and to its files (Samba: `read only = no`), and look whether the share demands encryption",
        ),
        MEDIA_WRITE_PROTECTED => {
            (ErrorKind::PERMISSION_DENIED, "the share is read-only: share it for writing")
        }
        N::DISK_FULL => (ErrorKind::NO_SPACE, "free space on the server, or delete volumes"),
        QUOTA_EXCEEDED => {
            (ErrorKind::NO_SPACE, "raise this user's quota on the server, or delete volumes")
        }
        N::FILE_SYSTEM_LIMITATION => (
            ErrorKind::INVALID_ARGUMENT,
            "the file system on the server takes no file of that size: choose a smaller one",
        ),
        N::OBJECT_PATH_NOT_FOUND => {
            (ErrorKind::NOT_FOUND, "make the directory of `path` on the server")
        }
        N::OBJECT_NAME_INVALID => (ErrorKind::INVALID_ARGUMENT, "choose another name"),
        N::FILE_IS_A_DIRECTORY
        | N::NOT_A_DIRECTORY
        | N::STOPPED_ON_SYMLINK
        | REPARSE_TAG_NOT_HANDLED => (
            ErrorKind::INVALID_ARGUMENT,
            "look on the server what has that name; links are not followed",
        ),
        N::PATH_NOT_COVERED => {
            (ErrorKind::UNSUPPORTED, "name the server behind the DFS link in `server` and `share`")
        }
        N::NOT_SUPPORTED
        | N::NOT_IMPLEMENTED
        | N::INVALID_DEVICE_REQUEST
        | N::INVALID_INFO_CLASS => {
            (ErrorKind::UNSUPPORTED, "use a share on a file system that can do it")
        }
        N::DIRECTORY_NOT_EMPTY => {
            (ErrorKind::IN_USE, "look on the server what is in the directory")
        }
        IO_DEVICE_ERROR => {
            (ErrorKind::INTERNAL, "the server's disk failed: look at the server's log")
        }
        _ => (ErrorKind::INTERNAL, "look at the server's log"),
    };
    let error = Error::new(kind, format!("{what}: the server answered {status}"));
    let error = if object.is_empty() { error } else { error.with("file", object) };
    Fault::Refused(error.remedy(remedy))
}

/// A login that the server refused.
pub(super) fn not_logged_in(status: NtStatus, user: &str) -> Fault {
    use NtStatus as N;
    let (kind, what, remedy) = match status {
        N::LOGON_FAILURE | NO_SUCH_USER | WRONG_PASSWORD => (
            ErrorKind::PERMISSION_DENIED,
            "the server does not know this user with this password",
            "set `user`, `password` and, in a domain, `domain` (Samba: smbpasswd -a USER)",
        ),
        N::PASSWORD_EXPIRED | N::PASSWORD_MUST_CHANGE => (
            ErrorKind::PERMISSION_DENIED,
            "the user's password has expired",
            "set a new password on the server and in `password`",
        ),
        N::ACCOUNT_DISABLED | N::ACCOUNT_EXPIRED | N::ACCOUNT_LOCKED_OUT => (
            ErrorKind::PERMISSION_DENIED,
            "the user's account is closed or locked",
            "open the account on the server, or set another `user`",
        ),
        N::ACCOUNT_RESTRICTION | N::INVALID_LOGON_HOURS | N::INVALID_WORKSTATION => (
            ErrorKind::PERMISSION_DENIED,
            "the server does not let this user in from here or now",
            "look at the account's restrictions on the server; an empty password is refused by most",
        ),
        N::ACCESS_DENIED => (
            ErrorKind::PERMISSION_DENIED,
            "the server refuses the login",
            "look at the server's log; where it demands encryption, name `versions` from 3.0 on",
        ),
        N::NOT_SUPPORTED => (
            ErrorKind::UNSUPPORTED,
            "the server and `versions` have no version in common",
            "name an older version in `versions` and `min_protocol`, or let the server speak a newer one",
        ),
        status => return refused(status, "the login failed", ""),
    };
    let error = Error::new(kind, format!("{what}: it answered {status}")).with("user", user);
    Fault::Refused(error.remedy(remedy))
}

/// A share that the server did not give.
pub(super) fn not_connected(status: NtStatus, share: &str) -> Fault {
    use NtStatus as N;
    let (kind, remedy) = match status {
        N::BAD_NETWORK_NAME | N::BAD_NETWORK_PATH | N::OBJECT_NAME_NOT_FOUND => (
            ErrorKind::NOT_FOUND,
            "name one of the server's shares in `share`: smbclient -L SERVER -U USER",
        ),
        N::ACCESS_DENIED => (
            ErrorKind::PERMISSION_DENIED,
            "give `user` access to the share; where the share demands encryption, name `versions` from 3.0 on",
        ),
        status => return refused(status, "the share cannot be opened", ""),
    };
    let error =
        Error::new(kind, format!("the server does not give the share: it answered {status}"));
    Fault::Refused(error.with("share", share).remedy(remedy))
}

/// What a failure of the connection means for a call that may have left.
pub(super) fn fault_of(error: &smb2::Error, sent: bool) -> Fault {
    use smb2::Error as E;
    match error {
        E::Protocol { status, .. } => refused(*status, "the call failed", ""),
        E::InvalidData { message } => {
            broken_server(format!("the server's answer cannot be understood: {message}")).into()
        }
        // It never got a place in the connection's window.
        E::CreditStarvation { .. } => Fault::Lost { sent: false, why: error.to_string().into() },
        // Everything else ends the connection, or shows that it has ended.
        _ => Fault::Lost { sent, why: error.to_string().into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_gets_its_kind_and_a_remedy() {
        use NtStatus as N;
        let of = |fault: Fault| match fault {
            Fault::Refused(error) => {
                assert!(!error.remedy_text().is_empty(), "{error}");
                error.kind()
            }
            other => panic!("{other} is no error for the operator"),
        };
        assert_eq!(of(refused(N::DISK_FULL, "write", "f")), ErrorKind::NO_SPACE);
        assert_eq!(of(refused(QUOTA_EXCEEDED, "write", "f")), ErrorKind::NO_SPACE);
        assert_eq!(of(refused(N::ACCESS_DENIED, "open", "f")), ErrorKind::PERMISSION_DENIED);
        assert_eq!(of(refused(N::SHARING_VIOLATION, "open", "f")), ErrorKind::IN_USE);
        assert_eq!(of(refused(N::NOT_SUPPORTED, "punch", "f")), ErrorKind::UNSUPPORTED);
        assert_eq!(of(not_logged_in(N::LOGON_FAILURE, "u")), ErrorKind::PERMISSION_DENIED);
        assert_eq!(of(not_connected(N::BAD_NETWORK_NAME, "s")), ErrorKind::NOT_FOUND);
        assert!(matches!(refused(N::FILE_CLOSED, "", ""), Fault::Stale));
        assert!(matches!(refused(N::DELETE_PENDING, "", ""), Fault::Later));
        assert!(matches!(refused(N::OBJECT_NAME_COLLISION, "", ""), Fault::Exists));
        assert!(matches!(refused(N::OBJECT_NAME_NOT_FOUND, "", ""), Fault::NotFound));
        assert!(matches!(
            refused(N::USER_SESSION_DELETED, "", ""),
            Fault::Lost { sent: false, .. }
        ));
    }
}
