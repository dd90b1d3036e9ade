// SPDX-License-Identifier: Apache-2.0
//! Verify and repair: walks over all pieces of a volume, each in one shard. A walk that is cut off can be resumed.

use std::sync::Arc;

use driver_api::{
    Error, ErrorKind, Result,
    ext::{PIECE, ReplicaState, ReplicationInfo, ShardInfo},
};

use super::{
    JobControl, JobState, JobView, Jobs, Walk, flatten::FLATTEN, rebalance::REBALANCE,
    scrub::SCRUB, transfer::record,
};
use crate::volumes::{Access, Use, Volumes};

const VERIFY: &str = "verify";
const REPAIR: &str = "repair";
/// How often it is asked where a byte is while shards get another size.
const SHARD_TRIES: u32 = 4;

/// Starts those jobs, and resumes them. A cheap handle.
#[derive(Clone)]
pub struct ReplicaJobs {
    pub(super) volumes: Volumes,
    pub(super) jobs: Jobs,
}

impl ReplicaJobs {
    /// Jobs over these volumes.
    pub fn new(volumes: Volumes, jobs: Jobs) -> Self {
        Self { volumes, jobs }
    }

    /// Starts comparing all replicas of a volume. The job fails with `Corrupted` where they differ.
    pub async fn verify(&self, volume: &str) -> Result<JobView> {
        self.volumes.replication(volume).await?;
        self.start(VERIFY, volume, format!("the replicas of {volume}"), Walk::default()).await
    }

    /// Starts making the replicas of a volume equal to those on the node `source`, where they differ.
    pub async fn repair(&self, volume: &str, source: &str) -> Result<JobView> {
        check_source(&self.volumes.replication(volume).await?, volume, source)?;
        let walk = Walk { source: Some(source.to_owned()), ..Walk::default() };
        self.start(REPAIR, volume, format!("the replicas of {volume} from {source}"), walk).await
    }

    async fn start(&self, kind: &str, volume: &str, detail: String, walk: Walk) -> Result<JobView> {
        let id = self.jobs.next_id();
        let mut job = record(kind, volume, detail, None);
        job.walk = Some(walk);
        let (volumes, name) = (self.volumes.clone(), volume.to_owned());
        self.jobs.start(id, job, |control| walk_through(volumes, name, id, control)).await
    }

    /// Goes on with a walk, rebalancing or flattening that was cancelled, interrupted or cut off by a failure.
    pub async fn resume(&self, id: u64) -> Result<JobView> {
        let job = self.jobs.show(id).await?;
        let (kind, volume) = (job.record.kind.clone(), job.record.target.clone());
        let refused = |kind, why: String, remedy: String| {
            Err(Error::new(kind, why).during("resume").with("job", id).remedy(remedy))
        };
        let is_rebalancing = kind == REBALANCE;
        let is_flattening = kind == FLATTEN;
        let is_scrub = kind == SCRUB;
        let is_emptying = job.record.emptying.is_some();
        if job.record.walk.is_none()
            && !is_rebalancing
            && !is_flattening
            && !is_scrub
            && !is_emptying
        {
            let why = format!("a job of kind `{kind}` cannot be resumed");
            return refused(ErrorKind::UNSUPPORTED, why, "start it again".to_owned());
        }
        if job.record.state == JobState::Running {
            let why = "it is at work".to_owned();
            return refused(ErrorKind::IN_USE, why, format!("novastor job wait {id}"));
        }
        if is_emptying {
            return self.empty_again(job).await;
        }
        if is_rebalancing || is_flattening {
            if job.record.state == JobState::Done {
                let why = "it came to its end: there is nothing to go on with".to_owned();
                let again = format!("novastor volume {kind} {volume}");
                return refused(ErrorKind::INVALID_ARGUMENT, why, again);
            }
            return match is_flattening {
                true => self.flatten_again(job).await,
                false => self.rebalance_again(job).await,
            };
        }
        if is_scrub {
            return self.scrub_again(job).await;
        }
        let walk = job.record.walk.clone().unwrap_or_default();
        if job.total > 0 && walk.next >= job.total {
            let again = match &walk.source {
                None => format!("novastor volume verify {volume}"),
                Some(source) => format!("novastor volume repair {volume} --source {source}"),
            };
            let why = "it came to its end: there is nothing to go on with".to_owned();
            return refused(ErrorKind::INVALID_ARGUMENT, why, again);
        }
        let replication = self.volumes.replication(&volume).await?;
        if let Some(source) = &walk.source {
            check_source(&replication, &volume, source)?;
        }
        let volumes = self.volumes.clone();
        self.jobs.restart(job, |control| walk_through(volumes, volume, id, control)).await
    }
}

