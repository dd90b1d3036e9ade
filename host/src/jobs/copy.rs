// SPDX-License-Identifier: Apache-2.0
//! Copies blocks between volumes and images: holes are skipped, zeros are not written, several blocks are in flight.

use std::{collections::VecDeque, ops::Range};

use driver_api::{
    Abilities, Error, ErrorKind, IoBuf, IoBufMut, OpContext, Result, WriteFlags, ext::ExtentFlags,
};
use tokio::task::JoinHandle;

use super::{
    JobControl,
    image::{Sink, Source},
};
use crate::{plugins::GuardedVolume, volumes::CONTROL_TIMEOUT};

/// Bytes read at once.
const BLOCK: u64 = 1 << 20;
/// Zeros are looked for in pieces of this many bytes: a cluster of most images.
const GRANULE: usize = 64 << 10;
const IN_FLIGHT: usize = 8;
const EXTENTS: u32 = 256;

fn data_context() -> OpContext {
    OpContext::new().with_timeout(CONTROL_TIMEOUT)
}

async fn joined<T>(task: JoinHandle<Result<T>>) -> Result<T> {
    task.await.unwrap_or_else(|panic| {
        Err(Error::new(ErrorKind::INTERNAL, format!("a step of the copy panicked: {panic}")))
    })
}

/// Where blocks come from.
pub(super) enum Input {
    Image(Source),
    Volume { volume: GuardedVolume, size: u64, has_map: bool, max_io: u64 },
}

enum Reading {
    Ready(Result<IoBuf>),
    Started(Vec<JoinHandle<Result<IoBuf>>>),
}

impl Input {
    pub(super) fn volume(volume: &GuardedVolume) -> Result<Self> {
        let capabilities = volume.capabilities()?;
        let has_map = capabilities.has(Abilities::ALLOCATION_MAP);
        let size = volume.size()?;
        let max_io = u64::from(capabilities.max_io.max(1));
        Ok(Self::Volume { volume: volume.clone(), size, has_map, max_io })
    }

    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Image(source) => source.size(),
            Self::Volume { size, .. } => *size,
        }
    }

    async fn next_data(&self, offset: u64) -> Result<Option<u64>> {
        match self {
            Self::Image(source) => source.next_data(offset).await,
            Self::Volume { size, has_map: false, .. } => Ok((offset < *size).then_some(offset)),
            Self::Volume { volume, size, has_map: true, .. } => {
                let mut at = offset;
                while at < *size {
                    let asking = volume.extents(&data_context(), at, *size - at, EXTENTS);
                    let extents = asking.await?;
                    let before = at;
                    for extent in extents {
                        if !extent.flags.has(ExtentFlags::ZERO) {
                            return Ok(Some(extent.offset.max(offset)));
                        }
                        at = extent.offset.saturating_add(extent.len);
                    }
                    if at <= before {
                        return Err(Error::new(
                            ErrorKind::INTERNAL,
                            "the volume's allocation map does not advance",
                        )
                        .with("offset", at));
                    }
                }
                Ok(None)
            }
        }
    }

    async fn start_read(&self, range: &Range<u64>) -> Reading {
        match self {
            Self::Image(source) => {
                Reading::Ready(source.read(range.start, (range.end - range.start) as usize).await)
            }
            Self::Volume { volume, max_io, .. } => {
                let mut parts = Vec::new();
                let mut at = range.start;
                while at < range.end {
                    let len = (range.end - at).min(*max_io) as u32;
                    let volume = volume.clone();
                    parts.push(tokio::spawn(
                        async move { volume.read(&data_context(), at, len).await },
                    ));
                    at += u64::from(len);
                }
                Reading::Started(parts)
            }
        }
    }
}

async fn read_end(reading: Reading) -> Result<IoBuf> {
    let parts = match reading {
        Reading::Ready(result) => return result,
        Reading::Started(parts) => parts,
    };
    let mut buffers = Vec::with_capacity(parts.len());
    for part in parts {
        buffers.push(joined(part).await?);
    }
    if buffers.len() == 1
        && let Some(only) = buffers.pop()
    {
        return Ok(only);
    }
    let mut whole = IoBufMut::zeroed(buffers.iter().map(|part| part.len()).sum());
    let mut at = 0;
    for part in buffers {
        whole[at..at + part.len()].copy_from_slice(&part);
        at += part.len();
    }
    Ok(whole.freeze())
}

/// Where blocks go: something that reads zeros so far.
pub(super) enum Output {
    Image(Sink),
    Volume(VolumeOutput),
}

