// SPDX-License-Identifier: Apache-2.0
//! Copying what S3 does not copy by one request: an upload whose parts are ranges of the source.
//!
//! ```text
//!  begin (all that is said of the source) ─ parts, each under the source's ETag ─ is the source still the same? ─ complete
//! ```
//!
//! Not every store heeds the ETag of a part's source, so the source is looked at once more before the object is made. Whatever
//! ends the copy before that, its caller's going away too, gives the upload up.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use driver_api::{
    Error, ErrorKind, RString, RVec, Result, Tuple2,
    ext::{Conditions, ObjectInfo, ObjectName, PartInfo, PutOptions, UploadInfo},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use http::Method;

use super::from_source;
use crate::{
    account::Account,
    call::Ask,
    control::{self, s3},
    error, features, get,
    info::{Found, unquoted},
    probing,
    retry::is_error,
    wire::AnswerExt,
};

/// The usual size of a part.
const PART: u64 = 256 << 20;
/// Parts that are copied at once.
const AT_ONCE: usize = 8;
/// How long giving the upload up may take after the deadline, or after its caller went away.
const LEAVING: Duration = Duration::from_secs(10);

/// What is copied where.
pub(crate) struct Job<'a> {
    pub from: &'a ObjectName,
    pub source: &'a Found,
    pub to: &'a ObjectName,
    /// The conditions on the target.
    pub target: &'a Conditions,
}

/// The ranges of the parts: as few as are allowed, of one size but for the last.
fn ranges(size: u64, at_once: u64, max_parts: u32) -> impl Iterator<Item = Range<u64>> {
    let least = size.div_ceil(u64::from(max_parts.max(1))).next_multiple_of(1 << 20);
    let part = PART.min(at_once).max(least).max(1);
    (0..size.div_ceil(part)).map(move |index| index * part..((index + 1) * part).min(size))
}

/// Copies an object in parts. `put` says what the copy is to be like, its tags and mark as well.
pub(crate) async fn copy(
    account: &Arc<Account>,
    job: &Job<'_>,
    put: &PutOptions,
    until: Instant,
) -> Result<ObjectInfo> {
    let need = probing::Need::of_completion(job.target);
    probing::check(account, &job.to.bucket, need, until).await?;
    let info = s3::uploads::begin(account, until, job.to, put).await?;
    let mut upload = Upload { account: Arc::clone(account), info, open: true };
    let done = async {
        let parts = upload.parts(job, until).await?;
        unchanged(account, job, until).await?;
        Ok(parts)
    };
    let parts = match done.await {
        Ok(parts) => parts,
        Err(error) => return Err(upload.give_up(nothing_written(error)).await),
    };
    // From here on the outcome may be unknown, and then the parts may be the object's.
    let completing = s3::uploads::complete(account, until, &upload.info, &parts, job.target);
    upload.open = false;
    match completing.await {
        Ok(object) => Ok(object),
        Err(error) if error.kind() == ErrorKind::TIMED_OUT => {
            Err(error.with("upload", &upload.info.id))
        }
        Err(error) => Err(upload.give_up(error).await),
    }
}

/// The tags that the copy is to have; S3 copies none with parts.
pub(crate) async fn tags(
    account: &Account,
    from: &ObjectName,
    until: Instant,
) -> Result<RVec<Tuple2<RString, RString>>> {
    match s3::tags::get(account, until, from).await {
        Err(error) if error.kind() == ErrorKind::UNSUPPORTED => Ok(RVec::new()),
        Err(error) if error.kind() == ErrorKind::PERMISSION_DENIED => Err(error.remedy(
            "the source's tags cannot be read, and a copy in parts would lose them: allow it, or say which tags the copy has",
        )),
        tags => tags,
    }
}

fn changed(from: &ObjectName) -> Error {
    Error::new(ErrorKind::CONFLICT, "the source changed while it was copied; nothing was written")
        .with("source", format!("{}/{}", from.bucket, from.key))
        .remedy("copy it again")
}

/// Fails unless the source is what it was when the copy was begun.
async fn unchanged(account: &Account, job: &Job<'_>, until: Instant) -> Result<()> {
    match get::find(account, job.from, &Conditions::default(), until).await {
        Ok(found) => {
            let told = |found: &Found| {
                let info = &found.info;
                (info.etag.clone(), info.version.clone(), info.size, info.modified_ms)
            };
            if told(&found) == told(job.source) { Ok(()) } else { Err(changed(job.from)) }
        }
        Err(error) if error.kind() == ErrorKind::NOT_FOUND => Err(changed(job.from)),
        Err(error) => Err(error),
    }
}

