// SPDX-License-Identifier: Apache-2.0
use std::{collections::BTreeMap, time::Instant};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use driver_api::{
    Error, ErrorKind, RString, Result, Tuple2,
    ext::{
        Conditions, ObjectInfo, ObjectName, PartInfo, PartPage, PutOptions, UploadInfo, UploadPage,
    },
};
use http::Method;
use serde::{Deserialize, Serialize};

use super::{change::check_tags, listing};
use crate::{
    account::Account,
    control::{
        ending,
        pages::Place,
        parts::{self},
    },
    error::invalid,
    info, mark, outcome, put,
    wire::{
        AnswerExt, AskExt, about, ask, at_object,
        digest::{hex, md5_base64},
        nonsense, put_header, time, xml,
    },
};

/// The most parts of an upload.
pub(crate) const MAX_PARTS: u32 = 50_000;
/// The number of the block that says that an upload was given up.
const GIVEN_UP: u32 = 99_999_999;
/// The hexadecimal digits that name an upload: when it was begun in milliseconds since 1970, and what chance gave.
const NAME: usize = 32;
/// Those of them that are the time.
const BEGUN: usize = 12;

/// What is said of the object that an upload makes.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    #[serde(default, rename = "c", skip_serializing_if = "String::is_empty")]
    content_type: String,
    #[serde(default, rename = "m", skip_serializing_if = "Vec::is_empty")]
    metadata: Vec<(String, String)>,
    #[serde(default, rename = "t", skip_serializing_if = "Vec::is_empty")]
    tags: Vec<(String, String)>,
    #[serde(default, rename = "s", skip_serializing_if = "String::is_empty")]
    storage_class: String,
    #[serde(default, rename = "k", skip_serializing_if = "String::is_empty")]
    mark: String,
}

impl Said {
    fn of(options: &PutOptions, mark: &str) -> Self {
        let owned = |pairs: &[Tuple2<RString, RString>]| {
            pairs.iter().map(|pair| (pair.0.to_string(), pair.1.to_string())).collect()
        };
        Self {
            content_type: options.content_type.to_string(),
            metadata: owned(&options.metadata),
            tags: owned(&options.tags),
            storage_class: options.storage_class.to_string(),
            mark: mark.to_owned(),
        }
    }

    fn options(&self) -> PutOptions {
        let listed = |pairs: &[(String, String)]| {
            pairs
                .iter()
                .map(|(name, value)| Tuple2(name.as_str().into(), value.as_str().into()))
                .collect()
        };
        PutOptions {
            content_type: self.content_type.as_str().into(),
            metadata: listed(&self.metadata),
            tags: listed(&self.tags),
            storage_class: self.storage_class.as_str().into(),
            mark: self.mark.as_str().into(),
            ..PutOptions::default()
        }
    }
}

/// An upload's id: its name, and what is said of its object where that is known.
fn split(id: &str) -> Result<(&str, Option<Said>)> {
    let (name, said) = id.split_once('.').map_or((id, None), |(name, said)| (name, Some(said)));
    let bad = || {
        invalid("the upload's id is none of this driver's")
            .remedy("give the id as the begin of the upload told it")
    };
    if name.len() != NAME || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(bad());
    }
    let Some(said) = said else { return Ok((name, None)) };
    let json = URL_SAFE_NO_PAD.decode(said).map_err(|_| bad())?;
    Ok((name, Some(serde_json::from_slice(&json).map_err(|_| bad())?)))
}

/// The id of a block: all of one blob have the same length, as Azure wants it.
pub(crate) fn block_id(id: &str, number: u32) -> Result<String> {
    let (name, _) = split(id)?;
    Ok(BASE64.encode(format!("{name}{number:08}")))
}

/// Upload and number of a block; `None`: another program's.
fn parse_block(id: &str) -> Option<(String, u32)> {
    let text = String::from_utf8(BASE64.decode(id).ok()?).ok()?;
    let (name, number) = text.split_at_checked(NAME)?;
    if number.len() != 8 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some((name.to_owned(), number.parse().ok()?))
}

/// When the upload of this name was begun, in milliseconds since 1970. Azure tells no time of uncommitted blocks.
fn begun_ms(name: &str) -> u64 {
    name.get(..BEGUN).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
}

