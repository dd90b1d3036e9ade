// SPDX-License-Identifier: Apache-2.0
//! Where the bytes of an object that is written come from.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use driver_api::{Error, ErrorKind, Result};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};

use super::{
    journal::{Identity, read_at},
    progress::Progress,
    sums::Sums,
};
use crate::cli::client::Sent;

/// What is read and sent at a time: what a processor's cache holds, so that the sum is made of bytes that are near.
const PIECE: usize = 512 << 10;

/// Buffers of one size, used again and again.
#[derive(Debug)]
pub(super) struct Buffers {
    size: usize,
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    pub(super) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { size, free: Mutex::default() })
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of the size, with whatever is in it.
    fn take(self: &Arc<Self>) -> Lent {
        let buffer = self.free().pop().unwrap_or_else(|| vec![0; self.size]);
        Lent { buffer, len: 0, home: Arc::clone(self) }
    }
}

/// A buffer that goes back when it is dropped.
struct Lent {
    buffer: Vec<u8>,
    len: usize,
    home: Arc<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.free().push(std::mem::take(&mut self.buffer));
    }
}

/// A file that is written to an object.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: Arc<File>,
    path: PathBuf,
    pub(super) identity: Identity,
    buffers: Arc<Buffers>,
}

/// What there is to be written.
#[derive(Debug)]
pub(super) enum Input {
    /// A file of known size, of which any part can be read at any time.
    File(Source),
    /// What can be read once, in order.
    Stream(File),
}

/// Opens a file, or standard input.
pub(super) fn open(path: &Path) -> Result<Input> {
    let failed = |error: std::io::Error| {
        Error::from_io("the file cannot be read", &error).with("file", path.display())
    };
    if path.as_os_str() == "-" {
        use std::os::fd::AsFd;
        let input = std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        return Ok(Input::Stream(input.into()));
    }
    let file = File::open(path).map_err(failed)?;
    let known = file.metadata().map_err(failed)?;
    if known.is_dir() {
        return Err(Error::new(ErrorKind::INVALID_ARGUMENT, "this is a directory")
            .with("file", path.display())
            .remedy("name a file"));
    }
    if !known.is_file() {
        return Ok(Input::Stream(file));
    }
    let identity = Identity::of(&file).map_err(failed)?;
    let buffers = Buffers::new(PIECE);
    Ok(Input::File(Source { file: Arc::new(file), path: path.to_owned(), identity, buffers }))
}

impl Source {
    /// Fails if the file is not any more what it was when it was opened.
    pub(super) fn unchanged(&self) -> Result<()> {
        let now = Identity::of(&self.file).map_err(|error| {
            Error::from_io("the file cannot be read", &error).with("file", self.path.display())
        })?;
        if now == self.identity {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::CONFLICT,
            "the file changed while it was read; no object was made of it",
        )
        .with("file", self.path.display())
        .remedy("repeat it when nobody writes to the file"))
    }
}

impl Source {
    /// All of a small file.
    pub(super) fn whole(&self) -> Result<Bytes> {
        let failed = |error: std::io::Error| {
            Error::from_io("the file cannot be read", &error).with("file", self.path.display())
        };
        let size = usize::try_from(self.identity.size).unwrap_or(usize::MAX);
        // One byte more than there is to be: files of a kernel have other bytes than they say.
        let mut bytes = vec![0; size.saturating_add(1)];
        if read_at(&self.file, &mut bytes, 0).map_err(failed)? != size {
            self.unchanged()?;
            let (why, file) = ("the file is not as long as the system says", self.path.display());
            return Err(Error::new(ErrorKind::CONFLICT, why).with("file", &file).remedy(format!(
                "write what it has now: cat {file} | novastor object put - BUCKET/KEY"
            )));
        }
        bytes.truncate(size);
        Ok(Bytes::from(bytes))
    }
}

/// What was sent of a body.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) bytes: u64,
    pub(super) sums: Sums,
    /// Why the body broke off.
    pub(super) failed: Option<Error>,
}

/// A tally that a body keeps while it is sent.
#[derive(Clone, Default)]
pub(super) struct Tallied(Arc<Mutex<Tally>>);

impl Tallied {
    /// An empty tally that makes these sums.
    pub(super) fn new(sums: Sums) -> Self {
        Self(Arc::new(Mutex::new(Tally { sums, ..Tally::default() })))
    }

    /// Bytes were sent.
    pub(super) fn add(&self, bytes: &[u8]) {
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tally.sums.add(bytes);
        tally.bytes += bytes.len() as u64;
    }

