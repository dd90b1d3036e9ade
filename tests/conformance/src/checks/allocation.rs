// SPDX-License-Identifier: Apache-2.0
//! The allocation map against what the volume reads.

use driver_api::{
    Abilities, WriteFlags,
    ext::{AllocationMap as _, Extent, ExtentFlags},
};

use crate::{
    case::Case,
    checks::contents::Contents,
    volume::{Checked, Vol, answer, broken, ensure, success},
};

/// One answer of the map, its form checked.
async fn extents(vol: &Vol, offset: u64, len: u64, limit: u32) -> Checked<Vec<Extent>> {
    let map = success("allocation_map", vol.handle.allocation_map())?;
    let Some(map) = map else {
        return broken("an allocation map is claimed, but there is no accessor");
    };
    let op = map.extents(&vol.cx(), offset, len, limit);
    let list = success("extents", answer(vol.deadline, "extents", op).await?)?;
    let asked = format!("extents of {len} bytes at {offset}, at most {limit}");
    ensure(!list.is_empty(), || format!("{asked}: none"))?;
    ensure(list.len() <= limit as usize, || format!("{asked}: {} of them", list.len()))?;
    let mut at = offset;
    for extent in &list {
        let fits = extent.offset == at
            && extent.len > 0
            && extent.offset.checked_add(extent.len).is_some_and(|end| end <= offset + len);
        ensure(fits, || format!("{asked}: {extent:?} does not follow byte {at}"))?;
        at += extent.len;
    }
    Ok(list.into_vec())
}

/// The whole map of a range, asked for again where an answer ended early.
async fn all_extents(vol: &Vol, offset: u64, len: u64, limit: u32) -> Checked<Vec<Extent>> {
    let (mut at, mut all) = (offset, Vec::new());
    while at < offset + len {
        let part = extents(vol, at, offset + len - at, limit).await?;
        at = part.last().map_or(at, |extent| extent.offset + extent.len);
        all.extend(part);
    }
    Ok(all)
}

pub(super) async fn shape(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let (size, sector) = (case.plan.volume_size, vol.sector());
    let mut random = case.random();
    for index in 0..16 {
        vol.write(index * (192 << 10), &random.bytes(sector.max(64 << 10))).await?;
    }
    for limit in [1, 2, 3, 1000] {
        all_extents(&vol, 0, 4 << 20, limit).await?;
    }
    all_extents(&vol, 0, size, 1 << 16).await?;
    for _ in 0..case.plan.rounds(50) {
        let len = (1 + random.below(512)) * sector;
        let at = random.below((size - len) / sector + 1) * sector;
        all_extents(&vol, at, len, 1 + random.below(4) as u32).await?;
    }
    Ok(())
}

/// Compares what the map says with what the volume must hold.
async fn agrees(vol: &Vol, wanted: &[u8], when: &str) -> Checked {
    for extent in all_extents(vol, 0, wanted.len() as u64, 64).await? {
        let range = &wanted[extent.offset as usize..(extent.offset + extent.len) as usize];
        let zeros = range.iter().all(|byte| *byte == 0);
        if extent.flags.has(ExtentFlags::ZERO) {
            ensure(zeros, || format!("{when}, {extent:?} is called zero, but holds data"))?;
        } else if extent.flags.has(ExtentFlags::HOLE) {
            ensure(zeros, || format!("{when}, {extent:?} is called a hole, but holds data"))?;
        }
    }
    Ok(())
}

pub(super) async fn truth(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let block = u64::from(vol.caps.min_block);
    let mut contents = Contents::new(&vol, 2 << 20, case.random());
    agrees(&vol, &contents.wanted, "in a new volume").await?;
    for _ in 0..case.plan.rounds(60) {
        let (at, len) = contents.place(96 << 10, block);
        match contents.random.below(4) {
            0 if case.has(Abilities::DISCARD) => contents.discard(at, len).await?,
            1 if case.has(Abilities::WRITE_ZEROES) => {
                contents.zero(at, len, WriteFlags::NONE).await?;
            }
            2 => contents.write(at, block).await?,
            _ => contents.write(at, len).await?,
        }
        agrees(&vol, &contents.wanted, &format!("after {len} bytes at {at} were changed")).await?;
    }
    contents.expect("after many changes").await
}

pub(super) async fn no_hole(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let mut contents = Contents::new(&vol, 1 << 20, case.random());
    contents.fill().await?;
    for (at, len) in [(256 << 10, 256 << 10), (2 << 20, 256 << 10)] {
        success("write_zeroes", vol.try_zero(at, len, WriteFlags::NO_HOLE).await?)?;
        for extent in all_extents(&vol, at, len, 64).await? {
            ensure(!extent.flags.has(ExtentFlags::HOLE), || {
                format!("after zeroing {len} bytes at {at} with NO_HOLE, {extent:?} is a hole")
            })?;
        }
        vol.expect_zeros(at, len, "after zeroing with NO_HOLE").await?;
    }
    Ok(())
}
