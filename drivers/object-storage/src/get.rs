// SPDX-License-Identifier: Apache-2.0
//! Reading: what is known of an object, and ranges of its content.
//!
//! A body that ends too early is gone on with where it ended, under the ETag of its beginning; the deadline bounds it all.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use driver_api::{
    Error, ErrorKind, IoBuf, Result,
    ext::{Conditions, ObjectInfo, ObjectName, ObjectPiece},
};
use http::{Method, StatusCode};

use crate::{
    account::Account,
    call::{Ask, Fault, Opened, text_of},
    config::Kind,
    error::{self, invalid, place},
    info::{self, Found, quoted},
    retry::{Pauses, retry_after},
    sums::{self, Sum},
};

/// Azure tells the sum of a range up to this size.
const AZURE_SUM: u64 = 4 << 20;
/// No object has a byte at this place.
const BEYOND: u64 = 1 << 50;
/// How often content with a wrong sum is fetched again.
pub(crate) const DAMAGED: u32 = 3;

/// Puts conditions for reading into a request.
fn conditions(mut ask: Ask, conditions: &Conditions) -> Result<Ask> {
    for (name, etag) in
        [("if-match", &conditions.if_match), ("if-none-match", &conditions.if_none_match)]
    {
        if !etag.is_empty() {
            ask = ask.header(name, &quoted(etag))?;
        }
    }
    for (name, secs) in [
        ("if-modified-since", conditions.if_modified_since),
        ("if-unmodified-since", conditions.if_unmodified_since),
    ] {
        if secs > 0 {
            ask = ask.header(name, &shown_date(secs)?)?;
        }
    }
    Ok(ask)
}

/// Seconds since 1970 as a date of HTTP.
fn shown_date(secs: u64) -> Result<String> {
    i64::try_from(secs)
        .ok()
        .and_then(|secs| chrono::DateTime::from_timestamp(secs, 0))
        .map(|date| date.format("%a, %d %b %Y %H:%M:%S GMT").to_string())
        .ok_or_else(|| invalid("the condition's time is beyond every calendar"))
}

/// A request for an object, or a version of it.
pub(crate) fn asking(
    account: &Account,
    operation: &'static str,
    method: Method,
    object: &ObjectName,
) -> Ask {
    let ask = Ask::new(operation, method, &object.bucket, &object.key).headers(&account.customer);
    if object.version.is_empty() {
        return ask;
    }
    let name = match account.kind {
        Kind::S3 => "versionId",
        Kind::Azure => "versionid",
        Kind::Gcs => "generation",
        Kind::Swift => "version-id",
    };
    ask.query(name, object.version.as_str())
}

/// What is known of an object, its mark included.
pub(crate) async fn find(
    account: &Account,
    object: &ObjectName,
    under: &Conditions,
    until: Instant,
) -> Result<Found> {
    let mut ask = conditions(asking(account, "head object", Method::HEAD, object), under)?;
    if account.kind == Kind::S3 {
        ask = ask.header("x-amz-checksum-mode", "ENABLED")?;
    }
    let answer = account.ask(&ask, until).await?;
    if !answer.status.is_success() {
        let error = answer.error(account, &ask);
        return Err(why_missing(account, object, error, until).await);
    }
    if info::size(&answer.headers).is_none() {
        let error = strange(&answer.headers, "it does not say the object's size");
        return Err(place(error, account, &ask));
    }
    let mut found = info::read(account.kind, &object.key, &answer.headers);
    found.info.latest = object.version.is_empty();
    Ok(found)
}

/// The error of an answer of success that cannot be one to what was asked.
fn strange(headers: &http::HeaderMap, what: &str) -> Error {
    Error::new(ErrorKind::CORRUPTED, format!("the store's answer is not to what was asked: {what}"))
        .with("content-range", text_of(headers, "content-range"))
        .remedy("look whether something between here and the store answers in its place")
}

