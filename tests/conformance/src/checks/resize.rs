// SPDX-License-Identifier: Apache-2.0
//! Sizes that change while a volume is attached.

use driver_api::{ErrorKind, WriteFlags};
use tokio::task::JoinSet;

use crate::{
    case::Case,
    checks::concurrent_io::joined,
    pattern::stamped,
    volume::{Checked, ensure, refusal},
};

pub(super) async fn grow(case: &Case<'_>) -> Checked {
    let sector = case.sector();
    let small = (1 << 20) + sector;
    let vol = case.fresh_sized("v", small).await?;
    let data = case.random().bytes(small);
    vol.write_whole(0, &data).await?;
    for size in [small + sector, 3 << 20, (4 << 20) + sector * 3] {
        vol.resize(size, false).await?;
        vol.expect(0, &data, "after growing").await?;
        vol.expect_zeros(small, size - small, "in what a volume grew by").await?;
        let shown = case.show(&vol.name).await?.size;
        ensure(shown == size, || format!("grown to {size} bytes, but show says {shown}"))?;
    }
    vol.resize(vol.size()?, false).await?;
    let (end, last) = (vol.size()?, case.random().bytes(sector));
    vol.write(end - sector, &last).await?;
    vol.detach().await?;
    let vol = case.attach(&vol.name).await?;
    vol.expect(end - sector, &last, "at the new end, attached again").await?;
    vol.expect(0, &data, "in a grown volume, attached again").await
}

pub(super) async fn shrink_asked(case: &Case<'_>) -> Checked {
    let size = 4 << 20;
    let vol = case.fresh_sized("v", size).await?;
    let data = case.random().bytes(case.sector());
    vol.write(size - case.sector(), &data).await?;
    let answer = vol.try_resize(size / 2, false).await?;
    refusal("a smaller size without `shrink`", answer, &[ErrorKind::INVALID_ARGUMENT])?;
    let now = vol.size()?;
    ensure(now == size, || format!("a refused shrink left {now} of {size} bytes"))?;
    vol.expect(size - case.sector(), &data, "after a refused shrink").await
}

pub(super) async fn shrink(case: &Case<'_>) -> Checked {
    let sector = case.sector();
    let (large, small) = (4 << 20, (1 << 20) + sector * 3);
    let vol = case.fresh_sized("v", large).await?;
    let data = case.random().bytes(large);
    vol.write_whole(0, &data).await?;
    vol.resize(small, true).await?;
    let past = vol.try_write(small, &data[..sector as usize], WriteFlags::NONE).await?;
    refusal("a write past the new end", past, &[ErrorKind::OUT_OF_RANGE])?;
    vol.expect(0, &data[..small as usize], "after shrinking").await?;
    vol.resize(large, false).await?;
    vol.expect(0, &data[..small as usize], "after shrinking and growing").await?;
    vol.expect_zeros(small, large - small, "in what was cut off and grown again").await
}

pub(super) async fn under_writes(case: &Case<'_>) -> Checked {
    let sector = case.sector();
    let vol = case.fresh_sized("v", 1 << 20).await?;
    let rounds = case.plan.rounds(30);
    let mut tasks = JoinSet::new();
    for task in 0..8_u64 {
        let vol = vol.clone();
        tasks.spawn(async move {
            for round in 1..=rounds {
                for at in (task..64).step_by(8) {
                    let data = stamped(at, round, sector);
                    vol.write(at * sector, &data).await?;
                    vol.expect(at * sector, &data, "while the volume grows").await?;
                }
            }
            Ok(())
        });
    }
    let growing = vol.clone();
    tasks.spawn(async move {
        for step in 1..=rounds {
            growing.resize((1 << 20) + step * sector * 8, false).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    });
    joined(tasks).await?;
    for at in 0..64 {
        vol.expect(at * sector, &stamped(at, rounds, sector), "after growing under writes").await?;
    }
    Ok(())
}
