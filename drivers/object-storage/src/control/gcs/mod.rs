// SPDX-License-Identifier: Apache-2.0
//! Google Cloud Storage: objects by its XML API, which is S3's with other headers, buckets and what is set on them by its
//! JSON API.

pub(crate) mod buckets;
pub(crate) mod change;
pub(crate) mod lifecycle;
pub(crate) mod policy;
pub(crate) mod sign;
pub(crate) mod versions;

use driver_api::Result;
use http::{Method, Uri};

use crate::{
    account::Account,
    call::Ask,
    error::invalid,
    wire::url::{escape, escape_into},
};

/// A request of the JSON API. `path` begins behind `/storage/v1/` and is escaped.
pub(crate) fn json(
    account: &Account,
    what: &'static str,
    method: Method,
    bucket: &str,
    path: &str,
    query: &[(&str, &str)],
) -> Result<Ask> {
    let mut text = format!("{}/storage/v1/{path}", account.base.as_str().trim_end_matches('/'));
    for (index, (name, value)) in query.iter().enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        escape_into(&mut text, value, false);
    }
    let url: Uri = text
        .parse()
        .map_err(|error| invalid(format!("no URL can be made of the name: {error}")))?;
    let mut ask = Ask::new(what, method, bucket, "");
    ask.url = Some(url);
    Ok(ask)
}

/// The path of a bucket.
pub(crate) fn bucket_path(bucket: &str) -> String {
    format!("b/{}", escape(bucket, false))
}

/// The path of an object.
pub(crate) fn object_path(bucket: &str, key: &str) -> String {
    format!("b/{}/o/{}", escape(bucket, false), escape(key, false))
}
