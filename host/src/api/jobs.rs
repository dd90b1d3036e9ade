// SPDX-License-Identifier: Apache-2.0
//! `/v1/jobs`.

use std::time::Duration;

use axum::{
    Router,
    extract::{Path, Query, State},
    routing::{get, post},
};
use serde::Deserialize;

use super::{Answered, Api, types::JobView};

type Answer<T> = Answered<axum::Json<T>>;

/// The longest that one request waits for a job's end.
const LONGEST_WAIT_SECS: u64 = 60;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/jobs", get(list))
        .route("/v1/jobs/{id}", get(show))
        .route("/v1/jobs/{id}/cancel", post(cancel))
        .route("/v1/jobs/{id}/resume", post(resume))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShowQuery {
    #[serde(default)]
    wait_secs: u64,
}

async fn list(State(api): State<Api>) -> Answer<Vec<JobView>> {
    Ok(axum::Json(api.jobs.list().await?.into_iter().map(Into::into).collect()))
}

async fn show(
    State(api): State<Api>,
    Path(id): Path<u64>,
    Query(query): Query<ShowQuery>,
) -> Answer<JobView> {
    let patience = Duration::from_secs(query.wait_secs.min(LONGEST_WAIT_SECS));
    let job = match patience.is_zero() {
        true => api.jobs.show(id).await?,
        false => api.jobs.wait(id, patience).await?,
    };
    Ok(axum::Json(job.into()))
}

async fn resume(State(api): State<Api>, Path(id): Path<u64>) -> Answer<JobView> {
    Ok(axum::Json(api.replicas.resume(id).await?.into()))
}

async fn cancel(State(api): State<Api>, Path(id): Path<u64>) -> Answer<JobView> {
    Ok(axum::Json(api.jobs.cancel(id).await?.into()))
}
