// SPDX-License-Identifier: Apache-2.0
//! One request for credentials and its answer. Nothing is repeated here: the operation that needs them does that, within its
//! deadline.

use std::{fmt, fs, path::Path, time::Duration};

use bytes::Bytes;
use driver_api::{Error, ErrorKind, Result, Retry};
use http::{HeaderValue, Method, Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Limited};
use object_store::client::{HttpClient, HttpRequestBody};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::{
    client::{Purpose, direct},
    config::Config,
    error::{invalid, unanswered},
};

/// More than any answer with credentials.
const MOST: usize = 1 << 20;
/// As much as is told of what a service says.
const TOLD: usize = 400;

/// Who is asked for credentials, and by which option one says where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whom {
    /// Such as `the security token service`.
    pub name: &'static str,
    /// Such as `` `sts_endpoint` ``.
    pub option: &'static str,
}

/// Asks for credentials, and waits no longer than for anything else.
#[derive(Clone)]
pub(super) struct Desk {
    client: HttpClient,
    limit: Duration,
    connect_secs: u64,
    proxied: bool,
    whom: Whom,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("whom", &self.whom.name).finish_non_exhaustive()
    }
}

/// An answer.
pub(super) struct Said {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Said {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What OAuth's refusals say of themselves: `error` and `error_description`.
    pub fn oauth(&self) -> (String, String) {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let word = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        // Microsoft's sentence goes on with ids and a date in lines of their own.
        let told = word("error_description").lines().next().unwrap_or_default().trim().to_owned();
        (word("error"), told)
    }
}

impl Desk {
    /// Asks over the client that the store is asked over.
    pub fn new(client: &HttpClient, config: &Config, whom: Whom) -> Self {
        Self::over(client.clone(), config, whom, config.proxy.is_some())
    }

    /// Asks a service of the machine itself, which no proxy leads to.
    pub fn near(config: &Config, whom: Whom) -> Result<Self> {
        Ok(Self::over(direct(config)?, config, whom, false))
    }

    fn over(client: HttpClient, config: &Config, whom: Whom, proxied: bool) -> Self {
        Self {
            client,
            limit: config.request_timeout(),
            connect_secs: config.connect_timeout_secs,
            proxied,
            whom,
        }
    }

    /// Sends a form.
    pub async fn form(&self, url: &str, fields: &[(&str, &str)]) -> Result<Said> {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let pairs: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        let headers = [(CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded")];
        self.ask(Method::POST, url, &headers, pairs.join("&")).await
    }

    /// Sends a request. An answer of any status but 429 and 5xx is one.
    pub async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Result<Said> {
        let Whom { name, option } = self.whom;
        let mut request = Request::builder().method(method).uri(url).extension(Purpose("token"));
        for (key, value) in headers {
            // A token with a line's end in it would otherwise be told by the error.
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| invalid(format!("{key} has characters that no header can have")))?;
            value.set_sensitive(true);
            request = request.header(*key, value);
        }
        let request = request.body(HttpRequestBody::from(body)).map_err(|error| {
            invalid(format!("{name} has no URL: {error}")).remedy(format!("correct {option}"))
        })?;
        let place = |error: Error| error.with("asked", shown(url));
        let silent = || {
            let secs = self.limit.as_secs();
            Error::new(ErrorKind::UNAVAILABLE, format!("{name} said nothing for {secs} s"))
                .remedy(format!("look whether {option} is right, and at that service"))
        };
        let exchange = async {
            let answer = self.client.execute(request).await?;
            let (parts, body) = answer.into_parts();
            Ok((parts.status, Limited::new(body, MOST).collect().await))
        };
        let (status, body) = match tokio::time::timeout(self.limit, exchange).await {
            Err(_) => return Err(place(silent())),
            Ok(Err(error)) => return Err(place(self.unreached(&error))),
            Ok(Ok(answered)) => answered,
        };
        let body = body
            .map_err(|error| {
                let message = format!("the answer of {name} broke off: {error}");
                place(Error::new(ErrorKind::UNAVAILABLE, message))
            })?
            .to_bytes();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            let message = format!("{name} failed: {status}");
            return Err(place(Error::new(ErrorKind::UNAVAILABLE, message))
                .remedy("look at that service's health; it is asked again until the deadline"));
        }
        Ok(Said { status, body })
    }

    fn unreached(&self, error: &object_store::client::HttpError) -> Error {
        let Whom { name, option } = self.whom;
        let why = unanswered(error, self.connect_secs, self.proxied);
        let message = format!("{name} cannot be asked for credentials: {}", why.message());
        let told =
            Error::new(ErrorKind::UNAVAILABLE, message).caused_by(error).with_retry(why.retry());
        if why.retry() == Retry::PERMANENT {
            return told.remedy(why.remedy_text());
        }
        told.remedy(format!(
            "look whether {option} is right, whether that service runs, and at the network"
        ))
    }

    /// A refusal that asking again does not mend.
    pub fn refused(&self, url: &str, why: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::new(ErrorKind::UNAUTHENTICATED, why).with("asked", shown(url)).remedy(remedy)
    }

    /// An answer that is none of such a service.
    pub fn nonsense(&self, url: &str, status: StatusCode, why: impl fmt::Display) -> Error {
        let Whom { name, option } = self.whom;
        let message = format!("what answers is not {name}: {status}, {why}");
        self.refused(url, message, format!("correct {option}"))
    }
}

/// A URL without query.
fn shown(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

/// What a service says, shortened and without the secret that it was told.
pub(super) fn told(text: &str, secret: &str) -> String {
    let text = if secret.is_empty() { text.to_owned() } else { text.replace(secret, "…") };
    text.chars().take(TOLD).collect()
}

/// The token in a file, which others renew: read whenever it is needed.
pub(super) fn token_in(path: &Path, option: &str) -> Result<String> {
    let text = fs::read_to_string(path).map_err(|error| {
        Error::from_io(format!("the token file cannot be read: {error}"), &error)
            .with("token_file", path.display())
            .remedy(format!("correct {option}, or make the file readable for the host"))
    })?;
    match text.trim() {
        "" => Err(Error::new(ErrorKind::UNAUTHENTICATED, "the token file is empty")
            .with("token_file", path.display())
            .remedy("look at who writes the file; it is read anew whenever a token is needed")),
        token => Ok(token.to_owned()),
    }
}

/// Seconds, which some write as a number and some as text.
pub(super) fn secs(value: &Value) -> Option<Duration> {
    let secs = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    Some(Duration::from_secs(secs))
}

/// How long it is until a time of ISO 8601; zero if it is past. `None`: it is no time.
pub(super) fn until(text: &str) -> Option<Duration> {
    let time = chrono::DateTime::parse_from_rfc3339(text.trim()).ok()?;
    let left = time.signed_duration_since(chrono::Utc::now());
    Some(left.to_std().unwrap_or_default())
}
