// SPDX-License-Identifier: Apache-2.0
//! Clones that get all that they share with their sources.

use std::time::{Duration, Instant};

use driver_api::{
    Abilities, ClonesHandle, ErrorKind,
    ext::{Clones as _, Flattening},
};

use crate::{
    case::Case,
    checks::contents::Contents,
    volume::{Checked, Vol, broken, ensure, refusal, success},
};

const SIZE: u64 = 4 << 20;

fn clones(case: &Case<'_>) -> Checked<ClonesHandle> {
    let clones = success("clones", case.backend().clones())?;
    clones.map_or_else(|| broken("clones are claimed, but there is no accessor"), Ok)
}

async fn told(case: &Case<'_>, vol: &Vol) -> Checked<Flattening> {
    let now = clones(case)?.flattening(&vol.cx(), &vol.name);
    let now = case.done("flattening", now).await?;
    ensure(now.done <= now.total, || format!("{} of {} bytes are done", now.done, now.total))?;
    Ok(now)
}

async fn set(case: &Case<'_>, vol: &Vol, on: bool) -> Checked {
    case.done("flatten", clones(case)?.flatten(&vol.cx(), &vol.name, on)).await
}

/// What is told once it is not under way any more; meanwhile a client writes, if there is one.
async fn end(
    case: &Case<'_>,
    vol: &Vol,
    mut client: Option<&mut Contents<'_>>,
) -> Checked<Flattening> {
    let begun = Instant::now();
    loop {
        let now = told(case, vol).await?;
        if !now.running {
            return Ok(now);
        }
        ensure(begun.elapsed() < case.plan.deadline, || {
            format!("flattening {SIZE} bytes does not end: {now:?}")
        })?;
        if let Some(client) = &mut client {
            let (at, len) = client.place(64 << 10, vol.sector());
            client.write(at, len).await?;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(super) async fn flatten(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", SIZE).await?;
    let mut source = Contents::new(&vol, 2 << 20, case.random());
    source.fill().await?;
    let wanted = source.wanted.clone();
    vol.detach().await?;
    let twin = case.cloned(&vol.name, "", "c", 0).await?;
    let mut copy = Contents::new(&twin, 2 << 20, case.random());
    copy.wanted.clone_from(&wanted);
    copy.random.next();
    set(case, &twin, true).await?;
    set(case, &twin, true).await?;
    let now = end(case, &twin, Some(&mut copy)).await?;
    ensure(now.needs.is_empty() && now.reason.is_empty() && now.done == now.total, || {
        format!("a volume that was flattened to its end still needs something: {now:?}")
    })?;
    copy.expect("after flattening").await?;
    set(case, &twin, true).await?;
    let again = end(case, &twin, None).await?;
    ensure(again.needs.is_empty(), || format!("flattened again, it is {again:?}"))?;
    let vol = case.attach(&vol.name).await?;
    vol.expect(0, &wanted, "in the source of what was flattened").await?;
    vol.detach().await?;
    case.delete(&vol.name).await?;
    copy.expect("after flattening, without its source").await?;
    twin.expect_zeros(2 << 20, 2 << 20, "after flattening, where nothing was written").await?;
    twin.detach().await?;
    let twin = case.attach(&twin.name).await?;
    twin.expect(0, &copy.wanted, "after flattening, attached again").await
}

pub(super) async fn stopped(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", SIZE).await?;
    let mut source = Contents::new(&vol, 2 << 20, case.random());
    source.fill().await?;
    let wanted = source.wanted.clone();
    vol.detach().await?;
    let twin = case.cloned(&vol.name, "", "c", 0).await?;
    twin.detach().await?;
    let detached = clones(case)?.flatten(&case.cx(), &twin.name, true);
    let detached = case.answer("flatten", detached).await?;
    refusal("flattening a detached volume", detached, &[ErrorKind::INVALID_ARGUMENT])?;
    let twin = case.attach(&twin.name).await?;
    set(case, &twin, true).await?;
    set(case, &twin, false).await?;
    let ended = end(case, &twin, None).await?;
    ensure(ended.needs.is_empty() || !ended.reason.is_empty(), || {
        format!("flattening ended before its end, and no reason is told: {ended:?}")
    })?;
    twin.expect(0, &wanted, "after flattening was ended").await?;
    set(case, &twin, true).await?;
    twin.detach().await?;
    let twin = case.attach(&twin.name).await?;
    twin.expect(0, &wanted, "after a detach while flattening").await?;
    if case.has(Abilities::SNAPSHOT) {
        twin.snapshot("s").await?;
    }
    set(case, &twin, true).await?;
    let ended = end(case, &twin, None).await?;
    ensure(ended.needs.is_empty(), || format!("flattened at last, it is {ended:?}"))?;
    twin.expect(0, &wanted, "after it was flattened at last").await
}
