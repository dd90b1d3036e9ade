// SPDX-License-Identifier: Apache-2.0
//! Copying within the store, which moves the bytes itself.
//!
//! ```text
//!          up to `copy_at_once`     above
//! S3       one request              an upload whose parts are ranges of the source
//! GCS      one request              rewriting, asked for until it is done
//! Azure    one request, and the store is asked until it has copied
//! Swift    one request; large objects segment by segment (in its own client)
//! ```

pub(crate) mod parts;
mod rewrite;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use driver_api::{
    Error, ErrorKind, ROption, RString, RVec, Result, Tuple2,
    ext::{Conditions, CopyOptions, ObjectChange, ObjectInfo, ObjectName, PutOptions},
};
use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    account::Account,
    call::{Answer, Ask, text_of, time_to_copy},
    config::Kind,
    control::{azure, s3},
    error::{invalid, unknown},
    get,
    info::{self, Found, quoted},
    mark, probing,
    put::{check_conditions, condition, refused},
    retry::is_error,
};

const IN_SOURCE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// When a copy of so many bytes is to be done: later than other operations, and never after `latest`.
pub(crate) fn longer(until: Instant, latest: Option<Instant>, size: u64) -> Instant {
    let until = until + time_to_copy(size);
    latest.map_or(until, |latest| until.min(latest))
}

/// Copies an object. `latest`: when its caller wants an answer, however much there is to be copied.
pub(crate) async fn copy(
    account: &Arc<Account>,
    from: &ObjectName,
    to: &ObjectName,
    options: &CopyOptions,
    until: Instant,
    latest: Option<Instant>,
) -> Result<ObjectInfo> {
    check_conditions(&options.target)?;
    if !to.version.is_empty() {
        return Err(invalid("a version cannot be written, only the object").with("object", &to.key));
    }
    let source = get::find(account, from, &options.source, until).await?;
    let size = source.info.size;
    let until = longer(until, latest, size);
    let large = size > account.config.copy_at_once();
    let mark = mark::of(&options.mark)?;
    let mut put = said(account, &source, options);
    if account.kind == Kind::S3 && large {
        if options.change.tags.is_none() {
            put.tags = parts::tags(account, from, until).await?;
        }
        put.mark = mark.as_str().into();
        let job = parts::Job { from, source: &source, to, target: &options.target };
        parts::copy(account, &job, &put, until).await?;
        let found = get::find(account, to, &Conditions::default(), until).await?;
        return proven(&found, &mark, &source).map(|()| found.info);
    }
    let need = match options.target.is_empty() {
        true => probing::Need::Nothing,
        false => probing::Need::Copy,
    };
    probing::check(account, &to.bucket, need, until).await?;
    if account.kind == Kind::Azure && options.change.tags.is_none() {
        put.tags = azure_tags(account, from, until).await?;
    }
    let mut ask = Ask::new("copy object", Method::PUT, &to.bucket, &to.key)
        .headers(&account.encrypt)
        .headers(&account.customer)
        .moves(size);
    ask = info::write(account, ask, &put, &mark)?;
    ask = from_source(account, ask, from, &source)?;
    ask = condition(account, ask, &options.target, until).await?;
    let answer = if account.kind == Kind::Gcs && large {
        put.mark = mark.as_str().into();
        let generation = text_of(&ask.headers, "x-goog-if-generation-match").to_owned();
        let generation = (!generation.is_empty()).then_some(generation.as_str());
        let source = (from, &source);
        let rewriting = rewrite::rewrite(account, source, to, &put, generation, until);
        let (asked, answer) = rewriting.await?;
        ask = asked;
        answer
    } else {
        account.ask(&ask, until).await?
    };
    if !answer.status.is_success() || is_error(&answer.body) {
        return Ok(refused(account, &ask, to, &mark, &options.target, &answer, until).await?.info);
    }
    if account.kind == Kind::Azure {
        finish(account, &ask, to, &mark, &answer, until).await?;
    }
    if account.kind == Kind::S3 {
        keep_tags(account, from, to, options, until).await?;
    }
    let found = get::find(account, to, &Conditions::default(), until).await?;
    proven(&found, &mark, &source)?;
    let change = &options.change;
    if account.kind == Kind::Azure && (change.content_type.is_some() || change.metadata.is_some()) {
        // A copy takes the source's headers of HTTP along, whatever it is asked.
        let change = ObjectChange {
            content_type: change.content_type.clone(),
            metadata: change.metadata.clone(),
            ..ObjectChange::default()
        };
        return azure::change::change(account, until, to, &change).await;
    }
    Ok(found.info)
}

/// What is to be said of the target: of the source, but for what changes.
fn said(account: &Account, source: &Found, options: &CopyOptions) -> PutOptions {
    let change = &options.change;
    PutOptions {
        content_type: change.content_type.clone().unwrap_or(source.info.content_type.clone()),
        metadata: change.metadata.clone().unwrap_or(source.info.metadata.clone()),
        tags: match &change.tags {
            ROption::RSome(tags) if account.kind != Kind::Gcs => tags.clone(),
            _ => Default::default(),
        },
        storage_class: change.storage_class.clone().unwrap_or_default(),
        expire_after_secs: change.expire_after_secs.unwrap_or(0),
        ..PutOptions::default()
    }
}

