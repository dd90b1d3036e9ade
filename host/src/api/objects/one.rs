// SPDX-License-Identifier: Apache-2.0
//! One object, without its bytes.

use std::time::Duration;

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use driver_api::{
    Error, ErrorKind, Result,
    ext::{Conditions, CopyOptions, ObjectChange, ObjectName, SignRequest, SignedMethod},
};

use super::{
    super::{Answered, Api, Json},
    Answer, Asked, At, ObjectPath, OfVersion, find, headers, refused,
    types::{ChangeObject, CopyObject, ObjectTags, ObjectView, SignObject, SignedView},
    views,
};
use crate::{
    objects::{LONG, Store},
    plugins::Call,
};

pub(super) async fn info(
    State(api): State<Api>,
    At(at): At<ObjectPath>,
    Asked(of): Asked<OfVersion>,
    request: HeaderMap,
) -> Answer<ObjectView> {
    let (store, name) = find(&api, at, of.version)?;
    let conditions = headers::conditions(&request)?;
    let heading =
        store.ask(Call::HeadObject, move |objects, cx| objects.head(cx, name, conditions));
    Ok(axum::Json(heading.await?.into()))
}

pub(super) async fn delete(
    State(api): State<Api>,
    At(at): At<ObjectPath>,
    Asked(of): Asked<OfVersion>,
    request: HeaderMap,
) -> Answer<()> {
    let (store, name) = find(&api, at, of.version)?;
    let conditions = headers::conditions(&request)?;
    let deleting =
        store.ask(Call::DeleteObject, move |objects, cx| objects.delete(cx, name, conditions));
    deleting.await?;
    Ok(axum::Json(()))
}

pub(super) async fn tags(
    State(api): State<Api>,
    At(at): At<ObjectPath>,
    Asked(of): Asked<OfVersion>,
) -> Answer<ObjectTags> {
    let (store, name) = find(&api, at, of.version)?;
    let tags = store.ask(Call::ObjectTags, move |objects, cx| objects.tags(cx, name)).await?;
    Ok(axum::Json(ObjectTags { tags: views::map(tags) }))
}

/// The slowest that a store may copy within itself, in bytes each second.
const SLOWEST_COPY: u64 = 8 << 20;

/// How long a store may take to copy an object, by its size; where that cannot be asked, the copy tells why.
async fn patience(store: &Store, name: &ObjectName) -> Duration {
    let asked = name.clone();
    let heading = store
        .ask(Call::HeadObject, move |objects, cx| objects.head(cx, asked, Conditions::default()));
    let size = heading.await.map_or(0, |object| object.size);
    LONG + Duration::from_secs(size / SLOWEST_COPY)
}

async fn change_object(store: Store, name: ObjectName, change: ObjectChange) -> Result<ObjectView> {
    // Where metadata cannot be changed in place, the store copies the object onto itself.
    let patience = patience(&store, &name).await;
    let changing = store.ask_within(patience, Call::ChangeObject, move |objects, cx| {
        objects.change(cx, name, change)
    });
    Ok(changing.await?.into())
}

pub(super) async fn set_tags(
    State(api): State<Api>,
    At(at): At<ObjectPath>,
    Asked(of): Asked<OfVersion>,
    Json(body): Json<ObjectTags>,
) -> Answer<ObjectView> {
    let (store, name) = find(&api, at, of.version)?;
    let change = ChangeObject { tags: Some(body.tags), ..ChangeObject::default() };
    Ok(axum::Json(change_object(store, name, change.into()).await?))
}

pub(super) async fn change(
    State(api): State<Api>,
    At(at): At<ObjectPath>,
    Asked(of): Asked<OfVersion>,
    Json(body): Json<ChangeObject>,
) -> Answer<ObjectView> {
    let (store, name) = find(&api, at, of.version)?;
    if body == ChangeObject::default() {
        let why = "nothing is to be changed";
        return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why).during("change_object").into());
    }
    Ok(axum::Json(change_object(store, name, body.into()).await?))
}

pub(super) async fn copy(
    State(api): State<Api>,
    At(at): At<ObjectPath>,
    Asked(of): Asked<OfVersion>,
    Json(body): Json<CopyObject>,
) -> Answered<Response> {
    let (store, from) = find(&api, at, of.version)?;
    let to = ObjectName::new(&body.to_bucket, &body.to_key);
    let options = CopyOptions {
        source: Conditions {
            if_match: headers::one_etag("source_if_match", body.source_if_match)?,
            ..Conditions::default()
        },
        target: Conditions {
            if_match: headers::one_etag("if_match", body.if_match)?,
            if_none_match: if body.create_only { "*".into() } else { Default::default() },
            ..Conditions::default()
        },
        change: body.change.into(),
        mark: body.mark.unwrap_or_default().into(),
        ..CopyOptions::default()
    };
    let patience = patience(&store, &from).await;
    let copying = store.ask_within(patience, Call::CopyObject, move |objects, cx| {
        objects.copy(cx, from, to, options)
    });
    Ok(match copying.await {
        Ok(object) => axum::Json(ObjectView::from(object)).into_response(),
        Err(error) => refused(error, body.create_only),
    })
}

pub(super) async fn sign(
    State(api): State<Api>,
    At(at): At<ObjectPath>,
    Asked(of): Asked<OfVersion>,
    Json(body): Json<SignObject>,
) -> Answer<SignedView> {
    let (store, object) = find(&api, at, of.version)?;
    let request = SignRequest {
        method: method(&body.method)?,
        object,
        expire_secs: body.expire_secs,
        upload: body.upload.unwrap_or_default().into(),
        part: body.part.unwrap_or_default(),
        ..SignRequest::default()
    };
    let signing = store.ask(Call::Sign, move |objects, cx| objects.sign(cx, request));
    Ok(axum::Json(signing.await?.into()))
}

fn method(name: &str) -> Result<SignedMethod> {
    match name.to_ascii_uppercase().as_str() {
        "GET" => Ok(SignedMethod::GET),
        "HEAD" => Ok(SignedMethod::HEAD),
        "PUT" => Ok(SignedMethod::PUT),
        "DELETE" => Ok(SignedMethod::DELETE),
        "PUT-PART" => Ok(SignedMethod::PUT_PART),
        _ => Err(Error::new(ErrorKind::INVALID_ARGUMENT, "URLs are not signed for that method")
            .during("sign")
            .with("method", name)
            .remedy("methods there are: GET, HEAD, PUT, DELETE, PUT-PART")),
    }
}
