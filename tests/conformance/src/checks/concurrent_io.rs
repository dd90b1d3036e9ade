// SPDX-License-Identifier: Apache-2.0
//! Many operations at once, against a model of what every sector may hold.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use driver_api::{Abilities, WriteFlags};
use tokio::task::JoinSet;

use crate::{
    case::Case,
    history::History,
    pattern::{Random, stamped},
    volume::{Checked, Vol, broken, ensure, success},
};

const TASKS: u64 = 32;
const SECTORS: u64 = 256;

/// Waits for all tasks; the first that failed ends the check.
pub(super) async fn joined(mut tasks: JoinSet<Checked>) -> Checked {
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.unwrap_or_else(|error| broken(format!("a task ended early: {error}")));
        outcome = outcome.and(ended);
    }
    outcome
}

struct Shared {
    vol: Vol,
    history: History,
    versions: AtomicU64,
    abilities: Abilities,
}

pub(super) async fn concurrent(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let abilities = case.caps.abilities;
    let shared =
        Shared { vol, history: History::default(), versions: AtomicU64::new(1), abilities };
    let shared = Arc::new(shared);
    let (mut tasks, mut random) = (JoinSet::new(), case.random());
    for _ in 0..TASKS {
        let (shared, random) = (Arc::clone(&shared), Random::new(random.next()));
        tasks.spawn(work(shared, random, case.plan.rounds(60)));
    }
    joined(tasks).await?;
    let first = look(&shared, 0, SECTORS).await?;
    let second = look(&shared, 0, SECTORS).await?;
    ensure(first == second, || "two reads after all writes ended differ".to_owned())
}

async fn work(shared: Arc<Shared>, mut random: Random, rounds: u64) -> Checked {
    for _ in 0..rounds {
        let count = 1 + random.below(16);
        let first = random.below(SECTORS - count + 1);
        match random.below(8) {
            0..4 => write(&shared, first, count).await?,
            4 => clear(&shared, &mut random, first, count).await?,
            5 if random.below(8) == 0 => shared.vol.flush().await?,
            _ => look(&shared, first, count).await.map(|_| ())?,
        }
    }
    Ok(())
}

async fn write(shared: &Shared, first: u64, count: u64) -> Checked {
    let (vol, sector) = (&shared.vol, shared.vol.sector());
    let version = shared.versions.fetch_add(1, Ordering::Relaxed);
    let data: Vec<u8> =
        (first..first + count).flat_map(|at| stamped(at, version, sector)).collect();
    let began = shared.history.begin(first, count, version);
    vol.write(first * sector, &data).await?;
    shared.history.acknowledge(first, count, began);
    Ok(())
}

async fn clear(shared: &Shared, random: &mut Random, first: u64, count: u64) -> Checked {
    let (vol, sector) = (&shared.vol, shared.vol.sector());
    let (at, len) = (first * sector, count * sector);
    let ability = if random.below(2) == 0 { Abilities::DISCARD } else { Abilities::WRITE_ZEROES };
    if !shared.abilities.has(ability) {
        return write(shared, first, count).await;
    }
    let began = shared.history.begin(first, count, 0);
    let answer = match ability {
        Abilities::DISCARD => vol.try_discard(at, len).await?,
        _ => vol.try_zero(at, len, WriteFlags::NONE).await?,
    };
    success("clearing a range", answer)?;
    shared.history.acknowledge(first, count, began);
    Ok(())
}

async fn look(shared: &Shared, first: u64, count: u64) -> Checked<Vec<u8>> {
    let (vol, sector) = (&shared.vol, shared.vol.sector());
    let mut seen = Vec::new();
    // Sixteen sectors at a time: max_io may be as small as a block.
    for part in (first..first + count).step_by(16) {
        let part_count = (first + count - part).min(16);
        let began = shared.history.tick();
        let data = vol.read(part * sector, part_count * sector).await?;
        let ended = shared.history.tick();
        for (index, bytes) in data.chunks(sector as usize).enumerate() {
            shared.history.check(part + index as u64, bytes, began, ended)?;
        }
        seen.extend_from_slice(&data);
    }
    Ok(seen)
}

pub(super) async fn neighbours(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let block = u64::from(vol.caps.min_block);
    let rounds = case.plan.rounds(40);
    let mut tasks = JoinSet::new();
    let blocks = 64;
    for index in 0..blocks {
        let vol = vol.clone();
        tasks.spawn(async move {
            for round in 1..=rounds {
                let data = vec![(index + round) as u8; block as usize];
                vol.write(index * block, &data).await?;
                vol.expect(index * block, &data, "beside concurrent writes").await?;
            }
            Ok(())
        });
    }
    joined(tasks).await?;
    for index in 0..blocks {
        let wanted = vec![(index + rounds) as u8; block as usize];
        vol.expect(index * block, &wanted, "after concurrent writes beside it").await?;
    }
    Ok(())
}
