// SPDX-License-Identifier: Apache-2.0
use std::time::Instant;

use driver_api::{RString, RVec, Tuple2};
use bytes::Bytes;
use driver_api::{
    Error, Result,
    ext::{
        Conditions, ObjectInfo, ObjectName, PartInfo, PartPage, PutOptions, UploadInfo, UploadPage,
    },
};
use http::Method;

use super::tags;
use crate::{
    account::Account,
    config::Kind,
    control::{
        ending,
        facts::{self, Facts},
        pages::Place,
        parts::{self},
    },
    error::{invalid, unsupported},
    retry::is_error,
    wire::{
        AnswerExt, AskExt, about, ask, at_bucket, at_object,
        digest::{md5_base64, md5_hex},
        nonsense, put_header, quoted, same, time, unquoted,
        url::unescape,
        xml,
    },
};

/// What stands between the store's id of an upload and the tags that its object is to have. Some stores forget those, and
/// who completes the upload may be another process than who began it.
const TAGS: &str = "~tags=";

/// The store's id of an upload, and its tags as a header.
pub(crate) fn split_id(id: &str) -> (&str, &str) {
    id.rsplit_once(TAGS).unwrap_or((id, ""))
}

/// Whether ETags of what is written are its sums: those of what is encrypted are not.
fn plain(account: &Account) -> bool {
    account.encrypt.is_empty() && account.customer.is_empty()
}

/// Begins an object that is written in parts.
pub(crate) async fn begin(account: &Account, until: Instant, object: &ObjectName, options: &PutOptions) -> Result<UploadInfo> {
    tags::check(&options.tags)?;
    if account.kind == Kind::Gcs && !options.tags.is_empty() {
        return Err(unsupported("objects of GCS have no tags").remedy("use metadata"));
    }
    if options.expire_after_secs != 0 {
        return Err(unsupported("objects of this store have no time of their own at which they go")
            .remedy("use a lifecycle rule of the bucket"));
    }
    let url = at_object(&object.bucket, &object.key, &[("uploads", None)]);
    // A second one that is begun because an answer was lost stays behind, and can be found by listing uploads.
    let mut request =
        ask("begin upload", Method::POST, url).headers(&account.encrypt).headers(&account.customer);
    facts::add(&mut request, facts::names(account), options)?;
    let tags = tags::header(&options.tags);
    if !tags.is_empty() {
        put_header(&mut request, "x-amz-tagging", &tags)?;
    }
    let context = |error| about(error, &request);
    let reply = account.ask_ok(&request, until).await?;
    let root = reply.document("InitiateMultipartUploadResult", &request)?;
    same("bucket", &object.bucket, root.text("Bucket")).map_err(context)?;
    let mut id = root.need("UploadId").map_err(context)?.to_owned();
    if !tags.is_empty() {
        id.push_str(TAGS);
        id.push_str(&tags);
    }
    Ok(UploadInfo {
        bucket: object.bucket.clone(),
        key: object.key.clone(),
        id: id.into(),
        mark: options.mark.clone(),
        started_ms: time::now_ms(),
        ..UploadInfo::default()
    })
}

/// Writes a part.
pub(crate) async fn put_part(account: &Account, until: Instant, upload: &UploadInfo, number: u32, data: Bytes) -> Result<PartInfo> {
    let (id, _) = split_id(&upload.id);
    let number_text = number.to_string();
    let query = [("partNumber", Some(number_text.as_str())), ("uploadId", Some(id))];
    let mut request = ask("put part", Method::PUT, at_object(&upload.bucket, &upload.key, &query))
        .headers(&account.customer)
        .body(data.clone());
    put_header(&mut request, "content-md5", &md5_base64(&data))?;
    let (size, sum) = (data.len() as u64, md5_hex(&data));
    let reply = account.ask_ok(&request, until).await.map_err(|error| error.with("part", number))?;
    let etag = reply.etag();
    // Encrypted parts have ETags that are no sums.
    let is_sum = etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit()) && plain(account);
    if etag.is_empty() || (is_sum && !etag.eq_ignore_ascii_case(&sum)) {
        return Err(about(parts::damaged(&sum, etag), &request).with("part", number));
    }
    Ok(PartInfo { number, size, etag: etag.into(), checksum: format!("md5:{sum}").into(), reserved: [0; 2] })
}

