// SPDX-License-Identifier: Apache-2.0
//! `/v1/volumes/NAME/promote`: asked with GET, what would be lost; with POST, done.

use axum::{
    Router,
    extract::{Path, Query, State},
    routing::get,
};
use driver_api::ext::Promotion;
use serde::{Deserialize, Serialize};

use super::{Answered, Api, Json, views::unless_empty};

type Answer = Answered<axum::Json<PromotionView>>;

/// The query of `GET`, and the body of `POST /v1/volumes/NAME/promote`
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct PromoteVolume {
    /// The node that is to acknowledge; the one that lacks least if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Give up, too, what only the host's memory has.
    #[serde(default)]
    pub at_once: bool,
}

/// What becomes of an asynchronous volume when another of its nodes acknowledges.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct PromotionView {
    /// The node that acknowledges then.
    pub node: String,
    /// The node that does until then.
    pub before: Option<String>,
    /// The last write that the volume has then.
    pub point: Option<String>,
    /// Whether what is lost is known; otherwise it is the most that can be.
    pub exact: bool,
    /// Acknowledged writes that are lost.
    pub lost_writes: u64,
    /// Their bytes.
    pub lost_bytes: u64,
    /// How long ago the oldest of them was acknowledged, in seconds.
    pub lost_secs: f64,
    /// Whether it was done.
    pub done: bool,
    /// What else there is to know.
    pub note: Option<String>,
}

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/v1/volumes/{name}/promote", get(look).post(promote))
}

async fn look(
    State(api): State<Api>,
    Path(volume): Path<String>,
    Query(how): Query<PromoteVolume>,
) -> Answer {
    let node = how.node.unwrap_or_default();
    Ok(axum::Json(api.volumes.promotion(&volume, &node, how.at_once).await?.into()))
}

async fn promote(
    State(api): State<Api>,
    Path(volume): Path<String>,
    Json(how): Json<PromoteVolume>,
) -> Answer {
    let node = how.node.unwrap_or_default();
    Ok(axum::Json(api.volumes.promote(&volume, &node, how.at_once).await?.into()))
}

impl From<Promotion> for PromotionView {
    fn from(promotion: Promotion) -> Self {
        Self {
            node: promotion.node.into_string(),
            before: unless_empty(promotion.before),
            point: unless_empty(promotion.point),
            exact: promotion.exact,
            lost_writes: promotion.lost.writes,
            lost_bytes: promotion.lost.bytes,
            lost_secs: promotion.lost.age_ns as f64 / 1e9,
            done: promotion.done,
            note: unless_empty(promotion.note),
        }
    }
}
