// SPDX-License-Identifier: Apache-2.0
use std::{borrow::Cow, time::Instant};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use driver_api::{
    RVec, Result,
    ext::{ListPage, ListQuery, ObjectInfo},
};
use http::Method;

use crate::{
    account::Account,
    control::pages::{self, Order, Place},
    wire::{
        AnswerExt, about, ask, at_bucket, digest::hex, nonsense, same, time, unquoted,
        url::unescape, xml::Element,
    },
};

/// The most entries of a page.
pub(crate) const MAX_PAGE: u32 = 5000;

/// A page of the container's blobs. Azure cannot begin after a key: what is before it is read and left out.
///
/// The token of a [`Place`] is `m` and Azure's marker of the next page, or `s` and the marker of a page that was told in
/// part: it is read again, and told from behind the place's name.
pub(crate) async fn list(
    account: &Account,
    until: Instant,
    bucket: &str,
    query: &ListQuery,
) -> Result<ListPage> {
    let place = pages::begin(query)?;
    let (mut marker, behind) = match &place {
        None => (String::new(), query.after.as_str()),
        Some(place) => match place.token.split_at_checked(1) {
            Some(("s", marker)) => (marker.to_owned(), place.last.as_str()),
            Some((_, marker)) => (marker.to_owned(), ""),
            None => (String::new(), ""),
        },
    };
    let limit = if behind.is_empty() { query.limit.min(MAX_PAGE) } else { MAX_PAGE }.to_string();
    loop {
        let mut asked = vec![
            ("restype", Some("container")),
            ("comp", Some("list")),
            ("maxresults", Some(limit.as_str())),
        ];
        for (name, value) in [
            ("prefix", query.prefix.as_str()),
            ("delimiter", query.delimiter.as_str()),
            ("marker", marker.as_str()),
        ] {
            if !value.is_empty() {
                asked.push((name, Some(value)));
            }
        }
        if query.versions {
            asked.push(("include", Some("versions")));
        }
        let what = if query.versions { "list versions" } else { "list objects" };
        let request = ask(what, Method::GET, at_bucket(bucket, &asked));
        let reply = account.ask_ok(&request, until).await?;
        let root = reply.document("EnumerationResults", &request)?;
        let (mut page, next) =
            decode(&root, bucket, query).map_err(|error| about(error, &request))?;
        if !next.is_empty() && next == marker {
            return Err(about(nonsense("the listing does not advance"), &request));
        }
        let cut = if behind.is_empty() { None } else { leave_out(&mut page, query, behind) };
        if let Some(last) = cut {
            page.next = Place { last, token: format!("s{marker}") }.encode().into();
        } else if !next.is_empty() {
            if page.objects.is_empty() && page.prefixes.is_empty() {
                marker = next;
                continue;
            }
            let last = pages::last_name(&page.objects, &page.prefixes);
            page.next = Place { last, token: format!("m{next}") }.encode().into();
        }
        let order = if query.versions { Order::Versions } else { Order::Other };
        pages::check(query, place.as_ref(), order, &page)
            .map_err(|error| about(error, &request))?;
        return Ok(page);
    }
}

/// Takes out what is not behind that name, and what is over the limit: then the last name that is left is given.
fn leave_out(page: &mut ListPage, query: &ListQuery, behind: &str) -> Option<String> {
    page.objects.retain(|object| object.key.as_str() > behind);
    page.prefixes.retain(|prefix| {
        prefix.as_str() > behind || (behind == query.after && behind.starts_with(prefix.as_str()))
    });
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let mut names: Vec<&str> = page.objects.iter().map(|object| object.key.as_str()).collect();
    names.extend(page.prefixes.iter().map(|prefix| prefix.as_str()));
    if names.len() <= limit {
        return None;
    }
    names.sort_unstable();
    let last = names[limit.saturating_sub(1)].to_owned();
    // All versions of the last key stay: the place is a name, which they share.
    page.objects.retain(|object| object.key.as_str() <= last.as_str());
    page.prefixes.retain(|prefix| prefix.as_str() <= last.as_str());
    Some(last)
}

