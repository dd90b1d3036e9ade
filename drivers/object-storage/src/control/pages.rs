// SPDX-License-Identifier: Apache-2.0
//! Pages of listings: the name of the next one, and that a listing goes forward.

use driver_api::{RString, RVec};
use driver_api::{
    Result,
    ext::{ListPage, ListQuery, ObjectInfo},
};

use crate::{error::invalid, wire::nonsense};

/// Where a listing goes on: the store's own words, and the last name that was told, which must be passed by then.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The last key or common prefix told.
    pub last: String,
    /// The store's own words for the next page; empty: those after `last`.
    pub token: String,
}

impl Place {
    /// The place as [`ListPage::next`]: the length of `last`, a colon, `last` and the token.
    pub(crate) fn encode(&self) -> String {
        format!("{}:{}{}", self.last.len(), self.last, self.token)
    }

    /// The place of such a text; empty: the beginning. `InvalidArgument`: it is none.
    pub(crate) fn decode(text: &str) -> Result<Option<Self>> {
        if text.is_empty() {
            return Ok(None);
        }
        let place = || {
            let (length, rest) = text.split_once(':')?;
            let (last, token) = rest.split_at_checked(length.parse().ok()?)?;
            Some(Self { last: last.to_owned(), token: token.to_owned() })
        };
        match place() {
            Some(place) => Ok(Some(place)),
            None => Err(invalid("`page` is not what the page before called its next one")
                .remedy("begin the listing anew, without `page`")),
        }
    }
}

/// The tokens of a listing that is read to its end: none comes twice.
#[derive(Debug, Default)]
pub(crate) struct Tokens(std::collections::HashSet<String>);

impl Tokens {
    /// Notes the token of the next page.
    pub(crate) fn next(&mut self, token: &str) -> Result<String> {
        if self.0.insert(token.to_owned()) {
            return Ok(token.to_owned());
        }
        Err(nonsense("the listing does not advance: a page comes again"))
    }
}

/// Checks a query; gives where it begins.
pub(crate) fn begin(query: &ListQuery) -> Result<Option<Place>> {
    if query.limit == 0 {
        return Err(invalid("a listing of 0 entries: `limit` begins with 1"));
    }
    if !query.page.is_empty() && !query.after.is_empty() {
        return Err(invalid("a listing begins at `page` or after `after`, not at both"));
    }
    Place::decode(&query.page)
}

/// How names of a store are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// By their bytes; each name once.
    Bytes,
    /// By their bytes; versions of one key follow each other.
    Versions,
    /// By rules of the store's own.
    Other,
}

/// Checks a page: names have the prefix, come after where it begins, and go forward.
pub(crate) fn check(
    query: &ListQuery,
    place: Option<&Place>,
    order: Order,
    page: &ListPage,
) -> Result<()> {
    let after = place.map_or(query.after.as_str(), |place| place.last.as_str());
    let mut last = "";
    for object in &page.objects {
        forward(query, after, order, last, &object.key)?;
        last = &object.key;
    }
    last = "";
    for prefix in &page.prefixes {
        // A prefix may hold names on both sides of `after`.
        let strict = if after.starts_with(prefix.as_str()) && place.is_none() { "" } else { after };
        forward(query, strict, order, last, prefix)?;
        last = prefix;
    }
    if page.next.as_str() == query.page.as_str() && !page.next.is_empty() {
        return Err(nonsense("its next page is the same page"));
    }
    Ok(())
}

fn forward(query: &ListQuery, after: &str, order: Order, last: &str, name: &RString) -> Result<()> {
    let name = name.as_str();
    if !name.starts_with(query.prefix.as_str()) {
        return Err(nonsense(format!(
            "{name:?} is listed, and does not begin with {:?}",
            query.prefix
        )));
    }
    let fits = |before: &str| match order {
        _ if before.is_empty() => true,
        Order::Bytes => before < name,
        Order::Versions => before <= name,
        Order::Other => before != name,
    };
    if !fits(after) || !fits(last) {
        let before = if fits(after) { last } else { after };
        return Err(nonsense(format!(
            "{name:?} is listed after {before:?}: the listing does not advance"
        )));
    }
    Ok(())
}

/// Has a page without names keep the place where it began, as the next one may not go back behind that.
pub(crate) fn keep_place(place: Option<&Place>, page: &mut ListPage) -> Result<()> {
    let (Some(place), Some(next)) = (place, Place::decode(&page.next)?) else { return Ok(()) };
    if next.last.is_empty() {
        page.next = Place { last: place.last.clone(), token: next.token }.encode().into();
    }
    Ok(())
}

/// The last name of a page, which the next one must pass.
pub(crate) fn last_name(objects: &RVec<ObjectInfo>, prefixes: &RVec<RString>) -> String {
    let object = objects.last().map_or("", |object| object.key.as_str());
    let prefix = prefixes.last().map_or("", |prefix| prefix.as_str());
    object.max(prefix).to_owned()
}
