// SPDX-License-Identifier: Apache-2.0
use std::time::Instant;

use driver_api::{Result, ext::Versioning};
use http::Method;

use crate::{
    account::Account,
    wire::{AnswerExt, AskExt, about, ask, at_bucket, nonsense, xml},
};

/// Whether the bucket keeps versions.
pub(crate) async fn get(account: &Account, until: Instant, bucket: &str) -> Result<Versioning> {
    let request = ask("show versioning", Method::GET, at_bucket(bucket, &[("versioning", None)]));
    let reply = account.ask_ok(&request, until).await?;
    let root = reply.document("VersioningConfiguration|GetBucketVersioningResponse", &request)?;
    match root.text("Status") {
        "" => Ok(Versioning::OFF),
        "Enabled" => Ok(Versioning::ON),
        "Suspended" => Ok(Versioning::SUSPENDED),
        other => Err(about(nonsense(format!("versioning is {other:?}")), &request)),
    }
}

/// Has the bucket keep versions, or no longer. What the store says afterwards must agree.
pub(crate) async fn set(
    account: &Account,
    until: Instant,
    bucket: &str,
    on: bool,
) -> Result<Versioning> {
    if !on && get(account, until, bucket).await? == Versioning::OFF {
        return Ok(Versioning::OFF);
    }
    let mut document = xml::Writer::new();
    document.element_with(
        "VersioningConfiguration",
        "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"",
        |inside| {
            inside.text("Status", if on { "Enabled" } else { "Suspended" });
        },
    );
    let request = ask("set versioning", Method::PUT, at_bucket(bucket, &[("versioning", None)]))
        .typed("application/xml", document.finish());
    account.ask_ok(&request, until).await?;
    let now = get(account, until, bucket).await?;
    if (now == Versioning::ON) != on {
        return Err(about(
            nonsense(format!("versioning was set and is {} afterwards", now.name())),
            &request,
        ));
    }
    Ok(now)
}
