// SPDX-License-Identifier: Apache-2.0
use std::time::Instant;

use driver_api::Result;
use http::Method;

use crate::{
    account::Account,
    wire::{AnswerExt, AskExt, about, ask, at_bucket, digest::md5_base64, nonsense, put_header},
};

/// The bucket's policy; empty: it has none.
pub(crate) async fn get(account: &Account, until: Instant, bucket: &str) -> Result<String> {
    let request = ask("show policy", Method::GET, at_bucket(bucket, &[("policy", None)]));
    let reply = account.ask(&request, until).await?;
    if reply.code() == "NoSuchBucketPolicy" {
        return Ok(String::new());
    }
    if !reply.status.is_success() {
        return Err(reply.error(account, &request));
    }
    let text = reply.text()?;
    // A store that ignores the question answers with a listing.
    if text.trim_start().starts_with('<') {
        return Err(about(nonsense("it is XML instead of a policy"), &request));
    }
    Ok(text.to_owned())
}

/// Sets the bucket's policy, which is JSON; an empty one removes it.
pub(crate) async fn set(
    account: &Account,
    until: Instant,
    bucket: &str,
    policy: &str,
) -> Result<()> {
    // A store that does not know `?policy` would take the request for one to the bucket itself, and delete it.
    if get(account, until, bucket).await?.is_empty() && policy.is_empty() {
        return Ok(());
    }
    let url = at_bucket(bucket, &[("policy", None)]);
    let request = if policy.is_empty() {
        ask("remove policy", Method::DELETE, url)
    } else {
        let sum = md5_base64(policy.as_bytes());
        let mut request =
            ask("set policy", Method::PUT, url).typed("application/json", policy.to_owned());
        put_header(&mut request, "content-md5", &sum)?;
        request
    };
    account.ask_ok(&request, until).await.map(drop)
}
