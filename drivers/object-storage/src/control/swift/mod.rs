// SPDX-License-Identifier: Apache-2.0
//! Swift, by its own client.
//!
//! It keeps no lifecycle rules: [`expire`] gives the objects below a prefix a time at which they go, by their age, and is a
//! command of the driver to be run as often as new objects are to be seen.

pub(crate) mod containers;
pub(crate) mod expire;
pub(crate) mod listing;
pub(crate) mod sign;
pub(crate) mod uploads;

use std::time::Instant;

use driver_api::{
    RVec, Result,
    ext::{Conditions, DeleteOutcome, ObjectChange, ObjectInfo, ObjectName, PutOptions},
};
use futures_util::{StreamExt, stream};
use swift::Expiry;

use super::outcome;
use crate::{
    account::Account,
    error::{invalid, unsupported},
    swift::{attributes, container, delete, find, path, within},
};

/// Why there are no lifecycle rules here.
pub(crate) const NO_LIFECYCLE: &str = "Swift keeps no lifecycle rules for a container";
/// What to do instead.
pub(crate) const INSTEAD: &str = "give objects an expiry when they are written, or have the driver's command `expire-prefix` do so by their age";

/// Requests that are on their way at once.
const AT_ONCE: usize = 16;

/// Deletes these objects, with the segments of large ones; one outcome each, in their order.
pub(crate) async fn delete_many(
    account: &Account,
    until: Instant,
    objects: &[ObjectName],
) -> RVec<DeleteOutcome> {
    let each = stream::iter(objects.to_vec()).map(|object| async move {
        outcome::of(delete(account, &object, &Conditions::default(), until).await)
    });
    each.buffered(AT_ONCE).collect::<Vec<_>>().await.into()
}

/// Changes what is said of an object.
pub(crate) async fn change(
    account: &Account,
    until: Instant,
    object: &ObjectName,
    change: &ObjectChange,
) -> Result<ObjectInfo> {
    if change.tags.is_some() {
        return Err(unsupported("objects of Swift have no tags").remedy("use metadata"));
    }
    if change.storage_class.is_some() {
        return Err(unsupported("objects of Swift have no storage classes"));
    }
    if !object.version.is_empty() {
        return Err(invalid("an old version cannot be changed"));
    }
    let (store, key) = (container(account, &object.bucket)?, path(&object.key)?);
    let (before, mark) = find(account, object, &Conditions::default(), until).await?;
    if change.content_type.is_some() || change.metadata.is_some() {
        let options = PutOptions {
            content_type: change
                .content_type
                .as_ref()
                .into_option()
                .cloned()
                .unwrap_or(before.content_type),
            metadata: change.metadata.as_ref().into_option().cloned().unwrap_or(before.metadata),
            ..PutOptions::default()
        };
        let attributes = attributes(&options, &mark)?;
        let doing = store.replace_attributes(&key, &attributes);
        within(until, true, "the object cannot be changed", doing).await?;
    }
    if let Some(secs) = change.expire_after_secs.as_ref().into_option() {
        let expiry = if *secs == 0 { Expiry::Never } else { Expiry::After(*secs) };
        within(until, true, "the object's expiry cannot be set", store.set_expiry(&key, expiry))
            .await?;
    }
    Ok(find(account, object, &Conditions::default(), until).await?.0)
}
