// SPDX-License-Identifier: Apache-2.0
//! How requests end badly, and what the operator reads of it: the cause and the remedy.

use std::time::SystemTime;

use driver_api::{Error, ErrorKind, Retry};
use http::{HeaderMap, StatusCode};

pub(crate) use crate::unreached::{hopeless, never_sent, unanswered};
use crate::{
    account::Account,
    call::Ask,
    config::Kind,
    credentials::{expired, remedy},
    unreached::{PROXY_PASSWORD, untrusted},
};

/// A request that is wrong itself.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, message)
}

/// What this kind of store does not have.
pub(crate) fn unsupported(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::UNSUPPORTED, message)
}

/// A mutation that may or may not have happened.
pub(crate) fn unknown(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::TIMED_OUT, message)
        .with_retry(Retry::PERMANENT)
        .remedy("the outcome is unknown: look at what is there before doing it again")
}

/// What a store says of a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The store's word for it, such as `NoSuchBucket`; empty if it gave none.
    pub code: String,
    /// Its sentence.
    pub message: String,
    /// The region that it names as the right one.
    pub region: String,
}

impl Refusal {
    /// Reads an answer: XML of S3, GCS and Azure, JSON of GCS, headers of Azure and S3.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(&body[..body.len().min(64 << 10)]);
        let header = |name: &str| {
            headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let mut refusal = Self {
            code: element(&text, "Code").unwrap_or_default(),
            message: element(&text, "Message").unwrap_or_default(),
            region: element(&text, "Region").unwrap_or_default(),
        };
        // What is longer is no sentence: an answer may be an attack.
        let sentence = &body[..if body.len() > 64 << 10 { 0 } else { body.len() }];
        if let Ok(json) = serde_json::from_slice::<serde_json::Value>(sentence) {
            let error = &json["error"];
            let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            refusal.code = word(&error["errors"][0]["reason"]);
            refusal.message = word(&error["message"]);
        }
        if refusal.code.is_empty() {
            refusal.code = header("x-ms-error-code");
        }
        if refusal.region.is_empty() {
            refusal.region = header("x-amz-bucket-region");
        }
        // Azure's sentence goes on with ids and a date in lines of their own.
        if let Some(line) = refusal.message.lines().next() {
            refusal.message = line.trim().to_owned();
        }
        // Why it takes no token or signature; not what it signed itself, which is long and helps nobody.
        let detail = element(&text, "AuthenticationErrorDetail").unwrap_or_default();
        if !detail.is_empty() && !detail.to_lowercase().contains("string to sign") {
            refusal.message = detail.lines().next().unwrap_or_default().trim().to_owned();
        }
        refusal
    }
}

/// The text of the first element of this name.
fn element(text: &str, name: &str) -> Option<String> {
    let from = text.find(&format!("<{name}>"))? + name.len() + 2;
    let len = text[from..].find('<')?;
    let raw = &text[from..from + len];
    let unescaped = quick_xml::escape::unescape(raw).ok()?;
    Some(unescaped.into_owned())
}

