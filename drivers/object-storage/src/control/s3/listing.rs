// SPDX-License-Identifier: Apache-2.0
use std::{borrow::Cow, time::Instant};

use driver_api::{
    Result,
    ext::{ListPage, ListQuery, ObjectInfo},
};
use http::Method;

use crate::{
    account::Account,
    control::pages::{self, Order, Place},
    wire::{AnswerExt, about, ask, at_bucket, nonsense, same, time, url::unescape, xml::Element},
};

/// The most entries of a page.
pub(crate) const MAX_PAGE: u32 = 1000;

/// A page of the bucket's objects.
pub(crate) async fn list(
    account: &Account,
    until: Instant,
    bucket: &str,
    query: &ListQuery,
) -> Result<ListPage> {
    let place = pages::begin(query)?;
    let limit = query.limit.min(MAX_PAGE).to_string();
    let mut asked = vec![("encoding-type", Some("url")), ("max-keys", Some(limit.as_str()))];
    for (name, value) in [("prefix", &query.prefix), ("delimiter", &query.delimiter)] {
        if !value.is_empty() {
            asked.push((name, Some(value.as_str())));
        }
    }
    let (what, root) = if query.versions {
        asked.push(("versions", None));
        let (key, version) = match &place {
            Some(place) => split_marker(&place.token),
            None => (query.after.as_str(), ""),
        };
        if !key.is_empty() {
            asked.push(("key-marker", Some(key)));
        }
        if !version.is_empty() {
            asked.push(("version-id-marker", Some(version)));
        }
        ("list versions", "ListVersionsResult")
    } else {
        asked.push(("list-type", Some("2")));
        match &place {
            Some(place) => asked.push(("continuation-token", Some(&place.token))),
            None if !query.after.is_empty() => asked.push(("start-after", Some(&query.after))),
            None => {}
        }
        ("list objects", "ListBucketResult")
    };
    let request = ask(what, Method::GET, at_bucket(bucket, &asked));
    let context = |error| about(error, &request);
    let reply = account.ask_ok(&request, until).await?;
    let root = reply.document(root, &request)?;
    let mut page = decode(&root, bucket, query).map_err(context)?;
    pages::keep_place(place.as_ref(), &mut page)?;
    let order = if query.versions { Order::Versions } else { Order::Bytes };
    pages::check(query, place.as_ref(), order, &page).map_err(context)?;
    Ok(page)
}

/// The page of an answer, which must be for this bucket and prefix.
pub(crate) fn decode(root: &Element<'_>, bucket: &str, query: &ListQuery) -> Result<ListPage> {
    let escaped = root.text("EncodingType") == "url";
    let text = |text: &str| -> Result<String> { name(text, escaped).map(Cow::into_owned) };
    same("bucket", bucket, root.text("Name"))?;
    same("prefix", &query.prefix, &text(root.text("Prefix"))?)?;
    let mut page = ListPage::default();
    page.objects.reserve(root.children.len());
    for child in &root.children {
        match child.name {
            "Contents" | "Version" | "DeleteMarker" => {
                page.objects.push(object(child, escaped, query.versions)?)
            }
            "CommonPrefixes" => page.prefixes.push(text(child.need("Prefix")?)?.into()),
            _ => {}
        }
    }
    if query.versions {
        // Some stores tell the markers of deletions after all versions of the page.
        sort_versions(&mut page);
    }
    if !root.says("IsTruncated") {
        return Ok(page);
    }
    let last = pages::last_name(&page.objects, &page.prefixes);
    let token = if query.versions {
        let key = text(root.need("NextKeyMarker")?)?;
        format!("{}:{key}{}", key.len(), root.text("NextVersionIdMarker"))
    } else {
        root.need("NextContinuationToken")?.to_owned()
    };
    page.next = Place { last, token }.encode().into();
    Ok(page)
}

fn split_marker(token: &str) -> (&str, &str) {
    let split = || {
        let (length, rest) = token.split_once(':')?;
        rest.split_at_checked(length.parse().ok()?)
    };
    split().unwrap_or((token, ""))
}

fn name(text: &str, escaped: bool) -> Result<Cow<'_, str>> {
    if !escaped || !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    unescape(text, true)
        .map(Cow::Owned)
        .ok_or_else(|| nonsense(format!("{text:?} is not escaped as it should be")))
}

fn object(element: &Element<'_>, escaped: bool, versions: bool) -> Result<ObjectInfo> {
    let deleted = element.name == "DeleteMarker";
    let mut info = ObjectInfo { deleted, latest: !versions, ..ObjectInfo::default() };
    let mut sized = deleted;
    for child in &element.children {
        let text = child.text.as_ref();
        match child.name {
            "Key" => info.key = name(text, escaped)?.as_ref().into(),
            "VersionId" | "Generation" if text != "null" || versions => info.version = text.into(),
            "Size" => {
                info.size =
                    text.trim().parse().map_err(|_| nonsense(format!("a size is {text:?}")))?;
                sized = true;
            }
            "ETag" => info.etag = text.trim_matches('"').into(),
            "LastModified" => info.modified_ms = time::iso_ms(text),
            "StorageClass" if text != "STANDARD" => info.storage_class = text.into(),
            "IsLatest" => info.latest = text == "true",
            _ => {}
        }
    }
    if info.key.is_empty() || !sized {
        return Err(nonsense("an object is listed without its key or size"));
    }
    Ok(info)
}

fn sort_versions(page: &mut ListPage) {
    let sorted = page.objects.windows(2).all(|pair| pair[0].key <= pair[1].key);
    if !sorted {
        page.objects.sort_by(|a, b| {
            a.key.cmp(&b.key).then(b.latest.cmp(&a.latest)).then(b.modified_ms.cmp(&a.modified_ms))
        });
    }
}

/// What is left in a bucket that is not empty, in words.
pub(crate) async fn first_left(account: &Account, until: Instant, bucket: &str) -> Result<String> {
    let mut query = ListQuery { limit: 1, ..ListQuery::default() };
    if let Some(object) = list(account, until, bucket, &query).await?.objects.first() {
        return Ok(format!("the object {:?}", object.key));
    }
    query.versions = true;
    Ok(match list(account, until, bucket, &query).await?.objects.first() {
        Some(marker) if marker.deleted => format!("the marker of a deletion of {:?}", marker.key),
        Some(version) => format!("an old version of {:?}", version.key),
        None => "something that listings do not tell".to_owned(),
    })
}
