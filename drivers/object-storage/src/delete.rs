// SPDX-License-Identifier: Apache-2.0
//! Deleting an object, or one version of it.

use std::time::Instant;

use driver_api::{
    Error, ErrorKind, Result,
    ext::{Conditions, ObjectName},
};
use http::Method;

use crate::{
    account::Account,
    config::Kind,
    error::{Refusal, invalid},
    get::{self, asking},
    outcome, probing,
    put::{check_conditions, condition, is_unmet, unmet},
};

/// Deletes an object; one that is not there is deleted already, unless a condition says what must be there.
pub(crate) async fn delete(
    account: &Account,
    object: &ObjectName,
    conditions: &Conditions,
    until: Instant,
) -> Result<()> {
    check_conditions(conditions)?;
    if !conditions.if_none_match.is_empty() {
        return Err(invalid("a deletion cannot be create-only"));
    }
    let mut ask = asking(account, "delete object", Method::DELETE, object);
    ask.headers.clear();
    if !conditions.is_empty() {
        probing::check(account, &object.bucket, probing::Need::Delete, until).await?;
        // Some stores say that they deleted what is not there, whatever the condition.
        match get::find(account, object, conditions, until).await {
            Ok(_) => {}
            Err(error) if missing(&error) => return Err(unmet(account, &ask, conditions)),
            Err(error) if error.kind() == ErrorKind::CONFLICT => {
                return Err(unmet(account, &ask, conditions));
            }
            Err(error) => return Err(error),
        }
    }
    if account.kind == Kind::Azure && object.version.is_empty() {
        ask = ask.header("x-ms-delete-snapshots", "include")?;
    }
    let ask = condition(account, ask, conditions, until).await?;
    let answer = account.ask(&ask, until).await?;
    if answer.status.is_success() {
        return outcome::confirmed(account, &ask, &answer, false);
    }
    let code = Refusal::read(&answer.headers, &answer.body).code;
    let of_bucket = matches!(code.as_str(), "NoSuchBucket" | "ContainerNotFound");
    if answer.status == 404 && !of_bucket && (conditions.is_empty() || answer.doubt.is_some()) {
        return Ok(());
    }
    let told = match is_unmet(&answer, conditions) {
        true => unmet(account, &ask, conditions),
        false => answer.error(account, &ask),
    };
    if answer.doubt.is_some() && told.kind() == ErrorKind::CONFLICT {
        // An object that is older than our attempt is not one that came after our deletion.
        return outcome::settle(account, &ask, object, "", &answer, until, told).await.map(drop);
    }
    Err(told)
}

fn missing(error: &Error) -> bool {
    error.kind() == ErrorKind::NOT_FOUND && error.message().contains("object")
}
