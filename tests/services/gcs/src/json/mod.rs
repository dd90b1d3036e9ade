// SPDX-License-Identifier: Apache-2.0
//! The JSON API: <https://cloud.google.com/storage/docs/json_api/v1>.

mod buckets;
mod objects;
mod policy;

use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use serde_json::Value;

use crate::auth::Access;
use crate::call::Call;
use crate::refusal::Refusal;
use crate::store::Store;

pub(crate) use buckets::new_bucket;

pub(crate) async fn answer(
    store: &Store,
    call: &mut Call,
    access: Access,
) -> Result<Response, Refusal> {
    let segments = call.segments()?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let upload = segments.first() == Some(&"upload");
    // What comes before `b` says which version of the API, and whether bytes are moved.
    let at =
        segments.iter().position(|segment| *segment == "v1").map_or(segments.len(), |at| at + 1);
    let method = call.method.clone();
    access.need(match method {
        Method::GET | Method::HEAD => Access::Read,
        _ => Access::Write,
    })?;
    match (&method, &segments[at..]) {
        (&Method::POST, ["b", bucket, "o"]) if upload => objects::upload(store, call, bucket).await,
        (&Method::GET, ["b"]) => buckets::list(store, call),
        (&Method::POST, ["b"]) => buckets::insert(store, call).await,
        (&Method::GET, ["b", bucket]) => buckets::get(store, call, bucket),
        (&Method::PATCH | &Method::PUT, ["b", bucket]) => buckets::patch(store, call, bucket).await,
        (&Method::DELETE, ["b", bucket]) => buckets::delete(store, call, bucket),
        (&Method::GET, ["b", bucket, "iam", "testPermissions"]) => {
            policy::test(store, call, bucket, access)
        }
        (&Method::GET, ["b", bucket, "iam"]) => policy::get(store, bucket),
        (&Method::PUT, ["b", bucket, "iam"]) => {
            access.need(Access::Full)?;
            policy::set(store, call, bucket).await
        }
        (&Method::GET, ["b", bucket, "o"]) => objects::list(store, call, bucket),
        (&Method::GET, ["b", bucket, "o", name]) => objects::get(store, call, bucket, name),
        (&Method::PATCH | &Method::PUT, ["b", bucket, "o", name]) => {
            objects::patch(store, call, bucket, name).await
        }
        (&Method::DELETE, ["b", bucket, "o", name]) => objects::delete(store, call, bucket, name),
        (
            &Method::POST,
            ["b", bucket, "o", name, verb @ ("rewriteTo" | "copyTo"), "b", to, "o", new],
        ) => {
            let rewrite = *verb == "rewriteTo";
            objects::rewrite(store, call, (bucket, name), (to, new), rewrite).await
        }
        (&Method::POST, ["b", bucket, "o", name, "compose"]) => {
            objects::compose(store, call, bucket, name).await
        }
        _ => {
            let message = format!("gcs-fake does not play {method} {}.", call.path);
            Err(Refusal::new(StatusCode::NOT_FOUND, "NotFound", "notFound", message))
        }
    }
}

/// A request's body. No body is an empty object.
async fn read(call: &mut Call) -> Result<Value, Refusal> {
    let text = call.text().await?;
    if text.is_empty() {
        return Ok(Value::Object(Default::default()));
    }
    match serde_json::from_slice(&text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err(Refusal::new(StatusCode::BAD_REQUEST, "ParseError", "parseError", "Parse Error")),
    }
}

fn say(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    let content_type = HeaderValue::from_static("application/json; charset=UTF-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

fn nothing() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