/// The page of an answer, which must be for this container and prefix, and Azure's marker of the next one.
pub(crate) fn decode(
    root: &Element<'_>,
    bucket: &str,
    query: &ListQuery,
) -> Result<(ListPage, String)> {
    let container = root.attribute("ContainerName");
    // Azure gives the container's URL to old clients.
    same(
        "container",
        bucket,
        container.trim_end_matches('/').rsplit('/').next().unwrap_or_default(),
    )?;
    same("prefix", &query.prefix, root.text("Prefix"))?;
    let mut page = ListPage::default();
    let entries = root.child("Blobs").map_or(&[][..], |blobs| &blobs.children);
    page.objects.reserve(entries.len());
    for entry in entries {
        match entry.name {
            "Blob" => {
                let blob = object(entry, query.versions)?;
                // Directories of accounts with a namespace of their own are no objects.
                page.objects.extend(blob);
            }
            "BlobPrefix" => page.prefixes.push(name(entry)?.as_ref().into()),
            _ => {}
        }
    }
    Ok((page, root.text("NextMarker").to_owned()))
}

fn name<'a>(entry: &'a Element<'_>) -> Result<Cow<'a, str>> {
    let name = entry.child("Name").filter(|name| !name.text.is_empty());
    let name = name.ok_or_else(|| nonsense("a blob is listed without its name"))?;
    if name.attribute("Encoded") == "true" {
        let text = unescape(&name.text, false);
        return text
            .map(Cow::Owned)
            .ok_or_else(|| nonsense(format!("{:?} is not escaped as it should be", name.text)));
    }
    Ok(Cow::Borrowed(&name.text))
}

fn object(entry: &Element<'_>, versions: bool) -> Result<Option<ObjectInfo>> {
    let mut info = ObjectInfo {
        key: name(entry)?.as_ref().into(),
        latest: !versions,
        ..ObjectInfo::default()
    };
    info.version = entry.text("VersionId").into();
    if versions {
        info.latest = info.version.is_empty() || entry.says("IsCurrentVersion");
    }
    let Some(properties) = entry.child("Properties") else {
        return Err(nonsense(format!("{:?} is listed without properties", info.key)));
    };
    let mut sized = false;
    for property in &properties.children {
        let text = property.text.as_ref();
        match property.name {
            "Content-Length" => {
                info.size = text.parse().map_err(|_| nonsense(format!("a size is {text:?}")))?;
                sized = true;
            }
            "Etag" => info.etag = unquoted(text).into(),
            "Last-Modified" => info.modified_ms = time::http_ms(text),
            "Content-Type" => info.content_type = text.into(),
            "AccessTier" if text != "Hot" => info.storage_class = text.into(),
            "Content-MD5" if !text.is_empty() => {
                if let Ok(sum) = BASE64.decode(text) {
                    info.checksum = format!("md5:{}", hex(&sum)).into();
                }
            }
            "Expiry-Time" => info.expires_ms = time::http_ms(text),
            "ResourceType" if text == "directory" => return Ok(None),
            _ => {}
        }
    }
    if properties.says("AccessTierInferred") {
        info.storage_class = "".into();
    }
    if !sized {
        return Err(nonsense(format!("{:?} is listed without its size", info.key)));
    }
    Ok(Some(info))
}

/// The names of blobs that have nothing but blocks, or blocks beside their content, and where the list goes on.
pub(crate) async fn uncommitted(
    account: &Account,
    until: Instant,
    bucket: &str,
    prefix: &str,
    marker: &str,
    limit: u32,
) -> Result<(RVec<driver_api::RString>, String)> {
    let limit = limit.clamp(1, MAX_PAGE).to_string();
    let mut asked = vec![
        ("restype", Some("container")),
        ("comp", Some("list")),
        ("include", Some("uncommittedblobs")),
        ("maxresults", Some(limit.as_str())),
    ];
    if !prefix.is_empty() {
        asked.push(("prefix", Some(prefix)));
    }
    if !marker.is_empty() {
        asked.push(("marker", Some(marker)));
    }
    let request = ask("list uploads", Method::GET, at_bucket(bucket, &asked));
    let reply = account.ask_ok(&request, until).await?;
    let root = reply.document("EnumerationResults", &request)?;
    let query = ListQuery { prefix: prefix.into(), ..ListQuery::default() };
    let (page, next) = decode(&root, bucket, &query).map_err(|error| about(error, &request))?;
    if !next.is_empty() && next == marker {
        return Err(about(nonsense("the list of uploads does not advance"), &request));
    }
    Ok((page.objects.into_iter().map(|object| object.key).collect(), next))
}
