// SPDX-License-Identifier: Apache-2.0

//! The body of a GET: counted, taken up where it broke off, checked against its MD5.

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
    /// The hash so far, if the whole object is read and its ETag is its MD5.
    pub(crate) md5: Option<Md5>,
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
            return Err(self
                .failure(FailureKind::Corrupt, "the server sent more than it said")
                .remedy("repeat it"));
        }
        reader.next += length;
        if let Some(md5) = &mut reader.md5 {
            md5.update(&bytes);
        }
        // The last bytes are given away only when all of them are known to be right.
        if reader.next == reader.end
            && let Some(md5) = reader.md5.take()
            && Some(encode::hex(&md5.finalize())) != reader.etag
        {
            return Err(self
                .failure(FailureKind::Corrupt, "the bytes differ from the object's MD5")
                .remedy("read it again; if it stays so, the object is damaged: have the server's auditor look at it"));
        }
        Ok(bytes)
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
        let call = self.reader.call.clone().header("If-Match", format!("\"{etag}\""));
        let range = format!("bytes={}-{}", self.reader.next, self.reader.end - 1);
        let answer =
            self.reader.swift.client().send(&call.header("Range", range).within(self.budget)).await;
        self.budget = self.budget.saturating_sub(asked.elapsed());
        let answer = answer.map_err(|failure| match failure.status() {
            Some(412) => self
                .failure(FailureKind::Precondition, "the object was replaced while it was read")
                .remedy("read it again from its beginning"),
            _ => failure,
        })?;
        let place = content_range(&answer);
        if answer.status != StatusCode::PARTIAL_CONTENT
            || place != Some((self.reader.next, self.reader.end, self.reader.size))
            || attributes::header_etag(&answer.headers) != Some(etag)
        {
            return Err(self.failure(
                FailureKind::Corrupt,
                "the server answered with another range than was asked for",
            ));
        }
        self.stream = answer.body.bytes_stream();
        Ok(())
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
    (first <= last && last < size).then_some((first, last + 1, size))
}

#[cfg(test)]
mod tests {
    use super::parse_range;

    #[test]
    fn ranges_of_answers_are_checked() {
        assert_eq!(parse_range("bytes 2-4/14"), Some((2, 5, 14)));
        for wrong in ["bytes */1", "bytes 4-2/14", "bytes 2-14/14", "2-4/14", "bytes 2-4/*"] {
            assert_eq!(parse_range(wrong), None, "{wrong}");
        }
    }
}
