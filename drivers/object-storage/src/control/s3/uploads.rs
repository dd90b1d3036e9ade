// SPDX-License-Identifier: Apache-2.0
use std::time::Instant;

use driver_api::{
    Error, Result,
    ext::{
        Conditions, ObjectInfo, ObjectName, PartInfo, PartPage, PutOptions, UploadInfo, UploadPage,
    },
};
use driver_api::{RString, RVec, Tuple2};
use http::Method;

use super::tags;
use crate::{
    account::Account,
    call::{Answer, Ask},
    control::{
        ending,
        pages::Place,
        parts::{self},
    },
    error::{invalid, unknown},
    info, mark, probing, put,
    retry::is_error,
    wire::{
        AnswerExt, AskExt, about, ask, at_bucket, at_object, nonsense, quoted, same, time,
        unquoted, url::unescape, xml,
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
pub(crate) async fn begin(
    account: &Account,
    until: Instant,
    object: &ObjectName,
    options: &PutOptions,
) -> Result<UploadInfo> {
    tags::check(&options.tags)?;
    let url = at_object(&object.bucket, &object.key, &[("uploads", None)]);
    // A second one that is begun because an answer was lost stays behind, and can be found by listing uploads.
    let request =
        ask("begin upload", Method::POST, url).headers(&account.encrypt).headers(&account.customer);
    let mark = mark::of(&options.mark)?;
    let request = info::write(account, request, options, &mark)?;
    let tags = info::tags_text(&options.tags);
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
        mark: mark.into(),
        started_ms: time::now_ms(),
        ..UploadInfo::default()
    })
}

/// A page of the parts of an upload.
pub(crate) async fn parts(
    account: &Account,
    until: Instant,
    upload: &UploadInfo,
    after: u32,
    limit: u32,
) -> Result<PartPage> {
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
    // moto calls it something else than AWS does.
    let root = match reply.text()?.contains("<ListPartsResponse") {
        true => reply.document("ListPartsResponse", &request)?,
        false => reply.document("ListPartsResult|ListPartsResponse", &request)?,
    };
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
    let mut document = xml::Writer::new();
    document.element_with(
        "CompleteMultipartUpload",
        "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"",
        |root| {
            for part in parts {
                root.element("Part", |out| {
                    out.text("PartNumber", &part.number.to_string());
                    out.text("ETag", &quoted(&part.etag));
                });
            }
        },
    );
    let url = at_object(&upload.bucket, &upload.key, &[("uploadId", Some(id))]);
    let request = ask("complete upload", Method::POST, url)
        .headers(&account.customer)
        .typed("application/xml", document.finish());
    if let Some(found) = ending::check(account, &request, upload, conditions, until).await? {
        return finish(account, until, upload, tags, found.info).await;
    }
    let need = probing::Need::of_completion(conditions);
    probing::check(account, &upload.bucket, need, until).await?;
    let request = put::condition(account, request, conditions, until).await?;
    let info = match account.ask(&request, until).await {
        Ok(reply) if reply.status.is_success() && !is_error(&reply.body) => {
            completed(account, until, &request, upload, parts, &reply).await?
        }
        Ok(reply) => {
            let code = reply.code();
            let unmet = put::is_unmet(&reply, conditions) && code != "NoSuchUpload";
            let told = if unmet {
                put::unmet(account, &request, conditions)
            } else {
                reply.error(account, &request)
            };
            ending::settle(account, &request, upload, &reply, until, told).await?.info
        }
        Err(error) => ending::unanswered(account, upload, until, error).await?.info,
    };
    finish(account, until, upload, tags, info).await
}

/// The object that an answer of success tells of.
async fn completed(
    account: &Account,
    until: Instant,
    request: &Ask,
    upload: &UploadInfo,
    parts: &[PartInfo],
    reply: &Answer,
) -> Result<ObjectInfo> {
    let root = match reply.document("CompleteMultipartUploadResult", request) {
        Ok(root) => root,
        // The server begins to answer before it is done, and may break off with a status of success.
        Err(error) => {
            let error = unknown(format!("no answer told whether it was done: {}", error.message()));
            return Ok(ending::unanswered(account, upload, until, error).await?.info);
        }
    };
    // Ceph's gateway may leave it out.
    let etag = unquoted(root.text("ETag")).to_owned();
    // Another writer may have come after.
    if let Ok(Some(found)) = ending::look(account, upload, until).await
        && (found.info.etag == etag || ending::is_own(upload, &found))
    {
        parts::whole(parts, found.info.size).map_err(|error| about(error, request))?;
        return Ok(found.info);
    }
    let mut info = info::read(account.kind, &upload.key, &reply.headers).info;
    info.etag = etag.into();
    info.size = parts.iter().fold(0, |sum: u64, part| sum.saturating_add(part.size));
    info.modified_ms = time::now_ms();
    info.checksum = RString::new();
    Ok(info)
}

/// Sets the tags of an object that was made of parts, if the store did not take them from its begin.
async fn finish(
    account: &Account,
    until: Instant,
    upload: &UploadInfo,
    tags: &str,
    info: ObjectInfo,
) -> Result<ObjectInfo> {
    if tags.is_empty() {
        return Ok(info);
    }
    let mut object = ObjectName::new(&upload.bucket, &upload.key);
    object.version.clone_from(&info.version);
    tags::set(account, until, &object, &parse_tags(tags)?).await.map_err(|error| {
        let text =
            format!("the upload was completed, but its tags were not set: {}", error.message());
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
    let mut query = vec![("uploads", None), ("max-uploads", Some(limit.as_str()))];
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
    let mut answer = UploadPage::default();
    for upload in root.all("Upload") {
        let key = upload.need("Key")?;
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
        let next = Place {
            last: root.text("NextKeyMarker").to_owned(),
            token: root.text("NextUploadIdMarker").to_owned(),
        };
        if next.last.is_empty() {
            return Err(context(nonsense("the list of uploads goes on, and does not say where")));
        }
        if place.as_ref() == Some(&next) {
            return Err(context(nonsense("the list of uploads does not advance")));
        }
        answer.next = next.encode().into();
    }
    Ok(answer)
}
