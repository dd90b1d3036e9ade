// SPDX-License-Identifier: Apache-2.0
//! An object's bytes straight into the client's file, as both sides of the management socket speak of it.
//!
//! The client asks for bytes of an object with `Upgrade: novastor-file`. A host that can answers 101 with the head of the
//! answer that it would have given; then the client hands over the file, open for writing, with the place of the first byte in it. The host
//! writes, and tells now and then how far it is, and at the end how it went. So the bytes are not copied through the
//! socket. Another host answers with the bytes.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use driver_api::{Error, ErrorKind, Result};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::problem;

/// What the connection becomes.
pub const PROTOCOL: &str = "novastor-file";

/// The longest error that is told.
const LONGEST_PROBLEM: usize = 1 << 20;

/// Hands over a file; its part from `place` on is to be filled.
///
/// # Errors
/// When the other side has gone.
pub fn give(socket: impl AsFd, file: &File, place: u64) -> io::Result<()> {
    let (bytes, files) = (place.to_le_bytes(), [file.as_fd()]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    let fits = with.push(SendAncillaryMessage::ScmRights(&files));
    debug_assert!(fits, "the space is for one descriptor");
    // So few bytes into an empty socket go at once, or not at all.
    match sendmsg(socket, &[IoSlice::new(&bytes)], &mut with, SendFlags::NOSIGNAL)? {
        8 => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Takes the file that the other side hands over, and the place in it. Waits as long as the socket does.
///
/// # Errors
/// When it sends something else, or nothing.
pub fn take(socket: &UnixStream) -> io::Result<(File, u64)> {
    let mut bytes = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    let came = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut with,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL,
    )?;
    let mut files = with.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let file: Option<OwnedFd> = files.next().and_then(|mut files| files.next());
    match file {
        Some(file) if came.bytes == bytes.len() => Ok((file.into(), u64::from_le_bytes(bytes))),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "no file was handed over")),
    }
}

/// How far the host is.
#[derive(Debug)]
pub struct Report {
    /// Bytes that are written.
    pub done: u64,
    /// Their CRC-32C.
    pub crc: u32,
    /// Why there come no more.
    pub failed: Option<Error>,
}

impl Report {
    /// Bytes of a report but for its error.
    pub const HEAD: usize = 16;

    /// Tells it.
    ///
    /// # Errors
    /// When the other side has gone.
    pub fn tell(self, mut socket: &UnixStream) -> io::Result<()> {
        let error = self.failed.map(problem::encode).unwrap_or_default();
        let mut bytes = Vec::with_capacity(Self::HEAD + error.len());
        bytes.extend_from_slice(&self.done.to_le_bytes());
        bytes.extend_from_slice(&self.crc.to_le_bytes());
        let len = u32::try_from(error.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&error);
        socket.write_all(&bytes)
    }

    /// The report that begins so, and how many bytes its error has.
    ///
    /// # Errors
    /// When it is none.
    pub fn begin(head: [u8; Self::HEAD]) -> Result<(Self, usize)> {
        let mut left = &head[..];
        let (mut done, mut crc, mut len) = ([0; 8], [0; 4], [0; 4]);
        let parts: [&mut [u8]; 3] = [&mut done, &mut crc, &mut len];
        for part in parts {
            left.read_exact(part)
                .map_err(|error| Error::from_io("a report is too short", &error))?;
        }
        let (done, crc) = (u64::from_le_bytes(done), u32::from_le_bytes(crc));
        let len = u32::from_le_bytes(len) as usize;
        if len > LONGEST_PROBLEM {
            return Err(Error::new(ErrorKind::INTERNAL, "the host's report is not understood")
                .remedy("use a novastor of the host's version"));
        }
        Ok((Self { done, crc, failed: None }, len))
    }

    /// The report with its error, if it has one.
    pub fn with(self, error: &[u8]) -> Self {
        let failed = (!error.is_empty()).then(|| problem::parse(500, error));
        Self { failed, ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_file_is_handed_over_as_it_was_opened() {
        let (here, there) = UnixStream::pair().unwrap();
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("f");
        std::fs::write(&path, "0123456789").unwrap();
        let reads = File::open(&path).unwrap();
        give(&here, &reads, 7).unwrap();
        let (file, place) = take(&there).unwrap();
        assert_eq!(place, 7);
        assert!(file.write_all_at(b"x", place).is_err(), "it may only be read");
        let writes = File::options().write(true).open(&path).unwrap();
        give(&here, &writes, 2).unwrap();
        let (file, place) = take(&there).unwrap();
        file.write_all_at(b"ab", place).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"01ab456789");
    }

    #[test]
    fn nothing_or_no_file_is_an_error() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(&[0; 8]).unwrap();
        assert_eq!(take(&there).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(here);
        assert_eq!(take(&there).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_report_comes_as_it_was_told() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let error = Error::new(ErrorKind::NO_SPACE, "full").with("file", "f").remedy("make room");
        for failed in [None, Some(error)] {
            let said = failed.as_ref().map(ToString::to_string);
            Report { done: 5 << 32, crc: 77, failed }.tell(&here).unwrap();
            let mut head = [0; Report::HEAD];
            there.read_exact(&mut head).unwrap();
            let (report, len) = Report::begin(head).unwrap();
            let mut rest = vec![0; len];
            there.read_exact(&mut rest).unwrap();
            let report = report.with(&rest);
            assert_eq!((report.done, report.crc), (5 << 32, 77));
            assert_eq!(report.failed.as_ref().map(ToString::to_string), said);
            assert!(report.failed.is_none_or(|error| error.kind() == ErrorKind::NO_SPACE));
        }
        assert!(Report::begin([0xff; Report::HEAD]).is_err());
    }
}
