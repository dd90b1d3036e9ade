// SPDX-License-Identifier: Apache-2.0
use std::time::Instant;

use driver_api::{Error, ErrorKind, Result, ext::ObjectName};
use driver_api::{RString, RVec, Tuple2};
use http::Method;

use crate::{
    account::Account,
    error::invalid,
    wire::{AnswerExt, AskExt, At, about, ask, at_object, digest::md5_base64, put_header, xml},
};

/// The most tags of an object.
const MAX_TAGS: usize = 10;

/// Pairs of text.
pub(crate) type Pairs = RVec<Tuple2<RString, RString>>;

/// Refuses tags that stores cannot keep.
pub(crate) fn check(tags: &[Tuple2<RString, RString>]) -> Result<()> {
    if tags.len() > MAX_TAGS {
        return Err(invalid(format!(
            "{} tags are more than the {MAX_TAGS} that an object can have",
            tags.len()
        )));
    }
    for (index, tag) in tags.iter().enumerate() {
        xml::check_text("tag", &tag.0)?;
        xml::check_text("tag", &tag.1)?;
        if tag.0.is_empty() || tag.0.chars().count() > 128 || tag.1.chars().count() > 256 {
            return Err(invalid(format!(
                "the tag {:?}: names have 1 to 128 characters, values up to 256",
                tag.0
            )));
        }
        if tags[..index].iter().any(|other| other.0 == tag.0) {
            return Err(invalid(format!("two tags have the name {:?}", tag.0)));
        }
    }
    Ok(())
}

fn at(object: &ObjectName) -> At {
    let version = ("versionId", Some(object.version.as_str()));
    let query = [("tagging", None), version];
    at_object(
        &object.bucket,
        &object.key,
        if object.version.is_empty() { &query[..1] } else { &query },
    )
}

/// The tags of an object.
pub(crate) async fn get(account: &Account, until: Instant, object: &ObjectName) -> Result<Pairs> {
    let request = ask("show tags", Method::GET, at(object));
    let reply = account.ask(&request, until).await?;
    if reply.code() == "NoSuchTagSet" {
        return Ok(RVec::new());
    }
    if !reply.status.is_success() {
        return Err(reply.error(account, &request));
    }
    // Ceph's gateway says nothing of an object without tags. An ETag would mean that the answer is an empty object.
    if reply.body.is_empty() && reply.etag().is_empty() {
        return Ok(RVec::new());
    }
    let root = reply.document("Tagging", &request)?;
    let set = root.child("TagSet").into_iter().flat_map(|set| set.all("Tag"));
    Ok(set.map(|tag| Tuple2(tag.text("Key").into(), tag.text("Value").into())).collect())
}

/// Sets all tags of an object, and checks that the store kept them.
pub(crate) async fn set(
    account: &Account,
    until: Instant,
    object: &ObjectName,
    tags: &[Tuple2<RString, RString>],
) -> Result<()> {
    check(tags)?;
    // A store that does not know `?tagging` would write the tags over the object, or delete it.
    if sorted(&get(account, until, object).await?) == sorted(tags) {
        return Ok(());
    }
    let request = if tags.is_empty() {
        ask("remove tags", Method::DELETE, at(object))
    } else {
        let body = encode(tags);
        let sum = md5_base64(body.as_bytes());
        let mut request = ask("set tags", Method::PUT, at(object)).typed("application/xml", body);
        put_header(&mut request, "content-md5", &sum)?;
        request
    };
    account.ask_ok(&request, until).await?;
    if sorted(&get(account, until, object).await?) != sorted(tags) {
        let error =
            Error::new(ErrorKind::CONFLICT, "the object's tags are not those that were set")
                .remedy("look whether somebody else changes them, and set them again");
        return Err(about(error, &request));
    }
    Ok(())
}

fn encode(tags: &[Tuple2<RString, RString>]) -> String {
    let mut document = xml::Writer::new();
    document.element_with("Tagging", "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"", |root| {
        root.element("TagSet", |set| {
            for tag in tags {
                set.element("Tag", |out| {
                    out.text("Key", &tag.0);
                    out.text("Value", &tag.1);
                });
            }
        });
    });
    document.finish()
}

fn sorted(tags: &[Tuple2<RString, RString>]) -> Vec<(&str, &str)> {
    let mut pairs: Vec<_> = tags.iter().map(|tag| (tag.0.as_str(), tag.1.as_str())).collect();
    pairs.sort_unstable();
    pairs
}
