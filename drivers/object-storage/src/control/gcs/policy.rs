// SPDX-License-Identifier: Apache-2.0
use std::time::Instant;

use driver_api::Result;
use http::Method;
use serde_json::Value;

use super::{bucket_path, json as request_of};
use crate::{
    account::Account,
    error::{invalid, unsupported},
    wire::{AnswerExt, AskExt, about, nonsense},
};

/// The bucket's IAM policy.
pub(crate) async fn get(account: &Account, until: Instant, bucket: &str) -> Result<String> {
    let path = format!("{}/iam", bucket_path(bucket));
    let request = request_of(
        account,
        "show policy",
        Method::GET,
        bucket,
        &path,
        &[("optionsRequestedPolicyVersion", "3")],
    )?;
    let policy: Value = account.ask_ok(&request, until).await?.json(&request)?;
    if policy["kind"] != "storage#policy" {
        return Err(about(nonsense("it is no policy"), &request));
    }
    serde_json::to_string_pretty(&policy).map_err(|error| about(nonsense(error), &request))
}

/// Sets the bucket's IAM policy. With the `etag` that [`get`] told, a change by somebody else in between is refused.
pub(crate) async fn set(
    account: &Account,
    until: Instant,
    bucket: &str,
    policy: &str,
) -> Result<()> {
    if policy.trim().is_empty() {
        return Err(unsupported("a bucket of GCS always has a policy: without one, its owners could not reach it either")
            .remedy("show the policy, take out what is not to be, and set it"));
    }
    let parsed: Value = serde_json::from_str(policy)
        .map_err(|error| invalid(format!("the policy is not JSON: {error}")))?;
    if !parsed["bindings"].is_array() {
        return Err(invalid("the policy has no list of `bindings`")
            .remedy("write it as `novastor bucket policy get` shows it"));
    }
    let path = format!("{}/iam", bucket_path(bucket));
    let request = request_of(account, "set policy", Method::PUT, bucket, &path, &[])?
        .typed("application/json", policy.to_owned());
    account.ask_ok(&request, until).await.map(drop)
}
