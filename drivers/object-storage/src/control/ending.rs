// SPDX-License-Identifier: Apache-2.0
//! How the completion of an upload ended, when the answer alone does not tell.
//!
//! ```text
//!   answer          what is there now        what is told
//!   ------          -----------------        ------------
//!   success         -                        success
//!   refused         the upload's own mark    success: an earlier attempt did it
//!   refused         another mark, or none    the refusal
//!   refused again   cannot be asked          the outcome is unknown
//! ```

use driver_api::{
    Error, ErrorKind, Result,
    ext::{Conditions, ObjectInfo, UploadInfo},
};

use super::facts::Facts;
use crate::wire::unquoted;

/// Whether `found` was made by this upload.
pub(crate) fn is_own(upload: &UploadInfo, found: &Facts) -> bool {
    !upload.mark.is_empty() && found.mark.eq_ignore_ascii_case(&upload.mark)
}

/// Decides after a refusal. `again`: an earlier attempt may have been done; `found`: what is there now.
pub(crate) fn decide(
    upload: &UploadInfo,
    refusal: Error,
    again: bool,
    found: Result<Option<Facts>>,
) -> Result<ObjectInfo> {
    match found {
        Ok(Some(facts)) if is_own(upload, &facts) => Ok(facts.info),
        Ok(_) if !again || !upload.mark.is_empty() => Err(refusal),
        Ok(_) => Err(unknown(
            "without the upload's mark nobody can tell whose object is there",
            &refusal,
        )),
        Err(_) if !again => Err(refusal),
        Err(error) => Err(unknown(&format!("what is there cannot be asked: {error}"), &refusal)),
    }
}

fn unknown(why: &str, refusal: &Error) -> Error {
    Error::new(ErrorKind::TIMED_OUT, format!("whether the upload was completed is unknown: {why}"))
        .during("complete upload")
        .caused_by(refusal)
        .remedy("look at the object, and at the uploads of the bucket, before you do it again")
}

/// A refused condition in the words of the contract.
pub(crate) fn refused_condition(conditions: &Conditions, refusal: Error) -> Error {
    let (kind, text) = if conditions.if_none_match == "*" {
        (ErrorKind::ALREADY_EXISTS, "an object of that name exists")
    } else if !conditions.if_match.is_empty() {
        (ErrorKind::CONFLICT, "the object is not the one that was to be replaced")
    } else {
        return refusal;
    };
    Error::new(kind, text)
        .caused_by(&refusal)
        .remedy("look at the object as it is now, and decide again")
}

/// Fails if the conditions of a write do not hold for what is there. Stores that ignore conditions are spared the worst by
/// this; only those that heed them exclude that somebody writes in between.
pub(crate) fn check(conditions: &Conditions, found: Option<&Facts>) -> Result<()> {
    let etag = found.map(|facts| facts.info.etag.as_str());
    let holds = match (conditions.if_none_match.as_str(), conditions.if_match.as_str()) {
        ("", "") => true,
        ("*", "") => etag.is_none(),
        (other, "") => etag.is_none_or(|etag| etag != unquoted(other)),
        ("", wanted) => etag.is_some_and(|etag| wanted == "*" || etag == unquoted(wanted)),
        _ => {
            return Err(Error::new(
                ErrorKind::INVALID_ARGUMENT,
                "a write has either `if_match` or `if_none_match` for its condition, not both",
            ));
        }
    };
    if holds {
        return Ok(());
    }
    let refusal = Error::new(ErrorKind::CONFLICT, "the object is not as the condition says");
    Err(refused_condition(conditions, refusal))
}
