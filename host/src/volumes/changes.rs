// SPDX-License-Identifier: Apache-2.0
//! Where two pictures of a volume differ, as its driver tells it: in answers of bounded size and time.

use std::time::{Duration, Instant};

use driver_api::{
    Abilities, Error, ErrorKind, Result,
    ext::{Extent, SnapshotInfo},
};

use super::{
    attach::{Access, Use},
    backends::control,
    change::need,
    service::Volumes,
};
use crate::config::validate_name;

/// Extents in an answer.
const MOST: usize = 10_000;
/// Bytes that the driver is asked about at once: it answers within the time for such calls.
const STEP: u64 = 16 << 30;
/// An answer is given after this, with a place to ask on.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two pictures of a volume: snapshots by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Between {
    /// The earlier one; nothing but zeros if empty.
    pub from: String,
    /// The later one; the volume as it is now if empty.
    pub to: String,
}

/// Where they differ, in part of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The size of the later one, in bytes.
    pub size: u64,
    /// What differs, in order.
    pub extents: Vec<Extent>,
    /// Where to ask on; none: that was all.
    pub next: Option<u64>,
}

impl Volumes {
    /// Where two pictures of a volume differ from `offset` on, in `length` bytes or up to the end of the later one.
    pub async fn changes(
        &self,
        name: &str,
        between: &Between,
        offset: u64,
        length: Option<u64>,
    ) -> Result<Changes> {
        for snapshot in [&between.from, &between.to] {
            if !snapshot.is_empty() {
                validate_name("snapshot", snapshot)?;
            }
        }
        let used = self.acquire(name, Access::Read, "volume changes").await?;
        let found = ask(&used, between, offset, length).await;
        let released = self.release(used).await;
        if let Err(error) = released {
            tracing::error!(volume = name, "detach after the operation failed: {error:#}");
        }
        found.map_err(|error| error.during("volume changes"))
    }
}

async fn ask(used: &Use, between: &Between, offset: u64, length: Option<u64>) -> Result<Changes> {
    let (volume, backend) = (used.volume(), used.backend());
    need(&volume.capabilities()?, Abilities::CHANGES, used.name())?;
    let mut snapshots = Vec::new();
    if *between != Between::default() {
        let listing = volume.snapshot_list(&control());
        snapshots = backend.call("volume changes", listing).await?.into_vec();
    }
    let find = |snapshot: &str| position(&snapshots, snapshot, used.name());
    let mut size = volume.size()?;
    if !between.to.is_empty() {
        let to = find(&between.to)?;
        size = snapshots[to].size;
        if !between.from.is_empty() && find(&between.from)? > to {
            let why = format!("`{}` was taken after `{}`", between.from, between.to);
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why)
                .remedy("exchange the two: --since names the earlier one"));
        }
    } else if !between.from.is_empty() {
        find(&between.from)?;
    }
    let length = length.unwrap_or(size.saturating_sub(offset));
    let end = match offset.checked_add(length) {
        Some(end) if end <= size => end,
        _ => {
            let why = format!("{length} bytes at {offset} are not inside {size} bytes");
            return Err(Error::new(ErrorKind::OUT_OF_RANGE, why)
                .remedy("choose another --offset or --length"));
        }
    };
    gather(used, between, size, offset..end).await
}

fn position(snapshots: &[SnapshotInfo], name: &str, volume: &str) -> Result<usize> {
    snapshots.iter().position(|one| one.name.as_str() == name).ok_or_else(|| {
        let why = format!("volume `{volume}` has no snapshot `{name}`");
        Error::new(ErrorKind::NOT_FOUND, why).remedy(format!("novastor snapshot list {volume}"))
    })
}

async fn gather(
    used: &Use,
    between: &Between,
    size: u64,
    range: std::ops::Range<u64>,
) -> Result<Changes> {
    let (begun, mut at, mut extents) = (Instant::now(), range.start, Vec::new());
    while at < range.end && extents.len() < MOST && begun.elapsed() < PATIENCE {
        let len = (range.end - at).min(STEP);
        let limit = (MOST - extents.len()) as u32;
        let pictures = (between.from.as_str(), between.to.as_str());
        let asking = used.volume().changes(&control(), pictures, at, len, limit);
        let more = used.backend().call("volume changes", asking).await?;
        let next = match more.last() {
            None => at + len,
            Some(last) => last.offset.saturating_add(last.len),
        };
        if next <= at || next > at + len {
            let why = "the driver's answer does not advance, or leaves the range";
            return Err(Error::new(ErrorKind::INTERNAL, why).with("offset", at));
        }
        at = next;
        extents.extend(more);
    }
    Ok(Changes { size, extents, next: (at < range.end).then_some(at) })
}
