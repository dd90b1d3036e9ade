// SPDX-License-Identifier: Apache-2.0
//! Listings of objects, and the deletion of many.

use axum::extract::State;
use driver_api::ext::{ListQuery, ObjectName};

use super::{
    super::{Api, Json, types::JobView},
    Answer, Asked, At, BucketPath,
    types::{DeleteObjects, DeletePrefix, DeletedObjects, ListObjects, ObjectPage, VersionedKey},
    views,
};
use crate::{jobs::Emptying, objects::delete_all, plugins::Call};

pub(super) async fn list(
    State(api): State<Api>,
    At((backend, bucket)): At<BucketPath>,
    Asked(asked): Asked<ListObjects>,
) -> Answer<ObjectPage> {
    let store = api.objects().store(&backend)?;
    let most = store.features().max_page;
    let query = ListQuery {
        prefix: asked.prefix.into(),
        delimiter: asked.delimiter.into(),
        after: asked.after.into(),
        page: asked.page.into(),
        limit: asked.limit.unwrap_or(most).min(most),
        versions: asked.versions,
        ..ListQuery::default()
    };
    let listing = store.ask(Call::ListObjects, move |objects, cx| objects.list(cx, &bucket, query));
    Ok(axum::Json(listing.await?.into()))
}

pub(super) async fn delete_many(
    State(api): State<Api>,
    At((backend, bucket)): At<BucketPath>,
    Json(body): Json<DeleteObjects>,
) -> Answer<DeletedObjects> {
    let store = api.objects().store(&backend)?;
    let name = |asked: &VersionedKey| ObjectName {
        version: asked.version.clone().unwrap_or_default().into(),
        ..ObjectName::new(&bucket, &asked.key)
    };
    let names = body.delete.iter().map(name).collect();
    let outcomes = delete_all(&store, &bucket, names).await;
    let outcomes = body.delete.into_iter().zip(outcomes);
    let outcomes = outcomes.map(|(asked, outcome)| views::deleted(asked, outcome)).collect();
    Ok(axum::Json(DeletedObjects { outcomes }))
}

pub(super) async fn delete_prefix(
    State(api): State<Api>,
    At((backend, bucket)): At<BucketPath>,
    Asked(asked): Asked<DeletePrefix>,
) -> Answer<JobView> {
    let store = api.objects().store(&backend)?;
    let emptying = Emptying {
        backend: store.name().to_owned(),
        bucket,
        prefix: asked.prefix,
        objects: true,
        versions: asked.versions,
        uploads: asked.uploads,
        ..Emptying::default()
    };
    Ok(axum::Json(api.replicas.empty(store, emptying).await?.into()))
}
