// SPDX-License-Identifier: Apache-2.0
//! Filling the file of a new volume with the content of another: by the server where it can, else through this host.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use driver_api::{Error, ErrorKind, Result, ext::ExtentFlags};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::{
    disk::{Disk, steps},
    error::internal,
    image::{Link, Purpose},
    layers::{merging::Merging, stack::Stack},
    share::{Copied, Stretch},
};

/// The server's files share blocks.
pub(crate) const REFLINK: &str = "reflink";
/// The server copied.
pub(crate) const SERVER_COPY: &str = "server-copy";
/// Everything came here and went back.
pub(crate) const COPY: &str = "copy";

/// Bytes that a server is asked to copy at once.
const COPIED_AT_ONCE: u64 = 16 << 20;
/// Bytes of one read or write.
const STEP: u64 = 1 << 20;
/// Reads and writes under way at once.
const CALLS: usize = 8;
/// Bytes whose holes are asked for at once.
const ASKED_AT_ONCE: u64 = 1 << 30;

/// How long a copy may take, and each call of it.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    /// The whole of it.
    pub whole: Instant,
    /// One call.
    pub call: std::time::Duration,
}

impl Deadline {
    /// When a call that begins now has to end; an error if there is no time left.
    pub fn until(&self) -> Result<Instant> {
        let now = Instant::now();
        if now < self.whole {
            return Ok(self.whole.min(now + self.call));
        }
        Err(Error::new(ErrorKind::TIMED_OUT, "the copy did not end in time")
            .remedy("allow more time, or clone while there is less to do on the server"))
    }
}

/// Fills `target`, a file of its own that is empty or an empty image, with what the last of `source` shows; how it was done.
pub(crate) async fn fill(
    source: &[Link],
    target: &Link,
    deadline: Deadline,
) -> Result<&'static str> {
    let Some(root) = source.first() else { return Err(internal("a volume has no file")) };
    let near = Arc::ptr_eq(&root.disk.file.mount, &target.disk.file.mount);
    if near && root.format == target.format {
        match by_server(&root.disk, &target.disk, deadline).await {
            Ok(method) => {
                for layer in &source[1..] {
                    pour(layer, target, deadline).await?;
                }
                return Ok(method);
            }
            Err(NotDone::NotOffered(why)) => {
                tracing::info!(volume = target.disk.volume, %why, "the server does not copy");
            }
            Err(NotDone::Failed(error)) => return Err(error),
        }
    }
    through_here(source, target, deadline).await?;
    Ok(COPY)
}

/// Whether a server does not have an operation, or not for this length.
fn is_missing(error: &Error) -> bool {
    [ErrorKind::UNSUPPORTED, ErrorKind::INVALID_ARGUMENT].contains(&error.kind())
}

/// Why a server did not copy.
enum NotDone {
    /// It cannot; nothing was changed.
    NotOffered(Error),
    Failed(Error),
}

