// SPDX-License-Identifier: Apache-2.0
//! The batching client: keeps a queue full, and starts new commands for all replies that have come before it waits.
//!
//! It is a process of its own, as clients are: `nbd load JSON` runs a [`Load`] and prints a [`Figures`].

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use end_to_end::{
    failure::{Context, Failure, Outcome, ensure},
    random::{Random, mix},
};
use serde::{Deserialize, Serialize};

use crate::libnbd::{Connection, Libnbd};

/// Each block of this many bytes in an export bears its own offset, so that a read shows where it came from.
pub const STAMPED: usize = 4096;

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    /// The export.
    pub uri: String,
    /// Write instead of read.
    pub write: bool,
    /// Bytes of an operation: a multiple of [`STAMPED`].
    pub block: usize,
    /// Operations in flight on each connection.
    pub depth: usize,
    /// Connections, each with a thread.
    pub connections: usize,
    /// Bytes at the beginning of the export that are used.
    pub area: u64,
    /// How long.
    pub millis: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// Finished operations.
    pub operations: u64,
    /// From the first operation's start to the last one's end.
    pub secs: f64,
}

/// What the block at this offset begins with; never zero.
pub fn stamp(offset: u64) -> u64 {
    mix(offset + 1) | 1
}

/// Writes the stamps of consecutive blocks.
pub fn put_stamps(data: &mut [u8], offset: u64) {
    for (block, offset) in data.chunks_mut(STAMPED).zip((offset..).step_by(STAMPED)) {
        block[..8].copy_from_slice(&stamp(offset).to_le_bytes());
    }
}

fn check_stamp(data: &[u8], offset: u64) -> Outcome {
    ensure(data.starts_with(&stamp(offset).to_le_bytes()), || {
        format!("the data at {offset} are not the ones that belong there")
    })
}

/// Runs a load over all its connections.
///
/// # Errors
/// When a connection fails, or reads what does not belong where it was read.
pub fn run(load: &Load) -> Outcome<Figures> {
    let library = Libnbd::load()?;
    let ready = Barrier::new(load.connections);
    let ends: Vec<Outcome<(u64, Instant, Instant)>> = thread::scope(|scope| {
        let drive = |seed| {
            let (library, ready) = (&library, &ready);
            scope.spawn(move || {
                let connection = Connection::open(library, &load.uri, load.depth, load.block);
                // The others wait for this one, connected or not.
                ready.wait();
                drive(connection?, load, seed)
            })
        };
        let threads: Vec<_> = (1..).take(load.connections).map(drive).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|end| end.unwrap_or_else(|_| Err(Failure::new("a thread panicked")))).collect()
    });
    let ends: Vec<_> = ends.into_iter().collect::<Outcome<_>>()?;
    let first = ends.iter().map(|end| end.1).min();
    let last = ends.iter().map(|end| end.2).max();
    let (Some(first), Some(last)) = (first, last) else {
        return Err(Failure::new("a load without connections"));
    };
    let operations = ends.iter().map(|end| end.0).sum();
    Ok(Figures { operations, secs: (last - first).as_secs_f64() })
}

fn drive(
    mut connection: Connection<'_>,
    load: &Load,
    seed: u64,
) -> Outcome<(u64, Instant, Instant)> {
    let mut random = Random::new(seed);
    let blocks = load.area / load.block as u64;
    let mut offsets = vec![0; load.depth];
    let mut start = |connection: &mut Connection<'_>, slot: usize, offset: &mut u64| {
        *offset = random.within(0..blocks) * load.block as u64;
        if load.write {
            put_stamps(connection.buffer(slot)?, *offset);
            connection.write(slot, *offset)
        } else {
            connection.read(slot, *offset)
        }
    };
    let begin = Instant::now();
    let end = begin + Duration::from_millis(load.millis);
    for (slot, offset) in offsets.iter_mut().enumerate() {
        start(&mut connection, slot, offset)?;
    }
    let (mut operations, mut in_flight) = (0, load.depth);
    while in_flight > 0 {
        let finished = connection.finished()?;
        operations += finished.len() as u64;
        let more = Instant::now() < end;
        for slot in finished {
            if !load.write {
                check_stamp(connection.buffer(slot)?, offsets[slot])?;
            }
            if more {
                start(&mut connection, slot, &mut offsets[slot])?;
            } else {
                in_flight -= 1;
            }
        }
    }
    let last = Instant::now();
    connection.close()?;
    Ok((operations, begin, last))
}

/// What `nbd load` says, read back.
///
/// # Errors
/// When it is no such thing.
pub fn read_figures(text: &str) -> Outcome<Figures> {
    serde_json::from_str(text).context(format!("the load says {text:?}"))
}
