// SPDX-License-Identifier: Apache-2.0
//! One request and its answer: built, signed and sent anew for each attempt. [`crate::retry`] repeats it.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use driver_api::{Error, ErrorKind, Result, Retry};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::BodyExt;
use object_store::client::{HttpRequestBody, HttpResponseBody};

use crate::{account::Account, client::Purpose, error};

/// Bytes per second that a request's body must leave with, or the connection counts as stuck.
const SLOWEST: u64 = 256 << 10;
/// Bytes per second that a store must copy within itself.
const SLOWEST_COPY: u64 = 8 << 20;
/// The most bytes of an answer that is kept whole: listings and errors, never content.
const MOST: usize = 64 << 20;
/// The most bytes of a refusal that are read, and how long at most.
const SENTENCE: usize = 64 << 10;
const WORTH: Duration = Duration::from_secs(5);

/// How long a store may take to copy so many bytes.
pub(crate) fn time_to_copy(bytes: u64) -> Duration {
    Duration::from_secs(bytes / SLOWEST_COPY)
}

/// A request, as it is to be made any number of times.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// What it is for: figures and messages name it, such as `put object`.
    pub operation: &'static str,
    /// The method.
    pub method: Method,
    /// The bucket; empty: the service itself.
    pub bucket: String,
    /// The key; empty: the bucket itself.
    pub key: String,
    /// The query, in its order; an empty value stays as `name=`.
    pub query: Vec<(String, String)>,
    /// Headers, but for those of the signature.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The URL, where it is not made of bucket, key and query.
    pub url: Option<Uri>,
    /// How much longer the store may be silent, as it moves bytes itself before it answers.
    pub moving: Duration,
}

impl Ask {
    /// A request for the service, a bucket (empty key) or an object.
    pub fn new(operation: &'static str, method: Method, bucket: &str, key: &str) -> Self {
        Self {
            operation,
            method,
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            url: None,
            moving: Duration::ZERO,
        }
    }

    /// The store moves so many bytes itself before it answers.
    pub fn moves(mut self, bytes: u64) -> Self {
        self.moving = time_to_copy(bytes);
        self
    }

    /// Adds a pair to the query.
    pub fn query(mut self, name: &str, value: impl Into<String>) -> Self {
        self.query.push((name.to_owned(), value.into()));
        self
    }

    /// Sets a header, which is refused if it has characters that no header can have, or other than ASCII: what stores make
    /// of those is each one's own, and signatures over them fail or worse.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self> {
        let wrong = || {
            error::invalid(format!("{name:?} or its value has characters that no header can have"))
        };
        if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(wrong());
        }
        let name = HeaderName::try_from(name).map_err(|_| wrong())?;
        let value = HeaderValue::from_str(value).map_err(|_| wrong())?;
        self.headers.insert(name, value);
        Ok(self)
    }

    /// Sets headers.
    pub fn headers(mut self, headers: &[(HeaderName, HeaderValue)]) -> Self {
        for (name, value) in headers {
            self.headers.insert(name, value.clone());
        }
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Whether it may change something.
    pub fn mutates(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }

    /// Whether it has a condition which it may itself have made untrue, so that its repetition is refused.
    pub fn is_conditional(&self) -> bool {
        let headers = [
            "if-match",
            "if-none-match",
            "x-goog-if-generation-match",
            "x-amz-copy-source-if-match",
        ];
        let query = self.url.as_ref().and_then(Uri::query).unwrap_or_default();
        headers.iter().any(|name| self.headers.contains_key(*name))
            || query.contains("enerationMatch=")
    }
}

/// Whether an earlier attempt may have been done although its answer was lost or was an error of the server's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doubt {
    /// When the first such attempt was begun.
    pub since: Instant,
}

/// An answer that came whole.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Whether an earlier attempt may have been done.
    pub doubt: Option<Doubt>,
}

impl Answer {
    /// A header's text; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        text_of(&self.headers, name)
    }

    /// The error that the answer is.
    pub fn error(&self, account: &Account, ask: &Ask) -> Error {
        error::refused(account, ask, self.status, &self.headers, &self.body)
    }
}

/// A header's text; empty if there is none, or not of UTF-8.
pub(crate) fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| str::from_utf8(value.as_bytes()).ok()).unwrap_or_default()
}

/// An answer whose body is still to come.
pub(crate) struct Opened {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: HttpResponseBody,
}

/// An attempt that got no answer, or not the whole of it.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Whether the server may have done what was asked.
    pub sent: bool,
    /// Whether it would end the same way again.
    pub hopeless: bool,
    /// Why.
    pub error: Error,
}