impl From<Error> for NotDone {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Makes the bytes of one file those of another.
async fn by_server(from: &Disk, to: &Disk, deadline: Deadline) -> Result<&'static str, NotDone> {
    let (len, before) = (from.len(), to.len());
    // Some servers share blocks inside of files only.
    to.set_size(len.max(before), deadline.until()?).await?;
    let ask = |at: u64, len: u64, may_copy: bool, until: Instant| async move {
        let stretch = Stretch { from: at, to: at, len };
        let asked = from.file.perform(until, |attempt, reading| async move {
            let writing = to.file.handle_on(&attempt, until).await?;
            attempt.share.clone_range(&reading, &writing, stretch, may_copy, until).await
        });
        asked.await.map_err(|fault| to.told(fault, "the server cannot copy", true))
    };
    match ask(0, len, false, deadline.until()?).await {
        Ok(_) => return Ok(REFLINK),
        Err(error) if is_missing(&error) => {}
        Err(error) => return Err(error.into()),
    }
    let mut at = 0;
    while at < len {
        let part = COPIED_AT_ONCE.min(len - at);
        match ask(at, part, true, deadline.until()?).await {
            Ok(Copied::Shared) => at += part,
            Ok(Copied::Bytes(0)) => {
                return Err(internal("the server says that it copied nothing").into());
            }
            Ok(Copied::Bytes(bytes)) => at += bytes.min(part),
            Err(error) if at == 0 && is_missing(&error) => {
                to.set_size(before, deadline.until()?).await?;
                return Err(NotDone::NotOffered(error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(SERVER_COPY)
}

/// Brings the content of a layer into the file.
async fn pour(layer: &Link, target: &Link, deadline: Deadline) -> Result<()> {
    let below = std::slice::from_ref(target);
    let mut merging = Merging::begin(layer, below, Vec::new(), deadline.until()?).await?;
    let poured = async {
        while merging.copy_some(deadline.until()?).await?.is_some() {}
        merging.finish(deadline.until()?).await
    };
    let poured = poured.await;
    merging.stop(deadline.until()?).await?;
    poured
}

/// Reads everything and writes it, but for what reads zeros.
async fn through_here(source: &[Link], target: &Link, deadline: Deadline) -> Result<()> {
    let (from, size) = Stack::open(source.to_vec(), Purpose::Read, deadline.until()?).await?;
    let opened = Stack::open(vec![target.clone()], Purpose::WriteOn, deadline.until()?).await;
    let (to, now) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            from.stop(deadline.until()?).await?;
            return Err(error);
        }
    };
    let copied = async {
        if now != size {
            resize(&to, size, deadline).await?;
        }
        let mut at = 0;
        while at < size {
            let len = ASKED_AT_ONCE.min(size - at);
            for (offset, len) in data_in(&from, at, len, deadline).await? {
                stream::iter(steps(offset, len, STEP))
                    .map(|(at, step)| copy_step(&from, &to, at, step, deadline))
                    .buffer_unordered(CALLS)
                    .try_collect::<()>()
                    .await?;
            }
            at += len;
        }
        to.flush(deadline.until()?).await
    };
    let copied = copied.await;
    from.stop(deadline.until()?).await?;
    to.stop(deadline.until()?).await?;
    copied
}

/// Sets the size of the volume in a file.
pub(crate) async fn resize(stack: &Stack, size: u64, deadline: Deadline) -> Result<()> {
    match &stack.image {
        None => stack.disk.set_size(size, deadline.until()?).await,
        Some(image) => image.resize(size, deadline.until()?).await,
    }
}

/// Which parts of a range may have data.
async fn data_in(
    from: &Stack,
    mut offset: u64,
    len: u64,
    deadline: Deadline,
) -> Result<Vec<(u64, u64)>> {
    const RUNS: usize = 1024;
    let end = offset + len;
    let mut parts = Vec::new();
    while offset < end {
        let until = deadline.until()?;
        let extents = match &from.image {
            Some(image) => image.extents(offset, end - offset, RUNS, until).await?,
            None if from.disk.file.offers().map => {
                from.disk.extents(until, offset, end - offset, RUNS as u32).await?.into_vec()
            }
            None => return Ok(vec![(offset, end - offset)]),
        };
        let Some(last) = extents.last() else { break };
        offset = last.offset + last.len;
        let has_data = extents.iter().filter(|extent| !extent.flags.has(ExtentFlags::ZERO));
        parts.extend(has_data.map(|extent| (extent.offset, extent.len)));
    }
    Ok(parts)
}

async fn copy_step(
    from: &Stack,
    to: &Stack,
    offset: u64,
    len: u64,
    deadline: Deadline,
) -> Result<()> {
    let data: Bytes = from.read(offset, len as u32, deadline.until()?).await?;
    // The new file has zeros everywhere.
    if data.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    to.write(offset, data, deadline.until()?).await
}

/// Gives what was filled its size at last.
pub(crate) async fn grow(target: &Link, size: u64, deadline: Deadline) -> Result<()> {
    let links = vec![target.clone()];
    let (stack, now) = Stack::open(links, Purpose::Write, deadline.until()?).await?;
    let grown = async {
        if now != size {
            resize(&stack, size, deadline).await?;
        }
        stack.flush(deadline.until()?).await
    };
    let grown = grown.await;
    stack.stop(deadline.until()?).await?;
    grown
}
