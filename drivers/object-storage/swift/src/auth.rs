// SPDX-License-Identifier: Apache-2.0

//! Tokens: cached, renewed once for all that wait, renewed before they expire.

use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use tokio::sync::Mutex;

use crate::config::{Auth, Config, Secret};
use crate::error::{Failure, FailureKind, classify};
use crate::keystone;

/// A token is renewed when less than this is left of its life.
const SPARE: Duration = Duration::from_secs(60);
/// More than any answer to a request for a token.
const ANSWER_LIMIT: usize = 8 << 20;

/// A token and where it is valid.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) value: Secret,
    /// Without a slash at its end.
    pub(crate) storage_url: String,
    /// Which token this is: a request that was refused names it, so that only the first of many renews.
    pub(crate) generation: u64,
    expires: Option<Instant>,
}

/// What an identity service answered with.
pub(crate) struct Grant {
    pub(crate) token: Secret,
    pub(crate) storage_url: String,
    pub(crate) valid_for: Option<Duration>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    renewals: u64,
    /// The last refusal: those who waited for it share it instead of asking again.
    refused: Option<(Instant, Failure)>,
}

/// The tokens of one client.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<State>);

impl Tokens {
    /// A valid token, other than that of generation `stale`.
    ///
    /// # Errors
    /// What the identity service refused with; nothing is kept of it but for those who wait at the same time.
    pub(crate) async fn get(
        &self,
        http: &HttpClient,
        config: &Config,
        stale: Option<u64>,
    ) -> Result<Token, Failure> {
        let asked = Instant::now();
        let mut state = self.0.lock().await;
        if let Some(token) = &state.token
            && Some(token.generation) != stale
            && token.expires.is_none_or(|at| at > Instant::now() + SPARE)
        {
            return Ok(token.clone());
        }
        if let Some((when, failure)) = &state.refused
            && *when >= asked
        {
            return Err(failure.clone());
        }
        let granted =
            match tokio::time::timeout(config.request_timeout, grant(http, config, stale)).await {
                Ok(granted) => granted,
                Err(_) => Err(Failure::new(
                    FailureKind::TimedOut,
                    "asking for a token",
                    "the identity service is silent",
                )
                .remedy("check that the identity service is up and its URL is right")),
            };
        match granted {
            Ok(grant) => {
                state.renewals += 1;
                let url = config.storage_url.clone().unwrap_or(grant.storage_url);
                let token = Token {
                    value: grant.token,
                    storage_url: url.trim_end_matches('/').to_owned(),
                    generation: state.renewals,
                    // A life shorter than twice the spare time would have every request renew the token.
                    expires: grant
                        .valid_for
                        .and_then(|life| Instant::now().checked_add(life.max(SPARE * 2))),
                };
                state.token = Some(token.clone());
                state.refused = None;
                Ok(token)
            }
            Err(failure) => {
                state.refused = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }
}

async fn grant(http: &HttpClient, config: &Config, stale: Option<u64>) -> Result<Grant, Failure> {
    match &config.auth {
        Auth::V1 { auth_url, user, key } => version_1(http, auth_url, user, key).await,
        Auth::Keystone { auth_url, identity, region, interface } => {
            keystone::grant(http, auth_url, identity, region.as_deref(), interface).await
        }
        Auth::Static { .. } if stale.is_some() => Err(Failure::new(
            FailureKind::Unauthenticated,
            "a request with the given token",
            "the server refused it",
        )
        .remedy("the token has expired or is wrong: give a new one")),
        Auth::Static { storage_url, token } => {
            Ok(Grant { token: token.clone(), storage_url: storage_url.clone(), valid_for: None })
        }
    }
}

async fn version_1(
    http: &HttpClient,
    url: &str,
    user: &str,
    key: &Secret,
) -> Result<Grant, Failure> {
    let request = http::Request::builder()
        .method(Method::GET)
        .uri(url)
        .header("X-Auth-User", user)
        .header("X-Auth-Key", key.reveal())
        .body(HttpRequestBody::empty());
    let (headers, _) = exchange(http, request, url).await?;
    let header =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let missing = |what: &str| {
        Failure::new(
            FailureKind::Rejected,
            format!("asking {url} for a token"),
            format!("the answer has no {what}"),
        )
        .remedy("check that the URL is that of Swift's authentication, version 1")
    };
    Ok(Grant {
        token: header("x-auth-token").map(Secret::new).ok_or_else(|| missing("X-Auth-Token"))?,
        storage_url: header("x-storage-url").ok_or_else(|| missing("X-Storage-Url"))?,
        valid_for: header("x-auth-token-expires")
            .and_then(|text| text.parse().ok())
            .map(Duration::from_secs),
    })
}

/// Sends a request for a token and returns head and body of a good answer.
pub(crate) async fn exchange(
    http: &HttpClient,
    request: http::Result<HttpRequest>,
    url: &str,
) -> Result<(HeaderMap, bytes::Bytes), Failure> {
    let what = format!("asking {url} for a token");
    let request = request.map_err(|error| {
        Failure::new(FailureKind::Rejected, what.clone(), error.to_string())
            .remedy("check the URL and that names and keys have no line breaks")
    })?;
    let answer =
        http.execute(request).await.map_err(|error| crate::retry::transport(&what, &error))?;
    let (head, body) = answer.into_parts();
    if head.status.is_success() {
        let body = crate::retry::limited(body, ANSWER_LIMIT).await;
        let body = body.map_err(|error| crate::retry::transport(&what, &error))?;
        return body.map(|body| (head.headers, body)).ok_or_else(|| {
            let cause = "the answer is too long for one about tokens";
            Failure::new(FailureKind::Rejected, what, cause)
        });
    }
    let (kind, remedy) = match head.status.as_u16() {
        // An identity service answers so for a wrong user, key or project.
        401 | 403 => (
            FailureKind::Unauthenticated,
            "check user, password (of auth v1: the key), project and domains, and the clock",
        ),
        404 => (FailureKind::Rejected, "check the URL of the identity service"),
        _ => classify(head.status),
    };
    let transaction = crate::retry::transaction(&head.headers);
    Err(Failure::new(kind, what, format!("it answered {}", head.status))
        .remedy(remedy)
        .answered(head.status, transaction))
}
