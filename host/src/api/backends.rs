// SPDX-License-Identifier: Apache-2.0
//! `/v1/status`, `/v1/drivers` and `/v1/backends`.

use std::collections::BTreeMap;

use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post},
};
use driver_api::{HealthState, Result};

use super::{
    Answered, Api, Json,
    types::{BackendView, CommandView, DriverView, StatusView, UsageView},
    views::metrics,
};
use crate::{
    jobs::JobState,
    volumes::{BackendStatus, control},
};

type Answer<T> = Answered<axum::Json<T>>;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/drivers", get(drivers))
        .route("/v1/drivers/rescan", post(rescan))
        .route("/v1/backends", get(list))
        .route("/v1/backends/{name}", get(show))
        .route("/v1/backends/{name}/open", post(open))
        .route("/v1/backends/{name}/commands", get(commands))
        .route("/v1/backends/{name}/commands/{command}", post(run))
}

pub(super) async fn status(State(api): State<Api>) -> Answer<StatusView> {
    let backends = api.volumes.backends();
    let mut attention = Vec::new();
    let mut open = 0;
    let all = backends.list();
    for (name, status) in &all {
        match status {
            BackendStatus::Open(backend) => {
                open += 1;
                if let Some(why) = backend.degraded() {
                    attention.push(format!("backend {name} is degraded: {why}"));
                }
            }
            BackendStatus::Unavailable(why) => {
                attention.push(format!("backend {name} is unavailable: {}", why.message()));
            }
        }
    }
    for driver in api.drivers.list() {
        if let Some(why) = driver.why {
            attention.push(format!("driver {} is {}: {why}", driver.file, driver.state));
        }
    }
    let records = api.volumes.records().await?;
    for stored in &records {
        if let Some(note) = &stored.record.note {
            attention.push(format!("volume {}: {note}", stored.name));
        }
    }
    let jobs = api.jobs.list().await?;
    Ok(axum::Json(StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_secs: api.started.elapsed().as_secs(),
        pid: std::process::id(),
        active: backends.active().map(str::to_owned),
        backends: (open, all.len()),
        volumes: records.len(),
        exports: api.volumes.exports().await?.len(),
        jobs_running: jobs.iter().filter(|job| job.record.state == JobState::Running).count(),
        nbd_socket: api.gates.socket(),
        nbd_listen: api.gates.listen(),
        attention,
    }))
}

async fn drivers(State(api): State<Api>) -> Answer<Vec<DriverView>> {
    Ok(axum::Json(api.drivers.list()))
}

async fn rescan(State(api): State<Api>) -> Answer<Vec<DriverView>> {
    api.drivers.rescan()?;
    api.volumes.open_backends().await?;
    Ok(axum::Json(api.drivers.list()))
}

async fn view(api: &Api, name: &str, status: &BackendStatus) -> Result<BackendView> {
    let backends = api.volumes.backends();
    let mut view = BackendView {
        name: name.to_owned(),
        driver: backends.driver_of(name).to_owned(),
        version: None,
        active: backends.active() == Some(name),
        state: "unavailable".to_owned(),
        why: None,
        remedy: None,
        abilities: Vec::new(),
        fencing: None,
        options: BTreeMap::new(),
        usage: None,
        stats: Vec::new(),
    };
    let backend = match status {
        BackendStatus::Open(backend) => backend,
        BackendStatus::Unavailable(why) => {
            view.why = Some(why.to_string());
            view.remedy = Some(why.remedy_text().to_owned()).filter(|text| !text.is_empty());
            return Ok(view);
        }
    };
    let figures = api.volumes.backend_figures(backend).await?;
    view.options.clone_from(&backend.opened.options);
    view.version = Some(backend.opened.version.clone());
    view.state = figures.health.state.name().to_owned();
    if figures.health.state != HealthState::HEALTHY {
        view.why = Some(figures.health.reason.to_string());
    }
    view.abilities = figures.capabilities.abilities.names().map(str::to_owned).collect();
    view.fencing = Some(figures.capabilities.fencing.name().to_owned());
    view.usage = figures.usage.map(|usage| UsageView {
        capacity: usage.capacity,
        used: usage.used,
        available: usage.available,
        provisioned: usage.provisioned,
    });
    view.stats = metrics(&figures.stats);
    Ok(view)
}

/// All backends; one whose driver fails to answer is shown as failed.
pub(super) async fn views(api: &Api) -> Vec<BackendView> {
    let mut all = Vec::new();
    for (name, status) in api.volumes.backends().list() {
        let shown = match view(api, &name, &status).await {
            Ok(shown) => Ok(shown),
            Err(error) => view(api, &name, &BackendStatus::Unavailable(error)).await,
        };
        all.extend(shown);
    }
    all
}

async fn list(State(api): State<Api>) -> Answer<Vec<BackendView>> {
    Ok(axum::Json(views(&api).await))
}

async fn show(State(api): State<Api>, Path(name): Path<String>) -> Answer<BackendView> {
    let status = api.volumes.backends().status(&name)?;
    Ok(axum::Json(view(&api, &name, &status).await?))
}

async fn open(State(api): State<Api>, Path(name): Path<String>) -> Answer<BackendView> {
    let backend = api.volumes.open_backend(&name).await?;
    Ok(axum::Json(view(&api, &name, &BackendStatus::Open(backend)).await?))
}

async fn commands(State(api): State<Api>, Path(name): Path<String>) -> Answer<Vec<CommandView>> {
    let backend = api.volumes.backends().get(&name)?;
    let list = backend.note("commands", backend.handle().commands())?;
    let view = |command: driver_api::ext::CommandSpec| CommandView {
        name: command.name.into_string(),
        help: command.help.into_string(),
        example: command.example.into_string(),
        mutates: command.mutates,
    };
    Ok(axum::Json(list.into_iter().map(view).collect()))
}

async fn run(
    State(api): State<Api>,
    Path((name, command)): Path<(String, String)>,
    Json(arguments): Json<serde_json::Value>,
) -> Answer<serde_json::Value> {
    let backend = api.volumes.backends().get(&name)?;
    let running = backend.handle().run_command(&control(), &command, &arguments.to_string());
    let answer = backend.call("run", running).await?;
    let value = serde_json::from_str(&answer)
        .unwrap_or_else(|_| serde_json::Value::String(answer.into_string()));
    Ok(axum::Json(value))
}
