// SPDX-License-Identifier: Apache-2.0
//! Everything but the bytes of objects: buckets and what is set on them, listings, uploads, tags, deletions in bulk, signed
//! URLs. One function for each method of [`Objects`](driver_api::ext::Objects), which checks names and limits and hands over
//! to the kind of store that the account is for.
//!
//! ```text
//!            s3                azure                 gcs                  swift
//! buckets    XML               XML                   JSON                 client of its own
//! versioning ?versioning       refused (account's)   JSON                 X-Versions-Enabled
//! policy     JSON, ?policy     JSON of ours <> ACL   IAM                  JSON of ours <> two ACLs
//! lifecycle  XML, ?lifecycle   refused (account's)   JSON                 refused; `expire` by prefix
//! uploads    ?uploads          blocks                as S3                large objects
//! bulk       ?delete           singles               singles              bulk delete
//! sign       SigV4, query      SAS                   V4 by object_store   TempURL
//! ```

pub(crate) mod azure;
pub(crate) mod ending;
pub(crate) mod gcs;
pub(crate) mod names;
pub(crate) mod outcome;
pub(crate) mod pages;
pub(crate) mod parts;
pub(crate) mod s3;
pub(crate) mod singles;
pub(crate) mod swift;

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use driver_api::{
    Error, ErrorKind, RString, RVec, Result, Tuple2,
    ext::{
        BucketInfo, BucketSpec, Conditions, DeleteOutcome, LifecycleRule, ListPage, ListQuery,
        ObjectChange, ObjectInfo, ObjectName, PartInfo, PartPage, PutOptions, SignRequest,
        SignedMethod, SignedUrl, UploadInfo, UploadPage, UploadQuery,
    },
};

use crate::{
    account::Account,
    config::Kind,
    error::{invalid, unsupported},
    mark,
    names::{check_bucket, check_key, check_object},
    probing, put,
    wire::time,
};

/// The longest time for which a URL is signed: S3's and GCS's limit. Azure and Swift have none, but a URL that cannot be
/// taken back without changing the account's key should not live longer either.
pub(crate) const MAX_SIGN_SECS: u64 = 7 * 24 * 3600;

/// The most names of a deletion in bulk.
pub(crate) const MAX_BULK: u32 = 1000;

/// The most parts of an upload.
pub(crate) fn max_parts(kind: Kind) -> u32 {
    match kind {
        Kind::S3 | Kind::Gcs => 10_000,
        Kind::Azure => azure::uploads::MAX_PARTS,
        Kind::Swift => swift::uploads::MAX_PARTS,
    }
}

/// The most entries of a page.
pub(crate) fn max_page(kind: Kind) -> u32 {
    match kind {
        Kind::S3 | Kind::Gcs => s3::listing::MAX_PAGE,
        Kind::Azure => azure::listing::MAX_PAGE,
        Kind::Swift => swift::listing::MAX_PAGE,
    }
}

/// [`Objects::create_bucket`](driver_api::ext::Objects::create_bucket).
pub(crate) async fn create_bucket(
    account: &Account,
    until: Instant,
    spec: &BucketSpec,
) -> Result<BucketInfo> {
    check_bucket(account.kind, &spec.name)?;
    match account.kind {
        Kind::S3 => s3::buckets::create(account, until, spec).await,
        Kind::Azure => azure::containers::create(account, until, spec).await,
        Kind::Gcs => gcs::buckets::create(account, until, spec).await,
        Kind::Swift => swift::containers::create(account, until, spec).await,
    }
}

/// [`Objects::delete_bucket`](driver_api::ext::Objects::delete_bucket).
pub(crate) async fn delete_bucket(account: &Account, until: Instant, bucket: &str) -> Result<()> {
    check_bucket(account.kind, bucket)?;
    match account.kind {
        Kind::S3 => s3::buckets::delete(account, until, bucket).await,
        Kind::Azure => azure::containers::delete(account, until, bucket).await,
        Kind::Gcs => gcs::buckets::delete(account, until, bucket).await,
        Kind::Swift => swift::containers::delete(account, until, bucket).await,
    }
}

/// [`Objects::buckets`](driver_api::ext::Objects::buckets).
pub(crate) async fn buckets(account: &Account, until: Instant) -> Result<RVec<BucketInfo>> {
    match account.kind {
        Kind::S3 => s3::buckets::list(account, until).await,
        Kind::Azure => azure::containers::list(account, until).await,
        Kind::Gcs => gcs::buckets::list(account, until).await,
        Kind::Swift => swift::containers::list(account, until).await,
    }
}

