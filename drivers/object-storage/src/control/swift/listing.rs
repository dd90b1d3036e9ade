// SPDX-License-Identifier: Apache-2.0
use std::time::Instant;

use driver_api::{
    Result,
    ext::{ListPage, ListQuery, ObjectInfo},
};
use swift::{Line, Wanted};

use crate::{
    account::Account,
    control::pages::{self, Order, Place},
    swift::{container, within},
};

/// The most entries of a page.
pub(crate) const MAX_PAGE: u32 = 10_000;

/// A page of the container's objects. The token of a [`Place`] is the last version told.
pub(crate) async fn list(
    account: &Account,
    until: Instant,
    bucket: &str,
    query: &ListQuery,
) -> Result<ListPage> {
    let place = pages::begin(query)?;
    let store = container(account, bucket)?;
    let context = |error: driver_api::Error| error.with("bucket", bucket);
    let what = "the container cannot be listed";
    let paging = within(until, false, what, store.paging()).await.map_err(context)?;
    let limit = paging.most.min(query.limit.min(MAX_PAGE) as usize);
    let wanted = Wanted {
        prefix: &query.prefix,
        delimiter: &query.delimiter,
        marker: place.as_ref().map_or(query.after.as_str(), |place| &place.last),
        versions: query.versions.then(|| place.as_ref().map_or("", |place| place.token.as_str())),
        limit,
    };
    let lines = within(until, false, what, store.list_page(&wanted)).await.map_err(context)?;
    let mut page = ListPage::default();
    let mut more = lines.len() >= limit;
    if let (false, false, Some(last)) = (more, paging.short_is_last, lines.last()) {
        let rest = Wanted { marker: &last.name, limit: 1, ..wanted };
        let rest = within(until, false, what, store.list_page(&rest)).await.map_err(context)?;
        more = !rest.is_empty();
    }
    if let (true, Some(last)) = (more, lines.last()) {
        let token =
            if query.versions { last.version.clone().unwrap_or_default() } else { String::new() };
        page.next = Place { last: last.name.clone(), token }.encode().into();
    }
    page.objects.reserve(lines.len());
    for line in lines {
        if line.is_prefix {
            page.prefixes.push(line.name.into());
        } else {
            page.objects.push(object(line));
        }
    }
    let order = if query.versions { Order::Versions } else { Order::Bytes };
    pages::check(query, place.as_ref(), order, &page).map_err(context)?;
    Ok(page)
}

fn object(line: Line) -> ObjectInfo {
    let modified = line.last_modified.map_or(0, |time| time.timestamp_millis());
    let mut info = ObjectInfo {
        key: line.name.into(),
        version: line.version.unwrap_or_default().into(),
        size: line.size,
        modified_ms: u64::try_from(modified).unwrap_or(0),
        content_type: line.content_type.into(),
        latest: line.latest,
        deleted: line.deleted,
        ..ObjectInfo::default()
    };
    info.etag = line.e_tag.into();
    info
}
