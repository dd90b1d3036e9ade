// SPDX-License-Identifier: Apache-2.0
use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use driver_api::RVec;
use driver_api::{
    Error, ErrorKind, Result,
    ext::{DeleteOutcome, ObjectName},
};
use http::Method;

use crate::{
    account::Account,
    control::outcome,
    wire::{
        AnswerExt, AskExt, ask, at_bucket,
        digest::md5_base64,
        put_header,
        xml::{self, Element},
    },
};

/// Deletes these objects; one outcome each, in their order.
pub(crate) async fn delete(
    account: &Account,
    until: Instant,
    bucket: &str,
    objects: &[ObjectName],
) -> Result<RVec<DeleteOutcome>> {
    let body = encode(objects)?;
    let sum = md5_base64(body.as_bytes());
    let mut request = ask("delete objects", Method::POST, at_bucket(bucket, &[("delete", None)]))
        .typed("application/xml", body);
    put_header(&mut request, "content-md5", &sum)?;
    let reply = account.ask_ok(&request, until).await?;
    Ok(decode(&reply.document("DeleteResult", &request)?, objects))
}

/// The request's document.
pub(crate) fn encode(objects: &[ObjectName]) -> Result<String> {
    let mut document = xml::Writer::new();
    for object in objects {
        xml::check_text("key", &object.key)?;
        xml::check_text("version", &object.version)?;
    }
    document.element_with("Delete", "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"", |root| {
        for object in objects {
            root.element("Object", |out| {
                out.text("Key", &object.key);
                if !object.version.is_empty() {
                    out.text("VersionId", &object.version);
                }
            });
        }
    });
    Ok(document.finish())
}

/// What the answer says of each. One that it says nothing of may be gone or not.
pub(crate) fn decode(root: &Element<'_>, objects: &[ObjectName]) -> RVec<DeleteOutcome> {
    let mut outcomes: Vec<Option<DeleteOutcome>> = vec![None; objects.len()];
    let mut places = HashMap::new();
    for (place, object) in objects.iter().enumerate() {
        places
            .entry((object.key.as_str(), object.version.as_str()))
            .or_insert_with(Vec::new)
            .push(place);
    }
    let mut nameless = HashMap::new();
    for line in &root.children {
        let told = match line.name {
            "Deleted" => outcome::gone(),
            "Error" => line_outcome(line.text("Code"), line.text("Message")),
            _ => continue,
        };
        let (key, version) = (line.text("Key"), line.text("VersionId"));
        // Stores tell a version that was not asked for: the marker's, or `null`.
        match places.get(&(key, version)).or_else(|| places.get(&(key, ""))) {
            Some(found) => found.iter().for_each(|place| outcomes[*place] = Some(told.clone())),
            None if version.is_empty() => {
                nameless.entry(key).or_insert_with(Vec::new).push(told);
            }
            None => {}
        }
    }
    for (key, told) in nameless {
        all_versions(key, &told, objects, &mut outcomes);
    }
    outcomes.into_iter().map(|told| told.unwrap_or_else(outcome::unknown)).collect()
}

/// Swift tells of versions by their key alone, a line for each: they say something if they say the same.
fn all_versions(
    key: &str,
    told: &[DeleteOutcome],
    objects: &[ObjectName],
    outcomes: &mut [Option<DeleteOutcome>],
) {
    let same = told.windows(2).all(|two| two[0].gone == two[1].gone);
    let versions: HashSet<_> =
        objects.iter().filter(|object| object.key == key).map(|object| &object.version).collect();
    let Some(first) = told.first().filter(|_| same && told.len() == versions.len()) else { return };
    for (object, outcome) in objects.iter().zip(outcomes) {
        if object.key == key {
            *outcome = Some(first.clone());
        }
    }
}

fn line_outcome(code: &str, message: &str) -> DeleteOutcome {
    let kind = match code {
        "NoSuchKey" | "NoSuchVersion" => return outcome::gone(),
        "AccessDenied" => ErrorKind::PERMISSION_DENIED,
        "MalformedXML" | "InvalidArgument" | "KeyTooLongError" => ErrorKind::INVALID_ARGUMENT,
        "NotImplemented" | "MethodNotAllowed" => ErrorKind::UNSUPPORTED,
        "PreconditionFailed" => ErrorKind::CONFLICT,
        "InternalError" => ErrorKind::TIMED_OUT,
        _ => ErrorKind::UNAVAILABLE,
    };
    outcome::kept(&Error::new(kind, format!("the store refused: {message} ({code})")))
}