/// Begins an object that is written in parts.
pub(crate) async fn begin(
    account: &Account,
    until: Instant,
    object: &ObjectName,
    options: &PutOptions,
) -> Result<UploadInfo> {
    check_tags(&options.tags)?;
    let mark = mark::of(&options.mark)?;
    // What could not be completed is not begun.
    info::write(
        account,
        ask("begin upload", Method::PUT, at_object(&object.bucket, &object.key, &[])),
        options,
        &mark,
    )?;
    let mut chance = [0; (NAME - BEGUN) / 2];
    getrandom::fill(&mut chance)
        .map_err(|error| Error::new(ErrorKind::INTERNAL, format!("no random bits: {error}")))?;
    let started_ms = time::now_ms();
    let name = format!("{started_ms:0BEGUN$x}{}", hex(&chance));
    let said = serde_json::to_vec(&Said::of(options, &mark))
        .map_err(|error| Error::new(ErrorKind::INTERNAL, error.to_string()))?;
    let id = format!("{name}.{}", URL_SAFE_NO_PAD.encode(said));
    put_block(
        account,
        until,
        "begin upload",
        object,
        &block_id(&id, 0)?,
        Bytes::from_static(b"begun"),
    )
    .await?;
    Ok(UploadInfo {
        bucket: object.bucket.clone(),
        key: object.key.clone(),
        id: id.into(),
        mark: mark.into(),
        started_ms,
        ..UploadInfo::default()
    })
}

async fn put_block(
    account: &Account,
    until: Instant,
    what: &'static str,
    object: &ObjectName,
    block: &str,
    data: Bytes,
) -> Result<()> {
    let query = [("comp", Some("block")), ("blockid", Some(block))];
    let sum = md5_base64(&data);
    let mut request =
        ask(what, Method::PUT, at_object(&object.bucket, &object.key, &query)).body(data);
    put_header(&mut request, "content-md5", &sum)?;
    let reply = account.ask_ok(&request, until).await?;
    let told = reply.header("content-md5");
    if !told.is_empty() && told != sum {
        return Err(about(parts::damaged(&sum, told), &request));
    }
    Ok(())
}

/// The uncommitted blocks of a blob by upload; those of uploads that were given up are left out.
async fn blocks(
    account: &Account,
    until: Instant,
    what: &'static str,
    bucket: &str,
    key: &str,
) -> Result<BTreeMap<String, BTreeMap<u32, u64>>> {
    let query = [("comp", Some("blocklist")), ("blocklisttype", Some("uncommitted"))];
    let request = ask(what, Method::GET, at_object(bucket, key, &query));
    let reply = account.ask(&request, until).await?;
    if reply.status.as_u16() == 404 && reply.code() != "ContainerNotFound" {
        return Ok(BTreeMap::new());
    }
    if !reply.status.is_success() {
        return Err(reply.error(account, &request));
    }
    let root = reply.document("BlockList", &request)?;
    let mut uploads: BTreeMap<String, BTreeMap<u32, u64>> = BTreeMap::new();
    for block in root.child("UncommittedBlocks").into_iter().flat_map(|list| list.all("Block")) {
        if let Some((name, number)) = parse_block(block.need("Name")?) {
            uploads.entry(name).or_default().insert(number, block.number("Size")?);
        }
    }
    uploads.retain(|_, blocks| !blocks.contains_key(&GIVEN_UP));
    Ok(uploads)
}

fn gone(upload: &UploadInfo) -> Error {
    Error::new(ErrorKind::NOT_FOUND, "there is no such upload")
        .with("bucket", &upload.bucket)
        .with("object", &upload.key)
        .remedy("it was completed, given up, or its blob was written by somebody else; begin another one")
}

