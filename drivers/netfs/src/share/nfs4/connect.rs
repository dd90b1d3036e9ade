// SPDX-License-Identifier: Apache-2.0
//! From a configuration to a mounted export of one minor version.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use driver_api::{Error, ErrorKind};

use super::{
    Nfs4,
    attrs::{self, Attributes},
    compound::{Compound, op},
    opens::Opens,
    session::{Session, Wire},
    status::{Failed, Status},
};
use crate::{
    config::Place,
    counters::Figures,
    error::{Fault, broken_server, invalid},
    share::{
        Kind, Traits,
        nfs3::connect::{clamped, connect, credential, resolve},
    },
};

/// Where NFSv4 is served if nobody says otherwise.
const PORT: u16 = 2049;
/// A lease that a server must not be shorter than, or renewing would be all that is done.
const SHORTEST_LEASE: u32 = 1;

/// Mounts an export by NFSv4 with this minor version.
pub(crate) async fn mount(
    place: &Place,
    minor: u32,
    figures: &Arc<Figures>,
    until: Instant,
) -> Result<Nfs4, Fault> {
    let address = resolve(place, until).await?;
    let mux = connect(place, address, place.port.unwrap_or(PORT), figures, until).await?;
    let wire = Wire { mux: Arc::new(mux), credential: credential(place), minor };
    let owner = format!("novastor {:016x}", place.client);
    let known = match minor {
        0 => Session::of_client(wire, owner.as_bytes(), until).await,
        _ => Session::of_session(wire, owner.as_bytes(), until).await,
    };
    let session = Arc::new(known.map_err(|failed| not_taken(failed, minor))?);
    session.begin(until).await.map_err(|failed| not_taken(failed, minor))?;
    let path: Vec<&str> = place.share.split('/').filter(|part| !part.is_empty()).collect();
    if path.iter().any(|part| [".", ".."].contains(part)) {
        return Err(invalid("`share` must not contain `.` or `..`").into());
    }
    let (root, server) = enter(&session, None, &path, until).await.map_err(|failed| {
        let missing = [Status::NOENT, Status::NOTDIR, Status::SYMLINK, Status::ACCESS];
        match failed.status() {
            Some(status) if missing.contains(&status) => no_export(place, minor, status),
            _ => failed.told("look up the export", &place.share),
        }
    })?;
    let directory = match place.path.as_slice() {
        [] => root,
        components => {
            let names: Vec<&str> = components.iter().map(|name| name.as_str()).collect();
            let entered = enter(&session, Some(&root), &names, until).await;
            entered.map_err(|failed| not_entered(failed, place))?.0
        }
    };
    let lease = server.lease_secs.unwrap_or(90).max(SHORTEST_LEASE);
    session.keep(Duration::from_secs(lease.into()));
    let traits = limits(&session, &server, minor);
    Ok(Nfs4 { opens: Opens::new(session), directory, traits })
}

fn limits(session: &Session, server: &Attributes, minor: u32) -> Traits {
    let within = |told: Option<u64>, most: u32| {
        clamped(told.unwrap_or(1 << 20).min(most.into()).try_into().unwrap_or(u32::MAX))
    };
    let (most_read, most_write) = session.most();
    Traits {
        protocol: match minor {
            0 => "NFSv4.0",
            1 => "NFSv4.1",
            _ => "NFSv4.2",
        },
        max_read: within(server.max_read, most_read),
        max_write: within(server.max_write, most_write),
        max_file_size: server.max_file_size.unwrap_or(u64::MAX).min(i64::MAX as u64),
        max_name: server.max_name.unwrap_or(255),
        case_insensitive: server.case_insensitive,
        exclusive: true,
        fell_back: None,
    }
}

