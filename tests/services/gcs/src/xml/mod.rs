// SPDX-License-Identifier: Apache-2.0
//! The XML API: <https://cloud.google.com/storage/docs/xml-api/overview>.

mod buckets;
mod listing;
mod multipart;
mod objects;

use axum::body::Body;
use axum::http::{Method, header};
use axum::response::Response;

use crate::call::Call;
use crate::refusal::Refusal;
use crate::store::Store;

pub(crate) use objects::{attributes_of, read};

pub(crate) async fn answer(store: &Store, call: &mut Call) -> Result<Response, Refusal> {
    let (bucket, name) = call.bucket_and_object()?;
    if bucket.is_empty() {
        return Err(Refusal::not_played("the XML API's list of buckets"));
    }
    let (upload, method) = (call.has("uploadId"), call.method.clone());
    if name.is_empty() {
        return match method {
            Method::GET if call.has("uploads") => multipart::uploads(store, call, &bucket),
            Method::GET | Method::HEAD => buckets::get(store, call, &bucket),
            Method::PUT => buckets::put(store, call, &bucket).await,
            Method::DELETE => buckets::delete(store, call, &bucket),
            _ => Err(Refusal::method()),
        };
    }
    let at = (bucket.as_str(), name.as_str());
    match method {
        Method::GET if upload => multipart::parts(store, call, at),
        Method::GET | Method::HEAD => objects::get(store, call, at),
        Method::PUT if upload => multipart::put_part(store, call, at).await,
        Method::PUT if call.headers.contains_key("x-goog-copy-source") => {
            objects::copy(store, call, at)
        }
        Method::PUT => objects::put(store, call, at).await,
        Method::POST if call.has("uploads") => multipart::begin(store, call, at),
        Method::POST if upload => multipart::complete(store, call, at).await,
        Method::DELETE if upload => multipart::abort(store, call, at),
        Method::DELETE => objects::delete(store, call, at),
        _ => Err(Refusal::method()),
    }
}

/// A document: an element with what is in it already written.
fn document(root: &str, inside: &str) -> Response {
    let text = format!(
        "<?xml version='1.0' encoding='UTF-8'?><{root} xmlns='http://doc.s3.amazonaws.com/2006-03-01'>{inside}</{root}>"
    );
    let mut response = Response::new(Body::from(text));
    let content_type = header::HeaderValue::from_static("application/xml; charset=UTF-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// An element with a text.
fn element(name: &str, text: impl AsRef<str>) -> String {
    format!("<{name}>{}</{name}>", quick_xml::escape::escape(text.as_ref()))
}
