// SPDX-License-Identifier: Apache-2.0
//! Writers that keep count, so that a picture taken under them can be judged.
//!
//! Each writer writes its numbers 1, 2, 3… round robin over blocks of its own, the next one only after the last was
//! acknowledged. A picture of one moment holds, of each writer, everything up to some number; every write that was
//! acknowledged before the picture was asked for; none that began after the answer; and no write without all those
//! that were acknowledged before it began.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use crate::{
    pattern::{stamped, version_of},
    volume::{Checked, Vol, broken, ensure},
};

const WRITERS: u64 = 8;
const BLOCKS: u64 = 16;
/// Distance between blocks in bytes: far enough that no single copy takes in many.
const STRIDE: u64 = 16 << 10;
/// A writer ends by itself after so many writes, however long the picture takes.
const MOST: u64 = 200_000;

/// When a write began and was acknowledged.
#[derive(Clone, Copy)]
struct Times {
    began: u64,
    acknowledged: u64,
}

/// Running writers.
pub(crate) struct Writers {
    clock: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Checked<(u64, Vec<Times>)>>,
    sector: u64,
}

/// When a picture was asked for, and answered.
pub(crate) struct Moment {
    pub asked: u64,
    pub answered: u64,
}

/// All that was written, once the writers ended.
pub(crate) struct Written {
    times: Vec<Vec<Times>>,
    sector: u64,
}

fn place(writer: u64, number: u64) -> u64 {
    writer * BLOCKS + (number - 1) % BLOCKS
}

fn version(writer: u64, number: u64) -> u64 {
    (writer + 1) << 40 | number
}

impl Writers {
    pub(crate) fn start(vol: &Vol) -> Self {
        let (clock, stop) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)));
        let mut tasks = JoinSet::new();
        for writer in 0..WRITERS {
            tasks.spawn(write(vol.clone(), writer, Arc::clone(&clock), Arc::clone(&stop)));
        }
        Self { clock, stop, tasks, sector: vol.sector() }
    }

    pub(crate) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Lets the writers get on.
    pub(crate) async fn more(&self) {
        let goal = self.clock.load(Ordering::SeqCst) + 4 * WRITERS * BLOCKS;
        while self.clock.load(Ordering::SeqCst) < goal && !self.stop.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) async fn end(mut self) -> Checked<Written> {
        self.stop.store(true, Ordering::SeqCst);
        let mut times = vec![Vec::new(); WRITERS as usize];
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(ended) => {
                    let (writer, written) = ended?;
                    times[writer as usize] = written;
                }
                Err(error) => return broken(format!("a writer ended early: {error}")),
            }
        }
        Ok(Written { times, sector: self.sector })
    }
}

async fn write(
    vol: Vol,
    writer: u64,
    clock: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Checked<(u64, Vec<Times>)> {
    let _stopping = StopWithMe(&stop);
    let mut written = Vec::new();
    for number in 1..=MOST {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let at = place(writer, number);
        let data = stamped(at, version(writer, number), vol.sector());
        let began = clock.fetch_add(1, Ordering::SeqCst);
        vol.write(at * STRIDE, &data).await?;
        written.push(Times { began, acknowledged: clock.fetch_add(1, Ordering::SeqCst) });
        tokio::task::yield_now().await;
    }
    Ok((writer, written))
}

/// The first writer to end stops the others, and whoever waits for progress.
struct StopWithMe<'a>(&'a AtomicBool);

impl Drop for StopWithMe<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Written {
    /// Judges what a picture holds.
    pub(crate) async fn judge(&self, picture: &Vol, moment: &Moment) -> Checked {
        let mut latest = Vec::new();
        for writer in 0..WRITERS {
            latest.push(self.prefix(picture, writer).await?);
        }
        self.judge_prefixes(&latest, moment)
    }

    /// The number up to which the picture holds everything of this writer.
    async fn prefix(&self, picture: &Vol, writer: u64) -> Checked<u64> {
        let mut numbers = Vec::new();
        for block in 0..BLOCKS {
            let at = writer * BLOCKS + block;
            let data = picture.read(at * STRIDE, self.sector).await?;
            match version_of(at, &data) {
                Some(0) => numbers.push(0),
                Some(found) if found >> 40 == writer + 1 => numbers.push(found & ((1 << 40) - 1)),
                _ => return broken(format!("the picture's sector {at} is torn or foreign")),
            }
        }
        let last = numbers.iter().copied().max().unwrap_or(0);
        for (block, number) in (0..).zip(&numbers) {
            let back = (last + BLOCKS - 1 - block) % BLOCKS;
            let wanted = if last == 0 { 0 } else { last.saturating_sub(back) };
            ensure(*number == wanted, || {
                format!(
                    "the picture is no single moment: it has write {last} of writer {writer}, but in block {block} \
                     write {number}, not {wanted}"
                )
            })?;
        }
        Ok(last)
    }

    fn judge_prefixes(&self, latest: &[u64], moment: &Moment) -> Checked {
        let mut newest = 0;
        for (writer, (last, times)) in latest.iter().zip(&self.times).enumerate() {
            let missing = times.iter().skip(*last as usize).find(|t| t.acknowledged < moment.asked);
            ensure(missing.is_none(), || {
                format!(
                    "the picture ends with write {last} of writer {writer}, but a later one was acknowledged before \
                     the picture was asked for"
                )
            })?;
            let Some(index) = last.checked_sub(1) else { continue };
            let Some(time) = times.get(index as usize) else {
                return broken(format!(
                    "the picture has write {last} of writer {writer}, never made"
                ));
            };
            ensure(time.began < moment.answered, || {
                format!("the picture has write {last} of writer {writer}, begun after the answer")
            })?;
            newest = newest.max(time.began);
        }
        for (writer, (last, times)) in latest.iter().zip(&self.times).enumerate() {
            let next = times.get(*last as usize);
            ensure(next.is_none_or(|next| next.acknowledged > newest), || {
                format!(
                    "the picture is no single moment: it lacks write {} of writer {writer}, but has a write that \
                     began after that one's acknowledgement",
                    last + 1
                )
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(times: &[&[(u64, u64)]]) -> Written {
        let times = times.iter().map(|writer| {
            writer.iter().map(|&(began, acknowledged)| Times { began, acknowledged }).collect()
        });
        Written { times: times.collect(), sector: 512 }
    }

    #[test]
    fn a_picture_is_judged_by_its_moment() {
        let written = written(&[&[(1, 2), (5, 6)], &[(3, 4), (7, 8)]]);
        let fits = |latest: &[u64], asked, answered| {
            written.judge_prefixes(latest, &Moment { asked, answered }).is_ok()
        };
        assert!(fits(&[2, 2], 9, 10));
        assert!(!fits(&[2, 1], 9, 10), "an acknowledged write is missing");
        assert!(fits(&[1, 1], 5, 6) && fits(&[2, 1], 5, 6));
        assert!(!fits(&[2, 2], 5, 6), "a write from after the answer");
        assert!(fits(&[2, 2], 1, 9) && fits(&[1, 0], 1, 9));
        assert!(!fits(&[2, 0], 1, 9), "a write without one acknowledged before it began");
    }
}
