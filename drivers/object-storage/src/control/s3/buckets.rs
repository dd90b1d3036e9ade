// SPDX-License-Identifier: Apache-2.0
use driver_api::RVec;
use std::time::Instant;

use driver_api::{
    Error, ErrorKind, Result,
    ext::{BucketInfo, BucketSpec, Versioning},
};
use http::Method;

use super::{listing, versioning};
use crate::{
    account::Account,
    call::Answer,
    control::{names, pages::Tokens},
    error::invalid,
    wire::{AnswerExt, AskExt, about, ask, at_bucket, at_service, put_header, time, xml},
};

/// The canned access lists that a bucket can be created with.
const ACLS: [&str; 4] = ["private", "public-read", "public-read-write", "authenticated-read"];

/// Creates a bucket, or finds it as it is to be.
pub(crate) async fn create(
    account: &Account,
    until: Instant,
    spec: &BucketSpec,
) -> Result<BucketInfo> {
    let mut acl = None;
    for option in &spec.options {
        match option.0.as_str() {
            "acl" if ACLS.contains(&option.1.as_str()) => acl = Some(option.1.as_str()),
            "acl" => {
                return Err(invalid(format!(
                    "`acl` is {} instead of one of {}",
                    option.1,
                    ACLS.join(", ")
                )));
            }
            name => return Err(names::unknown_option(name, "acl")),
        }
    }
    let head = head(account, until, &spec.name).await?;
    if head.status.is_success() {
        return existing(account, until, spec).await;
    }
    match head.status.as_u16() {
        404 => {}
        400 | 401 | 403 => return Err(why_not(account, until, &spec.name).await),
        500.. => {
            let request = ask("show bucket", Method::HEAD, at_bucket(&spec.name, &[]));
            return Err(head.error(account, &request));
        }
        _ => return Err(taken(&spec.name)),
    }
    let region = if spec.region.is_empty() { account.region() } else { spec.region.as_str() };
    let url = at_bucket(&spec.name, &[]);
    let mut request = ask("create bucket", Method::PUT, url);
    if !matches!(region, "us-east-1" | "") {
        xml::check_text("region", region)?;
        let mut document = xml::Writer::new();
        document.element_with(
            "CreateBucketConfiguration",
            "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"",
            |inside| {
                inside.text("LocationConstraint", region);
            },
        );
        request = request.typed("application/xml", document.finish());
    }
    if let Some(acl) = acl {
        put_header(&mut request, "x-amz-acl", acl)?;
    }
    let reply = account.ask(&request, until).await?;
    if reply.code() == "BucketAlreadyOwnedByYou"
        || (reply.doubt.is_some() && reply.status.as_u16() == 409)
    {
        return existing(account, until, spec).await;
    }
    if !reply.status.is_success() {
        return Err(reply.error(account, &request));
    }
    if spec.versioning {
        versioning::set(account, until, &spec.name, true).await.map_err(|error| {
            error
                .with("bucket", &spec.name)
                .remedy("the bucket was created, but does not keep versions: try that again")
        })?;
    }
    show(account, until, &spec.name).await
}

/// A bucket of that name is there: it must be the caller's, and as it is to be.
async fn existing(account: &Account, until: Instant, spec: &BucketSpec) -> Result<BucketInfo> {
    if !list(account, until).await?.iter().any(|bucket| bucket.name == spec.name) {
        return Err(taken(&spec.name));
    }
    let info = show(account, until, &spec.name).await?;
    let wanted = if spec.region.is_empty() { &info.region } else { &spec.region };
    names::same_bucket(&info, wanted, spec)?;
    Ok(info)
}

/// HEAD says nothing of why it is refused: the bucket may be somebody else's, or the credentials may be wrong.
async fn why_not(account: &Account, until: Instant, bucket: &str) -> Error {
    let request = ask("show bucket", Method::GET, at_bucket(bucket, &[("location", None)]));
    match account.ask(&request, until).await {
        Ok(reply) if reply.status.is_client_error() && reply.code() != "AccessDenied" => {
            reply.error(account, &request)
        }
        Ok(_) => taken(bucket),
        Err(error) => error,
    }
}

