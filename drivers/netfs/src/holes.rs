// SPDX-License-Identifier: Apache-2.0
//! Holes: freeing ranges of a volume, and telling which have data.

use std::{sync::Arc, time::Instant};

use driver_api::{
    ErrorKind, Op, OpContext, RVec, Result,
    ext::{AllocationMap, Extent, ExtentFlags},
};

use crate::{
    disk::{Disk, ZEROED_AT_ONCE, aligned_steps, steps},
    error::broken_server,
    share::Run,
    unstable::Patch,
    volume::{Attached, NetfsVolume},
};

/// Bytes that are freed in one go.
const FREED_AT_ONCE: u64 = 1 << 30;

/// How a range comes to read zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Zeroing {
    /// By zeros that are written.
    Written,
    /// By being freed; by zeros, with `or_written`, if the server that answers now cannot.
    Freed {
        /// Whether that may take as long as writing.
        or_written: bool,
    },
}

impl Attached {
    /// Makes a range read zeros.
    pub async fn clear(
        &self,
        until: Instant,
        (offset, len): (u64, u64),
        zeroing: Zeroing,
        durable: bool,
    ) -> Result<()> {
        self.admit_change(offset, len)?;
        let at_once = if zeroing == Zeroing::Written { ZEROED_AT_ONCE } else { FREED_AT_ONCE };
        // No extent is in two steps.
        for (at, step) in aligned_steps(offset, len, at_once) {
            let stack = self.enter(until).await?;
            if let Some(extents) = &stack.extents {
                self.admit_change(at, step)?;
                extents.clear(until, (at, step, self.size()), zeroing, durable).await?;
                continue;
            }
            let Some(image) = &stack.image else {
                stack.disk.clear(until, (at, step), zeroing, durable).await?;
                continue;
            };
            self.admit_change(at, step)?;
            match zeroing {
                Zeroing::Written => image.write_zeros(at, step, until).await?,
                // Clusters that are kept and read zeros take no longer than freeing them.
                Zeroing::Freed { .. } => image.zero(at, step, until).await?,
            }
            if durable {
                stack.flush(until).await?;
            }
        }
        Ok(())
    }

    /// Gives a range back.
    pub async fn free(&self, until: Instant, offset: u64, len: u64) -> Result<()> {
        self.admit_change(offset, len)?;
        for (at, step) in aligned_steps(offset, len, FREED_AT_ONCE) {
            let stack = self.enter(until).await?;
            self.admit_change(at, step)?;
            match (&stack.image, &stack.extents) {
                (Some(image), _) => image.free(at, step, until).await?,
                (None, Some(extents)) => extents.free(until, (at, step, self.size())).await?,
                (None, None) => stack.disk.free(until, at, step).await?,
            }
        }
        Ok(())
    }

    async fn extents(
        &self,
        until: Instant,
        offset: u64,
        len: u64,
        limit: u32,
    ) -> Result<RVec<Extent>> {
        let stack = self.enter(until).await?;
        if let Some(extents) = &stack.extents {
            self.standing.admit()?;
            self.admit_range(offset, len)?;
            return extents.map(until, offset, len, limit, &stack.disk).await;
        }
        let Some(image) = &stack.image else {
            return stack.disk.extents(until, offset, len, limit).await;
        };
        self.standing.admit()?;
        self.admit_range(offset, len)?;
        let limit = limit.max(1) as usize;
        image.extents(offset, len, limit, until).await.map(RVec::from)
    }
}

impl Disk {
    /// Makes a range read zeros.
    pub async fn clear(
        &self,
        until: Instant,
        (offset, len): (u64, u64),
        zeroing: Zeroing,
        durable: bool,
    ) -> Result<()> {
        let Zeroing::Freed { or_written } = zeroing else {
            return self.zero(until, offset, len, durable).await;
        };
        match self.free(until, offset, len).await {
            Err(error) if or_written && error.kind() == ErrorKind::UNSUPPORTED => {
                self.zero(until, offset, len, durable).await
            }
            freed => freed,
        }
    }

