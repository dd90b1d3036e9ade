// SPDX-License-Identifier: Apache-2.0
//! Who may do what with a bucket: kept as it was set, and not applied, for there is one account.

use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{read, say};
use crate::auth::Access;
use crate::call::Call;
use crate::conditions::Conditions;
use crate::refusal::Refusal;
use crate::store::{Bucket, Store};

fn told(bucket: &Bucket) -> Value {
    let mut policy = bucket.policy.clone();
    policy["kind"] = json!("storage#policy");
    policy["resourceId"] = json!(format!("projects/_/buckets/{}", bucket.name));
    policy["etag"] = json!(etag(bucket));
    policy
}

fn etag(bucket: &Bucket) -> String {
    STANDARD.encode(bucket.metageneration.to_be_bytes())
}

pub(super) fn get(store: &Store, bucket: &str) -> Result<Response, Refusal> {
    Ok(say(&told(&store.bucket(bucket)?)))
}

pub(super) async fn set(store: &Store, call: &mut Call, name: &str) -> Result<Response, Refusal> {
    let policy = read(call).await?;
    if !policy["bindings"].is_array() {
        return Err(Refusal::invalid("The policy has no bindings."));
    }
    let bucket = store.change_bucket(name, &Conditions::default(), |bucket| {
        // Whoever names the policy that they read must not undo what was set since.
        if policy["etag"].as_str().is_some_and(|read| read != etag(bucket)) {
            let message = "The policy was changed since it was read.";
            return Err(Refusal::new(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", "conditionNotMet", message));
        }
        bucket.policy = json!({ "version": policy.get("version").unwrap_or(&json!(1)), "bindings": policy["bindings"] });
        Ok(())
    })?;
    Ok(say(&told(&bucket)))
}

/// Those of some permissions that the token gives.
pub(super) fn test(
    store: &Store,
    call: &Call,
    bucket: &str,
    access: Access,
) -> Result<Response, Refusal> {
    store.bucket(bucket)?;
    let asked = call
        .query
        .iter()
        .filter(|(name, _)| name == "permissions")
        .map(|(_, permission)| permission);
    let given = asked.filter(|permission| {
        access
            >= match permission.rsplit('.').next() {
                Some("get" | "list") => Access::Read,
                Some("setIamPolicy" | "getIamPolicy") => Access::Full,
                _ => Access::Write,
            }
    });
    Ok(say(
        &json!({ "kind": "storage#testIamPermissionsResponse", "permissions": given.collect::<Vec<_>>() }),
    ))
}
