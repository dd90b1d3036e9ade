// SPDX-License-Identifier: Apache-2.0
//! Blocks that one client writes one after the other, and when each was acknowledged: what the client knows, whatever the
//! host says of itself.

use std::{
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{BLOCK, DECOY, MOST_BYTES, MOST_SECS};
use crate::{
    cluster::Cluster,
    failure::{Context, Failure, Outcome, ensure},
    nbd::{self, Client, Command},
};

/// Blocks that are read at once.
const AT_ONCE: u64 = 256;

/// Writes of one client, and how many of them were acknowledged.
#[derive(Default)]
pub(super) struct Journal {
    /// The block that was written first.
    first: u64,
    /// Between two writes.
    pause: Duration,
    acknowledged: AtomicU64,
    /// Of each block, from the first.
    writes: Mutex<Vec<Write>>,
    ends: AtomicBool,
}

/// A write that was acknowledged.
#[derive(Clone, Copy)]
struct Write {
    begun: Instant,
    acknowledged: Instant,
}

impl Journal {
    /// One that goes on with this block.
    pub(super) fn from(first: u64, pause: Duration) -> Self {
        Self { first, pause, acknowledged: AtomicU64::new(first), ..Self::default() }
    }

    /// Writes until it is ended, or the host refuses.
    pub(super) fn write(&self, client: &mut Client) -> Outcome {
        for block in self.first..DECOY {
            if self.has_ended() {
                return Ok(());
            }
            let (begun, data) = (Instant::now(), content(block));
            let write = Command::Write { fua: false };
            match client.call(write, block * BLOCK, BLOCK as u32, &data) {
                Ok(_) => self.note(begun),
                Err(nbd::Error::Refused(_)) => return Ok(()),
                Err(error) => return Err(Failure::new(error.to_string())),
            }
            thread::sleep(self.pause);
        }
        Ok(())
    }

    /// Writes no more.
    pub(super) fn end(&self) {
        self.ends.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ends.load(Ordering::SeqCst)
    }

    fn note(&self, begun: Instant) {
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.push(Write { begun, acknowledged: Instant::now() });
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
    }

    /// The first block that was not acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// How many were acknowledged in a time.
    pub(super) fn count_between(&self, from: Instant, to: Instant) -> usize {
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.iter().filter(|write| (from..to).contains(&write.acknowledged)).count()
    }

    /// These were acknowledged and are lost: no more than the bound allows. Gives the seconds that they span.
    pub(super) fn lost_within_bound(&self, lost: Range<u64>) -> Outcome<f64> {
        let bytes = (lost.end - lost.start) * BLOCK;
        ensure(bytes <= MOST_BYTES, || format!("{bytes} bytes are lost, {MOST_BYTES} allowed"))?;
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |block: u64| {
            let index = block.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
            index.and_then(|index| writes.get(index))
        };
        let ends = lost.end.checked_sub(1).and_then(|last| Some((of(lost.start)?, of(last)?)));
        let Some((first, last)) = ends.filter(|_| !lost.is_empty()) else {
            return Err(Failure::new(format!("no acknowledged writes: {lost:?}")));
        };
        let span = (last.acknowledged - first.acknowledged).as_secs_f64();
        // The last of them began within the bound, and took its time.
        let allowed = MOST_SECS + (last.acknowledged - last.begun).as_secs_f64();
        ensure(span <= allowed, || {
            format!("what is lost was acknowledged within {span:.3} s, {allowed:.3} s allowed")
        })?;
        Ok(span)
    }
}

/// What a block has once it was written.
pub(super) fn content(block: u64) -> Vec<u8> {
    (block + 1).to_le_bytes().repeat(BLOCK as usize / 8)
}

/// How many blocks are there, of which none may follow a missing one.
pub(super) fn prefix(cluster: &Cluster) -> Outcome<u64> {
    let mut client = cluster.host.connect("disk")?;
    // A session that wrote something reads nothing older than that.
    let write = Command::Write { fua: false };
    client.call(write, DECOY * BLOCK, BLOCK as u32, &content(DECOY)).context("a write")?;
    let mut found = 0;
    let mut missing = None;
    for first in (0..DECOY).step_by(AT_ONCE as usize) {
        let count = AT_ONCE.min(DECOY - first);
        let data = client
            .call(Command::Read, first * BLOCK, (count * BLOCK) as u32, &[])
            .context(format!("blocks from {first} on"))?;
        for (block, data) in (first..).zip(data.chunks(BLOCK as usize)) {
            if data == content(block) {
                ensure(missing.is_none(), || format!("{block} is there, and {missing:?} is not"))?;
                found = block + 1;
            } else {
                let is_zero = data.iter().all(|byte| *byte == 0);
                ensure(is_zero, || format!("{block} is torn or foreign"))?;
                missing = missing.or(Some(block));
            }
        }
    }
    Ok(found)
}
