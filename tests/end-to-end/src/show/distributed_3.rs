// SPDX-License-Identifier: Apache-2.0
//! The host of a volume with three replicas is killed at random moments under load: flushed bytes are there afterwards, and
//! the replicas are equal. The same while one node is full, and while one refuses to flush.

use std::{thread, time::Duration};

use super::{
    Stage,
    house_3::{LEDGER, SIZE, SYNCED, one_life},
};
use crate::{
    clients,
    cluster::Cluster,
    failure::{Context, Failure, Outcome, ensure},
    host::install,
    load::Load,
    random::Random,
    remote::Remote,
};

/// What is wrong with the third node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Nothing.
    Healthy,
    /// In some part of each life it has no room but what it gave already: writes fail.
    Full,
    /// In some part of each life it cannot flush: its replica falls out, and comes back when it can.
    RefusesFlush,
}

impl Trouble {
    fn name(self) -> &'static str {
        match self {
            Self::Healthy => "three healthy nodes",
            Self::Full => "one node full",
            Self::RefusesFlush => "one node refusing flush",
        }
    }
}

/// The third node under trouble: storage that outlives the host and can end a dead host's sessions.
const NODE: &str = "n3";
const FENCES: &str = "fences = true";

pub(super) fn play(stage: &Stage) -> Outcome {
    let seed = Random::seed();
    stage.tell(format!("seed {seed}"));
    let mut random = Random::new(seed);
    for (trouble, kills) in [(Trouble::Healthy, 3), (Trouble::Full, 2), (Trouble::RefusesFlush, 3)]
    {
        let kills = if stage.is_long() { 100 } else { kills };
        let told = kill_often(stage, trouble, kills, &mut random)
            .context(format!("{}, NOVASTOR_SEED={seed}", trouble.name()))?;
        stage.tell(format!(
            "{}: {kills} kills, {told}: every flushed byte is there, and the replicas agree",
            trouble.name()
        ));
    }
    Ok(())
}

fn kill_often(stage: &Stage, trouble: Trouble, kills: u64, random: &mut Random) -> Outcome<String> {
    let room = stage.path(trouble.name());
    let third = match trouble {
        Trouble::Healthy => None,
        _ => Some(Remote::start(&stage.artifacts, &room.join(NODE))?),
    };
    let mut cluster = match &third {
        None => Cluster::start(&stage.artifacts, &room, 3, &[], "")?,
        Some(third) => {
            let section = third.section(NODE, FENCES);
            let cluster = Cluster::start(&stage.artifacts, &room, 2, &[NODE], &section)?;
            install(&stage.artifacts.remote()?, &cluster.host.plugins())?;
            cluster
        }
    };
    cluster.volume("victim", SIZE)?;
    let mut load = Load::new(LEDGER / 512, 2, random.number());
    let (mut fell_out, mut flushes, mut no_space) = (0, 0, 0);
    for round in 1..=kills {
        let fault = match trouble {
            Trouble::Healthy => None,
            Trouble::Full => Some("full"),
            Trouble::RefusesFlush => Some("refuses-flush"),
        };
        if trouble == Trouble::Full {
            // Recovery gives regions room as a whole: only a fresh volume has holes.
            load = Load::new(LEDGER / 512, 2, random.number()).that_may_be_full();
            fresh_volume(&cluster)?;
        }
        let (delay, moment) = (random.within(0..700), random.within(20..900));
        let (delay, moment) = (Duration::from_millis(delay), Duration::from_millis(moment));
        thread::scope(|scope| {
            let begins = fault.zip(third.as_ref()).map(|(fault, third)| {
                scope.spawn(move || {
                    thread::sleep(delay);
                    third.fault(fault)
                })
            });
            let lived = one_life(&mut cluster.host, &load, round, moment);
            match begins.map(|begins| begins.join()) {
                Some(Err(_)) => Err(Failure::new("the thread of the fault panicked")),
                Some(Ok(begun)) => lived.and(begun),
                None => lived,
            }
        })
        .and_then(|()| cluster.replicas_agree("victim", cluster.local_nodes()))
        .context(format!("kill {round}, after {moment:?}; fault after {delay:?}"))?;
        no_space += load.no_space();
        if trouble == Trouble::Full || round == kills {
            flushes += load.flushes();
        }
        if let Some((third, fault)) = third.as_ref().zip(fault) {
            let replicas = cluster.replicas("victim")?;
            let in_sync = replicas.get(NODE).is_some_and(|(state, _)| state == "in-sync");
            fell_out += u64::from(!in_sync);
            third.no_fault(fault)?;
            cluster.until_replica("victim", NODE, "in-sync").context(format!("kill {round}"))?;
        }
    }
    ensure(flushes >= kills, || "hardly anything was flushed: this shows nothing".to_owned())?;
    let mut told = format!("{flushes} acknowledged flushes");
    match trouble {
        Trouble::Healthy => {}
        Trouble::Full => {
            ensure(no_space > 0, || "no write found the node full".to_owned())?;
            told +=
                &format!(", {no_space} writes found no room, the node fell out {fell_out} times");
        }
        Trouble::RefusesFlush => {
            ensure(fell_out > 0, || "the node never fell out".to_owned())?;
            told += &format!(", the node fell out {fell_out} times");
        }
    }
    let mut bricks = Vec::new();
    if let Some(third) = &third {
        cluster.until_replica("victim", NODE, "in-sync")?;
        bricks.push(third.file(&cluster.brick("victim", NODE)?));
    }
    cluster.host.stop()?;
    bricks.extend(cluster.bricks("victim")?);
    ensure(bricks.len() == 3, || format!("the bricks are {bricks:?}"))?;
    bricks[1..].iter().try_for_each(|other| clients::same_bytes(&bricks[0], other))?;
    Ok(told)
}

/// Makes the volume anew, with room for what fio has to be able to write.
fn fresh_volume(cluster: &Cluster) -> Outcome {
    for words in [["export", "remove", "victim"], ["volume", "delete", "victim"]] {
        cluster.host.cli().ask().args(words).run()?;
    }
    cluster.volume("victim", SIZE)?;
    clients::fio("synced", &cluster.host.uri("victim"), &SYNCED)
        .arg("--do_verify=0")
        .run()
        .map(drop)
}
