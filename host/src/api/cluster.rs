// SPDX-License-Identifier: Apache-2.0
//! `/v1/backends/NAME/nodes`, and the replicas and shards of `/v1/volumes/NAME`.

use axum::{
    Router,
    extract::{Path, Query, State},
    routing::{get, post},
};
use driver_api::{
    Error, ErrorKind, RString,
    ext::{NodeChange, NodeSpec},
};
use serde::Deserialize;

use super::{
    Answered, Api, Json,
    types::{
        AddNode, JobView, NodeView, RecoverVolumes, RecoveredView, RepairVolume, ReplicationView,
        SetNode, ShardView,
    },
};
use crate::volumes::Recovery;

type Answer<T> = Answered<axum::Json<T>>;

/// Shards in one answer, if nothing else is asked for.
const SHARDS: u32 = 1000;
/// Shards in one answer, at most.
const MOST_SHARDS: u32 = 10_000;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/backends/{name}/nodes", get(nodes).post(add))
        .route("/v1/backends/{name}/nodes/{node}", get(show).patch(set).delete(remove))
        .route("/v1/backends/{name}/recover", post(recover))
        .route("/v1/volumes/{name}/replicas", get(replicas))
        .route("/v1/volumes/{name}/shards", get(shards))
        .route("/v1/volumes/{name}/verify", post(verify))
        .route("/v1/volumes/{name}/repair", post(repair))
}

async fn nodes(State(api): State<Api>, Path(backend): Path<String>) -> Answer<Vec<NodeView>> {
    let all = api.volumes.nodes(&backend).await?;
    Ok(axum::Json(all.into_iter().map(Into::into).collect()))
}

async fn show(
    State(api): State<Api>,
    Path((backend, node)): Path<(String, String)>,
) -> Answer<NodeView> {
    Ok(axum::Json(api.volumes.node(&backend, &node).await?.into()))
}

async fn add(
    State(api): State<Api>,
    Path(backend): Path<String>,
    Json(body): Json<AddNode>,
) -> Answer<NodeView> {
    let default = NodeSpec::new(&body.name);
    let set = body.set;
    let spec = NodeSpec {
        role: set.role.map_or(default.role, Into::into),
        address: set.address.map_or(default.address, Into::into),
        port: set.port.unwrap_or(default.port),
        zone: set.zone.map_or(default.zone, Into::into),
        weight: set.weight.unwrap_or(default.weight),
        available: set.available.unwrap_or(default.available),
        ..default
    };
    Ok(axum::Json(api.volumes.node_add(&backend, spec).await?.into()))
}

async fn set(
    State(api): State<Api>,
    Path((backend, node)): Path<(String, String)>,
    Json(body): Json<SetNode>,
) -> Answer<NodeView> {
    let change = NodeChange {
        role: body.role.map(RString::from).into(),
        address: body.address.map(RString::from).into(),
        port: body.port.into(),
        zone: body.zone.map(RString::from).into(),
        weight: body.weight.into(),
        available: body.available.into(),
        ..NodeChange::default()
    };
    Ok(axum::Json(api.volumes.node_set(&backend, &node, change).await?.into()))
}

async fn remove(
    State(api): State<Api>,
    Path((backend, node)): Path<(String, String)>,
) -> Answer<()> {
    api.volumes.node_remove(&backend, &node).await?;
    Ok(axum::Json(()))
}

async fn recover(
    State(api): State<Api>,
    Path(backend): Path<String>,
    Json(body): Json<RecoverVolumes>,
) -> Answer<Vec<RecoveredView>> {
    let RecoverVolumes { volume, accept_missing, dry_run } = body;
    let wish = Recovery { volume, accept_missing, dry_run };
    let all = api.volumes.regain(&backend, &wish).await?;
    Ok(axum::Json(all.into_iter().map(Into::into).collect()))
}

async fn replicas(State(api): State<Api>, Path(volume): Path<String>) -> Answer<ReplicationView> {
    Ok(axum::Json(api.volumes.replication(&volume).await?.into()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShardsQuery {
    #[serde(default)]
    first: u64,
    limit: Option<u32>,
}

async fn shards(
    State(api): State<Api>,
    Path(volume): Path<String>,
    Query(query): Query<ShardsQuery>,
) -> Answer<Vec<ShardView>> {
    let limit = query.limit.unwrap_or(SHARDS);
    if !(1..=MOST_SHARDS).contains(&limit) {
        let why = format!("one answer has 1 to {MOST_SHARDS} shards, not {limit}");
        let error = Error::new(ErrorKind::INVALID_ARGUMENT, why);
        return Err(error.remedy("choose another --limit, and go on with --first").into());
    }
    let all = api.volumes.shards(&volume, query.first, limit).await?;
    Ok(axum::Json(all.into_iter().map(Into::into).collect()))
}

async fn verify(State(api): State<Api>, Path(volume): Path<String>) -> Answer<JobView> {
    Ok(axum::Json(api.replicas.verify(&volume).await?.into()))
}

async fn repair(
    State(api): State<Api>,
    Path(volume): Path<String>,
    Json(body): Json<RepairVolume>,
) -> Answer<JobView> {
    Ok(axum::Json(api.replicas.repair(&volume, &body.source).await?.into()))
}
