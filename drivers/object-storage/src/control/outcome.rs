// SPDX-License-Identifier: Apache-2.0
//! What became of objects that were to be deleted.

use driver_api::{Error, ErrorKind, ext::DeleteOutcome};

/// It is gone.
pub(crate) fn gone() -> DeleteOutcome {
    DeleteOutcome { gone: true, kind: ErrorKind::from_code(0), reason: "".into(), reserved: [0; 2] }
}

/// It is still there, or may be.
pub(crate) fn kept(error: &Error) -> DeleteOutcome {
    DeleteOutcome {
        gone: false,
        kind: error.kind(),
        reason: error.to_string().into(),
        reserved: [0; 2],
    }
}

/// The store said nothing of it.
pub(crate) fn unknown() -> DeleteOutcome {
    kept(&Error::new(
        ErrorKind::TIMED_OUT,
        "the store's answer does not name it: the outcome is unknown",
    ))
}

/// The outcome of a deletion of its own.
pub(crate) fn of(result: Result<(), Error>) -> DeleteOutcome {
    match result {
        Ok(()) => gone(),
        Err(error) => kept(&error),
    }
}