/// The error of an answer whose status is no success.
pub(crate) fn refused(
    account: &Account,
    ask: &Ask,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Error {
    let refusal = Refusal::read(headers, body);
    let error = judge(account, ask, status, headers, &refusal);
    place(error, account, ask)
}

/// Names what the request was about.
pub(crate) fn place(mut error: Error, account: &Account, ask: &Ask) -> Error {
    if !ask.bucket.is_empty() {
        error = error.with(account.bucket_word(), &ask.bucket);
    }
    if !ask.key.is_empty() {
        error = error.with("object", &ask.key);
    }
    error.with("endpoint", account.shown_endpoint())
}

fn judge(
    account: &Account,
    ask: &Ask,
    status: StatusCode,
    headers: &HeaderMap,
    refusal: &Refusal,
) -> Error {
    let code = refusal.code.as_str();
    let bucket = account.bucket_word();
    let said = said(status, refusal);
    let of = |kind, message: String| Error::new(kind, message);
    match code {
        "NoSuchBucket" | "ContainerNotFound" => {
            return of(ErrorKind::NOT_FOUND, format!("there is no {bucket} {}", ask.bucket))
                .remedy(format!(
                    "create it with `novastor bucket create {}`, or correct its name",
                    ask.bucket
                ));
        }
        "NoSuchUpload" => {
            return of(ErrorKind::NOT_FOUND, "there is no such upload".into())
                .remedy("it was completed or given up; begin another one");
        }
        "NoSuchVersion" => {
            return of(ErrorKind::NOT_FOUND, "the object has no such version".into())
                .remedy("list its versions");
        }
        "InvalidAccessKeyId" => {
            return of(
                ErrorKind::UNAUTHENTICATED,
                format!("the store does not know the access key: {said}"),
            )
            .remedy(format!(
                "{}; or have the key activated at the store",
                remedy(&account.config)
            ));
        }
        "SignatureDoesNotMatch" => {
            return of(
                ErrorKind::UNAUTHENTICATED,
                format!("the store refuses the signature: {said}"),
            )
            .remedy(format!(
                "{}; a proxy that changes requests does the same",
                remedy(&account.config)
            ));
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
            return of(
                ErrorKind::UNAUTHENTICATED,
                format!("the store refuses the session's token: {said}"),
            )
            .remedy(remedy(&account.config));
        }
        "RequestTimeTooSkewed" | "RequestExpired" => return skewed(headers, &said),
        "PermanentRedirect"
        | "AuthorizationHeaderMalformed"
        | "TemporaryRedirect"
        | "IllegalLocationConstraintException"
        | "InvalidLocationConstraint" => {
            return wrong_region(account, refusal, &said);
        }
        "InvalidBucketName" | "InvalidResourceName" => {
            return invalid(format!("the store refuses the {bucket}'s name: {said}")).remedy(
                "names have 3 to 63 of a-z 0-9 - and begin and end with a letter or digit",
            );
        }
        "KeyTooLongError" => {
            return invalid("the key is longer than the store takes").remedy("use a shorter key");
        }
        "BadDigest"
        | "InvalidDigest"
        | "Md5Mismatch"
        | "XAmzContentChecksumMismatch"
        | "Crc64Mismatch" => {
            return of(
                ErrorKind::CORRUPTED,
                format!("what arrived at the store is not what was sent: {said}"),
            )
            .with_retry(Retry::TEMPORARY)
            .remedy("nothing was stored; try again, and look at the network on the way if it happens again");
        }
        "EntityTooLarge" | "RequestBodyTooLarge" => {
            return invalid(format!("the object is larger than the store takes: {said}"))
                .remedy("write it in parts");
        }
        "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull" => {
            return of(ErrorKind::NO_SPACE, format!("the store is full: {said}"))
                .remedy("free space or have the quota raised");
        }
        "BucketAlreadyExists" => {
            return of(ErrorKind::ALREADY_EXISTS, "somebody else has a bucket of that name".into())
                .remedy("choose another name: names are shared by all customers of the store");
        }
        "BucketNotEmpty" => {
            return of(ErrorKind::IN_USE, "the bucket has objects, versions or uploads".into())
                .with_retry(Retry::PERMANENT)
                .remedy("delete them first");
        }
        "InvalidObjectState" | "BlobArchived" => {
            return of(ErrorKind::UNAVAILABLE, format!("the object is archived: {said}"))
                .with_retry(Retry::PERMANENT)
                .remedy("have the store restore it first");
        }
        "NotImplemented" | "MethodNotAllowed" | "XNotImplemented" | "APINotImplemented" => {
            return unsupported(format!("the store does not have this: {said}"));
        }
        // Azure says so of a key that is wrong, and of a clock that is.
        "AuthenticationFailed" if skew(headers).is_some_and(|secs| secs.abs() > 600) => {
            return skewed(headers, &said);
        }
        "AuthenticationFailed" | "AuthorizationFailure" if expired(&account.config).is_some() => {
            let since = expired(&account.config).unwrap_or_default();
            return of(
                ErrorKind::UNAUTHENTICATED,
                format!("the shared access signature has expired, on {since}: {said}"),
            )
            .remedy(remedy(&account.config));
        }
        // Azurite's word for it; Azure's own means that the caller is known and not allowed.
        "AuthorizationFailure" if refusal.message.contains("failed to authenticate") => {
            return of(
                ErrorKind::UNAUTHENTICATED,
                format!("the store refuses the credentials: {said}"),
            )
            .remedy(remedy(&account.config));
        }
        "AuthenticationFailed" | "InvalidAuthenticationInfo" | "NoAuthenticationInformation" => {
            return of(
                ErrorKind::UNAUTHENTICATED,
                format!("the store refuses the credentials: {said}"),
            )
            .remedy(format!("{}; what has expired is refused alike", remedy(&account.config)));
        }
        _ => {}
    }
    if account.kind == Kind::S3
        && !ask.key.is_empty()
        && let Some(error) = encrypted(account, ask, status, refusal, &said)
    {
        return error;
    }
    by_status(account, ask, status, headers, &said)
}

/// The error of a request whose key for encryption is missing or wrong, or that a key must not go with.
fn encrypted(
    account: &Account,
    ask: &Ask,
    status: StatusCode,
    refusal: &Refusal,
    said: &str,
) -> Option<Error> {
    if !matches!(status.as_u16(), 400 | 403) {
        return None;
    }
    let message = refusal.message.to_lowercase();
    let ours = ask.headers.contains_key("x-amz-server-side-encryption-customer-key");
    // Ceph's gateway gives no reason with it.
    let open = ours && account.base.scheme() == "http" && refusal.code == "InvalidRequest";
    if open || message.contains("secure connection") {
        return Some(
            invalid(format!("the store takes keys for encryption over TLS only: {said}"))
                .remedy("set an `endpoint` that begins with https://"),
        );
    }
    let about = message.contains("encrypt") || message.contains("hash of the key");
    // AWS says no more than that it denies the access.
    let denied = ours && !ask.mutates() && status == StatusCode::FORBIDDEN;
    if !about && !denied {
        return None;
    }
    let (why, remedy) = match ours {
        true => (
            "the object was not encrypted with this key, or may not be read",
            "set `sse_customer_key` to the key that the object was written with; without encryption, to none",
        ),
        false => (
            "the object is encrypted with a key of its writer's",
            "set `sse_customer_key` to the key that the object was written with",
        ),
    };
    Some(Error::new(ErrorKind::PERMISSION_DENIED, format!("{why}: {said}")).remedy(remedy))
}

fn by_status(
    account: &Account,
    ask: &Ask,
    status: StatusCode,
    headers: &HeaderMap,
    said: &str,
) -> Error {
    let of = |kind, message: String| Error::new(kind, message);
    match status.as_u16() {
        400 if skew(headers).is_some_and(|secs| secs.abs() > 600) => skewed(headers, said),
        400 => invalid(format!("the store refuses the request: {said}")),
        401 => of(ErrorKind::UNAUTHENTICATED, format!("the store refuses the credentials: {said}"))
            .remedy(remedy(&account.config)),
        403 if skew(headers).is_some_and(|secs| secs.abs() > 600) => skewed(headers, said),
        403 => of(ErrorKind::PERMISSION_DENIED, format!("the store does not allow it: {said}"))
            .remedy("have the rights given to these credentials, or correct them; a wrong key can be told so, too"),
        404 if !ask.key.is_empty() => of(ErrorKind::NOT_FOUND, "there is no such object".into())
            .remedy("list what is there with `novastor object list`"),
        404 if !ask.bucket.is_empty() => {
            of(ErrorKind::NOT_FOUND, format!("there is no {} {}", account.bucket_word(), ask.bucket))
                .remedy(format!("create it with `novastor bucket create {}`, or correct its name", ask.bucket))
        }
        404 => of(ErrorKind::NOT_FOUND, format!("the endpoint knows nothing of that: {said}"))
            .remedy("correct `endpoint`"),
        301 | 302 | 307 | 308 => {
            let refusal = Refusal::read(headers, &[]);
            wrong_region(account, &refusal, said)
        }
        304 => of(ErrorKind::CONFLICT, "the object is unchanged: the condition does not hold".into()),
        407 => of(ErrorKind::UNAUTHENTICATED, "the proxy wants to know who asks".into())
            .remedy(PROXY_PASSWORD),
        409 => of(ErrorKind::CONFLICT, format!("the store refuses it as things are: {said}")),
        412 => of(
            ErrorKind::CONFLICT,
            "the object is not as the condition says; nothing was changed".into(),
        )
        .remedy("look at the object, and decide anew"),
        411 | 413 => invalid(format!("the store refuses the request's length: {said}"))
            .remedy("write the object in parts"),
        416 => invalid("the range lies outside the object"),
        429 | 503 => of(ErrorKind::UNAVAILABLE, format!("the store asks for patience: {said}"))
            .remedy("try again later; fewer requests at once may help"),
        405 | 501 => unsupported(format!("the store does not have this: {said}")),
        507 => of(ErrorKind::NO_SPACE, format!("the store is full: {said}"))
            .remedy("free space or have the quota raised"),
        500..=599 => of(ErrorKind::UNAVAILABLE, format!("the store failed: {said}"))
            .remedy("look at the store's own health and log"),
        _ => of(ErrorKind::INTERNAL, format!("the store answered what nobody expects: {said}")),
    }
}

/// The status and what the store said with it.
fn said(status: StatusCode, refusal: &Refusal) -> String {
    let mut text = status.as_u16().to_string();
    for part in [&refusal.code, &refusal.message] {
        if !part.is_empty() {
            text = format!("{text} {part}");
        }
    }
    if refusal.code.is_empty() && refusal.message.is_empty() {
        text = format!("{text} {}", status.canonical_reason().unwrap_or_default());
    }
    text.chars().take(400).collect()
}

/// Our clock against the server's, in seconds: positive if ours is ahead. `None` if the server told no time.
pub(crate) fn skew(headers: &HeaderMap) -> Option<i64> {
    let theirs = date(headers)?;
    let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs() as i64;
    Some(ours - theirs)
}

/// The server's time in its `Date` header, in seconds since 1970.
pub(crate) fn date(headers: &HeaderMap) -> Option<i64> {
    headers.get(http::header::DATE).and_then(|date| date.to_str().ok()).and_then(http_date)
}

/// A date of HTTP in seconds since 1970.
pub(crate) fn http_date(text: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc2822(text).ok().map(|date| date.timestamp())
}

fn skewed(headers: &HeaderMap, said: &str) -> Error {
    let by = match skew(headers) {
        Some(secs) if secs > 0 => format!("this machine's clock is {secs} s ahead of the store's"),
        Some(secs) => format!("this machine's clock is {} s behind the store's", -secs),
        None => "this machine's clock differs from the store's".to_owned(),
    };
    Error::new(ErrorKind::UNAUTHENTICATED, format!("{by}, and it refuses such requests: {said}"))
        .remedy("set the clock, and have a time service keep it (timedatectl set-ntp true)")
}

fn wrong_region(account: &Account, refusal: &Refusal, said: &str) -> Error {
    let here = account.region();
    if refusal.region.is_empty() || refusal.region == here {
        return invalid(format!("the bucket is to be asked for elsewhere: {said}"))
            .remedy("correct `region` and `endpoint`");
    }
    let message = format!(
        "the bucket is in region {}, the backend asks in region {here}: {said}",
        refusal.region
    );
    invalid(message).remedy(format!("set region = {:?}, and `endpoint` to fit it", refusal.region))
}

/// The error of object_store itself, as when credentials cannot be had.
pub(crate) fn of_store(error: &object_store::Error, doing: &str) -> Error {
    use object_store::Error as Theirs;
    if let Some(ours) = of_ours(error) {
        return ours;
    }
    let kind = match error {
        Theirs::NotFound { .. } => ErrorKind::NOT_FOUND,
        Theirs::AlreadyExists { .. } => ErrorKind::ALREADY_EXISTS,
        Theirs::Precondition { .. } | Theirs::NotModified { .. } => ErrorKind::CONFLICT,
        Theirs::PermissionDenied { .. } => ErrorKind::PERMISSION_DENIED,
        Theirs::Unauthenticated { .. } => ErrorKind::UNAUTHENTICATED,
        Theirs::NotSupported { .. } | Theirs::NotImplemented { .. } => ErrorKind::UNSUPPORTED,
        Theirs::InvalidPath { .. } | Theirs::UnknownConfigurationKey { .. } => {
            ErrorKind::INVALID_ARGUMENT
        }
        _ => ErrorKind::UNAVAILABLE,
    };
    Error::new(kind, format!("{doing}: {error}")).caused_by(error)
}

/// The error of our own that went through object_store's interface.
fn of_ours(error: &object_store::Error) -> Option<Error> {
    match error {
        object_store::Error::Generic { source, .. } => source.downcast_ref::<Error>().cloned(),
        _ => None,
    }
}

/// The error when no credentials can be had.
pub(crate) fn no_credentials(error: &object_store::Error) -> Error {
    if let Some(ours) = of_ours(error) {
        return ours;
    }
    if let Some(untrusted) = untrusted(error) {
        return untrusted;
    }
    let theirs = of_store(error, "there are no credentials");
    Error::new(ErrorKind::UNAUTHENTICATED, theirs.message().to_owned())
        .caused_by(error)
        .remedy("look at where the backend's credentials come from: keys, `service_account`, environment or metadata service")
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
