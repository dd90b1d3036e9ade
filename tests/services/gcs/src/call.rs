// SPDX-License-Identifier: Apache-2.0
//! A request, taken apart.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use percent_encoding::percent_decode_str;

use crate::refusal::Refusal;

/// How much of a body is read into memory: a list of 10,000 parts is the longest.
const SHORT: usize = 4 << 20;

/// A request, with its body until somebody takes it.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// As it was sent, with its percent signs.
    pub(crate) path: String,
    /// Names and values, decoded, in the order in which they were sent.
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    body: Option<Body>,
}

impl Call {
    pub(crate) fn new(request: Request) -> Self {
        let (parts, body) = request.into_parts();
        let query = parts.uri.query().unwrap_or_default();
        Self {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            headers: parts.headers,
            body: Some(body),
        }
    }

    /// The value of a parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.parameter(name).is_some()
    }

    /// A parameter that is a number.
    ///
    /// # Errors
    ///
    /// It is none.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        self.parameter(name).map(|text| number(name, text)).transpose()
    }

    /// The text of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The path's segments, decoded.
    pub(crate) fn segments(&self) -> Result<Vec<String>, Refusal> {
        self.path.trim_start_matches('/').split('/').map(decode).collect()
    }

    /// Bucket and object of the XML API; the object's slashes may be written in both ways.
    pub(crate) fn bucket_and_object(&self) -> Result<(String, String), Refusal> {
        let path = self.path.trim_start_matches('/');
        let (bucket, object) = path.split_once('/').unwrap_or((path, ""));
        Ok((decode(bucket)?, decode(object)?))
    }

    pub(crate) fn take_body(&mut self) -> Body {
        self.body.take().unwrap_or_default()
    }

    /// The whole body of a request that has a short one.
    pub(crate) async fn text(&mut self) -> Result<Bytes, Refusal> {
        match Limited::new(self.take_body(), SHORT).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => {
                Err(Refusal::invalid(format!("The request's body cannot be read: {error}")))
            }
        }
    }

    /// Reads what nobody took: a client that is still writing might miss the answer.
    pub(crate) async fn drain(&mut self) {
        if self.headers.contains_key(header::EXPECT) {
            return;
        }
        let mut body = self.take_body();
        while let Some(Ok(_)) = body.frame().await {}
    }
}

/// A number in a parameter or header.
pub(crate) fn number(name: &str, text: &str) -> Result<i64, Refusal> {
    text.trim()
        .parse()
        .map_err(|_| Refusal::invalid(format!("Invalid argument: {name} is no number: {text}")))
}

fn decode(text: &str) -> Result<String, Refusal> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(Refusal::invalid("The name is not UTF-8.")),
    }
}
