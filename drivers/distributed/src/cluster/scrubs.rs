// SPDX-License-Identifier: Apache-2.0
//! Scrubs of attached volumes, as operators see them.

use std::sync::Arc;

use distributed_core::{Finding, Repaired, ScrubStatus, Verdict};
use driver_api::{
    RString, RVec, Result,
    ext::{Damage, DamageRepair, DamageVerdict, Scrubbing},
};

use super::writable;
use crate::{driver::DistributedBackend, engine::Engine};

impl DistributedBackend {
    pub(super) fn scrub_volume(&self, volume: &str, on: bool, repair: bool) -> Result<()> {
        writable(self.attached_engine(volume)?)?.scrub(on, repair);
        Ok(())
    }

    pub(super) fn scrub_of(&self, volume: &str) -> Result<Scrubbing> {
        let engine = self.attached_engine(volume)?;
        let size = engine.size()?;
        let (status, unit) = engine.scrubbed()?;
        Ok(status.map_or_else(Scrubbing::default, |status| told(&engine, &status, unit, size)))
    }
}

fn told(engine: &Arc<Engine>, status: &ScrubStatus, unit: u64, size: u64) -> Scrubbing {
    let bytes = |units: u64| units.saturating_mul(unit).min(size);
    Scrubbing {
        running: !status.is_over,
        repairs: status.repairs,
        started_unix_millis: status.started,
        done: bytes(status.cursor.into()),
        total: size,
        compared: bytes(status.compared),
        passed_over: bytes(status.passed_over),
        digested: bytes(status.digested.into()),
        found: status.found,
        findings: status.findings.iter().map(|finding| damage(engine, finding)).collect(),
        reserved: [0; 4],
    }
}

fn damage(engine: &Arc<Engine>, finding: &Finding) -> Damage {
    let names = |is_bad: bool| -> RVec<RString> {
        let chosen = finding.replicas.iter().filter(|replica| replica.is_bad == is_bad);
        chosen.map(|replica| engine.name(replica.node).into()).collect()
    };
    Damage {
        offset: finding.offset,
        len: finding.len,
        verdict: match finding.verdict {
            Verdict::Digest => DamageVerdict::DIGEST,
            Verdict::Majority => DamageVerdict::MAJORITY,
            Verdict::Undecided => DamageVerdict::UNDECIDED,
            Verdict::Everywhere => DamageVerdict::EVERYWHERE,
            Verdict::Unreadable => DamageVerdict::UNREADABLE,
        },
        repair: match finding.mending {
            Repaired::Left => DamageRepair::LEFT,
            Repaired::UnderWay => DamageRepair::UNDER_WAY,
            Repaired::Verified => DamageRepair::VERIFIED,
            Repaired::Failed => DamageRepair::FAILED,
            Repaired::Unverified => DamageRepair::UNVERIFIED,
        },
        bad: names(true),
        good: names(false),
        reserved: [0; 4],
    }
}