/// [`Objects::bucket`](driver_api::ext::Objects::bucket).
pub(crate) async fn bucket(account: &Account, until: Instant, bucket: &str) -> Result<BucketInfo> {
    check_bucket(account.kind, bucket)?;
    match account.kind {
        Kind::S3 => s3::buckets::show(account, until, bucket).await,
        Kind::Azure => azure::containers::show(account, until, bucket).await,
        Kind::Gcs => gcs::buckets::show(account, until, bucket).await,
        Kind::Swift => swift::containers::show(account, until, bucket).await,
    }
}

/// [`Objects::set_versioning`](driver_api::ext::Objects::set_versioning).
pub(crate) async fn set_versioning(
    account: &Account,
    until: Instant,
    bucket: &str,
    on: bool,
) -> Result<BucketInfo> {
    check_bucket(account.kind, bucket)?;
    match account.kind {
        Kind::S3 => {
            s3::versioning::set(account, until, bucket, on).await?;
            s3::buckets::show(account, until, bucket).await
        }
        Kind::Azure => Err(unsupported(azure::NO_VERSIONING).with("bucket", bucket)),
        Kind::Gcs => gcs::buckets::set_versioning(account, until, bucket, on).await,
        Kind::Swift => swift::containers::set_versioning(account, until, bucket, on).await,
    }
}

/// [`Objects::policy`](driver_api::ext::Objects::policy).
pub(crate) async fn policy(account: &Account, until: Instant, bucket: &str) -> Result<String> {
    check_bucket(account.kind, bucket)?;
    match account.kind {
        Kind::S3 => s3::policy::get(account, until, bucket).await,
        Kind::Azure => azure::policy::get(account, until, bucket).await,
        Kind::Gcs => gcs::policy::get(account, until, bucket).await,
        Kind::Swift => swift::containers::policy(account, until, bucket).await,
    }
}

/// [`Objects::set_policy`](driver_api::ext::Objects::set_policy).
pub(crate) async fn set_policy(
    account: &Account,
    until: Instant,
    bucket: &str,
    policy: &str,
) -> Result<()> {
    check_bucket(account.kind, bucket)?;
    match account.kind {
        Kind::S3 => s3::policy::set(account, until, bucket, policy).await,
        Kind::Azure => azure::policy::set(account, until, bucket, policy).await,
        Kind::Gcs => gcs::policy::set(account, until, bucket, policy).await,
        Kind::Swift => swift::containers::set_policy(account, until, bucket, policy).await,
    }
}

/// [`Objects::lifecycle`](driver_api::ext::Objects::lifecycle).
pub(crate) async fn lifecycle(
    account: &Account,
    until: Instant,
    bucket: &str,
) -> Result<RVec<LifecycleRule>> {
    check_bucket(account.kind, bucket)?;
    match account.kind {
        Kind::S3 => s3::lifecycle::get(account, until, bucket).await,
        Kind::Azure => Err(unsupported(azure::NO_LIFECYCLE).with("bucket", bucket)),
        Kind::Gcs => gcs::lifecycle::get(account, until, bucket).await,
        Kind::Swift => {
            Err(unsupported(swift::NO_LIFECYCLE).with("bucket", bucket).remedy(swift::INSTEAD))
        }
    }
}

/// [`Objects::set_lifecycle`](driver_api::ext::Objects::set_lifecycle).
pub(crate) async fn set_lifecycle(
    account: &Account,
    until: Instant,
    bucket: &str,
    rules: &[LifecycleRule],
) -> Result<RVec<LifecycleRule>> {
    check_bucket(account.kind, bucket)?;
    match account.kind {
        Kind::S3 => s3::lifecycle::set(account, until, bucket, rules).await,
        Kind::Azure => Err(unsupported(azure::NO_LIFECYCLE).with("bucket", bucket)),
        Kind::Gcs => gcs::lifecycle::set(account, until, bucket, rules).await,
        Kind::Swift => {
            Err(unsupported(swift::NO_LIFECYCLE).with("bucket", bucket).remedy(swift::INSTEAD))
        }
    }
}

/// [`Objects::list`](driver_api::ext::Objects::list).
pub(crate) async fn list(
    account: &Account,
    until: Instant,
    bucket: &str,
    query: &ListQuery,
) -> Result<ListPage> {
    check_bucket(account.kind, bucket)?;
    match account.kind {
        Kind::Gcs if query.versions => gcs::versions::list(account, until, bucket, query).await,
        Kind::S3 | Kind::Gcs => s3::listing::list(account, until, bucket, query).await,
        Kind::Azure => azure::listing::list(account, until, bucket, query).await,
        Kind::Swift => swift::listing::list(account, until, bucket, query).await,
    }
}

