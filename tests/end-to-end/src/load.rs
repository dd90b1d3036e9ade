// SPDX-License-Identifier: Apache-2.0
//! Writes until the host dies, and afterwards holds it to its promises.
//!
//! A worker owns a range of sectors and two connections. It keeps a batch of writes in flight that do not overlap,
//! collects all replies, and now and then flushes: on either connection, for a flush covers both.

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
    nbd::{Client, Command, Error, NO_SPACE},
    random::Random,
};

/// The most writes in flight.
const BATCH: u64 = 8;
/// The longest write, in sectors.
const LONGEST: u64 = 24;
/// Sectors in one read of a verification.
const STRIDE: u64 = 2048;

/// The promises about one export, and the writers that collect them.
pub struct Load {
    workers: Vec<Mutex<Worker>>,
    counts: Counts,
    /// Whether writes may fail for lack of room.
    may_be_full: bool,
}

#[derive(Default)]
struct Counts {
    flushes: AtomicU64,
    no_space: AtomicU64,
}

struct Worker {
    ledger: Ledger,
    random: Random,
}

/// How a load ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The host dies.
    Kill,
    /// Each writer flushes, and leaves.
    Flush,
}

/// A write whose reply is awaited.
struct Sent {
    sectors: Range<u64>,
    version: Version,
    fua: bool,
}

impl Load {
    /// A load of `workers` writers on the first `sectors` sectors of an export that reads zeros.
    pub fn new(sectors: u64, workers: u64, seed: u64) -> Self {
        let share = sectors / workers;
        let worker = |index: u64| Worker {
            ledger: Ledger::new(index * share..(index + 1) * share),
            random: Random::new(seed ^ (index + 1)),
        };
        Self {
            workers: (0..workers).map(|index| Mutex::new(worker(index))).collect(),
            counts: Counts::default(),
            may_be_full: false,
        }
    }

    /// The same on storage that may be full: a write may fail for lack of room, and nothing else may.
    pub fn that_may_be_full(self) -> Self {
        Self { may_be_full: true, ..self }
    }

    /// How many flushes and FUA writes were acknowledged so far.
    pub fn flushes(&self) -> u64 {
        self.counts.flushes.load(Ordering::Relaxed)
    }

    /// How many writes failed for lack of room so far.
    pub fn no_space(&self) -> u64 {
        self.counts.no_space.load(Ordering::Relaxed)
    }

    /// Writes for about `duration`, then calls `kill`, and returns when every writer has noticed.
    ///
    /// # Errors
    /// When the host fails a request, or a connection breaks before the kill.
    pub fn until_killed(
        &self,
        socket: &Path,
        export: &str,
        duration: Duration,
        kill: impl FnOnce() -> Outcome,
    ) -> Outcome {
        let kill = |ends: &AtomicBool| {
            thread::sleep(duration);
            ends.store(true, Ordering::SeqCst);
            kill()
        };
        self.write_while(socket, export, End::Kill, kill)
    }

    /// Writes while `work` is done, which ends with the host's death: from the moment that it says so to its argument,
    /// connections may break.
    ///
    /// # Errors
    /// When the work fails, the host fails a request, or a connection breaks before.
    pub fn until_killed_by(
        &self,
        socket: &Path,
        export: &str,
        work: impl FnOnce(&AtomicBool) -> Outcome,
    ) -> Outcome {
        self.write_while(socket, export, End::Kill, work)
    }

    /// Writes while `work` is done.
    ///
    /// # Errors
    /// When the work fails, the host fails a request, or a connection breaks.
    pub fn during(&self, socket: &Path, export: &str, work: impl FnOnce() -> Outcome) -> Outcome {
        self.write_while(socket, export, End::Flush, |ends| {
            let outcome = work();
            ends.store(true, Ordering::SeqCst);
            outcome
        })
    }

    fn write_while(
        &self,
        socket: &Path,
        export: &str,
        end: End,
        work: impl FnOnce(&AtomicBool) -> Outcome,
    ) -> Outcome {
        let ends = AtomicBool::new(false);
        thread::scope(|scope| {
            let writers: Vec<_> = self
                .workers
                .iter()
                .map(|worker| {
                    let ends = &ends;
                    scope.spawn(move || {
                        let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
                        match worker.write(socket, export, (ends, end), self) {
                            Err(Error::Lost(_))
                                if end == End::Kill && ends.load(Ordering::SeqCst) =>
                            {
                                Ok(())
                            }
                            other => other.context("a writer"),
                        }
                    })
                })
                .collect();
            let outcome = work(&ends);
            // Work that failed on its way must not leave writers at work.
            ends.store(true, Ordering::SeqCst);
            let joined = writers.into_iter().map(|writer| match writer.join() {
                Ok(outcome) => outcome,
                Err(_) => Err(Failure::new("a writer panicked")),
            });
            joined.chain([outcome]).collect()
        })
    }

