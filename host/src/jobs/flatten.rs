// SPDX-License-Identifier: Apache-2.0
//! Flatten: a clone gets all that it shares with its source, which then can be deleted. The driver copies while the volume
//! serves; the job keeps the volume attached, shows how far that is, and ends when nothing is shared any more. What was
//! cut off goes on with what is left.

use std::{sync::Arc, time::Duration};

use driver_api::{Error, ErrorKind, Result, ext::Flattening};

use super::{JobControl, JobView, ReplicaJobs, transfer::record};
use crate::volumes::{Access, Use, Volumes};

/// The kind of these jobs.
pub const FLATTEN: &str = "flatten";

/// How often the driver is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);

impl ReplicaJobs {
    /// Starts giving a volume all that it shares with its source.
    pub async fn flatten(&self, volume: &str) -> Result<JobView> {
        self.volumes.can_flatten(volume).await?;
        let id = self.jobs.next_id();
        let job = record(FLATTEN, volume, format!("the content of {volume}"), None);
        let (volumes, name) = (self.volumes.clone(), volume.to_owned());
        self.jobs.start(id, job, |control| flatten(volumes, name, id, control)).await
    }

    /// Goes on with what is left to be copied.
    pub(super) async fn flatten_again(&self, job: JobView) -> Result<JobView> {
        let (volumes, name, id) = (self.volumes.clone(), job.record.target.clone(), job.id);
        self.volumes.can_flatten(&name).await?;
        self.jobs.restart(job, |control| flatten(volumes, name, id, control)).await
    }
}

async fn flatten(volumes: Volumes, name: String, id: u64, control: Arc<JobControl>) -> Result<()> {
    let used = volumes.acquire(&name, Access::Write, &format!("job {id}")).await?;
    let flat = until_flat(&used, &control).await;
    let released = volumes.release(used).await;
    flat.and(released)
}

async fn until_flat(used: &Use, control: &JobControl) -> Result<()> {
    used.flatten(true).await?;
    let mut cancelled = Ok(());
    loop {
        let now = used.flattening().await?;
        control.set_total(now.total);
        control.set_done(now.done.min(now.total));
        if !now.running {
            return verdict(&now, used.name(), cancelled);
        }
        if cancelled.is_ok() && control.check().is_err() {
            cancelled = control.check();
            used.flatten(false).await?;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Only a volume that needs no other is flat, whatever was asked for meanwhile.
fn verdict(now: &Flattening, volume: &str, cancelled: Result<()>) -> Result<()> {
    if now.needs.is_empty() {
        return Ok(());
    }
    cancelled?;
    let why = match now.reason.as_str() {
        "" => "the driver ended it before its end".to_owned(),
        reason => reason.to_owned(),
    };
    Err(Error::new(ErrorKind::UNAVAILABLE, why)
        .during("volume flatten")
        .with("volume", volume)
        .with("needs", &now.needs)
        .remedy(format!("when the cause is gone, go on: novastor volume flatten {volume}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_still_needs_its_source_is_not_flat() {
        let flat = Flattening { done: 4, total: 4, ..Flattening::default() };
        let cut = Flattening { needs: "old@s".into(), ..flat.clone() };
        let failed = Flattening { reason: "the pool is full".into(), ..cut.clone() };
        let cancelled = || Err(Error::new(ErrorKind::UNAVAILABLE, "cancelled"));
        assert!(verdict(&flat, "web", Ok(())).is_ok());
        assert!(verdict(&flat, "web", cancelled()).is_ok(), "it came to its end all the same");
        assert!(verdict(&cut, "web", Ok(())).is_err());
        let error = verdict(&failed, "web", Ok(())).expect_err("it failed");
        assert!(format!("{error:#}").contains("the pool is full"), "{error:#}");
        let error = verdict(&failed, "web", cancelled()).expect_err("it was cancelled");
        assert_eq!(error.message(), "cancelled");
    }
}
