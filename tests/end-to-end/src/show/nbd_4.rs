// SPDX-License-Identifier: Apache-2.0
//! A flush on one connection covers what was acknowledged on any other, and FUA what it came with: shown with a storage
//! that loses everything else on command. Without the flush it is gone, so that the scene can tell.

mod promises;

use std::{collections::HashMap, time::Duration};

use serde_json::json;

use self::promises::{Covered, Found, Promises, Write};
use super::Stage;
use crate::{
    clients,
    failure::{Context, Failure, Outcome, ensure},
    host::{Host, install},
    ledger::content,
    libnbd::Libnbd,
    nbd::{Client, Command},
    program::until,
    random::Random,
};

/// The same storage twice: it answers at once, or later.
const BACKENDS: &str = "\n[backends.prompt]\ndriver = \"faulty\"\n\
                        \n[backends.later]\ndriver = \"faulty\"\npending = true\n";
const SECTORS: usize = 64;
const SECTOR: u32 = 512;
const SIZE: u64 = SECTORS as u64 * SECTOR as u64;
const COPIED: u64 = 8 << 20;
/// Rounds with pretended flushes of which one at least must fail.
const PRETENCES: usize = 3;

/// What the clients of a round do about flushes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flushes {
    Sent,
    None,
    /// Believed without having been sent: the round must fail.
    Pretended,
}

pub(super) fn play(stage: &Stage) -> Outcome {
    let seed = Random::seed();
    stage.tell(format!("seed {seed}"));
    let host = Host::start(&stage.artifacts, BACKENDS)?;
    install(&stage.artifacts.faulty()?, &host.plugins())?;
    until(Duration::from_secs(30), || {
        host.cli().create_volume("first", SIZE, Some("prompt"), &[])
    })?;
    let mut random = Random::new(seed);
    let rounds = if stage.is_long() { 300 } else { 20 };
    for backend in ["prompt", "later"] {
        let mut all = Found::default();
        for number in 0..rounds {
            let found = round(&host, backend, Flushes::Sent, &mut random)
                .context(format!("{backend}, round {number}, NOVASTOR_SEED={seed}"))?;
            all.safe += found.safe;
            all.gone += found.gone;
        }
        ensure(all.safe > 0 && all.gone > 0, || {
            format!("{} sectors safe, {} gone: this shows nothing", all.safe, all.gone)
        })?;
        stage.tell(format!(
            "{backend}: {rounds} losses under 2 to 5 connections, {} sectors made safe on any of them are there, \
             {} others are gone",
            all.safe, all.gone
        ));
        without(&host, backend, &mut random).context(format!("{backend}, NOVASTOR_SEED={seed}"))?;
    }
    stage.tell("without a flush everything but FUA is gone; a flush that was never sent is missed");
    through_libnbd(stage, &host)
}

/// The other way round: what the rounds above rely on is not so by itself.
fn without(host: &Host, backend: &str, random: &mut Random) -> Outcome {
    for _ in 0..3 {
        let found = round(host, backend, Flushes::None, random)?;
        ensure(found.gone > 0, || "nothing was lost though nothing was flushed".to_owned())?;
        // A round may pretend no flush at all, or only such as came before any write was acknowledged.
        let missed =
            (0..PRETENCES).any(|_| round(host, backend, Flushes::Pretended, random).is_err());
        ensure(missed, || "nobody misses a flush that was never sent".to_owned())?;
    }
    Ok(())
}

enum Sent {
    Write(Write),
    Flush(Covered),
}

/// Several connections write and flush in a random order; then the storage loses what is not durable.
fn round(host: &Host, backend: &str, flushes: Flushes, random: &mut Random) -> Outcome<Found> {
    host.cli().create_volume("shared", SIZE, Some(backend), &[])?;
    host.cli().add_export("shared")?;
    let outcome = write_and_lose(host, backend, flushes, random);
    host.cli().ask().args(["export", "remove", "shared"]).run()?;
    host.cli().ask().args(["volume", "delete", "shared"]).run()?;
    outcome
}

