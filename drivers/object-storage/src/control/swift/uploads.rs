// SPDX-License-Identifier: Apache-2.0
//! Uploads are Swift's static large objects. What is said of the object waits in a marker beside its segments, so an id from
//! a listing is as good as the one that the begin told.

use std::time::Instant;

use bytes::Bytes;
use driver_api::{
    Error, ErrorKind, Result,
    ext::{
        Conditions, ObjectInfo, ObjectName, PartInfo, PartPage, PutOptions, UploadInfo, UploadPage,
    },
};
use object_store::{
    PutMode, PutMultipartOptions,
    multipart::{MultipartStore, PartId},
};

use crate::{
    account::Account,
    control::pages::Place,
    error::unsupported,
    mark,
    put::check_conditions,
    swift::{attributes, container, find, path, within},
    wire::{digest::md5_hex, time},
};

/// The most parts: where there are more than a manifest takes, the client makes manifests of manifests.
pub(crate) const MAX_PARTS: u32 = 10_000;
/// The MD5 of nothing.
const EMPTY_MD5: &str = "d41d8cd98f00b204e9800998ecf8427e";

/// Begins an object that is written in parts.
pub(crate) async fn begin(
    account: &Account,
    until: Instant,
    object: &ObjectName,
    options: &PutOptions,
) -> Result<UploadInfo> {
    let mark = mark::of(&options.mark)?;
    let theirs = PutMultipartOptions {
        attributes: attributes(options, &mark)?,
        ..PutMultipartOptions::default()
    };
    let (store, key) = (container(account, &object.bucket)?, path(&object.key)?);
    // The upload's marker would be written into a container for segments without anything to belong to.
    within(until, false, "the container cannot be asked for", store.container(&object.bucket))
        .await?;
    let doing = store.create_multipart_opts(&key, theirs);
    let id = within(until, true, "the upload cannot be begun", doing).await?;
    Ok(UploadInfo {
        bucket: object.bucket.clone(),
        key: object.key.clone(),
        id: id.into(),
        mark: mark.into(),
        started_ms: time::now_ms(),
        ..UploadInfo::default()
    })
}

/// Writes a part.
pub(crate) async fn put_part(
    account: &Account,
    until: Instant,
    upload: &UploadInfo,
    number: u32,
    data: Bytes,
) -> Result<PartInfo> {
    let (store, key) = (container(account, &upload.bucket)?, path(&upload.key)?);
    let (size, sum) = (data.len() as u64, md5_hex(&data));
    let (id, index) = (upload.id.to_string(), number as usize - 1);
    // The client has the server check the sum, and compares what it tells.
    let doing = store.put_part(&key, &id, index, data.into());
    within(until, true, "the part cannot be written", doing)
        .await
        .map_err(|error| error.with("part", number))?;
    Ok(PartInfo {
        number,
        size,
        etag: sum.as_str().into(),
        checksum: format!("md5:{sum}").into(),
        reserved: [0; 2],
    })
}

fn gone(upload: &UploadInfo) -> Error {
    Error::new(ErrorKind::NOT_FOUND, "there is no such upload")
        .with("bucket", &upload.bucket)
        .with("object", &upload.key)
        .remedy("it was completed or given up; begin another one")
}

/// A page of the parts of an upload.
pub(crate) async fn parts(
    account: &Account,
    until: Instant,
    upload: &UploadInfo,
    after: u32,
    limit: u32,
) -> Result<PartPage> {
    let (store, key) = (container(account, &upload.bucket)?, path(&upload.key)?);
    let id = upload.id.to_string();
    let begun =
        within(until, false, "the uploads cannot be listed", store.list_uploads(&upload.key))
            .await?;
    if !begun.iter().any(|begun| begun.id == id && begun.path == key) {
        return Err(gone(upload));
    }
    let all =
        within(until, false, "the parts cannot be listed", store.list_parts(&key, &id)).await?;
    let mut left =
        all.into_iter().filter_map(|part| Some((u32::try_from(part.index).ok()? + 1, part)));
    let mut left = left.by_ref().filter(|(number, _)| *number > after);
    let mut page = PartPage::default();
    for (number, part) in left.by_ref().take(limit.max(1) as usize) {
        let checksum = format!("md5:{}", part.e_tag).into();
        page.parts.push(PartInfo {
            number,
            size: part.size,
            etag: part.e_tag.into(),
            checksum,
            reserved: [0; 2],
        });
    }
    page.more = left.next().is_some();
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
    check_conditions(conditions)?;
    if !conditions.if_match.is_empty() {
        return Err(unsupported("Swift ignores `if_match` when an object is written, which would lose data without a word")
            .remedy("write new keys create-only instead"));
    }
    let (store, key) = (container(account, &upload.bucket)?, path(&upload.key)?);
    let object = ObjectName::new(&upload.bucket, &upload.key);
    let mode = if conditions.if_none_match == "*" { PutMode::Create } else { PutMode::Overwrite };
    let done = match parts_of(account, until, upload, parts).await {
        Ok(ids) => {
            let id = upload.id.to_string();
            let doing = store.complete_multipart_mode(&key, &id, ids, mode);
            within(until, true, "the upload cannot be completed", doing).await.map(drop)
        }
        Err(error) => Err(error),
    };
    let soon = until.max(Instant::now() + std::time::Duration::from_secs(2));
    let found = find(account, &object, &Conditions::default(), soon).await;
    match (done, found) {
        (Ok(()), found) => Ok(found?.0),
        // An earlier attempt, perhaps of another process, did it.
        (Err(_), Ok((info, mark)))
            if !upload.mark.is_empty() && mark.eq_ignore_ascii_case(&upload.mark) =>
        {
            Ok(info)
        }
        (Err(error), _) => Err(error.with("object", &upload.key)),
    }
}

