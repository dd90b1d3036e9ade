// SPDX-License-Identifier: Apache-2.0
//! Expiry by prefix and age, which Swift has no rules for.

use std::time::{Duration, Instant};

use driver_api::{
    ErrorKind, Result,
    ext::{Conditions, ListQuery, ObjectName},
};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use swift::Expiry;

use super::{AT_ONCE, listing};
use crate::{
    account::Account,
    config::Kind,
    error::{invalid, unsupported},
    names::check_bucket,
    swift::{container, find, path, within},
    wire::time,
};

/// What was expired already goes so many seconds from now: Swift refuses a time that has passed.
const SOON: u64 = 60;

/// What the command is given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    /// The container.
    pub bucket: String,
    /// Keys that begin with this; empty: all.
    #[serde(default)]
    pub prefix: String,
    /// Objects go so many days after they were written.
    pub days: u32,
    /// Where an earlier run ended.
    #[serde(default)]
    pub after: String,
}

/// What it has done.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Done {
    /// Objects that have an expiry now.
    pub set: u64,
    /// Objects that had one as early already.
    pub kept: u64,
    /// What `after` has to be for the rest; empty: that was all.
    pub after: String,
}

/// Gives the objects below a prefix a time at which they go: so many days after they were written, or what they have if that
/// is earlier. Ends with a place to go on from when the deadline is near. Running it again does no harm.
pub(crate) async fn expire(account: &Account, until: Instant, wish: &Wish) -> Result<Done> {
    if account.kind != Kind::Swift {
        return Err(
            unsupported("this command is for Swift").remedy("set lifecycle rules of the bucket")
        );
    }
    check_bucket(account.kind, &wish.bucket)?;
    if wish.days == 0 {
        return Err(invalid("`days` begins with 1"));
    }
    let store = container(account, &wish.bucket)?;
    let mut done = Done { after: wish.after.clone(), ..Done::default() };
    let enough = until.checked_sub(Duration::from_secs(5)).unwrap_or(until);
    let mut query = ListQuery {
        prefix: wish.prefix.as_str().into(),
        after: wish.after.as_str().into(),
        limit: 256,
        ..ListQuery::default()
    };
    loop {
        let page = listing::list(account, until, &wish.bucket, &query).await?;
        let each = stream::iter(page.objects.to_vec()).map(|object| {
            let store = &store;
            async move {
                let goes = object.modified_ms / 1000 + u64::from(wish.days) * 86_400;
                let name = ObjectName::new(&wish.bucket, &object.key);
                let now = match find(account, &name, &Conditions::default(), until).await {
                    Ok((info, _)) => info,
                    // Somebody deleted it, or it went.
                    Err(error) if error.kind() == ErrorKind::NOT_FOUND => return Ok(false),
                    Err(error) => return Err(error),
                };
                if now.expires_ms != 0 && now.expires_ms / 1000 <= goes {
                    return Ok(false);
                }
                // It may have been written again since it was listed.
                let goes = (now.modified_ms / 1000 + u64::from(wish.days) * 86_400)
                    .max(time::now_ms() / 1000 + SOON);
                let key = path(&object.key)?;
                let doing = store.set_expiry(&key, Expiry::At(goes));
                match within(until, true, "the object's expiry cannot be set", doing).await {
                    Ok(()) => Ok(true),
                    Err(error) if error.kind() == ErrorKind::NOT_FOUND => Ok(false),
                    Err(error) => Err(error),
                }
            }
        });
        let outcomes: Vec<Result<bool>> = each.buffered(AT_ONCE).collect().await;
        for outcome in outcomes {
            if outcome? { done.set += 1 } else { done.kept += 1 }
        }
        if let Some(last) = page.objects.last() {
            done.after = last.key.to_string();
        }
        if page.next.is_empty() {
            done.after.clear();
            return Ok(done);
        }
        if Instant::now() >= enough {
            return Ok(done);
        }
        (query.page, query.after) = (page.next, "".into());
    }
}
