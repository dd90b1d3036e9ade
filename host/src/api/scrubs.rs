// SPDX-License-Identifier: Apache-2.0
//! `/v1/volumes/NAME/scrub`.

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use driver_api::ext::{Damage, Scrubbing};
use serde::{Deserialize, Serialize};

use super::{Answered, Api, Json, types::JobView};

type Answer<T> = Answered<axum::Json<T>>;

/// `POST /v1/volumes/NAME/scrub`
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct ScrubVolume {
    /// Whether bad replicas are repaired where it is known what is right.
    #[serde(default)]
    pub repair: bool,
}

/// `GET /v1/volumes/NAME/scrub`: the scrub under way, or the last one.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct ScrubView {
    /// Whether it is under way.
    pub running: bool,
    /// Whether bad replicas are repaired.
    pub repairs: bool,
    /// When it was begun, in milliseconds since 1970; none: there never was one.
    pub started_unix_millis: Option<u64>,
    /// Bytes that were looked at, or given up.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes whose replicas were compared.
    pub compared: u64,
    /// Bytes that were given up, since they were never at rest or could not be read.
    pub passed_over: u64,
    /// Bytes that have digests.
    pub digested: u64,
    /// How many damaged ranges were found.
    pub found: u64,
    /// These ranges, as many as are kept.
    pub findings: Vec<DamageView>,
}

/// A damaged range.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DamageView {
    /// Its first byte in the volume.
    pub offset: u64,
    /// Its length in bytes; some of them are bad.
    pub len: u64,
    /// How the bad replicas were told: `digest`, `majority`, `undecided`, `everywhere` or
    /// `unreadable`.
    pub verdict: String,
    /// What became of them: `left`, `under-way`, `verified`, `failed` or `unverified`.
    pub repair: String,
    /// The nodes whose replicas are bad, or may be.
    pub bad: Vec<String>,
    /// The nodes whose replicas are good.
    pub good: Vec<String>,
}

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/v1/volumes/{name}/scrub", get(scrubbing).post(scrub))
}

async fn scrub(
    State(api): State<Api>,
    Path(volume): Path<String>,
    Json(body): Json<ScrubVolume>,
) -> Answer<JobView> {
    Ok(axum::Json(api.replicas.scrub(&volume, body.repair).await?.into()))
}

async fn scrubbing(State(api): State<Api>, Path(volume): Path<String>) -> Answer<ScrubView> {
    Ok(axum::Json(api.volumes.scrubbing(&volume).await?.into()))
}

impl From<Scrubbing> for ScrubView {
    fn from(told: Scrubbing) -> Self {
        Self {
            running: told.running,
            repairs: told.repairs,
            started_unix_millis: (told.started_unix_millis > 0).then_some(told.started_unix_millis),
            done: told.done,
            total: told.total,
            compared: told.compared,
            passed_over: told.passed_over,
            digested: told.digested,
            found: told.found,
            findings: told.findings.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Damage> for DamageView {
    fn from(damage: Damage) -> Self {
        let names = |names: driver_api::RVec<driver_api::RString>| {
            names.into_iter().map(|name| name.into_string()).collect()
        };
        Self {
            offset: damage.offset,
            len: damage.len,
            verdict: damage.verdict.name().to_owned(),
            repair: damage.repair.name().to_owned(),
            bad: names(damage.bad),
            good: names(damage.good),
        }
    }
}