fn taken(bucket: &str) -> Error {
    Error::new(ErrorKind::ALREADY_EXISTS, "the bucket exists, and belongs to somebody else")
        .during("create bucket")
        .with("bucket", bucket)
        .remedy("choose another name")
}

async fn head(account: &Account, until: Instant, bucket: &str) -> Result<Answer> {
    account.ask(&ask("show bucket", Method::HEAD, at_bucket(bucket, &[])), until).await
}

/// Deletes an empty bucket.
pub(crate) async fn delete(account: &Account, until: Instant, bucket: &str) -> Result<()> {
    // Some stores give up uploads together with their bucket without a word.
    let uploads = super::uploads::list(account, until, bucket, "", "", 1).await?;
    if let Some(upload) = uploads.uploads.first() {
        return Err(names::not_empty(bucket, &format!("an unfinished upload of {:?}", upload.key)));
    }
    let request = ask("delete bucket", Method::DELETE, at_bucket(bucket, &[]));
    let reply = account.ask(&request, until).await?;
    if reply.status.is_success() || (reply.doubt.is_some() && reply.status.as_u16() == 404) {
        return Ok(());
    }
    if reply.code() != "BucketNotEmpty" {
        return Err(reply.error(account, &request));
    }
    let left = listing::first_left(account, until, bucket)
        .await
        .unwrap_or_else(|_| "something".to_owned());
    Err(names::not_empty(bucket, &left))
}

/// All buckets of the caller.
pub(crate) async fn list(account: &Account, until: Instant) -> Result<RVec<BucketInfo>> {
    let mut buckets = RVec::new();
    let (mut token, mut tokens) = (String::new(), Tokens::default());
    loop {
        let query = [("continuation-token", Some(token.as_str()))];
        let url = at_service(if token.is_empty() { &[] } else { &query });
        let request = ask("list buckets", Method::GET, url);
        let reply = account.ask_ok(&request, until).await?;
        let root = reply.document("ListAllMyBucketsResult", &request)?;
        for bucket in root.child("Buckets").into_iter().flat_map(|buckets| buckets.all("Bucket")) {
            let mut info = BucketInfo::new(bucket.need("Name")?);
            info.created_ms = time::iso_ms(bucket.text("CreationDate"));
            info.region = bucket.text("BucketRegion").into();
            buckets.push(info);
        }
        match root.text("ContinuationToken") {
            "" => break,
            next => token = tokens.next(next).map_err(|error| about(error, &request))?,
        }
    }
    buckets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(buckets)
}

/// One bucket, with where it is and whether it keeps versions.
pub(crate) async fn show(account: &Account, until: Instant, bucket: &str) -> Result<BucketInfo> {
    let reply = head(account, until, bucket).await?;
    if !reply.status.is_success() {
        return Err(reply.error(account, &ask("show bucket", Method::HEAD, at_bucket(bucket, &[]))));
    }
    let mut info = BucketInfo::new(bucket);
    info.region = match reply.header("x-amz-bucket-region") {
        "" => location(account, until, bucket).await.unwrap_or_default(),
        region => region.to_owned(),
    }
    .into();
    info.objects = reply.header("x-rgw-object-count").parse().unwrap_or(u64::MAX);
    info.bytes = reply.header("x-rgw-bytes-used").parse().unwrap_or(u64::MAX);
    info.versioning = versioning::get(account, until, bucket).await.unwrap_or(Versioning::UNKNOWN);
    Ok(info)
}

async fn location(account: &Account, until: Instant, bucket: &str) -> Result<String> {
    let request = ask("show bucket", Method::GET, at_bucket(bucket, &[("location", None)]));
    let reply = account.ask_ok(&request, until).await?;
    let root = reply.document("LocationConstraint", &request)?;
    Ok(match root.text.trim() {
        "" => "us-east-1",
        "EU" => "eu-west-1",
        region => region,
    }
    .to_owned())
}
