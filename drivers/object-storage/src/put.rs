// SPDX-License-Identifier: Apache-2.0
//! Writing an object whole. The store is given a sum and checks it; what it tells is compared with ours.

use std::time::Instant;

use bytes::Bytes;
use driver_api::{
    Error, ErrorKind, Result,
    ext::{Conditions, ObjectInfo, ObjectName, PutOptions},
};
use http::Method;

use crate::{
    account::Account,
    call::{Answer, Ask},
    config::{Checksum, Encryption, Kind},
    error::{self, invalid},
    get::{self, now_ms},
    info::{self, Found, is_md5},
    mark, outcome, probing,
    sums::{self, Sum, Way},
};

/// What was damaged on its way is sent so often.
const DAMAGED: u32 = 3;

/// Conditions of a write, as far as any store has them.
pub(crate) fn check_conditions(conditions: &Conditions) -> Result<()> {
    if conditions.if_modified_since > 0 || conditions.if_unmodified_since > 0 {
        return Err(invalid("conditions on the time are for reading only")
            .remedy("use the ETag: `if_match`"));
    }
    if !conditions.if_none_match.is_empty() && conditions.if_none_match != "*" {
        return Err(invalid(
            "a write can be create-only (`if_none_match` = \"*\"), not under another ETag's absence",
        ));
    }
    if !conditions.if_none_match.is_empty() && !conditions.if_match.is_empty() {
        return Err(invalid("a write is either create-only or for a certain ETag"));
    }
    Ok(())
}

/// The error of a refused condition.
pub(crate) fn unmet(account: &Account, ask: &Ask, conditions: &Conditions) -> Error {
    let error = if conditions.if_none_match == "*" {
        Error::new(
            ErrorKind::ALREADY_EXISTS,
            "an object of that name is there already; nothing was changed",
        )
        .remedy("choose another key, or write without create-only")
    } else {
        Error::new(
            ErrorKind::CONFLICT,
            "the object is not the one that was to be changed; nothing was",
        )
        .remedy("look at the object as it is now, and decide anew")
    };
    error::place(error, account, ask)
}

/// Whether an answer says that the condition of a mutation does not hold.
pub(crate) fn is_unmet(answer: &Answer, conditions: &Conditions) -> bool {
    if conditions.is_empty() {
        return false;
    }
    let code = error::Refusal::read(&answer.headers, &answer.body).code;
    match answer.status.as_u16() {
        412 => true,
        409 => matches!(code.as_str(), "BlobAlreadyExists" | "conflict" | "PreconditionFailed"),
        // What is to be replaced is not there at all.
        404 => {
            !conditions.if_match.is_empty()
                && !matches!(code.as_str(), "NoSuchBucket" | "ContainerNotFound")
        }
        _ => false,
    }
}

/// Puts the condition of a mutation into a request; GCS has generations for it, found by asking.
pub(crate) async fn condition(
    account: &Account,
    ask: Ask,
    conditions: &Conditions,
    until: Instant,
) -> Result<Ask> {
    if conditions.is_empty() {
        return Ok(ask);
    }
    if !account.conditional() {
        return Err(probing::switched_off());
    }
    let create = conditions.if_none_match == "*";
    if account.kind == Kind::Gcs {
        let generation = if create {
            "0".to_owned()
        } else {
            generation(account, &ask, conditions, until).await?
        };
        return ask.header("x-goog-if-generation-match", &generation);
    }
    if create {
        ask.header("if-none-match", "*")
    } else {
        let heeded = account.probed.get().copied().unwrap_or_default();
        ask.header("if-match", &heeded.written(&conditions.if_match))
    }
}

/// The generation that has the wanted ETag.
async fn generation(
    account: &Account,
    ask: &Ask,
    conditions: &Conditions,
    until: Instant,
) -> Result<String> {
    let object = ObjectName::new(&ask.bucket, &ask.key);
    match get::find(account, &object, &Conditions::default(), until).await {
        Ok(found)
            if conditions.if_match == "*"
                || found.info.etag == info::unquoted(&conditions.if_match) =>
        {
            Ok(found.generation)
        }
        Ok(_) => Err(unmet(account, ask, conditions)),
        Err(error)
            if error.kind() == ErrorKind::NOT_FOUND && error.message().contains("object") =>
        {
            Err(unmet(account, ask, conditions))
        }
        Err(error) => Err(error),
    }
}

/// Which sum the store is given.
pub(crate) fn way(account: &Account) -> Way {
    match (account.kind, account.checksum()) {
        (Kind::S3, Checksum::Crc32c) | (Kind::Gcs, _) => Way::Crc32c,
        _ => Way::Md5,
    }
}

/// Puts the sum over the body into the request.
pub(crate) fn with_sum(account: &Account, ask: Ask, sum: Sum) -> Result<Ask> {
    match (account.kind, sum) {
        (Kind::Swift, _) => ask.header("etag", &sum.hex()),
        (Kind::Gcs, Sum::Crc32c(_)) => {
            ask.header("x-goog-hash", &format!("crc32c={}", sum.base64()))
        }
        (_, Sum::Crc32c(_)) => ask
            .header("x-amz-checksum-crc32c", &sum.base64())?
            .header("x-amz-sdk-checksum-algorithm", "CRC32C"),
        (_, Sum::Md5(_)) => ask.header("content-md5", &sum.base64()),
    }
}

