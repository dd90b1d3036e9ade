// SPDX-License-Identifier: Apache-2.0
//! How the completion of an upload ended, when the answer alone does not tell. [`crate::outcome`] judges after a lost answer;
//! beyond that, who completes an upload again, as after a crash, is told that it is done.

use std::time::{Duration, Instant};

use driver_api::{
    Error, ErrorKind, Result,
    ext::{Conditions, ObjectName, UploadInfo},
};

use crate::{
    account::Account,
    call::{Answer, Ask},
    get,
    info::{Found, unquoted},
    outcome,
    put::{check_conditions, unmet},
};

/// Whether `found` was made by this upload.
pub(crate) fn is_own(upload: &UploadInfo, found: &Found) -> bool {
    !upload.mark.is_empty() && found.mark.eq_ignore_ascii_case(&upload.mark)
}

/// What is at the upload's key; `None`: nothing.
pub(crate) async fn look(
    account: &Account,
    upload: &UploadInfo,
    until: Instant,
) -> Result<Option<Found>> {
    let object = ObjectName::new(&upload.bucket, &upload.key);
    match get::find(account, &object, &Conditions::default(), until).await {
        Ok(found) => Ok(Some(found)),
        Err(error)
            if error.kind() == ErrorKind::NOT_FOUND
                && !error.message().contains("there is no bucket") =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Fails if the conditions of a completion do not hold for what is there; gives the object if it is this upload's already.
/// Several stores ignore conditions of completions: this is all that they have, and leaves a gap in which another may write.
pub(crate) async fn check(
    account: &Account,
    ask: &Ask,
    upload: &UploadInfo,
    conditions: &Conditions,
    until: Instant,
) -> Result<Option<Found>> {
    check_conditions(conditions)?;
    if conditions.is_empty() {
        return Ok(None);
    }
    let found = look(account, upload, until).await?;
    if found.as_ref().is_some_and(|found| is_own(upload, found)) {
        return Ok(found);
    }
    let holds = match &found {
        None => conditions.if_match.is_empty(),
        Some(_) if conditions.if_none_match == "*" => false,
        Some(found) => {
            conditions.if_match == "*" || found.info.etag == unquoted(&conditions.if_match)
        }
    };
    if holds { Ok(None) } else { Err(unmet(account, ask, conditions)) }
}

/// What a refused completion comes to. `told`: the error where it did not happen.
pub(crate) async fn settle(
    account: &Account,
    ask: &Ask,
    upload: &UploadInfo,
    answer: &Answer,
    until: Instant,
    told: Error,
) -> Result<Found> {
    if answer.doubt.is_some() {
        let object = ObjectName::new(&upload.bucket, &upload.key);
        return outcome::settle(account, ask, &object, &upload.mark, answer, until, told).await;
    }
    match look(account, upload, until).await {
        Ok(Some(found)) if is_own(upload, &found) => Ok(found),
        _ => Err(told),
    }
}

/// What a completion without an answer comes to.
pub(crate) async fn unanswered(
    account: &Account,
    upload: &UploadInfo,
    until: Instant,
    error: Error,
) -> Result<Found> {
    let until = until.max(Instant::now() + Duration::from_secs(2));
    match look(account, upload, until).await {
        Ok(Some(found)) if is_own(upload, &found) => Ok(found),
        _ => Err(error),
    }
}
