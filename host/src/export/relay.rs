// SPDX-License-Identifier: Apache-2.0
//! Joins a pair of files, such as standard input and output, to a stream socket.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    thread,
};

use rustix::net::{Shutdown as Half, shutdown};

/// Bytes that are copied at once at most.
const AT_ONCE: usize = 256 << 10;

/// Copies both ways until the socket's other end has said all, and everything of it is in `output`.
///
/// The end of `input` is passed on, and does not end the answers.
pub fn join(input: OwnedFd, output: OwnedFd, socket: UnixStream) -> io::Result<()> {
    let mut sending = socket.try_clone()?;
    // It may wait for input that never comes; the process, or the file's other end, ends it.
    thread::Builder::new().name("relay".into()).spawn(move || {
        if let Err(error) = copy(&mut File::from(input), &mut sending)
            && !left(&error)
        {
            tracing::warn!(%error, "a client's input broke off");
        }
        // It fails only where the other end is gone already.
        let _ = sending.shutdown(Shutdown::Write);
    })?;
    let mut output = File::from(output);
    let copied = match copy(&mut &socket, &mut output) {
        Err(error) if left(&error) => Ok(()),
        result => result,
    };
    // Where it is a socket, others may hold it open; what is no socket ends when it is dropped.
    let _ = shutdown(&output, Half::Write);
    let _ = socket.shutdown(Shutdown::Both);
    copied
}

/// As [`io::copy`] does it for other files. Here it would use splice(2), after which readers of a pipe were seen asleep
/// although there was something for them.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; AT_ONCE];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether somebody went away, which ends a conversation as well as a good-bye.
fn left(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn pipe() -> (File, File) {
        let (read, write) = rustix::pipe::pipe().unwrap();
        (read.into(), write.into())
    }

    #[test]
    fn the_end_of_the_input_leaves_the_answers_alone() {
        let (input, mut typed) = pipe();
        let (mut shown, output) = pipe();
        let (here, mut there) = UnixStream::pair().unwrap();
        let joining = thread::spawn(move || join(input.into(), output.into(), here));
        typed.write_all(b"question").unwrap();
        drop(typed);
        let mut question = String::new();
        there.read_to_string(&mut question).unwrap();
        assert_eq!(question, "question");
        there.write_all(b"answer").unwrap();
        drop(there);
        joining.join().unwrap().unwrap();
        let mut answer = String::new();
        shown.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
    }

    #[test]
    fn it_ends_with_the_socket_although_the_input_stays_open() {
        let (input, _typed) = pipe();
        let (mut shown, output) = pipe();
        let (here, there) = UnixStream::pair().unwrap();
        drop(there);
        join(input.into(), output.into(), here).unwrap();
        assert_eq!(shown.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn a_reader_that_is_gone_ends_it_too() {
        let (input, _typed) = pipe();
        let (shown, output) = pipe();
        let (here, mut there) = UnixStream::pair().unwrap();
        drop(shown);
        let joining = thread::spawn(move || join(input.into(), output.into(), here));
        there.write_all(&[7; 100]).unwrap();
        joining.join().unwrap().unwrap();
    }
}
