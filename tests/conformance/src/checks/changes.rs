// SPDX-License-Identifier: Apache-2.0
//! What changed between snapshots, against a comparison byte by byte.

use std::ops::Range;

use driver_api::{
    Abilities, AllocationMapHandle, ErrorKind, WriteFlags,
    ext::{AllocationMap as _, Extent, ExtentFlags},
};

use crate::{
    case::Case,
    checks::contents::Contents,
    volume::{Checked, Vol, answer, broken, ensure, refusal, success},
};

/// A snapshot's name, or none for zeros and for now, and what the volume's beginning held then.
type Picture = (String, Vec<u8>);

fn map(vol: &Vol) -> Checked<AllocationMapHandle> {
    let map = success("allocation_map", vol.handle.allocation_map())?;
    map.map_or_else(|| broken("changes are claimed, but there is no allocation map"), Ok)
}

/// One answer, its form checked.
async fn told(
    vol: &Vol,
    (from, to): (&str, &str),
    range: Range<u64>,
    limit: u32,
) -> Checked<Vec<Extent>> {
    let len = range.end - range.start;
    let op = map(vol)?.changes(&vol.cx(), from, to, range.start, len, limit);
    let list = success("changes", answer(vol.deadline, "changes", op).await?)?;
    let asked = format!("changes of {len} bytes at {}, at most {limit}", range.start);
    ensure(list.len() <= limit as usize, || format!("{asked}: {} of them", list.len()))?;
    let mut at = range.start;
    for extent in &list {
        let end = extent.offset.checked_add(extent.len);
        let fits = extent.offset >= at && extent.len > 0 && end.is_some_and(|end| end <= range.end);
        ensure(fits, || format!("{asked}: {extent:?} is not inside, or not in order"))?;
        at = extent.offset + extent.len;
    }
    Ok(list.into_vec())
}

/// All of them, asked for again where an answer ended early.
async fn all_told(
    vol: &Vol,
    pictures: (&str, &str),
    range: Range<u64>,
    limit: u32,
) -> Checked<Vec<Extent>> {
    let (mut at, mut all) = (range.start, Vec::new());
    while at < range.end {
        let more = told(vol, pictures, at..range.end, limit).await?;
        let Some(last) = more.last() else { break };
        at = last.offset + last.len;
        all.extend(more);
    }
    Ok(all)
}

/// Every byte that differs is told, and what is called zero is.
fn agree(all: &[Extent], range: Range<u64>, before: &Picture, after: &Picture) -> Checked {
    let between = || format!("between {:?} and {:?}", before.0, after.0);
    let mut at = range.start as usize;
    let end = (range.end as usize).min(after.1.len());
    let same = |range: Range<usize>| {
        let mut bytes = range.map(|at| (before.1.get(at).copied().unwrap_or(0), after.1[at], at));
        match bytes.find(|(before, after, _)| before != after) {
            None => Ok(()),
            Some((_, _, at)) => broken(format!("{}, byte {at} differs and is not told", between())),
        }
    };
    for extent in all {
        let (start, stop) =
            ((extent.offset as usize).min(end), ((extent.offset + extent.len) as usize).min(end));
        same(at..start.max(at))?;
        if extent.flags.has(ExtentFlags::ZERO) {
            let zeros = after.1[start..stop].iter().all(|byte| *byte == 0);
            ensure(zeros, || format!("{}, {extent:?} is called zero, but holds data", between()))?;
        }
        at = stop;
    }
    same(at..end.max(at))
}

/// Some changes, as many kinds as the driver has.
async fn stir(case: &Case<'_>, contents: &mut Contents<'_>, rounds: u64) -> Checked {
    let sector = contents.vol.sector();
    for _ in 0..rounds {
        let (at, len) = contents.place(128 << 10, sector);
        match contents.random.below(4) {
            0 if case.has(Abilities::DISCARD) => contents.discard(at, len).await?,
            1 if case.has(Abilities::WRITE_ZEROES) => {
                contents.zero(at, len, WriteFlags::NONE).await?;
            }
            _ => contents.write(at, len).await?,
        }
    }
    Ok(())
}