/// HEAD says nothing of why: whether it is the bucket that is missing is asked for.
async fn why_missing(
    account: &Account,
    object: &ObjectName,
    error: Error,
    until: Instant,
) -> Error {
    let kind = error.kind();
    if kind != ErrorKind::NOT_FOUND
        && kind != ErrorKind::PERMISSION_DENIED
        && kind != ErrorKind::INVALID_ARGUMENT
    {
        return error;
    }
    let soon = until.min(Instant::now() + Duration::from_secs(5));
    // One byte: if the object is there after all, little comes.
    let ask = asking(account, "head object", Method::GET, object).header("range", "bytes=0-0");
    let Ok(ask) = ask else { return error };
    match account.ask(&ask, soon).await {
        Ok(answer) if answer.status.is_client_error() => answer.error(account, &ask),
        _ => error,
    }
}

/// What is known of an object.
pub(crate) async fn head(
    account: &Account,
    object: &ObjectName,
    conditions: &Conditions,
    until: Instant,
) -> Result<ObjectInfo> {
    Ok(find(account, object, conditions, until).await?.info)
}

/// The piece while it comes in.
struct Coming {
    found: Found,
    /// How many bytes there will be.
    wanted: usize,
    data: Vec<u8>,
    /// The sum that the store told for exactly these bytes.
    sum: Option<Sum>,
}

/// How an attempt ended that did not bring all bytes.
pub(crate) enum Stop {
    /// Ask again after a pause, at least as long as the store asked for.
    Again(Error, Option<Duration>),
    /// That was the answer.
    Final(Error),
}

