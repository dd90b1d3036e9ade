// SPDX-License-Identifier: Apache-2.0
//! Listings of objects, and the deletion of many.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use driver_api::{
    Error, ErrorKind, Result,
    ext::{ListPage, ListQuery, ObjectName},
};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::{
    super::{Answered, Api, Json, types::JobView},
    Answer, Asked, At, BucketPath,
    types::{DeleteObjects, DeletePrefix, DeletedObjects, ListObjects, ObjectPage, VersionedKey},
    views,
};
use crate::{
    jobs::Emptying,
    objects::{self, delete_all},
};

/// What a client accepts that wants all pages in one answer: a page of JSON in each line.
pub const PAGES: &str = "application/x-ndjson";

pub(super) async fn list(
    State(api): State<Api>,
    At((backend, bucket)): At<BucketPath>,
    Asked(asked): Asked<ListObjects>,
    request: HeaderMap,
) -> Answered<Response> {
    let store = api.objects().store(&backend)?;
    let asked_page = asked.limit.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX));
    let query = ListQuery {
        prefix: asked.prefix.into(),
        delimiter: asked.delimiter.into(),
        after: asked.after.into(),
        page: asked.page.into(),
        limit: views::limit(asked_page, store.features().max_page)?,
        versions: asked.versions,
        ..ListQuery::default()
    };
    if request.get(header::ACCEPT).is_none_or(|accepted| accepted != PAGES) {
        let page = objects::page(&store, bucket, query).await?;
        return Ok(axum::Json(ObjectPage::from(page)).into_response());
    }
    let objects::Listing { first, rest } = objects::list(store, bucket, query, asked.limit).await?;
    let lines = Body::new(Lines { first: Some(first), rest });
    Ok(([(header::CONTENT_TYPE, PAGES)], lines).into_response())
}

/// The pages of a listing. One that fails breaks the answer off: who asks for that page alone is told why.
struct Lines {
    first: Option<ListPage>,
    rest: mpsc::Receiver<Result<ListPage>>,
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        let page = match self.first.take() {
            Some(page) => Some(Ok(page)),
            None => ready!(self.rest.poll_recv(cx)),
        };
        Poll::Ready(page.map(|page| {
            let page = ObjectPage::from(page?);
            let mut line = serde_json::to_vec(&page).map_err(|error| {
                Error::new(ErrorKind::INTERNAL, "a page cannot be told").caused_by(&error)
            })?;
            line.push(b'\n');
            Ok(Frame::data(line.into()))
        }))
    }
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