    /// Reads everything back, compares it with the promises, and flushes.
    ///
    /// # Errors
    /// When a sector is older than promised, torn or foreign.
    pub fn verify(&self, client: &mut Client) -> Outcome {
        for worker in &self.workers {
            let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
            let Range { start, end } = worker.ledger.sectors();
            for first in (start..end).step_by(usize::try_from(STRIDE).context("stride")?) {
                let sectors = first..end.min(first + STRIDE);
                let data = client
                    .call(Command::Read, offset(&sectors), len(&sectors)?, &[])
                    .context("read back")?;
                worker.ledger.observed(first, &data).context("after the restart")?;
            }
        }
        client.call(Command::Flush, 0, 0, &[]).context("flush")?;
        Ok(())
    }
}

impl Worker {
    fn write(
        &mut self,
        socket: &Path,
        export: &str,
        (ends, end): (&AtomicBool, End),
        load: &Load,
    ) -> Result<(), Error> {
        let flushes = &load.counts.flushes;
        let connect = || {
            // The host may die before it takes the connection.
            Client::connect(socket, export)
        };
        let mut clients = [connect()?, connect()?];
        // Without a kill that works, the load ends by itself; with one, a connection breaks first.
        let mut after_kill = 0;
        while after_kill < 1000 {
            if ends.load(Ordering::SeqCst) {
                if end == End::Flush {
                    clients[0].call(Command::Flush, 0, 0, &[])?;
                    self.ledger.flushed();
                    return Ok(());
                }
                after_kill += 1;
            }
            self.batch(&mut clients, load)?;
            if self.random.once_in(3) {
                let client = &mut clients[usize::from(self.random.once_in(2))];
                client.call(Command::Flush, 0, 0, &[])?;
                self.ledger.flushed();
                flushes.fetch_add(1, Ordering::Relaxed);
            }
        }
        Err(Error::Protocol("the host still answers after it was killed".to_owned()))
    }

    /// Sends a batch, and waits for its replies.
    fn batch(&mut self, clients: &mut [Client; 2], load: &Load) -> Result<(), Error> {
        let count = 1 + self.random.within(0..BATCH);
        let mut in_flight = [HashMap::new(), HashMap::new()];
        for index in 0..count {
            let sectors = self.pick(index, count);
            let zeros = self.random.once_in(8);
            let fua = self.random.once_in(6);
            let to = usize::from(self.random.once_in(2));
            let version = if zeros { 0 } else { self.ledger.next_version() };
            self.ledger.written(sectors.clone(), version);
            let (command, data) = match zeros {
                true => (Command::WriteZeroes { fua }, Vec::new()),
                false => (Command::Write { fua }, content(sectors.clone(), version)),
            };
            let len = len(&sectors).map_err(|failure| Error::Protocol(failure.to_string()))?;
            let cookie = clients[to].send(command, offset(&sectors), len, &data)?;
            in_flight[to].insert(cookie, Sent { sectors, version, fua });
        }
        for (client, mut in_flight) in clients.iter_mut().zip(in_flight) {
            while !in_flight.is_empty() {
                let (cookie, result) = client.receive_any()?;
                let sent = in_flight.remove(&cookie);
                let sent = sent.ok_or_else(|| Error::Protocol("a reply to no write".to_owned()))?;
                self.answered(sent, result.map(drop), load)?;
            }
        }
        Ok(())
    }

    fn answered(&mut self, sent: Sent, result: Result<(), u32>, load: &Load) -> Result<(), Error> {
        match result {
            Ok(()) if sent.fua => {
                self.ledger.settled(sent.sectors);
                load.counts.flushes.fetch_add(1, Ordering::Relaxed);
            }
            Ok(()) => {}
            Err(NO_SPACE) if load.may_be_full => {
                self.ledger.refused(sent.sectors, sent.version);
                load.counts.no_space.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => return Err(Error::Refused(format!("error {error}"))),
        }
        Ok(())
    }

    /// Sectors in the given one of `count` equal parts of the range, so that a batch does not overlap itself.
    fn pick(&mut self, part: u64, count: u64) -> Range<u64> {
        let Range { start, end } = self.ledger.sectors();
        let share = (end - start) / count;
        let first = start + part * share + self.random.within(0..share - LONGEST);
        first..first + 1 + self.random.within(0..LONGEST)
    }
}

fn offset(sectors: &Range<u64>) -> u64 {
    sectors.start * u64::from(SECTOR)
}

fn len(sectors: &Range<u64>) -> Outcome<u32> {
    let count = u32::try_from(sectors.end - sectors.start).context("length")?;
    ensure(count > 0, || "an empty range".to_owned())?;
    Ok(count * SECTOR)
}
