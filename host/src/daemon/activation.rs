// SPDX-License-Identifier: Apache-2.0
//! Sockets that systemd, or a program that does as it does, has opened for the host (`man sd_listen_fds`).

use std::{
    ffi::OsString,
    os::{
        fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixListener,
    },
};

use driver_api::{Error, ErrorKind, Result};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use crate::export::nbd::{ListenAddress, Listener};

/// The first descriptor that is handed over; the others follow.
const FIRST: RawFd = 3;
/// More than this is a mistake.
const MOST: RawFd = 64;

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    Nbd,
    Api,
}

/// The sockets that were handed over.
#[derive(Default)]
pub(super) struct Activated {
    pub(super) nbd: Vec<Listener>,
    pub(super) api: Option<UnixListener>,
}

/// Takes the sockets that are meant for this process, once in its life.
pub(super) fn take() -> Result<Activated> {
    let uses = uses(std::process::id(), |name| std::env::var_os(name))?;
    let mut activated = Activated::default();
    for (fd, what) in (FIRST..).zip(uses) {
        let socket = own(fd)?;
        let listener = Listener::adopted(socket).map_err(|error| error.with("descriptor", fd))?;
        match what {
            Use::Nbd => activated.nbd.push(listener),
            Use::Api if activated.api.is_some() => {
                return Err(refuse("there are two sockets named api"));
            }
            Use::Api => {
                if !matches!(listener.address(), ListenAddress::Unix(_)) {
                    return Err(refuse("the socket named api is no unix socket"));
                }
                activated.api = Some(UnixListener::from(OwnedFd::from(listener)));
            }
        }
    }
    Ok(activated)
}

fn refuse(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, why)
        .during("take the sockets that were handed over")
        .remedy("hand over listening sockets, with FileDescriptorName=nbd or api")
}

/// What each descriptor is for, in order, by `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES`.
fn uses(pid: u32, variable: impl Fn(&str) -> Option<OsString>) -> Result<Vec<Use>> {
    let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
    // Variables for another process were inherited, and mean nothing here.
    let ours = text("LISTEN_PID").is_some_and(|value| value.parse() == Ok(pid));
    let Some(count) = text("LISTEN_FDS").filter(|_| ours) else { return Ok(Vec::new()) };
    let count = count.parse().ok().filter(|count| (0..=MOST).contains(count));
    let count = count.ok_or_else(|| refuse(format!("LISTEN_FDS is no number up to {MOST}")))?;
    let names = text("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    (0..count)
        .map(|_| match names.next().unwrap_or_default() {
            "api" => Ok(Use::Api),
            // Without a name, systemd writes `unknown`, or the name of the unit.
            "nbd" | "" | "unknown" => Ok(Use::Nbd),
            name if name.ends_with(".socket") => Ok(Use::Nbd),
            name => Err(refuse(format!("no socket is called {name:?} here"))),
        })
        .collect()
}

fn own(fd: RawFd) -> Result<OwnedFd> {
    let missing = |errno: rustix::io::Errno| {
        refuse(format!("LISTEN_FDS promises descriptor {fd}, which is not open: {errno}"))
    };
    // SAFETY: the borrow ends here, before anything else of this process could own or close the number.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let flags = fcntl_getfd(borrowed).map_err(missing)?;
    fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC).map_err(missing)?;
    // SAFETY: it is open, and by the protocol's words it was opened for this process, which takes it over only here.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pid: &str, count: &str, names: Option<&str>) -> Result<Vec<Use>> {
        uses(7, |name| match name {
            "LISTEN_PID" => Some(pid.into()),
            "LISTEN_FDS" => Some(count.into()),
            "LISTEN_FDNAMES" => names.map(Into::into),
            _ => None,
        })
    }

    #[test]
    fn names_say_what_sockets_are_for() {
        use Use::{Api, Nbd};
        assert_eq!(given("7", "2", None).unwrap(), [Nbd, Nbd]);
        assert_eq!(given("7", "1", Some("")).unwrap(), [Nbd]);
        assert_eq!(
            given("7", "4", Some("api:nbd:unknown:novastor.socket")).unwrap(),
            [Api, Nbd, Nbd, Nbd]
        );
        assert_eq!(given("7", "2", Some("api")).unwrap(), [Api, Nbd]);
        let error = given("7", "1", Some("ndb")).unwrap_err();
        assert!(error.message().contains("\"ndb\""), "{error}");
    }

    #[test]
    fn sockets_for_others_are_left_alone() {
        assert!(given("8", "2", None).unwrap().is_empty());
        assert!(given("", "2", None).unwrap().is_empty());
        assert!(uses(7, |_| None).unwrap().is_empty());
        assert!(uses(7, |name| (name == "LISTEN_PID").then(|| "7".into())).unwrap().is_empty());
        for count in ["-1", "65", "many", ""] {
            assert!(given("7", count, None).is_err(), "{count}");
        }
    }
}