/// [`Objects::delete_many`](driver_api::ext::Objects::delete_many).
pub(crate) async fn delete_many(
    account: &Account,
    until: Instant,
    bucket: &str,
    objects: &[ObjectName],
) -> Result<RVec<DeleteOutcome>> {
    check_bucket(account.kind, bucket)?;
    for object in objects {
        check_object(account.kind, object)?;
        if object.bucket != bucket {
            return Err(
                invalid("one of the objects is of another bucket").with("object", &object.key)
            );
        }
    }
    if objects.len() > MAX_BULK as usize {
        return Err(invalid(format!(
            "{} names are more than the {} of one request",
            objects.len(),
            MAX_BULK
        )));
    }
    match account.kind {
        _ if objects.is_empty() => Ok(RVec::new()),
        Kind::S3 => s3::bulk::delete(account, until, bucket, objects).await,
        Kind::Azure | Kind::Gcs => Ok(singles::delete(account, until, objects).await),
        Kind::Swift => Ok(swift::delete_many(account, until, objects).await),
    }
}

/// [`Objects::tags`](driver_api::ext::Objects::tags).
pub(crate) async fn tags(
    account: &Account,
    until: Instant,
    object: &ObjectName,
) -> Result<RVec<Tuple2<RString, RString>>> {
    check_object(account.kind, object)?;
    match account.kind {
        Kind::S3 => s3::tags::get(account, until, object).await,
        Kind::Azure => azure::change::tags(account, until, object).await,
        Kind::Gcs => Err(unsupported("objects of GCS have no tags").remedy("use metadata")),
        Kind::Swift => Err(unsupported("objects of Swift have no tags").remedy("use metadata")),
    }
}

/// [`Objects::change`](driver_api::ext::Objects::change).
pub(crate) async fn change(
    account: &Arc<Account>,
    until: Instant,
    latest: Option<Instant>,
    object: &ObjectName,
    change: &ObjectChange,
) -> Result<ObjectInfo> {
    check_object(account.kind, object)?;
    match account.kind {
        Kind::S3 => s3::change::change(account, until, latest, object, change).await,
        Kind::Azure => azure::change::change(account, until, object, change).await,
        Kind::Gcs => gcs::change::change(account, until, object, change).await,
        Kind::Swift => swift::change(account, until, object, change).await,
    }
}

/// [`Objects::begin_upload`](driver_api::ext::Objects::begin_upload).
pub(crate) async fn begin_upload(
    account: &Account,
    until: Instant,
    object: &ObjectName,
    options: &PutOptions,
) -> Result<UploadInfo> {
    check_object(account.kind, object)?;
    if !object.version.is_empty() {
        return Err(invalid("an old version cannot be written"));
    }
    // What the completion would refuse is refused before gigabytes are sent for it.
    put::check_conditions(&options.conditions)?;
    let need = probing::Need::of_completion(&options.conditions);
    probing::check(account, &object.bucket, need, until).await?;
    match account.kind {
        Kind::S3 | Kind::Gcs => s3::uploads::begin(account, until, object, options).await,
        Kind::Azure => azure::uploads::begin(account, until, object, options).await,
        Kind::Swift => swift::uploads::begin(account, until, object, options).await,
    }
}

fn check_upload(account: &Account, upload: &UploadInfo) -> Result<()> {
    check_bucket(account.kind, &upload.bucket)?;
    check_key(account.kind, &upload.key)?;
    if !upload.mark.is_empty() {
        mark::of(&upload.mark)?;
    }
    // Without an id some requests would mean the object itself.
    if upload.id.is_empty() || upload.id.chars().any(char::is_control) {
        return Err(invalid("an upload without an id").with("object", &upload.key));
    }
    Ok(())
}

/// [`Objects::put_part`](driver_api::ext::Objects::put_part) of Swift; the other stores' is in [`crate::parts`].
pub(crate) async fn put_part(
    account: &Account,
    until: Instant,
    upload: &UploadInfo,
    number: u32,
    data: Bytes,
) -> Result<PartInfo> {
    check_upload(account, upload)?;
    check_number(account, number)?;
    swift::uploads::put_part(account, until, upload, number, data).await
}

fn check_number(account: &Account, number: u32) -> Result<()> {
    let most = max_parts(account.kind);
    if !(1..=most).contains(&number) {
        return Err(invalid(format!("part {number}: parts go from 1 to {most}")));
    }
    Ok(())
}

