// SPDX-License-Identifier: Apache-2.0
//! What is read of objects of Swift.

use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use bytes::Bytes;
use driver_api::{
    Error, ErrorKind, IoBuf, Result, Tuple2,
    ext::{Conditions, ObjectInfo, ObjectName, ObjectPiece},
};
use futures_util::StreamExt;
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, GetResult, ObjectStore, path::Path,
};
use swift::{Failure, LargeObject, Swift};

use super::{container, path, within};
use crate::{account::Account, error::invalid, info::is_md5, mark};

fn options(object: &ObjectName, under: &Conditions) -> GetOptions {
    let text = |text: &str| (!text.is_empty()).then(|| crate::info::quoted(text));
    let date = |secs: u64| {
        (secs > 0)
            .then(|| {
                i64::try_from(secs).ok().and_then(|secs| chrono::DateTime::from_timestamp(secs, 0))
            })
            .flatten()
    };
    GetOptions {
        if_match: text(&under.if_match),
        if_none_match: text(&under.if_none_match),
        if_modified_since: date(under.if_modified_since),
        if_unmodified_since: date(under.if_unmodified_since),
        version: (!object.version.is_empty()).then(|| object.version.to_string()),
        ..GetOptions::default()
    }
}

fn info(
    key: &str,
    meta: &object_store::ObjectMeta,
    attributes: &Attributes,
) -> (ObjectInfo, String) {
    let mut info = ObjectInfo {
        key: key.into(),
        size: meta.size,
        etag: meta.e_tag.clone().unwrap_or_default().into(),
        version: meta.version.clone().unwrap_or_default().into(),
        modified_ms: u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0),
        latest: true,
        ..ObjectInfo::default()
    };
    if is_md5(&info.etag) {
        info.checksum = format!("md5:{}", info.etag.to_lowercase()).into();
    }
    let mut found = String::new();
    for (attribute, value) in attributes {
        let value = value.as_ref();
        let name = match attribute {
            Attribute::ContentType => {
                info.content_type = value.into();
                continue;
            }
            Attribute::CacheControl => "cache-control",
            Attribute::ContentDisposition => "content-disposition",
            Attribute::ContentEncoding => "content-encoding",
            Attribute::ContentLanguage => "content-language",
            Attribute::Metadata(name) => match name.as_ref() {
                "x-delete-at" => {
                    info.expires_ms = value.parse::<u64>().unwrap_or(0).saturating_mul(1000);
                    continue;
                }
                "novastor-mark" => {
                    value.clone_into(&mut found);
                    continue;
                }
                name if mark::is_hidden(name) => continue,
                name => name,
            },
            _ => continue,
        };
        info.metadata.push(Tuple2(name.into(), value.into()));
    }
    info.metadata.sort();
    (info, found)
}

/// What is known of an object.
pub(crate) async fn head(
    account: &Account,
    object: &ObjectName,
    under: &Conditions,
    until: Instant,
) -> Result<ObjectInfo> {
    Ok(find(account, object, under, until).await?.0)
}

pub(crate) async fn find(
    account: &Account,
    object: &ObjectName,
    under: &Conditions,
    until: Instant,
) -> Result<(ObjectInfo, String)> {
    let store = container(account, &object.bucket)?;
    let options = GetOptions { head: true, ..options(object, under) };
    let path = path(&object.key)?;
    let found =
        within(until, false, "the object cannot be asked for", store.get_opts(&path, options))
            .await?;
    Ok(told(&object.key, &found))
}

/// What an answer tells of its object, and the object's mark.
fn told(key: &str, answer: &GetResult) -> (ObjectInfo, String) {
    let (mut info, mark) = info(key, &answer.meta, &answer.attributes);
    if answer.extensions.get::<LargeObject>().is_some() {
        info.checksum = String::new().into();
    }
    (info, mark)
}

/// Bytes of an object, with what its answer tells of it.
pub(crate) async fn get(
    account: &Account,
    object: &ObjectName,
    offset: u64,
    len: u32,
    under: &Conditions,
    until: Instant,
) -> Result<ObjectPiece> {
    if len > 0 {
        let store = container(account, &object.bucket)?;
        let range = offset..offset.saturating_add(u64::from(len));
        let asked = GetOptions { range: Some(GetRange::Bounded(range)), ..options(object, under) };
        let reading = ranged(&store, path(&object.key)?, asked);
        let read = within(until, false, "the object cannot be read", reading).await?;
        if let Some((told, data)) = read.filter(|(told, _)| told.size > offset) {
            account.traffic.received.fetch_add(data.len() as u64, Relaxed);
            return piece(object, told, offset, len, data);
        }
    }
    // Nothing was asked for, or nothing is there to be read.
    let told = find(account, object, under, until).await?.0;
    if offset > told.size || (offset == told.size && len > 0 && told.size > 0) {
        return Err(invalid("the range begins past the end of the object")
            .with("object", &object.key)
            .with("offset", offset)
            .with("size", told.size));
    }
    let wanted = u64::from(len).min(told.size - offset);
    if wanted > 0 {
        return Err(Error::new(ErrorKind::CONFLICT, "the object was replaced while it was read")
            .with("object", &object.key)
            .remedy("read it again from its beginning"));
    }
    Ok(ObjectPiece { object: told, offset, data: IoBuf::empty(), reserved: [0; 2] })
}

/// A range of an object; nothing if it begins behind its end.
async fn ranged(
    store: &Swift,
    path: Path,
    asked: GetOptions,
) -> object_store::Result<Option<(ObjectInfo, Vec<u8>)>> {
    let got = match store.get_opts(&path, asked).await {
        Ok(got) => got,
        Err(error) => {
            let is_behind = Failure::of(&error).and_then(Failure::status) == Some(416);
            return if is_behind { Ok(None) } else { Err(error) };
        }
    };
    let told = told(path.as_ref(), &got).0;
    let wanted = usize::try_from(got.range.end - got.range.start).unwrap_or(0);
    let mut data = Vec::with_capacity(wanted);
    let mut stream = got.into_stream();
    while let Some(bytes) = stream.next().await {
        data.extend_from_slice(&bytes?);
    }
    Ok(Some((told, data)))
}

fn piece(
    object: &ObjectName,
    told: ObjectInfo,
    offset: u64,
    len: u32,
    data: Vec<u8>,
) -> Result<ObjectPiece> {
    let wanted = u64::from(len).min(told.size.saturating_sub(offset));
    if data.len() as u64 != wanted {
        let why = format!("the answer has {} of {wanted} bytes", data.len());
        return Err(Error::new(ErrorKind::UNAVAILABLE, why).with("object", &object.key));
    }
    let told = ObjectInfo { key: object.key.clone(), ..told };
    Ok(ObjectPiece { object: told, offset, data: IoBuf::from(Bytes::from(data)), reserved: [0; 2] })
}
