// SPDX-License-Identifier: Apache-2.0
//! `/v1/backends/NAME/plan`, drained nodes, and the rebalancing and options of `/v1/volumes/NAME`.

use std::collections::BTreeMap;

use axum::{
    Router,
    extract::{Path, State},
    routing::{get, patch, post},
};
use driver_api::ext::{
    Movement, MovementPlan, NodeShare, NodeSpec, NodeStep, NodeStepKind, Rebalancing,
};
use serde::{Deserialize, Serialize};

use super::{
    Answered, Api, Json,
    types::{JobView, NodeView, VolumeView},
    views::unless_empty,
};

type Answer<T> = Answered<axum::Json<T>>;

/// `POST /v1/backends/NAME/plan`: what would move. Nothing is changed.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct PlanMovement {
    /// The volume; all of the backend if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Changes of nodes, taken in this order.
    #[serde(default)]
    pub steps: Vec<PlanStep>,
}

/// A change of a node that is thought of.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub enum PlanStep {
    /// A backend becomes a node.
    Add {
        /// The backend.
        name: String,
        /// Its failure zone; a zone of its own if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        zone: Option<String>,
        /// Its share of shards relative to others; the ABI's default if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<u32>,
    },
    /// A node is taken out.
    Remove {
        /// The node.
        name: String,
    },
    /// A node is emptied.
    Drain {
        /// The node.
        name: String,
    },
    /// A node gets another weight.
    Weight {
        /// The node.
        name: String,
        /// The weight.
        weight: u32,
    },
}

/// What would move.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct PlanView {
    /// Volumes that can be placed, together.
    pub total: MovementView,
    /// Each volume.
    pub volumes: Vec<MovementView>,
}

/// What would move, of one volume or several together.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct MovementView {
    /// The volume; none: several together.
    pub volume: Option<String>,
    /// Why it cannot be placed so; then nothing else is told of it.
    pub refused: Option<String>,
    /// Bytes that would be copied.
    pub bytes: u64,
    /// Shards that would get other nodes.
    pub shards: u64,
    /// Shards in all.
    pub shards_in_all: u64,
    /// Bytes of a shard, the largest of several volumes.
    pub shard_size: u64,
    /// Each node that holds something now or then.
    pub nodes: Vec<ShareView>,
    /// The most bytes that a node has more or less than its ideal, now.
    pub worst_before: u64,
    /// The same, then.
    pub worst_after: u64,
    /// Shards that have 0, 1, 2, … replicas now on nodes that do not leave; the last: that many or more.
    pub copies: Vec<u64>,
    /// Shards with two replicas in one zone while another could take one, now.
    pub zone_violations_before: u64,
    /// The same, then.
    pub zone_violations_after: u64,
}

/// What a node holds, in bytes.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct ShareView {
    /// The node.
    pub node: String,
    /// Now.
    pub before: u64,
    /// Then.
    pub after: u64,
    /// By its weight, as far as zones and replicas let it.
    pub ideal: u64,
}

/// `POST /v1/backends/NAME/nodes/NODE/drain`
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
#[serde(deny_unknown_fields)]
pub struct DrainNode {
    /// Whether it is to be emptied.
    pub on: bool,
}

/// `PATCH /v1/volumes/NAME/options`, and `POST /v1/volumes/NAME/options/plan`: what would move then
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct SetOptions {
    /// Options of the volume's driver; what is absent stays.
    pub options: BTreeMap<String, String>,
}

/// `GET /v1/volumes/NAME/rebalance`: how far it is.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct RebalancingView {
    /// Whether shards are still to get other nodes.
    pub running: bool,
    /// Shards that are not where they are to be.
    pub shards_left: u64,
    /// Shards that bricks still have to be freed of.
    pub litter: u64,
    /// Bricks that hold nothing any more and are still to be deleted.
    pub leaving: u64,
    /// Bytes copied between bricks since the volume was attached.
    pub copied: u64,
    /// Why the last one ended before its end.
    pub why: Option<String>,
}

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/backends/{name}/plan", post(plan))
        .route("/v1/backends/{name}/nodes/{node}/drain", post(drain))
        .route("/v1/volumes/{name}/rebalance", get(rebalancing).post(rebalance))
        .route("/v1/volumes/{name}/options", patch(configure))
        .route("/v1/volumes/{name}/options/plan", post(plan_options))
}