/// Compares the sum that the answer tells with ours; a store that tells none cannot be compared.
pub(crate) fn compare(account: &Account, answer: &Answer, sum: Sum) -> Result<()> {
    let told = match (account.kind, sum) {
        (Kind::S3, Sum::Md5(_)) => {
            let etag = info::unquoted(answer.header("etag"));
            let other = answer.header("x-amz-server-side-encryption").starts_with("aws:kms")
                || !account.customer.is_empty()
                || matches!(
                    account.config.server_side_encryption,
                    Some(Encryption::Kms | Encryption::KmsDsse)
                );
            (is_md5(etag) && !other).then(|| format!("md5:{}", etag.to_lowercase()))
        }
        (Kind::Azure, Sum::Md5(_)) => {
            sums::md5_of_header(answer.header("content-md5")).map(Sum::told)
        }
        _ => sums::told(account.kind, &answer.headers),
    };
    match told {
        Some(told) if told != sum.told() => {
            Err(sums::damaged("what arrived at the store is not what was sent", &sum.told(), &told))
        }
        _ => Ok(()),
    }
}

/// Writes an object.
pub(crate) async fn put(
    account: &Account,
    object: &ObjectName,
    data: Bytes,
    options: &PutOptions,
    until: Instant,
) -> Result<ObjectInfo> {
    check_conditions(&options.conditions)?;
    if !object.version.is_empty() {
        return Err(
            invalid("a version cannot be written, only the object").with("object", &object.key)
        );
    }
    probing::check(account, &object.bucket, probing::Need::of(&options.conditions), until).await?;
    let mark = match options.conditions.is_empty() && options.mark.is_empty() {
        true => String::new(),
        false => mark::of(&options.mark)?,
    };
    let sum = sums::make(way(account), &data).await?;
    let mut ask = Ask::new("put object", Method::PUT, &object.bucket, &object.key)
        .headers(&account.encrypt)
        .headers(&account.customer)
        .body(data);
    ask = info::write(account, ask, options, &mark)?;
    ask = with_sum(account, ask, sum)?;
    if account.kind == Kind::Azure {
        ask = ask.header("x-ms-blob-type", "BlockBlob")?;
    }
    let bare = ask.clone();
    let mut conditions = options.conditions.clone();
    let mut ask = condition(account, ask, &conditions, until).await?;
    for attempt in 1.. {
        let answer = account.ask(&ask, until).await?;
        if !answer.status.is_success() {
            let found = refused(account, &ask, object, &mark, &conditions, &answer, until).await?;
            return Ok(found.info);
        }
        outcome::confirmed(account, &ask, &answer, true)?;
        match compare(account, &answer, sum) {
            Ok(()) => return Ok(written(account, object, &ask, &answer, options, sum)),
            Err(error) if attempt == DAMAGED => return Err(error::place(error, account, &ask)),
            Err(_) => {
                // The damaged object is ours: the next attempt replaces just that one.
                if !conditions.is_empty() {
                    conditions = Conditions::matching(info::unquoted(answer.header("etag")));
                    ask = condition(account, bare.clone(), &conditions, until).await?;
                }
            }
        }
    }
    Err(Error::new(ErrorKind::INTERNAL, "no attempt was made"))
}

/// What a refused write comes to: the object, if it had been written by an attempt whose answer was lost.
pub(crate) async fn refused(
    account: &Account,
    ask: &Ask,
    object: &ObjectName,
    mark: &str,
    conditions: &Conditions,
    answer: &Answer,
    until: Instant,
) -> Result<Found> {
    let told = match is_unmet(answer, conditions) {
        true => unmet(account, ask, conditions),
        false => answer.error(account, ask),
    };
    outcome::settle(account, ask, object, mark, answer, until, told).await
}

fn written(
    account: &Account,
    object: &ObjectName,
    ask: &Ask,
    answer: &Answer,
    options: &PutOptions,
    sum: Sum,
) -> ObjectInfo {
    let mut info = info::read(account.kind, &object.key, &answer.headers).info;
    info.size = ask.body.len() as u64;
    if info.modified_ms == 0 {
        info.modified_ms = error::date(&answer.headers)
            .and_then(|secs| u64::try_from(secs).ok())
            .map_or_else(now_ms, |secs| secs * 1000);
    }
    info.content_type = match options.content_type.as_str() {
        "" => "application/octet-stream".into(),
        text => text.into(),
    };
    info.metadata = options.metadata.clone();
    info.metadata.sort();
    info.storage_class = options.storage_class.clone();
    if options.expire_after_secs > 0 {
        info.expires_ms = now_ms().saturating_add(options.expire_after_secs.saturating_mul(1000));
    }
    info.checksum = sum.told().into();
    info
}
