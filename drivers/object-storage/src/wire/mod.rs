// SPDX-License-Identifier: Apache-2.0
//! Requests that `object_store` has no words for. They are sent by [`crate::retry`] and signed by [`crate::account`]; here
//! is how they are named and what their answers look like.

pub(crate) mod digest;
pub(crate) mod time;
pub(crate) mod url;
pub(crate) mod xml;

use driver_api::{Error, ErrorKind, Result};
use http::{HeaderValue, Method, header::CONTENT_TYPE};

use self::xml::Element;
pub(crate) use crate::info::{quoted, unquoted};
use crate::{
    call::{Answer, Ask},
    error::{Refusal, invalid},
};

/// Where a request goes: bucket, key and query.
#[derive(Debug, Clone, Default)]
pub(crate) struct At {
    bucket: String,
    key: String,
    query: Vec<(String, String)>,
}

/// A pair of a query; a name alone has no value.
pub(crate) type Pair<'a> = (&'a str, Option<&'a str>);

/// The service itself.
pub(crate) fn at_service(query: &[Pair<'_>]) -> At {
    at_object("", "", query)
}

/// A bucket.
pub(crate) fn at_bucket(bucket: &str, query: &[Pair<'_>]) -> At {
    at_object(bucket, "", query)
}

/// An object.
pub(crate) fn at_object(bucket: &str, key: &str, query: &[Pair<'_>]) -> At {
    let query =
        query.iter().map(|(name, value)| ((*name).to_owned(), value.unwrap_or("").to_owned()));
    At { bucket: bucket.to_owned(), key: key.to_owned(), query: query.collect() }
}

/// A request without a body.
pub(crate) fn ask(operation: &'static str, method: Method, at: At) -> Ask {
    let mut ask = Ask::new(operation, method, &at.bucket, &at.key);
    ask.query = at.query;
    ask
}

/// What requests here need beyond [`Ask`].
pub(crate) trait AskExt: Sized {
    /// Sets the body and its type.
    fn typed(self, content_type: &'static str, body: impl Into<bytes::Bytes>) -> Self;
}

impl AskExt for Ask {
    fn typed(mut self, content_type: &'static str, body: impl Into<bytes::Bytes>) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        self.body(body)
    }
}

/// What answers here need beyond [`Answer`].
pub(crate) trait AnswerExt {
    /// The body as text. `Corrupted`: it is none.
    fn text(&self) -> Result<&str>;
    /// `ETag` without quotes.
    fn etag(&self) -> &str;
    /// The store's word for a refusal; empty: it gave none.
    fn code(&self) -> String;
    /// The body's XML, whose root must have this name.
    fn document(&self, root: &str, ask: &Ask) -> Result<Element<'_>>;
    /// The body's JSON.
    fn json<T: serde::de::DeserializeOwned>(&self, ask: &Ask) -> Result<T>;
}

impl AnswerExt for Answer {
    fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.body).map_err(|_| nonsense("it is not UTF-8"))
    }

    fn etag(&self) -> &str {
        unquoted(self.header("etag"))
    }

    fn code(&self) -> String {
        if self.status.is_success() && self.body.is_empty() {
            return String::new();
        }
        Refusal::read(&self.headers, &self.body).code
    }

    fn document(&self, root: &str, ask: &Ask) -> Result<Element<'_>> {
        self.text()
            .and_then(|text| Element::parse_root(text, root))
            .map_err(|error| about(error, ask))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, ask: &Ask) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            about(nonsense(format!("it is not the JSON it should be: {error}")), ask)
        })
    }
}

/// Names what an error is about, unless it says so already.
pub(crate) fn about(mut error: Error, ask: &Ask) -> Error {
    let said: Vec<String> = error.context().map(|(name, _)| name.to_owned()).collect();
    let says = |name: &str| said.iter().any(|said| said == name);
    if !ask.bucket.is_empty() && !says("bucket") && !says("container") {
        error = error.with("bucket", &ask.bucket);
    }
    if !ask.key.is_empty() && !says("object") {
        error = error.with("object", &ask.key);
    }
    error.during(ask.operation)
}

/// An answer that the store's own rules do not allow.
pub(crate) fn nonsense(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::CORRUPTED, format!("the store's answer cannot be right: {why}"))
        .remedy("check that `endpoint` names a store of the configured `kind`, and that no proxy answers in its place")
}

/// Fails if an answer speaks of something else than was asked for.
pub(crate) fn same(what: &'static str, asked: &str, answered: &str) -> Result<()> {
    if asked == answered {
        Ok(())
    } else {
        Err(nonsense(format!("it is for {what} {answered:?} instead of {asked:?}")))
    }
}

/// Sets a header. `InvalidArgument`: it cannot be one.
pub(crate) fn put_header(ask: &mut Ask, name: &str, value: &str) -> Result<()> {
    let bad = |why: &str| {
        Err(invalid(format!("{name:?} cannot be sent as a header: {why}"))
            .remedy("use printable ASCII; names of letters, digits and dashes"))
    };
    let Ok(key) = http::HeaderName::from_bytes(name.as_bytes()) else {
        return bad("its name is none");
    };
    if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return bad(&format!("its value {value:?} is not printable ASCII"));
    }
    let Ok(value) = HeaderValue::from_str(value) else { return bad("its value is none") };
    ask.headers.insert(key, value);
    Ok(())
}
