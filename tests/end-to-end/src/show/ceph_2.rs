// SPDX-License-Identifier: Apache-2.0
//! A filesystem goes onto a volume in a Ceph cluster and back; and a distributed volume has bricks in that cluster and on
//! local disks, while an OSD and one of the disks are killed in turn under a client that verifies what it writes.

mod disk;

use std::{sync::atomic::AtomicBool, sync::atomic::Ordering, thread, time::Duration};

pub(super) use disk::Disk;

use super::{
    Stage,
    round_trip::{self, Image, Place},
    verifying,
};
use crate::{
    ceph::{BACKEND, Ceph, OSDS},
    cluster::Cluster,
    failure::{Failure, Outcome},
    host::install,
    program::until,
    random::Random,
};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
const VOLUME: &str = "mixed";
/// A disk that dies is noticed at the next write; the cluster has time to replace an OSD.
const OPTIONS: &str = "io_timeout_secs = 60\nhealth_check_interval = \"1s\"\ndown_grace = \"10m\"\n\
                       healing_pace = \"urgent\"\n";
/// How long a node that failed several times is on probation, and then needs until it is in sync.
const PROBATION: Duration = Duration::from_secs(240);

pub(super) fn play(stage: &Stage) -> Outcome {
    let ceph = Ceph::start(&stage.path("ceph"))?;
    let image = Image::new(stage)?;
    {
        let host = ceph.host(&stage.artifacts, "")?;
        let place = Place { name: "ceph", backend: Some(BACKEND), options: &[] };
        round_trip::play(stage, &host, &image, &place)?;
    }
    mixed(stage, &ceph)
}

fn mixed(stage: &Stage, ceph: &Ceph) -> Outcome {
    let seed = Random::seed();
    stage.tell(format!("seed {seed}"));
    let mut random = Random::new(seed);
    let mut disk = Disk::new(&stage.path("disk"))?;
    let more = format!(
        "{OPTIONS}{}\n[backends.frail]\ndriver = \"local\"\ndir = \"{}\"\nreserve_percent = 0\n",
        ceph.section(BACKEND, ""),
        disk.path().display()
    );
    let room = stage.path("nodes");
    let mut cluster = Cluster::start(&stage.artifacts, &room, 1, &[BACKEND, "frail"], &more)?;
    install(&stage.artifacts.ceph()?, &cluster.host.plugins())?;
    until(Duration::from_secs(60), || {
        cluster.host.cli().ask().args(["backend", "open", BACKEND]).run()
    })?;
    cluster.volume_with(VOLUME, SIZE, &[("replication_factor", "3")])?;
    let uri = cluster.host.uri(VOLUME);
    for node in [BACKEND, "frail", "n1"] {
        cluster.until_replica(VOLUME, node, "in-sync")?;
    }

    let (over, first_seed) = (AtomicBool::new(false), random.within(1..1 << 20));
    let rounds = if stage.is_long() { 3 } else { 1 };
    thread::scope(|scope| {
        let client = scope.spawn(|| verifying::client(&uri, &["--size=16M"], first_seed, &over));
        let troubled = (1..=rounds).try_for_each(|round| {
            let osd = OSDS[usize::try_from(random.within(0..3)).unwrap_or(0)];
            ceph.signal(osd, "KILL")?;
            thread::sleep(Duration::from_millis(random.within(1000..6000)));
            ceph.again(osd)?;
            ceph.until_well()?;
            disk.pull_out()?;
            cluster.until_replica(VOLUME, "frail", "stale")?;
            thread::sleep(Duration::from_millis(random.within(500..3000)));
            disk.put_in()?;
            let copied = until(PROBATION, || in_sync(&cluster))?;
            stage.tell(format!(
                "round {round}: {osd} was killed and came back; a disk was pulled out, came back and fetched {} KiB",
                copied >> 10
            ));
            Ok(())
        });
        over.store(true, Ordering::SeqCst);
        let verified = client.join().map_err(|_| Failure::new("the client's thread panicked"))?;
        troubled?;
        stage.tell(format!(
            "the client wrote and verified 16 MiB of it {} times, without an error",
            verified?
        ));
        Ok(())
    })?;
    cluster.host.cli().ask().args(["volume", "verify", VOLUME]).run()?;
    stage.tell("the replicas in the cluster and on the disks agree");
    cluster.host.stop()?;
    drop(cluster);
    disk.close()
}

/// The bytes that were copied to the node with the frail disk, once it is in sync.
fn in_sync(cluster: &Cluster) -> Outcome<u64> {
    let replicas = cluster.replicas(VOLUME)?;
    match replicas.get("frail") {
        Some((state, copied)) if state == "in-sync" => Ok(*copied),
        _ => Err(Failure::new(format!("frail is not in sync: {replicas:?}"))),
    }
}