/// [`Objects::parts`](driver_api::ext::Objects::parts).
pub(crate) async fn parts(
    account: &Account,
    until: Instant,
    upload: &UploadInfo,
    after: u32,
    limit: u32,
) -> Result<PartPage> {
    check_upload(account, upload)?;
    match account.kind {
        Kind::S3 | Kind::Gcs => s3::uploads::parts(account, until, upload, after, limit).await,
        Kind::Azure => azure::uploads::parts(account, until, upload, after, limit).await,
        Kind::Swift => swift::uploads::parts(account, until, upload, after, limit).await,
    }
}

/// [`Objects::complete_upload`](driver_api::ext::Objects::complete_upload).
pub(crate) async fn complete_upload(
    account: &Account,
    until: Instant,
    upload: &UploadInfo,
    parts: &[PartInfo],
    conditions: &Conditions,
) -> Result<ObjectInfo> {
    check_upload(account, upload)?;
    self::parts::check(parts, max_parts(account.kind))?;
    if conditions.if_modified_since != 0 || conditions.if_unmodified_since != 0 {
        return Err(invalid("conditions on times are for reading only"));
    }
    match account.kind {
        Kind::S3 | Kind::Gcs => {
            s3::uploads::complete(account, until, upload, parts, conditions).await
        }
        Kind::Azure => azure::uploads::complete(account, until, upload, parts, conditions).await,
        Kind::Swift => swift::uploads::complete(account, until, upload, parts, conditions).await,
    }
}

/// [`Objects::abort_upload`](driver_api::ext::Objects::abort_upload).
pub(crate) async fn abort_upload(
    account: &Account,
    until: Instant,
    upload: &UploadInfo,
) -> Result<()> {
    check_upload(account, upload)?;
    match account.kind {
        Kind::S3 | Kind::Gcs => s3::uploads::abort(account, until, upload).await,
        Kind::Azure => azure::uploads::abort(account, until, upload).await,
        Kind::Swift => swift::uploads::abort(account, until, upload).await,
    }
}

/// [`Objects::uploads`](driver_api::ext::Objects::uploads).
pub(crate) async fn uploads(
    account: &Account,
    until: Instant,
    bucket: &str,
    query: &UploadQuery,
) -> Result<UploadPage> {
    check_bucket(account.kind, bucket)?;
    let (prefix, page) = (query.prefix.as_str(), query.page.as_str());
    match account.kind {
        Kind::S3 | Kind::Gcs => {
            s3::uploads::list(account, until, bucket, prefix, page, query.limit).await
        }
        Kind::Azure => {
            azure::uploads::list(account, until, bucket, prefix, page, query.limit).await
        }
        Kind::Swift => {
            swift::uploads::list(account, until, bucket, prefix, page, query.limit).await
        }
    }
}

/// [`Objects::sign`](driver_api::ext::Objects::sign).
pub(crate) async fn sign(
    account: &Account,
    until: Instant,
    request: &SignRequest,
) -> Result<SignedUrl> {
    check_object(account.kind, &request.object)?;
    if !(1..=MAX_SIGN_SECS).contains(&request.expire_secs) {
        return Err(invalid(format!(
            "a URL for {} s: they live from 1 to {MAX_SIGN_SECS} s (7 days)",
            request.expire_secs
        )));
    }
    if request.method == SignedMethod::PUT_PART {
        check_number(account, request.part)?;
        if request.upload.is_empty() {
            return Err(invalid("a part belongs to an upload, and none is named"));
        }
    } else if !request.upload.is_empty() || request.part != 0 {
        return Err(invalid("only URLs for parts belong to an upload"));
    }
    let writes = matches!(request.method, SignedMethod::PUT | SignedMethod::PUT_PART);
    if writes && !request.object.version.is_empty() {
        return Err(invalid("an old version cannot be written"));
    }
    let now = time::now_ms() / 1000;
    let signing = async {
        match account.kind {
            Kind::S3 => s3::sign::sign(account, request, now).await,
            Kind::Azure => azure::sign::sign(account, until, request, now).await,
            Kind::Gcs => gcs::sign::sign(account, request, now).await,
            Kind::Swift => swift::sign::sign(account, until, request, now).await,
        }
    };
    // Credentials may have to be asked for.
    tokio::time::timeout_at(until.into(), signing).await.unwrap_or_else(|_| {
        let error =
            Error::new(ErrorKind::UNAVAILABLE, "no credentials to sign with within the deadline");
        Err(error.remedy("look at where the backend's credentials come from"))
    })
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
