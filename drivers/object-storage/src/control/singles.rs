// SPDX-License-Identifier: Apache-2.0
//! Deletion of many objects for stores without a request for that: one request each, some at a time.

use std::time::Instant;

use driver_api::{
    RVec,
    ext::{Conditions, DeleteOutcome, ObjectName},
};
use futures_util::{StreamExt, stream};

use super::outcome;
use crate::{account::Account, delete::delete as delete_one};

/// Requests that are on their way at once.
const AT_ONCE: usize = 16;

/// Deletes these objects; one outcome each, in their order.
pub(crate) async fn delete(
    account: &Account,
    until: Instant,
    objects: &[ObjectName],
) -> RVec<DeleteOutcome> {
    let each = stream::iter(objects.to_vec()).map(|object| async move {
        outcome::of(delete_one(account, &object, &Conditions::default(), until).await)
    });
    each.buffered(AT_ONCE).collect::<Vec<_>>().await.into()
}
