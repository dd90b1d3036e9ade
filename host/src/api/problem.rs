// SPDX-License-Identifier: Apache-2.0
//! Errors on the wire: `application/problem+json` (RFC 9457), there and back.

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use driver_api::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::errors::http_status;

/// The media type of errors.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// An error as the answer to a request.
#[derive(Debug)]
pub struct Problem(pub Error);

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

#[derive(Serialize, Deserialize)]
struct ProblemBody {
    #[serde(rename = "type")]
    kind_uri: String,
    title: String,
    status: u16,
    detail: String,
    code: u32,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    context: Vec<(String, String)>,
    #[serde(default)]
    sources: Vec<String>,
    #[serde(default)]
    remedy: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = http_status(self.0.kind());
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let text = encode(self.0);
        (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], Body::from(text)).into_response()
    }
}

/// The text that an error is told by.
pub fn encode(error: Error) -> Vec<u8> {
    let body = ProblemBody {
        kind_uri: format!("urn:novastor:error:{}", error.kind()),
        title: error.kind().name().to_owned(),
        status: http_status(error.kind()),
        detail: error.message().to_owned(),
        code: error.kind().code(),
        operation: error.operation().to_owned(),
        context: error.context().map(|(key, value)| (key.into(), value.into())).collect(),
        sources: error.sources().map(str::to_owned).collect(),
        remedy: error.remedy_text().to_owned(),
    };
    serde_json::to_vec(&body).unwrap_or_default()
}

#[derive(Debug)]
struct Cause {
    text: String,
    next: Option<Box<Cause>>,
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.next.as_deref().map(|next| next as _)
    }
}

/// The error that an answer of this status and body stands for.
pub fn parse(status: u16, body: &[u8]) -> Error {
    let Ok(body) = serde_json::from_slice::<ProblemBody>(body) else {
        return Error::new(ErrorKind::INTERNAL, format!("the host answered {status}"))
            .with("body", String::from_utf8_lossy(&body[..body.len().min(200)]));
    };
    let mut error = Error::new(ErrorKind::from_code(body.code), body.detail).remedy(body.remedy);
    if !body.operation.is_empty() {
        error = error.during(body.operation);
    }
    for (key, value) in body.context {
        error = error.with(key, value);
    }
    let chain = body
        .sources
        .into_iter()
        .rev()
        .fold(None, |next, text| Some(Box::new(Cause { text, next })));
    match chain {
        Some(cause) => error.caused_by(&*cause),
        None => error,
    }
}
