// SPDX-License-Identifier: Apache-2.0
//! The client at standard input and output.

use std::{
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    thread::{self, JoinHandle},
};

use driver_api::{Error, ErrorKind, Result};
use rustix::{
    fs::{FileType, Stat, fstat},
    net::sockopt::socket_acceptconn,
};

use crate::export::relay;

const REMEDY: &str = "let the client start it, such as nbdfuse with `--command novastor serve --stdio`: \
                      a socket, or a pipe on each side";

/// The client's end of a conversation.
pub(super) struct Client {
    /// What the NBD server reads and writes.
    pub(super) socket: OwnedFd,
    /// Ends once everything that was written there has reached the client; none where it goes there by itself.
    pub(super) relay: Option<JoinHandle<()>>,
}

/// Takes the client at standard input and output.
pub(super) fn client() -> Result<Client> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    take(stdin.as_fd(), stdout.as_fd(), stderr.as_fd())
}

fn take(input: BorrowedFd<'_>, output: BorrowedFd<'_>, log: BorrowedFd<'_>) -> Result<Client> {
    let refuse = |why: &str| Error::new(ErrorKind::INVALID_ARGUMENT, why).remedy(REMEDY);
    let failed = |error: std::io::Error| {
        Error::from_io("standard input and output cannot be used", &error).remedy(REMEDY)
    };
    let stat = |fd: BorrowedFd<'_>| fstat(fd).map_err(|errno| failed(errno.into()));
    let (read, written) = (stat(input)?, stat(output)?);
    let same = |other: &Stat| (other.st_dev, other.st_ino) == (read.st_dev, read.st_ino);
    let kind = |stat: &Stat| FileType::from_raw_mode(stat.st_mode);
    let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(failed);
    match (kind(&read), kind(&written)) {
        (FileType::Socket, _) => {
            if socket_acceptconn(input).map_err(|errno| failed(errno.into()))? {
                return Err(refuse("standard input is a socket that waits for clients")
                    .remedy("hand it over by LISTEN_FDS, or the client's connection as stdin"));
            }
            if fstat(log).is_ok_and(|log| same(&log)) {
                return Err(refuse(
                    "standard error is the client's socket, which the log would break",
                )
                .remedy("send standard error elsewhere, such as 2>>/var/log/novastor.log"));
            }
            let socket = own(input)?;
            rustix::io::ioctl_fionbio(&socket, false).map_err(|errno| failed(errno.into()))?;
            Ok(Client { socket, relay: None })
        }
        (FileType::Fifo, FileType::Fifo) => {
            let (here, there) = UnixStream::pair().map_err(failed)?;
            let (input, output) = (own(input)?, own(output)?);
            let joining = move || {
                if let Err(error) = relay::join(input, output, there) {
                    tracing::warn!(%error, "the client's conversation broke off");
                }
            };
            let relay = thread::Builder::new().name("stdio".into()).spawn(joining);
            Ok(Client { socket: here.into(), relay: Some(relay.map_err(failed)?) })
        }
        _ => Err(refuse("no NBD client is at standard input and output")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn a_socket_is_the_client() {
        let (here, mut there) = UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        let null = File::open("/dev/null").unwrap();
        let client = take(here.as_fd(), null.as_fd(), null.as_fd()).unwrap();
        there.write_all(b"hi").unwrap();
        let mut socket = UnixStream::from(client.socket);
        let mut got = [0; 2];
        socket.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hi");
        let error = take(here.as_fd(), here.as_fd(), here.as_fd()).err().unwrap();
        assert!(error.message().contains("standard error"), "{error}");
    }

    #[test]
    fn two_pipes_are_joined_to_a_socket() {
        let (input, typed) = rustix::pipe::pipe().unwrap();
        let (shown, output) = rustix::pipe::pipe().unwrap();
        let null = File::open("/dev/null").unwrap();
        let client = take(input.as_fd(), output.as_fd(), null.as_fd()).unwrap();
        drop((input, output));
        File::from(typed).write_all(b"question").unwrap();
        let mut socket = UnixStream::from(client.socket);
        let mut question = String::new();
        socket.read_to_string(&mut question).unwrap();
        assert_eq!(question, "question");
        socket.write_all(b"answer").unwrap();
        drop(socket);
        client.relay.unwrap().join().unwrap();
        let mut answer = String::new();
        File::from(shown).read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
    }

    #[test]
    fn what_is_no_client_is_refused() {
        let null = File::open("/dev/null").unwrap();
        assert!(take(null.as_fd(), null.as_fd(), null.as_fd()).is_err());
        let (read, write) = rustix::pipe::pipe().unwrap();
        assert!(take(read.as_fd(), null.as_fd(), null.as_fd()).is_err());
        drop(write);
        let waiting = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = take(waiting.as_fd(), null.as_fd(), null.as_fd()).err().unwrap();
        assert!(error.message().contains("waits for clients"), "{error}");
    }
}
