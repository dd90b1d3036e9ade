// SPDX-License-Identifier: Apache-2.0
//! Messages of HTTP/1.1, as far as one must read them to pass them on unchanged: RFC 9112.

use std::{
    io::{self, BufRead, ErrorKind, Read, Write},
    thread,
    time::Duration,
};

/// The longest head that is passed on.
const LONGEST_HEAD: u64 = 64 << 10;
const CHUNK: usize = 64 << 10;

/// How a body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Body {
    /// After so many bytes.
    Length(u64),
    /// With a chunk of no bytes.
    Chunked,
    /// With the connection.
    Connection,
}

/// The head of a message: its first line and its fields, as they came.
#[derive(Debug)]
pub(super) struct Head {
    pub bytes: Vec<u8>,
    text: String,
}

impl Head {
    /// Reads one; none if the connection has ended before it began.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let (mut bytes, mut from) = (Vec::new(), from.take(LONGEST_HEAD));
        loop {
            let len = from.read_until(b'\n', &mut bytes)?;
            if len == 0 && bytes.is_empty() {
                return Ok(None);
            }
            if len == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if bytes.ends_with(b"\r\n\r\n") || bytes.ends_with(b"\n\n") {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                return Ok(Some(Self { bytes, text }));
            }
        }
    }

    /// A word of the first line.
    pub fn word(&self, place: usize) -> &str {
        self.text.lines().next().unwrap_or_default().split(' ').nth(place).unwrap_or_default()
    }

    /// The status of an answer.
    pub fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or_default()
    }

    /// A field's value.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.text.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.trim().eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    fn says(&self, name: &str, value: &str) -> bool {
        self.field(name).is_some_and(|said| said.to_ascii_lowercase().contains(value))
    }

    /// Whether the connection ends after this message.
    pub fn closes(&self) -> bool {
        self.says("connection", "close")
    }

    /// Whether who sent it waits for a word before it sends the body.
    pub fn waits(&self) -> bool {
        self.says("expect", "100-continue")
    }

    fn framed(&self, otherwise: Body) -> Body {
        if self.says("transfer-encoding", "chunked") {
            return Body::Chunked;
        }
        let length = self.field("content-length").and_then(|length| length.parse().ok());
        length.map_or(otherwise, Body::Length)
    }

    /// How a request's body ends.
    pub fn request_body(&self) -> Body {
        self.framed(Body::Length(0))
    }

    /// How the body of an answer to a request of this method ends.
    pub fn answer_body(&self, method: &str) -> Body {
        match self.status() {
            _ if method == "HEAD" => Body::Length(0),
            100..=199 | 204 | 304 => Body::Length(0),
            _ => self.framed(Body::Connection),
        }
    }
}

/// What becomes of the next bytes of a body.
pub(super) enum Step {
    /// They go on.
    On,
    /// Only the first of them, and nothing after them.
    Stop(usize),
}

/// Passes a body on, with its framing. `look` sees each piece and its place in the body before it goes on, and may change
/// it. Whether it came to its end.
pub(super) fn carry(
    from: &mut impl BufRead,
    to: &mut impl Write,
    body: Body,
    mut look: impl FnMut(u64, &mut [u8]) -> Step,
) -> io::Result<bool> {
    let mut at = 0;
    match body {
        Body::Length(len) => piece(from, to, len, &mut at, &mut look, false),
        Body::Connection => piece(from, to, u64::MAX, &mut at, &mut look, true),
        Body::Chunked => loop {
            let line = line(from)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| ErrorKind::InvalidData)?;
            to.write_all(line.as_bytes())?;
            if size == 0 {
                loop {
                    let trailer = self::line(from)?;
                    to.write_all(trailer.as_bytes())?;
                    if trailer.trim().is_empty() {
                        return Ok(true);
                    }
                }
            }
            if !piece(from, to, size, &mut at, &mut look, false)? {
                return Ok(false);
            }
            let end = self::line(from)?;
            to.write_all(end.as_bytes())?;
        },
    }
}

/// Somebody who may stop listening before everything is said, for they have answered already: the rest is dropped.
pub(super) struct Forgiving<W> {
    pub to: W,
    broken: bool,
}

impl<W> Forgiving<W> {
    pub fn new(to: W) -> Self {
        Self { to, broken: false }
    }
}

impl<W: Write> Write for Forgiving<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.broken = self.broken || self.to.write_all(bytes).is_err();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Somebody who is told little at a time, with pauses; without a pace, everything at once.
pub(super) struct Paced<W> {
    pub to: W,
    pub pace: Option<(usize, Duration)>,
}

impl<W: Write> Write for Paced<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some((most, pause)) = self.pace else { return self.to.write(bytes) };
        thread::sleep(pause);
        self.to.write(&bytes[..bytes.len().min(most.max(1))])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.take(LONGEST_HEAD).read_line(&mut line)?;
    if line.ends_with('\n') { Ok(line) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

fn piece(
    from: &mut impl BufRead,
    to: &mut impl Write,
    len: u64,
    at: &mut u64,
    look: &mut impl FnMut(u64, &mut [u8]) -> Step,
    ends_anywhere: bool,
) -> io::Result<bool> {
    let (mut chunk, mut left) = (vec![0; CHUNK], len);
    // What has no bytes is looked at, too: it may be to stop before them.
    if *at == 0
        && let Step::Stop(_) = look(0, &mut [])
    {
        return Ok(false);
    }
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
        let read = from.read(&mut chunk[..most])?;
        if read == 0 {
            return if ends_anywhere { Ok(true) } else { Err(ErrorKind::UnexpectedEof.into()) };
        }
        match look(*at, &mut chunk[..read]) {
            Step::On => to.write_all(&chunk[..read])?,
            Step::Stop(first) => {
                to.write_all(&chunk[..first.min(read)])?;
                return Ok(false);
            }
        }
        *at += read as u64;
        left -= read as u64;
    }
    Ok(true)
}