/// The parts as the client names them; a size that the caller does not know is asked for.
async fn parts_of(
    account: &Account,
    until: Instant,
    upload: &UploadInfo,
    parts: &[PartInfo],
) -> Result<Vec<PartId>> {
    let (store, key) = (container(account, &upload.bucket)?, path(&upload.key)?);
    let id = upload.id.to_string();
    let there =
        within(until, false, "the parts cannot be listed", store.list_parts(&key, &id)).await?;
    let mut ids = Vec::with_capacity(parts.len());
    for part in parts {
        // The client knows parts by their place; an empty one stands for a gap, and for nothing in the object.
        while ids.len() + 1 < part.number as usize {
            ids.push(PartId { content_id: format!("{EMPTY_MD5}:0") });
        }
        let found = there.iter().find(|found| found.index + 1 == part.number as usize);
        let found = found.ok_or_else(|| match there.is_empty() {
            true => gone(upload),
            false => {
                Error::new(ErrorKind::NOT_FOUND, format!("the store has no part {}", part.number))
            }
        })?;
        if !found.e_tag.eq_ignore_ascii_case(&part.etag) {
            return Err(Error::new(
                ErrorKind::CONFLICT,
                format!("part {} is another one by now", part.number),
            )
            .remedy("ask for the parts that the store has"));
        }
        ids.push(found.id.clone());
    }
    Ok(ids)
}

/// Gives an upload up, with its parts.
pub(crate) async fn abort(account: &Account, until: Instant, upload: &UploadInfo) -> Result<()> {
    let (store, key) = (container(account, &upload.bucket)?, path(&upload.key)?);
    let id = upload.id.to_string();
    match within(until, true, "the upload cannot be given up", store.abort_multipart(&key, &id))
        .await
    {
        Err(error) if error.kind() == ErrorKind::NOT_FOUND => Ok(()),
        done => done,
    }
}

/// A page of the container's unfinished uploads, by key.
pub(crate) async fn list(
    account: &Account,
    until: Instant,
    bucket: &str,
    prefix: &str,
    page: &str,
    limit: u32,
) -> Result<UploadPage> {
    let place = Place::decode(page)?;
    let store = container(account, bucket)?;
    let mut all = match within(
        until,
        false,
        "the uploads cannot be listed",
        store.list_uploads(prefix),
    )
    .await
    {
        // Nothing was ever uploaded in parts.
        Err(error) if error.kind() == ErrorKind::NOT_FOUND => Vec::new(),
        all => all?,
    };
    all.sort_by(|a, b| (a.path.as_ref(), &a.id).cmp(&(b.path.as_ref(), &b.id)));
    if let Some(place) = &place {
        all.retain(|upload| {
            (upload.path.as_ref(), upload.id.as_str()) > (place.last.as_str(), place.token.as_str())
        });
    }
    let limit = limit.max(1) as usize;
    let mut answer = UploadPage::default();
    if all.len() > limit {
        all.truncate(limit);
        let last =
            all.last().map(|last| Place { last: last.path.to_string(), token: last.id.clone() });
        answer.next = last.unwrap_or_default().encode().into();
    }
    answer.uploads = all
        .into_iter()
        .map(|upload| UploadInfo {
            bucket: bucket.into(),
            key: upload.path.as_ref().into(),
            id: upload.id.into(),
            started_ms: u64::try_from(upload.started.timestamp_millis()).unwrap_or(0),
            ..UploadInfo::default()
        })
        .collect();
    Ok(answer)
}