/// Follows a path, from a directory or from the server's root, and asks for the server's limits there.
async fn enter(
    session: &Arc<Session>,
    from: Option<&Bytes>,
    path: &[&str],
    until: Instant,
) -> Result<(Bytes, Attributes), Failed> {
    let mut going = match from {
        Some(directory) => Compound::on(directory),
        None => {
            let mut going = Compound::default();
            going.op(op::PUTROOTFH);
            going
        }
    };
    let mut handle = None;
    let first = if from.is_some() { op::PUTFH } else { op::PUTROOTFH };
    // Few at once: a session limits the operations of a call.
    for (step, part) in path.chunks(6).enumerate() {
        for name in part {
            going.op(op::LOOKUP).opaque(name.as_bytes());
        }
        going.op(op::GETFH);
        let mut reply = session.call(std::mem::take(&mut going), until).await?;
        reply.next(if step == 0 { first } else { op::PUTFH })?;
        for _ in part {
            reply.next(op::LOOKUP)?;
        }
        let here = reply.handle()?;
        going = Compound::on(&here);
        handle = Some(here);
    }
    let put = if handle.is_some() { op::PUTFH } else { first };
    going.op(op::GETFH);
    going.getattr(attrs::OF_FILE);
    going.getattr(attrs::OF_SERVER);
    let mut reply = session.call(going, until).await?;
    reply.next(put)?;
    let handle = reply.handle()?;
    let kind = reply.attributes()?.facts().map(|facts| facts.kind);
    if kind != Some(Kind::Directory) {
        return Err(Failed::Status(Status::NOTDIR));
    }
    Ok((handle, reply.attributes()?))
}

/// A version that the server does not speak, or not with us.
fn not_taken(failed: Failed, minor: u32) -> Fault {
    match failed.status() {
        // An earlier attempt that was given up may have come in between; this one is made again.
        Some(status) if status.ends_session() => failed.told("become a client of the server", ""),
        None | Some(Status::DELAY | Status::GRACE | Status::CLID_INUSE | Status::WRONGSEC) => {
            failed.told("become a client of the server", "")
        }
        Some(status) => {
            let what = format!("the server does not take NFSv4.{minor}: it answered {status}");
            let error = Error::new(ErrorKind::UNSUPPORTED, what);
            error
                .remedy("allow that version on the server, or name another one in `versions`")
                .into()
        }
    }
}

fn no_export(place: &Place, minor: u32, status: Status) -> Fault {
    let (kind, remedy) = match status {
        Status::ACCESS => (
            ErrorKind::PERMISSION_DENIED,
            "export it to this host; the export needs `insecure` (ganesha: PrivilegedPort = false), or set `reserved_port = true`",
        ),
        _ => (
            ErrorKind::NOT_FOUND,
            "name the export as NFSv4 has it, from the server's root on (ganesha: Pseudo; Linux: below fsid=0), in `share`; if it is there, export it to this host: it needs `insecure` (ganesha: PrivilegedPort = false), or `reserved_port = true` here",
        ),
    };
    let what = format!("the server has no such export by NFSv4.{minor}: it answered {status}");
    Error::new(kind, what).with("export", &place.share).remedy(remedy).into()
}

fn not_entered(failed: Failed, place: &Place) -> Fault {
    let (kind, what) = match failed.status() {
        Some(Status::NOENT) => (ErrorKind::NOT_FOUND, "the share has no such directory"),
        Some(Status::NOTDIR | Status::SYMLINK) => (
            ErrorKind::INVALID_ARGUMENT,
            "a component of `path` is no directory; symbolic links are not followed",
        ),
        Some(_) => return failed.told("enter the directory", &place.shown()),
        None => return failed.told("", ""),
    };
    let error = Error::new(kind, what).with("path", place.shown());
    error.remedy("make the directory on the server, or correct `path`").into()
}

/// Whether another version may still do: the server does not speak this one, or has the export under another name.
pub(crate) fn may_fall_back(fault: &Fault) -> bool {
    match fault {
        Fault::Refused(error) => {
            [ErrorKind::UNSUPPORTED, ErrorKind::NOT_FOUND].contains(&error.kind())
        }
        Fault::NotFound => true,
        _ => false,
    }
}

/// A version that no server here can be asked for.
pub(crate) fn minor_of(version: &str) -> Result<u32, Fault> {
    let minor = version.strip_prefix("4.").and_then(|minor| minor.parse().ok());
    minor.ok_or_else(|| broken_server(format!("`{version}` is no version of NFSv4")).into())
}
