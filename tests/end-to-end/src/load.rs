// SPDX-License-Identifier: Apache-2.0
//! Writes until the host dies, and afterwards holds it to its promises.
//!
//! A worker owns a range of sectors and two connections. It keeps a batch of writes in flight that do not overlap,
//! collects all replies, and now and then flushes: on either connection, for a flush covers both.

use std::{
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
    ledger::{Ledger, SECTOR, content},
    nbd::{Client, Command, Error},
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
    flushes: AtomicU64,
}

struct Worker {
    ledger: Ledger,
    random: Random,
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
            flushes: AtomicU64::new(0),
        }
    }

    /// How many flushes and FUA writes were acknowledged so far.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
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
        let killed = AtomicBool::new(false);
        thread::scope(|scope| {
            let writers: Vec<_> = self
                .workers
                .iter()
                .map(|worker| {
                    let killed = &killed;
                    scope.spawn(move || {
                        let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
                        match worker.write(socket, export, killed, &self.flushes) {
                            Err(Error::Lost(_)) if killed.load(Ordering::SeqCst) => Ok(()),
                            other => other.context("a writer"),
                        }
                    })
                })
                .collect();
            thread::sleep(duration);
            killed.store(true, Ordering::SeqCst);
            let outcome = kill();
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
        killed: &AtomicBool,
        flushes: &AtomicU64,
    ) -> Result<(), Error> {
        let connect = || {
            // The host may die before it takes the connection.
            Client::connect(socket, export)
        };
        let mut clients = [connect()?, connect()?];
        // Without a kill that works, the load ends by itself; with one, a connection breaks first.
        let mut after_kill = 0;
        while after_kill < 1000 {
            after_kill += u64::from(killed.load(Ordering::SeqCst));
            let fua = self.batch(&mut clients)?;
            for sectors in fua {
                self.ledger.settled(sectors);
                flushes.fetch_add(1, Ordering::Relaxed);
            }
            if self.random.once_in(3) {
                let client = &mut clients[usize::from(self.random.once_in(2))];
                client.call(Command::Flush, 0, 0, &[])?;
                self.ledger.flushed();
                flushes.fetch_add(1, Ordering::Relaxed);
            }
        }
        Err(Error::Protocol("the host still answers after it was killed".to_owned()))
    }

    /// Sends a batch, waits for its replies, and returns what was written with FUA.
    fn batch(&mut self, clients: &mut [Client; 2]) -> Result<Vec<Range<u64>>, Error> {
        let count = 1 + self.random.within(0..BATCH);
        let mut durable = Vec::new();
        let mut in_flight = [0_u32; 2];
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
            clients[to].send(command, offset(&sectors), len, &data)?;
            in_flight[to] += 1;
            if fua {
                durable.push(sectors);
            }
        }
        for (client, count) in clients.iter_mut().zip(in_flight) {
            for _ in 0..count {
                client.receive()?;
            }
        }
        Ok(durable)
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