pub(super) async fn truth(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", 4 << 20).await?;
    let mut contents = Contents::new(&vol, 2 << 20, case.random());
    let mut pictures: Vec<Picture> = vec![(String::new(), Vec::new())];
    for round in 0..4 {
        stir(case, &mut contents, case.plan.rounds(12)).await?;
        vol.snapshot(&format!("s{round}")).await?;
        pictures.push((format!("s{round}"), contents.wanted.clone()));
    }
    stir(case, &mut contents, 8).await?;
    pictures.push((String::new(), contents.wanted.clone()));
    for (index, before) in pictures.iter().enumerate() {
        for after in &pictures[index + 1..] {
            let names = (before.0.as_str(), after.0.as_str());
            for limit in [1, 3, 10_000] {
                let all = all_told(&vol, names, 0..4 << 20, limit).await?;
                agree(&all, 0..4 << 20, before, after)?;
            }
            let sector = vol.sector();
            let start = contents.random.below((1 << 20) / sector) * sector;
            let range = start..start + (1 + contents.random.below((1 << 20) / sector)) * sector;
            let all = all_told(&vol, names, range.clone(), 10_000).await?;
            agree(&all, range, before, after)?;
        }
    }
    let all = told(&vol, ("s1", "s1"), 0..4 << 20, 100).await?;
    ensure(all.is_empty(), || format!("between a snapshot and itself there is {all:?}"))
}

pub(super) async fn resized(case: &Case<'_>) -> Checked {
    let (small, large) = ((1 << 20) + 8192, 3 << 20);
    let vol = case.fresh_sized("v", large).await?;
    let mut contents = Contents::new(&vol, large, case.random());
    contents.fill().await?;
    let mut pictures: Vec<Picture> = Vec::new();
    for (name, size) in [("large", large), ("small", small), ("grown", large)] {
        vol.resize(size, true).await?;
        contents.wanted.resize(size as usize, 0);
        vol.snapshot(name).await?;
        pictures.push((name.to_owned(), contents.wanted.clone()));
    }
    for (index, before) in pictures.iter().enumerate() {
        for after in &pictures[index + 1..] {
            let range = 0..after.1.len() as u64;
            let names = (before.0.as_str(), after.0.as_str());
            let all = all_told(&vol, names, range.clone(), 100).await?;
            agree(&all, range, before, after)?;
        }
    }
    let op = map(&vol)?.changes(&vol.cx(), "large", "small", small, 4096, 10);
    let past = answer(vol.deadline, "changes", op).await?;
    refusal("changes past a smaller snapshot's end", past, &[ErrorKind::OUT_OF_RANGE]).map(|_| ())
}

pub(super) async fn refusals(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", 4 << 20).await?;
    vol.snapshot("first").await?;
    vol.write(0, &case.random().bytes(vol.sector())).await?;
    vol.snapshot("second").await?;
    for (what, from, to, kind) in [
        ("changes since a missing snapshot", "missing", "", ErrorKind::NOT_FOUND),
        ("changes until a missing snapshot", "first", "missing", ErrorKind::NOT_FOUND),
        ("changes backwards", "second", "first", ErrorKind::INVALID_ARGUMENT),
    ] {
        let op = map(&vol)?.changes(&vol.cx(), from, to, 0, 4 << 20, 10);
        refusal(what, answer(vol.deadline, "changes", op).await?, &[kind])?;
    }
    let op = map(&vol)?.changes(&vol.cx(), "first", "", 4 << 20, vol.sector(), 10);
    let past = answer(vol.deadline, "changes", op).await?;
    refusal("changes past the end", past, &[ErrorKind::OUT_OF_RANGE]).map(|_| ())
}
