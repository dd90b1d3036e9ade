// SPDX-License-Identifier: Apache-2.0
//! Deletion of many objects for stores without a request for that: one request each, some at a time.

use std::time::Instant;

use driver_api::{
    RVec, Result,
    ext::{DeleteOutcome, ObjectName},
};
use futures_util::{StreamExt, stream};
use http::Method;

use super::outcome;
use crate::{
    account::Account,
    config::Kind,
    wire::{AnswerExt, ask, at_object},
};

/// Requests that are on their way at once.
const AT_ONCE: usize = 16;

/// Deletes these objects; one outcome each, in their order.
pub(crate) async fn delete(
    account: &Account,
    until: Instant,
    objects: &[ObjectName],
) -> RVec<DeleteOutcome> {
    let each = stream::iter(objects.to_vec())
        .map(|object| async move { outcome::of(one(account, until, &object).await) });
    each.buffered(AT_ONCE).collect::<Vec<_>>().await.into()
}

async fn one(account: &Account, until: Instant, object: &ObjectName) -> Result<()> {
    let name = if account.kind == Kind::Azure { "versionid" } else { "generation" };
    let version = [(name, Some(object.version.as_str()))];
    let query = if object.version.is_empty() { &[][..] } else { &version };
    let request =
        ask("delete objects", Method::DELETE, at_object(&object.bucket, &object.key, query));
    let reply = account.ask(&request, until).await?;
    let missing = matches!(reply.code().as_str(), "BlobNotFound" | "NoSuchKey" | "NoSuchVersion");
    if reply.status.is_success()
        || (reply.status.as_u16() == 404 && (missing || reply.doubt.is_some()))
    {
        return Ok(());
    }
    Err(reply.error(account, &request))
}
