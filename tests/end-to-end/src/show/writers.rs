// SPDX-License-Identifier: Apache-2.0
//! Clients of a host that is taken over under their hands: they go on writing, and tell a write that must fail from one that
//! may.

use std::{
    collections::HashMap,
    ops::Range,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    failure::{Context, Failure, Outcome, ensure},
    ledger::{Ledger, SECTOR, Version, content},
    nbd::{Client, Command},
    random::Random,
};

/// What NBD calls an attachment that another took over.
pub(super) const FENCED: u32 = 108;
/// Writes in flight of each writer.
const DEPTH: u64 = 16;
/// The longest write, in sectors.
const LONGEST: u64 = 24;
/// Between the requests of a writer that is refused all of them.
const PAUSE: Duration = Duration::from_millis(5);

/// How far the host's end has come.
#[derive(Default)]
pub(super) struct Course {
    /// It is about to be taken over: a request under way may fail.
    pub may_fail: AtomicBool,
    /// It is taken over, or stands still until it is: what is sent from now on must fail.
    pub must_fail: AtomicBool,
    /// The writers may leave.
    pub over: AtomicBool,
    flushes: AtomicU64,
    interrupted: AtomicU64,
    refused: AtomicU64,
}

impl Course {
    /// Flushes and FUA writes that were acknowledged.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Requests that failed, but were sent before they had to.
    pub fn interrupted(&self) -> u64 {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Requests that failed as they had to.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Judges a reply to a request, before whose sending `late` said whether it must fail: whether it was a success.
    fn judge(&self, late: bool, result: Result<(), u32>) -> Outcome<bool> {
        match result {
            Ok(()) if late => Err(Failure::new(
                "the fenced host acknowledged what it took after it had lost the volume",
            )),
            Ok(()) => Ok(true),
            Err(error) => {
                ensure(self.may_fail.load(Ordering::SeqCst), || {
                    format!("error {error} before anybody else wanted the volume")
                })?;
                ensure(error == FENCED, || format!("error {error}, where {FENCED} was to come"))?;
                let counter = if late { &self.refused } else { &self.interrupted };
                counter.fetch_add(1, Ordering::Relaxed);
                Ok(false)
            }
        }
    }
}

/// The writers of a volume, each with a part of it, and what they were promised.
pub(super) struct Writers(Vec<Mutex<Writer>>);

struct Writer {
    ledger: Ledger,
    random: Random,
}

/// A write whose reply is awaited.
struct Sent {
    sectors: Range<u64>,
    version: Version,
    fua: bool,
    late: bool,
}

impl Writers {
    /// Writers of a volume that reads zeros.
    pub fn new(sectors: u64, count: u64, random: &mut Random) -> Self {
        let share = sectors / count;
        let mut writer = |index: u64| {
            let ledger = Ledger::new(index * share..(index + 1) * share);
            Mutex::new(Writer { ledger, random: Random::new(random.number()) })
        };
        Self((0..count).map(&mut writer).collect())
    }

    /// Writes while `work` is done, and until it says that it is over.
    ///
    /// # Errors
    /// When the work fails, or a request is answered otherwise than it must be.
    pub fn during(
        &self,
        (socket, export): (&Path, &str),
        course: &Course,
        work: impl FnOnce() -> Outcome,
    ) -> Outcome {
        thread::scope(|scope| {
            let write = |writer: &Mutex<Writer>| {
                let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                writer.write(socket, export, course).context("a client of the first host")
            };
            let writers: Vec<_> =
                self.0.iter().map(|writer| scope.spawn(move || write(writer))).collect();
            let worked = work();
            course.over.store(true, Ordering::SeqCst);
            let joined = writers.into_iter().map(|writer| {
                writer.join().unwrap_or_else(|_| Err(Failure::new("a writer panicked")))
            });
            // Why a writer failed comes first: it may be why the work did.
            joined.collect::<Vec<_>>().into_iter().chain([worked]).collect()
        })
    }

    /// Compares what the next holder found with what the writers were promised.
    ///
    /// # Errors
    /// When a sector is older than promised, torn or foreign.
    pub fn verify(&self, found: &[u8]) -> Outcome {
        for writer in &self.0 {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            let sectors = writer.ledger.sectors();
            let place = |sector: u64| usize::try_from(sector * u64::from(SECTOR)).context("place");
            let bytes = &found[place(sectors.start)?..place(sectors.end)?];
            writer.ledger.observed(sectors.start, bytes).context("what the second host found")?;
        }
        Ok(())
    }
}

impl Writer {
    fn write(&mut self, socket: &Path, export: &str, course: &Course) -> Outcome {
        let mut client = Client::connect(socket, export).context("connect")?;
        while !course.over.load(Ordering::SeqCst) {
            let refused = self.batch(&mut client, course)?;
            if self.random.once_in(3) {
                let late = course.must_fail.load(Ordering::SeqCst);
                client.send(Command::Flush, 0, 0, &[]).context("flush")?;
                let (_, result) = client.receive_any().context("flush")?;
                // One that has nothing to wait for may succeed at any time: it vouches for what was acknowledged before, which
                // the next holder must find.
                if result.is_ok() || course.judge(late, result.map(drop)).context("flush")? {
                    self.ledger.flushed();
                    course.flushes.fetch_add(1, Ordering::Relaxed);
                }
            }
            if refused {
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// Sends a batch of writes that do not overlap, and waits for their replies: whether any failed.
    fn batch(&mut self, client: &mut Client, course: &Course) -> Outcome<bool> {
        let mut in_flight = HashMap::new();
        let Range { start, end } = self.ledger.sectors();
        let share = (end - start) / DEPTH;
        for part in 0..DEPTH {
            let first = start + part * share + self.random.within(0..share - LONGEST);
            let sectors = first..first + 1 + self.random.within(0..LONGEST);
            let fua = self.random.once_in(4);
            let version = self.ledger.next_version();
            let late = course.must_fail.load(Ordering::SeqCst);
            if !late {
                self.ledger.written(sectors.clone(), version);
            }
            let data = content(sectors.clone(), version);
            let len = u32::try_from(data.len()).context("length")?;
            let offset = sectors.start * u64::from(SECTOR);
            let cookie =
                client.send(Command::Write { fua }, offset, len, &data).context("write")?;
            in_flight.insert(cookie, Sent { sectors, version, fua, late });
        }
        let mut refused = false;
        while !in_flight.is_empty() {
            let (cookie, result) = client.receive_any().context("write")?;
            let Some(sent) = in_flight.remove(&cookie) else {
                return Err(Failure::new("a reply to no write"));
            };
            let succeeded = course.judge(sent.late, result.map(drop)).context("write")?;
            refused |= !succeeded;
            if succeeded && sent.fua {
                self.ledger.settled(sent.sectors);
                course.flushes.fetch_add(1, Ordering::Relaxed);
            } else if !succeeded && !sent.late {
                self.ledger.refused(sent.sectors, sent.version);
            }
        }
        Ok(refused)
    }
}
