// SPDX-License-Identifier: Apache-2.0
//! Buckets and objects: `/v1/backends/NAME/buckets` and what is below. The name `-` stands for the only backend that has
//! objects.
//!
//! A key is one segment of the path, percent-encoded: its slashes are `%2F`.

mod buckets;
mod direct;
mod headers;
pub(crate) mod listing;
mod one;
mod streams;
pub mod types;
mod uploads;
mod views;

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Query},
    http::{Method, StatusCode, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use driver_api::{Error, ErrorKind, Result, ext::ObjectName};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Answered, Api, problem::Problem};
use crate::objects::Store;

type Answer<T> = Answered<axum::Json<T>>;

/// The list of an upload's parts is longer than other bodies.
const LONGEST_LIST: usize = 16 << 20;

/// What is answered with JSON.
pub(super) fn routes() -> Router<Api> {
    let bucket = "/v1/backends/{backend}/buckets/{bucket}";
    let object = format!("{bucket}/objects/{{key}}");
    Router::new()
        .route("/v1/backends/{backend}/object-features", get(buckets::features))
        .route("/v1/backends/{backend}/buckets", get(buckets::list).post(buckets::create))
        .route(bucket, get(buckets::show).delete(buckets::delete))
        .route(&format!("{bucket}/versioning"), put(buckets::set_versioning))
        .route(
            &format!("{bucket}/policy"),
            get(buckets::policy).put(buckets::set_policy).delete(buckets::remove_policy),
        )
        .route(
            &format!("{bucket}/lifecycle"),
            get(buckets::lifecycle).put(buckets::set_lifecycle).delete(buckets::remove_lifecycle),
        )
        .route(
            &format!("{bucket}/objects"),
            get(listing::list).post(listing::delete_many).delete(listing::delete_prefix),
        )
        .route(&object, axum::routing::delete(one::delete))
        .route(&format!("{object}/info"), get(one::info))
        .route(&format!("{object}/tags"), get(one::tags).put(one::set_tags))
        .route(&format!("{object}/change"), post(one::change))
        .route(&format!("{object}/copy"), post(one::copy))
        .route(&format!("{object}/sign"), post(one::sign))
        .route(&format!("{bucket}/uploads"), get(uploads::list).post(uploads::begin))
        .route(&format!("{bucket}/uploads/{{id}}"), get(uploads::parts).delete(uploads::abort))
}

/// What is streamed, and what may be long.
pub(super) fn streams() -> Router<Api> {
    let bucket = "/v1/backends/{backend}/buckets/{bucket}";
    Router::new()
        .route(
            &format!("{bucket}/objects/{{key}}"),
            get(streams::read).head(streams::head).put(streams::write),
        )
        .route(&format!("{bucket}/uploads/{{id}}/parts/{{number}}"), put(streams::write_part))
        .route(
            &format!("{bucket}/uploads/{{id}}/complete"),
            post(uploads::complete).layer(DefaultBodyLimit::max(LONGEST_LIST)),
        )
}

/// Whether a request may take as long as its store: it moves an object's bytes, here or within the store.
pub(super) fn takes_its_time(method: &Method, path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match parts[..] {
        ["v1", "backends", _, "buckets", _, "objects", _] => *method != Method::DELETE,
        ["v1", "backends", _, "buckets", _, "objects", _, "copy" | "change"] => true,
        ["v1", "backends", _, "buckets", _, "uploads", _, "complete"] => true,
        ["v1", "backends", _, "buckets", _, "uploads", _, "parts", _] => true,
        _ => false,
    }
}

/// The parts of the path; what is no UTF-8 is refused as a problem.
struct At<T>(T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> std::result::Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(path)| Self(path)).map_err(|error| {
            let why = format!("the resource's name: {error}");
            Problem(
                Error::new(ErrorKind::INVALID_ARGUMENT, why)
                    .remedy("percent-encode names as UTF-8, slashes too"),
            )
        })
    }
}

/// The query; one that is not known is refused as a problem.
struct Asked<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> std::result::Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(query)| Self(query)).map_err(|error| {
            let why = format!("the request's query: {error}");
            Problem(Error::new(ErrorKind::INVALID_ARGUMENT, why))
        })
    }
}

/// Query of what is about one version of an object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfVersion {
    #[serde(default, deserialize_with = "views::no_empty_text")]
    version: String,
}

/// The path of a bucket.
type BucketPath = (String, String);
/// The path of an object.
type ObjectPath = (String, String, String);

/// The store of a backend, and an object there.
fn find(api: &Api, at: ObjectPath, version: String) -> Result<(Store, ObjectName)> {
    let (backend, bucket, key) = at;
    let name = ObjectName { version: version.into(), ..ObjectName::new(&bucket, &key) };
    Ok((api.objects().store(&backend)?, name))
}

/// A refusal. Under a condition, `AlreadyExists` says that the condition does not hold.
fn refused(error: Error, conditional: bool) -> Response {
    let precondition = conditional && error.kind() == ErrorKind::ALREADY_EXISTS;
    let mut response = Problem(error).into_response();
    if precondition {
        *response.status_mut() = StatusCode::PRECONDITION_FAILED;
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_bytes_may_take_its_time() {
        let long = |method, path: &str| takes_its_time(&method, path);
        let bucket = "/v1/backends/b/buckets/k";
        assert!(long(Method::GET, &format!("{bucket}/objects/a%2Fb")));
        assert!(long(Method::PUT, &format!("{bucket}/objects/a")));
        assert!(long(Method::PUT, &format!("{bucket}/uploads/u/parts/1")));
        assert!(long(Method::POST, &format!("{bucket}/uploads/u/complete")));
        assert!(!long(Method::DELETE, &format!("{bucket}/objects/a")));
        assert!(!long(Method::GET, &format!("{bucket}/objects")));
        assert!(!long(Method::GET, "/v1/volumes/complete"));
    }
}
