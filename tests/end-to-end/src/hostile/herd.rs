// SPDX-License-Identifier: Apache-2.0
//! Many slow clients, each on a connection of its own, all moved by one thread that mostly sleeps.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::session::{info_data, option, request};
use crate::{
    failure::{Context, Outcome, ensure},
    nbd::Client,
};

const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const MIB: u32 = 1 << 20;

/// How the clients of a herd behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Connect, and say nothing.
    Silent,
    /// Negotiate a byte at a time.
    SlowNegotiation,
    /// Choose the export, and rest.
    Idle,
    /// Send a write of one MiB a byte at a time.
    SlowWrite,
    /// Ask for 64 MiB, and fetch the replies a byte at a time.
    SlowRead,
}

/// Connections that are open.
pub struct Herd {
    habit: Habit,
    export: String,
    members: Vec<Member>,
}

struct Member {
    stream: UnixStream,
    moved: usize,
}

impl Herd {
    /// Opens so many connections.
    ///
    /// # Errors
    /// When the host refuses one.
    pub fn open(socket: &Path, export: &str, habit: Habit, count: usize) -> Outcome<Self> {
        let member = |number: usize| -> Outcome<Member> {
            let connect = || match habit {
                Habit::Silent | Habit::SlowNegotiation => {
                    UnixStream::connect(socket).context("connect")
                }
                _ => Ok(Client::connect(socket, export).context("connect")?.into_stream()),
            };
            let mut stream = connect().context(format!("connection {number} of a herd"))?;
            let first = match habit {
                Habit::SlowWrite => request(CMD_WRITE, 0, 0, MIB),
                Habit::SlowRead => request(CMD_READ, 0, 0, MIB).repeat(64),
                _ => Vec::new(),
            };
            stream.write_all(&first).context("first words")?;
            stream.set_nonblocking(true).context("socket")?;
            Ok(Member { stream, moved: 0 })
        };
        let members = (0..count).map(member).collect::<Outcome<Vec<_>>>()?;
        Ok(Self { habit, export: export.to_owned(), members })
    }

    /// Lets every client do its next small step.
    pub fn step(&mut self) {
        let words = [3_u32.to_be_bytes().to_vec(), option(7, &info_data(&self.export, &[]))];
        let words = words.concat();
        for Member { stream, moved } in &mut self.members {
            // A host that has had enough closes; the survivors are counted apart.
            let done = match self.habit {
                Habit::Silent | Habit::Idle => return,
                Habit::SlowNegotiation => {
                    // Its last byte never comes.
                    let at = (*moved).min(words.len() - 2);
                    stream.write(&words[at..=at])
                }
                Habit::SlowWrite => stream.write(&[0]),
                Habit::SlowRead => stream.read(&mut [0]),
            };
            *moved += done.unwrap_or_default();
        }
    }

    /// How many connections the host has not closed.
    ///
    /// # Errors
    /// When a connection cannot be looked at.
    pub fn survivors(&mut self) -> Outcome<usize> {
        use rustix::{
            io::Errno,
            net::{RecvFlags, recv},
        };
        let mut survivors = 0;
        for Member { stream, .. } in &self.members {
            let mut rest = [0; 4096];
            loop {
                match recv(stream, &mut rest, RecvFlags::DONTWAIT | RecvFlags::PEEK) {
                    Err(Errno::AGAIN) => survivors += 1,
                    Ok((0, _)) | Err(Errno::CONNRESET | Errno::PIPE) => {}
                    // The greeting lies before the end of what a silent client could read.
                    Ok(_) if self.habit != Habit::SlowRead => {
                        recv(stream, &mut rest, RecvFlags::DONTWAIT).context("receive")?;
                        continue;
                    }
                    Ok(_) => survivors += 1,
                    Err(error) => ensure(false, || format!("a connection of a herd: {error}"))?,
                }
                break;
            }
        }
        Ok(survivors)
    }

    /// How long a client rests between two steps.
    pub fn rest(&self) -> Duration {
        Duration::from_millis(500)
    }
}
