// SPDX-License-Identifier: Apache-2.0
//! Discard and write-zeroes: zeros where asked, nothing elsewhere.

use driver_api::{Abilities, ErrorKind, WriteFlags};

use crate::{
    case::Case,
    checks::contents::Contents,
    volume::{Checked, ensure, refusal},
};

pub(super) async fn discard(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let block = u64::from(vol.caps.min_block);
    let mut contents = Contents::new(&vol, 2 << 20, case.random());
    contents.fill().await?;
    for (at, len) in [(0, 64 << 10), (1 << 20, 512 << 10), ((128 << 10) + block, 256 << 10)] {
        contents.discard(at, len).await?;
        contents.expect_around(at, len).await?;
    }
    for _ in 0..case.plan.rounds(100) {
        let (at, len) = contents.place(160 << 10, block);
        contents.discard(at, len).await?;
        contents.expect_around(at, len).await?;
        let (at, len) = contents.place(32 << 10, block);
        contents.write(at, len).await?;
    }
    contents.expect("after discards").await
}

pub(super) async fn discard_range(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let (size, block) = (case.plan.volume_size, vol.sector());
    let data = case.random().bytes(block);
    vol.write(size - block, &data).await?;
    let last = u64::MAX - u64::MAX % block;
    for (at, len) in [(size - block, block * 2), (size, block), (last, block), (block, last)] {
        let answer = vol.try_discard(at, len).await?;
        refusal(&format!("a discard of {len} bytes at {at}"), answer, &[ErrorKind::OUT_OF_RANGE])?;
    }
    vol.expect(size - block, &data, "after a refused discard").await
}

fn flag_sets(case: &Case<'_>) -> Vec<WriteFlags> {
    let mut sets = vec![WriteFlags::NONE, WriteFlags::NO_HOLE];
    if case.has(Abilities::FUA) {
        sets.extend([WriteFlags::FUA, WriteFlags::FUA.and(WriteFlags::NO_HOLE)]);
    }
    sets
}

pub(super) async fn write_zeroes(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let block = u64::from(vol.caps.min_block);
    for flags in flag_sets(case) {
        let mut contents = Contents::new(&vol, 1 << 20, case.random());
        contents.fill().await?;
        for (at, len) in [(0, 64 << 10), ((128 << 10) + block, 256 << 10)] {
            contents.zero(at, len, flags).await?;
            contents.expect_around(at, len).await?;
        }
        for _ in 0..case.plan.rounds(25) {
            let (at, len) = contents.place(160 << 10, block);
            contents.zero(at, len, flags).await?;
            contents.expect_around(at, len).await?;
            let (at, len) = contents.place(32 << 10, block);
            contents.write(at, len).await?;
        }
        contents.expect("after writing zeros").await?;
    }
    Ok(())
}

pub(super) async fn write_zeroes_range(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let (size, block) = (case.plan.volume_size, vol.sector());
    let data = case.random().bytes(block);
    vol.write(size - block, &data).await?;
    let last = u64::MAX - u64::MAX % block;
    for (at, len) in [(size - block, block * 2), (size, block), (last, block), (block, last)] {
        let answer = vol.try_zero(at, len, WriteFlags::NONE).await?;
        refusal(&format!("zeroing {len} bytes at {at}"), answer, &[ErrorKind::OUT_OF_RANGE])?;
    }
    let answer = vol.try_zero(size - block, block, WriteFlags::from_bits(1 << 15)).await?;
    refusal("zeroing with an unknown flag", answer, &[ErrorKind::INVALID_ARGUMENT])?;
    vol.expect(size - block, &data, "after refused zeroes").await
}

pub(super) async fn fast_only(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let mut contents = Contents::new(&vol, 512 << 10, case.random());
    contents.fill().await?;
    let (at, len) = (128 << 10, 256 << 10);
    let answer = vol.try_zero(at, len, WriteFlags::FAST_ONLY).await?;
    if answer.is_ok() {
        contents.wanted[at as usize..(at + len) as usize].fill(0);
    } else {
        refusal("zeroing with FAST_ONLY", answer, &[ErrorKind::UNSUPPORTED])?;
    }
    contents.expect("after FAST_ONLY").await
}

pub(super) async fn fast_zero(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let mut contents = Contents::new(&vol, 512 << 10, case.random());
    contents.fill().await?;
    contents.zero(128 << 10, 256 << 10, WriteFlags::FAST_ONLY).await?;
    contents.expect("after FAST_ONLY").await?;
    let both = WriteFlags::FAST_ONLY.and(WriteFlags::NO_HOLE);
    let answer = vol.try_zero(0, 64 << 10, both).await?;
    // Zeros that stay allocated may well be as slow as data.
    ensure(
        answer.is_ok() || answer.is_err_and(|error| error.kind() == ErrorKind::UNSUPPORTED),
        || "FAST_ONLY with NO_HOLE is neither done nor Unsupported".to_owned(),
    )
}
