// SPDX-License-Identifier: Apache-2.0
//! Objects' bytes, streamed: neither an object nor a part of one is ever held whole, except a part that a client sends.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use driver_api::{
    Error, ErrorKind, Result,
    ext::{Conditions, ObjectName, PartInfo},
};
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

use super::{
    super::{Answered, Api},
    Asked, At, ObjectPath, OfVersion,
    direct::{Offer, Offered},
    find, headers, refused,
    types::{ObjectView, OfUpload, PartView},
    uploads::upload,
};
use crate::{
    objects::{self, Incoming, Reading, Store, Wanted},
    plugins::Call,
};

/// The bytes of a reading. That they end early is an error, so that nobody takes them for all.
struct Streamed {
    pieces: mpsc::Receiver<Result<Bytes>>,
    left: u64,
}

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = ready!(self.pieces.poll_recv(cx)).unwrap_or_else(|| Err(ended_early()));
        Poll::Ready(Some(piece.map(|piece| {
            self.left = self.left.saturating_sub(piece.len() as u64);
            Frame::data(piece)
        })))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

pub(super) fn ended_early() -> Error {
    Error::new(ErrorKind::UNAVAILABLE, "the reading ended before the object did")
}

async fn head_of(store: &Store, name: ObjectName, conditions: Conditions) -> Result<HeaderMap> {
    let heading =
        store.ask(Call::HeadObject, move |objects, cx| objects.head(cx, name, conditions));
    let object = heading.await?;
    let mut said = headers::of_object(&object);
    said.insert(header::CONTENT_LENGTH, HeaderValue::from(object.size));
    Ok(said)
}

pub(super) async fn head(
    State(api): State<Api>,
    At(at): At<ObjectPath>,
    Asked(of): Asked<OfVersion>,
    request: HeaderMap,
) -> Answered<Response> {
    let (store, name) = find(&api, at, of.version)?;
    let said = head_of(&store, name, headers::conditions(&request)?).await?;
    Ok((said, Body::empty()).into_response())
}

pub(super) async fn read(
    State(api): State<Api>,
    At(at): At<ObjectPath>,
    Asked(of): Asked<OfVersion>,
    Offered(offer): Offered,
    request: HeaderMap,
) -> Answered<Response> {
    let (store, name) = find(&api, at, of.version)?;
    let conditions = headers::conditions(&request)?;
    let (wanted, room) = (headers::range(&request)?, &api.objects().reading);
    let read = async |wanted, conditions| {
        objects::read(store.clone(), room.clone(), name.clone(), wanted, conditions).await
    };
    let (wanted, begun) = match headers::if_range(&request)? {
        // The range is of that object alone; of another one the client wants all.
        Some(etag) if wanted != Wanted::All && conditions.if_match.is_empty() => {
            let etag = etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"'));
            let of_that =
                etag.map(|etag| Conditions { if_match: etag.into(), ..conditions.clone() });
            let begun = match of_that {
                Some(of_that) => read(wanted, of_that).await,
                // A date is no name of an object.
                None => Err(Error::new(ErrorKind::CONFLICT, "no ETag")),
            };
            match begun {
                Err(error) if error.kind() == ErrorKind::CONFLICT => {
                    (Wanted::All, read(Wanted::All, conditions).await)
                }
                begun => (wanted, begun),
            }
        }
        _ => (wanted, read(wanted, conditions).await),
    };
    match begun {
        Ok(reading) => Ok(answer(reading, wanted, offer)),
        Err(error) if error.kind() == ErrorKind::OUT_OF_RANGE => Ok(not_there(error)),
        Err(error) => Err(error.into()),
    }
}

fn answer(reading: Reading, wanted: Wanted, offer: Option<Offer>) -> Response {
    let Reading { object, start, end, pieces } = reading;
    let mut said = headers::of_object(&object);
    said.insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
    let mut status = StatusCode::OK;
    if wanted != Wanted::All {
        status = StatusCode::PARTIAL_CONTENT;
        let last = end.saturating_sub(1);
        if let Ok(range) = HeaderValue::try_from(format!("bytes {start}-{last}/{}", object.size)) {
            said.insert(header::CONTENT_RANGE, range);
        }
    }
    if let Some(offer) = offer {
        return offer.accept(said, pieces, end - start);
    }
    let body = Body::new(Streamed { pieces: pieces.fetched(), left: end - start });
    (status, said, body).into_response()
}

/// A range that the object does not have.
fn not_there(error: Error) -> Response {
    let size = error.context().find(|(name, _)| *name == "size");
    let range = size.and_then(|(_, size)| HeaderValue::try_from(format!("bytes */{size}")).ok());
    let mut response = refused(error, false);
    *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
    if let Some(range) = range {
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    response
}

pub(super) async fn write(
    State(api): State<Api>,
    At(at): At<ObjectPath>,
    Asked(of): Asked<OfVersion>,
    request: HeaderMap,
    body: Body,
) -> Response {
    let mut incoming = Incoming::new(body);
    let writing = async {
        let (store, name) = find(&api, at, of.version)?;
        let (options, length) = (headers::put_options(&request)?, headers::length(&request)?);
        let room = &api.objects().writing;
        objects::put(&store, room, name, options, length, &mut incoming).await
    };
    match writing.await {
        Ok(object) => {
            let said = headers::of_written(&object);
            (said, axum::Json(ObjectView::from(object))).into_response()
        }
        Err(error) => {
            incoming.drain().await;
            refused(error, request.contains_key(header::IF_NONE_MATCH))
        }
    }
}

pub(super) async fn write_part(
    State(api): State<Api>,
    At((backend, bucket, id, number)): At<(String, String, String, u32)>,
    Asked(of): Asked<OfUpload>,
    request: HeaderMap,
    body: Body,
) -> Response {
    let mut incoming = Incoming::new(body);
    let writing = async {
        let store = api.objects().store(&backend)?;
        let length = headers::length(&request)?.ok_or_else(|| {
            Error::new(ErrorKind::INVALID_ARGUMENT, "a part comes with its Content-Length")
        })?;
        let (upload, room) = (upload(&bucket, &id, &of), &api.objects().writing);
        objects::put_part(&store, room, upload, number, length, &mut incoming).await
    };
    match writing.await {
        Ok(part) => said_of(part),
        Err(error) => {
            incoming.drain().await;
            refused(error, false)
        }
    }
}

fn said_of(part: PartInfo) -> Response {
    let said = headers::of_part(&part);
    (said, axum::Json(PartView::from(part))).into_response()
}
