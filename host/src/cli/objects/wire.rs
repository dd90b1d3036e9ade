// SPDX-License-Identifier: Apache-2.0
//! A connection to the host for the requests of a transfer, one after the other.

use std::time::Duration;

use bytes::Bytes;
use driver_api::{Error, ErrorKind, Result};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::HeaderName,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    api::{IDEMPOTENCY_KEY, problem},
    cli::client::{Client, Connection, Sent, encoded, whole},
};

/// The longest answer of JSON: a page of parts or objects is far below.
pub(super) const LONGEST_ANSWER: usize = 64 << 20;

/// A host that says nothing for so long is given up: longer than it gives a store itself.
pub(super) const SILENCE: Duration = Duration::from_secs(660);
/// The slowest that a host may take a body, in bytes each second.
const SLOWEST: u64 = 256 << 10;

/// A connection that is made anew when it is lost.
#[derive(Debug)]
pub(super) struct Wire {
    client: Client,
    silence: Duration,
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

    fn reads(&self) -> bool {
        [Method::GET, Method::HEAD].contains(&self.method)
    }

    /// The kind of the error if no answer comes: of a change nobody knows whether it was done.
    fn lost(&self) -> ErrorKind {
        if self.reads() { ErrorKind::UNAVAILABLE } else { ErrorKind::TIMED_OUT }
    }

    fn unanswered(&self) -> Error {
        Error::new(self.lost(), "the host says nothing any more")
            .remedy("see whether it runs and what its log says")
    }

    /// A request that may be repeated: the host does it once.
    pub(super) fn once(self, key: String) -> Self {
        self.with(HeaderName::from_static(IDEMPOTENCY_KEY), key)
    }
}

impl Wire {
    pub(super) fn new(client: &Client) -> Self {
        Self { client: client.clone(), silence: SILENCE, live: None }
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
        let sent = request.body().size_hint().exact().unwrap_or_default();
        let silence = self.silence + Duration::from_secs(sent / SLOWEST);
        let lost = |error: hyper::Error| match ask.reads() {
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
        let sending = tokio::time::timeout(silence, connection.send(request)).await;
        let (response, live) = sending.map_err(|_| ask.unanswered())?.map_err(lost)?;
        self.live = live;
        let status = response.status();
        if status.as_u16() < 400 {
            return Ok(response);
        }
        let body = tokio::time::timeout(self.silence, response.into_body().collect()).await;
        let body = body.map_err(|_| ask.unanswered())?.map_err(lost)?.to_bytes();
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
        let body = http_body_util::Limited::new(body, LONGEST_ANSWER).collect();
        let body = tokio::time::timeout(self.silence, body).await;
        let body = body.map_err(|_| ask.unanswered())?.map_err(|error| {
            Error::new(ask.lost(), "the host's answer broke off").caused_by(&*error)
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

/// The next piece of an answer; none at its end.
pub(super) async fn next_piece(body: &mut Incoming) -> Option<Result<Bytes>> {
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame()).await;
        let broke_off = || Error::new(ErrorKind::UNAVAILABLE, "the data broke off");
        return match frame {
            Err(_) => Some(Err(broke_off())),
            Ok(None) => None,
            Ok(Some(Err(error))) => Some(Err(broke_off().caused_by(&error))),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Some(Ok(data)),
                Err(_) => continue,
            },
        };
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_that_says_nothing_is_not_waited_for_for_ever() {
        let room = tempfile::tempdir().unwrap();
        let socket = room.path().join("s");
        let _host = tokio::net::UnixListener::bind(&socket).unwrap();
        let client = Client::new(&socket, None).unwrap();
        let silence = Duration::from_millis(50);
        for (method, kind) in
            [(Method::GET, ErrorKind::UNAVAILABLE), (Method::PUT, ErrorKind::TIMED_OUT)]
        {
            let mut wire = Wire { silence, ..Wire::new(&client) };
            let ask = Ask::new(method, "/v1");
            let sent = wire.send(&ask, body(Bytes::from_static(b"x")));
            let ended = tokio::time::timeout(Duration::from_secs(20), sent).await;
            let error = ended.expect("it ends by itself").unwrap_err();
            assert_eq!(error.kind(), kind);
        }
    }
}
