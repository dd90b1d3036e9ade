// SPDX-License-Identifier: Apache-2.0
//! The acknowledging node dies, others are promoted, and it comes back as one that follows.

use std::{path::PathBuf, thread, time::Duration};

use serde_json::Value;

use super::{
    BLOCK, INVALID, MOST_SECS, NODES, PATIENCE, Storages, Volume,
    journal::{Journal, prefix},
    look, settled,
};
use crate::{
    clients,
    cluster::Cluster,
    failure::{Context, Failure, Outcome, ensure},
    nbd::{self, Command},
    program::{Program, until},
    remote::Session,
    show::Stage,
};

/// With so long between two writes the bound in bytes is far when the one in seconds is reached.
const PAUSE: Duration = Duration::from_millis(20);
/// For how long followers stand still before the acknowledging node dies: for the bound in bytes, and the one in seconds.
const MOMENT: Duration = Duration::from_millis(200);
const BEYOND_SECS: f64 = 2.0 * MOST_SECS;

/// It dies while followers lack as much as they may, and one is promoted at once; by bytes, and then by seconds. The
/// next one dies, too, and nothing is lost, because its follower first gets what the host still has.
pub(super) fn play(stage: &Stage, cluster: &Cluster, storages: &mut Storages) -> Outcome {
    let refused = promote(cluster, &["--dry-run"]).codes(&[INVALID]).run()?;
    ensure(refused.stderr.contains("nothing to promote"), || refused.stderr.clone())?;
    lost_exactly(stage, cluster, storages, Duration::ZERO, MOMENT).context("many bytes")?;
    let beyond = Duration::from_secs_f64(BEYOND_SECS);
    let span = lost_exactly(stage, cluster, storages, PAUSE, beyond).context("many seconds")?;
    ensure(span > MOST_SECS / 2.0, || {
        format!("the bound in seconds was not reached: what is lost spans {span:.3} s")
    })?;
    nothing_lost(stage, cluster, storages).context("nothing lost")
}

fn promote(cluster: &Cluster, flags: &[&str]) -> Program {
    cluster.host.cli().ask().args(["volume", "promote", "disk", "--output", "json"]).args(flags)
}

fn told(said: &str) -> Outcome<Value> {
    serde_json::from_str(said).context("promote")
}

/// Kills the acknowledging node under load, when followers have stood still for so long: all the while, so that what a
/// follower is about to take is the first write, and not most of them. Gives what was written.
fn kill_head(
    cluster: &Cluster,
    storages: &mut Storages,
    volume: &Volume,
    (pause, still): (Duration, Duration),
) -> Outcome<Journal> {
    let journals = storages.journals(volume)?;
    let journal = Journal::from(prefix(cluster)?, pause);
    let mut client = cluster.host.connect("disk")?;
    let mut other = cluster.host.connect("disk")?;
    settled(cluster, "disk", NODES.len() - 1)?;
    journals.iter().try_for_each(Session::freeze)?;
    thread::scope(|scope| -> Outcome {
        let writing = scope.spawn(|| journal.write(&mut client));
        let mut kill = || -> Outcome {
            thread::sleep(still);
            storages.of_mut(&volume.head)?.kill9()?;
            // Writes that are held back ask nothing of it: somebody has to, before followers count as gone, too.
            match other.call(Command::Flush, 0, 0, &[]) {
                Err(nbd::Error::Refused(_)) => Ok(()),
                answer => Err(Failure::new(format!("a flush without its node: {answer:?}"))),
            }
        };
        let killed = kill();
        if killed.is_err() {
            journal.end();
        }
        killed.and(writing.join().map_err(|_| Failure::new("the thread that writes panicked"))?)
    })?;
    let is_gone = |volume: &Volume| volume.head.is_empty();
    until(PATIENCE, || ensure(is_gone(&look(cluster, "disk")?), || "nobody noticed".to_owned()))?;
    Ok(journal)
}

