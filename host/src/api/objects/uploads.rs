// SPDX-License-Identifier: Apache-2.0
//! Uploads that a client steers itself.

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use driver_api::ext::{ObjectName, PutOptions, UploadInfo, UploadQuery};

use super::{
    super::{Answered, Api, Json},
    Answer, Asked, At, BucketPath, ObjectPath, headers, refused,
    types::{
        BeginUpload, CompleteUpload, ListUploads, ObjectView, OfUpload, PartsPage, UploadView,
        UploadsPage,
    },
    views,
};
use crate::{objects::LONG, plugins::Call};

/// Parts in one answer, if nothing else is asked for.
const PARTS: u32 = 1000;

pub(super) fn upload(bucket: &str, id: &str, of: &OfUpload) -> UploadInfo {
    UploadInfo {
        bucket: bucket.into(),
        key: of.key.as_str().into(),
        id: id.into(),
        mark: of.mark.as_str().into(),
        ..UploadInfo::default()
    }
}

pub(super) async fn list(
    State(api): State<Api>,
    At((backend, bucket)): At<BucketPath>,
    Asked(asked): Asked<ListUploads>,
) -> Answer<UploadsPage> {
    let store = api.objects().store(&backend)?;
    let most = store.features().max_page;
    let query = UploadQuery {
        prefix: asked.prefix.into(),
        page: asked.page.into(),
        limit: views::limit(asked.limit, most)?,
        ..UploadQuery::default()
    };
    let listing =
        store.ask(Call::ListUploads, move |objects, cx| objects.uploads(cx, &bucket, query));
    Ok(axum::Json(listing.await?.into()))
}

pub(super) async fn begin(
    State(api): State<Api>,
    At((backend, bucket)): At<BucketPath>,
    request: HeaderMap,
    Json(body): Json<BeginUpload>,
) -> Answer<UploadView> {
    let store = api.objects().store(&backend)?;
    let name = ObjectName::new(&bucket, &body.key);
    let options = PutOptions { conditions: headers::conditions(&request)?, ..body.into() };
    let beginning =
        store.ask(Call::BeginUpload, move |objects, cx| objects.begin_upload(cx, name, options));
    Ok(axum::Json(beginning.await?.into()))
}

pub(super) async fn parts(
    State(api): State<Api>,
    At((backend, bucket, id)): At<ObjectPath>,
    Asked(of): Asked<OfUpload>,
) -> Answer<PartsPage> {
    let store = api.objects().store(&backend)?;
    let (upload, limit) = (upload(&bucket, &id, &of), views::limit(of.limit, PARTS)?);
    let listing =
        store.ask(Call::ListParts, move |objects, cx| objects.parts(cx, upload, of.after, limit));
    Ok(axum::Json(listing.await?.into()))
}

pub(super) async fn abort(
    State(api): State<Api>,
    At((backend, bucket, id)): At<ObjectPath>,
    Asked(of): Asked<OfUpload>,
) -> Answer<()> {
    let store = api.objects().store(&backend)?;
    let upload = upload(&bucket, &id, &of);
    store.ask(Call::AbortUpload, move |objects, cx| objects.abort_upload(cx, upload)).await?;
    Ok(axum::Json(()))
}

pub(super) async fn complete(
    State(api): State<Api>,
    At((backend, bucket, id)): At<ObjectPath>,
    Asked(of): Asked<OfUpload>,
    request: HeaderMap,
    Json(body): Json<CompleteUpload>,
) -> Answered<Response> {
    let store = api.objects().store(&backend)?;
    let upload = upload(&bucket, &id, &of);
    let conditions = headers::conditions(&request)?;
    let conditional = !conditions.is_empty();
    let parts = body.parts.into_iter().map(Into::into).collect();
    let completing = store.ask_within(LONG, Call::CompleteUpload, move |objects, cx| {
        objects.complete_upload(cx, upload, parts, conditions)
    });
    Ok(match completing.await {
        Ok(object) => {
            let said = headers::of_written(&object);
            (said, axum::Json(ObjectView::from(object))).into_response()
        }
        Err(error) => refused(error, conditional),
    })
}
