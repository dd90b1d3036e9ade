// SPDX-License-Identifier: Apache-2.0
//! What failures of backends mean for the core, and what the core's mean for clients.

use distributed_core::{Failure, Outcome};
use driver_api::{Error, ErrorKind, Result, Retry};

/// What is stored is not what this driver stores.
pub(crate) fn damaged(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::CORRUPTED, message)
        .remedy("restore the host's state, or rebuild the volume from its companions: novastor node recover")
}

/// There is no such volume.
pub(crate) fn no_volume(name: &str) -> Error {
    Error::new(ErrorKind::NOT_FOUND, "there is no volume of this name").with("volume", name)
}

/// The outcome of an operation that changes a brick or what it stores.
///
/// Only an error that rules out a later effect is a failure. Where the backend itself does not know, or broke down
/// within, the operation may still land.
pub(crate) fn changed(result: Result<()>) -> Outcome {
    let Err(error) = result else { return Outcome::Ok };
    match error.kind() {
        ErrorKind::NO_SPACE => Outcome::NoSpace,
        ErrorKind::NOT_FOUND => Outcome::NotFound,
        ErrorKind::FENCED => Outcome::Fenced,
        ErrorKind::TIMED_OUT | ErrorKind::UNAVAILABLE | ErrorKind::PANIC | ErrorKind::INTERNAL => {
            Outcome::Unknown
        }
        _ => Outcome::Failed,
    }
}

/// The outcome of an operation that changes nothing.
pub(crate) fn asked(error: &Error) -> Outcome {
    match error.kind() {
        ErrorKind::NOT_FOUND => Outcome::NotFound,
        ErrorKind::FENCED => Outcome::Fenced,
        _ => Outcome::Failed,
    }
}

/// The outcome of a read. A backend that says which range is damaged has not failed as a whole.
pub(crate) fn unread(error: &Error) -> Outcome {
    match error.kind() {
        ErrorKind::CORRUPTED => Outcome::Damaged,
        _ => asked(error),
    }
}

/// What a client is told.
pub(crate) fn of_failure(volume: &str, failure: Failure) -> Error {
    let error = |kind, why: String| Error::new(kind, why).with("volume", volume);
    match failure {
        Failure::OutOfRange => {
            error(ErrorKind::OUT_OF_RANGE, "the range is not within the volume".into())
        }
        Failure::NoSpace => {
            error(ErrorKind::NO_SPACE, "a node that holds a replica is full".into())
                .remedy("free space on the node, or add capacity to it")
        }
        Failure::ReadOnly => {
            error(ErrorKind::UNAVAILABLE, "too few replicas are in sync to write".into())
                .with_retry(Retry::TEMPORARY)
                .remedy("bring nodes back; novastor volume replicas shows which are missing")
        }
        Failure::Stopped(why) => error(ErrorKind::UNAVAILABLE, why.to_string())
            .with_retry(Retry::TEMPORARY)
            .remedy("bring the nodes back, then attach the volume again"),
        Failure::Headless(why) => error(ErrorKind::UNAVAILABLE, why.to_string())
            .with_retry(Retry::TEMPORARY)
            .remedy(format!("novastor volume promote {volume} --dry-run")),
        Failure::Fenced => error(ErrorKind::FENCED, "another host has attached the volume".into())
            .remedy("attach the volume again to take it back"),
        Failure::Differs(_) => {
            error(ErrorKind::CORRUPTED, "replicas differ from each other".into())
                .remedy("repair the range from the replica that is right")
        }
        Failure::Damaged(why) => error(ErrorKind::CORRUPTED, why.to_string()).remedy(
            "find the node whose disk is bad: novastor volume scrub VOLUME; then repair the range from the right one",
        ),
        Failure::Refused(why) => error(ErrorKind::INVALID_ARGUMENT, why.to_string()),
    }
}