/// What is lost is what the promotion says, and no more than the bound. Gives the seconds that it spans.
fn lost_exactly(
    stage: &Stage,
    cluster: &Cluster,
    storages: &mut Storages,
    pause: Duration,
    still: Duration,
) -> Outcome<f64> {
    let volume = settled(cluster, "disk", NODES.len() - 1)?;
    let journals = storages.journals(&volume)?;
    let journal = kill_head(cluster, storages, &volume, (pause, still))?;
    let acknowledged = journal.acknowledged();
    let most = told(&promote(cluster, &["--at-once", "--dry-run"]).run()?.stdout)?;
    let silent = promote(cluster, &["--at-once"]).codes(&[INVALID]).run()?;
    ensure(silent.stderr.contains("--yes"), || silent.stderr.clone())?;
    let done = thread::scope(|scope| -> Outcome<Value> {
        let asking = scope.spawn(|| promote(cluster, &["--at-once", "--yes"]).run());
        thread::sleep(Duration::from_millis(300));
        journals.iter().try_for_each(Session::thaw)?;
        let said = asking.join().map_err(|_| Failure::new("the thread that asks panicked"))??;
        told(&said.stdout)
    })?;
    let number = |value: &Value, name: &str| value[name].as_u64().unwrap_or(u64::MAX);
    let (writes, bytes) = (number(&done, "lost_writes"), number(&done, "lost_bytes"));
    ensure(done["exact"] == true && done["done"] == true, || done.to_string())?;
    ensure(writes > 0 && writes <= number(&most, "lost_writes"), || {
        format!("{most}, then {done}")
    })?;
    let found = prefix(cluster)?;
    ensure(found < acknowledged, || format!("{acknowledged} acknowledged, {found} found"))?;
    let span = journal.lost_within_bound(found..acknowledged)?;
    ensure(found + writes == acknowledged && bytes == writes * BLOCK, || {
        format!(
            "{acknowledged} acknowledged, {found} found, said to be lost: {writes}, {bytes} bytes"
        )
    })?;
    stage.tell(format!(
        "{} was killed, {} promoted at once: of {acknowledged} writes the last {writes} are lost, as it said; by the client's clock they span {span:.2} s",
        volume.head, done["node"]
    ));
    come_back(stage, cluster, storages, &volume.head)?;
    Ok(span)
}

/// The one that acknowledges dies, and its follower first gets what the host still has.
fn nothing_lost(stage: &Stage, cluster: &Cluster, storages: &mut Storages) -> Outcome {
    let volume = settled(cluster, "disk", NODES.len() - 1)?;
    let journals = storages.journals(&volume)?;
    let journal = kill_head(cluster, storages, &volume, (Duration::ZERO, MOMENT))?;
    journals.iter().try_for_each(Session::thaw)?;
    let done = until(PATIENCE, || told(&promote(cluster, &["--yes"]).run()?.stdout))?;
    ensure(done["lost_writes"] == 0 && done["exact"] == true, || done.to_string())?;
    let (found, acknowledged) = (prefix(cluster)?, journal.acknowledged());
    ensure(found >= acknowledged && found <= acknowledged + 1, || {
        format!("{acknowledged} acknowledged, {found} found")
    })?;
    come_back(stage, cluster, storages, &volume.head)?;
    stage.tell(format!(
        "{} was killed, too: its follower got the rest, nothing is lost; those that were killed follow again, and have the same bytes",
        volume.head
    ));
    Ok(())
}

/// A node that was killed is there again. It gives up what only it had, and has the same as all others then.
fn come_back(stage: &Stage, cluster: &Cluster, storages: &mut Storages, node: &str) -> Outcome {
    storages.start_again(stage, node)?;
    let volume = settled(cluster, "disk", NODES.len() - 1).context(format!("{node} is back"))?;
    let file = |node: &str| -> Outcome<PathBuf> {
        Ok(storages.of(node)?.file(&cluster.brick("disk", node)?))
    };
    let head = file(&volume.head)?;
    for (follower, _) in &volume.followers {
        let same = clients::same_bytes(&head, &file(follower)?);
        same.context(format!("{follower} lacks nothing of {}", volume.head))?;
    }
    Ok(())
}