/// Refuses a source that cannot know what is right.
fn check_source(replication: &ReplicationInfo, volume: &str, source: &str) -> Result<()> {
    let in_sync: Vec<&str> = replication
        .replicas
        .iter()
        .filter(|replica| replica.state == ReplicaState::IN_SYNC)
        .map(|replica| replica.node.as_str())
        .collect();
    if in_sync.contains(&source) {
        return Ok(());
    }
    let why = match replication.replicas.iter().find(|replica| replica.node.as_str() == source) {
        Some(replica) => format!("the replica on `{source}` is {}", replica.state.name()),
        None => format!("volume `{volume}` has no replica on `{source}`"),
    };
    let remedy = match in_sync.is_empty() {
        true => format!("no replica is in sync: novastor volume replicas {volume}"),
        false => format!("choose one that is in sync with --source: {}", in_sync.join(", ")),
    };
    Err(Error::new(ErrorKind::INVALID_ARGUMENT, why).during(REPAIR).remedy(remedy))
}

async fn walk_through(
    volumes: Volumes,
    name: String,
    id: u64,
    control: Arc<JobControl>,
) -> Result<()> {
    let used = acquire(&volumes, &name, id, &control).await?;
    let walked = walk(&used, &control).await;
    let released = volumes.release(used).await;
    walked.and(released)?;
    verdict(&control, &name, id)
}

/// Attached for writing: what a crash left unequal is made equal before anything is compared. A volume that somebody
/// has attached read-only is verified as it is.
async fn acquire(volumes: &Volumes, name: &str, id: u64, control: &JobControl) -> Result<Use> {
    let user = format!("job {id}");
    match volumes.acquire(name, Access::Write, &user).await {
        Err(error)
            if error.kind() == ErrorKind::IN_USE && control.walk(|walk| walk.source.is_none()) =>
        {
            volumes.acquire(name, Access::Read, &user).await.map_err(|_| error)
        }
        acquired => acquired,
    }
}

/// Looks at every piece from the walk's place on.
async fn walk(used: &Use, control: &JobControl) -> Result<()> {
    let replication = used.replication().await?;
    control.set_total(replication.size);
    let mut shard = None;
    loop {
        control.check()?;
        let at = control.walk(|walk| walk.next);
        control.set_done(at);
        if at >= replication.size {
            return Ok(());
        }
        let here = match shard.take() {
            Some(here) if holds(&here, at) => here,
            _ => shard_at(used, at).await?,
        };
        let len = (here.offset + here.len - at).min(PIECE.into()) as u32;
        look_at_piece(used, control, &here, at, len).await?;
        control.walk(|walk| walk.next = at + u64::from(len));
        shard = Some(here);
    }
}

fn holds(shard: &ShardInfo, at: u64) -> bool {
    (shard.offset..shard.offset + shard.len).contains(&at)
}

async fn shard_at(used: &Use, at: u64) -> Result<ShardInfo> {
    // Shards may get another size between the two questions.
    for _ in 0..SHARD_TRIES {
        let replication = used.replication().await?;
        match used.shard(at / replication.shard_size.max(1)).await {
            Ok(shard) if holds(&shard, at) => return Ok(shard),
            Err(error) if error.kind() != ErrorKind::NOT_FOUND => return Err(error),
            _ => {}
        }
    }
    Err(Error::new(ErrorKind::INTERNAL, "the driver's shards do not cover the volume")
        .with("offset", at))
}

async fn look_at_piece(
    used: &Use,
    control: &JobControl,
    shard: &ShardInfo,
    at: u64,
    len: u32,
) -> Result<()> {
    let found = used.verify(at, len).await?;
    let holders = shard.nodes.iter().map(|node| node.to_string());
    let source = control.walk(|walk| {
        walk.compared(len.into(), holders, &found);
        walk.source.clone()
    });
    if found.differing.is_empty() {
        return Ok(());
    }
    let Some(source) =
        source.filter(|source| found.compared.iter().any(|node| node.as_str() == source))
    else {
        control.walk(|walk| walk.differs(len.into(), &found));
        return Ok(());
    };
    used.repair(at, len, &source).await?;
    let again = used.verify(at, len).await?;
    control.walk(|walk| match again.differing.is_empty() {
        true => walk.repaired += u64::from(len),
        false => walk.differs(len.into(), &again),
    });
    Ok(())
}

/// A walk that came to its end and leaves differences has failed.
fn verdict(control: &JobControl, volume: &str, id: u64) -> Result<()> {
    let walk = control.walk(|walk| walk.clone());
    if walk.differing == 0 {
        return Ok(());
    }
    let error = |what: &str| {
        let why = format!("{what} of volume `{volume}` differ in {}", walk.summary());
        Error::new(ErrorKind::CORRUPTED, why)
    };
    Err(match &walk.source {
        None => error("the replicas").remedy(format!(
            "novastor volume repair {volume} --source NODE, where NODE is the one that is right; \
             all ranges: novastor job show {id}"
        )),
        Some(source) => error("replicas").remedy(format!(
            "`{source}` does not hold these ranges, or they changed again: choose another --source; \
             all ranges: novastor job show {id}"
        )),
    })
}
