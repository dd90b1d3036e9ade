// SPDX-License-Identifier: Apache-2.0
//! Listings: a page of objects and common prefixes, in the order of their names' bytes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::model::Object;

/// What is listed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    pub(crate) prefix: String,
    /// Names with this after the prefix are told as one common prefix.
    pub(crate) delimiter: Option<String>,
    /// Names after this one.
    pub(crate) after: Option<String>,
    /// Names from this one on.
    pub(crate) from: Option<String>,
    /// Names before this one.
    pub(crate) before: Option<String>,
    /// Old generations as well.
    pub(crate) versions: bool,
    /// How many objects and prefixes at most.
    pub(crate) most: usize,
    /// What the page before this one said.
    pub(crate) token: Option<String>,
}

/// A part of a listing.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) prefixes: Vec<String>,
    /// Where the next page begins; none if this is the last.
    pub(crate) token: Option<String>,
}

/// The last thing on a page.
#[derive(Debug, PartialEq)]
enum Last {
    Object(String, i64),
    Prefix(String),
}

impl Last {
    fn token(&self) -> String {
        let text = match self {
            Self::Object(name, generation) => format!("o{generation} {name}"),
            Self::Prefix(prefix) => format!("p{prefix}"),
        };
        URL_SAFE_NO_PAD.encode(text)
    }

    fn parse(token: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        if let Some(prefix) = text.strip_prefix('p') {
            return Some(Self::Prefix(prefix.to_owned()));
        }
        let (generation, name) = text.strip_prefix('o')?.split_once(' ')?;
        Some(Self::Object(name.to_owned(), generation.parse().ok()?))
    }

    /// Whether something stands on this page or one before it.
    fn covers(&self, object: &Object) -> bool {
        match self {
            Self::Object(name, generation) => {
                (&object.name, object.generation) <= (name, *generation)
            }
            Self::Prefix(prefix) => {
                object.name < *prefix || object.name.starts_with(prefix.as_str())
            }
        }
    }
}

impl Selection {
    /// Whether a token is one that a page said.
    pub(crate) fn is_token(token: &str) -> bool {
        Last::parse(token).is_some()
    }
}

pub(super) fn page(objects: &BTreeMap<String, Vec<Arc<Object>>>, selection: &Selection) -> Page {
    let mut page = Page::default();
    let mut last = selection.token.as_deref().and_then(Last::parse);
    let resumed = match &last {
        Some(Last::Object(name, _) | Last::Prefix(name)) => name.as_str(),
        None => "",
    };
    // The furthest of all places to begin at; what stands there and is not wanted is skipped below.
    let starts = [selection.prefix.as_str(), resumed]
        .into_iter()
        .chain(selection.after.as_deref())
        .chain(selection.from.as_deref())
        .max()
        .unwrap_or_default()
        .to_owned();
    let all = objects.range::<str, _>((Bound::Included(starts.as_str()), Bound::Unbounded));
    for object in all.flat_map(|(_, generations)| generations) {
        if !object.name.starts_with(&selection.prefix)
            || selection.before.as_ref().is_some_and(|end| object.name >= *end)
        {
            break;
        }
        let hidden = !object.is_live() && !selection.versions;
        let early = selection.after.as_ref().is_some_and(|after| object.name <= *after);
        if hidden || early || last.as_ref().is_some_and(|last| last.covers(object)) {
            continue;
        }
        if page.objects.len() + page.prefixes.len() >= selection.most {
            page.token = last.as_ref().filter(|_| selection.most > 0).map(Last::token);
            break;
        }
        match common_prefix(&object.name, selection) {
            Some(prefix) => {
                page.prefixes.push(prefix.to_owned());
                last = Some(Last::Prefix(prefix.to_owned()));
            }
            None => {
                page.objects.push(object.clone());
                last = Some(Last::Object(object.name.clone(), object.generation));
            }
        }
    }
    page
}

fn common_prefix<'a>(name: &'a str, selection: &Selection) -> Option<&'a str> {
    let delimiter = selection.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty())?;
    let rest = &name[selection.prefix.len()..];
    let at = rest.find(delimiter)?;
    Some(&name[..selection.prefix.len() + at + delimiter.len()])
}
