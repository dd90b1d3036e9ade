// SPDX-License-Identifier: Apache-2.0
//! Buckets.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{nothing, read, say};
use crate::call::Call;
use crate::clock;
use crate::conditions::Conditions;
use crate::refusal::Refusal;
use crate::store::{Bucket, Store};

/// What a rule of a lifecycle may do.
const ACTIONS: &[&str] = &["Delete", "SetStorageClass", "AbortIncompleteMultipartUpload"];
/// What clients cannot set.
const FIXED: &[&str] = &[
    "kind",
    "id",
    "selfLink",
    "name",
    "projectNumber",
    "metageneration",
    "timeCreated",
    "updated",
    "etag",
    "versioning",
];

/// A bucket that is to be.
///
/// # Errors
///
/// A bucket cannot have this name.
pub(crate) fn new_bucket(name: &str, project: &str) -> Result<Bucket, Refusal> {
    let good =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    if !(3..=63).contains(&bytes.len())
        || !bytes.iter().all(|byte| good(*byte))
        || !ends(bytes.first())
        || !ends(bytes.last())
    {
        let message = format!("Invalid bucket name: '{name}'");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "InvalidBucketName", "invalid", message));
    }
    let now = clock::now();
    Ok(Bucket {
        name: name.to_owned(),
        project: project.to_owned(),
        metageneration: 1,
        created: now,
        updated: now,
        versioning: false,
        settings: BTreeMap::from([
            ("location".to_owned(), json!("US")),
            ("storageClass".to_owned(), json!("STANDARD")),
            (
                "iamConfiguration".to_owned(),
                json!({ "uniformBucketLevelAccess": { "enabled": true } }),
            ),
        ]),
        policy: json!({ "version": 1, "bindings": [] }),
    })
}

fn told(bucket: &Bucket) -> Value {
    let mut value = json!({
        "kind": "storage#bucket",
        "id": bucket.name,
        "name": bucket.name,
        "selfLink": format!("https://www.googleapis.com/storage/v1/b/{}", bucket.name),
        "projectNumber": "1",
        "metageneration": bucket.metageneration.to_string(),
        "timeCreated": clock::rfc3339(bucket.created),
        "updated": clock::rfc3339(bucket.updated),
        "etag": STANDARD.encode(bucket.metageneration.to_be_bytes()),
        "locationType": "multi-region",
    });
    if bucket.versioning {
        value["versioning"] = json!({ "enabled": true });
    }
    for (name, setting) in &bucket.settings {
        value[name] = setting.clone();
    }
    value
}

/// Changes what a client names; null removes it.
fn apply(bucket: &mut Bucket, changes: &Map<String, Value>) -> Result<(), Refusal> {
    if let Some(lifecycle) = changes.get("lifecycle") {
        check_lifecycle(lifecycle)?;
    }
    if let Some(versioning) = changes.get("versioning") {
        bucket.versioning = versioning["enabled"].as_bool().unwrap_or(false);
    }
    for (name, value) in changes.iter().filter(|(name, _)| !FIXED.contains(&name.as_str())) {
        let empty = name == "lifecycle" && value["rule"].as_array().is_none_or(Vec::is_empty);
        match (name.as_str(), value) {
            (_, Value::Null) => drop(bucket.settings.remove(name)),
            _ if empty => drop(bucket.settings.remove(name)),
            ("labels", Value::Object(labels)) => {
                merge(bucket.settings.entry(name.clone()).or_insert(json!({})), labels)
            }
            ("location" | "storageClass", Value::String(text)) => {
                bucket.settings.insert(name.clone(), json!(text.to_uppercase()));
            }
            _ => drop(bucket.settings.insert(name.clone(), value.clone())),
        }
    }
    Ok(())
}

fn merge(into: &mut Value, changes: &Map<String, Value>) {
    for (name, value) in changes {
        if value.is_null() {
            if let Some(map) = into.as_object_mut() {
                map.remove(name);
            }
        } else {
            into[name] = value.clone();
        }
    }
}

fn check_lifecycle(lifecycle: &Value) -> Result<(), Refusal> {
    let rules = match (lifecycle, lifecycle.get("rule")) {
        (Value::Null, _) | (_, None | Some(Value::Null)) => return Ok(()),
        (_, Some(rules)) => rules
            .as_array()
            .ok_or_else(|| Refusal::invalid("A lifecycle's rule must be a list."))?,
    };
    for rule in rules {
        let action = rule["action"]["type"].as_str().unwrap_or_default();
        if !ACTIONS.contains(&action) {
            return Err(Refusal::invalid(format!(
                "'{action}' is not a supported action of a lifecycle's rule."
            )));
        }
        if rule["condition"].as_object().is_none_or(Map::is_empty) {
            return Err(Refusal::invalid("A rule's condition must have at least one condition."));
        }
        if rule["condition"].get("age").is_some_and(|age| age.as_u64().is_none()) {
            return Err(Refusal::invalid("The age of a rule's condition is a number of days."));
        }
    }
    Ok(())
}

pub(super) fn list(store: &Store, call: &Call) -> Result<Response, Refusal> {
    let Some(project) = call.parameter("project") else {
        let message = "Required parameter: project";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "MissingParameter", "required", message));
    };
    let (prefix, after) = (
        call.parameter("prefix").unwrap_or_default(),
        call.parameter("pageToken").unwrap_or_default(),
    );
    let most =
        usize::try_from(call.number("maxResults")?.unwrap_or(1000).clamp(1, 1000)).unwrap_or(1);
    let buckets = store.buckets(project);
    let mut left = buckets
        .iter()
        .filter(|bucket| bucket.name.starts_with(prefix) && bucket.name.as_str() > after)
        .peekable();
    let page: Vec<_> = left.by_ref().take(most).collect();
    let mut value = json!({ "kind": "storage#buckets", "items": page.iter().map(|bucket| told(bucket)).collect::<Vec<_>>() });
    if let (Some(last), true) = (page.last(), left.peek().is_some()) {
        value["nextPageToken"] = json!(last.name);
    }
    Ok(say(&value))
}

pub(super) async fn insert(store: &Store, call: &mut Call) -> Result<Response, Refusal> {
    let wanted = read(call).await?;
    let (Some(name), Some(project)) = (wanted["name"].as_str(), call.parameter("project")) else {
        let message = "Required parameter: project, and a name";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "MissingParameter", "required", message));
    };
    let mut bucket = new_bucket(name, project)?;
    if let Value::Object(changes) = &wanted {
        apply(&mut bucket, changes)?;
    }
    Ok(say(&told(&store.create_bucket(bucket)?)))
}

pub(super) fn get(store: &Store, call: &Call, name: &str) -> Result<Response, Refusal> {
    let bucket = store.bucket(name)?;
    Conditions::from_query(call, "")?.check_bucket(bucket.metageneration)?;
    Ok(say(&told(&bucket)))
}

pub(super) async fn patch(store: &Store, call: &mut Call, name: &str) -> Result<Response, Refusal> {
    let changes = read(call).await?;
    let conditions = Conditions::from_query(call, "")?;
    let changes = changes.as_object().cloned().unwrap_or_default();
    let bucket = store.change_bucket(name, &conditions, |bucket| apply(bucket, &changes))?;
    Ok(say(&told(&bucket)))
}

pub(super) fn delete(store: &Store, call: &Call, name: &str) -> Result<Response, Refusal> {
    store.delete_bucket(name, &Conditions::from_query(call, "")?)?;
    Ok(nothing())
}
