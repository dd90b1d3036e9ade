// SPDX-License-Identifier: Apache-2.0
//! Scrub: the driver compares all that is at rest with digests; the job keeps the volume attached, shows how far that is,
//! and fails as `Corrupted` where replicas are bad and were not repaired.

use std::{sync::Arc, time::Duration};

use driver_api::{
    Error, ErrorKind, Result,
    ext::{Damage, DamageRepair, Scrubbing},
};

use super::{Difference, JobControl, JobView, ReplicaJobs, Walk, transfer::record};
use crate::volumes::{Access, Use, Volumes};

/// The kind of these jobs.
pub const SCRUB: &str = "scrub";

/// How often the driver is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Ranges that the job's record names.
const NAMED: usize = 256;

impl ReplicaJobs {
    /// Starts a scrub of a volume, or watches the one under way; with `repair`, bad replicas are repaired.
    pub async fn scrub(&self, volume: &str, repair: bool) -> Result<JobView> {
        self.volumes.replication(volume).await?;
        let id = self.jobs.next_id();
        let job = record(SCRUB, volume, detail(volume, repair), None);
        let (volumes, name) = (self.volumes.clone(), volume.to_owned());
        self.jobs.start(id, job, |control| scrub(volumes, name, id, repair, control)).await
    }

    /// Goes on with a scrub: the driver does so by itself once the volume is attached.
    pub(super) async fn scrub_again(&self, job: JobView) -> Result<JobView> {
        let (volumes, name, id) = (self.volumes.clone(), job.record.target.clone(), job.id);
        let repair = job.record.detail == detail(&name, true);
        self.jobs.restart(job, |control| scrub(volumes, name, id, repair, control)).await
    }
}

fn detail(volume: &str, repair: bool) -> String {
    match repair {
        true => format!("what is at rest of {volume}, with repairs"),
        false => format!("what is at rest of {volume}"),
    }
}

async fn scrub(
    volumes: Volumes,
    name: String,
    id: u64,
    repair: bool,
    control: Arc<JobControl>,
) -> Result<()> {
    let used = volumes.acquire(&name, Access::Write, &format!("job {id}")).await?;
    let ended = until_over(&used, repair, &control).await;
    let released = volumes.release(used).await;
    let told = ended?;
    released?;
    verdict(&told, &name, id)
}

async fn until_over(used: &Use, repair: bool, control: &JobControl) -> Result<Scrubbing> {
    used.scrub(true, repair).await?;
    loop {
        let now = used.scrubbing().await?;
        control.set_total(now.total);
        control.set_done(now.done.min(now.total));
        control.walk(|walk| *walk = walked(&now));
        if !now.running {
            return Ok(now);
        }
        if let Err(cancelled) = control.check() {
            used.scrub(false, false).await?;
            return Err(cancelled);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// What was found, as walks over replicas tell it.
fn walked(now: &Scrubbing) -> Walk {
    let is_left = |damage: &&Damage| damage.repair != DamageRepair::VERIFIED;
    let bytes = |repaired: bool| -> u64 {
        let chosen = now.findings.iter().filter(|damage| is_left(damage) != repaired);
        chosen.map(|damage| damage.len).sum()
    };
    let named = now.findings.iter().filter(is_left).take(NAMED).map(|damage| Difference {
        offset: damage.offset,
        len: damage.len,
        reference: match damage.good.first() {
            Some(good) => good.to_string(),
            None => format!("what was there at rest ({})", damage.verdict.name()),
        },
        nodes: damage.bad.iter().map(|node| node.to_string()).collect(),
    });
    let left = now.findings.iter().filter(is_left).count();
    Walk {
        next: now.done,
        compared: now.compared,
        differing: bytes(false),
        repaired: bytes(true),
        ranges: named.collect(),
        more: left > NAMED || now.found > now.findings.len() as u64,
        ..Walk::default()
    }
}

fn verdict(told: &Scrubbing, volume: &str, id: u64) -> Result<()> {
    let walk = walked(told);
    if walk.differing == 0 && !walk.more {
        return Ok(());
    }
    let why = format!("replicas of volume `{volume}` are damaged in {}", walk.summary());
    let remedy = match told.repairs {
        false => format!(
            "novastor volume scrub {volume} --repair repairs what is known to be right elsewhere; all ranges: novastor \
             job show {id}"
        ),
        true => format!(
            "the disks of these nodes do not keep what is written, or nothing tells which replica is right: novastor \
             volume repair {volume} --source NODE; all ranges: novastor job show {id}"
        ),
    };
    Err(Error::new(ErrorKind::CORRUPTED, why).remedy(remedy))
}

#[cfg(test)]
mod tests {
    use driver_api::{RString, ext::DamageVerdict};

    use super::*;

    fn damage(repair: DamageRepair, good: &[&str]) -> Damage {
        let texts = |names: &[&str]| names.iter().map(|name| RString::from(*name)).collect();
        let verdict = DamageVerdict::DIGEST;
        Damage {
            len: 10,
            verdict,
            repair,
            bad: texts(&["n2"]),
            good: texts(good),
            ..Damage::default()
        }
    }

    fn told(findings: Vec<Damage>) -> Scrubbing {
        Scrubbing {
            found: findings.len() as u64,
            findings: findings.into(),
            ..Scrubbing::default()
        }
    }

    #[test]
    fn what_is_not_proven_to_be_repaired_fails_the_job() {
        assert!(verdict(&told(Vec::new()), "web", 3).is_ok());
        assert!(verdict(&told(vec![damage(DamageRepair::VERIFIED, &["n1"])]), "web", 3).is_ok());
        for repair in [DamageRepair::LEFT, DamageRepair::FAILED, DamageRepair::UNVERIFIED] {
            let error = verdict(&told(vec![damage(repair, &["n1"])]), "web", 3).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::CORRUPTED);
            assert!(error.to_string().contains("n2 unlike n1"), "{error}");
        }
        let walk = walked(&told(vec![damage(DamageRepair::LEFT, &[])]));
        assert_eq!(walk.ranges[0].reference, "what was there at rest (digest)");
        assert_eq!((walk.differing, walk.repaired), (10, 0));
    }
}
