// SPDX-License-Identifier: Apache-2.0
//! Plays hostile sessions against a host, many at once, and holds the host to an end of each.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::session::Session;
use crate::failure::{Context, Failure, Outcome, ensure};

/// A host that has not closed a connection whose client said its last word so long ago hangs.
const HANGS: Duration = Duration::from_secs(20);
/// A client that may not read waits so long for the host to take more, and leaves.
const FULL: Duration = Duration::from_millis(10);
/// Clients at once.
const AT_ONCE: u64 = 4;

/// Plays the sessions that `make` gives for the numbers below `count`.
///
/// # Errors
/// When the host refuses to talk, or does not end a session.
pub fn all(socket: &Path, count: u64, make: impl Fn(u64) -> Session + Sync) -> Outcome {
    let next = AtomicU64::new(0);
    let work = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return Ok(());
        }
        if let Err(failure) = play(socket, &make(number)) {
            // The others need not go on.
            next.store(count, Ordering::Relaxed);
            return Err(failure).context(format!("session {number}"));
        }
    };
    thread::scope(|scope| {
        let players: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let ended = players
            .into_iter()
            .map(|player| player.join().unwrap_or_else(|_| Err(Failure::new("a player panicked"))));
        ended.collect()
    })
}

/// Plays one session to its end.
///
/// # Errors
/// When the host is gone or does not end it.
pub fn play(socket: &Path, session: &Session) -> Outcome {
    let mut stream = UnixStream::connect(socket).context("connect")?;
    stream.set_nonblocking(true).context("socket")?;
    let since = Instant::now();
    if !say(&mut stream, session, since)? || session.leaves {
        return Ok(());
    }
    // The host may have closed already.
    let _ = stream.shutdown(Shutdown::Write);
    loop {
        if swallow(&mut stream) {
            return Ok(());
        }
        ensure(since.elapsed() < HANGS, || {
            format!("not ended after {} s: {session:?}", HANGS.as_secs())
        })?;
        wait(&stream, PollFlags::IN, HANGS)?;
    }
}

/// Says everything, unless the host ends the session before: then false.
fn say(stream: &mut UnixStream, session: &Session, since: Instant) -> Outcome<bool> {
    for mut part in session.bytes.chunks(session.step) {
        while !part.is_empty() {
            match stream.write(part) {
                Ok(count) => part = &part[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let (events, patience) = if session.reads {
                        (PollFlags::OUT | PollFlags::IN, HANGS)
                    } else {
                        (PollFlags::OUT, FULL)
                    };
                    let ready = wait(stream, events, patience)?;
                    if !ready && !session.reads {
                        return Ok(false);
                    }
                    ensure(since.elapsed() < HANGS, || format!("takes nothing more: {session:?}"))?;
                }
                Err(_) => return Ok(false),
            }
            if session.reads && swallow(stream) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Reads what there is. Whether the host has closed.
fn swallow(stream: &mut UnixStream) -> bool {
    let mut buffer = [0; 16 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// Whether any of `events` came in time.
fn wait(stream: &UnixStream, events: PollFlags, time: Duration) -> Outcome<bool> {
    let time = Timespec {
        tv_sec: i64::try_from(time.as_secs()).context("time")?,
        tv_nsec: time.subsec_nanos().into(),
    };
    let ready = poll(&mut [PollFd::new(stream, events)], Some(&time));
    ready.map(|count| count > 0).map_err(io::Error::from).context("poll")
}
