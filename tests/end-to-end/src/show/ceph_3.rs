// SPDX-License-Identifier: Apache-2.0
//! OSDs and the monitor of a cluster are killed, hung, stopped and started under clients that verify what they write: no
//! error comes before the configured deadline, no byte is wrong, no flushed write is lost, and the volume works again by itself;
//! also after writes that timed out.

mod deadline;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{Stage, verifying};
use crate::{
    ceph::{BACKEND, Ceph, MONITOR, OSDS},
    failure::{Context, Failure, Outcome},
    load::Load,
    program::until,
    random::Random,
};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
/// What our own clients write: the first part of the volume.
const LEDGER: u64 = 32 * MIB;
/// What fio has.
const PART: [&str; 2] = ["--offset=32M", "--size=16M"];
const VOLUME: &str = "disk";
/// Longer than any of the faults lasts.
const OPTIONS: &str = "osd_op_timeout_secs = 55";
/// How long all OSDs are gone.
const OUTAGE: Duration = Duration::from_secs(20);
/// Longer than OSDs take to report one of them that hangs.
const HANG: Duration = Duration::from_secs(12);
/// How long the cluster has to drop the watch of a host that died, which its volumes wait for.
const NOTICED: Duration = Duration::from_secs(60);

/// What happens to the cluster.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// An OSD is killed, and started again.
    OsdKilled,
    /// An OSD stands still, is replaced, and goes on.
    OsdHung,
    /// All OSDs are stopped, and started after a while.
    AllStopped,
    /// The monitor is killed, and started again.
    MonitorRestarted,
}

const FAULTS: [Fault; 4] =
    [Fault::OsdKilled, Fault::OsdHung, Fault::AllStopped, Fault::MonitorRestarted];

pub(super) fn play(stage: &Stage) -> Outcome {
    let seed = Random::seed();
    stage.tell(format!("seed {seed}"));
    let mut random = Random::new(seed);
    let ceph = Ceph::start(&stage.path("ceph"))?;
    under_faults(stage, &ceph, &mut random).context(format!("NOVASTOR_SEED={seed}"))?;
    deadline::play(stage, &ceph).context("OSDs that are gone for longer than they may")
}

fn under_faults(stage: &Stage, ceph: &Ceph, random: &mut Random) -> Outcome {
    let mut host = ceph.host(&stage.artifacts, OPTIONS)?;
    host.cli().create_volume(VOLUME, SIZE, Some(BACKEND), &[])?;
    host.cli().add_export(VOLUME)?;
    let load = Load::new(LEDGER / 512, 2, random.number());
    let rounds = if stage.is_long() { 5 } else { 1 };
    for round in 1..=rounds {
        let (over, first_seed) = (AtomicBool::new(false), random.within(1..1 << 20));
        let (uri, socket) = (host.uri(VOLUME), host.nbd_socket());
        let mut faults = FAULTS.to_vec();
        thread::scope(|scope| {
            let fio = scope.spawn(|| verifying::client(&uri, &PART, first_seed, &over));
            let troubled = load.until_killed_by(&socket, VOLUME, |ends| {
                while !faults.is_empty() {
                    let index = random.within(0..faults.len() as u64);
                    let fault = faults.swap_remove(usize::try_from(index).context("index")?);
                    strike(stage, ceph, fault, random).context(format!("{fault:?}"))?;
                }
                over.store(true, Ordering::SeqCst);
                // fio is not to see the host die.
                while !fio.is_finished() {
                    thread::sleep(Duration::from_millis(20));
                }
                ends.store(true, Ordering::SeqCst);
                host.kill9()
            });
            over.store(true, Ordering::SeqCst);
            let verified = fio.join().map_err(|_| Failure::new("fio's thread panicked"))?;
            troubled?;
            let times = verified.context("fio")?;
            stage.tell(format!("round {round}: fio wrote and verified its part {times} times"));
            Ok(())
        })?;
        let killed = Instant::now();
        host.restart()?;
        let mut client = until(NOTICED, || host.connect(VOLUME))?;
        let secs = killed.elapsed().as_secs_f64();
        load.verify(&mut client)?;
        stage.tell(format!(
            "the host was killed, and served the volume again after {secs:.1} s: {} acknowledged flushes kept",
            load.flushes()
        ));
    }
    host.stop()
}

fn strike(stage: &Stage, ceph: &Ceph, fault: Fault, random: &mut Random) -> Outcome {
    let osd = OSDS[usize::try_from(random.within(0..OSDS.len() as u64)).context("index")?];
    let said = match fault {
        Fault::OsdKilled => {
            ceph.signal(osd, "KILL")?;
            thread::sleep(Duration::from_millis(random.within(2000..6000)));
            ceph.again(osd)?;
            format!("{osd} was killed and started again")
        }
        Fault::OsdHung => {
            ceph.signal(osd, "STOP")?;
            thread::sleep(HANG);
            ceph.signal(osd, "CONT")?;
            format!("{osd} hung for {} s", HANG.as_secs())
        }
        Fault::AllStopped => {
            OSDS.iter().try_for_each(|osd| ceph.signal(osd, "TERM"))?;
            thread::sleep(OUTAGE);
            OSDS.iter().try_for_each(|osd| ceph.again(osd))?;
            format!("all OSDs were stopped for {} s", OUTAGE.as_secs())
        }
        Fault::MonitorRestarted => {
            ceph.signal(MONITOR, "KILL")?;
            thread::sleep(Duration::from_millis(random.within(2000..6000)));
            ceph.again(MONITOR)?;
            "the monitor was killed and started again".to_owned()
        }
    };
    let over = Instant::now();
    ceph.until_well()?;
    stage.tell(format!("{said}; the cluster is well {:.1} s later", over.elapsed().as_secs_f64()));
    Ok(())
}
