// SPDX-License-Identifier: Apache-2.0
use std::{fs::File, io, os::unix::fs::FileExt};

/// A file that can be read anywhere.
pub trait ReadAt {
    /// Reads into `buffer`, and says how much; zero at the end of the file only.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

/// Reads all of `buffer`.
pub(crate) fn read_whole(file: &impl ReadAt, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    match read_some(file, buffer, offset)? {
        read if read == buffer.len() => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends inside a table")),
    }
}

/// Reads `buffer`; what is beyond the end of the file are zeros.
pub(crate) fn read_or_zeros(file: &impl ReadAt, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let read = read_some(file, buffer, offset)?;
    buffer[read..].fill(0);
    Ok(())
}

fn read_some(file: &impl ReadAt, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The big-endian number of four bytes at `at`.
pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The big-endian number of eight bytes at `at`.
pub(crate) fn long(bytes: &[u8], at: usize) -> u64 {
    (u64::from(word(bytes, at)) << 32) | u64::from(word(bytes, at + 4))
}
