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

/// Writers that go on until the attachment is taken from them.
struct Racing {
    tasks: JoinSet<Checked>,
    counts: Vec<Arc<AtomicU64>>,
    sector: u64,
}

impl Racing {
    const WRITERS: u64 = 16;

    /// Starts them, and waits until each has written a little.
    async fn start(vol: &Vol, ends: &'static [ErrorKind]) -> Checked<Self> {
        let counts: Vec<_> = (0..Self::WRITERS).map(|_| Arc::new(AtomicU64::new(0))).collect();
        let mut tasks = JoinSet::new();
        for (at, count) in (0..).zip(&counts) {
            tasks.spawn(write_until_refused(vol.clone(), at, Arc::clone(count), ends));
        }
        while counts.iter().any(|count| count.load(Ordering::SeqCst) < 4) {
            if let Some(ended) = tasks.try_join_next() {
                ended.unwrap_or_else(|error| broken(error.to_string()))?;
                return broken("a writer was refused while it held the volume");
            }
            tokio::task::yield_now().await;
        }
        Ok(Self { tasks, counts, sector: vol.sector() })
    }

    /// How far each was acknowledged.
    fn acknowledged(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Ordering::SeqCst)).collect()
    }

    /// Judges what the next holder finds, now and once all writers ended.
    async fn judge(self, new: &Vol, before: Vec<u64>, when: &str) -> Checked {
        let sector = self.sector;
        let taken = new.read(0, Self::WRITERS * sector).await?.to_vec();
        for (at, (bytes, before)) in (0..).zip(taken.chunks(sector as usize).zip(before)) {
            let found = version_of(at, bytes);
            ensure(found.is_some_and(|found| found >= before), || {
                format!("{when}, sector {at} holds {found:?}; {before} was acknowledged")
            })?;
        }
        // Half is written anew: what lands late there would undo an acknowledged write.
        let own: Vec<u8> =
            (0..Self::WRITERS / 2).flat_map(|at| stamped(at, u64::MAX, sector)).collect();
        new.write(0, &own).await?;
        joined(self.tasks).await?;
        new.expect(0, &own, &format!("{when}, over late writes of the old holder")).await?;
        let rest = &taken[own.len()..];
        let when = format!("{when}, once the old holder's writes all ended");
        new.expect(own.len() as u64, rest, &when).await
    }
}

/// Writes numbers into one sector until it is refused.
async fn write_until_refused(
    vol: Vol,
    at: u64,
    acknowledged: Arc<AtomicU64>,
    ends: &'static [ErrorKind],
) -> Checked {
    for number in 1..=1_000_000 {
        let data = stamped(at, number, vol.sector());
        match vol.try_write(at * vol.sector(), &data, WriteFlags::NONE).await? {
            Ok(()) => acknowledged.store(number, Ordering::SeqCst),
            Err(_) if ends.is_empty() => return Ok(()),
            refused => {
                return refusal("a write during a take-over", refused, ends).map(|_| ());
            }
        }
        tokio::task::yield_now().await;
    }
    broken("of a million writes after the volume was taken, none was refused")
}

pub(super) async fn race(case: &Case<'_>) -> Checked {
    for round in 0..case.plan.rounds(4) {
        let old = case.fresh_sized(&format!("v{round}"), SIZE).await?;
        let racing = Racing::start(&old, &[ErrorKind::FENCED]).await?;
        let before = racing.acknowledged();
        let new = forced(case, &old).await?;
        racing.judge(&new, before, "after a take-over").await?;
        new.detach().await?;
    }
    Ok(())
}

pub(super) async fn detach_race(case: &Case<'_>) -> Checked {
    for round in 0..case.plan.rounds(4) {
        let old = case.fresh_sized(&format!("v{round}"), SIZE).await?;
        let racing = Racing::start(&old, &[]).await?;
        old.detach().await?;
        let new = case.attach(&old.name).await?;
        // A write acknowledged while the detach was under way counts as well.
        let before = racing.acknowledged();
        racing.judge(&new, before, "after a detach under writes").await?;
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
