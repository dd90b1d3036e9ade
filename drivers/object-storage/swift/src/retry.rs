// SPDX-License-Identifier: Apache-2.0

//! What is tried again, and when; what an answer's errors say.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use object_store::client::{HttpError, HttpErrorKind, HttpResponseBody};

use crate::error::{Failure, FailureKind};

/// What of an error's body is told.
const TOLD: usize = 300;

/// Whether a failure to get a token lasts, however often it is tried.
pub(crate) fn lasting(failure: &Failure) -> bool {
    !matches!(
        failure.kind(),
        FailureKind::Busy | FailureKind::Server | FailureKind::TimedOut | FailureKind::Connection
    )
}

/// 498 is Swift's older answer of its rate limit. 501 and 507 do not go away within a deadline.
pub(crate) fn repeatable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 498 | 500 | 502..=504)
}

/// An error page without its tags.
pub(crate) fn plain_text(page: &str) -> String {
    let mut text = String::new();
    let mut tag = false;
    for c in page.chars() {
        match c {
            '<' => tag = true,
            '>' => (tag, text) = (false, text + " "),
            _ if !tag => text.push(c),
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(TOLD).collect()
}

/// The server's id of a request.
pub(crate) fn transaction(headers: &HeaderMap) -> Option<String> {
    headers.get("x-trans-id").and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The whole body; nothing if it is longer than `most` bytes.
pub(crate) async fn limited(
    body: HttpResponseBody,
    most: usize,
) -> Result<Option<Bytes>, HttpError> {
    let (mut stream, mut all) = (body.bytes_stream(), BytesMut::new());
    while let Some(bytes) = stream.next().await {
        all.extend_from_slice(&bytes?);
        if all.len() > most {
            return Ok(None);
        }
    }
    Ok(Some(all.freeze()))
}

/// Seconds, or a date; at most a day, which is beyond every deadline.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds.min(24 * 3600)));
    }
    let at = chrono::DateTime::parse_from_rfc2822(text).ok()?;
    (at.with_timezone(&chrono::Utc) - chrono::Utc::now()).to_std().ok()
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

/// The failure of a request which had no answer.
pub(crate) fn transport(label: &str, error: &HttpError) -> Failure {
    let text = chain(error);
    let (kind, remedy) = if text.contains("certificate") {
        (
            FailureKind::Untrusted,
            "give the certificate of the server's authority, and check the name in its URL and the clock",
        )
    } else if error.kind() == HttpErrorKind::Timeout {
        (FailureKind::TimedOut, "check that the server is up and can be reached")
    } else {
        (
            FailureKind::Connection,
            "check host and port in the URL, that the server is up, and proxies between",
        )
    };
    Failure::new(kind, label, text).remedy(remedy)
}

/// Waits which grow, with jitter, never beyond a deadline.
pub(crate) struct Backoff {
    next: Duration,
    first: Duration,
    longest: Duration,
    base: f64,
}

impl Backoff {
    pub(crate) fn new(retry: &object_store::RetryConfig) -> Self {
        let config = &retry.backoff;
        Self {
            next: config.init_backoff,
            first: config.init_backoff,
            longest: config.max_backoff,
            base: config.base,
        }
    }

    /// Waits; fails at once if the deadline comes first.
    pub(crate) async fn wait(
        &mut self,
        deadline: Instant,
        at_least: Option<Duration>,
    ) -> Result<(), ()> {
        let wait = self.next.max(at_least.unwrap_or_default());
        let range = (self.next.as_secs_f64() * self.base - self.first.as_secs_f64()).max(0.0);
        let next = self.first.as_secs_f64() + fastrand::f64() * range;
        self.next = Duration::from_secs_f64(next).min(self.longest);
        if Instant::now() + wait >= deadline {
            return Err(());
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn error_pages_lose_their_tags() {
        assert_eq!(
            plain_text("<html><h1>Not Found</h1><p>No\n such.</p></html>"),
            "Not Found No such."
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(7)));
        let at = chrono::Utc::now() + chrono::Duration::seconds(100);
        headers.insert(RETRY_AFTER, HeaderValue::from_str(&at.to_rfc2822()).unwrap());
        let wait = retry_after(&headers).unwrap().as_secs();
        assert!((97..=100).contains(&wait), "{wait}");
    }
}