fn from_source(account: &Account, ask: Ask, from: &ObjectName, source: &Found) -> Result<Ask> {
    let path = format!(
        "/{}/{}",
        utf8_percent_encode(&from.bucket, IN_SOURCE),
        utf8_percent_encode(&from.key, IN_SOURCE)
    );
    let etag = quoted(&source.info.etag);
    match account.kind {
        Kind::S3 => {
            let version = match from.version.as_str() {
                "" => String::new(),
                version => format!("?versionId={}", utf8_percent_encode(version, NON_ALPHANUMERIC)),
            };
            let with_tags = ask.headers.contains_key("x-amz-tagging");
            let mut ask = ask
                .header("x-amz-copy-source", &format!("{path}{version}"))?
                .header("x-amz-copy-source-if-match", &etag)?
                .header("x-amz-metadata-directive", "REPLACE")?
                .header("x-amz-tagging-directive", if with_tags { "REPLACE" } else { "COPY" })?;
            for (name, value) in &account.customer {
                let name = name.as_str().replacen("x-amz-", "x-amz-copy-source-", 1);
                ask = ask.header(&name, value.to_str().unwrap_or_default())?;
            }
            Ok(ask)
        }
        Kind::Gcs => ask
            .header("x-goog-copy-source", &path)?
            .header("x-goog-copy-source-generation", &source.generation)?
            .header("x-goog-copy-source-if-generation-match", &source.generation)?
            .header("x-goog-metadata-directive", "REPLACE"),
        Kind::Azure | Kind::Swift => {
            let query = match from.version.as_str() {
                "" => Vec::new(),
                version => vec![("versionid".to_owned(), version.to_owned())],
            };
            let url = account.url(&from.bucket, &from.key, &query)?.to_string();
            // The target keeps the source's own headers of HTTP; a request to copy has none.
            let mut ask = ask;
            for name in [
                "content-type",
                "cache-control",
                "content-disposition",
                "content-encoding",
                "content-language",
            ] {
                ask.headers.remove(format!("x-ms-blob-{name}"));
            }
            ask.header("x-ms-copy-source", &url)?.header("x-ms-source-if-match", &etag)
        }
    }
}

/// The source's tags, which Azure does not copy; of who may not see them, none.
async fn azure_tags(
    account: &Account,
    from: &ObjectName,
    until: Instant,
) -> Result<RVec<Tuple2<RString, RString>>> {
    match azure::change::tags(account, until, from).await {
        Err(error)
            if matches!(error.kind(), ErrorKind::UNSUPPORTED | ErrorKind::PERMISSION_DENIED) =>
        {
            Ok(RVec::new())
        }
        tags => tags,
    }
}

/// Waits until Azure has copied, which it does by itself. From its first answer on, the target is no longer what it was.
async fn finish(
    account: &Account,
    ask: &Ask,
    to: &ObjectName,
    mark: &str,
    answer: &Answer,
    until: Instant,
) -> Result<()> {
    let mut status = answer.header("x-ms-copy-status").to_owned();
    let mut etag = answer.header("etag").to_owned();
    let head = Ask::new("copy object", Method::HEAD, &to.bucket, &to.key);
    let mut pause = Duration::from_millis(20);
    while status == "pending" {
        if Instant::now() + pause >= until {
            let still = unknown("the store still copies at the deadline, and goes on")
                .with("copy", answer.header("x-ms-copy-id"))
                .remedy("look at the target until it has the source's size: novastor object head");
            return Err(crate::error::place(still, account, ask));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
        let answer = account.ask_ok(&head, until).await.map_err(|error| {
            let lost = format!("whether the store has copied cannot be asked: {}", error.message());
            crate::error::place(unknown(lost).caused_by(&error), account, ask)
        })?;
        let found = info::read(account.kind, &to.key, &answer.headers);
        if found.mark != mark {
            return Err(other(to));
        }
        answer.header("x-ms-copy-status").clone_into(&mut status);
        answer.header("etag").clone_into(&mut etag);
    }
    if matches!(status.as_str(), "success" | "") {
        return Ok(());
    }
    // What is left is an empty object of ours, and no copy of anything.
    let remove = Ask::new("copy object", Method::DELETE, &to.bucket, &to.key);
    let removed = account.ask_ok(&remove.header("if-match", &quoted(&etag))?, until).await;
    let left = if removed.is_ok() { "there is no target now" } else { "the target is empty now" };
    let why = format!("the store gave the copy up ({status}); {left}");
    let error = Error::new(ErrorKind::UNAVAILABLE, why).remedy("copy it again");
    Err(crate::error::place(error, account, ask))
}

/// Some stores forget tags when they copy, without a word: they are compared, and set again.
async fn keep_tags(
    account: &Account,
    from: &ObjectName,
    to: &ObjectName,
    options: &CopyOptions,
    until: Instant,
) -> Result<()> {
    let tags = match &options.change.tags {
        ROption::RSome(tags) => tags.clone(),
        ROption::RNone => match s3::tags::get(account, until, from).await {
            Ok(tags) => tags,
            // Who may not see tags could not set them either; the store was asked to copy them.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::UNSUPPORTED | ErrorKind::PERMISSION_DENIED
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        },
    };
    if tags.is_empty() && options.change.tags.is_none() {
        return Ok(());
    }
    s3::tags::set(account, until, to, &tags).await
}

fn other(to: &ObjectName) -> Error {
    unknown("another write replaced the copy at once").with("object", &to.key)
}

/// The copy is ours and whole.
fn proven(found: &Found, mark: &str, source: &Found) -> Result<()> {
    if found.mark != mark {
        return Err(unknown(
            "another write replaced the copy at once, or the store forgot what was said of it",
        )
        .with("object", &found.info.key));
    }
    if found.info.size != source.info.size {
        return Err(Error::new(ErrorKind::CORRUPTED, "the copy has another size than its source")
            .with("object", &found.info.key)
            .with("size", found.info.size)
            .with("source_size", source.info.size));
    }
    Ok(())
}
