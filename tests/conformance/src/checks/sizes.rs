// SPDX-License-Identifier: Apache-2.0
//! Volumes of unusual sizes.

use driver_api::{ErrorKind, WriteFlags};

use crate::{
    case::Case,
    volume::{Checked, ensure, not_claimed, refusal, success},
};

pub(super) async fn sizes(case: &Case<'_>) -> Checked {
    let block = u64::from(case.caps.min_block);
    let sector = case.sector();
    for size in [sector, sector * 3, sector * 1021, (1 << 20) + sector, (3 << 20) - sector] {
        let vol = case.fresh_sized(&format!("v{size}"), size).await?;
        let (shown, open) = (case.show(&vol.name).await?.size, vol.size()?);
        ensure(shown == size && open == size, || {
            format!("of {size} bytes asked for, show says {shown} and the volume {open}")
        })?;
        let last = case.random().bytes(block);
        vol.expect_zeros(0, size, "in a new volume").await?;
        vol.write(size - block, &last).await?;
        vol.expect(size - block, &last, "in the last block").await?;
        let past = vol.try_write(size, &last, WriteFlags::NONE).await?;
        refusal("a write just past the end", past, &[ErrorKind::OUT_OF_RANGE])?;
    }
    Ok(())
}

pub(super) async fn sparse(case: &Case<'_>) -> Checked {
    let size = 1_u64 << 40;
    if case.caps.max_volume_size < size {
        return not_claimed(format!("max_volume_size is {}", case.caps.max_volume_size));
    }
    // Storage that is taken up in full at create is not asked for so much of it.
    let probe = case.create(&case.name("probe"), case.plan.volume_size).await?;
    if probe.used >= probe.size {
        return not_claimed("volumes are not thin: a new one uses its whole size");
    }
    let name = case.name("v");
    match case.try_create(&name, size).await? {
        Err(error) if error.kind() == ErrorKind::NO_SPACE => {
            return not_claimed("the backend has no room for it and is not thin");
        }
        created => success("create of 1 TiB", created)?,
    };
    let vol = case.attach(&name).await?;
    let mut random = case.random();
    let places: Vec<(u64, Vec<u8>)> = [0, 1 << 31, 1 << 32, (1 << 32) + 4096, 1 << 39, size - 4096]
        .iter()
        .map(|at| (*at, random.bytes(4096)))
        .collect();
    if !vol.sector().is_power_of_two() || vol.sector() > 4096 {
        return not_claimed("blocks are larger than 4 KiB");
    }
    for (at, data) in &places {
        vol.write(*at, data).await?;
    }
    for (at, data) in &places {
        vol.expect(*at, data, "at a far place").await?;
    }
    vol.expect_zeros(1 << 38, 1 << 20, "between far places").await?;
    let used = case.show(&name).await?.used;
    ensure(used <= size, || format!("a volume of 1 TiB uses {used} bytes"))
}

pub(super) async fn too_large(case: &Case<'_>) -> Checked {
    let sector = case.sector();
    let Some(size) = case.caps.max_volume_size.checked_add(sector) else {
        return not_claimed("there is no limit");
    };
    let name = case.name("v");
    let answer = case.try_create(&name, size - size % sector).await?;
    let kinds = &[ErrorKind::INVALID_ARGUMENT, ErrorKind::OUT_OF_RANGE, ErrorKind::NO_SPACE];
    refusal("a volume beyond max_volume_size", answer, kinds)?;
    let made = case.list().await?.iter().any(|volume| volume.name == name);
    ensure(!made, || "a refused create left a volume behind".to_owned())
}
