// SPDX-License-Identifier: Apache-2.0
//! `/v1/volumes`: volumes and their snapshots; `/v1/snapshots`: snapshots of several at one point.

use std::time::Duration;

use axum::{
    Router,
    extract::{Path, Query, State},
    routing::{delete, get, post},
};
use serde::Deserialize;

use super::{
    Answered, Api, Json,
    types::{
        AdoptVolume, AttachVolume, CloneVolume, CreateGroup, CreateSnapshot, CreateVolume,
        ExportVolume, GroupView, ImportVolume, JobView, ResizeVolume, SnapshotView, VolumeView,
    },
};
use crate::{
    jobs::{ClonePlan, ExportPlan, ImportPlan},
    volumes::{LONGEST_PAUSE, NewGroup, NewVolume},
};

type Answer<T> = Answered<axum::Json<T>>;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/volumes", get(list).post(create))
        .route("/v1/volumes/{name}", get(show).delete(remove))
        .route("/v1/volumes/{name}/resize", post(resize))
        .route("/v1/volumes/{name}/clone", post(clone))
        .route("/v1/volumes/{name}/flatten", post(flatten))
        .route("/v1/volumes/{name}/attach", post(attach))
        .route("/v1/volumes/{name}/detach", post(detach))
        .route("/v1/volumes/{name}/adopt", post(adopt))
        .route("/v1/volumes/{name}/import", post(import))
        .route("/v1/volumes/{name}/export", post(export))
        .route("/v1/snapshots", post(group_create))
        .route("/v1/volumes/{name}/snapshots", get(snapshots).post(snapshot_create))
        .route("/v1/volumes/{name}/snapshots/{snapshot}", delete(snapshot_delete))
        .route("/v1/volumes/{name}/snapshots/{snapshot}/rollback", post(snapshot_rollback))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    #[serde(default)]
    unmanaged: bool,
}

async fn view(api: &Api, name: &str) -> Answer<VolumeView> {
    Ok(axum::Json(api.volumes.figures(name).await?.into()))
}

async fn list(State(api): State<Api>, Query(query): Query<ListQuery>) -> Answer<Vec<VolumeView>> {
    let mut all: Vec<VolumeView> =
        api.volumes.all_figures().await?.into_iter().map(Into::into).collect();
    if query.unmanaged {
        all.extend(api.volumes.unmanaged().await?.into_iter().map(VolumeView::from));
    }
    Ok(axum::Json(all))
}

async fn create(State(api): State<Api>, Json(body): Json<CreateVolume>) -> Answer<VolumeView> {
    let name = body.name.clone();
    let CreateVolume { name: new_name, size, backend, options, labels } = body;
    api.volumes.create(NewVolume { name: new_name, size, backend, options, labels }).await?;
    view(&api, &name).await
}

async fn show(State(api): State<Api>, Path(name): Path<String>) -> Answer<VolumeView> {
    view(&api, &name).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteQuery {
    #[serde(default)]
    snapshots: bool,
}

async fn remove(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<DeleteQuery>,
) -> Answer<()> {
    api.volumes.delete(&name, query.snapshots).await?;
    Ok(axum::Json(()))
}

async fn resize(
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(body): Json<ResizeVolume>,
) -> Answer<VolumeView> {
    api.volumes.resize(&name, body.size, body.shrink).await?;
    view(&api, &name).await
}

async fn clone(
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(body): Json<CloneVolume>,
) -> Answer<JobView> {
    let volume = NewVolume {
        name: body.name,
        size: body.size.unwrap_or(0),
        backend: body.backend,
        options: body.options,
        labels: Default::default(),
    };
    let plan = ClonePlan { source: name, snapshot: body.snapshot, volume };
    Ok(axum::Json(api.transfers.clone_volume(plan).await?.into()))
}

async fn flatten(State(api): State<Api>, Path(name): Path<String>) -> Answer<JobView> {
    Ok(axum::Json(api.replicas.flatten(&name).await?.into()))
}

async fn attach(
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(body): Json<AttachVolume>,
) -> Answer<VolumeView> {
    api.volumes.attach(&name, body.read_only, body.take_over).await?;
    view(&api, &name).await
}

async fn detach(State(api): State<Api>, Path(name): Path<String>) -> Answer<VolumeView> {
    api.volumes.detach(&name).await?;
    view(&api, &name).await
}

async fn adopt(
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(body): Json<AdoptVolume>,
) -> Answer<VolumeView> {
    let inner_name = body.inner_name.as_deref().unwrap_or(&name);
    api.volumes.adopt(body.backend.as_deref(), inner_name, &name).await?;
    view(&api, &name).await
}

async fn import(
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(body): Json<ImportVolume>,
) -> Answer<JobView> {
    let volume = NewVolume {
        name,
        size: 0,
        backend: body.backend,
        options: body.options,
        labels: Default::default(),
    };
    let plan = ImportPlan { file: body.file.into(), format: body.format, volume };
    Ok(axum::Json(api.transfers.import(plan).await?.into()))
}

async fn export(
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(body): Json<ExportVolume>,
) -> Answer<JobView> {
    let plan =
        ExportPlan { volume: name, file: body.file.into(), format: body.format, force: body.force };
    Ok(axum::Json(api.transfers.export(plan).await?.into()))
}

async fn snapshots(State(api): State<Api>, Path(name): Path<String>) -> Answer<Vec<SnapshotView>> {
    let list = api.volumes.snapshot_list(&name).await?;
    Ok(axum::Json(list.into_iter().map(Into::into).collect()))
}

async fn snapshot_create(
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(body): Json<CreateSnapshot>,
) -> Answer<SnapshotView> {
    Ok(axum::Json(api.volumes.snapshot_create(&name, &body.name).await?.into()))
}

async fn group_create(State(api): State<Api>, Json(body): Json<CreateGroup>) -> Answer<GroupView> {
    let CreateGroup { name, volumes, longest_pause_secs } = body;
    let longest_pause = longest_pause_secs.map_or(LONGEST_PAUSE, Duration::from_secs);
    let group = api.volumes.snapshot_group(NewGroup { volumes, name, longest_pause }).await?;
    Ok(axum::Json(group.into()))
}

async fn snapshot_delete(
    State(api): State<Api>,
    Path((name, snapshot)): Path<(String, String)>,
) -> Answer<()> {
    api.volumes.snapshot_delete(&name, &snapshot).await?;
    Ok(axum::Json(()))
}

async fn snapshot_rollback(
    State(api): State<Api>,
    Path((name, snapshot)): Path<(String, String)>,
) -> Answer<VolumeView> {
    api.volumes.snapshot_rollback(&name, &snapshot).await?;
    view(&api, &name).await
}