/// Bytes of an object.
pub(crate) async fn get(
    account: &Account,
    object: &ObjectName,
    offset: u64,
    len: u32,
    under: &Conditions,
    until: Instant,
) -> Result<ObjectPiece> {
    if len == 0 {
        let found = find(account, object, under, until).await?;
        if offset > found.info.size {
            return Err(past_end(object, offset, found.info.size));
        }
        return Ok(piece(found.info, offset, IoBuf::empty()));
    }
    if offset.checked_add(u64::from(len)).is_none() {
        return Err(invalid("the range is beyond every object").with("offset", offset));
    }
    let mut coming: Option<Coming> = None;
    let (mut pauses, mut damaged, mut attempts) = (Pauses::new(), 0, 0);
    let ask = Ask::new("get object", Method::GET, &object.bucket, &object.key);
    let mut last = None;
    while account.turn(until).await {
        attempts += 1;
        if attempts > 1 {
            account.traffic.retries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        let before = coming.as_ref().map_or(0, |coming| coming.data.len());
        let stop = match attempt(account, object, offset, len, under, &mut coming, until).await {
            Ok(()) => match whole(&mut coming).await? {
                Ok((info, data)) => return Ok(piece(info, offset, data)),
                Err(error) => {
                    damaged += 1;
                    let error = place(error, account, &ask);
                    if damaged == DAMAGED { Stop::Final(error) } else { Stop::Again(error, None) }
                }
            },
            Err(Stop::Final(error)) if empty(&error) => {
                let found = find(account, object, under, until).await?;
                if found.info.size == 0 && offset == 0 {
                    return Ok(piece(found.info, 0, IoBuf::empty()));
                }
                Stop::Final(past_end(object, offset, found.info.size))
            }
            Err(stop) => stop,
        };
        let (error, after) = match stop {
            Stop::Final(error) => return Err(error),
            Stop::Again(error, after) => (error, after),
        };
        // Bytes came: the server lives, and the pauses begin anew.
        if coming.as_ref().is_some_and(|coming| coming.data.len() > before) {
            pauses = Pauses::new();
        }
        last = Some(error);
        let pause = pauses.pause(after);
        if Instant::now() + pause >= until {
            break;
        }
        tokio::time::sleep(pause).await;
    }
    Err(account.given_up(&ask, None, last, attempts))
}

/// Whether the error says that the range lies outside the object.
pub(crate) fn empty(error: &Error) -> bool {
    error.kind() == ErrorKind::INVALID_ARGUMENT && error.message() == OUTSIDE
}

/// What [`error::refused`] says of status 416.
const OUTSIDE: &str = "the range lies outside the object";

pub(crate) fn past_end(object: &ObjectName, offset: u64, size: u64) -> Error {
    invalid("the range begins past the end of the object")
        .with("object", &object.key)
        .with("offset", offset)
        .with("size", size)
        .remedy("read within the object's size")
}

fn piece(object: ObjectInfo, offset: u64, data: IoBuf) -> ObjectPiece {
    ObjectPiece { object, offset, data, reserved: [0; 2] }
}

/// The bytes, if their sum is as told. What is damaged is thrown away.
async fn whole(
    coming: &mut Option<Coming>,
) -> Result<std::result::Result<(ObjectInfo, IoBuf), Error>> {
    let Some(Coming { found, data, sum, .. }) = coming.take() else {
        return Err(Error::new(ErrorKind::INTERNAL, "an answer without a beginning"));
    };
    let data = Bytes::from(data);
    if let Some(told) = sum {
        let made = sums::make(told.way(), &data).await?;
        if made != told {
            return Ok(Err(sums::damaged(
                "what arrived is not what the store has",
                &told.told(),
                &made.told(),
            )));
        }
    }
    Ok(Ok((found.info, IoBuf::from(data))))
}

/// Asks for what is missing, and takes what comes.
async fn attempt(
    account: &Account,
    object: &ObjectName,
    offset: u64,
    len: u32,
    under: &Conditions,
    coming: &mut Option<Coming>,
    until: Instant,
) -> std::result::Result<(), Stop> {
    // Nothing would tell whether what goes on is of the same object.
    if coming.as_ref().is_some_and(|coming| coming.found.info.etag.is_empty()) {
        *coming = None;
    }
    let (from, missing) = match coming {
        Some(coming) => {
            (offset + coming.data.len() as u64, (coming.wanted - coming.data.len()) as u64)
        }
        None => (offset, u64::from(len)),
    };
    let begun = coming.as_ref().map(|coming| &coming.found);
    let Answering { ask, found, told: told_len, headers, mut body } =
        answering(account, object, from, missing, under, begun, until).await?;
    let strange = |what: &str| Stop::Final(place(strange(&headers, what), account, &ask));
    if coming.is_none() {
        let wanted = u64::from(len).min(found.info.size.saturating_sub(offset));
        let wanted = usize::try_from(wanted).map_err(|_| strange("it is too long"))?;
        let sum = sum_of(account.kind, &found, &headers, offset, wanted as u64);
        *coming = Some(Coming { found, wanted, data: Vec::with_capacity(wanted), sum });
    }
    let Some(coming) = coming.as_mut() else { return Err(strange("nothing was begun")) };
    while coming.data.len() < coming.wanted {
        match account.more(&mut body, until).await {
            Ok(Some(bytes)) => {
                let room = coming.wanted - coming.data.len();
                coming.data.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Ok(None) => {
                let error = Error::new(
                    ErrorKind::UNAVAILABLE,
                    format!(
                        "the answer ended after {} of {} bytes",
                        coming.data.len(),
                        coming.wanted
                    ),
                )
                .remedy("look at the server and the network");
                return Err(Stop::Again(place(error, account, &ask), None));
            }
            Err(fault) => return Err(stop_of(account, &ask, fault)),
        }
    }
    // Read to its end, so that the connection can be used again.
    if told_len == coming.wanted as u64 || told_len == missing {
        let soon = until.min(Instant::now() + Duration::from_millis(50));
        let _ = account.more(&mut body, soon).await;
    }
    Ok(())
}

/// An answer that has the bytes that were asked for, which are still to come.
pub(crate) struct Answering {
    /// What was asked.
    pub ask: Ask,
    /// The object.
    pub found: Found,
    /// How many bytes the answer says it has.
    pub told: u64,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: object_store::client::HttpResponseBody,
}

/// Asks once for `missing` bytes from `from` on; of the object that was `begun`, if one was. Headers that cannot be the
/// answer to that are refused.
pub(crate) async fn answering(
    account: &Account,
    object: &ObjectName,
    from: u64,
    missing: u64,
    under: &Conditions,
    begun: Option<&Found>,
    until: Instant,
) -> std::result::Result<Answering, Stop> {
    let ask = range(account, object, from, missing, under, begun).map_err(Stop::Final)?;
    let Opened { status, headers, mut body } = match account.open(&ask, until).await {
        Ok(opened) => opened,
        Err(fault) => return Err(stop_of(account, &ask, fault)),
    };
    account.note(status);
    if !status.is_success() {
        return Err(refusal(account, &ask, status, &headers, &mut body, until).await);
    }
    let strange = |what: &str| Stop::Final(place(strange(&headers, what), account, &ask));
    // Azurite answers with nothing instead of refusing.
    if let Some(size) = info::size(&headers).filter(|size| from >= *size && from > 0) {
        return Err(Stop::Final(past_end(object, from, size)));
    }
    let Some((first, told)) = extent(&headers, status) else {
        return Err(strange("it does not say which bytes of how many it has"));
    };
    let mut found = info::read(account.kind, &object.key, &headers);
    if first != from {
        return Err(strange("it begins elsewhere"));
    }
    match begun {
        Some(begun) if begun.info.etag != found.info.etag => {
            return Err(strange("the object changed while it was read"));
        }
        None if told < missing.min(found.info.size.saturating_sub(from)) => {
            return Err(strange("it has fewer bytes"));
        }
        _ => {}
    }
    found.info.latest = object.version.is_empty();
    Ok(Answering { ask, found, told, headers, body })
}

fn range(
    account: &Account,
    object: &ObjectName,
    from: u64,
    missing: u64,
    under: &Conditions,
    begun: Option<&Found>,
) -> Result<Ask> {
    // A last place that no store counts to: the end.
    let last = from.checked_add(missing - 1).filter(|last| *last < BEYOND);
    let last = last.map(|last| last.to_string()).unwrap_or_default();
    let mut ask = asking(account, "get object", Method::GET, object)
        .header("range", &format!("bytes={from}-{last}"))?;
    ask = match begun {
        // What goes on must be of the same object.
        Some(begun) if !begun.info.etag.is_empty() => {
            ask.header("if-match", &quoted(&begun.info.etag))?
        }
        _ => conditions(ask, under)?,
    };
    Ok(match account.kind {
        Kind::S3 => ask.header("x-amz-checksum-mode", "ENABLED")?,
        Kind::Azure if begun.is_none() && missing <= AZURE_SUM => {
            ask.header("x-ms-range-get-content-md5", "true")?
        }
        // What is stored compressed comes as it is stored.
        Kind::Gcs => ask.header("accept-encoding", "gzip")?,
        _ => ask,
    })
}

pub(crate) fn stop_of(account: &Account, ask: &Ask, fault: Fault) -> Stop {
    let error = place(fault.error, account, ask);
    if fault.hopeless { Stop::Final(error) } else { Stop::Again(error, None) }
}

/// The first byte's place and the number of bytes that an answer says it has; `None`: it does not say so, or not of how many.
/// A size that is not told is not zero: what is left of an object must not look like its end.
pub(crate) fn extent(headers: &http::HeaderMap, status: StatusCode) -> Option<(u64, u64)> {
    let size = info::size(headers)?;
    if status != StatusCode::PARTIAL_CONTENT {
        let whole = status == StatusCode::OK && text_of(headers, "content-range").is_empty();
        return whole.then_some(size).map(|size| (0, size));
    }
    let (range, _) = text_of(headers, "content-range").strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last && last < size).then(|| (first, last - first + 1))
}

/// The sum that the store told for just these bytes.
pub(crate) fn sum_of(
    kind: Kind,
    found: &Found,
    headers: &http::HeaderMap,
    offset: u64,
    wanted: u64,
) -> Option<Sum> {
    if kind == Kind::Azure && !text_of(headers, "content-range").is_empty() {
        let told = sums::md5_of_header(text_of(headers, "content-md5"));
        if told.is_some() && wanted <= AZURE_SUM {
            return told;
        }
    }
    if offset == 0 && wanted == found.info.size {
        return Sum::parse(&found.info.checksum);
    }
    None
}

async fn refusal(
    account: &Account,
    ask: &Ask,
    status: StatusCode,
    headers: &http::HeaderMap,
    body: &mut object_store::client::HttpResponseBody,
    until: Instant,
) -> Stop {
    let whole = account.refusal(body, until).await;
    let error = error::refused(account, ask, status, headers, &whole);
    match status.as_u16() {
        416 => Stop::Final(invalid(OUTSIDE)),
        501 | 505 => Stop::Final(error),
        408 | 429 | 500.. => Stop::Again(error, retry_after(headers)),
        _ => Stop::Final(error),
    }
}

/// The machine's time in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
