// SPDX-License-Identifier: Apache-2.0
//! A connection to the host for the requests of a transfer, one after the other.

use bytes::Bytes;
use driver_api::{Error, ErrorKind, Result};
use http_body_util::BodyExt;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, body::Incoming, header::HeaderName};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    api::{IDEMPOTENCY_KEY, problem},
    cli::client::{Client, Connection, Sent, encoded, whole},
};

/// The longest answer of JSON: a page of parts or objects is far below.
pub(super) const LONGEST_ANSWER: usize = 64 << 20;

/// A connection that is made anew when it is lost.
#[derive(Debug)]
pub(super) struct Wire {
    client: Client,
    live: Option<Connection>,
}

/// A request but for its body.
#[derive(Debug)]
pub(super) struct Ask {
    method: Method,
    path: String,
    headers: Vec<(HeaderName, String)>,
}

impl Ask {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new() }
    }

    pub(super) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A request that may be repeated: the host does it once.
    pub(super) fn once(self, key: String) -> Self {
        self.with(HeaderName::from_static(IDEMPOTENCY_KEY), key)
    }
}

impl Wire {
    pub(super) fn new(client: &Client) -> Self {
        Self { client: client.clone(), live: None }
    }

    /// Sends a request and gives the answer's head; an answer that is a problem becomes an error. A change of which nobody
    /// knows whether it was done is `TimedOut`.
    pub(super) async fn send(&mut self, ask: &Ask, body: Sent) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(&ask.method)
            .uri(&ask.path)
            .header(hyper::header::HOST, "novastor");
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        let request = request.body(body).map_err(|error| {
            Error::new(ErrorKind::INVALID_ARGUMENT, format!("no request: {error}"))
        })?;
        let reads = [Method::GET, Method::HEAD].contains(&ask.method);
        let lost = |error: hyper::Error| match reads {
            true => Error::new(ErrorKind::UNAVAILABLE, "the host went away").caused_by(&error),
            false => {
                let why = "the host went away; whether the request was done is unknown";
                Error::new(ErrorKind::TIMED_OUT, why).caused_by(&error)
            }
        };
        let mut live = self.live.take();
        if let Some(connection) = &mut live
            && !connection.ready().await
        {
            live = None;
        }
        let connection = match live {
            Some(connection) => connection,
            None => self.client.connect().await?,
        };
        let (response, live) = connection.send(request).await.map_err(lost)?;
        self.live = live;
        let status = response.status();
        if status.as_u16() < 400 {
            return Ok(response);
        }
        let body = response.into_body().collect().await.map_err(lost)?.to_bytes();
        Err(refused(status, &body))
    }

    /// Sends a request and gives the answer, which is JSON, with its head.
    pub(super) async fn answer<T: DeserializeOwned>(
        &mut self,
        ask: &Ask,
        body: Sent,
    ) -> Result<(T, HeaderMap)> {
        let response = self.send(ask, body).await?;
        let (head, body) = response.into_parts();
        let body = http_body_util::Limited::new(body, LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| {
            let kind = match [Method::GET, Method::HEAD].contains(&ask.method) {
                true => ErrorKind::UNAVAILABLE,
                false => ErrorKind::TIMED_OUT,
            };
            Error::new(kind, "the host's answer broke off").caused_by(&*error)
        });
        let body = body?.to_bytes();
        Ok((decoded(&body)?, head.headers))
    }

    pub(super) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T> {
        let ask = Ask::new(Method::GET, path);
        self.answer(&ask, whole(Vec::new())).await.map(|(value, _)| value)
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &mut self,
        ask: Ask,
        body: &impl Serialize,
    ) -> Result<T> {
        let ask = ask.with(hyper::header::CONTENT_TYPE, "application/json");
        self.answer(&ask, encoded(body)?).await.map(|(value, _)| value)
    }

    /// Deletes what may be gone already.
    pub(super) async fn delete(&mut self, path: &str) -> Result<()> {
        let ask = Ask::new(Method::DELETE, path);
        let gone: Result<(serde_json::Value, _)> = self.answer(&ask, whole(Vec::new())).await;
        match gone {
            Err(error) if error.kind() != ErrorKind::NOT_FOUND => Err(error),
            _ => Ok(()),
        }
    }
}

/// What the host said in JSON.
pub(super) fn decoded<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| {
        Error::new(ErrorKind::INTERNAL, "the host's answer is not understood")
            .caused_by(&error)
            .remedy("use a novastor of the host's version")
    })
}

/// The error of a status; one without a word of the host's has the kind that its number stands for.
fn refused(status: StatusCode, body: &[u8]) -> Error {
    let error = problem::parse(status.as_u16(), body);
    let kind = match status.as_u16() {
        _ if error.kind() != ErrorKind::INTERNAL || !body.is_empty() => return error,
        404 => ErrorKind::NOT_FOUND,
        412 => ErrorKind::CONFLICT,
        429 | 502 | 503 => ErrorKind::UNAVAILABLE,
        504 => ErrorKind::TIMED_OUT,
        _ => return error,
    };
    Error::new(kind, format!("the host answered {status}"))
}

/// A header of an answer; none if it is absent or no text.
pub(super) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A body of bytes that are in memory.
pub(super) fn body(bytes: Bytes) -> Sent {
    http_body_util::Full::new(bytes).map_err(|never| match never {}).boxed()
}