/// A page of the parts of an upload.
pub(crate) async fn parts(account: &Account, until: Instant, upload: &UploadInfo, after: u32, limit: u32) -> Result<PartPage> {
    let (id, _) = split_id(&upload.id);
    let (after_text, limit) = (after.to_string(), limit.clamp(1, 1000).to_string());
    let query = [
        ("uploadId", Some(id)),
        ("max-parts", Some(limit.as_str())),
        ("part-number-marker", Some(after_text.as_str())),
    ];
    let request = ask("list parts", Method::GET, at_object(&upload.bucket, &upload.key, &query));
    let context = |error| about(error, &request);
    let reply = account.ask_ok(&request, until).await?;
    let root = reply.document("ListPartsResult", &request)?;
    same("upload", id, root.text("UploadId")).map_err(context)?;
    let mut page = PartPage { more: root.says("IsTruncated"), ..PartPage::default() };
    for part in root.all("Part") {
        let etag = part.need("ETag")?.trim_matches('"');
        page.parts.push(PartInfo {
            number: part.number("PartNumber")?,
            size: part.number("Size")?,
            etag: etag.into(),
            checksum: if plain(account) { parts::md5_of_etag(etag) } else { RString::new() },
            reserved: [0; 2],
        });
    }
    parts::check_page(after, &page).map_err(context)?;
    Ok(page)
}

/// Makes the object of its parts.
pub(crate) async fn complete(
    account: &Account,
    until: Instant,
    upload: &UploadInfo,
    parts: &[PartInfo],
    conditions: &Conditions,
) -> Result<ObjectInfo> {
    let (id, tags) = split_id(&upload.id);
    let object = ObjectName::new(&upload.bucket, &upload.key);
    // GCS knows conditions by generations: 0 is no object.
    let mut generation = None;
    if !conditions.is_empty() {
        let found = head(account, until, &object).await?;
        if let Some(facts) = &found
            && ending::is_own(upload, facts)
        {
            return finish(account, until, &object, tags, facts.info.clone()).await;
        }
        ending::check(conditions, found.as_ref())?;
        generation = Some(found.map_or_else(|| "0".to_owned(), |facts| facts.info.version.to_string()));
    }
    let mut document = xml::Writer::new();
    document.element_with("CompleteMultipartUpload", "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"", |root| {
        for part in parts {
            root.element("Part", |out| {
                out.text("PartNumber", &part.number.to_string());
                out.text("ETag", &quoted(&part.etag));
            });
        }
    });
    let url = at_object(&upload.bucket, &upload.key, &[("uploadId", Some(id))]);
    let mut request = ask("complete upload", Method::POST, url)
        .headers(&account.customer)
        .typed("application/xml", document.finish());
    if account.kind == Kind::Gcs {
        if let Some(generation) = generation {
            put_header(&mut request, "x-goog-if-generation-match", &generation)?;
        }
    } else {
        for (name, value) in [("if-match", &conditions.if_match), ("if-none-match", &conditions.if_none_match)] {
            if !value.is_empty() {
                put_header(&mut request, name, &quoted(value))?;
            }
        }
    }
    let reply = match account.ask(&request, until).await {
        Ok(reply) => reply,
        // The deadline is over, or nearly: one look whether it was done.
        Err(error) => return ending::decide(upload, error, true, head(account, until, &object).await),
    };
    let hidden = reply.status.is_success() && is_error(&reply.body);
    let info = if reply.status.is_success() && !hidden {
        let root = reply.document("CompleteMultipartUploadResult", &request)?;
        let mut info = ObjectInfo { key: upload.key.clone(), latest: true, ..ObjectInfo::default() };
        info.etag = unquoted(root.need("ETag")?).into();
        info.version = reply.header(facts::names(account).version).into();
        info.size = parts.iter().map(|part| part.size).sum();
        info.modified_ms = time::now_ms();
        match head(account, until, &object).await {
            // Another writer may have come after.
            Ok(Some(facts)) if facts.info.etag == info.etag => facts.info,
            _ => info,
        }
    } else {
        let code = reply.code();
        let mut error = reply.error(account, &request);
        let condition = reply.status.as_u16() == 412
            || matches!(code.as_str(), "PreconditionFailed" | "ConditionalRequestConflict")
            || (code == "NoSuchKey" && !conditions.if_match.is_empty());
        if condition {
            error = ending::refused_condition(conditions, error);
        }
        ending::decide(upload, error, reply.doubt.is_some() || hidden, head(account, until, &object).await)?
    };
    finish(account, until, &object, tags, info).await
}

