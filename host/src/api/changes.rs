// SPDX-License-Identifier: Apache-2.0
//! `/v1/volumes/NAME/changes`, `/rename`, and `/snapshots/SNAPSHOT/protect`.

use axum::{
    Router,
    extract::{Path, Query, State},
    routing::{get, post},
};
use driver_api::ext::{Extent, ExtentFlags};
use serde::{Deserialize, Serialize};

use super::{
    Answered, Api, Json,
    types::{SnapshotView, VolumeView},
};
use crate::volumes::{Between, Changes};

type Answer<T> = Answered<axum::Json<T>>;

/// `POST /v1/volumes/NAME/rename`
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct RenameVolume {
    /// The new name.
    pub to: String,
}

/// `POST /v1/volumes/NAME/snapshots/SNAPSHOT/protect`
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
#[serde(deny_unknown_fields)]
pub struct ProtectSnapshot {
    /// Whether it is protected from now on.
    #[serde(default = "yes")]
    pub on: bool,
}

fn yes() -> bool {
    true
}

/// `GET /v1/volumes/NAME/changes`
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct ChangesQuery {
    /// The earlier snapshot; nothing but zeros if empty.
    #[serde(default)]
    pub from: String,
    /// The later snapshot; the volume as it is now if empty.
    #[serde(default)]
    pub to: String,
    /// First byte.
    #[serde(default)]
    pub offset: u64,
    /// How many; to the end if none.
    pub length: Option<u64>,
}

/// Where two pictures of a volume differ.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ChangesView {
    /// The size of the later one, in bytes.
    pub size: u64,
    /// What differs, in order.
    pub extents: Vec<ChangeView>,
    /// Where to ask on; none: that was all.
    pub next: Option<u64>,
}

/// A run of bytes that differ, or may.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ChangeView {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// `data`: to be read from the later one; `zero`: it reads zeros there.
    pub kind: String,
}

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/volumes/{name}/rename", post(rename))
        .route("/v1/volumes/{name}/changes", get(changes))
        .route("/v1/volumes/{name}/snapshots/{snapshot}/protect", post(protect))
}

async fn rename(
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(body): Json<RenameVolume>,
) -> Answer<VolumeView> {
    api.volumes.rename(&name, &body.to).await?;
    Ok(axum::Json(api.volumes.figures(&body.to).await?.into()))
}

async fn changes(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<ChangesQuery>,
) -> Answer<ChangesView> {
    let ChangesQuery { from, to, offset, length } = query;
    let between = Between { from, to };
    Ok(axum::Json(api.volumes.changes(&name, &between, offset, length).await?.into()))
}

async fn protect(
    State(api): State<Api>,
    Path((name, snapshot)): Path<(String, String)>,
    Json(body): Json<ProtectSnapshot>,
) -> Answer<SnapshotView> {
    Ok(axum::Json(api.volumes.snapshot_protect(&name, &snapshot, body.on).await?.into()))
}

impl From<Changes> for ChangesView {
    fn from(changes: Changes) -> Self {
        let extents = changes.extents.into_iter().map(Into::into).collect();
        Self { size: changes.size, extents, next: changes.next }
    }
}

impl From<Extent> for ChangeView {
    fn from(extent: Extent) -> Self {
        let kind = if extent.flags.has(ExtentFlags::ZERO) { "zero" } else { "data" };
        Self { offset: extent.offset, len: extent.len, kind: kind.to_owned() }
    }
}
