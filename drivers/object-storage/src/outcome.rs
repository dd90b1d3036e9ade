// SPDX-License-Identifier: Apache-2.0
//! Whether a conditional mutation happened, when an answer to it was lost and its repetition was refused.
//!
//! ```text
//!   there now                                    outcome
//!   ---------                                    -------
//!   an object with our mark                      it happened
//!   one written before our first attempt         it did not
//!   anything else                                unknown
//! ```
//!
//! Whether an object was written before our first attempt is seen from its `Last-Modified`, which has the server's clock, and
//! from the server's time of the refusal less what passed here since that attempt, and a margin.

use std::time::{Duration, Instant};

use driver_api::{
    Error, ErrorKind, Result,
    ext::{Conditions, ObjectName},
};

use crate::{
    account::Account,
    call::{Answer, Ask, Doubt},
    error::{self, unknown},
    get,
    info::{Found, unquoted},
    retry::is_error,
};

/// How far clocks of one store's servers may lie apart.
const MARGIN: i64 = 5;

/// What is known of a mutation whose repetition was refused.
pub(crate) enum Outcome {
    /// It happened: this is what it left.
    Done(Box<Found>),
    /// It did not.
    Refused,
    /// Nobody can tell.
    Unknown(&'static str),
}

/// Judges by what is there.
pub(crate) fn judge(found: Option<Found>, mark: &str, began_there: Option<i64>) -> Outcome {
    let Some(found) = found else {
        return Outcome::Unknown("the object that was in the way is gone");
    };
    if !mark.is_empty() && found.mark == mark {
        return Outcome::Done(Box::new(found));
    }
    let written = i64::try_from(found.info.modified_ms / 1000).unwrap_or(0);
    match began_there {
        Some(began) if written > 0 && written < began => Outcome::Refused,
        Some(_) => Outcome::Unknown("another write came at the same time"),
        None => Outcome::Unknown("the store does not tell its time"),
    }
}

/// When our first attempt began, by the server's clock: the server's time of its refusal, less what passed since, less a margin.
pub(crate) fn began_there(refusal: &Answer, doubt: Doubt, now: Instant) -> Option<i64> {
    let passed = now.saturating_duration_since(doubt.since).as_secs_f64().ceil() as i64;
    Some(error::date(&refusal.headers)? - passed - MARGIN)
}

/// What a refused write comes to. `Ok`: it had happened. `told`: the error where nothing had happened.
pub(crate) async fn settle(
    account: &Account,
    ask: &Ask,
    object: &ObjectName,
    mark: &str,
    refusal: &Answer,
    until: Instant,
    told: Error,
) -> Result<Found> {
    let Some(doubt) = refusal.doubt else { return Err(told) };
    let began = began_there(refusal, doubt, Instant::now());
    let latest = ObjectName::new(&object.bucket, &object.key);
    // The deadline may be near: this question is worth a little more.
    let until = until.max(Instant::now() + Duration::from_secs(2));
    let found = match get::find(account, &latest, &Conditions::default(), until).await {
        Ok(found) => Some(found),
        Err(error) if error.kind() == ErrorKind::NOT_FOUND => None,
        Err(error) => {
            return Err(doubtful(
                account,
                ask,
                &format!("what is there cannot be asked: {error}"),
                &told,
            ));
        }
    };
    match judge(found, mark, began) {
        Outcome::Done(found) => Ok(*found),
        Outcome::Refused => Err(told),
        Outcome::Unknown(why) => Err(doubtful(account, ask, why, &told)),
    }
}

/// The error when nobody can tell whether it happened.
pub(crate) fn doubtful(account: &Account, ask: &Ask, why: &str, refusal: &Error) -> Error {
    account.traffic.unknown.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let message = format!(
        "an answer was lost, and its repetition was refused ({}); {why}",
        refusal.message()
    );
    error::place(unknown(message), account, ask)
}

/// Refuses a success that is not the store's own: what stands between may answer in its place, with an error or a page for
/// people, and then nobody knows what became of the request. `etag`: whether the store's answer has one.
pub(crate) fn confirmed(account: &Account, ask: &Ask, answer: &Answer, etag: bool) -> Result<()> {
    let page = is_page(answer.header("content-type"), &answer.body);
    let why = if is_error(&answer.body) {
        "the answer of success has an error in it"
    } else if page {
        "the answer of success is a page for people"
    } else if etag && unquoted(answer.header("etag")).is_empty() {
        "the answer of success tells no ETag"
    } else {
        return Ok(());
    };
    account.traffic.unknown.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let error = unknown(format!("{why}: it is not the store's"))
        .with("answer", String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]));
    Err(error::place(error, account, ask))
}

/// Whether an answer is for people. Swift's S3 calls its documents so, too.
fn is_page(content_type: &str, body: &[u8]) -> bool {
    let text = body.trim_ascii_start();
    !text.is_empty() && content_type.starts_with("text/html") && !text.starts_with(b"<?xml")
}

#[cfg(test)]
mod tests {
    use driver_api::ext::ObjectInfo;

    use super::*;

    fn found(mark: &str, modified: u64) -> Option<Found> {
        let info = ObjectInfo { modified_ms: modified * 1000, ..ObjectInfo::default() };
        Some(Found { info, mark: mark.into(), ..Found::default() })
    }

    #[test]
    fn only_the_mark_proves_that_it_happened() {
        assert!(matches!(judge(found("ab", 100), "ab", Some(50)), Outcome::Done(_)));
        for (there, began) in [
            (found("cd", 100), Some(50)),
            (found("", 100), Some(100)),
            (found("", 100), None),
            (None, Some(50)),
        ] {
            assert!(matches!(judge(there, "ab", began), Outcome::Unknown(_)));
        }
        assert!(matches!(judge(found("", 100), "", Some(50)), Outcome::Unknown(_)));
    }

    #[test]
    fn only_what_is_older_than_our_attempt_proves_that_it_did_not() {
        assert!(matches!(judge(found("cd", 99), "ab", Some(100)), Outcome::Refused));
        assert!(matches!(judge(found("cd", 100), "ab", Some(100)), Outcome::Unknown(_)));
        assert!(matches!(judge(found("cd", 0), "ab", Some(100)), Outcome::Unknown(_)));
    }

    #[test]
    fn a_document_is_no_page_whatever_it_is_called() {
        assert!(is_page("text/html; charset=utf-8", b"<html>Please log in</html>"));
        assert!(!is_page("text/html; charset=utf-8", b"<?xml version='1.0'?><DeleteResult/>"));
        assert!(!is_page("application/xml", b"<DeleteResult/>"));
        assert!(!is_page("text/html", b""));
    }

    #[test]
    fn the_beginning_is_told_by_the_servers_clock() {
        let mut headers = http::HeaderMap::new();
        headers.insert("date", "Thu, 01 Jan 1970 00:02:00 GMT".parse().expect("a header"));
        let status = http::StatusCode::PRECONDITION_FAILED;
        let refusal = Answer { status, headers, body: bytes::Bytes::new(), doubt: None };
        let since = Instant::now();
        let now = since + Duration::from_millis(9_100);
        assert_eq!(began_there(&refusal, Doubt { since }, now), Some(120 - 10 - MARGIN));
    }
}
