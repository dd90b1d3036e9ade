// SPDX-License-Identifier: Apache-2.0
//! OSDs that are gone for longer than they may: an error comes then and not before, and once they are back the volume works
//! again by itself, under the same client. A flush tells that a write's outcome was not known.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::Stage;
use crate::{
    ceph::{BACKEND, Ceph, OSDS},
    failure::{Context, Outcome, ensure},
    nbd::{Client, Command, Error},
    program::until,
};

const VOLUME: &str = "hasty";
const BLOCK: u32 = 4096;
const DEADLINE_SECS: u64 = 5;
/// How much earlier librados may find a deadline passed: its clock is the coarse one.
const CLOCK_STEP_SECS: f64 = 0.02;
/// How long the volume has to work again.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn play(stage: &Stage, ceph: &Ceph) -> Outcome {
    let options = format!("osd_op_timeout_secs = {DEADLINE_SECS}");
    let mut host = ceph.host(&stage.artifacts, &options)?;
    host.cli().create_volume(VOLUME, 16 << 20, Some(BACKEND), &[])?;
    host.cli().add_export(VOLUME)?;
    let mut client = host.connect(VOLUME)?;
    let rounds = if stage.is_long() { 5 } else { 1 };
    for round in 1..=rounds {
        one_outage(stage, ceph, &mut client, round)?;
    }
    drop(client);
    host.stop()
}

fn one_outage(stage: &Stage, ceph: &Ceph, client: &mut Client, round: u8) -> Outcome {
    let (before, lost, after) = (block(3 * round), block(3 * round + 1), block(3 * round + 2));
    write(client, 0, &before).context("before the outage")?;
    flush(client).context("before the outage")?;
    OSDS.iter().try_for_each(|osd| ceph.signal(osd, "STOP"))?;
    let begun = Instant::now();
    let failed = write(client, 0, &lost);
    let waited = begun.elapsed().as_secs_f64();
    OSDS.iter().try_for_each(|osd| ceph.signal(osd, "CONT"))?;
    ensure(matches!(failed, Err(Error::Refused(_))), || format!("nobody answered: {failed:?}"))?;
    // librados looks at its deadlines now and then, by a clock that steps by some milliseconds.
    let deadline = f64::from(u32::try_from(DEADLINE_SECS).unwrap_or(u32::MAX));
    ensure((deadline - CLOCK_STEP_SECS..2.0 * deadline + 1.0).contains(&waited), || {
        format!("the error came after {waited:.1} s, the deadline is {deadline} s")
    })?;
    let back = Instant::now();
    let told = flush(client);
    ensure(matches!(told, Err(Error::Refused(_))), || {
        format!("a flush vouched for a write whose outcome is not known: {told:?}")
    })?;
    until(PATIENCE, || {
        write(client, u64::from(BLOCK), &after).context("write")?;
        flush(client).context("flush")
    })?;
    let works_after = back.elapsed().as_secs_f64();
    let found = read(client, 0).context("after the outage")?;
    ensure(found == before || found == lost, || "a third content came to be".to_owned())?;
    // Whether it landed is settled: nothing arrives late.
    thread::sleep(Duration::from_secs(3));
    let again = read(client, 0).context("after the outage")?;
    ensure(found == again, || "a write landed after a flush was acknowledged".to_owned())?;
    let kept = read(client, u64::from(BLOCK)).context("after the outage")?;
    ensure(kept == after, || "a flushed write is lost".to_owned())?;
    stage.tell(format!(
        "round {round}: an error after {waited:.1} s (deadline {deadline} s), which a flush told again; it worked again \
         {works_after:.1} s after the OSDs"
    ));
    Ok(())
}

fn block(byte: u8) -> Vec<u8> {
    vec![byte; BLOCK as usize]
}

fn write(client: &mut Client, offset: u64, data: &[u8]) -> Result<(), Error> {
    client.call(Command::Write { fua: false }, offset, BLOCK, data).map(drop)
}

fn read(client: &mut Client, offset: u64) -> Result<Vec<u8>, Error> {
    client.call(Command::Read, offset, BLOCK, &[])
}

fn flush(client: &mut Client) -> Result<(), Error> {
    client.call(Command::Flush, 0, 0, &[]).map(drop)
}