impl Account {
    /// Sends a request once. The deadline bounds the wait for the answer's beginning, and silence does.
    pub(crate) async fn open(
        &self,
        ask: &Ask,
        until: Instant,
    ) -> std::result::Result<Opened, Fault> {
        let before = |error| Fault { sent: false, hopeless: true, error };
        let url = match &ask.url {
            Some(url) => url.clone(),
            None => self.url(&ask.bucket, &ask.key, &ask.query).map_err(before)?,
        };
        let mut request = Request::new(HttpRequestBody::from(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = url;
        *request.headers_mut() = ask.headers.clone();
        if ask.mutates() {
            request.headers_mut().insert(header::CONTENT_LENGTH, ask.body.len().into());
        }
        request.extensions_mut().insert(Purpose(ask.operation));
        let left = until.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, self.authorize(&mut request)).await {
            // A service that gives out credentials may be back before the deadline.
            Ok(done) => done.map_err(|error| Fault {
                sent: false,
                hopeless: error.retry() == Retry::PERMANENT,
                error,
            })?,
            Err(_) => {
                let error = Error::new(
                    ErrorKind::UNAVAILABLE,
                    "no credentials within the deadline: where they come from does not answer",
                )
                .remedy("look at where the backend's credentials come from");
                return Err(Fault { sent: false, hopeless: false, error });
            }
        }
        let silence = self.config.request_timeout()
            + Duration::from_secs(ask.body.len() as u64 / SLOWEST)
            + ask.moving;
        let limit = silence.min(until.saturating_duration_since(Instant::now()));
        let connect = self.config.connect_timeout_secs;
        match tokio::time::timeout(limit, self.client.execute(request)).await {
            Ok(Ok(answer)) => {
                let (parts, body) = answer.into_parts();
                Ok(Opened { status: parts.status, headers: parts.headers, body })
            }
            Ok(Err(error)) => Err(Fault {
                sent: !error::never_sent(&error),
                hopeless: error::hopeless(&error),
                error: error::unanswered(&error, connect, self.config.proxy.is_some()),
            }),
            Err(_) => Err(Fault { sent: true, hopeless: false, error: silent(limit) }),
        }
    }

    /// The next bytes of an answer's body; `None` at its end.
    pub(crate) async fn more(
        &self,
        body: &mut HttpResponseBody,
        until: Instant,
    ) -> std::result::Result<Option<Bytes>, Fault> {
        let limit =
            self.config.request_timeout().min(until.saturating_duration_since(Instant::now()));
        loop {
            match tokio::time::timeout(limit, body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => {
                    // Trailers say nothing that is needed.
                    let Ok(bytes) = frame.into_data() else { continue };
                    self.traffic.received.fetch_add(bytes.len() as u64, Relaxed);
                    return Ok(Some(bytes));
                }
                Ok(Some(Err(error))) => {
                    let error = error::unanswered(&error, self.config.connect_timeout_secs, false);
                    return Err(Fault { sent: true, hopeless: false, error });
                }
                Err(_) => return Err(Fault { sent: true, hopeless: false, error: silent(limit) }),
            }
        }
    }

    /// Sends a request once and takes the whole answer, whose length must be what the server said.
    pub(crate) async fn once(
        &self,
        ask: &Ask,
        until: Instant,
    ) -> std::result::Result<Answer, Fault> {
        let Opened { status, headers, mut body } = self.open(ask, until).await?;
        if !status.is_success() {
            let body = self.refusal(&mut body, until).await;
            return Ok(Answer { status, headers, body, doubt: None });
        }
        let mut whole = BytesMut::new();
        while let Some(bytes) = self.more(&mut body, until).await? {
            if whole.len() + bytes.len() > MOST {
                let error = Error::new(
                    ErrorKind::INTERNAL,
                    "the store's answer is longer than any of its kind should be",
                );
                return Err(Fault { sent: true, hopeless: true, error });
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(Answer { status, headers, body: whole.freeze(), doubt: None })
    }

    /// What a store says of a refusal, as far as it is worth waiting for: the status says it already.
    pub(crate) async fn refusal(&self, body: &mut HttpResponseBody, until: Instant) -> Bytes {
        let until = until.min(Instant::now() + WORTH);
        let mut whole = BytesMut::new();
        while whole.len() < SENTENCE {
            match self.more(body, until).await {
                Ok(Some(bytes)) => whole.extend_from_slice(&bytes),
                _ => break,
            }
        }
        whole.freeze()
    }
}

fn silent(limit: Duration) -> Error {
    Error::new(
        ErrorKind::TIMED_OUT,
        format!("the server said nothing for {:.1} s", limit.as_secs_f64()),
    )
    .remedy("look at the server and the network, or raise `request_timeout_secs`")
}