fn write_and_lose(
    host: &Host,
    backend: &str,
    flushes: Flushes,
    random: &mut Random,
) -> Outcome<Found> {
    let count = random.within(2..6);
    let mut clients = (0..count).map(|_| host.connect("shared")).collect::<Outcome<Vec<_>>>()?;
    ensure(clients.iter().all(Client::can_multi_conn), || {
        "the host does not promise that a flush covers all connections".to_owned()
    })?;
    let mut promises = Promises::new(SECTORS);
    let mut sent: Vec<HashMap<u64, Sent>> = clients.iter().map(|_| HashMap::new()).collect();
    for _ in 0..random.within(40..160) {
        let chosen = usize::try_from(random.within(0..count)).context("connection")?;
        let client = &mut clients[chosen];
        if client.in_flight() > 0 && random.once_in(2) {
            receive(client, &mut sent[chosen], &mut promises)?;
        } else if random.once_in(8) {
            let covered = promises.flush();
            match flushes {
                Flushes::Sent => {
                    let cookie = client.send(Command::Flush, 0, 0, &[]).context("flush")?;
                    sent[chosen].insert(cookie, Sent::Flush(covered));
                }
                Flushes::None => {}
                Flushes::Pretended => promises.flushed(&covered),
            }
        } else {
            let fua = random.once_in(8);
            let first = random.within(0..SECTORS as u64 - 4);
            let sectors = first..first + random.within(1..5);
            let range = usize::try_from(sectors.start).context("sector")?
                ..usize::try_from(sectors.end).context("sector")?;
            if let Some(write) = promises.write(range, fua) {
                let data = content(write.sectors(), write.version());
                let len = u32::try_from(data.len()).context("length")?;
                let offset = sectors.start * u64::from(SECTOR);
                let cookie =
                    client.send(Command::Write { fua }, offset, len, &data).context("write")?;
                sent[chosen].insert(cookie, Sent::Write(write));
            }
        }
    }
    for (client, sent) in clients.iter_mut().zip(&mut sent) {
        while client.in_flight() > 0 {
            receive(client, sent, &mut promises)?;
        }
    }
    if random.once_in(4) {
        // Who wrote is gone when the storage fails.
        clients.remove(0);
    }
    let lost = lose(host, backend, "shared")?;
    clients.push(host.connect("shared")?);
    let mut found = Found::default();
    for client in &mut clients {
        let len = u32::try_from(SIZE).context("size")?;
        let bytes = client.call(Command::Read, 0, len, &[]).context("read back")?;
        found = promises.check(&bytes)?;
    }
    ensure((found.gone > 0) == (lost > 0), || {
        format!("the storage lost {lost} bytes, but {} sectors are gone", found.gone)
    })?;
    Ok(found)
}

fn receive(client: &mut Client, sent: &mut HashMap<u64, Sent>, promises: &mut Promises) -> Outcome {
    let (cookie, _) = client.receive().context("reply")?;
    match sent.remove(&cookie) {
        Some(Sent::Write(write)) => promises.written(&write),
        Some(Sent::Flush(covered)) => promises.flushed(&covered),
        None => {
            return Err(Failure::new(format!("a reply to request {cookie}, which was not sent")));
        }
    }
    Ok(())
}

/// Restarts a volume's storage, and returns how many bytes that lost.
fn lose(host: &Host, backend: &str, volume: &str) -> Outcome<u64> {
    let answer = host.cli().run_on_backend(backend, "restart", &json!({ "volume": volume }))?;
    answer["lost"].as_u64().ok_or_else(|| Failure::new(format!("restart says {answer}")))
}

/// The same through libnbd: a script, and nbdcopy with several connections.
fn through_libnbd(stage: &Stage, host: &Host) -> Outcome {
    let libnbd = Libnbd::beside(&stage.artifacts)?;
    let image = stage.path("image");
    clients::ext4_empty(&image, COPIED)?;
    for backend in ["prompt", "later"] {
        let volume = format!("{backend}-libnbd");
        host.cli().create_volume(&volume, SIZE, Some(backend), &[])?;
        host.cli().add_export(&volume)?;
        libnbd
            .script("flush_covers_all.py")
            .arg(host.uri(&volume))
            .args(host.cli().words(&["backend", "run", backend, "restart"]))
            .arg(json!({ "volume": &volume }).to_string())
            .run()?;

        for flush in [true, false] {
            let volume = format!("{backend}-copy-{flush}");
            host.cli().create_volume(&volume, COPIED, Some(backend), &[])?;
            host.cli().add_export(&volume)?;
            let copy = libnbd.program("nbdcopy").arg("--connections=4").arg(&image);
            let copy = copy.arg(host.uri(&volume));
            if flush { copy.arg("--flush") } else { copy }.run()?;
            let lost = lose(host, backend, &volume)?;
            let same = clients::compare(&image, &host.uri(&volume));
            ensure(same.is_ok() == flush && (lost == 0) == flush, || {
                format!("nbdcopy, flush {flush}: {lost} bytes lost, compared: {same:?}")
            })?;
        }
    }
    stage
        .tell("libnbd sees multi-conn; its flush covers its other connections, and nbdcopy's four");
    Ok(())
}
