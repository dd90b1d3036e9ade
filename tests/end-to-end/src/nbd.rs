// SPDX-License-Identifier: Apache-2.0
//! A small NBD client that keeps several requests in flight and tells a lost connection from a refused request.

use std::{
    collections::HashMap,
    fmt,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;

/// The client speaks fixed newstyle, without the zeroes at the end.
const CLIENT_FLAGS: u32 = 3;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERROR: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;
const FLAG_CAN_MULTI_CONN: u16 = 1 << 8;
const FLAG_FUA: u16 = 1;

/// How long a host may be silent before it counts as hung: longer than any scene takes away what it stands on.
const SILENCE: Duration = Duration::from_secs(120);
/// Larger option replies than this are nonsense.
const LONGEST_OPTION: u32 = 64 << 10;

/// The error of a write for which there is no room.
pub const NO_SPACE: u32 = 28;

/// Why an operation failed.
#[derive(Debug)]
pub enum Error {
    /// The connection broke: expected when the host was killed.
    Lost(io::Error),
    /// The host is silent.
    Silent,
    /// The host refused, for this reason.
    Refused(String),
    /// The host broke the protocol.
    Protocol(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(error) => write!(f, "connection lost: {error}"),
            Self::Silent => write!(f, "no answer for {} s", SILENCE.as_secs()),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
            Self::Protocol(what) => write!(f, "protocol broken: {what}"),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Lost(error),
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read into the reply.
    Read,
    /// Write the request's data.
    Write {
        /// Durable once acknowledged.
        fua: bool,
    },
    /// Make everything acknowledged durable.
    Flush,
    /// Give the range back; what it then reads is left to the server.
    Trim,
    /// Write zeros.
    WriteZeroes {
        /// Durable once acknowledged.
        fua: bool,
    },
}

impl Command {
    fn number(self) -> u16 {
        match self {
            Self::Read => 0,
            Self::Write { .. } => 1,
            Self::Flush => 3,
            Self::Trim => 4,
            Self::WriteZeroes { .. } => 6,
        }
    }

    fn flags(self) -> u16 {
        match self {
            Self::Write { fua: true } | Self::WriteZeroes { fua: true } => FLAG_FUA,
            _ => 0,
        }
    }
}

/// A connection in transmission.
pub struct Client {
    stream: UnixStream,
    size: u64,
    flags: u16,
    next: u64,
    /// Requests in flight, with the bytes that their reply carries.
    pending: HashMap<u64, u32>,
}

impl Client {
    /// Connects to an export.
    ///
    /// # Errors
    /// When the server refuses, or is none.
    pub fn connect(socket: &Path, export: &str) -> Result<Self, Error> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let mut client = Self { stream, size: 0, flags: 0, next: 0, pending: HashMap::new() };
        client.negotiate(export)?;
        Ok(client)
    }

    fn negotiate(&mut self, export: &str) -> Result<(), Error> {
        let (magic, option) = (self.u64()?, self.u64()?);
        let flags = self.u16()?;
        if magic != NBDMAGIC || option != IHAVEOPT || flags & 3 != 3 {
            return Err(Error::Protocol("no fixed newstyle server".to_owned()));
        }
        let name = export.as_bytes();
        let name_len =
            u32::try_from(name.len()).map_err(|_| Error::Refused("name too long".to_owned()))?;
        let mut message = CLIENT_FLAGS.to_be_bytes().to_vec();
        message.extend(IHAVEOPT.to_be_bytes());
        message.extend(OPT_GO.to_be_bytes());
        message.extend((name_len + 6).to_be_bytes());
        message.extend(name_len.to_be_bytes());
        message.extend(name);
        message.extend(0_u16.to_be_bytes());
        self.stream.write_all(&message)?;
        loop {
            let (magic, _option, kind, len) = (self.u64()?, self.u32()?, self.u32()?, self.u32()?);
            if magic != OPTION_REPLY || len > LONGEST_OPTION {
                return Err(Error::Protocol("no option reply".to_owned()));
            }
            let data = self.bytes(len)?;
            match (kind, data.as_slice()) {
                (REP_ACK, _) => return Ok(()),
                (REP_INFO, [k0, k1, size @ .., f0, f1])
                    if u16::from_be_bytes([*k0, *k1]) == INFO_EXPORT =>
                {
                    self.flags = u16::from_be_bytes([*f0, *f1]);
                    let size = <[u8; 8]>::try_from(size)
                        .map_err(|_| Error::Protocol("export information".to_owned()))?;
                    self.size = u64::from_be_bytes(size);
                }
                (kind, text) if kind & REP_ERROR != 0 => {
                    return Err(Error::Refused(format!(
                        "{export}: {}",
                        String::from_utf8_lossy(text)
                    )));
                }
                _ => {}
            }
        }
    }

    /// The export's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The socket, for somebody with a way of its own.
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// Whether a flush on one connection covers all.
    pub fn can_multi_conn(&self) -> bool {
        self.flags & FLAG_CAN_MULTI_CONN != 0
    }

    /// How many requests wait for their replies.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Sends a request without waiting; `data` is what a write writes. Returns the number that its reply bears.
    ///
    /// # Errors
    /// When the connection broke.
    pub fn send(
        &mut self,
        command: Command,
        offset: u64,
        len: u32,
        data: &[u8],
    ) -> Result<u64, Error> {
        let cookie = self.next;
        self.next += 1;
        let mut message = Vec::with_capacity(28 + data.len());
        message.extend(REQUEST.to_be_bytes());
        message.extend(command.flags().to_be_bytes());
        message.extend(command.number().to_be_bytes());
        message.extend(cookie.to_be_bytes());
        message.extend(offset.to_be_bytes());
        message.extend(len.to_be_bytes());
        message.extend(data);
        self.stream.write_all(&message)?;
        self.pending.insert(cookie, if command == Command::Read { len } else { 0 });
        Ok(cookie)
    }

    /// Waits for the next reply, in whatever order the server chose: its number and data.
    ///
    /// # Errors
    /// When the request failed or the connection broke.
    pub fn receive(&mut self) -> Result<(u64, Vec<u8>), Error> {
        match self.receive_any()? {
            (cookie, Ok(data)) => Ok((cookie, data)),
            (_, Err(error)) => Err(Error::Refused(format!("error {error}"))),
        }
    }

    /// The same, with the error of a request that failed.
    ///
    /// # Errors
    /// When the connection broke.
    pub fn receive_any(&mut self) -> Result<(u64, Result<Vec<u8>, u32>), Error> {
        let (magic, error, cookie) = (self.u32()?, self.u32()?, self.u64()?);
        let len = self.pending.remove(&cookie);
        let (SIMPLE_REPLY, Some(len)) = (magic, len) else {
            return Err(Error::Protocol(format!("reply {magic:#x} to request {cookie}")));
        };
        if error != 0 {
            return Ok((cookie, Err(error)));
        }
        Ok((cookie, Ok(self.bytes(len)?)))
    }

    /// One request and its reply, with nothing else in flight.
    ///
    /// # Errors
    /// When the request failed or the connection broke.
    pub fn call(
        &mut self,
        command: Command,
        offset: u64,
        len: u32,
        data: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.send(command, offset, len, data)?;
        Ok(self.receive()?.1)
    }

    fn bytes(&mut self, len: u32) -> Result<Vec<u8>, Error> {
        let mut bytes =
            vec![0; usize::try_from(len).map_err(|_| Error::Protocol("length".to_owned()))?];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u16(&mut self) -> Result<u16, Error> {
        let mut bytes = [0; 2];
        self.stream.read_exact(&mut bytes)?;
        Ok(u16::from_be_bytes(bytes))
    }

    fn u32(&mut self) -> Result<u32, Error> {
        let mut bytes = [0; 4];
        self.stream.read_exact(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn u64(&mut self) -> Result<u64, Error> {
        let mut bytes = [0; 8];
        self.stream.read_exact(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }
}