/// A volume with writes in flight. Their futures have tasks of their own, which are never cut off.
pub(super) struct VolumeOutput {
    volume: GuardedVolume,
    max_io: u64,
    min_block: u64,
    writes: VecDeque<JoinHandle<Result<()>>>,
}

impl Output {
    pub(super) fn volume(volume: &GuardedVolume) -> Result<Self> {
        let capabilities = volume.capabilities()?;
        Ok(Self::Volume(VolumeOutput {
            volume: volume.clone(),
            max_io: u64::from(capabilities.max_io.max(1)),
            min_block: u64::from(capabilities.min_block.max(1)),
            writes: VecDeque::new(),
        }))
    }

    async fn write(&mut self, offset: u64, data: IoBuf) -> Result<()> {
        match self {
            Self::Image(sink) => sink.write(offset, &data).await,
            Self::Volume(output) => output.write(offset, data).await,
        }
    }

    async fn finish(&mut self) -> Result<()> {
        match self {
            Self::Image(sink) => sink.finish().await,
            Self::Volume(output) => {
                output.settle(0).await?;
                output.volume.flush(&data_context()).await
            }
        }
    }

    /// Waits for what is in flight, after a failure elsewhere.
    async fn abandon(&mut self) {
        if let Self::Volume(output) = self {
            for write in output.writes.drain(..) {
                if let Err(error) = joined(write).await {
                    tracing::debug!("a write of the abandoned copy failed: {error:#}");
                }
            }
        }
    }
}

impl VolumeOutput {
    async fn write(&mut self, offset: u64, data: IoBuf) -> Result<()> {
        let whole = (data.len() as u64).next_multiple_of(self.min_block) as usize;
        let data = if whole == data.len() {
            data
        } else {
            // The image ends inside the volume's last block.
            let mut padded = IoBufMut::zeroed(whole);
            padded[..data.len()].copy_from_slice(&data);
            padded.freeze()
        };
        let mut at = 0;
        while at < data.len() {
            let len = (data.len() - at).min(self.max_io as usize);
            let (volume, part) = (self.volume.clone(), data.slice(at, len));
            let target = offset + at as u64;
            self.settle(IN_FLIGHT - 1).await?;
            self.writes.push_back(tokio::spawn(async move {
                volume.write(&data_context(), target, part, WriteFlags::NONE).await
            }));
            at += len;
        }
        Ok(())
    }

    async fn settle(&mut self, at_most: usize) -> Result<()> {
        while self.writes.len() > at_most
            && let Some(write) = self.writes.pop_front()
        {
            joined(write).await?;
        }
        Ok(())
    }
}

/// Copies all of `input` and makes it durable. After an error nothing of it is in flight any more.
pub(super) async fn copy(input: &Input, output: &mut Output, control: &JobControl) -> Result<()> {
    control.set_total(input.size());
    let copied = match copy_blocks(input, output, control).await {
        Ok(()) => output.finish().await,
        Err(error) => Err(error),
    };
    if copied.is_err() {
        output.abandon().await;
    } else {
        control.set_done(input.size());
    }
    copied
}

async fn copy_blocks(input: &Input, output: &mut Output, control: &JobControl) -> Result<()> {
    let size = input.size();
    let mut reads: VecDeque<(Range<u64>, Reading)> = VecDeque::new();
    let mut offset = 0;
    loop {
        while reads.len() < IN_FLIGHT
            && let Some(data) = input.next_data(offset).await?
        {
            let start = data - data % BLOCK;
            let range = start..size.min(start + BLOCK);
            offset = range.end.max(start + BLOCK);
            let reading = input.start_read(&range).await;
            reads.push_back((range, reading));
        }
        let Some((range, reading)) = reads.pop_front() else { return Ok(()) };
        let data = read_end(reading).await?;
        control.check()?;
        for run in data_runs(&data) {
            let start = range.start + run.start as u64;
            output.write(start, data.slice(run.start, run.len())).await?;
        }
        control.set_done(range.end);
    }
}

/// The parts of `data` that are not zeros, in pieces of whole granules.
pub(super) fn data_runs(data: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, granule) in data.chunks(GRANULE).enumerate() {
        if is_zero(granule) {
            continue;
        }
        let start = index * GRANULE;
        let end = start + granule.len();
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

fn is_zero(data: &[u8]) -> bool {
    // Sixteen bytes a step: the compiler makes vector code of it.
    let (words, rest) = data.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
