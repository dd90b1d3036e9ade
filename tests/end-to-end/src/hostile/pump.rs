// SPDX-License-Identifier: Apache-2.0
//! The good client: always a batch in flight, and every byte that it reads is one that it wrote.

use std::{
    io::{BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use super::session::request;
use crate::{
    failure::{Context, Outcome, ensure},
    nbd::Client,
    random::Random,
};

const BLOCK: usize = 4096;
/// Blocks of the export that it uses.
const BLOCKS: usize = 2048;
/// Requests in flight.
const BATCH: usize = 32;
/// One request in so many is a write.
const WRITE_EVERY: usize = 4;
const SIMPLE_REPLY: u32 = 0x6744_6698;

/// A client of an export that nobody else uses.
pub struct Pump {
    stream: UnixStream,
    replies: BufReader<UnixStream>,
    /// How often each block was written.
    versions: Vec<u64>,
    random: Random,
}

impl Pump {
    /// Connects to an export that reads zeros.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn connect(socket: &Path, export: &str, seed: u64) -> Outcome<Self> {
        let client = Client::connect(socket, export).context("the good client")?;
        ensure(client.size() >= (BLOCKS * BLOCK) as u64, || "a small export".to_owned())?;
        let stream = client.into_stream();
        let replies = stream.try_clone().context("the good client's socket")?;
        Ok(Self {
            replies: BufReader::with_capacity(256 << 10, replies),
            stream,
            versions: vec![0; BLOCKS],
            random: Random::new(seed),
        })
    }

    /// Works for about `time`; the requests done in a second.
    ///
    /// # Errors
    /// When a request fails, or a block holds something else than was written.
    pub fn run(&mut self, time: Duration) -> Outcome<f64> {
        let (since, mut batches) = (Instant::now(), 0_u32);
        while since.elapsed() < time {
            self.batch().context("the good client")?;
            batches += 1;
        }
        Ok(f64::from(batches * BATCH as u32) / since.elapsed().as_secs_f64())
    }

    fn batch(&mut self) -> Outcome {
        // Distinct blocks, for requests in flight together may overtake each other.
        let first = self.random.within(0..BLOCKS as u64) as usize;
        let block_of = |index: usize| (first + index * 61) % BLOCKS;
        let mut message = Vec::with_capacity(BATCH * (28 + BLOCK / WRITE_EVERY));
        for index in 0..BATCH {
            let block = block_of(index);
            let writes = index.is_multiple_of(WRITE_EVERY);
            let offset = (block * BLOCK) as u64;
            let mut head = request(u16::from(writes), 0, offset, BLOCK as u32);
            head[8..16].copy_from_slice(&(index as u64).to_be_bytes());
            message.extend(head);
            if writes {
                self.versions[block] += 1;
                message.extend(content(block, self.versions[block]));
            }
        }
        self.stream.write_all(&message).context("send")?;
        let mut answered = [false; BATCH];
        for _ in 0..BATCH {
            let mut head = [0; 16];
            self.replies.read_exact(&mut head).context("no reply")?;
            let magic = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let index = usize::from(head[15]);
            let sound = magic == SIMPLE_REPLY
                && head[4..15] == [0; 11]
                && answered.get(index) == Some(&false);
            ensure(sound, || format!("an unsound reply: {head:?}"))?;
            answered[index] = true;
            if !index.is_multiple_of(WRITE_EVERY) {
                let mut data = [0; BLOCK];
                self.replies.read_exact(&mut data).context("no data")?;
                let (block, version) = (block_of(index), self.versions[block_of(index)]);
                ensure(data == content(block, version), || {
                    format!("block {block} is not what was written the {version}. time")
                })?;
            }
        }
        Ok(())
    }
}

/// What a block holds after so many writes.
fn content(block: usize, version: u64) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    if version > 0 {
        let word = (block as u64) << 40 | version;
        for (index, part) in bytes.chunks_exact_mut(8).enumerate() {
            part.copy_from_slice(&(word ^ (index as u64) << 32).to_le_bytes());
        }
    }
    bytes
}

/// The middle one.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
