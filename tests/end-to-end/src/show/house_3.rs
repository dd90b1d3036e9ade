// SPDX-License-Identifier: Apache-2.0
//! The host is killed at random moments under load. Two clients hold it to its promises: our own, which knows for each
//! sector what was flushed, and fio, with a region that it wrote, synced and finds again.

use std::{thread, time::Duration};

use super::Stage;
use crate::{
    clients,
    failure::{Context, Outcome, ensure},
    host::Host,
    load::Load,
    random::Random,
};

const MIB: u64 = 1 << 20;
/// What our own client writes: the first part of the volume.
pub(super) const LEDGER: u64 = 48 * MIB;
/// What fio writes while the host dies.
const RESTLESS: [&str; 6] = [
    "--rw=randwrite",
    "--bs=4k-32k",
    "--offset=48M",
    "--size=8M",
    "--fsync=8",
    "--verify_backlog=32",
];
/// What fio has written and synced before.
pub(super) const SYNCED: [&str; 4] = ["--rw=write", "--bs=64k", "--offset=56M", "--size=8M"];
pub(super) const SIZE: u64 = 64 * MIB;

pub(super) fn play(stage: &Stage) -> Outcome {
    let seed = Random::seed();
    let kills = if stage.is_long() { 50 } else { 6 };
    stage.tell(format!("seed {seed}"));
    for format in ["raw", "qcow2"] {
        let flushes = kill_often(stage, format, kills, seed)
            .context(format!("{format}, NOVASTOR_SEED={seed}"))?;
        stage.tell(format!(
            "{format}: {kills} kills, {flushes} acknowledged flushes, every flushed byte is there"
        ));
    }
    Ok(())
}

fn kill_often(stage: &Stage, format: &str, kills: u64, seed: u64) -> Outcome<u64> {
    let mut random = Random::new(seed);
    let mut host = Host::start(&stage.artifacts, "")?;
    host.volume("victim", SIZE, format)?;
    let load = Load::new(LEDGER / 512, 2, seed);
    for round in 1..=kills {
        let moment = Duration::from_millis(random.within(20..900));
        one_life(&mut host, &load, round, moment)
            .context(format!("kill {round}, after {moment:?}"))?;
    }
    ensure(load.flushes() >= kills, || {
        "hardly anything was flushed: this shows nothing".to_owned()
    })?;
    host.stop()?;
    Ok(load.flushes())
}

/// One life of a host that serves the volume `victim` of [`SIZE`] bytes: load, death, and what is there afterwards.
pub(super) fn one_life(host: &mut Host, load: &Load, round: u64, moment: Duration) -> Outcome {
    let uri = host.uri("victim");
    let seed = format!("--randseed={round}");
    clients::fio("synced", &uri, &SYNCED).args([&seed, "--do_verify=0", "--end_fsync=1"]).run()?;

    let socket = host.nbd_socket();
    let restless = {
        let program =
            clients::fio("restless", &uri, &RESTLESS).args([&seed, "--time_based", "--runtime=60"]);
        // It breaks off with the host, in whatever way.
        thread::spawn(move || program.codes(&[]).run())
    };
    load.until_killed(&socket, "victim", moment, || host.kill9())?;
    let said =
        restless.join().map_err(|_| crate::failure::Failure::new("fio's thread panicked"))?;
    clients::fio_saw_no_damage(&said?)?;

    host.restart()?;
    load.verify(&mut host.connect("victim")?)?;
    clients::fio("synced", &uri, &SYNCED).args([&seed, "--verify_only"]).run()?;
    Ok(())
}