    /// Frees a range, durably.
    pub async fn free(&self, until: Instant, offset: u64, len: u64) -> Result<()> {
        self.admit_writer()?;
        self.admit_range(offset, len)?;
        for (at, step) in steps(offset, len, FREED_AT_ONCE) {
            let _entered = self.enter(until).await?;
            self.admit_writer()?;
            self.admit_range(at, step)?;
            let _held = self.ranges.hold(at, step).await;
            let freeing = self.file.perform(until, |attempt, handle| async move {
                attempt.share.punch(&handle, at, step, until).await
            });
            freeing.await.map_err(|fault| self.told(fault, "the range cannot be freed", true))?;
            // What was written there before must not come back by being written again.
            self.ledger().durable(at, step);
        }
        Ok(())
    }

    /// Runs of data and holes, at most `limit`.
    pub async fn extents(
        &self,
        until: Instant,
        offset: u64,
        len: u64,
        limit: u32,
    ) -> Result<RVec<Extent>> {
        self.admit()?;
        self.admit_range(offset, len)?;
        // Looked at first: what is made durable meanwhile is seen by the server then.
        let kept = self.ledger().overlay(offset, len);
        let asking = self.file.perform(until, |attempt, handle| async move {
            attempt.share.map(&handle, offset, len, until).await
        });
        let told = asking.await.and_then(|runs| match runs.is_empty() {
            true => Err(broken_server("the server tells nothing of a range").into()),
            false => Ok(runs),
        });
        let runs = told.map_err(|fault| self.told(fault, "the allocation map failed", false))?;
        Ok(merged(offset, &runs, &kept, limit.max(1) as usize).into())
    }
}

impl AllocationMap for NetfsVolume {
    fn extents(&self, cx: &OpContext, offset: u64, len: u64, limit: u32) -> Op<RVec<Extent>> {
        let (attached, until) = (Arc::clone(&self.0), self.0.until(cx));
        Op::run(async move { attached.extents(until, offset, len, limit).await })
    }
}

/// What the server told, with what is kept here: that is data, whatever the server has there.
fn merged(offset: u64, runs: &[Run], kept: &[Patch], limit: usize) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut add = |from: u64, to: u64, is_hole: bool| {
        let hole = ExtentFlags::HOLE.and(ExtentFlags::ZERO);
        let flags = if is_hole { hole } else { ExtentFlags::DATA };
        match extents.last_mut() {
            _ if from == to => {}
            Some(last) if last.flags == flags => last.len += to - from,
            _ => extents.push(Extent { offset: from, len: to - from, flags }),
        }
    };
    let mut at = offset;
    for run in runs {
        let end = at + run.len;
        if run.is_hole {
            for patch in kept {
                let from = patch.offset.max(at);
                let to = (patch.offset + patch.data.len() as u64).min(end);
                if from < to {
                    add(at, from, true);
                    add(from, to, false);
                    at = to;
                }
            }
        }
        add(at, end, run.is_hole);
        at = end;
    }
    extents.truncate(limit);
    extents
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn shown(runs: &[(u64, bool)], kept: &[(u64, usize)], limit: usize) -> Vec<(u64, u64, bool)> {
        let runs: Vec<Run> = runs.iter().map(|&(len, is_hole)| Run { len, is_hole }).collect();
        let kept: Vec<Patch> = kept
            .iter()
            .map(|&(offset, len)| Patch { offset, data: Bytes::from(vec![1; len]) })
            .collect();
        let extents = merged(100, &runs, &kept, limit);
        let hole = |extent: &Extent| extent.flags.has(ExtentFlags::HOLE);
        extents.iter().map(|extent| (extent.offset, extent.len, hole(extent))).collect()
    }

    #[test]
    fn what_is_kept_here_is_data() {
        assert_eq!(shown(&[(50, true)], &[], 9), [(100, 50, true)]);
        assert_eq!(
            shown(&[(50, true)], &[(110, 10)], 9),
            [(100, 10, true), (110, 10, false), (120, 30, true)]
        );
        assert_eq!(
            shown(&[(10, true), (10, false)], &[(105, 10)], 9),
            [(100, 5, true), (105, 15, false)]
        );
        assert_eq!(shown(&[(10, true), (10, true)], &[], 9), [(100, 20, true)]);
        assert_eq!(
            shown(&[(10, true), (10, false), (10, true)], &[], 2),
            [(100, 10, true), (110, 10, false)]
        );
        assert_eq!(shown(&[(10, true)], &[(90, 40)], 9), [(100, 10, false)]);
    }
}
