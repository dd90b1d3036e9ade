// SPDX-License-Identifier: Apache-2.0
//! How requests are repeated: with pauses that grow, as the store wishes, and never past the operation's deadline.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use driver_api::{Error, ErrorKind, OpContext, Result, Retry};
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};

use crate::{
    account::Account,
    call::{Answer, Ask, Doubt, Fault, text_of},
    error::{self, Refusal, place, unknown},
};

/// The first pause, and the longest.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses between attempts: each up to twice as long as the one before, at random so that clients spread.
#[derive(Debug)]
pub(crate) struct Pauses {
    next: Duration,
}

impl Pauses {
    pub fn new() -> Self {
        Self { next: FIRST }
    }

    /// The next pause; at least what the server asked for.
    pub fn pause(&mut self, asked: Option<Duration>) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(LONGEST);
        let random = full.mul_f64(0.5 + fastrand::f64() / 2.0);
        asked.map_or(random, |asked| asked.max(random))
    }
}

/// What the server asked for in `Retry-After`: seconds or a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = text_of(headers, RETRY_AFTER.as_str());
    if let Ok(secs) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(secs));
    }
    let wait = error::http_date(text)? - error::date(headers)?;
    u64::try_from(wait).ok().map(Duration::from_secs)
}

/// What an answer means for the next attempt.
enum Meaning {
    /// It is the answer.
    Final,
    /// Nothing was done; ask again.
    Refused,
    /// Something may have been done; ask again.
    Doubtful,
}

fn meaning(answer: &Answer) -> Meaning {
    match answer.status.as_u16() {
        429 => Meaning::Refused,
        501 | 505 | 507 => Meaning::Final,
        500..=599 => Meaning::Doubtful,
        // The server heard nothing for too long, or two writes met.
        408 => Meaning::Refused,
        400 | 409 => match Refusal::read(&answer.headers, &answer.body).code.as_str() {
            "RequestTimeout"
            | "OperationAborted"
            | "ConditionalRequestConflict"
            | "IncompleteBody"
            | "ServerBusy" => Meaning::Refused,
            _ => Meaning::Final,
        },
        // An error may come with status 200: S3's copies and completions.
        200 if answer.body.len() < 16 << 10 && is_error(&answer.body) => {
            match Refusal::read(&answer.headers, &answer.body).code.as_str() {
                "InternalError" | "SlowDown" | "ServiceUnavailable" => Meaning::Doubtful,
                _ => Meaning::Final,
            }
        }
        _ => Meaning::Final,
    }
}

/// Whether a document's root is `<Error>`.
pub(crate) fn is_error(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&body[..body.len().min(512)]);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let text = match text.strip_prefix("<?xml") {
        Some(rest) => rest.split_once("?>").map_or("", |(_, rest)| rest).trim_start(),
        None => text,
    };
    text.starts_with("<Error>") || text.starts_with("<Error ")
}

impl Account {
    /// The deadline of an operation: its caller's, and at most `operation_timeout_secs` from now.
    pub(crate) fn until(&self, cx: &OpContext) -> Instant {
        let most = self.config.operation_timeout();
        Instant::now() + cx.time_left().map_or(most, |left| left.min(most))
    }

    /// Waits for this request's turn, as the store wishes to be asked. `false`: the deadline has passed.
    pub(crate) async fn turn(&self, until: Instant) -> bool {
        let now = Instant::now();
        if now >= until {
            return false;
        }
        let at = self.pace.turn(now, until);
        if at > now {
            tokio::time::sleep_until(at.into()).await;
        }
        true
    }

    /// Notes what an answer says of the store's patience.
    pub(crate) fn note(&self, status: StatusCode) {
        match status.as_u16() {
            429 | 503 => self.pace.slower(Instant::now()),
            500.. => {}
            _ => self.pace.faster(),
        }
    }

    /// Asks until there is an answer that is final, whatever it says, or the deadline comes.
    pub(crate) async fn ask(&self, ask: &Ask, until: Instant) -> Result<Answer> {
        let mut pauses = Pauses::new();
        let mut doubt: Option<Doubt> = None;
        let mut last: Option<Error> = None;
        let mut attempts = 0_u32;
        while self.turn(until).await {
            let began = Instant::now();
            attempts += 1;
            if attempts > 1 {
                self.traffic.retries.fetch_add(1, Relaxed);
            }
            let (error, after) = match self.once(ask, until).await {
                Ok(mut answer) => {
                    self.note(answer.status);
                    match meaning(&answer) {
                        Meaning::Final => {
                            answer.doubt = doubt;
                            return Ok(answer);
                        }
                        Meaning::Refused => {}
                        Meaning::Doubtful => {
                            doubt = doubt.or(Some(Doubt { since: began }));
                        }
                    }
                    (answer.error(self, ask), retry_after(&answer.headers))
                }
                Err(Fault { sent, hopeless, error }) => {
                    let error = place(error, self, ask);
                    if sent {
                        doubt = doubt.or(Some(Doubt { since: began }));
                    }
                    if hopeless {
                        return Err(self.given_up(ask, doubt, Some(error), attempts));
                    }
                    (error, None)
                }
            };
            last = Some(error);
            let pause = pauses.pause(after);
            if Instant::now() + pause >= until {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        Err(self.given_up(ask, doubt, last, attempts))
    }

    /// Asks, and takes an answer that is no success for an error.
    pub(crate) async fn ask_ok(&self, ask: &Ask, until: Instant) -> Result<Answer> {
        let answer = self.ask(ask, until).await?;
        let wrong = answer.status == StatusCode::OK
            && !matches!(ask.method, http::Method::GET | http::Method::HEAD)
            && is_error(&answer.body);
        if !answer.status.is_success() || wrong {
            return Err(answer.error(self, ask));
        }
        Ok(answer)
    }

    /// The error when an operation ends without a final answer: what stood in its way, and whether it may have happened.
    pub(crate) fn given_up(
        &self,
        ask: &Ask,
        doubt: Option<Doubt>,
        last: Option<Error>,
        attempts: u32,
    ) -> Error {
        let Some(last) = last else {
            let error = Error::new(
                ErrorKind::UNAVAILABLE,
                "the deadline had passed before anything was asked",
            )
            .remedy("allow the operation more time");
            return place(error, self, ask);
        };
        let last = if attempts > 1 { last.with("attempts", attempts) } else { last };
        if doubt.is_none() || !ask.mutates() {
            return last;
        }
        self.traffic.unknown.fetch_add(1, Relaxed);
        let mut error = unknown(format!("no answer told whether it was done: {}", last.message()));
        for (key, value) in last.context() {
            error = error.with(key, value);
        }
        // A write without a condition does no more when it is done twice.
        let conditional = ["if-match", "if-none-match", "x-goog-if-generation-match"];
        let in_query =
            |url: &http::Uri| url.query().is_some_and(|q| q.contains("ifGenerationMatch"));
        let once = conditional.iter().any(|name| ask.headers.contains_key(*name))
            || ask.url.as_ref().is_some_and(in_query);
        error.with_retry(if once { Retry::PERMANENT } else { Retry::TEMPORARY })
    }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
