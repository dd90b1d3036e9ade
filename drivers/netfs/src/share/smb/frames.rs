// SPDX-License-Identifier: Apache-2.0
//! Frames as they are on the wire: a length, and one message or several, each with its header.

use std::io;

use bytes::{BufMut, Bytes};
use smb2::msg::header::Header;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::share::nfs3::memory::{Lent, Memory};

/// Bytes of a message's header.
pub(super) const HEADER: usize = Header::SIZE;
/// The longest frame that is taken: the largest read, and the words around it.
pub(super) const LONGEST: usize = (1 << 20) + (64 << 10);
/// From this length on, a frame is read into memory that is used again.
const LONG: usize = 32 << 10;

/// It is about the file of the message before.
pub(super) const RELATED: u32 = 4;
/// It is signed.
pub(super) const SIGNED: u32 = 8;

/// The server has begun, and goes on to say so later.
pub(super) fn is_interim(header: &Header) -> bool {
    header.status.is_pending() && header.flags.is_async()
}

/// Where a message of a frame ends, of which there are `len` bytes.
pub(super) fn end_of(header: &Header, at: usize, len: usize) -> Option<usize> {
    match header.next_command as usize {
        0 => Some(len),
        next if next < HEADER || next % 8 != 0 => None,
        next => at.checked_add(next).filter(|end| end + HEADER <= len),
    }
}

/// Appends a header, whose signature is still to come.
pub(super) fn write_header(out: &mut impl BufMut, header: &Header, flags: u32) {
    out.put_slice(b"\xfeSMB");
    out.put_u16_le(HEADER as u16);
    out.put_u16_le(header.credit_charge.0);
    out.put_u32_le(0);
    out.put_u16_le(u16::from(header.command));
    out.put_u16_le(header.credits);
    out.put_u32_le(flags);
    out.put_u32_le(header.next_command);
    out.put_u64_le(header.message_id.0);
    out.put_u32_le(0);
    out.put_u32_le(header.tree_id.unwrap_or_default().0);
    out.put_u64_le(header.session_id.0);
    out.put_slice(&[0; 16]);
}

/// The next frame; `heard` is told whenever some of it has come.
pub(super) async fn next(
    socket: &mut (impl AsyncRead + Unpin),
    memory: &Memory,
    heard: impl Fn(),
) -> io::Result<Raw> {
    let mut mark = [0; 4];
    fill(socket, &mut mark, &heard).await?;
    let length = u32::from_be_bytes(mark) as usize;
    if !(HEADER..=LONGEST).contains(&length) {
        let why = format!("the server sent a message of {length} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut frame =
        if length < LONG { Raw::Short(vec![0; length]) } else { Raw::Long(memory.lend(length)) };
    fill(socket, frame.bytes(), &heard).await?;
    Ok(frame)
}

async fn fill(
    socket: &mut (impl AsyncRead + Unpin),
    into: &mut [u8],
    heard: &impl Fn(),
) -> io::Result<()> {
    let mut filled = 0;
    while filled < into.len() {
        match socket.read(&mut into[filled..]).await? {
            0 => {
                let why = "the server closed the connection";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            }
            count => filled += count,
        }
        heard();
    }
    Ok(())
}

/// A frame as it came.
pub(super) enum Raw {
    /// In memory of its own.
    Short(Vec<u8>),
    /// In memory that is used again.
    Long(Lent),
}

impl Raw {
    /// How many bytes it has.
    pub fn len(&self) -> usize {
        match self {
            Self::Short(data) => data.len(),
            Self::Long(data) => data.as_ref().len(),
        }
    }

    /// Its bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        match self {
            Self::Short(data) => data,
            Self::Long(data) => data.bytes(),
        }
    }

    /// It, for any number of readers.
    pub fn frozen(self) -> Bytes {
        match self {
            Self::Short(data) => data.into(),
            Self::Long(data) => data.frozen(),
        }
    }
}
