// SPDX-License-Identifier: Apache-2.0
//! Taking a volume from its holder by force.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use driver_api::{ErrorKind, Fencing, WriteFlags};
use tokio::task::JoinSet;

use crate::{
    case::Case,
    checks::concurrent_io::joined,
    pattern::{stamped, version_of},
    volume::{Checked, Vol, answer, broken, ensure, not_claimed, refusal, success},
};

const SIZE: u64 = 4 << 20;

/// Takes the volume by force; without fencing a refusal is right, if the old holder goes on.
async fn forced(case: &Case<'_>, old: &Vol) -> Checked<Vol> {
    let taken = case.try_attach(&old.name, case.exclusive("taker").force()).await?;
    if case.caps.fencing != Fencing::NONE {
        return success("a forced attachment", taken);
    }
    match taken {
        Ok(taken) => Ok(taken),
        Err(error) => {
            old.write(0, &case.random().bytes(old.sector())).await?;
            not_claimed(format!("fencing is none, and the force was refused: {error}"))
        }
    }
}

/// Every operation of a deposed holder is refused.
async fn deposed(old: &Vol) -> Checked {
    let (fenced, sector) = (&[ErrorKind::FENCED], old.sector());
    let other = vec![9; sector as usize];
    for flags in [WriteFlags::NONE, WriteFlags::FUA] {
        let answer = old.try_write(0, &other, flags).await?;
        refusal("the old holder's write after a take-over", answer, fenced)?;
    }
    let answer = answer(old.deadline, "flush", old.handle.flush(&old.cx())).await?;
    refusal("the old holder's flush after a take-over", answer, fenced)?;
    let answer = old.try_read(0, sector).await?;
    refusal("the old holder's read after a take-over", answer, fenced).map(|_| ())
}

pub(super) async fn take_over(case: &Case<'_>) -> Checked {
    let old = case.fresh_sized("v", SIZE).await?;
    let data = case.random().bytes(64 << 10);
    old.write_whole(0, &data).await?;
    old.flush().await?;
    let new = forced(case, &old).await?;
    new.expect(0, &data, "for the new holder").await?;
    deposed(&old).await?;
    new.expect(0, &data, "after the old holder's late writes").await?;
    let next = case.random().bytes(4096);
    new.write(0, &next).await?;
    // A deposed holder that leaves must not take the new one's attachment with it.
    let _ = old.try_detach().await?;
    new.expect(0, &next, "after the old holder detached").await?;
    new.write(0, &data[..4096]).await?;
    let third = case.try_attach(&old.name, case.exclusive("third")).await?;
    refusal("a third attachment", third, &[ErrorKind::IN_USE]).map(|_| ())
}

const WRITERS: u64 = 16;

/// Writes numbers into one sector until it is fenced.
async fn write_until_fenced(vol: Vol, at: u64, acknowledged: Arc<AtomicU64>) -> Checked {
    for number in 1..=1_000_000 {
        let data = stamped(at, number, vol.sector());
        match vol.try_write(at * vol.sector(), &data, WriteFlags::NONE).await? {
            Ok(()) => acknowledged.store(number, Ordering::SeqCst),
            fenced => {
                let what = "a write during a take-over";
                return refusal(what, fenced, &[ErrorKind::FENCED]).map(|_| ());
            }
        }
        tokio::task::yield_now().await;
    }
    broken("a million writes after a take-over none was fenced")
}

pub(super) async fn race(case: &Case<'_>) -> Checked {
    for round in 0..case.plan.rounds(4) {
        let old = case.fresh_sized(&format!("v{round}"), SIZE).await?;
        let sector = old.sector();
        let counts: Vec<_> = (0..WRITERS).map(|_| Arc::new(AtomicU64::new(0))).collect();
        let mut tasks = JoinSet::new();
        for (at, count) in (0..).zip(&counts) {
            tasks.spawn(write_until_fenced(old.clone(), at, Arc::clone(count)));
        }
        while counts.iter().any(|count| count.load(Ordering::SeqCst) < 4) && !tasks.is_empty() {
            if let Some(ended) = tasks.try_join_next() {
                ended.unwrap_or_else(|error| broken(error.to_string()))?;
                return broken("a writer was fenced before the take-over");
            }
            tokio::task::yield_now().await;
        }
        let before: Vec<u64> = counts.iter().map(|count| count.load(Ordering::SeqCst)).collect();
        let new = match forced(case, &old).await {
            Ok(new) => new,
            Err(stop) => {
                tasks.shutdown().await;
                return Err(stop);
            }
        };
        let taken = new.read(0, WRITERS * sector).await?.to_vec();
        for (at, (bytes, before)) in (0..).zip(taken.chunks(sector as usize).zip(before)) {
            let found = version_of(at, bytes);
            ensure(found.is_some_and(|found| found >= before), || {
                format!("sector {at} is {found:?} for the new holder; {before} was acknowledged")
            })?;
        }
        // Half is written anew: what lands late there would undo an acknowledged write.
        let own: Vec<u8> = (0..WRITERS / 2).flat_map(|at| stamped(at, u64::MAX, sector)).collect();
        new.write(0, &own).await?;
        joined(tasks).await?;
        new.expect(0, &own, "after a take-over, over late writes of the old holder").await?;
        let rest = &taken[own.len()..];
        new.expect(own.len() as u64, rest, "after the old holder's writes all ended").await?;
        new.detach().await?;
    }
    Ok(())
}

pub(super) async fn other_host(case: &Case<'_>) -> Checked {
    if case.caps.fencing == Fencing::NONE {
        return not_claimed("fencing is none");
    }
    let old = case.fresh_sized("v", SIZE).await?;
    let data = case.random().bytes(4096);
    old.write(0, &data).await?;
    old.flush().await?;
    let other = match case.open_another().await? {
        Ok(other) => other,
        Err(error) if error.kind() == ErrorKind::IN_USE => {
            return not_claimed(format!("the backend cannot be opened twice: {error}"));
        }
        Err(error) => return broken(format!("a second opening failed: {error:?}")),
    };
    let polite = case.try_attach_at(&other, &old.name, case.exclusive("other-host")).await?;
    refusal("a second opening's attachment", polite, &[ErrorKind::IN_USE])?;
    old.write(0, &data).await?;
    let forced = case.exclusive("other-host").force();
    let new = success("a forced attachment", case.try_attach_at(&other, &old.name, forced).await?)?;
    new.expect(0, &data, "for the other host").await?;
    let late = old.try_write(0, &vec![9; 4096], WriteFlags::NONE).await?;
    refusal("the old host's write after a take-over", late, &[ErrorKind::FENCED])?;
    new.expect(0, &data, "after the old host's late write").await?;
    new.detach().await?;
    case.done("close", other.close(&case.cx())).await
}