/// A page of the parts of an upload.
pub(crate) async fn parts(
    account: &Account,
    until: Instant,
    upload: &UploadInfo,
    after: u32,
    limit: u32,
) -> Result<PartPage> {
    let (name, _) = split(&upload.id)?;
    let mut uploads = blocks(account, until, "list parts", &upload.bucket, &upload.key).await?;
    let found = uploads.remove(name).ok_or_else(|| gone(upload).during("list parts"))?;
    let limit = usize::try_from(limit.max(1)).unwrap_or(usize::MAX);
    let mut left = found.into_iter().filter(|(number, _)| *number > after && *number <= MAX_PARTS);
    let mut page = PartPage::default();
    for (number, size) in left.by_ref().take(limit) {
        let etag = block_id(name, number)?.into();
        page.parts.push(PartInfo {
            number,
            size,
            etag,
            checksum: RString::new(),
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
    let (name, said) = split(&upload.id)?;
    let Some(said) = said else {
        return Err(invalid(
            "the upload's id, as a listing tells it, does not say what the object is to be like",
        )
        .remedy("complete it with the id that its begin told, or give it up"));
    };
    let upload = &UploadInfo { mark: said.mark.as_str().into(), ..upload.clone() };
    let mut document = xml::Writer::new();
    let mut ids = Vec::with_capacity(parts.len());
    for part in parts {
        ids.push(block_id(name, part.number)?);
    }
    document.element("BlockList", |root| {
        for id in &ids {
            root.text("Uncommitted", id);
        }
    });
    let body = document.finish();
    let sum = md5_base64(body.as_bytes());
    let query = [("comp", Some("blocklist"))];
    let mut request =
        ask("complete upload", Method::PUT, at_object(&upload.bucket, &upload.key, &query))
            .typed("application/xml", body);
    put_header(&mut request, "content-md5", &sum)?;
    put::check_conditions(conditions)?;
    let request = info::write(account, request, &said.options(), &upload.mark)?;
    let request = put::condition(account, request, conditions, until).await?;
    let reply = match account.ask(&request, until).await {
        Ok(reply) => reply,
        Err(error) => return Ok(ending::unanswered(account, upload, until, error).await?.info),
    };
    if reply.status.is_success() {
        if let Err(error) = outcome::confirmed(account, &request, &reply, true) {
            return Ok(ending::unanswered(account, upload, until, error).await?.info);
        }
        let etag = reply.etag();
        // Another writer may have come after.
        if let Ok(Some(found)) = ending::look(account, upload, until).await
            && found.info.etag == etag
        {
            parts::whole(parts, found.info.size).map_err(|error| about(error, &request))?;
            return Ok(found.info);
        }
        let mut info = info::read(account.kind, &upload.key, &reply.headers).info;
        info.size = parts.iter().fold(0, |sum: u64, part| sum.saturating_add(part.size));
        info.checksum = RString::new();
        return Ok(info);
    }
    let told = if reply.code() == "InvalidBlockList" {
        gone(upload).during("complete upload")
    } else if put::is_unmet(&reply, conditions) {
        put::unmet(account, &request, conditions)
    } else {
        reply.error(account, &request)
    };
    Ok(ending::settle(account, &request, upload, &reply, until, told).await?.info)
}

/// Gives an upload up: nobody finds it any more, and Azure discards its blocks within a week.
pub(crate) async fn abort(account: &Account, until: Instant, upload: &UploadInfo) -> Result<()> {
    let (name, _) = split(&upload.id)?;
    let found = blocks(account, until, "abort upload", &upload.bucket, &upload.key).await?;
    if !found.contains_key(name) {
        return Ok(());
    }
    let object = ObjectName::new(&upload.bucket, &upload.key);
    put_block(
        account,
        until,
        "abort upload",
        &object,
        &block_id(name, GIVEN_UP)?,
        Bytes::from_static(b"given up"),
    )
    .await
}

/// A page of the container's unfinished uploads. A listing tells blobs that have blocks only; each is asked for them.
pub(crate) async fn list(
    account: &Account,
    until: Instant,
    bucket: &str,
    prefix: &str,
    page: &str,
    limit: u32,
) -> Result<UploadPage> {
    let mut place = Place::decode(page)?.unwrap_or_default();
    let mut answer = UploadPage::default();
    loop {
        let (keys, next) =
            listing::uncommitted(account, until, bucket, prefix, &place.token, limit).await?;
        for key in keys {
            for name in blocks(account, until, "list uploads", bucket, &key).await?.into_keys() {
                answer.uploads.push(UploadInfo {
                    bucket: bucket.into(),
                    key: key.clone(),
                    started_ms: begun_ms(&name),
                    id: name.into(),
                    ..UploadInfo::default()
                });
            }
            place.last = key.to_string();
        }
        if next.is_empty() {
            return Ok(answer);
        }
        if next == place.token {
            return Err(nonsense("the list of uploads does not advance"));
        }
        place.token = next;
        if !answer.uploads.is_empty() {
            answer.next = place.encode().into();
            return Ok(answer);
        }
    }
}
