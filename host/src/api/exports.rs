// SPDX-License-Identifier: Apache-2.0
//! `/v1/exports`.

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use driver_api::Result;

use super::{
    Answered, Api, Json,
    types::{CreateExport, ExportView, ReplicationView},
};
use crate::volumes::{AttachState, ExportRecord, NewExport, Stored};

type Answer<T> = Answered<axum::Json<T>>;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/exports", get(list).post(add))
        .route("/v1/exports/{name}", get(show).delete(remove))
}

pub(super) async fn view(api: &Api, export: Stored<ExportRecord>) -> ExportView {
    let state = match api.volumes.record(&export.record.volume).await {
        Ok(volume) if volume.record.attach == AttachState::Attached => "ready".to_owned(),
        Ok(volume) => match volume.record.note {
            Some(note) => format!("down: {note}"),
            None => format!("down: volume {} is not attached", export.record.volume),
        },
        Err(error) => format!("down: {error}"),
    };
    ExportView {
        connections: api.gates.connections(&export.name),
        uri: api.gates.uri(&export.name),
        volume: export.record.volume,
        read_only: export.record.read_only,
        allow: export.record.allow,
        default: export.record.default,
        name: export.name,
        state,
        durability: None,
    }
}

/// The view of one export, with how durable what its clients flush is.
async fn whole_view(api: &Api, export: Stored<ExportRecord>) -> ExportView {
    let mut view = view(api, export).await;
    match api.volumes.replication_if_any(&view.volume).await {
        Ok(replication) => {
            let replication = replication.map(ReplicationView::from);
            view.durability = replication.and_then(|volume| volume.mode.durability());
        }
        Err(error) => {
            view.durability = Some(format!("unknown: {error}"));
        }
    }
    view
}

async fn list(State(api): State<Api>) -> Answer<Vec<ExportView>> {
    let mut all = Vec::new();
    for export in api.volumes.exports().await? {
        all.push(view(&api, export).await);
    }
    Ok(axum::Json(all))
}

async fn show(State(api): State<Api>, Path(name): Path<String>) -> Answer<ExportView> {
    Ok(axum::Json(whole_view(&api, api.volumes.export(&name).await?).await))
}

async fn add(State(api): State<Api>, Json(body): Json<CreateExport>) -> Answer<ExportView> {
    let CreateExport { volume, name, read_only, allow, default, take_over } = body;
    let allow = allow.iter().map(|rule| rule.parse()).collect::<Result<_>>()?;
    let new = NewExport { volume, name, read_only, allow, default, take_over };
    let export = api.volumes.export_add(new).await?;
    Ok(axum::Json(whole_view(&api, export).await))
}

async fn remove(State(api): State<Api>, Path(name): Path<String>) -> Answer<()> {
    api.volumes.export(&name).await?;
    api.volumes.export_close(&name);
    let removed = match api.gates.disconnect(&name).await {
        Ok(()) => api.volumes.export_remove(&name).await,
        Err(error) => Err(error),
    };
    api.volumes.export_reopen(&name);
    removed?;
    Ok(axum::Json(()))
}