/// Before its completion an upload is no object: that the outcome of a part is unknown leaves the object as it was.
fn nothing_written(error: Error) -> Error {
    if error.kind() != ErrorKind::TIMED_OUT {
        return error;
    }
    Error::new(ErrorKind::UNAVAILABLE, "the store did not copy in time; the target is as it was")
        .caused_by(&error)
        .remedy("copy it again, with more time")
}

/// An upload that is given up unless it is completed.
struct Upload {
    account: Arc<Account>,
    info: UploadInfo,
    open: bool,
}

impl Upload {
    async fn parts(&self, job: &Job<'_>, until: Instant) -> Result<Vec<PartInfo>> {
        let most = features::of(&self.account).max_parts;
        let ranges = ranges(job.source.info.size, self.account.config.copy_at_once(), most);
        let copies = ranges.zip(1..).map(|(range, number)| self.part(job, number, range, until));
        stream::iter(copies).buffered(AT_ONCE).try_collect().await
    }

    async fn part(
        &self,
        job: &Job<'_>,
        number: u32,
        range: Range<u64>,
        until: Instant,
    ) -> Result<PartInfo> {
        let account = &self.account;
        let (id, _) = s3::uploads::split_id(&self.info.id);
        let size = range.end - range.start;
        let ask = Ask::new("copy part", Method::PUT, &job.to.bucket, &job.to.key)
            .headers(&account.customer)
            .query("partNumber", number.to_string())
            .query("uploadId", id)
            .moves(size * AT_ONCE as u64);
        // The version that was looked at, where the store keeps several.
        let mut from = job.from.clone();
        if from.version.is_empty() {
            from.version = job.source.info.version.clone();
        }
        let mut ask = from_source(account, ask, &from, job.source)?.header(
            "x-amz-copy-source-range",
            &format!("bytes={}-{}", range.start, range.end - 1),
        )?;
        for name in ["x-amz-metadata-directive", "x-amz-tagging-directive"] {
            ask.headers.remove(name);
        }
        let answer = account.ask(&ask, until).await?;
        let told = |error: Error| error::place(error, account, &ask).with("part", number);
        if answer.status == 412 || answer.code() == "PreconditionFailed" {
            return Err(told(changed(job.from)));
        }
        if !answer.status.is_success() || is_error(&answer.body) {
            return Err(answer.error(account, &ask).with("part", number));
        }
        let root = answer.document("CopyPartResult", &ask)?;
        let etag = unquoted(root.need("ETag")?).into();
        Ok(PartInfo { number, size, etag, ..PartInfo::default() })
    }

    /// Gives the upload up and says why; what stays behind is told as well.
    async fn give_up(mut self, error: Error) -> Error {
        self.open = false;
        let until = Instant::now() + LEAVING;
        match control::abort_upload(&self.account, until, &self.info).await {
            Ok(()) => error,
            Err(left) => {
                let (bucket, key) = (self.info.bucket.as_str(), self.info.key.as_str());
                tracing::warn!(bucket, key, upload = %self.info.id, "left behind: {left:#}");
                error.with("left behind upload", &self.info.id)
            }
        }
    }
}

impl Drop for Upload {
    /// Whoever asked for the copy is gone: the upload goes as well.
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let (account, info) = (Arc::clone(&self.account), self.info.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let until = Instant::now() + LEAVING;
                if let Err(left) = control::abort_upload(&account, until, &info).await {
                    tracing::warn!(upload = %info.id, "left behind: {left:#}");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(size: u64, at_once: u64, max_parts: u32) -> Vec<Range<u64>> {
        ranges(size, at_once, max_parts).collect()
    }

    #[test]
    fn the_parts_are_the_whole_and_not_too_many() {
        const MIB: u64 = 1 << 20;
        assert_eq!(cut(11 * MIB, 5 * MIB, 10), [0..5 * MIB, 5 * MIB..10 * MIB, 10 * MIB..11 * MIB]);
        for size in [5 << 30, (5 << 30) + 1, 5 << 40] {
            let parts = cut(size, 5 << 30, 10_000);
            assert!(parts.len() <= 10_000, "{size}: {}", parts.len());
            assert_eq!((parts[0].start, parts[parts.len() - 1].end), (0, size));
            assert!(parts.windows(2).all(|two| two[0].end == two[1].start));
            let all_but_last = &parts[..parts.len() - 1];
            assert!(all_but_last.iter().all(|part| part.end - part.start >= 5 * MIB));
            assert!(parts.iter().all(|part| part.end - part.start <= 5 << 30));
        }
    }
}
