// SPDX-License-Identifier: Apache-2.0
//! Bytes that the host writes straight into this command's file: see [`handover`].
//!
//! The file is locked, and its lock is lent with it: while a host that was left alone may still write, nobody else takes the
//! file for his own, nor is it given its name.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, Instant},
};

use driver_api::{Error, ErrorKind, Result};
use hyper::{Response, body::Incoming};
use hyper_util::rt::TokioIo;
use rustix::{fs::FlockOperation, io::Errno};
use tokio::{
    io::{AsyncReadExt, Interest},
    net::UnixStream,
};

use super::wire::SILENCE;
use crate::api::handover::{self, Report};

/// How long a host that was left alone may take for what it has begun: longer than it waits for a store's next bytes.
const LINGERS: Duration = Duration::from_secs(90);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How far the host came, and how it ended.
pub(super) struct Filled {
    /// Bytes that are written.
    pub(super) done: u64,
    /// Their CRC-32C.
    pub(super) crc: u32,
    pub(super) ended: Result<()>,
}

/// Hands the file over to the host that answered so, and waits for its end. `moved` hears of all bytes as they are written.
pub(super) async fn fill(
    response: Response<Incoming>,
    (file, place): (&File, u64),
    len: u64,
    moved: impl FnMut(u64),
) -> Filled {
    let mut filled = Filled { done: 0, crc: 0, ended: Ok(()) };
    filled.ended = filled.follow(response, (file, place), len, moved).await;
    filled
}

impl Filled {
    async fn follow(
        &mut self,
        response: Response<Incoming>,
        (file, place): (&File, u64),
        len: u64,
        mut moved: impl FnMut(u64),
    ) -> Result<()> {
        let upgraded = hyper::upgrade::on(response);
        let upgraded = upgraded.await.map_err(|error| broke_off().caused_by(&error))?;
        let foreign = |_| Error::new(ErrorKind::INTERNAL, "the connection is no socket");
        let parts = upgraded.downcast::<TokioIo<UnixStream>>().map_err(foreign)?;
        let mut socket = parts.io.into_inner();
        let lost = |error: std::io::Error| broke_off().caused_by(&error);
        let giving = || handover::give(&socket, file, place);
        socket.async_io(Interest::WRITABLE, giving).await.map_err(lost)?;
        while self.done < len {
            let report = tokio::time::timeout(SILENCE, report(&mut socket));
            let report = report.await.map_err(|_| broke_off())?.map_err(lost)??;
            if report.done < self.done || report.done > len {
                let why = "the host wrote other bytes than were asked for";
                return Err(Error::new(ErrorKind::INTERNAL, why));
            }
            moved(report.done - self.done);
            (self.done, self.crc) = (report.done, report.crc);
            if let Some(error) = report.failed {
                return Err(error);
            }
        }
        Ok(())
    }
}

async fn report(socket: &mut UnixStream) -> std::io::Result<Result<Report>> {
    let mut head = [0; Report::HEAD];
    socket.read_exact(&mut head).await?;
    let (report, len) = match Report::begin(head) {
        Ok(begun) => begun,
        Err(error) => return Ok(Err(error)),
    };
    let mut error = vec![0; len];
    socket.read_exact(&mut error).await?;
    Ok(Ok(report.with(&error)))
}

fn broke_off() -> Error {
    Error::new(ErrorKind::UNAVAILABLE, "the data broke off")
}

/// Locks a file, for which it waits while a host still has it. Gives whether it may be lent: there are file systems without
/// locks.
pub(super) fn lock(file: &File, path: &Path) -> Result<bool> {
    let since = Instant::now();
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if since.elapsed() < LINGERS => std::thread::sleep(LOOK_AGAIN),
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::new(ErrorKind::IN_USE, "the host still writes to the file")
                    .with("file", path.display())
                    .remedy("see what the host does; repeat it when it has ended that"));
            }
            Err(_) => return Ok(false),
        }
    }
}

/// Waits until no host has the file any more. Nobody of this command may have it open.
pub(super) fn returned(path: &Path) -> Result<()> {
    let file = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path);
    let file = file.map_err(|error| {
        Error::from_io("the file cannot be opened", &error).with("file", path.display())
    })?;
    lock(&file, path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_not_for_others_while_it_is_lent() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("f");
        let own = File::create(&path).unwrap();
        assert!(lock(&own, &path).unwrap());
        // What a host has is the same open file.
        let lent = own.try_clone().unwrap();
        drop(own);
        let ends = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(lent);
        });
        let since = Instant::now();
        returned(&path).unwrap();
        assert!(since.elapsed() >= Duration::from_millis(250));
        ends.join().unwrap();
    }
}
