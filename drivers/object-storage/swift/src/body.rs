// SPDX-License-Identifier: Apache-2.0

//! The body of a GET: counted, taken up where it broke off, checked against its MD5.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use http::StatusCode;
use md5::{Digest as _, Md5};
use object_store::Error;

use crate::attributes;
use crate::client::{Answer, Call};
use crate::encode;
use crate::error::{Failure, FailureKind};
use crate::manifest::Segment;
use crate::retry::Backoff;
use crate::store::Swift;

/// A body that is being read.
pub(crate) struct Reader {
    pub(crate) swift: Swift,
    /// The request without its range, for the rest after a break.
    pub(crate) call: Call,
    /// The object's ETag: the rest must be of the same object.
    pub(crate) etag: Option<String>,
    /// The object's size.
    pub(crate) size: u64,
    /// The next byte, and the end of what was asked for.
    pub(crate) next: u64,
    pub(crate) end: u64,
    /// What is known of the bytes that will be read, in order.
    pub(crate) checks: VecDeque<Check>,
    /// The hash of the bytes of the first check so far.
    pub(crate) md5: Md5,
}

/// The bytes from `start` to `end` of an object have this MD5.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Check {
    start: u64,
    end: u64,
    md5: String,
}

/// What an object's segments say about the bytes from `next` to `end`: those that are read as a whole can be checked.
pub(crate) fn checks_of(segments: &[Segment], next: u64, end: u64) -> VecDeque<Check> {
    let mut at = 0_u64;
    let mut checks = VecDeque::new();
    for segment in segments {
        let start = at;
        // Beyond the object's end: the server's answer is nonsense, and nothing can be checked by it.
        let Some(behind) = at.checked_add(segment.size_bytes) else { return VecDeque::new() };
        at = behind;
        if segment.range.is_none() && start >= next && at <= end {
            checks.push_back(Check { start, end: at, md5: segment.etag.clone() });
        }
    }
    checks
}

struct State {
    reader: Reader,
    stream: BoxStream<'static, Result<Bytes, object_store::client::HttpError>>,
    backoff: Backoff,
    /// Breaks since bytes came the last time.
    breaks: usize,
    /// The time that may still be spent waiting for the server. A slow taker of the bytes does not use it up.
    budget: Duration,
}

impl Reader {
    /// Whether `bytes`, which follow, are as they should be, as far as that is known by their end.
    fn check(&mut self, bytes: &[u8]) -> bool {
        let (mut at, mut rest) = (self.next, bytes);
        while let Some(check) = self.checks.front()
            && !rest.is_empty()
        {
            let border = if at < check.start { check.start } else { check.end };
            let length = (border - at).min(rest.len() as u64);
            let (now, later) = rest.split_at(length as usize);
            if at >= check.start {
                self.md5.update(now);
            }
            (at, rest) = (at + length, later);
            if at == check.end {
                let right = encode::hex(&self.md5.finalize_reset()) == check.md5;
                self.checks.pop_front();
                if !right {
                    return false;
                }
            }
        }
        true
    }

    /// The bytes of `answer`, and of further answers if it breaks off.
    pub(crate) fn stream(self, answer: Answer) -> BoxStream<'static, Result<Bytes, Error>> {
        let config = &self.swift.client().config;
        let state = State {
            backoff: Backoff::new(&config.retry),
            breaks: 0,
            budget: config.retry.retry_timeout + config.transfer_time(self.end - self.next),
            stream: answer.body.bytes_stream(),
            reader: self,
        };
        stream::try_unfold(state, |mut state| async move {
            Ok(state.step().await?.map(|bytes| (bytes, state)))
        })
        .map_err(|failure: Failure| failure.into())
        .boxed()
    }
}

impl State {
    async fn step(&mut self) -> Result<Option<Bytes>, Failure> {
        while self.reader.next < self.reader.end {
            let asked = Instant::now();
            let patience = self.reader.swift.client().config.request_timeout.min(self.budget);
            let chunk = tokio::time::timeout(patience, self.stream.next()).await;
            self.budget = self.budget.saturating_sub(asked.elapsed());
            let cause = match chunk {
                Ok(Some(Ok(bytes))) if bytes.is_empty() => continue,
                Ok(Some(Ok(bytes))) => return self.take(bytes).map(Some),
                Ok(Some(Err(error))) => error.to_string(),
                Ok(None) => "the answer ended early".to_owned(),
                Err(_) => "the server fell silent".to_owned(),
            };
            self.resume(cause).await?;
        }
        Ok(None)
    }

