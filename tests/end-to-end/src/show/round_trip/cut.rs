// SPDX-License-Identifier: Apache-2.0
//! A journal heals much, so a filesystem alone does not tell whether a clone is of one moment. This does: writes go
//! round over the whole volume one after the other, and the clone must hold all of them up to one, and none after it.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use super::Place;
use crate::{
    failure::{Context, Failure, Outcome, ensure},
    host::Host,
    ledger::{SECTOR, content},
    nbd::{Client, Command},
    program::until,
};

const PLACES: u64 = 61;
const SIZE: u64 = 64 << 20;
/// Rounds before the clone is taken.
const ROUNDS: u64 = 3;

pub(super) fn clone_is_one_moment(host: &Host, place: &Place<'_>) -> Outcome {
    let (volume, clone) = (format!("round-{}", place.name), format!("moment-{}", place.name));
    place.volume(host, &volume, SIZE)?;
    let mut client = host.connect(&volume)?;
    let (stop, last) = (AtomicBool::new(false), AtomicU64::new(0));
    let cloned = thread::scope(|scope| {
        let writer = scope.spawn(|| write_round(&mut client, &stop, &last));
        let warm = until(Duration::from_secs(30), || {
            let written = last.load(Ordering::SeqCst);
            ensure(written > ROUNDS * PLACES, || format!("{written} writes"))
        });
        let before = last.load(Ordering::SeqCst);
        let cloned = warm.and_then(|()| host.cli().clone_volume(&volume, &clone));
        let after = last.load(Ordering::SeqCst);
        stop.store(true, Ordering::SeqCst);
        let written = writer.join().map_err(|_| Failure::new("the writer panicked"))?;
        written.and(cloned).map(|()| before..after)
    })?;
    host.cli().add_export(&clone)?;
    let found = cut(&mut host.connect(&clone)?)?;
    // One write more may have been under way when the clone was answered.
    ensure(cloned.start <= found && found <= cloned.end + 1, || {
        format!(
            "the clone holds writes up to {found}; {cloned:?} were acknowledged before and after it"
        )
    })
}

fn sectors(number: u64) -> Range<u64> {
    let place = number % PLACES * (SIZE / PLACES / u64::from(SECTOR));
    place..place + 1
}

fn write_round(client: &mut Client, stop: &AtomicBool, last: &AtomicU64) -> Outcome {
    let mut number = 1;
    while !stop.load(Ordering::SeqCst) {
        let place = sectors(number);
        let data = content(place.clone(), number);
        let offset = place.start * u64::from(SECTOR);
        client.call(Command::Write { fua: false }, offset, SECTOR, &data).context("write")?;
        last.store(number, Ordering::SeqCst);
        number += 1;
    }
    Ok(())
}

/// The number of the clone's last write, if all before it are there.
fn cut(client: &mut Client) -> Outcome<u64> {
    let mut found = Vec::new();
    for place in 0..PLACES {
        let offset = sectors(place).start * u64::from(SECTOR);
        found.push(client.call(Command::Read, offset, SECTOR, &[]).context("read the clone")?);
    }
    last_of_all(&found)
}

fn last_of_all(found: &[Vec<u8>]) -> Outcome<u64> {
    let numbers = found.iter().map(|data| {
        let number = data.get(16..24).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
        u64::from_be_bytes(number.unwrap_or_default())
    });
    let last = numbers.max().unwrap_or_default();
    ensure(last >= PLACES, || format!("the clone's last write is {last}, too few to tell"))?;
    for number in last + 1 - PLACES..=last {
        let place = usize::try_from(number % PLACES).context("place")?;
        ensure(content(sectors(number), number) == found[place], || {
            format!(
                "the clone holds write {last}, but not write {number}, which was acknowledged before"
            )
        })?;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::{PLACES, content, last_of_all, sectors};

    fn after(numbers: impl Iterator<Item = u64>) -> Vec<Vec<u8>> {
        let mut found = vec![vec![0; 512]; 61];
        for number in numbers {
            found[(number % PLACES) as usize] = content(sectors(number), number);
        }
        found
    }

    #[test]
    fn a_moment_holds_everything_before_it() {
        assert_eq!(last_of_all(&after(1..=100)).unwrap(), 100);
        assert!(last_of_all(&after(1..=30)).is_err());
        let missing = (1..=200).filter(|number| *number != 170);
        assert!(last_of_all(&after(missing)).unwrap_err().to_string().contains("write 170"));
    }
}
