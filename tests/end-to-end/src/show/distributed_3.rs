// SPDX-License-Identifier: Apache-2.0
//! The host of a volume with three replicas is killed at random moments under load: flushed bytes are there afterwards, and
//! the replicas are equal.

use std::{thread, time::Duration};

use super::Stage;
use crate::{
    clients,
    cluster::Cluster,
    failure::{Context, Failure, Outcome, ensure},
    load::Load,
    random::Random,
};

const MIB: u64 = 1 << 20;
/// What our own client writes: the first part of the volume.
const LEDGER: u64 = 48 * MIB;
const SIZE: u64 = 64 * MIB;
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
const SYNCED: [&str; 4] = ["--rw=write", "--bs=64k", "--offset=56M", "--size=8M"];

pub(super) fn play(stage: &Stage) -> Outcome {
    let seed = Random::seed();
    let kills = if stage.is_long() { 100 } else { 6 };
    stage.tell(format!("seed {seed}"));
    let flushes = kill_often(stage, kills, seed).context(format!("NOVASTOR_SEED={seed}"))?;
    stage.tell(format!(
        "{kills} kills, {flushes} acknowledged flushes: every flushed byte is there, and the replicas agree"
    ));
    Ok(())
}

fn kill_often(stage: &Stage, kills: u64, seed: u64) -> Outcome<u64> {
    let mut random = Random::new(seed);
    let mut cluster = Cluster::start(&stage.artifacts, &stage.path("nodes"), 3, &[], "")?;
    cluster.volume("victim", SIZE)?;
    let load = Load::new(LEDGER / 512, 2, seed);
    for round in 1..=kills {
        let moment = Duration::from_millis(random.within(20..900));
        one_life(&mut cluster, &load, round, moment)
            .context(format!("kill {round}, after {moment:?}"))?;
    }
    ensure(load.flushes() >= kills, || {
        "hardly anything was flushed: this shows nothing".to_owned()
    })?;
    cluster.host.stop()?;
    cluster.replicas_agree("victim", 3)?;
    Ok(load.flushes())
}

fn one_life(cluster: &mut Cluster, load: &Load, round: u64, moment: Duration) -> Outcome {
    let host = &mut cluster.host;
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
    let said = restless.join().map_err(|_| Failure::new("fio's thread panicked"))?;
    clients::fio_saw_no_damage(&said?)?;

    host.restart()?;
    load.verify(&mut host.connect("victim")?)?;
    clients::fio("synced", &uri, &SYNCED).args([&seed, "--verify_only"]).run()?;
    cluster.replicas_agree("victim", 3)
}
