// SPDX-License-Identifier: Apache-2.0
//! A client that speaks NBD word by word, written from the protocol document and not from the server's code.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

pub const EPERM: u32 = 1;
pub const EIO: u32 = 5;
pub const EINVAL: u32 = 22;
pub const ENOSPC: u32 = 28;
pub const ENOTSUP: u32 = 95;
pub const ESHUTDOWN: u32 = 108;

pub const READ: u16 = 0;
pub const WRITE: u16 = 1;
pub const DISC: u16 = 2;
pub const FLUSH: u16 = 3;
pub const TRIM: u16 = 4;
pub const WRITE_ZEROES: u16 = 6;

pub const FUA: u16 = 1;

pub struct Client {
    pub socket: UnixStream,
    pub size: u64,
    pub flags: u16,
}

/// An answer to an option.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub kind: u32,
    pub data: Vec<u8>,
}

impl Client {
    /// Connects and answers the greeting.
    pub fn greet(path: &Path, client_flags: u32) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut client = Self { socket, size: 0, flags: 0 };
        assert_eq!(client.take(8), b"NBDMAGIC");
        assert_eq!(client.take(8), b"IHAVEOPT");
        assert_eq!(client.take(2), [0, 3], "fixed newstyle, no zeroes");
        client.send(&client_flags.to_be_bytes());
        client
    }

    /// Connects to an export with GO.
    pub fn go(path: &Path, name: &str) -> Self {
        let mut client = Self::greet(path, 3);
        client.send_option(7, &info_data(name, &[3]));
        loop {
            let answer = client.answer(7);
            match (answer.kind, answer.data.first_chunk::<2>()) {
                (1, _) => return client,
                (3, Some([0, 0])) => {
                    client.size = u64::from_be_bytes(answer.data[2..10].try_into().unwrap());
                    client.flags = u16::from_be_bytes(answer.data[10..12].try_into().unwrap());
                }
                (3, _) => {}
                _ => panic!("refused: {answer:?}"),
            }
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.socket.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub fn send_option(&mut self, code: u32, data: &[u8]) {
        let mut bytes = b"IHAVEOPT".to_vec();
        bytes.extend(code.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        self.send(&bytes);
    }

    pub fn answer(&mut self, option: u32) -> Answer {
        assert_eq!(self.take(8), 0x3e889045565a9_u64.to_be_bytes());
        assert_eq!(self.take(4), option.to_be_bytes());
        let kind = self.u32();
        let len = self.u32() as usize;
        Answer { kind, data: self.take(len) }
    }

    /// All answers to an option up to the acknowledgement or the refusal.
    pub fn ask(&mut self, option: u32, data: &[u8]) -> Vec<Answer> {
        self.send_option(option, data);
        let mut answers = Vec::new();
        loop {
            answers.push(self.answer(option));
            let kind = answers[answers.len() - 1].kind;
            if kind == 1 || kind >= 1 << 31 {
                return answers;
            }
        }
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    /// Sends a request, with its data for a write.
    pub fn request(&mut self, command: u16, cookie: u64, offset: u64, len: u32, data: &[u8]) {
        self.request_with(0, command, cookie, offset, len, data);
    }

    pub fn request_with(
        &mut self,
        flags: u16,
        command: u16,
        cookie: u64,
        offset: u64,
        len: u32,
        data: &[u8],
    ) {
        let bytes = request_bytes(flags, command, cookie, offset, len, data);
        self.send(&bytes);
    }

    /// The next reply's cookie and error.
    pub fn reply(&mut self) -> (u64, u32) {
        assert_eq!(self.u32(), 0x67446698);
        let error = self.u32();
        (u64::from_be_bytes(self.take(8).try_into().unwrap()), error)
    }

    /// Sends a request and takes its reply.
    pub fn call(&mut self, flags: u16, command: u16, offset: u64, len: u32, data: &[u8]) -> u32 {
        self.request_with(flags, command, 77, offset, len, data);
        let (cookie, error) = self.reply();
        assert_eq!(cookie, 77);
        error
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) -> u32 {
        self.call(0, WRITE, offset, data.len() as u32, data)
    }

    pub fn read(&mut self, offset: u64, len: u32) -> Vec<u8> {
        assert_eq!(self.call(0, READ, offset, len, &[]), 0);
        self.take(len as usize)
    }

    /// Whether the server has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.socket.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

pub fn request_bytes(
    flags: u16,
    command: u16,
    cookie: u64,
    offset: u64,
    len: u32,
    data: &[u8],
) -> Vec<u8> {
    let mut bytes = 0x25609513_u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend(data);
    bytes
}

pub fn info_data(name: &str, wanted: &[u16]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend((wanted.len() as u16).to_be_bytes());
    for kind in wanted {
        data.extend(kind.to_be_bytes());
    }
    data
}