    /// What was sent by now.
    pub(super) fn take(&self) -> Tally {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn fail(&self, error: &std::io::Error) {
        let error = Error::from_io("the file cannot be read", error);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).failed.get_or_insert(error);
    }
}

/// A part of a file as a body: read, summed and sent piece by piece.
struct Part {
    file: Arc<File>,
    buffers: Arc<Buffers>,
    at: u64,
    left: u64,
    tally: Tallied,
    progress: Arc<Progress>,
}

impl Source {
    /// A part of the file as a body, which tells in `tally` what was sent.
    pub(super) fn part(
        &self,
        at: u64,
        len: u64,
        tally: &Tallied,
        progress: &Arc<Progress>,
    ) -> Sent {
        Part {
            file: Arc::clone(&self.file),
            buffers: Arc::clone(&self.buffers),
            at,
            left: len,
            tally: tally.clone(),
            progress: Arc::clone(progress),
        }
        .boxed()
    }
}

impl Body for Part {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut lent = self.buffers.take();
        let wanted = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
        let read = match read_at(&self.file, &mut lent.buffer[..wanted], self.at) {
            Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => read,
        };
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                self.tally.fail(&error);
                return Poll::Ready(Some(Err(error)));
            }
        };
        lent.len = read;
        self.tally.add(lent.as_ref());
        self.progress.moved(read as u64);
        self.at += read as u64;
        self.left -= read as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(lent)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }
}

/// Reads parts of a stream ahead on a thread of its own, which a terminal or a pipe may hold up for as long as it likes.
pub(super) fn read_ahead(
    mut stream: File,
    part: usize,
) -> tokio::sync::mpsc::Receiver<Result<Bytes>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        let buffers = Buffers::new(part);
        loop {
            let mut lent = buffers.take();
            let read = fill(&mut stream, &mut lent.buffer);
            let read = read.map_err(|error| Error::from_io("the input cannot be read", &error));
            let (last, piece) = match read {
                Ok(read) => {
                    lent.len = read;
                    (read < part, Ok(Bytes::from_owner(lent)))
                }
                Err(error) => (true, Err(error)),
            };
            if sender.blocking_send(piece).is_err() || last {
                return;
            }
        }
    });
    receiver
}

fn fill(stream: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Output;

    fn progress() -> Arc<Progress> {
        Arc::new(Progress::new(Output::Json, None))
    }

    fn source(path: &Path) -> Source {
        match open(path).unwrap() {
            Input::File(source) => source,
            Input::Stream(_) => panic!("a file is no stream"),
        }
    }

    #[tokio::test]
    async fn a_part_is_the_files_bytes_and_their_sum() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("f");
        let content: Vec<u8> = (0..3 * PIECE + 17).map(|at| (at % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let (source, tally) = (source(&path), Tallied::default());
        let (at, len) = (5, 2 * PIECE + 9);
        let body = source.part(at as u64, len as u64, &tally, &progress());
        assert_eq!(body.size_hint().exact(), Some(len as u64));
        let sent = body.collect().await.unwrap().to_bytes();
        assert_eq!(sent, &content[at..at + len]);
        let tally = tally.take();
        assert_eq!((tally.bytes, tally.sums.crc()), (len as u64, crc32c::crc32c(&sent)));
        drop(sent);
        assert!(source.buffers.free().len() <= 4, "buffers are used again");
    }

    #[tokio::test]
    async fn a_file_that_shrinks_is_noticed() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("f");
        std::fs::write(&path, vec![7; PIECE]).unwrap();
        let source = source(&path);
        source.unchanged().unwrap();
        File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
        let body = source.part(0, PIECE as u64, &Tallied::default(), &progress());
        assert!(body.collect().await.is_err());
        assert_eq!(source.unchanged().unwrap_err().kind(), ErrorKind::CONFLICT);
    }

    #[tokio::test]
    async fn a_stream_is_cut_into_whole_parts() {
        let room = tempfile::tempdir().unwrap();
        for (size, wanted) in [(0, vec![0]), (9, vec![9]), (10, vec![10, 0]), (25, vec![10, 10, 5])]
        {
            let path = room.path().join("f");
            std::fs::write(&path, vec![1; size]).unwrap();
            let mut parts = read_ahead(File::open(&path).unwrap(), 10);
            let mut sizes = Vec::new();
            while let Some(part) = parts.recv().await {
                sizes.push(part.unwrap().len());
            }
            assert_eq!(sizes, wanted, "{size}");
        }
    }
}
