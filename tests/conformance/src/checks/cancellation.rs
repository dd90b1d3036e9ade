// SPDX-License-Identifier: Apache-2.0
//! Futures that are dropped before they end. A host drops reads only; a driver must survive both.

use std::{
    future::{Future, IntoFuture, poll_fn},
    pin::Pin,
    task::Poll,
};

use driver_api::{IoBuf, Op, WriteFlags};
use tokio::task::JoinSet;

use crate::{
    case::Case,
    checks::concurrent_io::joined,
    pattern::{Random, stamped, version_of},
    volume::{Checked, Vol, ensure},
};

/// Polls an operation so many times and drops it.
async fn abandon<T>(op: Op<T>, polls: u64) {
    let mut waiting = op.into_future();
    for _ in 0..polls {
        let ended = poll_fn(|cx| Poll::Ready(Pin::new(&mut waiting).poll(cx).is_ready())).await;
        if ended {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Begins reads anywhere in the first part of a volume and drops them.
async fn drop_reads(vol: Vol, mut random: Random, rounds: u64) -> Checked {
    for _ in 0..rounds {
        let at = random.below(32) * vol.sector();
        let len = (1 + random.below(16)) * vol.sector();
        abandon(vol.handle.read(&vol.cx(), at, len as u32), random.below(3)).await;
    }
    Ok(())
}

pub(super) async fn reads(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let (sector, rounds) = (vol.sector(), case.plan.rounds(60));
    let (mut tasks, mut random) = (JoinSet::new(), case.random());
    for task in 0..4_u64 {
        let writer = vol.clone();
        tasks.spawn(async move {
            for round in 1..=rounds {
                let data = stamped(task, round, sector);
                writer.write(task * sector, &data).await?;
                writer.expect(task * sector, &data, "beside reads that are dropped").await?;
            }
            Ok(())
        });
        tasks.spawn(drop_reads(vol.clone(), Random::new(random.next()), rounds));
    }
    joined(tasks).await?;
    for task in 0..4 {
        let wanted = stamped(task, rounds, sector);
        vol.expect(task * sector, &wanted, "after many reads were dropped").await?;
    }
    vol.detach().await
}

pub(super) async fn writes(case: &Case<'_>) -> Checked {
    /// Sectors of a dropped write; one on each side is left alone.
    const LONG: u64 = 6;
    let vol = case.fresh("v").await?;
    let (sector, rounds, mut random) = (vol.sector(), case.plan.rounds(32), case.random());
    let total = rounds * (LONG + 2);
    let all: Vec<u8> = (0..total).flat_map(|at| stamped(at, 1, sector)).collect();
    vol.write_whole(0, &all).await?;
    for round in 0..rounds {
        let first = round * (LONG + 2) + 1;
        let data: Vec<u8> = (first..first + LONG).flat_map(|at| stamped(at, 2, sector)).collect();
        let data = IoBuf::copy_from(&data);
        let op = vol.handle.write(&vol.cx(), first * sector, data, WriteFlags::NONE);
        abandon(op, random.below(4)).await;
    }
    vol.flush().await?;
    for at in 0..total {
        let bytes = vol.read(at * sector, sector).await?;
        let edge = at % (LONG + 2) == 0 || at % (LONG + 2) == LONG + 1;
        let found = version_of(at, &bytes);
        let fits = if edge { found == Some(1) } else { matches!(found, Some(1 | 2)) };
        ensure(fits, || {
            let what = if edge { "beside a dropped write" } else { "of a dropped write" };
            format!("sector {at}, {what}, holds {found:?}: not one whole write of its own")
        })?;
    }
    vol.detach().await
}
