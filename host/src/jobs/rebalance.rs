// SPDX-License-Identifier: Apache-2.0
//! Rebalance: a volume's shards go to where its options and the nodes say. The driver moves them; the job keeps the volume
//! attached, shows how far that is, and ends when nothing is left behind. What was cut off goes on with what is left.

use std::{sync::Arc, time::Duration};

use driver_api::{Error, ErrorKind, Result};

use super::{JobControl, JobView, ReplicaJobs, transfer::record};
use crate::volumes::{Access, Use, Volumes};

/// The kind of these jobs.
pub const REBALANCE: &str = "rebalance";

/// How often the driver is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);

impl ReplicaJobs {
    /// Starts moving a volume's shards to where they should be.
    pub async fn rebalance(&self, volume: &str) -> Result<JobView> {
        self.volumes.misplaced(volume).await?;
        let id = self.jobs.next_id();
        let job = record(REBALANCE, volume, format!("the shards of {volume}"), None);
        let (volumes, name) = (self.volumes.clone(), volume.to_owned());
        self.jobs.start(id, job, |control| move_shards(volumes, name, id, control)).await
    }

    /// Goes on with a rebalancing, with what is left of it.
    pub(super) async fn rebalance_again(&self, job: JobView) -> Result<JobView> {
        let (volumes, name, id) = (self.volumes.clone(), job.record.target.clone(), job.id);
        self.volumes.misplaced(&name).await?;
        self.jobs.restart(job, |control| move_shards(volumes, name, id, control)).await
    }
}

async fn move_shards(
    volumes: Volumes,
    name: String,
    id: u64,
    control: Arc<JobControl>,
) -> Result<()> {
    let used = volumes.acquire(&name, Access::Write, &format!("job {id}")).await?;
    let moved = until_moved(&used, &control).await;
    let released = volumes.release(used).await;
    moved.and(released)
}

async fn until_moved(used: &Use, control: &JobControl) -> Result<()> {
    used.rebalance(true).await?;
    let mut most = 0;
    loop {
        let now = used.rebalancing().await?;
        let left = now.shards_left.saturating_mul(now.shard_size);
        most = left.max(most);
        control.set_total(most);
        control.set_done(most - left);
        if !now.running && !now.reason.is_empty() {
            return Err(Error::new(ErrorKind::UNAVAILABLE, now.reason.to_string())
                .during("volume rebalance")
                .with("volume", used.name()));
        }
        if !now.running && now.litter == 0 && now.leaving == 0 {
            return Ok(());
        }
        if let Err(cancelled) = control.check() {
            used.rebalance(false).await?;
            return Err(cancelled);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