async fn plan(
    State(api): State<Api>,
    Path(backend): Path<String>,
    Json(body): Json<PlanMovement>,
) -> Answer<PlanView> {
    let steps = body.steps.into_iter().map(Into::into).collect();
    let plan = api.volumes.plan_movement(&backend, body.volume.as_deref(), steps).await?;
    Ok(axum::Json(plan.into()))
}

async fn drain(
    State(api): State<Api>,
    Path((backend, node)): Path<(String, String)>,
    Json(body): Json<DrainNode>,
) -> Answer<NodeView> {
    Ok(axum::Json(api.volumes.node_drain(&backend, &node, body.on).await?.into()))
}

async fn rebalance(State(api): State<Api>, Path(volume): Path<String>) -> Answer<JobView> {
    Ok(axum::Json(api.replicas.rebalance(&volume).await?.into()))
}

async fn rebalancing(
    State(api): State<Api>,
    Path(volume): Path<String>,
) -> Answer<RebalancingView> {
    Ok(axum::Json(api.volumes.rebalancing(&volume).await?.into()))
}

async fn configure(
    State(api): State<Api>,
    Path(volume): Path<String>,
    Json(body): Json<SetOptions>,
) -> Answer<VolumeView> {
    api.volumes.configure(&volume, &body.options).await?;
    Ok(axum::Json(api.volumes.figures(&volume).await?.into()))
}

async fn plan_options(
    State(api): State<Api>,
    Path(volume): Path<String>,
    Json(body): Json<SetOptions>,
) -> Answer<MovementView> {
    Ok(axum::Json(api.volumes.plan_options(&volume, &body.options).await?.into()))
}

impl From<PlanStep> for NodeStep {
    fn from(step: PlanStep) -> Self {
        let named = |kind, name: String| Self::new(kind, NodeSpec::new(&name));
        match step {
            PlanStep::Add { name, zone, weight } => {
                let spec = NodeSpec::new(&name);
                let spec = NodeSpec {
                    zone: zone.map_or(spec.zone, Into::into),
                    weight: weight.unwrap_or(spec.weight),
                    ..NodeSpec::new(&name)
                };
                Self::new(NodeStepKind::ADD, spec)
            }
            PlanStep::Remove { name } => named(NodeStepKind::REMOVE, name),
            PlanStep::Drain { name } => named(NodeStepKind::DRAIN, name),
            PlanStep::Weight { name, weight } => {
                Self::new(NodeStepKind::WEIGHT, NodeSpec { weight, ..NodeSpec::new(&name) })
            }
        }
    }
}

impl From<MovementPlan> for PlanView {
    fn from(plan: MovementPlan) -> Self {
        let volumes = plan.volumes.into_iter().map(Into::into).collect();
        Self { total: plan.total.into(), volumes }
    }
}

impl From<Movement> for MovementView {
    fn from(movement: Movement) -> Self {
        Self {
            volume: unless_empty(movement.volume),
            refused: unless_empty(movement.refused),
            bytes: movement.bytes,
            shards: movement.shards,
            shards_in_all: movement.shards_in_all,
            shard_size: movement.shard_size,
            nodes: movement.nodes.into_iter().map(Into::into).collect(),
            worst_before: movement.worst_before,
            worst_after: movement.worst_after,
            copies: movement.copies.into_iter().collect(),
            zone_violations_before: movement.zone_violations_before,
            zone_violations_after: movement.zone_violations_after,
        }
    }
}

impl From<NodeShare> for ShareView {
    fn from(share: NodeShare) -> Self {
        let NodeShare { node, before, after, ideal, .. } = share;
        Self { node: node.into_string(), before, after, ideal }
    }
}

impl From<Rebalancing> for RebalancingView {
    fn from(progress: Rebalancing) -> Self {
        Self {
            running: progress.running,
            shards_left: progress.shards_left,
            litter: progress.litter,
            leaving: progress.leaving,
            copied: progress.copied,
            why: unless_empty(progress.reason),
        }
    }
}
