// SPDX-License-Identifier: Apache-2.0
//! The server: `remote-server SOCKET DIRECTORY` keeps volumes as plain files `NAME.raw` of the directory.
//!
//! Each connection has a process of its own, which does what it is asked in order and ends with its client. It says
//! `session PID NAME` when its client opens a volume, so that a test can freeze it: what the socket holds then is done
//! when the process goes on, however long nobody waits for it any more.
//!
//! While the directory has a file `full`, writes get no room that they do not have; while it has `refuses-flush`, flushes
//! fail.

#[path = "../wire.rs"]
mod wire;

mod session;

use std::{
    env, io,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
};

/// The word by which the server starts itself for a connection.
const SESSION: &str = "--session";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let served = match &words[..] {
        [word, directory] if word == SESSION => session::serve(Path::new(directory)),
        [socket, directory] => listen(socket, directory),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "usage: remote-server SOCKET DIRECTORY",
        )),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("remote-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn listen(socket: &str, directory: &str) -> io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    println!("listening");
    let program = env::current_exe()?;
    for connection in listener.incoming() {
        let connection = OwnedFd::from(connection?);
        let mut session = Command::new(&program)
            .args([SESSION, directory])
            .stdin(Stdio::from(connection))
            .spawn()?;
        thread::spawn(move || match session.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("remote-server: session {} ended: {status}", session.id()),
            Err(error) => eprintln!("remote-server: session {}: {error}", session.id()),
        });
    }
    Ok(())
}