/// Sets the tags of an object that was made of parts, if the store did not take them from its begin.
async fn finish(account: &Account, until: Instant, object: &ObjectName, tags: &str, info: ObjectInfo) -> Result<ObjectInfo> {
    if tags.is_empty() {
        return Ok(info);
    }
    let mut object = object.clone();
    object.version.clone_from(&info.version);
    tags::set(account, until, &object, &parse_tags(tags)?).await.map_err(|error| {
        let text = format!("the upload was completed, but its tags were not set: {}", error.message());
        Error::new(error.kind(), text).caused_by(&error).remedy("set the object's tags")
    })?;
    Ok(info)
}

fn parse_tags(header: &str) -> Result<RVec<Tuple2<RString, RString>>> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some(Tuple2(unescape(name, false)?.into(), unescape(value, false)?.into()))
    };
    let bad = || invalid("the upload's id is damaged: its tags cannot be read");
    header.split('&').map(|text| pair(text).ok_or_else(bad)).collect()
}

/// What is said of an object; `None`: there is none.
pub(crate) async fn head(account: &Account, until: Instant, object: &ObjectName) -> Result<Option<Facts>> {
    let name = if account.kind == Kind::Gcs { "generation" } else { "versionId" };
    let version = [(name, Some(object.version.as_str()))];
    let query = if object.version.is_empty() { &[][..] } else { &version };
    let request =
        ask("head object", Method::HEAD, at_object(&object.bucket, &object.key, query)).headers(&account.customer);
    let reply = account.ask(&request, until).await?;
    match reply.status.as_u16() {
        404 => Ok(None),
        _ if reply.status.is_success() => facts::of(facts::names(account), &object.key, &reply).map(Some),
        _ => Err(reply.error(account, &request)),
    }
}

/// Gives an upload up.
pub(crate) async fn abort(account: &Account, until: Instant, upload: &UploadInfo) -> Result<()> {
    let (id, _) = split_id(&upload.id);
    if id.is_empty() {
        // Without it the request would delete the object.
        return Err(invalid("an upload without an id"));
    }
    let url = at_object(&upload.bucket, &upload.key, &[("uploadId", Some(id))]);
    let request = ask("abort upload", Method::DELETE, url);
    let reply = account.ask(&request, until).await?;
    if reply.status.is_success() || reply.code() == "NoSuchUpload" {
        return Ok(());
    }
    Err(reply.error(account, &request))
}

/// A page of the bucket's unfinished uploads.
pub(crate) async fn list(
    account: &Account,
    until: Instant,
    bucket: &str,
    prefix: &str,
    page: &str,
    limit: u32,
) -> Result<UploadPage> {
    let place = Place::decode(page)?;
    let limit = limit.clamp(1, 1000).to_string();
    let mut query = vec![("uploads", None), ("encoding-type", Some("url")), ("max-uploads", Some(limit.as_str()))];
    if !prefix.is_empty() {
        query.push(("prefix", Some(prefix)));
    }
    if let Some(place) = &place {
        query.push(("key-marker", Some(&place.last)));
        query.push(("upload-id-marker", Some(&place.token)));
    }
    let request = ask("list uploads", Method::GET, at_bucket(bucket, &query));
    let context = |error| about(error, &request);
    let reply = account.ask_ok(&request, until).await?;
    let root = reply.document("ListMultipartUploadsResult", &request)?;
    same("bucket", bucket, root.text("Bucket")).map_err(context)?;
    let escaped = root.text("EncodingType") == "url";
    let key = |text: &str| match escaped {
        false => Ok(text.to_owned()),
        true => unescape(text, true).ok_or_else(|| nonsense(format!("{text:?} is not escaped as it should be"))),
    };
    let mut answer = UploadPage::default();
    for upload in root.all("Upload") {
        let key = key(upload.need("Key")?)?;
        if !key.starts_with(prefix) {
            // moto does not know the prefix.
            continue;
        }
        answer.uploads.push(UploadInfo {
            bucket: bucket.into(),
            key: key.into(),
            id: upload.need("UploadId")?.into(),
            started_ms: time::iso_ms(upload.text("Initiated")),
            ..UploadInfo::default()
        });
    }
    answer.uploads.sort_by(|a, b| (&a.key, a.started_ms).cmp(&(&b.key, b.started_ms)));
    if root.says("IsTruncated") {
        let next = Place { last: key(root.text("NextKeyMarker"))?, token: root.text("NextUploadIdMarker").to_owned() };
        if place.as_ref() == Some(&next) {
            return Err(context(nonsense("the list of uploads does not advance")));
        }
        answer.next = next.encode().into();
    }
    Ok(answer)
}