    fn failure(&self, kind: FailureKind, cause: &str) -> Failure {
        let Reader { next, end, .. } = &self.reader;
        self.reader.call.failure(kind, format!("{cause}, at byte {next} of {end}"))
    }

    fn take(&mut self, bytes: Bytes) -> Result<Bytes, Failure> {
        self.breaks = 0;
        let reader = &mut self.reader;
        let length = bytes.len() as u64;
        if length > reader.end - reader.next {
            let cause = "the server sent more than it said";
            return Err(self.failure(FailureKind::Corrupt, cause).remedy("repeat it"));
        }
        // The last bytes of what is checked are given away only when all of them are known to be right.
        let right = reader.check(&bytes);
        reader.next += length;
        if right {
            return Ok(bytes);
        }
        let cause = "the bytes differ from the MD5 that the server told when they were stored";
        let remedy = "read it again; if it stays so, the object is damaged: have the server's auditor look at it";
        Err(self.failure(FailureKind::Corrupt, cause).remedy(remedy))
    }

    /// Asks for the rest of the same object.
    async fn resume(&mut self, cause: String) -> Result<(), Failure> {
        self.breaks += 1;
        let config = &self.reader.swift.client().config;
        let broken = self
            .failure(FailureKind::Connection, &cause)
            .remedy("read the rest again; check the network between here and the server");
        let deadline = Instant::now() + self.budget;
        let Some(etag) = self.reader.etag.clone() else { return Err(broken) };
        if self.breaks > config.retry.max_retries {
            return Err(broken);
        }
        if self.backoff.wait(deadline, None).await.is_err() {
            return Err(broken.kind_of(FailureKind::TimedOut));
        }
        let asked = Instant::now();
        let range = format!("bytes={}-{}", self.reader.next, self.reader.end - 1);
        let call = self.reader.call.clone().header("Range", range);
        let answer = self.reader.swift.client().send(&call.within(self.budget)).await;
        self.budget = self.budget.saturating_sub(asked.elapsed());
        let answer = match answer {
            // It is shorter by now.
            Err(failure) if failure.status() == Some(416) => return Err(self.replaced()),
            answer => answer?,
        };
        if attributes::header_etag(&answer.headers) != Some(etag) {
            return Err(self.replaced());
        }
        let place = content_range(&answer);
        if answer.status != StatusCode::PARTIAL_CONTENT
            || place != Some((self.reader.next, self.reader.end, self.reader.size))
        {
            return Err(self.failure(
                FailureKind::Corrupt,
                "the server answered with another range than was asked for",
            ));
        }
        self.stream = answer.body.bytes_stream();
        Ok(())
    }

    fn replaced(&self) -> Failure {
        self.failure(FailureKind::Precondition, "the object was replaced while it was read")
            .remedy("read it again from its beginning")
    }
}

/// First byte, end and size in `Content-Range`.
pub(crate) fn content_range(answer: &Answer) -> Option<(u64, u64, u64)> {
    parse_range(answer.header("content-range")?)
}

fn parse_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let size = size.parse().ok()?;
    (first <= last && last < size).then(|| (first, last + 1, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_answers_are_checked() {
        assert_eq!(parse_range("bytes 2-4/14"), Some((2, 5, 14)));
        for wrong in [
            "bytes */1",
            "bytes 4-2/14",
            "bytes 2-14/14",
            "2-4/14",
            "bytes 2-4/*",
            "bytes 0-18446744073709551615/5",
        ] {
            assert_eq!(parse_range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn segments_that_are_read_as_a_whole_are_checked() {
        let segments = [3, 4, 5].map(|size| Segment::new("c", "n", &size.to_string(), size));
        let of = |next, end| -> Vec<(u64, u64)> {
            checks_of(&segments, next, end).iter().map(|check| (check.start, check.end)).collect()
        };
        assert_eq!(of(0, 12), [(0, 3), (3, 7), (7, 12)]);
        assert_eq!(of(1, 12), [(3, 7), (7, 12)]);
        assert_eq!(of(0, 11), [(0, 3), (3, 7)]);
        assert_eq!(of(4, 6), []);
        let beyond = [1, u64::MAX].map(|size| Segment::new("c", "n", "x", size));
        assert_eq!(checks_of(&beyond, 0, 12), []);
    }
}
